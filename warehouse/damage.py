"""Files that are not as they were written: found by the SHA-256 in their names, named, and set aside or computed again.

A damaged file of events moves to `_quarantine`, out of its table; what is done about it is a person's decision
(docs/operations.md). What does not belong here: how files are written (`warehouse.lake`).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warehouse.lake import DamagedFile, Keys, Lake, LakeFile
from warehouse.lake.names import folder_name
from warehouse.tables import TABLES, Table

log = logging.getLogger(__name__)
QUARANTINE = "_quarantine"
MISSING = ".missing"


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as it was written, or not in its place: its path or URL, and what is wrong with it."""

    path: str
    what: str


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
    lake.commit(table, [], [file])
    target = f"{QUARANTINE}/{file.name}"
    if not lake.storage.move(file.name, target):
        target += MISSING
        lake.storage.create(target, b"")
    log.error("%s %s; it was set aside as %s", lake.storage.shown(file.name), what, lake.storage.shown(target))


def quarantined(lake: Lake, table: Table, keys: Keys | None = None) -> list[str]:
    """The files of a table, or of one partition, that were set aside, as people name them."""
    folder = folder_name(table, keys) if keys else table.name
    return sorted(lake.storage.shown(one.name) for one in lake.storage.list(f"{QUARANTINE}/{folder}"))


def verify(lake: Lake) -> Iterator[Damage | LakeFile]:
    """Read every file, a table at a time: the sound ones, the damage of any other, what was set aside, what is in no table."""
    for table in TABLES.values():
        files = [file for files in lake.snapshot(table).files.values() for file in files]
        for file in files:
            try:
                lake.storage.examine(file)
            except DamagedFile as error:
                yield Damage(lake.storage.shown(file.name), error.what)
            else:
                yield file
        for path in quarantined(lake, table):
            yield Damage(path, "was damaged, and set aside: nothing is computed from it (docs/operations.md)")
