"""PyOD's ECOD and IsolationForest on the features of fairness_bench.py, day by day; run in an environment that has pyod.

Adds the columns ecod and iforest to the Parquet file it is given.
"""

import sys

import polars as pl
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest

NO_FEATURES = ("event_date", "player_id", "cheats", "suspicion")


def scored(day: pl.DataFrame) -> pl.DataFrame:
    """One day with both detectors' scores."""
    features = day.drop(NO_FEATURES).to_numpy()
    detectors = {"ecod": ECOD(), "iforest": IForest(random_state=1)}
    return day.with_columns(pl.Series(name, model.fit(features).decision_scores_) for name, model in detectors.items())


frame = pl.read_parquet(sys.argv[1])
pl.concat(scored(day) for day in frame.partition_by("event_date", maintain_order=True)).write_parquet(sys.argv[1])
