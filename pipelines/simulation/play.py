"""From plans to events: one vectorised pass over all events of a day.

What does not belong here: who plans what (`players.py`, `cheats.py`), ids and Arrow (`game.py`).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.simulation.arrays import Arrays, Codes, Flags, Floats, Ints
from pipelines.simulation.players import ACTIVITIES_TO_LIKE, Plan

Column = TypeVar("Column", Codes, Ints)

PROGRESSION, BOSS_KILL, DROP_CLAIMED = range(3)
TYPES = ("progression", "boss_kill", "drop_claimed")

ACTIVITIES = ("crafting", "exploration", "pvp_match", "quest_completion", "dungeon_clear", "correction")
_CORRECTION = ACTIVITIES.index("correction")
_ACTIVITY_LOG = np.log([60.0, 80.0, 100.0, 130.0, 170.0, 100.0])  # ln XP of an average player
_LIKES = 0.15  # share of a player's events that are their favourite activity, beside chance
_WINDFALL_SPREAD = 0.3

BOSSES = ("bog_witch", "iron_golem", "frost_drake", "lich_king", "void_hydra")
_BOSS_SECONDS = np.array([75.0, 120.0, 180.0, 260.0, 420.0])  # median of an average player alone, normal difficulty
_BOSS_SPREAD = np.array([0.16, 0.18, 0.2, 0.2, 0.24])  # sd of ln time
DIFFICULTIES = ("normal", "hard", "mythic")
_DIFFICULTY_EDGES = np.array([0.7, 0.95])  # cumulative shares, without the last
_DIFFICULTY_TIME = np.array([1.0, 1.4, 1.9])
MAX_PARTY = 5

RARITIES = ("common", "rare", "epic", "legendary")
RATES = (0.25, 0.06, 0.015, 0.003)  # of each boss's item of that rarity, per kill
ITEMS = tuple(f"{boss}_{item}" for boss in BOSSES for item in ("hide", "charm", "blade", "crown"))
_NOTHING = -1

_BREAK_MEDIAN_S, _BREAK_SPREAD = 4500.0, 0.6
_MARGIN_S = 30.0  # drops follow their kill within seconds: room for the last of the day


@dataclass(frozen=True)
class Played(Arrays):
    """Events of a day, by player and time. Codes index the tuples above, and count only where the event's type has them."""

    player: Ints
    second: Floats  # since the day's beginning
    type: Codes
    xp: Ints
    activity: Codes
    boss: Codes
    duration_ms: Ints
    party: Ints
    difficulty: Codes
    rarity: Codes


def play(plan: Plan, day_s: int, corrections: float, rng: np.random.Generator) -> Played:
    """The events of players who do as planned, on a day of `day_s` seconds."""
    owner = np.repeat(np.arange(len(plan.events)), plan.events)
    kill = rng.random(len(owner), np.float32) < plan.kill_share[owner]
    activity, xp = _experience(plan, owner, corrections, rng)
    _inject(plan, kill, activity, xp, rng)
    killed = np.flatnonzero(kill)
    boss, duration_ms, party, difficulty = _fights(plan, owner[killed], rng)
    second = _times(plan, owner, killed, duration_ms / 1000, day_s, rng)
    rarity = _loot(plan.luck[owner[killed]], rng)
    events = Played(
        player=plan.player[owner],
        second=second,
        type=np.where(kill, np.int8(BOSS_KILL), np.int8(PROGRESSION)),
        xp=xp,
        activity=activity,
        boss=_spread(boss, killed, len(owner)),
        duration_ms=_spread(duration_ms, killed, len(owner)),
        party=_spread(party, killed, len(owner)),
        difficulty=_spread(difficulty, killed, len(owner)),
        rarity=_spread(rarity, killed, len(owner), _NOTHING),
    )
    return _with_drops(events, day_s, rng)


def _spread(values: Column, rows: Ints, n: int, elsewhere: int = 0) -> Column:
    """A column of `n` rows that has the values on some."""
    column = np.full(n, elsewhere, values.dtype)
    column[rows] = values
    return column


def _with_drops(events: Played, day_s: int, rng: np.random.Generator) -> Played:
    """The events, each kill that dropped something followed by its drop.

    A drop is its kill's row once more, some seconds later but not after the player's next event: nothing needs sorting.
    """
    drops = events.rarity != _NOTHING
    source = np.repeat(np.arange(len(drops)), 1 + drops)
    rows = events.take(source)
    copies = np.flatnonzero(source[1:] == source[:-1]) + 1
    rows.type[copies] = DROP_CLAIMED
    following = np.append(np.where(events.player[1:] == events.player[:-1], events.second[1:], day_s - 1.0), day_s - 1.0)
    rows.second[copies] = np.minimum(rows.second[copies] + rng.uniform(1, 8, len(copies)), following[source[copies]])
    return rows


def _experience(plan: Plan, owner: Ints, corrections: float, rng: np.random.Generator) -> tuple[Codes, Ints]:
    """Activity and XP of each event: log-normal around the activity's base and the player's own level."""
    n = len(owner)
    activity = rng.integers(0, ACTIVITIES_TO_LIKE, n, np.int8)
    likes = rng.random(n, np.float32) < _LIKES
    activity[likes] = plan.favourite[owner[likes]]
    log_xp = rng.standard_normal(n, np.float32) * plan.xp_spread[owner] + plan.xp_log[owner] + _ACTIVITY_LOG[activity]
    xp = np.maximum(np.rint(np.exp(log_xp)), 1).astype(np.int64)
    wrong = rng.choice(n, rng.binomial(n, corrections), replace=False, shuffle=False)
    activity[wrong] = _CORRECTION
    xp[wrong] = -np.maximum(xp[wrong] // 2, 1)
    return activity, xp


def _inject(plan: Plan, kill: Flags, activity: Codes, xp: Ints, rng: np.random.Generator) -> None:
    """Make a few events of those with windfalls huge."""
    first = np.cumsum(plan.events) - plan.events
    for who in np.flatnonzero((plan.windfalls > 0) & (plan.events > 0)):
        count = min(int(plan.windfalls[who]), int(plan.events[who]))
        rows = first[who] + rng.choice(plan.events[who], count, replace=False)
        usual = plan.xp_log[who] + _ACTIVITY_LOG[plan.favourite[who]] + _WINDFALL_SPREAD * rng.standard_normal(count)
        kill[rows] = False
        activity[rows] = plan.favourite[who]
        xp[rows] = np.rint(np.exp(usual) * plan.windfall_xp[who]).astype(np.int64)


def _fights(plan: Plan, fighter: Ints, rng: np.random.Generator) -> tuple[Codes, Ints, Ints, Codes]:
    """Boss, duration in ms, party size and difficulty of each kill. A party of four is twice as fast as one alone."""
    n = len(fighter)
    boss = rng.integers(0, len(BOSSES), n, np.int8)
    party = rng.integers(1, MAX_PARTY + 1, n)
    difficulty = np.searchsorted(_DIFFICULTY_EDGES, rng.random(n)).astype(np.int8)
    seconds = _BOSS_SECONDS[boss] * _DIFFICULTY_TIME[difficulty] / np.sqrt(party) * plan.kill_time[fighter]
    seconds *= np.exp(_BOSS_SPREAD[boss] * rng.standard_normal(n))
    return boss, np.maximum(np.rint(seconds * 1000), 1).astype(np.int64), party, difficulty


def _loot(luck: Floats, rng: np.random.Generator) -> Codes:
    """Rarity of what each kill drops, or `_NOTHING`. Luck is a factor on the rates of all but the common."""
    chance = rng.random(len(luck))
    loot = np.full(len(luck), _NOTHING, np.int8)
    edge = np.zeros(len(luck))
    for rarity in reversed(range(len(RARITIES))):
        upper = edge + RATES[rarity] * (luck if rarity else 1.0)
        loot[(chance >= edge) & (chance < upper)] = rarity
        edge = upper
    return loot


def _times(plan: Plan, owner: Ints, killed: Ints, kill_s: Floats, day_s: int, rng: np.random.Generator) -> Floats:
    """Seconds of the day: sessions with breaks, a kill as long as its fight, all of it around the player's hour."""
    n = len(owner)
    gap = np.exp(rng.standard_normal(n, np.float32) * plan.pace_spread[owner]) * plan.pace_s[owner]
    pause = np.flatnonzero(rng.random(n, np.float32) * plan.session[owner] < 1)
    gap[pause] += _BREAK_MEDIAN_S * np.exp(_BREAK_SPREAD * rng.standard_normal(len(pause)))
    gap[killed] += kill_s
    total = np.cumsum(gap)
    playing = plan.events > 0
    events = plan.events[playing]
    last = np.cumsum(events) - 1
    first = last - events + 1
    span = total[last] - total[first]
    fits = np.minimum(1.0, np.minimum(plan.awake_s[playing], day_s - _MARGIN_S) / np.maximum(span, 1.0))
    begin = _reflected(plan.hour_s[playing] - span * fits / 2, day_s - _MARGIN_S - span * fits)
    seconds: Floats = np.repeat(begin - total[first] * fits, events) + total * np.repeat(fits, events)
    return np.maximum(seconds, 0.0)


def _reflected(wish: Floats, room: Floats) -> Floats:
    """The wish within 0 to `room`, thrown back at the ends: clipping would start thousands in the same second."""
    inside: Floats = np.clip(room - np.abs(room - np.abs(wish)), 0.0, np.maximum(room, 0.0))
    return inside
