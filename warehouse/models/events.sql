-- The landed events, each id once on its day: the first to arrive stays.
-- Only ids that stand there more than once are sorted; the rest stream through.
WITH copies AS (
    SELECT event_date, event_id
    FROM landed
    GROUP BY event_date, event_id
    HAVING count(*) > 1
)
SELECT landed.*
FROM landed
ANTI JOIN copies ON landed.event_date = copies.event_date AND landed.event_id = copies.event_id
UNION ALL
SELECT landed.*
FROM landed
SEMI JOIN copies ON landed.event_date = copies.event_date AND landed.event_id = copies.event_id
QUALIFY row_number() OVER (
    PARTITION BY event_date, event_id
    ORDER BY received_ms, player_id, ts, type, delta_xp, activity, boss_id, duration_ms, party_size,
        difficulty, item_id, rarity, quantity, extra, key_id
) = 1
