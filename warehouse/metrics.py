"""The definitions of `daily_metrics`: what each metric means, its unit, its formula.

One description for `docs/metrics.md` and the dashboard's help. What does not belong here: how they are computed
(`models/daily_metrics.sql`).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `subject` and `detail` say what those columns hold; empty where the metric is of the game as a whole.

    In a formula, D is the day of the row, and active means with an event of any type.
    """

    name: str
    unit: str
    doc: str
    formula: str
    subject: str = ""
    detail: str = ""


METRICS = {
    metric.name: metric
    for metric in (
        Metric("dau", "players", "Daily active users: players with an event on the day.", "|active on D|"),
        Metric("wau", "players", "Weekly active users, over the 7 days that end with the day.", "|active in D-6 … D|"),
        Metric("mau", "players", "Monthly active users, over the 30 days that end with the day.", "|active in D-29 … D|"),
        Metric("stickiness", "ratio", "Share of the month's players who came on the day.", "DAU / MAU"),
        Metric("new_players", "players", "Players whose first day ever is this one.", "|active on D, never before|"),
        Metric("returning_players", "players", "Players of the day who had played before.", "DAU - new players"),
        Metric(
            "retention",
            "ratio",
            "Classic (day-N) retention: of the players whose first day was N days ago, the share who came today, N = 1 … 30. "
            "D1, D7 and D30 are subjects 1, 7 and 30; the cohort's day is event_date - N.",
            "|first day D-N, active on D| / |first day D-N|",
            subject="days since the first day, N",
        ),
        Metric(
            "sessions",
            "sessions",
            "Sessions that began on the day. A pause of more than 30 minutes begins another; midnight does not.",
            "|events more than 1,800 s after the player's last one|",
        ),
        Metric("sessions_per_player", "sessions/player", "How often a player of the day came.", "sessions / DAU"),
        Metric(
            "session_length",
            "s",
            "Mean session: time played on the day, from first to last event, by the sessions that began on it. "
            "A session of one event lasts 0 s.",
            "Σ pauses of at most 1,800 s before events of D / sessions",
        ),
        Metric(
            "players_at_level",
            "players",
            "Level distribution: players of the day by their level at its end.",
            "|active on D, level L at the end of D|",
            subject="level, L",
        ),
        Metric(
            "level_ups",
            "players",
            "Players who passed a level on the day; again where a correction had taken it.",
            "|level before D < L ≤ level after D|",
            subject="level, L",
        ),
        Metric(
            "days_to_level",
            "days",
            "Time to level: days from a player's first day to the one on which they passed the level; 0 on the first. "
            "Median (nearest rank) over those who passed it on the day.",
            "median(D - first day) over level_ups",
            subject="level, L",
        ),
        Metric(
            "drop_rate",
            "drops/kill",
            "How often a boss dropped an item. Above 1 where a kill drops more than one.",
            "drops of the item by the boss on D / kills of the boss on D",
            subject="boss",
            detail="item",
        ),
        Metric(
            "rarity_rate",
            "drops/kill",
            "How often a boss dropped an item of a rarity.",
            "drops of the rarity by the boss on D / kills of the boss on D",
            subject="boss",
            detail="rarity",
        ),
    )
}
