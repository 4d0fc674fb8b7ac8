"""A game of two seasons, folded and published, with services over it, for tests of the read API.

Its days follow the clock in a time zone where it is about noon, so that no test runs over a midnight.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from conftest import land_events

from tests.ingest_fixtures import KEY_ID, SECRET, Service, service, wait_until
from warehouse.calendar import Calendar, Days
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.publications import PUBLISHED, Outlets, publish, publish_all
from warehouse.settings import Settings

ODD = "a,b/c ü&+?#%2F 😀"
PLAYERS = 150
AWAY = "redis://127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class Game:
    """A deployment with boards: yesterday `p000` led, today it is `p149`, behind `ODD`, who is new."""

    settings: Settings
    today: date

    @property
    def yesterday(self) -> date:
        return self.today - timedelta(days=1)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "FAIRBOARD_TIMEZONE": self.settings.timezone,
            "FAIRBOARD_SEASONS": self.settings.seasons,
            "FAIRBOARD_REDIS_URL": self.settings.redis_url or "",
        }

    def publish(self, *names: str) -> None:
        with DuckDBEngine(self.settings) as engine:
            outlets = Outlets(self.settings)
            for name in names or PUBLISHED:
                publish(engine, outlets, name, Days(self.today - timedelta(days=60), self.today))

    def publish_anew(self) -> None:
        """Every board once more, whole: a new revision of each, unchanged as they are."""
        with DuckDBEngine(self.settings) as engine:
            publish_all(engine, Outlets(self.settings))


def event(player: str, ts: int, xp: int) -> dict[str, Any]:
    return {"type": "progression", "playerId": player, "ts": ts, "payload": {"deltaXp": xp, "activity": "quest"}}


@contextmanager
def published_game(folder: Path) -> Iterator[Game]:
    """The game, in a lake and in a Redis of its own."""
    now = int(time.time())
    hours = 12 - datetime.now(UTC).hour
    zone = f"Etc/GMT{-hours:+}"  # POSIX counts them westward
    today = Calendar("month", Settings(timezone=zone, _env_file=None).zone).day_of(now)
    folder.mkdir(parents=True)
    seasons = folder / "seasons.csv"
    spans = [("first", -60, -30), ("second", -30, 30), ("third", 30, 60)]
    rows = [f"{name},{today + timedelta(days=a)},{today + timedelta(days=b)}" for name, a, b in spans]
    seasons.write_text("\n".join(["id,start,end", *rows]))
    settings = Settings(data_dir=folder, hmac_keys=f"{KEY_ID}:{SECRET}", timezone=zone, seasons=str(seasons), _env_file=None)
    with EmbeddedRedis(settings) as server:
        game = Game(settings.model_copy(update={"redis_url": server.url}), today)
        day_s = 86_400
        land_events(settings, [
            *(event(f"p{n:03}", now - 4 * 3600 + n, n // 2 + 1) for n in range(PLAYERS)),
            *(event(f"p{n:03}", now - day_s, 200 - n) for n in range(PLAYERS)),
            event(ODD, now - 4 * 3600, 500),
            *(event(f"old{n}", now - 40 * day_s, 10 * n) for n in range(1, 4)),
        ])  # fmt: skip
        with DuckDBEngine(settings) as engine:
            for name in FOLDS:
                fold(engine, name, Days(today - timedelta(days=60), today))
        game.publish()
        yield game


@contextmanager
def reading(game: Game, **environment: str) -> Iterator[Service]:
    """A service over the game."""
    with service(game.settings.data_dir, **game.environment | environment) as started:
        if "FAIRBOARD_REDIS_URL" not in environment:
            wait_until(lambda: started.http.get("/readyz").json()["status"] == "ready", "Redis is connected")
        yield started
