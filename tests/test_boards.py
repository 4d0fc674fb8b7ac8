"""Boards and progress in Redis, against a real server."""

import math
import shlex
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis
import sqlalchemy as sa
from conftest import Land, at, land_events, progression
from hypothesis import given
from hypothesis import strategies as st
from redis_servers import SERVERS

from warehouse.boards import are_exact, key_of, read_board, read_progress, scores
from warehouse.calendar import Calendar, Days, WindowKind
from warehouse.database import LEADERBOARD_SNAPSHOTS, PLAYER_PROGRESS, PUBLICATIONS, RECEIPTS, SUSPICIOUS_EVENTS, open_database
from warehouse.embedded_redis import EmbeddedRedis, connect
from warehouse.engine import DuckDBEngine
from warehouse.errors import StoreUnavailable
from warehouse.folds import FOLDS, fold
from warehouse.outlets import Outlets
from warehouse.publications import PUBLISHED, publish
from warehouse.publisher import read_leaderboard
from warehouse.settings import Settings

FIRST, SECOND = "2026-05-01", "2026-05-02"
MAY = Days(date(2026, 5, 1), date(2026, 5, 31))
NOON = at(SECOND)


def run(settings: Settings, days: Days = MAY, now: float = NOON) -> dict[str, int]:
    """Fold and publish; rows per publication."""
    with DuckDBEngine(settings) as engine:
        for name in FOLDS:
            fold(engine, name, days)
        outlets = Outlets(settings, now)
        return {name: publish(engine, outlets, name, days).rows for name in PUBLISHED}


def rows(settings: Settings, table: sa.Table, *columns: str) -> list[tuple[object, ...]]:
    with open_database(settings).connect() as connection:
        selected = [table.c[name] for name in columns]
        return [tuple(row) for row in connection.execute(sa.select(*selected).order_by(*selected))]


XP = st.lists(st.integers(-1000, 2**33 - 1) | st.sampled_from([0, 5, 5, 5]), min_size=1, max_size=300)


@given(XP)
def test_below_2_to_the_33_scores_keep_the_rank_order_and_the_whole_part(xp: list[int]) -> None:
    ranked = np.array(sorted(xp, reverse=True), dtype=np.int64)
    score = scores(ranked)
    assert np.array_equal(np.floor(score), ranked)
    assert (np.diff(score) < 0).all()


ANY_XP = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**53), -1, 0, 7, 2**33, 2**50, 2**53 - 1, 2**53, 2**63 - 1])


@given(st.lists(st.tuples(ANY_XP, st.integers(1, 300)), min_size=1, max_size=20))
def test_the_order_holds_whatever_the_xp_and_an_inexact_number_is_known_to_be_one(runs: list[tuple[int, int]]) -> None:
    ranked = np.array(sorted((xp for xp, equals in runs for _ in range(equals)), reverse=True), dtype=np.int64)
    score = scores(ranked)
    assert (np.diff(score) < 0).all()
    told = [math.floor(one) for one in score.tolist()]
    assert are_exact(score, ranked) <= (told == ranked.tolist())
    assert max(abs(one - xp) for one, xp in zip(told, ranked.tolist(), strict=True)) <= len(ranked) * 2**11
    if max(map(abs, ranked.tolist())) < 2**33:
        assert are_exact(score, ranked)


def test_who_joins_equals_later_moves_none_of_them() -> None:
    assert scores(np.array([7, 7, 7]))[:2].tolist() == scores(np.array([7, 7])).tolist()


def test_the_game_reads_the_contract_of_design(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression("ann", SECOND, 10), progression("bob", SECOND, 30), progression("cid", FIRST, 10)])
    run(redis_settings)
    client = connect(redis_settings)
    assert client.zrevrange("lb:2026-05:weekly", 0, -1) == ["bob", "cid", "ann"]
    assert [int(score) for _, score in client.zrevrange("lb:2026-05:daily", 0, -1, withscores=True)] == [30, 10]
    assert client.zrevrange("lb:2026-05:daily:2026-05-01", 0, -1) == ["cid"]
    assert client.zcard("lb:all:alltime") == 3
    meta = client.hgetall("lb:2026-05:daily:meta")
    assert meta["resets_at"] == "2026-05-03T00:00:00Z"
    assert (meta["players"], meta["revision"], meta["watermark"]) == ("2", "1", "2026-05-02T12:00:00Z")
    day = 86_400
    assert [round(client.ttl(key) / day) for key in ("lb:2026-05:daily", "lb:2026-05:weekly", "lb:2026-05:seasonal:top")] == [
        2,
        14,
        90,
    ]
    board = read_board(client, "lb:2026-05:weekly")
    assert board is not None
    assert [(e.rank, e.player_id, e.score, e.movement) for e in board.entries] == [
        (1, "bob", 30, None),
        (2, "cid", 10, -1),
        (3, "ann", 10, None),
    ]
    assert read_progress(client, "bob")["xp"] == "30"
    assert client.ttl("player:bob:progress") > 6 * day


def test_a_changed_board_gets_a_revision_and_an_unchanged_one_is_left_alone(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression("ann", SECOND, 10)])
    run(redis_settings)
    assert run(redis_settings)["publications"] == 0
    land_events(redis_settings, [progression("ann", SECOND, 5)], name="later")
    run(redis_settings)
    client = connect(redis_settings)
    assert client.hget("lb:2026-05:daily:meta", "revision") == "2"
    assert list(client.scan_iter("*staging*")) == []
    published = rows(redis_settings, PUBLICATIONS, "redis_key", "revision", "players")
    assert ("lb:2026-05:daily", 2, 1) in published


def test_a_new_day_has_its_boards_before_its_first_event(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression("ann", FIRST, 10)])
    run(redis_settings)
    board = read_board(connect(redis_settings), "lb:2026-05:daily")
    assert board is not None
    assert (board.meta.start, board.meta.players, board.entries) == (SECOND, 0, [])


@pytest.mark.parametrize(
    ("kind", "today", "key"),
    [
        (WindowKind.DAILY, date(2026, 5, 1), "lb:2026-05:daily"),
        (WindowKind.DAILY, date(2026, 5, 2), "lb:2026-05:daily:2026-05-01"),
        (WindowKind.DAILY, date(2026, 5, 4), None),
        (WindowKind.DAILY, date(2026, 4, 30), "lb:2026-05:daily"),
        (WindowKind.WEEKLY, date(2026, 5, 17), "lb:2026-05:weekly:2026-05-01"),
        (WindowKind.WEEKLY, date(2026, 5, 18), None),
        (WindowKind.ALLTIME, date(2030, 1, 1), "lb:all:alltime"),
    ],
)
def test_a_closed_window_has_a_key_of_its_own_until_it_expires(
    settings: Settings, kind: WindowKind, today: date, key: str
) -> None:
    window = Calendar.of(settings).window_at(kind, date(2026, 5, 1))
    assert key_of(window, Calendar.of(settings), today) == key


def test_receipts_are_granted_once_whatever_is_run_again_and_never_taken_back(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression("ann", FIRST, 100)])
    assert run(redis_settings)["receipts"] == 1
    land_events(redis_settings, [progression("ann", FIRST, -90, "13:00:00"), progression("ann", SECOND, 95)], name="late")
    assert run(redis_settings)["receipts"] == 0
    assert run(redis_settings, Days.parse(SECOND, SECOND))["receipts"] == 0
    assert rows(redis_settings, RECEIPTS, "player_id", "level", "earned_on") == [("ann", 2, date(2026, 5, 1))]
    assert rows(redis_settings, PLAYER_PROGRESS, "player_id", "xp_total", "level") == [("ann", 105, 2)]


def test_an_old_day_published_again_does_not_turn_progress_back(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression("ann", FIRST, 10), progression("ann", SECOND, 10)])
    run(redis_settings)
    run(redis_settings, Days.parse(FIRST, FIRST))
    assert rows(redis_settings, PLAYER_PROGRESS, "xp_total", "last_active") == [(20, date(2026, 5, 2))]


def test_flagged_events_and_closed_windows_are_in_the_database(redis_settings: Settings) -> None:
    usual = [progression("ann", FIRST, 10 + n % 3, f"10:{n:02}:00") for n in range(20)]
    land_events(redis_settings, [*usual, progression("ann", SECOND, 10_000, eventId="odd")])
    run(redis_settings)
    run(redis_settings)
    assert rows(redis_settings, SUSPICIOUS_EVENTS, "event_id", "rule", "delta_xp") == [
        ("odd", "self", 10_000),
        ("odd", "self_log", 10_000),
    ]
    assert rows(redis_settings, LEADERBOARD_SNAPSHOTS, "window_kind", "window_start", "rank", "player_id") == [
        ("daily", date(2026, 5, 1), 1, "ann")
    ]


def test_without_redis_publishing_says_what_to_do_and_changes_nothing(settings: Settings, land: Land) -> None:
    land([progression("ann", FIRST, 10)])
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(StoreUnavailable, match="Nothing was published") as failure:
        run(nowhere)
    assert "fairboard redis" in str(failure.value)
    assert not (settings.data_dir / "fairboard.sqlite").exists()


def test_a_player_id_of_any_legal_character_reads_back(redis_settings: Settings) -> None:
    odd = "a:b{c}*\"'\\ ü😀"
    land_events(redis_settings, [progression(odd, SECOND, 5)])
    run(redis_settings)
    client = connect(redis_settings)
    assert client.zrevrange("lb:2026-05:daily", 0, -1) == [odd]
    assert read_progress(client, odd)["xp"] == "5"


@pytest.mark.parametrize(
    "command",
    [
        "EVAL 'return 1' 0", "FUNCTION LIST", "CONFIG GET *", "FLUSHALL", "FLUSHDB", "KEYS *", "SWAPDB 0 1", "PFADD hll a",
        "PFCOUNT hll", "MIGRATE 127.0.0.1 1 k 0 1", "SHUTDOWN", "MONITOR", "ACL LIST", "MODULE LIST",
        "REPLICAOF 127.0.0.1 1", "SAVE", "SORT k", "SETRANGE k 0 x", "BITFIELD k", "GEOADD k 0 0 a", "XADD k * a b",
        "PUBLISH c m", "CLIENT LIST", "RESTORE k 0 x", "OBJECT HELP", "LPUSH k a",
    ],
)  # fmt: skip
def test_the_embedded_redis_does_nothing_that_is_not_done_here(redis_settings: Settings, command: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"no permission|unknown command"):
        connect(redis_settings).execute_command(*shlex.split(command))


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS.keys())
def test_every_server_knows_the_commands_that_its_user_may_give(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, server: Path
) -> None:
    monkeypatch.setattr("warehouse.embedded_redis.find_server", lambda: server)
    with EmbeddedRedis(settings):
        assert connect(settings).info("server")
        assert connect(settings).zadd("lb", {"ann": 1}) == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            connect(settings).pfadd("hll", "a")


def test_the_embedded_redis_lets_no_strangers_in(redis_settings: Settings) -> None:
    client = connect(redis_settings)
    host = client.connection_pool.connection_kwargs
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(host["host"], host["port"]).ping()


def test_a_long_reading_has_the_order_of_the_lake(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression(f"p{n:03}", SECOND, n // 4, f"12:00:{n % 60:02}") for n in range(240)])
    run(redis_settings)
    board = read_board(connect(redis_settings), "lb:2026-05:daily", limit=1000)
    assert board is not None
    with DuckDBEngine(redis_settings) as engine:
        window = engine.calendar.window_at(WindowKind.DAILY, date(2026, 5, 2))
        lake = read_leaderboard(engine, window)
    assert pl.Series([entry.player_id for entry in board.entries]).equals(lake["player_id"].rename(""))
