"""Start, watch and stop the processes of the service: Granian with its workers, and the sealer.

What does not belong here: what any of them does.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Final

import httpx
import structlog

from ingest_api.keys import require_keys
from warehouse.errors import FairboardError
from warehouse.settings import Settings

_POLL_S: Final = 0.1
_READY_WITHIN_S: Final = 30

log = structlog.get_logger(__name__)


def serve(settings: Settings, *, host: str, port: int, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; then answer what has arrived, seal everything and return.

    Raises:
        SettingsError: there is no signing key in production, or the configuration cannot be used.
        FairboardError: the port is taken, or the workers cannot run; what was accepted is sealed.
    """
    require_keys(settings)
    stopping: list[int] = []
    handlers = {number: signal.signal(number, lambda n, _: stopping.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    http = _Child(settings, "ingest_api.workers", host, str(port), str(workers))
    sealer = _Child(settings, "ingest_api.sealer")
    try:
        _wait_until_ready(http, host, port, stopping)
        log.info("server.ready", url=f"http://{host}:{port}", workers=workers, pid=os.getpid())
        while not stopping and http.alive():
            if not sealer.alive():
                log.error("sealer.died", exit_status=sealer.exit_status)
                sealer = _Child(settings, "ingest_api.sealer")
            time.sleep(_POLL_S)
        if not stopping:
            raise FairboardError(f"The workers stopped by themselves (exit status {http.exit_status}); see the log above.")
    finally:
        http.stop()
        sealer.stop()  # last: it seals what the workers leave
        for number, handler in handlers.items():
            signal.signal(number, handler)
        log.info("server.stopped")


def settings_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with exactly these settings in it, for a child to read them from."""
    given = settings.model_dump(mode="json", exclude_none=True)
    return {**os.environ, **{f"FAIRBOARD_{name.upper()}": str(value) for name, value in given.items()}}


class _Child:
    """A process of ours: one module run by this interpreter, in a session of its own so that Ctrl-C reaches only us."""

    def __init__(self, settings: Settings, *module_and_arguments: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *module_and_arguments], env=settings_environment(settings), start_new_session=True
        )

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def _wait_until_ready(http: _Child, host: str, port: int, stopping: list[int]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not stopping:
        try:
            httpx.get(f"http://{host}:{port}/healthz", timeout=1, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            if not http.alive() or time.monotonic() > deadline:
                raise FairboardError(f"The service did not start on {host}:{port} ({error}); see the log above.") from error
            time.sleep(_POLL_S)
        else:
            return
