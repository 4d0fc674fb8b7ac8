"""What the door accepted is what the sealer lands: cut and decoded alike, whatever the body, and whoever came with it."""

import fcntl
import gzip
import json
import logging
import os
import random
import time
from pathlib import Path

import psutil
import pytest
import structlog
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_api import group, segment
from ingest_api.admission import Admitted, Arrival
from ingest_api.bodies import Checked
from ingest_api.door import Door
from ingest_api.sealer import seal_once
from ingest_api.signature import sign
from ingest_api.unfold import unfold
from tests.ingest_fixtures import SECRET, Service, progression, service, wait_until
from tests.ingest_worker import one_worker
from warehouse.settings import Settings

EXAMPLES = int(os.environ.get("FAIRBOARD_TEST_FUZZ", "0")) // 10 or 400
NOW = int(time.time())

BLANKS = st.text(" \t\r\n", max_size=3).map(str.encode)
BETWEEN = BLANKS | st.sampled_from(
    [b"\n", b"\r\n", b",", b", ", b"\x1e", b"\x0c", b"\n\x0b\n", b"\xe2\x80\xa8", b"\0", b"\xef\xbb\xbf"]
)
FRONT = BLANKS | st.sampled_from([b"", b"\xef\xbb\xbf", b" \xef\xbb\xbf\n", b"\xef\xbb\xbf\xef\xbb\xbf", b"[", b"\x1e"])
TEXTS = st.text(max_size=6) | st.sampled_from(["},{", "}\n{", '"', "\\", "\u2028", "\x85", "\x7f", "😀", "\\u0000"])
ODD = st.sampled_from(['"\\ud800"', '"\\ud83d\\ude00"', "NaN", '""'])
PLAYERS = st.text("abé", min_size=1, max_size=3).map(json.dumps) | ODD
DEEP = st.integers(0, 1100).map(lambda levels: "[" * levels + "]" * levels)
RAW = st.sampled_from(["9" * 25, "9" * 5000, "-0", "1e999", "-1E+5", "1.50", "0.1e1", "true", "[{},{}]"]) | DEEP | ODD
NUMBERS = st.sampled_from(["1", "-5", "150.0", "1.5e2", "1.5", "9007199254740993.0", "9007199254740991.0", "9" * 19, "1e400"])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """The text of an event, mostly: its fields in any order, some odd, some twice, with blanks where JSON has them."""
    payload = [f'"deltaXp":{draw(NUMBERS)}', f'"activity":{json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))}']
    fields = [
        '"type":"progression"',
        f'"playerId":{draw(PLAYERS)}',
        f'"ts":{NOW}' + draw(st.sampled_from(["", "", "", ".0", "e0"])),
        '"payload":{' + ",".join(draw(st.permutations(payload))) + "}",
    ]
    if draw(st.booleans()):
        fields.append(f'"eventId":"{draw(st.integers(0, 10**12))}"')
    if draw(st.booleans()):
        fields.append(f'"more":{draw(RAW)}')
    if draw(st.integers(0, 9)) == 0:
        fields.append(draw(st.sampled_from(fields)))
    blank = draw(st.sampled_from(["", " ", "\n", "\r\n\t", "\r"]))
    text = "{" + blank + f",{blank}".join(draw(st.permutations(fields))) + blank + "}"
    return text.encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Documents glued together in some way, seldom with a byte changed or the end missing."""
    parts = draw(st.lists(documents(), max_size=4))
    body = draw(FRONT) + draw(BETWEEN).join(parts) + draw(BLANKS | st.just(b"]"))
    place = draw(st.integers(0, 20 * len(body) + 1))
    if place < len(body):
        body = body[:place] + draw(st.binary(max_size=2)) + body[place + draw(st.integers(0, 2)) :]
    return body


def _request(path: bytes, body: bytes, packing: bytes) -> bytes:
    packed = {b"": bytes, b"gzip": gzip.compress, b"zstd": zstandard.compress}[packing](body)
    head = b"content-encoding: %b\r\n" % packing if packing else b""
    signature = sign(SECRET.encode(), packed).encode()
    return b"POST %b HTTP/1.1\r\nhost: x\r\nx-signature: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        path, signature, len(packed), head, packed,
    )  # fmt: skip


def _answers(received: list[bytes]) -> list[tuple[int, dict[str, int]]]:
    return [(int(one[9:12]), json.loads(one.partition(b"\r\n\r\n")[2])) for one in received]


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([b"/events", b"/events/batch", b"/events/batch"]),
        bodies(),
        st.sampled_from([b"", b"", b"gzip", b"zstd"]),
    ),
    min_size=1,
    max_size=3,
)


def test_accepted_is_landed_for_every_body_and_for_those_that_came_with_it(tmp_path: Path) -> None:
    statuses: dict[int, int] = {}
    with one_worker(tmp_path) as worker:

        @settings(max_examples=EXAMPLES, deadline=None, database=None)
        @given(REQUESTS)
        def send(requests: list[tuple[bytes, bytes, bytes]]) -> None:
            bystander = _request(b"/events", json.dumps(progression("bystander")).encode(), b"")
            answers = _answers(worker.send_together([*(_request(*request) for request in requests), bystander]))
            worker.forget()
            finished = worker.finished_segment()
            entries, refusals = segment.read(finished)
            finished.unlink()
            for status, _ in answers:
                statuses[status] = statuses.get(status, 0) + 1
                assert status in (202, 400, 413)
            rows, unreadable = unfold(entries)
            told = [answer for status, answer in answers if status == 202]
            assert answers[-1] == (202, {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []})
            assert not unreadable
            assert rows.num_rows == sum(answer["accepted"] for answer in told)
            assert len(refusals) >= sum(answer["rejected"] for answer in told)
            assert rows["player_id"].to_pylist().count("bystander") == 1

        send()
    assert statuses[202] > sum(statuses.values()) / 3
    assert statuses[400] > 10


@pytest.mark.parametrize("padding", [0, 700_000], ids=["small", "above a MiB"])
def test_a_body_is_cut_alike_whatever_is_right_in_it(tmp_path: Path, padding: int) -> None:
    def event(player: str, **more: object) -> str:
        return json.dumps(progression(player, padding="x" * padding, **more))

    whole, parts = event("a") + event("b") + "\n" + event("c"), event("a") + event("b") + "\n" + event("c", eventId=5)
    with one_worker(tmp_path) as worker:
        answers = _answers(worker.send_together([_request(b"/events/batch", body.encode(), b"") for body in (whole, parts)]))
        rows, _ = unfold(segment.read(worker.finished_segment())[0])
    told = [(answer["accepted"], answer["rejected"]) for _, answer in answers]
    # A larger body is cut by lines: two events on one are refused, whether or not the third is right.
    assert told == ([(3, 0), (2, 1)] if not padding else [(1, 1), (0, 2)])
    assert rows.num_rows == sum(accepted for accepted, _ in told)


@pytest.mark.parametrize("odd", ['"playerId": "\\ud800"', '"y": NaN', '"y": "\\ud800"'])
def test_what_one_reader_takes_and_another_does_not_is_refused_and_nobody_else_suffers(tmp_path: Path, odd: str) -> None:
    event = '{"x": %s, "ts": %d.0, "playerId": "p", %s, "type": "progression", "payload": {"deltaXp": 1, "activity": "q"}}'
    requests = [_request(b"/events", (event % ("9" * 5000, NOW, odd)).encode(), b"")]
    requests.append(_request(b"/events", json.dumps(progression("bystander")).encode(), b""))
    with one_worker(tmp_path) as worker:
        assert [status for status, _ in _answers(worker.send_together(requests))] == [400, 202]
    assert seal_once(Settings(data_dir=tmp_path, _env_file=None)) == 2  # with the refused one
    assert Service(tmp_path, 0).events().get_column("player_id").to_list() == ["bystander"]


@pytest.mark.parametrize(
    ("body", "players"),
    [
        ("{0}{1}\n5", "ab"),
        ("{0}\n{{}}{1}", "ab"),
        ("{0}{1}", "ab"),
        ("{0} {1}", "ab"),
        ("{0}\n\n \r\n{1}\r\n", "ab"),
        ("\ufeff{0}\n{1}", "ab"),
        (" \n\ufeff [{0},\r\n{1}]", "ab"),
        ("{0}\n{{}}\n{1}", "ab"),
        ("{0}\n{{broken\n{1}", "ab"),
        ("{0}\u2028{1}", ""),
        ("{0}\x1e{1}", ""),
        ("{0}\f{1}", ""),
        ("{0},{1}", ""),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_documents_are_cut_alike_however_they_are_glued(tmp_path: Path, body: str, players: str, indent: int | None) -> None:
    content = body.format(*(json.dumps(progression(player), indent=indent) for player in "ab")).encode()
    with one_worker(tmp_path) as worker:
        ((status, answer),) = _answers(worker.send_together([_request(b"/events/batch", content, b"")]))
    seal_once(Settings(data_dir=tmp_path, _env_file=None))
    landed = sorted(Service(tmp_path, 0).events().get_column("player_id")) if list(tmp_path.rglob("*.parquet")) else []
    if indent and "broken" in body:  # over several lines, a broken document leaves no place to go on from
        assert (status, landed) == (400, [])
    elif not players:
        assert status == 400
        assert landed == []
    else:
        assert (status, answer["accepted"], landed) == (202, 2, ["a", "b"])


def test_a_sealer_that_cannot_seal_makes_the_service_unready_and_its_end_a_failure(tmp_path: Path) -> None:
    with service(tmp_path / "data") as running:
        lake = tmp_path / "data" / "lake"
        running.post("/events", json.dumps(progression("first")).encode())
        wait_until(lambda: running.events().height == 1, "the lake is there")
        kept = lake.rename(tmp_path / "kept")
        lake.write_text("no folder")
        assert running.post("/events", json.dumps(progression("second")).encode()).status_code == 202
        wait_until(lambda: running.http.get("/readyz").status_code == 503, "it is noticed")
        ready = running.http.get("/readyz").json()
        assert (ready["status"], ready["journal"]) == ("unready", "ok")
        assert str(tmp_path) not in json.dumps(ready)
        assert 'fairboard_seal_stuck{worker="000"} 1' in running.http.get("/metrics").text
        assert running.post("/events", json.dumps(progression("third")).encode()).status_code == 202
        assert running.stop() == 1
        assert "Do not remove them" in running.log()
        lake.unlink()
        kept.rename(lake)
        running.start()
        wait_until(lambda: running.http.get("/readyz").json()["sealer"] == "ok", "it seals again")
        assert running.stop() == 0
        assert sorted(running.events()["player_id"]) == ["first", "second", "third"]


def test_a_sealer_that_dies_again_and_again_makes_the_service_unready_until_it_has_sealed(tmp_path: Path) -> None:
    with service(tmp_path / "data") as running:
        lock = (tmp_path / "data" / "journal" / "sealer.lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX)  # so it never gets to seal before it is killed
        for n in range(3):
            wait_until(lambda n=n: running.log().count("process.died") == n and _sealer(running) is not None, "it is started")
            sealer = _sealer(running)
            assert sealer is not None
            time.sleep(1.2)
            sealer.kill()
        wait_until(lambda: running.http.get("/readyz").status_code == 503, "it is noticed")
        assert "died 3 times" in running.http.get("/readyz").json()["sealer"]
        lock.close()
        wait_until(lambda: running.http.get("/readyz").json()["sealer"] == "ok", "it seals again")


def _sealer(running: Service) -> psutil.Process | None:
    children = psutil.Process(running.process.pid).children()
    return next((child for child in children if "ingest_api.sealer" in child.cmdline()), None)


def test_a_fault_in_one_request_of_a_group_fails_that_request_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = group.admit

    def admit(checked: Checked, arrival: Arrival, door: Door) -> Admitted:
        admitted = real(checked, arrival, door)
        if b"faulty" in arrival.body.plain and not mended:
            raise ZeroDivisionError
        return admitted

    mended: list[bool] = []
    monkeypatch.setattr(group, "admit", admit)
    bodies = [json.dumps(progression(name, eventId=name)).encode() for name in ("first", "faulty", "last")]
    requests = [_request(b"/events", body, b"") for body in bodies]
    with one_worker(tmp_path) as worker:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        assert [status for status, _ in _answers(worker.send_together(requests))] == [202, 500, 202]
        mended.append(True)
        (again,) = _answers(worker.send_together([requests[1]]))
        assert again == (202, {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []})
        rows, _ = unfold(segment.read(worker.finished_segment())[0])
        assert sorted(rows["player_id"].to_pylist()) == ["faulty", "first", "last"]


def test_what_cannot_be_read_after_all_is_refused_event_by_event_and_the_segment_goes_on(tmp_path: Path) -> None:
    good = json.dumps(progression("good")).encode()
    entry = segment.Entry(NOW * 1000, "k", b"x" * 16, "r", "lines", good + b"\n" + good.replace(b"good", b"also"), None, 2)
    broken = [
        segment.Entry(NOW * 1000, "k", b"y" * 16, "r", "array", b"no array", None, 1),
        segment.Entry(NOW * 1000, "k", b"z" * 16, "r", "lines+gzip", random.Random(1).randbytes(40), None, 1),
        segment.Entry(NOW * 1000, "k", b"w" * 16, "r", "lines", b'{"type":"foo"}\n' + good.replace(b"good", b"late"), None, 2),
    ]
    half = good.replace(b'"good"', b'"\\ud800"')  # half of a character: JSON as little as text
    broken.append(segment.Entry(NOW * 1000, "k", b"v" * 16, "r", "event", half, None, 1))
    rows, refused = unfold([broken[0], entry, *broken[1:]])
    assert rows["player_id"].to_pylist() == ["good", "also", "late"]
    assert [one.position for one in refused] == [0, 0, 0, 0]
    assert all(one.reason.startswith("accepted, but cannot be ") for one in refused)
