-- What landed on each day: every row, every id, and the ids that came again with other content (the first stays, see events).
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
),
landed_rows AS (
    SELECT event_date, count(*) AS landed
    FROM landed
    GROUP BY event_date
)
SELECT
    i.event_date,
    CAST(any_value(l.landed) AS BIGINT) AS landed,
    count(*) AS events,
    CAST(sum(i.versions - 1) AS BIGINT) AS conflicts
FROM ids AS i
JOIN landed_rows AS l ON i.event_date = l.event_date
GROUP BY i.event_date
ORDER BY i.event_date
