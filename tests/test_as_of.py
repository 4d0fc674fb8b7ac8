"""`--as-of`: boards and SQL over the lake as it was, while that is kept."""

import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from conftest import Fairboard, land_events, progression

from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.lake import housekeeping
from warehouse.settings import Settings

DAY = "2026-05-01"


def compute(settings: Settings) -> None:
    with DuckDBEngine(settings) as engine:
        for table in FOLDS:
            fold(engine, table, Days.parse(DAY, DAY))


@pytest.fixture
def before(settings: Settings) -> datetime:
    """When `ann` led; now `bob` does."""
    land_events(settings, [progression("ann", DAY, 10), progression("bob", DAY, 5)], "first")
    compute(settings)
    moment = datetime.now(UTC) + timedelta(milliseconds=2)
    time.sleep(0.01)
    land_events(settings, [progression("bob", DAY, 20)], "late")
    compute(settings)
    return moment


def leader(fairboard: Fairboard, *options: str) -> str:
    shown = msgspec.json.decode(fairboard("leaderboard", "--window", "alltime", "--json", *options).stdout)
    return str(shown["entries"][0]["playerId"])


def clock(moment: datetime) -> str:
    return moment.isoformat()


def test_a_board_is_shown_as_it_was(before: datetime, fairboard: Fairboard) -> None:
    assert leader(fairboard) == "bob"
    assert leader(fairboard, "--as-of", clock(before)) == "ann"


def test_sql_is_asked_of_the_lake_as_it_was(before: datetime, fairboard: Fairboard) -> None:
    statement = "SELECT (SELECT count(*) FROM events) AS events, (SELECT max(xp_total) FROM progression) AS best"

    def answer(*options: str) -> object:
        return msgspec.json.decode(fairboard("sql", statement, "--json", *options).stdout)

    assert answer() == [{"events": 3, "best": 25}]
    assert answer("--as-of", clock(before)) == [{"events": 2, "best": 10}]


def test_what_is_not_kept_any_more_is_said_with_how_far_back_it_goes(
    before: datetime, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        later = time.time() + 16 * 60
        patched.setattr(housekeeping.time, "time", lambda: later)
        fairboard("vacuum")
    assert leader(fairboard) == "bob"
    said = fairboard("leaderboard", "--window", "alltime", "--as-of", clock(before), status=1).stderr
    assert "is not kept as it was at" in said
    assert f"it goes back to {before.date()}" in said
    assert "FAIRBOARD_SNAPSHOT_MINUTES (15)" in said
    assert leader(fairboard, "--as-of", clock(datetime.now(UTC))) == "bob"


def test_a_time_ahead_and_a_time_before_there_was_a_lake_are_said(before: datetime, fairboard: Fairboard) -> None:
    ahead = fairboard("sql", "SELECT 1", "--as-of", clock(datetime.now(UTC) + timedelta(hours=1)), status=1).stderr
    assert "lies ahead; nothing was read" in ahead
    nothing = fairboard("leaderboard", "--window", "alltime", "--as-of", "2020-01-01T00:00", status=1).stderr
    assert "There is no such board yet" in nothing


def test_a_vacuum_spares_what_somebody_reads_as_it_was(
    before: datetime, settings: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "HASTE_S", 0)
    with DuckDBEngine(settings, at=before) as engine:
        engine.bind_all()
        later = time.time() + 16 * 60
        monkeypatch.setattr(housekeeping.time, "time", lambda: later)
        fairboard("vacuum")
        rows = engine.query("SELECT player_id FROM leaderboards WHERE window_kind = 'alltime' ORDER BY rank").read_all()
    assert rows["player_id"].to_pylist() == ["ann", "bob"]
