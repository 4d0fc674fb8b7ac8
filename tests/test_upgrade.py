"""A lake of format 1, made by the code of that time (`make_old_lake.py`), gives the same answers once it is converted."""

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Fairboard
from lake_fixtures import kill_at_each_step
from recovery_fixtures import answers, data_files, flip, verified

from warehouse.folds import FOLDS
from warehouse.settings import Settings

REPO = Path(__file__).parent.parent
LANDED = ("events", "rejects", "leaderboard_revisions")
DAYS = ("--from", "2024-04-28", "--to", "2024-05-02")


@pytest.fixture
def told(settings: Settings) -> dict[str, Any]:
    """The old lake in place of the deployment's, and what it answered before, and after its days were computed once more."""
    unpack(settings.data_dir)
    with tarfile.open(REPO / "tests/data/lake-format-1.tar.gz") as archive:
        return {name: json.load(archive.extractfile(f"{name}.json") or pytest.fail(name)) for name in ("before", "after")}


def unpack(folder: Path) -> None:
    with tarfile.open(REPO / "tests/data/lake-format-1.tar.gz") as archive:
        archive.extractall(folder.parent / "unpacked", filter="data")
    shutil.move(folder.parent / "unpacked/data", folder)


def test_every_answer_is_the_same_before_and_after_and_the_next_folds_agree(
    told: dict[str, Any], fairboard: Fairboard, settings: Settings
) -> None:
    assert "`fairboard upgrade-lake` converts it" in fairboard("sql", "SELECT 1", status=1).stderr
    done = msgspec.json.decode(fairboard("upgrade-lake", "--json").stdout)
    assert (done["set_aside"], done["left"]) == ([], [])
    assert verified(fairboard)["damaged"] == []
    assert answers(settings) == told["before"]
    folded = msgspec.json.decode(fairboard("materialize", *DAYS, "--json").stdout)
    assert [one["table"] for one in folded] == [*FOLDS]
    assert answers(settings) | {"details": folded[0]["details"]} == told["after"]
    assert folded[0]["changed"] == 3  # days to which something came: the others say themselves that they are merged
    assert not (settings.lake_dir / "_manifest").exists()
    assert "nothing of format 1" in fairboard("upgrade-lake", status=1).stderr


def test_the_pages_of_every_file_stay_as_they_are_and_no_second_copy_of_the_lake_is_made(
    told: dict[str, Any], fairboard: Fairboard, settings: Settings
) -> None:
    before = {path.parent: sum(file.stat().st_size for file in path.parent.glob("*.parquet")) for path in data_files(settings)}
    fairboard("upgrade-lake")
    after = {path.parent: sum(file.stat().st_size for file in path.parent.glob("*.parquet")) for path in data_files(settings)}
    assert before.keys() - {settings.lake_dir / "_manifest"} == after.keys()
    assert all(0 <= after[folder] - before[folder] < 2_000 for folder in after)  # what a footer tells


def test_damaged_and_missing_files_are_named_and_set_aside_and_the_rest_is_converted(
    told: dict[str, Any], fairboard: Fairboard, settings: Settings
) -> None:
    day = settings.lake_dir / "events/event_date=2024-04-30"
    [hurt] = day.glob("compacted-*")
    flip(hurt)
    (day / "0a4.parquet").unlink()
    flip(settings.lake_dir / "player_days/event_date=2024-04-30/data.parquet")
    (day / "notes.parquet").write_bytes(b"no Parquet")
    done = fairboard("upgrade-lake", status=1)
    assert f"{hurt} has changed since it was written" in done.stderr
    assert f"{day / '0a4.parquet'} is missing, with 1 rows" in done.stderr
    assert "notes.parquet is no file of events" in done.stderr
    named = " ".join(one["path"] for one in verified(fairboard, status=1)["damaged"])
    assert all(name in named for name in (hurt.name, "0a4.parquet.missing", "notes.parquet"))
    fairboard("materialize", *DAYS)
    assert {*answers(settings)["events"]} < {*told["before"]["events"]}


def test_a_file_of_the_old_format_put_into_a_lake_of_the_new_one_is_converted_too(
    told: dict[str, Any], fairboard: Fairboard, settings: Settings, tmp_path: Path
) -> None:
    day = settings.lake_dir / "events/event_date=2024-04-30"
    shutil.move(day / "0a4.parquet", tmp_path / "0a4.parquet")
    (settings.lake_dir / "_manifest/events/event_date=2024-04-30/0a4.parquet.json").unlink()
    fairboard("upgrade-lake")
    shutil.move(tmp_path / "0a4.parquet", day / "0a4.parquet")
    assert "not named as the lake names its files" in fairboard("verify", status=1).stderr
    fairboard("upgrade-lake")
    assert answers(settings)["events"] == told["before"]["events"]


def test_killed_before_any_step_it_is_finished_by_running_it_again(
    told: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    steps = kill_at_each_step(settings.data_dir, tmp_path / "killed", "upgrade", 37, dict(os.environ))
    assert steps > 300
    for folder in (tmp_path / "killed").iterdir():
        assert answers(Settings(data_dir=folder, _env_file=None)) == told["before"], folder.name
