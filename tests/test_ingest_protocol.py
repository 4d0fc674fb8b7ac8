"""HTTP/1.1 as RFC 9110 and 9112 have it, from raw bytes on a socket; and what one connection may cost the others."""

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import zstandard

from ingest_api.clients import Addresses
from ingest_api.request_parser import MAX_HEAD_BYTES
from ingest_api.signature import sign
from tests.ingest_fixtures import SECRET, Service, progression, service, wait_until

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
CHUNKS = b"transfer-encoding: chunked\r\n\r\n"
UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("protocol") / "data") as started:
        yield started


def _connect(running: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(running.url.rsplit(":", 1)[1])), timeout=20)


def _raw(running: Service, *parts: bytes) -> bytes:
    """Send the parts one by one; read until the other end closes."""
    with _connect(running) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        received = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
        return received


def _statuses(received: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", received)


def _post(head: bytes = b"", body: bytes | None = None, version: bytes = b"1.1", sent: bytes | None = None) -> bytes:
    """A signed event; `sent` is the framing header and the body in it, where that is not Content-Length."""
    body = json.dumps(progression()).encode() if body is None else body
    framed = sent if sent is not None else b"content-length: %d\r\n\r\n%b" % (len(body), body)
    signature = sign(SECRET.encode(), body).encode()
    return b"POST /events HTTP/%b\r\nhost: x\r\nx-signature: %b\r\n%b%b" % (version, signature, head, framed)


def _chunked(body: bytes, size: int = 7, end: bytes = b"0\r\n\r\n", extension: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return CHUNKS + b"".join(b"%x%b\r\n%b\r\n" % (len(p), extension, p) for p in parts) + end


EVENT = json.dumps(progression()).encode()


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        pytest.param(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n", [b"200"], id="HEAD"),
        pytest.param(b"HEAD /nothing HTTP/1.1\r\nhost: x\r\n\r\n", [b"404"], id="HEAD of nothing"),
        pytest.param(b"HEAD /events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", [b"405"], id="HEAD with a body"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", [b"200"], id="GET with a body"),
        pytest.param(b"\r\n\r\n" + GET, [b"200"], id="blank lines before"),
        pytest.param(GET.replace(b"/healthz", b"http://u@somewhere:80/healthz?x"), [b"200"], id="absolute form"),
        pytest.param(GET.replace(b"/healthz", b"HTTP://somewhere"), [b"404"], id="absolute form without a path"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", [b"204"], id="asterisk form"),
        pytest.param(_post(b"x-request-id: \t name \t \r\n"), [b"202"], id="blanks around a value"),
        pytest.param(_post(UPGRADE), [b"202"], id="an offer of HTTP/2 and a sized body"),
        pytest.param(_post(UPGRADE, EVENT, sent=_chunked(EVENT)), [b"202"], id="an offer of HTTP/2 and a chunked body"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + UPGRADE + b"\r\n", [b"200"], id="an offer of HTTP/2, no body"),
        pytest.param(_post(b"", EVENT, sent=_chunked(EVENT, 1)), [b"202"], id="chunks of one byte"),
        pytest.param(_post(b"", EVENT, sent=_chunked(EVENT, end=b"000\r\nexpires: 0\r\n\r\n")), [b"202"], id="a trailer"),
        pytest.param(_post(b"", EVENT, sent=_chunked(EVENT, extension=b';name="a b"')), [b"202"], id="chunk extensions"),
        pytest.param(_post(b"expect: 100-continue\r\n"), [b"202"], id="100-continue with the body behind it"),
    ],
)  # fmt: skip
def test_what_http_allows_is_answered_and_the_next_request_is_read(
    running: Service, request_bytes: bytes, statuses: list[bytes]
) -> None:
    together = _raw(running, request_bytes + LAST)
    assert _statuses(together) == [*statuses, b"200"]
    bytewise = _raw(running, *(request_bytes[at : at + 61] for at in range(0, len(request_bytes), 61)), LAST)
    assert _statuses(bytewise) == [*statuses, b"200"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", b"400", id="no Host"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", b"400", id="two Hosts"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n", b"400", id="no host in Host"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: a:b:c\r\n\r\n", b"400", id="two ports"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: \xd3\r\n\r\n", b"400", id="a host beyond ASCII"),
        pytest.param(b"GET http:///healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"400", id="a URL without a host"),
        pytest.param(b"GET /healthz HTTP/1.2\r\nhost: x\r\n\r\n", b"505", id="HTTP/1.2"),
        pytest.param(b"GET /healthz HTTP/2.0\r\nhost: x\r\n\r\n", b"505", id="HTTP/2.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505", id="the preface of HTTP/2"),
        pytest.param(b"GET /healthz\r\n\r\n", b"505", id="HTTP/0.9"),
        pytest.param(b"CONNECT example.org:80 HTTP/1.1\r\nhost: example.org:80\r\n\r\n", b"405", id="CONNECT"),
        pytest.param(b"GET healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"400", id="no path"),
        pytest.param(b"GET /healthz HTTP/1.1\nhost: x\n\n", b"400", id="bare line feeds"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", b"400", id="a folded header"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\na : b\r\n\r\n", b"400", id="a blank before the colon"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", b"431", id="101 header fields"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\na: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n", b"431", id="long"),
        pytest.param(_post(b"", EVENT, b"1.0", _chunked(EVENT)), b"400", id="chunks from HTTP/1.0"),
        pytest.param(
            _post(b"", EVENT, sent=_chunked(EVENT).replace(b"chunked", b"gzip, chunked")), b"501", id="another coding",
        ),
        pytest.param(_post(b"content-length: 5\r\n", EVENT, sent=_chunked(EVENT)), b"400", id="a length and chunks"),
        pytest.param(_post(b"", EVENT, sent=_chunked(b"") + b""), b"401", id="no body at all"),
        pytest.param(_post(b"", EVENT, sent=CHUNKS + b"f" * 17 + b"\r\n"), b"400", id="a huge chunk"),
        pytest.param(
            _post(b"", EVENT, sent=CHUNKS + b"1;" + b"x" * 70_000), b"431", id="an endless extension"
        ),
        pytest.param(_post(b"", EVENT, sent=_chunked(EVENT, end=b"0\r\n" + b"a:\r\n" * 200)), b"431", id="101 trailer fields"),
        pytest.param(
            _post(b"", EVENT, sent=_chunked(EVENT, end=b"0\r\na: " + b"x" * 70_000)), b"431", id="an endless trailer field"
        ),
        pytest.param(_post(b"", EVENT, sent=_chunked(b"ab" * 20_000, 2)), b"413", id="20,000 chunks"),
    ],
)  # fmt: skip
def test_what_http_does_not_allow_is_refused_and_the_connection_closed(
    running: Service, request_bytes: bytes, status: bytes
) -> None:
    received = _raw(running, request_bytes + LAST) if status != b"401" else _raw(running, request_bytes, LAST)
    assert _statuses(received)[0] == status
    if status != b"401":
        assert len(_statuses(received)) == 1
        assert b"connection: close" in received


@pytest.mark.parametrize("first", [GET, _post(), _post(b"", EVENT, sent=_chunked(EVENT))], ids=["page", "event", "chunks"])
def test_a_request_is_answered_wherever_it_is_cut_and_whatever_follows(running: Service, first: bytes) -> None:
    status = _statuses(_raw(running, first, LAST))[0]
    for cut in range(len(first) - 5, len(first) + 3):
        assert _statuses(_raw(running, (first + LAST)[:cut], (first + LAST)[cut:])) == [status, b"200"]
    assert _statuses(_raw(running, first + b"\0GARBAGE")) == [status, b"400"]
    last = first.replace(b"host: x\r\n", b"host: x\r\nconnection: close\r\n")
    assert _statuses(_raw(running, last + b"GARBAGE")) == [status]


def test_a_connection_ends_with_its_client(running: Service) -> None:
    def held() -> int:
        found = re.search(r"fairboard_ingest_connections\{worker=\"000\"\} (\d+)", running.http.get("/metrics").text)
        return int(found[1]) if found else -1

    before = held()
    for _ in range(20):
        assert _statuses(_raw(running, LAST)) == [b"200"]
    wait_until(lambda: held() <= before + 1, "their places are free", 5)  # the client that asks may not have been counted


def test_headers_may_not_come_as_trailers(running: Service) -> None:
    closing = b"POST /nothing HTTP/1.1\r\nhost: x\r\n" + CHUNKS + b"0\r\nconnection: close\r\n\r\n"
    for cut in range(len(closing) - 5, len(closing) + 3):
        assert _statuses(_raw(running, (closing + LAST)[:cut], (closing + LAST)[cut:])) == [b"404", b"200"]
    signature = sign(SECRET.encode(), EVENT).encode()
    trailer = b"0\r\nx-signature: %b\r\n\r\n" % signature
    request = b"POST /events HTTP/1.1\r\nhost: x\r\n" + _chunked(EVENT, end=trailer)
    assert _statuses(_raw(running, request + LAST)) == [b"401", b"200"]


def test_http_1_0_is_kept_alive_where_it_asks_and_closed_where_not(running: Service) -> None:
    asks = b"GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    received = _raw(running, asks, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert _statuses(received) == [b"200", b"200"]
    assert received.count(b"connection: keep-alive") == received.count(b"connection: close") == 1
    both = asks.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert _statuses(_raw(running, both, asks)) == [b"200"]


def test_a_100_comes_in_its_turn_and_never_to_http_1_0(running: Service) -> None:
    head, _, body = _post(b"expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with _connect(running) as connection:
        connection.sendall(_post() + head + b"\r\n\r\n")  # an answer is outstanding when the 100 is asked for
        received = b""
        while b"100 Continue" not in received:
            received += connection.recv(65536)
        connection.sendall(body)
        while received.count(b" 202 ") < 2:
            received += connection.recv(65536)
    assert _statuses(received) == [b"202", b"100", b"202"]
    assert _statuses(_raw(running, _post(b"expect: 100-continue\r\n", version=b"1.0"))) == [b"202"]


def test_a_head_says_how_long_the_body_would_be(running: Service) -> None:
    got, head = running.http.get("/openapi.json"), running.http.head("/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("encoding", ["GZIP", "x-gzip", "ZStd", "identity", "gzip, identity", "identity,, zstd ,"])
def test_encodings_are_named_without_case(running: Service, encoding: str) -> None:
    named = encoding.lower()
    pack = gzip.compress if "gzip" in named else zstandard.compress if "zstd" in named else bytes
    assert running.post("/events", pack(EVENT), content_encoding=encoding).status_code == 202


@pytest.mark.parametrize(("packing", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_members_and_frames_follow_each_other(running: Service, packing: str, pack: object) -> None:
    assert callable(pack)
    whole = json.dumps([progression() for _ in range(500)]).encode()
    parts = [whole[:10], b"", whole[10:20_000], whole[20_000:]]
    packed = b"".join(pack(part) for part in parts)
    assert running.post("/events/batch", packed, content_encoding=packing).json()["accepted"] == 500
    assert running.post("/events/batch", packed + bytes(512), content_encoding=packing).json()["accepted"] == 500
    for damaged in (packed[:-1], packed + b"x", packed + pack(b"[")[:5]):
        assert running.post("/events/batch", damaged, content_encoding=packing).status_code == 400
    started = time.monotonic()
    assert running.post("/events/batch", pack(b"") * 150_000, content_encoding=packing).status_code == 400
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("body", "looks_like"),
    [
        (gzip.compress(EVENT), "Content-Encoding: gzip"),
        (zstandard.compress(EVENT), "Content-Encoding: zstd"),
        (EVENT.decode().encode("utf-16"), "UTF-16"),
        (EVENT.decode().encode("utf-16-be"), "UTF-16"),
        (b"<html>\n502\n</html>", "HTML"),
        (b"events=%5B%7B%22type%22%3A%22progression%22%7D%5D", "web form"),
        (b"%5B%7B%22type%22%3A%22progression%22%7D%5D", "web form"),
        (b"5\n6\n", "JSON"),
    ],
    ids=["gzip", "zstd", "utf-16", "utf-16-be", "page", "form", "packed form", "numbers"],
)
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_what_is_no_event_is_a_400_that_says_what_it_looks_like(
    running: Service, body: bytes, looks_like: str, path: str
) -> None:
    answer = running.post(path, body)
    assert answer.status_code == 400
    assert looks_like in answer.json()["detail"] or (path == "/events" and body[:1] == b"5")


@pytest.mark.parametrize("number", ["150.0", "1.5e2", "-7.0", "9007199254740991.0"])
def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(tmp_path: Path, number: str) -> None:
    event = json.dumps(progression(xp=0)).replace('"deltaXp": 0', f'"deltaXp": {number}').encode()
    array = b"[" + event + b", " + event + b"]"
    with service(tmp_path / "data") as running:
        assert running.post("/events", event).status_code == 202
        assert running.post("/events/batch", event.replace(b'"playerId"', b'"more": [1], "playerId"')).json()["accepted"] == 1
        assert running.post("/events/batch", array).json()["accepted"] == 2
        for wrong in (b"1.5", b"9007199254740993.0", b"1e400"):
            refused = running.post("/events", event.replace(number.encode(), wrong))
            assert (refused.status_code, refused.json()["field"]) == (400, "payload.deltaXp")
        running.stop()
        assert running.events()["delta_xp"].to_list() == [int(float(number))] * 4


def test_reasons_are_in_the_senders_words(running: Service) -> None:
    answer = running.post("/events", json.dumps(progression(eventId=5)).encode()).json()
    assert (answer["field"], answer["detail"]) == ("eventId", "eventId: text belongs here, this is a whole number")


# What one connection may cost


def _memory_mib(running: Service) -> float:
    process = psutil.Process(running.process.pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True))) / 2**20


def _answer_time_s(running: Service) -> float:
    started = time.monotonic()
    httpx.get(f"{running.url}/healthz", timeout=15, trust_env=False).raise_for_status()
    return time.monotonic() - started


POST_CHUNKED = b"POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(POST_CHUNKED + b"0\r\n" + b"a:\r\n" * 400_000 + b"\r\n", id="trailer fields"),
        pytest.param(POST_CHUNKED + b"2\r\nab\r\n" * 1_000_000, id="chunks of two bytes"),
        pytest.param(POST_CHUNKED + b"1;a\r\nx\r\n" * 500_000, id="chunk extensions"),
        pytest.param(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 20_000, id="answers that nobody reads"),
        pytest.param(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" * 50_000, id="refusals that nobody reads"),
        pytest.param((POST_CHUNKED + b"0\r\n\r\n") * 30_000, id="empty bodies"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 500_000, id="header fields"),
        pytest.param(b"\r\n" * 2_000_000, id="line ends"),
    ],
)
def test_one_connection_holds_no_memory_and_no_time_of_the_others(running: Service, attack: bytes) -> None:
    before = _memory_mib(running)
    held = []
    for _ in range(4):
        held.append(_connect(running))
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held[-1].settimeout(1)
        with suppress(OSError):
            held[-1].sendall(attack)
        assert _answer_time_s(running) < 2
    assert _memory_mib(running) - before < 64
    for connection in held:
        connection.close()


def test_connections_of_one_address_are_limited_and_their_end_makes_room(tmp_path: Path) -> None:
    with service(tmp_path / "data", FAIRBOARD_CONNECTIONS_PER_ADDRESS="5") as running:
        running.http.close()
        held = [_connect(running) for _ in range(6)]
        for connection in held:
            connection.sendall(GET)
        answers = [connection.recv(20) for connection in held]
        assert 0 < sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) <= 5
        assert answers[-1].startswith(b"HTTP/1.1 503")
        for connection in held:
            connection.close()
        wait_until(lambda: _raw(running, LAST).startswith(b"HTTP/1.1 200"), "there is room again")
        assert b"fairboard_ingest_connections_refused_total" in _raw(running, LAST.replace(b"/healthz", b"/metrics"))
        running.http = httpx.Client(base_url=running.url, trust_env=False)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        (b"192.0.2.1", None, b"192.0.2.1"),
        (b"::ffff:192.0.2.1", None, b"192.0.2.1"),
        (b"2001:db8:1:2:3:4:5:6", None, b"2001:db8:1:2::/64"),
        (b"10.0.0.1", b"2001:db8:1:2::9, ::ffff:10.0.0.2", b"2001:db8:1:2::/64"),
        (b"::ffff:10.0.0.1", b"198.51.100.7", b"198.51.100.7"),
        (b"10.0.0.1", b"198.51.100.7, nonsense", b"unknown"),
        (b"10.0.0.1", b"", b"unknown"),
        (b"10.0.0.1", None, b"10.0.0.1"),
        (b"10.0.0.1", b"198.51.100.7:4711", b"198.51.100.7"),
        (b"10.0.0.1", b"[2001:db8:1:2::9]:443", b"2001:db8:1:2::/64"),
        (b"192.0.2.1", b"198.51.100.7", b"192.0.2.1"),
    ],
)
def test_an_address_stands_for_one_customer(peer: bytes, forwarded: bytes | None, client: bytes) -> None:
    assert Addresses("10.0.0.0/8").client(peer, forwarded) == client
