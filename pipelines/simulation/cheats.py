"""Who cheats and how: each kind is one small function that changes what a player means to do.

What does not belong here: what honest players do (`players.py`), how a plan becomes events (`play.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.simulation.players import Ints, Plan, Players
from pipelines.simulation.scenario import Scenario
from warehouse.errors import FairboardError

Cheat = Callable[[Plan, Ints, Ints, np.random.Generator], None]
_BASELINE_EVENTS = 50
_FIRST_DAY_EVENTS = 20
_INJECTS_AGAIN = 0.25


def multiplied(factor: float) -> Cheat:
    """XP times a constant."""

    def cheat(plan: Plan, who: Ints, _since: Ints, _rng: np.random.Generator) -> None:
        plan.xp_log[who] += np.log(factor)

    return cheat


def injection(plan: Plan, who: Ints, since: Ints, rng: np.random.Generator) -> None:
    """One to three events of some hundred times the usual XP: on the first day, and on one day in four after it."""
    again = (since == 0) | (rng.random(len(who)) < _INJECTS_AGAIN)
    plan.windfalls[who] = np.where(again, rng.integers(1, 4, len(who)), 0)
    plan.windfall_xp[who] = np.exp(rng.uniform(np.log(200), np.log(2000), len(who)))


KINDS: dict[str, Cheat] = {
    "xp_x1.5": multiplied(1.5),
    "xp_x3": multiplied(3.0),
    "xp_x10": multiplied(10.0),
    "injection": injection,
}


@dataclass(frozen=True)
class Cheaters:
    """The planted truth: parallel arrays, ordered by player."""

    player: Ints
    kind: tuple[str, ...]
    start: Ints  # index of the first day they cheat


def draw_cheaters(scenario: Scenario, players: Players, rng: np.random.Generator) -> Cheaters:
    """Choose who cheats: among those who will have played enough before to be known, the most active where too few have."""
    if unknown := set(scenario.cheaters) - set(KINDS):
        raise FairboardError(f"There is no way to cheat called {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}.")
    kinds = [kind for kind in sorted(scenario.cheaters) for _ in range(scenario.cheaters[kind])]
    starts = scenario.cheating_starts
    earliest = (starts.first - scenario.days.first).days
    expected = players.plays * players.events * (earliest - np.maximum(players.joined, 0))
    known = np.flatnonzero(expected >= _BASELINE_EVENTS)
    if len(known) < len(kinds):
        known = np.argsort(-expected, kind="stable")[: len(kinds)]
    chosen = rng.permutation(known)[: len(kinds)]
    start = rng.integers(earliest, earliest + len(starts), len(kinds))
    order = np.argsort(chosen)
    return Cheaters(chosen[order], tuple(kinds[at] for at in order), start[order])


def plan_cheats(plan: Plan, cheaters: Cheaters, index: int, rng: np.random.Generator) -> None:
    """Change the plans of cheaters (a plan of exactly those `cheaters`) for day number `index`."""
    since = index - cheaters.start
    # Who starts to cheat, plays: a cheat that is not used on its first day would be planted in name only.
    plan.events[:] = np.where(since == 0, np.maximum(plan.events, _FIRST_DAY_EVENTS), plan.events)
    for kind, cheat in KINDS.items():
        who = np.flatnonzero(np.array(cheaters.kind) == kind)
        if len(who):
            cheat(plan, who, since[who], rng)
