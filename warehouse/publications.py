"""What leaves the lake: rows for the SQL database, boards and progress for Redis.

Each publication takes a range of days and may be run again, in any order: it replaces what those days say, or adds what is
missing. What does not belong here: how a board lies in Redis (`boards.py`), and the tables (`database.py`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any

import polars as pl
import redis
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from warehouse import boards, revisions
from warehouse.calendar import Calendar, Days, Window
from warehouse.causes import folded_days
from warehouse.database import LEADERBOARD_SNAPSHOTS, PLAYER_PROGRESS, PUBLICATIONS, RECEIPTS, SUSPICIOUS_EVENTS, open_database
from warehouse.embedded_redis import connect
from warehouse.engine import Engine
from warehouse.errors import StoreUnavailable
from warehouse.folds import bind_event_scores, fairness_days, windows_of
from warehouse.lake import PARTITION_FILE, Staged
from warehouse.settings import Settings
from warehouse.tables import LEADERBOARD_REVISIONS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION

SNAPSHOT_TOP = 1_000
WINDOWS = 500  # a transaction: other writers of SQLite wait for a minute, which is thousands of windows
CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication wrote."""

    name: str
    rows: int
    seconds: float


class Outlets:
    """Where publications go: the SQL database and Redis of one deployment, at one moment `now` (s since the epoch)."""

    def __init__(self, settings: Settings, now: float | None = None) -> None:
        """Open both.

        Raises:
            StoreUnavailable: one of them cannot be reached; nothing was published.
        """
        self.now = time.time() if now is None else now
        self.today = Calendar.of(settings).day_of(int(self.now))
        self.redis = connect(settings)
        try:
            self.redis.ping()
        except redis.RedisError as error:
            where = self.redis.connection_pool.connection_kwargs
            raise StoreUnavailable(
                f"Redis at {where.get('host')}:{where.get('port')} does not answer: {error}. Nothing was published; the boards "
                "in it are as they were. Start it (`make up` or `fairboard redis`), or correct FAIRBOARD_REDIS_URL, and "
                "publish again: everything is in the lake."
            ) from error
        self.database = open_database(settings)


def receipts(engine: Engine, outlets: Outlets, days: Days) -> int:
    """Rewards of the levels passed since the range began, once per player, level and reward, whatever is run again. Rows added.

    Later days too: XP that comes late to a day may let a level be passed on one of them.
    """
    engine.bind(PROGRESSION, Days(days.first, max(days.last, outlets.today)))
    engine.bind_rewards()
    earned = engine.connection.sql(
        "SELECT p.player_id, r.level, r.reward, min(p.event_date) AS earned_on FROM progression AS p"
        " JOIN rewards AS r ON p.level_before < r.level AND r.level <= p.level_after GROUP BY ALL ORDER BY ALL"
    )
    with outlets.database.begin() as connection:
        insert = _insert(connection, RECEIPTS).on_conflict_do_nothing()
        return _write(connection, insert, earned.columns, _rows(earned))


def player_progress(engine: Engine, outlets: Outlets, days: Days) -> int:
    """How far everybody is who played since the range began, in the database and as `player:{id}:progress`. Players written."""
    engine.bind(PROGRESSION, Days(days.first, max(days.last, outlets.today)))
    latest = engine.connection.sql(
        "SELECT player_id, xp_total, level_after AS level, xp_to_next, event_date AS last_active FROM progression"
        " QUALIFY row_number() OVER (PARTITION BY player_id ORDER BY event_date DESC) = 1 ORDER BY player_id"
    ).pl()
    with outlets.database.begin() as connection:
        insert = _insert(connection, PLAYER_PROGRESS)
        newer = insert.on_conflict_do_update(
            index_elements=["player_id"],
            set_={name: insert.excluded[name] for name in latest.columns if name != "player_id"},
            where=PLAYER_PROGRESS.c.last_active <= insert.excluded.last_active,
        )
        _write(connection, newer, latest.columns, latest.iter_rows())
    boards.publish_progress(outlets.redis, latest, outlets.now)
    return latest.height


def suspicious_events(engine: Engine, outlets: Outlets, days: Days) -> int:
    """Every event of those days, and of the days whose baseline they are in, beyond a rule's threshold. Events written."""
    days = fairness_days(engine, days)
    bind_event_scores(engine, days)
    flagged = engine.connection.sql(
        "SELECT event_date, event_id, rule, version AS rule_version, player_id, delta_xp, z, threshold FROM event_scores"
        " WHERE abs(z) > threshold ORDER BY ALL"
    )
    with outlets.database.begin() as connection:
        connection.execute(sa.delete(SUSPICIOUS_EVENTS).where(SUSPICIOUS_EVENTS.c.event_date.between(days.first, days.last)))
        return _write(connection, sa.insert(SUSPICIOUS_EVENTS), flagged.columns, _rows(flagged))


def leaderboard_snapshots(engine: Engine, outlets: Outlets, days: Days) -> int:
    """The closed windows of the range: a revision of each whose ranks or XP changed, and the top of its board. Rows written."""
    engine.lake.sweep(LEADERBOARD_REVISIONS)
    folded, waiting = folded_days(engine), revisions.waiting_days(engine)
    closed = sorted(window for window in windows_of(engine, days) if window.end <= outlets.today)
    written = 0
    for start in range(0, len(closed), WINDOWS):
        staged: list[Staged] = []
        with outlets.database.begin() as connection:
            for window in closed[start : start + WINDOWS]:
                known = revisions.history(connection, window)
                if not known and any(day in window.days for day in waiting):
                    continue
                board = read_leaderboard(engine, window)
                written += _snapshot(connection, window, board)
                changed = revisions.changes(engine.lake, window, known, board)
                if changed.height:
                    record = partial(revisions.record, watermark=_watermark(engine, board), folded=folded, now=outlets.now)
                    staged.append(record(engine, connection, window, known, board, changed))
            engine.lake.commit(staged)
    return written


def _snapshot(connection: sa.Connection, window: Window, board: pl.DataFrame) -> int:
    columns = [column.name for column in LEADERBOARD_SNAPSHOTS.columns]
    this = [LEADERBOARD_SNAPSHOTS.c[name] == value for name, value in window.partition.items()]
    connection.execute(sa.delete(LEADERBOARD_SNAPSHOTS).where(*this))
    top = board.head(SNAPSHOT_TOP).select(columns)
    return _write(connection, sa.insert(LEADERBOARD_SNAPSHOTS), columns, top.iter_rows())


def publications(engine: Engine, outlets: Outlets, days: Days) -> int:
    """The boards in Redis: those running now, and those of the range that are closed but not yet expired. Members written."""
    windows = {*engine.calendar.windows_of(outlets.today), *windows_of(engine, days)}
    written = 0
    for window in sorted(windows):
        if key := boards.key_of(window, outlets.today):
            with engine.lake.lock("boards"):
                written += _publish(engine, outlets, window, key)
    return written


PUBLISHED: dict[str, Callable[[Engine, Outlets, Days], int]] = {
    "receipts": receipts,
    "player_progress": player_progress,
    "suspicious_events": suspicious_events,
    "leaderboard_snapshots": leaderboard_snapshots,
    "publications": publications,
}


def publish(engine: Engine, outlets: Outlets, name: str, days: Days) -> Published:
    """Run one publication over the range. Two processes at it take turns: each replaces what it finds.

    Raises:
        StoreUnavailable: Redis or the database refused; what was there before stays.
    """
    started = perf_counter()
    try:
        with engine.lake.lock(name):
            rows = PUBLISHED[name](engine, outlets, days)
    except (redis.RedisError, sa.exc.SQLAlchemyError) as error:
        raise StoreUnavailable(
            f"{name} of {days} was not published: {error}. What was published before stays; publish again when that is mended."
        ) from error
    return Published(name, rows, perf_counter() - started)


def read_leaderboard(engine: Engine, window: Window) -> pl.DataFrame:
    """A window's board in the lake, by rank; empty where nobody is on it."""
    path = engine.lake.folder(LEADERBOARDS, window.partition) / PARTITION_FILE
    if not path.exists():
        return pl.DataFrame(schema=pl.Schema(LEADERBOARDS.schema))
    board = pl.read_parquet(path, hive_partitioning=False)
    board = board.with_columns(pl.lit(value).alias(name) for name, value in window.partition.items())
    return board.select(LEADERBOARDS.schema.names)


def _publish(engine: Engine, outlets: Outlets, window: Window, key: str) -> int:
    started = perf_counter()
    board = read_leaderboard(engine, window)
    watermark = _watermark(engine, board)
    revision = boards.publish_board(
        outlets.redis, key, board, calendar=engine.calendar, window=window, watermark=watermark, now=outlets.now
    )
    row = {
        "redis_key": key,
        "window_start": window.start,
        "revision": revision,
        "watermark": watermark,
        "players": board.height,
        "published_at": datetime.fromtimestamp(outlets.now, UTC),
        "duration_ms": round((perf_counter() - started) * 1000),
    }
    with outlets.database.begin() as connection:
        connection.execute(sa.insert(PUBLICATIONS), row)
    return board.height


def _watermark(engine: Engine, board: pl.DataFrame) -> int | None:
    """The newest event that a board has counted (s since the epoch)."""
    if not board.height:
        return None
    path = engine.lake.folder(PLAYER_DAYS, {"event_date": board["as_of"][0]}) / PARTITION_FILE
    newest: int = pl.scan_parquet(path, hive_partitioning=False).select(pl.max("last_ts")).collect().item()
    return newest


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _rows(relation: Any) -> Iterator[tuple[Any, ...]]:
    while rows := relation.fetchmany(CHUNK):
        yield from rows


def _write(connection: sa.Connection, insert: sa.Insert, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> int:
    """Insert in chunks; the number of rows written."""
    rows, written = iter(rows), 0
    while chunk := [dict(zip(columns, row, strict=True)) for row in islice(rows, CHUNK)]:
        written += connection.execute(insert, chunk, execution_options={"preserve_rowcount": True}).rowcount
    return written
