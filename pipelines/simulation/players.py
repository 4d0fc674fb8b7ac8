"""Who plays: the traits of every player, drawn once, and what they mean to do on a day.

What does not belong here: the events themselves (`play.py`), cheating (`cheats.py`).
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipelines.simulation.scenario import Scenario

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# share of the players, probability to play on a day, events on such a day, mean events between two breaks
CASUAL, REGULAR, GRINDER, WHALE = range(4)
_SHARE = (0.70, 0.21, 0.07, 0.02)
_PLAYS = np.array([0.35, 0.65, 0.97, 0.85])
_EVENTS = np.array([6.0, 14.0, 45.0, 25.0])
_SESSION = np.array([8.0, 12.0, 25.0, 15.0])
_VETERAN_DAYS = 365
_DOUBLE_XP = 2.0
_PATCH_XP, _PATCH_BOSS_TIME = 1.3, 0.85
_WEEKDAY = (0.93, 0.93, 0.93, 0.93, 0.98, 1.16, 1.14)


@dataclass(frozen=True)
class Arrays:
    """Columns of equal length, one row per player."""

    def take(self, who: Ints | slice) -> Self:
        """The rows of some players."""
        columns: dict[str, Any] = {column.name: getattr(self, column.name)[who].copy() for column in fields(self)}
        return replace(self, **columns)


@dataclass(frozen=True)
class Players(Arrays):
    """What a player is like, for good."""

    kind: Ints  # CASUAL, REGULAR, GRINDER or WHALE
    joined: Ints  # index of the first day; below 0 for those who were there before
    plays: Floats  # probability to play on a day
    events: Floats  # mean events on a day they play
    skill: Floats  # 0 is average, 1 one deviation better: more XP, faster kills
    xp_log: Floats  # mean of ln XP beside the activity's base
    xp_spread: Floats  # sd of ln XP within one activity
    favourite: Ints  # the activity they like best
    kill_share: Floats  # share of boss kills among their events
    pace_s: Floats  # median time between two events of a session
    session: Floats  # mean events between two breaks
    hour_s: Floats  # middle of their playing time, seconds of the day


@dataclass(frozen=True)
class Plan(Arrays):
    """What players mean to do on one day. Cheats change it in place."""

    player: Ints  # index of the player
    events: Ints  # how many, drops apart
    xp_log: Floats
    xp_spread: Floats
    favourite: Ints
    kill_share: Floats
    kill_time: Floats  # factor on a boss's time
    luck: Floats  # factor on the rates of rare items
    pace_s: Floats
    pace_spread: Floats  # sd of ln of the time between two events
    session: Floats
    hour_s: Floats
    windfalls: Ints  # events whose XP is `windfall_xp` times the usual
    windfall_xp: Floats


def draw_players(scenario: Scenario, rng: np.random.Generator) -> Players:
    """Everyone who plays at some time of the scenario."""
    n, days = scenario.players, len(scenario.days)
    kind = rng.choice(4, size=n, p=_SHARE)
    skill = rng.standard_normal(n)
    new = rng.random(n) < scenario.newcomers
    joined = np.where(new, rng.integers(0, days, n), -rng.integers(0, _VETERAN_DAYS, n))
    plays = np.clip(_PLAYS[kind] * np.exp(0.1 * rng.standard_normal(n)), 0.05, 1.0)
    events = _EVENTS[kind] * np.exp(0.4 * rng.standard_normal(n))
    expected = (plays * events * (days - np.maximum(joined, 0))).sum()
    return Players(
        kind=kind,
        joined=joined,
        plays=plays,
        events=events * (n * days * scenario.events_per_player_day / expected),
        skill=skill,
        xp_log=0.12 * skill + 0.15 * rng.standard_normal(n) + np.where(kind == WHALE, 0.3, 0.0),
        xp_spread=rng.uniform(0.2, 0.3, n),
        favourite=rng.integers(0, 5, n),
        kill_share=rng.uniform(0.03, 0.14, n),
        pace_s=np.exp(np.log(110) + 0.3 * rng.standard_normal(n)),
        session=_SESSION[kind] * np.exp(0.2 * rng.standard_normal(n)),
        hour_s=(rng.normal(19.5, 3.0, n) % 24) * 3600,
    )


def plan_day(scenario: Scenario, players: Players, first: int, index: int, rng: np.random.Generator) -> Plan:
    """What `players` (the first of them is player number `first`) do on day number `index`."""
    n = len(players.kind)
    day = list(scenario.days)[index]
    age = index - players.joined
    plays = players.plays * (_WEEKDAY[day.weekday()] if scenario.weekends else 1.0)
    active = (rng.random(n) < plays) & (age >= 0) | (age == 0)
    mood = np.exp(0.35 * rng.standard_normal(n) - 0.35**2 / 2)
    patched = scenario.patch_day is not None and day >= scenario.patch_day
    everyone = np.log(_DOUBLE_XP) * (scenario.double_xp is not None and day in scenario.double_xp) + np.log(_PATCH_XP) * patched
    return Plan(
        player=np.arange(first, first + n),
        events=np.where(active, np.maximum(rng.poisson(players.events * mood), 1), 0),
        xp_log=players.xp_log + 0.12 * np.log1p(np.maximum(age, 0) / 5) + everyone,
        xp_spread=players.xp_spread,
        favourite=players.favourite,
        kill_share=players.kill_share,
        kill_time=np.exp(-0.12 * players.skill) * (_PATCH_BOSS_TIME if patched else 1.0),
        luck=np.ones(n),
        pace_s=players.pace_s,
        pace_spread=np.full(n, 0.7),
        session=players.session,
        hour_s=players.hour_s + rng.normal(0, 5400, n),
        windfalls=np.zeros(n, np.int64),
        windfall_xp=np.ones(n),
    )
