"""Publishing boards: every server, a cluster, and what may go wrong on the way. Readers see the old board or the new one."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import redis
import sqlalchemy as sa
from conftest import at, land_events, missing, progression
from redis_servers import SERVERS, BreakingLine, clear, cluster, running

from pipelines.cli import main
from warehouse.boards import Board, page_key, read_board, read_progress, scores, staging_key, stamp_key
from warehouse.calendar import Calendar, Days, WindowKind
from warehouse.database import PUBLICATIONS, open_database
from warehouse.embedded_redis import connect
from warehouse.engine import DuckDBEngine, Engine
from warehouse.errors import StoreUnavailable
from warehouse.folds import fold
from warehouse.outlets import Outlets
from warehouse.publications import publish
from warehouse.publisher import Publication, due_windows, publish_boards, read_leaderboard
from warehouse.settings import Settings
from warehouse.swaps import Swapped, publish_board, zadds
from warehouse.tables import LEADERBOARDS

FIRST, SECOND = "2026-05-01", "2026-05-02"
DAYS = Days(date(2026, 5, 1), date(2026, 5, 2))
WEEKLY, ALLTIME = "lb:2026-05:weekly", "lb:all:alltime"


def published(settings: Settings, outlets: Outlets, *, whole: bool = False) -> dict[str, Publication]:
    """Fold both days and publish."""
    with DuckDBEngine(settings) as engine:
        for table in ("player_days", "leaderboards"):
            fold(engine, table, DAYS)
        return {one.redis_key: one for one in publish_boards(engine, outlets, whole=whole)}


def in_lake(settings: Settings, kind: WindowKind = WindowKind.ALLTIME) -> list[tuple[str, int]]:
    with DuckDBEngine(settings) as engine:
        board = read_leaderboard(engine, engine.calendar.window_at(kind, date(2026, 5, 2)))
    return list(board.select("player_id", "xp").iter_rows())


def in_redis(settings: Settings, key: str = ALLTIME) -> list[tuple[str, int]]:
    board = read_board(connect(settings), key, limit=1_000)
    assert board is not None
    return [(entry.player_id, entry.score) for entry in board.entries]


def crowd(day: str = SECOND, players: int = 300, name: str = "p", xp: int = 0) -> list[dict[str, object]]:
    return [progression(f"{name}{n:03}", day, xp + n // 4, f"12:00:{n % 60:02}") for n in range(players)]


def scenario(settings: Settings) -> None:
    """Whole, by changes, unchanged, the next day, the old day's key: what every server has to do alike."""
    land_events(settings, crowd())
    outlets = Outlets(settings, at(SECOND))
    assert published(settings, outlets)[ALLTIME].how == "whole"
    land_events(settings, [progression("p007", SECOND, 500), progression("new one", SECOND, 3)], name="more")
    again = published(settings, outlets)[ALLTIME]
    assert (again.how, again.revision, again.members < 20) == ("changes", 2, True)
    assert in_redis(settings) == in_lake(settings)
    assert published(settings, outlets) == {}
    client = connect(settings)
    assert client.ttl("lb:2026-05:daily") > 2 * 86_400 - 60
    before = in_redis(settings, "lb:2026-05:daily")
    outlets.turn(at("2026-05-03", "00:00:00"))
    published(settings, outlets)
    assert in_redis(settings, f"lb:2026-05:daily:{SECOND}") == before
    page = read_board(client, "lb:2026-05:daily")
    assert page is not None
    assert (page.meta.start, page.meta.players, client.exists("lb:2026-05:daily")) == ("2026-05-03", 0, 0)
    assert in_redis(settings) == in_lake(settings)


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS.keys())
def test_every_server_publishes_alike(settings: Settings, server: Path, tmp_path: Path) -> None:
    with running(server, tmp_path / "redis") as url:
        scenario(settings.model_copy(update={"redis_url": url}))


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if "redis" not in SERVERS:
        missing("redis-server 7 on PATH, for a cluster of three")
    with cluster(SERVERS["redis"], tmp_path_factory.mktemp("cluster")) as url:
        yield url


def test_a_cluster_publishes_alike(settings: Settings, cluster_url: str) -> None:
    scenario(settings.model_copy(update={"redis_url": cluster_url}))
    client = connect(settings.model_copy(update={"redis_url": cluster_url}))
    assert isinstance(client, redis.RedisCluster)
    slots = {client.keyslot(key) for key in (WEEKLY, staging_key(WEEKLY), stamp_key(WEEKLY))}
    assert len(slots) == 1
    assert client.keyslot(page_key(WEEKLY)) not in slots


def test_on_a_cluster_page_and_metadata_left_behind_are_mended_by_the_next_refresh(
    settings: Settings, cluster_url: str
) -> None:
    settings = settings.model_copy(update={"redis_url": cluster_url})
    client = connect(settings)
    client.flushall(target_nodes=redis.RedisCluster.ALL_NODES)
    land_events(settings, crowd(players=5))
    outlets = Outlets(settings, at(SECOND))
    published(settings, outlets)
    old = client.get(page_key(ALLTIME))
    land_events(settings, [progression("p000", SECOND, 50)], name="more")
    published(settings, outlets)
    client.set(page_key(ALLTIME), old)  # as if the publisher had been killed after the ZSET
    assert set(published(settings, outlets)) == {ALLTIME}
    assert in_redis(settings) == in_lake(settings)


ODD = ["a:b{c}*\"'\\ ü😀", "{}", "$5", "%s%d", " ", "*", "x" * 128, "日本" * 20, "{lb:all:alltime}:staging"]


def test_ids_of_any_legal_character_go_in_whole_and_by_changes(redis_settings: Settings) -> None:
    land_events(redis_settings, [progression(player, SECOND, 5 + n) for n, player in enumerate(ODD)])
    outlets = Outlets(redis_settings, at(SECOND))
    published(redis_settings, outlets)
    assert in_redis(redis_settings) == in_lake(redis_settings)
    land_events(redis_settings, [progression(player, SECOND, 50 - n) for n, player in enumerate(ODD[::2])], name="more")
    assert published(redis_settings, outlets)[ALLTIME].how == "changes"
    assert in_redis(redis_settings) == in_lake(redis_settings)


def test_a_refresh_takes_out_who_is_no_longer_on_the_board(redis_settings: Settings) -> None:
    land_events(redis_settings, crowd())
    outlets = Outlets(redis_settings, at(SECOND))
    published(redis_settings, outlets)
    with DuckDBEngine(redis_settings) as engine:
        window = engine.calendar.window_at(WindowKind.ALLTIME, date(2026, 5, 2))
        rows = read_leaderboard(engine, window).filter(pl.col("player_id") != "p299")
        engine.lake.write(LEADERBOARDS, rows.with_columns(rank=pl.int_range(1, pl.len() + 1)).to_arrow(), window.partition)
        [done] = publish_boards(engine, outlets)
    assert (done.how, connect(redis_settings).zscore(ALLTIME, "p299")) == ("changes", None)
    assert in_redis(redis_settings) == in_lake(redis_settings)


@pytest.mark.parametrize("harm", ["member", "stamp"])
def test_changes_are_not_applied_to_a_board_that_is_not_the_one_last_sent(redis_settings: Settings, harm: str) -> None:
    land_events(redis_settings, crowd())
    outlets = Outlets(redis_settings, at(SECOND))
    published(redis_settings, outlets)
    client = connect(redis_settings)
    if harm == "member":
        client.zadd(ALLTIME, {"a stranger": 1})
    else:
        client.hset(stamp_key(ALLTIME), "checksum", "0")
    land_events(redis_settings, [progression("p007", SECOND, 500)], name="more")
    assert published(redis_settings, outlets)[ALLTIME].how == "whole"
    assert in_redis(redis_settings) == in_lake(redis_settings)


def test_a_redis_that_came_back_empty_is_filled_by_the_next_refresh(redis_settings: Settings) -> None:
    land_events(redis_settings, crowd())
    outlets = Outlets(redis_settings, at(SECOND))
    first = published(redis_settings, outlets)
    with DuckDBEngine(redis_settings) as engine:
        fold(engine, "progression", DAYS)
        assert publish(engine, outlets, "player_progress", DAYS).rows == 300
        assert publish(engine, outlets, "player_progress", DAYS).rows == 0
        clear(connect(redis_settings))
        assert set(publish_boards_keys(engine, outlets)) == set(first)
        assert publish(engine, outlets, "player_progress", Days(date(2026, 5, 2), date(2026, 5, 2))).rows == 300
    assert in_redis(redis_settings) == in_lake(redis_settings)
    assert read_progress(connect(redis_settings), "p299")["xp"] == "74"


def publish_boards_keys(engine: Engine, outlets: Outlets) -> list[str]:
    return [one.redis_key for one in publish_boards(engine, outlets)]


def test_progress_of_who_moved_is_sent_and_of_nobody_else(redis_settings: Settings) -> None:
    land_events(redis_settings, crowd())
    outlets = Outlets(redis_settings, at(SECOND))
    with DuckDBEngine(redis_settings) as engine:
        for moved in (300, 1):
            for table in ("player_days", "progression"):
                fold(engine, table, DAYS)
            assert publish(engine, outlets, "player_progress", DAYS).rows == moved
            land_events(redis_settings, [progression("p007", SECOND, 500)], name="more")
    assert read_progress(connect(redis_settings), "p007")["xp"] == "501"


def test_a_full_redis_keeps_the_old_board_and_the_error_says_so(settings: Settings, tmp_path: Path) -> None:
    server = next(iter(SERVERS.values()))
    with running(server, tmp_path / "redis", "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as url:
        settings = settings.model_copy(update={"redis_url": url})
        land_events(settings, crowd())
        outlets = Outlets(settings, at(SECOND))
        published(settings, outlets)
        old = in_redis(settings)
        land_events(settings, [progression(f"{n:0100}", SECOND, n) for n in range(20_000)], name="more")
        with pytest.raises(StoreUnavailable, match=r"lb:all:alltime \(.*maxmemory.*as they were"):
            published(settings, outlets)
        assert in_redis(settings) == old
        assert list(connect(settings).scan_iter("*staging*")) == []
    with open_database(settings).connect() as connection:
        failed = connection.execute(sa.select(PUBLICATIONS).where(PUBLICATIONS.c.outcome == "failed")).mappings().first()
    assert failed
    assert (failed["revision"], failed["players"], "maxmemory" in failed["error"]) == (None, 20_300, True)


def board_of(generation: int, players: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A board on which everybody has as much XP as the number of the publication: what `publish_board` takes."""
    rows = pl.DataFrame({"player_id": [f"p{n:06}" for n in range(players)], "xp": [generation] * players})
    top = rows.head(100).with_columns(rank=pl.int_range(1, pl.len() + 1), previous_rank=None, movement=None)
    return rows, top


def put(settings: Settings, generation: int, players: int, client: redis.Redis | None = None) -> Swapped:
    calendar = Calendar.of(settings)
    window = calendar.window_at(WindowKind.ALLTIME, date(2026, 5, 2))
    rows, top = board_of(generation, players)
    return publish_board(
        client or connect(settings), ALLTIME, rows, top,
        calendar=calendar, window=window, source=f"g{generation}", watermark=None, now=at(SECOND),
    )  # fmt: skip


def seen(client: redis.Redis) -> set[int]:
    """The publications that one reading is made of, -1 for a number of members that is none's: one of them, or it is torn."""
    with client.pipeline(transaction=True) as pipe:
        pipe.zrange(ALLTIME, 0, -1, withscores=True)
        pipe.hgetall(f"{ALLTIME}:meta")
        pipe.get(page_key(ALLTIME))
        pipe.hget(stamp_key(ALLTIME), "revision")
        members, meta, page, revision = pipe.execute()
    top: Board = msgspec.json.decode(page, type=Board)
    same = revision == meta["revision"] == str(top.meta.revision) and len(members) == int(meta["players"]) == top.meta.players
    return {int(score) for _, score in members} | {entry.score for entry in top.entries} | (set() if same else {-1})


def test_a_publisher_cut_off_anywhere_leaves_the_old_board_or_the_new_one(settings: Settings, tmp_path: Path) -> None:
    """A board of 12,000 is built in two groups; the line breaks at 15 places, the last of them around the swap."""
    size, outcomes = 12_000, set()
    score = pl.Series(scores(np.full(size, 2, dtype=np.int64)))
    built = sum(map(len, zadds(staging_key(ALLTIME), board_of(2, size)[0].select("player_id", score=score))))
    with running(next(iter(SERVERS.values())), tmp_path / "redis") as url:
        settings = settings.model_copy(update={"redis_url": url})
        client = connect(settings)
        for cut in [*range(100, built, built // 7), *range(built + 500, built + 20_000, 2_500)]:
            put(settings, 1, 300)
            assert seen(client) == {1}
            assert list(client.scan_iter("*staging*")) == []
            with BreakingLine(url, cut) as line:
                try:
                    put(settings.model_copy(update={"redis_url": line.url}), 2, size)
                except redis.RedisError:
                    outcomes.add("cut")
                else:
                    outcomes.add("done")
            assert seen(client) in ({1}, {2}), cut
    assert outcomes == {"cut", "done"}


def test_of_two_publishers_at_once_one_wins_and_nothing_is_mixed(redis_settings: Settings) -> None:
    """Of two machines, that is: those of one lake take turns by its lock."""
    put(redis_settings, 1, 100)
    lost: list[str] = []

    def publisher(generation: int) -> None:
        for _ in range(4):
            try:
                put(redis_settings, generation, 20_000 + generation)
            except redis.WatchError as error:
                lost.append(str(error))

    threads = [threading.Thread(target=publisher, args=(generation,)) for generation in (2, 3)]
    for thread in threads:
        thread.start()
    client = connect(redis_settings)
    readings = []
    while any(thread.is_alive() for thread in threads):
        readings.append(seen(client))
    for thread in threads:
        thread.join()
    assert all(len(reading) == 1 and -1 not in reading for reading in readings)
    assert lost
    assert all("another publisher" in error for error in lost)
    put(redis_settings, 4, 10)
    assert list(client.scan_iter("*staging*")) == []


def test_readers_at_full_speed_never_see_a_torn_board(redis_settings: Settings) -> None:
    """100 publications, whole and by changes in turn, of a board whose size and scores all change each time."""
    put(redis_settings, 0, 200)
    torn: list[object] = []
    count = [0]
    stop = threading.Event()

    def reader() -> None:
        client = connect(redis_settings)
        while not stop.is_set():
            reading = seen(client)
            long = read_board(client, ALLTIME, limit=1_000)
            if len(reading) != 1 or -1 in reading or long is None or len({entry.score for entry in long.entries}) != 1:
                torn.append((reading, long))
            count[0] += 1

    thread = threading.Thread(target=reader)
    thread.start()
    last = None
    calendar = Calendar.of(redis_settings)
    window = calendar.window_at(WindowKind.ALLTIME, date(2026, 5, 2))
    hows = set()
    for generation in range(1, 101):
        rows, top = board_of(generation, 200 + generation)
        done = publish_board(
            connect(redis_settings), ALLTIME, rows, top, calendar=calendar, window=window, source=str(generation),
            watermark=None, now=at(SECOND), sent=last.sent if last and generation % 2 else None,
        )  # fmt: skip
        hows.add(done.how)
        last = done
    stop.set()
    thread.join()
    assert torn == []
    assert (hows, count[0] > 50) == ({"whole", "changes"}, True)


def test_boards_of_the_next_windows_are_there_before_they_begin(redis_settings: Settings) -> None:
    land_events(redis_settings, crowd("2026-05-31", 3))
    outlets = Outlets(redis_settings, at("2026-05-31", "23:59:59"))
    with DuckDBEngine(redis_settings) as engine:
        for table in ("player_days", "leaderboards"):
            fold(engine, table, Days.parse("2026-05-31", "2026-05-31"))
        publish_boards(engine, outlets)
        client = connect(redis_settings)
        for window in ("daily", "weekly", "seasonal"):
            board = read_board(client, f"lb:2026-06:{window}")
            assert board is not None
            assert (board.meta.start, board.meta.players) == ("2026-06-01", 0)
        old = client.zrevrange("lb:2026-05:seasonal", 0, -1)
        outlets.turn(at("2026-06-01", "00:00:00"))
        publish_boards(engine, outlets)
    assert client.zrevrange("lb:2026-05:seasonal:2026-05-01", 0, -1) == old
    assert list(client.scan_iter("*lb:2026-05:seasonal")) == list(client.scan_iter("lb:2026-05:seasonal:meta")) == []
    assert read_board(client, "lb:2026-06:daily:2026-06-02") is not None


def test_what_is_due_is_what_runs_what_comes_next_and_what_has_not_expired(settings: Settings) -> None:
    due = due_windows(Calendar.of(settings), date(2026, 6, 1))
    keys = list(due.values())
    assert {key for key in keys if ":daily" in key} == {
        "lb:2026-05:daily:2026-05-30",
        "lb:2026-05:daily:2026-05-31",
        "lb:2026-06:daily",
        "lb:2026-06:daily:2026-06-02",
    }
    assert {key for key in keys if ":seasonal" in key} == {
        "lb:2026-03:seasonal:2026-03-01",
        "lb:2026-04:seasonal:2026-04-01",
        "lb:2026-05:seasonal:2026-05-01",
        "lb:2026-06:seasonal",
        "lb:2026-07:seasonal",
    }
    assert keys.index("lb:2026-05:daily:2026-05-31") < keys.index("lb:2026-06:daily")


@pytest.mark.parametrize("xp", [-7, -1, 0, 1, 7, 10_000])
def test_more_equals_than_the_usual_steps_are_in_order_and_keep_their_xp(xp: int) -> None:
    equals = scores(np.full(2**20 + 5, xp, dtype=np.int64))
    assert np.array_equal(np.floor(equals), np.full(len(equals), float(xp)))
    assert (np.diff(equals) < 0).all()


@pytest.mark.parametrize("xp", [-5, -(2**33) + 1, 0, 2**33 - 1])
def test_a_million_equals_are_in_order_at_any_xp_up_to_2_to_the_33(xp: int) -> None:
    equals = scores(np.full(2**20, xp, dtype=np.int64))
    assert (np.diff(equals) < 0).all()
    assert np.array_equal(np.floor(equals), np.full(2**20, float(xp)))


def test_publish_all_rebuilds_redis_from_the_lake_alone(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).date().isoformat()
    monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(redis_settings.data_dir))
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    land_events(redis_settings, [progression("ann", today, 10, "00:00:01"), progression("old", FIRST, 7)])
    for command in (["materialize", "--from", FIRST, "--to", today], ["publish", "--all"]):
        with pytest.raises(SystemExit, match="0"):
            main(command)
    clear(connect(redis_settings))
    with pytest.raises(SystemExit, match="0"):
        main(["publish", "--all"])
    assert in_redis(redis_settings) == [("ann", 10), ("old", 7)]
    assert read_progress(connect(redis_settings), "old")["xp"] == "7"
