-- A day's events, folded once.
-- A gap is the time since the player's event before; a drop follows its kill by the game's clock, not by the player's hand.
-- Sums of XP are taken as DECIMAL and saturate at 64 bits: two absurd events must not stop the day of everyone else.
WITH scored AS (
    SELECT
        *,
        CASE WHEN type = 'progression' THEN delta_xp END AS moved,
        CASE WHEN type = 'progression' THEN CAST(greatest(least(delta_xp, 2147483647), -2147483647) AS DECIMAL(38, 0)) END AS x,
        CASE WHEN type = 'progression' AND delta_xp > 0 THEN delta_xp END AS gain,
        CASE WHEN type = 'progression' AND delta_xp > 0 THEN ln(delta_xp) END AS log_x,
        ts - lag(ts) OVER (PARTITION BY event_date, player_id, type = 'drop_claimed' ORDER BY ts) AS gap
    FROM events
    WHERE event_date BETWEEN $first_day AND $last_day
),
timed AS (
    SELECT *, CASE WHEN type <> 'drop_claimed' AND gap IS NOT NULL THEN ln(greatest(gap, 1)) END AS log_gap
    FROM scored
)
SELECT
    event_date,
    player_id,
    count(*) AS events,
    min(ts) AS first_ts,
    max(ts) AS last_ts,
    count(DISTINCT ts // 60) AS active_minutes,
    CAST(bit_count(bit_or(CAST(1 AS BIGINT) << CAST(ts // 3600 % 24 AS INTEGER))) AS BIGINT) AS active_hours,
    CAST(greatest(least(coalesce(sum(CAST(moved AS DECIMAL(38, 0))), 0), 9223372036854775807), -9223372036854775807) AS BIGINT)
        AS xp,
    count(moved) AS xp_events,
    min(CASE WHEN moved IS NOT NULL THEN ts END) AS xp_first_ts,
    max(CASE WHEN moved <> 0 THEN ts END) AS xp_changed_ts,
    coalesce(sum(x), 0) AS xp_sum,
    coalesce(sum(CAST(CAST(x AS BIGINT) * CAST(x AS BIGINT) AS DECIMAL(38, 0))), 0) AS xp_sum_sq,
    count(log_x) AS gain_events,
    CAST(coalesce(sum(CAST(round(log_x * 1e6) AS BIGINT)), 0) AS BIGINT) AS log_sum_e6,
    CAST(coalesce(sum(CAST(round(log_x * log_x * 1e6) AS BIGINT)), 0) AS BIGINT) AS log_sum_sq_e6,
    max(gain) AS gain_max,
    min(gain) AS gain_min,
    count(log_gap) AS gaps,
    CAST(coalesce(sum(CAST(round(log_gap * 1e6) AS BIGINT)), 0) AS BIGINT) AS gap_log_sum_e6,
    CAST(coalesce(sum(CAST(round(log_gap * log_gap * 1e6) AS BIGINT)), 0) AS BIGINT) AS gap_log_sum_sq_e6,
    count(CASE WHEN type = 'boss_kill' THEN 1 END) AS boss_kills,
    count(CASE WHEN type = 'drop_claimed' THEN 1 END) AS drops
FROM timed
GROUP BY event_date, player_id
ORDER BY event_date, player_id
