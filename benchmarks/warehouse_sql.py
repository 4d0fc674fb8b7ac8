"""The warehouse's models as a person would run them by hand: DuckDB, views over the same files, COPY into Parquet.

No lake, no hashes, no fsync, no orchestrator: what `warehouse_bench.py` measures the engine against. What does not belong here:
figures.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.calendar import ONE_DAY, Days
from warehouse.engine import DuckDBEngine, model
from warehouse.folds import BASELINE_DAYS
from warehouse.settings import Settings
from warehouse.spans import History, window_spans
from warehouse.tables import EVENTS, LEADERBOARDS, PLAYER_DAYS, PLAYER_MONTHS, TABLES

MADE_DAYS = "player_days/*/*.parquet"
TABLES_MADE = ("player_days", "progression", "leaderboards", "fairness")
# What both sides must agree on, to the last integer; z to the thousandth.
CHECKS = {
    "player_days": "count(*), sum(xp), sum(log_sum_sq_e6), sum(active_minutes)",
    "progression": "count(*), sum(xp_total), sum(level_after), sum(xp_to_next)",
    "leaderboards": "count(*), sum(xp), sum(rank * boss_kills), sum(movement)",
    "fairness": "count(*), sum(flagged_events), sum(baseline_events), CAST(sum(round(z, 3)) * 1000 AS BIGINT)",
}


LEVELS = (
    "SELECT level, xp_required, lead(xp_required) OVER (ORDER BY level) AS xp_next,"
    " coalesce(lead(xp_required) OVER (ORDER BY level) - 1, 9223372036854775807) AS xp_last FROM '{file}'"
)
RULES = "SELECT * FROM '{file}' QUALIFY row_number() OVER (PARTITION BY rule ORDER BY version DESC) = 1"


@dataclass
class ByHand:
    """The statements for one range of days, written down beforehand; `run` is what is timed."""

    settings: Settings
    days: Days
    folder: Path
    views: dict[str, str] = field(default_factory=dict)
    windows: pa.Table = field(init=False)

    def __post_init__(self) -> None:
        """Look up which files and windows the range needs: a person would type them.

        For a range within one month, whose `player_days` exist: there is no month to take whole.
        """
        with DuckDBEngine(self.settings) as engine:
            history = History(engine)
            boards = {w for day in Days(self.days.first, self.days.last + ONE_DAY) for w in engine.calendar.windows_of(day)}
            self.windows = window_spans(history, boards)
            before = {day for day in history.days if day < self.days.first}
            self.views["landed"] = read(engine.lake.files(EVENTS, self.days))
            self.views["player_days"] = read([*engine.lake.files(PLAYER_DAYS, before), self.folder / MADE_DAYS])
        columns = ", ".join(f"CAST(NULL AS {c.sql_type}) AS {c.name}" for c in PLAYER_MONTHS.columns)
        self.views["player_months"] = f"SELECT {columns} WHERE false"

    def run(self) -> float:
        """Compute every table of the range; seconds."""
        started = perf_counter()
        con = duckdb.connect(config={"temp_directory": str(self.folder / "spill")})
        con.register("window_spans", self.windows)
        con.execute("CREATE VIEW levels AS " + LEVELS.format(file=self.settings.levels_file))
        con.execute("CREATE VIEW fairness_rules AS " + RULES.format(file=self.settings.rules_file))
        con.execute(f"CREATE VIEW landed AS {self.views['landed']}")
        con.execute(f"CREATE VIEW events AS {self.sql('events')}")
        con.execute(self.sql("landings")).fetchall()
        self.copy(con, "player_days")
        for name in ("player_days", "player_months"):
            con.execute(f"CREATE VIEW {name} AS {self.views[name]}")
        con.execute(f"CREATE VIEW player_spans AS {self.sql('player_spans')}")
        con.execute(f"CREATE VIEW event_scores AS {self.sql('event_scores')}")
        for name in TABLES_MADE[1:]:
            self.copy(con, name)
        con.close()
        return perf_counter() - started

    def copy(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        """One table into its partitions."""
        keys = ", ".join(TABLES[name].partition)
        con.execute(
            f"COPY ({self.sql(name)}) TO '{self.folder / name}'"
            f" (FORMAT parquet, COMPRESSION zstd, PARTITION_BY ({keys}), OVERWRITE_OR_IGNORE)"
        )

    def sql(self, name: str) -> str:
        """A model with its parameters filled in."""
        sql = model(name).sql
        parameters: dict[str, object] = {
            "first_day": self.days.first,
            "last_day": self.days.last,
            "baseline_days": BASELINE_DAYS,
            "baseline_day": self.days.first - timedelta(days=BASELINE_DAYS),
        }
        for key in sorted(parameters, key=len, reverse=True):
            value = parameters[key]
            sql = sql.replace(f"${key}", f"DATE '{value}'" if isinstance(value, date) else str(value))
        return sql

    def as_models(self) -> dict[str, tuple[str, str]]:
        """The same statements as dbt's models: by name, how it is kept (`view` or `table`) and its SQL with `ref`s."""
        csv = {
            "levels": LEVELS.format(file=self.settings.levels_file),
            "fairness_rules": RULES.format(file=self.settings.rules_file),
        }
        windows = self.folder / "window_spans.parquet"
        pq.write_table(self.windows, windows)
        history = self.views["player_days"].replace(f", '{self.folder / MADE_DAYS}'", "")
        views = {
            **csv,
            "window_spans": f"SELECT * FROM '{windows}'",
            "landed": self.views["landed"],
            "player_months": self.views["player_months"],
            "events": self.sql("events"),
            "player_spans": self.sql("player_spans"),
            "event_scores": self.sql("event_scores"),
        }
        tables = {name: self.sql(name) for name in ("landings", *TABLES_MADE)}
        tables["player_days"] = f"SELECT * FROM ({tables['player_days']}) UNION ALL BY NAME {history}"
        names = {*views, *tables}
        kept = dict.fromkeys(views, "view") | dict.fromkeys(tables, "table")
        return {name: (kept[name], referring(sql, names - {name})) for name, sql in {**views, **tables}.items()}

    def answers(self) -> dict[str, tuple[object, ...] | None]:
        """What it computed, as `CHECKS` has it."""
        con = duckdb.connect()
        return {
            name: con.execute(f"SELECT {CHECKS[name]} FROM ({read([self.folder / name / '**/*.parquet'])})").fetchone()
            for name in TABLES_MADE
        }


def referring(sql: str, names: set[str]) -> str:
    """The SQL with dbt's `ref` in place of the relations it reads."""
    return re.sub(r"\b(FROM|JOIN) (\w+)\b", lambda m: f"{m[1]} {{{{ ref('{m[2]}') }}}}" if m[2] in names else m[0], sql)


def read(files: Iterable[Path]) -> str:
    """The SELECT over files of the lake's layout."""
    paths = ", ".join(f"'{path}'" for path in files)
    return f"SELECT * FROM read_parquet([{paths}], hive_partitioning = true, union_by_name = true)"


def engine_answers(settings: Settings, days: Days) -> dict[str, tuple[object, ...] | None]:
    """What the lake holds for the range, as `CHECKS` has it."""
    with DuckDBEngine(settings) as engine:
        for name in TABLES_MADE:
            engine.bind(TABLES[name], None if TABLES[name] is LEADERBOARDS else days)
        return {name: engine.connection.execute(f"SELECT {CHECKS[name]} FROM {name}").fetchone() for name in TABLES_MADE}
