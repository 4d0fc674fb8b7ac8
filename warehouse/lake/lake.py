"""The lake: each table of the contract a Delta table of Hive-partitioned Parquet, in a folder or a bucket.

Reading is of one snapshot per table: what is looked up once stays as it was until `refresh`, however others write. What does
not belong here: what the tables mean (`tables.py`), how they are computed (`folds.py`), and damage (`damage.py`).
"""

import logging
import os
import time
from collections.abc import Container, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse import encodings
from warehouse.errors import FairboardError, LakeError, SettingsError
from warehouse.lake.commits import Marker, Staged, commit, found_anew
from warehouse.lake.history import snapshot_at
from warehouse.lake.housekeeping import checkpoint_if_due
from warehouse.lake.leases import LockFiles, open_leases
from warehouse.lake.names import QUARANTINE, Keys, LakeFile
from warehouse.lake.opening import open_storage
from warehouse.lake.readers import Reader
from warehouse.lake.snapshots import Opened, Snapshot, newest
from warehouse.lake.storage import Folder, sha256
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES, Table

log = logging.getLogger(__name__)

IDENTITY: Final = "_lake.json"
FORMAT: Final = 2
DATA: Final = "data"  # the label of a file that is all of its partition


class LakeIdentity(msgspec.Struct, frozen=True):
    """What may never change once a lake holds events, and the format that it is in."""

    timezone: str
    version: int = FORMAT


class Lake:
    """The tables of one deployment. `at` opens them as they were then, as far back as snapshots are kept.

    With `checks`, files are compared with the digest in their name before they are read, once a process: so do the folds.
    """

    def __init__(self, settings: Settings, *, at: datetime | None = None, upgrading: bool = False) -> None:
        """Open the lake, or found it with the deployment's time zone. For who is `upgrading`, in whatever format it is.

        Raises:
            SettingsError: it was founded with another time zone, or is in a format that this version does not read.
        """
        self.settings = settings
        self.storage = open_storage(settings)
        self.leases = open_leases(settings)
        self.checks = False
        self._at = at
        self._kept_s = settings.snapshot_minutes * 60
        self._snapshots: dict[str, Snapshot] = {}
        self._opened: dict[str, Opened] = {}
        self._reader = Reader(settings, at)
        self._identify(settings.timezone, upgrading=upgrading)

    def _identify(self, timezone: str, *, upgrading: bool) -> None:
        content = self.storage.read(IDENTITY)
        if content is None:
            is_old = any(self.storage.list("_manifest"))  # of format 1, restored without its identity
            self.storage.create(IDENTITY, msgspec.json.encode(LakeIdentity(timezone, 1 if is_old else FORMAT)))
            content = self.storage.read(IDENTITY) or b""
        found = msgspec.json.decode(content, type=LakeIdentity)
        where = self.storage.shown("")
        if found.version < FORMAT and not upgrading:
            raise SettingsError(
                f"The lake in {where} is in format {found.version}, from before its tables were Delta tables. Nothing was "
                "changed. `fairboard upgrade-lake` converts it in place."
            )
        if found.version > FORMAT:
            raise SettingsError(
                f"The lake in {where} is in format {found.version}, and this Fairboard knows {FORMAT} only. Nothing was "
                "changed. Run the version that wrote it, or a later one."
            )
        if found.timezone != timezone:
            raise SettingsError(
                f"The lake in {where} ends its days in {found.timezone}, the settings say {timezone}. Nothing was changed. "
                f"Set FAIRBOARD_TIMEZONE={found.timezone}, or FAIRBOARD_LAKE_URL to another folder and import the events there."
            )

    @property
    def scratch(self) -> Path:
        """A folder of this machine for what is on its way: outside every table."""
        return self.storage.scratch

    @property
    def is_alone(self) -> bool:
        """Whether one machine alone reads and writes it."""
        return isinstance(self.leases, LockFiles) and isinstance(self.storage, Folder)

    # Reading

    def snapshot(self, table: Table) -> Snapshot:
        """The table as it was when this first looked, since the last `refresh` or own commit."""
        if table.name not in self._snapshots:
            self._reader.begin()
            self._snapshots[table.name] = self._read(table)
        return self._snapshots[table.name]

    def _read(self, table: Table) -> Snapshot:
        """The newest snapshot, or the one of then (see `history`)."""
        if self._at is not None:
            return snapshot_at(self, table, self._at)
        opened = newest(self.storage, table, self._opened.get(table.name))
        if opened is None:
            return Snapshot(table)
        self._opened[table.name] = opened
        return opened[1]

    def refresh(self) -> None:
        """Look at the newest snapshots from now on."""
        self._snapshots.clear()
        self._reader.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.refresh()

    def partitions(self, table: Table, days: Container[date] | None = None, *, empty: bool = False) -> list[Keys]:
        """The keys of the partitions that have rows; see `Snapshot.partitions`."""
        return self.snapshot(table).partitions(days, empty=empty)

    def files(self, table: Table, days: Container[date] | None = None) -> list[LakeFile]:
        """The table's files that have rows, in a stable order; with `days`, of the partitions whose date is among them."""
        snapshot = self.snapshot(table)
        return [file for keys in snapshot.partitions(days) for file in snapshot.of(keys) if file.rows]

    def of(self, table: Table, keys: Keys) -> list[LakeFile]:
        """The files of one partition."""
        return self.snapshot(table).of(keys)

    def one(self, table: Table, keys: Keys) -> LakeFile | None:
        """The file that is all of a derived partition; None where it has no rows."""
        return next((file for file in self.of(table, keys) if file.rows), None)

    def paths(self, files: Sequence[LakeFile]) -> list[Path]:
        """Where this machine reads those files.

        Raises:
            DamagedFile: one is not as it was written.
        """
        return self.storage.paths(files, check=self.checks)

    def path(self, file: LakeFile) -> Path:
        """Where this machine reads that file; see `paths`."""
        [path] = self.paths([file])
        return path

    def place(self, file: LakeFile) -> tuple[Table, Keys]:
        """The table and partition of a file."""
        table = TABLES[file.name.partition("/")[0]]
        [place] = (place for place, files in self.snapshot(table).files.items() if file in files)
        return table, dict(zip(table.partition, place, strict=True))

    def fingerprint(self, table: Table, keys: Keys) -> str:
        """A digest of what a partition holds; of events, of what has landed, compacted or not. `""` of no rows."""
        return fingerprint_of(table, self.of(table, keys))

    def basis(self, table: Table, keys: Keys) -> str | None:
        """What a derived partition was computed from; None where it was not computed, `""` where two writers did at once."""
        files = self.of(table, keys)
        return files[0].basis if len(files) == 1 else "" if files else None

    # Writing

    def write(self, table: Table, rows: pa.Table, keys: Keys, label: str = DATA, basis: str = "") -> bool:
        """Make `rows` what a partition holds under a label, in a commit of its own. Returns whether the table changed.

        `rows` has the table's columns, with or without those of the partition.

        Raises:
            LakeError: the columns are not the table's; nothing was written.
        """
        staged = [self.stage(table, rows, keys, label, basis)] if rows.num_rows else []
        before = [file for file in self._read(table).of(keys) if file.label == label]
        return self.commit(table, staged, before) > 0

    def stage(self, table: Table, rows: pa.Table, keys: Keys, label: str = DATA, basis: str = "") -> Staged:
        """Write a file beside the tables, for `commit`.

        Raises:
            LakeError: the columns are not the table's; nothing was written.
        """
        temporary = self.beside(table.name)
        try:
            pq.write_table(conform(table, rows), temporary, encodings.ROW_GROUP, **encodings.fresh(table))
            return self.staged(table, keys, label, basis, temporary, rows.num_rows)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def staged(self, table: Table, keys: Keys, label: str, basis: str, temporary: Path, rows: int) -> Staged:
        """A file that was written beside the tables, on its way into one."""
        return Staged(table, keys, label, basis, temporary, sha256(temporary), temporary.stat().st_size, rows)

    def commit(
        self,
        table: Table,
        staged: Sequence[Staged],
        removed: Sequence[LakeFile] = (),
        *,
        marker: Marker | None = None,
        aside: bool = False,
    ) -> int:
        """Put staged files into a table and take others out, in one commit, durably. Returns how many came or went.

        With `aside`, what is taken out is damaged, not superseded.

        Raises:
            LostRace: a file of `removed` is gone already; nothing was changed.
        """
        try:
            known = self._opened.pop(table.name, None)
            opened, changed = commit(
                self.storage, table, staged, removed, marker=marker, aside=aside, kept_s=self._kept_s, known=known
            )
        finally:
            for one in staged:
                one.drop()
        self._opened[table.name] = opened
        if table.name in self._snapshots:
            self._snapshots[table.name] = opened[1]
        before = known[1].version if known else opened[1].version - 1
        try:
            checkpoint_if_due(self, table, before, opened[1].version)
        except (FairboardError, OSError) as error:  # the commit is made, whatever becomes of what it leaves behind
            log.warning("%s: its history could not be tidied: %s", table.name, error)
        return changed

    def found_anew(self, table: Table, staged: Sequence[Staged]) -> None:
        """Begin a table's log with files that are in their places; a log that cannot be read moves to the quarantine."""
        now = time.time_ns()
        for entry in list(self.storage.list(f"{table.name}/_delta_log")):
            self.storage.move(entry.name, f"{QUARANTINE}/_logs/{now}/{entry.name}")
        found_anew(self.storage, table, staged, self._kept_s)
        self._opened.pop(table.name, None)
        self._snapshots.pop(table.name, None)

    def marked(self, table: Table, writer: str) -> int | None:
        """The number of the last commit that a writer has marked (see `Marker`); None where there is none."""
        self._read(table)
        return self._opened[table.name][0].transaction_version(writer) if table.name in self._opened else None

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the right to write a table or publication: two processes at it take turns, on whatever machine."""
        return self.leases.hold(name)

    def sweep(self, owner: str) -> None:
        """Remove what a killed writer left beside the tables: a derived table's, or `compaction`'s. For who holds its lock."""
        for path in self.scratch.glob(f"{owner}.*.parquet"):
            path.unlink(missing_ok=True)

    def beside(self, owner: str) -> Path:
        """A path for a file on its way into a table."""
        return self.scratch / f"{owner}.{os.getpid()}.{os.urandom(4).hex()}.parquet"


def fingerprint_of(table: Table, files: Sequence[LakeFile]) -> str:
    """A digest of files: of landed ones the sum of their own, so that a file that stands for others has theirs."""
    digests = [origin_of(file) if table is EVENTS else int(file.sha256[:32], 16) for file in files if file.rows]
    return as_basis(sum(digests)) if digests else ""


def origin_of(file: LakeFile) -> int:
    """What landed in a file of `events`: its own digest, or the sum of those it was compacted from."""
    return int(file.basis or file.sha256[:32], 16)


def as_basis(origin: int) -> str:
    """A sum of digests in the form that file names and fingerprints have."""
    return f"{origin % (1 << 128):032x}"


def conform(table: Table, rows: pa.Table) -> pa.Table:
    """`rows` in the file's column order and types, each column in one piece.

    The writer ends a page where a piece ends: the bytes would tell which batches the rows came in.

    Raises:
        LakeError: a column is missing, foreign, of another type, or NULL where the contract forbids it.
    """
    have = set(rows.column_names) - set(table.partition)
    want = set(table.file_schema.names)
    if have != want:
        raise LakeError(
            f"{table.name}: these are not its columns (missing: {sorted(want - have)}, foreign: {sorted(have - want)}); "
            "nothing was written."
        )
    try:
        return rows.select(table.file_schema.names).cast(table.file_schema).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise LakeError(f"{table.name}: {error}; nothing was written.") from error


def noted_in(path: Path) -> dict[str, Any]:
    """What its writer noted in a file, beside its rows (see `compaction`); empty where nothing was."""
    noted = (pq.read_metadata(path).metadata or {}).get(FACTS.encode())
    found: dict[str, Any] = msgspec.json.decode(noted) if noted else {}
    return found


FACTS: Final = "fairboard"
