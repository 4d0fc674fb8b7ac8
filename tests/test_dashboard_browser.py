"""Every page in a real browser over a real Streamlit and a real lake: what a person sees, and that nothing is broken."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import re
from pathlib import Path

import polars as pl
import pytest
from dashboard_fixtures import (
    CHEATER,
    HOSTILE,
    LAST_DAY,
    LEADER,
    LEADER_XP,
    QUIET_DAY,
    browser,
    choose_first_row,
    dashboard,
    game_lake,
    page,
    rows,
    serve,
    settle,
    visit,
)
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.xdist_group("browser")


def test_overview_shows_the_last_day_its_flags_and_its_leaders(page: Page, dashboard: str):
    visit(page, dashboard, "Overview")
    expect(page.get_by_test_id("stMetric").first).to_contain_text(str(LAST_DAY))
    assert rows(page, "Top five")[0][:3] == ["1", LEADER, str(LEADER_XP)]
    assert CHEATER in rows(page, "Flagged players")[0]
    assert rows(page, "Refused events")[0][0] == "payload.deltaXp"
    expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg")).to_have_count(3)


def test_progression_shows_a_player_who_is_chosen_in_the_grid(page: Page, dashboard: str):
    visit(page, f"{dashboard}/progression", "Progression")
    gains = rows(page, "Biggest gains")
    assert gains[0][:2] == [LEADER, str(LEADER_XP)]
    choose_first_row(page, "Biggest gains")
    expect(page.get_by_role("textbox", name="Player")).to_have_value(LEADER)
    expect(page.get_by_test_id("stMetric").filter(has_text="Last played")).to_contain_text(str(LAST_DAY))
    expect(page).to_have_url(re.compile(f"player={LEADER}"))


def test_metrics_show_who_plays_and_who_comes_back(page: Page, dashboard: str):
    visit(page, f"{dashboard}/metrics", "Metrics")
    expect(page.get_by_test_id("stMetric").filter(has_text="DAU")).to_contain_text("6")
    assert rows(page, "Kills")[0][:3] == ["hydra", "0", "1"]
    expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg")).to_have_count(10)
    page.get_by_role("button", name="chevron_left").click()
    expect(page).to_have_url(re.compile("day=2026-03-12"))
    expect(page.get_by_text("No boss fell on 2026-03-12.")).to_be_visible()


def test_fairness_leads_from_the_flag_to_the_evidence(page: Page, dashboard: str):
    visit(page, f"{dashboard}/fairness?player={CHEATER}", "Fairness")
    assert CHEATER in rows(page, "Judged players")[0]
    expect(page.get_by_role("heading", name=f"Evidence: {CHEATER}")).to_be_visible()
    expect(page.get_by_text("observed 600 XP").first).to_be_visible()
    page.get_by_text("Evidence: 1 event(s)").first.click()
    assert rows(page, "Evidence")[0][0] == f"{CHEATER}-11-1"


def test_leaderboards_show_the_leader_and_hand_out_the_whole_board(page: Page, dashboard: str):
    visit(page, f"{dashboard}/leaderboards?window=seasonal", "Leaderboards")
    assert rows(page, "Leaderboard")[0][:4] == ["1", LEADER, str(11 * LEADER_XP), "="]
    with page.expect_download() as download:
        page.get_by_role("button", name="The whole board as CSV").click()
    assert page.locator('[aria-label^="Download as CSV"]').count() > 0  # Streamlit's own, which guards nothing
    assert page.locator('[aria-label^="Download as CSV"]:visible').count() == 0
    board = pl.read_csv(download.value.path())
    assert board.select("rank", "player_id", "xp").row(0) == (1, LEADER, 11 * LEADER_XP)
    assert HOSTILE in board["player_id"].to_list()


def test_sql_runs_and_an_error_says_what_tables_there_are(page: Page, dashboard: str):
    visit(page, f"{dashboard}/sql", "SQL")
    editor = page.get_by_role("textbox", name="Query")
    editor.fill("SELECT player_id, sum(xp) AS total FROM player_days GROUP BY ALL ORDER BY total DESC")
    page.get_by_role("button", name="Run").click()
    assert rows(page, "Result")[0] == [LEADER, str(11 * LEADER_XP)]
    editor.fill("SELECT * FROM read_csv('/etc/passwd')")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("read_csv() cannot be read from here")).to_be_visible()
    expect(page.get_by_role("region", name="Result")).to_have_count(0)


def test_a_hostile_player_id_is_shown_as_the_text_it_is(page: Page, dashboard: str):
    visit(page, f"{dashboard}/fairness", "Fairness")
    page.get_by_role("textbox", name="Player").fill(HOSTILE)
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", name="Evidence:")
    expect(heading).to_contain_text(HOSTILE)
    expect(heading.locator("img, strong, code, .katex, a[href^=javascript]")).to_have_count(0)


def test_the_day_stands_in_the_url_and_stays_from_page_to_page(page: Page, dashboard: str):
    visit(page, f"{dashboard}/progression?day={QUIET_DAY}", "Progression")
    expect(page.get_by_text(f"No events on {QUIET_DAY}")).to_be_visible()
    page.get_by_role("button", name="chevron_left").click()
    expect(page).to_have_url(re.compile("day=2026-03-06"))
    expect(page.get_by_test_id("stMetric").first).to_be_visible()
    page.get_by_role("link", name="Fairness").click()
    settle(page, "Fairness")
    expect(page).to_have_url(re.compile("day=2026-03-06"))


def test_an_empty_lake_says_on_every_page_what_to_do(browser: Browser, page: Page, tmp_path: Path):
    with serve(tmp_path) as url:
        for name in ("", "progression", "fairness", "leaderboards"):
            visit(page, f"{url}/{name}", name.capitalize() or "Overview")
            expect(page.get_by_text("The lake is empty")).to_be_visible()
            expect(page.get_by_text("make demo")).to_be_visible()
        visit(page, f"{url}/sql", "SQL")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_text("0 row(s)")).to_be_visible()
