"""One function per table, each taking any range of days in one pass: what the assets and `fairboard materialize` both call.

A fold reads a snapshot of what lies upstream, computes the range's partitions and replaces them in one commit; one that came
out empty is a file without rows.
What does not belong here: Dagster, Redis, the SQL database.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from time import perf_counter
from types import MappingProxyType
from typing import TypeVar

import pyarrow as pa

from warehouse.basis import FOREVER, Bases
from warehouse.calendar import ONE_DAY, Days, Window
from warehouse.compaction import count_landed, settle
from warehouse.damage import damaged, set_aside
from warehouse.engine import Engine, model
from warehouse.fairness.judgements import judgements
from warehouse.fairness.rules import BASELINE_DAYS
from warehouse.lake import DATA, DamagedFile, LakeFile, split_partitions
from warehouse.lake.names import folder_of
from warehouse.lake.snapshots import Place, place_of
from warehouse.spans import History, bind_boards, bind_spans, days_of
from warehouse.tables import (
    ACTIVITY_DAYS,
    DAILY_METRICS,
    EVENTS,
    FAIRNESS,
    LEADERBOARD_REVISIONS,
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
CONFLICTS = "conflicts"  # the label of their file in `rejects`
Done = TypeVar("Done")

log = logging.getLogger(__name__)


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
    landed = lake.partitions(EVENTS, days)
    done = settle(engine.duckdb, landed, today=today)
    found = count_landed(engine.duckdb, days)
    letters = [file for keys in lake.partitions(REJECTS, days) for file in lake.of(REJECTS, keys)]
    before = [file for file in letters if file.label == CONFLICTS]
    if found.conflicts or before:
        engine.bind(EVENTS, days)
        _write(engine, REJECTS, engine.run("conflicts"), before, label=CONFLICTS)
    details = {
        "landed": found.landed,
        "events": found.events,
        "duplicates": found.landed - found.events - found.conflicts,
        "conflicts": found.conflicts,
        "rejected": sum(file.rows for file in letters if file.label != CONFLICTS),
        "set_aside": done.set_aside,
    }
    return Folded("events", days, found.events, len(landed), done.merged, perf_counter() - started, details)


def player_days(engine: Engine, days: Days) -> Folded:
    """One row per player and day."""
    return _fold_events(engine, PLAYER_DAYS, days)


def player_months(engine: Engine, days: Days) -> Folded:
    """One row per player and month, of the range's months and of the one before them, which the range may have closed.

    The newest month that has events is not rolled up: it would be written again every day, and nothing reads it whole.
    A month whose days are as they were when it was folded is left alone.
    """
    started = perf_counter()
    bases = Bases(engine)
    before = bases.history.within(Days(date.min, days.first.replace(day=1) - ONE_DAY))
    reach = Days((before or [days.first])[-1].replace(day=1), Days.month_of(days.last).last)
    months = bases.of(PLAYER_MONTHS, reach)
    due = {place: basis for place, basis in months.items() if not _is_done(engine, PLAYER_MONTHS, place, basis, sound=True)}
    engine.bind(PLAYER_DAYS, {day for day in bases.history.within(reach) if (day.replace(day=1),) in due})
    folded = _replace(engine, PLAYER_MONTHS, engine.run("player_months"), due, _gone(engine, bases, PLAYER_MONTHS, reach))
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
    """A table of each day's events alone."""
    started = perf_counter()
    bases = Bases(engine)
    due = bases.of(table, days)
    active = _days(due)
    engine.bind(EVENTS, active)
    if "zone_days" in model(table.name).upstream:
        engine.bind_zone_days(active)
    batches = engine.run(table.name, first_day=days.first, last_day=days.last)
    folded = _replace(engine, table, batches, due, _gone(engine, bases, table, days))
    return _finished(folded, days, started)


def progression(engine: Engine, days: Days) -> Folded:
    """How far every player is at the end of each day of the range, and of the later days that stood on something else."""
    started = perf_counter()
    bases = Bases(engine)
    days, due = _with_later(engine, PROGRESSION, days, bases.of(PROGRESSION, days))
    engine.bind_levels()
    history = bases.history
    bind_spans(engine, history.spans(Days(date.min, days.first - ONE_DAY)), history.within(days))
    batches = engine.run("progression", first_day=days.first, last_day=days.last)
    folded = _replace(engine, PROGRESSION, batches, due, _gone(engine, bases, PROGRESSION, days))
    return _finished(folded, days, started)


def leaderboards(engine: Engine, days: Days) -> Folded:
    """Every board that stands on a day of the range, over the days that the lake holds of it.

    The daily board of the day after is one: its `previous_rank` looks back. Whom a verdict excludes is on none.
    """
    started = perf_counter()
    bases = Bases(engine)
    due = bases.boards(days)
    engine.bind_exclusions()  # a verdict since then makes the boards' basis old, never their content
    bind_boards(engine, bases.history, due)
    places = {tuple(window.partition.values()): basis for window, basis in due.items()}
    folded = _replace(engine, LEADERBOARDS, engine.run("leaderboards"), places, _gone(engine, bases, LEADERBOARDS, FOREVER))
    return _finished(folded, days, started)


def fairness(engine: Engine, days: Days) -> Folded:
    """Each rule's judgement of each player and day of the range, against the 28 days before.

    And of the 28 days after, as far as they stood on something else: the range is in their baselines.
    """
    started = perf_counter()
    bases = Bases(engine)
    days, due = _with_later(engine, FAIRNESS, days, bases.of(FAIRNESS, days))
    batches = (batch for part in parts(engine, days) for batch in judgements(engine, part).to_batches())
    folded = _replace(engine, FAIRNESS, batches, due, _gone(engine, bases, FAIRNESS, days))
    return _finished(folded, days, started)


def daily_metrics(engine: Engine, days: Days) -> Folded:
    """How the game did on each day of the range, and on the later ones that stood on something else."""
    started = perf_counter()
    bases = Bases(engine)
    days, due = _with_later(engine, DAILY_METRICS, days, bases.of(DAILY_METRICS, days))
    month_start = days.first - timedelta(days=MONTH_DAYS - 1)
    history = History(engine, until=days.last)
    bind_spans(engine, history.spans(Days(date.min, days.last)), history.within(Days(month_start, days.last)))
    engine.bind(PROGRESSION, days)
    engine.bind(ACTIVITY_DAYS, days)
    engine.bind_levels()
    batches = engine.run("daily_metrics", first_day=days.first, last_day=days.last, month_start=month_start)
    folded = _replace(engine, DAILY_METRICS, batches, due, _gone(engine, bases, DAILY_METRICS, days))
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
    """Compute one table over the range, from one snapshot of each table upstream, in one commit.

    Two processes at it take turns, so that the later one has read the newer inputs.

    Raises:
        DamagedFile: what cannot be computed again is damaged; nothing was written.
    """

    def run() -> Folded:
        with engine.lake.lock(table):
            engine.lake.refresh()
            if table != EVENTS.name:  # sealers stage beside that one
                engine.lake.sweep(table)
            engine.watch.begin(table, _partitions(engine, table, days))
            return FOLDS[table](engine, days)

    return mending(engine, run)


def mending(engine: Engine, run: Callable[[], Done]) -> Done:
    """Do something that reads the lake, each file checked. A damaged one is dealt with, and it is done anew.

    Of events it is set aside, of another table that is folded its partition is computed again.

    Raises:
        DamagedFile: that does not help.
    """
    engine.lake.checks = True
    mended: set[str] = set()
    while True:
        try:
            return run()
        except DamagedFile as error:
            if error.file.name in mended:
                raise
            mended.add(error.file.name)
            mend(engine, error.file, error.what)


def has_landed(table: Table, file: LakeFile) -> bool:
    """Whether a file holds what came in, and was not computed."""
    return table is EVENTS or (table is REJECTS and file.label != CONFLICTS)


def mend(engine: Engine, file: LakeFile, what: str) -> None:
    """Set a damaged file aside where it holds what landed; where it was computed, compute it again.

    Raises:
        DamagedFile: it cannot be computed again; nothing was changed.
    """
    lake = engine.lake
    table, keys = lake.place(file)
    if lake.storage.heal(file):
        log.warning("%s %s; this machine's copy was put in its place", lake.storage.shown(file.name), what)
        return
    if table is LEADERBOARD_REVISIONS:
        raise DamagedFile(file, what)
    if has_landed(table, file):
        with lake.lock(table.name):
            lake.refresh()
            if file in lake.of(table, keys):  # else another run has done it
                set_aside(lake, table, file, what)
    else:
        log.warning("%s %s; it is computed again", lake.storage.shown(file.name), what)
        day = keys[table.date_column]
        assert isinstance(day, date)
        fold(engine, table.name if table.name in FOLDS else EVENTS.name, Days(day, day))


def _partitions(engine: Engine, table: str, days: Days) -> int:
    """How many partitions a fold will write, about: for those who watch."""
    if table == LEADERBOARDS.name:
        return len(windows_of(engine, days))
    active = days_of(engine, EVENTS, days)
    return len({day.replace(day=1) for day in active}) if table == PLAYER_MONTHS.name else len(active)


def stale_days(engine: Engine) -> list[date]:
    """The days whose `player_days` are behind, late arrivals included."""
    return [one.day for one in Bases(engine).behind(PLAYER_DAYS)]


def windows_of(engine: Engine, days: Days) -> set[Window]:
    """The windows that `leaderboards` computes of a range."""
    return set(Bases(engine).boards(days))


def fairness_days(engine: Engine, days: Days) -> Days:
    """The days whose scores depend on the range: its own, and those that have it in their baseline."""
    later = Days(days.last, days.last + timedelta(days=BASELINE_DAYS))
    return Days(days.first, max([days.last, *days_of(engine, PLAYER_DAYS, later)]))


def parts(engine: Engine, days: Days) -> Iterator[Days]:
    """The folded days of the range, in ranges of as many as can be scored at once."""
    part: list[date] = []
    rows = 0
    for day in days_of(engine, PLAYER_DAYS, days):
        of_day = sum(file.rows for file in engine.lake.of(PLAYER_DAYS, {"event_date": day}))
        if part and rows + of_day > SCORED_ROWS:
            yield Days(part[0], part[-1])
            part, rows = [], 0
        part.append(day)
        rows += of_day
    if part:
        yield Days(part[0], part[-1])


def _with_later(engine: Engine, table: Table, days: Days, due: Mapping[Place, str]) -> tuple[Days, dict[Place, str]]:
    """The range, stretched to the last day that depends on it and is behind; and what is due of the stretched range."""
    moved = [day for day in _days(due) if day > days.last and not _is_done(engine, table, (day,), due[day,])]
    days = Days(days.first, max([days.last, *moved]))
    return days, {place: basis for place, basis in due.items() if place[-1] in days}


def _days(due: Mapping[Place, str]) -> set[date]:
    return {day for place in due if isinstance(day := place[-1], date)}


def _is_done(engine: Engine, table: Table, place: Place, basis: str, *, sound: bool = False) -> bool:
    """Whether a partition was computed from that; with `sound`, and its file is as it was written."""
    files = engine.lake.snapshot(table).files.get(place, [])
    return [file.basis for file in files] == [basis] and not (sound and damaged(engine.lake, files))


def _gone(engine: Engine, bases: Bases, table: Table, days: Days) -> list[LakeFile]:
    """The files of partitions of the range that nothing stands for any more."""
    expected = bases.of(table, days)
    snapshot = engine.lake.snapshot(table)
    return [file for place, files in snapshot.files.items() if place[-1] in days and place not in expected for file in files]


def _replace(
    engine: Engine, table: Table, batches: Iterable[pa.RecordBatch], due: Mapping[Place, str], gone: Sequence[LakeFile]
) -> Folded:
    """Make the sorted batches what is due, in one commit; what came out empty is a file without rows."""
    before = [file for place in due for file in engine.lake.snapshot(table).files.get(place, [])]
    return _write(engine, table, batches, [*before, *gone], due)


def _write(
    engine: Engine,
    table: Table,
    batches: Iterable[pa.RecordBatch],
    before: Sequence[LakeFile],
    due: Mapping[Place, str] = MappingProxyType({}),
    label: str = DATA,
) -> Folded:
    """Write each partition of the sorted batches, and those due that are not among them; take what was `before` out."""
    lake, folded, staged, missing = engine.lake, Folded(table.name, Days(date.min, date.min)), [], dict(due)
    try:
        for keys, rows in split_partitions(table, batches):
            staged.append(lake.stage(table, rows, keys, label, missing.pop(place_of(table, keys), "")))
            folded.rows += rows.num_rows
            engine.watch.reach(len(staged))
        folded.partitions = len(staged)
        for place, basis in missing.items():
            nothing = table.file_schema.empty_table()
            staged.append(lake.stage(table, nothing, dict(zip(table.partition, place, strict=True)), label, basis))
    except BaseException:
        for one in staged:
            one.drop()
        raise
    was = {(file.folder, file.sha256) for file in before if file.rows}
    now = {(folder_of(one.name), one.sha256) for one in staged if one.rows}
    folded.changed = len({folder for folder, _ in was ^ now})
    lake.commit(table, staged, before)
    return folded


def _finished(folded: Folded, days: Days, started: float) -> Folded:
    folded.days = days
    folded.seconds = perf_counter() - started
    return folded
