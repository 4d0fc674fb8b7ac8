"""Which events of a checked body go into the journal, and what the client is told of each.

What does not belong here: HTTP, Redis, the disk.
"""

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ingest_api.bodies import Body, Checked, Refused, cut
from ingest_api.door import Door
from ingest_api.segment import OTHER_CONTENT, Entry, Refusal
from warehouse.errors import EventError
from warehouse.events import id_in

if TYPE_CHECKING:
    from warehouse.events import Event


class ErrorItem(Struct, frozen=True):
    """Why one event of a batch was refused. `index` is its position, `field` the JSON path of the offending value."""

    index: int
    field: str
    reason: str


class Answer(Struct, frozen=True):
    """The body of a 202: accepted + duplicates + rejected = received."""

    accepted: int
    duplicates: int
    rejected: int
    errors: list[ErrorItem]


class Arrival(Struct, frozen=True, gc=False):
    """A body and where it came from."""

    received_ms: int
    key_id: str
    id_base: bytes
    request_id: str
    body: Body


class Admitted(Struct, frozen=True, gc=False):
    """What goes into the journal, and the answer once it is there.

    `single_error` is why the event of a `POST /events` was refused.
    """

    entry: Entry | None
    refusals: list[Refusal]
    answer: Answer
    single_error: EventError | None


def admit(checked: Checked, arrival: Arrival, door: Door) -> Admitted:
    """Leave out what is known at the door; keep the refused events, too."""
    if checked.slices is None and door.take(checked.events):
        count, packing = len(checked.events), arrival.body.packing
        form = f"{checked.form}+{packing}" if packing else checked.form
        entry = _entry(arrival, form, arrival.body.raw, None, count) if count else None
        return Admitted(entry, [], Answer(count, 0, 0, []), None)
    return _admit_each(checked, arrival, door)


def _admit_each(checked: Checked, arrival: Arrival, door: Door) -> Admitted:
    slices = cut(checked.form, arrival.body.plain) if checked.slices is None else checked.slices
    places = range(len(slices)) if checked.positions is None else checked.positions
    refused = list(checked.refused)
    kept: dict[int, bytes] = {}
    accepted: list[Event] = []
    for event, position, raw in zip(checked.events, places, slices, strict=True):
        content = door.content_of(event)
        if content is None:
            kept[position] = raw
            accepted.append(event)
            door.remember([event])
        elif content != hash(event):
            refused.append(Refused(position, EventError("eventId", OTHER_CONTENT), raw))
    refused.sort(key=lambda one: one.position)
    entry = None
    if kept:
        # A line feed in JSON is white space: inside a string it would have been refused.
        body = b"\n".join(raw.replace(b"\n", b" ") for raw in kept.values())
        entry = _entry(arrival, "lines", body, msgspec.json.encode(list(kept)), len(kept))
    duplicates = len(checked.events) + len(checked.refused) - len(kept) - len(refused)
    errors = [ErrorItem(one.position, one.error.field, one.error.reason) for one in refused]
    return Admitted(
        entry,
        [_refusal(arrival, one) for one in refused],
        Answer(len(kept), duplicates, len(refused), errors),
        refused[0].error if refused and checked.form == "event" else None,
    )


def _entry(arrival: Arrival, form: str, body: bytes, positions: bytes | None, count: int) -> Entry:
    return Entry(arrival.received_ms, arrival.key_id, arrival.id_base, arrival.request_id, form, body, positions, count)


def _refusal(arrival: Arrival, one: Refused) -> Refusal:
    event_id = id_in(one.body)
    return Refusal(
        arrival.received_ms,
        arrival.key_id,
        arrival.request_id,
        one.position,
        one.error.field,
        one.error.reason,
        event_id,
        one.body,
    )
