"""The figures of publishing boards, as one JSON line each.

    python benchmarks/leaderboards_bench.py [NAME…] [--members 1000000] [--rounds 3]

`publish_vs_pipe`: publishing a board whole, from its Parquet file to the swap, beside `redis-cli --pipe` of the same ZADDs.
`refresh_vs_full`: publishing it again with 1 % of the members changed, beside that.
`torn_reads`: readings, at full speed during 100 publications, that were partial, empty or of two publications at once.
A figure is printed only after the board in Redis was compared with the one in the lake.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import redis

from warehouse.boards import Client, read_board, scores, stamp_key
from warehouse.calendar import Window, WindowKind
from warehouse.embedded_redis import connect, find_server, free_port
from warehouse.engine import DuckDBEngine, Engine
from warehouse.outlets import Outlets
from warehouse.publisher import Publication, publish_boards
from warehouse.settings import Settings
from warehouse.swaps import zadds
from warehouse.tables import LEADERBOARDS

CHANGED = 0.01
PUBLICATIONS = 100
READERS = 2


@dataclass(frozen=True)
class Deployment:
    """A lake with one board, the all-time one, and a Redis of its own."""

    settings: Settings
    engine: Engine
    outlets: Outlets
    window: Window
    random: np.random.Generator

    def board(self, xp: np.ndarray) -> None:
        """Make the players' XP the board in the lake."""
        players = np.array([f"player_{n:07d}" for n in range(len(xp))])
        order = np.lexsort((players, -xp))
        rows = pl.DataFrame({"player_id": players[order], "xp": xp[order]}).with_columns(
            as_of=pl.lit("2026-05-01").str.to_date(),
            rank=pl.int_range(1, len(xp) + 1),
            boss_kills=pl.lit(0, pl.Int64),
            reached_ts=pl.lit(1_777_636_800),
            previous_rank=pl.int_range(1, len(xp) + 1),
            movement=pl.lit(0, pl.Int64),
        )
        self.engine.lake.write(LEADERBOARDS, rows.to_arrow(), self.window.partition)

    def publish(self, *, whole: bool = False) -> tuple[Publication, float]:
        """Publish the board: what was done, and the seconds it took."""
        started = time.perf_counter()
        done = {one.redis_key: one for one in publish_boards(self.engine, self.outlets, whole=whole)}
        return done[self.window.redis_key], time.perf_counter() - started

    def check(self, xp: np.ndarray) -> None:
        """The board in Redis is the one that the XP make."""
        client = self.outlets.redis
        step = 50_000
        there = [
            pair
            for start in range(0, len(xp), step)
            for pair in client.zrevrange(self.window.redis_key, start, start + step - 1, withscores=True)
        ]
        order = np.lexsort((np.arange(len(xp)), -xp))
        assert [player for player, _ in there] == [f"player_{n:07d}" for n in order], "another order than the lake's"
        assert np.array_equal([score for _, score in there], scores(xp[order])), "other scores than the lake's"
        assert client.zcard(self.window.redis_key) == len(xp)


@contextmanager
def deployment() -> Iterator[Deployment]:
    """An empty one, in a folder that goes."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        settings = Settings(data_dir=Path(folder), redis_url=f"redis://127.0.0.1:{port}/0", _env_file=None)
        # As the embedded one, but for its users: they may not say ECHO, with which `redis-cli --pipe` ends.
        command = [find_server(), "--port", str(port), "--dir", folder, "--appendonly", "yes", "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server, DuckDBEngine(settings) as engine:
            try:
                window = engine.calendar.window_at(WindowKind.ALLTIME, engine.calendar.day_of(int(time.time())))
                outlets = Outlets(settings)
                _wait_for(outlets.redis)
                yield Deployment(settings, engine, outlets, window, np.random.default_rng(1))
                outlets.redis.close()
            finally:
                server.terminate()


def _wait_for(client: Client) -> None:
    """Wait until the server answers."""
    for _ in range(100):
        with suppress(redis.ConnectionError):
            client.ping()
            return
        time.sleep(0.05)
    raise TimeoutError("Redis does not answer")


def publish_vs_pipe(members: int, rounds: int) -> None:
    """A whole publication beside `redis-cli --pipe`; the two take turns, and the middle of the ratios counts."""
    ratios, ours, theirs = [], [], []
    with deployment() as here:
        xp = here.random.integers(0, 50_000_000, members)
        here.board(xp)
        for _ in range(rounds):
            ours.append(here.publish(whole=True)[1])
            theirs.append(_pipe(here, xp))
            ratios.append(ours[-1] / theirs[-1])
        here.check(xp)
    _print("publish_vs_pipe", ratios, "x", members=members, publish_s=ours, pipe_s=theirs)


def refresh_vs_full(members: int, rounds: int) -> None:
    """A refresh with 1 % of the members changed beside the whole publication of the same board."""
    ratios, small, full = [], [], []
    with deployment() as here:
        xp = here.random.integers(0, 50_000_000, members)
        for _ in range(rounds):
            here.board(xp)
            full.append(here.publish(whole=True)[1])
            changed = here.random.choice(members, round(members * CHANGED), replace=False)
            xp[changed] += here.random.integers(1, 5_000, len(changed))
            here.board(xp)
            publication, seconds = here.publish()
            assert publication.how == "changes", publication
            small.append(seconds)
            ratios.append(small[-1] / full[-1])
        here.check(xp)
    _print("refresh_vs_full", ratios, "x", members=members, refresh_s=small, full_s=full)


def torn_reads(_members: int, _rounds: int) -> None:
    """Readers at full speed while boards of changing size are published, whole and by changes in turn.

    The XP of everybody is the number of the publication, so that a reading shows at once which ones it is made of.
    """
    torn: list[str] = []
    readings = [0] * READERS
    stop = threading.Event()
    with deployment() as here:
        key = here.window.redis_key

        def look(reader: int) -> None:
            client = connect(here.settings)
            while not stop.is_set():
                with client.pipeline(transaction=True) as pipe:
                    pipe.zrange(key, 0, -1, withscores=True)
                    pipe.hget(stamp_key(key), "revision")
                    pipe.hgetall(f"{key}:meta")
                    pipe.get(f"{key}:top")
                    board, revision, meta, page = pipe.execute()
                top = json.loads(page)
                generations = {int(score) for _, score in board} | {entry["score"] for entry in top["entries"]}
                same = revision == meta["revision"] == str(top["meta"]["revision"])
                whole = len(board) == int(meta["players"]) == top["meta"]["players"] == 500 + generations.copy().pop()
                if not (len(generations) == 1 and same and whole):
                    torn.append(f"revision {revision}, {len(board)} members of publications {sorted(generations)}")
                if (long := read_board(client, key, limit=1_000)) is None or len({e.score for e in long.entries}) != 1:
                    torn.append(f"a long reading of {long and long.meta}")
                readings[reader] += 1

        here.board(np.full(500, 0))
        here.publish()
        threads = [threading.Thread(target=look, args=(reader,)) for reader in range(READERS)]
        for thread in threads:
            thread.start()
        for n in range(1, PUBLICATIONS + 1):
            here.board(np.full(500 + n, n))
            here.publish(whole=n % 2 == 0)
        stop.set()
        for thread in threads:
            thread.join()
        here.check(np.full(500 + PUBLICATIONS, PUBLICATIONS))
    assert min(readings) > PUBLICATIONS / 2, f"the readers hardly read: {readings}"
    assert not torn, torn[:3]
    _print("torn_reads", [float(len(torn))], "readings", readings=sum(readings), publications=PUBLICATIONS)


def _pipe(here: Deployment, xp: np.ndarray) -> float:
    """`redis-cli --pipe` of the board's ZADDs into another key: seconds, with the file made before."""
    order = np.lexsort((np.arange(len(xp)), -xp))
    members = pl.DataFrame({"player_id": [f"player_{n:07d}" for n in order], "score": scores(xp[order])})
    with tempfile.NamedTemporaryFile() as file:
        for command in zadds("piped", members):
            file.write(command)
        file.flush()
        here.outlets.redis.unlink("piped")
        started = time.perf_counter()
        with Path(file.name).open("rb") as commands:
            subprocess.run(["redis-cli", "-u", here.settings.redis_url, "--no-auth-warning", "--pipe"], stdin=commands,
                           stdout=subprocess.DEVNULL, check=True)  # fmt: skip
        seconds = time.perf_counter() - started
    assert here.outlets.redis.zcard("piped") == len(xp)
    return seconds


def _print(name: str, values: list[float], unit: str, **about: object) -> None:
    shown = {key: [round(v, 3) for v in value] if isinstance(value, list) else value for key, value in about.items()}
    print(json.dumps({"name": name, "value": round(statistics.median(values), 3), "unit": unit, **shown}), flush=True)


FIGURES: dict[str, Callable[[int, int], None]] = {
    "publish_vs_pipe": publish_vs_pipe,
    "refresh_vs_full": refresh_vs_full,
    "torn_reads": torn_reads,
}


def main() -> None:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []])
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for name in given.names or FIGURES:
        FIGURES[name](given.members, given.rounds)


if __name__ == "__main__":
    main()
