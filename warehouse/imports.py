"""History into the lake: what `fairboard import` makes of a file's events, through the checks that the service makes.

The same file imported twice, packed or not, gives the same Parquet files: they are named after the SHA-256 of what it holds,
and an event without an id gets one from it and its line. When history arrived is unknown; the event's own time stands for it.
What does not belong here: how a file is read (`import_files.py`).
"""

import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from warehouse.calendar import Calendar
from warehouse.compaction import IMPORTED, stage_settled
from warehouse.errors import EventError
from warehouse.event_rows import EventRows
from warehouse.events import Event, check_depth, check_seconds, check_time, decode_any, decode_event, id_in, refusal
from warehouse.import_files import digest_of, events_of
from warehouse.lake import Lake
from warehouse.tables import EVENTS, REJECTS
from warehouse.watching import UNWATCHED, Watch

CHUNK = 500_000
IMPORT_KEY = "import"


@dataclass(slots=True)
class Imported:
    """What became of one file."""

    path: Path
    accepted: int = 0
    days: set[date] = field(default_factory=set)
    rejected: list[tuple[int, EventError]] = field(default_factory=list)


def import_file(lake: Lake, calendar: Calendar, path: Path, watch: Watch = UNWATCHED) -> Imported:
    """Load one file of events. Bad lines go to `rejects` with their reason; the rest is imported.

    Raises:
        FairboardError: the file cannot be read at all.
    """
    digest, imported = digest_of(path, watch), Imported(path)
    rows, refused, chunk = EventRows(), [], 0
    now = int(time.time())
    for position, body in events_of(path, watch):
        try:
            event, everything = _checked(body, now)
        except EventError as error:
            imported.rejected.append((position, error))
            refused.append(_refused(path, position, body, error))
            continue
        rows.append(everything, event.eventId or f"import-{digest}-{position}", event.ts * 1000, IMPORT_KEY)
        if len(rows) >= CHUNK:
            _land(lake, calendar, rows, f"{IMPORTED}{digest}-{chunk:04}", imported, watch)
            rows, chunk = EventRows(), chunk + 1
    _land(lake, calendar, rows, f"{IMPORTED}{digest}-{chunk:04}", imported, watch)
    letters = pa.Table.from_pylist(refused, schema=REJECTS.file_schema)
    lake.write(REJECTS, letters, {"event_date": calendar.day_of(now)}, f"{IMPORTED}{digest}")
    return imported


def _checked(body: bytes, now: int) -> tuple[Event, dict[str, Any]]:
    """An event that keeps the contract, and the same with its unknown fields.

    Raises:
        EventError: it breaks the contract, or has an unknown field that cannot be read.
    """
    event = decode_event(body)
    check_depth(body)
    check_seconds(event.ts)
    check_time(event.ts, min(event.ts, now) * 1000)  # as if it had come when it happened; but that is not later than now
    try:
        return event, decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal(error) from None


def _land(lake: Lake, calendar: Calendar, rows: EventRows, label: str, imported: Imported, watch: Watch) -> None:
    days = list(rows.by_day(calendar.zone))
    watch.begin("writing days", len(days))
    staged, today = [], calendar.day_of(int(time.time()))
    for number, (day, part) in enumerate(days, 1):
        staged.append(stage_settled(lake, part, {"event_date": day}, label, closed=day < today))
        imported.days.add(day)
        watch.reach(number)
    lake.commit(EVENTS, staged)
    imported.accepted += len(rows)


def _refused(path: Path, position: int, body: bytes, error: EventError) -> dict[str, Any]:
    return {
        "received_ms": time.time_ns() // 1_000_000,
        "key_id": IMPORT_KEY,
        "request_id": path.name,
        "position": position,
        "field": error.field,
        "reason": error.reason,
        "event_id": id_in(body),
        "body": body.decode("utf-8", errors="backslashreplace"),
    }
