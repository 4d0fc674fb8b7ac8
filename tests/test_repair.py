"""`fairboard verify --repair`: what was computed is computed again, what is in no table is taken in, and no event is lost."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from closed_week import FIRST, SECOND, Week
from conftest import Fairboard, progression
from recovery_fixtures import (
    answers,
    data_files,
    deployment,
    flip,
    forget_history,
    make_old,
    materialize,
    restored_by_hand,
    saved_week,
    verified,
    week,
)

from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS
from warehouse.lake import Lake, tidy
from warehouse.settings import Settings
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, TABLES

__all__ = ["deployment", "saved_week", "week"]

DERIVED = [name for name in FOLDS if name not in ("events", "player_months")]  # a month is rolled up when the next has begun


def live(settings: Settings, table: str) -> list[Path]:
    with Lake(settings) as lake:
        return [settings.lake_dir / file.name for file in lake.files(TABLES[table])]


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_a_damaged_or_missing_file_of_each_computed_table_is_computed_again(
    week: Week, fairboard: Fairboard, deployment: Settings, harm: Callable[[Path], None]
) -> None:
    before = answers(deployment)
    hurt = [live(deployment, table)[0] for table in DERIVED]
    for path in hurt:
        harm(path)
    named = {str(path) for path in hurt}
    assert {one["path"] for one in verified(fairboard, status=1)["damaged"]} == named
    assert {one["path"] for one in verified(fairboard, "--repair")["repaired"]} == named
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_a_damaged_month_is_rolled_up_again_though_its_days_are_as_they_were(
    week: Week, fairboard: Fairboard, deployment: Settings
) -> None:
    week.brings(progression("ann", "2026-06-02", 5))
    fairboard("materialize", "--from", FIRST, "--to", "2026-06-02")
    before = answers(deployment)
    assert before["player_months"]
    flip(live(deployment, "player_months")[0])
    verified(fairboard, "--repair")
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_damaged_events_are_set_aside_and_come_back_with_the_file_from_a_backup(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    before = answers(deployment)
    [hurt, *_] = live(deployment, "events")
    copy = shutil.copy(hurt, tmp_path)
    flip(hurt)
    done = fairboard("verify", "--repair", status=1)
    assert "set aside: nothing is computed from it" in done.stderr
    assert not hurt.exists()
    materialize(fairboard)
    shutil.copy(copy, hurt)
    make_old(hurt)
    forget_history(deployment)
    assert hurt.exists()
    assert len(verified(fairboard, "--repair")["repaired"]) == 2  # taken in, and the damaged one goes
    materialize(fairboard)
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_damaged_events_come_back_at_once_from_what_was_merged_into_them_while_that_is_there(
    week: Week, fairboard: Fairboard, deployment: Settings
) -> None:
    week.brings(progression("eve", FIRST, 1, eventId="since"))
    week.computes()
    week.computes()  # what was late is merged once it was counted
    before = answers(deployment)
    flip(next(path for path in live(deployment, "events") if path.name.startswith("compacted")))
    fairboard("verify", "--repair", status=1)
    assert verified(fairboard, "--repair")["damaged"] == []
    materialize(fairboard)
    assert answers(deployment) == before


def test_a_sound_file_put_into_the_quarantine_comes_back_from_there(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    [hurt, *_] = live(deployment, "events")
    copy = shutil.copy(hurt, tmp_path)
    hurt.unlink()
    fairboard("verify", "--repair", status=1)
    aside = deployment.lake_dir / "_quarantine" / hurt.relative_to(deployment.lake_dir)
    shutil.copy(copy, aside)
    fairboard("verify", "--repair")
    assert hurt.exists()
    assert verified(fairboard)["damaged"] == []


def test_a_damaged_revision_is_named_with_what_to_do_until_its_copy_is_back(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    hurt = live(deployment, "leaderboard_revisions")[0]
    copy = shutil.copy(hurt, tmp_path)
    flip(hurt)
    assert "cannot be computed again" in fairboard("verify", "--repair", status=1).stderr
    shutil.copy(copy, hurt)
    fairboard("verify", "--repair")


@pytest.mark.parametrize("left_out", ["events/_delta_log", "rejects/_delta_log", "leaderboard_revisions/_delta_log", "all"])
def test_a_lake_restored_without_a_log_loses_nothing_and_is_whole_after_a_repair(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path, left_out: str
) -> None:
    before, saved = answers(deployment), tmp_path / "saved"
    shutil.copytree(deployment.lake_dir, saved)
    logs = [f"{table}/_delta_log" for table in TABLES if data_files(deployment, table)] if left_out == "all" else [left_out]
    restored_by_hand(deployment, saved, *logs)
    make_old(*data_files(deployment))
    events = data_files(deployment, "events")
    if "events/_delta_log" in logs:
        assert "_delta_log) is gone" in materialize(fairboard, status=1).stderr
        assert "_delta_log) is gone" in fairboard("sql", "SELECT count(*) FROM events", status=1).stderr
    assert data_files(deployment, "events") == events
    named = {one["path"] for one in verified(fairboard, status=1)["damaged"]}
    assert {str(deployment.lake_dir / log) for log in logs} <= named
    fairboard("verify", "--repair")
    materialize(fairboard)
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before
    assert set(events) <= {*data_files(deployment, "events")}


@pytest.mark.parametrize("entry", ["first", "middle", "cut", "newest"])
def test_a_log_with_a_gap_or_a_cut_entry_is_begun_anew_with_the_files_that_are_there(
    week: Week, fairboard: Fairboard, deployment: Settings, entry: str
) -> None:
    before = answers(deployment)
    log = sorted((deployment.lake_dir / "events/_delta_log").glob("*.json"))
    if entry == "cut":
        log[-1].write_bytes(log[-1].read_bytes()[:-30])
    else:
        log[{"first": 0, "middle": len(log) // 2, "newest": -1}[entry]].unlink()
    make_old(*data_files(deployment))
    fairboard("verify", "--repair")
    materialize(fairboard)
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_older_events_put_beside_todays_log_come_back_and_are_never_vacuumed(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day was merged since: the log says of the restored files that they are superseded, and what by is gone."""
    before, saved = answers(deployment), tmp_path / "saved"
    week.brings(progression("eve", SECOND, 1, eventId="since"))
    week.computes()
    week.computes()
    folder = deployment.lake_dir / "events" / f"event_date={SECOND}"
    with Lake(deployment) as lake:
        [merged] = lake.of(EVENTS, lake.partitions(EVENTS)[1])
    shutil.copytree(folder, saved)
    (folder / Path(merged.name).name).unlink()
    make_old(*data_files(deployment))
    with Lake(deployment) as lake, monkeypatch.context() as clock:
        later = time.time() + 3600
        clock.setattr(time, "time", lambda: later)
        tidy(lake)
    assert len(data_files(deployment, "events/" + folder.name)) == len(list(saved.iterdir())) - 1
    fairboard("verify", "--repair", status=1)
    materialize(fairboard)
    with DuckDBEngine(deployment) as engine:
        engine.bind_all()
        events = sorted(map(repr, engine.connection.sql("FROM events").fetchall()))
    assert set(before["events"]) <= set(events)


def test_what_a_killed_writer_left_is_taken_in_or_deleted_when_it_is_old(
    week: Week, fairboard: Fairboard, deployment: Settings
) -> None:
    before = answers(deployment)
    day = deployment.lake_dir / "events" / f"event_date={SECOND}"
    lost = next(day.glob("*.parquet"))
    revision = live(deployment, "leaderboard_revisions")[0]
    board = live(deployment, "leaderboards")[0]
    with Lake(deployment) as lake:
        for table, path in ((EVENTS, lost), (LEADERBOARD_REVISIONS, revision), (TABLES["leaderboards"], board)):
            [file] = [file for file in lake.snapshot(table).all_files if path.name == file.name.rpartition("/")[2]]
            lake.commit(table, [], [file], aside=True)
    make_old(board)
    named = {one["path"] for one in verified(fairboard, status=1)["damaged"]}
    assert named == {str(lost), str(revision), str(board)}
    assert "deleted" in fairboard("verify", "--repair").stdout
    assert not board.exists()
    materialize(fairboard)
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_a_stray_that_is_not_as_it_was_written_or_not_ours_is_read_by_nobody(
    week: Week, fairboard: Fairboard, deployment: Settings
) -> None:
    before = answers(deployment)
    sound = live(deployment, "events")[0]
    stray = Path(str(sound).replace(sound.name[-20:-8], "0" * 12))
    shutil.copy(sound, stray)
    foreign = sound.with_name("copy.parquet")
    shutil.copy(sound, foreign)
    said = fairboard("verify", "--repair", status=1).stderr
    assert "was in no table. It was moved to" in said
    assert f"{foreign} is in no table, and not named as the lake names its files" in said
    assert not stray.exists()
    assert answers(deployment) == before
