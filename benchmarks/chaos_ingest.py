"""kill -9 at random moments, again and again, with a client's log as the judge.

    python benchmarks/chaos_ingest.py --kills 100

Two workers and the sealer run under load; at a random moment one of the processes, or all of them, is killed. In the end every
event whose 202 was read must be in the lake, and none that was not sent; an id may lie there twice (a client repeats what it
got no answer to), but then with the same content. Prints one line; exits with 1 where an event is missing.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ingest_fixtures import Service, progression, service, wait_until


class Clients:
    """Clients that note what they send and what is answered."""

    def __init__(self, running: Service, count: int) -> None:
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self._running = running
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(count)]
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
            body = json.dumps([progression(f"player_{number}", eventId=name) for name in names]).encode()
            self.sent.update(names)
            while not self._stop.is_set():
                try:
                    answer = http.post("/events/batch", content=body, headers=self._running.headers(body))
                except httpx.TransportError:
                    time.sleep(0.01)  # the service is away: send the same again
                    continue
                if answer.status_code == 202:
                    self.answered.update(names)
                    break
            if self._stop.is_set():
                return


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
        figure = {"name": "chaos_ingest", "kills": arguments.kills, "answered": len(clients.answered), "lost": len(lost)}
        print(json.dumps(figure | {"foreign": len(foreign), "differing": rows.height - len(found), "copies": copies}))
        failed = bool(lost or foreign or rows.height > len(found))
    if failed:
        print(f"what is left lies in {folder}: {sorted(lost | foreign)[:20]}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
