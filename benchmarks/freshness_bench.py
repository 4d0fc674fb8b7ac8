"""How long an event takes from its 202 to its score in Redis, with everything running that `make up` runs, as one JSON line.

    python benchmarks/freshness_bench.py [--rate 500] [--seconds 60]

Signed batches at a steady rate, default settings. Some events are probes: the only ones of their player, so that the first time
its score is in the daily board is the event's own. What each stage takes stands beside the figure: `journal_and_seal` from the
202 to the commit in the lake, `refresh` (fold and publish) as the live job measures it, `publish` of the daily board alone; the
rest is waiting for the next refresh. The figure is printed only after every probe was there with the XP that was sent.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import redis
import sqlalchemy as sa

from ingest_api.client import SignedClient
from ingest_api.keys import ensure_demo_key
from warehouse.calendar import Calendar, WindowKind
from warehouse.database import PUBLICATIONS, open_database
from warehouse.embedded_redis import connect, free_port
from warehouse.errors import StoreUnavailable
from warehouse.lake import Lake, LakeFile
from warehouse.refresh import read_pulse
from warehouse.settings import Settings
from warehouse.tables import EVENTS

REPO = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
BATCHES_A_SECOND = 5
PROBES_A_BATCH = 4
PLAYERS = 2_000
STARTS_WITHIN_S = 180
ARRIVES_WITHIN_S = 120


@dataclass
class Probes:
    """When each probe was answered with 202, was committed to the lake, and first on the board (s since the epoch)."""

    answered: dict[str, float] = field(default_factory=dict)
    sealed: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    read: set[LakeFile] = field(default_factory=set)

    def look(self, lake: Lake, client: redis.Redis, key: str) -> None:
        """Look once at the board and at the files that are new."""
        if waiting := [probe for probe in list(self.answered) if probe not in self.seen]:
            found = client.zmscore(key, waiting)
            now = time.time()
            self.seen |= {probe: now for probe, score in zip(waiting, found, strict=True) if score is not None}
        with lake:
            for file in set(lake.files(EVENTS)) - self.read:
                players = pq.read_table(lake.path(file), columns=["player_id"], partitioning=None)["player_id"].to_pylist()
                found = {player: file.modified_ms / 1000 for player in players if player.startswith("probe")}
                self.sealed = found | self.sealed  # what is compacted later was sealed before
                self.read.add(file)


@contextmanager
def system(folder: Path) -> Iterator[tuple[Settings, str]]:
    """Everything in the Procfile, on free ports; ended as Ctrl-C does."""
    ports = {port: str(free_port()) for port in ("8080", "3000", "8501")}
    procfile = re.sub("|".join(ports), lambda found: ports[found[0]], (REPO / "Procfile").read_text())
    (folder / "Procfile").write_text(procfile)
    settings = Settings(data_dir=folder / "data", _env_file=None)
    home = settings.data_dir / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRBOARD_", "DAGSTER_"))}
    environment |= {
        "FAIRBOARD_DATA_DIR": str(settings.data_dir),
        "DAGSTER_HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    ensure_demo_key(settings)
    # As `make up` does: a web server and a daemon that make Dagster's databases at once spoil them.
    subprocess.run([BIN / "dagster", "instance", "info"], env=environment, stdout=subprocess.DEVNULL, check=True)
    with (folder / "log").open("wb") as log:
        command = [BIN / "honcho", "-f", folder / "Procfile", "-d", REPO, "start"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield settings, f"http://127.0.0.1:{ports['8080']}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def measure(rate: int, seconds: float) -> dict[str, object]:
    """Run the load and return the figures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, system(Path(folder)) as (settings, url):
        _wait(lambda: httpx.get(f"{url}/readyz", trust_env=False).is_success, "the ingest service")
        client = connect(settings)
        calendar = Calendar.of(settings)
        key = calendar.window_at(WindowKind.DAILY, calendar.day_of(int(time.time()))).redis_key
        probes, xp, stop = Probes(), {}, threading.Event()
        random_source = random.Random(1)
        refreshes: set[tuple[float, float]] = set()

        def watch() -> None:
            lake = Lake(settings)
            while not stop.wait(0.05):
                probes.look(lake, client, key)
                if pulse := read_pulse(settings):
                    refreshes.add((pulse.at, pulse.refresh_s))

        with SignedClient(url, *ensure_demo_key(settings)) as sender:
            _send(sender, 1, {"warm": 1}, random_source)
            _wait(lambda: client.zscore(key, "warm") is not None, "the first board")
            watcher = threading.Thread(target=watch)
            watcher.start()
            cpu_before, began = _live_cpu(settings), time.time()
            for n in range(round(seconds * BATCHES_A_SECOND)):
                time.sleep(max(0.0, began + n / BATCHES_A_SECOND - time.time()))
                these = {f"probe_{n}_{m}": 10 + m for m in range(PROBES_A_BATCH)}
                _send(sender, rate // BATCHES_A_SECOND - PROBES_A_BATCH, these, random_source)
                xp |= these
                probes.answered |= dict.fromkeys(these, time.time())
            took = time.time() - began
            share = (_live_cpu(settings) - cpu_before) / took
        _wait(lambda: len(probes.seen) == len(xp), "every probe", ARRIVES_WITHIN_S)
        _wait(lambda: len(probes.sealed) == len(xp), "every probe's file", ARRIVES_WITHIN_S)
        stop.set()
        watcher.join()
        scores = client.zmscore(key, list(xp))
        assert [int(score) for score in scores] == list(xp.values()), "a score is not what was sent"
        with open_database(settings).connect() as connection:
            mine = sa.select(PUBLICATIONS.c.duration_ms).where(PUBLICATIONS.c.redis_key == key)
            publish_ms = connection.execute(mine).scalars().all()
    fresh = [probes.seen[probe] - probes.answered[probe] for probe in xp]
    sealed = [probes.sealed[probe] - probes.answered[probe] for probe in xp]
    return {
        "name": "freshness_p95_s", "value": _percentile(fresh, 95), "unit": "s", "p50_s": _percentile(fresh, 50),
        "max_s": round(max(fresh), 2), "journal_and_seal_p95_s": _percentile(sealed, 95),
        "journal_and_seal_p50_s": _percentile(sealed, 50),
        "refresh_p50_s": _percentile([s for at, s in refreshes if at > began], 50),
        "publish_p50_ms": statistics.median(publish_ms), "live_job_cores": round(share, 3), "probes": len(xp),
        "events_a_second": round(rate * seconds / took),
    }  # fmt: skip


def _send(sender: SignedClient, crowd: int, probes: dict[str, int], source: random.Random) -> None:
    players = [(f"player_{source.randrange(PLAYERS)}", source.randrange(1, 200)) for _ in range(crowd)]
    events = [
        {"type": "progression", "playerId": player, "ts": int(time.time()), "payload": {"deltaXp": xp, "activity": "quest"}}
        for player, xp in [*players, *probes.items()]
    ]
    answer = sender.post_batch(events)
    assert answer.accepted == len(events), answer


def _live_cpu(settings: Settings) -> float:
    """CPU seconds that the process has used which holds the live job's lock."""
    lock = str(settings.data_dir.absolute() / "locks" / "live.lock")
    for process in psutil.process_iter():
        try:
            if any(file.path == lock for file in process.open_files()):
                return sum(process.cpu_times()[:2])
        except psutil.Error:
            continue  # ended meanwhile, or another user's
    raise RuntimeError("no process holds the live job's lock")


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2)


def _wait(true: Callable[[], bool], what: str, seconds: float = STARTS_WITHIN_S) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except (httpx.TransportError, redis.RedisError, StoreUnavailable):
            pass  # not up yet
        assert time.monotonic() < deadline, f"{what} is not there after {seconds} s"
        time.sleep(0.1)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    print(json.dumps(measure(given.rate, given.seconds)), flush=True)


if __name__ == "__main__":
    main()
