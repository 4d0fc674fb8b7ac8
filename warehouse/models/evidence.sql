-- The events behind each flag of `flags` (event_date, player_id, rule, observed), the strongest first, ten at most. A correction
-- is behind no flag of XP, a kill without a time behind none of times. The least BIGINT has no negative: XP is weighed as DOUBLE.
WITH scored AS (
    SELECT event_date, player_id, rule, event_id, -abs(z) AS weight
    FROM event_scores
    WHERE abs(z) > threshold
),
happened AS (
    SELECT
        event_date, player_id, event_id, type, ts, delta_xp, duration_ms,
        count(*) OVER (PARTITION BY event_date, type, item_id) AS alike
    FROM events
    WHERE event_date BETWEEN $first_day AND $last_day
),
weighed AS (
    SELECT
        f.event_date,
        f.player_id,
        f.rule,
        h.event_id,
        CASE
            WHEN f.rule IN ('self_day', 'cohort_xp_per_minute', 'cohort_xp_per_event') THEN -CAST(h.delta_xp AS DOUBLE)
            WHEN f.rule IN ('boss_time', 'cohort_fastest_kill') THEN abs(h.duration_ms - f.observed)
            WHEN f.rule = 'drops' THEN h.alike
            ELSE h.ts
        END AS weight
    FROM flags AS f
    JOIN happened AS h ON f.event_date = h.event_date AND f.player_id = h.player_id
    WHERE CASE
        WHEN f.rule IN ('self_day', 'cohort_xp_per_minute', 'cohort_xp_per_event') THEN h.type = 'progression' AND h.delta_xp > 0
        WHEN f.rule IN ('boss_time', 'cohort_fastest_kill') THEN h.type = 'boss_kill' AND h.duration_ms IS NOT NULL
        WHEN f.rule = 'cohort_kills_per_hour' THEN h.type = 'boss_kill'
        WHEN f.rule = 'drops' THEN h.type = 'drop_claimed'
        ELSE f.rule IN ('regularity', 'hours')
    END
    UNION ALL
    SELECT f.event_date, f.player_id, f.rule, s.event_id, s.weight
    FROM flags AS f
    JOIN scored AS s ON f.event_date = s.event_date AND f.player_id = s.player_id AND f.rule = s.rule
),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY event_date, player_id, rule ORDER BY weight, event_id) AS place
    FROM weighed
)
SELECT event_date, player_id, rule, list(event_id ORDER BY place) AS evidence
FROM numbered
WHERE place <= 10
GROUP BY event_date, player_id, rule
