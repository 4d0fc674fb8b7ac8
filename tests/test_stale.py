"""`fairboard stale`: one list of what is not as it would be computed now, and exactly that."""
# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from conftest import Fairboard, boss_kill, encode, land_events, progression
from stale_fixtures import Change, behind, change_model

from warehouse import verdicts
from warehouse.database import RECEIPTS, open_database
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS
from warehouse.settings import DATA, Settings
from warehouse.tables import ACTIVITY_DAYS, PLAYER_DAYS, Column
from warehouse.verdicts import Decision
from warehouse.versions import code_of

FIRST, LAST = "2026-04-28", "2026-05-03"
SPAN = (FIRST, LAST, 6, "the model or schema changed")
BESIDE = "the curve, rules, calendar or verdicts changed"
INPUTS = "its inputs changed"


@pytest.fixture
def game(settings: Settings, fairboard: Fairboard) -> Settings:
    """Six days over the end of a month, computed."""
    days = [str(date.fromisoformat(FIRST) + timedelta(days=n)) for n in range(6)]
    events = [progression(player, day, 60 + n) for n, day in enumerate(days) for player in ("ann", "bob")]
    land_events(settings, [*events, boss_kill("ann", FIRST), boss_kill("ann", LAST)])
    materialize(fairboard, FIRST, LAST)
    assert fairboard("stale").stdout == "Nothing is behind.\n"
    return settings


def materialize(fairboard: Fairboard, first: str, last: str, *tables: str) -> None:
    fairboard("materialize", "--from", first, "--to", last, *(part for table in tables for part in ("--select", table)))


def fresh(fairboard: Fairboard) -> tuple[str, str, str]:
    """The doctor's state, finding and advice."""
    [found] = [one for one in msgspec.json.decode(fairboard("doctor", "--json").stdout) if one["what"] == "fresh"]
    return found["state"], found["found"], found["todo"]


def test_days_that_were_computed_by_half_are_listed_and_the_doctor_is_not_content(
    settings: Settings, fairboard: Fairboard, tmp_path: Path
) -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(120)]
    file = tmp_path / "history.ndjson"
    file.write_bytes(b"\n".join(encode(progression(player, str(day), 10)) for day in days for player in ("ann", "bob")))
    fairboard("import", str(file))
    materialize(fairboard, "2026-01-01", "2026-01-01")
    found = behind(fairboard)
    rest = ("2026-01-02", "2026-04-30", 119, "never computed")
    tables = ("player_days", "player_boss_days", "player_item_days", "activity_days")
    assert found == {table: [rest] for table in tables}
    assert fresh(fairboard)[0] == "look"
    # As the live job does, and any run of an older day.
    materialize(fairboard, "2026-01-02", "2026-04-30", "player_days", "leaderboards", "progression")
    found = behind(fairboard)
    assert found.pop("player_months") == [("2026-01-31", "2026-03-31", 3, "never computed")]
    tables = ("player_boss_days", "player_item_days", "activity_days", "fairness", "daily_metrics")
    assert found == {table: [rest] for table in tables}
    assert fresh(fairboard)[0] == "look"
    assert "fairboard materialize --from 2026-01-02 --to 2026-04-30" in fresh(fairboard)[2]
    materialize(fairboard, "2026-01-02", "2026-04-30")
    assert behind(fairboard) == {}
    assert fresh(fairboard)[0] == "ok"


def test_a_late_event_makes_behind_what_stands_on_its_day(game: Settings, fairboard: Fairboard) -> None:
    land_events(game, [progression("cid", "2026-05-02", 5)], "late")
    found = behind(fairboard)
    late = ("2026-05-02", "2026-05-02", 1, INPUTS)
    assert found == {table: [late] for table in ("player_days", "player_boss_days", "player_item_days", "activity_days")} | {
        "fairness": [late]  # whose evidence is in the events
    }
    materialize(fairboard, "2026-05-02", "2026-05-02", "player_days")
    assert behind(fairboard)["progression"] == [("2026-05-02", LAST, 2, INPUTS)]
    materialize(fairboard, "2026-05-02", "2026-05-02")
    assert behind(fairboard) == {}


@pytest.mark.parametrize("model", ["player_days", "progression", "fairness", "events", "player_spans", "kill_times"])
def test_a_changed_comment_makes_nothing_behind(game: Settings, fairboard: Fairboard, change_model: Change, model: str) -> None:
    change_model(model, "SELECT", "-- said otherwise\n    SELECT")
    assert behind(fairboard) == {}


@pytest.mark.parametrize(
    ("model", "old", "new", "expected"),
    [
        ("activity_days", "ORDER BY", "ORDER BY 0 + 1, ", {"activity_days": [SPAN]}),
        ("progression", "coalesce(e.xp, 0)", "coalesce(e.xp, 0 + 0)", {"progression": [SPAN]}),
        ("player_months", "SELECT", "SELECT ALL", {"player_months": [("2026-04-30", "2026-04-30", 1, SPAN[3])]}),
        ("fairness", "SELECT", "SELECT ALL", {"fairness": [SPAN]}),
    ],
)
def test_a_changed_model_makes_its_table_behind_and_no_other(
    game: Settings, fairboard: Fairboard, change_model: Change, model: str, old: str, new: str, expected: dict[str, object]
) -> None:
    change_model(model, old, new)
    assert behind(fairboard) == expected
    materialize(fairboard, FIRST, LAST)
    assert behind(fairboard) == {}


def test_a_changed_model_that_others_read_makes_them_behind(game: Settings, fairboard: Fairboard, change_model: Change) -> None:
    change_model("player_spans", "SELECT", "SELECT ALL")
    found = behind(fairboard)
    assert set(found) == {"progression", "leaderboards", "daily_metrics"}
    assert {line[3] for lines in found.values() for line in lines} == {"the model or schema changed"}


def test_what_a_changed_model_changes_is_behind_downstream_once_it_is_computed(
    game: Settings, fairboard: Fairboard, change_model: Change
) -> None:
    change_model("player_days", "sum(", "2 * sum(")
    assert set(behind(fairboard)) == {"player_days"}
    materialize(fairboard, LAST, LAST, "player_days")
    found = behind(fairboard)
    assert found["player_days"] == [(FIRST, "2026-05-02", 5, "the model or schema changed")]
    assert found["progression"] == [(LAST, LAST, 1, INPUTS)]
    assert found["fairness"] == [(LAST, LAST, 1, INPUTS)]


def test_a_changed_schema_makes_another_version() -> None:
    younger = replace(
        ACTIVITY_DAYS, columns=(*ACTIVITY_DAYS.columns, Column("season", PLAYER_DAYS.columns[1].type, "Its season."))
    )
    worded = replace(ACTIVITY_DAYS, doc="Said otherwise.", columns=tuple(replace(c, doc="") for c in ACTIVITY_DAYS.columns))
    assert code_of(younger) != code_of(ACTIVITY_DAYS) == code_of(worded)


def edited(tmp_path: Path, name: str, old: str, new: str) -> str:
    text = (DATA / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new))
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        (
            "LEVELS_FILE",
            lambda folder: edited(folder, "levels.csv", "3,350", "3,351"),
            {table: [(FIRST, LAST, 6, BESIDE)] for table in ("progression", "daily_metrics")},
        ),
        (
            "RULES_FILE",
            lambda folder: edited(folder, "fairness_rules.csv", "self,1,z,3.0", "self,1,z,2.5"),
            {"fairness": [(FIRST, LAST, 6, BESIDE)]},
        ),
    ],
)
def test_a_changed_file_beside_the_data_makes_behind_what_reads_it(
    game: Settings,
    fairboard: Fairboard,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    setting: str,
    value: Callable[[Path], str],
    expected: dict[str, object],
) -> None:
    monkeypatch.setenv(f"FAIRBOARD_{setting}", value(tmp_path))
    assert behind(fairboard) == expected
    materialize(fairboard, LAST, LAST)
    assert all(lines == [(FIRST, "2026-05-02", 5, BESIDE)] for lines in behind(fairboard).values())
    materialize(fairboard, FIRST, "2026-05-02")
    assert behind(fairboard) == {}


def test_another_calendar_makes_the_boards_behind_and_no_other_table(
    game: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRBOARD_SEASONS", "year")
    found = behind(fairboard)
    assert set(found) == {"leaderboards"}
    assert {line[3] for line in found["leaderboards"]} == {"never computed", "what it stood on is gone"}
    materialize(fairboard, FIRST, LAST)
    assert behind(fairboard) == {}


def test_a_verdict_makes_the_boards_behind_that_have_a_day_of_it(game: Settings, fairboard: Fairboard) -> None:
    with open_database(game).begin() as connection:
        verdicts.record(
            connection,
            player_id="bob",
            decision=Decision.CONFIRMED,
            decided_by="ops",
            reason="a test",
            excluded_from=date(2026, 5, 2),
            excluded_until=date(2026, 5, 3),
        )
    found = behind(fairboard)
    # The day's own board, the next day's (its former ranks), and the week, month and all-time boards that the day is in.
    assert {table: sum(line[2] for line in lines) for table, lines in found.items()} == {"leaderboards": 5}
    assert {line[3] for line in found["leaderboards"]} == {BESIDE}
    materialize(fairboard, "2026-05-02", "2026-05-02")
    assert behind(fairboard) == {}


def test_what_lies_before_dagsters_first_day_is_named_with_the_command_that_computes_it(
    game: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRBOARD_FIRST_DAY", "2026-05-01")
    land_events(game, [progression("cid", day, 5) for day in (FIRST, LAST)], "late")
    said = fairboard("stale").stdout
    assert "`fairboard materialize --from 2026-04-28 --to 2026-04-28`" in said
    assert "2026-05-01 (FAIRBOARD_FIRST_DAY)" in said


def test_since_when_is_when_the_first_came_that_is_in_nothing_yet(
    game: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def since() -> int:
        lines = msgspec.json.decode(fairboard("stale", "--json").stdout)
        return int(next(line["since_ms"] for line in lines if line["table"] == "player_days"))

    land_events(game, [progression("cid", LAST, 5)], "late")
    first = since()
    land_events(game, [progression("cid", LAST, 6)], "later")
    assert since() == first
    materialize(fairboard, LAST, LAST)
    land_events(game, [progression("cid", LAST, 7)], "latest")
    assert since() > first


def test_changed_rewards_make_the_receipts_behind_until_every_level_has_paid(
    game: Settings, redis_settings: Settings, fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    fairboard("publish", "--from", FIRST, "--to", LAST)
    assert behind(fairboard) == {}
    changed = edited(tmp_path, "rewards.csv", "2,starter chest", "2,starter chest\n2,second chest")
    monkeypatch.setenv("FAIRBOARD_REWARDS_FILE", changed)
    assert behind(fairboard) == {"receipts": [(LAST, LAST, 1, "the rewards changed")]}
    assert "`fairboard publish`" in fresh(fairboard)[2]
    fairboard("publish")  # of the last day
    with open_database(game).connect() as connection:
        paid = connection.execute(sa.select(RECEIPTS).where(RECEIPTS.c.reward == "second chest")).all()
    assert {(row.player_id, row.level, str(row.earned_on)) for row in paid} == {(p, 2, "2026-04-29") for p in ("ann", "bob")}
    assert behind(fairboard) == {}
