"""Who plays: the traits of every player, drawn once, and what they mean to do on a day.

What does not belong here: the events themselves (`play.py`), cheating (`cheats.py`).
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from pipelines.simulation.arrays import Arrays, Floats, Ints
from pipelines.simulation.scenario import Scenario

# By kind of player: share of all, probability to play on a day, mean events on such a day, mean events between two breaks.
CASUAL, REGULAR, GRINDER, WHALE = range(4)
_SHARE = (0.70, 0.21, 0.07, 0.02)
_PLAYS = np.array([0.35, 0.65, 0.97, 0.85])
_EVENTS = np.array([6.0, 14.0, 45.0, 25.0])
_SESSION = np.array([8.0, 12.0, 25.0, 15.0])
ACTIVITIES_TO_LIKE = 5

_VETERAN_DAYS = 365
_STAY_DAYS, _NEWCOMERS_STAY_DAYS = 300, 25  # means, exponential
_WEEKDAY = (0.93, 0.93, 0.93, 0.93, 0.98, 1.16, 1.14)  # factor on the probability to play, from Monday; the mean is 1
_MOOD = 0.35  # sd of ln of a day's events beside the player's mean
_PACE_S, _PACE_SPREAD = 110.0, 0.7  # median time between two events of a session, and sd of its ln
_HOUR_SPREAD_S = 5400.0
_AWAKE_S, _AWAKE_SPREAD_S = 15.5 * 3600, 2400.0  # the longest day of a grinder: people sleep
MOST_KILLS = 0.14  # share of boss kills among the events of the keenest
_GROWTH, _GROWTH_DAYS = 0.12, 5  # ln XP grows with the days played: fast for the new, hardly for the old
_BOOSTS, _BOOST_XP = 0.3, 1.5  # whales buy boosts: the share of their days, and the factor on that day's XP
_DOUBLE_XP = 2.0
_PATCH_XP, _PATCH_BOSS_TIME = 1.3, 0.85


@dataclass(frozen=True)
class Players(Arrays):
    """What a player is like, for good."""

    kind: Ints  # CASUAL, REGULAR, GRINDER or WHALE
    joined: Ints  # index of the first day; below 0 for those who were there before
    left: Ints  # index of the day from which they are gone
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
    awake_s: Floats  # most seconds between the first and the last event of a day


@dataclass(frozen=True)
class Plan(Arrays):
    """What players mean to do on one day."""

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
    awake_s: Floats
    windfalls: Ints  # events whose XP is `windfall_xp` times the usual
    windfall_xp: Floats


def draw_players(scenario: Scenario, rng: np.random.Generator) -> Players:
    """Everyone who plays at some time of the scenario; the means scaled so that it has the events it asks for."""
    n, days = scenario.players, len(scenario.days)
    kind = rng.choice(4, size=n, p=_SHARE)
    skill = rng.standard_normal(n)
    new = rng.random(n) < scenario.newcomers
    joined = np.where(new, rng.integers(0, days, n), -rng.integers(1, _VETERAN_DAYS, n))
    stay = rng.exponential(np.where(new, _NEWCOMERS_STAY_DAYS, _STAY_DAYS))
    left = np.minimum(np.maximum(joined, 0) + 1 + stay.astype(np.int64), days)
    plays = np.clip(_PLAYS[kind] * np.exp(0.1 * rng.standard_normal(n)), 0.05, 1.0)
    events = _EVENTS[kind] * np.exp(0.4 * rng.standard_normal(n))
    expected = (plays * events * (left - np.maximum(joined, 0))).sum()
    return Players(
        kind=kind,
        joined=joined,
        left=left,
        plays=plays,
        events=events * (n * days * scenario.events_per_player_day / expected),
        skill=skill,
        xp_log=0.12 * skill + 0.15 * rng.standard_normal(n) + np.where(kind == WHALE, 0.3, 0.0),
        xp_spread=rng.uniform(0.2, 0.3, n),
        favourite=rng.integers(0, ACTIVITIES_TO_LIKE, n),
        kill_share=rng.uniform(0.03, MOST_KILLS, n),
        pace_s=_PACE_S * np.exp(0.3 * rng.standard_normal(n)),
        session=_SESSION[kind] * np.exp(0.2 * rng.standard_normal(n)),
        hour_s=(rng.normal(19.5, 3.0, n) % 24) * 3600,
        awake_s=rng.normal(_AWAKE_S, _AWAKE_SPREAD_S, n),
    )


def plan_day(scenario: Scenario, players: Players, first: int, index: int, rng: np.random.Generator) -> Plan:
    """What `players` (the first of them is player number `first`) mean to do on day number `index`."""
    n = len(players.kind)
    xp_for_all, boss_time_for_all = _weather(scenario, index)
    age = np.maximum(index - players.joined, 0)
    boost = np.log(_BOOST_XP) * ((players.kind == WHALE) & (rng.random(n) < _BOOSTS))
    return Plan(
        player=np.arange(first, first + n),
        events=_event_counts(scenario, players, index, rng),
        xp_log=players.xp_log + _GROWTH * np.log1p(age / _GROWTH_DAYS) + boost + np.log(xp_for_all),
        xp_spread=players.xp_spread,
        favourite=players.favourite,
        kill_share=players.kill_share,
        kill_time=np.exp(-0.12 * players.skill) * boss_time_for_all,
        luck=np.ones(n),
        pace_s=players.pace_s,
        pace_spread=np.full(n, _PACE_SPREAD),
        session=players.session,
        hour_s=players.hour_s + rng.normal(0, _HOUR_SPREAD_S, n),
        awake_s=players.awake_s,
        windfalls=np.zeros(n, np.int64),
        windfall_xp=np.ones(n),
    )


def _weather(scenario: Scenario, index: int) -> tuple[float, float]:
    """What befalls everyone on a day: factors on XP and on the time a boss takes."""
    day = scenario.days.first + timedelta(days=index)
    patched = scenario.patch_day is not None and day >= scenario.patch_day
    doubled = scenario.double_xp is not None and day in scenario.double_xp
    return (_DOUBLE_XP if doubled else 1.0) * (_PATCH_XP if patched else 1.0), _PATCH_BOSS_TIME if patched else 1.0


def _event_counts(scenario: Scenario, players: Players, index: int, rng: np.random.Generator) -> Ints:
    """How many events each player means to have. On the day they join, everyone plays."""
    n = len(players.kind)
    weekday = (scenario.days.first + timedelta(days=index)).weekday()
    plays = rng.random(n) < players.plays * (_WEEKDAY[weekday] if scenario.weekends else 1.0)
    here = (players.joined <= index) & (index < players.left)
    mood = np.exp(_MOOD * rng.standard_normal(n) - _MOOD**2 / 2)
    events = np.maximum(rng.poisson(players.events * mood), 1)
    return np.where(here & (plays | (players.joined == index)), events, 0)
