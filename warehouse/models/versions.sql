-- The landed events, each content of an id once on its day: of its copies, the first to arrive. What compaction keeps.
-- Sorted to the last column, so that the same rows are the same file.
WITH copies AS (
    SELECT event_date, event_id
    FROM landed
    GROUP BY event_date, event_id
    HAVING count(*) > 1
),
versions AS (
    SELECT landed.*
    FROM landed
    ANTI JOIN copies ON landed.event_date = copies.event_date AND landed.event_id = copies.event_id
    UNION ALL
    SELECT landed.*
    FROM landed
    SEMI JOIN copies ON landed.event_date = copies.event_date AND landed.event_id = copies.event_id
    QUALIFY row_number() OVER (
        PARTITION BY event_date, event_id, player_id, ts, type, delta_xp, activity, boss_id, duration_ms, party_size,
            difficulty, item_id, rarity, quantity
        ORDER BY received_ms, extra, key_id
    ) = 1
)
SELECT *
FROM versions
ORDER BY event_date, player_id, ts, event_id, received_ms, type, delta_xp, activity, boss_id, duration_ms, party_size,
    difficulty, item_id, rarity, quantity
