-- Players' history in few rows: the whole months that are bound, and the days that are. A fold binds each day once, in one or the other.
SELECT
    month_start AS span_first,
    last_day(month_start) AS span_last,
    player_id,
    first_date,
    xp,
    xp_events,
    xp_first_ts,
    xp_changed_ts,
    boss_kills
FROM player_months
UNION ALL
SELECT
    event_date AS span_first,
    event_date AS span_last,
    player_id,
    event_date AS first_date,
    CAST(xp AS DECIMAL(38, 0)) AS xp,
    xp_events,
    xp_first_ts,
    xp_changed_ts,
    boss_kills
FROM player_days
