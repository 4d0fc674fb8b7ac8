"""Boards and progress in Redis: the contract that the game's UI reads (keys, types, expiry, scores), and how it is read.

Progress, one hash for a player, is written here too. What does not belong here: how a board gets in (`swaps.py`), which boards
are due (`publisher.py`), who is on them (`leaderboards` in the lake).
"""

import math
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import islice
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import redis

from warehouse.calendar import Calendar, Window, WindowKind, iso
from warehouse.errors import FairboardError, StoreUnavailable

TOP = 100
FRACTION, EXACT_XP = 2.0**-20, 2**33  # a double has 53 bits: 33 for the XP, 20 for the order among equals
EQUALS, EXACT_DOUBLE = 2**20, 2**53
SCORING = 2  # of `scores`: boards that another one made are published anew
EXPIRY = {
    WindowKind.DAILY: timedelta(days=2),
    WindowKind.WEEKLY: timedelta(days=14),
    WindowKind.SEASONAL: timedelta(days=90),
    WindowKind.ALLTIME: timedelta(days=90),
}
PROGRESS_EXPIRY = timedelta(days=7)
PROGRESS_MARK = "progress:published_at"
CHUNK = 5_000
READINGS = 100
ENTRY_COLUMNS = ["rank", "player_id", "xp", "previous_rank", "movement"]

Client: TypeAlias = redis.Redis | redis.RedisCluster


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """One line of a board, as the top page has it."""

    rank: int
    player_id: str
    score: int
    previous_rank: int | None = None
    movement: int | None = None


class BoardMeta(msgspec.Struct, frozen=True):
    """What a reader must know of a board beside its entries. Times are ISO 8601 in UTC; `end` is exclusive.

    `exact` is 1 where the whole part of every score of the ZSET is the XP, else 0: order and page hold all the same.
    """

    window: str
    season: str
    start: str
    end: str
    resets_at: str
    published_at: str
    watermark: str
    players: int
    revision: int
    exact: int = 1


class Board(msgspec.Struct, frozen=True):
    """A published board's top and metadata."""

    meta: BoardMeta
    entries: list[Entry]


def key_of(window: Window, calendar: Calendar, today: date) -> str | None:
    """The Redis key of a window: the running one's, one with its start for a closed one until it expires, or for the next one.

    The first window of a season that has not begun has the running key already: nothing else is there.
    """
    if today >= window.end:
        return dated_key(window) if today < window.end + EXPIRY[window.kind] else None
    season = calendar.season_of(today)
    if today >= window.start or season is None or season.id != window.season:
        return window.redis_key
    return dated_key(window)


def dated_key(window: Window) -> str:
    """The key of a window that is not the running one."""
    return f"{window.redis_key}:{window.start}"


def staging_key(key: str) -> str:
    """Where a board is built before it is swapped in: a key of the same hash slot."""
    return f"{{{key}}}:staging"


def stamp_key(key: str) -> str:
    """The hash beside a board's ZSET, in its slot and swapped with it, whose `revision` says which publication the ZSET is."""
    return f"{{{key}}}:revision"


def page_key(key: str) -> str:
    """The JSON page of a board's top."""
    return f"{key}:top"


def meta_key(key: str) -> str:
    """The hash of a board's metadata."""
    return f"{key}:meta"


def node_of(client: Client, key: str) -> redis.Redis:
    """The server that has the key's slot: transactions are held there."""
    if isinstance(client, redis.RedisCluster):
        return client.get_redis_connection(client.get_node_from_key(key))  # type: ignore[no-untyped-call]
    return client


def scores(xp: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """ZSET scores of a board in rank order, each below the one before: the order in Redis is the board's, whatever the XP.

    The whole part is the XP, and the fraction falls along players of equal XP: the k-th of them gets 1 - k·2⁻²⁰, so that who
    joins them later moves none of them. On a board with more than 2²⁰ equals the step is the finest that a double can hold, and
    from 2³³ XP on the finest there. Where even those do not suffice, a score is the next double below the one before, and its
    whole part may be below the XP (see `are_exact`).
    """
    tied = np.flatnonzero(xp[1:] == xp[:-1]) + 1
    first = np.flatnonzero(np.diff(tied, prepend=-1) != 1)  # of each run of them, in `tied`
    place = np.ones(len(xp))
    place[tied] = np.arange(len(tied)) - np.repeat(first, np.diff(first, append=len(tied))) + 2
    step: float | npt.NDArray[np.float64] = FRACTION
    many = len(tied) >= EQUALS and bool(place.max() > EQUALS)
    if many or (len(xp) and max(abs(int(xp[0])), abs(int(xp[-1]))) >= EXACT_XP):
        finest = np.spacing(np.maximum(np.abs(xp.astype(np.float64)), 1.0))
        step = finest if many else np.maximum(FRACTION, finest)
    # Each array of a million is a millisecond: this one is used again and again.
    fraction: npt.NDArray[np.float64] = np.multiply(place, step, out=place)
    np.subtract(1.0, fraction, out=fraction)
    np.maximum(fraction, 0.0, out=fraction)
    score = np.add(xp, fraction, out=fraction)
    return score if bool((score[1:] < score[:-1]).all()) else _falling(score)


def _falling(score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The highest scores that fall and are nowhere above these.

    Doubles are in the order of their bits read as integers, but for the negative ones, whose bits run the other way.
    """
    bits = (score + 0.0).view(np.int64)
    numbers = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
    place = np.arange(len(score))
    falling = np.minimum.accumulate(numbers + place) - place
    return (falling ^ ((falling >> 63) & np.int64(2**63 - 1))).view(np.float64)


def are_exact(score: npt.NDArray[np.float64], xp: npt.NDArray[np.int64]) -> bool:
    """Whether the whole part of every score is the XP."""
    largest = max(abs(int(xp[0])), abs(int(xp[-1]))) if len(xp) else 0
    return largest < EXACT_DOUBLE and bool((np.floor(score) == xp).all())


def read_board(client: Client, key: str, limit: int = TOP) -> Board | None:
    """The board under that key as the game's UI reads it, or None where none is published.

    Up to `TOP` entries come with their movement from the top page, which is one publication's in itself; a longer reading is
    ranks and scores from the ZSET, read again until it is of the same publication as the page.

    Raises:
        FairboardError: XP of more than `TOP` is asked for, and Redis has not all of it exactly.
        StoreUnavailable: a hundred readings met a hundred publications.
    """
    for _ in range(READINGS):
        page = cast("str | None", client.get(page_key(key)))
        if page is None:
            return None
        board = msgspec.json.decode(page, type=Board)
        if limit <= TOP:
            return Board(board.meta, board.entries[:limit])
        if not board.meta.exact:
            raise FairboardError(
                f"Redis does not have the exact XP of all on {key}; the warehouse has (`fairboard leaderboard`)."
            )
        with node_of(client, key).pipeline(transaction=True) as pipe:
            pipe.hget(stamp_key(key), "revision")
            pipe.zrevrange(key, 0, limit - 1, withscores=True)
            revision, members = pipe.execute()
        if revision == str(board.meta.revision):
            return Board(board.meta, [Entry(rank, player, math.floor(xp)) for rank, (player, xp) in enumerate(members, 1)])
    raise StoreUnavailable(f"{key} was published anew during each of {READINGS} readings; nothing was read. Read it again.")


def read_progress(client: Client, player: str) -> dict[str, str]:
    """A player's `player:{id}:progress`; empty where none is published."""
    return cast("dict[str, str]", client.hgetall(f"player:{player}:progress"))


def publish_progress(client: Client, players: Iterable[tuple[Any, ...]], now: float) -> int:
    """Write `player:{id}:progress` of players given as player_id, xp_total, level, xp_to_next, …; how many they were."""
    updated_at, written, players = iso(now), 0, iter(players)
    while chunk := list(islice(players, CHUNK)):
        with client.pipeline(transaction=False) as pipe:
            for player, xp, level, missing, *_ in chunk:
                key = f"player:{player}:progress"
                values = {"xp": xp, "level": level, "xp_to_next": "" if missing is None else missing}
                pipe.hset(key, mapping=cast("dict[Any, Any]", values | {"updated_at": updated_at}))
                pipe.expire(key, PROGRESS_EXPIRY)
            pipe.execute()
        written += len(chunk)
    return written


def mark_progress(client: Client, now: float) -> None:
    """Note in Redis that everybody's progress is there: a Redis that came back empty has no such note."""
    client.set(PROGRESS_MARK, iso(now))


def forget_progress(client: Client) -> None:
    """Have everybody's progress sent again."""
    client.delete(PROGRESS_MARK)


def has_progress(client: Client) -> bool:
    """Whether Redis has everybody's progress."""
    return bool(client.exists(PROGRESS_MARK))


def entries(board: pl.DataFrame) -> list[Entry]:
    """Rows of `leaderboards` as entries."""
    return [Entry(*row) for row in board.select(ENTRY_COLUMNS).iter_rows()]
