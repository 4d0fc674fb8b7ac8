"""One request and the way back: an answer at once, or one of any length, part by part.

What does not belong here: parsing, and the order of answers (`connection.py`).
"""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ingest_api.connection import Connection

_LINES: Final = {int(status): f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CLOSE: Final = b"connection: close\r\n"
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"  # to HTTP/1.0, which would not know
_BODILESS: Final = (204, 304)  # they may not say a length of none (RFC 9110, 8.6)


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class Request:
    """One request. Header names are in lower case; `id` goes back as X-Request-ID, `common` with whatever the answer is."""

    __slots__ = (
        "address", "answered", "begun", "body", "common", "connection", "headers", "id", "keep_alive", "method", "path",
        "query", "version",
    )  # fmt: skip

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.address = connection.address
        self.answered: bytes | None = None
        self.begun = False
        self.keep_alive = True
        self.version = "1.1"
        self.headers: dict[bytes, bytes] = {}
        self.method = self.path = self.query = self.body = self.id = self.common = b""

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Send the answer, once; `head` is complete header lines. A HEAD is answered without the body."""
        assert self.answered is None
        framing = b"" if status in _BODILESS else b"content-length: %d\r\n" % len(body)
        self.answered = self._head(status, head, framing) + (b"" if self.method == b"HEAD" else body)
        self._done()

    async def stream(self, status: int, head: bytes, parts: AsyncIterator[bytes]) -> None:
        """Send an answer of any length, a part when the client has read the one before; it needs HTTP/1.1.

        Raises:
            ClientGone: nobody reads it any more. Then, and when a part fails, the connection ends without the last chunk.
        """
        await self.connection.turn(self)
        self.begun = True
        start = self._head(status, head, b"transfer-encoding: chunked\r\n")
        if self.method == b"HEAD":
            self.answered = start
            self._done()
            return
        try:
            await self.connection.send(start)
            async for part in parts:
                await self.connection.send(b"%x\r\n%b\r\n" % (len(part), part))
        except BaseException:
            self.connection.cut()
            raise
        self.answered = b"0\r\n\r\n"
        self._done()

    def drop_body(self) -> None:
        """Let go of a body that nobody reads, or that has been read."""
        self.connection.handler.bodies.release(self.connection.customer, len(self.body))
        self.body = b""

    def _done(self) -> None:
        self.drop_body()
        self.connection.flush()

    def _head(self, status: int, head: bytes, framing: bytes) -> bytes:
        close = _CLOSE if not self.keep_alive else b"" if self.version == "1.1" else _KEEP_ALIVE
        return b"%b%b%bdate: %b\r\nx-request-id: %b\r\n%b%b\r\n" % (
            _LINES[status], head, self.common, self.connection.handler.date, self.id, framing, close,
        )  # fmt: skip
