-- Each player's fastest kill of the day, measured by all fastest kills of that boss, difficulty and party size in the trailing
-- days: on the log scale, by median and MAD, less what the day did to all kills (a patch that makes bosses weaker).
-- Where the MAD is 0, the mean absolute deviation serves; where that is 0 too, there is nothing to measure by. z below 0 is
-- faster. center_ms and spread belong to the kill. Logs and z are taken to 10⁻⁹, medians and sums of whole numbers: the last bit of
-- a log is the C or Java library's, the last bit of a median the engine's.
WITH today AS (
    SELECT *, round(1e9 * ln(fastest_ms)) AS log_e9
    FROM player_boss_days
    WHERE fastest_ms IS NOT NULL AND event_date BETWEEN $first_day AND $last_day
),
fights AS (
    SELECT DISTINCT event_date, boss_id, difficulty, party_size
    FROM today
),
earlier AS (
    SELECT f.*, round(1e9 * ln(b.fastest_ms)) AS log_e9
    FROM fights AS f
    JOIN player_boss_days AS b
        ON f.boss_id = b.boss_id AND f.difficulty = b.difficulty AND f.party_size = b.party_size
        AND b.event_date >= f.event_date - $baseline_days AND b.event_date < f.event_date
    WHERE b.fastest_ms IS NOT NULL
),
centers AS (
    SELECT event_date, boss_id, difficulty, party_size, count(*) AS n, median(log_e9) AS center_e9
    FROM earlier
    GROUP BY event_date, boss_id, difficulty, party_size
),
spreads AS (
    SELECT
        t.event_date, t.boss_id, t.difficulty, t.party_size,
        coalesce(
            nullif(1.4826 * median(abs(t.log_e9 - c.center_e9)), 0),
            1.2533 * CAST(sum(CAST(round(abs(t.log_e9 - c.center_e9)) AS BIGINT)) AS DOUBLE) / count(*)
        ) AS spread_e9
    FROM earlier AS t
    JOIN centers AS c
        ON t.event_date = c.event_date AND t.boss_id = c.boss_id AND t.difficulty = c.difficulty AND t.party_size = c.party_size
    GROUP BY t.event_date, t.boss_id, t.difficulty, t.party_size
),
scored AS (
    SELECT t.*, c.n, c.center_e9, s.spread_e9, round(1e9 * (t.log_e9 - c.center_e9) / nullif(s.spread_e9, 0)) AS z_e9
    FROM today AS t
    LEFT JOIN centers AS c
        ON t.event_date = c.event_date AND t.boss_id = c.boss_id AND t.difficulty = c.difficulty AND t.party_size = c.party_size
    LEFT JOIN spreads AS s
        ON t.event_date = s.event_date AND t.boss_id = s.boss_id AND t.difficulty = s.difficulty AND t.party_size = s.party_size
),
weather AS (
    SELECT event_date, median(z_e9) AS z_e9
    FROM scored
    GROUP BY event_date
),
cleared AS (
    SELECT s.*, 1e-9 * (s.z_e9 - w.z_e9) AS z_today
    FROM scored AS s
    JOIN weather AS w ON s.event_date = w.event_date
)
SELECT
    event_date,
    player_id,
    CAST(sum(kills) OVER (PARTITION BY event_date, player_id) AS BIGINT) AS kills,
    fastest_ms,
    coalesce(n, 0) AS n,
    round(1e6 * exp(1e-9 * center_e9)) / 1e6 AS center_ms,
    1e-9 * spread_e9 AS spread,
    CASE WHEN n >= $min_n THEN z_today END AS z
FROM cleared
QUALIFY row_number() OVER (
    PARTITION BY event_date, player_id
    ORDER BY CASE WHEN n >= $min_n THEN z_today END NULLS LAST, n DESC, boss_id, difficulty, party_size
) = 1
