-- What is in each day's files: every id, and the ids that came again with other content (the first stays, see events).
-- Content is what the contract names: a copy whose unknown fields differ is a copy, here as at the door.
-- Only ids that stand there more than once have their contents compared: comparing all of them took six times as long.
WITH ids AS (
    SELECT event_date, event_id, count(*) AS landed
    FROM landed
    GROUP BY event_date, event_id
),
contents AS (
    SELECT DISTINCT
        event_date, event_id, type, player_id, ts, delta_xp, activity, boss_id, duration_ms, party_size, difficulty,
        item_id, rarity, quantity
    FROM landed
    SEMI JOIN (SELECT event_date, event_id FROM ids WHERE landed > 1) AS again
        ON landed.event_date = again.event_date AND landed.event_id = again.event_id
),
versions AS (
    SELECT event_date, count(*) - count(DISTINCT event_id) AS conflicts
    FROM contents
    GROUP BY event_date
)
SELECT
    i.event_date,
    count(*) AS events,
    CAST(coalesce(any_value(v.conflicts), 0) AS BIGINT) AS conflicts
FROM ids AS i
LEFT JOIN versions AS v ON i.event_date = v.event_date
GROUP BY i.event_date
ORDER BY i.event_date
