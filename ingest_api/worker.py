"""One worker process: a slot of the journal, a listening socket that all workers share by SO_REUSEPORT, and its end.

What does not belong here: what a request means (`app.py`), who starts workers (`server.py`).
"""

import asyncio
import gc
import os
import resource
import signal
import sys
import time
from typing import Final

import structlog
import uvloop

from ingest_api.access import Access
from ingest_api.app import App
from ingest_api.connection import Connection
from ingest_api.gate import Gate
from ingest_api.group import Group
from ingest_api.intake import Intake
from ingest_api.journal import Journal, Slot, journal_dir
from ingest_api.logs import configure_logs
from ingest_api.metrics import Metrics
from ingest_api.pressure import Pressure
from ingest_api.reads import Reads
from ingest_api.redis_link import RedisLink
from warehouse.errors import SettingsError
from warehouse.privacy import keep_private
from warehouse.settings import Settings, load_settings

_TICK_S: Final = 0.5
_BACKLOG: Final = 4096
_DRAIN_WITHIN_S: Final = 10.0

log = structlog.get_logger(__name__)


class Worker:
    """Everything that one worker holds."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, parent: int) -> None:
        root = journal_dir(settings)
        self._loop = loop
        self._slot = Slot.claim(root)
        self._journal = Journal(self._slot, settings.seal_after_s, settings.segment_mb * 1024 * 1024)
        self._metrics = Metrics.of(root, self._slot.name)
        self._pressure = Pressure(settings, root)
        self._link = RedisLink(settings, loop)
        self._intake = Intake(settings)
        self._group = Group(
            loop,
            self._journal,
            Gate(settings.rate_limit, settings.rate_window_s),
            self._link,
            self._pressure,
            self._metrics,
            refuse_without_redis=settings.redis_away == "closed",
        )
        self._read_link = RedisLink(settings, loop)
        self._access = Access(settings)
        self._reads = Reads(settings, self._read_link, self._access, self._metrics)
        self._app = App(
            settings, loop, self._intake, self._group, self._link, self._pressure, self._metrics, self._access, self._reads
        )
        self._stopping = asyncio.Event()
        self._parent = parent

    async def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or SIGINT, or until the parent is gone; then answer what has begun and hand everything over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._tick()
        server = await self._loop.create_server(lambda: Connection(self._app), host, port, reuse_port=True, backlog=_BACKLOG)
        # What is loaded by now stays: a full collection that walked over it all held every request up by some 40 ms.
        gc.collect()
        gc.freeze()
        log.info("worker.started", slot=self._slot.name, pid=os.getpid())
        await self._stopping.wait()
        server.close()
        await self._drain()
        self._reads.close()
        self._read_link.close()
        self._link.close()
        self._journal.close()
        self._metrics.remove()
        log.info("worker.stopped", slot=self._slot.name, pid=os.getpid())

    async def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_WITHIN_S
        for connection in list(self._app.connections):
            connection.finish()
        while (self._app.connections or self._app.busy or not self._group.idle) and time.monotonic() < deadline:  # noqa: ASYNC110 - rare, short
            await asyncio.sleep(0.01)

    def _tick(self) -> None:
        """Twice a second: what is due by the clock."""
        if os.getppid() != self._parent:
            log.warning("worker.orphaned", pid=os.getpid())
            self._stopping.set()
        if self._stopping.is_set():
            return
        self._loop.call_later(_TICK_S, self._tick)
        now = time.monotonic()
        self._app.set_date()
        self._link.keep()
        self._read_link.keep()
        if self._group.idle:
            self._journal.rotate_if_due(now)
        for connection in list(self._app.connections):
            connection.look(now)
        self._look_around()

    def _look_around(self) -> None:
        before, stuck = self._pressure.reason, self._pressure.stuck
        self._pressure.look()
        if self._pressure.reason != before:
            log.warning("pressure.changed", reason=self._pressure.reason or "accepting again")
        if self._pressure.stuck != stuck:
            log.warning("sealer.trouble", reason=self._pressure.stuck or "sealing again")
        self._metrics.put("fairboard_seal_stuck", bool(self._pressure.stuck))
        self._metrics.put("fairboard_ingest_redis_up", self._link.up)
        self._metrics.put("fairboard_ingest_accepting", not self._pressure.reason)
        self._metrics.put("fairboard_ingest_connections", self._app.limit.open)
        self._metrics.put("fairboard_ingest_connections_refused_total", self._app.limit.refused)
        self._metrics.put("fairboard_ingest_journal_bytes", self._pressure.journal_bytes)
        self._metrics.put("fairboard_ingest_disk_free_bytes", self._pressure.free_bytes)
        try:
            self._intake.reload_keys()
            self._access.reload_keys()
        except SettingsError as error:
            log.error("keys.unreadable", reason=str(error), kept="the keys as they were")  # noqa: TRY400 - no stack needed


async def _main(settings: Settings, host: str, port: int, parent: int) -> None:
    await Worker(settings, asyncio.get_running_loop(), parent).run(host, port)


def _allow_many_connections() -> None:
    """Raise the limit of open files as far as it may be raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    keep_private()
    configured = load_settings()
    configure_logs(configured)
    _allow_many_connections()
    # The parent's id comes from the parent: it may be gone before this line, and asking would name another one.
    uvloop.run(_main(configured, sys.argv[1], int(sys.argv[2]), parent=int(sys.argv[3])))
