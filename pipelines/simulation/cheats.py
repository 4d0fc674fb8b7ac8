"""Who cheats and how: each kind is one small function that changes what its players mean to do.

What does not belong here: what honest players do (`players.py`), how a plan becomes events (`play.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipelines.simulation.arrays import Arrays, Codes, Floats, Ints
from pipelines.simulation.players import ACTIVITIES_TO_LIKE, MOST_KILLS, Plan, Players
from pipelines.simulation.scenario import Scenario
from warehouse.errors import FairboardError

_BASELINE_EVENTS = 50
_FIRST_DAY_EVENTS = 20


@dataclass(frozen=True)
class Cheaters(Arrays):
    """The planted truth, ordered by player."""

    player: Ints
    kind: Codes  # of `KINDS`
    start: Ints  # index of the first day they cheat
    trait: Floats  # 0 to 1: how one differs from the others of the kind, for good

    def since(self, index: int) -> Ints:
        """Days since each began, on day number `index`."""
        return index - self.start


# What a kind does to the plan of its players, given the days since they began, their trait, and random numbers of the day.
Cheat = Callable[[Plan, Ints, Floats, np.random.Generator], Plan]


def multiplied(factor: float) -> Cheat:
    """XP times a constant."""
    return lambda plan, _since, _trait, _rng: replace(plan, xp_log=plan.xp_log + np.log(factor))


def bot(plan: Plan, since: Ints, trait: Floats, rng: np.random.Generator) -> Plan:
    """Twenty hours a day without a break, an event every 2 to 5 minutes, even to 1 to 10 %."""
    pace_s = 120 + 180 * trait
    return replace(
        plan,
        events=(20 * 3600 / pace_s).astype(np.int64),
        pace_s=pace_s,
        pace_spread=0.01 + 0.09 * trait,
        session=np.full(len(since), np.inf),
        kill_share=np.zeros(len(since)),
        hour_s=12 * 3600 + rng.normal(0, 1800, len(since)),
        awake_s=np.full(len(since), np.inf),
    )


def boss_time(plan: Plan, _since: Ints, trait: Floats, _rng: np.random.Generator) -> Plan:
    """Bosses fall in 5 to 15 % of the time they take others, and as often as with the keenest."""
    keen = np.full(len(trait), MOST_KILLS)
    return replace(plan, kill_time=plan.kill_time * (0.05 + 0.1 * trait), kill_share=keen)


def lucky_drops(plan: Plan, _since: Ints, trait: Floats, _rng: np.random.Generator) -> Plan:
    """Rare, epic and legendary items drop 5 to 9 times as often."""
    return replace(plan, luck=5 + 4 * trait, kill_share=np.full(len(trait), MOST_KILLS))


def injection(plan: Plan, since: Ints, _trait: Floats, rng: np.random.Generator) -> Plan:
    """One to three events of 200 to 2,000 times the usual XP: on the first day, and on one day in four after it."""
    n = len(since)
    today = (since == 0) | (rng.random(n) < 1 / 4)
    return replace(
        plan,
        windfalls=np.where(today, rng.integers(1, 4, n), 0),
        windfall_xp=np.exp(rng.uniform(np.log(200), np.log(2000), n)),
    )


def slow_ramp(plan: Plan, since: Ints, trait: Floats, _rng: np.random.Generator) -> Plan:
    """XP grows by 3 to 6 % a day, up to ten times the honest: never far from yesterday's."""
    return replace(plan, xp_log=plan.xp_log + np.minimum((since + 1) * (0.03 + 0.03 * trait), np.log(10)))


def stolen_account(plan: Plan, _since: Ints, trait: Floats, _rng: np.random.Generator) -> Plan:
    """Somebody else plays: on the other side of the clock, faster and longer, other activities, better or worse."""
    better = np.where(trait < 1 / 2, -1.0, 1.0)
    return replace(
        plan,
        events=plan.events * 2,
        xp_log=plan.xp_log + 0.5 * better,
        favourite=(plan.favourite + 1 + (trait * (ACTIVITIES_TO_LIKE - 1)).astype(np.int64)) % ACTIVITIES_TO_LIKE,
        kill_share=0.17 - plan.kill_share,
        kill_time=plan.kill_time * np.exp(-0.3 * better),
        pace_s=plan.pace_s / 2,
        hour_s=(plan.hour_s + (9 + 6 * trait) * 3600) % 86_400,
    )


KINDS: dict[str, Cheat] = {
    "xp_x1.5": multiplied(1.5),
    "xp_x3": multiplied(3.0),
    "xp_x10": multiplied(10.0),
    "bot": bot,
    "boss_time": boss_time,
    "lucky_drops": lucky_drops,
    "injection": injection,
    "slow_ramp": slow_ramp,
    "stolen_account": stolen_account,
}
NAMES = tuple(KINDS)


def draw_cheaters(scenario: Scenario, players: Players, rng: np.random.Generator) -> Cheaters:
    """Choose who cheats: of those who stay to the end and will have played enough before to be known.

    Where too few have, the most active are taken.

    Raises:
        FairboardError: a kind is unknown.
    """
    if unknown := set(scenario.cheaters) - set(KINDS):
        raise FairboardError(f"There is no way to cheat called {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}.")
    kind = np.repeat(np.arange(len(NAMES), dtype=np.int8), [scenario.cheaters.get(name, 0) for name in NAMES])
    starts = scenario.cheating_starts
    earliest = (starts.first - scenario.days.first).days
    before = players.plays * players.events * (earliest - np.maximum(players.joined, 0))
    before[players.left < len(scenario.days)] = -1.0
    known = np.flatnonzero(before >= _BASELINE_EVENTS)
    if len(known) < len(kind):
        known = np.argsort(-before, kind="stable")[: len(kind)]
    chosen = rng.permutation(known)[: len(kind)]
    start = rng.integers(earliest, earliest + len(starts), len(kind))
    return Cheaters(chosen, kind, start, rng.random(len(kind))).take(np.argsort(chosen))


def plan_cheats(plan: Plan, cheaters: Cheaters, index: int, rng: np.random.Generator) -> Plan:
    """The plan of exactly those cheaters, changed by their kind of cheating, for day number `index`."""
    since = cheaters.since(index)
    # Who starts to cheat, plays: a cheat that nobody used on its first day would be planted in name only.
    plan = replace(plan, events=np.where(since == 0, np.maximum(plan.events, _FIRST_DAY_EVENTS), plan.events))
    changed = []
    for code, name in enumerate(NAMES):
        who = np.flatnonzero(cheaters.kind == code)
        changed.append(KINDS[name](plan.take(who), since[who], cheaters.trait[who], rng))
    together = Plan.concatenated(changed)
    return together.take(np.argsort(together.player))
