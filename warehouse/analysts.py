"""Analysts' SQL over the lake: one SELECT, read only, with a cap on rows, bytes, memory and time.

What belongs here: what stands between a stranger's SQL and the machine. What does not: the project's own queries (`models/`).

DuckDB's `enable_external_access = false` alone does not make SQL harmless: `EXPLAIN ANALYZE COPY … TO` writes, and
so does `FROM enable_logging(storage = 'file', …)`, a SELECT, wherever a folder is allowed (seen with 1.5.6). So its
tree is read first and may call but a few table functions, and only the files of the tables are open to it, no folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from threading import Timer
from time import perf_counter
from typing import Any

import duckdb
import msgspec
import polars as pl
import pyarrow as pa

from warehouse.engine import DuckDBEngine, scan
from warehouse.errors import FairboardError
from warehouse.settings import Settings
from warehouse.tables import TABLES

MAX_ROWS = 10_000
MAX_BYTES = 64 * 2**20
TIMEOUT_S = 30.0
MEMORY = "2GB"

SMALL_TABLES = ("levels", "rewards", "fairness_rules")
_TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest", "json_each", "json_tree"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave. `truncated`: there was more than the cap let through."""

    rows: pl.DataFrame
    truncated: bool
    seconds: float


def ask(settings: Settings, sql: str, *, max_rows: int = MAX_ROWS, timeout_s: float = TIMEOUT_S) -> Answer:
    """Run one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES) over the tables of `TABLES` and `SMALL_TABLES`.

    Raises:
        FairboardError: it is no single SELECT, DuckDB refused it, or it took too long; the message says which tables there are.
    """
    started = perf_counter()
    with DuckDBEngine(settings) as engine:
        try:
            read = _relations(engine.connection, sql)
            _bind(engine, read)
            _lock(engine, read)
            with _time_limit(engine.connection, timeout_s):
                rows, truncated = _fetch(engine.connection, sql, max_rows)
        except duckdb.InterruptException:
            raise FairboardError(
                f"the query was stopped after {timeout_s:g} s. Narrow it, by event_date for example."
            ) from None
        except duckdb.Error as error:
            raise FairboardError(f"{error}\n\nThe tables are {_tables()}.") from error
    return Answer(rows, truncated, perf_counter() - started)


def _relations(connection: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str]:
    """The names that the statement reads.

    Raises:
        FairboardError: it is not a single SELECT, or calls a table function that is not for analysts.
    """
    statements = connection.extract_statements(sql)
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        got = ", ".join(kind.name for kind in kinds) or "nothing"
        raise FairboardError(f"one SELECT is what runs here; this is {got}. Nothing was run. The tables are {_tables()}.")
    (tree,) = connection.execute("SELECT json_serialize_sql($1)", [statements[0].query]).fetchone() or ("{}",)
    nodes = list(_nodes(msgspec.json.decode(tree)))
    called = {node["function"]["function_name"].lower() for node in nodes if node.get("type") == "TABLE_FUNCTION"}
    if called - _TABLE_FUNCTIONS:
        raise FairboardError(
            f"{', '.join(sorted(called - _TABLE_FUNCTIONS))}() cannot be read from here; nothing was run. "
            f"The tables are {_tables()}."
        )
    return frozenset(name.lower() for node in nodes for name in _names(node))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a statement's tree."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _names(node: dict[str, Any]) -> Iterator[str]:
    if isinstance(name := node.get("table_name"), str):
        yield name.strip('"')


def _bind(engine: DuckDBEngine, read: frozenset[str]) -> None:
    """Make the tables views. One that the statement does not read is there by its columns alone: thousands of footers fewer."""
    for table in TABLES.values():
        if table.name in read:
            engine.bind(table)
        else:
            engine.connection.execute(f"CREATE TEMP VIEW {table.name} AS {scan(table, [])}")
    engine.bind_levels()
    engine.bind_rewards()
    engine.bind_rules()


def _lock(engine: DuckDBEngine, read: frozenset[str]) -> None:
    """Close the connection around the files of the tables read; nothing undoes it, and no file can be made."""
    files = [str(path) for table in TABLES.values() if table.name in read for path in engine.lake.files(table)]
    engine.connection.execute("SET allowed_paths = $1", [files])
    engine.connection.execute(f"SET memory_limit = '{engine.settings.memory_limit or MEMORY}'")
    engine.connection.execute("SET python_enable_replacements = false")
    engine.connection.execute("SET enable_external_access = false")
    engine.connection.execute("SET lock_configuration = true")


@contextmanager
def _time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str, max_rows: int) -> tuple[pl.DataFrame, bool]:
    """The first rows, and whether there were more. Reads no further than it has to."""
    reader = connection.sql(sql).to_arrow_reader(min(max_rows + 1, 2048))
    batches, rows, size = [], 0, 0
    for batch in reader:
        batches.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows > max_rows or size > MAX_BYTES:
            break
    names = _distinct(reader.schema.names)
    table = pa.Table.from_batches(batches, reader.schema).rename_columns(names)
    try:
        frame = pl.DataFrame(pl.from_arrow(table))
    except (pl.exceptions.PolarsError, pa.ArrowException, NotImplementedError) as error:
        raise FairboardError(f"a column's type has no form here ({error}); CAST it to VARCHAR.") from error
    return _integers(frame.head(max_rows)), rows > max_rows or size > MAX_BYTES


def _integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Sums come as decimals without a fraction (HUGEINT): 64-bit integers where they fit, for who reads and for JSON."""
    whole = [c for c in frame if isinstance(c.dtype, pl.Decimal) and c.dtype.scale == 0]
    fitting = [c.cast(pl.Int64, strict=False) for c in whole]
    return frame.with_columns(new for old, new in zip(whole, fitting, strict=True) if old.null_count() == new.null_count())


def _distinct(names: list[str]) -> list[str]:
    """Column names, each once: `SELECT 1, 1` gives two of the same."""
    distinct: list[str] = []
    for name in names:
        candidates = chain([name], (f"{name}_{n}" for n in count(2)))
        distinct.append(next(candidate for candidate in candidates if candidate not in distinct))
    return distinct


def _tables() -> str:
    return ", ".join((*TABLES, *SMALL_TABLES))
