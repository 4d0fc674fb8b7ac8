"""From the bytes of one connection to complete requests, with a limit on everything of a request that its sender can make grow.

What does not belong here: the connection's flow and its answers (`connection.py`), what a request means (`app.py`).
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import httptools

from ingest_api.problems import Problem
from ingest_api.request import Request

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
MAX_HEAD_BYTES: Final = 32 * 1024  # head and trailer together
_MAX_FIELDS: Final = 100
_STEPS_A_REQUEST: Final = 15  # what answering costs beside parsing
_MAX_PARTS: Final = 16_384  # of a body: chunks, or what came at once
_PART_OVERHEAD_BYTES: Final = 16  # a chunk's size and line ends
_JOINED_AT: Final = 64  # parts: an object for each of thousands would be larger than what it holds
# Bodies up to here are always read; only larger ones count against the limits on all that are held.
SMALL_BODY_BYTES: Final = 64 * 1024
_MAX_HELD_BYTES: Final = 128 * 1024 * 1024
_MAX_HELD_BYTES_OF_CUSTOMER: Final = _MAX_HELD_BYTES // 2
# What is parsed at once. A slice ends where a message may end, so that it completes one request at most.
_SLICE_BYTES: Final = 4 * 1024
_END: Final = b"\r\n\r\n"
_END_BYTES: Final = len(_END) - 1  # of an end may have come with the slice before
_HOST: Final = re.compile(rb"(\[[\w:.%~-]*\]|[\w.~!$&'()*+;=%-]*)(:\d*)?", re.ASCII).fullmatch  # RFC 3986, without a user
_ABSOLUTE: Final = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)
_VERSIONS: Final = ("1.1", "1.0")


class HeldBodies:
    """The bytes of all larger bodies of a worker that are being read or not answered yet."""

    def __init__(self) -> None:
        self._held = 0
        self._of_customer: Counter[bytes] = Counter()

    def check(self, customer: bytes, size: int) -> None:
        """Refuse that many bytes more.

        Raises:
            Problem: 503, they are many, and too many are held already.
        """
        if size > SMALL_BODY_BYTES:
            self._check(customer, size)

    def grow(self, customer: bytes, before: int, after: int) -> None:
        """Count a body that has grown.

        Raises:
            Problem: 503, too many large ones are held. It is not counted then.
        """
        if after > SMALL_BODY_BYTES:
            amount = after - (before if before > SMALL_BODY_BYTES else 0)
            self._check(customer, amount)
            self._held += amount
            self._of_customer[customer] += amount

    def release(self, customer: bytes, size: int) -> None:
        """A body of that size is held no more."""
        if size > SMALL_BODY_BYTES:
            self._held -= size
            self._of_customer[customer] -= size
            if not self._of_customer[customer]:
                del self._of_customer[customer]

    def _check(self, customer: bytes, amount: int) -> None:
        if self._held + amount > _MAX_HELD_BYTES or self._of_customer.get(customer, 0) + amount > _MAX_HELD_BYTES_OF_CUSTOMER:
            detail = f"Too many bodies above {SMALL_BODY_BYTES:,} bytes are on their way; send smaller ones, or this again."
            raise Problem(503, "busy", detail, headers=(("retry-after", "1"),))


class RequestParser:
    """Parses what a connection receives.

    `request` is the one that is being read, `since` when it began (monotonic, s). `completed` is the one that the last slice
    completed, `problem` is why nothing can be read behind it.
    """

    def __init__(self, make: Callable[[], Request], bodies: HeldBodies) -> None:
        self._make = make
        self._bodies = bodies
        self._parser = httptools.HttpRequestParser(self)
        self._resuming = False  # the parser reads the framing of a head again, behind which it had stopped
        self.completed: Request | None = None
        self.problem: Problem | None = None
        self.request: Request | None = None
        self.since = time.monotonic()
        self.steps = 0  # of parsing so far: what a turn of the loop allows is counted in these
        self.expects = False  # whether the client waits for a 100 before it sends the body
        self._begin()

    def _begin(self) -> None:
        self._in_head = True
        self._bytes = self._fields = self._size = self._pieces = self._missing = 0
        self._parts: list[bytes] = []
        self._joined = bytearray()
        self._tail = b""
        self._has_trailer = False

    def feed(self, data: bytes, at: int) -> int:
        """Parse a slice of `data` from `at` on. Returns where the next one begins."""
        end = self._end_of_slice(data, at)
        part = data if at == 0 and end == len(data) else memoryview(data)[at:end]
        self.completed = None
        self.steps += 1
        self._bytes += end - at
        try:
            self._parser.feed_data(part)
            if self.request is not None:
                self._check_overhead()
        except httptools.HttpParserUpgrade as upgrade:
            end = at + upgrade.args[0]
            self._resume()
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Problem):
                raise
            self.problem = error.__context__
        except httptools.HttpParserError as error:
            malformed = Problem(400, "malformed-http", f"This is not HTTP/1.1: {error}.")
            self.problem = _other_version() if str(error) in _OTHER_VERSIONS else malformed
        except Problem as problem:
            self.problem = problem
        if self.request is not None:
            self._tail = bytes(part[-_END_BYTES:]) if len(part) >= _END_BYTES else (self._tail + bytes(part))[-_END_BYTES:]
        return end

    def drop(self) -> Request | None:
        """Let go of what has been read of a request. Returns that request."""
        request, self.request = self.request, None
        if request is not None:
            self._bodies.release(request.connection.customer, self._size)
        self._begin()
        return request

    def _end_of_slice(self, data: bytes, at: int) -> int:
        """Where to stop, so that nothing is read behind the request that a slice completes."""
        if self._missing:
            return min(len(data), at + self._missing)
        if self._tail and (across := (self._tail + data[at : at + _END_BYTES]).find(_END)) >= 0:
            return at + across + len(_END) - len(self._tail)
        first = data.find(_END, at, at + _SLICE_BYTES)
        if first < 0:
            return min(len(data), at + _SLICE_BYTES)
        # As almost always: a head and its body, and nothing behind them that could be another request.
        if self._in_head and len(data) - at <= _SLICE_BYTES and data.find(_END, first + len(_END)) < 0:
            return len(data)
        return first + len(_END)

    def _resume(self) -> None:
        """Go on behind a head with an offer to speak another protocol, where llhttp stops: HTTP lets a server pass it over."""
        request = self.request
        assert request is not None
        framing = [b"%b: %b\r\n" % (name, request.headers[name]) for name in _FRAMING if name in request.headers]
        self._parser, self._resuming = httptools.HttpRequestParser(self), True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))

    def _check_overhead(self) -> None:
        overhead = self._bytes - self._size
        if self._in_head:
            if overhead > MAX_HEAD_BYTES:
                raise Problem(431, "too-large", f"The head of this request is larger than {MAX_HEAD_BYTES:,} bytes.")
        elif overhead > MAX_HEAD_BYTES + _PART_OVERHEAD_BYTES * self._pieces:
            raise Problem(431, "too-large", f"Head, chunk extensions and trailer are larger than {MAX_HEAD_BYTES:,} bytes.")

    # From llhttp

    def on_message_begin(self) -> None:
        """Begin a request."""
        if not self._resuming:
            self.request, self.since = self._make(), time.monotonic()

    def on_url(self, url: bytes) -> None:
        """Take the target, which may come in parts."""
        if not self._resuming:
            assert self.request is not None
            self.request.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one that comes again is joined, as HTTP says. Trailers are dropped: nothing checks who added them."""
        if self._resuming:
            return
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise Problem(431, "too-large", f"More than {_MAX_FIELDS} header and trailer fields.")
        if not self._in_head:
            self._has_trailer = True
            return
        assert self.request is not None
        headers, name, value = self.request.headers, name.lower(), value.strip(b" \t")
        if name in headers:
            if name == b"host":
                raise Problem(400, "malformed-http", "Host is there twice.")
            value = b"%b, %b" % (headers[name], value)
        headers[name] = value

    def on_headers_complete(self) -> None:
        """Refuse what can be refused before the body is read."""
        if self._resuming:
            self._resuming = False
            return
        request = self.request
        assert request is not None
        self._check_overhead()
        self._in_head = False
        request.method = self._parser.get_method()
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        if request.version == "1.0" and b"close" in request.headers.get(b"connection", b"").lower():
            request.keep_alive = False  # llhttp lets keep-alive win
        request.path, _, request.query = request.path.partition(b"?")
        headers = request.headers
        if request.version not in _VERSIONS:
            raise _other_version()
        if not _HOST(headers.get(b"host", b"" if request.version == "1.0" else b"/")):
            raise Problem(400, "malformed-http", "HTTP/1.1 wants one Host header, with a host in it.")
        if request.path[:1] != b"/":
            self._read_target(request)
        if b"transfer-encoding" in headers:
            _check_transfer_encoding(request)
        elif b"content-length" in headers:
            self._missing = int(headers[b"content-length"])
            if self._missing > MAX_BODY_BYTES:
                raise _too_large()
            self._bodies.check(request.connection.customer, self._missing)
        expects = headers.get(b"expect", b"").lower() == b"100-continue"
        self.expects = expects and request.version == "1.1"

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        request = self.request
        assert request is not None
        self.steps += 1
        self._pieces += 1
        size = self._size + len(part)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        if self._pieces > _MAX_PARTS:
            raise Problem(413, "too-large", f"The body came in more than {_MAX_PARTS:,} parts; send larger ones.")
        self._bodies.grow(request.connection.customer, self._size, size)
        self._size, self.expects = size, False
        if self._missing:
            self._missing -= len(part)
        self._parts.append(part)
        if len(self._parts) == _JOINED_AT:
            self._joined += b"".join(self._parts)
            self._parts.clear()

    def on_message_complete(self) -> None:
        """Set the request aside for who feeds; what it holds is released with its answer."""
        if self._parser.should_upgrade():
            return  # the body follows: see `_resume`
        request = self.request
        assert request is not None
        whole = len(self._parts) == 1 and not self._joined
        request.body = self._parts[0] if whole else b"".join((self._joined, *self._parts))
        self.completed, self.request, self.expects = request, None, False
        self.steps += _STEPS_A_REQUEST
        self.since = time.monotonic()
        renew = self._has_trailer
        self._begin()
        if renew:  # llhttp believes a trailer what only a header may say: that the connection ends, for one
            self._parser = httptools.HttpRequestParser(self)

    def _read_target(self, request: Request) -> None:
        """Take a target that is no path: the absolute form, which every server must understand, or the asterisk of OPTIONS."""
        if request.method == b"CONNECT":
            raise Problem(405, "method", "This is no proxy.", headers=(("allow", "GET, HEAD, POST, OPTIONS"),))
        if match := _ABSOLUTE.match(request.path):
            request.path = request.path[match.end() :] or b"/"
        elif (request.method, request.path) != (b"OPTIONS", b"*"):
            raise Problem(400, "malformed-http", "The target is neither a path nor an http URL.")


_OTHER_VERSIONS: Final = ("Invalid HTTP version", "Pause on PRI/Upgrade")  # the latter opens HTTP/2
_FRAMING: Final = (b"content-length", b"transfer-encoding")


def _check_transfer_encoding(request: Request) -> None:
    if request.version == "1.0":
        raise Problem(400, "malformed-http", "HTTP/1.0 knows no Transfer-Encoding.")
    if request.headers[b"transfer-encoding"].lower() != b"chunked":
        raise Problem(501, "transfer-encoding", "Of all transfer codings only `chunked` is read here.")


def _other_version() -> Problem:
    return Problem(505, "version", "HTTP/1.1 and HTTP/1.0 are spoken here.")


def _too_large() -> Problem:
    return Problem(413, "too-large", f"The body is larger than {MAX_BODY_BYTES:,} bytes; send smaller batches.")
