"""Analysts' SQL: what it answers, and what it refuses to everybody who tries."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

from pathlib import Path

import pytest
from dashboard_fixtures import LEADER, LEADER_XP, build_lake, event, game_lake

from warehouse.analysts import ask
from warehouse.errors import FairboardError
from warehouse.settings import Settings
from warehouse.tables import TABLES


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
