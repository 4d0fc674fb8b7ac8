"""Analysts' SQL: what it answers, and what it refuses to everybody who tries."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dashboard_fixtures import LEADER, LEADER_XP, build_lake, event, game_lake

from tests.lake_fixtures import paths_of
from warehouse.analysts import ask
from warehouse.errors import FairboardError
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import PLAYER_DAYS, TABLES


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_it_answers_over_several_tables(game_lake: Settings):
    sql = """
        SELECT b.player_id, b.xp, p.level_after, l.xp_next
        FROM leaderboards AS b
        JOIN progression AS p ON p.player_id = b.player_id AND p.event_date = b.as_of
        JOIN levels AS l ON l.level = p.level_after
        WHERE b.window_kind = 'daily' AND b.window_start = '2026-03-13' ORDER BY b.rank LIMIT 1
    """
    answer = ask(game_lake, sql)
    assert answer.rows.row(0)[:2] == (LEADER, LEADER_XP)
    assert not answer.truncated


@pytest.mark.parametrize("table", [*TABLES, "levels", "rewards", "fairness_rules"])
def test_every_table_is_there_on_a_full_and_on_an_empty_lake(game_lake: Settings, tmp_path: Path, table: str):
    full = ask(game_lake, f"SELECT * FROM {table}")
    empty = ask(Settings(_env_file=None, data_dir=tmp_path), f"SELECT * FROM {table}")
    not_in_this_game = {"player_months": "its month is not over", "leaderboard_revisions": "nothing was published"}
    assert (full.rows.height > 0) == (table not in not_in_this_game)
    assert empty.rows.schema == full.rows.schema


@pytest.mark.parametrize("sql", ["SHOW TABLES", "DESCRIBE events", "SUMMARIZE levels", "FROM events", "VALUES (1)", "SELECT 1;",
                                 "WITH a AS (SELECT 1) SELECT * FROM a", 'SELECT * FROM "EVENTS"'])  # fmt: skip
def test_what_only_reads_runs(game_lake: Settings, sql: str):
    assert ask(game_lake, sql).rows.height > 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY levels TO '{lake}/out.csv'",
        "COPY levels TO '{lake}/events/event_date=2026-03-02/data.parquet' (FORMAT parquet)",
        "EXPLAIN ANALYZE COPY levels TO '{lake}/out.csv'",
        "EXPORT DATABASE '{lake}/out'",
        "FROM enable_logging(storage = 'file', storage_config = {{'path': '{lake}/log'}})",
        "FROM enable_profiling(save_location = '{lake}/profile.txt')",
        "ATTACH '{lake}/other.duckdb' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "PRAGMA threads = 1",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "CREATE TABLE mine AS SELECT 1",
        "INSERT INTO rewards VALUES (1, 'mine')",
        "DELETE FROM rewards",
        "DROP VIEW events",
        "CALL enable_logging()",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY levels TO '{lake}/out.csv'",
        "PREPARE p AS SELECT 1",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('{lake}/_lake.json')",
        "SELECT * FROM read_parquet('{lake}/events/*/*.parquet')",
        "SELECT * FROM glob('/*')",
        "SELECT (SELECT content FROM read_text('/etc/passwd'))",
        "WITH a AS (SELECT * FROM read_blob('/etc/passwd')) SELECT * FROM a",
        "SELECT * FROM query('COPY levels TO ''{lake}/out.csv''')",
        "SELECT * FROM query('FROM read_text(''/etc/passwd'')')",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM settings",
        "SELECT getenv('HOME')",
        "",
        "-- nothing",
        "SELECT FROM WHERE",
        "SELECT * FROM no_such_table",
    ],
)
def test_what_does_more_than_read_the_tables_is_refused(game_lake: Settings, sql: str):
    before = files_below(game_lake.data_dir)
    with pytest.raises(FairboardError, match="The tables are events, rejects"):
        ask(game_lake, sql.format(lake=game_lake.lake_dir))
    assert files_below(game_lake.data_dir) == before


def test_a_query_that_runs_for_ever_is_stopped(game_lake: Settings):
    with pytest.raises(FairboardError, match=r"stopped after 0\.5 s"):
        ask(game_lake, "SELECT count(*) FROM range(1000000000000) AS a, range(1000) AS b", timeout_s=0.5)


DOUBLING = "WITH c0 AS (SELECT 1 AS x)" + "".join(
    f", c{n} AS (SELECT a.x FROM c{n - 1} AS a, c{n - 1} AS b)" for n in range(1, 41)
)
BINDER = {
    "doubling": f"{DOUBLING} SELECT count(*) FROM c40",
    "stars": f"SELECT {', '.join(['*'] * 2_000)} FROM {', '.join(f'(SELECT 1 AS a, 2 AS b) AS t{n}' for n in range(100))}",
    "joins": "SELECT count(*) FROM range(2) AS t0"
    + "".join(f" JOIN range(2) AS t{n} ON t{n}.range = t{n - 1}.range" for n in range(1, 300)),
}


@pytest.mark.parametrize("sql", BINDER.values(), ids=BINDER)
def test_nothing_outlives_its_time_whatever_it_is_doing(game_lake: Settings, sql: str):
    started = time.monotonic()
    try:
        ask(game_lake, sql, timeout_s=2)
    except FairboardError as error:
        assert "stopped after 2 s" in str(error)  # noqa: PT017 - a machine may be fast enough for one
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list_sum(range(400000000))",
        "SELECT repeat('a', 100000000) FROM range(10000)",
        "SELECT list(range) FROM range(10000000000)",
        "WITH RECURSIVE t(n) AS (SELECT [1] UNION ALL SELECT n || n FROM t) SELECT max(len(n)) FROM t",
    ],
)
def test_what_needs_more_memory_than_there_is_ends_with_a_sentence_and_status_1(tmp_path: Path, sql: str):
    environment = os.environ | {"FAIRBOARD_MEMORY_LIMIT": "200MB"}
    with subprocess.Popen(
        [Path(sys.executable).with_name("fairboard"), "sql", sql], env=environment, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stderr is not None
        said = command.stderr.read()
        _, status, used = os.wait4(command.pid, 0)  # of the command and what it started
        command.returncode = os.waitstatus_to_exitcode(status)
    assert command.returncode == 1
    assert "needed more memory than 200MB" in said
    assert said.count("\n") == 1
    assert used.ru_maxrss < 1_500_000
    assert [path for path in (tmp_path / "data/lake/_tmp").iterdir() if path.name.startswith("sql.")] == []


@pytest.mark.parametrize(("sql", "says"), [("SELECT repeat('a', 100000000)", "one row alone is larger than 64 MiB"),
                                           (f"SELECT {'[' * 900}1{']' * 900}", "nested too deep"),
                                           ("SELECT '\udcff'", "not UTF-8"),
                                           (f"SELECT '{'a' * 2_000_000}'", "1,048,576 characters at most")])  # fmt: skip
def test_what_is_too_large_or_no_text_says_so(game_lake: Settings, sql: str, says: str):
    with pytest.raises(FairboardError, match=says):
        ask(game_lake, sql)


def test_where_the_system_has_no_limit_of_memory_the_process_ends_itself(game_lake: Settings, monkeypatch: pytest.MonkeyPatch):
    growing = [sys.executable, "-c", "from warehouse.analyst_process import watch; kept = b'x' * 10**8; watch(10**8)"]
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: start(growing, **options))
    with pytest.raises(FairboardError, match="needed more memory than 2GB"):
        ask(game_lake, "SELECT 1")


def test_a_process_that_something_else_kills_is_a_sentence_too(game_lake: Settings, monkeypatch: pytest.MonkeyPatch):
    dying = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: start(dying, **options))
    with pytest.raises(FairboardError, match=r"brought down the process that ran it \(signal SIGKILL\)"):
        ask(game_lake, "SELECT 1")


def test_a_link_in_a_table_s_folder_leads_nowhere(tmp_path: Path):
    settings = build_lake(tmp_path / "data", [event("ada", 0, 0, 5)])
    (file,) = paths_of(settings, PLAYER_DAYS)
    outside = tmp_path / "other.parquet"
    pq.write_table(pa.table({"player_id": ["secret"], "xp": [7]}), outside)
    for target in (outside, Path("/etc/passwd")):
        file.unlink()
        file.symlink_to(target)
        with pytest.raises(FairboardError, match=r"\.parquet is a symbolic link.* nothing was run"):
            ask(settings, "SELECT * FROM player_days")
    assert ask(settings, "SELECT count(*) FROM events").rows.item() == 1


def test_secrets_of_the_settings_are_not_handed_on(game_lake: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAIRBOARD_HMAC_KEYS", "game:secret")
    seen: list[dict[str, str]] = []
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: seen.append(options["env"]) or start(command, **options)
    )
    ask(game_lake, "SELECT 1")
    assert [name for name in seen[0] if name.startswith("FAIRBOARD_")] == []


def test_a_huge_result_is_cut_and_says_so(game_lake: Settings):
    answer = ask(game_lake, "SELECT * FROM range(1000000000000)", max_rows=500)
    assert (answer.rows.height, answer.truncated) == (500, True)
    assert not ask(game_lake, "SELECT * FROM range(500)", max_rows=500).truncated


def test_wide_rows_are_cut_by_their_bytes(game_lake: Settings):
    answer = ask(game_lake, "SELECT repeat('x', 100000) AS wide FROM range(5000)")
    assert answer.truncated
    assert 0 < answer.rows.height < 5000


def test_sums_are_integers_and_equal_names_are_told_apart(game_lake: Settings):
    answer = ask(game_lake, "SELECT sum(xp) AS a, 2 AS a, 3 AS a_2, sum(xp_sum) * 1000000000000 AS wide FROM player_days")
    assert answer.rows.columns == ["a", "a_2", "a_2_2", "wide"]
    assert isinstance(answer.rows["a"][0], int)
    assert int(answer.rows["wide"][0]) == int(answer.rows["a"][0]) * 10**12


def test_a_type_without_a_form_says_what_to_do(game_lake: Settings):
    with pytest.raises(FairboardError, match="CAST it to VARCHAR"):
        ask(game_lake, "SELECT INTERVAL 1 MONTH")


def test_late_events_are_in_the_next_answer(tmp_path: Path):
    settings = build_lake(tmp_path, [event("ada", 0, 0, 5)])
    assert ask(settings, "SELECT sum(xp) FROM player_days").rows.item() == 5
    build_lake(tmp_path, [event("ada", 0, 0, 5), event("ada", 0, 1, 7)])
    assert ask(settings, "SELECT sum(xp) FROM player_days").rows.item() == 12
