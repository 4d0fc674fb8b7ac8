"""The hot path: one refresh folds the days that have new events into boards, and publishes the boards that changed.

What does not belong here: the rest of the day's graph (progression, fairness, …), and when refreshes happen (`pipelines.live`).
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from warehouse.calendar import ONE_DAY, Days
from warehouse.engine import Engine
from warehouse.folds import Folded, fold, mending, stale_days
from warehouse.lake import open_leases
from warehouse.losses import sound_days
from warehouse.outlets import Outlets
from warehouse.publisher import Publication, publish_boards
from warehouse.settings import Settings

FOLDED = ("player_days", "leaderboards")
DAYS_AT_ONCE = 31  # long history loaded at once takes several refreshes, so that each ends soon


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did, when it began (s since the epoch), and what each stage took (s)."""

    began: float
    folded: list[Folded]
    published: list[Publication]
    fold_s: float
    publish_s: float


class Pulse(msgspec.Struct, frozen=True):
    """The state of the hot path, kept in `DATA_DIR/live.json`. Times in s since the epoch.

    The boards hold every event that was sealed before `current_until`. `trouble` says why they do not move on, since `at`.
    """

    at: float
    current_until: float
    refresh_s: float
    trouble: str = ""


def refresh(engine: Engine, outlets: Outlets) -> Refreshed:
    """Fold the stale days' player_days and boards, the newest days first, and publish what changed.

    A day that has lost events is left as it is (see `losses`).

    Raises:
        FairboardError: something was refused; what was there before stays.
    """
    began = time.time()
    folded: list[Folded] = []
    stale = [day for day in stale_days(engine) if day >= engine.settings.first_day]
    for days in ranges(sound_days(engine.lake, stale[-DAYS_AT_ONCE:])):
        folded += [fold(engine, table, days) for table in FOLDED]
    folded_at = time.time()
    outlets.turn(folded_at)
    published = mending(engine, lambda: publish_boards(engine, outlets))
    return Refreshed(began, folded, published, folded_at - began, time.time() - folded_at)


def ranges(days: list[date]) -> Iterator[Days]:
    """Sorted days as ranges without gaps."""
    start = 0
    for n in range(1, len(days) + 1):
        if n == len(days) or days[n] - days[n - 1] != ONE_DAY:
            yield Days(days[start], days[n - 1])
            start = n


def claim(settings: Settings) -> AbstractContextManager[bool]:
    """Hold the right to follow the events while the context lasts; False where a living process holds it."""
    return open_leases(settings).claim("live")


def read_pulse(settings: Settings) -> Pulse | None:
    """The state of the hot path, or None where it has never run."""
    try:
        return msgspec.json.decode(_pulse_path(settings).read_bytes(), type=Pulse)
    except FileNotFoundError:
        return None


def write_pulse(settings: Settings, pulse: Pulse) -> None:
    """Keep the state for `read_pulse`."""
    path = _pulse_path(settings)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(pulse))
    temporary.replace(path)


def _pulse_path(settings: Settings) -> Path:
    return settings.data_dir / "live.json"
