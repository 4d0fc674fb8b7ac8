"""What the service says of itself and of the boards, and the examples that the documentation shows."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis as client

from ingest_api.openapi import EXAMPLE
from tests.ingest_fixtures import KEY_ID, SECRET, Service, service, wait_until
from warehouse.boards import Board, BoardMeta, Entry
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.events import decode_event
from warehouse.settings import Settings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("reads") / "data"
    with EmbeddedRedis(Settings(data_dir=folder, _env_file=None)) as redis, service(folder) as started:
        with client.Redis.from_url(redis.url) as connection:
            _publish(connection)
        wait_until(lambda: started.http.get("/readyz").json()["status"] == "ready", "Redis is connected")
        yield started


def _publish(connection: Any) -> None:
    meta = BoardMeta("alltime", "all", "1970-01-01", "9999-12-31", "", "", "", 2, 1)
    board = Board(meta, [Entry(1, "ann", 30, 2, 1), Entry(2, "bob", 20, 1, -1)])
    connection.set("lb:all:alltime:top", msgspec.json.encode(board))
    connection.zadd("lb:all:alltime", {"ann": 30.5, "bob": 20.5})
    connection.hset("{lb:all:alltime}:revision", "revision", 1)
    connection.hset("player:ann b:progress", mapping={"xp": 30, "level": 2, "xp_to_next": "", "updated_at": "now"})


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_a_board_is_read_in_order(running: Service, limit: int) -> None:
    board = running.http.get("/leaderboard", params={"window": "alltime", "limit": limit}).json()
    assert [entry["playerId"] for entry in board["entries"]] == ["ann", "bob"][:limit]
    assert board["meta"]["players"] == 2


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"window": "daily"}, 404, None),
        ({"window": "hourly"}, 400, "window"),
        ({"window": "alltime", "limit": "0"}, 400, "limit"),
        ({"window": "alltime", "limit": "1001"}, 400, "limit"),
        ({"window": "alltime", "limit": "9" * 5000}, 400, "limit"),
    ],
)
def test_a_board_that_cannot_be_read_is_told_why(
    running: Service, query: dict[str, str], status: int, field: str | None
) -> None:
    response = running.http.get("/leaderboard", params=query)
    assert response.status_code == status
    assert response.json().get("field") == field


def test_progress_of_a_player(running: Service) -> None:
    assert running.http.get("/players/ann%20b/progress").json() == {
        "player_id": "ann b", "xp": 30, "level": 2, "xp_to_next": None, "updated_at": "now",
    }  # fmt: skip
    assert running.http.get("/players/nobody/progress").status_code == 404
    assert running.http.get("/players//progress").status_code == 404


def test_metrics_are_prometheus_text(running: Service) -> None:
    running.post("/events", json.dumps(EXAMPLE | {"ts": int(time.time())}).encode())
    wait_until(lambda: 'redis_up{worker="000"} 1' in running.http.get("/metrics").text, "the gauge is set")
    page = running.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'fairboard_ingest_events_total{worker="000",result="accepted"} 1' in page.text
    assert 'fairboard_ingest_commit_seconds_bucket{worker="000",le="+Inf"} 1' in page.text


def test_the_openapi_document_lists_what_answers(running: Service) -> None:
    document = running.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            response = running.http.request(method, path.replace("{id}", "nobody"))
            assert response.status_code not in (405, 500)
            assert response.status_code != 404 or response.json()["type"] != "urn:fairboard:problem:not-found"
    assert document["components"]["schemas"]["Progression"]["required"] == ["type", "playerId", "ts", "payload"]


@pytest.mark.parametrize("name", ["progression", "boss_kill", "drop_claimed"])
def test_the_sample_of_each_type_is_valid_and_of_that_type(name: str) -> None:
    content = (EXAMPLES / "events" / f"{name}.json").read_bytes()
    assert json.loads(content)["type"] == name
    decode_event(content)


def test_the_python_client_and_curl_of_the_examples_send_the_samples(running: Service) -> None:
    environment = {"URL": running.url, "KEY_ID": KEY_ID, "SECRET": SECRET, "PATH": "/usr/bin:/bin"}
    for command in ([sys.executable, "send.py"], ["bash", "send.sh"]):
        sent = subprocess.run(command, cwd=EXAMPLES / "clients", env=environment, capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stderr
        assert '"accepted":1' in sent.stdout.replace(" ", "")
