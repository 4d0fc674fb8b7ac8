"""Start, watch and stop the processes of the service: the workers and the sealer.

What does not belong here: what any of them does.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import structlog

from ingest_api import trouble
from ingest_api.journal import DAMAGED, Slot, journal_dir
from ingest_api.keys import require_keys
from warehouse.errors import FairboardError
from warehouse.settings import Settings

_POLL_S: Final = 0.1
_READY_WITHIN_S: Final = 30
_RESTART_AFTER_S: Final = 1.0
_LATELY_S: Final = 60.0
_DEATHS_LATELY: Final = 3
# glibc would give memory back after each segment, and the next one pay for clear pages: an eighth of the sealing. So a sealer
# that was busy keeps what it needed at most. Other C libraries pass this over.
SEALER_ENVIRONMENT: Final = {"MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**28)}

log = structlog.get_logger(__name__)


def serve(settings: Settings, *, host: str, port: int, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT; then answer what has arrived, seal everything and return.

    A sealer that dies again and again is noted for `/readyz`; it takes the note back when it has sealed what there is.

    Raises:
        SettingsError: there is no signing key in production, or the configuration cannot be used.
        FairboardError: the port is taken, or the workers cannot run; or something that was accepted could not be sealed.
    """
    require_keys(settings)
    stopping: list[int] = []
    root = journal_dir(settings)
    handlers = {number: signal.signal(number, lambda n, _: stopping.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    environment = settings_environment(settings)
    sealer = _Child(environment | SEALER_ENVIRONMENT, "ingest_api.sealer")
    crew = [_Child(environment, "ingest_api.worker", host, str(port)) for _ in range(workers)]
    try:
        _wait_until_ready(crew, host, port, stopping)
        log.info("server.ready", url=f"http://{host}:{port}", workers=workers, pid=os.getpid())
        while not stopping:
            for child in crew:
                child.keep_alive()
            if (deaths := sealer.keep_alive()) >= _DEATHS_LATELY:
                trouble.note(root, f"The sealer died {deaths} times in a minute; the log says why.")
            time.sleep(_POLL_S)
    finally:
        for child in crew:
            child.terminate()
        for child in crew:
            child.wait()
        sealer.terminate()  # last: it seals what the workers leave
        sealer.wait()
        _seal_what_is_left(settings)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        log.info("server.stopped")
    if left := _left(root):
        damaged = sum(name.endswith(DAMAGED) for name in left)
        raise FairboardError(
            f"{len(left)} segments with accepted events could not be sealed and are kept in {root}; the log says why. Do not "
            f"remove them. {len(left) - damaged} will be sealed by the service when it is started again and what was wrong is "
            f"mended; {damaged} cannot be read ({DAMAGED}) and need a person."
        )


def _left(root: Path) -> set[str]:
    """The segments of slots that no living worker has."""
    left = set()
    for folder in filter(Path.is_dir, root.glob("[0-9]*")):
        if slot := Slot.take(folder):
            left |= {path.name.removesuffix("-wal") for path in folder.iterdir()}
            slot.release()
    return left


def settings_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with exactly these settings in it, for a child to read them from."""
    given = settings.model_dump(mode="json", exclude_none=True)
    return {**os.environ, **{f"FAIRBOARD_{name.upper()}": str(value) for name, value in given.items()}}


def _seal_what_is_left(settings: Settings) -> None:
    """Seal once more where a sealer that was just dead, or just starting, could not do it at the end."""
    if any(DAMAGED not in path.name for path in journal_dir(settings).glob("[0-9]*/*")):
        command = [sys.executable, "-m", "ingest_api.sealer", "once"]
        subprocess.run(command, env=settings_environment(settings), process_group=0, check=False)  # noqa: S603 - our own


class _Child:
    """A process of ours: one module run by this interpreter.

    In a process group of its own, so that Ctrl-C reaches only us; not in a session of its own, across which Linux's scheduler
    would not heed the sealer's niceness.
    """

    def __init__(self, environment: dict[str, str], *module_and_arguments: str) -> None:
        self._environment = environment
        self._arguments = module_and_arguments
        self._deaths: list[float] = []
        self._start()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def keep_alive(self) -> int:
        """Start it again if it has died, at most once a second. Returns how often it died in the last minute, if it did now."""
        now = time.monotonic()
        if self.alive() or now - self._started_at <= _RESTART_AFTER_S:
            return 0
        log.error("process.died", module=self._arguments[0], exit_status=self._process.returncode)
        self._deaths = [*(at for at in self._deaths if now - at < _LATELY_S), now]
        self._start()
        return len(self._deaths)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self) -> None:
        """Wait until it has."""
        self._process.wait()

    def _start(self) -> None:
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *self._arguments, str(os.getpid())], env=self._environment, process_group=0
        )


def _wait_until_ready(crew: list[_Child], host: str, port: int, stopping: list[int]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not stopping:
        try:
            httpx.get(f"http://{host}:{port}/healthz", timeout=1, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            if not any(child.alive() for child in crew) or time.monotonic() > deadline:
                raise FairboardError(f"The service did not start on {host}:{port} ({error}); see the log above.") from error
            time.sleep(_POLL_S)
        else:
            return
