"""A segment's rows as columns: one row per event, ready for Parquet.

Two ways with one result: Arrow's JSON reader for what the contract names (six times as fast), and event by event for the rest:
unknown fields, an id that comes twice, whatever Arrow reads differently. What does not belong here: files.
"""

import io
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from ingest_api.bodies import cut, unpack
from ingest_api.ids import event_id
from ingest_api.journal import Entry, Refusal
from warehouse.events import EventRows, decode_any, decode_event
from warehouse.tables import EVENTS

OTHER_CONTENT: Final = "this id came before with other content; the first one stays"
_BLOCK_BYTES: Final = 1024 * 1024

# Where the contract's payload fields go, and which types of event have them; elsewhere they are unknown fields.
_PAYLOAD: Final = {
    "deltaXp": ("delta_xp", ("progression", "boss_kill", "drop_claimed")),
    "activity": ("activity", ("progression", "boss_kill", "drop_claimed")),
    "bossId": ("boss_id", ("boss_kill", "drop_claimed")),
    "durationMs": ("duration_ms", ("boss_kill",)),
    "partySize": ("party_size", ("boss_kill",)),
    "difficulty": ("difficulty", ("boss_kill",)),
    "itemId": ("item_id", ("drop_claimed",)),
    "rarity": ("rarity", ("drop_claimed",)),
    "quantity": ("quantity", ("drop_claimed",)),
}
_TYPES: Final = ("progression", "boss_kill", "drop_claimed")
_PAYLOAD_TYPE: Final = pa.struct({field: EVENTS.schema.field(column).type for field, (column, _) in _PAYLOAD.items()})
_JSON_COLUMNS: Final[dict[str, pa.DataType]] = {
    "eventId": pa.string(),
    "type": pa.string(),
    "playerId": pa.string(),
    "ts": pa.int64(),
    "payload": _PAYLOAD_TYPE,
}
_JSON_SCHEMA: Final = pa.schema(_JSON_COLUMNS)


class Unpacked(NamedTuple):
    """An entry's events: their places in the request, and their bodies."""

    entry: Entry
    positions: Sequence[int]
    bodies: list[bytes]


def unpacked(entry: Entry) -> Unpacked:
    """Cut an entry into its events."""
    form, _, encoding = entry.form.partition("+")
    bodies = cut(form, unpack(entry.body, encoding))
    if entry.positions is None:
        return Unpacked(entry, range(len(bodies)), bodies)
    return Unpacked(entry, msgspec.json.decode(entry.positions, type=list[int]), bodies)


def unfold(entries: list[Unpacked]) -> tuple[pa.Table, list[Refusal]]:
    """The rows of `EVENTS.file_schema`, and the events that have another one's id with other content."""
    if not any(one.bodies for one in entries):
        return EVENTS.file_schema.empty_table(), []
    table = in_columns(entries)
    return (table, []) if table is not None else one_by_one(entries)


def in_columns(entries: list[Unpacked]) -> pa.Table | None:
    """The rows by Arrow's JSON reader, or None where that would not be the whole truth."""
    # A line feed in JSON is white space: in a string it would have been refused.
    lines = b"\n".join([body.replace(b"\n", b" ") for one in entries for body in one.bodies])
    parse = pj.ParseOptions(explicit_schema=_JSON_SCHEMA, unexpected_field_behavior="error")
    try:
        read = pj.read_json(io.BytesIO(lines), pj.ReadOptions(use_threads=True, block_size=_BLOCK_BYTES), parse)
    except pa.ArrowInvalid:
        return None
    names = _names(read["eventId"], entries)
    if pc.count_distinct(names).as_py() < len(names) or _has_unknown(read):
        return None
    counts = [len(one.bodies) for one in entries]
    columns = {
        "event_id": names,
        "type": read["type"],
        "player_id": read["playerId"],
        "ts": read["ts"],
        "received_ms": pa.array(np.repeat([one.entry.received_ms for one in entries], counts), pa.int64()),
        "key_id": pa.array([one.entry.key_id for one in entries]).take(np.repeat(np.arange(len(entries)), counts)),
        "extra": pa.nulls(len(names), pa.string()),
    }
    columns |= {column: pc.struct_field(read["payload"], field) for field, (column, _) in _PAYLOAD.items()}
    return pa.table({name: columns[name] for name in EVENTS.file_schema.names}).cast(EVENTS.file_schema)


def one_by_one(entries: list[Unpacked]) -> tuple[pa.Table, list[Refusal]]:
    """The rows, event by event."""
    rows, refused = EventRows(), []
    seen: dict[str, bytes] = {}
    for entry, position, body in (
        (one.entry, *place) for one in entries for place in zip(one.positions, one.bodies, strict=True)
    ):
        event = decode_any(body)
        name = event.get("eventId") or event_id(entry.id_base, position)
        first = seen.setdefault(name, body)
        if first is body:
            rows.append(event, name, entry.received_ms, entry.key_id)
        elif decode_event(first) != decode_event(body):
            where = (entry.received_ms, entry.key_id, entry.request_id, position)
            refused.append(Refusal(*where, "eventId", OTHER_CONTENT, name, body))
    return rows.table(), refused


def _names(given: Any, entries: list[Unpacked]) -> Any:
    """Every event's id: its own, or its place in its request."""
    if not given.null_count:
        return given
    places = ((one.entry.id_base, position) for one in entries for position in one.positions)
    return pa.array([name or event_id(*place) for name, place in zip(given.to_pylist(), places, strict=True)], pa.string())


def _has_unknown(read: pa.Table) -> bool:
    """Whether a payload holds a field that its type of event does not have."""
    for kind in _TYPES:
        foreign = [field for field, (_, kinds) in _PAYLOAD.items() if kind not in kinds]
        payloads = read["payload"].filter(pc.equal(read["type"], pa.scalar(kind)))
        if any(pc.struct_field(payloads, field).null_count < len(payloads) for field in foreign):
            return True
    return False
