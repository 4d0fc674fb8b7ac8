"""Files that are not as they were written: found by the SHA-256 in their names, named, and set aside or computed again.

A damaged file of events moves to `_quarantine`, out of its table; what is done about it is a person's decision
(docs/operations.md). What does not belong here: how files are written (`warehouse.lake`).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warehouse.lake import QUARANTINE, DamagedFile, Keys, Lake, LakeFile, LogDamaged, strays
from warehouse.lake.names import folder_name, is_data_file, keys_of
from warehouse.lake.snapshots import log_entry
from warehouse.lake.storage import Stored
from warehouse.tables import TABLES, Table

log = logging.getLogger(__name__)
MISSING = ".missing"
LOST = "is lost or damaged: which files are the table is not known, and nothing is read from it or written to it"
STRAY = "is in no table: restored by hand, or left by a writer that was killed. Nobody reads it"
FOREIGN = "is in no table, and not named as the lake names its files. Nobody reads it (docs/operations.md)"
ASIDE = "was damaged, and set aside: nothing is computed from it (docs/operations.md)"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is not as it should be: its path or URL, and what is wrong with it. Without a file it is the log of a table."""

    path: str
    what: str
    file: LakeFile | None = None


def damaged(lake: Lake, files: Sequence[LakeFile]) -> list[DamagedFile]:
    """Those of the files that are not as they were written; each is read once a process."""
    found = []
    for file in files:
        try:
            lake.storage.paths([file])
        except DamagedFile as error:
            found.append(error)
    return found


def set_aside(lake: Lake, table: Table, file: LakeFile, what: str) -> None:
    """Take a damaged file out of its table, and move it to the quarantine. Of a missing one a note is left there."""
    lake.commit(table, [], [file], aside=True)
    target = quarantine(lake, file.name)
    log.error("%s %s; it was set aside as %s", lake.storage.shown(file.name), what, lake.storage.shown(target))


def quarantine(lake: Lake, name: str) -> str:
    """Move a file that is in no table to the quarantine. Returns its name there; of a missing one, that of a note."""
    target = f"{QUARANTINE}/{name}"
    if not lake.storage.move(name, target):
        target += MISSING
        lake.storage.create(target, b"")
    return target


def quarantined(lake: Lake, table: Table, keys: Keys | None = None) -> list[str]:
    """The files of a table, or of one partition, that were set aside, as people name them."""
    folder = folder_name(table, keys) if keys else table.name
    return sorted(lake.storage.shown(one.name) for one in lake.storage.list(f"{QUARANTINE}/{folder}"))


def verify(lake: Lake) -> Iterator[Damage | LakeFile]:
    """Read every file, a table at a time: the sound ones, the damage of any other, what is in no table, what was set aside."""
    for table in TABLES.values():
        yield from check_files(lake, table)
        yield from check_strays(lake, table)
        yield from check_aside(lake, table)


def check_files(lake: Lake, table: Table) -> Iterator[Damage | LakeFile]:
    """Read every file of a table, wherever it is kept."""
    lake.refresh()
    if not is_readable(lake, table):
        yield Damage(lake.storage.shown(f"{table.name}/_delta_log"), LOST)
        return
    for file in lake.snapshot(table).all_files:
        try:
            lake.storage.examine(file)
        except DamagedFile as error:
            yield Damage(lake.storage.shown(file.name), error.what, file)
        else:
            yield file


def is_readable(lake: Lake, table: Table) -> bool:
    """Whether the table's log tells which files are the table."""
    try:
        version = lake.snapshot(table).version
    except LogDamaged:
        return False
    # A checkpoint without the entry that it was made at can be opened, and nothing can be committed after it.
    return version < 0 or lake.storage.read(log_entry(table, version)) is not None


def check_strays(lake: Lake, table: Table) -> Iterator[Damage]:
    """The files in the table's folders that are not of it."""
    for one in strays(lake, table):
        is_ours = is_data_file(one.name) and keys_of(table, one.name) is not None
        yield Damage(lake.storage.shown(one.name), STRAY if is_ours else FOREIGN, _as_file(one))


def check_aside(lake: Lake, table: Table) -> Iterator[Damage]:
    """The table's files in the quarantine."""
    for one in sorted(lake.storage.list(f"{QUARANTINE}/{table.name}")):
        yield Damage(lake.storage.shown(one.name), ASIDE, _as_file(one))


def _as_file(stored: Stored) -> LakeFile:
    return LakeFile(stored.name, stored.size, 0, int(stored.modified * 1000))
