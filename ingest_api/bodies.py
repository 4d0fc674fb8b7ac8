"""From raw bytes to checked events: the three forms of a body, how each is cut, what is refused of it.

The sealer cuts what the door has accepted by the same functions. What does not belong here: the contract of one event
(`warehouse.events`), packings (`packing.py`), who sent it, where it goes.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from ingest_api.packing import packing, unpack
from ingest_api.problems import Problem
from warehouse.errors import EventError
from warehouse.events import (
    DECODE_ERRORS,
    MALFORMED,
    MAX_DEPTH,
    Event,
    check_depth,
    check_time,
    decode_event,
    decode_events,
    refusal,
)

MAX_EVENTS: Final = 5_000
_MARK: Final = b"\xef\xbb\xbf"
_BLANKS: Final = b" \t\r\n"
# Every document of a body becomes an object before they can be counted: a larger body is cut by lines.
_MAX_GLUED_BYTES: Final = 1024 * 1024
_FORM: Final = re.compile(rb"[\w.%+-]+=|%[57]B", re.IGNORECASE)

_raw_array = msgspec.json.Decoder(Annotated[list[msgspec.Raw], Meta(max_length=MAX_EVENTS)])
_raw_documents = msgspec.json.Decoder(msgspec.Raw)


class Body(Struct, frozen=True, gc=False):
    """A request's body: as it was sent, how that is packed (`gzip`, `zstd` or nothing), and what is read of it."""

    raw: bytes
    packing: str
    plain: bytes

    @classmethod
    def of(cls, raw: bytes, encoding: bytes) -> "Body":
        """Unpack what came with that `Content-Encoding`.

        Raises:
            Problem: 400 for a damaged body, 413 for one too large, 415 for an encoding nobody reads here.
        """
        name = packing(encoding)
        return cls(raw, name, plain(raw, name))


class Refused(Struct, frozen=True, gc=False):
    """An event of a body that breaks the contract."""

    position: int
    error: EventError
    body: bytes


class Checked(Struct, frozen=True, gc=False):
    """A body's events.

    `slices` are the accepted ones' bytes, `positions` their places; both None where everything was accepted.
    """

    form: str
    events: list[Event]
    positions: list[int] | None
    slices: list[bytes] | None
    refused: list[Refused]


def plain(raw: bytes, packing: str) -> bytes:
    """A body unpacked, without the blanks and the one byte order mark that may stand in front.

    Raises:
        Problem: as in `unpack`.
    """
    body = unpack(raw, packing)
    if body[:1] in (b"{", b"["):
        return body
    return body.lstrip(_BLANKS).removeprefix(_MARK).lstrip(_BLANKS)


def check_event(body: Body, received_ms: int) -> Checked:
    """Check a body that is one event. Never raises for what the event says: it is in `refused` then."""
    try:
        return Checked("event", [_check(body.plain, received_ms)], None, None, [])
    except EventError as error:
        if error.reason.startswith(MALFORMED):
            error = EventError("", f"{error.reason}. {_looks_like(body.plain)}")
        return Checked("event", [], [], [], [Refused(0, error, body.plain)])


def check_batch(body: Body, received_ms: int) -> Checked:
    """Check a body that is a JSON array of events, or one event per line (NDJSON).

    Raises:
        Problem: 400 where the body as a whole cannot be cut into events, 413 for too many of them.
    """
    content = body.plain
    form = "array" if content[:1] == b"[" else "lines"
    try:
        events = decode_events(content, lines=form == "lines")
        if len(events) > MAX_EVENTS:
            raise _too_many()
        times = {event.ts for event in events}  # few: a batch is from one moment
        if times:
            check_time(min(times), received_ms)
            check_time(max(times), received_ms)
        _check_text(content)
        _check_depths(form, content, len(events))
    except EventError:
        return _check_each(form, content, received_ms)
    if form == "lines" and len(content) > _MAX_GLUED_BYTES and not _one_a_line(content, len(events)):
        return _check_each(form, content, received_ms)
    return Checked(form, events, None, None, [])


def cut(form: str, content: bytes) -> list[bytes]:
    """The bytes of each event of a body, in order. Of `lines`, a document ends where its JSON ends, not where a line does.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it cannot be cut. What the door accepted in that form can be.
    """
    if form == "event":
        return [content]
    raws = _raw_array.decode(content) if form == "array" else _raw_documents.decode_lines(content)
    return [bytes(raw) for raw in raws]


def _lines(content: bytes) -> Iterator[bytes]:
    """The lines that are not blank, one after the other: of millions only as many as are asked for."""
    start, end = 0, len(content)
    while start < end:
        at = content.find(b"\n", start)
        line = content[start : end if at < 0 else at]
        start = end if at < 0 else at + 1
        if line.strip(_BLANKS):
            yield line


def _check_each(form: str, content: bytes, received_ms: int) -> Checked:
    if form == "array":
        try:
            return _check_all(cut(form, content), received_ms)
        except msgspec.ValidationError:
            raise _too_many() from None
        except DECODE_ERRORS as error:
            raise _no_events("JSON array of events", refusal(error), content) from None
    checked = _check_all(_documents_or_lines(content), received_ms)
    if checked.events or not checked.refused or any(map(_is_object, checked.refused)):
        return checked
    raise _no_events("JSON with an event on each line", checked.refused[0].error, content)


def _one_a_line(content: bytes, count: int) -> bool:
    """Whether each of that many events has a line of its own.

    Outside of a text `}` and `{` follow each other only where one document ends and the next begins, and a text holds no line
    feed: so there are as many such places at line ends as there are boundaries, or fewer.
    """
    return count - 1 in (content.count(b"}\n{"), content.count(b"}\r\n{"))


def _documents_or_lines(content: bytes) -> Iterable[bytes]:
    """Where everything is JSON, each document; else, and where they may be too many, each line.

    It follows from the bytes alone, not from what is right in them: the same body has the same positions when it comes again.
    """
    if len(content) <= _MAX_GLUED_BYTES:
        with suppress(*DECODE_ERRORS):
            return cut("lines", content)
    return _lines(content)


def _is_object(one: Refused) -> bool:
    """Whether that is JSON that could have been an event: a number may stand on a line of anything."""
    return one.body.lstrip(_BLANKS)[:1] == b"{" and not one.error.reason.startswith(MALFORMED)


def _check_all(slices: Iterable[bytes], received_ms: int) -> Checked:
    checked = Checked("lines", [], [], [], [])
    assert checked.positions is not None
    assert checked.slices is not None
    position = -1
    for position, raw in enumerate(islice(slices, MAX_EVENTS + 1)):
        try:
            event = _check(raw, received_ms)
        except EventError as error:
            checked.refused.append(Refused(position, error, raw))
        else:
            checked.events.append(event)
            checked.positions.append(position)
            checked.slices.append(raw)
    if position == MAX_EVENTS:
        raise _too_many()
    return checked


def _check(raw: bytes, received_ms: int) -> Event:
    event = decode_event(raw)
    check_time(event.ts, received_ms)
    _check_text(raw)
    check_depth(raw)
    return event


def _check_depths(form: str, content: bytes, count: int) -> None:
    """`check_depth` of each of that many events; of almost every body it is enough to count its brackets."""
    if content.count(b"{") + content.count(b"[") > 2 * count + MAX_DEPTH - 2:
        for raw in cut(form, content):
            check_depth(raw)


def _check_text(body: bytes) -> None:
    """Refuse bytes that are no UTF-8 in the fields that the decoder skips: the sealer keeps those fields, too."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise EventError("", f"{MALFORMED}: {error}") from None


def _looks_like(content: bytes) -> str:
    """What a body that is no JSON may be, and what to send then."""
    if content[:2] == b"\x1f\x8b":
        return "It looks like gzip: say so with Content-Encoding: gzip."
    if content[:4] == b"\x28\xb5\x2f\xfd":
        return "It looks like zstd: say so with Content-Encoding: zstd."
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4]:
        return "It looks like UTF-16 or UTF-32: send UTF-8."
    if content[:1] == b"<":
        return "It looks like a page of HTML or XML: send the events themselves."
    if _FORM.match(content):
        return "It looks like a web form: send the JSON itself as the body."
    return "Send JSON in UTF-8."


def _no_events(what: str, error: EventError, content: bytes) -> Problem:
    return Problem(400, "malformed", f"The body is no {what}: {error.reason}. {_looks_like(content)}", field="")


def _too_many() -> Problem:
    return Problem(413, "too-large", f"More than {MAX_EVENTS:,} events in one batch; that many are read.")
