"""Days that have lost events: a file of theirs was set aside as damaged, and nobody has decided yet what to do about it.

Such a day is held: it is not computed by itself, and not published, until its events are restored or the loss is accepted.
What does not belong here: how damage is found (`damage.py`).
"""

from collections.abc import Iterable
from datetime import date

from warehouse.calendar import Days
from warehouse.damage import damaged, quarantined, set_aside
from warehouse.lake import QUARANTINE, Lake
from warehouse.lake.names import folder_name
from warehouse.tables import EVENTS


def held_days(lake: Lake) -> set[date]:
    """The days of which events were set aside."""
    names = (one.name for one in lake.storage.list(f"{QUARANTINE}/{EVENTS.name}"))
    return {date.fromisoformat(folder.partition("=")[2]) for name in names for folder in name.split("/") if "=" in folder}


def files_set_aside(lake: Lake, days: Days) -> list[str]:
    """The files of those days' events that were set aside, as people name them."""
    return [path for day in sorted(held_days(lake)) if day in days for path in quarantined(lake, EVENTS, {"event_date": day})]


def sound_days(lake: Lake, days: Iterable[date]) -> list[date]:
    """Those days that are not held. Damage that is met on the way is set aside, and its day held from then on.

    Each file is read once a process, as by the fold that follows.
    """
    days = list(days)
    found = [damage for day in days for damage in damaged(lake, lake.of(EVENTS, {"event_date": day}))]
    if found:
        with lake.lock(EVENTS.name):
            lake.refresh()
            for damage in found:
                if damage.file in lake.files(EVENTS):  # another process may have met it, too
                    set_aside(lake, EVENTS, damage.file, damage.what)
    held = held_days(lake)
    return [day for day in days if day not in held]


def accept(lake: Lake, day: date) -> list[str]:
    """Go on without what a day has lost: take its files from the quarantine for good. Returns which they were."""
    found = quarantined(lake, EVENTS, {"event_date": day})
    folder = folder_name(EVENTS, {"event_date": day})
    lake.storage.delete([one.name for one in lake.storage.list(f"{QUARANTINE}/{folder}")])
    return found
