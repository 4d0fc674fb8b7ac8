"""Backfills: any range, in one run or many, in any order, twice, late, interrupted: the same lake byte for byte."""

import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from conftest import Land, boss_kill, land_events, progression
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.definitions import build_definitions
from tests.lake_fixtures import contents, tree
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, Folded, fold
from warehouse.settings import Settings
from warehouse.spans import days_of
from warehouse.tables import EVENTS, LEADERBOARDS, PLAYER_MONTHS, PROGRESSION

MAY, LATE_MAY, JUNE, JULY = "2026-05-01", "2026-05-31", "2026-06-01", "2026-07-02"
ACTIVE = [MAY, "2026-05-02", LATE_MAY, JULY, JUNE]
RANGE = Days.parse("2026-04-15", "2026-07-31")
GAME = [progression(player, day, xp) for day in ACTIVE for player, xp in (("ann", 40), ("bob", 70), ("cid", -5))]


def materialize(settings: Settings, *ranges: Days) -> dict[str, Folded]:
    with DuckDBEngine(settings) as engine:
        return {name: fold(engine, name, days) for days in ranges for name in FOLDS}


def each(days: Iterable[str]) -> list[Days]:
    return [Days.parse(day, day) for day in days]


def snapshot(settings: Settings) -> dict[str, bytes]:
    """Every file that the derived tables have, by its name, which says what it was made of."""
    return {name: content for name, content in tree(settings).items() if name.partition("/")[0] in {*FOLDS} - {"events"}}


def dropped(player: str, day: str) -> dict[str, Any]:
    return boss_kill(player, day) | {"type": "drop_claimed", "payload": {"bossId": "lich_king", "itemId": "crown"}}


GAMES = st.lists(
    st.builds(
        progression,
        st.sampled_from(["ann", "bob", "cid"]),
        st.sampled_from(ACTIVE),
        st.integers(-500, 5_000) | st.sampled_from([0, 2**63 - 1, 1 - 2**63]),
        st.times().map(lambda t: t.isoformat("seconds")),
    )
    | st.builds(boss_kill, st.sampled_from(["ann", "bob"]), st.sampled_from(ACTIVE))
    | st.builds(dropped, st.sampled_from(["ann", "bob"]), st.sampled_from(ACTIVE)),
    min_size=1,
    max_size=25,
)


@given(events=GAMES, order=st.permutations(ACTIVE), cut=st.integers(0, 25), seasons=st.sampled_from(["month", "year"]))
@hypothesis_settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_days_twice_with_late_events_gives_the_same_lake_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], order: list[str], cut: int, seasons: str
) -> None:
    """One run over the whole range is the measure; a run per day, in any order, half of them before late events, must match.

    And so must the same run without the months that stand for their days.
    """
    numbered = [event | {"eventId": f"e{n}"} for n, event in enumerate(events)]
    folder = tmp_path_factory.mktemp("order")
    at_once = Settings(data_dir=folder / "once", seasons=seasons, _env_file=None)
    land_events(at_once, [dict(event) for event in numbered])
    materialize(at_once, RANGE)
    piecemeal = Settings(data_dir=folder / "pieces", seasons=seasons, _env_file=None)
    land_events(piecemeal, [dict(event) for event in numbered[:cut]], name="seal")
    materialize(piecemeal, *each(order))
    land_events(piecemeal, [dict(event) for event in numbered[cut:]], name="late")
    materialize(piecemeal, *each(order), *each(order))
    without_months = Settings(data_dir=folder / "days", seasons=seasons, _env_file=None)
    land_events(without_months, [dict(event) for event in numbered])
    with DuckDBEngine(without_months) as engine:
        for name in FOLDS:
            if name != "player_months":
                fold(engine, name, RANGE)
    assert tables(piecemeal) == tables(at_once)
    assert without(tables(at_once), "player_months") == tables(without_months)


def tables(settings: Settings) -> dict[str, bytes]:
    """What the derived tables hold; what late files were made of is other files."""
    return {name: content for name, content in contents(settings).items() if name.partition("/")[0] in {*FOLDS} - {"events"}}


def without(files: dict[str, bytes], table: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith(table)}


def test_a_range_is_the_same_lake_in_one_dagster_run_and_in_a_run_per_partition(tmp_path: Path) -> None:
    lakes = []
    for name, runs in {"once": [(LATE_MAY, JUNE)], "each": [(JUNE, JUNE), (LATE_MAY, LATE_MAY)]}.items():
        settings = Settings(data_dir=tmp_path / name, _env_file=None)
        land_events(settings, [dict(event) for event in GAME])
        job = build_definitions({"settings": settings}).resolve_job_def("day")
        for first, last in runs:
            tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
            assert job.execute_in_process(tags=tags, asset_selection=[dg.AssetKey(table) for table in FOLDS]).success
        lakes.append(snapshot(settings))
    assert lakes[0] == lakes[1]
    assert any(name.startswith("player_months/month_start=2026-05-01/data-") for name in lakes[0])


KILLED = """
import os, signal, sys
from pathlib import Path
from deltalake import DeltaTable
from pipelines.cli import main

left = int(sys.argv[1])
def or_die(function):
    def step(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return step
Path.replace = or_die(Path.replace)
DeltaTable.create_write_transaction = or_die(DeltaTable.create_write_transaction)
main(["materialize", "--from", "2026-05-01", "--to", "2026-07-31"])
"""


@pytest.mark.parametrize("steps", [0, 4, 5, 6, 13, 40], ids=lambda steps: f"after {steps} steps")
def test_a_backfill_killed_between_files_and_commits_is_mended_by_the_next(
    settings: Settings, tmp_path: Path, steps: int
) -> None:
    whole = Settings(data_dir=tmp_path / "whole", _env_file=None)
    for lake in (settings, whole):
        land_events(lake, [dict(event) for event in GAME])
    killed = subprocess.run([sys.executable, "-c", KILLED, str(steps)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    materialize(settings, Days.parse(MAY, "2026-07-31"))
    materialize(whole, Days.parse(MAY, "2026-07-31"))
    assert snapshot(settings) == snapshot(whole)


def test_days_without_events_leave_nothing(settings: Settings) -> None:
    assert all(done.rows == 0 and done.partitions == 0 for done in materialize(settings, RANGE).values())
    assert snapshot(settings) == {}


def test_a_month_is_rolled_up_when_a_later_one_has_events(settings: Settings, land: Land) -> None:
    def months() -> list[date]:
        with DuckDBEngine(settings) as engine:
            return days_of(engine, PLAYER_MONTHS)

    land([dict(event) for event in GAME])
    materialize(settings, *each([MAY, LATE_MAY]))
    assert months() == []
    materialize(settings, *each([JULY]))
    assert months() == [date(2026, 5, 1)]
    materialize(settings, *each([JUNE]))
    assert months() == [date(2026, 5, 1), date(2026, 6, 1)]


def test_a_month_whose_days_changed_stands_for_nothing_until_it_is_folded_again(settings: Settings, land: Land) -> None:
    land([dict(event) for event in GAME])
    materialize(settings, RANGE)
    land([progression("ann", MAY, 1_000)], name="late")
    with DuckDBEngine(settings) as engine:
        for name in ("player_days", "leaderboards", "progression"):
            fold(engine, name, Days.parse(MAY, MAY))
        engine.bind(LEADERBOARDS)
        engine.bind(PROGRESSION)
        assert engine.connection.sql("SELECT xp FROM leaderboards WHERE window_kind = 'alltime' LIMIT 1").fetchall() == [
            (1_200,)
        ]
        assert engine.connection.sql("SELECT max(xp_total) FROM progression").fetchall() == [(1_200,)]


def test_later_days_are_computed_again_only_when_what_they_stand_on_moved(settings: Settings, land: Land) -> None:
    land([dict(event) for event in GAME])
    may = Days.parse(MAY, MAY)
    materialize(settings, RANGE)
    again = materialize(settings, may)
    assert again["progression"].days == may
    assert {name: done.changed for name, done in again.items()} == dict.fromkeys(FOLDS, 0)
    assert again["player_months"].rows == 0
    land([boss_kill("ann", MAY)], name="kill")
    kill = materialize(settings, may)["progression"]
    assert (kill.days.last, kill.changed) == (date.fromisoformat(JULY), 0)  # looked at, and as they were
    land([progression("ann", MAY, 1)], name="late")
    assert materialize(settings, may)["progression"].changed == len(ACTIVE)


def test_a_lost_month_comes_again(settings: Settings, land: Land) -> None:
    land([dict(event) for event in GAME])
    materialize(settings, RANGE)
    before = snapshot(settings)
    with DuckDBEngine(settings) as engine:
        engine.lake.commit(PLAYER_MONTHS, [], engine.lake.files(PLAYER_MONTHS))
    materialize(settings, Days.parse(JUNE, JUNE))
    assert snapshot(settings).keys() == before.keys()


def test_a_month_that_became_the_newest_again_is_not_rolled_up(settings: Settings, tmp_path: Path) -> None:
    may_only = Settings(data_dir=tmp_path / "may", _env_file=None)
    for lake in (settings, may_only):
        land_events(lake, [progression("ann", MAY, 1), progression("bob", LATE_MAY, 1)])
    land_events(settings, [progression("ann", JUNE, 1)], name="june")
    materialize(settings, RANGE)
    with DuckDBEngine(settings) as engine:
        engine.lake.commit(EVENTS, [], engine.lake.files(EVENTS, Days.parse(JUNE, JUNE)))
    materialize(settings, Days.parse(JUNE, JUNE))
    materialize(may_only, RANGE)
    assert snapshot(settings) == snapshot(may_only)
