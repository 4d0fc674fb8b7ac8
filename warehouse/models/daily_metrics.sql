-- How the game did on each day of the range that has events, as docs/metrics.md defines it. All counts are integers; `value`
-- is one division of two of them, so it is the same whatever the order of the rows.
WITH first_days AS (
    SELECT player_id, min(first_date) AS first_date
    FROM player_spans
    GROUP BY player_id
),
-- The range and the 29 days before it: who is active on a day, with the pause since their day before and their next day.
active AS (
    SELECT
        d.event_date,
        d.player_id,
        f.first_date,
        d.sessions,
        d.session_seconds,
        d.first_ts - lag(d.last_ts) OVER history AS pause,
        lead(d.event_date) OVER history AS next_date
    FROM player_days AS d
    JOIN first_days AS f ON d.player_id = f.player_id
    WHERE d.event_date BETWEEN $month_start AND $last_day
    WINDOW history AS (PARTITION BY d.player_id ORDER BY d.event_date)
),
-- A player counts as active from each of their days until the next one, or until 7 (30) days later: one step up and one down
-- per row give the distinct players of every window, where a join over 30 days would multiply the rows by 30.
steps AS (
    SELECT event_date, 1 AS week, 1 AS month FROM active
    UNION ALL
    SELECT least(next_date, CAST(event_date + 7 AS DATE)), -1, 0 FROM active
    UNION ALL
    SELECT least(next_date, CAST(event_date + 30 AS DATE)), 0, -1 FROM active
),
reach AS (
    SELECT
        event_date,
        sum(sum(week)) OVER (ORDER BY event_date) AS wau,
        sum(sum(month)) OVER (ORDER BY event_date) AS mau
    FROM steps
    GROUP BY event_date
),
-- A session that goes on over midnight began on the day before: it is taken from the day's count, its pause given to the day's time.
totals AS (
    SELECT
        event_date,
        count(*) AS dau,
        count(CASE WHEN first_date = event_date THEN 1 END) AS new_players,
        sum(sessions) - count(CASE WHEN pause <= 1800 THEN 1 END) AS sessions,
        sum(session_seconds + CASE WHEN pause <= 1800 THEN pause ELSE 0 END) AS session_seconds
    FROM active
    WHERE event_date >= $first_day
    GROUP BY event_date
),
cohorts AS (
    SELECT first_date, count(*) AS players
    FROM first_days
    GROUP BY first_date
),
returned AS (
    SELECT event_date, first_date, count(*) AS players
    FROM active
    WHERE event_date >= $first_day
    GROUP BY event_date, first_date
),
retention AS (
    SELECT
        t.event_date,
        date_diff('day', c.first_date, t.event_date) AS age,
        coalesce(r.players, 0) AS returned,
        c.players AS players
    FROM totals AS t
    JOIN cohorts AS c ON date_diff('day', c.first_date, t.event_date) BETWEEN 1 AND 30
    LEFT JOIN returned AS r ON r.event_date = t.event_date AND r.first_date = c.first_date
),
ascents AS (
    SELECT
        p.event_date,
        l.level,
        date_diff('day', f.first_date, p.event_date) AS days,
        row_number() OVER (
            PARTITION BY p.event_date, l.level ORDER BY date_diff('day', f.first_date, p.event_date)
        ) AS place,
        count(*) OVER (PARTITION BY p.event_date, l.level) AS players
    FROM progression AS p
    JOIN levels AS l ON p.level_before < l.level AND l.level <= p.level_after
    JOIN first_days AS f ON p.player_id = f.player_id
    WHERE p.event_date BETWEEN $first_day AND $last_day
),
kills AS (
    SELECT event_date, boss_id, sum(events) AS kills
    FROM activity_days
    WHERE type = 'boss_kill' AND boss_id <> '' AND event_date BETWEEN $first_day AND $last_day
    GROUP BY event_date, boss_id
),
drops AS (
    SELECT k.event_date, k.boss_id, k.kills, d.item_id, d.rarity, d.events
    FROM activity_days AS d
    JOIN kills AS k ON d.event_date = k.event_date AND d.boss_id = k.boss_id
    WHERE d.type = 'drop_claimed'
),
measured AS (
    SELECT event_date, 'dau' AS metric, '' AS subject, '' AS detail, dau AS numerator, NULL AS denominator FROM totals
    UNION ALL
    SELECT t.event_date, 'wau', '', '', a.wau, NULL FROM totals AS t JOIN reach AS a ON t.event_date = a.event_date
    UNION ALL
    SELECT t.event_date, 'mau', '', '', a.mau, NULL FROM totals AS t JOIN reach AS a ON t.event_date = a.event_date
    UNION ALL
    SELECT t.event_date, 'stickiness', '', '', t.dau, a.mau FROM totals AS t JOIN reach AS a ON t.event_date = a.event_date
    UNION ALL
    SELECT event_date, 'new_players', '', '', new_players, NULL FROM totals
    UNION ALL
    SELECT event_date, 'returning_players', '', '', dau - new_players, NULL FROM totals
    UNION ALL
    SELECT event_date, 'retention', CAST(age AS VARCHAR), '', returned, players FROM retention
    UNION ALL
    SELECT event_date, 'sessions', '', '', sessions, NULL FROM totals
    UNION ALL
    SELECT event_date, 'sessions_per_player', '', '', sessions, dau FROM totals
    UNION ALL
    SELECT event_date, 'session_length', '', '', session_seconds, sessions FROM totals
    UNION ALL
    SELECT event_date, 'players_at_level', CAST(level_after AS VARCHAR), '', count(*), NULL
    FROM progression
    WHERE event_date BETWEEN $first_day AND $last_day
    GROUP BY event_date, level_after
    UNION ALL
    SELECT event_date, 'level_ups', CAST(level AS VARCHAR), '', count(*), NULL FROM ascents GROUP BY event_date, level
    UNION ALL
    SELECT event_date, 'days_to_level', CAST(level AS VARCHAR), '', min(CASE WHEN place * 2 >= players THEN days END), NULL
    FROM ascents
    GROUP BY event_date, level
    UNION ALL
    SELECT event_date, 'drop_rate', boss_id, item_id, sum(events), kills FROM drops GROUP BY event_date, boss_id, item_id, kills
    UNION ALL
    SELECT event_date, 'rarity_rate', boss_id, rarity, sum(events), kills FROM drops GROUP BY event_date, boss_id, rarity, kills
)
SELECT
    event_date,
    metric,
    subject,
    detail,
    CAST(numerator AS DOUBLE) / coalesce(denominator, 1) AS value,
    CAST(numerator AS BIGINT) AS numerator,
    CAST(denominator AS BIGINT) AS denominator
FROM measured
WHERE denominator IS NULL OR denominator > 0
ORDER BY event_date, metric, subject, detail
