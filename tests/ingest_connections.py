"""Whole connections to the ingest service, made from a seed: pipelines of valid and spoilt requests, cut anywhere into writes.

What does not belong here: sending them, and what must come of them (`test_ingest_connections.py`).
"""

import gzip
import json
import random
import re
from dataclasses import dataclass, field
from itertools import pairwise

import zstandard

from ingest_api.signature import sign, sign_webhook
from tests.ingest_fixtures import SECRET

HOST = b"Host: fairboard.example\r\n"
# What Java's client sends with every request (RFC 7540, 3.2); HTTP lets a server pass it over.
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
PATHS = (
    b"/events", b"/events/batch", b"/healthz", b"/readyz", b"/metrics", b"/openapi.json", b"/leaderboard?window=weekly&limit=3",
    b"/leaderboard/around/p1", b"/players/p1/rank", b"/players/p%2F1/progress", b"/seasons", b"/", b"/nothing", b"*",
    b"http://other.example/healthz", b"/healthz?", b"/" + b"a" * 2000,
)  # fmt: skip
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"PRI", b"get", b"QUERY")
MEANINGFUL = (b"\r\n", b"\r", b"\n", b"\0", b":", b"\t", b" ", b"\r\n\r\n", b",", b";", b"\x7f", b"\xff", b"0", b"-", b"\x0b")
FRAMINGS = (
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 99999999999",
    b"Content-Length:", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked, chunked", b"Expect: 100-continue", b"Expect: 200-ok",
    b"Connection: close", b"Connection: Upgrade\r\nUpgrade: websocket", b" folded: line", b"Host: another",
    b"no colon", b": no name",
)  # fmt: skip


@dataclass
class Plan:
    """What one client does. `events` are the ids of the events that its signed requests carry, by their X-Request-ID."""

    writes: list[bytes | float]  # bytes to send, or seconds to wait
    ending: str  # "close": the last request asks for it; "half": the client shuts its side; "reset": it resets
    whole: bool  # nothing in it is spoilt, so all of it has to be answered
    names: list[bytes] = field(default_factory=list)
    events: dict[bytes, list[str]] = field(default_factory=dict)


def make_plan(seed: int, number: int, now: int) -> Plan:
    """The plan of one connection: for one seed and number the same, but for the time in its events."""
    rng = random.Random(f"{seed}/{number}")
    plan = Plan([], rng.choices(("close", "half", "reset"), (10, 8, 1))[0], rng.random() < 0.5)
    messages = [_message(rng, plan, _name(rng, number), now) for _ in range(rng.choice((1, 1, 2, 3, 5, 8)))]
    if not plan.whole:
        plan.ending = "half" if plan.ending == "close" else plan.ending
        for _ in range(rng.choice((1, 1, 2, 4))):
            index = rng.randrange(len(messages))
            messages[index] = rng.choice(SPOILERS)(rng, messages[index])
    elif plan.ending == "close":
        name = _name(rng, number)
        plan.names.append(name)
        messages.append(b"GET /healthz HTTP/1.1\r\n%bX-Request-ID: %b\r\nConnection: close\r\n\r\n" % (HOST, name))
    plan.writes = _cut(rng, messages)
    return plan


def _name(rng: random.Random, number: int) -> bytes:
    """An X-Request-ID that no spoilt byte turns into another's."""
    return f"{number}-{rng.randbytes(6).hex()}".encode()


def _message(rng: random.Random, plan: Plan, name: bytes, now: int) -> bytes:
    plan.names.append(name)
    kind = rng.random()
    if kind < 0.5:
        return _signed(rng, plan, name, now)
    if kind < 0.504:
        return _flood(rng, plan, name)
    method = rng.choice(METHODS[:6] if plan.whole else METHODS)
    path = rng.choice(PATHS[:13] if plan.whole else PATHS)
    head = HOST + b"X-Request-ID: %b\r\n" % name
    body = rng.choice((b"", b"", b"x", b"{}", rng.randbytes(rng.randrange(300))))
    return b"%b %b HTTP/1.1\r\n%b" % (method, path, _framed(rng, head, body) if body or method == b"POST" else head + b"\r\n")


def _signed(rng: random.Random, plan: Plan, name: bytes, now: int) -> bytes:
    """A signed request with one to five events that nobody sent before; one in eight is signed with another secret."""
    forged = rng.random() < 0.125
    ids = [f"{'forged' if forged else 'event'}-{name.decode()}-{n}" for n in range(rng.choice((1, 1, 1, 2, 5)))]
    events = [_event(rng, event_id, now) for event_id in ids]
    path = b"/events" if len(ids) == 1 and rng.random() < 0.7 else b"/events/batch"
    lines = [json.dumps(event, separators=rng.choice(((",", ":"), (", ", ": ")))).encode() for event in events]
    body = lines[0] if path == b"/events" else rng.choice((b"[%b]" % b", ".join(lines), b"\n".join(lines), b"\r\n".join(lines)))
    head = rng.choice((HOST, HOST.lower(), b"HOST:\tfairboard.example \r\n"))
    match rng.randrange(6):
        case 0:
            body, head = gzip.compress(body), head + rng.choice((b"Content-Encoding: gzip\r\n", b"content-encoding:GZIP\r\n"))
        case 1:
            body, head = zstandard.compress(body), head + b"Content-Encoding: zstd \r\n"
    if not forged:
        plan.events[name] = ids
    secret = b"another" if forged else SECRET.encode()
    head += b"X-Request-ID: %b\r\n%b" % (name, _signature(rng, secret, body, name.decode(), now))
    target = rng.choice((path, path, path, b"http://fairboard.example" + path))
    match rng.randrange(8):
        case 0:
            head += b"Connection: keep-alive\r\nContent-Length: %d\r\n" % len(body)
            return b"POST %b HTTP/1.0\r\n%b\r\n%b" % (target, head, body)
        case 1:
            head += UPGRADE
        case 2:
            head += b"Expect: 100-continue\r\n"
    blank = rng.choice((b"", b"", b"", b"\r\n"))  # some clients send one behind a body (RFC 9112, 2.2)
    return b"%bPOST %b HTTP/1.1\r\n%b" % (blank, target, _framed(rng, head, body))


def _signature(rng: random.Random, secret: bytes, body: bytes, name: str, now: int) -> bytes:
    """The headers of one of the three forms of a signature."""
    match rng.randrange(3):
        case 0:
            headers = sign_webhook(secret, body, name, now)
        case 1:
            headers = {"X-Signature": sign(secret, body)}
        case _:
            headers = {"x-signature": sign(secret, body, now).upper(), "X-Timestamp": str(now)}
    return "".join(f"{field}: {value}\r\n" for field, value in headers.items()).encode()


def _event(rng: random.Random, event_id: str, now: int) -> dict[str, object]:
    payload: dict[str, object] = {"deltaXp": rng.randrange(-50, 500), "activity": rng.choice(("quest", "raid", "\u00fcber"))}
    return {"eventId": event_id, "type": "progression", "playerId": f"p{rng.randrange(50)}", "ts": now, "payload": payload}


def _framed(rng: random.Random, head: bytes, body: bytes) -> bytes:
    """The rest of a head and its body, by its length or in chunks of any size."""
    if rng.random() < 0.6:
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    extension = rng.choice((b"", b"", b";a=1", b';q="x y"'))
    parts = _parts(body, [rng.randrange(len(body) + 1) for _ in range(rng.choice((0, 1, 3, 30)))])
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    trailer = rng.choice((b"", b"", b"X-Trailer: of no meaning\r\n", b"X-Signature: none\r\nIdempotency-Key: none\r\n"))
    return b"%bTransfer-Encoding: %b\r\n\r\n%b0\r\n%b\r\n" % (head, rng.choice((b"chunked", b"Chunked")), chunks, trailer)


def _flood(rng: random.Random, plan: Plan, name: bytes) -> bytes:
    """More of something than anybody needs."""
    plan.whole = False
    start = b"POST /events HTTP/1.1\r\n%bX-Request-ID: %b\r\n" % (HOST, name)
    return rng.choice(
        (
            start + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 20_000 + b"\r\n",
            start + b"Transfer-Encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 20_000 + b"0\r\n\r\n",
            start + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000 + b"\r\na\r\n0\r\n\r\n",
            start + b"X: y\r\n" * 5_000 + b"\r\n",
            start + b"X: " + b"y" * 60_000 + b"\r\n\r\n",
            b"GET /openapi.json HTTP/1.1\r\n%b\r\n" % HOST * 200,
            b"\r\n" * 40_000 + b"GET /healthz HTTP/1.1\r\n%b\r\n" % HOST,
        )
    )


def _delete(rng: random.Random, message: bytes) -> bytes:
    at = rng.randrange(len(message) + 1)
    return message[:at] + message[at + rng.choice((1, 1, 2, 40)) :]


def _replace(rng: random.Random, message: bytes) -> bytes:
    at = rng.randrange(len(message) + 1)
    return message[:at] + rng.randbytes(1) + message[at + 1 :]


def _insert(rng: random.Random, message: bytes) -> bytes:
    at = rng.randrange(rng.choice((len(message), _head_ends(message))) + 1)
    return message[:at] + rng.choice(MEANINGFUL) + message[at:]


def _add_framing(rng: random.Random, message: bytes) -> bytes:
    lines = message[: _head_ends(message)].split(b"\r\n")
    lines.insert(rng.randint(1, len(lines)), rng.choice(FRAMINGS))
    return b"\r\n".join(lines) + message[_head_ends(message) :]


def _end_lines_otherwise(rng: random.Random, message: bytes) -> bytes:
    end = _head_ends(message)
    return message[:end].replace(b"\r\n", rng.choice((b"\n", b"\r", b"\n\r")), rng.choice((1, -1))) + message[end:]


def _change_version(rng: random.Random, message: bytes) -> bytes:
    return re.sub(
        rb"HTTP/1\.[01]", rng.choice((b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"http/1.1", b"ICE/1.0", b"")), message, count=1
    )


def _repeat(_rng: random.Random, message: bytes) -> bytes:
    return message * 2


def _noise(rng: random.Random, _message: bytes) -> bytes:
    return rng.randbytes(rng.randrange(1, 200))


def _head_ends(message: bytes) -> int:
    return max(message.find(b"\r\n\r\n"), 0)


SPOILERS = (
    _delete,
    _replace,
    _insert,
    _insert,
    _add_framing,
    _add_framing,
    _end_lines_otherwise,
    _change_version,
    _repeat,
    _noise,
)


def _cut(rng: random.Random, messages: list[bytes]) -> list[bytes | float]:
    """All of it in writes: at once, a message each, or cut anywhere, line ends before all; with a pause here and there."""
    stream = b"".join(messages)
    few = rng.choice((1, 2, 5, 20))
    match rng.randrange(5):
        case 0:
            parts = [stream]
        case 1:
            parts = messages
        case 2 | 3:
            parts = _parts(stream, [rng.randrange(len(stream) + 1) for _ in range(few)])
        case _:
            ends = [match.start() for match in re.finditer(rb"\r\n", stream)] or [0]
            parts = _parts(stream, [min(rng.choice(ends) + rng.randrange(4), len(stream)) for _ in range(few)])
    pauses = rng.choice(((0.0, 0.0, 0.001), (0.003,)))
    writes: list[bytes | float] = []
    for part in parts:
        writes += [part, rng.choice(pauses)]
    return writes[:-1]


def _parts(whole: bytes, cuts: list[int]) -> list[bytes]:
    return [whole[start:end] for start, end in pairwise(sorted({0, len(whole), *cuts}))]
