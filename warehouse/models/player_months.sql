-- A month's days, folded once more: sums of sums, each exact, so that months and days add up to the same in any order.
SELECT
    CAST(date_trunc('month', event_date) AS DATE) AS month_start,
    player_id,
    count(*) AS active_days,
    min(event_date) AS first_date,
    max(event_date) AS last_date,
    CAST(sum(events) AS BIGINT) AS events,
    sum(CAST(xp AS DECIMAL(38, 0))) AS xp,
    CAST(sum(xp_events) AS BIGINT) AS xp_events,
    min(xp_first_ts) AS xp_first_ts,
    max(xp_changed_ts) AS xp_changed_ts,
    CAST(sum(boss_kills) AS BIGINT) AS boss_kills,
    CAST(sum(drops) AS BIGINT) AS drops
FROM player_days
GROUP BY month_start, player_id
ORDER BY month_start, player_id
