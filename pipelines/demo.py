"""`fairboard demo`: a few days of a game through the whole system, from signed POST to what its users read.

Everything is the real thing on free loopback ports: the embedded Redis, the ingest service as a process of its own, Dagster
runs recorded in Dagster's instance. What does not belong here: how the result is shown (`demo_summary.py`).
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ingest_api.client import SignedClient
from ingest_api.keys import ensure_demo_key
from ingest_api.server import settings_environment
from pipelines import play
from pipelines.definitions import build_definitions
from pipelines.demo_summary import Report, show
from pipelines.home import prepare_home
from pipelines.output import out
from pipelines.schedules import DAY_JOB
from pipelines.simulation import Simulation, demo_scenario, wire
from warehouse import readings
from warehouse.boards import read_board, read_progress
from warehouse.calendar import Calendar, Days, WindowKind
from warehouse.embedded_redis import EmbeddedRedis, connect, free_port
from warehouse.engine import DuckDBEngine
from warehouse.errors import FairboardError
from warehouse.settings import Settings
from warehouse.tables import EVENTS

MARK = "made-by-demo"
SERVE_TIMEOUT_S = 30
BOARDS = (WindowKind.DAILY, WindowKind.WEEKLY, WindowKind.SEASONAL)

# What a client on a bad line does: it sends a batch again, and a build of the game with a bug sends what breaks the contract.
BROKEN = [
    b'{"type":"progression","playerId":"player_00001","ts":%d,"payload":{"deltaXp":12.5,"activity":"quest_completion"}}',
    b'{"type":"teleport","playerId":"player_00002","ts":%d,"payload":{}}',
    b'{"type":"progression","playerId":"player_00003","ts":%d000,"payload":{"deltaXp":5,"activity":"quest_completion"}}',
]


def run(settings: Settings, *, seed: int, players: int) -> None:
    """Play, compute, publish, read back and show. Leaves the data in DATA_DIR and nothing running.

    Raises:
        FairboardError: DATA_DIR holds somebody's data, or the counts do not add up.
    """
    started = time.perf_counter()
    now = int(time.time())
    today = Calendar.of(settings).day_of(now)
    scenario = replace(demo_scenario(today, seed), players=players)
    settings = settings.model_copy(update={"first_day": min(settings.first_day, scenario.days.first)})
    _clear(settings)
    game = Simulation(scenario, Calendar.of(settings), until=now)
    with EmbeddedRedis(settings), _progress() as progress:
        tally = _play(settings, game, progress)
        _materialize(settings, scenario.days, progress)
        report = _read_back(settings, game, tally, today)
    report.seconds = time.perf_counter() - started
    show(settings, report)


def _clear(settings: Settings) -> None:
    """Begin with an empty folder; only one that an earlier demo made is emptied."""
    mark = settings.data_dir / MARK
    if settings.data_dir.exists() and any(settings.data_dir.iterdir()):
        if not mark.exists():
            raise FairboardError(
                f"{settings.data_dir} holds data that no demo made; nothing was touched. "
                "Set FAIRBOARD_DATA_DIR to an empty folder, or remove it with `make clean`."
            )
        if EmbeddedRedis(settings).is_running():
            raise FairboardError(f"The system is running on {settings.data_dir}; stop it (Ctrl-C, `make down`) first.")
        shutil.rmtree(settings.data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _play(settings: Settings, game: Simulation, progress: Progress) -> play.Tally:
    """Send the game to the service, some of it twice and some of it broken, and wait until all of it is sealed."""
    key_id, secret = ensure_demo_key(settings)
    expected = sum(game.day(day).num_rows for day in game.scenario.days)
    bar = progress.add_task("signed events over HTTP", total=expected)
    with _service(settings) as url, SignedClient(url, key_id, secret) as client:
        tally = play.send(client, game, lambda tally: progress.update(bar, completed=tally.sent))
        again = list(wire(game.day(game.scenario.days.last).slice(0, play.BATCH)))
        play.send_batch(client, again, tally)
        play.send_batch(client, [event % int(time.time()) for event in BROKEN], tally)
    return tally


@contextmanager
def _service(settings: Settings) -> Iterator[str]:
    """The ingest service as a process of its own. When it has ended, everything it accepted is in the lake."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = settings.data_dir / "ingest.log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "ingest_api", "--port", str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=settings_environment(settings))  # noqa: S603
        try:
            _wait_until_ready(process, url, log)
            yield url
        finally:
            process.terminate()
            process.wait()
    if process.returncode != 0:
        raise FairboardError(f"The ingest service ended with status {process.returncode}; its log is {log}.")


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + SERVE_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=1, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    raise FairboardError(f"The ingest service ended, or was not ready within {SERVE_TIMEOUT_S} s; its log is {log}.")


def _materialize(settings: Settings, days: Days, progress: Progress) -> None:
    """Run Dagster's day job for each day: folds, scores, boards, publications."""
    prepare_home(settings)
    job = build_definitions({"settings": settings}).resolve_job_def(DAY_JOB)
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    bar = progress.add_task("days through Dagster", total=len(days))
    with dg.DagsterInstance.get() as instance:
        for day in days:
            job.execute_in_process(run_config=quiet, partition_key=str(day), instance=instance)
            progress.advance(bar)


def _read_back(settings: Settings, game: Simulation, tally: play.Tally, today: date) -> Report:
    """What the game's UI, a reviewer and an analyst would read."""
    client = connect(settings)
    calendar = Calendar.of(settings)
    boards = {}
    for kind in BOARDS:
        board = read_board(client, calendar.window_at(kind, today).redis_key, limit=10)
        if board is None:
            raise FairboardError(
                f"There is no {kind} board in Redis after publishing it; keep {settings.data_dir} and report this."
            )
        boards[kind] = board
    champion = boards[WindowKind.SEASONAL].entries[0].player_id
    with DuckDBEngine(settings) as engine:
        engine.bind(EVENTS)
        landed = engine.connection.sql("SELECT count(*) FROM events").fetchall()[0][0]
        suspects, counts = readings.suspects(engine, today), readings.verdicts(engine, today)
    return Report(
        today=today,
        tally=tally,
        landed=landed,
        boards=boards,
        champion=champion,
        progress=read_progress(client, champion),
        suspects=suspects,
        textbook=counts.get("self", {}).get("flagged", 0),
        planted={str(player) for player in game.truth["player_id"].to_pylist()},
    )


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=out)
