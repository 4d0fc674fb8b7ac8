"""The schedule works through all that is behind: in few runs, in a bounded number of ticks, whatever fails on the way."""
# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from conftest import REPO, boss_kill, encode, land_events, progression
from stale_fixtures import Change, change_model

from pipelines import schedules
from pipelines.definitions import build_definitions
from pipelines.schedules import DAY_JOB, RANGE, RUNS_AT_ONCE
from warehouse.basis import behind
from warehouse.calendar import Calendar, Days
from warehouse.damage import set_aside
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.imports import import_file
from warehouse.lake import Lake
from warehouse.losses import accept
from warehouse.settings import DATA, Settings
from warehouse.tables import EVENTS, TABLES

FIRST, NOW = date(2023, 1, 1), datetime(2023, 12, 31, 12, tzinfo=UTC)  # of a year that is over, whenever this runs


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"first_day": FIRST})


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text((REPO / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def requested(
    settings: Settings, instance: dg.DagsterInstance, now: datetime, definitions: dg.Definitions | None = None
) -> list[str]:
    """The days, or ranges of days, that a tick of the schedule asks for."""
    return [days_of(request.tags) for request in tick(settings, instance, now, definitions)]


def days_of(tags: Mapping[str, str]) -> str:
    return tags.get("dagster/partition") or " to ".join(tags[name] for name in RANGE)


def tick(
    settings: Settings, instance: dg.DagsterInstance, now: datetime, definitions: dg.Definitions | None = None
) -> Sequence[dg.RunRequest]:
    definitions = definitions or build_definitions({"settings": settings})
    with dg.build_schedule_context(
        scheduled_execution_time=now,
        resources={"settings": settings},
        instance=instance,
        repository_def=definitions.get_repository_def(),
    ) as context:
        return definitions.resolve_schedule_def("refresh").evaluate_tick(context).run_requests or []


def test_the_schedule_asks_for_days_with_new_events_and_for_each_new_day(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    land_events(settings, [progression("ann", "2026-05-01", 10), progression("ann", "2026-05-02", 10)])
    now = datetime(2026, 5, 3, 0, 5, tzinfo=UTC)
    assert requested(settings, instance, now) == ["2026-05-03", "2026-05-01 to 2026-05-02"]


@pytest.mark.parametrize(
    ("zone", "tick", "today", "tomorrow"),
    [
        ("UTC", datetime(2026, 5, 2, 23, 55, tzinfo=UTC), "2026-05-02", "2026-05-03"),
        ("Asia/Kolkata", datetime(2026, 5, 2, 18, 25, tzinfo=UTC), "2026-05-02", "2026-05-03"),
        ("America/Santiago", datetime(2026, 9, 6, 3, 55, tzinfo=UTC), "2026-09-05", "2026-09-06"),  # whose midnight is left out
    ],
)
def test_a_tick_that_runs_late_asks_for_no_day_that_had_not_begun(
    settings: Settings, instance: dg.DagsterInstance, zone: str, tick: datetime, today: str, tomorrow: str
) -> None:
    settings = settings.model_copy(update={"timezone": zone})
    behind_midnight = int(tick.timestamp()) + 360
    events = [
        progression("ann", today, 1),
        *(progression("bob", today, 1) | {"ts": ts} for ts in (behind_midnight, 17_776_368_000)),
    ]
    land_events(settings, events)
    assert requested(settings, instance, tick) == [today]
    assert requested(settings, instance, tick + timedelta(minutes=5)) == [tomorrow, today]


def test_no_tick_asks_for_a_day_before_the_first(redis_settings: Settings, instance: dg.DagsterInstance) -> None:
    """A failed run of a day that FIRST_DAY leaves out since, and a FIRST_DAY that has not come."""
    now = datetime.now(UTC)
    land_events(redis_settings, [progression("ann", "2026-05-01", 10)])
    away = redis_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    job = build_definitions({"settings": away}).resolve_job_def("day")
    assert not job.execute_in_process(partition_key="2026-05-01", instance=instance, raise_on_error=False).success
    later = redis_settings.model_copy(update={"first_day": now.date()})
    assert requested(later, instance, now) == [now.date().isoformat()]
    assert requested(later.model_copy(update={"first_day": now.date() + timedelta(days=9)}), instance, now) == []


def test_a_day_whose_boards_could_not_be_published_is_asked_for_again(
    redis_settings: Settings, instance: dg.DagsterInstance
) -> None:
    now = datetime.now(UTC)
    today = now.date().isoformat()
    land_events(redis_settings, [progression("ann", "2026-05-01", 10)])
    away = redis_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    job = build_definitions({"settings": away}).resolve_job_def("day")
    assert not job.execute_in_process(partition_key="2026-05-01", instance=instance, raise_on_error=False).success
    assert requested(redis_settings, instance, now) == [today, "2026-05-01"]
    job = build_definitions({"settings": redis_settings}).resolve_job_def("day")
    assert job.execute_in_process(partition_key="2026-05-01", instance=instance).success
    assert requested(redis_settings, instance, now) == [today]


class World:
    """A deployment whose runs fold for real, and book themselves as Dagster does; those over `broken` days fail."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.broken: set[date] = set()
        self.definitions = build_definitions({"settings": settings})

    def tick(self) -> list[Days]:
        """Ask the schedule, and run what it asks for. Returns which days."""
        asked = [
            Days.parse(*(days.split(" to ") * 2)[:2]) for days in requested(self.settings, self.instance, NOW, self.definitions)
        ]
        for days in asked:
            fails = any(day in days for day in self.broken)
            if not fails:
                compute(self.settings, days)
            self.book(days, dg.DagsterRunStatus.FAILURE if fails else dg.DagsterRunStatus.SUCCESS)
        return asked

    def book(self, days: Days, status: dg.DagsterRunStatus) -> None:
        tags = dict(zip(RANGE, map(str, (days.first, days.last)), strict=True))
        self.instance.add_run(dg.DagsterRun(DAY_JOB, run_id=str(uuid4()), status=status, tags=tags))

    def behind(self) -> set[date]:
        with DuckDBEngine(self.settings) as engine:
            return {one.day for one in behind(engine)}


def compute(settings: Settings, days: Days, tables: Sequence[str] = tuple(FOLDS)) -> None:
    with DuckDBEngine(settings) as engine:
        for table in tables:
            fold(engine, table, days)


def history(settings: Settings, days: int) -> list[date]:
    """Days of history, in one commit."""
    found = [FIRST + timedelta(days=n) for n in range(days)]
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    file = settings.data_dir / "history.ndjson"
    file.write_bytes(b"\n".join(encode(progression("ann", str(day), 10)) for day in found))
    with Lake(settings) as lake:
        import_file(lake, Calendar.of(settings), file)
    return found


def test_months_that_a_changed_model_left_behind_is_one_run_and_today_another(
    settings: Settings, instance: dg.DagsterInstance, change_model: Change
) -> None:
    days, today = history(settings, 20), NOW.date()
    land_events(settings, [progression("ann", str(today), 10)])
    compute(settings, Days(days[0], today))
    world = World(settings, instance)
    assert world.tick() == [Days(today, today)]  # the new day
    assert world.tick() == []
    change_model("activity_days", "ORDER BY", "ORDER BY 0 + 1, ")
    assert world.tick() == [Days(today, today), Days(days[0], days[-1])]
    assert world.behind() == set()


def test_a_day_that_always_fails_stands_alone_after_a_few_ticks_and_everything_else_is_done(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    days = history(settings, 24)
    world = World(settings, instance)
    world.broken = {days[7], days[18]}
    for _ in range(6):  # 24 days are halved five times
        world.tick()
    assert world.behind() == world.broken
    assert [one for one in world.tick() if one.first < NOW.date()] == [Days(days[7], days[7]), Days(days[18], days[18])]
    late = progression("bob", str(days[8]), 5)
    land_events(settings, [late], "late")  # beside one that always fails
    world.tick()
    world.tick()
    assert world.behind() == world.broken
    world.broken = set()
    world.tick()
    assert world.behind() == set()


def test_more_failing_days_than_a_tick_has_runs_starve_nobody(settings: Settings, instance: dg.DagsterInstance) -> None:
    apart = [FIRST + timedelta(days=20 * n) for n in range(RUNS_AT_ONCE + 5)]  # too far apart to be one run
    land_events(settings, [progression("ann", str(day), 10) for day in apart])
    world = World(settings, instance)
    world.broken = set(apart)
    for _ in range(3):
        world.tick()
    new, today = FIRST + timedelta(days=10 * 20 + 10), NOW.date()
    land_events(settings, [progression("ann", str(day), 10) for day in (new, today)], "new")
    assert Days(today, today) in world.tick()
    world.tick()
    assert world.behind() == world.broken


def test_what_runs_is_not_asked_for_again_and_leaves_room_for_today(settings: Settings, instance: dg.DagsterInstance) -> None:
    days = history(settings, 30)
    world = World(settings, instance)
    world.book(Days(days[0], days[9]), dg.DagsterRunStatus.STARTED)
    today = str(NOW.date())
    assert requested(settings, instance, NOW) == [today, f"{days[10]} to {days[-1]}"]
    for _ in range(RUNS_AT_ONCE):
        world.book(Days(days[0], days[0]), dg.DagsterRunStatus.STARTING)
    assert requested(settings, instance, NOW) == [today]


def test_an_outage_of_redis_does_not_cut_a_range_into_days(redis_settings: Settings, instance: dg.DagsterInstance) -> None:
    days = history(redis_settings, 4)
    away = redis_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    job = build_definitions({"settings": away}).resolve_job_def(DAY_JOB)
    tags = dict(zip(RANGE, map(str, (days[0], days[-1])), strict=True))
    assert not job.execute_in_process(tags=tags, instance=instance, raise_on_error=False).success
    assert requested(redis_settings, instance, datetime.now(UTC))[1:] == [f"{days[0]} to {days[-1]}"]


def test_a_day_that_lost_events_is_asked_for_once_the_loss_is_accepted(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    days = history(settings, 5)
    land_events(settings, [progression("bob", str(days[2]), 5)], "more")
    with DuckDBEngine(settings) as engine:
        file = engine.lake.of(EVENTS, {"event_date": days[2]})[0]
        set_aside(engine.lake, EVENTS, file, "was changed by this test")
    today = str(NOW.date())
    assert requested(settings, instance, NOW) == [today, f"{days[0]} to {days[1]}", f"{days[3]} to {days[4]}"]
    with DuckDBEngine(settings) as engine:
        assert accept(engine.lake, days[2])
    assert requested(settings, instance, NOW) == [today, f"{days[0]} to {days[-1]}"]


Step = Callable[[random.Random, Settings], Settings]


def _land(chance: random.Random, settings: Settings) -> Settings:
    """Events of some players on some days around the end of a month."""
    events = [_event(chance) for _ in range(chance.randrange(1, 12))]
    land_events(settings, events, f"file-{chance.random()}")
    return settings


def _event(chance: random.Random) -> dict[str, Any]:
    day, player, eid = str(FIRST + timedelta(days=chance.randrange(20, 70))), chance.choice("abcde"), f"{chance.random()}"
    if chance.random() < 0.2:
        return boss_kill(player, day, eventId=eid)
    return progression(player, day, chance.randrange(-20, 400), eventId=eid)


def _compute_a_part(chance: random.Random, settings: Settings) -> Settings:
    first = FIRST + timedelta(days=chance.randrange(20, 70))
    tables = [name for name in FOLDS if chance.random() < 0.6]
    compute(settings, Days(first, first + timedelta(days=chance.randrange(0, 25))), tables)
    return settings


def _change_the_curve(chance: random.Random, settings: Settings) -> Settings:
    path = settings.data_dir / "levels.csv"
    path.write_text((DATA / "levels.csv").read_text().replace("2,100\n", f"2,{chance.randrange(50, 300)}\n"))
    return settings.model_copy(update={"levels_file": path})


@pytest.mark.parametrize("seed", range(5))
def test_whatever_was_computed_by_parts_the_schedule_ends_with_what_a_fresh_computation_gives(
    settings: Settings, instance: dg.DagsterInstance, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    settings.data_dir.mkdir(parents=True)
    land_events(settings, [])
    steps: list[Step] = [_land, _land, _compute_a_part, _compute_a_part, _change_the_curve]
    for step in [_land, *chance.choices(steps, k=8)]:
        settings = step(chance, settings)
    world, ticks = World(settings, instance), 0
    while world.behind():
        world.tick()
        ticks += 1
        assert ticks <= 2
    again = settings.model_copy(update={"data_dir": tmp_path / "again"})
    with DuckDBEngine(settings) as engine, DuckDBEngine(again) as other:
        for keys in engine.lake.partitions(EVENTS):
            for number, file in enumerate(engine.lake.of(EVENTS, keys)):
                engine.bind_files(EVENTS, [file], "one_file")
                rows = engine.query("SELECT * EXCLUDE (event_date) FROM one_file").read_all()
                other.lake.write(EVENTS, rows, keys, f"copied-{number}")
    compute(again, Days(FIRST, date(2023, 4, 30)))
    with DuckDBEngine(settings) as engine, DuckDBEngine(again) as other:
        engine.bind_all()
        other.bind_all()
        for name in FOLDS:
            sql = f"SELECT * FROM {name} ORDER BY ALL"
            assert engine.query(sql).read_all().equals(other.query(sql).read_all()), name
