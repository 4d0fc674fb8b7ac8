"""The read API beside Redis: the same answer over HTTP and by raw commands, as one JSON line each.

    python benchmarks/reads_bench.py [--players 1000000] [--reads 2000]

Boards of a million, one worker, rate limit and all. Both sides are asked by one blocking client over one kept socket, which
sends bytes that are ready and reads until the answer is whole; they take turns, read by read, and their answers are compared
first. `ratio` is to the bare commands: for `around` those are two round trips, for `rank` one pipeline over the four boards.
`ratio_safe` is to what a client has to send to be as sure as the API that its answer is of one publication: the same commands
in MULTI with the board's metadata. What is asked `again` while its revision stands is answered from what the worker has kept;
what is asked `first`, about another player with each read, shows what the way through Redis costs. `ingest_beside_reads` is the
rate of single events with 50 reads/s beside them over the rate without.
"""

import argparse
import json
import math
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.ingest_bench import SECRET, Wrk, event, run_wrk
from tests.ingest_fixtures import Service, service, wait_until
from warehouse.boards import TOP
from warehouse.calendar import Calendar
from warehouse.embedded_redis import EmbeddedRedis, connect
from warehouse.settings import Settings
from warehouse.swaps import publish_board
from warehouse.tables import LEADERBOARDS

Ask = Callable[[], Any]


class Wire:
    """A blocking connection that sends bytes and reads until what came is a whole answer."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, question: bytes, whole: Callable[[bytes], bool]) -> bytes:
        """The answer's bytes."""
        self._socket.sendall(question)
        answer = b""
        while not whole(answer):
            answer += self._socket.recv(1 << 18)
        return answer


class Http:
    """GET over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._wire = Wire(str(parts.hostname), int(parts.port or 0))

    def reader(self, path: str) -> Ask:
        """What reads a path."""
        question = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        return lambda: json.loads(self._wire.ask(question, self._whole).partition(b"\r\n\r\n")[2])

    @staticmethod
    def _whole(answer: bytes) -> bool:
        head, _, body = answer.partition(b"\r\n\r\n")
        _, found, rest = head.partition(b"content-length: ")
        return bool(found) and len(body) == int(rest.split(b"\r\n", 1)[0])


class Raw:
    """Commands over one connection. The replies are parsed, as a client has to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._wire = Wire(str(parts.hostname), int(parts.port or 0))
        self.ask([["AUTH", str(parts.username), str(parts.password)]])

    def ask(self, commands: list[list[str]]) -> list[Any]:
        """Their replies, of one round trip."""
        question = b"".join(
            b"*%d\r\n" % len(one) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in map(str.encode, one))
            for one in commands
        )
        replies: list[Any] = []

        def whole(answer: bytes) -> bool:
            try:
                replies[:] = _replies(answer, len(commands))
            except IndexError:
                return False
            return True

        self._wire.ask(question, whole)
        return replies


def _replies(answer: bytes, count: int) -> list[Any]:
    lines, at = answer.split(b"\r\n"), 0

    def one() -> Any:
        nonlocal at
        line = lines[at]
        if at + 1 >= len(lines):
            raise IndexError
        at += 1
        kind, rest = line[:1], line[1:]
        assert kind != b"-", line
        if kind == b"*":
            return [one() for _ in range(int(rest))]
        if kind == b"$" and rest != b"-1":
            at += 1
            if at >= len(lines):
                raise IndexError
            return lines[at - 1].decode()
        return int(rest) if kind == b":" else rest.decode()

    return [one() for _ in range(count)]


def publish(settings: Settings, players: int) -> list[str]:
    """Four boards of that many players. Their keys."""
    calendar, client, now = Calendar.of(settings), connect(settings), time.time()
    xp = np.sort(np.random.default_rng(1).integers(0, 10 * players, players))[::-1]
    rank = np.arange(1, players + 1)
    keys = []
    for window in calendar.windows_of(calendar.day_of(int(now))):
        fixed = {"as_of": window.start, "boss_kills": 0, "reached_ts": 1, "previous_rank": 1, "movement": 0}
        board = pl.DataFrame({"rank": rank, "player_id": [f"player_{n:07}" for n in rank], "xp": xp}).with_columns(
            **{name: pl.lit(value) for name, value in (window.partition | fixed).items()}
        )
        columns = board.select(LEADERBOARDS.schema.names)
        about: dict[str, Any] = {"calendar": calendar, "window": window, "source": "", "watermark": None, "now": now}
        publish_board(client, window.redis_key, columns, columns.head(TOP), **about)
        keys.append(window.redis_key)
    return keys


def measure(
    name: str, ways: Callable[[str], dict[str, Ask]], alike: Callable[[Any, Any], bool], players: list[str], **about: str
) -> None:
    """Ask for one player after another in every way: `api`, bare commands (`redis`), `safe` ones. Times in ms.

    The ways' answers about the first and the last player are compared before.
    """
    for player in (players[0], players[-1]):
        first, *others = [ask() for ask in ways(player).values()]
        assert all(alike(first, other) for other in others), f"{name}: the answers differ:\n{first}\n{others}"
    times: dict[str, list[float]] = defaultdict(list)
    for player in players:
        for way, ask in ways(player).items():
            started = time.perf_counter()
            ask()
            times[way].append((time.perf_counter() - started) * 1000)
    figure: dict[str, Any] = {"name": name, **about, "reads": len(players)}
    for way, taken in times.items():
        cuts = statistics.quantiles(taken, n=100)
        figure |= {f"{way}_p{n}_ms": round(cuts[n - 1], 4) for n in (50, 95, 99)}
    figure["ratio"] = round(figure["api_p50_ms"] / figure["redis_p50_ms"], 2)
    figure["ratio_safe"] = round(figure["api_p50_ms"] / figure["safe_p50_ms"], 2)
    print(json.dumps(figure), flush=True)


def board_lines(page: dict[str, Any]) -> list[tuple[str, int]]:
    """Players and scores of an answer of the API."""
    return [(entry["playerId"], entry["score"]) for entry in page["entries"]]


def pairs(members: list[str]) -> list[tuple[str, int]]:
    """The same of ZREVRANGE … WITHSCORES."""
    return [(player, math.floor(float(score))) for player, score in zip(members[::2], members[1::2], strict=True)]


def compare(http: Http, raw: Raw, keys: list[str], players: int, reads: int) -> None:
    """The three figures of reading; those about a player for one player again and again, and for another with each read."""
    daily = next(key for key in keys if key.endswith("daily"))
    one = [f"player_{players // 2:07}"] * reads
    others = [f"player_{n:07}" for n in np.random.default_rng(2).choice(np.arange(100, players - 100), reads, replace=False)]

    def safe(*commands: list[str], of: list[str]) -> list[Any]:
        """The replies of commands that see one publication of those boards."""
        heads = [["HMGET", f"{key}:meta", "start", "published_at", "players", "revision", "exact"] for key in of]
        replies: list[Any] = raw.ask([["MULTI"], *heads, *commands, ["EXEC"]])[-1]
        return replies[len(of) :]

    def around_by(ask: Callable[[list[str]], list[Any]], player: str) -> Any:
        rank = ask(["ZREVRANK", daily, player])[0]
        return ask(["ZREVRANGE", daily, str(rank - 5), str(rank + 5), "WITHSCORES"])[0]

    def top(_player: str) -> dict[str, Ask]:
        command = ["ZREVRANGE", daily, "0", "99", "WITHSCORES"]
        return {
            "api": http.reader("/leaderboard?window=daily&limit=100"),
            "redis": lambda: raw.ask([command])[0],
            "safe": lambda: safe(command, of=[daily])[0],
        }

    def around(player: str) -> dict[str, Ask]:
        return {
            "api": http.reader(f"/leaderboard/around/{player}?window=daily&limit=11"),
            "redis": lambda: around_by(lambda command: raw.ask([command]), player),
            "safe": lambda: around_by(lambda command: safe(command, of=[daily]), player),
        }

    def rank(player: str) -> dict[str, Ask]:
        questions = [[*words, player] for key in keys for words in (["ZREVRANK", key], ["ZSCORE", key])]
        return {
            "api": http.reader(f"/players/{player}/rank"),
            "redis": lambda: raw.ask(questions),
            "safe": lambda: safe(*questions, of=keys),
        }

    def same_lines(page: dict[str, Any], members: list[str]) -> bool:
        return board_lines(page) == pairs(members)

    def same_ranks(answer: dict[str, Any], replies: list[Any]) -> bool:
        found = [(one["rank"] - 1, one["score"]) for one in answer["ranks"]]
        return found == [(rank, math.floor(float(xp))) for rank, xp in zip(replies[::2], replies[1::2], strict=True)]

    measure("read_top_vs_redis", top, same_lines, one)
    for asked, who in (("again", one), ("first", others)):
        measure("read_around_vs_redis", around, same_lines, who, asked=asked)
        measure("read_rank_vs_redis", rank, same_ranks, who, asked=asked)


@contextmanager
def reads_beside(url: str, per_second: int) -> Iterator[list[int]]:
    """Reads of a page, at that rate, in a thread; the list grows by their sizes."""
    done, sizes = threading.Event(), []
    read = Http(url).reader("/leaderboard?window=daily&limit=100")

    def go_on() -> None:
        due = time.perf_counter()
        while not done.is_set():
            sizes.append(len(read()["entries"]))
            due += 1 / per_second
            time.sleep(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()


def ingest_beside_reads(running: Service, rounds: int, seconds: float) -> None:
    """Single events alone and with reads beside them, in turns; the middle of the ratios."""
    body = json.dumps(event(1)).encode()

    def load() -> Wrk:
        return run_wrk(running.url, body, seconds)

    load()
    ratios, alone, beside = [], [], []
    for _ in range(rounds):
        alone.append(load().rate)
        with reads_beside(running.url, 50) as sizes:
            beside.append(load().rate)
        assert sizes
        assert set(sizes) == {100}
        ratios.append(beside[-1] / alone[-1])
    figure = {"name": "ingest_beside_reads", "alone_per_s": round(statistics.median(alone))}
    print(json.dumps(figure | {"beside_per_s": round(statistics.median(beside)), "ratio": round(statistics.median(ratios), 3)}))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--players", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reads-") as temporary:
        folder = Path(temporary) / "data"
        settings = Settings(data_dir=folder, _env_file=None)
        environment = {"FAIRBOARD_HMAC_KEYS": f"bench:{SECRET}", "FAIRBOARD_RATE_LIMIT": "100000000"}
        with EmbeddedRedis(settings) as server, service(folder, FAIRBOARD_REDIS_URL=server.url, **environment) as running:
            keys = publish(settings, arguments.players)
            wait_until(lambda: running.http.get("/readyz").json()["status"] == "ready", "Redis is connected")
            compare(Http(running.url), Raw(server.url), keys, arguments.players, arguments.reads)
            ingest_beside_reads(running, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
