-- Rare drops that each player who claimed one had, today and in the trailing days, beside what everybody else's luck foretells.
-- Rare is what fewer than 1 kill in 10 of its boss drops. The rate is that of all others (leave-one-out), with one drop and one
-- kill added (Laplace): the first to find an item is not impossible. A trial is a kill and a rare item that its boss may drop;
-- more drops than kills count as the kills: some games hand out several at once.
WITH players AS (
    SELECT DISTINCT event_date, player_id
    FROM player_item_days
    WHERE event_date BETWEEN $first_day AND $last_day
),
days AS (
    SELECT DISTINCT event_date
    FROM players
),
killed AS (
    SELECT d.event_date, b.boss_id, sum(b.kills) AS kills
    FROM days AS d
    JOIN player_boss_days AS b ON b.event_date >= d.event_date - $baseline_days AND b.event_date <= d.event_date
    GROUP BY d.event_date, b.boss_id
),
dropped AS (
    SELECT d.event_date, i.boss_id, i.item_id, sum(i.drops) AS drops
    FROM days AS d
    JOIN player_item_days AS i ON i.event_date >= d.event_date - $baseline_days AND i.event_date <= d.event_date
    GROUP BY d.event_date, i.boss_id, i.item_id
),
rare AS (
    SELECT d.event_date, d.boss_id, d.item_id, d.drops, k.kills
    FROM dropped AS d
    JOIN killed AS k ON d.event_date = k.event_date AND d.boss_id = k.boss_id
    WHERE d.drops * 10 < k.kills
),
own_kills AS (
    SELECT p.event_date, p.player_id, b.boss_id, sum(b.kills) AS kills
    FROM players AS p
    JOIN player_boss_days AS b
        ON p.player_id = b.player_id
        AND b.event_date >= p.event_date - $baseline_days AND b.event_date <= p.event_date
    GROUP BY p.event_date, p.player_id, b.boss_id
),
own_drops AS (
    SELECT p.event_date, p.player_id, i.boss_id, i.item_id, sum(i.drops) AS drops
    FROM players AS p
    JOIN player_item_days AS i
        ON p.player_id = i.player_id
        AND i.event_date >= p.event_date - $baseline_days AND i.event_date <= p.event_date
    GROUP BY p.event_date, p.player_id, i.boss_id, i.item_id
),
expected AS (
    SELECT
        k.event_date,
        k.player_id,
        k.kills,
        least(coalesce(o.drops, 0), k.kills) AS drops,
        r.kills - k.kills AS others,
        CAST(r.drops - coalesce(o.drops, 0) + 1 AS DOUBLE) / (r.kills - k.kills + 1) AS rate
    FROM own_kills AS k
    JOIN rare AS r ON k.event_date = r.event_date AND k.boss_id = r.boss_id
    LEFT JOIN own_drops AS o
        ON k.event_date = o.event_date AND k.player_id = o.player_id AND r.boss_id = o.boss_id AND r.item_id = o.item_id
)
SELECT
    event_date,
    player_id,
    CAST(sum(kills) AS BIGINT) AS trials,
    CAST(sum(drops) AS BIGINT) AS drops,
    CAST(sum(CAST(round(1e6 * kills * rate) AS BIGINT)) AS DOUBLE) * 1e-6 AS expected,
    CAST(min(others) AS BIGINT) AS others
FROM expected
GROUP BY event_date, player_id
