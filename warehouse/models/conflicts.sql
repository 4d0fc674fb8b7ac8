-- Dead letters of the fold: content that came under an id which its day knew already with other content.
WITH versions AS (
    SELECT *
    FROM landed
    QUALIFY row_number() OVER (
        PARTITION BY event_date, event_id, type, player_id, ts, delta_xp, activity, boss_id, duration_ms, party_size,
            difficulty, item_id, rarity, quantity
        ORDER BY received_ms, extra, key_id
    ) = 1
),
others AS (
    SELECT v.*
    FROM versions AS v
    JOIN events AS e ON v.event_date = e.event_date AND v.event_id = e.event_id
    WHERE v.player_id <> e.player_id OR v.ts <> e.ts OR v.type <> e.type
        OR v.delta_xp IS DISTINCT FROM e.delta_xp OR v.activity IS DISTINCT FROM e.activity
        OR v.boss_id IS DISTINCT FROM e.boss_id OR v.duration_ms IS DISTINCT FROM e.duration_ms
        OR v.party_size IS DISTINCT FROM e.party_size OR v.difficulty IS DISTINCT FROM e.difficulty
        OR v.item_id IS DISTINCT FROM e.item_id OR v.rarity IS DISTINCT FROM e.rarity
        OR v.quantity IS DISTINCT FROM e.quantity
)
SELECT
    event_date,
    received_ms,
    key_id,
    '' AS request_id,
    0 AS position,
    'eventId' AS field,
    'this id came before with other content; the first stays' AS reason,
    event_id,
    CAST(to_json(struct_pack(type, player_id, ts, delta_xp, activity, boss_id, duration_ms, party_size, difficulty,
        item_id, rarity, quantity, extra)) AS VARCHAR) AS body
FROM others
ORDER BY event_date, received_ms, event_id, body
