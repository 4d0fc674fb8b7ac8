"""How far back a table can be read: as long as every file of the snapshot is there, and the log that names them.

What does not belong here: what is taken away, and when (`housekeeping.py`).
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from warehouse.errors import LakeError
from warehouse.lake.entries import entries
from warehouse.lake.snapshots import Snapshot, read_snapshot
from warehouse.tables import Table

if TYPE_CHECKING:
    from warehouse.lake.lake import Lake


def snapshot_at(lake: "Lake", table: Table, at: datetime) -> Snapshot:
    """The table as it was then.

    Raises:
        LakeError: that is not kept any more; the message says how far back it goes.
    """
    known = list(entries(lake.storage, table))
    # A log that was begun anew holds nothing of before, whatever files it was begun with.
    is_whole = known and known[0].name.endswith(f"/{0:020}.json") and not known[0].adds
    cut_s = 0.0 if is_whole or not known else known[0].at
    if at.timestamp() >= cut_s:
        snapshot = read_snapshot(lake.storage, table, at)
        there = {one.name for one in lake.storage.list(table.name)}
        if all(file.name in there for files in snapshot.files.values() for file in files):
            return snapshot
        cut_s = max([cut_s, *(since for entry in known for name, since in entry.removed if name not in there)])
    zone, minutes = lake.settings.zone, lake.settings.snapshot_minutes
    raise LakeError(
        f"{table.name} is not kept as it was at {at.astimezone(zone):%Y-%m-%d %H:%M:%S}: it goes back to "
        f"{datetime.fromtimestamp(cut_s, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}. What is superseded stays for "
        f"FAIRBOARD_SNAPSHOT_MINUTES ({minutes}), or for less where a table is written all the time. Nothing was changed."
    )
