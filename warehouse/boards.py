"""Boards and progress in Redis: the contract that the game's UI reads (keys, types, expiry), written and read here alone.

A board is built beside, under a staging key of the same hash slot, and swapped in by one transaction with its metadata and its
top page: a reader sees the old board or the new one. What does not belong here: which boards there are (`calendar.py`), who is
on them (`leaderboards` in the lake).
"""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import redis

from warehouse.calendar import Calendar, Window, WindowKind

TOP = 100
FRACTION = 2.0**-20  # a double has 53 bits: 33 for the XP, 20 for the order among equals
CHUNK = 5_000
EXPIRY = {
    WindowKind.DAILY: timedelta(days=2),
    WindowKind.WEEKLY: timedelta(days=14),
    WindowKind.SEASONAL: timedelta(days=90),
    WindowKind.ALLTIME: timedelta(days=90),
}
PROGRESS_EXPIRY = timedelta(days=7)


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """One line of a board, as the top page has it."""

    rank: int
    player_id: str
    score: int
    previous_rank: int | None = None
    movement: int | None = None


class BoardMeta(msgspec.Struct, frozen=True):
    """What a reader must know of a board beside its entries. Times are ISO 8601 in UTC; `end` is exclusive."""

    window: str
    season: str
    start: str
    end: str
    resets_at: str
    published_at: str
    watermark: str
    players: int
    revision: int


class Board(msgspec.Struct, frozen=True):
    """A published board's top and metadata."""

    meta: BoardMeta
    entries: list[Entry]


def key_of(window: Window, today: date) -> str | None:
    """The Redis key of a window: the running one's, a closed one's, or None once a closed one has outlived its expiry."""
    if window.start <= today < window.end:
        return window.redis_key
    if today < window.start or today >= window.end + EXPIRY[window.kind]:
        return None
    return f"{window.redis_key}:{window.start}"


def scores(xp: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """ZSET scores of a board in rank order: the whole part is the XP, the fraction falls along players of equal XP.

    The k-th of equals gets 1 - k·2⁻²⁰, so that who joins them later moves none of them. From 2³³ XP on a double has fewer than
    20 bits left: the step grows to what it can hold, and when the steps are used up the fraction is 0 and equal XP is ordered
    by player id, descending, as Redis does. The whole part stays exact up to 2⁵³.
    """
    firsts = np.flatnonzero(np.concatenate(([True], xp[1:] != xp[:-1])))
    place = np.arange(len(xp)) - np.repeat(firsts, np.diff(np.append(firsts, len(xp)))) + 1
    step = np.maximum(FRACTION, np.spacing(np.abs(xp).astype(np.float64)) * 2)
    fraction = np.maximum(1.0 - place * step, 0.0)
    return xp.astype(np.float64) + np.where(step < 1, fraction, 0.0)


def publish_board(
    client: redis.Redis, key: str, board: pl.DataFrame, *, calendar: Calendar, window: Window, watermark: int | None, now: float
) -> int:
    """Swap a board in; the revision it got.

    `board` has the columns of `leaderboards`, sorted by rank; `watermark` is the newest event counted (s since the epoch);
    `now` is the time of publication (s since the epoch).

    Raises:
        redis.RedisError: the old board stays.
    """
    staging = f"{{{key}}}:staging"
    _stage(client, staging, board)
    ttl, endless = EXPIRY[window.kind], window.kind is WindowKind.ALLTIME
    with client.pipeline(transaction=True) as swap:
        swap.watch(f"{key}:meta")  # type: ignore[no-untyped-call]  # redis-py has no types here
        revision = int(cast("str | None", swap.hget(f"{key}:meta", "revision")) or 0) + 1
        meta = BoardMeta(
            window=str(window.kind),
            season=window.season,
            start=str(window.start),
            end="" if endless else str(window.end),
            resets_at="" if endless else _iso(calendar.starts_at(window.end)),
            published_at=_iso(now),
            watermark="" if watermark is None else _iso(watermark),
            players=board.height,
            revision=revision,
        )
        swap.multi()
        if board.height:
            swap.rename(staging, key)
            swap.expire(key, ttl)
        else:
            swap.delete(key)
        swap.set(f"{key}:top", msgspec.json.encode(Board(meta, entries(board.head(TOP)))), ex=ttl)
        swap.hset(f"{key}:meta", mapping=cast("dict[Any, Any]", msgspec.to_builtins(meta)))
        swap.expire(f"{key}:meta", ttl)
        swap.execute()
    return revision


def read_board(client: redis.Redis, key: str, limit: int = TOP) -> Board | None:
    """The board under that key as the game's UI reads it, or None where none is published.

    Up to `TOP` entries come with their movement from the top page; a longer reading is ranks and scores from the ZSET.
    """
    page = cast("str | None", client.get(f"{key}:top"))
    if page is None:
        return None
    board = msgspec.json.decode(page, type=Board)
    if limit <= TOP:
        return Board(board.meta, board.entries[:limit])
    members = cast("list[tuple[str, float]]", client.zrevrange(key, 0, limit - 1, withscores=True))
    return Board(board.meta, [Entry(rank, player, math.floor(score)) for rank, (player, score) in enumerate(members, 1)])


def publish_progress(client: redis.Redis, progress: pl.DataFrame, now: float) -> None:
    """Write `player:{id}:progress`. `progress` has the columns player_id, xp_total, level, xp_to_next."""
    updated_at = _iso(now)
    for part in progress.iter_slices(CHUNK):
        with client.pipeline(transaction=False) as pipe:
            for player, xp, level, missing in part.select("player_id", "xp_total", "level", "xp_to_next").iter_rows():
                key = f"player:{player}:progress"
                values = {"xp": xp, "level": level, "xp_to_next": "" if missing is None else missing}
                pipe.hset(key, mapping=cast("dict[Any, Any]", values | {"updated_at": updated_at}))
                pipe.expire(key, PROGRESS_EXPIRY)
            pipe.execute()


def read_progress(client: redis.Redis, player: str) -> dict[str, str]:
    """A player's `player:{id}:progress`; empty where none is published."""
    return cast("dict[str, str]", client.hgetall(f"player:{player}:progress"))


def entries(board: pl.DataFrame) -> list[Entry]:
    """Rows of `leaderboards` as entries."""
    columns = board.select("rank", "player_id", "xp", "previous_rank", "movement")
    return [Entry(*row) for row in columns.iter_rows()]


def _stage(client: redis.Redis, staging: str, board: pl.DataFrame) -> None:
    """Fill the staging key anew. Variadic ZADD is the fast one: 134k members/s against 57k one by one."""
    client.delete(staging)
    score = scores(board["xp"].to_numpy())
    players = board["player_id"].to_list()
    for start in range(0, len(players), CHUNK):
        chunk = slice(start, start + CHUNK)
        client.zadd(staging, dict(zip(players[chunk], score[chunk].tolist(), strict=True)))
    if players:
        client.expire(staging, timedelta(hours=1))  # a publisher that dies here leaves nothing for ever


def _iso(ts: float) -> str:
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
