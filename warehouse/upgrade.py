"""Lakes of format 1, from before their tables were Delta tables: converted where they lie.

There a file had any name and a record beside it (`_manifest`), which told its digest and, of compacted ones, what they stand
for. Each file gets a name that says so itself; what a record told beyond that goes into the footer, for which such a file is
copied, one at a time. Killed at any point, it is run again. What does not belong here: the lake as it is (`warehouse.lake`).
"""

import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.compaction import COMPACTED, Facts
from warehouse.damage import MISSING, quarantine
from warehouse.errors import LakeError
from warehouse.folds import CONFLICTS
from warehouse.lake import FACTS, QUARANTINE, Lake, LakeFile, as_basis, sha256
from warehouse.lake.lake import FORMAT, IDENTITY, LakeIdentity
from warehouse.lake.names import file_name, is_data_file, keys_of
from warehouse.lake.storage import Folder, Stored
from warehouse.repair import take_in
from warehouse.settings import Settings
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, REJECTS, TABLES, Table

RECORDS: Final = "_manifest"
_FOOTER_ENDS: Final = 8  # bytes: the footer's length, and the magic number
log = logging.getLogger(__name__)


class Record(msgspec.Struct, frozen=True):
    """What format 1 recorded of a file. `sources` are the digests of what a compacted one stands for."""

    rows: int
    sha256: str
    sources: tuple[str, ...] = ()
    landed: int = 0
    ids: int = 0
    closed: bool = False

    @property
    def basis(self) -> str:
        """What it was made of. One without a player who was forgotten stands for itself."""
        return as_basis(sum(int(one[:32], 16) for one in self.sources)) if self._stands_for_others else ""

    @property
    def facts(self) -> Facts:
        """What its footer is to tell."""
        merged = tuple(sorted(one[:16] for one in self.sources)) if self._stands_for_others else ()  # as `short` has them
        return Facts(self.landed, self.ids, self.closed, merged)

    @property
    def _stands_for_others(self) -> bool:
        return bool(self.sources) and self.sha256 not in self.sources


@dataclass(slots=True)
class Upgraded:
    """What was converted: files of each table; what was set aside as damaged or missing, and what was left alone."""

    files: dict[str, int] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def upgrade(settings: Settings) -> Upgraded:
    """Convert the lake. Nothing else may write it meanwhile.

    Raises:
        LakeError: it is in no folder, or has no file of format 1.
    """
    done = Upgraded()
    with Lake(settings, upgrading=True) as lake:
        if not isinstance(lake.storage, Folder):
            raise LakeError(f"{lake.storage.shown('')} is in no folder: lakes of format 1 are. Nothing was changed.")
        records = {one.name.removeprefix(f"{RECORDS}/") for one in lake.storage.list(RECORDS)}
        if not records and not any(_old_files(lake, table) for table in TABLES.values()):
            raise LakeError(f"The lake in {lake.storage.shown('')} has nothing of format 1. Nothing was changed.")
        # A run that was killed at its end has left records alone, of files that were merged away since.
        is_done = msgspec.json.decode(lake.storage.read(IDENTITY) or b"", type=LakeIdentity).version == FORMAT
        for table in TABLES.values():
            for old in _old_files(lake, table):
                _convert(lake, table, old, done)
            if not is_done:
                _name_missing(lake, table, records, done)
            files = [LakeFile(one.name, one.size, 0, int(one.modified * 1000)) for one in _new_files(lake, table)]
            known = {one.name for one in lake.snapshot(table).all_files} if _has_log(lake, table) else set()
            if offered := [file for file in files if file.name not in known]:
                done.files[table.name] = len(take_in(lake, table, offered).taken)
        lake.storage.replace(IDENTITY, msgspec.json.encode(LakeIdentity(settings.timezone)))
        shutil.rmtree(lake.storage.root / RECORDS, ignore_errors=True)
    return done


def _old_files(lake: Lake, table: Table) -> list[Stored]:
    return [one for one in _parquet(lake, table) if not is_data_file(one.name)]


def _new_files(lake: Lake, table: Table) -> list[Stored]:
    return [one for one in _parquet(lake, table) if is_data_file(one.name)]


def _parquet(lake: Lake, table: Table) -> list[Stored]:
    found = lake.storage.list(table.name)
    return sorted(one for one in found if one.name.endswith(".parquet") and "/_delta_log/" not in one.name)


def _convert(lake: Lake, table: Table, old: Stored, done: Upgraded) -> None:
    """Give a file the name of what it holds, its facts into its footer."""
    keys, record, path = keys_of(table, old.name), _record(lake, old.name), _path(lake, old.name)
    digest = sha256(path)
    if keys is None or (record is None and not _is_readable(table, path)):
        done.left.append(f"{lake.storage.shown(old.name)} is no file of {table.name}: it was left alone, and nobody reads it")
    elif record is not None and digest != record.sha256:
        _set_aside(lake, table, old, done)
    elif record is None or record.facts == Facts():
        lake.storage.move(old.name, file_name(table, keys, _label(old.name), record.basis if record else "", digest))
    else:
        temporary = lake.beside("upgrade")
        shutil.copyfile(path, temporary)
        _note(temporary, record.facts)
        name = file_name(table, keys, _label(old.name), record.basis, sha256(temporary))
        lake.storage.put({name: temporary})
        lake.storage.delete([old.name])  # only now: killed in between, it is copied once more


def _set_aside(lake: Lake, table: Table, old: Stored, done: Upgraded) -> None:
    shown = lake.storage.shown(old.name)
    if _is_kept(table, old.name):
        target = lake.storage.shown(quarantine(lake, old.name))
        done.set_aside.append(f"{shown} has changed since it was written (SHA-256 differs); it was moved to {target}")
        log.error(done.set_aside[-1])
    else:
        lake.storage.delete([old.name])
        done.left.append(f"{shown} had changed since it was written: it is computed again")


def _name_missing(lake: Lake, table: Table, records: set[str], done: Upgraded) -> None:
    """Leave a note of each recorded file that holds what cannot be computed again and is not there."""
    files = [LakeFile(one.name, one.size, 0, 0) for one in _new_files(lake, table)]
    there = {(file.name.rpartition("/")[0], file.label, file.basis) for file in files}
    for name in sorted(one.removesuffix(".json") for one in records if one.startswith(f"{table.name}/")):
        record, folder = _record(lake, name), name.rpartition("/")[0]
        aside = [one.name for one in lake.storage.list(f"{QUARANTINE}/{folder}")]
        if (
            record is not None
            and (folder, _label(name), record.basis) not in there
            and _is_kept(table, name)
            and f"{QUARANTINE}/{name}" not in aside
        ):
            lake.storage.create(f"{QUARANTINE}/{name}{MISSING}", b"")
            done.set_aside.append(f"{lake.storage.shown(name)} is missing, with {record.rows:,} rows")
            log.error(done.set_aside[-1])


def _is_kept(table: Table, name: str) -> bool:
    """Whether a file of format 1 holds what cannot be computed again."""
    return table is LEADERBOARD_REVISIONS or table is EVENTS or (table is REJECTS and _label(name) != CONFLICTS)


def _label(name: str) -> str:
    """Where a file is from."""
    stem = name.rpartition("/")[2].removesuffix(".parquet")
    return COMPACTED if stem.startswith(f"{COMPACTED}-") else stem


def _record(lake: Lake, name: str) -> Record | None:
    content = lake.storage.read(f"{RECORDS}/{name}.json")
    return msgspec.json.decode(content, type=Record) if content is not None else None


def _path(lake: Lake, name: str) -> Path:
    assert isinstance(lake.storage, Folder)
    return lake.storage.root / name


def _is_readable(table: Table, path: Path) -> bool:
    """Whether a file that nobody recorded has the table's columns: format 1 read such a one, too."""
    try:
        return pq.read_schema(path).names == table.file_schema.names
    except (pa.ArrowInvalid, OSError):
        return False


def _has_log(lake: Lake, table: Table) -> bool:
    return any(lake.storage.list(f"{table.name}/_delta_log"))


def _note(path: Path, facts: Facts) -> None:
    """Write facts into a Parquet file's footer; what comes before it stays byte for byte."""
    schema = pq.read_schema(path)
    noted = schema.with_metadata({**(schema.metadata or {}), FACTS: msgspec.json.encode(facts)})
    alone = path.with_suffix(".footer")
    pq.write_metadata(noted, str(alone), metadata_collector=[pq.read_metadata(path)])
    content = alone.read_bytes()
    alone.unlink()
    with path.open("r+b") as file:
        file.seek(-_FOOTER_ENDS, os.SEEK_END)
        file.seek(-_footer_bytes(file.read()), os.SEEK_END)
        file.write(content[-_footer_bytes(content[-_FOOTER_ENDS:]) :])
        file.truncate()


def _footer_bytes(end: bytes) -> int:
    """How long a file's footer is, by the file's last bytes."""
    return int.from_bytes(end[:4], "little") + _FOOTER_ENDS
