-- What was played on each day of the range. Each type of event has the dimensions that say something about it; the others are empty.
-- Percentiles are of the nearest rank: the least observed duration that so many in a hundred do not exceed.
WITH subjects AS (
    SELECT
        event_date,
        type,
        CASE WHEN type = 'progression' THEN coalesce(activity, '') ELSE '' END AS activity,
        CASE WHEN type <> 'progression' THEN coalesce(boss_id, '') ELSE '' END AS boss_id,
        CASE WHEN type = 'boss_kill' THEN coalesce(difficulty, '') ELSE '' END AS difficulty,
        CASE WHEN type = 'boss_kill' THEN coalesce(party_size, 0) ELSE 0 END AS party_size,
        CASE WHEN type = 'drop_claimed' THEN coalesce(item_id, '') ELSE '' END AS item_id,
        CASE WHEN type = 'drop_claimed' THEN coalesce(rarity, '') ELSE '' END AS rarity,
        player_id,
        CASE WHEN type = 'progression' THEN delta_xp END AS moved,
        CASE WHEN type = 'drop_claimed' THEN coalesce(quantity, 1) END AS items,
        CASE WHEN type = 'boss_kill' THEN duration_ms END AS duration_ms
    FROM events
    WHERE event_date BETWEEN $first_day AND $last_day
),
placed AS (
    SELECT
        event_date, boss_id, difficulty, party_size, duration_ms,
        row_number() OVER (PARTITION BY event_date, boss_id, difficulty, party_size ORDER BY duration_ms) AS place,
        count(*) OVER (PARTITION BY event_date, boss_id, difficulty, party_size) AS kills
    FROM subjects
    WHERE duration_ms IS NOT NULL
),
times AS (
    SELECT
        event_date, 'boss_kill' AS type, boss_id, difficulty, party_size,
        count(*) AS timed_kills,
        min(CASE WHEN CAST(place AS BIGINT) * 100 >= kills * 50 THEN duration_ms END) AS duration_median_ms,
        min(CASE WHEN CAST(place AS BIGINT) * 100 >= kills * 90 THEN duration_ms END) AS duration_p90_ms
    FROM placed
    GROUP BY event_date, boss_id, difficulty, party_size
),
counts AS (
    SELECT
        event_date, type, activity, boss_id, difficulty, party_size, item_id, rarity,
        count(*) AS events,
        count(DISTINCT player_id) AS players,
        CAST(greatest(least(coalesce(sum(CAST(moved AS DECIMAL(38, 0))), 0), 9223372036854775807), -9223372036854775807)
            AS BIGINT) AS xp,
        CAST(least(coalesce(sum(CAST(items AS DECIMAL(38, 0))), 0), 9223372036854775807) AS BIGINT) AS quantity
    FROM subjects
    GROUP BY event_date, type, activity, boss_id, difficulty, party_size, item_id, rarity
)
SELECT
    c.*,
    coalesce(t.timed_kills, 0) AS timed_kills,
    t.duration_median_ms,
    t.duration_p90_ms
FROM counts AS c
LEFT JOIN times AS t
    ON c.event_date = t.event_date AND c.type = t.type AND c.boss_id = t.boss_id AND c.difficulty = t.difficulty
        AND c.party_size = t.party_size
ORDER BY c.event_date, c.type, c.activity, c.boss_id, c.difficulty, c.party_size, c.item_id, c.rarity
