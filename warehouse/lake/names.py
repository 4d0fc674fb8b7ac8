"""A data file's name says what is in it: `<label>-<basis>-<sha256>.parquet`, so that checking a file needs nothing beside it.

`label` says where it is from (a segment, an import, `data`), `basis` what it was made of, `sha256` what it holds. What does not
belong here: what a basis is made of (`warehouse.basis`), and where files are (`storage.py`).
"""

import re
from dataclasses import dataclass
from datetime import date
from typing import Final
from urllib.parse import quote

from warehouse.tables import Table

Keys = dict[str, str | date]

_NAME: Final = re.compile(r".+-[0-9a-f]{0,48}-[0-9a-f]{64}\.parquet")
_BASIS_ENDS: Final = -len(f"-{'0' * 64}.parquet")


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A data file of a table: `name` below the lake's root, bytes, rows, and when it was committed (ms since the epoch)."""

    name: str
    size: int
    rows: int
    modified_ms: int

    @property
    def label(self) -> str:
        """Where it is from."""
        return self.name[:_BASIS_ENDS].rpartition("-")[0].rpartition("/")[2]

    @property
    def basis(self) -> str:
        """What it was made of; `""` for what landed."""
        return self.name[:_BASIS_ENDS].rpartition("-")[2]

    @property
    def sha256(self) -> str:
        """The digest of its bytes, in hex."""
        return self.name[_BASIS_ENDS + 1 : -len(".parquet")]


def file_name(table: Table, keys: Keys, label: str, basis: str, sha256: str) -> str:
    """The name of a file of a partition, below the lake's root."""
    return f"{folder_name(table, keys)}/{label}-{basis}-{sha256}.parquet"


def folder_name(table: Table, keys: Keys) -> str:
    """The folder of a partition (Hive style), below the lake's root."""
    return "/".join([table.name, *(f"{key}={quote(str(keys[key]), safe='')}" for key in table.partition)])


def is_data_file(name: str) -> bool:
    """Whether a file is named like one that the lake has written."""
    return _NAME.fullmatch(name.rpartition("/")[2]) is not None
