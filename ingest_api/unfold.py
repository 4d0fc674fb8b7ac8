"""A segment's rows as columns: one row per event, ready for Parquet.

Two ways with one result: DuckDB's JSON reader for what the contract names, and event by event for the rest: unknown fields,
an id that comes twice, whatever DuckDB does not read. It takes half of the CPU that Arrow's reader takes, and less than
Polars' (docs/ingest.md). Both cut a body as the door did (`bodies.cut`). What does not belong here: files.
"""

import re
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from ingest_api.bodies import cut, plain
from ingest_api.ids import event_id
from ingest_api.segment import OTHER_CONTENT, Entry, Refusal
from warehouse.event_rows import EventRows
from warehouse.events import decode_any, decode_event
from warehouse.tables import EVENTS

_LONGEST_EVENT: Final = 1024 * 1024  # bytes; DuckDB's buffer is twice that, and what it refuses is read event by event
_BETWEEN: Final = re.compile(rb"\}\s*,\s*\{")  # two elements of an array
_QUOTE, _CLOSE, _COMMA, _OPEN, _BLANK, _NEWLINE = b'"},{ \n'
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
_COLUMNS: Final = {"eventId": "event_id", "type": "type", "playerId": "player_id", "ts": "ts"}
_FIELDS: Final = _COLUMNS | {field: column for field, (column, _) in _PAYLOAD.items()}
_SQL: Final = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.int32(): "INTEGER"}
_SQL_TYPES: Final = {field: _SQL[EVENTS.file_schema.field(column).type] for field, column in _FIELDS.items()}
_REQUIRED: Final = ("type", "playerId", "ts", "deltaXp")  # `deltaXp` only in one type; but a STRUCT needs a field
_SAMPLE_BYTES: Final = 64 * 1024

log = structlog.get_logger(__name__)


def unfold(entries: list[Entry]) -> tuple[pa.Table, list[Refusal]]:
    """The rows of `EVENTS.file_schema`, and the events that do not become one: another came with their id and other content."""
    try:
        table = in_columns(entries) if entries else None
    except Exception:  # a fault of ours or DuckDB's: the other way is slower, and takes each event by itself
        log.exception("unfold.failed", entries=len(entries))
        table = None
    return (table, []) if table is not None else one_by_one(entries)


def in_columns(entries: list[Entry]) -> pa.Table | None:
    """The rows by DuckDB's JSON reader, or None where that would not be the whole truth."""
    parts, counts = zip(*map(_lines, entries), strict=True)
    if any(entry.count not in (0, count) for entry, count in zip(entries, counts, strict=True)):
        return None
    content = b"\n".join(parts)
    events = _all_of(content, sum(counts))
    if events is None:
        return None
    names = _names(events["event_id"], entries, counts)
    if names is None or _has_unknown(events):
        return None
    columns = {name: events[name] for name in _FIELDS.values()} | {
        "event_id": names,
        "received_ms": pa.array(np.repeat([entry.received_ms for entry in entries], counts), pa.int64()),
        "key_id": pa.array([entry.key_id for entry in entries]).take(np.repeat(np.arange(len(entries)), counts)),
        "extra": pa.nulls(len(names), pa.string()),
    }
    return pa.table({name: columns[name] for name in EVENTS.file_schema.names}).cast(EVENTS.file_schema)


def one_by_one(entries: list[Entry]) -> tuple[pa.Table, list[Refusal]]:
    """The rows, event by event. One that cannot be read after all is refused with its reason, and the others are rows."""
    rows, refused = EventRows(), []
    seen: dict[str, bytes] = {}
    for entry in entries:
        where = (entry.received_ms, entry.key_id, entry.request_id)
        try:
            events = _events_of(entry)
        except Exception as error:  # whatever it is, the segment goes on
            log.exception("entry.unreadable", request_id=entry.request_id)
            refused.append(Refusal(*where, 0, "", f"accepted, but cannot be cut into events: {error}", None, entry.body))
            continue
        for position, body in events:
            try:
                name, first = _row(rows, seen, entry, position, body)
            except Exception as error:
                log.exception("event.unreadable", request_id=entry.request_id, position=position)
                refused.append(Refusal(*where, position, "", f"accepted, but cannot be read: {error}", None, body))
            else:
                if first is not body and decode_event(first) != decode_event(body):
                    refused.append(Refusal(*where, position, "eventId", OTHER_CONTENT, name, body))
    return rows.table(), refused


def _events_of(entry: Entry) -> list[tuple[int, bytes]]:
    """An entry's events: their places in the request, and their bodies."""
    form, _, packing = entry.form.partition("+")
    bodies = cut(form, plain(entry.body, packing))
    if entry.count not in (0, len(bodies)):
        log.error("entry.miscounted", request_id=entry.request_id, accepted=entry.count, found=len(bodies))
    positions = range(len(bodies)) if entry.positions is None else msgspec.json.decode(entry.positions, type=list[int])
    return list(zip(positions, bodies, strict=True))


def _row(rows: EventRows, seen: dict[str, bytes], entry: Entry, position: int, body: bytes) -> tuple[str, bytes]:
    """Add an event, unless its id was there before. Returns the id, and the body that came first with it."""
    decode_event(body)  # the door has seen it: a row that Arrow would not take must not sink the others
    event = decode_any(body)
    msgspec.json.encode(event)  # what could not be written must not be found out with all rows of the segment
    name: str = event.get("eventId") or event_id(entry.id_base, position)
    if name not in seen:
        rows.append(event, name, entry.received_ms, entry.key_id)
        seen[name] = body
    return name, seen[name]


@lru_cache(maxsize=1)
def _reader() -> duckdb.DuckDBPyConnection:
    # One thread for each who asks: segments are read side by side.
    return duckdb.connect(config={"threads": 1})


def _all_of(content: bytes, count: int) -> pa.Table | None:
    """The columns of `_FIELDS` of that many lines, or None where they would not hold everything that the lines do.

    Most fields are optional, and a game leaves most of them out: what the first lines do not have is asked for only where
    what they have is not all. That is a seventh less of DuckDB's time for boss kills without `eventId`.
    """
    sample = content[:_SAMPLE_BYTES]
    everything = list(_FIELDS)
    seen = [field for field in everything if field in _REQUIRED or b'"%b"' % field.encode() in sample]
    for fields in [seen] if seen == everything else [seen, everything]:
        try:
            events = _read(content, fields)
        except duckdb.Error:
            return None
        if len(events) == count and _is_all(events, content):
            return events
    return None


def _read(content: bytes, fields: list[str]) -> pa.Table:
    columns, select = _query(tuple(fields))
    read = _reader().cursor().read_json(
        BytesIO(content), columns=columns, format="newline_delimited", maximum_object_size=_LONGEST_EVENT
    )  # fmt: skip
    events = read.query("read", select)
    assert events is not None  # as of every SELECT
    table: pa.Table = events.to_arrow_table()
    return table


@lru_cache
def _query(fields: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """For DuckDB: the types of these fields, and the statement that makes `_FIELDS` of them, with NULL for the others."""
    nested = ", ".join([f"{field} {_SQL_TYPES[field]}" for field in fields if field in _PAYLOAD])
    columns = {field: _SQL_TYPES[field] for field in fields if field in _COLUMNS} | {"payload": f"STRUCT({nested})"}
    found = {field: f"payload.{field}" if field in _PAYLOAD else field for field in fields}
    flat = [f"{found.get(field, f'NULL::{_SQL_TYPES[field]}')} AS {to}" for field, to in _FIELDS.items()]
    return columns, f"SELECT {', '.join(flat)} FROM read"  # noqa: S608 - our names


def _lines(entry: Entry) -> tuple[bytes | memoryview, int]:
    """An entry's events, one a line, and how many: DuckDB reads lines in a fifth less time than an array.

    Where an array is cut at the wrong places (inside a text, inside an unknown field) the lines are no JSON, and where a place
    is missed, or a document of `lines` has no line of its own, there are too few: all of it is noticed.
    """
    form, _, packing = entry.form.partition("+")
    body = plain(entry.body, packing)
    if form == "lines":
        return body, entry.count or len(cut(form, body))
    if form == "event":
        return body.replace(b"\n", b" "), 1
    first, last = body.index(b"[") + 1, body.rindex(b"]")
    if b"\n" in body:
        cut_up, cuts = _BETWEEN.subn(b"}\n{", body[first:last].replace(b"\n", b" "))
        return cut_up, cuts + 1
    # The same for what encoders write without line breaks, in a third of the time.
    lines = bytearray(body)
    text = np.frombuffer(lines, np.uint8)[first : last + 1]
    closes = np.flatnonzero(text[:-2] == _CLOSE)
    closes = closes[text[closes + 1] == _COMMA]
    behind = closes + 2
    behind += text[behind] == _BLANK
    commas = closes[text[behind] == _OPEN] + 1
    text[commas] = _NEWLINE
    return memoryview(lines)[first:last], len(commas) + 1


def _is_all(events: pa.Table, content: bytes) -> bool:
    """Whether the columns hold everything that the JSON does, by its quotes: two for each name, two for each text.

    A field that is unknown or null has quotes too, and is not among the columns' values. (DuckDB refuses one that comes twice.)
    """
    quotes = np.count_nonzero(np.frombuffer(content, np.uint8) == _QUOTE)
    if b"\\" in content:
        if b"\\\\" in content:  # else every quote behind a backslash is one inside a text
            return False
        quotes -= content.count(b'\\"')
    known = len(events)  # `payload`
    for name in _FIELDS.values():
        column = events[name]
        known += (len(column) - column.null_count) * (2 if column.type == pa.string() else 1)
    return bool(quotes == 2 * known)


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
    for column, kinds in _PAYLOAD.values():
        values = events[column]
        if values.null_count == len(values):
            continue
        for kind in set(_TYPES).difference(kinds):
            if pc.any(pc.and_(pc.is_valid(values), pc.equal(events["type"], pa.scalar(kind)))).as_py():
                return True
    return False
