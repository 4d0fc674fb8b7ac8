"""From plans to events: one vectorised pass over all events of a day.

What does not belong here: who plans what (`players.py`, `cheats.py`), ids and Arrow (`game.py`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.simulation.players import Arrays, Floats, Ints, Plan

PROGRESSION, BOSS_KILL, DROP_CLAIMED = range(3)
TYPES = ("progression", "boss_kill", "drop_claimed")

ACTIVITIES = ("crafting", "exploration", "pvp_match", "quest_completion", "dungeon_clear", "correction")
_CORRECTION = len(ACTIVITIES) - 1
_ACTIVITY_LOG = np.log([60.0, 80.0, 100.0, 130.0, 170.0, 100.0])
_LIKES = 0.15  # share of a player's events that are their favourite activity, beside chance

BOSSES = ("bog_witch", "iron_golem", "frost_drake", "lich_king", "void_hydra")
_BOSS_SECONDS = np.array([75.0, 120.0, 180.0, 260.0, 420.0])  # median for a party of one, normal difficulty
_BOSS_SPREAD = np.array([0.16, 0.18, 0.2, 0.2, 0.24])  # sd of ln time
DIFFICULTIES = ("normal", "hard", "mythic")
_DIFFICULTY_SHARE = np.array([0.7, 0.95])  # cumulative, without the last
_DIFFICULTY_TIME = np.array([1.0, 1.4, 1.9])
MAX_PARTY = 5

RARITIES = ("common", "rare", "epic", "legendary")
RATES = np.array([0.25, 0.06, 0.015, 0.003])  # per kill of the boss
ITEMS = tuple(f"{boss}_{item}" for boss in BOSSES for item in ("hide", "charm", "blade", "crown"))
_BREAK_MEDIAN_S, _BREAK_SPREAD = 4500.0, 0.6


@dataclass(frozen=True)
class Played(Arrays):
    """Events of a day, by player and time. Codes index the tuples above; they count only where the type has them."""

    player: Ints
    second: Floats  # since the day's beginning
    type: npt.NDArray[np.int8]
    xp: Ints
    activity: npt.NDArray[np.int8]
    boss: npt.NDArray[np.int8]
    duration_ms: Ints
    party: Ints
    difficulty: npt.NDArray[np.int8]
    rarity: npt.NDArray[np.int8]


def play(plan: Plan, day_s: int, corrections: float, rng: np.random.Generator) -> Played:
    """The events of players who do as planned, on a day of `day_s` seconds."""
    owner = np.repeat(np.arange(len(plan.events)), plan.events)
    n = len(owner)
    kill = rng.random(n, np.float32) < plan.kill_share[owner]
    activity, xp = _experience(plan, owner, corrections, rng)
    _inject(plan, kill, activity, xp, rng)
    killed = np.flatnonzero(kill)
    boss, duration_ms, party, difficulty = _fights(plan, owner[killed], rng)
    loot = _loot(plan.luck[owner[killed]], rng)
    second = _times(plan, owner, killed, duration_ms / 1000, day_s, rng)

    # A drop is its kill's row once more, a few seconds later but before the player's next event: nothing needs sorting.
    dropped = np.zeros(n, np.int64)
    dropped[killed] = loot >= 0
    source = np.repeat(np.arange(n), 1 + dropped)
    is_drop = np.zeros(len(source), bool)
    is_drop[1:] = source[1:] == source[:-1]
    following = np.append(np.where(owner[1:] == owner[:-1], second[1:], day_s - 1), day_s - 1)
    second_out = second[source]
    at = source[is_drop]
    second_out[is_drop] = np.minimum(second[at] + rng.uniform(1, 8, len(at)), following[at])
    fight = np.zeros(n, np.int64)
    fight[killed] = np.arange(len(killed))
    fought = fight[source] if len(killed) else np.zeros(0, np.int64)
    type_ = kill.astype(np.int8)[source]
    type_[is_drop] = DROP_CLAIMED
    none = np.zeros(len(source), np.int64)
    return Played(
        player=plan.player[owner[source]],
        second=second_out,
        type=type_,
        xp=xp[source],
        activity=activity[source],
        boss=boss[fought] if len(killed) else none.astype(np.int8),
        duration_ms=duration_ms[fought] if len(killed) else none,
        party=party[fought] if len(killed) else none,
        difficulty=difficulty[fought] if len(killed) else none.astype(np.int8),
        rarity=loot[fought] if len(killed) else none.astype(np.int8),
    )


def _experience(plan: Plan, owner: Ints, corrections: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], Ints]:
    """Activity and XP of each event: log-normal around the activity's base and the player's own level."""
    n = len(owner)
    activity = rng.integers(0, _CORRECTION, n, np.int8)
    likes = rng.random(n, np.float32) < _LIKES
    activity[likes] = plan.favourite[owner[likes]]
    log_xp = rng.standard_normal(n, np.float32) * plan.xp_spread[owner] + plan.xp_log[owner] + _ACTIVITY_LOG[activity]
    xp = np.maximum(np.rint(np.exp(log_xp)), 1).astype(np.int64)
    wrong = rng.integers(0, max(n, 1), rng.binomial(n, corrections))
    activity[wrong] = _CORRECTION
    xp[wrong] = -np.maximum(np.abs(xp[wrong]) // 2, 1)
    return activity, xp


def _inject(
    plan: Plan, kill: npt.NDArray[np.bool_], activity: npt.NDArray[np.int8], xp: Ints, rng: np.random.Generator
) -> None:
    """Make a few events of those with windfalls huge."""
    first = np.cumsum(plan.events) - plan.events
    for who in np.flatnonzero((plan.windfalls > 0) & (plan.events > 0)):
        count = min(int(plan.windfalls[who]), int(plan.events[who]))
        rows = first[who] + rng.choice(plan.events[who], count, replace=False)
        kill[rows] = False
        activity[rows] = plan.favourite[who]
        size = np.exp(plan.xp_log[who] + _ACTIVITY_LOG[activity[rows]] + 0.3 * rng.standard_normal(count))
        xp[rows] = np.rint(size * plan.windfall_xp[who]).astype(np.int64)


def _fights(
    plan: Plan, fighter: Ints, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int8], Ints, Ints, npt.NDArray[np.int8]]:
    """Boss, duration in ms, party size and difficulty of each kill. A party of four is twice as fast as one alone."""
    n = len(fighter)
    boss = rng.integers(0, len(BOSSES), n, np.int8)
    party = rng.integers(1, MAX_PARTY + 1, n)
    difficulty = np.searchsorted(_DIFFICULTY_SHARE, rng.random(n)).astype(np.int8)
    seconds = _BOSS_SECONDS[boss] * _DIFFICULTY_TIME[difficulty] / np.sqrt(party) * plan.kill_time[fighter]
    seconds *= np.exp(_BOSS_SPREAD[boss] * rng.standard_normal(n))
    return boss, np.maximum(np.rint(seconds * 1000), 1).astype(np.int64), party, difficulty


def _loot(luck: Floats, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Rarity of what each kill drops, -1 for nothing. Luck is a factor on the rates of all but the common."""
    chance = rng.random(len(luck))
    loot = np.full(len(luck), -1, np.int8)
    edge = np.zeros(len(luck))
    for rarity in reversed(range(len(RARITIES))):
        upper = edge + RATES[rarity] * (luck if rarity else 1.0)
        loot[(chance >= edge) & (chance < upper)] = rarity
        edge = upper
    return loot


def _times(plan: Plan, owner: Ints, killed: Ints, kill_s: Floats, day_s: int, rng: np.random.Generator) -> Floats:
    """Seconds of the day: sessions with breaks, a kill as long as its fight, all of it around the player's hour."""
    n = len(owner)
    if not n:
        return np.zeros(0)
    gap = np.exp(rng.standard_normal(n, np.float32) * plan.pace_spread[owner]) * plan.pace_s[owner]
    pause = np.flatnonzero(rng.random(n, np.float32) * plan.session[owner] < 1)
    gap[pause] += np.exp(np.log(_BREAK_MEDIAN_S) + _BREAK_SPREAD * rng.standard_normal(len(pause)))
    gap[killed] += kill_s
    total = np.cumsum(gap)
    playing = plan.events > 0
    last = np.cumsum(plan.events)[playing] - 1
    first = last - plan.events[playing] + 1
    span = total[last] - total[first]
    fits = np.minimum(1.0, (day_s - 60) / np.maximum(span, 1))
    begin = np.clip(plan.hour_s[playing] - span * fits / 2, 0, day_s - 30 - span * fits)
    events = plan.events[playing]
    seconds: Floats = np.repeat(begin, events) + (total - np.repeat(total[first], events)) * np.repeat(fits, events)
    return seconds
