"""The read API through HTTP, over boards that were folded and published: from Redis, and the same from the warehouse."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from conftest import land_events
from reads_fixtures import AWAY, ODD, PLAYERS, Game, event, published_game, reading
from redis_servers import clear

from ingest_api.answers import percentile
from ingest_api.openapi import READS
from tests.ingest_fixtures import Service, wait_until
from warehouse import readings
from warehouse.calendar import Days, WindowKind
from warehouse.embedded_redis import connect
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold

DAILY = {"window": "daily"}
NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Game]:
    with published_game(tmp_path_factory.mktemp("reads") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def running(game: Game) -> Iterator[Service]:
    with reading(game) as started:
        yield started


@pytest.fixture(scope="module")
def without_redis(game: Game) -> Iterator[Service]:
    with reading(game, FAIRBOARD_REDIS_URL=AWAY) as started:
        yield started


def get(running: Service, path: str, **params: Any) -> Any:
    response = running.http.get(path, params=params or None)
    assert response.status_code == 200, response.text
    return response.json()


def source(running: Service, path: str) -> str:
    answered: str = running.http.get(path).headers["x-fairboard-source"]
    return answered


def lake(game: Game, kind: WindowKind, **asked: Any) -> list[tuple[Any, ...]]:
    with DuckDBEngine(game.settings) as engine:
        board = readings.leaderboard(engine, kind, **asked).board
    return list(board.select("rank", "player_id", "xp").iter_rows())


def lines(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["rank"], one["playerId"], one["score"]) for one in entries]


def test_a_board_says_what_it_is_and_who_moved(running: Service, game: Game) -> None:
    board = get(running, "/leaderboard", window="daily", limit=2)
    assert board | {"next": None, "updatedAt": None, "resetsAt": None} == {
        "window": "daily", "season": "second", "start": str(game.today), "end": str(game.today + timedelta(days=1)),
        "resetsAt": None, "updatedAt": None, "revision": 1, "players": PLAYERS + 1, "next": None,
        "entries": [
            {"rank": 1, "playerId": ODD, "score": 500, "previousRank": None, "movement": None},
            {"rank": 2, "playerId": "p148", "score": 75, "previousRank": 149, "movement": 147},
        ],
    }  # fmt: skip
    assert board["resetsAt"] > board["updatedAt"]


@pytest.mark.parametrize("limit", [60, 100, 1000])
@pytest.mark.parametrize("service_name", ["running", "without_redis"])
def test_pages_together_are_the_board(request: pytest.FixtureRequest, game: Game, service_name: str, limit: int) -> None:
    service, entries, cursor = request.getfixturevalue(service_name), [], {}
    while cursor is not None:
        page = get(service, "/leaderboard", window="daily", limit=limit, **cursor)
        entries += page["entries"]
        cursor = {"cursor": page["next"]} if page["next"] else None
    assert lines(entries) == lake(game, WindowKind.DAILY)


ME = quote(ODD, safe="")
SAME = [
    "/leaderboard?window=daily&limit=7",
    "/leaderboard?window=seasonal",
    "/leaderboard?window=alltime&limit=1000",
    f"/leaderboard/around/{ME}?window=weekly&limit=5",
    "/leaderboard/around/p120?limit=9",
    f"/leaderboard/players?ids=p001,{ME},nobody",
    f"/players/{ME}/rank",
    "/players/p030/rank",
    f"/players/{ME}/progress",
    "/seasons",
    "/leaderboard?window=seasonal&season=first",
]


@pytest.mark.parametrize("path", SAME)
def test_the_warehouse_answers_as_redis_does(running: Service, without_redis: Service, path: str) -> None:
    """But for what only one of them knows: the publication, and how players behind the first hundred moved."""
    first, second = (_plain(service.http.get(path).raise_for_status().json()) for service in (running, without_redis))
    assert first == second


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        dropped = ("updatedAt", "revision", "previousRank", "movement", "next")
        return {name: _plain(one) for name, one in value.items() if name not in dropped}
    return value


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ("window=daily", "redis"),
        ("window=daily&at={yesterday}", "redis"),
        ("window=seasonal&at={yesterday}", "warehouse"),
        ("window=seasonal&season=first", "redis"),
        ("window=daily&season=first", "warehouse"),
    ],
)
def test_what_is_still_published_comes_from_redis_and_the_rest_from_the_warehouse(
    running: Service, game: Game, query: str, source: str
) -> None:
    response = running.http.get(f"/leaderboard?{query.format(yesterday=game.yesterday)}")
    assert response.headers["x-fairboard-source"] == source
    assert response.json()["entries"]


def test_a_board_as_it_stood_is_that_of_the_day(running: Service, without_redis: Service, game: Game) -> None:
    for kind in (WindowKind.DAILY, WindowKind.SEASONAL, WindowKind.ALLTIME):
        board = lake(game, kind, at=game.yesterday)
        assert {line[1] for line in board} & {"p000", ODD} == {"p000"}
        for service in (running, without_redis):
            page = get(service, "/leaderboard", window=str(kind), at=str(game.yesterday), limit=1000)
            assert lines(page["entries"]) == board


def test_the_last_day_played_of_a_season_that_is_over(running: Service, game: Game) -> None:
    page = get(running, "/leaderboard", window="daily", season="first")
    assert lines(page["entries"]) == [(1, "old3", 30), (2, "old2", 20), (3, "old1", 10)]


@pytest.mark.parametrize(
    ("player", "limit", "ranks"),
    [(ODD, 3, [1, 2, 3]), ("p100", 3, [49, 50, 51]), ("p100", 2, [49, 50]), ("p001", 4, [149, 150, 151]), ("p001", 1, [151])],
)
def test_around_a_player_are_their_neighbours(running: Service, game: Game, player: str, limit: int, ranks: list[int]) -> None:
    around = get(running, f"/leaderboard/around/{quote(player, safe='')}", limit=limit)
    assert lines(around["entries"]) == [line for line in lake(game, WindowKind.DAILY) if line[0] in ranks]


def test_friends_are_ranked_and_the_missing_named(running: Service) -> None:
    board = running.http.get(f"/leaderboard/players?ids=p001,nobody,{ME},p001").json()
    assert lines(board["entries"]) == [(1, ODD, 500), (151, "p001", 1)]
    assert board["missing"] == ["nobody"]


def test_a_player_s_rank_on_every_running_board(running: Service, game: Game) -> None:
    ranks = {one["window"]: one for one in running.http.get(f"/players/{ME}/rank").json()["ranks"]}
    assert set(ranks) == {"daily", "weekly", "seasonal", "alltime"}
    assert (ranks["daily"]["rank"], ranks["daily"]["score"], ranks["daily"]["percentile"]) == (1, 500, 100)
    assert ranks["alltime"]["resetsAt"] is None
    old = {one["window"]: one for one in running.http.get("/players/old1/rank").json()["ranks"]}
    assert (old["daily"]["rank"], old["daily"]["percentile"]) == (None, None)
    assert (old["alltime"]["rank"], "old1", old["alltime"]["score"]) in lake(game, WindowKind.ALLTIME)


@pytest.mark.parametrize(("rank", "players", "share"), [(1, 1, 100), (1, 3, 100), (3, 3, 33.33), (2, 1_000_000, 99.99)])
def test_a_percentile_is_never_better_than_it_is(rank: int, players: int, share: float) -> None:
    assert percentile(rank, players) == share


def test_progress_of_a_player(running: Service) -> None:
    progress = running.http.get(f"/players/{ME}/progress").json()
    assert progress.pop("updatedAt").endswith("Z")
    assert progress == {"playerId": ODD, "xp": 500, "level": 3, "xpToNext": 220}


def test_seasons_are_those_of_the_calendar_and_the_running_one_is_marked(running: Service) -> None:
    seasons = get(running, "/seasons")["seasons"]
    assert [(one["id"], one["running"]) for one in seasons] == [("third", False), ("second", True), ("first", False)]


@pytest.mark.parametrize(
    ("path", "status", "field", "says"),
    [
        ("/leaderboard?window=hourly", 400, "window", "daily, weekly"),
        ("/leaderboard?limit=0", 400, "limit", "1 to 1,000"),
        ("/leaderboard?limit=1001", 400, "limit", "1 to 1,000"),
        (f"/leaderboard?limit={'9' * 5000}", 400, "limit", "1 to 1,000"),
        ("/leaderboard?limit=1&limit=2", 400, "limit", "twice"),
        ("/leaderboard?limits=1", 400, None, "There are: window"),
        ("/leaderboard?at=yesterday", 400, "at", "YYYY-MM-DD"),
        ("/leaderboard?at=9998-01-01", 400, "at", "future"),
        ("/leaderboard?at=1990-01-01", 404, None, "no season"),
        ("/leaderboard?season=first&at=1990-01-01", 400, "at", "not in season first"),
        ("/leaderboard?season=fourth", 404, "season", "known: first, second, third"),
        ("/leaderboard?season=third", 404, "season", "begins on"),
        ("/leaderboard?cursor=next", 400, "cursor", "take `next`"),
        ("/leaderboard?season=%FF", 400, None, "UTF-8"),
        ("/leaderboard/around/nobody", 404, None, "Ids are exact"),
        ("/leaderboard/around/", 404, None, "/openapi.json"),
        ("/leaderboard/players", 400, None, "ids"),
        ("/leaderboard/players?ids=", 400, "ids", "commas"),
        (f"/leaderboard/players?ids={','.join(map(str, range(101)))}", 400, "ids", "1 to 100"),
        ("/players/nobody/rank", 404, None, "Ids are exact"),
        ("/players/nobody/progress", 404, None, "Ids are exact"),
        ("/players//progress", 404, None, "/openapi.json"),
        ("/seasons?id=first", 400, None, "no parameters"),
    ],
)
def test_what_cannot_be_read_is_told_why(
    running: Service, without_redis: Service, path: str, status: int, field: str | None, says: str
) -> None:
    for service in (running, without_redis):
        response = service.http.get(path)
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert (problem["status"], problem.get("field")) == (status, field), problem
        assert says in problem["detail"]


def test_an_unchanged_board_is_304_and_a_new_publication_is_not(running: Service, game: Game) -> None:
    for path in ("/leaderboard", "/leaderboard/around/p001", "/leaderboard/players?ids=p001", "/players/p001/rank"):
        tag = running.http.get(path).headers["etag"]
        again = running.http.get(path, headers={"if-none-match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        game.publish_anew()
        wait_until(lambda: running.http.get(path, headers={"if-none-match": tag}).status_code == 200, "the new one is read")  # noqa: B023 - called at once
        assert running.http.get(path).headers["etag"] != tag


def test_an_answer_is_kept_while_its_revision_stands(running: Service, game: Game) -> None:
    client, path, reads = connect(game.settings), "/leaderboard/around/p120?limit=9", 200

    def asked() -> int:
        calls: int = client.info("commandstats")["cmdstat_zrevrange"]["calls"]
        return calls

    first, before = get(running, path), asked()
    assert [get(running, path) for _ in range(reads)] == [first] * reads
    assert asked() - before < reads / 2
    game.publish_anew()
    wait_until(lambda: get(running, path)["revision"] == first["revision"] + 1, "the new one is read")


def test_a_cursor_dies_with_its_revision_and_is_good_for_no_other_board(running: Service, game: Game) -> None:
    cursor = get(running, "/leaderboard", window="daily", limit=2)["next"]
    assert running.http.get("/leaderboard", params={"window": "weekly", "cursor": cursor}).status_code == 410
    assert running.http.get("/leaderboard", params={"window": "daily", "cursor": cursor}).status_code == 200
    game.publish_anew()
    asked = {"window": "daily", "cursor": cursor}
    wait_until(lambda: running.http.get("/leaderboard", params=asked).status_code == 410, "the new revision is known")
    assert running.http.get("/leaderboard", params=asked).json()["field"] == "cursor"


def test_a_redis_that_was_emptied_is_passed_over_until_it_is_filled_again(running: Service, game: Game) -> None:
    clear(connect(game.settings))
    wait_until(lambda: source(running, "/leaderboard") == "warehouse", "that is known")
    empty = running.http.get("/leaderboard")
    assert len(empty.json()["entries"]) == 100
    assert source(running, "/players/p001/rank") == "warehouse"
    game.publish()
    full = running.http.get("/leaderboard")
    assert full.headers["x-fairboard-source"] == "redis"
    assert full.headers["etag"] != empty.headers["etag"]


def test_a_board_of_another_day_is_not_served_as_today_s(running: Service, game: Game) -> None:
    client = connect(game.settings)
    client.hset("lb:second:daily:meta", "start", str(game.yesterday))
    wait_until(lambda: source(running, "/leaderboard") == "warehouse", "that is known")
    game.publish_anew()
    assert source(running, "/leaderboard") == "redis"


def test_a_top_page_of_another_publication_is_not_served(running: Service, game: Game) -> None:
    client = connect(game.settings)
    client.hset("lb:second:daily:meta", "revision", "1000000")
    wait_until(lambda: source(running, "/leaderboard") == "warehouse", "that is known")
    game.publish("publications")


def test_a_board_that_an_older_version_published_is_not_taken_to_be_exact(running: Service, game: Game) -> None:
    client, key = connect(game.settings), "lb:second:daily:meta"
    older = {name: value for name, value in client.hgetall(key).items() if name != "exact"}
    client.delete(key)
    client.hset(key, mapping=older)
    wait_until(lambda: source(running, "/leaderboard") == "warehouse", "that is known")
    game.publish_anew()
    assert source(running, "/leaderboard") == "redis"


def test_a_whole_board_is_ndjson(running: Service, game: Game) -> None:
    response = running.http.get("/leaderboard?window=alltime", headers=NDJSON)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert lines([msgspec.json.decode(line) for line in response.text.splitlines()]) == lake(game, WindowKind.ALLTIME)
    known = NDJSON | {"if-none-match": response.headers["etag"]}
    assert running.http.get("/leaderboard?window=alltime", headers=known).status_code == 304
    assert running.http.get("/leaderboard?window=alltime&limit=3", headers=NDJSON).status_code == 400


@pytest.mark.parametrize("read", READS.values(), ids=lambda read: read.path)
def test_the_examples_of_the_openapi_document_are_of_their_type(read: Any) -> None:
    assert msgspec.to_builtins(msgspec.convert(read.example, read.answer)) == read.example


def test_reads_are_counted_by_the_limit_of_their_address(game: Game) -> None:
    with reading(game, FAIRBOARD_RATE_LIMIT="3", FAIRBOARD_RATE_WINDOW_S="3600") as started:
        assert [started.http.get("/leaderboard").status_code for _ in range(3)] == [200] * 3
        wait_until(lambda: started.http.get("/leaderboard").status_code == 429, "Redis was told")
        refused = started.http.get("/players/nobody/rank")
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)


def test_the_openapi_document_lists_what_answers(running: Service) -> None:
    document = running.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            response = running.http.request(method, path.replace("{player}", "nobody"))
            assert response.status_code not in (405, 500)
            assert response.status_code != 404 or "/openapi.json" not in response.json()["detail"]
    assert document["components"]["schemas"]["Progression"]["required"] == ["type", "playerId", "ts", "payload"]
    around = document["paths"]["/leaderboard/around/{player}"]["get"]["parameters"]
    assert [one["name"] for one in around] == ["window", "season", "at", "limit", "player"]
    wait_until(lambda: running.http.get("/readyz").status_code == 200, "the service is well")


def test_however_large_the_xp_there_is_one_order_and_one_number_everywhere(tmp_path: Path) -> None:
    with published_game(tmp_path / "data") as game:
        moment = int(time.time()) - 4 * 3600
        ties = [event(f"tie{n:03}", moment + n % 7, 2**50) for n in range(300)]
        land_events(game.settings, ties + [event(f"huge{n}", moment, 2**53 + n) for n in range(3)], "huge")
        with DuckDBEngine(game.settings) as engine:
            for name in FOLDS:
                fold(engine, name, Days(game.today, game.today))
        game.publish()
        board = lake(game, WindowKind.DAILY)
        key = f"lb:second:{WindowKind.DAILY}"
        assert connect(game.settings).zrevrange(key, 0, -1) == [player for _, player, _ in board]
        with reading(game) as service, reading(game, FAIRBOARD_REDIS_URL=AWAY) as without:
            for limit in (100, 150, 1000):
                for one in (service, without):
                    assert lines(get(one, "/leaderboard", limit=limit)["entries"]) == board[:limit]
            for rank, player, xp in [*board[:4], board[150], board[302], board[303], board[-1]]:
                places = service.http.get(f"/players/{quote(player, safe='')}/rank").json()["ranks"]
                assert [(place["rank"], place["score"]) for place in places if place["window"] == "daily"] == [(rank, xp)]
                around = get(service, f"/leaderboard/around/{quote(player, safe='')}", limit=1)
                assert lines(around["entries"]) == [(rank, player, xp)]
            friends = get(service, "/leaderboard/players?ids=huge0,tie007")
            assert lines(friends["entries"]) == [line for line in board if line[1] in ("huge0", "tie007")]
