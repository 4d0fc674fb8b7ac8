-- A day's events, folded once.
-- Sums of XP are taken as DECIMAL and saturate at 64 bits: two absurd events must not stop the day of everyone else.
-- What fits 64 bits stays BIGINT (x, 2^31 at most, and its square): DECIMAL doubles the time of a sum.
-- Minutes are told apart in a list of each player's: count(DISTINCT) hashes every player_id again and took 70 % longer in all.
WITH scored AS (
    SELECT
        *,
        CASE WHEN type = 'progression' THEN delta_xp END AS moved,
        CASE WHEN type = 'progression' THEN greatest(least(delta_xp, 2147483647), -2147483647) END AS x,
        CASE WHEN type = 'progression' AND delta_xp > 0 THEN ln(delta_xp) END AS log_x
    FROM events
    WHERE event_date BETWEEN $first_day AND $last_day
)
SELECT
    event_date,
    player_id,
    count(*) AS events,
    min(ts) AS first_ts,
    max(ts) AS last_ts,
    array_length(array_distinct(array_agg(ts // 60))) AS active_minutes,
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
GROUP BY event_date, player_id
ORDER BY event_date, player_id
