"""The lake: Hive-partitioned Parquet tables in a folder, and the one place that writes them.

A file is written beside the tables, fsynced, moved into place by one rename, and its folders fsynced; its rows and SHA-256 are
recorded under `_manifest`, because DuckDB and Polars read a flipped bit as data without a word.

What does not belong here: what the tables mean (`tables.py`), how they are computed (`folds.py`), compacting (`compaction.py`)
and what to do about damage (`damage.py`).
"""

import fcntl
import hashlib
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from warehouse import encodings
from warehouse.errors import LakeError, SettingsError
from warehouse.tables import Table

PARTITION_FILE = "data.parquet"
FLUSHES = 16  # at once

Keys = dict[str, str | date]


class FileRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was recorded when a file was written.

    `inputs` is the fingerprint of what a derived partition was computed from. A compacted file has the digests of the files
    that it stands for, the rows that they had (`landed`) and the distinct event ids that it holds (`ids`; 0 where nobody
    counted them); `closed` says that it was all of its day, and the day over, when it was made.
    """

    rows: int
    sha256: str
    inputs: str = ""
    sources: tuple[str, ...] = ()
    landed: int = 0
    ids: int = 0
    closed: bool = False

    @property
    def origin(self) -> frozenset[str]:
        """The digests of the files as they landed: its own, or those that it was compacted from."""
        return frozenset(self.sources or (self.sha256,))


class LakeIdentity(msgspec.Struct, frozen=True):
    """What may never change once a lake holds events."""

    timezone: str
    version: int = 1


@dataclass(frozen=True, slots=True)
class Staged:
    """A file written beside the tables: whether its content is new at `path`, and whether its record is there already."""

    path: Path
    temporary: Path
    record: FileRecord
    changed: bool
    recorded: bool


class Lake:
    """The tables below one folder."""

    def __init__(self, root: Path, timezone: str = "UTC") -> None:
        """Open the lake at `root`, or found it with that time zone.

        Raises:
            SettingsError: the lake was founded with another time zone.
        """
        self.root = root
        self.scratch = root / "_tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)
        identity = root / "_lake.json"
        if not identity.exists():
            temporary = self.beside(identity, "identity")
            temporary.write_bytes(msgspec.json.encode(LakeIdentity(timezone)))
            move_durably([(temporary, identity)])
        found = msgspec.json.decode(identity.read_bytes(), type=LakeIdentity)
        if found.timezone != timezone:
            raise SettingsError(
                f"The lake in {root} ends its days in {found.timezone}, the settings say {timezone}. Nothing was changed. "
                f"Set FAIRBOARD_TIMEZONE={found.timezone}, or FAIRBOARD_LAKE_URL to another folder and import the events there."
            )

    # Reading

    def folder(self, table: Table, keys: Keys) -> Path:
        """The folder of one partition."""
        return self.root.joinpath(table.name, *(f"{key}={quote(str(keys[key]), safe='')}" for key in table.partition))

    def files(self, table: Table, days: Container[date] | None = None) -> list[Path]:
        """The table's Parquet files in a stable order; of some days where the table is partitioned by day, see `partitions`."""
        return [path for keys in self.partitions(table, days) for path in sorted(self.folder(table, keys).glob("*.parquet"))]

    def partitions(self, table: Table, days: Container[date] | None = None, *, recorded: bool = False) -> list[Keys]:
        """The keys of the partitions that exist, sorted; with `days`, those whose date (`Table.date_column`) is among them.

        With `recorded`, of those that have records, files or not.
        """
        root = self.root / table.name
        found: list[tuple[str, Keys]] = [(str(self.record_path(root) if recorded else root), {})]
        for column in table.partition:
            is_date = pa.types.is_date(table.schema.field(column).type)
            found = [
                (child, keys | {column: date.fromisoformat(value) if is_date else unquote(value)})
                for folder, keys in found
                for child, value in _children(folder, column)
            ]
        partitions = [keys for folder, keys in found if days is None or keys[table.date_column] in days]
        return sorted(partitions, key=lambda keys: [str(keys[c]) for c in table.partition])

    def inputs(self, table: Table, keys: Keys) -> str:
        """The fingerprint of what a derived partition was computed from; `""` where none was recorded or the file is gone."""
        path = self.folder(table, keys) / PARTITION_FILE
        record = self.record(path) if path.exists() else None
        return record.inputs if record else ""

    def record(self, path: Path) -> FileRecord | None:
        """What was recorded of a file, or None where nothing was."""
        try:
            return msgspec.json.decode(self.record_path(path).read_bytes(), type=FileRecord)
        except FileNotFoundError:
            return None

    def records(self, table: Table, keys: Keys) -> dict[str, FileRecord]:
        """What was recorded of a partition's files, by file name, in the order of names."""
        folder = self.record_path(self.folder(table, keys))
        try:
            with os.scandir(folder) as entries:
                paths = sorted(entry.path for entry in entries)
        except FileNotFoundError:
            return {}
        found = {os.path.basename(path).removesuffix(".json"): _read(path) for path in paths}  # noqa: PTH119 - a Path costs more than the reading
        return {name: msgspec.json.decode(content, type=FileRecord) for name, content in found.items() if content}

    def fingerprint(self, table: Table, keys: Keys) -> str:
        """A digest of what has landed in a partition, however it was compacted since; `""` for an empty one."""
        return fingerprint_of({digest for record in self.records(table, keys).values() for digest in record.origin})

    # Writing

    def write(self, table: Table, rows: pa.Table, keys: Keys, name: str = PARTITION_FILE, inputs: str = "") -> bool:
        """Make `rows` one file of a partition, whole and durable. Returns whether the content changed.

        `rows` has the table's columns, with or without those of the partition. Without rows, the file goes.

        Raises:
            LakeError: the columns are not the table's.
        """
        if not rows.num_rows:
            return self.remove(self.folder(table, keys) / name) == 1
        return self.commit([self.stage(table, rows, keys, name, inputs)]) == 1

    def stage(self, table: Table, rows: pa.Table, keys: Keys, name: str = PARTITION_FILE, inputs: str = "") -> Staged:
        """Write a file beside the tables; `commit` moves it into place (see `write`)."""
        path = self.folder(table, keys) / name
        temporary = self.beside(path, table.name)
        try:
            pq.write_table(conform(table, rows), temporary, encodings.ROW_GROUP, **encodings.fresh(table))
            record = FileRecord(rows.num_rows, sha256(temporary), inputs)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return self.staged(path, temporary, record)

    def staged(self, path: Path, temporary: Path, record: FileRecord) -> Staged:
        """A file that was written beside the tables, on its way to `path`."""
        before = self.record(path)
        changed = before is None or before.sha256 != record.sha256 or not path.exists()
        return Staged(path, temporary, record, changed=changed, recorded=before == record)

    def commit(self, staged: Sequence[Staged]) -> int:
        """Move staged files into place, durably: all are on disk before the first is moved. Returns how many changed."""
        moves = [(one.temporary, one.path) for one in staged if one.changed]
        try:
            for one in staged:
                if not one.recorded:
                    target = self.record_path(one.path)
                    temporary = self.beside(target, "record")
                    temporary.write_bytes(msgspec.json.encode(one.record))
                    moves.append((temporary, target))
            move_durably(moves)
        finally:
            for temporary in [*(one.temporary for one in staged), *(source for source, _ in moves)]:
                temporary.unlink(missing_ok=True)
        return sum(one.changed for one in staged)

    def sweep(self, owner: str) -> None:
        """Remove what a killed writer left beside the tables: a derived table's, or `compaction`'s. For who holds its lock."""
        for path in self.scratch.glob(f"{owner}.*.parquet"):
            path.unlink(missing_ok=True)

    def remove(self, *paths: Path) -> int:
        """Take files of one folder and their records away. Returns how many there were."""
        existed = [path for path in paths if path.exists()]
        for path in paths:
            path.unlink(missing_ok=True)
            self.record_path(path).unlink(missing_ok=True)
        if existed:
            fsync(existed[0].parent)
        return len(existed)

    @contextmanager
    def lock(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold the right to write a table or publication: two processes at it take turns. `shared` is the right to read it."""
        with (self.scratch / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield

    def record_path(self, path: Path) -> Path:
        """Where the record of a file is, or those of a folder."""
        target = self.root / "_manifest" / path.relative_to(self.root)
        return target.with_name(target.name + ".json") if path.suffix == ".parquet" else target

    def beside(self, path: Path, owner: str) -> Path:
        """A temporary path on the same file system, outside every table's tree: a glob would read it there."""
        return self.scratch / f"{owner}.{os.getpid()}.{os.urandom(4).hex()}{path.suffix}"


def fingerprint_of(origins: set[str]) -> str:
    """A digest of a set of digests; `""` of none."""
    return hashlib.sha256("".join(sorted(origins)).encode()).hexdigest() if origins else ""


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


def split_partitions(table: Table, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Keys, pa.Table]]:
    """Cut batches that are sorted by the partition columns into one table per partition."""
    pending: list[pa.RecordBatch] = []
    current: tuple[Any, ...] | None = None
    for batch in batches:
        start = 0
        for key, stop in _runs(batch.select(list(table.partition))):
            if key != current and pending:
                yield dict(zip(table.partition, current or (), strict=True)), pa.Table.from_batches(pending)
                pending = []
            current = key
            pending.append(batch.slice(start, stop - start))
            start = stop
    if pending and current is not None:
        yield dict(zip(table.partition, current, strict=True)), pa.Table.from_batches(pending)


def _runs(keys: pa.RecordBatch) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The runs of equal rows in sorted keys: (key, end of the run)."""
    starts = [0] if keys.num_rows else []
    if keys.num_rows > 1:
        changed = [pa.compute.not_equal(c.slice(1), c.slice(0, keys.num_rows - 1)) for c in keys.columns]
        any_changed = changed[0]
        for other in changed[1:]:
            any_changed = pa.compute.or_(any_changed, other)
        starts += [i.as_py() + 1 for i in pa.compute.indices_nonzero(any_changed)]
    for start, stop in zip(starts, [*starts[1:], keys.num_rows], strict=True):
        yield tuple(column[start].as_py() for column in keys.columns), stop


def _children(folder: str, column: str) -> Iterator[tuple[str, str]]:
    """The partitions in a folder: path (a Path of each cost most of listing a year) and value."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, _, value = entry.name.partition("=")
                if name == column:
                    yield entry.path, value
    except FileNotFoundError:
        return


def sha256(path: Path) -> str:
    """A file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: str) -> bytes | None:
    """A small file's content, or None when it has just gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def move_durably(moves: Sequence[tuple[Path, Path]]) -> None:
    """Flush the sources, rename each to its target, then flush the folders, and those that had to be made."""
    _flush([source for source, _ in moves])
    folders = set()
    for source, target in moves:
        made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        folders |= {target.parent, *(folder.parent for folder in made)}
    _flush(sorted(folders))


def _flush(paths: Sequence[Path]) -> None:
    """Have files and folders on disk. At once: 16 of them one by one took ten times as long."""
    with ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(fsync, paths))


def fsync(path: Path) -> None:
    """Have a file, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
