-- What a day did to everybody's XP: the median player's mean ln XP per gain. A double-XP weekend lifts it by ln 2. Of whole
-- numbers every engine has the same median.
-- known: 20 players can tell a day from its players; among fewer, scores of that day are by the bare logs.
SELECT
    event_date,
    CAST(round(median(round(CAST(log_sum_e6 AS DOUBLE) / gain_events))) AS BIGINT) AS level_e6,
    count(*) >= 20 AS known
FROM player_days
WHERE gain_events > 0
GROUP BY event_date
