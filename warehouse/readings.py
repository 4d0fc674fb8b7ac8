"""Questions that people ask of the lake, answered once for the command line, the dashboard and the read API.

What does not belong here: how an answer is shown, and Redis (`boards.py`).
"""

import time
from dataclasses import dataclass
from datetime import date

import polars as pl

from warehouse.calendar import ONE_DAY, Days, Season, Window, WindowKind
from warehouse.engine import Engine, frame
from warehouse.errors import FairboardError
from warehouse.publisher import read_leaderboard
from warehouse.spans import History, bind_boards, days_of
from warehouse.tables import EVENTS, FAIRNESS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION


@dataclass(frozen=True, slots=True)
class Standing:
    """A window's board as it stood at the end of the day `at`: rows with the columns of `leaderboards`, by rank."""

    window: Window
    at: date
    board: pl.DataFrame


def last_day(engine: Engine, bound: date = date.max) -> date | None:
    """The last day up to `bound` and today that has been folded: minutes before midnight tomorrow may have its first event."""
    today = engine.calendar.day_of(int(time.time()))
    return max(days_of(engine, PLAYER_DAYS, Days(date.min, min(bound, today))), default=None)


def leaderboard(engine: Engine, kind: WindowKind, season_id: str | None = None, at: date | None = None) -> Standing:
    """The board of the window that `locate` finds."""
    window, day = locate(engine, kind, season_id, at)
    return Standing(window, day, _board_at(engine, window, day))


def is_played(engine: Engine, window: Window) -> bool:
    """Whether any day of the window's season has been folded."""
    if window.kind is WindowKind.ALLTIME:
        return last_day(engine) is not None
    season = engine.calendar.find_season(window.season)
    return bool(days_of(engine, PLAYER_DAYS, Days(season.start, season.end - ONE_DAY)))


def locate(engine: Engine, kind: WindowKind, season_id: str | None = None, at: date | None = None) -> tuple[Window, date]:
    """The window that contains `at`, and that day; without it, the season's last folded day, or the newest there is.

    Raises:
        FairboardError: there is no such season, or `at` is not in it.
    """
    season = engine.calendar.find_season(season_id) if season_id and kind is not WindowKind.ALLTIME else None
    if season and at and not season.start <= at < season.end:
        raise FairboardError(f"{at} is not in season {season.id} ({season.start} to {season.end - ONE_DAY}).")
    day = at or _newest(engine, season)
    return engine.calendar.window_at(kind, day), day


def progress(engine: Engine, player: str) -> pl.DataFrame:
    """A player's days in `progression`, the newest first; empty for a player nobody has seen."""
    engine.bind(PROGRESSION)
    return frame(engine.query("SELECT * FROM progression WHERE player_id = $player ORDER BY event_date DESC", player=player))


def suspects(engine: Engine, day: date) -> pl.DataFrame:
    """The day's suspected players, the most suspicious first, each with the rule that speaks loudest.

    Columns: player_id, p, q, act, evidence (of the suspicion); rule, observed, baseline_center, baseline_spread, baseline_n, z,
    share (of that rule).
    """
    engine.bind(FAIRNESS, Days(day, day))
    ranked = engine.query(
        "SELECT s.player_id, s.p, s.q, s.act, r.rule, r.observed, r.baseline_center, r.baseline_spread, r.baseline_n, r.z,"
        " r.share, s.evidence FROM fairness AS s JOIN fairness AS r ON s.player_id = r.player_id AND r.rule <> 'suspicion'"
        " WHERE s.rule = 'suspicion' AND s.verdict = 'flagged'"
        " QUALIFY row_number() OVER (PARTITION BY s.player_id ORDER BY r.share DESC NULLS LAST, r.rule) = 1"
        " ORDER BY s.p, abs(r.z) DESC, s.player_id"
    )
    return frame(ranked)


def verdicts(engine: Engine, day: date) -> dict[str, dict[str, int]]:
    """How many players got which verdict on that day, by rule."""
    engine.bind(FAIRNESS, Days(day, day))
    rows = engine.query("SELECT rule, verdict, count(*) AS players FROM fairness GROUP BY ALL ORDER BY ALL")
    counts: dict[str, dict[str, int]] = {}
    for rule, verdict, players in frame(rows).iter_rows():
        counts.setdefault(rule, {})[verdict] = players
    return counts


def landed_days(engine: Engine) -> list[date]:
    """The days that have events, sorted."""
    return days_of(engine, EVENTS)


def _newest(engine: Engine, season: Season | None) -> date:
    """The last folded day, of a season if one is asked for; where nothing is folded yet, the season's first day or 1970."""
    found = last_day(engine, season.end - ONE_DAY if season else date.max)
    if season:
        return max(found or season.start, season.start)
    return found or date(1970, 1, 1)


def _board_at(engine: Engine, window: Window, day: date) -> pl.DataFrame:
    board = read_leaderboard(engine, window)
    if not board.height or board["as_of"][0] <= day:
        return board
    # The lake keeps each window's newest board; how it stood earlier is the same fold over the days until then.
    bind_boards(engine, History(engine, until=day), [window])
    engine.bind_exclusions()
    return frame(engine.run("leaderboards")).select(LEADERBOARDS.schema.names)
