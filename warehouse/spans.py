"""Which rows stand for which days: whole months from `player_months` where they can, days from `player_days` elsewhere.

A month stands for its days only where it was folded from exactly the days that the lake holds: it can make a reading faster and
never wrong, whatever was run before what. What does not belong here: the models, and when a month is folded (`folds.py`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator
from datetime import date
from hashlib import sha256
from typing import Any

import pyarrow as pa

from warehouse.calendar import ONE_DAY, Days, Window, WindowKind
from warehouse.engine import Engine
from warehouse.tables import PLAYER_DAYS, PLAYER_MONTHS, Table
from warehouse.versions import code_of, digest_of

_WINDOW_COLUMNS: dict[str, pa.DataType] = {
    "board": pa.int64(),
    "window_kind": pa.string(),
    "season": pa.string(),
    "window_start": pa.date32(),
    "as_of": pa.date32(),
    "span_first": pa.date32(),
    "span_last": pa.date32(),
    "counts": pa.bool_(),
    "counted_before": pa.bool_(),
    "verdicts_from": pa.date32(),
    "verdicts_until": pa.date32(),
}
WINDOW_SPANS = pa.schema(_WINDOW_COLUMNS)


class History:
    """The days that have been folded, and the months that can stand for theirs, up to the day `until`.

    Taken from the names of files, some 10 µs a day; no data is read.
    """

    def __init__(self, engine: Engine, until: date = date.max) -> None:
        lake, days = engine.lake, days_of(engine, PLAYER_DAYS, Days(date.min, until))
        self.fingerprints = {day: lake.fingerprint(PLAYER_DAYS, {"event_date": day}) for day in days}
        self.days = list(self.fingerprints)
        self.months = [
            month
            for month in map(Days.month_of, days_of(engine, PLAYER_MONTHS))
            if month.last <= until and lake.basis(PLAYER_MONTHS, {"month_start": month.first}) == self.month_basis(month)
        ]

    def month_basis(self, month: Days) -> str:
        """What a month of `player_months` is computed from (see `basis.py`)."""
        return code_of(PLAYER_MONTHS) + digest_of(None) + self.digest(month)

    def within(self, days: Days) -> list[date]:
        """The days of a range."""
        return self.days[bisect_left(self.days, days.first) : bisect_right(self.days, days.last)]

    def digest(self, days: Days) -> str:
        """A fingerprint of all that a range holds."""
        return next(reversed(self.digests(days).values()), "")

    def digests(self, days: Days) -> dict[date, str]:
        """For each day of a range, a fingerprint of what the range holds up to it."""
        running, digests = sha256(), {}
        for day in self.within(days):
            running.update(f"{day} {self.fingerprints[day]}\n".encode())
            digests[day] = running.hexdigest()[:32]
        return digests

    def spans(self, days: Days) -> list[Days]:
        """What adds up to a range: its whole months, then the days that are in none of them."""
        months = [month for month in self.months if days.first <= month.first and month.last <= days.last]
        covered = {month.first for month in months}
        return months + [Days(day, day) for day in self.within(days) if day.replace(day=1) not in covered]


def days_of(engine: Engine, table: Table, days: Container[date] | None = None) -> list[date]:
    """The days that a table has partitions of; of `player_months` the first days of its months."""
    return [day for keys in engine.lake.partitions(table, days) if isinstance(day := keys[table.date_column], date)]


def bind_spans(engine: Engine, spans: Iterable[Days], days: Iterable[date] = ()) -> None:
    """Make the spans the relation `player_spans`, and their days, with `days` beside them, `player_days`."""
    months = {span.first for span in spans if len(span) > 1}
    engine.bind(PLAYER_MONTHS, months)
    engine.bind(PLAYER_DAYS, {span.first for span in spans if len(span) == 1}.union(days))
    engine.bind_model("player_spans")


def bind_boards(engine: Engine, history: History, windows: Iterable[Window]) -> None:
    """Bind what `leaderboards` reads for the windows that have a day in the history: `player_spans` and `window_spans`."""
    rows = window_spans(history, windows)
    spans = {Days(*span) for span in zip(*(rows[name].to_pylist() for name in ("span_first", "span_last")), strict=True)}
    bind_spans(engine, spans)
    engine.bind_rows("window_spans", rows)


def window_spans(history: History, windows: Iterable[Window]) -> pa.Table:
    """Which spans count into which window (schema `WINDOW_SPANS`); `board` numbers the windows.

    `as_of` is a window's last day in the history. A span counts into the board as it stood before when it came before that day;
    of a daily board, when it is the day before. Whom a verdict excludes from a day between `verdicts_from` and `verdicts_until`
    (exclusive) does not count: it is the window, of a daily board the day.
    """
    rows: list[tuple[Any, ...]] = []
    for board, window in enumerate(sorted(windows)):
        if inside := history.within(Days(window.start, window.end - ONE_DAY)):
            as_of = inside[-1]
            rows += [
                (board, str(window.kind), window.season, window.start, as_of, span.first, span.last, counts, before, *verdicts)
                for span, counts, before, verdicts in _counted(history, window, as_of)
            ]
    return pa.Table.from_pylist([dict(zip(WINDOW_SPANS.names, row, strict=True)) for row in rows], schema=WINDOW_SPANS)


def _counted(history: History, window: Window, as_of: date) -> Iterator[tuple[Days, bool, bool, tuple[date, date]]]:
    """A window's spans: each with whether it counts, whether it counted before `as_of`, and when a verdict would exclude."""
    whole = (window.start, window.end)
    yield Days(as_of, as_of), True, False, whole
    if window.kind is WindowKind.DAILY:
        before = history.within(Days.ending(as_of - ONE_DAY, 1))
        yield from ((Days(day, day), False, True, (day, window.start)) for day in before)
    elif window.start < as_of:
        yield from ((span, True, True, whole) for span in history.spans(Days(window.start, as_of - ONE_DAY)))
