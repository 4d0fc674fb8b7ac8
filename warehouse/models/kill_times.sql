-- Each player's fastest kill of the day, measured by all fastest kills of that boss, difficulty and party size in the trailing
-- days: on the log scale, by median and MAD, less what the day did to all kills (a patch that makes bosses weaker).
-- Where the MAD is 0, the mean absolute deviation serves (in whole 10⁻⁶, so that any order of adding gives the same); where that
-- is 0 too, there is nothing to measure by. z below 0 is faster. center_ms and spread belong to the kill.
WITH today AS (
    SELECT *, ln(fastest_ms) AS log_ms
    FROM player_boss_days
    WHERE fastest_ms IS NOT NULL AND event_date BETWEEN $first_day AND $last_day
),
fights AS (
    SELECT DISTINCT event_date, boss_id, difficulty, party_size
    FROM today
),
earlier AS (
    SELECT f.*, ln(b.fastest_ms) AS log_ms
    FROM fights AS f
    JOIN player_boss_days AS b
        ON f.boss_id = b.boss_id AND f.difficulty = b.difficulty AND f.party_size = b.party_size
        AND b.event_date >= f.event_date - $baseline_days AND b.event_date < f.event_date
    WHERE b.fastest_ms IS NOT NULL
),
centers AS (
    SELECT event_date, boss_id, difficulty, party_size, count(*) AS n, median(log_ms) AS center
    FROM earlier
    GROUP BY event_date, boss_id, difficulty, party_size
),
spreads AS (
    SELECT
        t.event_date, t.boss_id, t.difficulty, t.party_size,
        coalesce(
            nullif(1.4826 * median(abs(t.log_ms - c.center)), 0),
            1.2533e-6 * sum(CAST(round(1e6 * abs(t.log_ms - c.center)) AS BIGINT)) / count(*)
        ) AS spread
    FROM earlier AS t
    JOIN centers AS c
        ON t.event_date = c.event_date AND t.boss_id = c.boss_id AND t.difficulty = c.difficulty AND t.party_size = c.party_size
    GROUP BY t.event_date, t.boss_id, t.difficulty, t.party_size
),
scored AS (
    SELECT t.*, c.n, c.center, s.spread, (t.log_ms - c.center) / nullif(s.spread, 0) AS z
    FROM today AS t
    LEFT JOIN centers AS c
        ON t.event_date = c.event_date AND t.boss_id = c.boss_id AND t.difficulty = c.difficulty AND t.party_size = c.party_size
    LEFT JOIN spreads AS s
        ON t.event_date = s.event_date AND t.boss_id = s.boss_id AND t.difficulty = s.difficulty AND t.party_size = s.party_size
),
weather AS (
    SELECT event_date, median(z) AS z
    FROM scored
    GROUP BY event_date
),
cleared AS (
    SELECT s.*, s.z - w.z AS z_today
    FROM scored AS s
    JOIN weather AS w ON s.event_date = w.event_date
)
SELECT
    event_date,
    player_id,
    sum(kills) OVER (PARTITION BY event_date, player_id) AS kills,
    fastest_ms,
    coalesce(n, 0) AS n,
    exp(center) AS center_ms,
    spread,
    CASE WHEN n >= $min_n THEN z_today END AS z
FROM cleared
QUALIFY row_number() OVER (
    PARTITION BY event_date, player_id
    ORDER BY CASE WHEN n >= $min_n THEN z_today END NULLS LAST, n DESC, boss_id, difficulty, party_size
) = 1
