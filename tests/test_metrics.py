"""What was played and how the game does: golden rows, and the same counts as by the definitions' own words."""

from datetime import date, timedelta
from typing import Any

import pytest
from conftest import Land, boss_kill, land_events, progression
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import fold
from warehouse.metrics import METRICS
from warehouse.settings import Settings

YEAR = Days(date(2026, 5, 1), date(2026, 12, 31))
MAX = 2**63 - 1
TABLES = ("player_days", "activity_days", "progression", "daily_metrics")


def day(n: int) -> str:
    """The n-th day of the game."""
    return str(YEAR.first + timedelta(days=n))


def drop(player: str, on: str, item: str, boss: str = "lich_king", **payload: Any) -> dict[str, Any]:
    event = boss_kill(player, on)
    return event | {"type": "drop_claimed", "payload": {"bossId": boss, "itemId": item, "rarity": "rare"} | payload}


def materialize(settings: Settings, days: Days = YEAR) -> None:
    with DuckDBEngine(settings) as engine:
        for name in TABLES:
            fold(engine, name, days)


def ask(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with DuckDBEngine(settings) as engine:
        engine.bind_all()
        return engine.connection.sql(sql).fetchall()


def measured(settings: Settings, on: str, *names: str) -> dict[str, float]:
    """The metrics of a day, by `metric`, `metric/subject` or `metric/subject/detail`."""
    rows = ask(settings, f"SELECT metric, subject, detail, value FROM daily_metrics WHERE event_date = '{on}'")
    found = {"/".join(filter(None, key)): value for *key, value in rows}
    return {name: value for name, value in found.items() if name.split("/")[0] in names}


def test_active_players_are_counted_once_in_the_day_the_week_and_the_month(settings: Settings, land: Land) -> None:
    land([progression("ann", day(n), 1) for n in (0, 1, 7)])
    land([progression("bob", day(n), 1) for n in (1, 30)], name="bob")
    materialize(settings)
    names = ("dau", "wau", "mau", "stickiness", "new_players", "returning_players")
    counts = {n: tuple(measured(settings, day(n), *names)[name] for name in names) for n in (0, 1, 7, 30)}
    assert counts == {
        0: (1, 1, 1, 1, 1, 0),
        1: (2, 2, 2, 1, 1, 1),
        7: (1, 2, 2, 0.5, 0, 1),  # days 1 … 7: both
        30: (1, 1, 2, 0.5, 0, 1),  # days 1 … 30: ann's day 7 is within the month and not within the week
    }


def test_retention_is_the_share_of_a_first_day_s_players_and_nobody_is_a_share_too(settings: Settings, land: Land) -> None:
    land([progression(player, day(0), 1) for player in ("ann", "bob", "cid", "dan")])
    land([progression(player, day(1), 1) for player in ("ann", "bob", "eve")], name="one")
    land([progression("ann", day(n), 1) for n in (7, 30, 31)], name="later")
    materialize(settings)
    assert measured(settings, day(0), "retention") == {}
    assert measured(settings, day(1), "retention") == {"retention/1": 0.5}
    assert measured(settings, day(7), "retention") == {"retention/7": 0.25, "retention/6": 0.0}  # eve's cohort did not come
    assert measured(settings, day(30), "retention") == {"retention/30": 0.25, "retention/29": 0.0}
    assert measured(settings, day(31), "retention") == {"retention/30": 0.0}


def test_a_late_first_day_makes_a_new_player_a_returning_one(settings: Settings, land: Land) -> None:
    land([progression("ann", day(100), 1)])
    materialize(settings)
    assert measured(settings, day(100), "new_players", "returning_players") == {"new_players": 1, "returning_players": 0}
    land([progression("ann", day(0), 1)], name="late")
    materialize(settings, Days(YEAR.first, YEAR.first))
    assert measured(settings, day(100), "new_players", "returning_players") == {"new_players": 0, "returning_players": 1}


@pytest.mark.parametrize(
    ("clocks", "sessions", "seconds"),
    [
        (["12:00:00"], 1, 0),
        (["12:00:00", "12:30:00"], 1, 1800),
        (["12:00:00", "12:30:01"], 2, 0),
        (["12:29:59", "12:30:00", "12:59:59"], 1, 1800),  # within and over half hours
        (["00:00:00", "00:20:00", "00:40:00", "01:00:00", "23:59:59"], 2, 3600),
        (["12:00:00", "12:00:00", "12:00:00"], 1, 0),
    ],
)
def test_a_pause_of_more_than_30_minutes_begins_another_session(
    settings: Settings, land: Land, clocks: list[str], sessions: int, seconds: int
) -> None:
    land([progression("ann", day(0), 1, clock) for clock in clocks])
    materialize(settings)
    assert ask(settings, "SELECT sessions, session_seconds FROM player_days") == [(sessions, seconds)]
    assert measured(settings, day(0), "sessions", "sessions_per_player", "session_length") == {
        "sessions": sessions,
        "sessions_per_player": sessions,
        "session_length": seconds / sessions,
    }


def test_a_session_over_midnight_began_once_and_its_time_is_the_days_on_which_it_was_played(
    settings: Settings, land: Land
) -> None:
    land([progression("ann", day(0), 1, "23:40:00"), progression("ann", day(0), 1, "23:50:00")])
    land([progression("ann", day(1), 1, "00:10:00"), progression("ann", day(1), 1, "20:00:00")], name="next")
    land([progression("ann", day(3), 1, "00:00:00")], name="other")
    materialize(settings)
    rows = ask(settings, "SELECT numerator, denominator FROM daily_metrics WHERE metric = 'session_length' ORDER BY event_date")
    assert rows == [(600, 1), (1200, 1), (0, 1)]


def test_a_day_on_which_no_session_began_has_no_mean_session(settings: Settings, land: Land) -> None:
    land([progression("ann", day(0), 1, "23:59:00"), progression("ann", day(1), 1, "00:01:00")])
    materialize(settings)
    assert measured(settings, day(1), "sessions", "session_length") == {"sessions": 0}


def test_xp_by_activity_counts_corrections_and_saturates(settings: Settings, land: Land) -> None:
    def gain(player: str, xp: int, activity: str) -> dict[str, Any]:
        return progression(player, day(0), xp, payload={"deltaXp": xp, "activity": activity})

    land([gain("ann", 10, "quest"), gain("bob", 20, "quest"), gain("ann", -5, "quest"), gain("ann", MAX, "glitch")])
    land([gain("bob", MAX, "glitch"), boss_kill("ann", day(0), payload={"activity": "quest", "deltaXp": 9})], name="more")
    materialize(settings)
    sql = "SELECT activity, events, players, xp FROM activity_days WHERE type = 'progression' ORDER BY activity"
    assert ask(settings, sql) == [("glitch", 2, 2, MAX), ("quest", 3, 2, 25)]


def test_kill_times_are_observed_durations_of_the_nearest_rank(settings: Settings, land: Land) -> None:
    def kill(ms: int | None, party: int) -> dict[str, Any]:
        timed = {"durationMs": ms} if ms else {}
        return boss_kill("ann", day(0), payload={"bossId": "hydra", "difficulty": "hard", "partySize": party} | timed)

    land([kill(ms, 1) for ms in range(1000, 0, -100)] + [kill(None, 1), kill(7, 2), kill(None, 3), boss_kill("bob", day(0))])
    materialize(settings)
    columns = "boss_id, difficulty, party_size, events, timed_kills, duration_median_ms, duration_p90_ms"
    assert ask(settings, f"SELECT {columns} FROM activity_days ORDER BY boss_id, party_size") == [
        ("hydra", "hard", 1, 11, 10, 500, 900),
        ("hydra", "hard", 2, 1, 1, 7, 7),
        ("hydra", "hard", 3, 1, 0, None, None),
        ("lich_king", "", 0, 1, 0, None, None),
    ]


def test_drop_rates_are_per_kill_of_the_boss(settings: Settings, land: Land) -> None:
    land([boss_kill("ann", day(0)) for _ in range(8)])
    land([drop("ann", day(0), "crown"), drop("bob", day(0), "hide", quantity=40), drop("bob", day(0), "hide")], name="drops")
    land([drop("bob", day(0), "egg", boss="nobody_fell")], name="other")
    materialize(settings)
    assert measured(settings, day(0), "drop_rate", "rarity_rate") == {
        "drop_rate/lich_king/crown": 1 / 8,
        "drop_rate/lich_king/hide": 2 / 8,
        "rarity_rate/lich_king/rare": 3 / 8,
    }
    assert ask(settings, "SELECT sum(quantity) FROM activity_days WHERE item_id = 'hide'") == [(41,)]


def test_levels_and_the_days_it_took(settings: Settings, land: Land) -> None:
    land([progression("ann", day(0), 120), progression("bob", day(0), 1), progression("cid", day(0), 1)])
    land([progression("bob", day(4), 99), progression("cid", day(4), 10)], name="later")
    land([progression("dan", day(3), 1), progression("dan", day(4), 400)], name="dan")
    materialize(settings)
    names = ("players_at_level", "level_ups", "days_to_level")
    assert measured(settings, day(0), *names) == {
        "players_at_level/1": 2, "players_at_level/2": 1, "level_ups/2": 1, "days_to_level/2": 0,
    }  # fmt: skip
    assert measured(settings, day(4), *names) == {
        "players_at_level/1": 1, "players_at_level/2": 1, "players_at_level/3": 1,
        "level_ups/2": 2, "days_to_level/2": 1, "level_ups/3": 1, "days_to_level/3": 1,
    }  # fmt: skip


def test_every_metric_is_defined_and_every_definition_is_measured(settings: Settings, land: Land) -> None:
    land([progression("ann", day(n), 120) for n in (0, 1)])
    land([boss_kill("ann", day(1)), drop("ann", day(1), "crown")], name="boss")
    materialize(settings)
    assert {name for (name,) in ask(settings, "SELECT DISTINCT metric FROM daily_metrics")} == METRICS.keys()


EVENTS = st.lists(
    st.builds(
        progression,
        st.sampled_from(["ann", "bob", "cid", "dan"]),
        st.integers(0, 45).map(day),
        st.integers(-10, 200),
        st.times().map(lambda t: t.isoformat("seconds")),
    ),
    min_size=1,
    max_size=60,
)


@given(events=EVENTS)
@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_are_those_of_the_definitions(tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]) -> None:
    """Active players and sessions, counted one by one in Python."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("metrics"), _env_file=None)
    land_events(settings, [dict(event) for event in events])
    materialize(settings)
    active = {(event["playerId"], event["ts"] // 86_400) for event in events}
    began = [
        (player, ts) for player, ts in moments(events) if not any(0 < ts - t <= 1800 for p, t in moments(events) if p == player)
    ]
    expected = {
        (date(1970, 1, 1) + timedelta(days=at), name): count
        for at in {at for _, at in active}
        for name, count in {
            "dau": len({p for p, d in active if d == at}),
            "wau": len({p for p, d in active if at - 7 < d <= at}),
            "mau": len({p for p, d in active if at - 30 < d <= at}),
            "sessions": sum(ts // 86_400 == at for _, ts in began),
        }.items()
    }
    sql = "SELECT event_date, metric, numerator FROM daily_metrics WHERE metric IN ('dau', 'wau', 'mau', 'sessions')"
    assert {(on, name): count for on, name, count in ask(settings, sql)} == expected


def moments(events: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(event["playerId"], event["ts"]) for event in events}
