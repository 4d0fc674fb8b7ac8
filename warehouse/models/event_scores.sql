-- Each gain of the range against its player's own trailing baseline, on the plain and on the log scale. A negative correction
-- is in the baseline of the plain scale, but is no gain: it is not judged.
-- Logs are taken to 10⁻⁹: their last bit is the C or Java library's.
WITH baselines AS (
    SELECT event_date, player_id, 'self' AS rule, n, mean, sd
    FROM xp_baselines
    UNION ALL
    SELECT event_date, player_id, 'self_log', log_n, log_mean + level, log_sd
    FROM xp_baselines
),
judged AS (
    SELECT
        b.event_date,
        b.player_id,
        b.rule,
        r.version,
        r.review AS threshold,
        b.n,
        CASE WHEN b.n >= r.min_n THEN b.mean END AS mean,
        CASE WHEN b.n >= r.min_n THEN b.sd END AS sd
    FROM baselines AS b
    JOIN fairness_rules AS r ON b.rule = r.rule
),
scored AS (
    SELECT
        j.*,
        e.event_id,
        e.delta_xp,
        CASE WHEN j.rule = 'self' THEN CAST(e.delta_xp AS DOUBLE) ELSE round(1e9 * ln(e.delta_xp)) / 1e9 END AS x
    FROM events AS e
    JOIN judged AS j ON e.event_date = j.event_date AND e.player_id = j.player_id
    WHERE e.type = 'progression' AND e.delta_xp > 0 AND e.event_date BETWEEN $first_day AND $last_day
)
SELECT *, CASE WHEN sd > 0 THEN (x - mean) / sd WHEN sd = 0 THEN 0 END AS z
FROM scored
