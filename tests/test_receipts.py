"""Receipts: once per player, level and reward, forever, whatever is run again, late or corrected."""

from datetime import date
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from closed_week import FIRST, SECOND, THIRD, Week
from conftest import Fairboard, progression

from warehouse.database import RECEIPTS, open_database
from warehouse.settings import Settings


@pytest.fixture
def week(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch, fairboard: Fairboard, tmp_path: Path) -> Week:
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    return Week(fairboard, tmp_path)


def receipts(settings: Settings) -> list[tuple[str, int, date]]:
    query = sa.select(RECEIPTS.c.player_id, RECEIPTS.c.level, RECEIPTS.c.earned_on).order_by(RECEIPTS.c.level)
    with open_database(settings).connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def level(week: Week) -> tuple[int, int]:
    now = msgspec.json.decode(week.fairboard("player", "ann", "--json").stdout)["now"]
    return now["xp_total"], now["level_after"]


def test_a_correction_moves_xp_and_level_down_and_takes_no_receipt_back(week: Week, redis_settings: Settings) -> None:
    week.brings(progression("ann", FIRST, 120))
    week.computes()
    assert (level(week), receipts(redis_settings)) == ((120, 2), [("ann", 2, date(2026, 5, 4))])
    week.brings(progression("ann", SECOND, -100))
    week.computes(SECOND, SECOND)
    assert (level(week), receipts(redis_settings)) == ((20, 1), [("ann", 2, date(2026, 5, 4))])
    week.brings(progression("ann", THIRD, 200))
    week.computes(THIRD, THIRD)
    assert (level(week), receipts(redis_settings)) == ((220, 2), [("ann", 2, date(2026, 5, 4))])


def test_xp_that_comes_late_to_one_day_grants_the_level_that_it_lets_another_pass(week: Week, redis_settings: Settings) -> None:
    week.brings(progression("ann", FIRST, 10), progression("ann", THIRD, 60))
    week.computes()
    assert receipts(redis_settings) == []
    week.brings(progression("ann", FIRST, 50))
    week.computes(FIRST, FIRST)
    assert receipts(redis_settings) == [("ann", 2, date(2026, 5, 6))]


@pytest.mark.parametrize("order", [(FIRST, SECOND, THIRD), (THIRD, SECOND, FIRST), (SECOND, FIRST, THIRD, SECOND)])
def test_days_in_any_order_grant_the_same_levels(week: Week, redis_settings: Settings, order: tuple[str, ...]) -> None:
    week.brings(progression("ann", FIRST, 90), progression("ann", SECOND, 20), progression("ann", THIRD, 2_000))
    for day in order:
        week.computes(day, day)
    assert [(player, level) for player, level, _ in receipts(redis_settings)] == [("ann", 2), ("ann", 5)]
