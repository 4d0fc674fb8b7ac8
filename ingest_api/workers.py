"""Granian's master process, in an interpreter of its own: it forks the workers, so it stays small and without threads.

What does not belong here: what a worker does (`app.py`), who starts and stops this process (`server.py`).
"""

import os
import signal
import sys
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from ingest_api.app import IngestApp
from ingest_api.logs import configure_logs
from warehouse.settings import Settings, load_settings

_HEADERS_WITHIN_MS = 10_000
_RESPAWN_AFTER_S = 0.1
_CHECK_PARENT_S = 1


def run(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or SIGINT, or until the parent is gone; a worker that dies is started again."""
    server = Granian(
        "ingest_api.app",
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        workers=workers,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADERS_WITHIN_MS),
        respawn_failed_workers=True,
        respawn_interval=_RESPAWN_AFTER_S,
        log_enabled=False,
    )
    _stop_with_parent(server)
    # Granian types the loader as if it were given the target, which it is not with wrap_loader=False.
    server.serve(target_loader=partial(IngestApp, settings), wrap_loader=False)  # type: ignore[arg-type]


def _stop_with_parent(server: Any) -> None:
    """Look every second whether the parent lives. A timer's signal, because forking and threads do not go together."""
    parent = os.getppid()

    def look(*_: object) -> None:
        if os.getppid() != parent:
            server.signal_handler_interrupt()

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _CHECK_PARENT_S, _CHECK_PARENT_S)


if __name__ == "__main__":
    configured = load_settings()
    configure_logs(configured)
    run(configured, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
