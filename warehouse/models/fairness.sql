-- Each player and day of the range with everything that the rules ask: the day's sums, the trailing sums, kills and loot.
SELECT
    t.event_date,
    t.player_id,
    t.active_minutes,
    t.active_hours,
    t.xp,
    t.gain_events,
    1e-6 * t.log_sum_e6 AS log_sum,
    t.gain_max,
    t.gain_min,
    t.gaps,
    1e-6 * t.gap_log_sum_e6 AS gap_log_sum,
    1e-6 * t.gap_log_sum_sq_e6 AS gap_log_sum_sq,
    t.boss_kills,
    b.level,
    b.days AS baseline_days,
    b.days_as_long AS own_as_long,
    b.xp AS baseline_xp,
    b.n,
    b.mean,
    b.sd,
    b.log_days,
    b.log_n,
    b.log_n_sq,
    b.log_mean,
    b.log_sd,
    b.log_within_sq,
    b.log_between_sq,
    h.as_long,
    h.player_days,
    k.kills,
    k.fastest_ms,
    k.n AS kill_n,
    k.center_ms,
    k.spread AS kill_spread,
    k.z AS kill_z,
    o.trials,
    o.drops AS rare_drops,
    o.expected AS expected_drops,
    o.others AS others_kills
FROM player_days AS t
JOIN xp_baselines AS b ON t.event_date = b.event_date AND t.player_id = b.player_id
LEFT JOIN long_days AS h ON t.event_date = h.event_date AND t.active_hours = h.active_hours
LEFT JOIN kill_times AS k ON t.event_date = k.event_date AND t.player_id = k.player_id
LEFT JOIN loot AS o ON t.event_date = o.event_date AND t.player_id = o.player_id
WHERE t.event_date BETWEEN $first_day AND $last_day
ORDER BY t.event_date, t.player_id
