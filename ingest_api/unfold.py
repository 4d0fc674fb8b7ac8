"""A segment's rows as columns: one row per event, ready for Parquet.

Two ways with one result: Arrow's JSON reader for what the contract names, and event by event for the rest:
unknown fields, an id that comes twice, whatever Arrow reads differently. What does not belong here: files.
"""

from collections.abc import Sequence
from itertools import chain
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
_BLOCK_BYTES: Final = 4 * 1024 * 1024
# Arrow's own allocator gives what it frees back to the system at once: faulting it in again was a fifth of the CPU.
_POOL: Final = pa.system_memory_pool()
_HEX_OF_16_BITS: Final = np.frombuffer("".join([f"{n:04x}" for n in range(1 << 16)]).encode(), np.uint8).reshape(-1, 4)

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
# A line holds a request: so no batch is cut into its events before.
_JSON_SCHEMA: Final = pa.schema({"events": pa.list_(pa.struct(list(_JSON_COLUMNS.items())))})


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


def unfold(entries: list[Entry]) -> tuple[pa.Table, list[Refusal]]:
    """The rows of `EVENTS.file_schema`, and the events that have another one's id with other content."""
    table = in_columns(entries) if entries else None
    return (table, []) if table is not None else one_by_one([unpacked(entry) for entry in entries])


def in_columns(entries: list[Entry]) -> pa.Table | None:
    """The rows by Arrow's JSON reader, or None where that would not be the whole truth."""
    lines = [_line(entry) for entry in entries]
    # A line longer than a block is refused.
    longest = max(sum(map(len, line)) for line in lines)
    options = pj.ReadOptions(use_threads=True, block_size=max(_BLOCK_BYTES, longest) + 1)
    parse = pj.ParseOptions(explicit_schema=_JSON_SCHEMA, unexpected_field_behavior="error")
    content: Any = pa.BufferReader(b"".join(chain.from_iterable(lines)))
    try:
        read = pj.read_json(content, options, parse, memory_pool=_POOL)["events"]
    except pa.ArrowInvalid:
        return None
    counts = pc.list_value_length(read).to_numpy()
    flat: Any = pc.list_flatten(read)
    events = pa.Table.from_struct_array(flat)
    names = _names(events["eventId"], entries, counts)
    if names is None or _has_unknown(events):
        return None
    columns = {
        "event_id": names,
        "type": events["type"],
        "player_id": events["playerId"],
        "ts": events["ts"],
        "received_ms": pa.array(np.repeat([entry.received_ms for entry in entries], counts), pa.int64()),
        "key_id": pa.array([entry.key_id for entry in entries]).take(np.repeat(np.arange(len(entries)), counts)),
        "extra": pa.nulls(len(names), pa.string()),
    }
    columns |= {column: pc.struct_field(events["payload"], field) for field, (column, _) in _PAYLOAD.items()}
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


def _line(entry: Entry) -> tuple[bytes, bytes, bytes]:
    """An entry's events as one line of JSON, in pieces that need no copy.

    A line's end in JSON is white space: in a string it would have been refused.
    """
    form, _, encoding = entry.form.partition("+")
    body = unpack(entry.body, encoding)
    if form == "lines":
        body = b",".join(cut(form, body))
    body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return (b'{"events":', body, b"}\n") if form == "array" else (b'{"events":[', body, b"]}\n")


def _names(given: Any, entries: list[Entry], counts: Any) -> Any:
    """Every event's id: its own, or its place in its request. None where one comes twice."""
    if not given.null_count:
        return given if _all_differ(given) else None
    places = _places(entries, counts)
    made = _made([entry.id_base for entry in entries], counts, places)
    if given.null_count < len(given):
        names = pc.coalesce(given, made)
        return names if _all_differ(names) else None
    # Bases are made so that no two requests share one: asking those is a hundredth of asking every event's id.
    whole = all(entry.positions is None for entry in entries)
    bases_differ = len({entry.id_base for entry in entries}) == len(entries)
    return made if (whole and bases_differ) or _all_differ(made) else None


def _all_differ(names: Any) -> bool:
    return bool(pc.count_distinct(names).as_py() == len(names))


def _made(bases: list[bytes], counts: Any, places: Any) -> Any:
    """`event_id` of all: an id differs from its request's first one in the last 16 bits only."""
    firsts = np.frombuffer("".join([event_id(base, 0) for base in bases]).encode(), np.uint8).reshape(len(bases), -1)
    texts = firsts.repeat(counts, axis=0)
    texts[:, -4:] = _HEX_OF_16_BITS[np.frombuffer(b"".join([base[-2:] for base in bases]), ">u2").repeat(counts) | places]
    offsets = np.arange(len(texts) + 1, dtype=np.int32) * np.int32(texts.shape[1])
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets.data), pa.py_buffer(texts.data))


def _places(entries: list[Entry], counts: Any) -> Any:
    """Every event's position in its request."""
    ends = np.cumsum(counts)
    places = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    for entry, count, end in zip(entries, counts, ends, strict=True):
        if entry.positions is not None:
            places[end - count : end] = msgspec.json.decode(entry.positions, type=list[int])
    return places


def _has_unknown(events: pa.Table) -> bool:
    """Whether a payload holds a field that its type of event does not have."""
    for field, (_, kinds) in _PAYLOAD.items():
        values = pc.struct_field(events["payload"], field)
        if values.null_count == len(values):
            continue
        for kind in set(_TYPES).difference(kinds):
            if pc.any(pc.and_(pc.is_valid(values), pc.equal(events["type"], pa.scalar(kind)))).as_py():
                return True
    return False
