"""The whole product on a lake in a bucket, through its front doors; and what nobody may notice of a bucket that fails."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import io
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from buckets import Emulator, FaultyLine, azure_server, busy, demand_rights, emulator, enter, s3, s3_server, sound
from conftest import REPO, Fairboard
from ingest_fixtures import Service, service, wait_until
from lake_fixtures import contents, damages, land_game
from postgres_fixtures import postgres_url
from streamlit.testing.v1 import AppTest

from ingest_api.ids import derived_base
from ingest_api.journal import OPEN, READY, Journal, Slot, journal_dir
from ingest_api.segment import Entry, Refusal
from warehouse.calendar import Calendar
from warehouse.errors import StoreUnavailable
from warehouse.lake.bucket import Bucket
from warehouse.lake.leases import AdvisoryLocks, Leases
from warehouse.settings import Settings, load_settings

LEAVER = "mallory-who-leaves"
HOURS = 12 - datetime.now(UTC).hour
ZONE = f"Etc/GMT{-HOURS:+}"  # where it is about noon, so that no test runs over a midnight; POSIX counts them westward


def event(player: str, n: int, xp: int, days_ago: int = 0) -> dict[str, Any]:
    ts = int(time.time()) - 600 + n - 86_400 * days_ago
    payload = {"deltaXp": xp, "activity": "quest"}
    return {"eventId": f"{player}-{days_ago}-{n}", "type": "progression", "playerId": player, "ts": ts, "payload": payload}


def today() -> date:
    return Calendar.of(Settings(timezone=ZONE, _env_file=None)).day_of(int(time.time()))


def objects(place: Emulator, folder: Path) -> dict[str, bytes]:
    """Whatever lies in the bucket, by name."""
    bucket = Bucket(place.url, folder, 2**30)
    return {one.name: bucket.read(one.name) or b"" for one in list(bucket.list(""))}


def naming(player: str, contents: dict[str, bytes]) -> list[str]:
    """The names of those that hold the player, in a column or anywhere else."""
    found = []
    for name, content in contents.items():
        rows = str(pq.read_table(io.BytesIO(content)).to_pylist()) if name.endswith(".parquet") else ""
        if player.encode() in content or player in rows:
            found.append(name)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def send(running: Service, events: list[dict[str, Any]]) -> None:
    with running.client() as client:
        answer = client.post_batch(events)
    assert (answer.accepted, answer.rejected) == (len(events), 0)


def waiting(folder: Path) -> list[Path]:
    """The segments of a machine's journal that are not in the lake yet."""
    return [path for path in folder.glob("journal/*/*") if path.suffix != ".lock" and path.name.endswith((OPEN, READY))]


def machine(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command on a machine of its own."""
    command = [str(Path(sys.executable).parent / "fairboard"), *arguments]
    environment = os.environ | {"FAIRBOARD_DATA_DIR": str(folder)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPO)


def asked(fairboard: Fairboard, sql: str) -> list[Any]:
    """The one row of an answer."""
    [row] = msgspec.json.decode(fairboard("sql", sql, "--json").stdout)
    return list(row.values())


SAME = ("player_days", "progression", "leaderboards", "fairness", "daily_metrics")


def derived(fairboard: Fairboard) -> dict[str, Any]:
    """Every row of some tables."""
    return {name: json.loads(fairboard("sql", f"SELECT * FROM {name} ORDER BY ALL", "--json").stdout) for name in SAME}


def assert_same_as_computed_anew(
    fairboard: Fairboard, events: list[dict[str, Any]], days: tuple[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The tables are those of a lake in a folder where the same events were imported and computed once."""
    found = derived(fairboard)
    with monkeypatch.context() as alone:
        alone.setenv("FAIRBOARD_DATA_DIR", str(folder))
        alone.delenv("FAIRBOARD_LAKE_URL")
        alone.delenv("FAIRBOARD_DATABASE_URL", raising=False)
        folder.mkdir()
        file = folder / "events.ndjson"
        file.write_bytes(b"\n".join(map(msgspec.json.encode, events)))
        fairboard("import", str(file))
        fairboard("materialize", "--from", days[0], "--to", days[1])
        assert found == derived(fairboard)


@pytest.fixture
def deployment(emulator: Emulator, redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One in the environment, with a bucket and a Redis."""
    monkeypatch.setenv("FAIRBOARD_LAKE_URL", emulator.url)
    monkeypatch.setenv("FAIRBOARD_TIMEZONE", ZONE)
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    settings = load_settings()
    settings.data_dir.mkdir()
    return settings


def test_events_become_boards_answers_and_pages_and_are_forgotten_and_restored(
    deployment: Settings, emulator: Emulator, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, last = str(today()), str(today())
    sent = [event(player, n, xp) for player, xp in {"ada": 50, "grace": 30, LEAVER: 90}.items() for n in range(3)]
    with service(deployment.data_dir) as running:
        send(running, sent)
        running.post("/events", msgspec.json.encode(event(LEAVER, 9, 1) | {"ts": 1.5}))  # a dead letter
        wait_until(lambda: running.events().height == len(sent), "everything is sealed into the bucket")
        fairboard("materialize", "--from", first, "--to", last)
        fairboard("publish", "--from", first, "--to", last)

        board = running.http.get("/leaderboard", params={"window": "daily"})
        assert [(one["playerId"], one["score"]) for one in board.json()["entries"]] == [
            (LEAVER, 270),
            ("ada", 150),
            ("grace", 90),
        ]
        assert running.http.get("/players/ada/progress").json()["xp"] == 150

    assert msgspec.json.decode(fairboard("sql", "SELECT sum(xp) AS xp FROM player_days", "--json").stdout) == [{"xp": 510}]
    fairboard("verify")
    app = AppTest.from_file(REPO / "dashboard/app.py", default_timeout=60).run()
    app.switch_page("app_pages/leaderboards.py").run()
    assert (list(app.exception), list(app.error)) == ([], [])
    assert any(LEAVER in list(grid.value["player_id"]) for grid in app.dataframe if "player_id" in grid.value)

    assert naming(LEAVER, objects(emulator, tmp_path / "look"))
    copy = next((deployment.data_dir / "cache/player_days").rglob("*.parquet"))
    shutil.copy(copy, copy.with_name("of-what-another-machine-vacuumed.parquet"))
    fairboard("forget", LEAVER, "--yes")
    assert naming(LEAVER, objects(emulator, tmp_path / "look")) == []
    assert naming(LEAVER, files(deployment.data_dir / "cache")) == []
    fairboard("verify")
    assert fairboard("stale").stdout == "Nothing is behind.\n"

    before = fairboard("leaderboard", "--window", "daily", "--json").stdout
    assert [one["playerId"] for one in msgspec.json.decode(before)["entries"]] == ["ada", "grace"]
    fairboard("backup", str(tmp_path / "backups"))
    monkeypatch.setenv("FAIRBOARD_LAKE_URL", f"{emulator.url}-restored")
    monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(tmp_path / "restored"))
    fairboard("restore", str(tmp_path / "backups"))
    assert fairboard("leaderboard", "--window", "daily", "--json").stdout == before
    fairboard("verify")


class TestManyMachines:
    """Each has a data folder of its own; they share the bucket, PostgreSQL and Redis alone."""

    @pytest.fixture
    def _shared(self, deployment: Settings, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG002
        with sa.create_engine(postgres_url).begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        monkeypatch.setenv("FAIRBOARD_DATABASE_URL", postgres_url)

    @pytest.mark.usefixtures("_shared")
    @pytest.mark.parametrize("emulator", ["s3"], indirect=True)
    def test_two_services_and_two_folds_at_once_make_what_one_makes(
        self, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        machines = [tmp_path / name for name in ("here", "there")]
        for folder in machines:
            folder.mkdir()
        events = [event(f"p{n % 5}", n, n + 1, days_ago) for n in range(40) for days_ago in range(3)]
        with service(machines[0]) as here, service(machines[1]) as there:
            for start in range(0, len(events), 30):
                send(here, events[start : start + 20])
                send(there, events[start + 10 : start + 30])  # half of what the other was sent, too
            wait_until(lambda: not waiting(machines[0]) and not waiting(machines[1]), "both have sealed")
            first, last = str(today() - timedelta(days=2)), str(today())
            folds = [machine(machines[0], "materialize", "--from", first, "--to", last),
                     machine(machines[1], "materialize", "--from", str(today() - timedelta(days=1)), "--to", last)]  # fmt: skip
            late = [event("late", n, 7) for n in range(5)]
            send(there, late)
            for fold in folds:
                stdout, stderr = fold.communicate(timeout=200)
                assert fold.returncode == 0, (stdout, stderr)
            wait_until(lambda: not waiting(machines[1]), "the late ones are sealed")
        fairboard("materialize", "--from", first, "--to", last)
        assert asked(fairboard, "SELECT count(*), count(DISTINCT event_id) FROM events") == [len(events) + len(late)] * 2
        assert asked(fairboard, "SELECT sum(xp) FROM player_days") == [sum(n + 1 for n in range(40)) * 3 + 35]
        assert_same_as_computed_anew(fairboard, events + late, (first, last), monkeypatch, tmp_path / "anew")
        fairboard("verify")


class TestLeasesOfPostgres:
    """What keeps two machines from folding the same table in vain."""

    @pytest.fixture
    def leases(self, postgres_url: str) -> Leases:
        return AdvisoryLocks(postgres_url)

    def test_one_at_a_time_and_the_next_when_it_is_free(self, leases: Leases, postgres_url: str) -> None:
        other = AdvisoryLocks(postgres_url)
        order: list[str] = []

        def wait_for_it() -> None:
            with other.hold("player_days"):
                order.append("second")

        with ThreadPoolExecutor(1) as pool:
            with leases.hold("player_days"):
                waiting = pool.submit(wait_for_it)
                with other.claim("player_days") as has, other.claim("progression") as has_another:
                    assert (has, has_another) == (False, True)
                time.sleep(0.3)
                order.append("first")
            waiting.result(30)
        assert order == ["first", "second"]
        with other.claim("player_days") as has:
            assert has

    def test_a_holder_that_is_killed_holds_nothing(self, leases: Leases, postgres_url: str) -> None:
        hold = (
            "import sys, time; from warehouse.lake.leases import AdvisoryLocks\n"
            "with AdvisoryLocks(sys.argv[1]).hold('player_days'):\n    print('held', flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", hold, postgres_url], stdout=subprocess.PIPE, cwd=REPO) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            with leases.claim("player_days") as has:
                assert not has
            holder.kill()
        with leases.hold("player_days"):
            pass

    def test_a_database_that_is_away_says_so(self, tmp_path: Path) -> None:
        away = AdvisoryLocks(f"postgresql+psycopg://fairboard@/postgres?host={tmp_path}")
        with pytest.raises(StoreUnavailable, match="correct FAIRBOARD_DATABASE_URL"), away.hold("x"):
            pass

    def test_a_lease_that_is_lost_with_its_connection_says_so(self, leases: Leases, postgres_url: str) -> None:
        """A server that restarts: who waits is told, who holds goes on; the conditional commit is what keeps tables whole."""

        def end(granted: bool) -> None:
            one = sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted = :g")
            with sa.create_engine(postgres_url).begin() as connection:
                wait_until(lambda: bool(connection.execute(one, {"g": granted}).all()), "there is one")

        other = AdvisoryLocks(postgres_url)
        with ThreadPoolExecutor(1) as pool, leases.hold("x"):
            restarted = pool.submit(end, granted=False)
            with pytest.raises(StoreUnavailable, match="Nothing was written"), other.hold("x"):
                pass
            restarted.result(30)
            end(granted=True)
        with other.hold("x"):
            pass


class TestABucketThatIsAway:
    @pytest.mark.parametrize("emulator", ["s3"], indirect=True)
    def test_events_are_accepted_meanwhile_and_sealed_once_when_it_is_back(
        self, deployment: Settings, emulator: Emulator, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAIRBOARD_BUCKET_PATIENCE_S", "1")
        day, count = str(today()), 0
        with FaultyLine(emulator) as line:
            enter(emulator.through(line), monkeypatch)
            with service(deployment.data_dir) as running:

                def play() -> None:
                    nonlocal count
                    send(running, [event("ada", count + n, 1) for n in range(10)])
                    count += 10

                play()
                wait_until(lambda: not waiting(deployment.data_dir), "the first are sealed")
                for fault in (busy, line.silent, lambda *_: None):
                    line.fault = fault
                    play()
                    wait_until(lambda: running.http.get("/readyz").status_code == 503, "it says that nothing is sealed")
                    ready = running.http.get("/readyz").json()
                    assert (ready["status"], ready["journal"]) == ("unready", "ok")
                    assert "kept" in ready["sealer"]
                    play()
                    failed = fairboard("materialize", "--from", day, "--to", day, status=1)
                    assert "may be run again" in failed.stderr
                    line.fault = sound
                    wait_until(lambda: running.http.get("/readyz").status_code == 200, "all is well again")
                line.bytes_per_s = 200_000
                play()
                wait_until(lambda: not waiting(deployment.data_dir), "all is sealed, if slowly")
            fairboard("materialize", "--from", day, "--to", day)
            assert asked(fairboard, "SELECT count(*), count(DISTINCT event_id) FROM events") == [count, count]
            assert asked(fairboard, "SELECT sum(xp) FROM player_days") == [count]
            fairboard("verify")


class TestKills:
    """kill -9 before any step that touches the bucket or the journal; doing it again leaves what was not killed leaves."""

    def killed(self, action: str, origin: Settings, folder: Path, kills: int) -> None:
        command = [sys.executable, "tests/bucket_crash.py", str(origin.data_dir), str(folder), action, str(kills)]
        command.append(str(origin.lake_url))
        environment = os.environ | {"PYTHONPATH": str(REPO)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPO, check=False)
        assert done.returncode == 0, done.stderr
        cases = [
            Settings(data_dir=path, lake_url=f"{origin.lake_url}.{path.name}", _env_file=None) for path in folder.iterdir()
        ]
        assert len(cases) > kills, done.stdout
        [whole] = [contents(settings) for settings in cases if settings.data_dir.name == "0"]
        assert whole
        for settings in cases:
            assert contents(settings) == whole, settings.data_dir
            assert not waiting(settings.data_dir)
            assert damages(settings) == []

    @pytest.fixture
    def origin(self, emulator: Emulator, tmp_path: Path) -> Settings:
        return Settings(data_dir=tmp_path / "origin", lake_url=emulator.url, _env_file=None)

    @pytest.mark.parametrize("emulator", ["s3"], indirect=True)
    def test_of_the_sealer(self, origin: Settings, tmp_path: Path) -> None:
        for n in range(4):
            journal = Journal(Slot.claim(journal_dir(origin)), 3600, 1 << 30)
            body = b"\n".join(msgspec.json.encode(event(f"p{i}", n, 5, days_ago=n % 2)) for i in range(3))
            refused = [Refusal(n, "k", f"r{n}", 0, "type", "unknown", None, b"{}")]
            journal.put([Entry(n, "k", derived_base(b"%d" % n, b""), f"r{n}", "lines", body, None)], refused, len(body))
            journal.commit()
            journal.close()
        self.killed("seal", origin, tmp_path / "work", 8)

    @pytest.mark.parametrize("emulator", ["s3"], indirect=True)
    def test_of_the_folds(self, origin: Settings, tmp_path: Path) -> None:
        land_game(origin, 3)
        self.killed("fold", origin, tmp_path / "work", 6)


class TestDoctor:
    def storage(self, fairboard: Fairboard) -> dict[str, str]:
        findings = msgspec.json.decode(fairboard("doctor", "--json", status=1).stdout)
        return next(dict(one) for one in findings if one["what"] == "storage")

    def test_a_bucket_that_is_none_is_told(
        self, emulator: Emulator, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAIRBOARD_LAKE_URL", emulator.url.replace("fairboard", "fairbroad"))
        found = self.storage(fairboard)
        assert (found["state"], "there is no such bucket" in found["found"]) == ("wrong", True)
        assert "make the bucket fairbroad" in found["todo"]

    def test_a_right_that_is_missing_is_named(self, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch) -> None:
        with s3() as server:
            enter(demand_rights(server, "s3:GetObject", "s3:ListBucket", "s3:PutObject"), monkeypatch)
            monkeypatch.setenv("FAIRBOARD_LAKE_URL", server.below("rights").url)
            found = self.storage(fairboard)
        assert (found["state"], "no right to delete" in found["found"]) == ("wrong", True)
        assert "s3:DeleteObject" in found["todo"]

    @pytest.mark.parametrize("emulator", ["s3"], indirect=True)
    def test_a_clock_that_is_wrong_is_told_apart_from_a_bucket_that_is_away(
        self, emulator: Emulator, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FaultyLine(emulator) as line:
            enter(emulator.through(line), monkeypatch)
            monkeypatch.setenv("FAIRBOARD_LAKE_URL", emulator.url)
            line.fault = lambda *_: (403, b"<Error><Code>RequestTimeTooSkewed</Code><Message>Too skewed.</Message></Error>")
            assert "set the clock" in self.storage(fairboard)["todo"]
            line.fault = busy
            monkeypatch.setattr("pipelines.doctor.PATIENCE_S", 0.3)
            assert "overloaded" in self.storage(fairboard)["found"]
