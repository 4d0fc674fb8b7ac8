"""A table as it was at one commit: which files it is made of, by partition. Read once, and the same however others write.

What belongs here: reading Delta's log. What does not: writing it (`commits.py`), and the files' content.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import date, datetime
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from warehouse.errors import LakeError
from warehouse.lake.names import Keys, LakeFile, is_data_file
from warehouse.lake.storage import Storage
from warehouse.tables import Table

Place = tuple[str | date, ...]  # a partition's values, in the order of `Table.partition`


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table's files, by partition and in the order of names. `version` is Delta's; -1 of a table that was never written."""

    table: Table
    version: int = -1
    files: dict[Place, list[LakeFile]] = field(default_factory=dict)

    @property
    def all_files(self) -> list[LakeFile]:
        """The files of every partition."""
        return [file for files in self.files.values() for file in files]

    def of(self, keys: Keys) -> list[LakeFile]:
        """The files of a partition."""
        return self.files.get(place_of(self.table, keys), [])

    def partitions(self, days: Container[date] | None = None, *, empty: bool = False) -> list[Keys]:
        """The partitions that have rows, sorted; with `days`, those whose date is among them; with `empty`, those without, too.

        A partition whose computing gave nothing is a file without rows.
        """
        found = (place for place, files in self.files.items() if empty or any(file.rows for file in files))
        return [
            dict(zip(self.table.partition, place, strict=True))
            for place in sorted(found, key=lambda place: [str(value) for value in place])
            if days is None or place[-1] in days
        ]


Opened = tuple[DeltaTable, Snapshot]  # a table of Delta's, and what it was made of when it was last looked at


def place_of(table: Table, keys: Keys) -> Place:
    """A partition's place in a snapshot."""
    return tuple(keys[name] for name in table.partition)


class LogDamaged(LakeError):
    """Which files are a table cannot be told: its log is lost or cannot be read. Nothing is read from it or written to it."""


def open_table(storage: Storage, table: Table, at: int | datetime | None = None) -> DeltaTable | None:
    """A table of the lake, as Delta has it now or had it then; None where nothing was written yet.

    Raises:
        LogDamaged: its log cannot be read, or is gone while its files are there.
        LakeError: it does not reach back so far.
    """
    try:
        with storage.guarded():
            delta = DeltaTable(f"{storage.url}/{table.name}", storage_options=dict(storage.options))
            if at is not None:
                delta.load_as_version(at)
    except TableNotFoundError:
        if any(is_data_file(one.name) for one in storage.list(table.name)):
            raise LogDamaged(
                f"{storage.shown(table.name)} has files, and its log (_delta_log) is gone: which of them are the table is not "
                "known. Nothing was changed. `fairboard verify --repair` begins a new log with them."
            ) from None
        return None
    except DeltaError as error:
        [reason, *_] = str(error).splitlines()
        if at is not None:
            raise LakeError(f"{storage.shown(table.name)} cannot be read as of {at}: {reason} Nothing was changed.") from error
        raise LogDamaged(
            f"The log of {storage.shown(table.name)} cannot be read: {reason} Nothing was changed. "
            "`fairboard verify --repair` sets it aside and begins a new one with the files that are there."
        ) from error
    return delta


def newest(storage: Storage, table: Table, known: Opened | None = None) -> Opened | None:
    """A table as Delta has it now; of one that was opened before, only what was committed since is read."""
    # A table that was restored may end before what was known of it: then it is another one.
    if known and storage.read(log_entry(table, known[1].version)) is not None:
        delta, snapshot = known
        try:
            with storage.guarded():
                delta.update_incremental()
        except DeltaError:  # what opening it anew says about that is for people
            pass
        else:
            return delta, snapshot if snapshot.version == delta.version() else snapshot_of(table, delta)
    opened = open_table(storage, table)
    return (opened, snapshot_of(table, opened)) if opened else None


def log_entry(table: Table, version: int) -> str:
    """The name of the log entry of a version, below the lake's root."""
    return f"{table.name}/_delta_log/{version:020}.json"


def read_snapshot(storage: Storage, table: Table, at: int | datetime | None = None) -> Snapshot:
    """The table's newest snapshot, or the one of a version or time."""
    delta = open_table(storage, table, at)
    return snapshot_of(table, delta) if delta else Snapshot(table)


def snapshot_of(table: Table, delta: DeltaTable) -> Snapshot:
    """The files of a table that is open."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    columns = ("path", "size_bytes", "num_records", "modification_time", *(f"partition.{name}" for name in table.partition))
    files: dict[Place, list[LakeFile]] = {}
    for path, size, rows, modified, *place in zip(*(actions[name].to_pylist() for name in columns), strict=True):
        values = tuple(value if isinstance(value, date) else str(value) for value in place)
        files.setdefault(values, []).append(LakeFile(f"{table.name}/{unquote(path)}", size, rows, modified))
    for found in files.values():
        found.sort(key=lambda file: file.name)
    return Snapshot(table, delta.version(), files)
