"""What every test may use: settings of an empty deployment, events put straight into its lake, and the real input."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog
from redis_servers import clear

from pipelines.cli import main
from warehouse.calendar import Calendar
from warehouse.embedded_redis import EmbeddedRedis, connect
from warehouse.event_rows import EventRows
from warehouse.events import decode_any, decode_event
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS

REPO = Path(__file__).parent.parent
SHARED = REPO.parent / "shared" / "data"


def missing(what: str) -> None:
    """A test needs something that is not there: that fails in CI, and elsewhere skips, saying what."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing in CI: {what}")
    pytest.skip(f"missing: {what}")


@pytest.fixture(scope="session")
def f1_data() -> Path:
    """The Formula 1 input with its known answers; it is not part of the repository."""
    if not (folder := SHARED / "f1").exists():
        missing(f"{folder} (15,209 events and the official standings)")
    return folder


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Whatever FAIRBOARD_… or .env the developer has is not the tests', and a command's umask is its own."""
    for name in [name for name in os.environ if name.startswith(("FAIRBOARD_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    umask = os.umask(0o022)
    yield
    os.umask(umask)


@pytest.fixture(autouse=True)
def _log_as_nobody_has_configured() -> Iterator[None]:
    """A command that a test runs in this process configures the log for its own streams, which end with that test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", _env_file=None)


Land = Callable[..., None]


@pytest.fixture
def land(settings: Settings) -> Land:
    """Put events into the lake as the sealer would: `land([progression(…), …], name="late")`."""
    return lambda events, name="seal": land_events(settings, events, name)


def land_events(settings: Settings, events: list[dict[str, Any]], name: str = "seal") -> None:
    lake, calendar, rows = Lake(settings), Calendar.of(settings), EventRows()
    for number, event in enumerate(events):
        received_ms = event.pop("received_ms", event["ts"] * 1000)
        body = encode(event)
        decode_event(body)
        rows.append(decode_any(body), event.get("eventId", f"{name}-{number}"), received_ms, "test")
    for day, part in rows.by_day(calendar.zone):
        lake.write(EVENTS, part, {"event_date": day}, name)


def encode(event: dict[str, Any]) -> bytes:
    return msgspec.json.encode(event)


def at(day: str, clock: str = "12:00:00") -> int:
    """Seconds since the epoch of a UTC day and clock time."""
    return int(datetime.combine(date.fromisoformat(day), time.fromisoformat(clock), UTC).timestamp())


def progression(player: str, day: str, xp: int, clock: str = "12:00:00", **more: Any) -> dict[str, Any]:
    payload = {"deltaXp": xp, "activity": "quest_completion"}
    return {"type": "progression", "playerId": player, "ts": at(day, clock), "payload": payload, **more}


def boss_kill(player: str, day: str, clock: str = "12:00:00", **more: Any) -> dict[str, Any]:
    return {"type": "boss_kill", "playerId": player, "ts": at(day, clock), "payload": {"bossId": "lich_king"}, **more}


class Done(NamedTuple):
    stdout: str
    stderr: str


Fairboard = Callable[..., Done]


@pytest.fixture
def fairboard(capsys: pytest.CaptureFixture[str]) -> Fairboard:
    """Run the command in this process: what differs from a shell is only the two seconds that Python needs to start."""

    def run(*arguments: str, status: int = 0) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        assert (ended.value.code or 0) == status, captured
        return Done(captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("redis"), _env_file=None)
    with EmbeddedRedis(settings) as server:
        yield settings.model_copy(update={"redis_url": server.url})


@pytest.fixture
def redis_settings(session_redis: Settings, settings: Settings) -> Settings:
    """The test's deployment with a real, empty Redis: one server per test process, emptied for each test."""
    clear(connect(session_redis))
    return settings.model_copy(update={"redis_url": session_redis.redis_url})
