-- Every window of window_days, ranked: once as it stands, once as it stood before the day as_of.
-- Whom a verdict excludes from a day of the window is on neither (of a daily board's day before: from that day).
WITH sums AS (
    SELECT
        w.window_kind,
        w.season,
        w.window_start,
        w.as_of,
        d.player_id,
        count(CASE WHEN w.counts THEN 1 END) AS days,
        sum(CASE WHEN w.counts THEN CAST(d.xp AS DECIMAL(38, 0)) END) AS xp,
        sum(CASE WHEN w.counts THEN d.boss_kills END) AS boss_kills,
        coalesce(
            max(CASE WHEN w.counts THEN d.xp_changed_ts END),
            min(CASE WHEN w.counts THEN d.xp_first_ts END)
        ) AS reached_ts,
        count(CASE WHEN w.counted_before THEN 1 END) AS days_before,
        sum(CASE WHEN w.counted_before THEN CAST(d.xp AS DECIMAL(38, 0)) END) AS xp_before,
        coalesce(
            max(CASE WHEN w.counted_before THEN d.xp_changed_ts END),
            min(CASE WHEN w.counted_before THEN d.xp_first_ts END)
        ) AS reached_ts_before
    FROM player_days AS d
    JOIN window_days AS w ON d.event_date = w.event_date
    ANTI JOIN exclusions AS x
        ON d.player_id = x.player_id AND x.excluded_from < w.span_end AND w.span_start < x.excluded_until
    WHERE d.xp_events > 0
    GROUP BY w.window_kind, w.season, w.window_start, w.as_of, d.player_id
),
ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY window_kind, season, window_start, days > 0
            ORDER BY xp DESC, reached_ts, player_id
        ) AS rank,
        CASE WHEN days_before > 0 THEN row_number() OVER (
            PARTITION BY window_kind, season, window_start, days_before > 0
            ORDER BY xp_before DESC, reached_ts_before, player_id
        ) END AS previous_rank
    FROM sums
)
SELECT
    window_kind,
    season,
    window_start,
    as_of,
    rank,
    player_id,
    CAST(greatest(least(xp, 9223372036854775807), -9223372036854775807) AS BIGINT) AS xp,
    CAST(boss_kills AS BIGINT) AS boss_kills,
    reached_ts,
    previous_rank,
    previous_rank - rank AS movement
FROM ranked
WHERE days > 0
ORDER BY window_kind, season, window_start, rank
