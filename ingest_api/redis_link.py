"""One pipelined connection to Redis for a worker: many commands, one write, their replies in order.

It writes commands itself: a pipeline object per group commit was the largest cost on the way to the answer (docs/ingest.md).
What does not belong here: which commands (`gate.py`).
"""

import asyncio
import contextlib
from collections import deque
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import hiredis
import structlog

from warehouse.embedded_redis import redis_url
from warehouse.errors import StoreUnavailable
from warehouse.settings import Settings

Reply = bytes | int | None | list[Any]

_CONNECT_S: Final = 2.0
_ANSWER_S: Final = 1.0
_DEFAULT_PORT: Final = 6379
_INCOMPLETE: Final = False  # what hiredis says where the rest of a reply is still on its way; no RESP2 reply is a boolean

log = structlog.get_logger(__name__)


class RedisError(Exception):
    """Redis is away, or answered with an error."""


def command(*parts: bytes) -> bytes:
    """One command, as it goes over the wire."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class RedisLink:
    """Keeps a connection, or says that there is none."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self.loop = loop
        self._wire: _Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self.trouble = "not connected yet"

    @property
    def up(self) -> bool:
        """Whether commands can be sent."""
        return self._wire is not None and not self._wire.closed

    def keep(self) -> None:
        """Connect again if the connection is gone; called twice a second. Closes one that has stopped answering."""
        if self._wire is not None and self._wire.stuck(self.loop.time()):
            self._wire.close("no answer within a second")
        if not self.up and (self._task is None or self._task.done()):
            if self._wire is not None:
                self._note(self._wire.trouble)
                self._wire = None
            self._task = self.loop.create_task(self._connect())

    def ask(self, commands: bytes, replies: int) -> asyncio.Future[list[Reply]]:
        """Send commands; the future has their replies, or a `RedisError`."""
        assert self._wire is not None
        return self._wire.send(commands, replies)

    def flush(self) -> None:
        """Write now what was asked and told, not at the end of this turn of the loop."""
        if self._wire is not None:
            self._wire.write()

    def tell(self, commands: bytes, replies: int) -> None:
        """Send commands whose replies nobody waits for: they are read with the next ones."""
        if self.up:
            self.ask(commands, replies).add_done_callback(_ignore)

    def close(self) -> None:
        """Close the connection."""
        if self._task is not None:
            self._task.cancel()
        if self._wire is not None:
            self._wire.close("closed")

    async def _connect(self) -> None:
        try:
            wire = await asyncio.wait_for(self._open(), _CONNECT_S)
        except (OSError, StoreUnavailable, RedisError, TimeoutError) as error:
            self._note(str(error) or type(error).__name__)
            return
        self._wire = wire
        self.trouble = ""
        log.info("redis.connected")

    async def _open(self) -> "_Wire":
        url = urlsplit(redis_url(self._settings))
        make = lambda: _Wire(self.loop)  # noqa: E731
        if url.scheme == "unix":
            _, wire = await self.loop.create_unix_connection(make, url.path)
        else:
            _, wire = await self.loop.create_connection(
                make, url.hostname or "127.0.0.1", url.port or _DEFAULT_PORT, ssl=True if url.scheme == "rediss" else None
            )
        greeting = []
        if url.password:
            greeting.append(command(b"AUTH", unquote(url.username or "default").encode(), unquote(url.password).encode()))
        if url.scheme != "unix" and url.path.strip("/"):
            greeting.append(command(b"SELECT", url.path.strip("/").encode()))
        await wire.send(b"".join([*greeting, command(b"PING")]), len(greeting) + 1)
        return wire

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("redis.away", reason=trouble, when_away=self._settings.redis_away)
        self.trouble = trouble


class _Wire(asyncio.Protocol):
    """A connection: what was sent is answered in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[asyncio.Future[list[Reply]], int, float]] = deque()
        self._commands: list[bytes] = []
        self._reader = hiredis.Reader(protocolError=RedisError, replyError=RedisError)
        self._replies: list[Reply | RedisError] = []
        self.closed = False
        self.trouble = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(str(exc or "connection closed by Redis"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._waiting and (reply := self._reader.gets()) is not _INCOMPLETE:
            self._replies.append(reply)
            if len(self._replies) == self._waiting[0][1]:
                self._settle()

    def send(self, commands: bytes, replies: int) -> asyncio.Future[list[Reply]]:
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        self._waiting.append((future, replies, self._loop.time()))
        self._commands.append(commands)
        if len(self._commands) == 1:
            self._loop.call_soon(self.write)
        return future

    def write(self) -> None:
        """Write what was asked for in this turn of the loop at once: a write costs more than all the rest of a question."""
        if self._commands and not self.closed:
            self._transport.write(b"".join(self._commands))
        self._commands.clear()

    def stuck(self, now: float) -> bool:
        return bool(self._waiting) and now - self._waiting[0][2] > _ANSWER_S

    def close(self, trouble: str) -> None:
        if self.closed:
            return
        self.closed, self.trouble = True, trouble
        self._transport.abort()
        for future, _, _ in self._waiting:
            if not future.done():
                future.set_exception(RedisError(trouble))
        self._waiting.clear()

    def _settle(self) -> None:
        future, _, _ = self._waiting.popleft()
        replies, self._replies = self._replies, []
        if future.done():
            return
        if error := next((reply for reply in replies if isinstance(reply, RedisError)), None):
            future.set_exception(error)
        else:
            future.set_result(replies)  # type: ignore[arg-type]


def _ignore(future: asyncio.Future[list[Reply]]) -> None:
    """Mark an exception as seen: the next question meets the same trouble and reports it."""
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
