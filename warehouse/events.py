"""The contract of the event: its JSON, what is refused and with which words.

The ingest service, the sealer and `fairboard import` all decode through here.
What does not belong here: HTTP, signatures, files, columns (`event_rows.py`).
"""

import json
import math
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from warehouse.errors import EventError

LATENESS_S = 30 * 86_400
AHEAD_S = 300
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138; as milliseconds, March 1973

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]
# What characters they may not hold is checked by `_check_characters`, and only where a body can hold one: as `Meta(pattern=…)`
# it cost five sixths of the decoding (0.4 instead of 2.7 million events a second). The schema says it all the same.
Id = Annotated[str, Meta(min_length=1, max_length=128, extra_json_schema={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$"})]
Text = Annotated[str, Meta(max_length=1024, extra_json_schema={"pattern": r"^[^\u0000]*$"})]


class ProgressionPayload(Struct, frozen=True, gc=False):
    """XP won or corrected."""

    deltaXp: Int64
    activity: Text


class BossKillPayload(Struct, frozen=True, gc=False):
    """How a boss fell. Everything is optional and checked when present."""

    bossId: Id | None = None
    durationMs: Positive | None = None
    partySize: Positive | None = None
    difficulty: Text | None = None
    deltaXp: Int64 | None = None
    activity: Text | None = None


class DropClaimedPayload(Struct, frozen=True, gc=False):
    """What dropped. Everything is optional and checked when present."""

    itemId: Id | None = None
    rarity: Text | None = None
    bossId: Id | None = None
    quantity: Positive | None = None
    deltaXp: Int64 | None = None
    activity: Text | None = None


class Progression(Struct, frozen=True, gc=False, tag="progression", tag_field="type"):
    """A player won XP, or XP was corrected."""

    playerId: Id
    ts: Int64
    payload: ProgressionPayload
    eventId: Id | None = None


class BossKill(Struct, frozen=True, gc=False, tag="boss_kill", tag_field="type"):
    """A player's party killed a boss."""

    playerId: Id
    ts: Int64
    payload: BossKillPayload
    eventId: Id | None = None


class DropClaimed(Struct, frozen=True, gc=False, tag="drop_claimed", tag_field="type"):
    """A player claimed a drop."""

    playerId: Id
    ts: Int64
    payload: DropClaimedPayload
    eventId: Id | None = None


Event = Progression | BossKill | DropClaimed

_event_decoder = msgspec.json.Decoder(Event)
_batch_decoder = msgspec.json.Decoder(list[Event])
_INTEGERS = {
    "progression": ("deltaXp",),
    "boss_kill": ("deltaXp", "durationMs", "partySize"),
    "drop_claimed": ("deltaXp", "quantity"),
}
_EXACT_BELOW = 2**53  # from there on a float stands for several integers
MAX_DEPTH = 64
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|[\]}]', re.DOTALL)
_TYPE_NAMES = {
    "int": "a whole number", "float": "a number with a fraction", "str": "text", "bool": "true or false", "null": "null",
    "object": "an object", "array": "an array",
}  # fmt: skip
_EXPECTED = re.compile(r"Expected `([^`|]+)(?: \| null)?`(?:, got `([^`]+)`)?(?: of length)?(?: ([<>]=) (-?\d+))?")
_BOUNDS = {">=": "at least", "<=": "at most"}
MALFORMED = "malformed JSON"
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # of what is no event
_BACKSLASH, _DEL = b"\\\x7f"  # as numbers: bytes are searched for one in a fifth of the time
_CONTROLS, _NUL = re.compile(r"[\x00-\x1f\x7f-\x9f]"), re.compile(r"\x00")
_FORBIDDEN = dict.fromkeys(("playerId", "eventId", "bossId", "itemId"), _CONTROLS)
_FORBIDDEN |= dict.fromkeys(("activity", "difficulty", "rarity"), _NUL)


def refusal(error: Exception) -> EventError:
    """Put a decoder's exception in the contract's words. Anything but a decoder's exception is raised again."""
    if isinstance(error, msgspec.ValidationError):
        reason, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".")
        if reason.startswith("Object missing required field `"):
            name = reason.split("`")[1]
            return EventError(f"{field}.{name}" if field else name, "required, and missing")
        if reason.startswith("Invalid value ") and field == "type":
            reason += "; known types: progression, boss_kill, drop_claimed"
        elif match := _EXPECTED.fullmatch(reason):
            reason = _expected(*match.groups(), length=" of length" in reason)
        return EventError(field, reason)
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return EventError("", f"{MALFORMED}: {str(error).removeprefix('JSON is malformed: ')}")
    if isinstance(error, RecursionError):
        return EventError("", "nested too deeply")
    raise error


def _expected(wanted: str, got: str | None, bound: str | None, number: str | None, *, length: bool) -> str:
    """What belongs in a field, in the words of who sends it, not in those of the decoder."""
    if wanted == "int" and got == "float":
        return "a whole number belongs here; this has a fraction, or is too large to be exact"
    what = _TYPE_NAMES.get(wanted, wanted)
    if bound is not None:
        unit = "" if not length else " character" if number == "1" else " characters"
        return f"{what} of {_BOUNDS[bound]} {number}{unit} belongs here"
    return f"{what} belongs here" if got is None else f"{what} belongs here, this is {_TYPE_NAMES.get(got, got)}"


def decode_event(body: bytes | msgspec.Raw) -> Event:
    """Decode one event, its time unchecked (see `check_time`).

    A number like 150.0 is a whole one: engines that know floats only (Godot, Lua) write it so.

    Raises:
        EventError: it breaks the contract; `field` says where.
    """
    body = bytes(body)
    try:
        event: Event = _event_decoder.decode(body)
    except msgspec.ValidationError as error:
        if not str(error).startswith("Expected `int") or "got `float`" not in str(error):
            raise refusal(error) from None
        event = _decode_floats(body)
    except DECODE_ERRORS as error:
        raise refusal(error) from None
    if _may_hold_controls(body):
        _check_characters(event)
    return event


def _decode_floats(body: bytes) -> Event:
    try:
        event: Event = msgspec.convert(decode_any(body), Event)
    except DECODE_ERRORS as error:
        raise refusal(error) from None
    return event


def check_depth(body: bytes) -> None:
    """Refuse an event that is nested so deeply that reading it depends on who reads.

    Raises:
        EventError: it has more than 64 levels.
    """
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(body):
        if match[1]:
            depth += 1
            if depth > MAX_DEPTH:
                raise EventError("", f"nested deeper than {MAX_DEPTH} levels")
        elif match[0][:1] != b'"':
            depth -= 1


def decode_events(body: bytes, *, lines: bool) -> list[Event]:
    """Decode a JSON array of events, or with `lines` one per line, their times unchecked.

    Raises:
        EventError: one of them breaks the contract; `field` says where in it, not which one it was.
    """
    try:
        events: list[Event] = _event_decoder.decode_lines(body) if lines else _batch_decoder.decode(body)
    except DECODE_ERRORS as error:
        raise refusal(error) from None
    if _may_hold_controls(body):
        for event in events:
            _check_characters(event)
    return events


def _may_hold_controls(body: bytes) -> bool:
    """A raw control character below 0x20 is no JSON: others come as DEL, by an escape, or beyond ASCII."""
    return _BACKSLASH in body or _DEL in body or not body.isascii()


def _check_characters(event: Event) -> None:
    for owner, prefix in ((event, ""), (event.payload, "payload.")):
        for name in owner.__struct_fields__:
            value = getattr(owner, name)
            if isinstance(value, str) and _FORBIDDEN[name].search(value):
                raise EventError(prefix + name, "holds control characters")


def check_time(ts: int, received_ms: int) -> None:
    """Refuse a time outside the window in which the service accepts events.

    Raises:
        EventError: `ts` is in milliseconds, more than 30 days old, or more than 5 minutes ahead of `received_ms`.
    """
    now = received_ms // 1000
    if now - LATENESS_S <= ts <= now + AHEAD_S:
        return
    check_seconds(ts)
    if ts < now:
        raise EventError("ts", f"{ts} is more than 30 days ago; load history with `fairboard import`")
    raise EventError("ts", f"{ts} is more than 5 minutes ahead of the server's clock ({now})")


def check_seconds(ts: int) -> None:
    """Refuse what cannot be seconds since the epoch.

    Raises:
        EventError: `ts` is negative or in milliseconds.
    """
    if ts < 0:
        raise EventError("ts", f"{ts} is before 1970")
    if ts >= _MILLISECONDS_FROM:
        raise EventError("ts", f"{ts} looks like milliseconds; send whole seconds since the epoch")


def decode_any(body: bytes | msgspec.Raw) -> Any:
    """Decode JSON that `decode_event` accepts, unknown fields included, whole numbers as integers where they belong.

    A number too large for Python's own types is kept as the text it was: the contract has no field for it.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no JSON, so `decode_event` does not accept it either.
    """
    try:
        event = _any_decoder.decode(body)
    except msgspec.ValidationError:  # an integer of thousands of digits
        _document.decode(body)  # `json` would take more than JSON: NaN, halves of characters
        event = json.loads(bytes(body), parse_int=_integer, parse_float=_number)
    if isinstance(event, dict) and isinstance(kind := event.get("type"), str):
        _make_whole(event, ("ts",))
        if isinstance(payload := event.get("payload"), dict):
            _make_whole(payload, _INTEGERS.get(kind, ()))
    return event


class _OnlyId(Struct):
    eventId: str | None = None


def id_in(body: bytes) -> str | None:
    """The `eventId` of what was refused, where one can be read."""
    try:
        return _only_id.decode(body).eventId
    except DECODE_ERRORS:
        return None


_only_id = msgspec.json.Decoder(_OnlyId)


def _make_whole(values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        value = values.get(name)
        if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_BELOW:
            values[name] = int(value)


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text


_MAX_DIGITS = 4_000  # Python refuses to read more than 4,300
_any_decoder = msgspec.json.Decoder(float_hook=_number)
_document = msgspec.json.Decoder(msgspec.Raw)
