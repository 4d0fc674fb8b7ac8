"""The small tables that people edit as CSV files: level curve, rewards, fairness rules. Read, checked, given as Arrow.

What does not belong here: where the files are (`settings.py`), and what is computed from them (`models/`).
"""

from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa

from warehouse.errors import SettingsError

LAST_XP = 2**63 - 1


def levels(path: Path) -> pa.Table:
    """The level curve: level, xp_required, xp_last, xp_next (64-bit integers; xp_next is NULL at the last level).

    Raises:
        SettingsError: the file is no level curve.
    """
    curve = _read_csv(path, {"level": pl.Int64, "xp_required": pl.Int64}).sort("level")
    required = curve["xp_required"].to_list()
    numbered = curve["level"].to_list() == list(range(1, curve.height + 1))
    if not numbered or None in required or required[:1] != [0] or any(after <= before for before, after in pairwise(required)):
        raise SettingsError(
            f"FAIRBOARD_LEVELS_FILE: {path} is no level curve; nothing was computed. "
            "Levels are 1, 2, 3 … without gaps, xp_required starts at 0 and rises."
        )
    xp_next = pl.col("xp_required").shift(-1)
    return curve.with_columns(xp_next=xp_next, xp_last=(xp_next - 1).fill_null(LAST_XP)).to_arrow(
        compat_level=pl.CompatLevel.oldest()
    )


def rewards(path: Path) -> pa.Table:
    """What a level pays: level, reward.

    Raises:
        SettingsError: the file cannot be read so.
    """
    paid = _read_csv(path, {"level": pl.Int64, "reward": pl.String})
    if paid.null_count().sum_horizontal().item():
        raise SettingsError(
            f"FAIRBOARD_REWARDS_FILE: {path} is no list of rewards; nothing was computed. "
            "Every line has a level and what it pays."
        )
    return paid.to_arrow(compat_level=pl.CompatLevel.oldest())


def fairness_rules(path: Path) -> pa.Table:
    """The fairness rules, each in its newest version, with the columns of `fairness.rules.Threshold`.

    Raises:
        SettingsError: the file cannot be read so.
    """
    columns = {
        "rule": pl.String,
        "version": pl.Int64,
        "measure": pl.String,
        "review": pl.Float64,
        "act": pl.Float64,
        "min_n": pl.Int64,
        "changed_on": pl.Date,
        "changed_by": pl.String,
        "reason": pl.String,
    }
    return (
        _read_csv(path, columns)
        .sort("version")
        .unique("rule", keep="last")
        .sort("rule")
        .to_arrow(compat_level=pl.CompatLevel.oldest())
    )


def _read_csv(path: Path, columns: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    try:
        return pl.read_csv(path, schema_overrides=columns).select(list(columns))
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"{path} cannot be read as {', '.join(columns)}: {reason}. Nothing was computed.") from error
