"""The contract of every table in the lake: grain, key, partition, columns, units.

This one description serves the Parquet writer, the scans, the asset checks, Dagster's column schema, `docs/tables.md` and the
dashboard's help texts. What does not belong here: how a table is computed (`models/`), or where it lies (`lake.py`).
"""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

DUCKDB_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.decimal128(38, 0): "DECIMAL(38,0)",
    pa.list_(pa.string()): "VARCHAR[]",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `unit` is empty where the type says it all."""

    name: str
    type: pa.DataType
    doc: str
    unit: str = ""
    nullable: bool = False

    @property
    def sql_type(self) -> str:
        """The column's type in DuckDB's dialect."""
        return DUCKDB_TYPES[self.type]


@dataclass(frozen=True)
class Table:
    """One table of the lake.

    `partition` names the columns that are folders (Hive style) and not in the files, the date last; `sort` is the order
    inside a file that a fold writes; sealed files of `events` stand in the order of arrival until they are compacted.
    """

    name: str
    grain: str
    doc: str
    key: tuple[str, ...]
    partition: tuple[str, ...]
    sort: tuple[str, ...]
    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        """All columns, those of the partition included."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @property
    def date_column(self) -> str:
        """The partition's date: the day, or the first day of the month or window."""
        return self.partition[-1]

    @cached_property
    def file_schema(self) -> pa.Schema:
        """The columns inside a file."""
        return pa.schema([field for field in self.schema if field.name not in self.partition])


TEXT, INT, REAL, DAY = pa.string(), pa.int64(), pa.float64(), pa.date32()

_DAY = Column("event_date", DAY, "Day of the event in the deployment's time zone.")
_PLAYER = Column("player_id", TEXT, "The player.")
_RECEIVED = Column("received_ms", INT, "When the event arrived.", "ms since the epoch")
_KEY_ID = Column("key_id", TEXT, "Id of the key that signed it; `import` for imported history.")

EVENTS = Table(
    "events",
    grain="accepted event; a file may hold a copy of an id that another file holds, the `events` model leaves one",
    doc="What the game sent, as it was accepted, on the day it happened.",
    key=("event_date", "event_id"),
    partition=("event_date",),
    sort=("player_id", "ts", "event_id"),
    columns=(
        _DAY,
        Column("event_id", TEXT, "The client's eventId, or one derived from the request (see docs/events.md)."),
        Column("type", TEXT, "`progression`, `boss_kill` or `drop_claimed`."),
        _PLAYER,
        Column("ts", INT, "When it happened.", "s since the epoch, UTC"),
        _RECEIVED,
        _KEY_ID,
        Column("delta_xp", INT, "XP won, or corrected where negative. Only progression's moves XP.", "XP", True),
        Column("activity", TEXT, "What the XP was for.", nullable=True),
        Column("boss_id", TEXT, "The boss.", nullable=True),
        Column("duration_ms", INT, "How long the kill took.", "ms", True),
        Column("party_size", INT, "Players in the party.", "players", True),
        Column("difficulty", TEXT, "Difficulty of the fight.", nullable=True),
        Column("item_id", TEXT, "The item dropped.", nullable=True),
        Column("rarity", TEXT, "Rarity of the item.", nullable=True),
        Column("quantity", INT, "How many.", "items", True),
        Column("extra", TEXT, "Unknown fields of event and payload, as a JSON object.", nullable=True),
    ),
)

REJECTS = Table(
    "rejects",
    grain="refused event",
    doc="Dead letters: what was refused, why, and the bytes as they came. `event_date` is the day it arrived; of an id that "
    "came again with other content, the day of the event.",
    key=(),
    partition=("event_date",),
    sort=("received_ms", "position"),
    columns=(
        _DAY,
        _RECEIVED,
        _KEY_ID,
        Column("request_id", TEXT, "X-Request-ID of the request, or the imported file."),
        Column("position", INT, "Index in the batch, or line of the imported file."),
        Column("field", TEXT, "JSON path of the offending value; empty for the event as a whole."),
        Column("reason", TEXT, "Why it was refused."),
        Column("event_id", TEXT, "Its id, where one could be read.", nullable=True),
        Column("body", TEXT, "The event's JSON; bytes that are no UTF-8 stand as \\x escapes."),
    ),
)

PLAYER_DAYS = Table(
    "player_days",
    grain="player and day",
    doc="A day's events folded once: mergeable sums that progress, boards and baselines are folds of.",
    key=("event_date", "player_id"),
    partition=("event_date",),
    sort=("player_id",),
    columns=(
        _DAY,
        _PLAYER,
        Column("events", INT, "Events of every type.", "events"),
        Column("first_ts", INT, "First event.", "s since the epoch"),
        Column("last_ts", INT, "Last event.", "s since the epoch"),
        Column("active_minutes", INT, "Distinct minutes with an event.", "min"),
        Column(
            "active_hours", INT, "Distinct hours of the deployment's clock with an event; one that it shows twice is one.", "h"
        ),
        Column("sessions", INT, "Sessions: a pause of more than 30 minutes, or midnight, begins another.", "sessions"),
        Column("session_seconds", INT, "Σ over the sessions, from first to last event.", "s"),
        Column("xp", INT, "Sum of progression's delta_xp; saturates at 64 bits.", "XP"),
        Column("xp_events", INT, "Progression events.", "events"),
        Column("xp_first_ts", INT, "First progression event.", "s since the epoch", True),
        Column(
            "xp_changed_ts",
            INT,
            "Last progression event that moved XP: since then the day's XP stands.",
            "s since the epoch",
            True,
        ),
        Column("xp_sum", pa.decimal128(38, 0), "Σx over progression, x = delta_xp clipped to ±(2^31-1).", "XP"),
        Column("xp_sum_sq", pa.decimal128(38, 0), "Σx² of the same x: exact, cannot overflow.", "XP²"),
        Column("gain_events", INT, "Progression events with delta_xp above 0.", "events"),
        Column(
            "log_sum_e6",
            INT,
            "Σ round(10⁶·ln x) over gains: integers, so that any order of adding gives the same sum.",
            "10⁻⁶ ln XP",
        ),
        Column("log_sum_sq_e6", INT, "Σ round(10⁶·ln² x) over gains.", "10⁻⁶ ln² XP"),
        Column("gain_max", INT, "The largest gain.", "XP", True),
        Column("gain_min", INT, "The smallest gain.", "XP", True),
        Column("gaps", INT, "Intervals between one event and the player's next, drops apart.", "intervals"),
        Column("gap_log_sum_e6", INT, "Σ round(10⁶·ln g) over gaps, g in seconds, at least 1.", "10⁻⁶ ln s"),
        Column("gap_log_sum_sq_e6", INT, "Σ round(10⁶·ln² g) over gaps.", "10⁻⁶ ln² s"),
        Column("boss_kills", INT, "boss_kill events.", "events"),
        Column("drops", INT, "drop_claimed events.", "events"),
    ),
)

PLAYER_MONTHS = Table(
    "player_months",
    grain="player and calendar month; the newest month that has events is not rolled up yet",
    doc="A month's player_days folded once more: long boards and totals read a month as one row.",
    key=("month_start", "player_id"),
    partition=("month_start",),
    sort=("player_id",),
    columns=(
        Column("month_start", DAY, "First day of the month."),
        _PLAYER,
        Column("active_days", INT, "Days with events of every type.", "days"),
        Column("first_date", DAY, "First of them."),
        Column("last_date", DAY, "Last of them."),
        Column("events", INT, "Events of every type.", "events"),
        Column("xp", pa.decimal128(38, 0), "Sum of the days' xp: exact, a month of days that saturate included.", "XP"),
        Column("xp_events", INT, "Progression events.", "events"),
        Column("xp_first_ts", INT, "First progression event.", "s since the epoch", True),
        Column("xp_changed_ts", INT, "Last progression event that moved XP.", "s since the epoch", True),
        Column("boss_kills", INT, "boss_kill events.", "events"),
        Column("drops", INT, "drop_claimed events.", "events"),
    ),
)

ACTIVITY_DAYS = Table(
    "activity_days",
    grain="day, type of event and what it was about: activity, or boss, difficulty and party, or boss, item and rarity",
    doc="What was played on a day: XP by activity, kills and their times by boss, drops by boss and item. "
    "Rows of one `type` add up; `players`, medians and p90 do not.",
    key=("event_date", "type", "activity", "boss_id", "difficulty", "party_size", "item_id", "rarity"),
    partition=("event_date",),
    sort=("type", "activity", "boss_id", "difficulty", "party_size", "item_id", "rarity"),
    columns=(
        _DAY,
        Column("type", TEXT, "`progression`, `boss_kill` or `drop_claimed`."),
        Column("activity", TEXT, "What the XP of progression was for; empty for other types."),
        Column("boss_id", TEXT, "The boss killed, or that dropped the item; empty where none was named."),
        Column("difficulty", TEXT, "Difficulty of the kill; empty where none was named."),
        Column("party_size", INT, "Players in the party that killed; 0 where it was not said.", "players"),
        Column("item_id", TEXT, "The item dropped; empty where none was named."),
        Column("rarity", TEXT, "Rarity of the item; empty where none was named."),
        Column("events", INT, "Events.", "events"),
        Column("players", INT, "Different players.", "players"),
        Column("xp", INT, "Sum of progression's delta_xp.", "XP"),
        Column("quantity", INT, "Items claimed; a drop without a quantity is one.", "items"),
        Column("timed_kills", INT, "Kills with a duration.", "events"),
        Column("duration_median_ms", INT, "Median of their durations (nearest rank).", "ms", True),
        Column("duration_p90_ms", INT, "90th percentile of their durations (nearest rank).", "ms", True),
    ),
)

PLAYER_BOSS_DAYS = Table(
    "player_boss_days",
    grain="player, day, boss, difficulty and party size",
    doc="A day's boss kills folded once: what kill times and drop rates are measured by.",
    key=("event_date", "player_id", "boss_id", "difficulty", "party_size"),
    partition=("event_date",),
    sort=("player_id", "boss_id", "difficulty", "party_size"),
    columns=(
        _DAY,
        _PLAYER,
        Column("boss_id", TEXT, "The boss; empty where the event names none."),
        Column("difficulty", TEXT, "Difficulty of the fight; empty where the event names none."),
        Column("party_size", INT, "Players in the party; 0 where the event says nothing.", "players"),
        Column("kills", INT, "boss_kill events.", "events"),
        Column("fastest_ms", INT, "The shortest of them; NULL where none says how long it took.", "ms", True),
    ),
)

PLAYER_ITEM_DAYS = Table(
    "player_item_days",
    grain="player, day, boss and item",
    doc="A day's claimed drops folded once.",
    key=("event_date", "player_id", "boss_id", "item_id"),
    partition=("event_date",),
    sort=("player_id", "boss_id", "item_id"),
    columns=(
        _DAY,
        _PLAYER,
        Column("boss_id", TEXT, "The boss that dropped it; empty where the event names none."),
        Column("item_id", TEXT, "The item; empty where the event names none."),
        Column("drops", INT, "drop_claimed events.", "events"),
    ),
)

PROGRESSION = Table(
    "progression",
    grain="player and day active",
    doc="How far every player is at the end of each day they played.",
    key=("event_date", "player_id"),
    partition=("event_date",),
    sort=("player_id",),
    columns=(
        _DAY,
        _PLAYER,
        Column("xp_gained", INT, "XP of the day.", "XP"),
        Column("xp_total", INT, "XP since the beginning.", "XP"),
        Column("level_before", INT, "Level at the start of the day.", "level"),
        Column("level_after", INT, "Level at the end of the day.", "level"),
        Column("level_ups", INT, "Levels won on the day; negative where a correction took some.", "levels"),
        Column("xp_to_next", INT, "XP missing to the next level; NULL at the last.", "XP", True),
    ),
)

LEADERBOARDS = Table(
    "leaderboards",
    grain="window and player",
    doc="Who leads, in every window, without those whom a verdict excludes from a day of it. Equal XP is ordered by who "
    "reached it first, then by player id.",
    key=("window_kind", "season", "window_start", "player_id"),
    partition=("window_kind", "season", "window_start"),
    sort=("rank",),
    columns=(
        Column("window_kind", TEXT, "`daily`, `weekly`, `seasonal` or `alltime`."),
        Column("season", TEXT, "Season's id; `all` for the all-time board."),
        Column("window_start", DAY, "First day of the window."),
        Column("as_of", DAY, "Last day with events that the board has counted."),
        Column("rank", INT, "1 for the leader; no two players share one."),
        _PLAYER,
        Column("xp", INT, "XP won in the window.", "XP"),
        Column("boss_kills", INT, "Bosses killed in the window.", "events"),
        Column("reached_ts", INT, "Since when the XP stands: the first to reach it leads.", "s since the epoch"),
        Column(
            "previous_rank",
            INT,
            "Rank at the end of the day before `as_of`; of a daily board, on the day before.",
            nullable=True,
        ),
        Column("movement", INT, "previous_rank - rank: above 0 is up; NULL for the newly ranked.", "ranks", True),
    ),
)

LEADERBOARD_REVISIONS = Table(
    "leaderboard_revisions",
    grain="closed window, revision and player",
    doc="Every board that a closed window was published with, whole and never changed. When and why: `board_revisions` in SQL.",
    key=("window_kind", "season", "window_start", "revision", "player_id"),
    partition=("window_kind", "season", "window_start", "revision"),
    sort=("rank",),
    columns=(
        Column("window_kind", TEXT, "`daily`, `weekly` or `seasonal`."),
        Column("season", TEXT, "Season's id."),
        Column("window_start", DAY, "First day of the window."),
        Column("revision", INT, "1 for the first publication after the window closed."),
        Column("rank", INT, "1 for the leader."),
        _PLAYER,
        Column("xp", INT, "XP won in the window.", "XP"),
    ),
)

FAIRNESS = Table(
    "fairness",
    grain="player, day and rule",
    doc="Who played unlike a person, themselves or their like: each rule's judgement, and one suspicion of them all.",
    key=("event_date", "player_id", "rule"),
    partition=("event_date",),
    sort=("player_id", "rule"),
    columns=(
        _DAY,
        _PLAYER,
        Column("rule", TEXT, "Id of the rule (docs/fairness.md); `suspicion` combines those that have a p."),
        Column("rule_version", INT, "Version of the rule's thresholds."),
        Column("threshold", REAL, "Review threshold: `flagged` is beyond it; of |z| or of q, as the rule measures."),
        Column("verdict", TEXT, "`flagged`, `clear` or `insufficient data`."),
        Column("act", pa.bool_(), "Beyond the rule's act threshold too."),
        Column("tests", INT, "What was tested: events, kills, bosses; of `suspicion`, rules."),
        Column("observed", REAL, "The strongest observation, in the rule's unit.", nullable=True),
        Column("baseline_center", REAL, "Mean or median that it is measured by, in the rule's unit.", nullable=True),
        Column("baseline_spread", REAL, "Standard deviation or 1.4826 MAD, on the rule's scale.", nullable=True),
        Column("baseline_n", INT, "Observations in the baseline: events, players, kills, as the rule counts."),
        Column("baseline_from", DAY, "First day of the baseline."),
        Column("baseline_to", DAY, "Last day of the baseline."),
        Column("z", REAL, "(observed - center) / spread, on the rule's scale.", nullable=True),
        Column("p", REAL, "Chance of the like from an honest player.", nullable=True),
        Column("q", REAL, "p adjusted for all players of the day (Benjamini-Hochberg).", nullable=True),
        Column("share", REAL, "The rule's part in the player's suspicion; the parts add up to 1.", nullable=True),
        Column("evidence", pa.list_(TEXT), "Ids of the events behind a flag, strongest first, ten at most."),
    ),
)

DAILY_METRICS = Table(
    "daily_metrics",
    grain="day, metric, subject and detail",
    doc="How the game does, day by day: active players, retention, sessions, levels, drop rates; docs/metrics.md defines each. "
    "Days without any event have no rows.",
    key=("event_date", "metric", "subject", "detail"),
    partition=("event_date",),
    sort=("metric", "subject", "detail"),
    columns=(
        _DAY,
        Column("metric", TEXT, "Name of the metric."),
        Column("subject", TEXT, "What it is of: a level, a boss, days since the first; empty for the game as a whole."),
        Column("detail", TEXT, "Within the subject: an item, a rarity; empty where there is none."),
        Column("value", REAL, "numerator / denominator, or the numerator where there is no denominator.", "the metric's"),
        Column("numerator", INT, "What was counted."),
        Column("denominator", INT, "Out of what: ratios of several days are Σ numerator / Σ denominator.", nullable=True),
    ),
)

TABLES = {
    table.name: table
    for table in (
        EVENTS,
        REJECTS,
        PLAYER_DAYS,
        PLAYER_BOSS_DAYS,
        PLAYER_ITEM_DAYS,
        PLAYER_MONTHS,
        ACTIVITY_DAYS,
        PROGRESSION,
        LEADERBOARDS,
        LEADERBOARD_REVISIONS,
        FAIRNESS,
        DAILY_METRICS,
    )
}
