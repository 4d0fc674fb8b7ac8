-- What is in each day's files: every id, and the ids that came again with other content (the first stays, see events).
-- Content is what the contract names: a copy whose unknown fields differ is a copy, here as at the door.
WITH contents AS (
    SELECT DISTINCT
        event_date, event_id, type, player_id, ts, delta_xp, activity, boss_id, duration_ms, party_size, difficulty,
        item_id, rarity, quantity
    FROM landed
),
ids AS (
    SELECT event_date, event_id, count(*) AS versions
    FROM contents
    GROUP BY event_date, event_id
)
SELECT
    event_date,
    count(*) AS events,
    CAST(sum(versions - 1) AS BIGINT) AS conflicts
FROM ids
GROUP BY event_date
ORDER BY event_date
