"""Two engines, one set of models: DuckDB and Spark give the same rows, and the same lake byte for byte."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
import sqlglot
from buckets import Emulator, enter, s3_server
from conftest import land_events, progression
from spark_fixtures import (
    BEFORE,
    GAME_DAYS,
    HUGE,
    cluster,
    connect_server,
    deployment,
    lake_files,
    needs_spark,
    on_spark,
    run,
    sail_server,
)

from warehouse.calendar import Days
from warehouse.database import (
    CASE_EVIDENCE,
    LEADERBOARD_SNAPSHOTS,
    PLAYER_PROGRESS,
    RECEIPTS,
    SUSPICIOUS_EVENTS,
    open_database,
)
from warehouse.engine import DuckDBEngine, Engine, open_engine
from warehouse.errors import SettingsError
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake
from warehouse.outlets import Outlets
from warehouse.publications import PUBLISHED, publish
from warehouse.settings import Settings
from warehouse.tables import EVENTS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION, TABLES

# One Java process for all of these.
pytestmark = pytest.mark.xdist_group("spark")

SAMPLE = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
        "who": ["ann", "ann", "ann", "bob", None, None],
        "xp": pa.array([HUGE, None, -7, 7, 0, 0], pa.int64()),
        "z": pa.array([1.5, -2.5, None, -2.5, 0.0, 9.0], pa.float64()),
        "day": pa.array([date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 31), date(2026, 1, 1), None, None], pa.date32()),
        "note": ['it\'s "x"\\', "", None, "é\u0001\u2028", "a/b", "🐉"],
    }
)

QUERIES = {
    "a list is sorted and has its NULLs": "SELECT who, list(note ORDER BY xp, id) AS notes FROM sample GROUP BY ALL",
    "a list by two keys under a condition, its first two": "SELECT who, coalesce(list(id ORDER BY -abs(z), id)"
    " FILTER (WHERE z <> 0), [])[1:2] AS ids FROM sample GROUP BY ALL",
    "QUALIFY adds no column to a star": "SELECT sample.* FROM sample"
    " QUALIFY row_number() OVER (PARTITION BY who ORDER BY xp DESC, id) = 1",
    "NULLs come last in either direction": "SELECT id, rank() OVER (ORDER BY xp DESC) AS falling,"
    " rank() OVER (ORDER BY xp) AS rising FROM sample",
    "NULLs come last in the result": "SELECT xp, id FROM sample ORDER BY xp DESC, id",
    "integers are divided without a fraction": "SELECT id, xp // 2 AS half, xp % 4 AS rest FROM sample",
    "64 bits saturate where a decimal is cut": "SELECT who, CAST(greatest(least(sum(CAST(xp AS DECIMAL(38, 0))) * 2,"
    " 9223372036854775807), -9223372036854775807) AS BIGINT) AS xp FROM sample GROUP BY who",
    "rounding goes away from zero": "SELECT id, CAST(round(z) AS BIGINT) AS whole FROM sample",
    "JSON has its nulls and escapes": "SELECT id, CAST(to_json(struct_pack(id, who, note)) AS VARCHAR) AS body FROM sample",
    "days are counted, not hours": "SELECT id, date_diff('day', DATE '2026-03-01', day) AS days,"
    " CAST(day - 28 AS DATE) AS before FROM sample",
    "a frame of days": "SELECT id, sum(id) OVER (PARTITION BY who ORDER BY date_diff('day', DATE '1970-01-01', day)"
    " RANGE BETWEEN 2 PRECEDING AND 1 PRECEDING) AS before FROM sample WHERE day IS NOT NULL",
    "those who are there, and who are not": "SELECT id FROM sample AS s SEMI JOIN (SELECT 7 AS xp) AS x ON s.xp = x.xp"
    " UNION ALL SELECT id FROM sample AS s ANTI JOIN (SELECT 7 AS xp) AS x ON s.xp = x.xp",
    "a text that a parameter holds": "SELECT id FROM sample WHERE note = $text",
    "what cannot be cast": "SELECT id, try_cast(note AS BIGINT) AS number FROM sample",
    "no rows": "SELECT id, day, list(note ORDER BY id) AS notes FROM sample WHERE id > 99 GROUP BY id, day",
}
CONNECTED = (PLAYER_DAYS.name, PROGRESSION.name, LEADERBOARDS.name)
ODD_SEASONS = sorted(
    ["2026-11", "a b", "ü", "50%", "a=b", "a/b", "a%2Fb", "x'y", "{a}", "[1]*?", "#1", "a:b", "a\\b", "a+b", '"']
)
PUBLISHED_TABLES = (RECEIPTS, PLAYER_PROGRESS, SUSPICIOUS_EVENTS, CASE_EVIDENCE, LEADERBOARD_SNAPSHOTS)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """DuckDB and Spark, both with `sample`, over an empty lake."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("engines"), _env_file=None)
    with open_engine(settings) as duckdb, open_engine(on_spark(settings)) as spark:
        for engine in (duckdb, spark):
            engine.bind_rows("sample", SAMPLE)
        yield [duckdb, spark]


@pytest.fixture
def bucket(s3_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    found = s3_server.below(uuid.uuid4().hex)
    enter(found, monkeypatch)
    return found


@pytest.fixture
def spark_sql() -> Callable[[str], str]:
    needs_spark()
    return lambda sql: import_module("warehouse.spark").spark_sql(sqlglot.parse_one(sql, read="duckdb"))


@pytest.mark.timeout(600)  # six Java processes, on however few cores there are
def test_a_cluster_of_two_workers_computes_and_publishes_what_duckdb_does(redis_settings: Settings, tmp_path: Path) -> None:
    """The whole graph of some days through Dagster: the lake is the same byte for byte, and so is what is published.

    In a folder whose name is a pattern to Spark.
    """
    needs_spark()
    here, there = (
        deployment(tmp_path / f"{name} [a]*{{b,c}}", redis_url=redis_settings.redis_url) for name in ("duckdb", "spark")
    )
    with DuckDBEngine(here) as engine:
        for name in FOLDS:
            fold(engine, name, GAME_DAYS)
        for name in PUBLISHED:
            publish(engine, Outlets(here), name, GAME_DAYS)
    with cluster(tmp_path) as url:
        on_cluster = there.model_copy(update={"engine": "spark", "spark_url": url})
        run(on_cluster, "python", str(Path(__file__).with_name("spark_day.py")), str(GAME_DAYS.first), str(GAME_DAYS.last))
    assert lake_files(there) == lake_files(here)
    assert {path.partition("/")[0] for path in lake_files(here)} >= set(TABLES)  # none of them is empty
    assert published(there) == published(here)
    assert all(published(here).values())
    assert {path.parent.name for path in tmp_path.glob("work-*/app-*")} == {"work-0", "work-1"}  # both had their share


def published(settings: Settings) -> dict[str, list[str]]:
    with open_database(settings).connect() as connection:
        return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in PUBLISHED_TABLES}


@pytest.mark.timeout(600)
def test_spark_connect_computes_the_same_tables_and_is_refused_where_it_cannot_read_the_lake(
    tmp_path: Path, bucket: Emulator
) -> None:
    """Spark's own server is no wrong one, and nobody is excluded: a relation without rows."""
    needs_spark()
    duckdb, spark = (
        Settings(data_dir=tmp_path / name, first_day=date.fromisoformat(BEFORE), _env_file=None) for name in ("duckdb", "spark")
    )
    for settings in (duckdb, spark):
        land_events(settings, [progression(player, BEFORE, xp) for player, xp in (("ann", 5), ("bob", HUGE), ("bob", HUGE))])
    with DuckDBEngine(duckdb) as engine:
        for name in CONNECTED:
            fold(engine, name, Days.parse(BEFORE, BEFORE))
    with connect_server(tmp_path) as url:
        by_connect = spark.model_copy(update={"engine": "spark", "spark_url": url})
        select = [word for name in CONNECTED for word in ("--select", name)]
        run(by_connect, "fairboard", "materialize", "--from", BEFORE, "--to", BEFORE, *select)
        assert lake_files(spark) == lake_files(duckdb)
        assert all(Lake(spark).files(TABLES[name]) for name in CONNECTED)
        # This server has no connector for the bucket, and does not see this machine's copies.
        in_bucket = by_connect.model_copy(update={"lake_url": bucket.url})
        land_events(in_bucket, [progression("ann", BEFORE, 5)])
        message = run(in_bucket, "fairboard", "materialize", "--from", BEFORE, "--to", BEFORE, *select, status=1)
    assert f"Spark at {url} cannot read the lake in {bucket.url}" in message
    assert "S3AFileSystem" in message
    assert "Nothing was computed. Its machines read the bucket themselves: give them Hadoop's connector" in message
    assert not [one.name for one in Lake(in_bucket).storage.list("") if "probe" in one.name]


@pytest.mark.timeout(600)
def test_a_server_that_answers_wrongly_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    needs_spark()
    settings = Settings(data_dir=tmp_path / "data", _env_file=None)
    land_events(settings, [progression("ann", BEFORE, 5)])
    landed = lake_files(settings)
    with sail_server(tmp_path) as url:
        on_sail = settings.model_copy(update={"engine": "spark", "spark_url": f"{url}/;user_id=ops"})
        message = run(on_sail, "fairboard", "materialize", "--from", BEFORE, "--to", BEFORE, status=1)
    assert f"{url} does not answer" in message
    assert "a partition's column of a file under basePath: NULL instead of 2026-03-28" in message
    assert "lag(… IGNORE NULLS): NULL, 0, NULL, NULL, 3, NULL instead of NULL, 0, 0, 0, 3, 3" in message
    assert "a file that is not there: no rows instead of an error" in message
    assert 'NULL in JSON: {"id":0} instead of {"id":0,"none":null}' in message
    assert "the order of streamed rows: the error" in message  # without PySpark it streams none; beside 4.1 they are mixed
    assert "Nothing was computed. Connect to a server of Apache Spark itself, or set FAIRBOARD_ENGINE=duckdb." in message
    assert lake_files(settings) == landed
    assert not list(Lake(settings).scratch.glob("probe.*"))


@pytest.mark.skipif(sys.platform != "linux", reason="the same path is another folder to each process in Linux's /proc alone")
def test_a_server_that_does_not_see_the_lake_is_told_so(tmp_path: Path) -> None:
    needs_spark()
    here = Settings(data_dir=tmp_path / "data", _env_file=None)
    land_events(here, [progression("ann", BEFORE, 5)])
    with sail_server(tmp_path) as url:
        elsewhere = here.model_copy(update={"lake_url": "/proc/self/cwd/lake", "engine": "spark", "spark_url": url})
        message = run(elsewhere, "fairboard", "materialize", "--from", BEFORE, "--to", BEFORE, status=1)
    assert "Spark does not see /proc/self/cwd/lake/_tmp/probe." in message
    assert "Nothing was computed. Each of its machines has to read the lake's files under the path that this one has" in message


def test_spark_here_reads_this_machines_copies_of_a_bucket_and_a_cluster_the_bucket(
    bucket: Emulator, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hadoop finds `s3a://` in a folder here: no connector to S3 comes from PyPI."""
    at = on_spark(settings).model_copy(update={"lake_url": bucket.url})
    with open_engine(at) as spark:
        rows = [board_row(season) for season in ODD_SEASONS]
        for row in rows:
            part = pa.Table.from_pylist([row], schema=LEADERBOARDS.schema).select(LEADERBOARDS.file_schema.names)
            spark.lake.write(LEADERBOARDS, part, {name: row[name] for name in LEADERBOARDS.partition})
        spark.bind(LEADERBOARDS)
        assert spark.query("SELECT * FROM leaderboards ORDER BY season").read_all().to_pylist() == rows

        folder = tmp_path / "of the cluster"
        for stored in spark.lake.storage.list(LEADERBOARDS.name):
            (path := folder / stored.name).parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(spark.lake.storage.read(stored.name) or b"")
        view_fs = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
        spark.session.conf.set("fs.s3a.impl", view_fs)
        spark.session.conf.set(f"fs.viewfs.mounttable.fairboard.link./{bucket.prefix}", folder.as_uri())
        shutil.rmtree(at.data_dir / "cache")
        monkeypatch.setattr(spark, "settings", at.model_copy(update={"spark_url": "spark://master:7077"}))
        spark.bind(LEADERBOARDS)
        assert spark.query("SELECT * FROM leaderboards ORDER BY season").read_all().to_pylist() == rows
        assert not (at.data_dir / "cache" / LEADERBOARDS.name).exists()


def board_row(season: str) -> dict[str, Any]:
    row = dict.fromkeys(LEADERBOARDS.schema.names, 7) | {"window_kind": "weekly", "season": season, "player_id": f"of {season}"}
    return row | {"window_start": date(2026, 5, 4), "as_of": date(2026, 5, 9), "movement": None}


@pytest.mark.parametrize("sql", ["SELECT list(x) FROM t", "SELECT list(x ORDER BY y DESC) FROM t"])
def test_a_list_whose_order_spark_would_not_keep_is_refused(sql: str, spark_sql: Callable[[str], str]) -> None:
    with pytest.raises(sqlglot.errors.UnsupportedError, match="ORDER BY"):
        spark_sql(sql)


@pytest.mark.parametrize("sql", QUERIES.values(), ids=QUERIES)
def test_both_engines_answer_alike(sql: str, engines: list[Engine]) -> None:
    parameters = {"text": 'it\'s "x"\\'} if "$text" in sql else {}
    duckdb, spark = (engine.query(sql, **parameters).read_all().to_pylist() for engine in engines)
    assert [len(row) for row in spark] == [len(row) for row in duckdb]
    assert spark == duckdb if sql.endswith("ORDER BY xp DESC, id") else sorted(spark, key=repr) == sorted(duckdb, key=repr)
    assert duckdb or "99" in sql


def test_a_file_older_than_a_column_and_a_newer_one_read_alike(tmp_path: Path) -> None:
    rows = {}
    duckdb = Settings(data_dir=tmp_path / "data", _env_file=None)
    land_events(duckdb, [progression("ann", BEFORE, 5, build="2")])
    lake = Lake(duckdb)
    [file] = lake.files(EVENTS)
    older = lake.beside("events")
    pq.write_table(pq.read_table(lake.path(file), partitioning=None).drop_columns(["extra", "quantity"]), older)
    lake.commit(EVENTS, [lake.staged(EVENTS, lake.place(file)[1], "older", "", older, file.rows)])
    for settings in (duckdb, on_spark(duckdb)):
        with open_engine(settings) as opened:
            opened.bind(EVENTS)
            select = f"SELECT {', '.join(EVENTS.schema.names)} FROM landed ORDER BY extra"
            rows[settings.engine] = opened.query(select).read_all().cast(EVENTS.schema).to_pylist()
    assert rows["spark"] == rows["duckdb"]
    assert [row["extra"] for row in rows["spark"]] == ['{"build":"2"}', None]


def test_a_table_without_files_has_its_columns(engines: list[Engine]) -> None:
    for engine in engines:
        engine.bind(PLAYER_DAYS, Days(date(2026, 1, 1), date(2026, 1, 2)))
        empty = engine.query("SELECT * FROM player_days").read_all()
        assert (empty.num_rows, empty.column_names) == (0, PLAYER_DAYS.schema.names)


def test_without_java_the_message_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_spark()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SettingsError, match="apt-get install openjdk-17"):
        open_engine(settings.model_copy(update={"engine": "spark"}))


def test_without_pyspark_the_message_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    monkeypatch.delitem(sys.modules, "warehouse.spark", raising=False)
    with pytest.raises(SettingsError, match=r"pip install 'fairboard\[spark\]'"):
        open_engine(settings.model_copy(update={"engine": "spark"}))


@pytest.mark.parametrize("url", ["spark://127.0.0.1:1", "sc://127.0.0.1:1/;user_id=ops"])
def test_a_spark_that_does_not_answer_is_named_at_once(settings: Settings, url: str) -> None:
    needs_spark()
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:1: .*refused"):
        open_engine(settings.model_copy(update={"engine": "spark", "spark_url": url}))


def test_a_url_of_something_else_is_refused_with_the_other_settings() -> None:
    with pytest.raises(ValueError, match=r"local\[\*\], spark://host:7077"):
        Settings(spark_url="mesos://host", _env_file=None)


def test_the_file_of_a_partition_does_not_tell_in_which_batches_its_rows_came(settings: Settings) -> None:
    """300,000 ids are more than a page."""
    rows = PLAYER_DAYS.schema.empty_table()
    count = 300_000
    columns: dict[str, Any] = {
        field.name: pa.array(range(count)).cast(field.type) for field in rows.schema if field.name != "event_date"
    }
    whole = pa.table(columns)
    with open_engine(settings) as engine:
        keys = {"event_date": date(2026, 5, 1)}
        assert engine.lake.write(PLAYER_DAYS, whole, keys)
        assert not engine.lake.write(PLAYER_DAYS, pa.Table.from_batches(whole.to_batches(max_chunksize=10_007)), keys)
