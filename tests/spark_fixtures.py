"""Spark for tests: what it needs, a small game that holds every edge, and real Spark services on loopback."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import boss_kill, land_events, missing, progression

from pipelines.simulation import Scenario, Simulation
from tests.lake_fixtures import tree
from warehouse.calendar import Calendar, Days
from warehouse.embedded_redis import free_port
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS

# Clocks go forward in Berlin on 29 March 2026: a day of 23 hours. Nobody plays on the 30th, and
# March is over: it is rolled up.
GAME_DAYS = Days(date(2026, 3, 28), date(2026, 4, 1))
QUIET_DAY = date(2026, 3, 30)
BEFORE, CHANGE, AFTER, APRIL = "2026-03-28", "2026-03-29", "2026-03-31", "2026-04-01"
HUGE = 2**63 - 1

# A JVM that compiles less starts faster; what it runs here is small.
SPARK = {
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "SPARK_CONF_DIR": str(Path(__file__).parent / "spark"),
}


def on_spark(settings: Settings) -> Settings:
    """Those settings, computing on Spark in this process: one Java process for all of its tests."""
    needs_spark()
    os.environ |= SPARK
    return settings.model_copy(update={"engine": "spark", "spark_url": "local[2]"})


def needs_spark() -> None:
    if find_spec("pyspark") is None:
        missing("PySpark: pip install 'fairboard[spark]'")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=f"{home}/bin" if home else None) is None:
        missing("Java 17: apt-get install openjdk-17-jre-headless")


def land_game(settings: Settings) -> None:
    """Five days of a simulated game, and of what no simulation plays."""
    simulation = Simulation(Scenario(players=60, days=GAME_DAYS, seed=7, cheaters={"xp_x10": 3}), Calendar.of(settings))
    lake = Lake(settings)
    for day in set(GAME_DAYS) - {QUIET_DAY}:
        lake.write(EVENTS, simulation.day(day), {"event_date": day}, "game")
    land_events(settings, list(edges()), "edges")
    land_events(settings, [progression("tie_a", BEFORE, 10, eventId="copied")], "copies")
    others = {"payload": {"deltaXp": 7, "activity": "quote ' \" \\ \u0001 \u2028 é 🐉"}, "build": 'x"\\'}
    land_events(settings, [progression("tie_a", BEFORE, 7, "13:00:00", eventId="copied") | others], "others")


def edges() -> Iterator[dict[str, Any]]:
    yield progression("tie_a", BEFORE, 10, eventId="copied")
    yield progression("tie_b", BEFORE, 10)
    yield from (progression("constant", day, 5, f"{n:02}:00:00") for day in (BEFORE, CHANGE) for n in range(12))
    yield from (progression("whale", BEFORE, HUGE - n, f"{n:02}:10:00") for n in range(12))
    yield from (progression("whale", CHANGE, xp, f"{n:02}:10:00") for n, xp in enumerate([HUGE, -HUGE, -HUGE - 1, 0]))
    yield from (
        progression("loser", day, xp, f"{n:02}:20:00") for day in (BEFORE, AFTER) for n, xp in enumerate([-5, 0, -1] * 5)
    )
    yield progression("night", CHANGE, 1, "00:59:59")
    yield progression("night", CHANGE, 1, "01:00:00")
    yield progression("night", BEFORE, 1, "23:00:00")  # the 29th in Berlin
    yield boss_kill("killer", CHANGE, payload={"deltaXp": 999, "activity": "raid"})
    yield boss_kill("killer", APRIL)
    yield {"type": "drop_claimed", "playerId": "killer", "ts": 1774785600, "payload": {}}


def deployment(folder: Path, **changes: Any) -> Settings:
    """Settings of a deployment in Berlin that has landed the game."""
    settings = Settings(data_dir=folder, timezone="Europe/Berlin", first_day=GAME_DAYS.first, _env_file=None)
    land_game(settings)
    return settings.model_copy(update=changes)


def lake_files(settings: Settings) -> dict[str, bytes]:
    """Every file that the lake's tables have, by its name, which says what it was made of."""
    return tree(settings)


def run(settings: Settings, *command: str, status: int = 0) -> str:
    """Run a command of this environment for a deployment, as a process of its own; what it says on stderr."""
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    environment = {f"FAIRBOARD_{name}".upper(): str(value) for name, value in changed.items()}
    done = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]],
        env=os.environ | SPARK | environment, cwd=settings.data_dir, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stderr


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A standalone cluster of one master and two workers on loopback; its URL."""
    url = f"spark://127.0.0.1:{(port := free_port())}"
    host = ["--host", "127.0.0.1", "--webui-port", "0"]
    size = ["--cores", "1", "--memory", "1g"]
    master = ["spark-class", "org.apache.spark.deploy.master.Master", *host, "--port", str(port)]
    worker = ["spark-class", "org.apache.spark.deploy.worker.Worker", *host, *size, "--work-dir"]
    with service(folder / "master.log", master) as ready:
        ready("I have been elected leader")
        with (
            service(folder / "worker-0.log", [*worker, str(folder / "work-0"), url]) as first_ready,
            service(folder / "worker-1.log", [*worker, str(folder / "work-1"), url]) as second_ready,
        ):
            first_ready("Successfully registered with master")
            second_ready("Successfully registered with master")
            yield url


@contextmanager
def connect_server(folder: Path) -> Iterator[str]:
    """A Spark Connect server on loopback; its URL."""
    port = free_port()
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": folder,
        "spark.sql.shuffle.partitions": 2,
        "spark.sql.warehouse.dir": folder / "warehouse",
        "spark.ui.enabled": "false",
    }
    options = [option for name, value in settings.items() for option in ("--conf", f"{name}={value}")]
    server = ["spark-submit", "--master", "local[2]", "--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    with service(folder / "connect.log", [*server, *options, "spark-internal"]) as ready:
        ready("Spark Connect server started")
        yield f"sc://127.0.0.1:{port}"


@contextmanager
def sail_server(folder: Path) -> Iterator[str]:
    """Sail on loopback, in its cluster mode; its URL.

    It refuses PySpark 4.3 where it finds it in its own environment: it is started without one, and with Sail alone.
    """
    if (sail := find_spec("pysail")) is None:
        missing("Sail: pip install 'fairboard[dev]'")
    packages = folder / "packages"
    packages.mkdir()
    (packages / "pysail").symlink_to(Path(sail.origin).parent)  # type: ignore[union-attr, arg-type]  # `missing` has raised
    port = free_port()
    start = f"sail = SparkConnectServer('127.0.0.1', {port}); sail.start(background=True)"  # let go of, it would shut down
    server = f"from pysail.spark import SparkConnectServer; {start}; print('listening', flush=True); input()"
    sail_only = {"PYTHONPATH": str(packages), "SAIL_MODE": "local-cluster"}
    with service(folder / "sail.log", [sys.executable, "-S", "-c", server], **sail_only) as ready:
        ready("listening")
        yield f"sc://127.0.0.1:{port}"


@contextmanager
def service(log: Path, command: list[str], **changes: str) -> Iterator[Callable[[str], None]]:
    """One of Spark's own services, or a program by its path, until the block ends.

    What is given waits until its log has a sentence.
    """
    home = Path(find_spec("pyspark").origin).parent  # type: ignore[union-attr, arg-type]  # see needs_spark
    environment = os.environ | SPARK | {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable} | changes
    with log.open("wb") as file:
        process = subprocess.Popen([home / "bin" / command[0], *command[1:]], env=environment, cwd=log.parent,
                                   stdin=subprocess.PIPE, stdout=file, stderr=file)  # fmt: skip

    def ready(sentence: str) -> None:
        deadline = time.monotonic() + 60
        while sentence not in log.read_text(encoding="utf-8"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[1]} is not ready: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.1)

    try:
        yield ready
    finally:
        process.terminate()
        process.communicate()
