"""Accepted events on their way into columns, and columns per day.

What does not belong here: what an accepted event is (`events.py`), writing (`lake.py`).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.events import BossKillPayload, DropClaimedPayload, ProgressionPayload
from warehouse.tables import EVENTS


class EventRows:
    """Accepted events on their way into columns: what the sealer and `import` fill, and `write` takes.

    Kept as one list per column, because that is the fastest way from Python objects into Arrow (0.45 M rows/s a core).
    """

    _EVENT_FIELDS: ClassVar[frozenset[str]] = frozenset({"type", "playerId", "ts", "payload", "eventId"})
    _PAYLOAD_FIELDS: ClassVar[dict[str, frozenset[str]]] = {
        "progression": frozenset(ProgressionPayload.__struct_fields__),
        "boss_kill": frozenset(BossKillPayload.__struct_fields__),
        "drop_claimed": frozenset(DropClaimedPayload.__struct_fields__),
    }

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in EVENTS.file_schema.names}
        self._appends = [column.append for column in self._columns.values()]

    def __len__(self) -> int:
        return len(self._columns["event_id"])

    def append(self, event: dict[str, Any], event_id: str, received_ms: int, key_id: str) -> None:
        """Take one decoded event that has passed `decode_event`. Unknown fields are kept; one that is null says nothing."""
        kind, payload = event["type"], event["payload"]
        known = self._PAYLOAD_FIELDS[kind]
        extra = {k: v for k, v in event.items() if k not in self._EVENT_FIELDS and v is not None}
        if more := {k: v for k, v in payload.items() if k not in known and v is not None}:
            extra["payload"] = more
        get = payload.get
        values = (
            event_id,
            kind,
            event["playerId"],
            event["ts"],
            received_ms,
            key_id,
            get("deltaXp"),
            get("activity"),
            get("bossId") if kind != "progression" else None,
            get("durationMs") if kind == "boss_kill" else None,
            get("partySize") if kind == "boss_kill" else None,
            get("difficulty") if kind == "boss_kill" else None,
            get("itemId") if kind == "drop_claimed" else None,
            get("rarity") if kind == "drop_claimed" else None,
            get("quantity") if kind == "drop_claimed" else None,
            msgspec.json.encode(extra, order="deterministic").decode() if extra else None,
        )
        for append, value in zip(self._appends, values, strict=True):
            append(value)

    def table(self) -> pa.Table:
        """The rows in the order they came."""
        return pa.table(self._columns, schema=EVENTS.file_schema)

    def by_day(self, zone: ZoneInfo) -> Iterable[tuple[Any, pa.Table]]:
        """The rows per day in `zone` (see `split_days`)."""
        return split_days(self.table(), zone)


def split_days(events: pa.Table, zone: ZoneInfo) -> Iterable[tuple[Any, pa.Table]]:
    """Rows of `EVENTS.file_schema` per day in `zone`, in the order they came: (date, table)."""
    if not events.num_rows:
        return
    bounds = pc.min_max(events["ts"])
    first, last = (datetime.fromtimestamp(bounds[name].as_py(), zone).date() for name in ("min", "max"))
    if first == last:  # as almost always: no row's time needs to be converted
        yield first, events
        return
    times = pl.from_epoch(pl.Series(events["ts"].to_numpy()), time_unit="s").dt.replace_time_zone("UTC")
    days = times.dt.convert_time_zone(zone.key).dt.date()
    for day in days.unique().sort():
        yield day, events.filter((days == day).to_arrow())
