"""Files that are not as they were written: found by their SHA-256, named, and set aside, so that nothing is computed from them.

A damaged file and its record move to `_quarantine`, out of the tables' tree; what is done about it is a person's decision
(docs/operations.md). What does not belong here: how files are written (`lake.py`).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import LakeError
from warehouse.lake import FileRecord, Keys, Lake, move_durably, sha256
from warehouse.tables import TABLES, Table

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as it was written."""

    path: Path
    what: str


class Condition(NamedTuple):
    """A partition's files: as they were written, by name; superseded by a compacted one; damaged; without a record."""

    sound: dict[str, FileRecord]
    superseded: list[Path]
    damages: list[Damage]
    unrecorded: list[Path]


def examine(lake: Lake, table: Table, keys: Keys) -> Condition:
    """Read a partition's files, some 1.5 GB/s, and compare them with their records. Changes nothing."""
    folder, records = lake.folder(table, keys), lake.records(table, keys)
    present = {path.name: path for path in sorted(folder.glob("*.parquet"))}
    found = Condition({}, [], [], [path for name, path in present.items() if name not in records])
    standing: list[frozenset[str]] = []
    # Compacted files first: what one of them stands for is not needed, sound or not.
    for name, record in sorted(records.items(), key=lambda item: (-len(item[1].sources), item[0])):
        path, origin = folder / name, record.origin
        if any(origin <= other for other in standing):
            found.superseded.append(path)
        elif name not in present:
            found.damages.append(Damage(path, f"is missing, with {record.rows:,} rows"))
        elif sha256(path) != record.sha256:
            found.damages.append(Damage(path, f"has changed since it was written with {record.rows:,} rows (SHA-256 differs)"))
        else:
            found.sound[name] = record
            if record.sources:
                standing.append(origin)
    return found


def set_aside(lake: Lake, damage: Damage) -> Path:
    """Move a damaged file and its record to the quarantine. Of a missing one the record goes. Returns where it is now."""
    path = damage.path
    mark = sha256(path)[:12] if path.exists() else "missing"
    target = quarantine(lake) / path.relative_to(lake.root).with_stem(f"{path.stem}.{mark}")
    # The file before its record: without its record it would be read.
    move_durably([(path, target)] if path.exists() else [])
    move_durably([(lake.record_path(path), target.with_name(target.name + ".json"))])
    log.error("%s %s; it was set aside as %s", path, damage.what, target)
    return target


def quarantine(lake: Lake) -> Path:
    """The folder of what was set aside."""
    return lake.root / "_quarantine"


def quarantined(lake: Lake, table: Table, keys: Keys | None = None) -> list[Path]:
    """The files of a table, or of one partition, that were set aside; a missing one is there by its record alone."""
    folder = quarantine(lake) / (lake.folder(table, keys).relative_to(lake.root) if keys else table.name)
    return [path.with_suffix("") for path in sorted(folder.rglob("*.parquet.json"))]


def verify(lake: Lake) -> Iterator[Damage | FileRecord]:
    """Read every file, a partition at a time: the record of a sound one, the damage of any other, and what was set aside."""
    for table in TABLES.values():
        present = lake.partitions(table)
        gone = [keys for keys in lake.partitions(table, recorded=True) if keys not in present]
        for keys in [*present, *gone]:
            condition = examine(lake, table, keys)
            yield from condition.sound.values()
            yield from condition.damages
            for path in condition.unrecorded:
                yield Damage(path, "was not written by Fairboard: nothing is recorded of it")
        for path in quarantined(lake, table):
            yield Damage(path, "was damaged, and set aside: nothing is computed from it (docs/operations.md)")


def refuse_foreign(table: Table, paths: list[Path]) -> None:
    """Read the files' schemas.

    Raises:
        LakeError: one has columns that are not the table's, of another type, or lacks one that is never NULL.
    """
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except pa.ArrowInvalid as error:
            raise LakeError(f"{path} is no Parquet file ({error}); nothing was computed. Take it out of the folder.") from error
        foreign = [field.name for field in schema if field.name not in table.file_schema.names]
        missing = [f.name for f in table.file_schema if f.name not in schema.names and not f.nullable]
        other = [
            f"{field.name} ({field.type}, not {table.file_schema.field(field.name).type})"
            for field in schema
            if field.name not in foreign and field.type != table.file_schema.field(field.name).type
        ]
        if foreign or missing or other:
            raise LakeError(
                f"{path} has not the columns of {table.name} (missing: {missing}, foreign: {foreign}, "
                f"of another type: {other}); nothing was computed. Take the file out of the folder; "
                "if it holds events, `fairboard import` it."
            )
