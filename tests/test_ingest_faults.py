"""Crashes, damage and shortage: what was answered with 202 is in the lake exactly once."""

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from msgspec.structs import replace

from ingest_api import sealer, segment
from ingest_api.ids import derived_base, event_id, uuid7_base
from ingest_api.journal import Journal, JournalBrokenError, Slot, journal_dir
from ingest_api.segment import Entry, Refusal
from tests.conftest import missing
from tests.ingest_fixtures import Service, free_port, progression, service, wait_until
from tests.lake_fixtures import tree
from warehouse.settings import Settings

CRASH = Path(__file__).with_name("ingest_crash.py")


def _settings(folder: Path) -> Settings:
    return Settings(data_dir=folder, _env_file=None)


def _entry(n: int, events: int = 1, **fields: object) -> Entry:
    body = b"\n".join(json.dumps(progression(f"player_{n}_{i}", **fields)).encode() for i in range(events))
    base = derived_base(b"request-%d" % n, b"")
    return Entry(int(time.time() * 1000), "k", base, f"r{n}", "lines", body, None)


def _refusal(n: int) -> Refusal:
    return Refusal(int(time.time() * 1000), "k", f"r{n}", 0, "type", "unknown", None, b'{"\xff"}')


def _journal(settings: Settings) -> Journal:
    return Journal(Slot.claim(journal_dir(settings)), 3600, 1 << 30)


def _fill(settings: Settings, entries: list[Entry], refusals: int = 0) -> None:
    journal = _journal(settings)
    for entry in entries:
        journal.put([entry], [_refusal(n) for n in range(refusals)], len(entry.body))
        journal.commit()
    journal.close()


def _lake(folder: Path) -> Service:
    return Service(folder, 0)


def _files(folder: Path) -> dict[str, bytes]:
    """Every file that the lake's tables have."""
    return tree(_settings(folder))


def test_a_kill_before_any_step_of_sealing_changes_nothing_in_the_end(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    _fill(_settings(origin), [_entry(n, 3) for n in range(3)] + [_entry(9, ts=int(time.time()) - 86_400)], refusals=2)
    whole = tmp_path / "whole"
    shutil.copytree(origin, whole)
    sealer.seal_once(_settings(whole))
    expected = _files(whole)
    copies = tmp_path / "copies"
    subprocess.run([sys.executable, str(CRASH), str(origin), str(copies)], check=True, cwd=CRASH.parent.parent)
    for folder in copies.iterdir():
        sealer.seal_once(_settings(folder))
        assert _files(folder) == expected
        assert not list(journal_dir(_settings(folder)).glob("*/*"))
    assert len(list(copies.iterdir())) > 15


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    _fill(_settings(tmp_path), [replace(_entry(1, 20), id_base=uuid7_base()), _entry(2, 5)], refusals=1)
    segment = next(journal_dir(_settings(tmp_path)).glob("*/*.db"))
    copy = segment.read_bytes()
    sealer.seal_once(_settings(tmp_path))
    first = _files(tmp_path)
    segment.write_bytes(copy)
    sealer.seal_once(_settings(tmp_path))
    assert _files(tmp_path) == first


def test_two_sealers_at_once_make_what_one_makes(tmp_path: Path) -> None:
    for n in range(8):
        _fill(_settings(tmp_path), [_entry(n, 10)])
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda _: sealer.seal_once(_settings(tmp_path)), range(2)))
    assert sum(counts) == 80
    assert _lake(tmp_path).events()["event_id"].n_unique() == 80


@pytest.mark.parametrize("damage", ["torn", "zeroed", "flipped", "empty"])
def test_a_damaged_tail_loses_nothing_before_it(tmp_path: Path, damage: str) -> None:
    settings = _settings(tmp_path)
    journal = _journal(settings)
    for n in range(3):
        journal.put([_entry(n)], [], 100)
        journal.commit()
    wal = next(journal_dir(settings).glob("*/*.open-wal"))
    intact = wal.stat().st_size
    journal.put([_entry(3)], [], 100)
    journal.commit()
    image = tmp_path / "image"
    shutil.copytree(journal_dir(settings), image / "journal")
    (wal,) = (image / "journal").glob("*/*.open-wal")
    content = bytearray(wal.read_bytes())
    if damage == "torn":
        del content[intact + 100 :]
    elif damage == "zeroed":
        content[intact:] = bytes(len(content) - intact)
    elif damage == "flipped":
        content[intact + 2000] ^= 0x10
    else:
        del content[intact:]
    wal.write_bytes(content)
    assert sealer.seal_once(_settings(image)) == 3
    journal.close()


def test_a_segment_that_cannot_be_read_is_kept_and_the_others_are_sealed(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    _fill(settings, [_entry(1)])
    bad = next(journal_dir(settings).glob("*/*.db"))
    bad.write_bytes(b"SQLite format 3\0" + random.Random(1).randbytes(8000))
    _fill(settings, [_entry(2)])
    assert sealer.seal_once(settings) == 1
    assert bad.with_suffix(".damaged").exists()
    assert sealer.seal_once(settings) == 0


def test_a_bit_that_flips_in_a_finished_segment_is_noticed(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    _fill(settings, [_entry(1, 20)])
    finished = next(journal_dir(settings).glob("*/*.db"))
    written, content = segment.read(finished), finished.read_bytes()
    (row,) = sqlite3.connect(finished).execute("SELECT packed FROM requests").fetchone()
    noticed = 0
    for place in range(len(row)):
        damaged = bytearray(content)
        damaged[content.index(row) + place] ^= 1 << place % 8
        finished.write_bytes(damaged)
        try:
            assert segment.read(finished) == written  # some bits of a frame's head say nothing
        except segment.SegmentDamagedError:
            noticed += 1
    assert noticed > len(row) - 5
    assert sealer.seal_once(settings) == 0
    assert finished.with_suffix(".damaged").exists()


def test_a_group_of_several_rows_is_sealed_in_its_order(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    journal = _journal(settings)
    entries = [_entry(n, 5_000) for n in range(5)]
    assert len(entries[0].body) < 1024 * 1024 < 2 * len(entries[0].body)
    journal.put(entries, [], 0)
    journal.commit()
    journal.close()
    (finished,) = journal_dir(settings).glob("*/*.db")
    assert sqlite3.connect(finished).execute("SELECT count(*) FROM requests").fetchone() == (3,)
    assert segment.read(finished) == (entries, [])


def test_a_segment_removed_while_sealing_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path)
    _fill(settings, [_entry(1)])
    _fill(settings, [_entry(2)])
    gone = min(journal_dir(settings).glob("*/*.db"))
    real = segment.read

    def read(path: Path) -> tuple[list[Entry], list[Refusal]]:
        if path == gone:
            gone.unlink()
        return real(path)

    monkeypatch.setattr(segment, "read", read)
    assert sealer.seal_once(settings) == 1


def test_fsyncs_of_every_file_and_folder_come_before_the_segment_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path)
    _fill(settings, [_entry(1)], refusals=1)
    sealer.Lake(settings)
    steps: list[tuple[str, str]] = []
    fsync, unlink = os.fsync, os.unlink

    def seen_fsync(descriptor: int) -> None:
        steps.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def seen_unlink(path: str, *args: object, **kwargs: object) -> None:
        steps.append(("unlink", str(path)))
        unlink(path)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "unlink", seen_unlink)
    sealer.seal_once(settings)
    segment_gone = next(at for at, (what, path) in enumerate(steps) if what == "unlink" and path.endswith(".db"))
    synced = [path for what, path in steps[:segment_gone] if what == "fsync"]
    assert sum("_tmp/" in path for path in synced) == 2  # a file of each table
    for table in ("events", "rejects"):
        day = next((settings.lake_dir / table).glob("event_date=*"))
        log = settings.lake_dir / table / "_delta_log"
        assert {str(day), str(day.parent), str(settings.lake_dir), str(log)} <= set(synced)
        assert {str(entry) for entry in log.glob("*.json")} <= set(synced)


def test_an_id_of_a_position_is_a_uuid(tmp_path: Path) -> None:
    base = derived_base(b"x", b"")
    ids = {event_id(base, position) for position in range(5000)}
    assert len(ids) == 5000
    assert all(len(name) == 36 and name[14] == "8" for name in ids)
    assert event_id(uuid7_base(), 4999)[14] == "7"


def _send(url: str, worker: int, stop: threading.Event, acknowledged: dict[str, int]) -> None:
    client = httpx.Client(base_url=url, timeout=10, trust_env=False)
    running = Service(Path("unused"), 0)
    for n in itertools.count():
        if stop.is_set():
            return
        names = [f"{worker}-{n}-{i}" for i in range(3)]
        body = json.dumps([progression(f"player_{worker}", eventId=name) for name in names]).encode()
        try:
            response = client.post("/events/batch", content=body, headers=running.headers(body))
        except httpx.TransportError:
            time.sleep(0.01)
            continue
        if response.status_code == 202:
            acknowledged.update(dict.fromkeys(names, n))


def test_kill_9_under_load_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    kills = int(os.environ.get("FAIRBOARD_TEST_KILLS", "8"))
    port, chance = free_port(), random.Random(4)
    acknowledged: dict[str, int] = {}
    stop = threading.Event()
    threads: list[threading.Thread] = []
    with service(tmp_path / "data", workers=2, port=port, FAIRBOARD_SEAL_AFTER_S="0.3") as running:
        for worker in range(4):
            threads.append(threading.Thread(target=_send, args=(running.url, worker, stop, acknowledged), daemon=True))
            threads[-1].start()
        for _ in range(kills):
            before = len(acknowledged)
            wait_until(lambda before=before: len(acknowledged) > before + chance.randrange(300), "events are accepted")
            children = psutil.Process(running.process.pid).children()
            while not children:  # both workers were killed a moment ago
                children = psutil.Process(running.process.pid).children()
            chance.choice(children).kill()
            if chance.random() < 0.3:
                os.kill(running.process.pid, signal.SIGKILL)
                running.process.wait()
                wait_until(lambda children=children: not any(_alive(p) for p in children), "the orphans end")
                running.start()
        stop.set()
        for thread in threads:
            thread.join()
        running.stop()
        sealed = running.events()["event_id"].to_list()
        assert set(acknowledged) <= set(sealed)
        assert len(acknowledged) > 100


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_sigterm_answers_what_has_begun(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    stop = threading.Event()
    with service(tmp_path / "data", FAIRBOARD_SEAL_AFTER_S="3600") as running:
        threads = [threading.Thread(target=_send, args=(running.url, n, stop, acknowledged)) for n in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 200, "events are accepted")
        assert running.stop() == 0
        stop.set()
        for thread in threads:
            thread.join()
        assert sorted(running.events()["event_id"]) == sorted(acknowledged)


def test_below_the_disk_floor_it_refuses_says_why_and_recovers(tmp_path: Path) -> None:
    free_mb = shutil.disk_usage(tmp_path).free // 2**20
    with service(tmp_path / "data", FAIRBOARD_DISK_FLOOR_MB=str(free_mb * 2)) as running:
        refused = running.post("/events", json.dumps(progression()).encode())
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        ready = running.http.get("/readyz")
        assert ready.status_code == 503
        assert "disk" in ready.json()["journal"]
        assert running.http.get("/healthz").status_code == 200


def test_when_the_sealer_is_behind_it_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    with service(tmp_path / "data", FAIRBOARD_JOURNAL_LIMIT_MB="2") as running:
        ballast = tmp_path / "data" / "journal" / "000" / "ballast"
        ballast.write_bytes(bytes(3 * 2**20))
        body = json.dumps(progression()).encode()
        wait_until(lambda: running.post("/events", body).status_code == 503, "it refuses")
        assert "behind" in running.http.get("/readyz").json()["journal"]
        ballast.unlink()
        wait_until(lambda: running.post("/events", body).status_code == 202, "it accepts again")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a small file system")
def test_a_full_disk_is_a_503_and_what_was_accepted_is_safe(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let tests mount")
    try:
        _fill_the_disk(small / "data")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def _fill_the_disk(folder: Path) -> None:
    settings = {"FAIRBOARD_DISK_FLOOR_MB": "0", "FAIRBOARD_SEAL_AFTER_S": "3600", "FAIRBOARD_LAKE_URL": str(folder / "lake")}
    with service(folder, **settings) as running:
        accepted = 0
        body = json.dumps([progression(padding=os.urandom(250).hex()) for _ in range(500)]).encode()
        for _ in range(400):
            status = running.post("/events/batch", body).status_code
            if status == 503:
                break
            accepted += 500
        assert status == 503
        assert accepted > 1000
        (running.folder.parent / "unused").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=200m", str(folder.parent)], check=True)
        wait_until(lambda: running.post("/events/batch", body).status_code == 202, "it accepts again")
        running.stop()
        assert running.events().height >= accepted + 500


def test_a_failed_fsync_stops_the_journal_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FailingConnection:
        in_transaction = True

        def commit(self) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        def execute(self, _sql: str) -> None:
            self.commit()

    journal = _journal(_settings(tmp_path))
    journal.put([_entry(1)], [], 100)
    journal.commit()
    real = journal._connection  # noqa: SLF001
    monkeypatch.setattr(journal, "_connection", FailingConnection())
    with pytest.raises(JournalBrokenError, match="restart the worker"):
        journal.commit()
    monkeypatch.setattr(journal, "_connection", real)
    journal.close()
    assert sealer.seal_once(_settings(tmp_path)) == 1


FAILING_FSYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int fails(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || access(getenv("FSYNC_FAILS"), F_OK)) return 0;
    path[length] = 0;
    if (!strstr(path, "-wal")) return 0;
    errno = EIO;
    return 1;
}
#define FAILING(name) \
    int name(int descriptor) { return fails(descriptor) ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, #name))(descriptor); }
FAILING(fsync)
FAILING(fdatasync)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the disk is made to fail through LD_PRELOAD")
def test_a_disk_that_fails_to_sync_stops_the_worker_and_what_was_answered_is_safe(tmp_path: Path) -> None:
    if not shutil.which("cc"):
        missing("a C compiler (cc), to make fsync fail")
    source, library, trigger = tmp_path / "fail.c", tmp_path / "fail.so", tmp_path / "fails"
    source.write_text(FAILING_FSYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    with service(tmp_path / "data", LD_PRELOAD=str(library), FSYNC_FAILS=str(trigger)) as running:
        body = json.dumps(progression(eventId="before")).encode()
        assert running.post("/events", body).status_code == 202
        trigger.touch()
        refused = running.post("/events", json.dumps(progression(eventId="while")).encode())
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        trigger.unlink()
        assert running.post("/events", body).status_code == 503
        assert "restart the worker" in running.http.get("/readyz").json()["journal"]
        running.stop()
        running.start()
        assert running.post("/events", json.dumps(progression(eventId="after")).encode()).status_code == 202
        running.stop()
        assert {"before", "after"} <= set(running.events()["event_id"])


def test_one_id_with_other_content_in_one_segment_is_rejected_and_a_copy_is_dropped(tmp_path: Path) -> None:
    ts = int(time.time())
    entries = [_entry(n, xp=xp, ts=ts, eventId="same") for n, xp in enumerate((1, 1, 2))]
    entries = [replace(entry, body=entry.body.replace(b"player_%d" % n, b"player")) for n, entry in enumerate(entries)]
    _fill(_settings(tmp_path), entries)
    sealer.seal_once(_settings(tmp_path))
    assert _lake(tmp_path).events()["delta_xp"].to_list() == [1]
    assert _lake(tmp_path).rejects()["event_id"].to_list() == ["same"]


def test_a_segment_that_cannot_be_finished_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path)
    journal = _journal(settings)
    journal.put([_entry(1)], [], 100)
    journal.commit()
    rename, failures = Path.rename, iter([True])

    def failing_once(path: Path, target: Path) -> Path:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing_once)
    journal.rotate()

    def finished() -> bool:
        journal.rotate_if_due(time.monotonic())
        return any(journal_dir(settings).glob("*/*.db"))

    wait_until(finished, "the segment is finished")
    journal.close()
    assert sealer.seal_once(settings) == 1
