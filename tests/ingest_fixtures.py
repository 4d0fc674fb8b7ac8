"""A real ingest service in a subprocess, for tests that go through the front door."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from ingest_api.client import SignedClient
from ingest_api.signature import sign
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, REJECTS, Table

KEY_ID, SECRET = "game-1", "a-secret-for-tests"
DEADLINE_S = 60


class Service:
    """A running service, its folder and what it sealed."""

    def __init__(self, folder: Path, port: int, workers: int = 1, **environment: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "ingest_api", "--port", str(port), "--workers", str(workers)]
        self._environment = {
            **os.environ,
            "FAIRBOARD_DATA_DIR": str(folder),
            "FAIRBOARD_HMAC_KEYS": f"{KEY_ID}:{SECRET}",
            "FAIRBOARD_SEAL_AFTER_S": "0.5",
            **environment,
        }
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.folder, hmac_keys=f"{KEY_ID}:{SECRET}", _env_file=None)

    def start(self) -> None:
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        # A session of its own, so that kill() reaches every process of it.
        self.process = subprocess.Popen(
            self._command, env=self._environment, start_new_session=True, stderr=log, stdout=log, cwd=self.folder.parent
        )
        wait_until(self.answers, f"the service answers; its log: {log.name}")

    def answers(self) -> bool:
        assert self.process.poll() is None, f"the service stopped: {self.log()}"
        with suppress(httpx.HTTPError):
            return self.http.get("/healthz").status_code == 200
        return False

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def log(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def client(self) -> SignedClient:
        return SignedClient(self.url, KEY_ID, SECRET)

    def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        """POST a signed body."""
        return self.http.post(path, content=body, headers=self.headers(body, **headers))

    def headers(self, body: bytes, **headers: str) -> dict[str, str]:
        """The headers of a signed request; a header given as `x_name="…"` replaces ours, an empty one removes it."""
        every = {"x-signature": sign(SECRET.encode(), body), "content-type": "application/json"}
        every |= {name.replace("_", "-"): value for name, value in headers.items()}
        return {name: value for name, value in every.items() if value}

    def events(self) -> pl.DataFrame:
        """Every row in the lake."""
        return self._rows(EVENTS)

    def rejects(self) -> pl.DataFrame:
        """Every refused event in the lake."""
        return self._rows(REJECTS)

    def _rows(self, table: Table) -> pl.DataFrame:
        named = {"lake_url": "FAIRBOARD_LAKE_URL", "timezone": "FAIRBOARD_TIMEZONE"}
        given = {name: self._environment[variable] for name, variable in named.items() if variable in self._environment}
        with Lake(Settings(data_dir=self.folder, _env_file=None, **given)) as lake:
            paths = lake.paths(lake.files(table))
            return pl.concat([pl.read_parquet(path, glob=False) for path in paths]) if paths else pl.DataFrame()


@contextmanager
def service(folder: Path, workers: int = 1, port: int = 0, **environment: str) -> Iterator[Service]:
    """A service on a free port, stopped at the end."""
    running = Service(folder, port or free_port(), workers, **environment)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        running.http.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until it is true; fail with `what` when it is not by the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not in {deadline_s} s: {what}"
        time.sleep(0.02)


def progression(player: str = "player_1", xp: Any = 10, **fields: Any) -> dict[str, Any]:
    """A valid event, now."""
    return {
        "type": "progression",
        "playerId": player,
        "ts": int(time.time()),
        "payload": {"deltaXp": xp, "activity": "quest_completion"},
        **fields,
    }
