"""A damaged file of a derived table is computed again by the next run that meets it; one of events is set aside and said."""

from datetime import date
from pathlib import Path

import pytest
from conftest import boss_kill, land_events, progression

from tests.lake_fixtures import contents, damages, flip, game, paths_of
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.settings import Settings
from warehouse.tables import TABLES

FIRST, LATER = "2024-05-01", "2024-06-02"  # a day of June closes May
ALL = Days.parse(FIRST, LATER)
DERIVED = [name for name in FOLDS if name != "events"]


@pytest.fixture
def folded(settings: Settings) -> Settings:
    crown = boss_kill("ann", FIRST) | {"type": "drop_claimed", "payload": {"bossId": "lich_king", "itemId": "crown"}}
    land_events(settings, [*game(), crown, progression("ann", LATER, 4)])
    folds(settings, ALL)
    return settings


def folds(settings: Settings, days: Days, *names: str) -> None:
    with DuckDBEngine(settings) as engine:
        for name in names or FOLDS:
            fold(engine, name, days)


@pytest.mark.parametrize("table", DERIVED)
@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["a flipped bit", "missing"])
def test_folding_again_mends_every_file_of_a_table(folded: Settings, table: str, damage: object) -> None:
    before = contents(folded)
    for path in paths_of(folded, TABLES[table]):
        damage(path)  # type: ignore[operator]
    assert damages(folded)
    folds(folded, ALL, table)
    assert damages(folded) == []
    assert contents(folded) == before


@pytest.mark.parametrize(
    ("damaged", "reader"),
    [
        ("player_days", "leaderboards"),
        ("player_days", "fairness"),
        ("player_months", "progression"),
        ("player_months", "leaderboards"),
        ("progression", "daily_metrics"),
        ("activity_days", "daily_metrics"),
        ("player_boss_days", "fairness"),
    ],
)
def test_a_run_that_meets_a_damaged_file_computes_it_again_first(folded: Settings, damaged: str, reader: str) -> None:
    before = contents(folded)
    for path in paths_of(folded, TABLES[damaged]):
        flip(path)
    folds(folded, Days(date(2024, 6, 2), date(2024, 6, 2)) if damaged == "player_months" else ALL, reader)
    assert damages(folded) == []
    assert contents(folded) == before
