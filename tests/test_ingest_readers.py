"""Who may read; and what reading may not do: mix revisions, grow without end, stand in the way of events."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from threading import Event

import httpx
import polars as pl
import psutil
import pytest
from reads_fixtures import AWAY, Game, published_game, reading

from ingest_api.keys import make_key, retire_keys
from ingest_api.signature import sign
from tests.ingest_fixtures import SECRET, Service, progression, wait_until
from warehouse.boards import TOP
from warehouse.calendar import Calendar, Window, WindowKind, iso
from warehouse.embedded_redis import connect
from warehouse.lake import Lake
from warehouse.swaps import publish_board
from warehouse.tables import LEADERBOARDS

CROWD = 300_000
ALL_TIME = "/leaderboard?window=alltime"
NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Game]:
    with published_game(tmp_path_factory.mktemp("readers") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def without_redis(game: Game) -> Iterator[Service]:
    with reading(game, FAIRBOARD_REDIS_URL=AWAY) as started:
        yield started


def window(game: Game) -> Window:
    return Calendar.of(game.settings).window_at(WindowKind.ALLTIME, game.today)


def board(game: Game, players: int, xp: int) -> pl.DataFrame:
    """A board on which everybody has the same XP, so that two revisions cannot be mixed unseen."""
    names = pl.format("player_{}", pl.int_range(players).cast(pl.String).str.zfill(7))
    rank = pl.int_range(1, players + 1, dtype=pl.Int64)
    frame = pl.select(rank=rank, player_id=names, xp=pl.repeat(xp, players, dtype=pl.Int64))
    fixed = {"as_of": game.today, "boss_kills": 0, "reached_ts": 1, "previous_rank": None, "movement": None}
    every = frame.with_columns(**{name: pl.lit(value) for name, value in (window(game).partition | fixed).items()})
    return every.select(LEADERBOARDS.schema.names).cast({"previous_rank": pl.Int64, "movement": pl.Int64})


def fold(game: Game, players: int, xp: int) -> None:
    rows = board(game, players, xp).to_arrow().cast(LEADERBOARDS.schema)
    Lake(game.settings).write(LEADERBOARDS, rows, window(game).partition)


def readers_of(service: Service) -> list[psutil.Process]:
    found = psutil.Process(service.process.pid).children(recursive=True)
    return [one for one in found if "ingest_api.reader" in one.cmdline()]


def worker_of(service: Service) -> psutil.Process:
    found = psutil.Process(service.process.pid).children()
    return next(one for one in found if "ingest_api.worker" in one.cmdline())


def test_in_production_reading_needs_a_read_key_and_such_a_key_signs_nothing(game: Game) -> None:
    with reading(game, FAIRBOARD_PROFILE="production") as started:
        secret = make_key(started.settings, "game-ui", "read")
        assert secret not in (started.folder / "keys.json").read_text()

        def status(token: str, scheme: str = "Bearer") -> int:
            return started.http.get("/leaderboard", headers={"authorization": f"{scheme} {token}"}).status_code

        wait_until(lambda: status(secret) == 200, "the new key is known")
        assert status(secret, "Basic") == status(SECRET) == status(secret[:-1]) == 401
        bare = started.http.get("/leaderboard")
        assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")
        assert "fairboard keys make ID --read" in bare.json()["detail"]
        body = json.dumps(progression(eventId="by-a-reader")).encode()
        assert started.http.post("/events", content=body, headers={"authorization": f"Bearer {secret}"}).status_code == 401
        signed = started.headers(body, x_key_id="game-ui", x_signature=sign(secret.encode(), body))
        assert started.http.post("/events", content=body, headers=signed).status_code == 401
        retire_keys(started.settings, "game-ui")
        wait_until(lambda: status(secret) == 401, "the retired key is refused")
        assert secret not in started.log()


def test_reading_can_be_made_public_in_production_and_closed_in_the_demo(game: Game) -> None:
    with reading(game, FAIRBOARD_PROFILE="production", FAIRBOARD_PUBLIC_READS="true") as started:
        assert started.http.get("/leaderboard").status_code == 200
    with reading(
        game, FAIRBOARD_PUBLIC_READS="false", FAIRBOARD_CORS_ORIGINS="https://game.example, https://b.example"
    ) as started:
        response = started.http.get("/leaderboard", headers={"origin": "https://game.example"})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == "https://game.example"
        assert response.headers["vary"] == "origin"
        foreign = started.http.get("/leaderboard", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers
        asked = {"origin": "https://b.example", "access-control-request-method": "GET"}
        preflight = started.http.options("/players/a/rank", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (204, "GET")
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        sending = started.http.options("/events", headers=asked | {"access-control-request-method": "POST"})
        assert (sending.status_code, sending.headers["access-control-allow-methods"]) == (204, "POST")
        assert "webhook-signature" in sending.headers["access-control-allow-headers"]
        sent = started.post("/events", json.dumps(progression()).encode(), origin="https://b.example")
        assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (202, "https://b.example")
        foreign = started.http.options("/events", headers=asked | {"origin": "https://evil.example"})
        assert "access-control-allow-methods" not in foreign.headers


def test_a_whole_board_is_of_one_revision_and_takes_no_memory_however_slowly_it_is_read(
    game: Game, without_redis: Service
) -> None:
    fold(game, CROWD, 1)
    without_redis.http.get("/leaderboard")  # so that what a first read loads is loaded
    before = worker_of(without_redis).memory_info().rss
    found = 0
    with without_redis.http.stream("GET", ALL_TIME, headers=NDJSON) as response:
        for number, line in enumerate(response.iter_lines()):
            if number == 1000:
                fold(game, CROWD, 2)
                time.sleep(0.5)
                grown = worker_of(without_redis).memory_info().rss - before
            entry = json.loads(line)
            assert (entry["rank"], entry["score"]) == (number + 1, 1)
            found += 1
    assert found == CROWD
    assert grown < 8 * 1024 * 1024  # of some 25 MB
    assert without_redis.http.get(f"{ALL_TIME}&limit=1").json()["entries"][0]["score"] == 2


def test_a_stream_whose_client_goes_away_ends_and_its_place_is_free(game: Game, without_redis: Service) -> None:
    fold(game, CROWD, 1)
    for _ in range(5):
        with httpx.stream("GET", without_redis.url + ALL_TIME, headers=NDJSON, trust_env=False, timeout=60) as response:
            assert response.status_code == 200
            next(response.iter_lines())
    assert len(without_redis.http.get(ALL_TIME, headers=NDJSON).text.splitlines()) == CROWD


def test_a_stream_waits_for_its_turn_on_the_connection(game: Game, without_redis: Service) -> None:
    fold(game, 3, 1)
    asked = f"GET {ALL_TIME} HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n"
    last = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    host, port = without_redis.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall((asked + asked.replace("GET", "GET", 1) + last).encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
    assert answer.count("\r\n0\r\n\r\n") == 2
    assert answer.count('"rank":3') == 2
    assert answer.endswith('{"status":"alive"}')


def test_http_1_0_knows_no_chunks(without_redis: Service) -> None:
    host, port = without_redis.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"GET {ALL_TIME} HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n".encode())
        assert b" 505 " in connection.recv(1 << 16)


def test_a_reader_that_is_killed_is_replaced(without_redis: Service) -> None:
    assert without_redis.http.get("/seasons").status_code == 200
    for reader in readers_of(without_redis):
        reader.kill()
        reader.wait()
    assert without_redis.http.get("/players/p001/progress").status_code == 200


def test_more_than_the_warehouse_can_answer_is_told_to_come_again_and_events_go_on(game: Game, without_redis: Service) -> None:
    limits = httpx.Limits(max_connections=100)
    with ThreadPoolExecutor(100) as crowd, httpx.Client(base_url=without_redis.url, timeout=60, limits=limits) as http:
        list(crowd.map(http.get, (f"/leaderboard/around/p101?limit={n}" for n in range(1, 21))))  # every reader has started
        readers = readers_of(without_redis)
        for reader in readers:
            reader.suspend()
        asked = [crowd.submit(http.get, f"/leaderboard/around/p100?limit={n}") for n in range(1, 101)]
        sent = [without_redis.post("/events", json.dumps(progression(eventId=f"e{n}")).encode()) for n in range(20)]
        wait_until(lambda: any(one.done() for one in asked), "somebody is refused")
        for reader in readers:
            reader.resume()
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
    assert [response.status_code for response in sent] == [202] * 20


def test_no_reader_outlives_its_worker(game: Game) -> None:
    with reading(game, FAIRBOARD_REDIS_URL=AWAY) as started:
        assert started.http.get("/seasons").status_code == 200
        readers = readers_of(started)
        assert readers
        worker_of(started).kill()
        wait_until(lambda: not any(one.is_running() for one in readers), "the readers have ended")
        wait_until(started.answers, "the worker is back")
        assert started.http.get("/seasons").status_code == 200
        readers = readers_of(started)
    wait_until(lambda: not any(one.is_running() for one in readers), "the readers have ended with the service")


def test_no_page_is_of_two_publications(game: Game) -> None:
    client, calendar, key = connect(game.settings), Calendar.of(game.settings), window(game).redis_key

    def publish(xp: int) -> None:
        rows = board(game, 250 + xp, xp)
        about = {"calendar": calendar, "window": window(game), "source": str(xp), "watermark": None, "now": xp}
        publish_board(client, key, rows, rows.head(TOP), **about)

    paths = [
        f"{ALL_TIME}&limit=200",
        "/leaderboard/around/player_0000120?window=alltime&limit=100",
        "/leaderboard/players?window=alltime&ids=player_0000001,player_0000200",
    ]
    publish(0)
    seen, done = set(), Event()

    def publish_on() -> None:
        for xp in takewhile(lambda _: not done.is_set(), count(1)):
            publish(xp)

    with reading(game) as started, ThreadPoolExecutor(1) as publisher:
        publishing = publisher.submit(publish_on)
        try:
            while len(seen) < 5:
                for page in (started.http.get(path).json() for path in paths):
                    if page["revision"] is not None:  # else three publications came in between, and it is the lake's
                        xp = page["players"] - 250
                        assert {entry["score"] for entry in page["entries"]} == {xp}
                        assert page["updatedAt"] == iso(xp)
                        seen.add(xp)
        finally:
            done.set()
        publishing.result()
