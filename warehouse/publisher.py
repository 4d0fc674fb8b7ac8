"""Which boards are due in Redis, and the book of their publications.

Due is every window that runs, the next one of each, and every closed one until it expires. A board whose lake partition is as
it was when it was published is left alone. What does not belong here: how a board gets into Redis (`swaps.py`).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import perf_counter

import polars as pl
import redis
import sqlalchemy as sa

from warehouse.boards import ENTRY_COLUMNS, EXPIRY, SCORING, TOP, key_of
from warehouse.calendar import ONE_DAY, Calendar, Days, Window, WindowKind
from warehouse.database import PUBLICATIONS
from warehouse.embedded_redis import REDIS_ERRORS
from warehouse.engine import Engine
from warehouse.errors import StoreUnavailable
from warehouse.outlets import Outlets
from warehouse.swaps import Standing, publish_board, standings, withdraw
from warehouse.tables import LEADERBOARDS, PLAYER_DAYS

_TOP_COLUMNS = ["as_of", *ENTRY_COLUMNS]
KEPT_FOR = timedelta(days=3)  # a board that follows the events is published 17,000 times a day


@dataclass(frozen=True, slots=True)
class Publication:
    """One board swapped into Redis: `how` is `whole` or `changes`, `members` how many were sent or taken out."""

    redis_key: str
    revision: int
    players: int
    how: str
    members: int
    duration_ms: int


def publish_boards(engine: Engine, outlets: Outlets, *, whole: bool = False) -> list[Publication]:
    """Publish the boards that are due and not as the lake has them; with `whole`, all that are due, whole.

    Publishers of one lake take turns.

    Raises:
        StoreUnavailable: a board was refused; it stays as it was, and the others are published.
    """
    calendar, today = engine.calendar, outlets.today
    due = due_windows(calendar, today)
    published: list[Publication] = []
    refused: list[str] = []
    with engine.lake.lock("boards"):
        engine.lake.refresh()
        there = standings(outlets.redis, sorted({*due.values(), *(window.redis_key for window in due)}))
        for window, key in due.items():
            source = f"{engine.lake.fingerprint(LEADERBOARDS, window.partition)}:{window.end}:{SCORING}"
            if not whole and _is_current(there[key], window, source, today):
                continue
            try:
                published.append(_publish(engine, outlets, window, key, source=source, whole=whole))
            except REDIS_ERRORS as error:
                refused.append(f"{key} ({error})")
                if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                    break
        if not refused:
            _withdraw_ended(outlets, due, there)
    outlets.sent = {key: sent for key, sent in outlets.sent.items() if key in due.values()}
    if refused:
        raise StoreUnavailable(
            f"Not published: {', '.join(refused)}. These boards are in Redis as they were, and everything is in the lake. "
            "When that is mended the next refresh publishes them, or `fairboard publish`."
        )
    return published


def due_windows(calendar: Calendar, today: date) -> dict[Window, str]:
    """The windows that belong into Redis today, and their keys.

    Closed ones come first: on the day after, the running key is theirs no more. The next ones are there before they begin, so
    that no reader meets a season or a week without its board.
    """
    running = set(calendar.windows_of(today))
    ending = {window for window in running if window.kind is not WindowKind.ALLTIME}
    following = {later for window in ending for later in calendar.windows_of(window.end) if later.kind is window.kind}
    following |= {window for window in calendar.windows_of(today + ONE_DAY) if window.start > today}
    closed = {window for day in Days.ending(today, max(EXPIRY.values()).days + 1) for window in calendar.windows_of(day)}
    order = sorted(closed - running) + sorted(running) + sorted(following - running)
    return {window: key for window in order if (key := key_of(window, calendar, today))}


def read_leaderboard(engine: Engine, window: Window) -> pl.DataFrame:
    """A window's board in the lake, by rank; empty where nobody is on it."""
    file = engine.lake.one(LEADERBOARDS, window.partition)
    if file is None:
        return pl.DataFrame(schema=pl.Schema(LEADERBOARDS.schema))
    board = pl.read_parquet(engine.lake.path(file), hive_partitioning=False, glob=False)
    board = board.with_columns(pl.lit(value).alias(name) for name, value in window.partition.items())
    return board.select(LEADERBOARDS.schema.names)


def newest_event(engine: Engine, board: pl.DataFrame) -> int | None:
    """The newest event that a board has counted (s since the epoch); None of an empty board, or where its last day is gone."""
    if not board.height:
        return None
    file = engine.lake.one(PLAYER_DAYS, {"event_date": board["as_of"][0]})
    if file is None:
        return None
    newest: int = (
        pl.scan_parquet(engine.lake.path(file), hive_partitioning=False, glob=False).select(pl.max("last_ts")).collect().item()
    )
    return newest


def forget_publications(outlets: Outlets) -> None:
    """Drop what the book holds of more than three days ago."""
    old = PUBLICATIONS.c.published_at < datetime.fromtimestamp(outlets.now, UTC) - KEPT_FOR
    with outlets.database.begin() as connection:
        connection.execute(sa.delete(PUBLICATIONS).where(old))


def _is_current(there: Standing, window: Window, source: str, today: date) -> bool:
    """Whether what lies under the key is the window's board as the lake has it, and will not expire while it runs."""
    if there.stamp is None:
        return window.end <= today and source.startswith(":")  # nobody was on it, and nothing is there
    if (there.stamp.start, there.stamp.source) != (str(window.start), source) or not there.sound:
        return False
    return window.end <= today or timedelta(seconds=there.expires_in_s) > EXPIRY[window.kind] / 2


def _publish(engine: Engine, outlets: Outlets, window: Window, key: str, *, source: str, whole: bool) -> Publication:
    started = perf_counter()
    xp, top = _read(engine, window)
    row = {
        "redis_key": key,
        "window_start": window.start,
        "watermark": (watermark := newest_event(engine, top)),
        "players": xp.height,
        "published_at": datetime.fromtimestamp(outlets.now, UTC),
    }
    sent = None if whole else outlets.sent.pop(key, None)
    try:
        done = publish_board(
            outlets.redis, key, xp, top,
            calendar=engine.calendar, window=window, source=source, watermark=watermark, now=outlets.now, sent=sent,
        )  # fmt: skip
    except REDIS_ERRORS as error:
        _book(outlets, row | {"outcome": "failed", "error": str(error), "duration_ms": _ms_since(started)})
        raise
    outlets.sent[key] = done.sent
    publication = Publication(key, done.sent.stamp.revision, xp.height, done.how, done.members, _ms_since(started))
    _book(
        outlets,
        row
        | {"outcome": "published", "revision": publication.revision, "how": publication.how}
        | {"members": publication.members, "duration_ms": publication.duration_ms},
    )
    return publication


def _read(engine: Engine, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A window's board by rank: player_id and xp of everybody, and what the top page has of the first."""
    file = engine.lake.one(LEADERBOARDS, window.partition)
    if file is None:
        empty = pl.DataFrame(schema=pl.Schema(LEADERBOARDS.file_schema))
        return empty.select("player_id", "xp"), empty
    path = engine.lake.path(file)
    everybody = pl.read_parquet(path, columns=["player_id", "xp"], hive_partitioning=False, glob=False)
    return everybody, pl.read_parquet(path, n_rows=TOP, columns=_TOP_COLUMNS, hive_partitioning=False, glob=False)


def _book(outlets: Outlets, row: dict[str, object]) -> None:
    with outlets.database.begin() as connection:
        connection.execute(sa.insert(PUBLICATIONS), row)


def _withdraw_ended(outlets: Outlets, due: dict[Window, str], there: dict[str, Standing]) -> None:
    """Take away the running key of a season that is over: its last board is under the key of a closed one."""
    for window, key in due.items():
        last = there[window.redis_key].stamp
        if key != window.redis_key and last and last.start == str(window.start) and window.redis_key not in due.values():
            withdraw(outlets.redis, window.redis_key)


def _ms_since(started: float) -> int:
    return round((perf_counter() - started) * 1000)
