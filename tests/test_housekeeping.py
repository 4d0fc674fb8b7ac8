"""The lake keeps itself small: superseded files go by themselves, and no sooner than they may."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from conftest import REPO, Fairboard, land_events, progression

from pipelines import live
from pipelines.definitions import build_definitions
from pipelines.housekeeping import HOUSEKEEPING_JOB
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake, housekeeping
from warehouse.settings import Settings
from warehouse.tables import TABLES

PLAYERS = 2_000  # so that the files weigh more than the log


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def land_much(settings: Settings, name: str, xp: int = 1) -> None:
    land_events(settings, [progression(f"player-{n}", today(), xp + n % 97, "00:00:01") for n in range(PLAYERS)], name)


def compute_today(settings: Settings) -> None:
    with DuckDBEngine(settings) as engine:
        for name in FOLDS:
            fold(engine, name, Days.parse(today(), today()))


def sizes(settings: Settings) -> tuple[int, int]:
    """The bytes of the tables' data files, on disk and live."""
    on_disk = sum(path.stat().st_size for name in TABLES for path in (settings.lake_dir / name).rglob("*=*/*.parquet"))
    with Lake(settings) as lake:
        live_bytes = sum(f.size for table in TABLES.values() for files in lake.snapshot(table).files.values() for f in files)
    return on_disk, live_bytes


def test_while_the_boards_follow_the_events_the_lake_stays_small(
    redis_settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute of the live job on a clock of its own: events come with every pause of five seconds."""
    seconds = [0.0]

    def pause(_: float) -> None:
        seconds[0] += 5
        land_events(redis_settings, [progression("ann", today(), 1, "00:00:01")], f"more-{seconds[0]}")

    clock = SimpleNamespace(sleep=pause, monotonic=lambda: seconds[0], time=time.time, process_time=time.process_time)
    monkeypatch.setattr(live, "time", clock)
    monkeypatch.setattr(live, "RUN_FOR_S", 66)
    monkeypatch.setattr(housekeeping, "HASTE_S", 0)
    land_much(redis_settings, "first")
    job = build_definitions({"settings": redis_settings}).resolve_job_def(live.LIVE_JOB)
    assert job.execute_in_process(instance=instance).success
    with Lake(redis_settings) as lake:
        assert lake.snapshot(TABLES["leaderboards"]).version >= 13
    on_disk, live_bytes = sizes(redis_settings)
    assert on_disk <= 1.5 * live_bytes


def test_superseded_files_stay_for_their_time_and_then_go(
    settings: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_much(settings, "first")
    compute_today(settings)
    land_events(settings, [progression("ann", today(), 5, "00:00:01")], "more")
    compute_today(settings)
    before, live_bytes = sizes(settings)
    assert before > live_bytes
    fairboard("vacuum")
    assert sizes(settings) == (before, live_bytes)
    later = time.time() + 16 * 60
    monkeypatch.setattr(housekeeping.time, "time", lambda: later)
    done = json.loads(fairboard("vacuum", "--json").stdout)
    assert sum(one["freed"] for one in done) == before - live_bytes
    assert sizes(settings) == (live_bytes, live_bytes)


def test_the_housekeeping_job_is_scheduled_and_frees_what_may_go(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_much(settings, "first")
    compute_today(settings)
    land_much(settings, "second", xp=7)
    compute_today(settings)
    monkeypatch.setattr(housekeeping, "HASTE_S", 0)
    definitions = build_definitions({"settings": settings})
    assert definitions.resolve_schedule_def(HOUSEKEEPING_JOB).cron_schedule == "*/15 * * * *"
    assert definitions.resolve_job_def(HOUSEKEEPING_JOB).execute_in_process(instance=instance).success
    on_disk, live_bytes = sizes(settings)
    assert on_disk <= 1.5 * live_bytes
