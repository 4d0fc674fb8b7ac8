"""From raw bytes to checked events: unpacking with a cap, the three forms of a body, what is refused of it.

What does not belong here: the contract of one event (`warehouse.events`), who sent it, where it goes.
"""

import zlib
from collections.abc import Callable

import msgspec
import zstandard
from msgspec import Struct

from ingest_api.problems import Problem
from warehouse.errors import EventError
from warehouse.events import Event, check_time, decode_event, decode_events, refusal

MAX_EVENTS = 5_000
MAX_RAW_BYTES = 4 * 1024 * 1024
MAX_UNPACKED_BYTES = 16 * 1024 * 1024
# The largest window that RFC 8878 asks a decoder to support.
_MAX_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
# A block of 4 bytes unpacks to 128 KiB at most, so a step overshoots the cap by 16 MiB at most.
_ZSTD_STEP_BYTES = 512

_raw_array = msgspec.json.Decoder(list[msgspec.Raw])
_raw_event = msgspec.json.Decoder(msgspec.Raw)


class Refused(Struct, frozen=True, gc=False):
    """An event of a body that breaks the contract."""

    position: int
    error: EventError
    body: bytes


class Checked(Struct, frozen=True, gc=False):
    """A body's events. `slices` are the accepted ones' bytes, None where everything was accepted."""

    form: str
    events: list[Event]
    positions: list[int] | None
    slices: list[bytes] | None
    refused: list[Refused]


def unpack(body: bytes, encoding: str) -> bytes:
    """Undo `Content-Encoding`, stopping as soon as the result is too large.

    Raises:
        Problem: 400 for a damaged body, 413 for one too large, 415 for an encoding nobody reads here.
    """
    if encoding in ("", "identity"):
        return body
    unpacker = _UNPACKERS.get(encoding)
    if unpacker is None:
        raise Problem(415, "encoding", f"Content-Encoding {encoding!r} is not read here; send gzip, zstd or none.")
    try:
        plain = unpacker(body)
    except (zlib.error, zstandard.ZstdError) as error:
        raise Problem(400, "encoding", f"The body is not sound {encoding}: {error}.") from None
    if len(plain) > MAX_UNPACKED_BYTES:
        raise Problem(413, "too-large", f"The body unpacks to more than {MAX_UNPACKED_BYTES:,} bytes.")
    return plain


def check_event(body: bytes, received_ms: int) -> Checked:
    """Check a body that is one event. Never raises for what the event says: it is in `refused` then."""
    try:
        event = decode_event(body)
        check_time(event.ts, received_ms)
        _check_text(body)
    except EventError as error:
        return Checked("event", [], [], [], [Refused(0, error, body)])
    return Checked("event", [event], None, None, [])


def check_batch(body: bytes, received_ms: int) -> Checked:
    """Check a body that is a JSON array of events, or one event per line (NDJSON).

    Raises:
        Problem: 400 where the body as a whole cannot be cut into events, 413 for too many of them.
    """
    form = "array" if body[:64].lstrip()[:1] == b"[" else "lines"
    try:
        events = decode_events(body, lines=form == "lines")
    except EventError:
        return _check_each(form, body, received_ms)
    if len(events) > MAX_EVENTS:
        raise _too_many(len(events))
    times = {event.ts for event in events}  # few: a batch is from one moment
    try:
        if times:
            check_time(min(times), received_ms)
            check_time(max(times), received_ms)
        _check_text(body)
    except EventError:
        return _check_each(form, body, received_ms)
    return Checked(form, events, None, None, [])


def cut(form: str, body: bytes) -> list[bytes]:
    """The bytes of each event of a body, in order.

    Raises:
        Problem: 400 where it cannot be cut.
    """
    try:
        if form == "event":
            return [body]
        if form == "array":
            return [bytes(raw) for raw in _raw_array.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "malformed", f"The body is no JSON array of events: {refusal(error).reason}", field="") from None
    return [line for line in body.split(b"\n") if not line.isspace() and line]


def _check_each(form: str, body: bytes, received_ms: int) -> Checked:
    slices = cut(form, body)
    if len(slices) > MAX_EVENTS:
        raise _too_many(len(slices))
    checked = Checked("lines", [], [], [], [])
    assert checked.positions is not None
    assert checked.slices is not None
    for position, raw in enumerate(slices):
        one = check_event(raw, received_ms)
        if one.refused:
            checked.refused.append(Refused(position, one.refused[0].error, raw))
        else:
            checked.events.append(one.events[0])
            checked.positions.append(position)
            checked.slices.append(raw)
    return checked


def _check_text(body: bytes) -> None:
    """Refuse bytes that are no UTF-8 in the fields that the decoder skips: the sealer keeps those fields, too."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise EventError("", f"malformed JSON: {error}") from None


def _too_many(count: int) -> Problem:
    return Problem(413, "too-large", f"{count:,} events in one batch; at most {MAX_EVENTS:,} are read.")


def _gunzip(body: bytes) -> bytes:
    member = zlib.decompressobj(wbits=31)
    plain = member.decompress(body, MAX_UNPACKED_BYTES + 1)
    if len(plain) <= MAX_UNPACKED_BYTES and not member.eof:
        raise zlib.error("the stream ends too early")
    if member.unused_data:
        # One member only: walking through a million empty ones would copy the rest of the body a million times.
        raise zlib.error("there is something behind the stream's end")
    return plain


def _unzstd(body: bytes) -> bytes:
    frame = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES).decompressobj()
    parts, size = [], 0
    for start in range(0, len(body), _ZSTD_STEP_BYTES):
        parts.append(frame.decompress(body[start : start + _ZSTD_STEP_BYTES]))
        size += len(parts[-1])
        if size > MAX_UNPACKED_BYTES:
            break
    else:
        if not frame.eof or frame.unused_data:
            raise zstandard.ZstdError("the frame ends too early, or there is something behind its end")
    return b"".join(parts)


_UNPACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gunzip, "zstd": _unzstd}
