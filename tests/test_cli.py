"""The command line, as a person or a program uses it."""

import gzip
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from conftest import Fairboard, Land, encode, progression

from ingest_api.keys import live_secrets
from pipelines.output import table
from tests.lake_fixtures import paths_of
from warehouse.folds import FOLDS
from warehouse.settings import Settings
from warehouse.tables import EVENTS, REJECTS


def written(path: Path, *lines: bytes) -> Path:
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


GOOD = encode(progression("ann", "2026-05-01", 10, eventId="e1"))
LATER = encode(progression("bob", "2026-05-02", 20, eventId="e2"))


def test_import_names_the_bad_lines_and_brings_in_the_rest(fairboard: Fairboard, tmp_path: Path, settings: Settings) -> None:
    broken = written(
        tmp_path / "events.ndjson",
        GOOD,
        b'{"type":"progression","playerId":"ann","ts":1777636800,"payload":{"deltaXp":1.5,"activity":"x"}}',
        b"{not json",
        LATER,
    )
    done = fairboard("import", str(broken), status=1)
    assert "2 events on 2 days" in done.stdout
    assert f"{broken}:2: payload.deltaXp: a whole number" in done.stderr
    assert f"{broken}:3: malformed JSON" in done.stderr
    rejects = pl.read_parquet(paths_of(settings, REJECTS))
    assert rejects["position"].to_list() == [2, 3]
    assert rejects["body"][1] == "{not json"


def test_the_same_file_imported_twice_in_any_form_counts_once(fairboard: Fairboard, tmp_path: Path, settings: Settings) -> None:
    plain, packed = written(tmp_path / "a.ndjson", GOOD, LATER), written(tmp_path / "b.ndjson.gz", GOOD, LATER)
    fairboard("import", str(plain), str(plain), str(packed))
    table = tmp_path / "c.parquet"
    pl.read_parquet(paths_of(settings, EVENTS), hive_partitioning=False).unique("event_id").write_parquet(table)
    fairboard("import", str(table))
    answer = msgspec.json.decode(fairboard("sql", "SELECT count(*) AS n, sum(delta_xp) AS xp FROM events", "--json").stdout)
    assert answer == [{"n": 2, "xp": 30}]


def test_a_missing_and_a_damaged_file_are_errors_with_a_sentence(fairboard: Fairboard, tmp_path: Path) -> None:
    assert "cannot be read" in fairboard("import", str(tmp_path / "nothing"), status=1).stderr
    damaged = tmp_path / "d.gz"
    damaged.write_bytes(gzip.compress(GOOD)[:-12])
    assert "is damaged" in fairboard("import", str(damaged), status=1).stderr


def test_reading_commands_give_json(fairboard: Fairboard, land: Land) -> None:
    land([progression("ann", "2026-05-01", 120), progression("bob", "2026-05-02", 20)])
    done = msgspec.json.decode(fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-02", "--json").stdout)
    assert [one["table"] for one in done] == [*FOLDS]
    board = msgspec.json.decode(fairboard("leaderboard", "--window", "weekly", "--json").stdout)
    assert board["season"] == "2026-05"
    assert [(e["rank"], e["playerId"], e["score"]) for e in board["entries"]] == [(1, "ann", 120), (2, "bob", 20)]
    player = msgspec.json.decode(fairboard("player", "ann", "--json").stdout)
    assert player["now"]["level_after"] == 2
    fairness = msgspec.json.decode(fairboard("fairness", "--date", "2026-05-02", "--json").stdout)
    assert fairness["verdicts"]["self"] == {"insufficient data": 1}
    assert msgspec.json.decode(fairboard("verify", "--json").stdout)["damaged"] == []
    states = {one["what"]: one["state"] for one in msgspec.json.decode(fairboard("doctor", "--json").stdout)}
    assert states["lake"] == states["fresh"] == "ok"
    assert states["redis"] == "look"


def test_the_board_shown_is_of_a_day_that_has_begun(fairboard: Fairboard, land: Land) -> None:
    """Minutes before midnight an event may be of tomorrow."""
    today = datetime.now(UTC).date()
    tomorrow = today + timedelta(days=1)
    land([progression("ann", str(today), 1, "00:00:01"), progression("bob", str(tomorrow), 9, "00:00:01")])
    fairboard("materialize", "--from", str(today), "--to", str(tomorrow))
    board = msgspec.json.decode(fairboard("leaderboard", "--window", "daily", "--json").stdout)
    assert [entry["playerId"] for entry in board["entries"]] == ["ann"]


def test_selected_tables_only(fairboard: Fairboard, land: Land, settings: Settings) -> None:
    land([progression("ann", "2026-05-01", 120)])
    fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-01", "--select", "player_days")
    assert (settings.lake_dir / "player_days").exists()
    assert not (settings.lake_dir / "progression").exists()


def test_a_day_without_events_is_an_empty_report(fairboard: Fairboard) -> None:
    assert "no events" in fairboard("fairness", "--date", "2026-05-02").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["publish"], "nothing is materialized"),
        (["player", "nobody"], "No player 'nobody'"),
        (["leaderboard", "--window", "daily", "--season", "spring"], "there is no season 'spring'"),
        (["leaderboard", "--window", "seasonal", "--season", "1800-01"], "There is no such board yet"),
        (["leaderboard", "--window", "daily", "--season", "1800-01", "--json"], "There is no such board yet"),
        (["leaderboard", "--window", "alltime"], "There is no such board yet"),
        (["materialize", "--from", "2026-05-02", "--to", "2026-05-01"], "ends (2026-05-01) before it starts"),
        (["materialize", "--from", "2026-05-01", "--to", "2026-05-01", "--select", "gold"], "there is no table gold"),
        (["simulate", "--url", "http://127.0.0.1:1", "--players", "1"], "took nothing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_on_stderr_and_status_1(
    fairboard: Fairboard, arguments: list[str], sentence: str
) -> None:
    done = fairboard(*arguments, status=1)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["leaderboard", "--window", "hourly"], ["fairness", "--date", "yesterday"], ["fly"]])
def test_wrong_usage_is_status_2(fairboard: Fairboard, arguments: list[str]) -> None:
    fairboard(*arguments, status=2)


def test_publish_without_redis_says_what_to_do(fairboard: Fairboard, land: Land) -> None:
    land([progression("ann", "2026-05-01", 120)])
    fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-01")
    assert "fairboard redis" in fairboard("publish", status=1).stderr


def test_verify_names_the_damaged_file(fairboard: Fairboard, land: Land, settings: Settings) -> None:
    land([progression("ann", "2026-05-01", 120)])
    [path] = paths_of(settings, EVENTS)
    content = bytearray(path.read_bytes())
    content[40] ^= 4
    path.write_bytes(content)
    done = fairboard("verify", status=1)
    assert f"{path} has changed since it was written" in done.stderr


def test_a_wrong_setting_is_named_before_anything_starts(fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRBOARD_TIMEZONE", "Mars/Olympus")
    done = fairboard("doctor", status=1)
    assert "FAIRBOARD_TIMEZONE: " in done.stderr
    assert "Mars/Olympus" in done.stderr


def test_the_installed_command_starts_and_ends_with_its_status() -> None:
    command = str(Path(sys.executable).parent / "fairboard")
    done = subprocess.run([command, "player", "nobody"], capture_output=True, text=True, check=False)
    assert (done.returncode, "No player 'nobody'" in done.stderr) == (1, True)


def test_keys_are_made_listed_without_their_secret_and_retired(fairboard: Fairboard, settings: Settings) -> None:
    first, second = fairboard("keys", "make", "game").stdout.strip(), fairboard("keys", "make", "game").stdout.strip()
    assert live_secrets(settings) == {"game": [first, second]}
    listed = fairboard("keys", "list", "--json").stdout
    assert [key["id"] for key in msgspec.json.decode(listed)] == ["game", "game"]
    assert first not in listed
    fairboard("keys", "retire", "game", "--keep-newest")
    assert live_secrets(settings) == {"game": [second]}
    assert "no live secret of 'other'" in fairboard("keys", "retire", "other", status=1).stderr


ESCAPE = "\x1b[31mred\x07 \x9b2J\u202eback\u2028line\nnext\ttab [bold]not bold[/] :heart: ü😀"


def is_harmless(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


def test_what_would_move_the_cursor_is_shown_as_its_escape(fairboard: Fairboard, land: Land) -> None:
    event = progression("ann", "2026-05-01", 10)
    event["payload"]["activity"] = ESCAPE
    land([event])
    shown = fairboard("sql", "SELECT activity FROM events").stdout
    assert is_harmless(shown)
    row = "".join(line.strip() for line in shown.splitlines()[2:])
    assert row.replace(" ", "") == (r"\x1b[31mred\x07\x9b2J\u202eback\u2028line\nnext\ttab[bold]notbold[/]:heart:ü😀")
    as_json = fairboard("sql", "SELECT activity FROM events", "--json").stdout
    assert is_harmless(as_json)
    assert msgspec.json.decode(as_json) == [{"activity": ESCAPE}]


def test_what_is_refused_is_named_without_moving_the_cursor(fairboard: Fairboard, tmp_path: Path) -> None:
    event = progression("ann", "2026-05-01", 10, type=ESCAPE)
    done = fairboard("import", str(written(tmp_path / "events.ndjson", encode(event))), status=1)
    (line,) = done.stderr.splitlines()
    assert r"\x1b[31mred" in line
    assert r"\nnext" in line
    assert is_harmless(done.stdout + done.stderr)


def test_columns_and_sentences_hold_no_more_power_than_cells(fairboard: Fairboard) -> None:
    assert is_harmless(fairboard("sql", f'SELECT 1 AS "{ESCAPE}"').stdout)
    assert "[bold]not bold[/] :heart:" in fairboard("sql", 'SELECT 1 AS "[bold]not bold[/] :heart:"').stdout
    assert is_harmless(fairboard("player", "nobody\x1b[2J", status=1).stderr)
    assert is_harmless(fairboard("sql", f"SELECT '{ESCAPE}'::INTEGER", status=1).stderr)


def test_numbers_have_the_digits_that_say_something(fairboard: Fairboard) -> None:
    def row(sql: str) -> list[str]:
        return fairboard("sql", sql).stdout.splitlines()[-1].split()

    values = (
        "0.0163::double a, 3.4e-50::double b, 3.141592653589793::double c, 0.10::decimal(5, 2) d, 12345 e, true f, 2::double g"
    )
    assert row(f"SELECT {values}") == ["0.0163", "3.4e-50", "3.141592653589793", "0.10", "12,345", "true", "2.0"]
    assert row("SELECT sum(x)::hugeint * 10000000000000 FROM range(3) t(x)") == ["30,000,000,000,000"]


def test_json_has_numbers_as_numbers(fairboard: Fairboard) -> None:
    sql = "SELECT 0.1::decimal(5, 2) AS a, 12345678901234567890123.5::decimal(38, 3) AS b, 0.0163::double AS c, sum(3) AS d"
    answer = fairboard("sql", sql, "--json").stdout
    assert msgspec.json.decode(answer) == [{"a": 0.1, "b": 12345678901234567890123.5, "c": 0.0163, "d": 3}]
    assert "12345678901234567890123.5" in answer


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (-0.0, "-0.0"), (2.0, "2.0"), (0.0163, "0.0163"), (0.1 + 0.2, "0.3"), (-12.3456, "-12.35"),
     (99.996, "100.0"), (1234.5678, "1,234.6"), (123456789.0, "123,456,789.0"), (3.2e-9, "3.2e-09"), (1e300, "1e+300"),
     (float("nan"), "nan"), (float("-inf"), "-inf"), (0.0001, "0.0001"), (0.000123456, "0.0001235")],
)  # fmt: skip
def test_a_measured_value_never_reads_as_nothing_unless_it_is(
    capsys: pytest.CaptureFixture[str], value: float, text: str
) -> None:
    table("", ["value"], [(value,)])
    assert capsys.readouterr().out.split()[-1] == text
