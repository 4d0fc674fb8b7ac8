-- A day's boss kills, folded once.
SELECT
    event_date,
    player_id,
    coalesce(boss_id, '') AS boss_id,
    coalesce(difficulty, '') AS difficulty,
    coalesce(party_size, 0) AS party_size,
    count(*) AS kills,
    min(duration_ms) AS fastest_ms
FROM events
WHERE type = 'boss_kill' AND event_date BETWEEN $first_day AND $last_day
GROUP BY event_date, player_id, coalesce(boss_id, ''), coalesce(difficulty, ''), coalesce(party_size, 0)
ORDER BY event_date, player_id, boss_id, difficulty, party_size
