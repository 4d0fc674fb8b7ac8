"""The lake in a folder, in S3 and in Azure Blob: what a place of files must do, its copies on this machine, and its faults."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from buckets import Emulator, FaultyLine, azure_server, busy, demand_rights, emulator, enter, s3, s3_client, s3_server, sound
from deltalake import DeltaTable, write_deltalake

from warehouse.embedded_redis import free_port
from warehouse.errors import SettingsError
from warehouse.lake.bucket import Bucket
from warehouse.lake.cache import HELD_S, Cache
from warehouse.lake.examination import examine_storage
from warehouse.lake.names import LakeFile
from warehouse.lake.opening import open_storage
from warehouse.lake.storage import DamagedFile, Folder, Storage
from warehouse.lake.trouble import BucketUnavailable, Kind
from warehouse.settings import Settings, load_settings

__all__ = ["azure_server", "emulator", "s3_server"]

BIG = 11 * 2**20 + 7  # three parts
DAY = "events/event_date=2026-03-02"


def lake_file(content: bytes, folder: str = DAY) -> LakeFile:
    digest = hashlib.sha256(content).hexdigest()
    return LakeFile(f"{folder}/segment--{digest}.parquet", len(content), 5, 0)


def put(storage: Storage, *contents: bytes, folder: str = DAY) -> list[LakeFile]:
    files = [lake_file(content, folder) for content in contents]
    sources = {file.name: storage.scratch / f"{number}.new" for number, file in enumerate(files)}
    for content, source in zip(contents, sources.values(), strict=True):
        source.write_bytes(content)
    storage.put(sources)
    assert not any(source.exists() for source in sources.values())
    return files


def bucket(emulator: Emulator, folder: Path, patience_s: float = 20, cache_bytes: int = 2**30) -> Bucket:
    return Bucket(emulator.url, folder, cache_bytes, patience_s)


class Place:
    """A storage, and what others do in it: every call of `storage` is a process that has seen nothing of it."""

    def __init__(self, kind: str, emulator: Emulator | None, folder: Path) -> None:
        self.kind, self._emulator, self._folder, self._opened = kind, emulator, folder, 0

    def storage(self) -> Storage:
        self._opened += 1
        if self._emulator:
            return bucket(self._emulator, self._folder / f"cache-{self._opened}")
        return Folder(self._folder / "lake")

    def write(self, name: str, content: bytes) -> None:
        if self._emulator:
            self._emulator.write(name, content)
        else:
            (self._folder / "lake" / name).write_bytes(content)


@pytest.fixture(params=["folder", "s3", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return Place("folder", None, tmp_path)
    found: Emulator = request.getfixturevalue(f"{request.param}_server").below(f"lake/{tmp_path.name}")
    enter(found, monkeypatch)
    return Place(request.param, found, tmp_path)


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.storage()


class TestEveryPlace:
    def test_what_is_put_is_read_whole_under_its_name(self, place: Place) -> None:
        contents = [os.urandom(BIG), b"", *(os.urandom(1000) for _ in range(40))]
        files = put(place.storage(), *contents)

        paths = place.storage().paths(files)

        assert [path.read_bytes() for path in paths] == contents
        assert all(str(path).endswith(file.name) for path, file in zip(paths, files, strict=True))

    @pytest.mark.parametrize("damage", [lambda content: content[:-1] + b"!", lambda content: content[:-3], lambda _: b""])
    @pytest.mark.parametrize("size", [100, BIG])
    def test_damage_is_found_before_anything_is_read(self, place: Place, damage: Callable[[bytes], bytes], size: int) -> None:
        sound, damaged = put(place.storage(), b"sound", content := os.urandom(size))
        place.write(damaged.name, damage(content))

        with pytest.raises(DamagedFile, match=re.escape(damaged.name)) as raised:
            place.storage().paths([sound, damaged])

        assert raised.value.file == damaged
        place.storage().examine(sound)
        with pytest.raises(DamagedFile, match=re.escape(damaged.name)):
            place.storage().examine(damaged)

    def test_what_was_read_whole_is_examined_where_it_is_kept(self, place: Place) -> None:
        storage = place.storage()
        [file] = put(storage, b"content")
        storage.paths([file])
        place.write(file.name, b"damaged")
        with pytest.raises(DamagedFile):
            storage.examine(file)

    def test_a_damaged_file_is_healed_by_putting_it_again(self, place: Place) -> None:
        [file] = put(place.storage(), b"content")
        place.write(file.name, b"damaged")
        put(place.storage(), b"content")

        [path] = place.storage().paths([file])

        assert path.read_bytes() == b"content"

    @pytest.mark.parametrize("size", [100, BIG])
    def test_a_file_that_is_gone_is_named(self, storage: Storage, size: int) -> None:
        file = lake_file(bytes(size))
        with pytest.raises(DamagedFile, match="is missing, with 5 rows"):
            storage.paths([file])

    def test_of_many_who_create_a_file_one_does(self, storage: Storage) -> None:
        together = threading.Barrier(8)

        def create(n: int) -> bool:
            together.wait()
            return storage.create("identity/lake.json", b"%d" % n)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))

        assert sorted(won) == [False] * 7 + [True]
        assert storage.read("identity/lake.json") == b"%d" % won.index(True)
        assert not storage.create("identity/lake.json", b"%d" % won.index(True))

    def test_a_small_file_is_replaced_and_read(self, storage: Storage) -> None:
        assert storage.read("lake.json") is None
        storage.replace("lake.json", b"1")
        storage.replace("lake.json", b"2")
        assert storage.read("lake.json") == b"2"

    def test_a_listing_has_a_folder_and_what_is_below(self, storage: Storage) -> None:
        names = ["a/one", "a/b/two", "a/k=2026%2F1/three, four"]
        for name in [*names, "ab/other", "b"]:
            storage.replace(name, b"xyz")

        found = {stored.name: stored for stored in storage.list("a")}

        assert sorted(found) == sorted(names)
        assert all(stored.size == 3 and abs(stored.modified - time.time()) < 60 for stored in found.values())
        assert list(storage.list("nothing")) == []

    def test_what_is_moved_has_its_new_name_alone(self, storage: Storage) -> None:
        storage.replace("a/k=1%2F2/old", b"moved")
        storage.replace("b/new", b"was there")

        assert storage.move("a/k=1%2F2/old", "b/new")
        assert not storage.move("a/k=1%2F2/old", "b/new")

        assert storage.read("b/new") == b"moved"
        assert storage.read("a/k=1%2F2/old") is None

    def test_what_is_deleted_is_gone_and_what_was_gone_no_matter(self, storage: Storage) -> None:
        for name in ("a/1", "a/2", "a/3"):
            storage.replace(name, b"x")

        storage.delete(["a/1", "a/gone", "a/3"])

        assert [stored.name for stored in storage.list("a")] == ["a/2"]

    def test_delta_finds_it_and_of_concurrent_commits_none_is_lost(self, storage: Storage) -> None:
        url, options = f"{storage.url}/t", dict(storage.options)
        write_deltalake(url, pa.table({"n": [-1]}), storage_options=options)

        def append(n: int) -> None:
            write_deltalake(url, pa.table({"n": [n]}), mode="append", storage_options=options)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(append, range(12)))

        table = DeltaTable(url, storage_options=options)
        assert table.version() == 12
        assert sorted(row["n"] for row in table.to_pyarrow_table().to_pylist()) == list(range(-1, 12))
        log = sorted(stored.name for stored in storage.list("t/_delta_log") if stored.name.endswith(".json"))
        assert log == [f"t/_delta_log/{version:020}.json" for version in range(13)]
        assert not storage.create(log[-1], b"another commit of this version")

    def test_doctor_finds_it_well_and_leaves_nothing(self, storage: Storage) -> None:
        assert examine_storage(storage).kind is None
        assert list(storage.list("_doctor")) == []


class TestCopies:
    """The cache. `fetched` is what was asked of the bucket."""

    KIB = 100

    @pytest.fixture
    def contents(self) -> dict[str, bytes]:
        contents = [bytes([n]) * self.KIB * 1024 for n in range(12)]
        return {lake_file(content).name: content for content in contents}

    @pytest.fixture
    def cache(self, tmp_path: Path, contents: dict[str, bytes], fetched: list[str]) -> Cache:
        return self.opened(tmp_path, contents, fetched)

    @pytest.fixture
    def fetched(self) -> list[str]:
        return []

    def opened(self, folder: Path, contents: dict[str, bytes], fetched: list[str]) -> Cache:
        def fetch(file: LakeFile, path: Path) -> None:
            fetched.append(file.name)
            path.write_bytes(contents[file.name])

        return Cache(folder, 5 * self.KIB * 1024, fetch)

    def age(self, path: Path, s: float) -> None:
        os.utime(path, ns=(time.time_ns() - int(s * 1e9), path.stat().st_mtime_ns))  # unchanged: it is not looked at again

    def kept(self, cache: Cache) -> list[bool]:
        return [(cache.folder / lake_file(bytes([n]) * self.KIB * 1024).name).exists() for n in range(12)]

    def test_what_was_used_longest_ago_goes_when_there_is_no_room(self, cache: Cache, contents: dict[str, bytes]) -> None:
        files = [lake_file(content) for content in contents.values()]
        for n, path in enumerate(cache.paths(files[:4])):
            self.age(path, HELD_S + 100 - n)
        cache.paths([files[0]])  # used again: now 1 is the oldest

        cache.paths([files[4]])

        assert self.kept(cache)[:5] == [True, False, True, True, True]

    def test_it_keeps_its_bound_whatever_is_read(self, cache: Cache, contents: dict[str, bytes]) -> None:
        for content in list(contents.values()) * 2:
            [path] = cache.paths([lake_file(content)])
            assert path.read_bytes() == content
            self.age(path, HELD_S + 1)
            assert sum(self.kept(cache)) <= 5

    def test_it_keeps_its_bound_whatever_is_written(self, cache: Cache, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            source = cache.scratch / "new"
            source.write_bytes(content)
            cache.adopt(name, source)
            self.age(cache.folder / name, HELD_S + 1)
            assert sum(self.kept(cache)) <= 5

    def test_what_a_query_may_hold_stays_beyond_the_bound(self, cache: Cache, contents: dict[str, bytes]) -> None:
        paths = cache.paths([lake_file(content) for content in contents.values()])
        assert [path.read_bytes() for path in paths] == list(contents.values())

    def test_what_is_there_is_not_fetched_again(self, cache: Cache, contents: dict[str, bytes], fetched: list[str]) -> None:
        files = [lake_file(content) for content in list(contents.values())[:3]]
        cache.paths(files)
        cache.paths(files)
        self.opened(cache.folder, contents, fetched).paths(files)
        assert sorted(fetched) == sorted(file.name for file in files)

    def test_a_damaged_copy_is_fetched_again(self, cache: Cache, contents: dict[str, bytes], fetched: list[str]) -> None:
        file = lake_file(next(iter(contents.values())))
        [path] = cache.paths([file])
        path.write_bytes(b"damaged")

        [path] = self.opened(cache.folder, contents, fetched).paths([file])

        assert path.read_bytes() == contents[file.name]

    def test_what_is_forgotten_is_gone_at_once(self, cache: Cache, contents: dict[str, bytes]) -> None:
        files = [lake_file(content) for content in list(contents.values())[:3]]
        cache.paths(files)
        cache.forget([files[1].name, "never/there"])
        assert self.kept(cache)[:3] == [True, False, True]

    def test_what_killed_processes_left_goes(self, cache: Cache, contents: dict[str, bytes]) -> None:
        left, being_written = cache.scratch / "fetch.1.left", cache.scratch / "fetch.2.new"
        for path in (left, being_written):
            path.write_bytes(b"half")
        os.utime(left, (0, 0))
        cache.paths([lake_file(next(iter(contents.values())))])
        assert (left.exists(), being_written.exists()) == (False, True)


READ = """
import sys
from pathlib import Path
from warehouse.lake.bucket import Bucket
from warehouse.lake.names import LakeFile
storage = Bucket(sys.argv[1], Path(sys.argv[2]), 2**30)
print("ready", flush=True)
sys.stdin.readline()
files = [LakeFile(name, int(size), 5, 0) for name, _, size in (line.split() for line in sys.stdin.read().splitlines())]
storage.paths(files)
"""


class TestBucket:
    def test_processes_share_the_copies_and_fetch_at_once(self, emulator: Emulator, tmp_path: Path) -> None:
        files = put(bucket(emulator, tmp_path / "writer"), *(os.urandom(20_000) for _ in range(40)), os.urandom(BIG))
        command = [sys.executable, "-c", READ, emulator.url, str(tmp_path / "shared")]
        readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        for reader in readers:
            assert reader.stdout
            assert reader.stdout.readline() == "ready\n"
        asked = "\n" + "\n".join(f"{file.name} - {file.size}" for file in files)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda reader: reader.communicate(asked), readers))

        assert [reader.returncode for reader in readers] == [0, 0, 0]
        shared = tmp_path / "shared"
        assert all(hashlib.sha256((shared / file.name).read_bytes()).hexdigest() == file.sha256 for file in files)
        assert [path.name for path in (shared / "_tmp").iterdir()] == ["lock"]

    def test_what_this_machine_wrote_it_does_not_fetch(self, emulator: Emulator, tmp_path: Path, monkeypatch: Any) -> None:
        with FaultyLine(emulator) as line:
            enter(emulator.through(line), monkeypatch)
            storage = bucket(emulator, tmp_path)
            storage.paths(put(storage, b"one", os.urandom(BIG)))
            assert not [request for request in line.requests if request.startswith("GET")]

    def test_what_is_deleted_is_not_in_the_copies(self, emulator: Emulator, tmp_path: Path) -> None:
        storage = bucket(emulator, tmp_path)
        [file] = put(storage, b"of a player who left")
        [path] = storage.paths([file])
        storage.delete([file.name])
        assert not path.exists()

    def test_copies_of_what_another_machine_deleted_go(self, emulator: Emulator, tmp_path: Path) -> None:
        here, there = bucket(emulator, tmp_path / "here"), bucket(emulator, tmp_path / "there")
        files = put(there, b"kept", b"deleted", b"deleted, but just now")
        paths = here.paths(files)
        for path in paths[:2]:
            os.utime(path, (time.time() - HELD_S - 1, path.stat().st_mtime))
        there.delete([files[1].name, files[2].name])

        here.tidy_copies()

        assert [path.exists() for path in paths] == [True, False, True], "a query may hold the third"

    def test_other_clients_read_it(self, s3_server: Emulator, tmp_path: Path, monkeypatch: Any) -> None:
        place = s3_server.below(tmp_path.name)
        enter(place, monkeypatch)
        [file] = put(bucket(place, tmp_path), content := os.urandom(BIG), folder="boards/season=a%2Fb")
        answer = s3_client(place).get_object(Bucket="fairboard", Key=f"{tmp_path.name}/{file.name}")
        assert answer["Body"].read() == content


@pytest.fixture
def line(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLine]:
    with FaultyLine(emulator) as line:
        enter(emulator.through(line), monkeypatch)
        yield line


PATIENCE_S = 0.8
DOINGS: dict[str, Callable[[Bucket, LakeFile], Any]] = {
    "paths": lambda bucket, file: bucket.paths([file]),
    "read": lambda bucket, _: bucket.read("small"),
    "create": lambda bucket, _: bucket.create("new", b"x"),
    "replace": lambda bucket, _: bucket.replace("small", b"x"),
    "list": lambda bucket, _: list(bucket.list("events")),
    "move": lambda bucket, file: bucket.move(file.name, "elsewhere"),
    "delete": lambda bucket, file: bucket.delete([file.name]),
    "examine": lambda bucket, file: bucket.examine(file),
}


class TestFaults:
    @pytest.mark.parametrize("fault", ["busy", "silent", "closed"])
    def test_a_bucket_that_is_away_ends_every_doing_in_time_and_says_so(
        self, emulator: Emulator, line: FaultyLine, tmp_path: Path, fault: str
    ) -> None:
        files = put(bucket(emulator, tmp_path / "writer"), os.urandom(1000), os.urandom(BIG))
        storage = bucket(emulator, tmp_path / "cache", PATIENCE_S)
        line.fault = {"busy": busy, "silent": line.silent, "closed": lambda *_: None}[fault]

        def ends(doing: Callable[[Bucket, LakeFile], Any]) -> float:
            began = time.monotonic()
            with pytest.raises(BucketUnavailable, match="events stay in the journal") as raised:
                doing(storage, files[0])
            assert raised.value.trouble.kind == {"busy": Kind.BUSY}.get(fault, Kind.UNREACHABLE)
            return time.monotonic() - began

        with ThreadPoolExecutor(len(DOINGS)) as pool:
            took_s = dict(zip(DOINGS, pool.map(ends, DOINGS.values()), strict=True))

        assert max(took_s.values()) < 2 * PATIENCE_S + 5, took_s
        with pytest.raises(BucketUnavailable):
            storage.paths([files[1]])
        line.fault = sound
        storage = bucket(emulator, tmp_path / "cache")
        assert storage.read("new") is None
        assert [path.stat().st_size for path in storage.paths(files)] == [1000, BIG]

    def test_files_that_could_not_be_put_stay_and_go_when_it_is_back(
        self, emulator: Emulator, line: FaultyLine, tmp_path: Path
    ) -> None:
        storage = bucket(emulator, tmp_path, PATIENCE_S)
        contents = [os.urandom(1000), os.urandom(BIG)]
        sources = {lake_file(content).name: storage.scratch / str(n) for n, content in enumerate(contents)}
        for content, source in zip(contents, sources.values(), strict=True):
            source.write_bytes(content)
        for fault in (busy, line.silent, lambda *_: None):
            line.fault = fault
            with pytest.raises(BucketUnavailable):
                storage.put(sources)
            assert [source.read_bytes() for source in sources.values()] == contents
        line.fault = sound
        storage = bucket(emulator, tmp_path)
        storage.put(sources)
        assert sorted(stored.size for stored in storage.list("events")) == [1000, BIG]

    def test_a_moment_of_refusals_is_waited_out(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        storage, refusals = bucket(emulator, tmp_path), iter(range(3))
        line.fault = lambda _method, _path, forward: busy() if next(refusals, None) is not None else forward()
        assert storage.create("new", b"mine")
        assert storage.read("new") == b"mine"

    def test_who_created_it_knows_so_although_the_answer_was_lost(
        self, emulator: Emulator, line: FaultyLine, tmp_path: Path
    ) -> None:
        storage, lost = bucket(emulator, tmp_path), iter([1])
        line.fault = lambda _method, _path, forward: (forward(), None)[next(lost, 0)]
        assert storage.create("new", b"mine")
        assert not storage.create("new", b"mine")

    def test_who_did_not_create_it_knows_so_too(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        storage, lost = bucket(emulator, tmp_path), iter([True])
        storage.replace("new", b"another's")
        line.fault = lambda _method, _path, forward: None if next(lost, False) else forward()
        assert not storage.create("new", b"mine")

    def test_a_bucket_that_trickles_is_given_up(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        [file] = put(bucket(emulator, tmp_path / "writer"), os.urandom(BIG))
        line.bytes_per_s = 50_000
        began = time.monotonic()
        with pytest.raises(BucketUnavailable):
            bucket(emulator, tmp_path / "cache", PATIENCE_S).paths([file])
        assert time.monotonic() - began < 2 * PATIENCE_S + 5

    def test_a_slow_answer_is_waited_for(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        [file] = put(bucket(emulator, tmp_path / "writer"), content := os.urandom(50_000))
        line.bytes_per_s = 50_000
        [path] = bucket(emulator, tmp_path / "cache").paths([file])
        assert path.read_bytes() == content

    @pytest.mark.parametrize("fault", ["busy", "silent"])
    def test_delta_is_given_up_in_time_too(self, emulator: Emulator, line: FaultyLine, tmp_path: Path, fault: str) -> None:
        storage = bucket(emulator, tmp_path, PATIENCE_S)
        line.fault = {"busy": busy, "silent": line.silent}[fault]
        began = time.monotonic()
        with pytest.raises(BucketUnavailable), storage.guarded():
            DeltaTable(f"{storage.url}/t", storage_options=dict(storage.options))
        assert time.monotonic() - began < 2 * PATIENCE_S + 5

    def test_a_bucket_that_is_not_there_is_no_empty_lake(self, emulator: Emulator, tmp_path: Path) -> None:
        storage = Bucket(emulator.url.replace("fairboard", "fairbroad"), tmp_path, 2**30)
        file = lake_file(b"x")
        for doing in DOINGS.values():
            with pytest.raises(BucketUnavailable, match="make the bucket fairbroad, or correct FAIRBOARD_LAKE_URL"):
                doing(storage, file)


class TestDoctor:
    def found(self, emulator: Emulator, folder: Path) -> Any:
        return examine_storage(bucket(emulator, folder, PATIENCE_S))

    def test_a_wrong_bucket(self, emulator: Emulator, tmp_path: Path) -> None:
        found = examine_storage(Bucket(emulator.url.replace("fairboard", "fairbroad"), tmp_path, 2**30))
        assert found.kind == Kind.BUCKET
        assert "fairbroad" in found.todo

    def test_an_unreachable_one(self, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        enter(replace(emulator, port=free_port()), monkeypatch)
        assert self.found(emulator, tmp_path).kind == Kind.UNREACHABLE

    def test_an_overloaded_one(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        line.fault = busy
        assert self.found(emulator, tmp_path).kind == Kind.BUSY

    def test_an_insecure_line(self, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        prefix = {"s3": "AWS", "az": "AZURE"}[emulator.scheme]
        monkeypatch.delenv(f"{prefix}_ALLOW_HTTP")
        found = self.found(emulator, tmp_path)
        assert found.kind == Kind.INSECURE
        assert f"{prefix}_ALLOW_HTTP=true" in found.todo

    def test_a_wrong_clock(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        code = {"s3": "RequestTimeTooSkewed", "az": "AuthenticationFailed"}[emulator.scheme]
        detail = "<AuthenticationErrorDetail>Request date header too old: 'Sun, 06 Sep 2009'</AuthenticationErrorDetail>"
        line.fault = lambda *_: (403, f"<Error><Code>{code}</Code><Message>Refused.</Message>{detail}</Error>".encode())
        found = self.found(emulator, tmp_path)
        assert found.kind == Kind.CLOCK
        assert "set the clock" in found.todo

    def test_a_clock_that_is_not_so_wrong_as_to_be_refused(
        self, s3_server: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def of_another_day(_method: str, _path: str, forward: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
            status, content = forward()
            return status, re.sub(rb"<LastModified>\d{4}-..-..", b"<LastModified>2020-01-01", content)

        with FaultyLine(s3_server) as line:
            place = s3_server.below(tmp_path.name).through(line)
            enter(place, monkeypatch)
            line.fault = of_another_day
            assert self.found(place, tmp_path).kind == Kind.CLOCK

    @pytest.mark.parametrize("emulator", ["s3"], indirect=True)  # Azure's signatures cover the header
    def test_one_without_conditional_writes(self, emulator: Emulator, line: FaultyLine, tmp_path: Path) -> None:
        line.fault = lambda _method, _path, forward: forward(without="if-none-match")
        found = self.found(emulator, tmp_path)
        assert found.kind == Kind.CONDITIONS
        assert "lose commits" in found.todo

    @pytest.mark.parametrize("emulator", ["azure"], indirect=True)  # the next has S3's
    def test_a_wrong_key(self, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "A" * 84 + "AAA=")
        assert self.found(emulator, tmp_path).kind == Kind.CREDENTIALS_WRONG

    def test_each_missing_right_by_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with s3() as server:
            place = demand_rights(server, "s3:GetObject", "s3:ListBucket")
            enter(place, monkeypatch)
            found = self.found(place, tmp_path / "cache")
            assert found.kind == Kind.RIGHTS
            assert "no right to write, delete" in found.found
            assert "s3:PutObject" in found.todo
            enter(replace(place, more={"AWS_ACCESS_KEY_ID": "unknown"}), monkeypatch)
            assert self.found(place, tmp_path / "cache").kind == Kind.CREDENTIALS_WRONG

    def test_no_credentials(self, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
            monkeypatch.delenv(name, raising=False)
        with FaultyLine(emulator) as metadata:  # where a cloud's machine would find an identity
            metadata.fault = lambda *_: (404, b"")
            here = f"http://127.0.0.1:{metadata.port}"
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", here)
            monkeypatch.setenv("AZURE_MSI_ENDPOINT", f"{here}/metadata/identity/oauth2/token")
            found = self.found(emulator, tmp_path)
        assert found.kind == Kind.CREDENTIALS_MISSING
        assert found.todo.startswith("set A")


class TestSettings:
    @pytest.mark.parametrize(
        "url",
        [
            "s3://bucket",
            "s3://bucket/a/b",
            "az://container/lake/",
            "gs://bucket/lake",
            "abfss://c@account.dfs.core.windows.net/lake",
        ],
    )
    def test_a_bucket_is_a_lake(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAIRBOARD_LAKE_URL", url)
        settings = load_settings()
        assert settings.lake_bucket == url
        with pytest.raises(SettingsError, match="this one is in"):
            _ = settings.lake_dir

    @pytest.mark.parametrize(
        "url", ["http://bucket/lake", "s3://", "s3:///lake", "s3://bucket/a b", "hdfs://x/y", "abfss://c/lake"]
    )
    def test_another_place_is_refused(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAIRBOARD_LAKE_URL", url)
        with pytest.raises(SettingsError, match="is no place that the lake can be"):
            load_settings()

    def test_the_lake_is_opened_where_the_settings_say(self, emulator: Emulator, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, lake_url=emulator.url, _env_file=None)
        open_storage(settings).replace("x", b"y")
        assert bucket(emulator, tmp_path / "other").read("x") == b"y"
        folder = open_storage(Settings(data_dir=tmp_path, lake_url=f"file://{tmp_path}/here", _env_file=None))
        folder.replace("x", b"z")
        assert (tmp_path / "here/x").read_bytes() == b"z"
