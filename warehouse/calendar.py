"""The one module that knows which day, season and window a time is in.

SQL (through `window_days`), Redis keys, the API and the dashboard all ask it. A week starts on Monday (ISO 8601) and is cut
at a season's edge, so that a running season always has its running boards.
"""

import csv
import re
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from warehouse.errors import FairboardError, SettingsError
from warehouse.settings import Settings

ONE_DAY = timedelta(days=1)
ALL_TIME_START = date(1970, 1, 1)
ALL_TIME_END = date(9999, 12, 31)
_SEASON_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")  # it becomes part of Redis keys and folder names


class WindowKind(StrEnum):
    """How long a board runs."""

    DAILY = "daily"
    WEEKLY = "weekly"
    SEASONAL = "seasonal"
    ALLTIME = "alltime"


@dataclass(frozen=True, order=True, slots=True)
class Days:
    """An inclusive range of days."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise FairboardError(f"the range ends ({self.last}) before it starts ({self.first}); nothing was done.")

    @classmethod
    def parse(cls, first: str, last: str) -> "Days":
        """The range between two ISO dates.

        Raises:
            FairboardError: one of them is no date.
        """
        try:
            return cls(date.fromisoformat(first), date.fromisoformat(last))
        except ValueError as error:
            raise FairboardError(f"{error}; dates are written YYYY-MM-DD. Nothing was done.") from None

    @classmethod
    def ending(cls, last: date, number: int) -> "Days":
        """The `number` days that end with `last`."""
        return cls(last - ONE_DAY * (number - 1), last)

    @classmethod
    def month_of(cls, day: date) -> "Days":
        """The calendar month that contains `day`."""
        return cls(day.replace(day=1), day.replace(day=monthrange(day.year, day.month)[1]))

    def __iter__(self) -> Iterator[date]:
        return (self.first + ONE_DAY * n for n in range(len(self)))

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.first <= day <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


@dataclass(frozen=True, order=True, slots=True)
class Season:
    """A season: `start` inclusive, `end` exclusive."""

    id: str
    start: date
    end: date


@dataclass(frozen=True, order=True, slots=True)
class Window:
    """One board's time: `start` inclusive, `end` exclusive."""

    kind: WindowKind
    season: str
    start: date
    end: date

    @property
    def redis_key(self) -> str:
        """Key of the running board; a closed window's key has its start behind it."""
        return f"lb:{self.season}:{self.kind}"

    def __str__(self) -> str:
        return f"{self.kind} window of {self.start}"

    @property
    def days(self) -> Days:
        """Its days."""
        return Days(self.start, self.end - ONE_DAY)

    @property
    def partition(self) -> dict[str, str | date]:
        """The window as the partition key of `leaderboards`."""
        return {"window_kind": str(self.kind), "season": self.season, "window_start": self.start}

    def clipped(self, last: date) -> Days | None:
        """The window's days up to and including `last`, or None where it has not begun."""
        last = min(last, self.end - ONE_DAY)
        return Days(self.start, last) if self.start <= last else None


class Calendar:
    """Days, seasons and windows of one deployment."""

    def __init__(self, seasons: str, zone: ZoneInfo) -> None:
        self.zone = zone
        self._rule = seasons
        self._seasons = [] if seasons in ("month", "year") else read_seasons(Path(seasons))
        self._starts = [season.start for season in self._seasons]

    @classmethod
    def of(cls, settings: Settings) -> "Calendar":
        """The calendar that the settings describe."""
        return cls(settings.seasons, settings.zone)

    @property
    def announced(self) -> list[Season]:
        """The seasons of a configured calendar; none where they are months or years."""
        return self._seasons

    def day_of(self, ts: int) -> date:
        """The deployment's day of `ts` (seconds since the epoch)."""
        return datetime.fromtimestamp(ts, self.zone).date()

    def starts_at(self, day: date) -> int:
        """When `day` begins, in seconds since the epoch: where midnight is left out, at what comes instead.

        A day is one stretch of time wherever the clock changes on the hour. In Newfoundland it went back at 00:01 until 2011.
        """
        return int(datetime.combine(day, time(), self.zone).timestamp())

    def offsets_of(self, day: date) -> tuple[int, int, int]:
        """How far the zone's clock is ahead of UTC, in s, before and after a moment of that day (s since the epoch).

        In order: the moment, before, after. Where the clock does not change, the moment is the day's beginning.
        """
        start, end = self.starts_at(day), self.starts_at(day + ONE_DAY) - 1
        before, after = self._offset(start), self._offset(end)
        if before == after:
            return start, before, after
        seconds = range(start, end + 1)
        return seconds[bisect_left(seconds, True, key=lambda ts: self._offset(ts) != before)], before, after

    def _offset(self, ts: int) -> int:
        offset = datetime.fromtimestamp(ts, self.zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    def season_of(self, day: date) -> Season | None:
        """The season that `day` is in, or None between seasons of a configured calendar."""
        if self._rule == "year":
            return Season(str(day.year), date(day.year, 1, 1), date(day.year + 1, 1, 1))
        if self._rule == "month":
            start = day.replace(day=1)
            return Season(f"{day:%Y-%m}", start, (start + timedelta(days=31)).replace(day=1))
        at = bisect_right(self._starts, day) - 1
        return self._seasons[at] if at >= 0 and day < self._seasons[at].end else None

    def windows_of(self, day: date) -> list[Window]:
        """Every window that contains `day`: the all-time one, and in a season the daily, weekly and seasonal ones."""
        windows = [Window(WindowKind.ALLTIME, "all", ALL_TIME_START, ALL_TIME_END)]
        if season := self.season_of(day):
            monday = day - ONE_DAY * day.weekday()
            week = (max(monday, season.start), min(monday + 7 * ONE_DAY, season.end))
            windows += [
                Window(WindowKind.DAILY, season.id, day, day + ONE_DAY),
                Window(WindowKind.WEEKLY, season.id, *week),
                Window(WindowKind.SEASONAL, season.id, season.start, season.end),
            ]
        return windows

    def window_at(self, kind: WindowKind, day: date) -> Window:
        """The window of that kind that contains `day`.

        Raises:
            FairboardError: `day` is between seasons.
        """
        for window in self.windows_of(day):
            if window.kind == kind:
                return window
        raise FairboardError(f"{day} is in no season of the calendar {self._rule}; its only board is the all-time one.")

    def find_season(self, season_id: str) -> Season:
        """The season with that id.

        Raises:
            FairboardError: there is none.
        """
        if self._rule in ("month", "year"):
            try:
                start = date.fromisoformat(f"{season_id}-01-01"[:10]) if self._rule == "year" else _month(season_id)
            except ValueError:
                shape = "YYYY" if self._rule == "year" else "YYYY-MM"
                raise FairboardError(f"there is no season {season_id!r}; seasons here are named {shape}.") from None
            found = self.season_of(start)
            if found and found.id == season_id:
                return found
        for season in self._seasons:
            if season.id == season_id:
                return season
        known = ", ".join(season.id for season in self._seasons) or f"one per {self._rule}"
        raise FairboardError(f"there is no season {season_id!r}; known: {known}.")


def _month(season_id: str) -> date:
    return date.fromisoformat(f"{season_id}-01")


def iso(ts: float) -> str:
    """A time (s since the epoch) as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def read_seasons(path: Path) -> list[Season]:
    """Read a season calendar: a CSV with the columns id, start, end (ISO dates, `end` exclusive).

    Raises:
        SettingsError: it cannot be read, an id cannot be part of a key, or seasons overlap.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                Season(row["id"], date.fromisoformat(row["start"]), date.fromisoformat(row["end"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise SettingsError(
            f"FAIRBOARD_SEASONS: {path} is no season calendar ({error!r}). "
            "Give `month`, `year`, or a CSV with the columns id,start,end and ISO dates."
        ) from error
    seasons = sorted(rows, key=lambda season: season.start)
    for season in seasons:
        if not _SEASON_ID.fullmatch(season.id) or season.id == "all":
            raise SettingsError(f"FAIRBOARD_SEASONS: {season.id!r} cannot name a season (letters, digits, . _ -).")
        if season.end <= season.start:
            raise SettingsError(f"FAIRBOARD_SEASONS: season {season.id} ends before it starts.")
    for before, after in pairwise(seasons):
        if after.start < before.end:
            raise SettingsError(f"FAIRBOARD_SEASONS: {before.id} and {after.id} overlap; `end` is exclusive.")
    if len({season.id for season in seasons}) < len(seasons):
        raise SettingsError("FAIRBOARD_SEASONS: two seasons have the same id.")
    return seasons
