"""The definitions load, a day's graph runs, and ops can backfill a range, through a real Dagster instance."""
# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from conftest import land_events, progression
from stale_fixtures import Change, change_model

from assets import checks
from pipelines.definitions import build_definitions
from warehouse.boards import read_board
from warehouse.calendar import Days
from warehouse.checks import Check
from warehouse.embedded_redis import connect
from warehouse.engine import DuckDBEngine
from warehouse.folds import AFTER, FOLDS, stale_days
from warehouse.publications import PUBLISHED
from warehouse.settings import Settings
from warehouse.tables import TABLES, Table
from warehouse.versions import code_of

REPO = Path(__file__).parent.parent
ASSETS = {*FOLDS, *PUBLISHED}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on SQLite, as in operation."""
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        yield instance


def materialized(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    return {name: set(instance.get_materialized_partitions(dg.AssetKey(name))) for name in ASSETS}


def test_the_workspace_loads_in_a_fresh_interpreter() -> None:
    command = [str(Path(sys.executable).parent / "dagster"), "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_keeps_all_its_events_and_shows_a_terminal_those_that_matter(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    command = [str(Path(sys.executable).parent / "dagster"), "job", "execute", "-m", "pipelines.definitions", "-j", "verdicts"]
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "0 boards changed for verdicts []" in done.stderr
    assert "DEBUG" not in done.stderr
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        [run] = instance.get_runs()
        kept = {entry.dagster_event_type for entry in instance.all_logs(run.run_id) if entry.is_dagster_event}
    assert {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.RUN_SUCCESS} <= kept


def test_a_day_runs_through_every_asset_to_the_board_in_redis(redis_settings: Settings, instance: dg.DagsterInstance) -> None:
    today = datetime.now(UTC).date().isoformat()
    land_events(redis_settings, [progression("ann", today, 10, "00:00:01"), progression("bob", today, 20, "00:00:00")])
    job = build_definitions({"settings": redis_settings}).resolve_job_def("day")
    result = job.execute_in_process(partition_key=today, instance=instance)
    assert result.success
    assert materialized(instance) == {name: {today} for name in ASSETS}
    assert all(check.passed for check in result.get_asset_check_evaluations())
    [event] = instance.fetch_materializations(dg.AssetKey("progression"), limit=1).records
    assert event.asset_materialization.metadata["dagster/column_lineage"].value.deps_by_column["xp_gained"]
    board = read_board(connect(redis_settings), f"lb:{today[:7]}:daily")
    assert board is not None
    assert [entry.player_id for entry in board.entries] == ["bob", "ann"]


def test_a_range_is_one_run(redis_settings: Settings, instance: dg.DagsterInstance) -> None:
    land_events(redis_settings, [progression("ann", "2026-05-01", 10), progression("ann", "2026-05-03", 5)])
    job = build_definitions({"settings": redis_settings}).resolve_job_def("day")
    tags = {"dagster/asset_partition_range_start": "2026-05-01", "dagster/asset_partition_range_end": "2026-05-03"}
    assert job.execute_in_process(tags=tags, instance=instance).success
    assert materialized(instance)["progression"] == {"2026-05-01", "2026-05-02", "2026-05-03"}
    with DuckDBEngine(redis_settings) as engine:
        assert stale_days(engine) == []


def test_a_check_that_fails_stops_what_lies_downstream(
    redis_settings: Settings, instance: dg.DagsterInstance, change_model: Change
) -> None:
    land_events(redis_settings, [progression("ann", "2026-05-01", 10)])
    change_model("progression", "FROM totals AS t", "FROM (SELECT * FROM totals UNION ALL SELECT * FROM totals) AS t")
    job = build_definitions({"settings": redis_settings}).resolve_job_def("day")
    result = job.execute_in_process(partition_key="2026-05-01", instance=instance, raise_on_error=False)
    assert not result.success
    assert ("progression", "keys") in failed_checks(result)
    assert {asset for asset, _ in failed_checks(result)} == {"progression"}
    written = {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}
    assert "leaderboards" in written  # it does not stand on progression
    assert not written & {"daily_metrics", "receipts", "player_progress"}


def failed_checks(result: dg.ExecuteInProcessResult) -> set[tuple[str, str]]:
    return {(check.asset_key.path[-1], check.check_name) for check in result.get_asset_check_evaluations() if not check.passed}


def test_every_asset_says_what_it_holds_and_what_it_stands_on() -> None:
    graph = build_definitions().resolve_asset_graph()
    parents = {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys} for key in graph.materializable_asset_keys
    }
    assert parents["player_days"] == {"events"}
    assert parents["player_months"] == {"player_days"}
    assert parents["progression"] == {"player_days", "player_months"}
    assert parents["fairness"] == {"player_days", "player_boss_days", "player_item_days"}
    assert parents["leaderboards"] == {"player_days", "player_months"}
    assert all(graph.get(dg.AssetKey(name)).description for name in ASSETS)
    schema = graph.get(dg.AssetKey("progression")).metadata["dagster/column_schema"]
    assert "XP since the beginning. [XP]" in {column.description for column in schema.columns}


@pytest.mark.parametrize(
    ("table", "column", "sources"),
    [
        ("player_days", "xp", {"events.delta_xp", "events.type"}),
        ("player_months", "xp", {"player_days.xp"}),
        ("progression", "xp_gained", {"player_days.xp"}),
        ("leaderboards", "boss_kills", {"player_days.boss_kills", "player_months.boss_kills"}),  # through player_spans
        ("fairness", "player_id", {"player_days.player_id"}),
    ],
)
def test_a_column_says_which_columns_it_comes_from(table: str, column: str, sources: set[str]) -> None:
    lineage = build_definitions().resolve_asset_graph().get(dg.AssetKey(table)).metadata["dagster/column_lineage"]
    assert {f"{source.asset_key.path[-1]}.{source.column_name}" for source in lineage.deps_by_column[column]} == sources


def test_columns_come_from_assets_upstream_and_from_columns_that_exist() -> None:
    graph = build_definitions().resolve_asset_graph()
    for name in set(FOLDS) - {"events"}:
        node = graph.get(dg.AssetKey(name))
        sources = [source for found in node.metadata["dagster/column_lineage"].deps_by_column.values() for source in found]
        after = {dg.AssetKey(other) for other in AFTER.get(name, [])}
        parents = {source.asset_key for source in sources}
        assert parents <= node.parent_keys if name == "fairness" else parents == node.parent_keys - after  # see table_lineage
        assert all(source.column_name in TABLES[source.asset_key.path[-1]].schema.names for source in sources)


def versions(instance: dg.DagsterInstance, day: str) -> dict[str, tuple[str, str]]:
    """By table: the code's version and the data's of the latest materialization of that day."""
    found = {}
    for name in FOLDS:
        event = instance.get_latest_data_version_record(dg.AssetKey(name), partition_key=day)
        assert event
        assert event.asset_materialization
        tags = event.asset_materialization.tags or {}
        found[name] = (tags["dagster/code_version"], tags["dagster/data_version"])
    return found


def test_a_run_leaves_the_versions_of_its_code_and_data_and_the_same_data_has_the_same(
    redis_settings: Settings, instance: dg.DagsterInstance, change_model: Change
) -> None:
    day = "2026-05-01"
    land_events(redis_settings, [progression("ann", day, 10), progression("bob", day, 20)])
    job = build_definitions({"settings": redis_settings}).resolve_job_def("day")
    assert job.execute_in_process(partition_key=day, instance=instance).success
    first = versions(instance, day)
    assert {name: code for name, (code, _) in first.items()} == {name: code_of(TABLES[name]) for name in FOLDS}
    assert job.execute_in_process(partition_key=day, instance=instance).success
    assert versions(instance, day) == first
    land_events(redis_settings, [progression("ann", day, 5)], "late")
    change_model("activity_days", "ORDER BY", "ORDER BY 0 + 1, ")
    job = build_definitions({"settings": redis_settings}).resolve_job_def("day")
    assert job.execute_in_process(partition_key=day, instance=instance).success
    changed = versions(instance, day)
    assert {name for name in FOLDS if changed[name][0] != first[name][0]} == {"activity_days"}
    same = {name for name in FOLDS if changed[name][1] == first[name][1]}
    # Nobody fought a boss, the month runs, and no metric is about XP.
    assert same == {"player_months", "player_boss_days", "player_item_days", "daily_metrics"}
