"""`fairboard backup` and `restore`: what was accepted comes back, nothing that is there goes, what does not fit is named."""

import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from buckets import Emulator, azure_server, emulator, s3_server
from closed_week import FIRST, SECOND, THIRD, Week
from conftest import REPO, Fairboard, encode, progression
from ingest_fixtures import service
from recovery_fixtures import LATE, answers, data_files, deployment, flip, materialize, saved_week, verified, week

from ingest_api.sealer import seal_once
from warehouse.engine import DuckDBEngine
from warehouse.lake.opening import open_storage
from warehouse.settings import Settings

__all__ = ["azure_server", "deployment", "emulator", "s3_server", "saved_week", "week"]


def backup(fairboard: Fairboard, to: Path | str, *arguments: str) -> Any:
    return msgspec.json.decode(fairboard("backup", str(to), "--json", *arguments).stdout)


def restore(fairboard: Fairboard, source: Path | str, *arguments: str, status: int = 0) -> Any:
    return msgspec.json.decode(fairboard("restore", str(source), "--json", *arguments, status=status).stdout)


def everything(settings: Settings, fairboard: Fairboard) -> tuple[Any, ...]:
    """Every answer: the tables, and the closed week's revisions."""
    revisions = fairboard("revisions", "--window", "weekly", "--at", FIRST, "--diff", "2", "--json").stdout
    return answers(settings), revisions, (settings.data_dir / "keys.json").read_bytes()


def event_ids(settings: Settings) -> set[str]:
    with DuckDBEngine(settings) as engine:
        engine.bind_all()
        return {event_id for (event_id,) in engine.connection.sql("SELECT event_id FROM events").fetchall()}


def test_all_of_it_comes_back_into_an_empty_folder_and_gives_every_answer_as_before(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    fairboard("keys", "make", "game")
    before = everything(deployment, fairboard)
    made = backup(fairboard, tmp_path / "backups")
    assert made["left_out"] == made["damaged"] == []
    shutil.rmtree(deployment.data_dir)
    done = restore(fairboard, tmp_path / "backups")
    assert done["missing"] == done["refused"] == done["look"] == []
    assert everything(deployment, fairboard) == before
    assert verified(fairboard)["damaged"] == []
    assert restore(fairboard, tmp_path / "backups")["rows"]["events"] == 0
    assert everything(deployment, fairboard) == before


def test_a_second_backup_copies_only_what_is_new_and_older_ones_can_go(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    first = backup(fairboard, tmp_path / "backups")
    again = backup(fairboard, tmp_path / "backups")
    assert (again["copied_files"], again["files"]) == (0, first["files"])
    week.brings(progression("eve", THIRD, 1, eventId="new"))
    third = backup(fairboard, tmp_path / "backups", "--keep", "1")
    assert (third["copied_files"], third["pruned"]) == (1, 2)
    [only] = msgspec.json.decode(fairboard("backup", str(tmp_path / "backups"), "--list", "--json").stdout)
    assert only["files"] == third["files"] == len([path for path in (tmp_path / "backups").rglob("*") if path.is_file()]) - 1
    shutil.rmtree(deployment.data_dir)
    restore(fairboard, tmp_path / "backups")
    assert "new" in event_ids(deployment)


def test_the_newest_backup_of_a_time_or_before_is_restored(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    backup(fairboard, tmp_path / "backups")
    week.brings(progression("eve", THIRD, 1, eventId="new"))
    backup(fairboard, tmp_path / "backups")
    shown = msgspec.json.decode(fairboard("backup", str(tmp_path / "backups"), "--list", "--json").stdout)
    shutil.rmtree(deployment.data_dir)
    assert "holds no backup of 2020" in fairboard("restore", str(tmp_path / "backups"), "--at", "2020-01-01", status=1).stderr
    restore(fairboard, tmp_path / "backups", "--at", shown[0]["made_at"][:26])
    assert "new" not in event_ids(deployment)


@pytest.mark.parametrize("part", ["lake", "database", "journal", "keys"])
def test_any_part_restored_over_what_went_on_since_takes_nothing_away_and_says_what_does_not_fit(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path, part: str
) -> None:
    fairboard("keys", "make", "game")
    backup(fairboard, tmp_path / "backups")
    fairboard("keys", "make", "later")
    week.brings(progression("eve", FIRST, 500, eventId="since"), progression("eve", SECOND, 1))
    week.computes()
    before, files = everything(deployment, fairboard), set(data_files(deployment))
    differs = part in ("database", "keys")
    done = restore(fairboard, tmp_path / "backups", "--only", part, status=int(differs))
    assert differs == any("is there, and differs" in sentence for sentence in done["refused"])
    assert everything(deployment, fairboard) == before
    assert files <= set(data_files(deployment))
    if differs:
        done = restore(fairboard, tmp_path / "backups", "--only", part, "--replace")
        assert "was kept as" in done["look"][0]
    said = " ".join(done["look"])
    assert ("not recorded in the database" in said, "as of" in said) == ((True, True) if part == "database" else (False, False))
    materialize(fairboard)
    assert answers(deployment) == before[0]


def test_a_lake_that_is_older_than_the_database_is_named(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    backup(fairboard, tmp_path / "backups")
    week.brings(progression("eve", FIRST, 500, eventId="since"))
    week.computes()
    shutil.rmtree(deployment.lake_dir)
    [said, *_] = restore(fairboard, tmp_path / "backups", "--only", "lake")["look"]
    assert "the lake has no file of them: it is older" in said


def test_a_damaged_or_missing_file_of_the_lake_is_mended_from_the_backup(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    before = answers(deployment)
    backup(fairboard, tmp_path / "backups")
    for table in ("events", "leaderboard_revisions"):
        first, second, *_ = data_files(deployment, table)
        flip(first)
        second.unlink()
    shutil.rmtree(deployment.lake_dir / "rejects" / "_delta_log")
    restore(fairboard, tmp_path / "backups", "--only", "lake")
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_a_backup_with_a_damaged_file_brings_the_rest_and_names_it(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    backup(fairboard, tmp_path / "backups")
    shutil.rmtree(deployment.data_dir)
    kept = sorted((tmp_path / "backups/lake/events").rglob("*.parquet"))
    flip(kept[0])
    done = fairboard("restore", str(tmp_path / "backups"), status=1)
    assert f"{kept[0]} has changed since it was written" in done.stderr
    assert len(data_files(deployment, "events")) == len(kept) - 1


def test_damage_in_the_lake_is_named_and_kept_out_of_the_backup(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    hurt = data_files(deployment, "events")[0]
    flip(hurt)
    assert str(hurt) in fairboard("backup", str(tmp_path / "backups"), status=1).stderr


def test_another_time_zone_is_refused_before_anything_is_restored(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(fairboard, tmp_path / "backups")
    shutil.rmtree(deployment.data_dir)
    monkeypatch.setenv("FAIRBOARD_TIMEZONE", "Europe/Berlin")
    assert "Set FAIRBOARD_TIMEZONE=UTC" in fairboard("restore", str(tmp_path / "backups"), status=1).stderr
    assert not deployment.lake_dir.exists()


def killed(settings: Settings, after_s: float, *arguments: str) -> None:
    """Run a command, and kill it (SIGKILL) so long after it has begun to work in its folders."""
    command = [sys.executable, "-c", "import pipelines.cli; print(flush=True); pipelines.cli.main()", *arguments]
    environment = os.environ | {"FAIRBOARD_DATA_DIR": str(settings.data_dir), "PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        process.kill()


def test_killed_while_backing_up_and_while_restoring_both_are_finished_by_running_them_again(
    week: Week, fairboard: Fairboard, deployment: Settings, tmp_path: Path
) -> None:
    before, backups = answers(deployment), tmp_path / "backups"
    for after_s in (0.05, 0.1, 0.2):
        killed(deployment, after_s, "backup", str(backups))
    backup(fairboard, backups)
    assert [path.name for path in (backups / "_tmp").iterdir() if not path.name.startswith("backup-")] == []
    shutil.rmtree(deployment.data_dir)
    for after_s in (0.05, 0.1, 0.2, 0.4):
        killed(deployment, after_s, "restore", str(backups))
    restore(fairboard, backups)
    assert verified(fairboard)["damaged"] == []
    assert answers(deployment) == before


def test_nothing_that_was_accepted_before_a_backup_began_is_missing_after_a_restore(
    fairboard: Fairboard, settings: Settings, tmp_path: Path
) -> None:
    """The service goes on; one worker's open segment changes all the time."""
    accepted, ended = [0], threading.Event()
    today = datetime.now(UTC).date().isoformat()
    with service(settings.data_dir, FAIRBOARD_SEAL_AFTER_S="2") as running:

        def send() -> None:
            client = running.client()
            while not ended.is_set():
                number = accepted[0]
                events = [progression(f"p{n}", today, 1, "00:00:00", eventId=f"e{number}-{n}") for n in range(50)]
                client.post_batch(events)
                accepted[0] += 1

        sender = threading.Thread(target=send)
        sender.start()
        known = []
        for _ in range(4):
            time.sleep(0.7)
            known.append(accepted[0])
            backup(fairboard, tmp_path / "backups")
        ended.set()
        sender.join()
    shown = msgspec.json.decode(fairboard("backup", str(tmp_path / "backups"), "--list", "--json").stdout)
    for one, batches in zip(shown, known, strict=True):
        shutil.rmtree(settings.data_dir)
        assert batches
        restore(fairboard, tmp_path / "backups", "--at", one["made_at"][:26])
        seal_once(settings)
        fairboard("materialize", "--from", today, "--to", today)
        assert {f"e{number}-{n}" for number in range(batches) for n in range(50)} <= event_ids(settings)
        rows = msgspec.json.decode(
            fairboard("sql", "SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM events", "--json").stdout
        )
        assert rows[0]["n"] == rows[0]["ids"]


def test_a_restored_segment_that_is_sealed_already_counts_once_its_refusals_too(
    fairboard: Fairboard, settings: Settings, tmp_path: Path
) -> None:
    today = datetime.now(UTC).date().isoformat()
    with service(settings.data_dir, FAIRBOARD_SEAL_AFTER_S="3600") as running:
        body = encode([progression("ann", today, 1, "00:00:00", eventId="e1"), {"type": "progression"}])
        assert running.post("/events/batch", body).status_code == 202
        backup(fairboard, tmp_path / "backups")
        body = encode([progression("ann", today, 1, "00:00:00", eventId="e2"), {"type": "boss_kill"}])
        assert running.post("/events/batch", body).status_code == 202
    before = answers(settings)
    assert (len(before["events"]), len(before["rejects"])) == (2, 2)
    restore(fairboard, tmp_path / "backups", "--only", "journal")
    assert seal_once(settings) == 2
    assert {name: answers(settings)[name] for name in ("events", "rejects")} == {
        name: before[name] for name in ("events", "rejects")
    }


def test_a_lake_in_a_bucket_backed_up_into_a_bucket_comes_back_and_is_repaired(
    emulator: Emulator, fairboard: Fairboard, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRBOARD_LAKE_URL", emulator.below(f"{emulator.prefix}/lake").url)
    in_bucket = settings.model_copy(update={"lake_url": emulator.below(f"{emulator.prefix}/lake").url})
    Week(fairboard, tmp_path).brings(*LATE, refused=True)
    materialize(fairboard)
    before, backups = answers(in_bucket), emulator.below(f"{emulator.prefix}/backups").url
    backup(fairboard, backups)
    storage = open_storage(in_bucket)
    storage.delete([one.name for one in list(storage.list("")) if not one.name.startswith("rejects/")])
    for path in settings.data_dir.rglob("*"):  # copies of the bucket's files, too
        if path.is_file():
            path.unlink()
    restore(fairboard, backups)
    assert answers(in_bucket) == before
    storage.delete([one.name for one in list(storage.list("events/_delta_log"))])
    storage.delete([next(one.name for one in storage.list("player_days") if one.name.endswith(".parquet"))])
    fairboard("verify", "--repair")
    assert verified(fairboard)["damaged"] == []
    assert answers(in_bucket) == before
