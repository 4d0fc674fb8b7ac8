"""The engines that run the SQL models over the lake's tables: what every engine can do, and DuckDB's way of doing it.

What belongs here: connections, views, models. What does not: which days to compute (`folds.py`), where files lie (`lake.py`),
and Spark (`spark.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa
import sqlglot
from sqlglot import exp

from warehouse import small_tables
from warehouse.calendar import Calendar
from warehouse.lake import Lake, LakeFile, noted_in
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES, Table
from warehouse.verdicts import exclusions
from warehouse.watching import UNWATCHED, Watch

MODELS = Path(__file__).parent / "models"

_ZONE_COLUMNS: dict[str, pa.DataType] = {
    "event_date": pa.date32(),
    "changes_at": pa.int64(),
    "offset_before_s": pa.int64(),
    "offset_after_s": pa.int64(),
}
ZONE_DAYS = pa.schema(_ZONE_COLUMNS)

Parameter = date | int | str


@dataclass(frozen=True, slots=True)
class Model:
    """One SQL file of `models/`: its text, and the relations it reads."""

    name: str
    sql: str
    upstream: frozenset[str]


@cache
def model(name: str) -> Model:
    """The model of that name."""
    sql = (MODELS / f"{name}.sql").read_text(encoding="utf-8")
    tree = sqlglot.parse_one(sql, read="duckdb")
    local = {cte.alias for cte in tree.find_all(exp.CTE)}
    return Model(name, sql, frozenset(table.name for table in tree.find_all(exp.Table)) - local)


def zone_days(calendar: Calendar, days: Iterable[date]) -> pa.Table:
    """The clock of those days (schema `ZONE_DAYS`; see `Calendar.offsets_of`)."""
    rows = [dict(zip(ZONE_DAYS.names, (day, *calendar.offsets_of(day)), strict=True)) for day in days]
    return pa.Table.from_pylist(rows, schema=ZONE_DAYS)


def with_values(sql: str, parameters: Mapping[str, Parameter]) -> exp.Expr:
    """The tree of a statement in DuckDB's dialect, each `$parameter` replaced by its value."""
    values = {name: exp.convert(value) for name, value in parameters.items()}
    tree = sqlglot.parse_one(sql, read="duckdb")
    return tree.transform(lambda node: values[node.name].copy() if isinstance(node, exp.Placeholder) else node, copy=False)


class Engine(ABC):
    """One run's SQL engine over one deployment's lake; `open_engine` gives the configured one. Use it as a context manager.

    SQL is DuckDB's dialect in the subset that Spark shares (docs/engines.md).
    """

    def __init__(self, settings: Settings, *, at: datetime | None = None, lake: Lake | None = None) -> None:
        """Open the lake, with `at` as it was then; or read the snapshots of one that is open."""
        self.settings = settings
        self.lake = lake or Lake(settings, at=at)
        self.calendar = Calendar.of(settings)
        self.watch: Watch = UNWATCHED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def bind(self, table: Table, days: Container[date] | None = None) -> None:
        """Make a table a view of its name; with `days`, of those partitions alone (see `Lake.partitions`).

        `events` is the model over the raw files, which the view `landed` shows.

        Raises:
            DamagedFile: a file is not as it was written, and the lake `checks`.
        """
        files = self.lake.files(table, days)
        if table is EVENTS:
            self.bind_files(table, files, "landed")
            self._bind_sql("events", events_sql(self.lake, days))
        else:
            self.bind_files(table, files)

    def bind_all(self) -> None:
        """Make every table of the lake a view: what an analyst sees."""
        for table in TABLES.values():
            self.bind(table)

    def bind_zone_days(self, days: Iterable[date]) -> None:
        """Make the clock of those days the relation `zone_days`."""
        self.bind_rows("zone_days", zone_days(self.calendar, days))

    def bind_levels(self) -> None:
        """Make the level curve the relation `levels` (see `small_tables`)."""
        self.bind_rows("levels", small_tables.levels(self.settings.levels_file))

    def bind_rewards(self) -> None:
        """Make the level rewards the relation `rewards` (see `small_tables`)."""
        self.bind_rows("rewards", small_tables.rewards(self.settings.rewards_file))

    def bind_exclusions(self) -> None:
        """Make whom the verdicts exclude the relation `exclusions`: player_id, excluded_from, excluded_until (exclusive).

        Raises:
            StoreUnavailable: the SQL database cannot be reached; nothing was computed.
        """
        self.bind_rows("exclusions", exclusions(self.settings))

    def bind_rules(self) -> None:
        """Make the fairness rules the relation `fairness_rules` (see `small_tables`)."""
        self.bind_rows("fairness_rules", small_tables.fairness_rules(self.settings.rules_file))

    def bind_model(self, name: str, **parameters: Parameter) -> None:
        """Make a model a view of its name, its parameters fixed: what another model reads."""
        self._bind_sql(name, with_values(model(name).sql, parameters).sql(dialect="duckdb", copy=False))

    def run(self, name: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """Run a model: its rows in its order, in batches. Read them before the next statement."""
        return self.query(model(name).sql, **parameters)

    @property
    @abstractmethod
    def duckdb(self) -> "DuckDBEngine":
        """A DuckDB over the same lake, for what looks into a few files: compaction, checks, erasure, causes."""

    @abstractmethod
    def query(self, sql: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """Run a SELECT over what is bound; `$name` in it stands for a parameter. Read it before the next statement."""

    @abstractmethod
    def bind_rows(self, name: str, rows: pa.Table) -> None:
        """Make a small Arrow table a relation."""

    @abstractmethod
    def bind_files(self, table: Table, files: Sequence[LakeFile], name: str = "") -> None:
        """Make those files of a table a view of its name, or of another. What a file is too old to have is NULL.

        Raises:
            DamagedFile: see `bind`.
        """

    @abstractmethod
    def hold(self, name: str) -> None:
        """Compute a view once, for models that read it more than once."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is bound."""

    @abstractmethod
    def _bind_sql(self, name: str, sql: str) -> None:
        """Make a SELECT a view. The relations it reads are looked up when the view is read."""


def open_engine(settings: Settings) -> Engine:
    """The engine that FAIRBOARD_ENGINE names.

    Raises:
        SettingsError: it is Spark, and Spark cannot be started or reached.
    """
    if settings.engine == "duckdb":
        return DuckDBEngine(settings)
    from warehouse.spark import SparkEngine  # noqa: PLC0415 - an optional extra, and a second to import

    return SparkEngine(settings)


class DuckDBEngine(Engine):
    """DuckDB, in memory, one per run. What only reads the lake always uses it, some of it through `connection`."""

    def __init__(self, settings: Settings, *, at: datetime | None = None, lake: Lake | None = None) -> None:
        super().__init__(settings, at=at, lake=lake)
        config: dict[str, Any] = {
            "temp_directory": str(self.lake.scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if settings.memory_limit:
            config["memory_limit"] = settings.memory_limit
        self.connection = duckdb.connect(":memory:", config=config)

    @property
    def duckdb(self) -> "DuckDBEngine":
        """See `Engine`."""
        return self

    def query(self, sql: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """See `Engine`. Until the reader has been read to its end, the connection refuses the next statement."""
        reader: pa.RecordBatchReader = self.connection.sql(sql, params=parameters).to_arrow_reader()
        return reader

    def bind_rows(self, name: str, rows: pa.Table) -> None:
        """See `Engine`."""
        self.connection.register(name, rows)

    def bind_files(self, table: Table, files: Sequence[LakeFile], name: str = "") -> None:
        """See `Engine`."""
        self._bind_sql(name or table.name, scan(table, self.lake.paths(files)))

    def bind_landed(self, files: Sequence[LakeFile], without: str | None = None) -> None:
        """Make raw files of `events` the view `landed`; `without` leaves a player's rows out."""
        sql = scan(EVENTS, self.lake.paths(files))
        if without is not None:
            sql = f"SELECT * FROM ({sql}) WHERE player_id <> {exp.Literal.string(without).sql(dialect='duckdb')}"  # noqa: S608 - a literal
        self._bind_sql("landed", sql)

    def hold(self, name: str) -> None:
        """See `Engine`."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_held AS SELECT * FROM {name}")  # noqa: S608 (a model's name)
        self._bind_sql(name, f"SELECT * FROM {name}_held")  # noqa: S608 (a model's name)

    def close(self) -> None:
        """See `Engine`."""
        self.connection.close()
        self.lake.refresh()

    def _bind_sql(self, name: str, sql: str) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")


def frame(rows: pa.RecordBatchReader) -> pl.DataFrame:
    """What a model or query gives, read to its end."""
    return pl.DataFrame(pl.from_arrow(rows.read_all()))


def events_sql(lake: Lake, days: Container[date] | None = None) -> str:
    """The SELECT that makes `events` of `landed`: each id once."""
    return "SELECT * FROM landed" if _each_id_once(lake, days) else model("events").sql


def _each_id_once(lake: Lake, days: Container[date] | None) -> bool:
    """Whether every day is one file whose ids were counted, without conflicts: then nothing has to look for copies."""
    for keys in lake.partitions(EVENTS, days):
        files = lake.of(EVENTS, keys)
        if len(files) > 1 or noted_in(lake.path(files[0])).get("ids") != files[0].rows:
            return False
    return True


def scan(table: Table, files: list[Path]) -> str:
    """The SQL that reads those files of a table as its contract has it.

    The empty SELECT gives the contract's columns and types to tables without files, and to files older than a column. One that
    is younger than this version is left out.
    """
    columns = ", ".join(f"CAST(NULL AS {c.sql_type}) AS {c.name}" for c in table.columns)
    empty = f"SELECT {columns} WHERE false"
    if not files:
        return empty
    paths = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    hive = ", ".join(f"{c.name}: {c.sql_type}" for c in table.columns if c.name in table.partition)
    return (
        f"SELECT {', '.join(table.schema.names)} FROM ({empty} UNION ALL BY NAME SELECT * FROM read_parquet([{paths}], "  # noqa: S608
        f"hive_partitioning = true, hive_types = {{{hive}}}, union_by_name = true))"
    )
