"""HTTP/1.1 on one connection: requests in, answers out in their order, with a limit on everything a client can make grow.

The parser is llhttp (httptools), the event loop libuv (uvloop): docs/adr/0003-http-layer.md says why.
What does not belong here: what a request means (`app.py`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools

from ingest_api.arrivals import Arrivals
from ingest_api.problems import Problem
from ingest_api.request import ClientGone, Request

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_BODIES_BYTES: Final = 128 * 1024 * 1024
MESSAGE_WITHIN_S: Final = 20.0
_IDLE_WITHIN_S: Final = 75.0
_MAX_OPEN: Final = 128  # answers outstanding on one connection before it is not read any further
_DISCARD_BYTES: Final = 16 * 1024 * 1024  # read of a refused body, so that its sender gets to read the refusal


class Handler(Protocol):
    """What a connection needs of the service.

    `arrivals` keeps what was received until the end of the loop's turn, `body_bytes` is what all bodies that are being read may
    come to, `date` the current value of the Date header.
    """

    arrivals: Arrivals
    max_body_bytes: int
    body_bytes: int
    connections: "set[Connection]"
    date: bytes

    def handle(self, request: "Request") -> None:
        """Take a complete request; the answer is given to `Request.answer`, now or later."""

    def refuse(self, request: "Request", problem: Problem) -> None:
        """Answer a request that cannot be read."""


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.address = b""
        self._parser = httptools.HttpRequestParser(self)
        self._open: deque[Request] = deque()
        self._reading: Request | None = None
        self._parts: list[bytes] = []
        self._length = 0
        self._reserved = 0
        self._missing = 0  # of a body that the parser does not read
        self._in_head = True
        self._bytes = 0  # of the message being read, or discarded
        self._refused = False
        self._client_done = False
        self._holds = 0
        self._full = self._lost = False
        self._changed: asyncio.Event | None = None  # what a stream waits for, where there is one
        self._since = time.monotonic()

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self.address = str(transport.get_extra_info("peername")[0]).encode()
        self.handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing
        """Forget it. What it had sent completely is accepted all the same; nobody reads the answer."""
        self.handler.arrivals.go_through()
        self.handler.connections.discard(self)
        self._reserve(0)
        self._lost = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Leave what came to the end of this turn of the loop."""
        self.handler.arrivals.receive(self, data)

    def parse(self, data: bytes) -> None:
        """Parse what came."""
        if self._missing:
            self._go_on(data)
            return
        self._bytes += len(data)
        if self._refused:
            if self._bytes > _DISCARD_BYTES:
                self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # An offer to speak another protocol, which Java's client makes with every request: HTTP lets a server pass it over.
            # The parser has stopped behind the head, so the body is read by its length.
            self._parser = httptools.HttpRequestParser(self)
            self._go_on(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(Problem(400, "malformed-http", f"This is not HTTP/1.1: {error}."))
        else:
            self._check_size()

    def eof_received(self) -> bool:
        """The client has said all it will; it may still read. Returns whether the connection stays open for answers."""
        self.handler.arrivals.go_through()
        self._client_done = True
        if self._open:
            self._open[-1].keep_alive = False
        return bool(self._open)

    def pause_writing(self) -> None:
        """The client does not read its answers: do not read its requests."""
        self._full = True
        self._hold()

    def resume_writing(self) -> None:
        """It reads again."""
        self._full = False
        self._release()
        self._wake()

    # From the parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._reading = Request(self)
        self._parts = []
        self._since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """Take the target, which may come in parts."""
        assert self._reading is not None
        self._reading.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one that comes again is joined, as HTTP says."""
        assert self._reading is not None
        headers, name = self._reading.headers, name.lower()
        headers[name] = value if name not in headers else b"%b, %b" % (headers[name], value)

    def on_headers_complete(self) -> None:
        """Refuse a body that says it is too large before it is read."""
        request = self._reading
        assert request is not None
        request.method = self._parser.get_method()
        request.path, _, request.query = request.path.partition(b"?")
        request.keep_alive = self._parser.should_keep_alive()
        if request.method == b"GET":  # nobody else asks, and every POST would pay for it
            request.version = self._parser.get_http_version()
        self._in_head, self._bytes = False, 0
        self._length = int(request.headers.get(b"content-length", b"0"))
        if b"transfer-encoding" in request.headers:
            self._length = self.handler.max_body_bytes  # as much as it may become
        if self._length > self.handler.max_body_bytes:
            self._refuse(self._too_large())
        elif self.handler.body_bytes + self._length > MAX_BODIES_BYTES:
            self._refuse(Problem(503, "busy", "Too many large bodies are on their way.", headers=(("retry-after", "1"),)))
        elif len(request.path) > MAX_HEAD_BYTES:
            self._refuse(Problem(431, "too-large", f"The path is longer than {MAX_HEAD_BYTES:,} bytes."))
        else:
            self._reserve(self._length)
        if not self._refused and b"expect" in request.headers and request.headers[b"expect"].lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Hand a complete request over."""
        request = self._reading
        if request is None or self._refused:
            return
        if self._parser.should_upgrade() and self._length:
            self._missing = self._length
            return
        self._complete(request)

    def _complete(self, request: Request) -> None:
        self._reserve(0)
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._in_head, self._bytes, self._reading, self._parts = True, 0, None, []
        self._since = time.monotonic()
        if len(request.body) > self.handler.max_body_bytes:  # it came in chunks, whose overhead is not known before
            self._reading = request
            self._refuse(self._too_large())
            return
        self._open.append(request)
        if len(self._open) == _MAX_OPEN:
            self._hold()
        self.handler.handle(request)

    # From the service

    def flush(self) -> None:
        """Send the answers that are ready and whose turn it is."""
        ready, keep_alive = [], True
        while self._open and keep_alive and (answer := self._open[0].answered) is not None:
            if len(self._open) == _MAX_OPEN:
                self._release()
            ready.append(answer)
            keep_alive = self._open.popleft().keep_alive
        if ready:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if not keep_alive:
            self._linger()
        self._wake()

    async def turn(self, request: Request) -> None:
        """Wait until the answers before this request's have been sent.

        Raises:
            ClientGone: the connection has ended.
        """
        await self._until(lambda: self._open[0] is request)

    async def send(self, data: bytes) -> None:
        """Send a part of an answer whose turn it is, and wait until the client has read most of what it was sent.

        Raises:
            ClientGone: the connection has ended, or the client reads too slowly.
        """
        self._transport.write(data)
        try:
            async with asyncio.timeout(MESSAGE_WITHIN_S):
                await self._until(lambda: not self._full)
        except TimeoutError:
            raise ClientGone(f"nothing was read for {MESSAGE_WITHIN_S:.0f} s") from None

    def cut(self) -> None:
        """End the connection at once: what was sent must not look complete."""
        self._transport.abort()

    def look(self, now: float) -> None:
        """Close a connection that idles; refuse a request that does not arrive. Called twice a second."""
        waited_s = now - self._since
        if self._refused and waited_s > MESSAGE_WITHIN_S:
            self._transport.abort()
        elif self._reading is not None and waited_s > MESSAGE_WITHIN_S:
            self._refuse(Problem(408, "slow", f"The request did not arrive within {MESSAGE_WITHIN_S:.0f} s."))
        elif self._reading is None and not self._open and waited_s > _IDLE_WITHIN_S:
            self._transport.close()

    def finish(self) -> None:
        """Close as soon as what has begun is answered: the service stops."""
        self.handler.arrivals.go_through()
        if self._reading is None and not self._open:
            self._transport.close()
        for request in (*self._open, *([self._reading] if self._reading else [])):
            request.keep_alive = False

    async def _until(self, true: Callable[[], bool]) -> None:
        self._changed = self._changed or asyncio.Event()
        while not self._lost and not true():
            self._changed.clear()
            await self._changed.wait()
        if self._lost:
            raise ClientGone("the connection has ended")

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _go_on(self, data: bytes) -> None:
        """Read behind a head where the parser has stopped: what is missing of the body, then the next request."""
        part, rest = data[: self._missing], data[self._missing :]
        if self._missing and self._reading is not None:
            self._parts.append(part)
            self._missing -= len(part)
            if not self._missing:
                self._complete(self._reading)
        if rest:
            self.parse(rest)

    def _reserve(self, size: int) -> None:
        """Count the body that is being read against what all connections together may hold."""
        self.handler.body_bytes += size - self._reserved
        self._reserved = size

    def _check_size(self) -> None:
        if self._in_head and self._bytes > MAX_HEAD_BYTES:
            self._refuse(Problem(431, "too-large", f"The head of this request is larger than {MAX_HEAD_BYTES:,} bytes."))
        elif self._bytes > 2 * self.handler.max_body_bytes:  # chunked: the overhead may be as large as the body
            self._refuse(self._too_large())

    def _refuse(self, problem: Problem) -> None:
        """Answer, and read nothing more of this connection."""
        if self._refused:
            return
        self._refused = True
        self._reserve(0)
        request = self._reading or Request(self)
        request.keep_alive = False
        self._reading = None
        self._open.append(request)
        self.handler.refuse(request, problem)

    def _linger(self) -> None:
        """Say that nothing follows, and let the client read that: closing at once could reset what it has not read yet."""
        self._refused, self._bytes, self._since = True, 0, time.monotonic()
        if self._client_done:
            self._transport.close()
        else:
            self._transport.write_eof()

    def _too_large(self) -> Problem:
        return Problem(
            413, "too-large", f"The body is larger than {self.handler.max_body_bytes:,} bytes; send smaller batches."
        )

    def _hold(self) -> None:
        self._holds += 1
        if self._holds == 1:
            self._transport.pause_reading()

    def _release(self) -> None:
        self._holds -= 1
        if self._holds == 0:
            self._transport.resume_reading()
