"""A range of days judged: binds the models, measures, combines, and finds the events behind each flag.

What does not belong here: which days to judge (`warehouse/folds.py`), and what becomes of the judgements.
"""

from datetime import date, timedelta
from statistics import median

import polars as pl
import pyarrow as pa

from warehouse.calendar import Days
from warehouse.engine import Engine, frame
from warehouse.fairness.rules import BASELINE_DAYS, SUSPICION, Threshold, thresholds
from warehouse.fairness.scores import KEY, score
from warehouse.fairness.statistics import poisson_tail
from warehouse.fairness.suspicion import judge
from warehouse.tables import EVENTS, FAIRNESS, PLAYER_BOSS_DAYS, PLAYER_DAYS, PLAYER_ITEM_DAYS

DAYS_TO_KNOW = 7  # days from which a usual number of suspects can be told
JUMP_P = 0.001


# Each player's fastest kill of each boss, whatever the party: what `scores.score` compares within a cohort.
FASTEST = """
SELECT event_date, player_id, boss_id, min(fastest_ms) AS fastest_ms
FROM player_boss_days
WHERE fastest_ms IS NOT NULL AND event_date BETWEEN $first_day AND $last_day
GROUP BY ALL
ORDER BY ALL
"""


def judgements(engine: Engine, days: Days) -> pa.Table:
    """The rows of `fairness` of those days, sorted."""
    rows = judged(engine, days)
    _bind_events(engine, days)
    engine.bind_rows("flags", reasons(rows).to_arrow(compat_level=pl.CompatLevel.oldest()))
    evidence = frame(engine.run("evidence", first_day=days.first, last_day=days.last))
    return with_evidence(rows, evidence).to_arrow().cast(FAIRNESS.schema)


def judged(engine: Engine, days: Days) -> pl.DataFrame:
    """Every rule's row of every player of those days, with its verdict; without evidence."""
    rules = bind_models(engine, days)
    sums = frame(engine.run("fairness", first_day=days.first, last_day=days.last))
    fastest = engine.query(FASTEST, first_day=days.first, last_day=days.last)
    return judge(score(sums, frame(fastest), {name: rule.min_n for name, rule in rules.items()}), rules)


def flagged(engine: Engine, days: Days) -> pl.DataFrame:
    """What the rules in force flag on those days, computed anew: event_date, player_id, rule."""
    return judged(engine, days).filter(pl.col("verdict") == "flagged").select(*KEY, "rule")


def jump(engine: Engine, day: date) -> str:
    """A sentence where the day has more players under suspicion than chance makes of the usual number; else empty.

    Usual is the median of the trailing days, at least 1; a jump is what a Poisson count does once in 1,000 days.
    """
    engine.bind(FAIRNESS, Days(day - timedelta(days=BASELINE_DAYS), day))
    suspects = engine.query(
        "SELECT event_date, count(*) FILTER (WHERE verdict = 'flagged') AS players FROM fairness"
        " WHERE rule = 'suspicion' GROUP BY ALL"
    )
    counts: dict[date, int] = dict(frame(suspects).iter_rows())
    flagged = counts.pop(day, 0)
    if len(counts) < DAYS_TO_KNOW:
        return ""
    usual = median(counts.values())
    if poisson_tail(flagged, max(usual, 1.0)) >= JUMP_P:
        return ""
    return f"{flagged:,} players are under suspicion on {day}; {usual:g} a day are usual. `fairboard fairness --date {day}`."


def bind_models(engine: Engine, days: Days) -> dict[str, Threshold]:
    """Make everything that `models/fairness.sql` reads a view; the thresholds in force."""
    rules = thresholds(engine)
    _bind_baselines(engine, days)
    engine.bind_model("long_days", **_range(days))
    engine.bind_model("kill_times", **_range(days), min_n=rules["boss_time"].min_n)
    engine.bind_model("loot", **_range(days))
    return rules


def bind_event_scores(engine: Engine, days: Days) -> None:
    """Make `event_scores` a view: each gain of the range with its z by `self` and `self_log`."""
    engine.bind_rules()
    _bind_baselines(engine, days)
    _bind_events(engine, days)


def _bind_baselines(engine: Engine, days: Days) -> None:
    with_baseline = Days(days.first - timedelta(days=BASELINE_DAYS), days.last)
    for table in (PLAYER_DAYS, PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS):
        engine.bind(table, with_baseline)
    engine.bind_model("day_levels")
    engine.bind_model("xp_baselines", **_range(days))
    engine.hold("xp_baselines")


def _bind_events(engine: Engine, days: Days) -> None:
    engine.bind(EVENTS, days)
    engine.bind_model("event_scores", first_day=days.first, last_day=days.last)


def reasons(rows: pl.DataFrame) -> pl.DataFrame:
    """The flags whose events are looked for: each rule's, and of a suspicion its largest part, flagged by itself or not."""
    flagged = rows.filter((pl.col("verdict") == "flagged") & (pl.col("rule") != SUSPICION))
    return pl.concat([flagged, _largest_parts(rows)]).unique([*KEY, "rule"]).select(*KEY, "rule", "observed")


def with_evidence(rows: pl.DataFrame, evidence: pl.DataFrame) -> pl.DataFrame:
    """The rows of `fairness`, sorted: each flag with the ids behind it, a suspicion with those of its largest part."""
    of_suspicions = _largest_parts(rows).join(evidence, on=[*KEY, "rule"])
    of_suspicions = of_suspicions.select(*KEY, pl.lit(SUSPICION).alias("rule"), "evidence")
    rows = rows.join(pl.concat([evidence, of_suspicions]), on=[*KEY, "rule"], how="left").with_columns(
        pl.col("evidence").fill_null([]),
        baseline_from=pl.col("event_date") - timedelta(days=BASELINE_DAYS),
        baseline_to=pl.col("event_date") - timedelta(days=1),
    )
    return rows.select(FAIRNESS.schema.names).sort(FAIRNESS.key)


def _largest_parts(rows: pl.DataFrame) -> pl.DataFrame:
    suspected = rows.filter((pl.col("rule") == SUSPICION) & (pl.col("verdict") == "flagged")).select(KEY)
    parts = rows.filter(pl.col("rule") != SUSPICION).join(suspected, on=KEY).drop_nulls("share")
    return parts.sort("share", "rule", descending=[True, False]).unique(KEY, keep="first", maintain_order=True)


def _range(days: Days) -> dict[str, date | int]:
    return {"first_day": days.first, "last_day": days.last, "baseline_days": BASELINE_DAYS}
