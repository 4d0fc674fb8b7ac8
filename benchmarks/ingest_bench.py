"""The figures of the ingest service, each beside what it is measured against, as one JSON line each.

    python benchmarks/ingest_bench.py [NAME…] [--seconds 8] [--rounds 3]

One worker, wrk, everything on: webhooks of which each is signed, rate limit, durable commit. The two sides of a ratio take
turns, round by round, and the middle of the ratios counts, because a machine's mood changes. A figure is printed only after its
answer was checked: no status but 202, and as many events in the lake as were answered.
"""

import argparse
import gzip
import hashlib
import hmac
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import httpx
import msgspec
import psutil
import pyarrow.dataset as ds
import structlog

from ingest_api import sealer
from ingest_api.admission import Arrival, admit
from ingest_api.bodies import Body, check_batch, check_event
from ingest_api.door import Door
from ingest_api.ids import derived_base
from ingest_api.journal import Journal, Slot, journal_dir
from ingest_api.segment import Entry
from ingest_api.server import SEALER_ENVIRONMENT
from warehouse.events import decode_events
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS

HERE = Path(__file__).parent
PEER = HERE.parent.parent / "shared" / "peers" / "go-gateway"
SECRET = "bench-secret"
CONNECTIONS = 64
BATCH = 500
_SIGNED_AS_SENT_BYTES = 4096
_BATCHES_A_SECOND = 2500  # at most; what is beyond is signed as it is sent


def event(n: int) -> dict[str, object]:
    """A boss kill of 240 to 272 bytes. Its id follows from the message's, so that one body can be sent many times."""
    payload = {"bossId": f"the-dragon-of-the-northern-mountains-{n % 97:03d}", "durationMs": 182_000 + n, "partySize": 5}
    payload |= {"difficulty": "nightmare", "deltaXp": 150 + n % 50, "activity": "weekly_raid"}
    return {"type": "boss_kill", "playerId": f"player_{n % 20_000:06d}", "ts": int(time.time()), "payload": payload}


class Wrk(msgspec.Struct):
    """What one run of wrk gave."""

    requests: int
    seconds: float
    wrong: int
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def run_wrk(
    url: str,
    body: bytes,
    seconds: float,
    path: str = "/events",
    encoding: str = "",
    scheme: Literal["webhook", "stamped", "plain"] = "webhook",
    connections: int = CONNECTIONS,
) -> Wrk:
    """Load a server with one body: as webhooks, each signed anew, or signed once (and stamped) under new Idempotency-Keys."""
    now = str(int(time.time())) if scheme != "plain" else ""
    signed = body + b"." + now.encode() if now else body
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        environment = os.environ | {
            "BENCH_BODY": file.name,
            "BENCH_PATH": path,
            "BENCH_ENCODING": encoding,
            "BENCH_SECRET": SECRET if scheme == "webhook" else "",
            "BENCH_SIGNATURE": hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest(),
            "BENCH_TIMESTAMP": now,
            "BENCH_RUN": f"{time.time_ns():x}",
            "BENCH_SIGNED_BEFORE": str(int(seconds * _BATCHES_A_SECOND)) if len(body) > _SIGNED_AS_SENT_BYTES else "0",
        }
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "-s",
            str(HERE / "ingest_wrk.lua"),
            url,
        ]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    result = msgspec.json.decode(out.partition("RESULT ")[2].splitlines()[0], type=Wrk)
    assert result.wrong == 0, f"{result.wrong} of {result.requests} answers were errors:\n{out}"
    return result


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command; end it with SIGTERM."""
    running = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


def wait_for(url: str) -> None:
    """Wait until a server answers, and is not degraded."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            answer = httpx.get(url, trust_env=False)
            if answer.status_code == 200 and "degraded" not in answer.text:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise TimeoutError(url)


@contextmanager
def redis() -> Iterator[str]:
    """A Redis of its own; its address."""
    port = free_port()
    with process("redis-server", "--port", str(port), "--save", ""):
        yield f"127.0.0.1:{port}"


class Ours:
    """Our service, with one worker."""

    worker: psutil.Process

    def __init__(self, folder: Path, redis_at: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "FAIRBOARD_DATA_DIR": str(folder),
            "FAIRBOARD_REDIS_URL": f"redis://{redis_at}/0",
            "FAIRBOARD_HMAC_KEYS": f"bench:{SECRET}",
            "FAIRBOARD_RATE_LIMIT": "1000000000",
            "FAIRBOARD_JOURNAL_LIMIT_MB": "65536",
        }

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        """Start it; the worker's process."""
        with process(sys.executable, "-m", "ingest_api", "--port", str(self.port), **self.environment) as started:
            wait_for(f"{self.url}/readyz")
            children = psutil.Process(started.pid).children()
            yield next(child for child in children if "ingest_api.worker" in child.cmdline())

    def accepted(self) -> int:
        """Events that it says it accepted, once nothing more is on its way: wrk leaves before its last answers do."""
        before = -1
        while (now := self._counted()) != before:
            before = now
            time.sleep(0.5)
        return now

    def _counted(self) -> int:
        text = httpx.get(f"{self.url}/metrics", trust_env=False).text
        return sum(int(float(line.split()[1])) for line in text.splitlines() if 'result="accepted"' in line)

    def sealed(self) -> int:
        """Events in its lake."""
        with Lake(Settings(data_dir=self.folder, _env_file=None)) as lake:
            return int(ds.dataset([str(path) for path in lake.paths(lake.files(EVENTS))], format="parquet").count_rows())


@contextmanager
def ours() -> Iterator[Ours]:
    """Our service running; at the end, what it accepted is compared with what lies in the lake."""
    folder = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    try:
        with redis() as redis_at:
            service = Ours(folder, redis_at)
            with service.running() as service.worker:
                yield service
                accepted = service.accepted()
            assert service.sealed() == accepted > 0, f"accepted {accepted}, in the lake {service.sealed()}"
    finally:
        shutil.rmtree(folder)


@contextmanager
def go_gateway() -> Iterator[str]:
    """The peer, built from its source."""
    if not PEER.is_dir():
        raise SystemExit(f"The Go gateway is not at {PEER}; its figures cannot be taken without it.")
    with tempfile.TemporaryDirectory() as folder, redis() as redis_at:
        port = free_port()
        build = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": "/tmp/gocache"}
        subprocess.run(["go", "build", "-o", f"{folder}/gateway", "."], cwd=PEER, env=os.environ | build, check=True)
        settings = {"REDIS": redis_at, "PORT": str(port), "HMAC_SECRET": SECRET, "MAX_REQS": "1000000000"}
        with process(f"{folder}/gateway", **settings):
            wait_for(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}"


@contextmanager
def plain_fastapi() -> Iterator[str]:
    """The same contract written plainly, in `ingest_fastapi.py`."""
    with tempfile.TemporaryDirectory() as folder, redis() as redis_at:
        port = free_port()
        settings = {"REDIS": redis_at, "SECRET": SECRET, "JOURNAL": f"{folder}/journal.sqlite"}
        command = (sys.executable, "-m", "uvicorn", "ingest_fastapi:app", "--port", str(port), "--no-access-log")
        with process(*command, PYTHONPATH=str(HERE), **settings):
            wait_for(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}"


def report(name: str, value: float, unit: str, baseline: str, baseline_value: float, ratio: float, **more: object) -> None:
    """Print one figure."""
    figure = {"name": name, "value": round(value, 1), "unit": unit, "baseline": baseline}
    print(json.dumps(figure | {"baseline_value": round(baseline_value, 1), "ratio": round(ratio, 3)} | more), flush=True)


def _middle(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """The pair whose ratio is the middle one, and that ratio."""
    ours_, other = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    return ours_, other, ours_ / other


def ingest_single_vs_go(seconds: float, rounds: int) -> None:
    """Single events beside the Go gateway."""
    body = json.dumps(event(1)).encode()
    pairs, tails = [], []
    with ours() as service, go_gateway() as gateway:
        for _ in range(rounds):
            mine = run_wrk(service.url, body, seconds)
            theirs = run_wrk(gateway, body, seconds, scheme="plain")
            pairs.append((mine.rate, theirs.rate))
            tails.append(mine.p99_ms / theirs.p99_ms)
    report("ingest_single_vs_go", *_with_unit(pairs, "Go gateway"), p99_ratio=round(statistics.median(tails), 2))


def ingest_load_test(seconds: float, rounds: int) -> None:  # noqa: ARG001 - the original test's own size
    """The original system's load test: 100 clients, 10,000 requests, over 1,000 a second, under 1 % errors (here: none)."""
    with ours() as service:
        run = run_wrk(service.url, json.dumps(event(1)).encode(), 10, connections=100)
    assert run.requests >= 10_000, f"only {run.requests:,} requests in {run.seconds:.0f} s"
    report(
        "ingest_load_test", run.rate, "requests/s", "the original's 1,000 a second", 1_000, run.rate / 1_000, errors=run.wrong
    )


def ingest_single_vs_fastapi(seconds: float, rounds: int) -> None:
    """Single events beside a plain FastAPI service."""
    body = json.dumps(event(1)).encode()
    pairs: list[tuple[float, float]] = []
    with ours() as service, plain_fastapi() as plain:
        pairs += [
            (run_wrk(service.url, body, seconds).rate, run_wrk(plain, body, seconds, scheme="stamped").rate)
            for _ in range(rounds)
        ]
    report("ingest_single_vs_fastapi", *_with_unit(pairs, "the same contract in FastAPI + uvicorn"))


def _with_unit(pairs: list[tuple[float, float]], baseline: str) -> tuple[float, str, str, float, float]:
    value, other, ratio = _middle(pairs)
    return value, "events/s", baseline, other, ratio


def _batch() -> bytes:
    return json.dumps([event(n) for n in range(BATCH)]).encode()


def ingest_batch_vs_go(seconds: float, rounds: int) -> None:
    """Events in batches beside the Go gateway, which takes one a request."""
    single, batch = json.dumps(event(1)).encode(), _batch()
    for encoding, body in (("", batch), ("gzip", gzip.compress(batch, 6))):
        pairs = []
        with ours() as service, go_gateway() as gateway:
            for _ in range(rounds):
                mine = run_wrk(service.url, body, seconds, "/events/batch", encoding).rate * BATCH
                pairs.append((mine, run_wrk(gateway, single, seconds, scheme="plain").rate))
        report("ingest_batch_vs_go", *_with_unit(pairs, "Go gateway, one event a request"), encoding=encoding or "none")


def ceiling(seconds: float) -> float:
    """HMAC, typed decoding and a durable SQLite commit of the same batch in a loop. Returns events/s."""
    body = _batch()
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/ceiling.sqlite", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (body BLOB)")
        count, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            hmac.digest(SECRET.encode(), body, "sha256")
            count += len(decode_events(body, lines=False))
            connection.execute("INSERT INTO rows VALUES (?)", (body,))
        return count / (time.perf_counter() - start)


def ingest_batch_vs_ceiling(seconds: float, rounds: int) -> None:
    """Events in batches beside what this machine can do without HTTP."""
    pairs = []
    with ours() as service:
        for _ in range(rounds):
            mine = run_wrk(service.url, _batch(), seconds, "/events/batch").rate * BATCH
            pairs.append((mine, ceiling(seconds)))
    report("ingest_batch_vs_ceiling", *_with_unit(pairs, "HMAC + typed decode + SQLite commit in a loop"))


def ingest_memory_growth(seconds: float, rounds: int) -> None:  # noqa: ARG001 - ten minutes, however long the others take
    """Resident memory of the worker under full load: after ten minutes beside after one."""
    minutes = int(os.environ.get("BENCH_MEMORY_MINUTES", "10"))
    body = json.dumps(event(1)).encode()
    folder = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    with redis() as redis_at:
        service = Ours(folder, redis_at)
        with service.running() as worker:
            sizes = []
            for _ in range(minutes):
                run_wrk(service.url, body, 60)
                sizes.append(worker.memory_info().rss / 2**20)
    shutil.rmtree(folder)
    report("ingest_memory_growth", sizes[-1], "MiB", "after the first minute", sizes[0], sizes[-1] / sizes[0], minutes=minutes)


def seal_vs_ingest(seconds: float, rounds: int) -> None:
    """Journal to Parquet, of batches as they come in; beside it, what one worker takes in, of single events and of batches."""
    for form, path, body, size in (
        ("batches", "/events/batch", _batch(), BATCH),
        ("single", "/events", json.dumps(event(1)).encode(), 1),
    ):
        pairs: list[tuple[float, float]] = []
        with sealing_process() as pool, ours() as service:
            _seal_rate(pool, form)  # the sealer lives long: what its first segment pays for is not its rate
            pairs += [(_seal_rate(pool, form), run_wrk(service.url, body, seconds, path).rate * size) for _ in range(rounds)]
        report("seal_vs_ingest", *_with_unit(pairs, f"ingest of {form}"), of=form)


@contextmanager
def sealing_process() -> Iterator[Executor]:
    """A process like the service's sealer, to seal in."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        os.environ.update(SEALER_ENVIRONMENT)
        pool.submit(os.getpid).result()  # it starts here
        for name in SEALER_ENVIRONMENT:
            del os.environ[name]
        yield pool


def _seal(settings: Settings) -> tuple[int, float]:
    """Seal; how many events, in how many seconds."""
    start = time.perf_counter()
    return sealer.seal_once(settings), time.perf_counter() - start


def _seal_rate(pool: Executor, form: str) -> float:
    folder = Path(tempfile.mkdtemp(prefix="seal-bench-"))
    settings = Settings(data_dir=folder, _env_file=None)
    per_entry, entries = (BATCH, 1_800) if form == "batches" else (1, 60_000)
    journal = Journal(Slot.claim(journal_dir(settings)), 3600, settings.segment_mb * 2**20)
    for n in range(0, entries, 60):
        group = [_entry(m, per_entry) for m in range(n, n + 60)]
        journal.put([entry for entry, _ in group], [], sum(size for _, size in group))
        journal.commit()
        journal.rotate_if_due(time.monotonic())
    journal.close()
    sealed, seconds = pool.submit(_seal, settings).result()
    assert sealed == entries * per_entry
    shutil.rmtree(folder)
    return sealed / seconds


def _entry(n: int, events: int) -> tuple[Entry, int]:
    """What a worker writes of a request, and the bytes of that unpacked."""
    now_ms = int(time.time() * 1000)
    raw = json.dumps([event(m) for m in range(n * events, (n + 1) * events)] if events > 1 else event(n)).encode()
    body = Body.of(raw, b"")
    checked = check_batch(body, now_ms) if events > 1 else check_event(body, now_ms)
    arrival = Arrival(now_ms, "bench", derived_base(b"%d" % n, b""), "r", body)
    entry = admit(checked, arrival, Door()).entry
    assert entry is not None
    return entry, len(raw)


structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
FIGURES: dict[str, Callable[[float, int], None]] = {
    figure.__name__: figure
    for figure in (
        ingest_single_vs_go,
        ingest_batch_vs_go,
        ingest_batch_vs_ceiling,
        ingest_single_vs_fastapi,
        ingest_load_test,
        seal_vs_ingest,
        ingest_memory_growth,
    )
}


def main() -> None:
    """Take the figures that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []], help="which figures; default all")
    parser.add_argument("--seconds", type=float, default=8, help="of load per side and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.names or FIGURES:
        FIGURES[name](arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
