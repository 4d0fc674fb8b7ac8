"""A range of days judged: binds the models, measures, combines, and finds the events behind each flag.

What does not belong here: which days to judge (`warehouse/folds.py`), and what becomes of the judgements.
"""

from datetime import timedelta

import polars as pl
import pyarrow as pa

from warehouse.calendar import Days
from warehouse.engine import Engine
from warehouse.fairness.rules import BASELINE_DAYS, SUSPICION, thresholds
from warehouse.fairness.scores import KEY, score
from warehouse.fairness.suspicion import judge
from warehouse.tables import EVENTS, FAIRNESS, PLAYER_BOSS_DAYS, PLAYER_DAYS, PLAYER_ITEM_DAYS


def judgements(engine: Engine, days: Days) -> pa.Table:
    """The rows of `fairness` of those days, sorted."""
    flags = judged(engine, days)
    evidence = _evidence(engine, days, flags.filter(pl.col("verdict") == "flagged"))
    rows = flags.join(evidence, on=[*KEY, "rule"], how="left").with_columns(
        pl.col("evidence").fill_null([]),
        baseline_from=pl.col("event_date") - timedelta(days=BASELINE_DAYS),
        baseline_to=pl.col("event_date") - timedelta(days=1),
    )
    return rows.select(FAIRNESS.schema.names).sort(FAIRNESS.key).to_arrow().cast(FAIRNESS.schema)


def judged(engine: Engine, days: Days) -> pl.DataFrame:
    """Every rule's row of every player of those days, with its verdict; without evidence."""
    rules = thresholds(engine)
    _bind_baselines(engine, days)
    engine.bind_model("long_days", **_range(days))
    engine.bind_model("kill_times", **_range(days), min_n=rules["boss_time"].min_n)
    engine.bind_model("loot", **_range(days))
    sums = engine.run("fairness", first_day=days.first, last_day=days.last).pl()
    fastest = engine.connection.sql(
        "SELECT event_date, player_id, boss_id, min(fastest_ms) AS fastest_ms FROM player_boss_days"
        " WHERE fastest_ms IS NOT NULL AND event_date BETWEEN $first AND $last GROUP BY ALL ORDER BY ALL",
        params={"first": days.first, "last": days.last},
    ).pl()
    return judge(score(sums, fastest, {name: rule.min_n for name, rule in rules.items()}), rules)


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


def _bind_events(engine: Engine, days: Days) -> None:
    engine.bind(EVENTS, days)
    engine.bind_model("event_scores", first_day=days.first, last_day=days.last)


def _evidence(engine: Engine, days: Days, flags: pl.DataFrame) -> pl.DataFrame:
    """The ids behind each flag; a suspicion shows those of its largest part."""
    reasons = flags.filter(pl.col("rule") != SUSPICION)
    _bind_events(engine, days)
    engine.bind_rows("flags", reasons.select(*KEY, "rule", "observed").to_arrow())
    evidence = engine.run("evidence", first_day=days.first, last_day=days.last).pl()
    strongest = reasons.drop_nulls("share").sort("share", descending=True, maintain_order=True).unique(KEY, maintain_order=True)
    suspected = strongest.join(evidence, on=[*KEY, "rule"]).select(*KEY, pl.lit(SUSPICION).alias("rule"), "evidence")
    return pl.concat([evidence, suspected])


def _range(days: Days) -> dict[str, object]:
    return {"first_day": days.first, "last_day": days.last, "baseline_days": BASELINE_DAYS}
