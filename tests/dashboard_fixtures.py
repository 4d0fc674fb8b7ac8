"""A small real lake, a real Streamlit over it and a real browser, for tests of the dashboard."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.imports import import_file
from warehouse.settings import Settings

ROOT = Path(__file__).parents[1]
FIRST = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = [(FIRST + timedelta(days=n)).date() for n in range(12) if n != 5]
QUIET_DAY, LAST_DAY = (FIRST + timedelta(days=5)).date(), DAYS[-1]
LEADER, CHEATER, NEWCOMER = "ada", "mallory", "newcomer"
LEADER_XP = 3 * 900
HOSTILE = "<img src=x onerror=alert(1)> **bold** [link](javascript:alert(1)) :red[x] $x$ `y`"

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
STARTS = 3


def event(player: str, day: int, n: int, xp: int) -> dict[str, Any]:
    ts = int((FIRST + timedelta(days=day, hours=9 + n, minutes=len(player))).timestamp())
    payload = {"deltaXp": xp, "activity": "quest"}
    return {"eventId": f"{player}-{day}-{n}", "type": "progression", "playerId": player, "ts": ts, "payload": payload}


def game() -> list[dict[str, Any]]:
    """Twelve days but one, three events a day: `ada` leads the last day, `mallory` plays fifteen times above herself then."""
    events = []
    for day in [(day - FIRST.date()).days for day in DAYS]:
        for player, base in {LEADER: 897, CHEATER: 40, HOSTILE: 30, "grace": 60, "linus": 50}.items():
            for n in range(3):
                cheats = player == CHEATER and day == 11 and n == 1
                events.append(event(player, day, n, 600 if cheats else base + 3 * n))
    events += [event(NEWCOMER, 11, n, 20 + n) for n in range(3)]
    kill = {"eventId": "kill-1", "type": "boss_kill", "playerId": LEADER, "payload": {"bossId": "hydra"}}
    drop = {"eventId": "drop-1", "type": "drop_claimed", "playerId": LEADER, "payload": {"bossId": "hydra", "itemId": "scale"}}
    return [
        *events,
        kill | {"ts": events[-1]["ts"]},
        drop | {"ts": events[-1]["ts"]},
        event("broken", 11, 0, 1) | {"payload": {"deltaXp": 1.5, "activity": "x"}},
    ]


def build_lake(folder: Path, events: list[dict[str, Any]]) -> Settings:
    """Import the events and fold their days, as `fairboard import` and `fairboard materialize` do."""
    settings = Settings(_env_file=None, data_dir=folder)
    file = folder / "game.ndjson"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, events)))
    with DuckDBEngine(settings) as engine:
        days = sorted(import_file(engine.lake, engine.calendar, file).days)
        for table in FOLDS:
            fold(engine, table, Days(days[0], days[-1]))
    return settings


@pytest.fixture(scope="session")
def game_lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return build_lake(tmp_path_factory.mktemp("game"), game())


@contextmanager
def serve(data_dir: Path) -> Iterator[str]:
    """Streamlit over that data folder, as the Procfile starts it; yields its URL."""
    for _ in range(STARTS):
        process, url = _start(data_dir)
        if url:
            break
    else:
        pytest.fail("Streamlit did not start")
    try:
        yield url
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _start(data_dir: Path) -> tuple[subprocess.Popen[str], str]:
    """The process, and its URL once it says that it serves; another process may have taken the port first: then no URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("FAIRBOARD_")}
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py", "--server.headless", "true"]
    process = subprocess.Popen(
        [*command, "--server.port", str(port)], cwd=ROOT, env=settings | {"FAIRBOARD_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout
    served = any("URL:" in line for line in process.stdout)
    return process, f"http://127.0.0.1:{port}" if served else ""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while Playwright lives, its event loop runs in this thread, and no other test could run one."""
    if BROWSER is None:
        message = "no Chromium: `apt-get install chromium` (or google-chrome) to run the dashboard's browser tests"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=BROWSER_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def dashboard(game_lake: Settings, browser: Browser) -> Iterator[str]:
    with serve(game_lake.data_dir) as url:
        yield url


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may speak with this machine only, and that fails the test where a script of it fails."""
    context = browser.new_context(viewport={"width": 1360, "height": 2400})
    context.set_default_timeout(30_000)
    opened = context.new_page()
    broken: list[str] = []
    opened.on("pageerror", lambda error: broken.append(str(error)))
    opened.on("dialog", lambda dialog: (broken.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    opened.on("requestfailed", lambda request: broken.append(request.url) if "127.0.0.1" not in request.url else None)
    yield opened
    context.close()
    assert broken == []


def visit(page: Page, url: str, heading: str) -> None:
    """Open a page and wait until it is drawn whole; no page may show an error."""
    page.goto(url)
    settle(page, heading)


def settle(page: Page, heading: str) -> None:
    """Wait until the script has run and its result is drawn."""
    expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible(timeout=30_000)
    expect(page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')).to_be_attached(timeout=30_000)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)


def rows(page: Page, name: str) -> list[list[str]]:
    """The body rows of the grid of that accessible name."""
    grid = page.get_by_role("region", name=name, exact=True)
    expect(grid.locator("tbody tr").first).to_be_attached()
    return [row.locator("td").all_text_contents() for row in grid.locator("tbody tr").all()]


def choose_first_row(page: Page, name: str) -> None:
    """Tick the box of the first row: it is drawn on a canvas, below a heading of some 36 pixels."""
    page.get_by_role("region", name=name, exact=True).click(position={"x": 18, "y": 52})
