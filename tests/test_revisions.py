"""Closed boards: a revision for every change of ranks or XP, with its causes, and none without one."""

import time
from datetime import date
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from closed_week import FIRST, GAME, SECOND, THIRD, Week, publisher, receipts_of
from conftest import Fairboard, at, land_events, progression

from tests.lake_fixtures import paths_of
from warehouse.calendar import Calendar, Days, WindowKind
from warehouse.damage import Damage, verify
from warehouse.database import LEADERBOARD_SNAPSHOTS, RECEIPTS, open_database
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake
from warehouse.publications import Outlets, publish
from warehouse.settings import Settings
from warehouse.tables import LEADERBOARD_REVISIONS


@pytest.fixture
def deployment(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    return redis_settings


@pytest.fixture
def week(deployment: Settings, fairboard: Fairboard, tmp_path: Path) -> Week:
    week = Week(fairboard, tmp_path)
    week.brings(*GAME)
    week.computes()
    return week


def test_publishing_again_makes_no_revision(week: Week) -> None:
    week.computes()
    assert week.causes() == week.causes("daily") == week.causes("seasonal") == ["first publication"]


def test_late_events_a_verdict_and_its_reversal_each_make_a_revision_that_says_who_moved_and_why(week: Week) -> None:
    week.brings(progression("bob", FIRST, 25, eventId="late"), progression("bob", FIRST, 20, eventId="b1"))
    week.computes()
    week.fairboard("verdict", "exclude", "bob", "--from", FIRST, "--until", SECOND, "--by", "eve", "--why", "speed hack")
    week.fairboard("verdict", "reverse", "1", "--by", "eve", "--why", "a mistake")
    assert week.causes() == ["first publication", "late events", "verdict 1", "verdict 1 reversed"]
    assert week.diff(2) == [("bob", 2, 20, 1, 45, ["late"], None), ("ann", 1, 30, 2, 30, None, None)]
    assert week.diff(3) == [
        ("bob", 1, 45, None, None, [], 1),
        ("ann", 2, 30, 1, 30, None, None),
        ("cid", 3, 10, 2, 10, None, None),
    ]
    assert week.diff(4)[0] == ("bob", None, None, 1, 45, [], 1)
    newest = week.revisions()["revisions"][0]
    assert (newest["players"], newest["moved"], newest["watermark"]) == (3, 3, 1_777_982_400)
    shown = week.fairboard("revisions", "--window", "weekly", "--diff", "2").stdout
    assert "Revisions of the weekly window of 2026-05-04" in shown
    assert "late" in shown


def test_a_correction_is_a_late_event_and_new_players_come_from_nowhere(week: Week) -> None:
    week.brings(progression("ann", SECOND, -29, eventId="correction"), progression("new", SECOND, 1, eventId="n1"))
    week.computes(SECOND, SECOND)
    assert week.diff(2) == [
        ("ann", 1, 30, 3, 1, ["correction"], None),
        ("new", None, None, 4, 1, ["n1"], None),
        ("bob", 2, 20, 1, 20, None, None),
        ("cid", 3, 10, 2, 10, None, None),
    ]


def test_late_events_of_two_days_are_told_apart_when_the_days_are_folded_one_by_one(week: Week) -> None:
    week.brings(progression("cid", FIRST, 5, eventId="late-1"), progression("cid", SECOND, 50, eventId="late-2"))
    week.computes(FIRST, FIRST)
    week.computes(SECOND, SECOND)
    assert week.diff(2) == [("cid", 3, 10, 3, 15, ["late-1"], None)]
    assert week.diff(3)[0] == ("cid", 3, 15, 1, 65, ["late-2"], None)


def test_at_most_ten_late_events_are_named_for_a_player(week: Week) -> None:
    week.brings(*(progression("ann", FIRST, 1, f"13:00:{n:02}", eventId=f"late-{n:02}") for n in range(15)))
    week.computes()
    assert week.diff(2) == [("ann", 1, 30, 1, 45, [f"late-{n:02}" for n in range(14, 4, -1)], None)]


def test_an_event_sent_late_is_told_from_one_in_a_file_made_anew(week: Week, deployment: Settings) -> None:
    """As compaction does: one file with what was there and what came since."""
    now = time.time_ns() // 1_000_000
    sent = [
        progression("ann", THIRD, 7, eventId="on-time"),
        progression("ann", THIRD, 1, eventId="late") | {"received_ms": now},
    ]
    land_events(deployment, [dict(sent[0])])
    week.computes()
    land_events(deployment, [dict(event) for event in sent])
    week.computes()
    assert week.diff(3) == [("ann", 1, 37, 1, 38, ["late"], None)]


@pytest.mark.parametrize("order", [(FIRST, SECOND, THIRD), (THIRD, FIRST, SECOND), (SECOND, THIRD, FIRST)])
def test_a_backfill_in_any_order_makes_one_revision(
    deployment: Settings, fairboard: Fairboard, tmp_path: Path, order: tuple[str, ...]
) -> None:
    week = Week(fairboard, tmp_path)
    week.brings(*GAME, progression("ann", THIRD, 1))
    for day in order:
        week.computes(day, day)
    assert week.causes() == week.causes("seasonal") == ["first publication"]
    assert week.revisions()["revisions"][0]["players"] == 3


def test_a_running_window_has_no_revision_and_gets_its_first_when_it_has_closed(deployment: Settings) -> None:
    land_events(deployment, [dict(event) for event in GAME])
    days = Days.parse(FIRST, SECOND)
    recorded = []
    for now in (at(SECOND), at("2026-05-11", "00:00:00")):
        with DuckDBEngine(deployment) as engine:
            for name in FOLDS:
                fold(engine, name, days)
            publish(engine, Outlets(deployment, now), "leaderboard_snapshots", days)
            recorded.append([keys["window_kind"] for keys in engine.lake.partitions(LEADERBOARD_REVISIONS)])
    assert recorded == [["daily"], ["daily", "daily", "weekly"]]


def test_snapshots_follow_the_newest_revision(week: Week, deployment: Settings) -> None:
    week.brings(progression("bob", FIRST, 25, eventId="late"))
    week.computes(FIRST, FIRST)
    table = LEADERBOARD_SNAPSHOTS.c
    query = sa.select(table.rank, table.player_id, table.xp).where(table.window_kind == "weekly").order_by(table.rank)
    with open_database(deployment).connect() as connection:
        snapshot = [tuple(row) for row in connection.execute(query)]
    paths = paths_of(deployment, LEADERBOARD_REVISIONS)
    [second] = (path for path in paths if "window_kind=weekly" in str(path) and path.parent.name == "revision=2")
    newest = pl.read_parquet(second, hive_partitioning=False)
    assert snapshot == list(newest.iter_rows()) == [(1, "bob", 45), (2, "ann", 30), (3, "cid", 10)]


def test_what_a_killed_publisher_left_of_a_revision_is_written_over(week: Week, deployment: Settings) -> None:
    lake = Lake(deployment)
    window = Calendar.of(deployment).window_at(WindowKind.WEEKLY, date.fromisoformat(FIRST))
    rubbish = pl.DataFrame({"rank": [1], "player_id": ["nobody"], "xp": [1]}).to_arrow(compat_level=pl.CompatLevel.oldest())
    lake.write(LEADERBOARD_REVISIONS, rubbish, {**window.partition, "revision": "2"})
    assert week.causes() == ["first publication"]
    week.brings(progression("bob", FIRST, 25, eventId="late"))
    week.computes()
    assert week.diff(2)[0] == ("bob", 2, 20, 1, 45, ["late"], None)
    assert [found for found in verify(lake) if isinstance(found, Damage)] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--window", "weekly", "--at", FIRST, "--diff", "1"], "nothing before it to compare"),
        (["--window", "weekly", "--at", FIRST, "--diff", "2"], "has no revision 2"),
        (["--window", "alltime"], "No closed alltime window has been published"),
        (["--window", "weekly", "--season", "2026-04", "--at", FIRST], "is not in season 2026-04"),
    ],
)
def test_what_has_no_answer_is_a_sentence(week: Week, arguments: list[str], sentence: str) -> None:
    assert sentence in week.fairboard("revisions", *arguments, status=1).stderr


def test_two_publishers_at_once_record_one_revision_and_grant_each_receipt_once(week: Week, deployment: Settings) -> None:
    week.brings(*(progression(f"p{n}", FIRST, 120, eventId=f"late-{n}") for n in range(200)))
    week.fairboard("materialize", "--from", FIRST, "--to", THIRD)
    publishers = [publisher(deployment, FIRST, THIRD) for _ in range(2)]
    granted = [receipts_of(process) for process in publishers]
    assert sum(granted) == 200
    assert week.causes() == week.causes("daily") == ["first publication", "late events"]
    with open_database(deployment).connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(RECEIPTS)) == 200
