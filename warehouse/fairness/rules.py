"""The registered rules, and their thresholds as the rules file has them.

What belongs here: what a rule is called, asks and counts. What does not: how it is computed (`scores.py`).
"""

from dataclasses import dataclass
from datetime import date

import msgspec

from warehouse.engine import Engine, frame
from warehouse.errors import SettingsError

BASELINE_DAYS = 28
SUSPICION = "suspicion"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a rule asks. `unit` is that of `observed` and `baseline_center`; `counts` is what `baseline_n` and `min_n` count."""

    asks: str
    unit: str
    counts: str


RULES: dict[str, Rule] = {
    "self": Rule("Is a gain far from the player's own? The textbook z-score; it accuses the lucky.", "XP", "own XP events"),
    "self_log": Rule("The same on the log scale, less what the day did to everybody.", "XP", "own gains"),
    "self_day": Rule("Is the day's mean gain above the player's own days?", "XP", "own gains"),
    "cohort_xp_per_minute": Rule("More XP per active minute than players of like level?", "XP/min", "players alike"),
    "cohort_xp_per_event": Rule("More XP per gain than players of like level?", "XP", "players alike"),
    "cohort_kills_per_hour": Rule("More boss kills per active hour than players of like level?", "kills/h", "players alike"),
    "cohort_fastest_kill": Rule("A boss killed faster than players of like level do?", "ms", "players alike"),
    "regularity": Rule("Are the intervals between events too even for a person?", "spread of ln s", "intervals of the day"),
    "hours": Rule("More hours of the day than a person plays?", "h", "player-days of others"),
    "drops": Rule("More rare drops than everybody else's luck foretells?", "drops", "kills by others"),
    "boss_time": Rule("A boss killed faster than its party size and difficulty allow?", "ms", "fastest kills of the like"),
    SUSPICION: Rule("All rules that have a p, combined.", "rules", "rules that could judge"),
}


class Threshold(msgspec.Struct, frozen=True):
    """A rule's thresholds in force.

    `measure` says what `review` and `act` bound: `z` flags |z| above, `q` an adjusted p at or below. An empty `act` is off.
    Below `min_n` observations in the baseline the verdict is `insufficient data`.
    """

    rule: str
    version: int
    measure: str
    review: float
    act: float | None
    min_n: int
    changed_on: date
    changed_by: str
    reason: str


def check_small_tables(engine: Engine) -> None:
    """Read level curve, rewards and rules before anything is computed, of which some tables would be new and some old.

    Raises:
        SettingsError: one of them cannot be used; nothing was computed.
    """
    engine.bind_levels()
    engine.bind_rewards()
    thresholds(engine)


def thresholds(engine: Engine) -> dict[str, Threshold]:
    """The newest version of each rule, by id; binds `fairness_rules`.

    Raises:
        SettingsError: a rule is missing or unknown, or measures what it cannot.
    """
    engine.bind_rules()
    rows = frame(engine.query("SELECT * FROM fairness_rules")).to_dicts()
    where = f"FAIRBOARD_RULES_FILE: {engine.settings.rules_file}"
    try:
        found = {row["rule"]: msgspec.convert(row, Threshold) for row in rows}
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where} has an empty cell where none belongs ({error}); nothing was computed.") from None
    if set(found) != set(RULES):
        raise SettingsError(
            f"{where} must have every rule and no other; nothing was computed. "
            f"Missing: {sorted(set(RULES) - set(found))}, unknown: {sorted(set(found) - set(RULES))}."
        )
    for rule in found.values():
        if rule.measure != ("z" if rule.rule in ("self", "self_log") else "q"):
            raise SettingsError(f"{where}: {rule.rule} is measured by z or q as docs/fairness.md says, not {rule.measure!r}.")
        if not 0 < rule.review < (1 if rule.measure == "q" else float("inf")):
            raise SettingsError(f"{where}: {rule.rule} cannot have the review threshold {rule.review}; nothing was computed.")
    return found
