"""The folds: what the tables say of a few events (golden rows of each model: test_models.py; any order: test_backfill.py)."""

from datetime import date
from typing import Any

import pytest
from conftest import Land, boss_kill, progression

from warehouse.calendar import Days, WindowKind
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, Folded, fold, stale_days
from warehouse.readings import leaderboard
from warehouse.settings import Settings

FIRST, SECOND, THIRD = "2026-05-01", "2026-05-02", "2026-05-03"
MAY = Days(date(2026, 5, 1), date(2026, 5, 31))


def materialize(settings: Settings, *days: str) -> dict[str, Folded]:
    """Every fold over the days, each day in a run of its own; without days, May in one."""
    ranges = [Days.parse(day, day) for day in days] or [MAY]
    with DuckDBEngine(settings) as engine:
        return {name: fold(engine, name, range_) for range_ in ranges for name in FOLDS}


def ask(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with DuckDBEngine(settings) as engine:
        engine.bind_all()
        return engine.connection.sql(sql).fetchall()


def test_golden_rows_of_player_days(settings: Settings, land: Land) -> None:
    land(
        [
            progression("ann", FIRST, 100, "10:00:00"),
            progression("ann", FIRST, -30, "10:00:59"),
            progression("ann", FIRST, 0, "11:00:00"),
            boss_kill("ann", FIRST, "12:00:00"),
            boss_kill("bob", FIRST, "09:00:00", payload={"deltaXp": 999, "activity": "raid"}),
        ]
    )
    materialize(settings)
    columns = "player_id, events, active_minutes, xp, xp_events, xp_sum, xp_sum_sq, gain_events, log_sum_e6, boss_kills, drops"
    assert ask(settings, f"SELECT {columns} FROM player_days ORDER BY player_id") == [
        ("ann", 4, 3, 70, 3, 70, 10_900, 1, 4_605_170, 1, 0),
        ("bob", 1, 1, 0, 0, 0, 0, 0, 0, 1, 0),  # only progression's deltaXp moves XP
    ]
    # The zero event at 11:00 does not move XP: the total stands since 10:00:59.
    assert ask(settings, "SELECT xp_changed_ts % 86400 FROM player_days ORDER BY player_id") == [(36_059,), (None,)]


def test_golden_rows_of_progression_with_a_correction_that_takes_a_level(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 99), progression("ann", SECOND, 1), progression("ann", THIRD, -50)])
    materialize(settings)
    assert ask(settings, "SELECT xp_gained, xp_total, level_before, level_after, level_ups, xp_to_next FROM progression") == [
        (99, 99, 1, 1, 0, 1),
        (1, 100, 1, 2, 1, 250),
        (-50, 50, 2, 1, -1, 50),
    ]


def test_equal_xp_is_ordered_by_who_reached_it_first_then_by_player_id(settings: Settings, land: Land) -> None:
    land(
        [
            progression("late", FIRST, 10, "12:00:01"),
            progression("zed", FIRST, 10, "12:00:00"),
            progression("abe", FIRST, 10, "12:00:00"),
            progression("best", FIRST, 11, "23:00:00"),
        ]
    )
    materialize(settings)
    daily = ask(settings, "SELECT rank, player_id FROM leaderboards WHERE window_kind = 'daily' ORDER BY rank")
    assert daily == [(1, "best"), (2, "abe"), (3, "zed"), (4, "late")]


def test_movement_looks_back_at_the_day_before(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 10), progression("bob", FIRST, 20), progression("ann", SECOND, 15)])
    materialize(settings)
    season = ask(settings, "SELECT player_id, previous_rank, movement FROM leaderboards WHERE window_kind = 'seasonal'")
    assert season == [("ann", 2, 1), ("bob", 1, -1)]
    daily = "SELECT player_id, previous_rank FROM leaderboards WHERE window_kind = 'daily' ORDER BY window_start, rank"
    assert ask(settings, daily) == [("bob", None), ("ann", None), ("ann", 2)]


def test_a_board_as_it_stood_is_the_board_that_was(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 10), progression("bob", SECOND, 20)])
    materialize(settings, FIRST)
    with DuckDBEngine(settings) as engine:
        then = leaderboard(engine, WindowKind.SEASONAL).board
        fold(engine, "player_days", MAY)
        fold(engine, "leaderboards", MAY)
        assert leaderboard(engine, WindowKind.SEASONAL).board.height == 2
        assert leaderboard(engine, WindowKind.SEASONAL, at=date(2026, 5, 1)).board.equals(then.head(1))


def test_a_copy_counts_once_and_other_content_under_its_id_goes_to_rejects(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 10, eventId="e1"), progression("ann", FIRST, 5, eventId="e2")])
    land([progression("ann", FIRST, 10, eventId="e1")], name="copy")
    other = progression("ann", FIRST, 999, eventId="e2")
    land([other | {"received_ms": other["ts"] * 1000 + 1}], name="other")
    done = materialize(settings)
    counts = {"landed": 4, "events": 2, "duplicates": 1, "conflicts": 1, "rejected": 0, "set_aside": 0}
    assert done["events"].details == counts
    assert materialize(settings)["events"].details == counts
    assert ask(settings, "SELECT sum(xp) FROM player_days") == [(15,)]
    [(event_id, reason, body)] = ask(settings, "SELECT event_id, reason, body FROM rejects")
    assert event_id == "e2"
    assert "the first stays" in reason
    assert '"delta_xp":999' in body


def test_a_copy_whose_unknown_fields_differ_is_a_copy(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 10, eventId="e1", build="1.0")])
    land([progression("ann", FIRST, 10, eventId="e1", build="1.1")], name="copy")
    assert materialize(settings)["events"].details["duplicates"] == 1
    assert ask(settings, "SELECT count(*) FROM rejects") == [(0,)]


def test_ten_equal_drops_in_a_second_are_ten_drops(settings: Settings, land: Land) -> None:
    land([{"type": "drop_claimed", "playerId": "ann", "ts": 1777636800, "payload": {"itemId": "hide"}} for _ in range(10)])
    materialize(settings)
    assert ask(settings, "SELECT drops FROM player_days") == [(10,)]


def test_two_absurd_events_saturate_and_leave_the_day_of_everyone_else_alone(settings: Settings, land: Land) -> None:
    land(
        [
            progression("whale", FIRST, 2**63 - 1),
            progression("whale", FIRST, 2**63 - 1, "13:00:00"),
            progression("ann", FIRST, 7),
        ]
    )
    land([progression("whale", SECOND, 2**63 - 1)], name="more")
    materialize(settings)
    assert ask(settings, "SELECT player_id, xp_total FROM progression ORDER BY event_date, player_id") == [
        ("ann", 7),
        ("whale", 2**63 - 1),
        ("whale", 2**63 - 1),
    ]


def test_the_classic_rule_is_the_textbook_z_score(settings: Settings, land: Land) -> None:
    history = [10, 12, 9, 11, 10, 13, 8, 11, 10, 12]
    land([progression("ann", FIRST, xp, f"10:{n:02}:00") for n, xp in enumerate(history)], name="before")
    land([progression("ann", SECOND, 40, eventId="odd"), progression("ann", SECOND, 11, eventId="usual")], name="day")
    land([progression("new", SECOND, 1_000_000)], name="new")
    materialize(settings)
    mean = sum(history) / 10
    sd = (sum((x - mean) ** 2 for x in history) / 9) ** 0.5
    columns = "player_id, verdict, tests, observed, z, baseline_center, baseline_spread, baseline_n, evidence"
    rows = ask(settings, f"SELECT {columns} FROM fairness WHERE rule = 'self' AND event_date = '2026-05-02' ORDER BY player_id")
    ann, new = rows
    assert ann[:4] == ("ann", "flagged", 2, 40)
    assert ann[4:8] == (pytest.approx((40 - mean) / sd), pytest.approx(mean), pytest.approx(sd), 10)
    assert ann[-1] == ["odd"]
    assert new[:4] == ("new", "insufficient data", 1, 1_000_000)


def test_days_without_events_leave_nothing(settings: Settings) -> None:
    assert all(done.rows == 0 and done.partitions == 0 for done in materialize(settings).values())
    assert ask(settings, "SELECT count(*) FROM leaderboards") == [(0,)]


def test_a_late_event_makes_its_day_stale_and_only_that(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 10), progression("ann", THIRD, 10)])
    materialize(settings)
    with DuckDBEngine(settings) as engine:
        assert stale_days(engine) == []
        land([progression("bob", FIRST, 500)], name="late")
        assert stale_days(engine) == []  # the snapshot is as it was
        engine.lake.refresh()
        assert stale_days(engine) == [date(2026, 5, 1)]
    materialize(settings, FIRST)
    assert ask(settings, "SELECT player_id, xp FROM leaderboards WHERE window_kind = 'alltime' ORDER BY rank") == [
        ("bob", 500),
        ("ann", 20),
    ]
