-- A day's claimed drops, folded once.
SELECT
    event_date,
    player_id,
    coalesce(boss_id, '') AS boss_id,
    coalesce(item_id, '') AS item_id,
    count(*) AS drops
FROM events
WHERE type = 'drop_claimed' AND event_date BETWEEN $first_day AND $last_day
GROUP BY event_date, player_id, coalesce(boss_id, ''), coalesce(item_id, '')
ORDER BY event_date, player_id, boss_id, item_id
