"""What must hold of the partitions that a run wrote, made from the tables' contract: what is wrong with them, in sentences.

A check looks at the partitions of the run alone, in the snapshots that the run ends with: it compares with what a partition was
made of only where that is what is there. What does not belong here: Dagster (`assets/checks.py`), and the whole lake
(`fairboard verify`).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any

import duckdb
import pyarrow.parquet as pq

from warehouse.basis import Bases
from warehouse.calendar import Days
from warehouse.damage import damaged
from warehouse.engine import DuckDBEngine
from warehouse.folds import CONFLICTS, windows_of
from warehouse.lake import Keys, LakeFile
from warehouse.lake.snapshots import place_of
from warehouse.spans import History, bind_boards
from warehouse.tables import ACTIVITY_DAYS, DAILY_METRICS, EVENTS, LEADERBOARDS, PLAYER_DAYS, PLAYER_MONTHS, REJECTS, Table

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Check:
    """A condition of a table. `faults` gives a sentence for each thing wrong in a range of days."""

    name: str
    about: str
    faults: Callable[[DuckDBEngine, Table, Days], Iterator[str]]


def checks_of(table: Table) -> list[Check]:
    """The checks of a table: those that its contract implies, and how it adds up with the tables it was made of."""
    found = [
        Check("files", "Every file is the one that was recorded when it was written (SHA-256).", _files),
        Check("schema", "Every file has the contract's columns and types.", _schema),
    ]
    if table is not EVENTS:  # of events, an id may have landed twice; its check counts them
        found.append(Check("keys", f"No two rows share {', '.join(table.key)}, and none of these is NULL.", _keys))
    return found + _SUMS.get(table.name, [])


def faults(check: Check, engine: DuckDBEngine, table: Table, days: Days) -> list[str]:
    """The first things wrong with the table's partitions of those days; none where the check holds."""
    try:
        return list(islice(check.faults(engine, table, days), SHOWN))
    except (OSError, duckdb.IOException) as error:  # a file is missing or torn: that is what is wrong
        return [str(error)]


def _partitions(engine: DuckDBEngine, table: Table, days: Days) -> list[Keys]:
    """What a run over those days may have written."""
    if table is LEADERBOARDS:
        windows = [window.partition for window in windows_of(engine, days)]
        return [keys for keys in engine.lake.partitions(table) if keys in windows]
    if table is PLAYER_MONTHS:
        return _months_of(engine, days)
    return engine.lake.partitions(table, days)


def _months_of(engine: DuckDBEngine, days: Days) -> list[Keys]:
    """The months of the range, and the one before them, which it may have closed."""
    first = days.first.replace(day=1)
    months = [keys["month_start"] for keys in engine.lake.partitions(PLAYER_MONTHS, Days(date.min, days.last))]
    inside = bisect_left(months, first)
    return [{"month_start": month} for month in months[max(inside - 1, 0) :]]


def _written(engine: DuckDBEngine, table: Table, days: Days) -> list[LakeFile]:
    return [file for keys in _partitions(engine, table, days) for file in engine.lake.of(table, keys)]


def _files(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    yield from (
        f"{engine.lake.storage.shown(damage.file.name)} {damage.what}."
        for damage in damaged(engine.lake, _written(engine, table, days))
    )


def _schema(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    for path in engine.lake.paths(_written(engine, table, days)):
        found = {field.name: field.type for field in pq.read_schema(path)}
        for field in table.file_schema:
            kind = found.pop(field.name, None)
            if kind is None and not field.nullable:  # a nullable column may be younger than the file
                yield f"{path} has no column {field.name}."
            elif kind not in (None, field.type):
                yield f"{path}: {field.name} is {kind}, not {field.type}."
        for name in found:
            yield f"{path} has a column {name} that the contract does not know."


def _keys(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    engine.bind_files(table, _written(engine, table, days))
    key = ", ".join(table.key)
    missing = " OR ".join(f"{column} IS NULL" for column in table.key)
    sql = f"SELECT count(*), {key} FROM {table.name} GROUP BY {key} HAVING count(*) > 1 OR {missing}"  # noqa: S608 - the contract's names
    for count, *values in _rows(engine, sql):
        named = ", ".join(f"{column} {value}" for column, value in zip(table.key, values, strict=True))
        yield f"{count} row(s) with {named}."


def _events_accounted(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    """Rows = events + duplicates + conflicts, each counted by itself; the rows are what the log has, the events the ids.

    Copies that compaction dropped are in no file: nothing here can tell one from an event that it lost.
    """
    engine.bind(EVENTS, days)
    rows = {day: counts for day, *counts in _rows(engine, _ROWS_AND_IDS)}
    events = dict(_rows(engine, "SELECT event_date, count(*) FROM events GROUP BY event_date"))
    duplicates = dict(_rows(engine, _DUPLICATES))
    for keys in _partitions(engine, table, days):
        day = keys["event_date"]
        recorded = sum(file.rows for file in engine.lake.of(table, keys))
        conflicts = sum(file.rows for file in engine.lake.of(REJECTS, keys) if file.label == CONFLICTS)
        counts = (events.get(day, 0), duplicates.get(day, 0), conflicts)
        found, ids = rows.get(day, (0, 0))
        if not recorded == found == sum(counts) or ids != counts[0]:
            yield (
                f"{day}: {recorded:,} rows are recorded and {found:,} are in the files, with {ids:,} ids; "
                "{:,} events, {:,} duplicates and {:,} conflicts stand for them.".format(*counts)
            )


_ROWS_AND_IDS = "SELECT event_date, count(*), count(DISTINCT event_id) FROM landed GROUP BY event_date"


# Copies of an id with the same content, among the ids that stand there more than once: the others need no comparing.
_DUPLICATES = """
WITH copies AS (SELECT event_date, event_id FROM landed GROUP BY event_date, event_id HAVING count(*) > 1)
SELECT
    landed.event_date,
    count(*) - count(DISTINCT struct_pack(landed.event_id, type, player_id, ts, delta_xp, activity, boss_id, duration_ms,
        party_size, difficulty, item_id, rarity, quantity))
FROM landed
SEMI JOIN copies ON landed.event_date = copies.event_date AND landed.event_id = copies.event_id
GROUP BY landed.event_date
"""

_PLAYERS_OF_EVENTS = """
SELECT
    event_date,
    count(*) AS events,
    greatest(least(coalesce(sum(delta_xp) FILTER (WHERE type = 'progression'), 0), 9223372036854775807), -9223372036854775807)
        AS xp
FROM events
GROUP BY event_date, player_id
"""

# Players whose XP ran into 64 bits are left out on both sides.
_BOARDS = "SELECT * FROM leaderboards WHERE abs(xp) < 9223372036854775807"
_PLAYERS_OF_WINDOWS = """
SELECT window_kind, season, window_start, xp
FROM player_spans AS s
JOIN window_spans AS w ON s.span_first = w.span_first AND s.span_last = w.span_last
ANTI JOIN exclusions AS x
    ON s.player_id = x.player_id AND x.excluded_from < w.verdicts_until AND w.verdicts_from < x.excluded_until
WHERE counts AND xp_events > 0
    AND s.player_id NOT IN (SELECT player_id FROM leaderboards WHERE abs(xp) = 9223372036854775807)
"""
_NEW_AND_RETURNING = """
SELECT event_date, numerator AS players FROM daily_metrics WHERE metric IN ('new_players', 'returning_players')
"""


def _player_days_sums(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    engine.bind(EVENTS, days)
    engine.bind(table, days)
    differing = _differing(engine, _PLAYERS_OF_EVENTS, "FROM player_days", ("event_date",), ("events", "xp"))
    yield from _if_current(engine, table, differing)


def _activity_days_sums(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    engine.bind(PLAYER_DAYS, days)
    engine.bind(table, days)
    differing = _differing(engine, "FROM player_days", "FROM activity_days", ("event_date",), ("events",))
    days_behind = {one.day for one in Bases(engine).behind(PLAYER_DAYS)}
    yield from _if_current(engine, table, (one for one in differing if one[0]["event_date"] not in days_behind))


def _daily_metrics_sums(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    engine.bind(PLAYER_DAYS, days)
    engine.bind(table, days)
    players = "SELECT event_date, 1 AS players FROM player_days"
    differing = _differing(engine, players, _NEW_AND_RETURNING, ("event_date",), ("players",))
    yield from _if_current(engine, table, differing)


def _leaderboards_sums(engine: DuckDBEngine, table: Table, days: Days) -> Iterator[str]:
    bind_boards(engine, History(engine), windows_of(engine, days))
    engine.bind_exclusions()
    engine.bind_files(table, _written(engine, table, days))
    differing = _differing(engine, _PLAYERS_OF_WINDOWS, _BOARDS, LEADERBOARDS.partition, ("xp",))
    yield from _if_current(engine, table, differing)


def _if_current(engine: DuckDBEngine, table: Table, differing: Iterable[tuple[Keys, str]]) -> Iterator[str]:
    """Those of the differences that are in partitions which are not behind: these are stale, not wrong."""
    bases = Bases(engine).of(table)
    for keys, text in differing:
        if engine.lake.basis(table, keys) == bases.get(place_of(table, keys)):
            yield text


def _differing(
    engine: DuckDBEngine, source: str, result: str, by: tuple[str, ...], columns: tuple[str, ...]
) -> Iterator[tuple[Keys, str]]:
    """Where the sums of two relations differ: the partition, and a sentence."""
    keys = ", ".join(by)
    sums = ", ".join(f"CAST(sum({column}) AS DECIMAL(38, 0)) AS {column}" for column in columns)
    pairs = ", ".join(f"coalesce(a.{column}, 0), coalesce(b.{column}, 0)" for column in columns)
    sql = (
        f"SELECT {keys}, {pairs} FROM (SELECT {keys}, {sums} FROM ({source}) GROUP BY {keys}) AS a"  # noqa: S608 - names of the contract
        f" FULL JOIN (SELECT {keys}, {sums} FROM ({result}) GROUP BY {keys}) AS b USING ({keys}) ORDER BY {keys}"
    )
    for row in _rows(engine, sql):
        where = " ".join(map(str, row[: len(by)]))
        for column, expected, found in zip(columns, row[len(by) :: 2], row[len(by) + 1 :: 2], strict=True):
            if expected != found:
                yield dict(zip(by, row, strict=False)), f"{where}: {column} adds up to {found:,}, not to {expected:,}."


_SUMS = {
    EVENTS.name: [
        Check(
            "accounted",
            "Each day: rows = events + duplicates + conflicts; as many as are recorded, and an event for each id.",
            _events_accounted,
        )
    ],
    PLAYER_DAYS.name: [Check("sums", "Each day: events and XP are those of `events`.", _player_days_sums)],
    ACTIVITY_DAYS.name: [Check("sums", "Each day: events are those of `player_days`.", _activity_days_sums)],
    LEADERBOARDS.name: [Check("sums", "Each window: the board's XP is the XP of its players.", _leaderboards_sums)],
    DAILY_METRICS.name: [Check("sums", "Each day: new and returning players are those of `player_days`.", _daily_metrics_sums)],
}


def _rows(engine: DuckDBEngine, sql: str) -> list[tuple[Any, ...]]:
    return engine.connection.execute(sql).fetchall()
