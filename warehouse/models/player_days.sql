-- A day's events, folded once.
-- Sums of XP are taken as DECIMAL and saturate at 64 bits: two absurd events must not stop the day of everyone else.
-- What fits 64 bits stays BIGINT (x, 2^31 at most, and its square): DECIMAL doubles the time of a sum.
WITH scored AS (
    SELECT
        *,
        CASE WHEN type = 'progression' THEN delta_xp END AS moved,
        CASE WHEN type = 'progression' THEN greatest(least(delta_xp, 2147483647), -2147483647) END AS x,
        CASE WHEN type = 'progression' AND delta_xp > 0 THEN ln(delta_xp) END AS log_x
    FROM events
    WHERE event_date BETWEEN $first_day AND $last_day
),
-- Sessions end after 1,800 s without an event. Events of one half hour are never that far apart, so the pauses to look at are
-- those between half hours: 48 rows of a player's day are sorted instead of its thousands of events. A minute with an event is a bit of its half hour.
half_hours AS (
    SELECT
        event_date,
        player_id,
        min(ts) AS first_ts,
        max(ts) AS last_ts,
        bit_or(CAST(1 AS BIGINT) << CAST(ts // 60 % 30 AS INTEGER)) AS minutes
    FROM scored
    GROUP BY event_date, player_id, ts // 1800
),
pauses AS (
    SELECT
        *,
        first_ts - lag(last_ts) OVER (PARTITION BY event_date, player_id ORDER BY first_ts) AS pause
    FROM half_hours
),
sessions AS (
    SELECT
        event_date,
        player_id,
        CAST(sum(bit_count(minutes)) AS BIGINT) AS active_minutes,
        count(CASE WHEN pause IS NULL OR pause > 1800 THEN 1 END) AS sessions,
        CAST(sum(last_ts - first_ts + CASE WHEN pause <= 1800 THEN pause ELSE 0 END) AS BIGINT) AS session_seconds
    FROM pauses
    GROUP BY event_date, player_id
)
SELECT
    scored.event_date,
    scored.player_id,
    count(*) AS events,
    min(ts) AS first_ts,
    max(ts) AS last_ts,
    any_value(sessions.active_minutes) AS active_minutes,
    any_value(sessions.sessions) AS sessions,
    any_value(sessions.session_seconds) AS session_seconds,
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
    count(CASE WHEN type = 'boss_kill' THEN 1 END) AS boss_kills,
    count(CASE WHEN type = 'drop_claimed' THEN 1 END) AS drops
FROM scored
JOIN sessions ON scored.event_date = sessions.event_date AND scored.player_id = sessions.player_id
GROUP BY scored.event_date, scored.player_id
ORDER BY scored.event_date, scored.player_id
