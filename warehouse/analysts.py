"""Analysts' SQL over the lake: one SELECT, read only, with a cap on rows, bytes, memory and time.

What belongs here: what stands between a stranger's SQL and the machine. What does not: the project's own queries (`models/`),
and running the statement, for which a process of its own is started (`analyst_process.py`) and killed when its time is up:
DuckDB's binder heeds no interrupt, and a single function may take more memory than its limit.
"""

import base64
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from signal import SIGALRM, SIGXCPU, Signals
from subprocess import PIPE
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore, Timer
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import msgspec
import polars as pl
import pyarrow as pa

from warehouse import small_tables
from warehouse.analyst_process import NO_MEMORY, Outcome, Relations, Statement
from warehouse.engine import events_sql, scan
from warehouse.errors import FairboardError
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES

MAX_ROWS = 10_000
MAX_BYTES = 64 * 2**20
MAX_STATEMENT = 2**20  # characters
TIMEOUT_S = 30.0
MEMORY = "2GB"
SPILLED = "4GB"

SMALL_TABLES = ("levels", "rewards", "fairness_rules")
_turns = BoundedSemaphore(2)  # of a dashboard's many users: each may have that much memory


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave. `truncated`: there was more than the cap let through."""

    rows: pl.DataFrame
    truncated: bool
    seconds: float


def ask(
    settings: Settings, sql: str, *, max_rows: int = MAX_ROWS, timeout_s: float = TIMEOUT_S, at: datetime | None = None
) -> Answer:
    """Run one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES) over the tables of `TABLES` and `SMALL_TABLES`.

    With `at`, over the lake's tables as they were then.

    Raises:
        FairboardError: it is no single SELECT, DuckDB refused it, or it took too long or too much; the message says what to do.
    """
    if len(sql) > MAX_STATEMENT:
        raise FairboardError(f"a statement has {MAX_STATEMENT:,} characters at most, and this {len(sql):,}; nothing was run.")
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise FairboardError("the statement is not UTF-8; nothing was run.") from None
    started = perf_counter()
    memory = settings.memory_limit or MEMORY
    with (
        _turns,
        Lake(settings, at=at) as lake,
        TemporaryDirectory(prefix="sql.", dir=lake.scratch) as spill,
        _Process(timeout_s, memory) as process,
    ):
        said = process.ask(
            Statement(
                sql=sql,
                max_rows=max_rows,
                max_bytes=MAX_BYTES,
                timeout_s=timeout_s,
                memory_limit=memory,
                temp_directory=spill,
                max_temp_directory_size=SPILLED,
            )
        )
        if isinstance(said, list):  # the names that it reads
            said = process.ask(_relations(settings, lake, said))
        outcome: Outcome = said
        if outcome["memory"]:
            raise FairboardError(_too_large(memory))
        if outcome["refused"] is not None:
            raise FairboardError(f"{outcome['refused']}\n\nThe tables are {', '.join((*TABLES, *SMALL_TABLES))}.")
        rows = _frame(process.rest())
    return Answer(rows, outcome["truncated"], perf_counter() - started)


class _Process:
    """A process that runs one statement, and is gone, whatever it was doing, when its time is up or this is left."""

    def __init__(self, timeout_s: float, memory: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FAIRBOARD_")}
        environment["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others reserve more than the limit leaves them
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "warehouse.analyst_process"], stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._timeout_s, self._memory, self._late = timeout_s, memory, False
        self._timer = Timer(timeout_s, self._time_is_up)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()

    def ask(self, question: Statement | Relations) -> Any:
        """Say a line, hear one.

        Raises:
            FairboardError: the process has ended instead.
        """
        with suppress(BrokenPipeError):  # it has ended, and that is heard
            self._to.write(msgspec.json.encode(question) + b"\n")
            self._to.flush()
        line = self._from.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        return msgspec.json.decode(line)

    def rest(self) -> bytes:
        """All that follows.

        Raises:
            FairboardError: the process has ended before it had said everything.
        """
        content = self._from.read()
        if self._process.wait() != 0:
            raise self._ended()
        return content

    def _time_is_up(self) -> None:
        self._late = True
        self._process.kill()

    def _ended(self) -> FairboardError:
        _, said = self._process.communicate()  # until it is gone, at the latest when its time is up
        status = self._process.returncode
        if self._late or -status in (SIGALRM, SIGXCPU):
            return FairboardError(f"the query was stopped after {self._timeout_s:g} s. Narrow it, by event_date for example.")
        if status == NO_MEMORY:
            return FairboardError(_too_large(self._memory))
        how = f"signal {Signals(-status).name}" if status < 0 else f"status {status}"
        last = said.decode(errors="replace").strip().rpartition("\n")[-1]
        return FairboardError(
            f"the query brought down the process that ran it ({how}{last and ': '}{last}), as one may that needs more memory "
            "than the machine has. Nothing else was touched. Narrow it, by event_date for example, or aggregate in steps."
        )


def _too_large(memory: str) -> str:
    return (
        f"the query needed more memory than {memory}, and was stopped. Narrow it, by event_date for example, or aggregate in "
        "steps; FAIRBOARD_MEMORY_LIMIT sets the limit."
    )


def _relations(settings: Settings, lake: Lake, read: list[str]) -> Relations:
    """What the names stand for. A table that is not read is there by its columns alone: thousands of footers fewer."""
    views, files = {}, []
    for table in TABLES.values():
        found = lake.paths(lake.files(table)) if table.name in read else []
        files += [str(path) for path in found if not _leads_away(path)]
        if table is EVENTS and table.name in read:
            views["landed"] = scan(table, found)
            views["events"] = events_sql(lake)
        else:
            views[table.name] = scan(table, found)
    tables = (
        small_tables.levels(settings.levels_file),
        small_tables.rewards(settings.rewards_file),
        small_tables.fairness_rules(settings.rules_file),
    )
    streams = {name: base64.b64encode(_stream(rows)).decode() for name, rows in zip(SMALL_TABLES, tables, strict=True)}
    return Relations(views=views, tables=streams, files=files)


def _leads_away(path: Path) -> bool:
    """Whether a table's file is a link.

    Raises:
        FairboardError: it is; the lake writes none, and what it leads to is no table's.
    """
    if path.is_symlink():
        raise FairboardError(f"{path} is a symbolic link, which the lake never writes; nothing was run. Take it away.")
    return False


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def _frame(stream: bytes) -> pl.DataFrame:
    table = pa.ipc.open_stream(stream).read_all()
    try:
        frame = pl.DataFrame(pl.from_arrow(table.rename_columns(_distinct(table.column_names))))
    except (pl.exceptions.PolarsError, pa.ArrowException, NotImplementedError) as error:
        raise FairboardError(f"a column's type has no form here ({error}); CAST it to VARCHAR.") from error
    return _integers(frame)


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
