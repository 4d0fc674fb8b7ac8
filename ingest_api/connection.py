"""HTTP/1.1 on one connection: requests in, answers out in their order, and neither faster than the other end allows.

The parser is llhttp (httptools), the event loop libuv (uvloop): docs/adr/0003-http-layer.md says why.
What does not belong here: cutting bytes into requests (`request_parser.py`), what a request means (`app.py`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, cast

from ingest_api.arrivals import Arrivals
from ingest_api.connection_limit import ConnectionLimit
from ingest_api.problems import Problem
from ingest_api.request import ClientGone, Request
from ingest_api.request_parser import HeldBodies, RequestParser

MESSAGE_WITHIN_S: Final = 20.0
_IDLE_WITHIN_S: Final = 75.0
_MAX_OPEN: Final = 128  # answers outstanding on one connection before it is not read any further
_DISCARD_BYTES: Final = 16 * 1024 * 1024  # read of a refused body, so that its sender gets to read the refusal
# Of one connection in one turn of the loop. What is left then waits, for some twenty times as long as the steps took: thousands
# of chunks of two bytes take a twentieth of the worker, not every second turn.
_STEPS_A_TURN: Final = 64
_REST_S_A_STEP: Final = 20e-6
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_TOO_MANY: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Handler(Protocol):
    """What a connection needs of the service.

    `arrivals` keeps what was received until the end of the loop's turn; `date` is the current value of the Date header.
    """

    arrivals: Arrivals
    bodies: HeldBodies
    limit: ConnectionLimit
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
        self.address = self.customer = b""  # the other end's, and what stands for whoever sends from there
        self._parser = RequestParser(partial(Request, self), handler.bodies)
        self._unparsed, self._parsed = b"", 0  # what came, and how far it has been read
        self._open: deque[Request] = deque()  # not answered yet, in the order in which they came
        self._queued = False  # whether what is unparsed is being parsed, or has its time
        self._reads = True
        self._deaf = False  # whether what comes is thrown away: a request was refused, or the last one
        self._discarded = 0
        self._lingers = False
        self._client_done = self._finishing = self._lost = False
        self._full_since: float | None = None  # since when the client has not read its answers
        self._changed: asyncio.Event | None = None  # what a stream waits for, where there is one
        self._since = time.monotonic()

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        peer = transport.get_extra_info("peername")
        if peer is None:  # it was reset before it was accepted
            self._turn_away(b"")
            return
        self.address = str(peer[0]).encode()
        customer = self.handler.limit.admit(self.address)
        if customer is None:
            self._turn_away(_TOO_MANY)
            return
        self.customer = customer
        self.handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing
        """Forget it. What has been parsed of what it sent is accepted all the same; nobody reads the answer."""
        if self not in self.handler.connections:
            return
        self.handler.arrivals.go_through()
        self._lost = self._deaf = True
        self.handler.connections.discard(self)
        self.handler.limit.leave(self.customer)
        self._parser.drop()
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Leave what came to the end of this turn of the loop."""
        self.handler.arrivals.receive(self, data)

    def parse(self, data: bytes) -> None:
        """Parse what came, and what is left of what came before, as far as a turn allows; without data, what has rested."""
        if self._lost:
            return
        if data:
            rest = self._unparsed[self._parsed :]
            self._unparsed, self._parsed = rest + data if rest else data, 0
            if self._queued:  # it is read many times in one turn, and has one share of it
                return
        self._queued = True
        self._parser.steps = 0
        while self._may_parse() and self._parser.steps < _STEPS_A_TURN:
            self._parsed = self._parser.feed(self._unparsed, self._parsed)
            if self._parser.completed is not None:
                self._received(self._parser.completed)
            if self._parser.problem is not None:
                self._refuse(self._parser.problem)
        self._queued = self._may_parse()
        if self._deaf:
            self._discard()
        elif self._queued:
            self.handler.arrivals.resume(self, self._parser.steps * _REST_S_A_STEP)
        self._after_parsing()

    def eof_received(self) -> bool:
        """The client has said all it will; it may still read. Returns whether the connection stays open for answers."""
        self.handler.arrivals.go_through()
        self._client_done = True
        self._after_parsing()
        return True

    def pause_writing(self) -> None:
        """The client does not read its answers: its requests are not read either."""
        self._full_since = time.monotonic()
        self._hold()

    def resume_writing(self) -> None:
        """It reads again."""
        self._full_since = None
        self._go_on()
        self._wake()

    # From the service

    def flush(self) -> None:
        """Send the answers that are ready and whose turn it is."""
        if self._lost:
            return
        ready, keep_alive = [], True
        self._since = time.monotonic()
        while self._open and keep_alive and (answer := self._open[0].answered) is not None:
            ready.append(answer)
            keep_alive = self._open.popleft().keep_alive
        if ready:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
            self._continue()
            self._go_on()
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
        if self._lost:
            raise ClientGone("the connection has ended")
        self._transport.write(data)
        try:
            async with asyncio.timeout(MESSAGE_WITHIN_S):
                await self._until(lambda: self._full_since is None)
        except TimeoutError:
            raise ClientGone(f"nothing was read for {MESSAGE_WITHIN_S:.0f} s") from None

    def cut(self) -> None:
        """End the connection at once: what was sent must not look complete."""
        self._transport.abort()

    def look(self, now: float) -> None:
        """Close a connection that idles or does not read; refuse a request that does not arrive. Called twice a second."""
        if self._full_since is not None:
            if now - self._full_since > MESSAGE_WITHIN_S:
                self._transport.abort()
        elif self._lingers:
            if now - self._since > MESSAGE_WITHIN_S:
                self._transport.abort()
        elif self._parser.request is not None:
            if now - self._parser.since > MESSAGE_WITHIN_S:
                self._refuse(Problem(408, "slow", f"The request did not arrive within {MESSAGE_WITHIN_S:.0f} s."))
        elif not self._open and now - max(self._since, self._parser.since) > _IDLE_WITHIN_S:
            self._transport.close()

    def finish(self) -> None:
        """Close as soon as what has begun is answered: the service stops."""
        self._finishing = True
        self.handler.arrivals.go_through()
        self._after_parsing()

    # Requests

    def _received(self, request: Request) -> None:
        self._open.append(request)
        self._deaf = not request.keep_alive
        self.handler.handle(request)

    def _may_parse(self) -> bool:
        room = self._full_since is None and len(self._open) < _MAX_OPEN
        return room and not self._deaf and self._parsed < len(self._unparsed)

    def _after_parsing(self) -> None:
        """Read on or not; give a body its 100; end where nothing will follow."""
        if self._parsed == len(self._unparsed):
            self._unparsed, self._parsed = b"", 0
        elif not self._deaf:
            self._hold()
            return
        if len(self._open) >= _MAX_OPEN:
            self._hold()
        elif self._full_since is None:
            self._release()
        self._continue()
        if self._client_done or (self._finishing and self._parser.request is None):
            if self._open:
                self._open[-1].keep_alive = False
                self._deaf = True
            elif self._client_done or not self._lingers:
                self._transport.close()

    def _go_on(self) -> None:
        """There is room again for what had to wait."""
        if self._queued:
            return
        if self._may_parse():
            self._queued = True
            self.handler.arrivals.receive(self, b"")
        elif not self._reads:
            self._after_parsing()

    def _continue(self) -> None:
        if self._parser.expects and not self._open and not self._deaf:
            self._parser.expects = False
            self._transport.write(_CONTINUE)

    def _refuse(self, problem: Problem) -> None:
        """Answer, and read nothing more of this connection."""
        if self._deaf:
            return
        request = self._parser.drop() or Request(self)
        request.keep_alive = False
        self._deaf = True
        self._open.append(request)
        self.handler.refuse(request, problem)

    # The connection

    def _turn_away(self, answer: bytes) -> None:
        self._deaf = self._lost = True
        self._transport.write(answer)
        self._transport.close()

    def _discard(self) -> None:
        self._discarded += len(self._unparsed) - self._parsed
        self._unparsed, self._parsed = b"", 0
        if self._discarded > _DISCARD_BYTES:
            self._transport.abort()

    def _linger(self) -> None:
        """Say that nothing follows, and let the client read that: closing at once could reset what it has not read yet."""
        self._deaf = self._lingers = True
        self._since = time.monotonic()
        if self._client_done:
            self._transport.close()
        else:
            self._transport.write_eof()

    def _hold(self) -> None:
        if self._reads:
            self._reads = False
            self._transport.pause_reading()

    def _release(self) -> None:
        if not self._reads:
            self._reads = True
            self._transport.resume_reading()

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
