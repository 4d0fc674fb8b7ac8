"""One worker in this process, and connections to it without sockets: for thousands of requests in seconds."""
# ruff: noqa: SLF001 - what stands still inside is seen from outside only by waiting

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from ingest_api.connection import Connection
from ingest_api.worker import Worker
from tests.ingest_fixtures import SECRET
from warehouse.settings import Settings


class Transport:
    """Collects what a connection writes."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = self.closed = self.paused = False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return "127.0.0.1", 1

    def write(self, data: bytes) -> None:
        if self.ended or self.closed:
            raise RuntimeError("nothing can be written any more")
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    abort = close


class OneWorker:
    """A worker, its loop, and what it has written to disk."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, hmac_keys=f"k:{SECRET}", seal_after_s=3600, _env_file=None)
        self.loop = asyncio.new_event_loop()
        self.worker = self.loop.run_until_complete(self._make())

    async def _make(self) -> Worker:
        return Worker(self.settings, self.loop, os.getppid())

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self.worker._app), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport

    def send_together(self, requests: list[bytes]) -> list[bytes]:
        """Send each over a connection of its own, in one turn of the loop: they are one group. Returns what was answered."""
        made = [self.connect() for _ in requests]
        for (connection, _), request in zip(made, requests, strict=True):
            connection.data_received(request)
        self.run()
        for connection, _ in made:
            connection.connection_lost(None)
        return [transport.written for _, transport in made]

    def run(self) -> None:
        """Until everything that came is answered."""
        self.loop.run_until_complete(self._answered())

    def held_bytes(self) -> int:
        return self.worker._app.bodies._held

    async def _answered(self) -> None:
        while self.worker._app.busy or not self.worker._group.idle:  # noqa: ASYNC110 - thousands of times, each within a millisecond
            await asyncio.sleep(0)

    def finished_segment(self) -> Path:
        """The segment with all that was sent since the last call, ready to be sealed."""
        self.worker._journal.rotate()
        self.worker._journal._finisher.submit(lambda: None).result()
        (path,) = (self.settings.data_dir / "journal").glob("*/*.db")
        return path

    def forget(self) -> None:
        """Know no ids any more, so that the same requests are answered alike."""
        self.worker._group._door.forget()

    def close(self) -> None:
        """Leave the journal to the sealer."""
        self.worker._journal.close()
        self.loop.close()


@contextmanager
def one_worker(folder: Path) -> Iterator[OneWorker]:
    """A worker, quiet about what it refuses, closed at the end."""
    structlog.reset_defaults()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    worker = OneWorker(folder)
    try:
        yield worker
    finally:
        worker.close()
        structlog.reset_defaults()
