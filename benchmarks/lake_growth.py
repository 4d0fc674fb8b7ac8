"""How much larger the lake is on disk than what is live in it, while the boards follow a steady stream, as one JSON line.

    python benchmarks/lake_growth.py [--minutes 60] [--rate 200] [--players 5000] [--days 30]

A lake with some days of history; then events land every five seconds, as the sealer lands them, and the live job's own follower
refreshes and tidies. `ratio` is all that lies in the lake's folder, logs and checkpoints included, to the bytes of live files,
at the end; `worst` the largest of one look a minute, from the third minute on. Needs the embedded Redis.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from pipelines import live
from pipelines.definitions import build_definitions
from warehouse.calendar import Calendar, Days
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.engine import DuckDBEngine
from warehouse.event_rows import EventRows
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES

EVERY_S = 5


class Game:
    """Events of so many players."""

    def __init__(self, settings: Settings, players: int) -> None:
        self._calendar, self._lake = Calendar.of(settings), Lake(settings)
        self._players, self._chance, self._landed = players, random.Random(1), 0

    def land(self, events: int, at: float) -> None:
        """Land events of that time."""
        rows, ts = EventRows(), int(at)
        for _ in range(events):
            self._landed += 1
            payload = {"deltaXp": self._chance.randrange(1, 500), "activity": "quest"}
            player = f"player-{self._chance.randrange(self._players)}"
            event = {"type": "progression", "playerId": player, "ts": ts, "payload": payload}
            rows.append(event, f"e{self._landed}", ts * 1000, "bench")
        days, label = rows.by_day(self._calendar.zone), f"landed{self._landed}"
        staged = [self._lake.stage(EVENTS, part, {"event_date": day}, label) for day, part in days]
        self._lake.commit(EVENTS, staged)


def sizes(settings: Settings) -> tuple[int, int]:
    """Bytes in the lake's folder, and of its live files."""
    on_disk = 0
    for path in settings.lake_dir.rglob("*"):
        try:
            on_disk += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # vacuumed meanwhile
            continue
    with Lake(settings) as lake:
        return on_disk, sum(f.size for table in TABLES.values() for files in lake.snapshot(table).files.values() for f in files)


def main() -> None:
    """Play, look once a minute, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=200, help="events a second")
    parser.add_argument("--players", type=int, default=5_000)
    parser.add_argument("--days", type=int, default=30, help="days of history")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lake-growth-") as folder:
        settings = Settings(_env_file=None, data_dir=Path(folder))
        with EmbeddedRedis(settings):
            print(json.dumps(measure(settings, given)))


def measure(settings: Settings, given: argparse.Namespace) -> dict[str, float | int]:
    """The figures."""
    game, now = Game(settings, given.players), datetime.now(UTC)
    history = [now - timedelta(days=n) for n in range(given.days, 0, -1)]
    for day in history:
        game.land(given.players * 4, day.timestamp())
    with DuckDBEngine(settings) as engine:
        for table in FOLDS:
            fold(engine, table, Days(history[0].date(), now.date()))
    ends, looks = time.monotonic() + given.minutes * 60, []
    live.RUN_FOR_S = int(given.minutes * 60)
    job = build_definitions({"settings": settings}).resolve_job_def(live.LIVE_JOB)
    following = threading.Thread(target=job.execute_in_process, kwargs={"instance": dg.DagsterInstance.ephemeral()})
    following.start()
    looked = time.monotonic()
    while time.monotonic() < ends:
        game.land(given.rate * EVERY_S, time.time())
        if time.monotonic() - looked >= 60:
            looked = time.monotonic()
            looks.append(sizes(settings))
        time.sleep(EVERY_S)
    following.join()
    on_disk, of_live = sizes(settings)
    with Lake(settings) as lake:
        versions = lake.snapshot(TABLES["leaderboards"]).version
    ratios = [disk / bytes_ for disk, bytes_ in looks[2:]]
    return {
        "minutes": given.minutes,
        "refreshes": versions,
        "live_bytes": of_live,
        "disk_bytes": on_disk,
        "ratio": round(on_disk / of_live, 3),
        "worst": round(max(ratios, default=on_disk / of_live), 3),
    }


if __name__ == "__main__":
    main()
