-- Every window of window_spans, ranked: once as it stands, once as it stood before the day as_of. One pass over history.
-- Whom a verdict excludes from a day of the window is on neither (of a daily board's day before: from that day).
WITH sums AS (
    SELECT
        w.board,
        s.player_id,
        sum(CASE WHEN w.counts THEN s.xp_events ELSE 0 END) > 0 AS ranks,
        sum(CASE WHEN w.counts THEN s.xp END) AS xp,
        sum(CASE WHEN w.counts THEN s.boss_kills END) AS boss_kills,
        coalesce(
            max(CASE WHEN w.counts THEN s.xp_changed_ts END),
            min(CASE WHEN w.counts THEN s.xp_first_ts END)
        ) AS reached_ts,
        sum(CASE WHEN w.counted_before THEN s.xp_events ELSE 0 END) > 0 AS ranked_before,
        sum(CASE WHEN w.counted_before THEN s.xp END) AS xp_before,
        coalesce(
            max(CASE WHEN w.counted_before THEN s.xp_changed_ts END),
            min(CASE WHEN w.counted_before THEN s.xp_first_ts END)
        ) AS reached_ts_before
    FROM player_spans AS s
    JOIN window_spans AS w ON s.span_first = w.span_first AND s.span_last = w.span_last
    ANTI JOIN exclusions AS x
        ON s.player_id = x.player_id AND x.excluded_from < w.verdicts_until AND w.verdicts_from < x.excluded_until
    GROUP BY w.board, s.player_id
),
ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY board, ranks ORDER BY xp DESC, reached_ts, player_id) AS rank,
        CASE WHEN ranked_before THEN row_number() OVER (
            PARTITION BY board, ranked_before
            ORDER BY xp_before DESC, reached_ts_before, player_id
        ) END AS previous_rank
    FROM sums
),
boards AS (
    SELECT DISTINCT board, window_kind, season, window_start, as_of
    FROM window_spans
)
SELECT
    b.window_kind,
    b.season,
    b.window_start,
    b.as_of,
    r.rank,
    r.player_id,
    CAST(greatest(least(r.xp, 9223372036854775807), -9223372036854775807) AS BIGINT) AS xp,
    CAST(r.boss_kills AS BIGINT) AS boss_kills,
    r.reached_ts,
    r.previous_rank,
    r.previous_rank - r.rank AS movement
FROM ranked AS r
JOIN boards AS b ON r.board = b.board
WHERE r.ranks
ORDER BY b.window_kind, b.season, b.window_start, r.rank
