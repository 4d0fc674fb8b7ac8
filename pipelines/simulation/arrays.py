"""Tables of numpy columns: what the simulation computes on.

What does not belong here: any column of its own.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]  # places in a tuple of names
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Arrays:
    """Columns of equal length."""

    def take(self, rows: Ints | slice) -> Self:
        """Some rows, in that order; views of the columns where `rows` is a slice."""
        columns: dict[str, Any] = {column.name: getattr(self, column.name)[rows] for column in fields(self)}
        return type(self)(**columns)

    @classmethod
    def concatenated(cls, parts: list[Self]) -> Self:
        """The rows of all parts, one after the other."""
        columns: dict[str, Any] = {
            column.name: np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)
        }
        return cls(**columns)
