"""`fairboard forget`: afterwards all is as if the player had never been there, however often it was killed on the way."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from conftest import Fairboard, land_events, progression

from tests.ingest_fixtures import progression as sent
from tests.ingest_fixtures import service
from tests.lake_fixtures import DAYS, RANGE, contents, fold_all, game, kill_at_each_step, land_game, on_disk, tree
from tests.redis_servers import clear
from warehouse.boards import read_board
from warehouse.calendar import Days, WindowKind
from warehouse.database import BOARD_REVISIONS, METADATA, open_database
from warehouse.embedded_redis import EmbeddedRedis, connect
from warehouse.engine import DuckDBEngine
from warehouse.erasure import forget
from warehouse.folds import FOLDS, stale_days
from warehouse.lake import Lake
from warehouse.publications import PUBLISHED, Outlets, publish
from warehouse.readings import leaderboard
from warehouse.settings import Settings
from warehouse.tables import EVENTS, REJECTS

NOW = 1714780800.0  # the day after the game
FIRST_DAY_ENDS = NOW - 2 * 86_400
PLAYER = 'e"ve'
LETTERS = [b'{"playerId":"e\\"ve","ts":1.5}', b'{not json: e"ve', b'{"playerId":"e\\"vel"}', b'{"playerId":"ann","ts":null}']


def play(settings: Settings, events: list[dict[str, Any]], letters: list[bytes]) -> None:
    land_game(settings, files=3, events=events)
    same = {"received_ms": 1, "key_id": "k", "request_id": "r", "field": "ts", "reason": "no"}
    refused = [same | {"position": n, "body": body.decode()} for n, body in enumerate(letters)]
    rows = pa.Table.from_pylist(refused, schema=REJECTS.file_schema)
    Lake(settings).write(REJECTS, rows, {"event_date": RANGE.first}, "refused")
    fold_all(settings)
    publish_all(settings)


def publish_all(settings: Settings) -> None:
    with DuckDBEngine(settings) as engine:
        outlets = Outlets(settings, NOW)
        for name in PUBLISHED:
            publish(engine, outlets, name, RANGE)


def derived(settings: Settings) -> dict[str, bytes]:
    return {path: content for path, content in contents(settings).items() if path.partition("/")[0] in {*FOLDS} - {"events"}}


def in_database(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, but for the book of publications; of a revision not up to when and from which files it counted."""
    kept = (BOARD_REVISIONS.c.folded, BOARD_REVISIONS.c.watermark)
    columns = {
        table.name: [column for column in table.c if not any(column is one for one in kept)]
        for table in METADATA.sorted_tables
        if table.name != "publications"
    }
    with open_database(settings).connect() as connection:
        return {name: sorted(map(tuple, connection.execute(sa.select(*of)).all()), key=str) for name, of in columns.items()}


def in_redis(settings: Settings) -> dict[str, Any]:
    client = connect(settings)
    return {key: client.zrange(key, 0, -1, withscores=True) for key in client.scan_iter("lb:*") if client.type(key) == "zset"}


def names_in_redis(settings: Settings) -> str:
    client = connect(settings)
    keys = list(client.scan_iter("*"))
    return str([(key, client.get(key) if client.type(key) == "string" else "") for key in keys])


def naming(settings: Settings) -> list[str]:
    """The files of the lake, superseded ones and the log included, that hold the player: plain, escaped, or in a column."""
    found = []
    for name, content in on_disk(settings).items():
        if name.endswith(".parquet") and "_delta_log" not in name:
            content = str(pq.read_table(io.BytesIO(content)).to_pylist()).encode() + content  # noqa: PLW2901
        if PLAYER.encode() in content or b'e\\"ve"' in content:
            found.append(name)
    return found


def without(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["playerId"] != PLAYER]


def test_afterwards_everything_is_as_if_they_had_never_played(redis_settings: Settings, tmp_path: Path) -> None:
    never = redis_settings.model_copy(update={"data_dir": tmp_path / "never"})
    play(never, without(game()), LETTERS[2:])
    expected = (derived(never), in_database(never), in_redis(never))
    clear(connect(redis_settings))
    play(redis_settings, game(), LETTERS)
    assert derived(redis_settings) != expected[0]
    with DuckDBEngine(redis_settings) as engine:
        forgotten = forget(engine, Outlets(redis_settings, NOW), PLAYER)
        assert stale_days(engine) == []
        again = forget(engine, Outlets(redis_settings, NOW), PLAYER)
    assert forgotten.removed["lake: events"] > 20
    assert forgotten.removed["lake: rejects"] == 2
    assert forgotten.removed["lake: leaderboards"] > 4
    assert forgotten.removed["database: player_progress"] == 1
    assert sum(again.removed.values()) == 0
    assert (derived(redis_settings), in_database(redis_settings), in_redis(redis_settings)) == expected
    assert not naming(redis_settings)
    assert msgspec.json.encode(PLAYER).decode() not in names_in_redis(redis_settings)
    assert f"player:{PLAYER}:progress" not in names_in_redis(redis_settings)
    with DuckDBEngine(redis_settings) as engine:
        fold_all(redis_settings)
        assert (derived(redis_settings), stale_days(engine)) == (expected[0], [])


def test_where_no_redis_ever_ran_the_player_goes_all_the_same(settings: Settings, fairboard: Fairboard) -> None:
    land_game(settings)
    fold_all(settings)
    answer = msgspec.json.decode(fairboard("forget", PLAYER, "--yes", "--json").stdout)
    assert (answer["removed"]["lake: events"] > 20, answer["removed"]["redis: keys"]) == (True, 0)
    assert not naming(settings)


@pytest.mark.parametrize("embedded", [True, False])
def test_where_a_redis_is_away_nothing_is_removed(
    settings: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    land_game(settings)
    if embedded:
        with EmbeddedRedis(settings):
            pass
    else:
        monkeypatch.setenv("FAIRBOARD_REDIS_URL", "redis://127.0.0.1:1/0")
    before = tree(settings)
    assert "Nothing was removed" in fairboard("forget", PLAYER, "--yes", status=1).stderr
    assert tree(settings) == before


def test_what_only_they_were_on_goes(redis_settings: Settings) -> None:
    play(redis_settings, [progression(PLAYER, DAYS[2], 5), progression("ann", DAYS[0], 5)], LETTERS)
    client = connect(redis_settings)
    # A board of a calendar that is no longer configured: nobody publishes it again.
    client.zadd("lb:spring:daily", {PLAYER: 5.0})
    client.set("lb:spring:daily:top", json.dumps({"entries": [{"playerId": PLAYER}]}))
    with DuckDBEngine(redis_settings) as engine:
        window = leaderboard(engine, WindowKind.DAILY, at=RANGE.last).window
        forget(engine, Outlets(redis_settings, NOW), PLAYER)
    board = read_board(client, f"{window.redis_key}:{window.start}")
    assert board is not None
    assert board.entries == []
    assert not list(client.scan_iter("lb:spring:*"))
    assert not Lake(redis_settings).files(EVENTS, Days(RANGE.last, RANGE.last))


def test_killed_before_any_step_and_run_again_it_is_done(redis_settings: Settings, tmp_path: Path) -> None:
    origin = redis_settings.model_copy(update={"data_dir": tmp_path / "origin"})
    play(origin, [event for event in game() if event["ts"] < FIRST_DAY_ENDS][:40], LETTERS)
    environment = {**os.environ, "FAIRBOARD_REDIS_URL": str(redis_settings.redis_url)}
    steps = kill_at_each_step(origin.data_dir, tmp_path / "work", PLAYER, 23, environment)
    assert steps > 50
    folders = sorted((tmp_path / "work").iterdir())
    expected = redis_settings.model_copy(update={"data_dir": tmp_path / "work" / "0"})
    for folder in folders:
        done = redis_settings.model_copy(update={"data_dir": folder})
        assert contents(done) == contents(expected), folder.name
        assert not naming(done)
        assert in_database(done) == in_database(expected)


def test_the_command_asks_first_and_seals_what_the_journal_holds(redis_settings: Settings) -> None:
    environment = {"FAIRBOARD_REDIS_URL": str(redis_settings.redis_url), "FAIRBOARD_SEAL_AFTER_S": "1"}
    fairboard = [str(Path(sys.executable).parent / "fairboard"), "forget", "eve"]
    with service(redis_settings.data_dir, **environment) as running:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        land_events(redis_settings, [progression("ann", today, 5, "00:00:00")], "before")
        assert running.post("/events", json.dumps(sent("eve")).encode()).status_code == 202

        def forgetting(*options: str) -> "subprocess.CompletedProcess[str]":
            command, environ = [*fairboard, *options], os.environ | environment
            return subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

        unsure = forgetting()
        assert (unsure.returncode, "nothing was removed. Add --yes" in unsure.stderr) == (1, True)
        sure = forgetting("--yes", "--json")
    assert sure.returncode == 0, sure.stderr
    assert msgspec.json.decode(sure.stdout)["removed"]["lake: events"] == 1
    assert running.events()["player_id"].to_list() == ["ann"]
