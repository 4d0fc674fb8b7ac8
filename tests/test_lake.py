"""The lake replaces whole partitions, refuses what is not a table's, and finds what was changed behind its back."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from conftest import Land, land_events, progression

from tests.lake_fixtures import on_disk
from warehouse.calendar import ONE_DAY, Days
from warehouse.damage import Damage, verify
from warehouse.engine import DuckDBEngine
from warehouse.errors import LakeError, SettingsError
from warehouse.folds import fold
from warehouse.lake import Lake, LostRace, housekeeping, tidy
from warehouse.lake.housekeeping import CHECKPOINT_EVERY
from warehouse.lake.readers import oldest_reader
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
def lake(settings: Settings) -> Lake:
    return Lake(settings)


def path_of(lake: Lake) -> Path:
    [file] = lake.files(PROGRESSION)
    return lake.path(file)


def damages(lake: Lake) -> list[Damage]:
    return [found for found in verify(lake) if isinstance(found, Damage)]


def test_the_same_rows_again_change_nothing_not_even_the_file(lake: Lake) -> None:
    assert lake.write(PROGRESSION, rows(1, 2), {"event_date": DAY})
    before = on_disk(lake.settings)
    assert not lake.write(PROGRESSION, rows(1, 2), {"event_date": DAY})
    assert on_disk(lake.settings) == before
    assert lake.write(PROGRESSION, rows(1, 3), {"event_date": DAY})
    assert damages(lake) == []


def test_what_was_looked_at_stays_as_it_was_while_others_write(lake: Lake, settings: Settings) -> None:
    lake.write(PROGRESSION, rows(1), {"event_date": DAY})
    with DuckDBEngine(settings) as engine:
        engine.bind(PROGRESSION)
        for xp in range(2, 5):
            lake.write(PROGRESSION, rows(xp), {"event_date": DAY})
        lake.write(PROGRESSION, rows(9), {"event_date": DAY + ONE_DAY})
        assert engine.query("SELECT xp_total FROM progression").read_all().to_pydict() == {"xp_total": [1]}
        engine.bind(PROGRESSION)
        assert engine.query("SELECT xp_total FROM progression").read_all().to_pydict() == {"xp_total": [1]}
        engine.lake.refresh()
        engine.bind(PROGRESSION)
        assert engine.query("SELECT xp_total FROM progression ORDER BY 1").read_all().to_pydict() == {"xp_total": [4, 9]}


def test_writers_of_one_table_at_once_lose_nothing(settings: Settings) -> None:
    def write(day: int) -> None:
        lake = Lake(settings)
        for xp in range(10):
            lake.write(PROGRESSION, rows(xp), {"event_date": DAY + timedelta(days=day)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with DuckDBEngine(settings) as engine:
        engine.bind(PROGRESSION)
        assert engine.query("SELECT xp_total FROM progression").read_all().to_pydict() == {"xp_total": [9] * 4}


def test_of_two_that_replace_the_same_file_one_is_told_that_it_lost(settings: Settings) -> None:
    first, second = Lake(settings), Lake(settings)
    first.write(PROGRESSION, rows(1), {"event_date": DAY})
    before = second.files(PROGRESSION)
    first.commit(PROGRESSION, [first.stage(PROGRESSION, rows(2), {"event_date": DAY})], first.files(PROGRESSION))
    with pytest.raises(LostRace, match="nothing was changed by this one"):
        second.commit(PROGRESSION, [second.stage(PROGRESSION, rows(3), {"event_date": DAY})], before)
    first.refresh()
    assert pl.read_parquet(path_of(first), hive_partitioning=False)["xp_total"].to_list() == [2]
    assert not list(first.scratch.glob("*.parquet"))


def test_superseded_files_go_after_their_time_and_never_under_a_reader(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, reader = Lake(settings), Lake(settings)
    for xp in range(5):
        lake.write(PROGRESSION, rows(xp), {"event_date": DAY})
        if xp == 2:
            seen = reader.paths(reader.files(PROGRESSION))

    def at(minutes: float) -> int:
        monkeypatch.setattr(housekeeping.time, "time", lambda: time.time_ns() / 1e9 + 60 * minutes)
        return sum(done.files for done in tidy(lake, [PROGRESSION]))

    assert at(0) == 0
    assert at(2) == 0  # they are more than half of the table, but somebody reads
    reader.refresh()
    assert at(0.5) == 0
    assert at(2) == 4
    assert not seen[0].exists()
    assert damages(lake) == []


def test_a_killed_reader_keeps_nothing(settings: Settings) -> None:
    lake = Lake(settings)
    lake.write(PROGRESSION, rows(1), {"event_date": DAY})
    code = "import os, sys; from warehouse.lake import Lake; from warehouse.settings import Settings\n"
    code += "import warehouse.tables as t\n"
    code += "lake = Lake(Settings(data_dir=sys.argv[1], _env_file=None)); lake.files(t.PROGRESSION); os.kill(os.getpid(), 9)"
    lake.refresh()
    assert oldest_reader(settings) is None
    subprocess.run([sys.executable, "-c", code, str(settings.data_dir)], check=False)
    assert len(list((settings.data_dir / "readers").iterdir())) == 1
    assert oldest_reader(settings) is None
    assert not list((settings.data_dir / "readers").iterdir())


def test_a_hundred_commits_leave_a_checkpoint_and_a_log_that_is_cut(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(settings)
    for xp in range(2 * CHECKPOINT_EVERY):
        lake.write(PROGRESSION, rows(xp), {"event_date": DAY})
    log = settings.lake_dir / "progression" / "_delta_log"
    assert [path.name[:20] for path in sorted(log.glob("*.checkpoint.parquet"))] == [f"{n:020}" for n in (100, 200)]
    assert pl.read_parquet(path_of(Lake(settings)), hive_partitioning=False)["xp_total"].to_list() == [199]


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
    path = path_of(lake)
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    assert [(d.path, "SHA-256" in d.what) for d in damages(lake)] == [(str(path), True)]


def test_verify_names_a_missing_file_with_its_rows(lake: Lake) -> None:
    lake.write(PROGRESSION, rows(1, 2, 3), {"event_date": DAY})
    path_of(lake).unlink()
    assert [damage.what for damage in damages(lake)] == ["is missing, with 3 rows"]


def test_a_lake_refuses_another_time_zone_and_says_what_to_do(settings: Settings) -> None:
    Lake(settings.model_copy(update={"timezone": "Europe/Berlin"}))
    with pytest.raises(SettingsError, match="FAIRBOARD_TIMEZONE=Europe/Berlin"):
        Lake(settings)


@pytest.mark.parametrize(("version", "todo"), [(1, "fairboard upgrade-lake"), (3, "Run the version that wrote it")])
def test_a_lake_of_another_format_is_refused_with_what_to_do(settings: Settings, version: int, todo: str) -> None:
    Lake(settings)
    (settings.lake_dir / "_lake.json").write_text(json.dumps({"timezone": "UTC", "version": version}))
    with pytest.raises(SettingsError, match=todo):
        Lake(settings)


def test_events_land_on_the_day_of_the_time_zone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", timezone="Asia/Tokyo", _env_file=None)
    land_events(settings, [progression("p", "2026-05-01", 5, "14:59:59"), progression("p", "2026-05-01", 5, "15:00:00")])
    lake = Lake(settings)
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
