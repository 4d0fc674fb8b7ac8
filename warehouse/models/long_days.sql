-- For each day and number of hours, the player-days of the trailing days that were at least as long.
WITH lengths AS (
    SELECT event_date, active_hours, count(*) AS player_days
    FROM player_days
    GROUP BY event_date, active_hours
),
asked AS (
    SELECT event_date, active_hours
    FROM lengths
    WHERE event_date BETWEEN $first_day AND $last_day
)
SELECT
    a.event_date,
    a.active_hours,
    CAST(coalesce(sum(CASE WHEN b.active_hours >= a.active_hours THEN b.player_days END), 0) AS BIGINT) AS as_long,
    CAST(coalesce(sum(b.player_days), 0) AS BIGINT) AS player_days
FROM asked AS a
LEFT JOIN lengths AS b ON b.event_date >= a.event_date - $baseline_days AND b.event_date < a.event_date
GROUP BY a.event_date, a.active_hours
