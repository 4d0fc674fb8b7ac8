"""From many p to few, ranked players: correction for many tests, one suspicion per player with its parts, verdicts.

What does not belong here: how a p comes about (`scores.py`).
"""

import polars as pl

from warehouse.fairness.rules import SUSPICION, Threshold
from warehouse.fairness.scores import KEY

SMALLEST_P = 1e-300  # what a double can hold: below, all are equally impossible


def judge(rows: pl.DataFrame, thresholds: dict[str, Threshold]) -> pl.DataFrame:
    """The rules' rows and one `suspicion` per player and day, each with its q, share, verdict and threshold.

    Adds q, share, rule_version, threshold, verdict, act to the columns of `scores.ROW`.
    """
    rows = with_shares(rows)
    rows = with_q(pl.concat([rows, suspicions(rows)], how="diagonal_relaxed"))
    limits = pl.DataFrame(
        [(t.rule, t.version, t.measure, t.review, t.act) for t in thresholds.values()],
        schema={
            "rule": pl.String,
            "rule_version": pl.Int64,
            "measure": pl.String,
            "threshold": pl.Float64,
            "limit": pl.Float64,
        },
        orient="row",
    )
    rows = rows.join(limits, on="rule")
    by_z = pl.col("measure") == "z"
    judged = pl.when(by_z).then(pl.col("z")).otherwise(pl.col("q")).is_not_null()
    beyond, far = (
        pl.when(by_z).then(pl.col("z").abs() > limit).otherwise(pl.col("q") <= limit).fill_null(value=False)
        for limit in (pl.col("threshold"), pl.col("limit"))
    )
    verdict = pl.when(judged.not_()).then(pl.lit("insufficient data")).when(beyond).then(pl.lit("flagged")).otherwise(
        pl.lit("clear")
    )  # fmt: skip
    return rows.with_columns(verdict=verdict, act=far).drop("measure", "limit")


def with_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """`share`: the rule's part in the harmonic mean, 1/p over the sum of the player's 1/p."""
    rows = rows.with_columns(pl.col("p").clip(SMALLEST_P, 1.0))
    doubt = SMALLEST_P / pl.col("p")  # a sum of 1e300 could overflow
    return rows.with_columns(share=doubt / doubt.sum().over(KEY))


def suspicions(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per player and day: the harmonic mean of its p (Wilson 2019), which holds for tests that depend on each other.

    Small p count most: one strong reason among many weak ones is not averaged away, as it would be by adding z.
    """
    judged = pl.col("p").count()
    p = (SMALLEST_P * judged / (SMALLEST_P / pl.col("p")).sum()).clip(SMALLEST_P, 1.0)
    combined = rows.group_by(KEY).agg(
        rule=pl.lit(SUSPICION), tests=judged, observed=judged.cast(pl.Float64), baseline_n=judged,
        p=pl.when(judged > 0).then(p), share=pl.when(judged > 0).then(1.0),
    )  # fmt: skip
    return combined.with_columns(pl.col("tests", "baseline_n").cast(pl.Int64))


def with_q(rows: pl.DataFrame) -> pl.DataFrame:
    """`q`: p adjusted over all players of the day and rule (Benjamini & Hochberg 1995); NULL where p is."""
    family = ["event_date", "rule"]
    rows = rows.sort([*family, "p", "player_id"], descending=[False, False, True, False], nulls_last=True)
    tested = pl.col("p").is_not_null()
    rank_from_above = tested.cum_sum().over(family)
    number = tested.sum().over(family)
    q = (pl.col("p") * number / (number - rank_from_above + 1)).cum_min().over(family).clip(0.0, 1.0)
    return rows.with_columns(q=pl.when(tested).then(q))
