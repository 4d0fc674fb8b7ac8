"""A data file's name says what is in it: `<label>-<basis>-<sha256>.parquet`, so that checking a file needs nothing beside it.

`label` says where it is from (a segment, an import, `data`), `basis` what it was made of, `sha256` what it holds. What does not
belong here: what a basis is made of (`warehouse.basis`), and where files are (`storage.py`).
"""

import re
from dataclasses import dataclass
from datetime import date
from typing import Final
from urllib.parse import quote, unquote

import pyarrow as pa

from warehouse.tables import Table

Keys = dict[str, str | date]

QUARANTINE: Final = "_quarantine"  # the folder of what was set aside, with the names it had
_NAME: Final = re.compile(r".+-[0-9a-f]{0,48}-[0-9a-f]{64}\.parquet")
# ASCII but letters, digits and -._~; of what is beyond it, Spark would take each byte for a character.
_ESCAPED: Final = re.compile(r"[\x00-,/:-@[-^`{-}\x7f]")
_BASIS_ENDS: Final = -len(f"-{'0' * 64}.parquet")


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A data file of a table: `name` below the lake's root, bytes, rows, and when it was committed (ms since the epoch)."""

    name: str
    size: int
    rows: int
    modified_ms: int

    @property
    def folder(self) -> str:
        """The folder of its partition, below the lake's root."""
        return folder_of(self.name)

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


def folder_of(name: str) -> str:
    """The folder that a name is in."""
    return name.rpartition("/")[0]


def file_name(table: Table, keys: Keys, label: str, basis: str, sha256: str) -> str:
    """The name of a file of a partition, below the lake's root."""
    return f"{folder_name(table, keys)}/{label}-{basis}-{sha256}.parquet"


def folder_name(table: Table, keys: Keys) -> str:
    """The folder of a partition (Hive style), below the lake's root."""
    return "/".join([table.name, *(f"{key}={_ESCAPED.sub(_escape, str(keys[key]))}" for key in table.partition)])


def _escape(character: re.Match[str]) -> str:
    return quote(character[0], safe="")


def keys_of(table: Table, name: str) -> Keys | None:
    """The partition that a file below the table's folder is in; None where its folders are no partition."""
    pairs = [folder.partition("=") for folder in name.split("/")[1:-1]]
    if [column for column, _, _ in pairs] != list(table.partition):
        return None
    try:
        return {
            column: date.fromisoformat(value) if pa.types.is_date(table.schema.field(column).type) else unquote(value)
            for column, _, value in pairs
        }
    except ValueError:
        return None


def is_data_file(name: str) -> bool:
    """Whether a file is named like one that the lake has written."""
    return _NAME.fullmatch(name.rpartition("/")[2]) is not None
