-- Each XP event of the range against its player's own trailing baseline, on the plain and on the log scale.
-- A spread below 10⁻⁹ of the mean square is rounding, not spread: then z is 0, as the original rule has it.
-- Logarithms are taken to 10⁻⁶, here as in the sums: their last bits are the C or Java library's.
WITH history AS (
    SELECT
        event_date,
        player_id,
        sum(xp_events) OVER baseline AS n,
        CAST(sum(xp_sum) OVER baseline AS DOUBLE) AS total,
        CAST(sum(xp_sum_sq) OVER baseline AS DOUBLE) AS total_sq,
        sum(gain_events) OVER baseline AS log_n,
        CAST(sum(log_sum_e6) OVER baseline AS DOUBLE) / 1e6 AS log_total,
        CAST(sum(log_sum_sq_e6) OVER baseline AS DOUBLE) / 1e6 AS log_total_sq
    FROM player_days
    WHERE event_date BETWEEN $baseline_day AND $last_day
    WINDOW baseline AS (
        PARTITION BY player_id ORDER BY date_diff('day', DATE '1970-01-01', event_date) RANGE BETWEEN $baseline_days PRECEDING AND 1 PRECEDING
    )
),
scaled AS (
    SELECT event_date, player_id, 'self' AS rule, coalesce(n, 0) AS n, total, total_sq FROM history
    UNION ALL
    SELECT event_date, player_id, 'self_log', coalesce(log_n, 0), log_total, log_total_sq FROM history
),
spread AS (
    SELECT
        *,
        total / nullif(n, 0) AS mean,
        CASE WHEN n > 1 THEN (total_sq - total * total / n) / (n - 1) END AS variance
    FROM scaled
    WHERE event_date >= $first_day
),
baselines AS (
    SELECT
        s.event_date,
        s.player_id,
        s.rule,
        r.version,
        r.threshold,
        s.n,
        CASE WHEN s.n >= r.min_events THEN s.mean END AS mean,
        CASE WHEN s.n >= r.min_events THEN
            CASE WHEN s.variance > 1e-9 * s.total_sq / s.n THEN sqrt(s.variance) ELSE 0 END
        END AS sd
    FROM spread AS s
    JOIN fairness_rules AS r ON s.rule = r.rule
),
observed AS (
    SELECT event_date, player_id, event_id, delta_xp, 'self' AS rule, CAST(delta_xp AS DOUBLE) AS x
    FROM events
    WHERE type = 'progression' AND event_date BETWEEN $first_day AND $last_day
    UNION ALL
    SELECT event_date, player_id, event_id, delta_xp, 'self_log', round(ln(delta_xp) * 1e6) / 1e6
    FROM events
    WHERE type = 'progression' AND delta_xp > 0 AND event_date BETWEEN $first_day AND $last_day
)
SELECT
    b.*,
    o.event_id,
    o.delta_xp,
    CASE WHEN b.sd > 0 THEN (o.x - b.mean) / b.sd WHEN b.sd = 0 THEN 0 END AS z
FROM observed AS o
JOIN baselines AS b ON o.event_date = b.event_date AND o.player_id = b.player_id AND o.rule = b.rule
