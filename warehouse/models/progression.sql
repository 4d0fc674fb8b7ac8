-- Running totals per player over the days of the range, on top of everything before it; levels from the curve.
WITH earlier AS (
    SELECT player_id, sum(xp) AS xp
    FROM player_spans
    WHERE span_last < $first_day
        AND player_id IN (SELECT player_id FROM player_days WHERE event_date BETWEEN $first_day AND $last_day)
    GROUP BY player_id
),
running AS (
    SELECT
        d.event_date,
        d.player_id,
        d.xp AS xp_gained,
        coalesce(e.xp, 0)
            + sum(CAST(d.xp AS DECIMAL(38, 0))) OVER (PARTITION BY d.player_id ORDER BY d.event_date) AS xp_sum
    FROM player_days AS d
    LEFT JOIN earlier AS e ON d.player_id = e.player_id
    WHERE d.event_date BETWEEN $first_day AND $last_day
),
totals AS (
    SELECT
        event_date,
        player_id,
        xp_gained,
        CAST(greatest(least(xp_sum, 9223372036854775807), -9223372036854775807) AS BIGINT) AS xp_total,
        CAST(greatest(least(xp_sum - xp_gained, 9223372036854775807), -9223372036854775807) AS BIGINT) AS xp_before
    FROM running
)
SELECT
    t.event_date,
    t.player_id,
    t.xp_gained,
    t.xp_total,
    b.level AS level_before,
    a.level AS level_after,
    a.level - b.level AS level_ups,
    CASE WHEN a.xp_next IS NOT NULL THEN
        CAST(least(CAST(a.xp_next AS DECIMAL(38, 0)) - t.xp_total, 9223372036854775807) AS BIGINT)
    END AS xp_to_next
FROM totals AS t
JOIN levels AS b ON greatest(t.xp_before, 0) BETWEEN b.xp_required AND b.xp_last
JOIN levels AS a ON greatest(t.xp_total, 0) BETWEEN a.xp_required AND a.xp_last
ORDER BY t.event_date, t.player_id
