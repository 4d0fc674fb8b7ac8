"""Revisions of closed boards: every board that a closed window was published with, what moved between two of them, and why.

The boards are in the lake, whole (`leaderboard_revisions`); the list of them and the causes are in the SQL database. A revision
exists once its row does: its file is committed first, and what a killed writer left of one is replaced.
What does not belong here: which windows are published, and when (`publications.py`); how causes are found (`causes.py`).
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from itertools import groupby

import msgspec
import polars as pl
import sqlalchemy as sa

from warehouse.calendar import Calendar, Window, WindowKind
from warehouse.causes import CAUSES, Folded, causes_of, in_words
from warehouse.database import BOARD_REVISIONS, REVISION_CAUSES, in_utc
from warehouse.engine import Engine
from warehouse.errors import FairboardError, LakeError
from warehouse.lake import Keys, Lake, LakeFile, Staged
from warehouse.spans import days_of
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, LEADERBOARDS, PLAYER_DAYS
from warehouse.verdicts import touching


class Revision(msgspec.Struct, frozen=True):
    """A row of `board_revisions`. `watermark` is in s since the epoch; `folded` what is counted of each day, by ISO date."""

    revision: int
    recorded_at: datetime
    cause: str
    players: int
    moved: int
    watermark: int | None
    folded: Folded


def history(connection: sa.Connection | None, window: Window) -> list[Revision]:
    """A window's revisions, the newest first; none where there is no database yet."""
    if connection is None:
        return []
    columns = [BOARD_REVISIONS.c[name] for name in Revision.__struct_fields__]
    query = sa.select(*columns).where(*_of(BOARD_REVISIONS, window)).order_by(BOARD_REVISIONS.c.revision.desc())
    return [msgspec.convert(in_utc(row), Revision) for row in connection.execute(query).mappings()]


def find_window(
    calendar: Calendar, connection: sa.Connection | None, kind: WindowKind, season_id: str | None = None, at: date | None = None
) -> Window:
    """The window that contains `at`; without it, the latest one with a revision, of the season if one is given.

    Raises:
        FairboardError: there is none.
    """
    if at is None and connection is not None:
        of_kind = BOARD_REVISIONS.c.window_kind == str(kind)
        of_season = sa.true() if season_id is None else BOARD_REVISIONS.c.season == season_id
        at = connection.scalar(sa.select(sa.func.max(BOARD_REVISIONS.c.window_start)).where(of_kind, of_season))
    if at is None:
        season = f" of season {season_id}" if season_id else ""
        raise FairboardError(
            f"No closed {kind} window{season} has been published. `fairboard publish --from DAY --to DAY` publishes those of a "
            "range of days."
        )
    window = calendar.window_at(kind, at)
    if season_id not in (None, window.season):
        raise FairboardError(f"{at} is not in season {season_id}; it is in {window.season}.")
    return window


def read(lake: Lake, window: Window, revision: int) -> pl.DataFrame:
    """The board of a revision, by rank: rank, player_id, xp.

    Raises:
        LakeError: its file is gone.
    """
    file = lake.one(LEADERBOARD_REVISIONS, _keys(window, revision))
    if file is None:
        raise LakeError(
            f"Revision {revision} of the {window} is recorded, but the lake has no file of it. Nothing was changed. "
            "Restore the lake from a backup (docs/operations.md)."
        )
    return pl.read_parquet(lake.path(file), hive_partitioning=False, glob=False)


def diff(lake: Lake, connection: sa.Connection | None, window: Window, revision: int) -> pl.DataFrame:
    """Who differs from the revision before, as `compare` has it, with late_events and verdict_id (NULL for who only moved).

    Raises:
        FairboardError: there is no such revision, or it is the first.
    """
    known = {one.revision for one in history(connection, window)}
    if connection is None or revision not in known:
        raise FairboardError(f"The {window} has no revision {revision}; it has {len(known)}.")
    if revision == 1:
        raise FairboardError(
            f"Revision 1 of the {window} is its first publication: there is nothing before it to compare with."
        )
    columns = [REVISION_CAUSES.c[name] for name in CAUSES]
    query = sa.select(*columns).where(*_of(REVISION_CAUSES, window), REVISION_CAUSES.c.revision == revision)
    causes = pl.DataFrame([tuple(row) for row in connection.execute(query)], schema=CAUSES, orient="row")
    changes = compare(read(lake, window, revision - 1), read(lake, window, revision))
    return changes.join(causes, on="player_id", how="left", maintain_order="left")


def compare(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Whose rank or XP differs between two boards: player_id, rank_before, xp_before, rank_after, xp_after.

    First those whose XP differs, came or went (NULL before or after), then those who only moved; both by rank.
    """
    sides = [
        board.select("player_id", pl.col("rank").alias(f"rank_{side}"), pl.col("xp").alias(f"xp_{side}"))
        for side, board in (("before", before), ("after", after))
    ]
    both = sides[0].join(sides[1], on="player_id", how="full", coalesce=True)
    moved, gained = (pl.col(f"{name}_before").ne_missing(pl.col(f"{name}_after")) for name in ("rank", "xp"))
    return both.filter(moved | gained).sort(~gained, pl.coalesce("rank_after", "rank_before"), "player_id")


def waiting_days(engine: Engine) -> list[date]:
    """Landed days that nobody has folded yet: a backfill is still at them, and the first revision of their windows waits."""
    folded = set(days_of(engine, PLAYER_DAYS))
    return [day for day in days_of(engine, EVENTS) if day >= engine.settings.first_day and day not in folded]


def changes(lake: Lake, window: Window, known: Sequence[Revision], board: pl.DataFrame) -> pl.DataFrame:
    """Whose rank or XP on `board` differs from the newest revision known, as `compare` has it; empty where nothing is new.

    `board` has the columns of `leaderboards`, and `known` is the newest first.
    """
    return compare(read(lake, window, known[0].revision) if known else board.clear(), board)


def record(
    engine: Engine,
    connection: sa.Connection,
    window: Window,
    known: Sequence[Revision],
    board: pl.DataFrame,
    changed: pl.DataFrame,
    *,
    watermark: int | None,
    folded: Folded,
    now: float,
) -> Staged:
    """Note the revision after those known; its file, to be committed before the rows are.

    `changed` comes from `changes`, `folded` from `folded_days`; `watermark` is the newest event counted, `now` the time of
    publication (s since the epoch). For one publisher at a time.
    """
    causes, cause = pl.DataFrame(schema=CAUSES), "first publication"
    folded = {day: folded[day] for day in map(str, window.days) if day in folded}
    if known:
        verdicts = touching(connection, window.start, window.end)
        newest = known[0]
        causes = causes_of(engine, verdicts, window, changed, since=newest.recorded_at, before=newest.folded, now=folded)
        cause = in_words(causes, verdicts)
    keys = {**window.partition, "revision": len(known) + 1}
    row = {
        "recorded_at": datetime.fromtimestamp(now, UTC),
        "cause": cause,
        "players": board.height,
        "moved": changed.height if known else 0,
        "watermark": watermark,
        "folded": msgspec.to_builtins(folded),
    }
    connection.execute(sa.insert(BOARD_REVISIONS), keys | row)
    if causes.height:
        connection.execute(sa.insert(REVISION_CAUSES), [keys | one for one in causes.to_dicts()])
    rows = board.select("rank", "player_id", "xp").to_arrow(compat_level=pl.CompatLevel.oldest())
    return engine.lake.stage(LEADERBOARD_REVISIONS, rows, _keys(window, len(known) + 1))


def erase(lake: Lake, connection: sa.Connection, player: str) -> None:
    """Take a player off every revision: who stood below moves up, and a window on which nobody else was has no revisions.

    Run again, it finishes what was killed. For one publisher at a time.
    """
    staged: list[Staged] = []
    removed: list[LakeFile] = []
    for keys in lake.partitions(LEADERBOARD_REVISIONS):
        for file in lake.of(LEADERBOARD_REVISIONS, keys):
            board = pl.read_parquet(lake.path(file), hive_partitioning=False, glob=False)
            others = board.filter(pl.col("player_id") != player)
            if others.height < board.height:
                ranked = others.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
                moved_up = ranked.to_arrow(compat_level=pl.CompatLevel.oldest())
                staged.append(lake.stage(LEADERBOARD_REVISIONS, moved_up, keys))
                removed.append(file)
    lake.commit(LEADERBOARD_REVISIONS, staged, removed)
    columns = BOARD_REVISIONS.primary_key.columns
    recorded = connection.execute(sa.select(*columns, BOARD_REVISIONS.c.players).order_by(*columns)).mappings().all()
    for window, rows in groupby(recorded, key=lambda row: {name: row[name] for name in LEADERBOARDS.partition}):
        _count_again(lake, connection, window, {row["revision"]: row["players"] for row in rows})


def _count_again(lake: Lake, connection: sa.Connection, window: Keys, players: dict[int, int]) -> None:
    """Have a window's `players` and `moved` say what its files hold; `players` is what is recorded, by revision."""
    files = {revision: lake.of(LEADERBOARD_REVISIONS, {**window, "revision": str(revision)}) for revision in players}
    rows = {revision: sum(file.rows for file in found) for revision, found in files.items()}
    if rows == players:
        return
    this = [BOARD_REVISIONS.c[name] == value for name, value in window.items()]
    if not any(rows.values()):
        lake.commit(LEADERBOARD_REVISIONS, [], [file for found in files.values() for file in found])
        connection.execute(sa.delete(BOARD_REVISIONS).where(*this))
        return
    before: pl.DataFrame | None = None
    for revision, found in files.items():
        boards = [pl.read_parquet(path, hive_partitioning=False, glob=False) for path in lake.paths(found)]
        board = pl.concat(boards)
        counts = {"players": board.height, "moved": 0 if before is None else compare(before, board).height}
        connection.execute(sa.update(BOARD_REVISIONS).where(*this, BOARD_REVISIONS.c.revision == revision).values(**counts))
        before = board


def _keys(window: Window, revision: int) -> Keys:
    return {**window.partition, "revision": str(revision)}


def _of(table: sa.Table, window: Window) -> Sequence[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in window.partition.items()]
