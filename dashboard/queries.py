"""What the pages ask the lake: the one place with SQL and the one cache.

Every answer is keyed by the state of the files it was read from, so that a page shows a new partition as soon as it lies there;
the listing of the files itself is at most `LISTING_TTL_S` old. DuckDB aggregates; a page gets top rows and sums, never a table.
What does not belong here: anything drawn, and anything that writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import streamlit as st

from warehouse import stale
from warehouse.basis import behind
from warehouse.calendar import Calendar, Days, Window, WindowKind
from warehouse.database import reading
from warehouse.engine import DuckDBEngine
from warehouse.fairness.judgements import bind_event_scores
from warehouse.fairness.rules import BASELINE_DAYS
from warehouse.lake import Keys, Lake
from warehouse.revisions import Revision, diff, history
from warehouse.settings import Settings
from warehouse.stale import Stale
from warehouse.tables import (
    ACTIVITY_DAYS,
    DAILY_METRICS,
    EVENTS,
    FAIRNESS,
    LEADERBOARDS,
    PLAYER_DAYS,
    PROGRESSION,
    REJECTS,
    Table,
)

LISTING_TTL_S = 5
BEHIND_TTL_S = 30  # it asks for every partition of every table
ANSWER_TTL_S = 600
TOP = 100
SHOWN_ACTIVITIES = 5  # as many as the theme has colours


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition's keys, and a stamp that changes with its content."""

    keys: Keys
    stamp: str


@dataclass(frozen=True, slots=True)
class Board:
    """One leaderboard of the lake; with `at`, as the lake had it then."""

    window: str
    season: str
    start: date
    stamp: str
    at: datetime | None = None

    @property
    def keys(self) -> Keys:
        """Its partition of `leaderboards`."""
        return {"window_kind": self.window, "season": self.season, "window_start": self.start}


def partitions(settings: Settings, table: Table, at: datetime | None = None) -> tuple[Partition, ...]:
    """The table's partitions that hold files, now or then, sorted by key."""
    return _listing(settings, settings.lake_place, table.name, at, _table=table)


@st.cache_resource(ttl=LISTING_TTL_S, max_entries=32, show_spinner=False)
def _listing(_settings: Settings, root: str, table: str, at: datetime | None, _table: Table) -> tuple[Partition, ...]:
    with Lake(_settings, at=at) as lake:
        return tuple(
            Partition(keys, f"{root}/{table}/{[*keys.values()]}:{lake.fingerprint(_table, keys)}")
            for keys in lake.partitions(_table)
        )


def days_of(settings: Settings, table: Table) -> list[date]:
    """The days that a table has rows of, in order."""
    return [day for part in partitions(settings, table) if isinstance(day := part.keys["event_date"], date)]


@st.cache_data(ttl=ANSWER_TTL_S, max_entries=256, show_spinner="Reading the lake …")
def _answer(
    _settings: Settings,
    stamp: str,  # noqa: ARG001 (part of the cache's key)
    sql: str,
    _bind: Callable[[DuckDBEngine], None],
    parameters: dict[str, Any],
    _at: datetime | None = None,
) -> pl.DataFrame:
    """Run `sql` over what `_bind` made visible. `stamp` says what that is and in which state."""
    with DuckDBEngine(_settings, at=_at) as engine:
        _bind(engine)
        return pl.DataFrame(pl.from_arrow(engine.connection.sql(sql, params=parameters).to_arrow_table()))


def _over_days(settings: Settings, sql: str, table: Table, days: Days, **parameters: Any) -> pl.DataFrame:
    stamp = f"{days}" + "".join(part.stamp for part in partitions(settings, table) if part.keys["event_date"] in days)
    return _answer(settings, stamp, sql, lambda engine: engine.bind(table, days), parameters)


def _over_board(settings: Settings, sql: str, board: Board, **parameters: Any) -> pl.DataFrame:
    def bind(engine: DuckDBEngine) -> None:
        engine.bind_files(LEADERBOARDS, engine.lake.of(LEADERBOARDS, board.keys), "board")

    return _answer(settings, board.stamp, sql, bind, parameters, board.at)


# The whole


def daily_totals(settings: Settings, days: Days) -> pl.DataFrame:
    """Per day with events: event_date, players, events, xp, boss_kills."""
    return _over_days(
        settings,
        "SELECT event_date, count(*) AS players, CAST(sum(events) AS BIGINT) AS events,"
        " CAST(greatest(least(sum(xp), 9223372036854775807), -9223372036854775807) AS BIGINT) AS xp,"
        " CAST(sum(boss_kills) AS BIGINT) AS boss_kills"
        " FROM player_days GROUP BY event_date ORDER BY event_date",
        PLAYER_DAYS,
        days,
    )


def last_event(settings: Settings, day: date) -> int | None:
    """When the latest event of `day` happened (s since the epoch)."""
    rows = _over_days(settings, "SELECT max(last_ts) AS ts FROM player_days", PLAYER_DAYS, Days(day, day))
    ts: int | None = rows["ts"][0]
    return ts


@st.cache_data(ttl=BEHIND_TTL_S, max_entries=8, show_spinner=False)
def overdue(_settings: Settings, root: str) -> tuple[list[Stale], str]:  # noqa: ARG001 (`root` is part of the key)
    """What is not what would be computed now and should be by now, and the command that computes it."""
    with DuckDBEngine(_settings) as engine:
        owed = stale.overdue(engine, behind(engine))
        return stale.ranges(engine, owed), stale.todo(owed)


def rejects_by_reason(settings: Settings, days: Days) -> pl.DataFrame:
    """Refused events of those days: field, reason, refused, last_request; the most frequent first."""
    return _over_days(
        settings,
        "SELECT field, reason, count(*) AS refused, arg_max(request_id, received_ms) AS last_request"
        " FROM rejects GROUP BY field, reason ORDER BY refused DESC, reason LIMIT $limit",
        REJECTS,
        days,
        limit=TOP,
    )


# Progression


def levels_reached(settings: Settings, day: date) -> pl.DataFrame:
    """Players active on `day` by their level at its end: level, players."""
    sql = "SELECT level_after AS level, count(*) AS players FROM progression GROUP BY level ORDER BY level"
    return _over_days(settings, sql, PROGRESSION, Days(day, day))


def progress_totals(settings: Settings, day: date) -> dict[str, Any]:
    """The day in figures: players, xp, level_ups, top_level."""
    rows = _over_days(
        settings,
        "SELECT count(*) AS players, CAST(sum(xp_gained) AS DOUBLE) AS xp,"
        " CAST(sum(greatest(level_ups, 0)) AS BIGINT) AS level_ups, max(level_after) AS top_level FROM progression",
        PROGRESSION,
        Days(day, day),
    )
    return rows.row(0, named=True)


def biggest_gains(settings: Settings, day: date, limit: int = 10) -> pl.DataFrame:
    """The rows of `progression` with the most XP won on `day`."""
    sql = "SELECT * FROM progression ORDER BY xp_gained DESC, player_id LIMIT $limit"
    return _over_days(settings, sql, PROGRESSION, Days(day, day), limit=limit)


def player_progress(settings: Settings, player: str) -> pl.DataFrame:
    """A player's rows of `progression`, in order of days."""
    days = days_of(settings, PROGRESSION)
    sql = "SELECT * FROM progression WHERE player_id = $player ORDER BY event_date"
    return _over_days(settings, sql, PROGRESSION, Days(days[0], days[-1]), player=player)


def similar_players(settings: Settings, text: str, day: date) -> list[str]:
    """Players of the week up to `day` whose id contains `text`, case ignored; ten at most."""
    sql = (
        "SELECT DISTINCT player_id FROM player_days WHERE contains(lower(player_id), lower($text))"
        " ORDER BY length(player_id), player_id LIMIT 10"
    )
    rows = _over_days(settings, sql, PLAYER_DAYS, Days(day - timedelta(days=6), day), text=text)
    return rows["player_id"].to_list()


# Fairness


def verdicts(settings: Settings, day: date) -> pl.DataFrame:
    """The day's judgements per rule: rule, rule_version, threshold, players, flagged, clear, insufficient."""
    return _over_days(
        settings,
        "SELECT rule, max(rule_version) AS rule_version, max(threshold) AS threshold, count(*) AS players,"
        " count(*) FILTER (WHERE verdict = 'flagged') AS flagged, count(*) FILTER (WHERE verdict = 'clear') AS clear,"
        " count(*) FILTER (WHERE verdict = 'insufficient data') AS insufficient"
        " FROM fairness GROUP BY rule ORDER BY rule",
        FAIRNESS,
        Days(day, day),
    )


def judged(settings: Settings, day: date, rule: str | None, verdict: str, limit: int = TOP) -> pl.DataFrame:
    """Rows of `fairness` with that verdict, the smallest p first. `rule` None means every rule."""
    return _over_days(
        settings,
        "SELECT * FROM fairness WHERE verdict = $verdict AND ($rule IS NULL OR rule = $rule)"
        " ORDER BY p NULLS LAST, abs(z) DESC NULLS LAST, player_id, rule LIMIT $limit",
        FAIRNESS,
        Days(day, day),
        verdict=verdict,
        rule=rule,
        limit=limit,
    )


def player_judgements(settings: Settings, player: str, days: Days) -> pl.DataFrame:
    """A player's rows of `fairness` over those days."""
    sql = "SELECT * FROM fairness WHERE player_id = $player ORDER BY event_date, rule"
    return _over_days(settings, sql, FAIRNESS, days, player=player)


def events_by_id(settings: Settings, day: date, ids: list[str]) -> pl.DataFrame:
    """Those events of `day`, with the columns of `events`, in the order of the ids."""
    sql = "SELECT * FROM events WHERE list_contains($ids, event_id) ORDER BY list_position($ids, event_id)"
    return _over_days(settings, sql, EVENTS, Days(day, day), ids=ids)


def scored_events(settings: Settings, player: str, day: date) -> pl.DataFrame:
    """A player's XP events of `day`, by each rule: event_id, ts, delta_xp, activity, z and what z was measured by."""
    day_only, before = Days(day, day), Days(day - timedelta(days=BASELINE_DAYS), day)
    stamp = f"scores {settings.rules_file.stat().st_mtime_ns} {day}" + "".join(
        part.stamp
        for table, days in ((EVENTS, day_only), (PLAYER_DAYS, before))
        for part in partitions(settings, table)
        if part.keys["event_date"] in days
    )
    sql = (
        "SELECT s.rule, s.version, e.ts, s.delta_xp, e.activity, s.event_id, s.z, s.mean, s.sd, s.threshold"
        " FROM event_scores AS s JOIN events AS e ON e.event_date = s.event_date AND e.event_id = s.event_id"
        " WHERE s.player_id = $player AND e.player_id = $player ORDER BY s.rule, e.ts, s.event_id"
    )
    return _answer(settings, stamp, sql, lambda engine: bind_event_scores(engine, day_only), {"player": player})


# Leaderboards


def boards(settings: Settings, at: datetime | None = None) -> list[Board]:
    """Every board of the lake, now or then, the latest start first.

    Raises:
        FairboardError: that is not kept any more.
    """
    found = [
        Board(str(keys["window_kind"]), str(keys["season"]), start, part.stamp, at)
        for part in partitions(settings, LEADERBOARDS, at)
        if isinstance(start := (keys := part.keys)["window_start"], date)
    ]
    return sorted(found, key=lambda board: board.start, reverse=True)


def board_figures(settings: Settings, board: Board) -> dict[str, Any]:
    """The board in figures: players, as_of, leader_xp, boss_kills."""
    rows = _over_board(
        settings,
        "SELECT count(*) AS players, max(as_of) AS as_of, max(xp) AS leader_xp, CAST(sum(boss_kills) AS BIGINT) AS boss_kills"
        " FROM board",
        board,
    )
    return rows.row(0, named=True)


def ranks(settings: Settings, board: Board, first: int, last: int) -> pl.DataFrame:
    """The rows of a board from rank `first` to rank `last`."""
    sql = "SELECT * FROM board WHERE rank BETWEEN $first AND $last ORDER BY rank"
    return _over_board(settings, sql, board, first=first, last=last)


def rank_of(settings: Settings, board: Board, player: str) -> int | None:
    """A player's rank on a board, None where the player is not on it."""
    rows = _over_board(settings, "SELECT rank FROM board WHERE player_id = $player", board, player=player)
    return rows["rank"][0] if rows.height else None


def window_of(settings: Settings, board: Board) -> Window:
    """The window that a board is of."""
    return Calendar.of(settings).window_at(WindowKind(board.window), board.start)


@st.cache_data(ttl=LISTING_TTL_S, max_entries=64, show_spinner=False, hash_funcs={Window: repr})
def revisions(_settings: Settings, root: str, window: Window) -> list[Revision]:  # noqa: ARG001 (`root` is part of the key)
    """What a closed board was published with, the newest first; of a running one nothing."""
    with reading(_settings) as connection:
        return history(connection, window)


@st.cache_data(ttl=ANSWER_TTL_S, max_entries=64, show_spinner="Comparing the boards …", hash_funcs={Window: repr})
def revision_diff(_settings: Settings, root: str, window: Window, revision: int) -> pl.DataFrame:  # noqa: ARG001 (as above)
    """Who differs from the revision before, the first `TOP`, with the columns of `warehouse.revisions.diff`."""
    with reading(_settings) as connection, Lake(_settings) as lake:
        return diff(lake, connection, window, revision).head(TOP)


def whole_board(settings: Settings, board: Board) -> pl.DataFrame:
    """The whole board: read when somebody asks for it."""
    return ranks(settings, board, 1, 2**62)


# Metrics


def metrics(settings: Settings, names: list[str], days: Days) -> pl.DataFrame:
    """The game's metrics of those names: event_date, metric, value."""
    sql = (
        "SELECT event_date, metric, value FROM daily_metrics WHERE subject = '' AND list_contains($names, metric)"
        " ORDER BY event_date, metric"
    )
    return _over_days(settings, sql, DAILY_METRICS, days, names=names)


def retention(settings: Settings, days: Days) -> pl.DataFrame:
    """Of cohorts whose first day is in the range, as far as it is known: cohort, n (days since), players, returned, value."""
    sql = (
        "SELECT CAST(event_date - CAST(subject AS INTEGER) AS DATE) AS cohort, CAST(subject AS INTEGER) AS n,"
        " denominator AS players, numerator AS returned, value FROM daily_metrics"
        " WHERE metric = 'retention' AND event_date - CAST(subject AS INTEGER) >= $first ORDER BY cohort, n"
    )
    return _over_days(settings, sql, DAILY_METRICS, days, first=days.first)


def levels(settings: Settings, day: date) -> pl.DataFrame:
    """The day by level: level, players (at its end), level_ups, days_to_level."""
    columns = ", ".join(
        f"CAST(max(numerator) FILTER (WHERE metric = '{metric}') AS BIGINT) AS {name}"
        for metric, name in (("players_at_level", "players"), ("level_ups", "level_ups"), ("days_to_level", "days_to_level"))
    )
    sql = (
        f"SELECT CAST(subject AS INTEGER) AS level, {columns} FROM daily_metrics"  # noqa: S608 - our own names
        " WHERE metric IN ('players_at_level', 'level_ups', 'days_to_level') GROUP BY level ORDER BY level"
    )
    return _over_days(settings, sql, DAILY_METRICS, Days(day, day))


def xp_by_activity(settings: Settings, days: Days) -> pl.DataFrame:
    """XP by day and activity, the biggest first and the small ones as `other`: event_date, activity, place, xp, events."""
    sql = """
        WITH ranked AS (
            SELECT activity, row_number() OVER (ORDER BY sum(xp) DESC, activity) AS place
            FROM activity_days WHERE type = 'progression' GROUP BY activity
        )
        SELECT event_date, CASE WHEN place <= $shown THEN activity ELSE 'other' END AS activity, min(place) AS place,
            CAST(sum(xp) AS DOUBLE) AS xp, CAST(sum(events) AS BIGINT) AS events
        FROM activity_days JOIN ranked USING (activity) WHERE type = 'progression'
        GROUP BY event_date, CASE WHEN place <= $shown THEN activity ELSE 'other' END ORDER BY event_date, place
    """
    return _over_days(settings, sql, ACTIVITY_DAYS, days, shown=SHOWN_ACTIVITIES)


def kills(settings: Settings, day: date) -> pl.DataFrame:
    """The rows of `activity_days` about kills, by boss, difficulty and party; the most frequent `TOP` groups."""
    sql = (
        "SELECT * FROM (SELECT * FROM activity_days WHERE type = 'boss_kill' ORDER BY events DESC, boss_id LIMIT $limit)"
        " ORDER BY boss_id, difficulty, party_size"
    )
    return _over_days(settings, sql, ACTIVITY_DAYS, Days(day, day), limit=TOP)


def drop_rates(settings: Settings, days: Days) -> pl.DataFrame:
    """Drops per kill over those days: boss_id, item_id, rarity, events (drops), kills, rate; the most frequent `TOP`."""
    sql = """
        WITH kills AS (
            SELECT boss_id, sum(events) AS kills FROM activity_days WHERE type = 'boss_kill' AND boss_id <> '' GROUP BY boss_id
        )
        SELECT boss_id, item_id, rarity, CAST(sum(events) AS BIGINT) AS events, CAST(any_value(kills) AS BIGINT) AS kills,
            sum(events) / any_value(kills) AS rate
        FROM activity_days JOIN kills USING (boss_id) WHERE type = 'drop_claimed'
        GROUP BY ALL ORDER BY events DESC, boss_id, item_id, rarity LIMIT $limit
    """
    return _over_days(settings, sql, ACTIVITY_DAYS, days, limit=TOP)
