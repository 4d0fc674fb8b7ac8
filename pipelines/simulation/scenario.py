"""What is simulated: how many players, which days, which seed, who cheats, and what happens to everyone.

What does not belong here: how players behave (`players.py`) or cheat (`cheats.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from warehouse.calendar import Days
from warehouse.errors import FairboardError

DEMO_PLAYERS = 3_000
DEMO_DAYS = 5


@dataclass(frozen=True)
class Scenario:
    """The same scenario gives the same events, byte for byte.

    `events_per_player_day` is the mean over all players and days, those not yet there or not playing included.
    `cheaters` gives the number of players per kind (`KINDS`); each starts on a day of `cheats_from`, by default of the
    third quarter of the range. `newcomers` is the share of players who arrive during the range.
    """

    players: int
    days: Days
    seed: int = 1
    events_per_player_day: float = 5.0
    cheaters: Mapping[str, int] = field(default_factory=dict)
    cheats_from: Days | None = None
    newcomers: float = 0.1
    corrections: float = 1 / 2000
    weekends: bool = True
    double_xp: Days | None = None
    patch_day: date | None = None

    def __post_init__(self) -> None:
        if self.players < 1 or self.events_per_player_day <= 0 or self.seed < 0:
            raise FairboardError("A scenario needs players, events and a seed of 0 or more; nothing was simulated.")
        if sum(self.cheaters.values()) > self.players:
            raise FairboardError(f"{sum(self.cheaters.values())} cheaters are more than {self.players} players.")
        if self.cheats_from and not {self.cheats_from.first, self.cheats_from.last} <= set(self.days):
            raise FairboardError(f"Cheating starts on {self.cheats_from}, which is not within {self.days}.")

    @property
    def cheating_starts(self) -> Days:
        """The days on which a cheater may begin."""
        if self.cheats_from:
            return self.cheats_from
        half, three_quarters = len(self.days) // 2, max(len(self.days) * 3 // 4 - 1, len(self.days) // 2)
        return Days(self.days.first + timedelta(days=half), self.days.first + timedelta(days=three_quarters))


def demo_scenario(today: date, seed: int = 1) -> Scenario:
    """Five days that end today, 3,000 players, and twelve who cheat from today on."""
    return Scenario(
        players=DEMO_PLAYERS,
        days=Days(today - timedelta(days=DEMO_DAYS - 1), today),
        seed=seed,
        cheaters={"xp_x10": 6, "injection": 6},
        cheats_from=Days(today, today),
    )
