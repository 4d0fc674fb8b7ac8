"""A seeded game: players who play, and some who cheat, with the truth kept apart from the events.

Used by `fairboard demo` and `fairboard simulate`, by the benchmarks and by the fairness benchmark (docs/simulation.md).
What does not belong here: HTTP, scoring, anything that reads a clock.
"""

from pipelines.simulation.cheats import KINDS
from pipelines.simulation.game import Simulation, land, wire
from pipelines.simulation.scenario import Scenario, demo_scenario

__all__ = ["KINDS", "Scenario", "Simulation", "demo_scenario", "land", "wire"]
