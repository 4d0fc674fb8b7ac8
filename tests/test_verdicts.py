"""A verdict moves the boards, both ways: in the lake, in Redis and in the database, from whichever process records it."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
from conftest import Fairboard, land_events, progression
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines import verdicts as dagster_verdicts
from pipelines.definitions import build_definitions
from tests.lake_fixtures import contents
from warehouse import verdicts
from warehouse.boards import read_board
from warehouse.calendar import Days, WindowKind
from warehouse.database import open_database, reading
from warehouse.embedded_redis import EmbeddedRedis, connect
from warehouse.enforcement import enforce
from warehouse.engine import DuckDBEngine
from warehouse.folds import fold
from warehouse.readings import leaderboard
from warehouse.settings import Settings
from warehouse.verdicts import Decision

FIRST, SECOND, THIRD = "2026-05-01", "2026-05-02", "2026-05-03"
MAY = Days(date(2026, 5, 1), date(2026, 5, 31))
SECOND_OF_MAY = 1_777_723_200.0

GAME = [
    progression("ann", FIRST, 30),
    progression("bob", FIRST, 20),
    progression("cid", FIRST, 10),
    progression("ann", SECOND, 3),
    progression("bob", SECOND, 2),
    progression("cid", THIRD, 1),
]


@pytest.fixture
def game(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three days of three players, folded; commands find its Redis."""
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    land_events(redis_settings, [dict(event) for event in GAME])
    materialize(redis_settings)
    return redis_settings


def materialize(settings: Settings, days: Days = MAY) -> None:
    with DuckDBEngine(settings) as engine:
        for name in ("player_days", "leaderboards"):
            fold(engine, name, days)


def exclude(settings: Settings, player: str, first: str, until: str | None = None) -> int:
    """As a process that dies right after it has recorded a verdict."""
    with open_database(settings).begin() as connection:
        return verdicts.record(
            connection,
            player_id=player,
            decision=Decision.CONFIRMED,
            decided_by="judge",
            reason="a reason",
            excluded_from=date.fromisoformat(first),
            excluded_until=date.fromisoformat(until) if until else None,
        )


def reverse(settings: Settings, number: int) -> None:
    with open_database(settings).begin() as connection:
        verdicts.reverse(connection, number, reversed_by="judge", reason="another reason")


def board(settings: Settings, kind: str, day: str | None = None) -> list[tuple[int, str]]:
    with DuckDBEngine(settings) as engine:
        found = leaderboard(engine, WindowKind(kind), at=date.fromisoformat(day) if day else None).board
    return list(found.select("rank", "player_id").iter_rows())


def lake(settings: Settings) -> dict[str, bytes]:
    return {name: content for name, content in contents(settings).items() if name.startswith("leaderboards/")}


def test_the_command_line_moves_every_board_that_the_exclusion_touches_and_back(game: Settings, fairboard: Fairboard) -> None:
    before = lake(game)
    done = fairboard("verdict", "exclude", "ann", "--from", FIRST, "--until", SECOND, "--by", "eve", "--why", "speed hack")
    assert "verdict 1: ann is excluded from 2026-05-01 to 2026-05-02 (exclusive)" in done.stdout
    assert board(game, "daily", FIRST) == [(1, "bob"), (2, "cid")]
    assert board(game, "daily", SECOND) == [(1, "ann"), (2, "bob")]
    for kind in ("weekly", "seasonal", "alltime"):
        assert board(game, kind) == [(1, "bob"), (2, "cid")]
    running = read_board(connect(game), "lb:all:alltime")
    assert running is not None
    assert [(entry.rank, entry.player_id) for entry in running.entries] == [(1, "bob"), (2, "cid")]
    [verdict] = msgspec.json.decode(fairboard("verdict", "list", "--player", "ann", "--json").stdout)
    assert (verdict["decision"], verdict["decided_by"], verdict["reason"]) == ("confirmed", "eve", "speed hack")
    fairboard("verdict", "reverse", "1", "--by", "mel", "--why", "the log was wrong")
    assert lake(game) == before
    running = read_board(connect(game), "lb:all:alltime")
    assert running is not None
    assert [entry.player_id for entry in running.entries] == ["ann", "bob", "cid"]
    assert "by mel: the log was wrong" in fairboard("verdict", "list").stdout


def test_an_exclusion_for_good_holds_for_days_that_come_later(game: Settings) -> None:
    exclude(game, "ann", SECOND)
    enforce(game, SECOND_OF_MAY)
    land_events(game, [progression("ann", "2026-05-20", 500), progression("bob", "2026-05-20", 1)], name="later")
    materialize(game)
    assert board(game, "daily", "2026-05-20") == [(1, "bob")]
    assert board(game, "daily", FIRST) == [(1, "ann"), (2, "bob"), (3, "cid")]


def test_a_window_without_play_on_the_excluded_days_is_touched_all_the_same(game: Settings) -> None:
    """The week of 1 to 3 May is over on the 3rd, and nobody plays on the 4th; the season has both."""
    exclude(game, "ann", "2026-05-20", "2026-05-21")
    enforce(game, SECOND_OF_MAY)
    assert board(game, "weekly", FIRST)[0] == (1, "ann")
    assert board(game, "seasonal")[0] == (1, "bob")


def test_a_movement_is_counted_on_boards_of_the_same_exclusion(game: Settings) -> None:
    exclude(game, "ann", FIRST, SECOND)
    enforce(game, SECOND_OF_MAY)
    with DuckDBEngine(game) as engine:
        daily = leaderboard(engine, WindowKind.DAILY, at=date(2026, 5, 2)).board
        assert list(daily.select("player_id", "previous_rank").iter_rows()) == [("ann", None), ("bob", 1)]
        then = leaderboard(engine, WindowKind.SEASONAL, at=date(2026, 5, 2)).board
        assert list(then.select("player_id", "previous_rank").iter_rows()) == [("bob", 1), ("cid", 2)]


def test_of_two_exclusions_one_stays_when_the_other_is_reversed(game: Settings) -> None:
    first, second = exclude(game, "ann", FIRST, SECOND), exclude(game, "ann", FIRST)
    reverse(game, first)
    enforce(game, SECOND_OF_MAY)
    assert board(game, "daily", FIRST) == [(1, "bob"), (2, "cid")]
    reverse(game, second)
    enforce(game, SECOND_OF_MAY)
    assert board(game, "daily", FIRST) == [(1, "ann"), (2, "bob"), (3, "cid")]


def test_only_the_windows_touched_are_folded(game: Settings) -> None:
    exclude(game, "cid", THIRD, "2026-05-04")
    assert enforce(game, SECOND_OF_MAY).boards == 4  # the day, its week, the season, the all-time board
    assert enforce(game, SECOND_OF_MAY).verdicts == []


def test_dismissed_and_insufficient_exclude_nobody_and_leave_nothing_to_follow(game: Settings) -> None:
    with open_database(game).begin() as connection:
        for decision in (Decision.DISMISSED, Decision.INSUFFICIENT):
            verdicts.record(connection, player_id="ann", decision=decision, decided_by="judge", reason="lucky")
    assert enforce(game).verdicts == []
    assert board(game, "daily", FIRST)[0] == (1, "ann")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["exclude", "ann", "--from", SECOND, "--until", FIRST, "--by", "eve", "--why", "x"], "before it starts"),
        (["exclude", "ann", "--from", SECOND, "--until", SECOND, "--by", "eve", "--why", "x"], "before it starts"),
        (["exclude", "ann", "--from", SECOND, "--by", " ", "--why", "x"], "who decided and why"),
        (["reverse", "7", "--by", "eve", "--why", "x"], "There is no verdict 7"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_recorded(
    game: Settings, fairboard: Fairboard, arguments: list[str], sentence: str
) -> None:
    assert sentence in fairboard("verdict", *arguments, status=1).stderr
    with reading(game) as connection:
        assert verdicts.history(connection) == []


def test_a_verdict_is_reversed_once(game: Settings, fairboard: Fairboard) -> None:
    number = str(exclude(game, "ann", FIRST))
    fairboard("verdict", "reverse", number, "--by", "mel", "--why", "x")
    assert "reversed before, by mel" in fairboard("verdict", "reverse", number, "--by", "eve", "--why", "y", status=1).stderr


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def test_without_redis_the_verdict_is_kept_and_dagster_brings_the_boards(
    game: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", "redis://127.0.0.1:1/0")
    done = fairboard("verdict", "exclude", "ann", "--from", FIRST, "--by", "eve", "--why", "speed hack", status=1)
    assert "Recorded, and followed by the lake's boards: verdict 1." in done.stderr
    assert board(game, "alltime") == [(1, "bob"), (2, "cid")]
    assert not asked_for(game, instance)  # the process that recorded it may be at it
    monkeypatch.setattr(dagster_verdicts, "GRACE", timedelta())
    assert asked_for(game, instance)
    job = build_definitions({"settings": game}).resolve_job_def("verdicts")
    assert job.execute_in_process(instance=instance).success
    assert connect(game).zrevrange("lb:all:alltime", 0, -1) == ["bob", "cid"]
    assert not asked_for(game, instance)


def test_where_no_redis_ever_ran_there_is_none_to_follow(
    game: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRBOARD_REDIS_URL")
    command = ("verdict", "exclude", "ann", "--from", FIRST, "--by", "eve", "--why", "speed hack")
    done = fairboard(*command)
    assert "verdict 1: ann is excluded from 2026-05-01 for good\n" in done.stdout
    assert "boards changed, none of them published: no Redis has run here yet" in done.stdout
    assert board(game, "alltime") == [(1, "bob"), (2, "cid")]
    assert "every verdict" in fairboard("verdict", "enforce").stdout
    with EmbeddedRedis(Settings(data_dir=game.data_dir, _env_file=None)):
        pass
    refused = fairboard("verdict", "exclude", "cid", "--from", FIRST, "--by", "eve", "--why", "speed hack", status=1).stderr
    assert "Recorded, and followed by the lake's boards: verdict 2. The published boards do not follow yet" in refused
    assert "Nothing was changed" not in refused


def test_the_same_verdict_said_twice_is_recorded_once(game: Settings, fairboard: Fairboard) -> None:
    command = ("verdict", "exclude", "ann", "--from", FIRST, "--by", "eve", "--why", "speed hack")
    fairboard(*command)
    assert "verdict 1: ann is excluded from 2026-05-01 for good; that was recorded before" in fairboard(*command).stdout
    fairboard(*command[:-1], "another reason")
    fairboard("verdict", "reverse", "1", "--by", "mel", "--why", "wrong clock")
    assert "verdict 3: ann" in fairboard(*command).stdout
    verdicts = msgspec.json.decode(fairboard("verdict", "list", "--json").stdout)
    assert [verdict["id"] for verdict in verdicts] == [3, 2, 1]


def asked_for(settings: Settings, instance: dg.DagsterInstance) -> bool:
    """Whether a tick of the sensor asks for the job."""
    definitions = build_definitions({"settings": settings})
    with dg.build_sensor_context(
        instance=instance, resources={"settings": settings}, repository_def=definitions.get_repository_def()
    ) as context:
        return bool(definitions.resolve_sensor_def("verdicts").evaluate_tick(context).run_requests)


DAYS = [FIRST, SECOND, THIRD, "2026-05-05", "2026-06-01"]
PLAYERS = st.sampled_from(["ann", "bob", "cid"])
EVENTS = st.lists(st.builds(progression, PLAYERS, st.sampled_from(DAYS), st.integers(-50, 500)), min_size=1, max_size=20)
EXCLUSION = st.tuples(PLAYERS, st.dates(date(2026, 4, 25), date(2026, 6, 5)), st.none() | st.integers(1, 20), st.booleans())


@given(events=EVENTS, exclusions=st.lists(EXCLUSION, max_size=4))
@hypothesis_settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_boards_that_followed_step_by_step_are_those_of_one_fold_byte_for_byte(
    redis_settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    events: list[dict[str, Any]],
    exclusions: list[tuple[str, date, int | None, bool]],
) -> None:
    """Verdicts and reversals, each followed by itself, against one fold of everything with the same verdicts in force."""
    folder, whole = tmp_path_factory.mktemp("verdicts"), Days(date(2026, 4, 1), date(2026, 6, 30))
    stepwise, at_once = (redis_settings.model_copy(update={"data_dir": folder / name}) for name in ("steps", "once"))
    for settings in (stepwise, at_once):
        land_events(settings, [event | {"eventId": f"e{n}"} for n, event in enumerate(events)])
    materialize(stepwise, whole)
    for player, first, length, taken_back in exclusions:
        until = str(first + timedelta(days=length)) if length else None
        number = exclude(stepwise, player, str(first), until)
        enforce(stepwise, SECOND_OF_MAY)
        if taken_back:
            reverse(stepwise, number)
            enforce(stepwise, SECOND_OF_MAY)
        else:
            exclude(at_once, player, str(first), until)
    materialize(at_once, whole)
    assert lake(stepwise) == lake(at_once)
