"""What leaves the lake: rows for the SQL database, boards and progress for Redis.

Each publication takes a range of days and may be run again, in any order: it replaces what those days say, or adds what is
missing. What does not belong here: the boards (`publisher.py`), and the tables (`database.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from warehouse import boards, revisions
from warehouse.alerts import raise_alert, send
from warehouse.calendar import Days, Window
from warehouse.cases import open_cases, urgent_cases
from warehouse.causes import folded_days
from warehouse.database import LEADERBOARD_SNAPSHOTS, PLAYER_PROGRESS, RECEIPTS, REWARDS_GRANTED, SUSPICIOUS_EVENTS
from warehouse.embedded_redis import REDIS_ERRORS
from warehouse.engine import Engine
from warehouse.errors import StoreUnavailable
from warehouse.fairness.judgements import bind_event_scores, jump
from warehouse.folds import fairness_days, mending, windows_of
from warehouse.outlets import Outlets
from warehouse.publisher import newest_event, publish_boards, read_leaderboard
from warehouse.tables import LEADERBOARD_REVISIONS, PROGRESSION
from warehouse.versions import rewards_version

if TYPE_CHECKING:
    from warehouse.lake import Staged

SNAPSHOT_TOP = 1_000
WINDOWS = 500  # a transaction: other writers of SQLite wait for a minute, which is thousands of windows
CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication wrote."""

    name: str
    rows: int
    seconds: float


def receipts(engine: Engine, outlets: Outlets, days: Days) -> int:
    """Rewards of the levels passed since the range began, once per player, level and reward, whatever is run again. Rows added.

    Later days too: XP that comes late to a day may let a level be passed on one of them. And earlier ones where the rewards
    have changed: a level that was passed long ago pays what is new.
    """
    rewards = rewards_version(engine.settings)
    with outlets.database.connect() as connection:
        granted = connection.scalar(sa.select(REWARDS_GRANTED.c.rewards))
    first = days.first if granted in (None, rewards) else date.min
    engine.bind(PROGRESSION, Days(first, max(days.last, outlets.today)))
    engine.bind_rewards()
    earned = engine.query(
        "SELECT p.player_id, r.level, r.reward, min(p.event_date) AS earned_on FROM progression AS p"
        " JOIN rewards AS r ON p.level_before < r.level AND r.level <= p.level_after GROUP BY ALL ORDER BY ALL"
    )
    with outlets.database.begin() as connection:
        insert = _insert(connection, RECEIPTS).on_conflict_do_nothing()
        written = _write(connection, insert, earned.schema.names, _rows(earned))
        if granted != rewards:
            connection.execute(sa.delete(REWARDS_GRANTED))
            connection.execute(
                sa.insert(REWARDS_GRANTED).values(rewards=rewards, granted_at=datetime.fromtimestamp(outlets.now, UTC))
            )
    return written


def player_progress(engine: Engine, outlets: Outlets, days: Days) -> int:
    """How far everybody is who played since the range began, in the database and as `player:{id}:progress`. Players sent.

    Sent is who stands elsewhere than in the database; to a Redis that has lost its progress, everybody whom it should have.
    """
    lost = not boards.has_progress(outlets.redis)
    first = min(days.first, outlets.today - boards.PROGRESS_EXPIRY) if lost else days.first
    engine.bind(PROGRESSION, Days(first, max(days.last, outlets.today)))
    latest = engine.query(
        "SELECT player_id, xp_total, level_after AS level, xp_to_next, event_date AS last_active FROM progression"
        " QUALIFY row_number() OVER (PARTITION BY player_id ORDER BY event_date DESC) = 1 ORDER BY player_id"
    )
    columns = latest.schema.names
    known = sa.select(*(PLAYER_PROGRESS.c[name] for name in columns))
    sent = 0
    with outlets.database.begin() as connection:
        insert = _insert(connection, PLAYER_PROGRESS)
        newer = insert.on_conflict_do_update(
            index_elements=["player_id"],
            set_={name: insert.excluded[name] for name in columns if name != "player_id"},
            where=PLAYER_PROGRESS.c.last_active <= insert.excluded.last_active,
        )
        players = _rows(latest)
        while rows := list(islice(players, CHUNK)):
            there = connection.execute(known.where(PLAYER_PROGRESS.c.player_id.in_([row[0] for row in rows])))
            changed = set(rows).difference(map(tuple, there))
            _write(connection, newer, columns, changed)
            sent += boards.publish_progress(outlets.redis, rows if lost else changed, outlets.now)
    boards.mark_progress(outlets.redis, outlets.now)
    return sent


def suspicious_events(engine: Engine, outlets: Outlets, days: Days) -> int:
    """Every event of those days, and of the days whose baseline they are in, beyond a rule's threshold. Events written."""
    days = fairness_days(engine, days)
    bind_event_scores(engine, days)
    flagged = engine.query(
        "SELECT event_date, event_id, rule, version AS rule_version, player_id, delta_xp, z, threshold FROM event_scores"
        " WHERE abs(z) > threshold ORDER BY ALL"
    )
    with outlets.database.begin() as connection:
        connection.execute(sa.delete(SUSPICIOUS_EVENTS).where(SUSPICIOUS_EVENTS.c.event_date.between(days.first, days.last)))
        return _write(connection, sa.insert(SUSPICIOUS_EVENTS), flagged.schema.names, _rows(flagged))


def leaderboard_snapshots(engine: Engine, outlets: Outlets, days: Days) -> int:
    """The closed windows of the range: a revision of each whose ranks or XP changed, and the top of its board. Rows written."""
    engine.lake.sweep(LEADERBOARD_REVISIONS.name)
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
                    record = partial(revisions.record, watermark=newest_event(engine, board), folded=folded, now=outlets.now)
                    staged.append(record(engine, connection, window, known, board, changed))
            # What a killed publisher left under the same revision was never recorded.
            left = [file for one in staged for file in engine.lake.of(LEADERBOARD_REVISIONS, one.keys)]
            engine.lake.commit(LEADERBOARD_REVISIONS, staged, left)
    return written


def _snapshot(connection: sa.Connection, window: Window, board: pl.DataFrame) -> int:
    columns = [column.name for column in LEADERBOARD_SNAPSHOTS.columns]
    this = [LEADERBOARD_SNAPSHOTS.c[name] == value for name, value in window.partition.items()]
    connection.execute(sa.delete(LEADERBOARD_SNAPSHOTS).where(*this))
    top = board.head(SNAPSHOT_TOP).select(columns)
    return _write(connection, sa.insert(LEADERBOARD_SNAPSHOTS), columns, top.iter_rows())


def publications(engine: Engine, outlets: Outlets, _days: Days) -> int:
    """The boards in Redis that are not as the lake has them: running, next, and closed but not yet expired. Players on them."""
    return sum(one.players for one in publish_boards(engine, outlets))


def cases(engine: Engine, outlets: Outlets, days: Days) -> int:
    """Open a case for every suspicion, or add it to the player's; alert what must be heard at once. Cases with new evidence."""
    days = fairness_days(engine, days)
    with outlets.database.begin() as connection:
        touched = open_cases(engine, connection, days)
        for case_id in urgent_cases(connection):
            text = f"Case {case_id} is beyond the act threshold: `fairboard cases show {case_id}`."
            raise_alert(connection, f"case {case_id}", text)
        if text := jump(engine, days.last):
            raise_alert(connection, f"day {days.last}", text)
    send(engine.settings, outlets.database)
    return len(set(touched))


PUBLISHED: dict[str, Callable[[Engine, Outlets, Days], int]] = {
    "receipts": receipts,
    "player_progress": player_progress,
    "suspicious_events": suspicious_events,
    "cases": cases,
    "leaderboard_snapshots": leaderboard_snapshots,
    "publications": publications,
}


IN_REDIS = {player_progress.__name__, publications.__name__}


def publish(engine: Engine, outlets: Outlets, name: str, days: Days) -> Published:
    """Run one publication over the range. Two processes at it take turns: each replaces what it finds.

    Raises:
        StoreUnavailable: Redis or the database refused; what was there before stays.
    """
    return _published(engine, name, days, lambda: PUBLISHED[name](engine, outlets, days))


def publish_all(engine: Engine, outlets: Outlets) -> list[Published]:
    """Build Redis anew from the lake alone: every board that is due, whole, and everybody's progress.

    Raises:
        StoreUnavailable: Redis or the database refused; what was there before stays.
    """
    forever = Days(date.min, outlets.today)
    boards.forget_progress(outlets.redis)
    everything = {
        "player_progress": lambda: player_progress(engine, outlets, forever),
        "publications": lambda: sum(one.players for one in publish_boards(engine, outlets, whole=True)),
    }
    return [_published(engine, name, forever, run) for name, run in everything.items()]


def _published(engine: Engine, name: str, days: Days, run: Callable[[], int]) -> Published:
    started = perf_counter()
    try:
        with engine.lake.lock(name):
            rows = mending(engine, lambda: _afresh(engine, run))
    except (*REDIS_ERRORS, sa.exc.SQLAlchemyError) as error:
        raise StoreUnavailable(
            f"{name} of {days} was not published: {error}. What was published before stays; publish again when that is mended."
        ) from error
    return Published(name, rows, perf_counter() - started)


def _afresh(engine: Engine, run: Callable[[], int]) -> int:
    engine.lake.refresh()
    return run()


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        for start in range(0, batch.num_rows, CHUNK):
            yield from zip(*(column.to_pylist() for column in batch.slice(start, CHUNK).columns), strict=True)


def _write(connection: sa.Connection, insert: sa.Insert, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> int:
    """Insert in chunks; the number of rows written."""
    rows, written = iter(rows), 0
    while chunk := [dict(zip(columns, row, strict=True)) for row in islice(rows, CHUNK)]:
        written += connection.execute(insert, chunk, execution_options={"preserve_rowcount": True}).rowcount
    return written
