"""History into the lake: `fairboard import` reads NDJSON, gzip or Parquet through the checks that the service makes.

The same file imported twice gives the same Parquet files: they are named after its SHA-256, and an event without an id gets one
from it and its line. The arrival time of history is unknown; the event's own time stands for it.
"""

import gzip
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.calendar import Calendar
from warehouse.errors import EventError, FairboardError
from warehouse.events import EventRows, check_seconds, decode_any, decode_event
from warehouse.lake import Lake
from warehouse.tables import EVENTS, REJECTS

CHUNK = 500_000
IMPORT_KEY = "import"

_WIRE_EVENT = {"event_id": "eventId", "player_id": "playerId", "type": "type", "ts": "ts"}
_WIRE_PAYLOAD = {
    "delta_xp": "deltaXp",
    "activity": "activity",
    "boss_id": "bossId",
    "duration_ms": "durationMs",
    "party_size": "partySize",
    "difficulty": "difficulty",
    "item_id": "itemId",
    "rarity": "rarity",
    "quantity": "quantity",
}


@dataclass(slots=True)
class Imported:
    """What became of one file."""

    path: Path
    accepted: int = 0
    days: set[Any] = field(default_factory=set)
    rejected: list[tuple[int, EventError]] = field(default_factory=list)


def import_file(lake: Lake, calendar: Calendar, path: Path) -> Imported:
    """Load one file of events. Bad lines go to `rejects` with their reason; the rest is imported.

    Raises:
        FairboardError: the file cannot be read at all.
    """
    digest = _digest(path)
    imported = Imported(path)
    rows, refused, chunk = EventRows(), [], 0
    for position, body in _events_of(path):
        try:
            event = decode_event(body)
            check_seconds(event.ts)
        except EventError as error:
            imported.rejected.append((position, error))
            refused.append(_refused(path, position, body, error))
            continue
        rows.append(decode_any(body), event.eventId or f"import-{digest}-{position}", event.ts * 1000, IMPORT_KEY)
        if len(rows) >= CHUNK:
            _land(lake, calendar, rows, f"import-{digest}-{chunk:04}.parquet", imported)
            rows, chunk = EventRows(), chunk + 1
    _land(lake, calendar, rows, f"import-{digest}-{chunk:04}.parquet", imported)
    today = calendar.day_of(int(time.time()))
    letters = pa.Table.from_pylist(refused, schema=REJECTS.file_schema)
    lake.write(REJECTS, letters, {"event_date": today}, f"import-{digest}.parquet")
    return imported


def _land(lake: Lake, calendar: Calendar, rows: EventRows, name: str, imported: Imported) -> None:
    staged = []
    for day, part in rows.by_day(calendar.zone):
        staged.append(lake.stage(EVENTS, part, {"event_date": day}, name))
        imported.days.add(day)
    lake.commit(staged)
    imported.accepted += len(rows)


def _refused(path: Path, position: int, body: bytes, error: EventError) -> dict[str, Any]:
    return {
        "received_ms": time.time_ns() // 1_000_000,
        "key_id": IMPORT_KEY,
        "request_id": path.name,
        "position": position,
        "field": error.field,
        "reason": error.reason,
        "event_id": None,
        "body": body.decode("utf-8", errors="backslashreplace"),
    }


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise FairboardError(f"{path} cannot be read: {error.strerror}. Nothing was imported from it.") from error


def _events_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The file's events as JSON: (line or row, from 1; the bytes)."""
    with path.open("rb") as file:
        magic = file.read(4)
    try:
        if magic == b"PAR1":
            yield from _parquet_events(path)
            return
        with gzip.open(path, "rb") if magic[:2] == b"\x1f\x8b" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip(b"\r\n")
    except (gzip.BadGzipFile, EOFError, pa.ArrowInvalid) as error:
        raise FairboardError(
            f"{path} is damaged: {error}. What stood before the damage may be imported; mend the file and import it again, "
            "events with an eventId count once."
        ) from error


def _parquet_events(path: Path) -> Iterator[tuple[int, bytes]]:
    """Rows of Parquet in the wire's shape (playerId, payload …) or in that of the lake's `events`."""
    position = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=50_000):
        for row in batch.to_pylist():
            position += 1
            yield position, msgspec.json.encode(_wire(row) if "player_id" in row else _without_nulls(row))


def _wire(row: dict[str, Any]) -> dict[str, Any]:
    extra = msgspec.json.decode(row["extra"]) if row.get("extra") else {}
    payload = {wire: row.get(name) for name, wire in _WIRE_PAYLOAD.items()} | extra.pop("payload", {})
    event = {wire: row.get(name) for name, wire in _WIRE_EVENT.items()} | extra
    return _without_nulls(event | {"payload": payload})


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _without_nulls(item) if isinstance(item, dict) else item for key, item in value.items() if item is not None}
