"""Forgetting a player: out of the lake, the SQL database and Redis, and everything that stood on their events computed again.

Driven by the contracts: every table of `TABLES` and of the SQL database with a `player_id`, whatever comes to them later. What
is to be done is noted in the lake before anything goes, so that a killed run is finished by running it again.
What does not belong here: the journal (what it still holds must be sealed before), and backups.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

import msgspec
import polars as pl
import sqlalchemy as sa

from warehouse import revisions
from warehouse.boards import Client
from warehouse.calendar import Days
from warehouse.compaction import Changes, merge, settle
from warehouse.database import METADATA
from warehouse.engine import Engine, scan
from warehouse.errors import LakeError
from warehouse.fairness.rules import check_small_tables
from warehouse.folds import CONFLICTS, FOLDS, fold
from warehouse.lake import Keys, Lake, LakeFile, vacuum_now
from warehouse.leftovers import remove_from_leftovers, take_in_strays
from warehouse.outlets import Outlets
from warehouse.publications import IN_REDIS, PUBLISHED, leaderboard_snapshots, publish
from warehouse.tables import EVENTS, REJECTS, TABLES, Table


@dataclass(slots=True)
class Forgotten:
    """What was removed: rows and keys by place; the days computed again; what may still hold them, in sentences."""

    player_id: str
    removed: dict[str, int] = field(default_factory=dict)
    first_day: date | None = None
    last_day: date | None = None
    left: list[str] = field(default_factory=list)


def forget(engine: Engine, outlets: Outlets, player: str) -> Forgotten:
    """Remove a player everywhere. Run again, it finishes what was killed, and removes nothing twice.

    Raises:
        SettingsError: level curve, rewards or rules cannot be used; nothing was removed.
        LakeError: something of the player is still in the lake; what was removed stays removed.
        StoreUnavailable: Redis or the database refused; the lake is done, run it again.
    """
    check_small_tables(engine)
    forgotten = Forgotten(player)
    forgotten.left += take_in_strays(engine.lake, _holding_tables())
    in_lake = {table.name: _rows_of(engine, table, player) for table in _player_tables()}
    in_lake[REJECTS.name] = _letters_of(engine.lake, player)
    forgotten.removed = {f"lake: {name}": sum(found.values()) for name, found in in_lake.items()}
    forgotten.removed |= {f"database: {name}": rows for name, rows in _count_in_database(outlets.database, player).items()}
    touched = {day for found in in_lake.values() for day in found if day is not None}
    with _noted(engine.lake, player, touched) as days:
        _delete_from_database(outlets.database, player)
        if days:
            forgotten.first_day, forgotten.last_day = days.first, days.last
            _remove_from_files(engine, player, days)
            with engine.lake.lock(leaderboard_snapshots.__name__), outlets.database.begin() as connection:
                revisions.erase(engine.lake, connection, player)
            for name in FOLDS:
                fold(engine, name, days)
            for name in PUBLISHED:
                if outlets.has_redis or name not in IN_REDIS:
                    publish(engine, outlets, name, days)
            _delete_from_database(outlets.database, player)  # what was published beside us meanwhile
        vacuum_now(engine.lake, _holding_tables())
        forgotten.removed["redis: keys"] = _delete_from_redis(outlets.redis, player) if outlets.has_redis else 0
        _check_gone(engine, player)
    forgotten.left += remove_from_leftovers(
        engine.lake, _holding_tables(), lambda table: _naming(player) if table is REJECTS else pl.col("player_id") == player
    )
    return forgotten


def _player_tables() -> list[Table]:
    return [table for table in TABLES.values() if "player_id" in table.schema.names]


def _holding_tables() -> list[Table]:
    """The tables whose superseded files may hold a player."""
    return [*_player_tables(), REJECTS]


def _rows_of(engine: Engine, table: Table, player: str) -> dict[date | None, int]:
    """A player's rows per day; of a table that is not partitioned by day, under None."""
    day = "event_date" if "event_date" in table.partition else "CAST(NULL AS DATE)"
    rows = scan(table, engine.lake.paths(engine.lake.files(table)))
    sql = f"SELECT {day}, count(*) FROM ({rows}) WHERE player_id = $1 GROUP BY 1"  # noqa: S608 - our names
    return dict(engine.duckdb.connection.execute(sql, [player]).fetchall())


# In the files


def _remove_from_files(engine: Engine, player: str, days: Days) -> None:
    """Write the player's days of `events`, and the dead letters that name them, anew without them."""
    lake = engine.lake
    with lake.lock(EVENTS.name):
        lake.refresh()
        held = _rows_of(engine, EVENTS, player)
        touched = [keys for keys in lake.partitions(EVENTS, days) if keys["event_date"] in held]
        settle(engine.duckdb, touched, today=date.min)
        changes = Changes()
        for keys in touched:
            merge(engine.duckdb, keys, lake.of(EVENTS, keys), changes, without=player)
        changes.commit(lake)
    staged, removed = [], []
    for keys, file in _letter_files(lake):
        letters = pl.read_parquet(lake.path(file), hive_partitioning=False, glob=False)
        kept = letters.filter(~_naming(player))
        if kept.height < letters.height:
            removed.append(file)
            if kept.height:
                staged.append(lake.stage(REJECTS, kept.to_arrow(), keys, file.label))
    lake.commit(REJECTS, staged, removed)


def _letter_files(lake: Lake) -> Iterator[tuple[Keys, LakeFile]]:
    """The files of `rejects`, but for the conflicts, which are folded from `events`."""
    for keys in lake.partitions(REJECTS):
        yield from ((keys, file) for file in lake.of(REJECTS, keys) if file.label != CONFLICTS)


def _letters_of(lake: Lake, player: str) -> dict[date | None, int]:
    """Dead letters that name a player, per day."""
    found: dict[date | None, int] = {}
    for keys in lake.partitions(REJECTS):
        for path in lake.paths(lake.of(REJECTS, keys)):
            letters = pl.scan_parquet(path, hive_partitioning=False, glob=False)
            if count := letters.filter(_naming(player)).select(pl.len()).collect().item():
                day = keys["event_date"]
                assert isinstance(day, date)
                found[day] = found.get(day, 0) + count
    return found


def _naming(player: str) -> pl.Expr:
    """Whether a letter's body names the player: their id, plain or as JSON escapes it, not as a part of a longer one."""
    spellings = {player, msgspec.json.encode(player).decode()[1:-1], player.encode("ascii", "backslashreplace").decode()}
    names = "|".join(pl.escape_regex(spelling) for spelling in sorted(spellings))
    return pl.col("body").str.contains(rf"(^|[^\w.@-])({names})($|[^\w.@-])")


# Whether it is done


def _check_gone(engine: Engine, player: str) -> None:
    """Look once more, at the newest snapshots.

    Raises:
        LakeError: something of the player is left.
    """
    engine.lake.refresh()
    left = [table.name for table in _player_tables() if _rows_of(engine, table, player)]
    left += [REJECTS.name] if _letters_of(engine.lake, player) else []
    if left:
        raise LakeError(
            f"{', '.join(left)} still hold rows of {player!r}, which came while others were removed. What was removed stays "
            "removed. Run the same again; stop the ingest service if it happens again."
        )


# Elsewhere


def _count_in_database(database: sa.Engine, player: str) -> dict[str, int]:
    with database.connect() as connection:
        return {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one()
            for table in METADATA.sorted_tables
            if (condition := _about(table, player)) is not None
        }


def _delete_from_database(database: sa.Engine, player: str) -> None:
    with database.begin() as connection:
        for table in reversed(METADATA.sorted_tables):  # what points at a row goes before the row
            if (condition := _about(table, player)) is not None:
                connection.execute(sa.delete(table).where(condition))


def _about(table: sa.Table, player: str) -> sa.ColumnElement[bool] | None:
    """The rows about a player: by `player_id`, or by a foreign key to such a row. None for a table without either."""
    if "player_id" in table.c:
        return table.c["player_id"] == player
    conditions = [
        key.parent.in_(sa.select(key.column).where(condition))
        for key in table.foreign_keys
        if (condition := _about(key.column.table, player)) is not None
    ]
    return sa.or_(*conditions) if conditions else None


def _delete_from_redis(client: Client, player: str) -> int:
    """Remove the player's keys and places.

    The boards were published again without them: a page that still names them is of a board with nobody else, and goes with it.
    """
    escaped = re.sub(r"([\[\]*?^\\-])", r"\\\1", player)
    own = list(client.scan_iter(match=f"player:{escaped}:*"))
    removed = client.delete(*own) if own else 0
    quoted = msgspec.json.encode(player).decode()
    for key in [key for pattern in ("lb:*", "{lb:*") for key in client.scan_iter(match=pattern)]:
        kind = client.type(key)
        if kind == "zset":
            removed += client.zrem(key, player)
        elif kind == "string" and quoted in str(client.get(key)):
            board = key.removesuffix(":top")
            removed += client.delete(key, board, f"{board}:meta")
    return removed


# A killed run


@contextmanager
def _noted(lake: Lake, player: str, touched: set[date]) -> Iterator[Days | None]:
    """Keep a note of the days to compute again, those of a killed run included, until all is done."""
    note = f"_forget/{hashlib.sha256(player.encode()).hexdigest()[:16]}.json"
    if (left := lake.storage.read(note)) is not None:
        touched |= set(msgspec.json.decode(left, type=list[date]))
    if touched:
        lake.storage.replace(note, msgspec.json.encode(sorted(touched)))
    yield Days(min(touched), max(touched)) if touched else None
    lake.storage.delete([note])
