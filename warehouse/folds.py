"""One function per table, each taking any range of days in one pass: what the assets and `fairboard materialize` both call.

A fold reads what lies upstream, computes the range's partitions and replaces those that changed; those that came out empty go.
What does not belong here: Dagster, Redis, the SQL database.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from time import perf_counter
from typing import Any

import pyarrow as pa

from warehouse.calendar import ONE_DAY, Days, Window, WindowKind
from warehouse.engine import Engine
from warehouse.lake import PARTITION_FILE, Keys, split_partitions
from warehouse.tables import EVENTS, FAIRNESS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION, REJECTS, TABLES, Table

BASELINE_DAYS = 28
CONFLICTS_FILE = "conflicts.parquet"

_WINDOW_COLUMNS: dict[str, pa.DataType] = {
    "window_kind": pa.string(),
    "season": pa.string(),
    "window_start": pa.date32(),
    "as_of": pa.date32(),
    "event_date": pa.date32(),
    "counts": pa.bool_(),
    "counted_before": pa.bool_(),
}
WINDOW_DAYS = pa.schema(_WINDOW_COLUMNS)


@dataclass(slots=True)
class Folded:
    """What a fold did."""

    table: str
    days: Days
    rows: int = 0
    partitions: int = 0
    changed: int = 0
    seconds: float = 0.0
    details: dict[str, int] = field(default_factory=dict)


def events(engine: Engine, days: Days) -> Folded:
    """The landed events: nothing is computed but their counts, and the ids in conflict go to `rejects`.

    `details` holds landed, events, duplicates, conflicts and rejected (refused at the door on those days).
    """
    started = perf_counter()
    engine.bind(EVENTS, days)
    counts = engine.run("landings").read_all().to_pylist()
    landed, unique, conflicts = (sum(row[name] for row in counts) for name in ("landed", "events", "conflicts"))
    rejects = engine.lake.partitions(REJECTS, days)
    if conflicts or any((engine.lake.folder(REJECTS, keys) / CONFLICTS_FILE).exists() for keys in rejects):
        _replace(engine, REJECTS, engine.run("conflicts"), rejects, name=CONFLICTS_FILE)
    refused = sum(
        record.rows
        for keys in engine.lake.partitions(REJECTS, days)
        for name, record in engine.lake.records(REJECTS, keys).items()
        if name != CONFLICTS_FILE
    )
    details = {
        "landed": landed,
        "events": unique,
        "duplicates": landed - unique - conflicts,
        "conflicts": conflicts,
        "rejected": refused,
    }
    return Folded("events", days, unique, len(counts), 0, perf_counter() - started, details)


def player_days(engine: Engine, days: Days) -> Folded:
    """One row per player and day. Records per day which files it has read, for `stale_days`."""
    started = perf_counter()
    inputs = {keys["event_date"]: engine.lake.fingerprint(EVENTS, keys) for keys in engine.lake.partitions(EVENTS, days)}
    engine.bind(EVENTS, days)
    batches = engine.run("player_days", first_day=days.first, last_day=days.last)
    existing = engine.lake.partitions(PLAYER_DAYS, days)
    folded = _replace(engine, PLAYER_DAYS, batches, existing, inputs=lambda keys: inputs.get(keys["event_date"], ""))
    return _finished(folded, days, started)


def progression(engine: Engine, days: Days) -> Folded:
    """How far every player is at the end of each day of the range, and of every later day: they stand on it."""
    started = perf_counter()
    days = _with_later(engine, days, date.max)
    engine.bind(PLAYER_DAYS, Days(date.min, days.last))
    engine.bind_levels()
    batches = engine.run("progression", first_day=days.first, last_day=days.last)
    folded = _replace(engine, PROGRESSION, batches, engine.lake.partitions(PROGRESSION, days))
    return _finished(folded, days, started)


def leaderboards(engine: Engine, days: Days) -> Folded:
    """Every board whose window contains a day of the range, over the days that the lake holds of it.

    And the daily board of the day after, whose `previous_rank` looks back at the range.
    """
    started = perf_counter()
    days = Days(days.first, days.last + ONE_DAY)
    windows = window_days(engine, days, days_of(engine, PLAYER_DAYS))
    needed = [day for day in windows["event_date"].to_pylist() if day]
    engine.bind(PLAYER_DAYS, Days(min(needed), max(needed)) if needed else days)
    engine.bind_rows("window_days", windows)
    affected = [
        keys
        for keys in engine.lake.partitions(LEADERBOARDS)
        if isinstance(keys["window_start"], date) and _touches(engine, keys, days)
    ]
    folded = _replace(engine, LEADERBOARDS, engine.run("leaderboards"), affected)
    return _finished(folded, days, started)


def fairness(engine: Engine, days: Days) -> Folded:
    """Each rule's judgement of each player and day of the range, against the 28 days before.

    And of the 28 days after, as far as there are any: the range is in their baselines.
    """
    started = perf_counter()
    days = fairness_days(engine, days)
    bind_event_scores(engine, days)
    batches = engine.run("fairness", baseline_days=BASELINE_DAYS)
    folded = _replace(engine, FAIRNESS, batches, engine.lake.partitions(FAIRNESS, days))
    return _finished(folded, days, started)


def bind_event_scores(engine: Engine, days: Days) -> None:
    """Make `event_scores` a view: each XP event of the range with its z by each rule."""
    baseline_day = days.first - timedelta(days=BASELINE_DAYS)
    engine.bind(EVENTS, days)
    engine.bind(PLAYER_DAYS, Days(baseline_day, days.last))
    engine.bind_rules()
    engine.bind_model(
        "event_scores", first_day=days.first, last_day=days.last, baseline_day=baseline_day, baseline_days=BASELINE_DAYS
    )


FOLDS: dict[str, Callable[[Engine, Days], Folded]] = {
    "events": events,
    "player_days": player_days,
    "progression": progression,
    "leaderboards": leaderboards,
    "fairness": fairness,
}


def fold(engine: Engine, table: str, days: Days) -> Folded:
    """Compute one table over the range. Two processes at it take turns, so that the later one has read the newer inputs."""
    with engine.lake.lock(table):
        if table != EVENTS.name:
            engine.lake.sweep(TABLES[table])
        return FOLDS[table](engine, days)


def stale_days(engine: Engine) -> list[date]:
    """The days whose events changed since `player_days` last read them, late arrivals included."""
    lake = engine.lake

    def folded_from(keys: Keys) -> str:
        record = lake.record(lake.folder(PLAYER_DAYS, keys) / PARTITION_FILE)
        return record.inputs if record else ""

    return [
        day
        for day in sorted({*days_of(engine, EVENTS), *days_of(engine, PLAYER_DAYS)})
        if lake.fingerprint(EVENTS, {"event_date": day}) != folded_from({"event_date": day})
    ]


def window_days(engine: Engine, days: Days, active: list[date]) -> pa.Table:
    """Which active days count into which window: the relation behind `leaderboards` (schema `WINDOW_DAYS`).

    Only windows that contain a day of the range, and have an active day. `as_of` is a window's last active day; a day counts
    into the board as it stood before when it came earlier (of a daily board: when it is the day before).
    """
    as_of: dict[Window, date] = {}
    for day in sorted(active):
        as_of |= {window: day for window in engine.calendar.windows_of(day) if _overlaps(window.start, window.end, days)}
    rows: list[tuple[Any, ...]] = []
    for window, last in as_of.items():
        inside = [day for day in active if window.start <= day <= last]
        if window.kind is WindowKind.DAILY:
            counted = [(day, True, False) for day in inside] + [(d, False, True) for d in active if d == window.start - ONE_DAY]
        else:
            counted = [(day, True, day < last) for day in inside]
        rows += [(str(window.kind), window.season, window.start, last, *day) for day in counted]
    return pa.Table.from_pylist([dict(zip(WINDOW_DAYS.names, row, strict=True)) for row in rows], schema=WINDOW_DAYS)


def fairness_days(engine: Engine, days: Days) -> Days:
    """The days whose scores depend on the range: its own, and those that have it in their baseline."""
    return _with_later(engine, days, days.last + timedelta(days=BASELINE_DAYS))


def _with_later(engine: Engine, days: Days, bound: date) -> Days:
    """The range, stretched to the last day up to `bound` that the lake holds."""
    return Days(days.first, max([days.last, *days_of(engine, PLAYER_DAYS, Days(days.last, bound))]))


def days_of(engine: Engine, table: Table, days: Days | None = None) -> list[date]:
    """The days that a table has partitions of."""
    return [day for keys in engine.lake.partitions(table, days) if isinstance(day := keys["event_date"], date)]


def _overlaps(start: date, end: date, days: Days) -> bool:
    return start <= days.last and end > days.first


def _touches(engine: Engine, keys: Keys, days: Days) -> bool:
    """Whether an existing board's window contains a day of the range."""
    start = keys["window_start"]
    assert isinstance(start, date)
    kind = WindowKind(str(keys["window_kind"]))
    window = next((w for w in engine.calendar.windows_of(start) if w.kind == kind and w.start == start), None)
    return window is None or _overlaps(window.start, window.end, days)


def _replace(
    engine: Engine,
    table: Table,
    batches: Iterable[pa.RecordBatch],
    existing: list[Keys],
    *,
    inputs: Callable[[Keys], str] = lambda _: "",
    name: str = PARTITION_FILE,
) -> Folded:
    """Write each partition of the sorted batches; of the existing ones, take away those that came out empty."""
    folded = Folded(table.name, Days(date.min, date.min))
    staged, written = [], []
    for keys, rows in split_partitions(table, batches):
        staged.append(engine.lake.stage(table, rows, keys, name, inputs(keys)))
        written.append(keys)
        folded.rows += rows.num_rows
    folded.partitions = len(staged)
    folded.changed = engine.lake.commit(staged)
    for keys in existing:
        if keys not in written:
            folded.changed += engine.lake.remove(engine.lake.folder(table, keys) / name)
    return folded


def _finished(folded: Folded, days: Days, started: float) -> Folded:
    folded.days = days
    folded.seconds = perf_counter() - started
    return folded
