-- A day's events, folded once.
-- Sums of XP are taken as DECIMAL and saturate at 64 bits: two absurd events must not stop the day of everyone else.
-- What fits 64 bits stays BIGINT (x, 2^31 at most, and its square): DECIMAL doubles the time of a sum.
-- A pause is the time since the player's event before; more than 1,800 s begin another session.
-- A gap is a pause without drops: they follow their kill by the game's clock, not by the player's hand.
-- An hour is one of the zone's clock: `zone_days` has each day's offset from UTC, before and after the second in which it changes.
WITH timed AS (
    SELECT
        event_date,
        player_id,
        type,
        ts,
        CAST((ts + CASE WHEN ts < changes_at THEN offset_before_s ELSE offset_after_s END) // 3600 % 24 AS INTEGER) AS clock_hour,
        CASE WHEN type = 'progression' THEN delta_xp END AS moved,
        ts - lag(ts) OVER (PARTITION BY event_date, player_id ORDER BY ts) AS pause,
        CASE WHEN type <> 'drop_claimed' THEN ts END
        - lag(CASE WHEN type <> 'drop_claimed' THEN ts END IGNORE NULLS) OVER (PARTITION BY event_date, player_id ORDER BY ts)
            AS gap
    FROM events
    JOIN zone_days USING (event_date)
    WHERE event_date BETWEEN $first_day AND $last_day
),
scored AS (
    SELECT
        *,
        CASE WHEN moved IS NOT NULL THEN greatest(least(moved, 2147483647), -2147483647) END AS x,
        CASE WHEN moved > 0 THEN moved END AS gain,
        CASE WHEN moved > 0 THEN ln(moved) END AS log_x,
        CASE WHEN gap IS NOT NULL THEN ln(greatest(gap, 1)) END AS log_gap
    FROM timed
)
SELECT
    event_date,
    player_id,
    count(*) AS events,
    min(ts) AS first_ts,
    max(ts) AS last_ts,
    count(CASE WHEN pause IS NULL OR ts // 60 <> (ts - pause) // 60 THEN 1 END) AS active_minutes,
    CAST(bit_count(bit_or(CAST(1 AS BIGINT) << clock_hour)) AS BIGINT) AS active_hours,
    count(CASE WHEN pause IS NULL OR pause > 1800 THEN 1 END) AS sessions,
    CAST(coalesce(sum(CASE WHEN pause <= 1800 THEN pause END), 0) AS BIGINT) AS session_seconds,
    CAST(greatest(least(coalesce(sum(CAST(moved AS DECIMAL(38, 0))), 0), 9223372036854775807), -9223372036854775807) AS BIGINT)
        AS xp,
    count(moved) AS xp_events,
    min(CASE WHEN moved IS NOT NULL THEN ts END) AS xp_first_ts,
    max(CASE WHEN moved <> 0 THEN ts END) AS xp_changed_ts,
    CAST(coalesce(sum(x), 0) AS DECIMAL(38, 0)) AS xp_sum,
    coalesce(sum(CAST(x * x AS DECIMAL(38, 0))), 0) AS xp_sum_sq,
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
FROM scored
GROUP BY event_date, player_id
ORDER BY event_date, player_id
