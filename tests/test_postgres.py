"""The SQL database of production: everything that writes to it does so on a real PostgreSQL too."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

from pathlib import Path

import pytest
import sqlalchemy as sa
from closed_week import FIRST, GAME, SECOND, THIRD, Week, publisher, receipts_of
from conftest import Fairboard, progression
from postgres_fixtures import postgres_url

from warehouse.database import LEADERBOARD_SNAPSHOTS, PLAYER_PROGRESS, RECEIPTS, SUSPICIOUS_EVENTS, open_database
from warehouse.settings import Settings


@pytest.fixture
def deployment(postgres_url: str, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    with sa.create_engine(postgres_url).begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    monkeypatch.setenv("FAIRBOARD_DATABASE_URL", postgres_url)
    return redis_settings.model_copy(update={"database_url": postgres_url})


@pytest.fixture
def week(deployment: Settings, fairboard: Fairboard, tmp_path: Path) -> Week:
    week = Week(fairboard, tmp_path)
    week.brings(*GAME, *(progression("cid", SECOND, 10 + n % 3, f"10:{n:02}:00", eventId=f"c-{n}") for n in range(20)))
    week.brings(progression("cid", THIRD, 10_000, eventId="odd"))
    week.computes()
    return week


def count(settings: Settings, table: sa.Table) -> int:
    with open_database(settings).connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_every_table_is_written_and_written_again(week: Week, deployment: Settings) -> None:
    tables = (LEADERBOARD_SNAPSHOTS, PLAYER_PROGRESS, RECEIPTS, SUSPICIOUS_EVENTS)
    before = {table.name: count(deployment, table) for table in tables}
    assert all(before.values()), before
    week.computes()
    assert {table.name: count(deployment, table) for table in tables} == before


def test_verdicts_and_revisions(week: Week, fairboard: Fairboard) -> None:
    week.brings(progression("bob", FIRST, 50, eventId="late"))
    week.computes()
    fairboard("verdict", "exclude", "bob", "--from", FIRST, "--until", SECOND, "--by", "eve", "--why", "speed hack")
    fairboard("verdict", "reverse", "1", "--by", "eve", "--why", "a mistake")
    assert week.causes() == ["first publication", "late events", "verdict 1", "verdict 1 reversed"]
    assert week.diff(2)[0] == ("bob", 3, 20, 2, 70, ["late"], None)
    assert week.diff(4)[0] == ("bob", None, None, 2, 70, [], 1)


def test_two_publishers_at_once_grant_each_receipt_once(week: Week, deployment: Settings) -> None:
    granted = count(deployment, RECEIPTS)
    week.brings(*(progression(f"p{n}", FIRST, 120, eventId=f"late-{n}") for n in range(200)))
    week.fairboard("materialize", "--from", FIRST, "--to", THIRD)
    publishers = [publisher(deployment, FIRST, FIRST) for _ in range(2)]
    assert sum(map(receipts_of, publishers)) == 200
    assert count(deployment, RECEIPTS) == granted + 200
