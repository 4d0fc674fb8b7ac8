"""Tails of distributions and robust z-scores, on whole columns.

Tail probabilities are Cephes' and Boost's, by way of SciPy; here stands how they are used. What does not belong here: any rule.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import special  # type: ignore[import-untyped]  # SciPy ships no types; `_column` and float() name what it gives

MAD_TO_SD = 1.4826  # 1/Φ⁻¹(3/4): the MAD of a normal distribution is 0.6745 sd
MEAN_AD_TO_SD = 1.2533  # √(π/2): its mean absolute deviation is 0.7979 sd


def normal_tail(z: pl.Series) -> pl.Series:
    """P(Z ≥ z) of a standard normal Z."""
    return _column(special.ndtr(-_floats(z)))


def student_tail(t: pl.Series, freedom: pl.Series) -> pl.Series:
    """P(T ≥ t) of Student's T with so many degrees of freedom."""
    return _column(special.stdtr(_floats(freedom), -_floats(t)))


def binomial_tail(successes: pl.Series, trials: pl.Series, chance: pl.Series) -> pl.Series:
    """P(X ≥ successes) of `trials` draws, exact: the regularised incomplete beta function (NIST DLMF 8.17.5)."""
    k, n = _floats(successes), _floats(trials)
    return _column(np.where(k > 0, special.betainc(np.maximum(k, 1), np.maximum(n - k, 0) + 1, _floats(chance)), 1.0))


def poisson_tail(count: int, mean: float) -> float:
    """P(X ≥ count) where so many are usual."""
    return float(special.pdtrc(count - 1, mean)) if count else 1.0


def of_the_smallest(p: pl.Series, tests: pl.Series) -> pl.Series:
    """Chance that the smallest of so many independent p is `p` or less (Šidák 1967): 1 - (1 - p)^tests."""
    return _column(-np.expm1(_floats(tests) * np.log1p(-np.minimum(_floats(p), 1 - 1e-16))))


def robust_z(x: str, over: Sequence[str]) -> list[pl.Expr]:
    """`n`, `center`, `spread` and `z` of a column among its likes.

    z = 0.6745·(x - median)/MAD (Iglewicz & Hoaglin 1993); where the MAD is 0, (x - median)/(1.2533·mean absolute deviation);
    where that is 0 too, all are alike and z is 0.
    """
    center = pl.col(x).median().over(over)
    off = (pl.col(x) - center).abs()
    mad, mean_ad = MAD_TO_SD * off.median().over(over), MEAN_AD_TO_SD * off.mean().over(over)
    spread = pl.when(mad > 0).then(mad).otherwise(mean_ad)
    z = pl.when(spread > 0).then((pl.col(x) - center) / spread).otherwise(0.0)
    return [pl.len().over(over).cast(pl.Int64).alias("n"), center.alias("center"), spread.alias("spread"), z.alias("z")]


def _floats(column: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return column.cast(pl.Float64).to_numpy()


def _column(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> pl.Series:
    return pl.Series(values, nan_to_null=True)
