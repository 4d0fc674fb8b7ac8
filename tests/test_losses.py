"""A day that has lost events is held: neither computed nor published by itself until somebody has decided."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from conftest import REPO, Fairboard, land_events, progression

from ingest_api.journal import journal_dir
from ingest_api.metrics import exposition
from ingest_api.sealer import count_damaged
from pipelines.definitions import build_definitions
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake
from warehouse.outlets import Outlets
from warehouse.refresh import refresh
from warehouse.settings import Settings
from warehouse.tables import EVENTS

DAY, NEXT = "2026-05-01", "2026-05-02"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def game(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two files of events on a day, computed; one event on the next, not yet."""
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    for player, xp in (("ann", 10), ("bob", 20)):
        land_events(redis_settings, [progression(player, DAY, xp)], player)
    with DuckDBEngine(redis_settings) as engine:
        for table in ("player_days", "leaderboards"):
            fold(engine, table, Days.parse(DAY, DAY))
    land_events(redis_settings, [progression("cid", NEXT, 5)], "cid")
    return redis_settings


def damage(settings: Settings, label: str) -> Path:
    """Flip a bit of the day's file of that label."""
    with Lake(settings) as lake:
        [path] = [lake.path(f) for f in lake.files(EVENTS, Days.parse(DAY, DAY)) if f.label == label]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def run(settings: Settings, instance: dg.DagsterInstance, day: str = DAY) -> dg.ExecuteInProcessResult:
    job = build_definitions({"settings": settings}).resolve_job_def("day")
    return job.execute_in_process(partition_key=day, instance=instance, raise_on_error=False)


def scores(fairboard: Fairboard, day: str) -> dict[str, int]:
    shown = msgspec.json.decode(fairboard("leaderboard", "--window", "daily", "--at", day, "--json").stdout)
    return {entry["playerId"]: entry["score"] for entry in shown["entries"]}


def the_lake(fairboard: Fairboard, status: int = 0) -> tuple[str, str]:
    """What the doctor says of it."""
    [found] = [one for one in msgspec.json.decode(fairboard("doctor", "--json", status=status).stdout) if one["what"] == "lake"]
    return found["state"], found["todo"]


def test_the_check_blocks_what_lies_downstream_until_the_loss_is_accepted(
    game: Settings, instance: dg.DagsterInstance, fairboard: Fairboard
) -> None:
    path = damage(game, "bob")
    result = run(game, instance)
    assert not result.success
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "no_files_set_aside"]
    assert not check.passed
    assert path.stem in str(check.metadata["files"].value)
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key} == {"events"}
    assert scores(fairboard, DAY) == {"ann": 10, "bob": 20}
    state, todo = the_lake(fairboard, status=1)
    assert state == "wrong"
    assert f"fairboard accept-loss {DAY}" in todo
    assert not run(game, instance).success
    assert path.name in fairboard("accept-loss", DAY).stdout.replace("\n", "")
    assert run(game, instance).success
    assert scores(fairboard, DAY) == {"ann": 10}
    assert the_lake(fairboard)[0] == "ok"


def test_the_live_job_leaves_such_a_day_as_it_was_and_follows_the_others(game: Settings, fairboard: Fairboard) -> None:
    land_events(game, [progression("dee", DAY, 1)], "late")  # so that the day is looked at again
    damage(game, "bob")
    with DuckDBEngine(game) as engine:
        refresh(engine, Outlets(game))
    assert scores(fairboard, DAY) == {"ann": 10, "bob": 20}
    assert scores(fairboard, NEXT) == {"cid": 5}
    fairboard("accept-loss", DAY)
    with DuckDBEngine(game) as engine:
        refresh(engine, Outlets(game))
    assert scores(fairboard, DAY) == {"ann": 10, "dee": 1}


def test_the_service_counts_the_files_that_wait_for_a_decision(game: Settings, fairboard: Fairboard) -> None:
    journal_dir(game).mkdir(parents=True)

    def counted() -> bool:
        count_damaged(game)
        return 'fairboard_lake_damaged_files{worker="sealer"} 1' in exposition(journal_dir(game))

    assert not counted()
    damage(game, "bob")
    with DuckDBEngine(game) as engine:
        for table in FOLDS:
            fold(engine, table, Days.parse(DAY, DAY))
    assert counted()
    fairboard("accept-loss", DAY)
    assert not counted()


def test_a_loss_that_is_none_cannot_be_accepted(game: Settings, fairboard: Fairboard) -> None:
    assert f"Nothing of {DAY} was set aside; nothing was changed" in fairboard("accept-loss", DAY, status=1).stderr
