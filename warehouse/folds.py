"""One function per table, each taking any range of days in one pass: what the assets and `fairboard materialize` both call.

A fold reads what lies upstream, computes the range's partitions and replaces those that changed; those that came out empty go.
What does not belong here: Dagster, Redis, the SQL database.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from time import perf_counter
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from warehouse.calendar import ONE_DAY, Days, Window, WindowKind
from warehouse.compaction import count_landed, settle
from warehouse.damage import examine, set_aside
from warehouse.engine import Engine, model
from warehouse.fairness.judgements import judgements
from warehouse.fairness.rules import BASELINE_DAYS
from warehouse.lake import PARTITION_FILE, Keys, split_partitions
from warehouse.spans import History, bind_boards, bind_spans, days_of
from warehouse.tables import (
    ACTIVITY_DAYS,
    DAILY_METRICS,
    EVENTS,
    FAIRNESS,
    LEADERBOARDS,
    PLAYER_BOSS_DAYS,
    PLAYER_DAYS,
    PLAYER_ITEM_DAYS,
    PLAYER_MONTHS,
    PROGRESSION,
    REJECTS,
    Table,
)

MONTH_DAYS = 30  # of MAU; also how far the model of daily_metrics follows a cohort
SCORED_ROWS = 500_000  # player-days that are scored at once; with their rows per rule some 0.7 GB
CONFLICTS_FILE = "conflicts.parquet"


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
    """The landed events: their files are brought in order (`compaction`), counted, and the ids in conflict go to `rejects`.

    `details` holds landed (copies dropped since included), events, duplicates, conflicts, rejected (refused at the door on
    those days), and set_aside: damaged files that were found now.
    """
    started = perf_counter()
    lake, today = engine.lake, engine.calendar.day_of(int(time.time()))
    done = []
    for keys in lake.partitions(EVENTS, days):
        done.append(settle(engine.duckdb, keys, closed=_day(keys) < today))
        engine.watch.reach(len(done))
    found = count_landed(engine.duckdb, days)
    rejects = lake.partitions(REJECTS, days)
    if found.conflicts or any((lake.folder(REJECTS, keys) / CONFLICTS_FILE).exists() for keys in rejects):
        engine.bind(EVENTS, days)
        _replace(engine, REJECTS, engine.run("conflicts"), rejects, name=CONFLICTS_FILE)
    refused = sum(
        record.rows
        for keys in lake.partitions(REJECTS, days)
        for name, record in lake.records(REJECTS, keys).items()
        if name != CONFLICTS_FILE
    )
    details = {
        "landed": found.landed,
        "events": found.events,
        "duplicates": found.landed - found.events - found.conflicts,
        "conflicts": found.conflicts,
        "rejected": refused,
        "set_aside": sum(one.set_aside for one in done),
    }
    merged = sum(one.merged for one in done)
    return Folded("events", days, found.events, len(done), merged, perf_counter() - started, details)


def player_days(engine: Engine, days: Days) -> Folded:
    """One row per player and day. Damaged files are set aside first; what was read is recorded per day, for `stale_days`."""
    for keys in engine.lake.partitions(EVENTS, days):
        for damage in examine(engine.lake, EVENTS, keys).damages:
            set_aside(engine.lake, damage)
    return _fold_events(engine, PLAYER_DAYS, days)


def player_months(engine: Engine, days: Days) -> Folded:
    """One row per player and month, of the range's months and of the one before them, which the range may have closed.

    The newest month that has events is not rolled up: it would be written again every day, and nothing reads it whole.
    A month whose days are as they were when it was folded is left alone.
    """
    started = perf_counter()
    history = History(engine)
    before = history.within(Days(date.min, days.first.replace(day=1) - ONE_DAY))
    reach = Days((before or [days.first])[-1].replace(day=1), Days.month_of(days.last).last)
    inside = history.within(reach)
    closed = {day.replace(day=1) for day in inside} - {day.replace(day=1) for day in history.days[-1:]}
    kept = closed & {month.first for month in history.months}
    engine.bind(PLAYER_DAYS, {day for day in inside if day.replace(day=1) in closed - kept})
    batches = engine.run("player_months")
    existing = [keys for keys in engine.lake.partitions(PLAYER_MONTHS, reach) if keys["month_start"] not in kept]
    inputs = {month: history.digest(Days.month_of(month)) for month in closed}
    folded = _replace(engine, PLAYER_MONTHS, batches, existing, inputs=inputs)
    return _finished(folded, days, started)


def activity_days(engine: Engine, days: Days) -> Folded:
    """What was played on each day, by activity, boss and item."""
    return _fold_events(engine, ACTIVITY_DAYS, days)


def player_boss_days(engine: Engine, days: Days) -> Folded:
    """One row per player, day and kind of fight."""
    return _fold_events(engine, PLAYER_BOSS_DAYS, days)


def player_item_days(engine: Engine, days: Days) -> Folded:
    """One row per player, day and item."""
    return _fold_events(engine, PLAYER_ITEM_DAYS, days)


def _fold_events(engine: Engine, table: Table, days: Days) -> Folded:
    """A table of each day's events alone; with each partition goes the fingerprint of what it was folded from.

    The others go after `player_days` (see `AFTER`), which makes the day stale if events land in between.
    """
    started = perf_counter()
    inputs = {_day(keys): engine.lake.fingerprint(EVENTS, keys) for keys in engine.lake.partitions(EVENTS, days)}
    engine.bind(EVENTS, inputs)  # a day that lands meanwhile is the next fold's
    if "zone_days" in model(table.name).upstream:
        engine.bind_zone_days(inputs)
    batches = engine.run(table.name, first_day=days.first, last_day=days.last)
    existing = engine.lake.partitions(table, days)
    folded = _replace(engine, table, batches, existing, inputs=inputs)
    return _finished(folded, days, started)


def progression(engine: Engine, days: Days) -> Folded:
    """How far every player is at the end of each day of the range, and of the later days that stood on something else.

    Each partition records a fingerprint of its day, for `behind_days`, and of all that it stands on: the days up to it and
    the level curve.
    """
    started = perf_counter()
    engine.bind_levels()
    history = History(engine)
    digests = history.digests(Days(date.min, date.max), engine.settings.levels_file.read_bytes())
    inputs = {day: f"{history.fingerprints[day]} {digest}" for day, digest in digests.items()}
    moved = [day for day in inputs if day > days.last and engine.lake.inputs(PROGRESSION, {"event_date": day}) != inputs[day]]
    days = Days(days.first, max([days.last, *moved]))
    bind_spans(engine, history.spans(Days(date.min, days.first - ONE_DAY)), history.within(days))
    batches = engine.run("progression", first_day=days.first, last_day=days.last)
    existing = engine.lake.partitions(PROGRESSION, days)
    folded = _replace(engine, PROGRESSION, batches, existing, inputs=inputs)
    return _finished(folded, days, started)


def leaderboards(engine: Engine, days: Days) -> Folded:
    """Every board whose window contains a day of the range, over the days that the lake holds of it.

    And the daily board of the day after, whose `previous_rank` looks back at the range. Whom a verdict excludes is on none.
    """
    started = perf_counter()
    days = _with_day_after(days)
    bind_boards(engine, History(engine), {window for day in days for window in engine.calendar.windows_of(day)})
    engine.bind_exclusions()
    folded = _replace(engine, LEADERBOARDS, engine.run("leaderboards"), boards_of(engine, days))
    return _finished(folded, days, started)


def fairness(engine: Engine, days: Days) -> Folded:
    """Each rule's judgement of each player and day of the range, against the 28 days before.

    And of the 28 days after, as far as there are any: the range is in their baselines.
    """
    started = perf_counter()
    days = fairness_days(engine, days)
    batches = (batch for part in parts(engine, days) for batch in judgements(engine, part).to_batches())
    folded = _replace(engine, FAIRNESS, batches, engine.lake.partitions(FAIRNESS, days))
    return _finished(folded, days, started)


def daily_metrics(engine: Engine, days: Days) -> Folded:
    """How the game did on each day of the range, and on every later one: levels and first days stand on all days before."""
    started = perf_counter()
    days = _with_later(engine, days, date.max)
    month_start = days.first - timedelta(days=MONTH_DAYS - 1)
    history = History(engine, until=days.last)
    bind_spans(engine, history.spans(Days(date.min, days.last)), history.within(Days(month_start, days.last)))
    engine.bind(PROGRESSION, days)
    engine.bind(ACTIVITY_DAYS, days)
    engine.bind_levels()
    batches = engine.run("daily_metrics", first_day=days.first, last_day=days.last, month_start=month_start)
    folded = _replace(engine, DAILY_METRICS, batches, engine.lake.partitions(DAILY_METRICS, days))
    return _finished(folded, days, started)


FOLDS: dict[str, Callable[[Engine, Days], Folded]] = {
    "events": events,
    "player_days": player_days,
    "player_boss_days": player_boss_days,
    "player_item_days": player_item_days,
    "player_months": player_months,
    "activity_days": activity_days,
    "progression": progression,
    "leaderboards": leaderboards,
    "fairness": fairness,
    "daily_metrics": daily_metrics,
}

# What a table's fold has to follow beside those whose rows it reads.
AFTER = {table.name: [PLAYER_DAYS.name] for table in (PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS, ACTIVITY_DAYS)}


def fold(engine: Engine, table: str, days: Days) -> Folded:
    """Compute one table over the range. Two processes at it take turns, so that the later one has read the newer inputs.

    Whoever reads `events` keeps its files from being merged meanwhile.
    """
    lake = engine.lake
    engine.watch.begin(table, _partitions(engine, table, days))
    if table == EVENTS.name:
        with lake.lock(table):
            return events(engine, days)
    with lake.lock(table), lake.lock(EVENTS.name, shared=True):
        lake.sweep(table)
        return FOLDS[table](engine, days)


def _partitions(engine: Engine, table: str, days: Days) -> int:
    """How many partitions a fold will write, about: for those who watch."""
    if table == LEADERBOARDS.name:
        return len(windows_of(engine, days))
    active = days_of(engine, EVENTS, days)
    return len({day.replace(day=1) for day in active}) if table == PLAYER_MONTHS.name else len(active)


def stale_days(engine: Engine) -> list[date]:
    """The days whose events changed since `player_days` last read them, late arrivals included."""
    lake = engine.lake
    days = sorted({*days_of(engine, EVENTS), *days_of(engine, PLAYER_DAYS)})
    keys: list[Keys] = [{"event_date": day} for day in days]
    return [day for day, key in zip(days, keys, strict=True) if lake.fingerprint(EVENTS, key) != lake.inputs(PLAYER_DAYS, key)]


def behind_days(engine: Engine) -> list[date]:
    """The days whose `player_days` changed since `progression` last stood on them: boards are refreshed more often."""
    fingerprints = History(engine).fingerprints
    days = sorted({*fingerprints, *days_of(engine, PROGRESSION)})
    return [
        day
        for day in days
        if engine.lake.inputs(PROGRESSION, {"event_date": day}).partition(" ")[0] != fingerprints.get(day, "")
    ]


def windows_of(engine: Engine, days: Days) -> set[Window]:
    """The windows that `leaderboards` computes of a range: those that contain a day of it, and have an active day."""
    days, active = _with_day_after(days), days_of(engine, PLAYER_DAYS)
    windows = {window for day in active for window in engine.calendar.windows_of(day)}
    return {window for window in windows if _overlaps(window.start, window.end, days)}


def _with_day_after(days: Days) -> Days:
    return Days(days.first, days.last + ONE_DAY)


def fairness_days(engine: Engine, days: Days) -> Days:
    """The days whose scores depend on the range: its own, and those that have it in their baseline."""
    return _with_later(engine, days, days.last + timedelta(days=BASELINE_DAYS))


def parts(engine: Engine, days: Days) -> Iterator[Days]:
    """The folded days of the range, in ranges of as many as can be scored at once."""
    part: list[date] = []
    rows = 0
    for day in days_of(engine, PLAYER_DAYS, days):
        records = engine.lake.records(PLAYER_DAYS, {"event_date": day})
        of_day = sum(record.rows for record in records.values())
        if part and rows + of_day > SCORED_ROWS:
            yield Days(part[0], part[-1])
            part, rows = [], 0
        part.append(day)
        rows += of_day
    if part:
        yield Days(part[0], part[-1])


def _with_later(engine: Engine, days: Days, bound: date) -> Days:
    """The range, stretched to the last day up to `bound` that the lake holds."""
    return Days(days.first, max([days.last, *days_of(engine, PLAYER_DAYS, Days(days.last, bound))]))


def _day(keys: Keys) -> date:
    day = keys["event_date"]
    assert isinstance(day, date)
    return day


def boards_of(engine: Engine, days: Days) -> list[Keys]:
    """The boards of the lake whose window contains a day of the range."""
    return [keys for keys in engine.lake.partitions(LEADERBOARDS) if _touches(engine, keys, days)]


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
    inputs: Mapping[Any, str] = MappingProxyType({}),
    name: str = PARTITION_FILE,
) -> Folded:
    """Write each partition of the sorted batches; of the existing ones, take away those that came out empty.

    `inputs` has, by the partition's date, the fingerprint of what it was computed from.
    """
    folded = Folded(table.name, Days(date.min, date.min))
    staged, written = [], []
    for keys, rows in split_partitions(table, batches):
        staged.append(engine.lake.stage(table, rows, keys, name, inputs.get(keys[table.date_column], "")))
        written.append(keys)
        folded.rows += rows.num_rows
        engine.watch.reach(len(staged))
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
