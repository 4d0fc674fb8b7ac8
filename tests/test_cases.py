"""Cases from suspicion to verdict and back, alerts, reports and what-if: through the command line, over a real database."""

import json
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from conftest import Fairboard, land_events
from streamlit.testing.v1 import AppTest
from test_fairness import DAYS, LAST, crowd, today

from warehouse.alerts import send
from warehouse.calendar import Days
from warehouse.database import ALERTS, CASES, open_database
from warehouse.engine import DuckDBEngine
from warehouse.errors import StoreUnavailable
from warehouse.folds import FOLDS, fold
from warehouse.publications import Outlets, publish
from warehouse.settings import DATA, Settings

CHEAT = [*today("p07", *[900] * 12)]
ODD_ID = "<b>|`p`"


def run(settings: Settings, days: Days = DAYS) -> int:
    """Everything folded, cases published; the cases with new evidence."""
    with DuckDBEngine(settings) as engine:
        for name in FOLDS:
            fold(engine, name, days)
        return publish(engine, Outlets(settings), "cases", Days(LAST, LAST)).rows


@pytest.fixture
def deployment(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A crowd and one cheater, folded, with its case open; the command line reads the same deployment."""
    monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(redis_settings.data_dir))
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    land_events(redis_settings, [*crowd(players=25), *[dict(event) for event in CHEAT]])
    assert run(redis_settings) == 1
    return redis_settings


def with_act(settings: Settings, folder: Path, act: float) -> Settings:
    file = folder / "rules.csv"
    rules = pl.read_csv(DATA / "fairness_rules.csv")
    act_column = pl.when(pl.col("rule") == "suspicion").then(act)
    rules.with_columns(act=act_column).write_csv(file)
    return settings.model_copy(update={"rules_file": file})


def cases(fairboard: Fairboard, *arguments: str) -> Any:
    return json.loads(fairboard("cases", *arguments, "--json").stdout)


def test_a_suspicion_opens_one_case_that_says_why(deployment: Settings, fairboard: Fairboard) -> None:
    assert run(deployment) == 0
    [case] = cases(fairboard, "list")
    assert case["player_id"] == "p07"
    shown = cases(fairboard, "show", str(case["id"]))
    suspicion, *parts = shown["evidence"]
    assert (suspicion["rule"], suspicion["event_date"]) == ("suspicion", str(LAST))
    assert "p07-0" in suspicion["evidence"]
    assert {part["rule"] for part in parts} >= {"self_day", "self_log"}
    assert [note["action"] for note in shown["notes"]] == ["opened"]
    text = fairboard("cases", "show", str(case["id"])).stdout
    assert text.index("The events") < text.index("What the rules say")


def test_a_confirmed_case_takes_the_player_off_the_boards_and_a_reversal_brings_them_back(
    deployment: Settings, fairboard: Fairboard
) -> None:
    def on_board() -> bool:
        board = json.loads(fairboard("leaderboard", "--window", "seasonal", "--limit", "99", "--json").stdout)
        return "p07" in {entry["playerId"] for entry in board["entries"]}

    fairboard("cases", "assign", "1", "--to", "rita", "--by", "lead")
    fairboard("cases", "comment", "1", "no client sends this", "--by", "rita")
    assert on_board()
    fairboard(
        "cases", "decide", "1", "confirmed", "--by", "rita", "--why", "tripled XP", "--exclude-from", str(LAST - timedelta(20))
    )
    assert not on_board()
    [verdict] = cases(fairboard, "show", "1")["verdicts"]
    assert (verdict["decided_by"], verdict["case_id"]) == ("rita", 1)
    assert "suspicion 1" in verdict["rules_version"]
    assert cases(fairboard, "list") == []
    fairboard("cases", "reverse", "1", "--by", "lead", "--why", "it was a test account")
    assert on_board()
    assert [case["id"] for case in cases(fairboard, "list")] == [1]
    actions = [(note["noted_by"], note["action"]) for note in cases(fairboard, "show", "1")["notes"]]
    assert actions[1:] == [
        ("rita" if a in ("commented", "decided") else "lead", a) for a in ("assigned", "commented", "decided", "reversed")
    ]


def test_what_was_dismissed_does_not_come_again_but_new_evidence_does(deployment: Settings, fairboard: Fairboard) -> None:
    fairboard("cases", "decide", "1", "dismissed", "--by", "rita", "--why", "a tournament")
    assert run(deployment) == 0
    assert cases(fairboard, "list") == []
    [of_suspicion] = [one for one in cases(fairboard, "precision") if one["rule"] == "suspicion"]
    assert (of_suspicion["dismissed"], of_suspicion["precision"]) == (1, 0.0)
    land_events(
        deployment,
        [event | {"eventId": f"more-{n}", "ts": event["ts"] + 1} for n, event in enumerate(today("p07", *[5000] * 12))],
        "more",
    )
    assert run(deployment) == 1
    assert [case["id"] for case in cases(fairboard, "list")] == [2]


def test_new_evidence_of_a_confirmed_player_joins_the_closed_case(deployment: Settings, fairboard: Fairboard) -> None:
    fairboard("cases", "decide", "1", "confirmed", "--by", "rita", "--why", "tripled XP")
    land_events(
        deployment,
        [event | {"eventId": f"more-{n}", "ts": event["ts"] + 1} for n, event in enumerate(today("p07", *[5000] * 12))],
        "more",
    )
    assert run(deployment) == 1
    assert cases(fairboard, "list") == []
    assert any("more-" in ids for e in cases(fairboard, "show", "1")["evidence"] for ids in e["evidence"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "9"], "There is no case 9"),
        (["decide", "1", "dismissed", "--by", " ", "--why", "x"], "nothing was recorded"),
        (["decide", "1", "dismissed", "--by", "rita", "--why", "x", "--exclude-from", "2026-05-01"], "excludes nobody"),
        (["reverse", "1", "--by", "rita", "--why", "x"], "no verdict that stands"),
        (["comment", "1", " ", "--by", "rita"], "nothing was recorded"),
        (["precision"], "No case was decided"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    deployment: Settings, fairboard: Fairboard, arguments: list[str], says: str
) -> None:
    assert says in fairboard("cases", *arguments, status=1).stderr
    assert cases(fairboard, "list")[0]["id"] == 1
    assert len(cases(fairboard, "show", "1")["notes"]) == 1


def test_a_player_has_one_open_case_whatever_runs_at_once(deployment: Settings) -> None:
    database = open_database(deployment)
    again = {"player_id": "p07", "is_open": True, "opened_at": sa.func.now()}
    with database.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(sa.insert(CASES).values(again))


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any], list[int]]]:
    """A real HTTP server: its URL, what it was told, and the statuses it answers with next (200 where it has none)."""
    told: list[Any] = []
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = statuses.pop() if statuses else 200
            told.extend([body] if status == 200 else [])
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told, statuses
        server.shutdown()


def test_the_act_threshold_alerts_once_per_case_and_keeps_what_nobody_took(
    deployment: Settings, webhook: tuple[str, list[Any], list[int]], tmp_path: Path
) -> None:
    url, told, statuses = webhook
    acting = with_act(deployment, tmp_path, 1e-6).model_copy(update={"alert_webhook": url})
    statuses.append(500)
    with pytest.raises(StoreUnavailable, match="kept"):
        run(acting)
    run(acting)
    run(acting)
    assert [alert["subject"] for alert in told] == ["case 1"]
    database = open_database(acting)
    assert send(acting, database) == 0
    with database.connect() as connection:
        assert connection.execute(sa.select(ALERTS.c.sent_at)).scalar_one() is not None


def test_a_jump_in_flags_is_an_alert_of_the_day(redis_settings: Settings) -> None:
    cheats = [event for n in range(12) for event in today(f"p{n:02}", *[900] * 12)]
    land_events(redis_settings, [*crowd(players=40), *cheats])
    run(redis_settings)
    with open_database(redis_settings).connect() as connection:
        assert f"day {LAST}" in connection.execute(sa.select(ALERTS.c.subject)).scalars().all()


def test_the_report_is_one_file_that_shows_ids_as_they_are(deployment: Settings, fairboard: Fairboard, tmp_path: Path) -> None:
    land_events(deployment, today(ODD_ID, *[10**6] * 12), "odd")
    history = [event | {"playerId": ODD_ID} for event in crowd(players=1, seed=5)]
    land_events(deployment, history, "history")
    run(deployment)
    file = tmp_path / "report.html"
    fairboard("report", "--date", str(LAST), "--out", str(file))
    html = file.read_text()
    assert "&lt;b&gt;|`p`" in html
    assert "<b>" not in html
    assert "http" not in html
    assert "<svg" in html
    assert "p07" in html
    assert "materialized" in fairboard("report", "--date", "2020-01-01", "--out", str(tmp_path / "no.html"), status=1).stderr


def test_what_if_shows_who_would_come_and_go_and_touches_nothing(
    deployment: Settings, fairboard: Fairboard, tmp_path: Path
) -> None:
    file = tmp_path / "strict.csv"
    rules = pl.read_csv(DATA / "fairness_rules.csv")
    rules.with_columns(review=pl.when(pl.col("rule") == "suspicion").then(1e-250).otherwise("review")).write_csv(file)
    before = {path: path.read_bytes() for path in deployment.lake_dir.rglob("*.parquet")}
    days = ("--from", str(LAST - timedelta(days=1)), "--to", str(LAST))
    changes = json.loads(fairboard("fairness", "--rules", str(file), *days, "--json").stdout)["changes"]
    assert changes == [{"event_date": str(LAST), "player_id": "p07", "rule": "suspicion", "change": "removed"}]
    assert "removed" in fairboard("fairness", "--rules", str(file), *days).stdout
    same = fairboard("fairness", "--rules", str(DATA / "fairness_rules.csv"), *days).stdout
    assert "The same flags either way" in same
    assert {path: path.read_bytes() for path in deployment.lake_dir.rglob("*.parquet")} == before
    fairboard("fairness", "--rules", str(file), status=2)


def test_the_days_suspects_are_listed_with_their_reason(deployment: Settings, fairboard: Fairboard) -> None:
    shown = json.loads(fairboard("fairness", "--date", str(LAST), "--json").stdout)
    assert [one["player_id"] for one in shown["suspects"]] == ["p07"]
    assert shown["suspects"][0]["share"] > 0.3
    assert "p07" in fairboard("fairness", "--date", str(date(2026, 5, 20))).stdout


def test_a_reviewer_works_a_case_in_the_dashboard(deployment: Settings, fairboard: Fairboard) -> None:
    app = AppTest.from_file(Path(__file__).parents[1] / "dashboard/app.py", default_timeout=30).run()
    app.query_params["player"] = "p07"
    app.switch_page("app_pages/fairness.py").run()

    def press(form: str, **values: str | date) -> None:
        for key, value in values.items():
            widgets = {"decision": app.radio, "from": app.date_input}.get(key, app.text_input)
            widgets(key=f"{key}-1").set_value(value)
        app.button(key=f"FormSubmitter:{form}-1-{form.capitalize()}").click()
        app.run()
        assert not app.exception

    press("comment", remark="hm")
    assert "somebody" in app.error[0].value
    assert not [note for note in cases(fairboard, "show", "1")["notes"] if note["action"] == "commented"]
    app.text_input(key="reviewer").set_value("eve").run()
    press("comment", remark="*look* at this")
    press("assign", assignee="zed")
    assert any(r"\*look\* at this" in line.value for line in app.markdown)
    assert r"open\, with zed" in app.expander[-1].label
    assert "p07" in fairboard("leaderboard", "--window", "alltime").stdout
    press("decide", decision="confirmed", why="900 XP, twelve times", **{"from": LAST})
    assert not app.error
    shown = cases(fairboard, "show", "1")
    assert [(note["noted_by"], note["action"]) for note in shown["notes"]][1:] == [
        ("eve", "commented"), ("eve", "assigned"), ("eve", "decided"),
    ]  # fmt: skip
    assert shown["verdicts"][0]["excluded_from"] == str(LAST)
    assert "p07" not in fairboard("leaderboard", "--window", "alltime").stdout
    press("reverse", reversal="a mistake")
    assert cases(fairboard, "show", "1")["case"]["is_open"]
    assert "p07" in fairboard("leaderboard", "--window", "alltime").stdout
    app.toggle(key="report").set_value(True).run()
    assert any("under suspicion" in line.value for line in app.markdown)
