"""What is behind, as people read it: ranges of days by table and reason, since when, and whether somebody should look.

What does not belong here: how a partition is known to be behind (`basis.py`), and when it is computed (`pipelines.schedules`).
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from warehouse.basis import Behind
from warehouse.calendar import Days
from warehouse.database import RECEIPTS
from warehouse.engine import Engine
from warehouse.settings import Settings
from warehouse.spans import days_of
from warehouse.tables import EVENTS, PLAYER_DAYS, PLAYER_MONTHS

SOON_S: Final = 900  # three ticks of the schedule: what came to the running day since then is as it should be


@dataclass(frozen=True, slots=True)
class Stale:
    """So many partitions of a table that are behind for one reason, and the days whose computing computes them.

    `since_ms` is of the one that is behind for the longest (ms since the epoch).
    """

    table: str
    first: date
    last: date
    partitions: int
    why: str
    since_ms: int


def ranges(engine: Engine, behind: Iterable[Behind]) -> list[Stale]:
    """What is behind in as few lines as say it, in the order of computing. Days without events part no range."""
    behind = list(behind)
    days = sorted({*days_of(engine, EVENTS), *days_of(engine, PLAYER_DAYS), *(one.day for one in behind)})
    groups: dict[tuple[str, str], list[Behind]] = {}
    for one in behind:
        groups.setdefault((one.table, one.why), []).append(one)
    found = []
    for group in groups.values():
        group.sort(key=lambda one: one.day)
        start = 0
        for n in range(1, len(group) + 1):
            if n == len(group) or _place(days, group[n]) - _place(days, group[n - 1]) > 1:
                found.append(_summed(group[start:n]))
                start = n
    return found


def _place(days: Sequence[date], one: Behind) -> int:
    """Where it stands among the partitions of its table."""
    if one.table == PLAYER_MONTHS.name:
        return one.day.year * 12 + one.day.month
    return bisect_left(days, one.day)


def _summed(group: Sequence[Behind]) -> Stale:
    table, why, since_ms = group[0].table, group[0].why, min(one.since_ms for one in group)
    return Stale(table, group[0].day, group[-1].day, len(group), why, since_ms)


def overdue(engine: Engine, behind: Iterable[Behind]) -> list[Behind]:
    """What somebody should look at: all but what has just come to the running day."""
    now = time.time()
    today = engine.calendar.day_of(int(now))
    return [one for one in behind if one.day < today or one.since_ms < (now - SOON_S) * 1000]


def span(behind: Iterable[Behind]) -> Days | None:
    """The days from the first to the last that is behind."""
    days = sorted({one.day for one in behind})
    return Days(days[0], days[-1]) if days else None


def out_of_reach(settings: Settings, behind: Iterable[Behind]) -> Days | None:
    """The days that no run of Dagster computes: it has partitions from FIRST_DAY on."""
    return span(one for one in behind if one.day < settings.first_day)


def todo(behind: Iterable[Behind]) -> str:
    """The command that does what is to be done, for a shell."""
    behind = list(behind)
    computed = span(one for one in behind if one.table != RECEIPTS.name)
    published = any(one.table == RECEIPTS.name for one in behind)
    return " && ".join([*([materialize(computed)] if computed else []), *(["fairboard publish"] if published else [])])


def materialize(days: Days) -> str:
    """The command that computes a range."""
    return f"fairboard materialize --from {days.first} --to {days.last}"
