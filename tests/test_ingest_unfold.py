"""The quick way from a segment to columns gives what the slow way gives."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ingest_api.ids import derived_base
from ingest_api.segment import Entry
from ingest_api.unfold import in_columns, one_by_one
from warehouse.errors import EventError
from warehouse.events import decode_event

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=8) | st.sampled_from(["quest", 'a"b', "\\", "\u2028", "😀"])
IDS = st.none() | st.text(min_size=1, max_size=4)
PAYLOAD = st.fixed_dictionaries(
    {},
    optional={
        "deltaXp": INTEGERS | st.none(),
        "activity": TEXTS | st.none(),
        "bossId": IDS,
        "durationMs": st.none() | st.integers(1, 2**63 - 1),
        "itemId": IDS,
        "quantity": st.none() | st.integers(0, 9),
        "colour": st.integers() | st.floats(allow_nan=False) | TEXTS,
    },
)
EVENT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["progression", "boss_kill", "drop_claimed"]),
        "playerId": st.text(min_size=1, max_size=5),
        "ts": st.integers(0, 2_000_000_000),
        "payload": PAYLOAD,
    },
    optional={"eventId": IDS, "extra": st.lists(st.integers(), max_size=2)},
)


def _entries(bodies: list[bytes]) -> list[Entry]:
    """The first event by itself at last, the others before it in one request: an array, or lines where that can be."""
    first, *others = bodies
    lines = len(others) % 2 == 1 and not any(b"\n" in body for body in others)
    request = b"\n".join(others) if lines else b"[" + b" , ".join(others) + b"]"
    packed = gzip.compress(request)
    entry = Entry(1_790_000_000_000, "k", derived_base(b"x", b""), "r", "lines+gzip" if lines else "array+gzip", packed, None)
    alone = replace(entry, id_base=derived_base(b"y", b""), key_id="other", form="lines", body=first.replace(b"\n", b""))
    return [*([entry] if others else []), replace(alone, positions=b"[7]")]


def _is_event(body: bytes) -> bool:
    try:
        decode_event(body)
    except EventError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=6), st.booleans())
def test_both_ways_give_the_same_rows(events: list[dict[str, object]], indented: bool) -> None:
    bodies = [json.dumps(event, indent=1 if indented else None).encode() for event in events]
    accepted = [body for body in bodies if _is_event(body)]
    quick = in_columns(_entries(accepted)) if accepted else None
    if quick is not None:
        slow, refused = one_by_one(_entries(accepted))
        assert quick.equals(slow)
        assert not refused


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"progression","playerId":"a","playerId":"b","ts":1,"payload":{"deltaXp":1,"activity":"x"}}',
        b'{"type":"progression","playerId":"b","ts":1,"payload":{"deltaXp":1,"activity":"x","bossId":7}}',
        b'{"type":"progression","playerId":"b","ts":1,"payload":{"deltaXp":1,"activity":"x","quantity":7}}',
        b'{"type":"progression","playerId":"b","ts":1,"payload":{"deltaXp":1,"activity":"x"},"more":1e999}',
        b'{"type":"progression","playerId":"b","ts":1,"payload":{"deltaXp":1,"activity":"x","more":123456789012345678901234}}',
        b'{"type":"progression","playerId":"b","ts":1,"payload":{"deltaXp":1,"activity":"x","DELTAXP":2}}',
        b'{"type":"progression","playerId":"b","ts":1,"eventId":null,"payload":{"deltaXp":1,"activity":"x"}}',
        # Two backslashes and a quote look like an escaped quote: as many as an unknown field has must not hide it.
        b'{"type":"progression","playerId":"b","ts":1,"eventId":"e\\\\","payload":{"deltaXp":1,"activity":"x\\\\","more":1}}',
    ],
)
def test_what_duckdb_does_not_read_goes_the_slow_way_and_is_kept(body: bytes) -> None:
    assert in_columns(_entries([body])) is None
    rows, _ = one_by_one(_entries([body]))
    assert rows["player_id"].to_pylist() == ["b"]
    assert rows["delta_xp"].to_pylist() == [1]


def test_a_simple_event_goes_the_quick_way() -> None:
    body = b'{"type":"boss_kill","playerId":"\\"\\u00e9","ts":1.0,"payload":{"bossId":"dragon","partySize":3}}'
    (row,) = in_columns(_entries([body])).to_pylist()
    assert (row["player_id"], row["boss_id"], row["party_size"], row["event_id"][14]) == ('"é', "dragon", 3, "8")


@pytest.mark.parametrize(
    ("before", "field", "column", "value", "quick"),
    [
        (b'"ts"', b'"eventId":"mine"', "event_id", "mine", True),
        (b'"bossId"', b'"difficulty":"hard"', "difficulty", "hard", True),
        (b'"bossId"', b'"mood":"grim"', "extra", '{"payload":{"mood":"grim"}}', False),
    ],
)
def test_a_field_that_only_a_late_event_has_is_kept(before: bytes, field: bytes, column: str, value: str, quick: bool) -> None:
    event = b'{"type":"boss_kill","playerId":"ann","ts":1790000000,"payload":{"bossId":"dragon"}}'
    entries = _entries([event, *[event] * 2_000, event.replace(before, field + b"," + before)])
    columns, rows = in_columns(entries), one_by_one(entries)[0]
    assert columns == rows if quick else columns is None
    assert rows[column][-2].as_py() == value


@pytest.mark.parametrize(
    ("between", "more", "quick"),
    [
        (b",", {}, True),
        (b", ", {}, True),
        (b" ,\n\t", {}, True),
        (b",\r", {}, False),
        (b"  ,", {}, False),
        (b",", {"payload": {"deltaXp": 1, "activity": "a known field's text },{"}}, False),
        (b", ", {"seen": [{"deep": 1}, {"deep": 2}]}, False),
    ],
)
def test_an_array_is_cut_between_its_events_or_read_one_by_one(between: bytes, more: dict[str, object], quick: bool) -> None:
    event = {"type": "progression", "playerId": "ann", "ts": 1_790_000_000, "payload": {"deltaXp": 1, "activity": "quest"}}
    first, second = json.dumps(event | more).encode(), json.dumps(event).encode()
    entry = Entry(1_790_000_000_000, "k", derived_base(b"x", b""), "r", "array", b"[" + first + between + second + b"]", None)
    columns, rows = in_columns([entry]), one_by_one([entry])[0]
    assert rows.num_rows == 2
    assert columns == rows if quick else columns is None
