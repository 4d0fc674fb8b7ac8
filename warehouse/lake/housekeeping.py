"""What a table's history leaves behind: superseded files are vacuumed after their time, the log gets checkpoints and is cut.

Vacuuming here takes away what a commit superseded, never a file that no log entry names: that may be somebody's restored
events. delta-rs' own vacuum takes both, and counts in hours. What does not belong here: damage (`damage.py`).
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from warehouse.lake.commits import ASIDE, LOG_KEPT_S, configuration
from warehouse.lake.names import QUARANTINE
from warehouse.lake.readers import oldest_reader
from warehouse.lake.snapshots import LogDamaged, open_table, read_snapshot, snapshot_of
from warehouse.lake.storage import Stored
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, REJECTS, TABLES, Table

if TYPE_CHECKING:
    from warehouse.lake.lake import Lake

CHECKPOINT_EVERY: Final = 100  # commits
IN_FLIGHT_S: Final = 1.0  # between a file and its commit
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
    return done


def vacuum_now(lake: "Lake", tables: Iterable[Table]) -> None:
    """Take every superseded file of some tables away at once, whoever may read it: what erasure promises."""
    for table in tables:
        lake.storage.delete(superseded_of(lake, table))
        _checkpoint(lake, table)
    lake.storage.tidy_copies(at_once=True)  # of what other machines have vacuumed before


def checkpoint_if_due(lake: "Lake", table: Table, version: int) -> None:
    """Vacuum, write a checkpoint and cut the log, once in a hundred commits."""
    if version > 0 and version % CHECKPOINT_EVERY == 0:
        _tidy(lake, table)


def _tidy(lake: "Lake", table: Table) -> Tidied | None:
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
        if since < min(now - (HASTE_S if too_much else kept_s), reader - HASTE_S) and _folder(name) not in hurt:
            doomed.append(name)
            done.superseded, done.freed = done.superseded - size, done.freed + size
    lake.storage.delete(doomed)
    done.files = len(doomed)
    wanted = configuration(kept_s)
    if not wanted.items() <= delta.metadata().configuration.items():
        with lake.storage.guarded():
            delta.alter.set_table_properties({name: str(value) for name, value in wanted.items()})
    if delta.version() % CHECKPOINT_EVERY == 0 and delta.version():
        _checkpoint(lake, table)
    return done


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
    for entry in sorted(lake.storage.list(f"{table.name}/_delta_log")):
        if entry.name.endswith(".json"):
            try:
                actions = [json.loads(line) for line in (lake.storage.read(entry.name) or b"").splitlines()]
            except ValueError:  # damaged; the table could be opened, so a checkpoint stands for it
                continue
            aside = any(ASIDE in action.get("commitInfo", ()) for action in actions)
            for removed in [action["remove"] for action in actions if "remove" in action]:
                name = f"{table.name}/{unquote(removed['path'])}"
                found[name] = removed["deletionTimestamp"] / 1000
                if aside:
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
    known |= {name for name in superseded if _folder(name) not in hurt}
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
    return {_folder(name) for name in [*aside, *(file.name for file in files if there.get(file.name) != file.size)]}


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


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
