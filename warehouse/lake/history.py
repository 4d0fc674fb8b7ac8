"""How far back a table can be read: as long as every file of the snapshot is there, and the log that names them.

What does not belong here: what is taken away, and when (`housekeeping.py`).
"""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from warehouse.errors import LakeError
from warehouse.lake.snapshots import Snapshot, read_snapshot
from warehouse.tables import Table

if TYPE_CHECKING:
    from warehouse.lake.lake import Lake


def snapshot_at(lake: "Lake", table: Table, at: datetime) -> Snapshot:
    """The table as it was then.

    Raises:
        LakeError: that is not kept any more; the message says how far back it goes.
    """
    entries = _entries(lake, table)
    cut_s = _committed_s(lake, entries[0]) if entries and not entries[0].endswith(f"/{0:020}.json") else 0.0
    if at.timestamp() >= cut_s:
        snapshot = read_snapshot(lake.storage, table, at)
        there = {one.name for one in lake.storage.list(table.name)}
        if all(file.name in there for files in snapshot.files.values() for file in files):
            return snapshot
        cut_s = max([cut_s, *(since for entry in entries for name, since in _removed(lake, entry, table) if name not in there)])
    zone, minutes = lake.settings.zone, lake.settings.snapshot_minutes
    raise LakeError(
        f"{table.name} is not kept as it was at {at.astimezone(zone):%Y-%m-%d %H:%M:%S}: it goes back to "
        f"{datetime.fromtimestamp(cut_s, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}. What is superseded stays for "
        f"FAIRBOARD_SNAPSHOT_MINUTES ({minutes}), or for less where a table is written all the time. Nothing was changed."
    )


def _entries(lake: "Lake", table: Table) -> list[str]:
    """The names of the log's entries, the oldest first."""
    return sorted(one.name for one in lake.storage.list(f"{table.name}/_delta_log") if one.name.endswith(".json"))


def _actions(lake: "Lake", entry: str) -> list[dict[str, dict[str, object]]]:
    return [json.loads(line) for line in (lake.storage.read(entry) or b"").splitlines()]


def _committed_s(lake: "Lake", entry: str) -> float:
    return max(
        (float(str(one["commitInfo"]["timestamp"])) / 1000 for one in _actions(lake, entry) if "commitInfo" in one), default=0
    )


def _removed(lake: "Lake", entry: str, table: Table) -> list[tuple[str, float]]:
    """The files that a commit took out of the table, and when (s since the epoch)."""
    removed = [one["remove"] for one in _actions(lake, entry) if "remove" in one]
    return [(f"{table.name}/{unquote(str(one['path']))}", float(str(one["deletionTimestamp"])) / 1000) for one in removed]
