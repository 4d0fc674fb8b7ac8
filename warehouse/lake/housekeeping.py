"""What a table's history leaves behind: superseded files are vacuumed after their time, the log gets checkpoints and is cut.

Vacuuming here takes away what a commit superseded, never a file that no log entry names: that may be somebody's restored
events. delta-rs' own vacuum takes both, and counts in hours. What does not belong here: damage (`damage.py`).
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deltalake.exceptions import DeltaError

from warehouse.errors import LakeError
from warehouse.lake.commits import LOG_KEPT_S, configuration
from warehouse.lake.entries import entries
from warehouse.lake.names import QUARANTINE, folder_of
from warehouse.lake.readers import oldest_reader
from warehouse.lake.snapshots import LogDamaged, open_table, read_snapshot, snapshot_of
from warehouse.lake.storage import Stored
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, REJECTS, TABLES, Table

if TYPE_CHECKING:
    from warehouse.lake.lake import Lake

CHECKPOINT_EVERY: Final = 100  # commits
IN_FLIGHT_S: Final = 1.0  # between a file and its commit
STRAY_S: Final = 3600  # a computed file in no table is so old that no writer can be about to commit it
LEFTOVER_S: Final = 6 * 3600
HASTE_S: Final = 60  # what is superseded stays so long at least, however much it is


@dataclass(slots=True)
class Tidied:
    """What was done for a table: files and bytes taken away, bytes that are superseded and stay for now, live bytes."""

    table: str
    files: int = 0
    freed: int = 0
    superseded: int = 0
    live: int = 0


def tidy(lake: "Lake", tables: Iterable[Table] | None = None) -> list[Tidied]:
    """Vacuum what was superseded longer ago than FAIRBOARD_SNAPSHOT_MINUTES, and what no reader of this machine can hold.

    Where superseded files come to more than half of the live ones, as today's do where boards follow the events, the oldest go
    earlier, down to a minute; not where other machines read the lake, too. Without `tables`, all, and this machine's copies of
    files that are no more: that lists the whole bucket.
    """
    done = [done for table in tables or TABLES.values() if (done := _tidy(lake, table))]
    if tables is None:
        lake.storage.tidy_copies()
        sweep(lake)
    return done


def sweep(lake: "Lake") -> None:
    """Take away what killed processes have left in this machine's scratch folder: what is older than any fold takes.

    Not by their process ids: those of containers that share a volume mean nothing to each other.
    """
    for path in lake.scratch.iterdir():
        with suppress(FileNotFoundError):  # its writer was done with it
            if path.name != "lock" and path.stat().st_mtime < time.time() - LEFTOVER_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def vacuum_now(lake: "Lake", tables: Iterable[Table]) -> None:
    """Take every superseded file of some tables away at once, whoever may read it: what erasure promises."""
    for table in tables:
        with _told(table):
            lake.storage.delete(superseded_of(lake, table))
            _checkpoint(lake, table)
    sweep(lake)
    lake.storage.tidy_copies(at_once=True)  # of what other machines have vacuumed before


def checkpoint_if_due(lake: "Lake", table: Table, before: int, after: int) -> None:
    """Vacuum, write a checkpoint and cut the log, once in a hundred commits."""
    if before // CHECKPOINT_EVERY < after // CHECKPOINT_EVERY:
        _tidy(lake, table)


@contextmanager
def _told(table: Table) -> Iterator[None]:
    """delta-rs' own errors as a sentence of ours."""
    try:
        yield
    except DeltaError as error:
        raise LakeError(f"{table.name} could not be tidied: {error}. The table is as it was; it is tried again.") from error


def _tidy(lake: "Lake", table: Table) -> Tidied | None:
    with _told(table):
        return _tidied(lake, table)


def _tidied(lake: "Lake", table: Table) -> Tidied | None:
    delta = open_table(lake.storage, table)
    if delta is None:
        return None
    now, kept_s = time.time(), lake.settings.snapshot_minutes * 60
    live = sum(file.size for files in snapshot_of(table, delta).files.values() for file in files)
    superseded = superseded_of(lake, table)
    reader, hurt = oldest_reader(lake.settings) or now, _hurt_folders(lake, table)
    done = Tidied(table.name, live=live, superseded=sum(size for _, size in superseded.values()))
    doomed = []
    for name, (since, size) in sorted(superseded.items(), key=lambda item: item[1][0]):
        too_much = done.superseded > live / 2 and lake.is_alone
        # A commit says when it took a file away before anyone can see that it did.
        if since < min(now - (HASTE_S if too_much else kept_s), reader - HASTE_S) and folder_of(name) not in hurt:
            doomed.append(name)
            done.superseded, done.freed = done.superseded - size, done.freed + size
    if table not in (EVENTS, REJECTS, LEADERBOARD_REVISIONS):
        doomed += [one.name for one in _strays(lake, table) if one.modified < now - max(kept_s, STRAY_S)]
    lake.storage.delete(doomed)
    done.files = len(doomed)
    wanted = configuration(kept_s)
    if not wanted.items() <= delta.metadata().configuration.items():
        with lake.storage.guarded():
            delta.alter.set_table_properties({name: str(value) for name, value in wanted.items()})
    if delta.version() - _last_checkpoint(lake, table) >= CHECKPOINT_EVERY:
        _checkpoint(lake, table)
    return done


def _last_checkpoint(lake: "Lake", table: Table) -> int:
    content = lake.storage.read(f"{table.name}/_delta_log/_last_checkpoint")
    return int(json.loads(content)["version"]) if content else 0


def superseded_of(lake: "Lake", table: Table) -> dict[str, tuple[float, int]]:
    """The files that commits took out of the table and that are still there: since when (s), and their bytes.

    As far back as there are log entries. Not those that were set aside as damaged: what is in the place of such a one is a
    copy that somebody has restored.
    """
    delta = open_table(lake.storage, table)
    if delta is None:
        return {}
    live = {file.name for files in snapshot_of(table, delta).files.values() for file in files}
    there = {one.name: one for one in lake.storage.list(table.name) if one.name not in live}
    found = {}
    for entry in entries(lake.storage, table):
        for name, since in entry.removed:
            found[name] = since
            if entry.aside:
                del found[name]
    # One that has been written since is on its way into the table again.
    return {name: (max(since, there[name].modified), there[name].size) for name, since in found.items() if name in there}


def strays(lake: "Lake", table: Table) -> list[Stored]:
    """The Parquet files in a table's folders that are not of it: restored by hand, or left by a writer that was killed.

    Superseded ones are its history; but where a file is damaged, or was set aside, one of them may be what is left of it.
    """
    found = _strays(lake, table)
    if any(one.modified > time.time() - HASTE_S for one in found):
        time.sleep(IN_FLIGHT_S)  # a commit that is on its way is none
        again = {one.name for one in _strays(lake, table)}
        found = [one for one in found if one.name in again]
    return found


def _strays(lake: "Lake", table: Table) -> list[Stored]:
    there = [one for one in lake.storage.list(table.name) if one.name.endswith(".parquet") and "/_delta_log/" not in one.name]
    try:
        files = read_snapshot(lake.storage, table).files.values()
        superseded = superseded_of(lake, table)
    except LogDamaged:
        return there
    # While somebody is being forgotten, what was superseded may hold them.
    hurt = set() if any(lake.storage.list("_forget")) else _hurt_folders(lake, table)
    known = {file.name for of_partition in files for file in of_partition}
    known |= {name for name in superseded if folder_of(name) not in hurt}
    return sorted(one for one in there if one.name not in known)


def _hurt_folders(lake: "Lake", table: Table) -> set[str]:
    """The partitions' folders that lack a file of the table, or one of which was set aside: nothing is vacuumed there.

    None of what is computed: that is computed again.
    """
    if table not in (EVENTS, REJECTS, LEADERBOARD_REVISIONS):
        return set()
    there = {one.name: one.size for one in lake.storage.list(table.name)}
    files = [file for files in read_snapshot(lake.storage, table).files.values() for file in files]
    aside = [one.name.removeprefix(f"{QUARANTINE}/") for one in lake.storage.list(f"{QUARANTINE}/{table.name}")]
    return {folder_of(name) for name in [*aside, *(file.name for file in files if there.get(file.name) != file.size)]}


def _checkpoint(lake: "Lake", table: Table) -> None:
    """Have a checkpoint on disk before the entries that it stands for go."""
    delta = open_table(lake.storage, table)
    if delta is None:
        return
    with lake.storage.guarded():
        delta.create_checkpoint()
    log = f"{table.name}/_delta_log"
    lake.storage.flush([entry.name for entry in lake.storage.list(log) if not entry.name.endswith(".json")])
    reader = oldest_reader(lake.settings)
    if reader is None or reader > time.time() - LOG_KEPT_S:
        with lake.storage.guarded():
            delta.cleanup_metadata()
