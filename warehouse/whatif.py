"""What other thresholds would have flagged: both sets of rules over the same history, and nothing written.

What does not belong here: what the rules in force did flag (the table `fairness`).
"""

from pathlib import Path

import polars as pl

from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.fairness.judgements import flagged
from warehouse.folds import parts
from warehouse.settings import Settings


def compare(settings: Settings, rules_file: Path, days: Days) -> pl.DataFrame:
    """Whose flags would be `added` or `removed` by those rules: event_date, player_id, rule, change; sorted.

    Raises:
        SettingsError: the file has no rules that could be in force.
    """
    with DuckDBEngine(settings) as now, DuckDBEngine(settings.model_copy(update={"rules_file": rules_file})) as then:
        flags = [(flagged(now, part), flagged(then, part)) for part in parts(now, days)]
    key = ["event_date", "player_id", "rule"]
    changes = [
        side.join(other, on=key, how="anti").with_columns(change=pl.lit(change))
        for before, after in flags
        for side, other, change in ((before, after, "removed"), (after, before, "added"))
    ]
    empty = pl.DataFrame(schema={"event_date": pl.Date, "player_id": pl.String, "rule": pl.String, "change": pl.String})
    return pl.concat([empty, *changes]).sort(*key)
