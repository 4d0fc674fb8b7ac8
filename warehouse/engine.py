"""DuckDB, in memory, one per run: binds the lake's tables as views and runs the SQL models.

What belongs here: connections, views, models. What does not: which days to compute (`folds.py`), where files lie (`lake.py`).
"""

from collections.abc import Container
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

from warehouse.calendar import Calendar
from warehouse.errors import SettingsError
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES, Table
from warehouse.verdicts import exclusions

MODELS = Path(__file__).parent / "models"


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


class Engine:
    """One run's DuckDB over one deployment's lake. Use it as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings.lake_dir, settings.timezone)
        self.calendar = Calendar.of(settings)
        config: dict[str, Any] = {
            "temp_directory": str(self.lake.scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if settings.memory_limit:
            config["memory_limit"] = settings.memory_limit
        self.connection = duckdb.connect(":memory:", config=config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.connection.close()

    def bind(self, table: Table, days: Container[date] | None = None) -> None:
        """Make a table a view of its name; with `days`, of those partitions alone (see `Lake.partitions`).

        `events` is the model over the raw files, which the view `landed` shows.
        """
        if table is EVENTS:
            self.bind_landed(self.lake.files(EVENTS, days))
            self._view("events", "SELECT * FROM landed" if self._each_id_once(days) else model("events").sql)
        else:
            self.bind_files(table, self.lake.files(table, days))

    def bind_files(self, table: Table, files: list[Path]) -> None:
        """Make those files of a table a view of its name."""
        self._view(table.name, scan(table, files))

    def bind_landed(self, files: list[Path], without: str | None = None) -> None:
        """Make raw files of `events` the view `landed`; `without` leaves a player's rows out."""
        sql = scan(EVENTS, files)
        if without is not None:
            sql = f"SELECT * FROM ({sql}) WHERE player_id <> {exp.Literal.string(without).sql(dialect='duckdb')}"  # noqa: S608 - a literal
        self._view("landed", sql)

    def _each_id_once(self, days: Container[date] | None) -> bool:
        """Whether every day is one compacted file without conflicts: then nothing has to look for copies."""
        for keys in self.lake.partitions(EVENTS, days):
            names = [path.name for path in self.lake.folder(EVENTS, keys).glob("*.parquet")]
            record = self.lake.record(self.lake.folder(EVENTS, keys) / names[0]) if len(names) == 1 else None
            if names and (record is None or record.ids != record.rows):
                return False
        return True

    def bind_all(self) -> None:
        """Make every table of the lake a view: what an analyst sees."""
        for table in TABLES.values():
            self.bind(table)

    def bind_rows(self, name: str, rows: pa.Table) -> None:
        """Make a small Arrow table a relation."""
        self.connection.register(name, rows)

    def bind_levels(self) -> None:
        """Make the level curve the relation `levels`: level, xp_required, xp_last, xp_next (BIGINT; NULL at the last level).

        Raises:
            SettingsError: the file is no level curve.
        """
        path = self.settings.levels_file
        self._bind_csv("level_curve", path, {"level": "BIGINT", "xp_required": "BIGINT"})
        wrong = self.connection.execute(
            "SELECT count(*) = 0 OR min(level) <> 1 OR max(level) <> count(*) OR min(xp_required) <> 0"
            " OR bool_or(xp_required <= before)"
            " FROM (SELECT *, lag(xp_required) OVER (ORDER BY level) AS before FROM level_curve)"
        ).fetchone()
        if wrong is None or wrong[0]:
            raise SettingsError(
                f"FAIRBOARD_LEVELS_FILE: {path} is no level curve; nothing was computed. "
                "Levels are 1, 2, 3 … without gaps, xp_required starts at 0 and rises."
            )
        self._view(
            "levels",
            "SELECT level, xp_required, lead(xp_required) OVER (ORDER BY level) AS xp_next,"
            " coalesce(lead(xp_required) OVER (ORDER BY level) - 1, 9223372036854775807) AS xp_last FROM level_curve",
        )

    def bind_rewards(self) -> None:
        """Make the level rewards the relation `rewards`: level, reward."""
        self._bind_csv("rewards", self.settings.rewards_file, {"level": "BIGINT", "reward": "VARCHAR"})

    def bind_exclusions(self) -> None:
        """Make whom the verdicts exclude the relation `exclusions`: player_id, excluded_from, excluded_until (exclusive).

        Raises:
            StoreUnavailable: the SQL database cannot be reached; nothing was computed.
        """
        self.bind_rows("exclusions", exclusions(self.settings))

    def bind_rules(self) -> None:
        """Make the fairness rules the relation `fairness_rules`, each in its newest version."""
        self._bind_csv(
            "rule_versions",
            self.settings.rules_file,
            {"rule": "VARCHAR", "version": "BIGINT", "measure": "VARCHAR", "review": "DOUBLE", "act": "DOUBLE",
             "min_n": "BIGINT", "changed_on": "DATE", "changed_by": "VARCHAR", "reason": "VARCHAR"},
        )  # fmt: skip
        self._view(
            "fairness_rules",
            "SELECT * FROM rule_versions QUALIFY row_number() OVER (PARTITION BY rule ORDER BY version DESC) = 1",
        )

    def bind_model(self, name: str, **parameters: date | int) -> None:
        """Make a model a view of its name, its parameters fixed: what another model reads."""
        values = {key: exp.cast(exp.Literal.string(str(v)), "date") if isinstance(v, date) else exp.Literal.number(v)
                  for key, v in parameters.items()}  # fmt: skip
        tree = sqlglot.parse_one(model(name).sql, read="duckdb")
        fixed = tree.transform(lambda node: values[node.name] if isinstance(node, exp.Placeholder) else node)
        self._view(name, fixed.sql(dialect="duckdb"))

    def hold(self, name: str) -> None:
        """Compute a view once, for models that read it more than once."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_held AS SELECT * FROM {name}")  # noqa: S608 (a model's name)
        self._view(name, f"SELECT * FROM {name}_held")  # noqa: S608 (a model's name)

    def run(self, name: str, **parameters: date | int) -> duckdb.DuckDBPyConnection:
        """Run a model; take the result as Arrow batches or a frame before the next statement.

        A relation (`connection.sql`) with parameters would keep the whole result, and copy it once more to hand it out.
        """
        return self.connection.execute(model(name).sql, parameters)

    def _bind_csv(self, name: str, path: Path, columns: dict[str, str]) -> None:
        try:
            self.connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM read_csv($path, header = true, columns = $columns)",  # noqa: S608
                {"path": str(path), "columns": columns},
            )
        except duckdb.Error as error:
            raise SettingsError(f"{path} cannot be read as {', '.join(columns)}: {error}. Nothing was computed.") from error

    def _view(self, name: str, sql: str) -> None:
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
