"""The lake replaces whole partitions, refuses what is not a table's, and finds what was changed behind its back."""

import threading
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import Land, land_events, progression

from warehouse.calendar import Days
from warehouse.damage import Damage, verify
from warehouse.engine import DuckDBEngine
from warehouse.errors import LakeError, SettingsError
from warehouse.folds import fold
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, PROGRESSION

DAY = date(2026, 5, 1)


def rows(*xp: int) -> pa.Table:
    return pa.table(
        {
            "player_id": [f"p{n}" for n in range(len(xp))],
            "xp_gained": list(xp),
            "xp_total": list(xp),
            "level_before": [1] * len(xp),
            "level_after": [1] * len(xp),
            "level_ups": [0] * len(xp),
            "xp_to_next": [None] * len(xp),
        },
        schema=PROGRESSION.file_schema,
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def damages(lake: Lake) -> list[Damage]:
    return [found for found in verify(lake) if isinstance(found, Damage)]


def test_the_same_rows_again_change_nothing_not_even_the_file(lake: Lake) -> None:
    assert lake.write(PROGRESSION, rows(1, 2), {"event_date": DAY})
    [path] = lake.files(PROGRESSION)
    before = path.stat()
    assert not lake.write(PROGRESSION, rows(1, 2), {"event_date": DAY})
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert lake.write(PROGRESSION, rows(1, 3), {"event_date": DAY})
    assert damages(lake) == []


def test_no_rows_leave_no_partition(lake: Lake) -> None:
    lake.write(PROGRESSION, rows(1), {"event_date": DAY})
    assert lake.write(PROGRESSION, rows(), {"event_date": DAY})
    assert lake.files(PROGRESSION) == []
    assert damages(lake) == []


def test_foreign_columns_are_refused_by_name_and_nothing_is_written(lake: Lake) -> None:
    foreign = rows(1).rename_columns(["player_id", "xp_gained", "gold", *PROGRESSION.file_schema.names[3:]])
    with pytest.raises(LakeError, match=r"missing: \['xp_total'\], foreign: \['gold'\]"):
        lake.write(PROGRESSION, foreign, {"event_date": DAY})
    assert lake.files(PROGRESSION) == []
    assert list(lake.scratch.glob("*.parquet")) == []


@pytest.mark.parametrize("byte", [10, -10])
def test_verify_names_a_file_with_one_flipped_bit(lake: Lake, byte: int) -> None:
    lake.write(PROGRESSION, rows(1, 2, 3), {"event_date": DAY})
    [path] = lake.files(PROGRESSION)
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    assert [(d.path, "SHA-256" in d.what) for d in damages(lake)] == [(path, True)]


def test_verify_names_a_missing_file_with_its_rows_and_a_foreign_one(lake: Lake) -> None:
    lake.write(PROGRESSION, rows(1, 2, 3), {"event_date": DAY})
    [path] = lake.files(PROGRESSION)
    path.rename(path.with_name("other.parquet"))
    found = {damage.path.name: damage.what for damage in damages(lake)}
    assert found == {"data.parquet": "is missing, with 3 rows", "other.parquet": found["other.parquet"]}
    assert "not written by Fairboard" in found["other.parquet"]


def test_a_lake_refuses_another_time_zone_and_says_what_to_do(tmp_path: Path) -> None:
    Lake(tmp_path / "lake", "Europe/Berlin")
    with pytest.raises(SettingsError, match="FAIRBOARD_TIMEZONE=Europe/Berlin"):
        Lake(tmp_path / "lake", "UTC")


def test_events_land_on_the_day_of_the_time_zone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", timezone="Asia/Tokyo", _env_file=None)
    land_events(settings, [progression("p", "2026-05-01", 5, "14:59:59"), progression("p", "2026-05-01", 5, "15:00:00")])
    lake = Lake(settings.lake_dir, "Asia/Tokyo")
    assert [keys["event_date"] for keys in lake.partitions(EVENTS)] == [date(2026, 5, 1), date(2026, 5, 2)]


def test_a_lock_is_held_by_one_at_a_time(lake: Lake) -> None:
    order = []

    def second() -> None:
        with lake.lock("progression"):
            order.append("second")

    with lake.lock("progression"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_fold_clears_what_a_killed_one_left_beside_its_table(lake: Lake, settings: Settings, land: Land) -> None:
    land([progression("p", "2026-05-01", 5)])
    with DuckDBEngine(settings) as engine:
        left = engine.lake.scratch / "player_days.999.dead.parquet"
        left.write_bytes(b"half a file")
        fold(engine, "player_days", Days(DAY, DAY))
        assert not left.exists()
