"""The files of `events`: few, the same whatever happened on the way, and never read when they are not as they were written."""

import io
import json
import os
import random
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Fairboard, Land, land_events, progression

from tests.lake_fixtures import DAYS, RANGE, ask, contents, damages, flip, fold_all, game, kill_at_each_step, land_game, tree
from warehouse import compaction
from warehouse.compaction import MANY, settle
from warehouse.damage import quarantined
from warehouse.engine import DuckDBEngine
from warehouse.folds import fold, stale_days
from warehouse.lake import FACTS, Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, PLAYER_DAYS

DAY = {"event_date": date.fromisoformat(DAYS[0])}
CONTENT = "SELECT * EXCLUDE (extra) FROM events ORDER BY ALL"


def files(settings: Settings) -> list[Path]:
    lake = Lake(settings)
    return lake.paths(lake.files(EVENTS))


def facts(content: bytes) -> dict[str, Any]:
    noted = pq.read_metadata(io.BytesIO(content)).metadata.get(FACTS.encode())
    return json.loads(noted) if noted else {}


def test_a_closed_day_becomes_one_file_and_nothing_else_changes(settings: Settings) -> None:
    land_game(settings)
    before = ask(settings, CONTENT)
    with DuckDBEngine(settings) as engine:
        fold(engine, "player_days", RANGE)
        assert len(engine.lake.files(EVENTS)) > 12
        derived = [path.read_bytes() for path in engine.lake.paths(engine.lake.files(PLAYER_DAYS))]
        first = fold(engine, "events", RANGE)
        assert len(engine.lake.files(EVENTS)) == len(DAYS)
        assert stale_days(engine) == []
        again = fold(engine, "events", RANGE)
        fold(engine, "player_days", RANGE)
        assert [path.read_bytes() for path in engine.lake.paths(engine.lake.files(PLAYER_DAYS))] == derived
    assert first.details == again.details == {
        "landed": 145, "events": 136, "duplicates": 8, "conflicts": 1, "rejected": 0, "set_aside": 0,
    }  # fmt: skip
    assert (first.changed, again.changed) == (3, 0)
    assert ask(settings, CONTENT) == before
    assert damages(settings) == []


def test_the_lake_is_the_same_however_the_events_came_and_were_merged(tmp_path: Path) -> None:
    """All at once, or file by file with a fold after each, in any order: rows, names and records are the same bytes."""
    lakes = []
    for seed in range(3):
        settings = Settings(data_dir=tmp_path / str(seed), _env_file=None)
        parts = [(number, game()[number::5]) for number in range(5)]
        random.Random(seed).shuffle(parts)
        for number, part in parts:
            land_events(settings, part, f"seal-{number}")
            if seed:
                with DuckDBEngine(settings) as engine:
                    fold(engine, "events", RANGE)
        fold_all(settings)  # counts what came late,
        fold_all(settings)  # and so merges it
        lakes.append(tree(settings))
    assert lakes[0] == lakes[1] == lakes[2]


def test_whoever_was_first_stays_first_when_an_earlier_copy_comes_after_the_merge(settings: Settings, land: Land) -> None:
    ts = progression("ann", DAYS[0], 0)["ts"]
    for number, (xp, received_ms) in enumerate([(2, 200), (1, 100), (2, 50)]):
        land([progression("ann", DAYS[0], xp, eventId="e", received_ms=ts * 1000 + received_ms)], name=f"seal-{number}")
        counts = fold_all(settings)["events"].details
        assert ask(settings, "SELECT delta_xp FROM events") == [([2, 1, 2][number],)]
    assert (counts["landed"], counts["duplicates"], counts["conflicts"]) == (3, 1, 1)
    assert [row[0] for row in ask(settings, "SELECT json_extract(body, '$.delta_xp') FROM rejects")] == ["1"]


def test_a_kill_before_any_step_of_compaction_changes_nothing_in_the_end(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "origin", _env_file=None)
    land_game(settings, files=2)
    steps = kill_at_each_step(settings.data_dir, tmp_path / "work", "compact", 3, dict(os.environ))
    folders = sorted((tmp_path / "work").iterdir())
    assert steps > 20
    assert len(folders) > 10
    expected = tree(Settings(data_dir=tmp_path / "work" / "0", _env_file=None))
    assert all(tree(Settings(data_dir=folder, _env_file=None)) == expected for folder in folders)


def test_files_that_come_again_after_they_were_merged_change_nothing_that_is_computed(settings: Settings) -> None:
    """As a journal does that was restored from a backup."""
    land_game(settings)
    fold_all(settings)
    before = ask(settings, CONTENT)
    computed = {name: content for name, content in contents(settings).items() if not name.startswith("events/")}
    land_game(settings)
    assert len(files(settings)) > 12
    fold_all(settings)  # counts them,
    fold_all(settings)  # and merges them
    assert len(files(settings)) == len(DAYS)
    assert ask(settings, CONTENT) == before
    assert {name: content for name, content in contents(settings).items() if not name.startswith("events/")} == computed


def test_a_file_that_is_sealed_during_the_merge_stays_for_the_next(
    settings: Settings, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_game(settings)
    real = compaction._write  # noqa: SLF001

    def write_while_sealing(*arguments: object) -> int:
        monkeypatch.setattr(compaction, "_write", real)
        land([progression("late", DAYS[0], 7, eventId="late")], name="late")
        return real(*arguments)

    monkeypatch.setattr(compaction, "_write", write_while_sealing)
    assert fold_all(settings)["events"].details["landed"] == 146
    assert len(files(settings)) == len(DAYS) + 1
    assert fold_all(settings)["events"].details["landed"] == 146
    assert len(files(settings)) == len(DAYS)
    assert ask(settings, "SELECT count(*) FROM events WHERE player_id = 'late'") == [(1,)]


def test_during_the_day_files_are_merged_when_they_pile_up(settings: Settings, land: Land) -> None:
    for number in range(MANY + 3):
        land([progression("ann", DAYS[0], number, eventId=f"e{number}")], name=f"seal-{number:03}")
        if number == MANY - 2:
            with DuckDBEngine(settings) as engine:
                assert not settle(engine, [DAY], today=date.min).merged
    with DuckDBEngine(settings) as engine:
        assert settle(engine, [DAY], today=date.min).merged
        engine.lake.refresh()
        assert not settle(engine, [DAY], today=date.min).merged
    assert len(files(settings)) == 1
    assert ask(settings, "SELECT count(*) FROM events") == [(MANY + 3,)]


@pytest.mark.parametrize("fold_first", [False, True])
def test_a_damaged_file_is_set_aside_and_its_restored_copy_counts_again(
    settings: Settings, fairboard: Fairboard, fold_first: bool
) -> None:
    land_game(settings)
    if fold_first:
        fold_all(settings)
    [path, *_] = files(settings)
    whole = ask(settings, "SELECT count(*) FROM events")
    sound = flip(path)
    with DuckDBEngine(settings) as engine:
        [file] = (file for file in engine.lake.files(EVENTS) if engine.lake.path(file) == path)
        done = fold(engine, "events", RANGE)
        assert done.details["set_aside"] == 1
        assert done.details["landed"] == 145 - (facts(sound).get("landed") or file.rows)
        [aside] = quarantined(engine.lake, EVENTS, DAY)
        assert stale_days(engine) != []
    assert [damage.path for damage in damages(settings)] == [aside]
    path.write_bytes(sound)
    Path(aside).unlink()
    fairboard("verify", "--repair")
    assert fold_all(settings)["events"].details["landed"] == 145
    assert ask(settings, "SELECT count(*) FROM events") == whole
    assert damages(settings) == []


def test_player_days_never_reads_a_damaged_file(settings: Settings, land: Land) -> None:
    land([progression("ann", DAYS[0], 10)], name="bad")
    land([progression("ann", DAYS[0], 5)], name="good")
    flip(files(settings)[0])
    with DuckDBEngine(settings) as engine:
        fold(engine, "player_days", RANGE)
        assert stale_days(engine) == []
    assert ask(settings, "SELECT xp FROM player_days") == [(5,)]


def test_a_missing_file_is_said_once_and_the_rest_is_folded(settings: Settings) -> None:
    land_game(settings)
    files(settings)[0].unlink()
    assert "is missing" in damages(settings)[0].what
    assert fold_all(settings)["events"].details["set_aside"] == 1
    assert fold_all(settings)["events"].details["set_aside"] == 0
    assert "set aside" in damages(settings)[0].what


def test_a_partition_whose_folder_is_gone_is_found(settings: Settings) -> None:
    land_game(settings, files=1)
    shutil.rmtree(files(settings)[0].parent)
    assert len(damages(settings)) == 1


def test_a_file_that_somebody_put_into_the_folder_is_neither_read_nor_taken_away(settings: Settings) -> None:
    land_game(settings)
    path = files(settings)[0].with_name("foreign.parquet")
    pq.write_table(pa.table({"event_id": ["x"], "ts": ["noon"], "gold": [1]}), path)
    assert fold_all(settings)["events"].details["landed"] == 145
    assert path.exists()


def test_files_older_than_an_optional_column_are_read_and_merged(settings: Settings, land: Land) -> None:
    land([progression("ann", DAYS[0], 10)], name="new")
    lake = Lake(settings)
    older = pq.read_table(files(settings)[0], partitioning=None).drop_columns(["quantity", "extra"])
    older = older.set_column(0, "event_id", pa.array(["older"]))
    temporary = lake.beside("events")
    pq.write_table(older, temporary)
    lake.commit(EVENTS, [lake.staged(EVENTS, DAY, "older", "", temporary, 1)])
    assert ask(settings, "SELECT count(*), count(extra) FROM events") == [(2, 0)]
    assert fold_all(settings)["player_days"].rows == 1
    assert len(files(settings)) == 1
    assert ask(settings, "SELECT xp FROM player_days") == [(20,)]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a small file system")
def test_a_disk_that_fills_during_the_merge_leaves_the_day_whole(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)], check=False).returncode:
        pytest.skip("this machine does not let tests mount")
    try:
        settings = Settings(data_dir=small / "data", _env_file=None)
        chance = random.Random(1)
        noise = [progression("ann", DAYS[0], 1, eventId=chance.randbytes(60).hex()) for _ in range(20_000)]
        land_game(settings, files=2, events=noise)
        before = tree(settings)
        (small / "ballast").write_bytes(bytes(shutil.disk_usage(small).free - 600_000))
        with pytest.raises(OSError, match="No space left"):
            fold_all(settings)
        assert tree(settings) == before
        (small / "ballast").unlink()
        assert fold_all(settings)["events"].details["events"] == 20_000
        assert len(files(settings)) == 1
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
