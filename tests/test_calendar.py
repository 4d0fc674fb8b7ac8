"""One module decides what day, week and season a time is in."""

from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.calendar import Calendar, WindowKind, read_seasons
from warehouse.errors import FairboardError, SettingsError

DAYS = st.dates(date(1971, 1, 1), date(2100, 1, 1))
RULES = st.sampled_from(["month", "year"])


@given(DAYS, RULES)
def test_every_day_is_in_one_window_of_each_kind(day: date, rule: str) -> None:
    windows = Calendar(rule, ZoneInfo("UTC")).windows_of(day)
    assert sorted(window.kind for window in windows) == sorted(WindowKind)
    assert all(window.start <= day < window.end for window in windows)


@given(DAYS, RULES)
def test_a_week_starts_on_monday_and_is_cut_at_the_season_edge(day: date, rule: str) -> None:
    calendar = Calendar(rule, ZoneInfo("UTC"))
    week, season = calendar.window_at(WindowKind.WEEKLY, day), calendar.season_of(day)
    assert season is not None
    assert week.start.weekday() == 0 or week.start == season.start
    assert week.end.weekday() == 0 or week.end == season.end
    assert season.start <= week.start < week.end <= season.end


@given(DAYS, RULES)
def test_the_days_of_a_window_have_that_window(day: date, rule: str) -> None:
    calendar = Calendar(rule, ZoneInfo("UTC"))
    week = calendar.window_at(WindowKind.WEEKLY, day)
    inside = [week.start + timedelta(days=n) for n in range((week.end - week.start).days)]
    assert {calendar.window_at(WindowKind.WEEKLY, d) for d in inside} == {week}


def test_a_day_ends_at_midnight_of_the_time_zone_on_the_day_the_clock_changes_too() -> None:
    calendar = Calendar("month", ZoneInfo("Europe/Berlin"))
    autumn = date(2026, 10, 25)  # 25 hours long
    start, end = calendar.starts_at(autumn), calendar.starts_at(autumn + timedelta(days=1))
    assert end - start == 25 * 3600
    assert {calendar.day_of(start), calendar.day_of(end - 1)} == {autumn}
    assert calendar.day_of(start - 1) == date(2026, 10, 24)


def seasons_file(folder: Path, *lines: str) -> Path:
    path = folder / "seasons.csv"
    path.write_text("\n".join(["id,start,end", *lines]))
    return path


def test_between_configured_seasons_there_is_only_the_all_time_board(tmp_path: Path) -> None:
    path = seasons_file(tmp_path, "s1,2026-01-05,2026-03-01", "s2,2026-04-01,2026-06-01")
    calendar = Calendar(str(path), ZoneInfo("UTC"))
    assert [window.kind for window in calendar.windows_of(date(2026, 3, 15))] == ["alltime"]
    assert calendar.window_at(WindowKind.SEASONAL, date(2026, 4, 1)).redis_key == "lb:s2:seasonal"
    with pytest.raises(FairboardError, match="in no season"):
        calendar.window_at(WindowKind.DAILY, date(2026, 3, 15))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["s1,2026-01-01,2026-02-01", "s2,2026-01-31,2026-03-01"], "overlap"),
        (["s1,2026-02-01,2026-01-01"], "ends before it starts"),
        (["s:1,2026-01-01,2026-02-01"], "cannot name a season"),
        (["all,2026-01-01,2026-02-01"], "cannot name a season"),
        (["s1,2026-01-01,2026-02-01", "s1,2026-02-01,2026-03-01"], "same id"),
        (["s1,January,2026-02-01"], "no season calendar"),
    ],
)
def test_a_wrong_season_calendar_is_refused_with_the_reason(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_seasons(seasons_file(tmp_path, *lines))


@pytest.mark.parametrize(("rule", "season"), [("year", "2021"), ("month", "2021-07")])
def test_a_season_is_found_by_its_id(rule: str, season: str) -> None:
    assert Calendar(rule, ZoneInfo("UTC")).find_season(season).id == season


@pytest.mark.parametrize(("rule", "season"), [("year", "21"), ("month", "2021"), ("month", "2021-13"), ("year", "2021-01")])
def test_an_unknown_season_is_an_error_that_names_the_shape(rule: str, season: str) -> None:
    with pytest.raises(FairboardError, match="there is no season"):
        Calendar(rule, ZoneInfo("UTC")).find_season(season)
