"""One module decides what day, week and season a time is in."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from conftest import Fairboard, encode, progression
from hypothesis import given
from hypothesis import strategies as st

from assets.tables import daily_partitions
from warehouse.calendar import Calendar, Season, WindowKind, read_seasons
from warehouse.errors import FairboardError, SettingsError
from warehouse.settings import Settings

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


# Clocks that change at 02:00, at midnight forwards (a day without 00:00) and back (23:00 twice), at 01:00 (00:00 twice), by
# half an hour; and an island that left a whole day out.
ZONES = [
    "UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia",
]  # fmt: skip
INSTANTS = st.integers(0, 2**32)
# Half of the instants lie within a day of a change of the clock, where the errors are.
CHANGES = [1_541_300_400, 1_518_919_200, 1_325_239_200, 1_774_742_400, 1_792_893_600, 1_793_505_600]
NEAR_CHANGES = st.builds(int.__add__, st.sampled_from(CHANGES), st.integers(-86_400, 86_400))


@given(INSTANTS | NEAR_CHANGES, st.sampled_from(ZONES), RULES)
def test_every_instant_is_in_one_window_of_each_kind_between_its_ends(ts: int, zone: str, rule: str) -> None:
    calendar = Calendar(rule, ZoneInfo(zone))
    windows = calendar.windows_of(calendar.day_of(ts))
    assert sorted(window.kind for window in windows) == sorted(WindowKind)
    for window in windows:
        if window.kind is not WindowKind.ALLTIME:
            assert calendar.starts_at(window.start) <= ts < calendar.starts_at(window.end)


@st.composite
def configured_seasons(draw: st.DrawFn) -> list[Season]:
    """Up to five seasons of any length, with gaps between some."""
    day, seasons = draw(st.dates(date(2020, 1, 1), date(2030, 1, 1))), []
    for number in range(draw(st.integers(1, 5))):
        start = day + timedelta(days=draw(st.just(0) | st.integers(1, 40)))
        day = start + timedelta(days=draw(st.integers(1, 100)))
        seasons.append(Season(f"s{number}", start, day))
    return seasons


@given(configured_seasons())
def test_windows_tile_each_configured_season_and_no_other_day(
    tmp_path_factory: pytest.TempPathFactory, seasons: list[Season]
) -> None:
    lines = [f"{season.id},{season.start},{season.end}" for season in seasons]
    calendar = Calendar(str(seasons_file(tmp_path_factory.mktemp("seasons"), *lines)), ZoneInfo("UTC"))
    first, last = seasons[0].start, seasons[-1].end
    everyday = [first + timedelta(days=n) for n in range(-1, (last - first).days + 1)]
    found = {window for day in everyday for window in calendar.windows_of(day) if window.season != "all"}
    for season in seasons:
        for kind in (WindowKind.DAILY, WindowKind.WEEKLY, WindowKind.SEASONAL):
            windows = sorted(window for window in found if (window.season, window.kind) == (season.id, kind))
            assert (windows[0].start, windows[-1].end) == (season.start, season.end)
            assert all(before.end == after.start for before, after in pairwise(windows))
    days = {window.start for window in found if window.kind is WindowKind.DAILY}
    assert days == {day for day in everyday if any(season.start <= day < season.end for season in seasons)}


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), "2026-03-28T23:00:00Z", 23),
        ("Europe/Berlin", date(2026, 10, 25), "2026-10-24T22:00:00Z", 25),
        ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T03:00:00Z", 23),  # there is no 00:00
        ("America/Sao_Paulo", date(2018, 2, 17), "2018-02-17T02:00:00Z", 25),  # there are two 23:30
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00:00Z", 25),  # there are two 00:30
    ],
)
def test_a_board_counts_each_hour_of_a_day_on_which_the_clock_changes(
    fairboard: Fairboard,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    zone: str,
    day: date,
    start: str,
    hours: int,
) -> None:
    """One XP in the first and one in the last second of every hour, from two hours before the day to two hours after it."""
    monkeypatch.setenv("FAIRBOARD_TIMEZONE", zone)
    begin = int(datetime.fromisoformat(start).timestamp())
    payload = {"deltaXp": 1, "activity": "quest"}
    times = [begin + hour * 3600 + second for hour in range(-2, hours + 2) for second in (0, 3599)]
    events = [{"type": "progression", "playerId": "ann", "ts": ts, "payload": payload, "eventId": str(ts)} for ts in times]
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(map(encode, events)))
    fairboard("import", "events.ndjson")
    fairboard("materialize", "--from", str(day - timedelta(days=1)), "--to", str(day + timedelta(days=1)))

    def score(window: str, at: date) -> int:
        answer = fairboard("leaderboard", "--window", window, "--at", str(at), "--json")
        return int(msgspec.json.decode(answer.stdout)["entries"][0]["score"])

    around = [score("daily", day + timedelta(days=n)) for n in (-1, 0, 1)]
    assert around == [4, 2 * hours, 4]
    assert score("alltime", day + timedelta(days=1)) == len(times)
    before_in_week = 4 if day.day > 1 else 0  # the season's first day starts a week of its own
    assert score("weekly", day) == 2 * hours + before_in_week


CLOCKS = {  # around a change, by an hour and by half of one, and where none ever comes
    "Asia/Kolkata": "2026-03-29T00:00:00Z", "Europe/Berlin": "2026-10-25T01:00:00Z", "America/New_York": "2026-03-08T07:00:00Z",
    "Australia/Lord_Howe": "2026-04-04T15:00:00Z", "America/Havana": "2026-11-01T05:00:00Z",
    "Asia/Kathmandu": "2026-05-01T00:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(("zone", "middle"), CLOCKS.items())
def test_active_hours_are_those_of_the_zone_s_clock(
    fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, zone: str, middle: str
) -> None:
    monkeypatch.setenv("FAIRBOARD_TIMEZONE", zone)
    chance, begin = random.Random(zone), int(datetime.fromisoformat(middle).timestamp())
    times = sorted({begin + chance.randrange(-40 * 3600, 40 * 3600) for _ in range(300)})
    hours: dict[tuple[str, str], set[int]] = {}
    for number, ts in enumerate(times):
        local = datetime.fromtimestamp(ts, ZoneInfo(zone))
        hours.setdefault((str(local.date()), f"p{number % 20}"), set()).add(local.hour)
    payload = {"deltaXp": 1, "activity": "quest"}
    events = [
        {"type": "progression", "playerId": f"p{number % 20}", "ts": ts, "payload": payload} for number, ts in enumerate(times)
    ]
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(map(encode, events)))
    fairboard("import", "events.ndjson")
    fairboard("materialize", "--from", min(hours)[0], "--to", max(hours)[0], "--select", "player_days")
    answer = fairboard("sql", "SELECT event_date, player_id, active_hours FROM player_days", "--json").stdout
    found = {(row["event_date"], row["player_id"]): row["active_hours"] for row in msgspec.json.decode(answer)}
    assert found == {of: len(distinct) for of, distinct in hours.items()}


@pytest.mark.parametrize("zone", ZONES)
def test_dagster_has_every_day_once_in_zones_without_some_midnights(zone: str) -> None:
    first = date(2017, 10, 1)
    partitions = daily_partitions(Settings(timezone=zone, first_day=first, _env_file=None))
    keys = partitions.get_partition_keys(current_time=datetime(2019, 1, 1, 12, tzinfo=UTC))
    assert keys[:450] == [str(first + timedelta(days=n)) for n in range(450)]


def test_events_between_seasons_count_for_the_all_time_board_alone(
    fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = seasons_file(tmp_path, "s1,2026-01-05,2026-03-01", "s2,2026-04-01,2026-06-01")
    monkeypatch.setenv("FAIRBOARD_SEASONS", str(path))
    days = {"2026-02-28": 1, "2026-03-01": 10, "2026-03-31": 100, "2026-04-01": 1000}
    events = [progression("ann", day, xp) for day, xp in days.items()]
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(map(encode, events)))
    fairboard("import", "events.ndjson")
    fairboard("materialize", "--from", "2026-02-28", "--to", "2026-04-01")
    rows = fairboard("sql", "SELECT window_kind, season, xp FROM leaderboards ORDER BY ALL", "--json").stdout
    found = [tuple(row.values()) for row in msgspec.json.decode(rows)]
    seasonal = [(kind, season, xp) for kind in ("daily", "seasonal", "weekly") for season, xp in (("s1", 1), ("s2", 1000))]
    assert found == [("alltime", "all", 1111), *seasonal]


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
