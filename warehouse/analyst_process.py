"""Runs one statement of an analyst in a process of its own, which the operating system limits and the asker may kill.

    python -m warehouse.analyst_process

What belongs here: the limits, parsing, binding and running, which may all run away. What does not: which files a table has,
and what a person is told (`analysts.py`). It starts in a fifth of a second because it imports DuckDB, Arrow and nothing else.

Lines of JSON: in, a `Statement`; out, the names that it reads; in, what those stand for (`Relations`); out, an `Outcome`, and
behind it the rows as an Arrow stream.
"""

import base64
import json
import os
import resource
import signal
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from threading import Thread
from typing import Any, BinaryIO, Final, TypedDict, cast

import duckdb
import pyarrow as pa

NO_MEMORY: Final = 3  # exit status
_NICE: Final = 5
_LOOK_EVERY_S: Final = 0.02
_LEEWAY_S: Final = 2
_ROOM: Final = 512 * 2**20  # beside DuckDB's own memory: the interpreter, Arrow, and what DuckDB does not count
_ROOM_OF_THREAD: Final = 16 * 2**20
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# DuckDB's `enable_external_access = false` alone does not make SQL harmless: `EXPLAIN ANALYZE COPY … TO` writes, and so does
# `FROM enable_logging(storage = 'file', …)`, a SELECT, wherever a folder is allowed (seen with 1.5.6). So the tree is read
# first and may call but a few table functions, and only the files of the tables are open to it, no folder.
_TABLE_FUNCTIONS: Final = frozenset({"generate_series", "range", "unnest", "json_each", "json_tree"})


class Statement(TypedDict):
    """What to run, the caps of its answer, and DuckDB's settings of those names."""

    sql: str
    max_rows: int
    max_bytes: int
    timeout_s: float
    memory_limit: str
    temp_directory: str
    max_temp_directory_size: str


class Relations(TypedDict):
    """Views as SELECTs, small tables as Arrow streams in base64, and the only files that may be opened."""

    views: dict[str, str]
    tables: dict[str, str]
    files: list[str]


class Outcome(TypedDict):
    """Why there are no rows, and whether that is for want of memory; or whether there are more than the caps let through."""

    refused: str | None
    memory: bool
    truncated: bool


class Refused(Exception):
    """The statement is not run, or its answer not given."""


def main() -> None:
    """Answer one statement, then end."""
    asked, out = sys.stdin.buffer, sys.stdout.buffer
    try:
        _answer(json.loads(asked.readline()), asked, out)
    except MemoryError as error:  # Arrow's own is one
        _refuse(out, str(error), memory=True)
    except RecursionError:
        _refuse(out, "the statement is nested too deep; nothing was run.", memory=False)
    except (duckdb.Error, pa.ArrowException, OSError, Refused) as error:
        # While rows are fetched, Arrow has DuckDB's errors as OSErrors.
        _refuse(out, str(error), memory=str(error).startswith("Out of Memory"))


def _answer(statement: Statement, asked: BinaryIO, out: BinaryIO) -> None:
    config: dict[str, Any] = {name: statement[name] for name in ("memory_limit", "temp_directory", "max_temp_directory_size")}
    with duckdb.connect(":memory:", config=config) as connection:
        _limit(statement["timeout_s"], _memory_limit(connection))
        _say(out, _relations(connection, statement["sql"]))
        _bind(connection, json.loads(asked.readline()))
        schema, batches, truncated = _fetch(connection, statement)
        _say(out, Outcome(refused=None, memory=False, truncated=truncated))
        with pa.ipc.new_stream(cast("Any", out), schema) as writer:
            for batch in batches:
                writer.write_batch(batch)


def _refuse(out: BinaryIO, why: str, *, memory: bool) -> None:
    _say(out, Outcome(refused=why, memory=memory, truncated=False))


def _say(out: BinaryIO, value: object) -> None:
    out.write(json.dumps(value).encode() + b"\n")
    out.flush()


def _memory_limit(connection: duckdb.DuckDBPyConnection) -> int:
    """DuckDB's limit in bytes; it says `1.8 GiB`."""
    ((text,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    number, unit = text.split()
    return int(float(number) * 1024 ** _UNITS.index(unit))


def _limit(timeout_s: float, memory: int) -> None:
    """Have the kernel end this process, whatever it is doing and whoever still waits for it.

    Linux refuses memory beyond the limit. macOS knows no such limit: there the process looks at its own size.
    """
    threads = os.cpu_count() or 1
    most = memory + _ROOM + threads * _ROOM_OF_THREAD
    seconds = int(timeout_s) + _LEEWAY_S
    os.nice(_NICE)
    _cap(resource.RLIMIT_CORE, 0)
    _cap(resource.RLIMIT_CPU, seconds * threads)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if sys.platform == "linux":
        _cap(resource.RLIMIT_DATA, most)
    else:
        Thread(target=watch, args=(most,), daemon=True).start()


def _cap(what: int, most: int) -> None:
    """Set a limit for good, or keep a lower one that is set already."""
    _, hard = resource.getrlimit(what)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (limit, limit))


def watch(most: int) -> None:
    """End the process when it has become larger than that (in bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit <= most:
        time.sleep(_LOOK_EVERY_S)
    os._exit(NO_MEMORY)


def _relations(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """The names that the statement reads.

    Raises:
        Refused: it is not a single SELECT, or calls a table function that is not for analysts.
    """
    statements = connection.extract_statements(sql)
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        got = ", ".join(kind.name for kind in kinds) or "nothing"
        raise Refused(f"one SELECT is what runs here; this is {got}. Nothing was run.")
    ((tree,),) = connection.execute("SELECT json_serialize_sql($1)", [statements[0].query]).fetchall()
    nodes = list(_nodes(json.loads(tree)))
    called = {node["function"]["function_name"].lower() for node in nodes if node.get("type") == "TABLE_FUNCTION"}
    if called - _TABLE_FUNCTIONS:
        raise Refused(f"{', '.join(sorted(called - _TABLE_FUNCTIONS))}() cannot be read from here; nothing was run.")
    return sorted({name.strip('"').lower() for node in nodes if isinstance(name := node.get("table_name"), str)})


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


def _bind(connection: duckdb.DuckDBPyConnection, relations: Relations) -> None:
    """Make the tables, and close the connection around their files; nothing undoes it, and no file can be made."""
    for name, stream in relations["tables"].items():
        connection.register(name, pa.ipc.open_stream(base64.b64decode(stream)).read_all())
    connection.execute("SET allowed_paths = $1", [relations["files"]])
    connection.execute("SET arrow_large_buffer_size = true")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    for name, select in relations["views"].items():
        connection.execute(f"CREATE TEMP VIEW {name} AS {select}")


def _fetch(connection: duckdb.DuckDBPyConnection, statement: Statement) -> tuple[pa.Schema, list[pa.RecordBatch], bool]:
    """The first rows, and whether there were more. Reads no further than it has to.

    Raises:
        Refused: the first row alone is beyond the cap.
    """
    reader = connection.sql(statement["sql"]).to_arrow_reader(min(statement["max_rows"] + 1, 2048))
    batches: list[pa.RecordBatch] = []
    rows, size = statement["max_rows"], statement["max_bytes"]
    for batch in reader:
        fitting = min(rows, _fitting(batch, size))
        batches.append(batch.slice(0, fitting))
        if fitting < batch.num_rows:
            if fitting == 0 and rows == statement["max_rows"]:
                raise Refused(f"one row alone is larger than {size // 2**20} MiB. Ask for less of it: left(column, 1000), say.")
            return reader.schema, batches, True
        rows, size = rows - fitting, size - batch.nbytes
    return reader.schema, batches, False


def _fitting(batch: pa.RecordBatch, size: int) -> int:
    """How many of the first rows are no larger than that."""
    if batch.nbytes <= size:
        return batch.num_rows
    return bisect_right(range(1, batch.num_rows), size, key=lambda count: batch.slice(0, count).nbytes)


if __name__ == "__main__":
    main()
