-- Each player and day of the range beside the sums of their trailing days. Logs are less the level of their day, so that a
-- double-XP weekend is neither today's suspicion nor tomorrow's excuse; per day they are integers again.
-- A spread below 10⁻⁹ of the mean square, or below 1 % on the log scale, is rounding: 0, and by the original rule z is 0.
-- day_sq_e6 is n·(the day's mean)²: what lies between days; the rest of log_sum_sq_e6 lies within them.
WITH leveled AS (
    SELECT
        d.*,
        d.log_sum_e6 - d.gain_events * l.level_e6 AS less_level_e6,
        CAST(round(
            d.log_sum_sq_e6 - 2e-6 * l.level_e6 * d.log_sum_e6 + 1e-6 * d.gain_events * l.level_e6 * l.level_e6
        ) AS BIGINT) AS less_level_sq_e6
    FROM player_days AS d
    LEFT JOIN day_levels AS l ON d.event_date = l.event_date
),
days AS (
    SELECT
        *,
        CAST(round(1e-6 * log_sum_e6 * log_sum_e6 / nullif(gain_events, 0)) AS BIGINT) AS day_sq_e6,
        CAST(round(1e-6 * less_level_e6 * less_level_e6 / nullif(gain_events, 0)) AS BIGINT) AS less_level_day_sq_e6
    FROM leveled
),
today AS (
    SELECT t.*, coalesce(l.known, false) AS known, CASE WHEN l.known THEN 1e-6 * l.level_e6 ELSE 0 END AS level
    FROM player_days AS t
    LEFT JOIN day_levels AS l ON t.event_date = l.event_date
    WHERE t.event_date BETWEEN $first_day AND $last_day
),
sums AS (
    SELECT
        t.event_date,
        t.player_id,
        t.level,
        count(b.player_id) AS days,
        coalesce(sum(CAST(b.xp AS DECIMAL(38, 0))), 0) AS xp,
        coalesce(sum(b.xp_events), 0) AS n,
        sum(b.xp_sum) AS xp_sum,
        sum(b.xp_sum_sq) AS xp_sum_sq,
        count(CASE WHEN b.gain_events > 0 THEN 1 END) AS log_days,
        coalesce(sum(b.gain_events), 0) AS log_n,
        sum(b.gain_events * b.gain_events) AS log_n_sq,
        sum(CASE WHEN t.known THEN b.less_level_e6 ELSE b.log_sum_e6 END) AS log_sum_e6,
        sum(CAST(CASE WHEN t.known THEN b.less_level_sq_e6 ELSE b.log_sum_sq_e6 END AS DECIMAL(38, 0))) AS log_sum_sq_e6,
        sum(CAST(CASE WHEN t.known THEN b.less_level_day_sq_e6 ELSE b.day_sq_e6 END AS DECIMAL(38, 0))) AS day_sq_e6,
        count(CASE WHEN b.active_hours >= t.active_hours THEN 1 END) AS days_as_long
    FROM today AS t
    LEFT JOIN days AS b
        ON t.player_id = b.player_id
        AND b.event_date >= t.event_date - $baseline_days
        AND b.event_date < t.event_date
    GROUP BY t.event_date, t.player_id, t.level
),
doubles AS (
    SELECT
        event_date,
        player_id,
        level,
        days,
        days_as_long,
        CAST(xp AS DOUBLE) AS xp,
        CAST(n AS BIGINT) AS n,
        CAST(xp_sum AS DOUBLE) AS xp_sum,
        CAST(xp_sum_sq AS DOUBLE) AS xp_sum_sq,
        log_days,
        CAST(log_n AS BIGINT) AS log_n,
        CAST(log_n_sq AS DOUBLE) AS log_n_sq,
        1e-6 * CAST(log_sum_e6 AS DOUBLE) AS log_sum,
        1e-6 * CAST(log_sum_sq_e6 AS DOUBLE) AS log_sum_sq,
        1e-6 * CAST(day_sq_e6 AS DOUBLE) AS day_sq
    FROM sums
),
spread AS (
    SELECT
        *,
        xp_sum / nullif(n, 0) AS mean,
        (xp_sum_sq - xp_sum * xp_sum / nullif(n, 0)) / nullif(n - 1, 0) AS variance,
        log_sum / nullif(log_n, 0) AS log_mean,
        (log_sum_sq - log_sum * log_sum / nullif(log_n, 0)) / nullif(log_n - 1, 0) AS log_variance
    FROM doubles
)
SELECT
    event_date,
    player_id,
    level,
    days,
    days_as_long,
    xp,
    n,
    mean,
    CASE WHEN variance > 1e-9 * xp_sum_sq / n THEN sqrt(variance) WHEN n > 1 THEN 0 END AS sd,
    log_days,
    log_n,
    log_n_sq,
    log_mean,
    CASE WHEN log_variance > 1e-4 THEN sqrt(log_variance) WHEN log_n > 1 THEN 0 END AS log_sd,
    log_sum_sq - day_sq AS log_within_sq,
    day_sq - log_sum * log_mean AS log_between_sq
FROM spread
