"""The page that a game's developer copies, in a real browser, opened from disk, over a real service with real boards."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from dashboard_fixtures import browser, page
from playwright.sync_api import Page, expect
from reads_fixtures import ODD, PLAYERS, Game, published_game, reading

from tests.ingest_fixtures import Service, wait_until
from warehouse.calendar import Calendar, WindowKind
from warehouse.embedded_redis import connect
from warehouse.engine import DuckDBEngine
from warehouse.readings import leaderboard
from warehouse.swaps import publish_board

pytestmark = pytest.mark.xdist_group("browser")

UI = Path(__file__).parent.parent / "examples" / "game_ui" / "index.html"


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Game]:
    with published_game(tmp_path_factory.mktemp("ui") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def running(game: Game) -> Iterator[Service]:
    with reading(game) as started:
        yield started


def address(service: Service, **parameters: str) -> str:
    return f"{UI.as_uri()}?{urlencode({'api': service.url, 'every': '1', **parameters})}"


def cells(page: Page, table: str, row: int) -> list[str]:
    return page.locator(f"#{table} tbody tr").nth(row).locator("td").all_inner_texts()


def test_the_board_shows_who_leads_who_moved_and_when_it_resets(page: Page, running: Service):
    page.goto(address(running))
    expect(page.locator("#top tbody tr")).to_have_count(20)
    assert cells(page, "top", 0) == ["1", "new", ODD, "500"]
    assert cells(page, "top", 1) == ["2", "▲ 147", "p148", "75"]
    expect(page.locator("#reset")).to_have_text(re.compile(r"Resets in \d\d:\d\d:\d\d"))
    expect(page.locator("#updated")).to_contain_text(f"{PLAYERS + 1} players")
    page.get_by_role("button", name="All time").click()
    expect(page.locator("#reset")).to_have_text("Never resets")
    expect(page.locator("#top tbody tr").first).to_contain_text("500")


def test_a_player_finds_their_place_and_the_address_keeps_it(page: Page, running: Service):
    page.goto(address(running))
    page.get_by_label("Your player id").fill("p100")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#mine")).to_have_text(f"#50 of {PLAYERS + 1} players")
    expect(page.locator("#around tr.mine")).to_contain_text("p100")
    expect(page.locator("#around tbody tr")).to_have_count(7)
    page.reload()
    expect(page.locator("#mine")).to_contain_text("#50")
    page.get_by_label("Your player id").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("#mine")).to_have_text("nobody is not on this board yet.")


def test_the_board_follows_what_is_published_and_costs_a_304_while_it_stands(page: Page, running: Service, game: Game):
    page.goto(address(running, window="alltime"))
    expect(page.locator("#top tbody tr")).to_have_count(20)
    wait_until(lambda: re.search(r'status="304"} [1-9]', running.http.get("/metrics").text) is not None, "a look was a 304")
    calendar = Calendar.of(game.settings)
    with DuckDBEngine(game.settings) as engine:
        board = leaderboard(engine, WindowKind.ALLTIME)
    client, window = connect(game.settings), board.window
    three, about = board.board.head(3), {"calendar": calendar, "window": window, "source": "", "watermark": None, "now": 1}
    publish_board(client, window.redis_key, three, three, **about)
    expect(page.locator("#top tbody tr")).to_have_count(3, timeout=15_000)
    game.publish("publications")


def test_an_empty_board_and_a_service_that_is_away_are_said(page: Page, game: Game):
    with reading(game, FAIRBOARD_SEASONS="month", FAIRBOARD_LAKE_URL=str(game.settings.data_dir / "empty")) as started:
        page.goto(address(started, window="seasonal"))
        expect(page.locator("#empty")).to_be_visible(timeout=30_000)  # the reader has to start
        expect(page.locator("#top")).to_be_hidden()
    expect(page.locator("#trouble")).to_contain_text(f"does not answer at {started.url}", timeout=15_000)


def test_a_hostile_name_is_shown_as_the_text_it_is(page: Page, running: Service, game: Game):
    client = connect(game.settings)
    name = "<img src=x onerror=alert(1)>"
    client.set("lb:second:weekly:top", client.get("lb:second:weekly:top").replace(ODD, name))
    page.goto(address(running, window="weekly"))
    expect(page.locator("#top tbody tr").first).to_contain_text(name)
    expect(page.locator("#top img")).to_have_count(0)
    game.publish("publications")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Page, running: Service):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(address(running, player="p100"))
    expect(page.locator("#around tbody tr")).to_have_count(7)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    heights = page.locator("button:visible, input:visible").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert min(heights) >= 44
