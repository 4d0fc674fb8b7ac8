"""What docs/lake.md shows to readers from outside, and that any table is read alike by them: files, types, protocol."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import BUCKET, Emulator, enter, s3_client, s3_server
from conftest import REPO, at, land_events, progression
from deltalake import DeltaTable, QueryBuilder
from spark_fixtures import SPARK, needs_spark

from tests.lake_fixtures import DAYS, ask, fold_all, game, on_disk, paths_of
from warehouse.calendar import Days
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, LEADERBOARDS, REJECTS, TABLES, Table

BLOCKS = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "lake.md").read_text(encoding="utf-8"), re.DOTALL)
LIBRARIES = ("polars", "to_pandas", "pyarrow", "QueryBuilder", "duckdb", "pyspark", "polars.*s3:", "duckdb.*s3:")
# Those that DuckDB 1.0, Spark 3.5 (its vectorised reader), PyArrow 12 and DataFusion 40 were seen to read.
ENCODINGS = {"PLAIN", "RLE", "RLE_DICTIONARY", "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"}
READERS: dict[str, Callable[[DeltaTable], Any]] = {
    "polars": lambda table: pl.scan_delta(table).collect().to_arrow(),
    "pyarrow": lambda table: table.to_pyarrow_table(),
    "deltalake's SQL": lambda table: pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t")),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake in which every table has rows, and was written twice: superseded files lie beside those that count."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("outside") / "data", _env_file=None)
    days = Days.parse("2024-04-30", DAYS[-1])
    drop = {"type": "drop_claimed", "playerId": "bob", "ts": at(DAYS[0]), "payload": {"itemId": "crown"}}
    land_events(settings, [*game(), progression("ann", "2024-04-30", 5), drop])
    fold_all(settings, days)
    land_events(settings, [progression("späte", "2024-05-02", 700)], "late")
    fold_all(settings, days)
    with Lake(settings) as opened:
        for table in (REJECTS, LEADERBOARD_REVISIONS):
            opened.write(
                table, sample(table.file_schema), sample(table.schema).select(table.partition).to_pylist()[0], "sample"
            )
    return settings


def sample(schema: pa.Schema) -> pa.Table:
    """A row of 7s."""
    return pa.Table.from_arrays([pa.array([7], pa.int32()).cast(field.type) for field in schema], schema=schema)


@pytest.fixture
def bucket(lake: Settings, s3_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket of docs/lake.md, with a copy of the lake."""
    enter(s3_server, monkeypatch)
    client = s3_client(s3_server)
    for name, content in on_disk(lake).items():
        client.put_object(Bucket=BUCKET, Key=f"game/{name}", Body=content)


def test_there_are_blocks_for_each_library() -> None:
    assert all(re.search(library, block, re.DOTALL) for library, block in zip(LIBRARIES, BLOCKS, strict=True))


@pytest.mark.parametrize("block", BLOCKS, ids=LIBRARIES)
def test_a_reader_from_outside_sees_the_board(
    block: str, lake: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "s3://" in block:
        request.getfixturevalue("bucket")
    monkeypatch.chdir(lake.data_dir.parent)
    names: dict[str, Any] = {}
    if "pyspark" in block:
        needs_spark()
        names["board"] = in_a_process_of_its_own(block)
    else:
        exec(block, names)
    expected = ask(
        lake, "SELECT rank, player_id, xp FROM leaderboards WHERE window_kind = 'seasonal' AND season = '2024-05' ORDER BY rank"
    )
    assert names["board"] == expected
    assert any(player == "späte" for _, player, _ in expected)
    assert len(list((lake.lake_dir / "leaderboards").rglob("*.parquet"))) > len(paths_of(lake, LEADERBOARDS))


def in_a_process_of_its_own(block: str) -> list[tuple[Any, ...]]:
    """Which Java process there is, and its settings, are those of the first who asks: the other tests' is not for this."""
    program = f"{block}\nimport json; print(json.dumps(board))"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | SPARK, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(row) for row in json.loads(done.stdout)]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_table_reads_from_outside_as_it_does_here(table: Table, reader: str, lake: Settings) -> None:
    found = READERS[reader](DeltaTable(str(lake.lake_dir / table.name)))
    rows = list(zip(*(found[name].to_pylist() for name in table.schema.names), strict=True))
    here = ask(lake, f"SELECT * FROM {'landed' if table is EVENTS else table.name}")
    assert rows
    assert sorted(map(repr, rows)) == sorted(map(repr, here))


def test_every_file_is_in_encodings_that_readers_have_had_for_long(lake: Settings) -> None:
    land_events(lake, [progression("fresh", "2024-05-03", 1)], "fresh")
    found = set()
    for path in (path for table in TABLES.values() for path in paths_of(lake, table)):
        for group in range((metadata := pq.read_metadata(path)).num_row_groups):
            columns = [metadata.row_group(group).column(number) for number in range(metadata.num_columns)]
            found |= {encoding for column in columns for encoding in column.encodings}
    assert found == ENCODINGS


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_log_asks_of_readers_the_least_that_there_is_and_names_no_player(table: Table, lake: Settings) -> None:
    folder = lake.lake_dir / table.name
    protocol = DeltaTable(str(folder)).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert not protocol.reader_features
    assert not protocol.writer_features
    log = "".join(entry.read_text() for entry in (folder / "_delta_log").glob("*.json"))
    assert "numRecords" in log
    assert "minValues" not in log
    assert "sp\\u00e4te" not in log
    assert "späte" not in log
