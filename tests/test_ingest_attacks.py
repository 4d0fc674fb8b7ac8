"""What an attacker or a broken client sends: never a 500, never more memory than the caps, never another's answer."""

import asyncio
import hashlib
import hmac
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_api.keys import make_key, retire_keys
from ingest_api.sealer import seal_once
from ingest_api.signature import secret_bytes, sign
from tests.ingest_fixtures import SECRET, Service, progression, service, wait_until
from tests.ingest_worker import one_worker
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.settings import Settings

FUZZ = int(os.environ.get("FAIRBOARD_TEST_FUZZ", "1500"))


CHUNK = b"100000\r\n" + b"a" * 2**20 + b"\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("attacks") / "data") as started:
        yield started


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"hello world", "57938295649097379cddb382dd6c82d5e0460645a8fd01674a48a76de6142646"),
        (b"", "0f4b258683a3a61038f955720a245894f3ef5462f5045b22735f5faf1594053d"),
    ],
)
def test_signatures_are_those_of_the_vectors(message: bytes, digest: str) -> None:
    assert sign(b"secret123", message) == digest
    rfc4231 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"Jefe", b"what do ya want for nothing?") == rfc4231


def _raw(running: Service, request: bytes, end: bool = True) -> bytes:
    port = int(running.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def _signed(body: bytes, head: bytes = b"", path: bytes = b"/events") -> bytes:
    signature = sign(SECRET.encode(), body).encode()
    return b"POST %b HTTP/1.1\r\nhost: x\r\nx-signature: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        path, signature, len(body), head, body,
    )  # fmt: skip


def test_pipelined_requests_are_answered_in_their_order(running: Service) -> None:
    large = json.dumps([progression()] * 400).encode()  # its signature is checked by another thread
    requests = []
    for n in range(300):
        head = b"x-request-id: n%d\r\n" % n
        if n % 20 == 1:
            requests.append(_signed(large, head, b"/events/batch"))
        elif n % 3:
            requests.append(_signed(json.dumps(progression(eventId=f"pipe-{n}")).encode(), head))
        else:
            requests.append(b"GET /healthz HTTP/1.1\r\nhost: x\r\n%b\r\n" % head)
    answers = _raw(running, b"".join(requests)).split(b"HTTP/1.1 ")[1:]
    assert [a.partition(b"x-request-id: n")[2].partition(b"\r")[0] for a in answers] == [b"%d" % n for n in range(300)]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET", b"400"),
        (b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!", b"400"),
        (b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", b"400"),
        (b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n", b"400"),
        (b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 4194305\r\n\r\n", b"413"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000, b"431"),
        (b"POST /events/batch HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK * 5 + b"0\r\n\r\n", b"413"),
    ],
)  # fmt: skip
def test_what_is_no_proper_request_is_refused_and_the_connection_closed(
    running: Service, request_bytes: bytes, status: bytes
) -> None:
    answer = _raw(running, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer


def test_an_offer_of_another_protocol_is_passed_over(running: Service) -> None:
    body = json.dumps(progression()).encode()
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    answers = _raw(running, _signed(body, offer) + _signed(body, offer)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"202", b"202"]


def test_a_request_id_cannot_carry_a_header(running: Service) -> None:
    answer = _raw(running, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: given\tid\r\nconnection: close\r\n\r\n")
    assert b"x-request-id: given" not in answer


def test_a_key_made_verifies_beside_the_old_one_and_a_retired_one_no_more(tmp_path: Path) -> None:
    with service(tmp_path / "data") as started:
        made = [make_key(started.settings, "rotating") for _ in range(2)]

        def status(secret: str) -> int:
            body = json.dumps(progression()).encode()
            signature = hmac.new(secret_bytes(secret), body, hashlib.sha256).hexdigest()
            return started.post("/events", body, x_key_id="rotating", x_signature=signature).status_code

        wait_until(lambda: status(made[0]) == 202, "the new key is known")
        assert status(made[1]) == 202
        assert retire_keys(started.settings, "rotating", keep_newest=True) == 1
        wait_until(lambda: status(made[0]) == 401, "the retired secret is refused")
        assert status(made[1]) == 202
        assert (tmp_path / "data" / "keys.json").stat().st_mode & 0o777 == 0o600
        assert made[1] not in started.log()


@pytest.mark.parametrize("part", [b"POST /ev", b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nslow"])
def test_a_request_that_does_not_arrive_is_a_408_and_an_idle_connection_is_closed(tmp_path: Path, part: bytes) -> None:
    with one_worker(tmp_path) as worker:
        connection, transport = worker.connect()
        connection.look(time.monotonic() + 70)
        assert not transport.closed
        connection.parse(part)
        connection.look(time.monotonic() + 19)
        assert not transport.written
        connection.look(time.monotonic() + 21)
        assert transport.written.startswith(b"HTTP/1.1 408 ")
        connection.look(time.monotonic() + 42)
        assert transport.closed
        waiting, idle = worker.connect()
        waiting.look(time.monotonic() + 76)
        assert idle.closed


def test_a_fault_at_one_connection_does_not_reach_those_that_sent_in_the_same_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with one_worker(tmp_path) as worker:
        made = [worker.connect() for _ in range(3)]
        for connection, _ in made:
            connection.data_received(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")

        def fail(_data: bytes) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(made[1][0], "parse", fail)
        worker.loop.run_until_complete(asyncio.sleep(0))
        assert [transport.written[:12] for _, transport in made] == [b"HTTP/1.1 200", b"", b"HTTP/1.1 200"]
        assert [transport.closed for _, transport in made] == [False, True, False]


def test_what_a_pipelining_client_sends_while_the_service_stops_is_not_read_and_all_else_is_answered(tmp_path: Path) -> None:
    bodies = [json.dumps(progression(f"p{n}")).encode() for n in range(3)]
    with one_worker(tmp_path) as worker:
        connection, transport = worker.connect()
        connection.data_received(_signed(bodies[0]) + _signed(bodies[1]))
        connection.finish()
        connection.data_received(_signed(bodies[2]))
        worker.run()
        assert transport.written.count(b"HTTP/1.1 202") == 2
        assert transport.written.count(b"connection: close") == 1
        assert transport.ended


def test_a_connection_has_one_share_of_a_turn_however_often_it_is_read(tmp_path: Path) -> None:
    chunks = b"POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 2_000
    with one_worker(tmp_path) as worker:
        connection, transport = worker.connect()
        connection.data_received(chunks)
        for _ in range(20):
            connection.data_received(b"2\r\nab\r\n" * 2_000)
        worker.loop.run_until_complete(asyncio.sleep(0))
        assert 0 < connection._parser._pieces < 1_000  # noqa: SLF001 - of 42,000; what else it does is not seen
        assert transport.paused
        connection.data_received(b"0\r\n\r\n")
        worker.loop.run_until_complete(asyncio.sleep(0.5))
        assert transport.written.startswith(b"HTTP/1.1 413")
        assert not transport.paused


def test_a_body_that_nobody_reads_is_not_held(tmp_path: Path) -> None:
    with one_worker(tmp_path) as worker:
        for path in (b"/nothing", b"/healthz", b"/metrics"):
            head = b"GET %b HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n" % path
            connection, _ = worker.connect()
            connection.data_received(head + b" " * 300_000)
            worker.loop.run_until_complete(asyncio.sleep(0))
            connection.connection_lost(None)
        assert worker.held_bytes() == 0


def test_a_stamped_request_that_was_refused_for_its_content_is_refused_alike_when_it_comes_again(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(Settings(data_dir=tmp_path / "redis", _env_file=None)) as redis,
        service(tmp_path / "data", FAIRBOARD_REDIS_URL=redis.url) as running,
    ):
        wait_until(lambda: running.http.get("/readyz").json()["status"] == "ready", "Redis is connected")
        body, now = json.dumps(progression(xp=1.5)).encode(), int(time.time())
        stamped = {"x_signature": sign(SECRET.encode(), body, now), "x_timestamp": str(now)}
        statuses = [running.post("/events", body, **stamped, idempotency_key=key).status_code for key in ("one", "other")]
        assert statuses == [400, 400]  # what is noted as seen would be a 409 under another key


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["progression", "boss_kill", "drop_claimed"]) | JSON,
        "playerId": st.text(max_size=130) | JSON,
        "ts": st.integers(int(time.time()) - 1000, int(time.time())) | JSON,
        "payload": st.dictionaries(st.sampled_from(["deltaXp", "activity", "bossId", "quantity", "x"]), JSON) | JSON,
        "eventId": st.text(max_size=130) | JSON,
    },
)
BODIES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | NEARLY.map(lambda value: json.dumps(value).encode())
    | st.lists(NEARLY | JSON, max_size=5).map(lambda value: json.dumps(value).encode())
    | st.lists(NEARLY, max_size=5).map(lambda values: b"\n".join(json.dumps(v, ensure_ascii=False).encode() for v in values))
)
PACKINGS = st.sampled_from([b"", b"gzip", b"zstd", b"br", b"\xff"])
NAMES = st.none() | st.binary(min_size=1, max_size=40).filter(lambda text: not set(text) & set(b"\r\n\0"))


def test_no_body_and_no_header_makes_a_500_and_all_that_is_accepted_can_be_sealed(tmp_path: Path) -> None:
    counted: dict[str, int] = {}
    with one_worker(tmp_path) as worker:

        @settings(max_examples=FUZZ, deadline=None, database=None)
        @given(BODIES, st.sampled_from([b"/events", b"/events/batch"]), PACKINGS, NAMES, st.booleans())
        def attack(body: bytes, path: bytes, packing: bytes, name: bytes | None, signed: bool) -> None:
            head = (b"idempotency-key: %b\r\n" % name if name else b"") + (
                b"content-encoding: %b\r\n" % packing if packing else b""
            )
            request = _signed(body, head, path) if signed else b"POST / HTTP/1.1\r\n%b\r\n\r\n" % body
            status = worker.send_together([request])[0][9:12].decode()
            counted[status] = counted.get(status, 0) + 1
            assert status != "500"

        attack()
    print(json.dumps({"name": "ingest_fuzz", "requests": sum(counted.values()), "by_status": counted}))
    accepted = seal_once(Settings(data_dir=tmp_path, _env_file=None))
    assert accepted > 0
    assert not list(tmp_path.rglob("*.damaged"))
    assert not list((tmp_path / "journal").glob("*/*"))


def test_large_bodies_together_have_a_limit_and_it_is_given_back(running: Service) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    head = b"POST /events/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n"
    announced = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(40)]
    for connection in announced:
        connection.sendall(head)
    assert running.post("/events/batch", b" " * 4_000_000).status_code == 202  # what is announced takes no room
    for connection in announced[:20]:
        connection.sendall(b" " * 3_900_000)
    assert announced[19].recv(100).startswith(b"HTTP/1.1 503")
    assert running.post("/events", json.dumps(progression()).encode()).status_code == 202  # small ones are always read
    for connection in announced:
        connection.close()
    wait_until(lambda: running.post("/events/batch", b" " * 4_000_000).status_code == 202, "there is room again")


def test_json_bombs_are_refused_quickly(running: Service) -> None:
    for bomb in (b"[" * 2_000_000, b'{"a":' * 400_000, b'{"x":' + b"9" * 3_000_000 + b"}", b'"' + b"\\u0000" * 600_000 + b'"'):
        for path in ("/events", "/events/batch"):
            start = time.monotonic()
            answer = running.post(path, bomb)
            assert answer.status_code in (202, 400)
            assert answer.status_code == 400 or answer.json()["rejected"] == 1
            assert time.monotonic() - start < 10
    assert running.http.get("/healthz").status_code == 200
