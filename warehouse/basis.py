"""What a partition was computed from, and what is behind: one question for every table, answered from names alone.

A basis is 48 hex digits: 8 for the code (`versions.py`), 8 for what stands beside the data (level curve, rules, calendar,
verdicts), 32 for the data upstream. What does not belong here: how a table is computed (`folds.py`), and when
(`pipelines.schedules`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Final

import sqlalchemy as sa

from warehouse import small_tables
from warehouse.calendar import ONE_DAY, Days, Window, WindowKind
from warehouse.database import RECEIPTS, REWARDS_GRANTED, reading
from warehouse.engine import Engine, model, zone_days
from warehouse.fairness.rules import BASELINE_DAYS
from warehouse.lake import Keys
from warehouse.lake.snapshots import Place
from warehouse.spans import History, days_of
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
    TABLES,
    Table,
)
from warehouse.verdicts import exclusions
from warehouse.versions import code_of, digest, digest_of, rewards_version

FOREVER: Final = Days(date.min, date.max)
CODE, BESIDE, DATA_UPSTREAM = slice(8), slice(8, 16), slice(16, None)  # the parts of a basis


@dataclass(frozen=True, slots=True)
class Behind:
    """A partition that is not what would be computed now: why, and since when its inputs are there (ms since the epoch).

    `day` is a day whose computing computes it; of a month or board its last one with events.
    """

    table: str
    keys: Keys
    day: date
    why: str
    since_ms: int


class Bases:
    """The basis that each partition would have if it were computed now, from the snapshots of one engine.

    `of_…` give, by partition, those that there should be and that depend on a day of the range.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fingerprints: dict[str, dict[date, str]] = {}

    @cached_property
    def history(self) -> History:
        """The days that have been folded."""
        return History(self._engine)

    def of(self, table: Table, days: Days = FOREVER) -> dict[Place, str]:
        """The bases of a table's partitions."""
        return _EXPECTED[table.name](self, table, days)

    def behind(self, table: Table) -> list[Behind]:
        """The partitions that are missing, computed from something else, or without anything that they stand on; sorted."""
        lake, expected = self._engine.lake, self.of(table)
        found = []
        for place in sorted({*expected, *lake.snapshot(table).files}, key=lambda place: [str(value) for value in place]):
            keys = dict(zip(table.partition, place, strict=True))
            has, want = lake.basis(table, keys), expected.get(place)
            if has != want:
                day = self._day_of(table, place)
                computed = max((file.modified_ms for file in lake.of(table, keys)), default=0)
                found.append(Behind(table.name, keys, day, _why(has, want), self._since(day, computed)))
        return found

    def _day_of(self, table: Table, place: Place) -> date:
        day = place[-1]
        assert isinstance(day, date)
        if table is LEADERBOARDS:
            inside = [on for window, (on, _) in self._boards.items() if tuple(window.partition.values()) == place]
            return self.history.within(inside[0])[-1] if inside else day
        if table is PLAYER_MONTHS:
            return (self.history.within(Days.month_of(day)) or [day])[-1]
        return day

    def of_events(self, table: Table, days: Days) -> dict[Place, str]:
        """A table of each day's events alone."""
        engine, code = self._engine, code_of(table)
        has_clock = "zone_days" in model(table.name).upstream
        return {
            (day,): code + digest_of(zone_days(engine.calendar, [day]) if has_clock else None) + content
            for day, content in self._contents(EVENTS).items()
            if day in days
        }

    def of_months(self, _table: Table, days: Days) -> dict[Place, str]:
        """Every month but the newest one that has events."""
        newest = {day.replace(day=1) for day in self.history.days[-1:]}
        months = map(Days.month_of, sorted({day.replace(day=1) for day in self.history.days} - newest))
        return {
            (month.first,): self.history.month_basis(month)
            for month in months
            if month.first <= days.last and days.first <= month.last
        }

    def of_progression(self, table: Table, days: Days) -> dict[Place, str]:
        """Every day, on all days up to it, and the level curve."""
        fixed = code_of(table) + digest_of(small_tables.levels(self._engine.settings.levels_file))
        return {(day,): fixed + content for day, content in self._digests.items() if day >= days.first}

    def of_boards(self, _table: Table, days: Days) -> dict[Place, str]:
        """Every window that has a day with events: see `boards`."""
        return {tuple(window.partition.values()): basis for window, basis in self.boards(days).items()}

    def boards(self, days: Days = FOREVER) -> dict[Window, str]:
        """By window, on its days (of a daily board the day before, too), its end, and the verdicts that exclude from it."""
        boards = self._boards.items()
        return {window: basis for window, (on, basis) in boards if on.first <= days.last and days.first <= on.last}

    @cached_property
    def _boards(self) -> dict[Window, tuple[Days, str]]:
        calendar, code = self._engine.calendar, code_of(LEADERBOARDS)
        verdicts = sorted(exclusions(self._engine.settings).to_pylist(), key=repr)
        found = {}
        for window in sorted({window for day in self.history.days for window in calendar.windows_of(day)}):
            on = Days(window.start - ONE_DAY if window.kind is WindowKind.DAILY else window.start, window.end - ONE_DAY)
            excluded = [v for v in verdicts if v["excluded_from"] < window.end and on.first < v["excluded_until"]]
            found[window] = on, code + digest(repr([window.end, *excluded]))[:8] + self.history.digest(on)
        return found

    def of_fairness(self, table: Table, days: Days) -> dict[Place, str]:
        """Every day, on itself and the 28 before, of each table that the rules read, and its events."""
        fixed = code_of(table) + digest_of(small_tables.fairness_rules(self._engine.settings.rules_file))
        reach = days if days.last == date.max else Days(days.first, days.last + timedelta(days=BASELINE_DAYS))
        tables = [self._contents(upstream) for upstream in (PLAYER_DAYS, PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS)]
        found: dict[Place, str] = {}
        for day in self.history.within(reach):
            before = self.history.within(Days.ending(day, BASELINE_DAYS + 1))
            upstream = [[of_table.get(other, "") for of_table in tables] for other in before]
            found[day,] = fixed + digest(repr([before, upstream, self._contents(EVENTS).get(day)]))
        return found

    def of_metrics(self, table: Table, days: Days) -> dict[Place, str]:
        """Every day, on all days up to it, the level curve, and its rows of `progression` and `activity_days`."""
        fixed = code_of(table) + digest_of(small_tables.levels(self._engine.settings.levels_file))
        upstream = [self._contents(PROGRESSION), self._contents(ACTIVITY_DAYS)]
        return {
            (day,): fixed + digest(repr([content, *(of_table.get(day) for of_table in upstream)]))
            for day, content in self._digests.items()
            if day >= days.first
        }

    @cached_property
    def _digests(self) -> dict[date, str]:
        return self.history.digests(FOREVER)

    def _contents(self, table: Table) -> dict[date, str]:
        """The fingerprint of each day of a table."""
        if table.name not in self._fingerprints:
            lake = self._engine.lake
            days = days_of(self._engine, table)
            self._fingerprints[table.name] = {day: lake.fingerprint(table, {"event_date": day}) for day in days}
        return self._fingerprints[table.name]

    def _since(self, day: date, computed_ms: int) -> int:
        """When the first came that was computed into nothing yet; where none came (another model, say), when the last did."""
        lake = self._engine.lake
        written = [file.modified_ms for table in (EVENTS, PLAYER_DAYS) for file in lake.of(table, {"event_date": day})]
        return min((ms for ms in written if ms > computed_ms), default=max(written, default=0))


_EXPECTED: Final[dict[str, Callable[[Bases, Table, Days], dict[Place, str]]]] = {
    **{table.name: Bases.of_events for table in (PLAYER_DAYS, PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS, ACTIVITY_DAYS)},
    PLAYER_MONTHS.name: Bases.of_months,
    PROGRESSION.name: Bases.of_progression,
    LEADERBOARDS.name: Bases.of_boards,
    FAIRNESS.name: Bases.of_fairness,
    DAILY_METRICS.name: Bases.of_metrics,
}


def behind(engine: Engine) -> list[Behind]:
    """Every partition of every derived table that is not what would be computed now, in the order of computing.

    And the receipts, of which there is one partition: they follow the rewards.
    """
    bases = Bases(engine)
    return [*(one for name in _EXPECTED for one in bases.behind(TABLES[name])), *_receipts_behind(engine)]


def _receipts_behind(engine: Engine) -> list[Behind]:
    """Whether levels were passed that the rewards of now have not paid."""
    with reading(engine.settings) as connection:
        granted = connection.scalar(sa.select(REWARDS_GRANTED.c.rewards)) if connection else None
    days = days_of(engine, PROGRESSION)
    if not days or granted in (None, rewards_version(engine.settings)):
        return []
    changed = engine.settings.rewards_file.stat().st_mtime_ns // 1_000_000
    return [Behind(RECEIPTS.name, {}, days[-1], "the rewards changed", changed)]


def _why(has: str | None, want: str | None) -> str:
    if want is None:
        return "what it stood on is gone"
    if has is None:
        return "never computed"
    if len(has) != len(want):
        return "computed by an older version"
    changed = [
        text
        for text, part in (
            ("the model or schema changed", CODE),
            ("the curve, rules, calendar or verdicts changed", BESIDE),
            ("its inputs changed", DATA_UPSTREAM),
        )
        if has[part] != want[part]
    ]
    return " and ".join(changed)
