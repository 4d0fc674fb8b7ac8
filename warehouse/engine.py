"""The engines that run the SQL models over the lake's tables: what every engine can do, and DuckDB's way of doing it.

What belongs here: connections, views, models. What does not: which days to compute (`folds.py`), where files lie (`lake.py`),
and Spark (`spark.py`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from warehouse import small_tables
from warehouse.calendar import Calendar, Days
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES, Table

MODELS = Path(__file__).parent / "models"

Parameter = date | int | str


@dataclass(frozen=True, slots=True)
class Model:
    """One SQL file of `models/`: its text, and the relations it reads."""

    name: str
    sql: str
    upstream: frozenset[str]


def upstream_tables(name: str) -> list[str]:
    """The tables of the lake that a model reads, itself or through other models."""
    found: set[str] = set()
    for relation in model(name).upstream - {name, "landed"}:
        if relation in TABLES:
            found.add(relation)
        elif (MODELS / f"{relation}.sql").exists():
            found.update(upstream_tables(relation))
    return sorted(found)


@cache
def model(name: str) -> Model:
    """The model of that name."""
    sql = (MODELS / f"{name}.sql").read_text(encoding="utf-8")
    tree = sqlglot.parse_one(sql, read="duckdb")
    local = {cte.alias for cte in tree.find_all(exp.CTE)}
    return Model(name, sql, frozenset(table.name for table in tree.find_all(exp.Table)) - local)


def with_values(sql: str, parameters: dict[str, Parameter]) -> exp.Expr:
    """The tree of a statement in DuckDB's dialect, each `$parameter` replaced by its value."""
    values = {name: exp.convert(value) for name, value in parameters.items()}
    tree = sqlglot.parse_one(sql, read="duckdb")
    return tree.transform(lambda node: values[node.name].copy() if isinstance(node, exp.Placeholder) else node)


class Engine(ABC):
    """One run's SQL engine over one deployment's lake; `open_engine` gives the configured one. Use it as a context manager.

    SQL is DuckDB's dialect in the subset that Spark shares (docs/engines.md).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings.lake_dir, settings.timezone)
        self.calendar = Calendar.of(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def bind(self, table: Table, days: Days | None = None) -> None:
        """Make a table a view of its name; of a range of days where it is partitioned by day.

        `events` is the model over the raw files, which the view `landed` shows.
        """
        files = self.lake.files(table, days)
        if table is EVENTS:
            self._bind_files("landed", EVENTS, files)
            self._bind_sql("events", model("events").sql)
        else:
            self._bind_files(table.name, table, files)

    def bind_all(self) -> None:
        """Make every table of the lake a view: what an analyst sees."""
        for table in TABLES.values():
            self.bind(table)

    def bind_levels(self) -> None:
        """Make the level curve the relation `levels` (see `small_tables`)."""
        self.bind_rows("levels", small_tables.levels(self.settings.levels_file))

    def bind_rewards(self) -> None:
        """Make the level rewards the relation `rewards` (see `small_tables`)."""
        self.bind_rows("rewards", small_tables.rewards(self.settings.rewards_file))

    def bind_rules(self) -> None:
        """Make the fairness rules the relation `fairness_rules` (see `small_tables`)."""
        self.bind_rows("fairness_rules", small_tables.fairness_rules(self.settings.rules_file))

    def bind_model(self, name: str, **parameters: Parameter) -> None:
        """Make a model a view of its name, its parameters fixed: what another model reads."""
        self._bind_sql(name, with_values(model(name).sql, parameters).sql(dialect="duckdb"))

    def run(self, name: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """Run a model: its rows in its order, in batches that are computed as they are read."""
        return self.query(model(name).sql, **parameters)

    @abstractmethod
    def query(self, sql: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """Run a SELECT over what is bound; `$name` in it stands for a parameter."""

    @abstractmethod
    def bind_rows(self, name: str, rows: pa.Table) -> None:
        """Make a small Arrow table a relation."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is bound."""

    @abstractmethod
    def _bind_files(self, name: str, table: Table, files: list[Path]) -> None:
        """Make those files of a table a view with the contract's columns; a file older than a column has NULL there."""

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
    """DuckDB, in memory, one per run. Reading commands and analysts' SQL always use it, through `connection`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        config: dict[str, Any] = {
            "temp_directory": str(self.lake.scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if settings.memory_limit:
            config["memory_limit"] = settings.memory_limit
        self.connection = duckdb.connect(":memory:", config=config)

    def query(self, sql: str, **parameters: Parameter) -> pa.RecordBatchReader:
        """See `Engine`. The next statement on this engine ends the reader, without a word: read it to its end first."""
        return self.connection.sql(sql, params=parameters).arrow()

    def bind_rows(self, name: str, rows: pa.Table) -> None:
        """See `Engine`."""
        self.connection.register(name, rows)

    def close(self) -> None:
        """See `Engine`."""
        self.connection.close()

    def _bind_files(self, name: str, table: Table, files: list[Path]) -> None:
        self._bind_sql(name, scan(table, files))

    def _bind_sql(self, name: str, sql: str) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")


def scan(table: Table, files: list[Path]) -> str:
    """The SQL that reads those files of a table as its contract has it.

    The empty SELECT gives the contract's columns and types to tables without files, and to files older than a column.
    """
    columns = ", ".join(f"CAST(NULL AS {c.sql_type}) AS {c.name}" for c in table.columns)
    empty = f"SELECT {columns} WHERE false"
    if not files:
        return empty
    paths = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    hive = ", ".join(f"{c.name}: {c.sql_type}" for c in table.columns if c.name in table.partition)
    return (
        f"{empty} UNION ALL BY NAME SELECT * FROM read_parquet([{paths}], "  # noqa: S608
        f"hive_partitioning = true, hive_types = {{{hive}}}, union_by_name = true)"
    )
