-- Per player, day and rule: the strongest event, how many crossed the threshold, and which.
WITH judged AS (
    SELECT
        event_date,
        player_id,
        rule,
        version,
        threshold,
        n,
        mean,
        sd,
        count(*) AS events,
        count(CASE WHEN abs(z) > threshold THEN 1 END) AS flagged_events,
        max(z) AS highest,
        min(z) AS lowest,
        max(delta_xp) AS most_xp,
        min(delta_xp) AS least_xp,
        list(event_id ORDER BY -abs(z), event_id) FILTER (WHERE abs(z) > threshold) AS evidence
    FROM event_scores
    GROUP BY event_date, player_id, rule, version, threshold, n, mean, sd
)
SELECT
    event_date,
    player_id,
    rule,
    version AS rule_version,
    threshold,
    CASE WHEN mean IS NULL THEN 'insufficient data' WHEN flagged_events > 0 THEN 'flagged' ELSE 'clear' END AS verdict,
    events,
    flagged_events,
    CASE WHEN highest >= -lowest THEN highest ELSE lowest END AS z,
    CASE WHEN highest IS NULL THEN NULL WHEN highest >= -lowest THEN most_xp ELSE least_xp END AS observed_xp,
    mean AS baseline_mean,
    sd AS baseline_sd,
    CAST(n AS BIGINT) AS baseline_events,
    CAST(event_date - $baseline_days AS DATE) AS baseline_from,
    CAST(event_date - 1 AS DATE) AS baseline_to,
    coalesce(evidence[1:10], []) AS evidence
FROM judged
ORDER BY event_date, player_id, rule
