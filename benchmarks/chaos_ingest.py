"""kill -9 at random moments, again and again, with a client's log as the judge.

    python benchmarks/chaos_ingest.py --kills 100

Two workers and the sealer run under load, odd bodies and strangers' garbage in it; at a random moment one of the processes, or
all of them, is killed. In the end every event whose 202 was read must be in the lake, and none that was not sent; an id may lie
there twice (a client repeats what it got no answer to), but then with the same content, and no more than once when its day has
been folded. Prints one line; exits with 1 where an event is missing or counts twice.
"""

import argparse
import contextlib
import gzip
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import zstandard

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ingest_fixtures import Service, progression, service, wait_until


def odd(n: int, events: list[dict[str, Any]]) -> tuple[bytes, dict[str, str]]:
    """The n-th way to write these events as a batch, and the headers that go with it."""
    texts = [json.dumps(event).encode() for event in events]
    lines = b"\n".join(texts)
    half = len(lines) // 2
    ways: list[tuple[bytes, dict[str, str]]] = [
        (b"[" + b",".join(texts) + b"]", {}),
        (b"\xef\xbb\xbf \r\n" + b"\r\n".join(texts), {}),
        (b" ".join(texts), {}),
        (b"".join(json.dumps(event, indent=2).encode() for event in events), {}),
        (lines.replace(b'"deltaXp": 10', b'"deltaXp": 10.0'), {}),
        (lines.replace(b'"payload"', b'"more": ' + b"9" * 5000 + b', "payload"'), {}),
        (gzip.compress(lines[:half]) + gzip.compress(lines[half:]) + bytes(100), {"content_encoding": "X-GZip"}),
        (zstandard.compress(b"[" + b", ".join(texts)) + zstandard.compress(b"]"), {"content_encoding": "zstd"}),
        (lines + b'\n{"type": "foo"}\nno JSON\n', {}),
    ]
    return ways[n % len(ways)]


def _annoy(running: Service, stop: threading.Event) -> None:
    """What strangers send: unfinished, endless, no HTTP."""
    port = int(running.url.rsplit(":", 1)[1])
    chunked = b"POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    rubbish = (b"\x16\x03\x01", chunked + b"2\r\nab\r\n" * 999, chunked + b"0\r\n" + b"a:\r\n" * 999, b"GET /")
    for one in itertools.cycle(rubbish):
        if stop.wait(0.05):
            return
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as stranger:
            stranger.sendall(one)


class Clients:
    """Clients that note what they send and what is answered."""

    def __init__(self, running: Service, count: int) -> None:
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self.miscounted: list[str] = []
        self._running = running
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(count)]
        self._threads.append(threading.Thread(target=_annoy, args=(running, self._stop), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending and wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        http = httpx.Client(base_url=self._running.url, timeout=10, trust_env=False)
        for n in itertools.count():
            names = [f"{number}-{n}-{i}" for i in range(1 + n % 20)]
            body, headers = odd(n, [progression(f"player_{number}", eventId=name) for name in names])
            self.sent.update(names)
            while not self._stop.is_set():
                try:
                    answer = http.post("/events/batch", content=body, headers=self._running.headers(body, **headers))
                except httpx.TransportError:
                    time.sleep(0.01)  # the service is away: send the same again
                    continue
                if answer.status_code == 202:
                    if answer.json()["accepted"] + answer.json()["duplicates"] != len(names):
                        self.miscounted.append(answer.text)
                    self.answered.update(names)
                    break
            if self._stop.is_set():
                return


def _counted(running: Service, first_ts: int, last_ts: int) -> int:
    """How many events the days from one moment to another (s since the epoch) have, once they are folded."""
    first, last = (datetime.fromtimestamp(ts, UTC).date().isoformat() for ts in (first_ts, last_ts))
    fairboard = Path(sys.executable).with_name("fairboard")
    environment = os.environ | {"FAIRBOARD_DATA_DIR": str(running.folder), "FAIRBOARD_FIRST_DAY": first}
    for command in (
        ["materialize", "--from", first, "--to", last],
        ["sql", "SELECT sum(events) AS n FROM player_days", "--json"],
    ):
        done = subprocess.run([fairboard, *command], env=environment, stdout=subprocess.PIPE, check=True)
    return int(json.loads(done.stdout)[0]["n"])


def kill_something(running: Service, chance: random.Random) -> None:
    """One process of the service, or all of them."""
    children = psutil.Process(running.process.pid).children()
    if children and chance.random() < 0.8:
        chance.choice(children).kill()
        return
    for process in (running.process, *children):
        os.kill(process.pid, signal.SIGKILL)
    running.process.wait()
    starts = running.log().count("server.ready")
    running.start()
    # A service whose workers all die before it is up gives up, as it should where they cannot run at all.
    wait_until(lambda: running.log().count("server.ready") > starts, "the service is up")


def main() -> int:
    """Run the chaos. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance, folder = random.Random(arguments.seed), Path(tempfile.mkdtemp(prefix="chaos-"))
    with service(folder / "data", workers=2, FAIRBOARD_SEAL_AFTER_S="0.5") as running:
        clients = Clients(running, 4)
        for _ in range(arguments.kills):
            target = len(clients.answered) + chance.randrange(1500)
            wait_until(lambda target=target: len(clients.answered) > target, "events are accepted")
            kill_something(running, chance)
        clients.stop()
        running.stop()
        rows = running.events().select("event_id", "player_id", "delta_xp", "ts").unique()
        found = set(rows["event_id"])
        lost, foreign = clients.answered - found, found - clients.sent
        copies = running.events().height - len(found)
        twice = _counted(running, rows["ts"].min(), rows["ts"].max()) - len(found)
        figure = {"name": "chaos_ingest", "kills": arguments.kills, "answered": len(clients.answered), "lost": len(lost)}
        more = {"foreign": len(foreign), "differing": rows.height - len(found), "copies": copies, "twice": twice}
        print(json.dumps(figure | more))
        failed = bool(lost or foreign or rows.height > len(found) or twice or clients.miscounted)
    if failed:
        print(f"what is left lies in {folder}: {sorted(lost | foreign)[:20]} {clients.miscounted[:3]}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
