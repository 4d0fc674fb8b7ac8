"""The live job: boards follow the events, trouble is seen, and there is always one run and never two."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from conftest import land_events, progression
from redis_servers import clear

from pipelines import live
from pipelines.definitions import build_definitions
from pipelines.doctor import examine
from warehouse.embedded_redis import connect
from warehouse.refresh import claim, read_pulse
from warehouse.settings import Settings

REPO = Path(__file__).parent.parent
HOLD = "import sys, time; from warehouse.refresh import claim; from warehouse.settings import Settings\n"
HOLD += "with claim(Settings(data_dir=sys.argv[1])) as held: print(held, flush=True); time.sleep(600)"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def quick(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A live job that refreshes every 0.1 s and is over after 12 s, at the latest."""
    monkeypatch.setattr(live, "RUN_FOR_S", 12)
    return redis_settings.model_copy(update={"refresh_s": 0.1})


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def run(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions({"settings": settings}).resolve_job_def(live.LIVE_JOB)
    return job.execute_in_process(instance=instance, raise_on_error=False)


def wait_until(true: Callable[[], bool], deadline_s: float = 30) -> None:
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_boards_follow_the_events_and_dagster_is_told(quick: Settings, instance: dg.DagsterInstance) -> None:
    client, key = connect(quick), f"lb:{today()[:7]}:daily"
    land_events(quick, [progression("ann", today(), 10, "00:00:01")])
    results: list[dg.ExecuteInProcessResult] = []
    thread = threading.Thread(target=lambda: results.append(run(quick, instance)))
    thread.start()
    wait_until(lambda: client.zscore(key, "ann") is not None)
    with claim(quick) as free:
        assert not free
    assert run(quick, instance).success  # a second one ends at once
    assert thread.is_alive()
    land_events(quick, [progression("bob", today(), 20, "00:00:01")], name="later")
    wait_until(lambda: client.zrevrange(key, 0, -1) == ["bob", "ann"])
    clear(client)
    wait_until(lambda: client.zrevrange(key, 0, -1) == ["bob", "ann"])
    thread.join()
    assert results[0].success
    for asset in ("player_days", "leaderboards", "publications"):
        assert today() in instance.get_materialized_partitions(dg.AssetKey(asset))
    event = instance.get_latest_materialization_event(dg.AssetKey("publications"))
    assert event
    assert event.asset_materialization
    assert event.asset_materialization.metadata["refreshes"].value > 2
    assert {one.what: one.state for one in examine(quick)}["live"] == "ok"


def test_dagster_is_told_of_no_day_that_has_not_begun(quick: Settings, instance: dg.DagsterInstance) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    land_events(quick, [progression("ann", today(), 1, "00:00:01"), progression("ann", str(tomorrow), 1, "00:00:01")])
    assert run(quick, instance).success
    assert instance.get_materialized_partitions(dg.AssetKey("player_days")) == {today()}


def test_trouble_is_in_the_doctors_report_and_fails_the_run_after_a_while(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GIVES_UP_AFTER_S", 0.3)
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "refresh_s": 0.1})
    assert not run(away, instance).success
    pulse = read_pulse(away)
    assert pulse
    assert "127.0.0.1:1 does not answer" in pulse.trouble
    finding = next(one for one in examine(away) if one.what == "live")
    assert (finding.state, "does not answer" in finding.found) == ("wrong", True)


def tick(settings: Settings, instance: dg.DagsterInstance) -> int:
    """How many runs the sensor asks for."""
    definitions = build_definitions({"settings": settings})
    with dg.build_sensor_context(
        resources={"settings": settings}, instance=instance, repository_def=definitions.get_repository_def()
    ) as context:
        return len(definitions.resolve_sensor_def("live").evaluate_tick(context).run_requests or [])


def test_the_sensor_starts_one_run_and_another_when_it_was_killed(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tick(settings, instance) == 1
    job = build_definitions({"settings": settings}).resolve_job_def(live.LIVE_JOB)
    believed = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    command = [sys.executable, "-c", HOLD, str(settings.data_dir)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPO)
    assert holder.stdout
    assert holder.stdout.readline() == b"True\n"
    assert tick(settings, instance) == 0
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert tick(settings, instance) == 1
    run_now = instance.get_run_by_id(believed.run_id)
    assert run_now
    assert run_now.status is dg.DagsterRunStatus.FAILURE


def test_a_run_that_is_starting_is_waited_for(settings: Settings, instance: dg.DagsterInstance) -> None:
    job = build_definitions({"settings": settings}).resolve_job_def(live.LIVE_JOB)
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
    assert tick(settings, instance) == 0


def test_what_the_live_job_has_folded_is_left_to_the_days_graph(
    quick: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RUN_FOR_S", 0.5)
    land_events(quick, [progression("ann", "2026-05-01", 10)])
    assert run(quick, instance).success
    definitions = build_definitions({"settings": quick})
    with dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 5, 1, 12, tzinfo=UTC),
        resources={"settings": quick},
        instance=instance,
        repository_def=definitions.get_repository_def(),
    ) as context:
        requests = definitions.resolve_schedule_def("refresh").evaluate_tick(context).run_requests
    assert [request.partition_key for request in requests or []] == ["2026-05-01"]
