"""What arrives in one turn of the event loop, from all connections: parsed together at the turn's end, then checked together.

One step for many requests finds its code in the processor's caches. All steps for one request after another did not, and a
fifth fewer requests went through (docs/ingest.md). What does not belong here: parsing (`connection.py`), checking (`app.py`).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from ingest_api.request import Request

if TYPE_CHECKING:
    from ingest_api.connection import Connection

log = structlog.get_logger(__name__)


class Arrivals:
    """Bytes that wait to be parsed, and requests that wait to be checked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, check: Callable[[Request], None]) -> None:
        self._loop = loop
        self._check = check
        self._bytes: list[tuple[Connection, bytes]] = []
        self._requests: list[Request] = []

    def __bool__(self) -> bool:
        return bool(self._bytes or self._requests)

    def receive(self, connection: "Connection", data: bytes) -> None:
        """Take what a connection has sent, in its order."""
        self._bytes.append((connection, data))
        if len(self._bytes) == 1:
            self._loop.call_soon(self.go_through)

    def resume(self, connection: "Connection", after_s: float) -> None:
        """Let a connection go on with what it has not parsed, after that time."""
        self._loop.call_later(after_s, self.receive, connection, b"")

    def add(self, request: Request) -> None:
        """Take a request that is complete."""
        self._requests.append(request)

    def go_through(self) -> None:
        """Parse and check everything that is here: at the turn's end, or earlier because a connection ends."""
        received, self._bytes = self._bytes, []
        for connection, data in received:
            try:
                connection.parse(data)
            except Exception:  # a bug: this connection ends, the others are served
                log.exception("connection.failed")
                connection.cut()
        requests, self._requests = self._requests, []
        for request in requests:
            try:
                self._check(request)
            except Exception:  # likewise
                log.exception("request.failed")
                request.connection.cut()
