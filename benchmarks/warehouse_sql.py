"""The whole graph as a person would run it by hand: DuckDB, views over the same files, the models' SQL, COPY into Parquet.

No lake, no hashes, no fsync, no commits, no orchestrator: what `warehouse_bench.py` measures the engine against. Everything is
written by zstd, in the partitions that the lake has. `fairness` is the models' SQL through DuckDB, then the same rule functions
(`score`, `judge`) on the frames. Days that are one compacted file already stay as they are, as with us; the others are read by
the same model, sorted by the same columns and written to one file a day.
What does not belong here: figures.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import ceil
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse import encodings, small_tables
from warehouse.calendar import ONE_DAY, Calendar, Days
from warehouse.compaction import facts_of
from warehouse.engine import DuckDBEngine, Parameter, model, scan, with_values, zone_days
from warehouse.fairness.judgements import FASTEST, reasons, with_evidence
from warehouse.fairness.rules import BASELINE_DAYS, Threshold, thresholds
from warehouse.fairness.scores import score
from warehouse.fairness.suspicion import judge
from warehouse.folds import FOLDS, MONTH_DAYS, SCORED_ROWS
from warehouse.settings import Settings
from warehouse.spans import History, days_of, window_spans
from warehouse.tables import (
    ACTIVITY_DAYS,
    EVENTS,
    PLAYER_BOSS_DAYS,
    PLAYER_DAYS,
    PLAYER_ITEM_DAYS,
    PLAYER_MONTHS,
    PROGRESSION,
    Table,
)
from warehouse.tables import TABLES as CONTRACTS
from warehouse.verdicts import EXCLUSIONS

FROM_EVENTS = (PLAYER_DAYS, PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS, ACTIVITY_DAYS)
WITH_HISTORY = (PLAYER_DAYS, PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS)  # what folds of a day read of the days before it
OF_FAIRNESS = ("day_levels", "xp_baselines", "long_days", "kill_times", "loot")
TABLES = tuple(FOLDS)
# What both sides must agree on, to the last integer; what is a DOUBLE to the millionth.
CHECKS = {
    "events": "count(*), count(DISTINCT event_id), sum(ts), sum(delta_xp), sum(hash(event_id, player_id))",
    "player_days": "count(*), sum(xp), sum(log_sum_sq_e6), sum(gap_log_sum_e6), sum(active_minutes), sum(session_seconds)",
    "player_boss_days": "count(*), sum(kills), sum(fastest_ms)",
    "player_item_days": "count(*), sum(drops)",
    "player_months": "count(*), sum(xp)",
    "activity_days": "count(*), sum(events), sum(players), sum(xp), sum(quantity), sum(duration_median_ms),"
    " sum(duration_p90_ms)",
    "progression": "count(*), sum(xp_total), sum(level_after), sum(xp_to_next)",
    "leaderboards": "count(*), sum(xp), sum(rank * boss_kills), sum(movement)",
    "fairness": "count(*), count(*) FILTER (WHERE verdict = 'flagged'), count(*) FILTER (WHERE act), sum(tests),"
    " sum(baseline_n), sum(CAST(round(z * 1e6) AS HUGEINT)), sum(CAST(round(q * 1e6) AS HUGEINT)), sum(len(evidence)),"
    " sum(hash(evidence))",
    "daily_metrics": "count(*), sum(numerator), sum(denominator), sum(CAST(round(value * 1e6) AS HUGEINT))",
}
# zstd as our derived tables have it; DuckDB's default is 3. Compaction has 17 for columns that are encoded first and 7 for ids:
# DuckDB encodes ids plainly, on which 17 takes ten times as long.
LEVEL, SETTLED_LEVEL = 1, 7

Answer = tuple[object, ...] | None


@dataclass
class ByHand:
    """The statements for one range of days, written down beforehand; `run` is what is timed.

    `settings` is a lake whose days before the range are folded, and in which no month is (the newest never is).
    """

    settings: Settings
    days: Days
    folder: Path
    rules: dict[str, Threshold] = field(init=False)
    windows: pa.Table = field(init=False)
    landed: dict[date, list[Path]] = field(init=False)
    compacted: bool = field(init=False)
    before: dict[str, list[Path]] = field(init=False)
    statements: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Look up which files and windows the range needs: a person would type them."""
        with DuckDBEngine(self.settings) as engine:
            lake, history = engine.lake, History(engine)
            assert not history.months
            history.days = sorted({*history.days, *days_of(engine, EVENTS, self.days)})
            boards = {w for day in Days(self.days.first, self.days.last + ONE_DAY) for w in engine.calendar.windows_of(day)}
            self.windows = window_spans(history, boards)
            self.rules = thresholds(engine)
            landed = {day: lake.files(EVENTS, [day]) for day in history.within(self.days)}
            self.landed = {day: lake.paths(files) for day, files in landed.items()}
            self.compacted = all(len(files) == 1 and facts_of(lake, files[0]).ids for files in landed.values())
            earlier = [day for day in history.days if day < self.days.first]
            self.before = {table.name: lake.paths(lake.files(table, earlier)) for table in WITH_HISTORY}
        self.statements = self.filled(self.days)

    def run(self) -> None:
        """Compute every table of the range."""
        con = duckdb.connect(config={"temp_directory": str(self.folder / "spill")})
        con.register("window_spans", self.windows)
        for name, rows in self.small_tables().items():
            con.register(name, rows)
        self.events(con)
        for table in FROM_EVENTS:
            self.copy(con, table)
        for table in WITH_HISTORY:
            con.execute(f"CREATE VIEW {table.name} AS {self.with_history(table)}")
        con.execute(f"CREATE VIEW player_months AS {read(PLAYER_MONTHS, [])}")
        con.execute(f"CREATE VIEW player_spans AS {self.statements['player_spans']}")
        for name in ("progression", "leaderboards"):
            self.copy(con, CONTRACTS[name])
        for table in (PROGRESSION, ACTIVITY_DAYS):
            con.execute(f"CREATE VIEW {table.name} AS {read(table, self.made(table))}")
        self.copy(con, CONTRACTS["daily_metrics"])
        self.fairness(con)
        con.close()

    def small_tables(self) -> dict[str, pa.Table]:
        """Levels and rules; nobody is excluded."""
        return {
            "levels": small_tables.levels(self.settings.levels_file),
            "fairness_rules": small_tables.fairness_rules(self.settings.rules_file),
            "exclusions": EXCLUSIONS.empty_table(),
            "zone_days": zone_days(Calendar.of(self.settings), self.days),
        }

    def events(self, con: duckdb.DuckDBPyConnection) -> None:
        """Days that are not one file yet become one, without copies; what they hold is counted."""
        files = [path for paths in self.landed.values() for path in paths]
        if not self.compacted:
            for day, paths in self.landed.items():
                con.execute(f"CREATE OR REPLACE VIEW landed AS {read(EVENTS, paths)}")
                target = self.folder / "events" / f"event_date={day}" / "data.parquet"
                target.parent.mkdir(parents=True)
                settled = f"COMPRESSION_LEVEL {SETTLED_LEVEL}, ROW_GROUP_SIZE {encodings.ROW_GROUP}"
                versions = f"SELECT * EXCLUDE (event_date) FROM ({model('versions').sql})"
                con.execute(f"COPY ({versions}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, {settled})")
            files = self.made(EVENTS)
        con.execute(f"CREATE OR REPLACE VIEW landed AS {read(EVENTS, files)}")
        con.execute("CREATE VIEW events AS SELECT * FROM landed")
        if not self.compacted:
            assert all(conflicts == 0 for _, _, conflicts in con.execute(self.statements["landings"]).fetchall())

    def copy(self, con: duckdb.DuckDBPyConnection, table: Table) -> None:
        """One table into its partitions."""
        keys = ", ".join(table.partition)
        con.execute(
            f"COPY ({self.statements[table.name]}) TO '{self.folder / table.name}' (FORMAT parquet, COMPRESSION zstd,"
            f" COMPRESSION_LEVEL {LEVEL}, PARTITION_BY ({keys}), OVERWRITE_OR_IGNORE)"
        )

    def fairness(self, con: duckdb.DuckDBPyConnection) -> None:
        """Sums by SQL, the rules on them, and the events behind their flags: of as many days at once as fit the memory."""
        days = list(self.landed)
        [rows] = con.execute(f"SELECT count(*) FROM player_days WHERE event_date >= DATE '{self.days.first}'").fetchone() or [0]
        at_once = ceil(len(days) / ceil(rows / SCORED_ROWS))
        for start in range(0, len(days), at_once):
            self.judge(con, Days(days[start], days[min(start + at_once, len(days)) - 1]))

    def judge(self, con: duckdb.DuckDBPyConnection, days: Days) -> None:
        """The rows of `fairness` of those days."""
        statements = self.statements if days == self.days else self.filled(days)
        for table in WITH_HISTORY:
            bounds = f"DATE '{days.first - timedelta(days=BASELINE_DAYS)}' AND DATE '{days.last}'"
            baseline = f"SELECT * FROM ({self.with_history(table)}) WHERE event_date BETWEEN {bounds}"
            con.execute(f"CREATE OR REPLACE TEMP VIEW {table.name} AS {baseline}")
        for name in OF_FAIRNESS:
            kind = "TABLE" if name == "xp_baselines" else "VIEW"
            con.execute(f"CREATE OR REPLACE TEMP {kind} {name} AS {statements[name]}")
        sums, fastest = frame(con, statements["fairness"]), frame(con, statements["fastest"])
        rows = judge(score(sums, fastest, {name: rule.min_n for name, rule in self.rules.items()}), self.rules)
        con.register("flags", reasons(rows).to_arrow(compat_level=pl.CompatLevel.oldest()))
        con.execute(f"CREATE OR REPLACE TEMP VIEW event_scores AS {statements['event_scores']}")
        rows = with_evidence(rows, frame(con, statements["evidence"]))
        for (day,), of_day in rows.group_by("event_date", maintain_order=True):
            target = self.folder / "fairness" / f"event_date={day}" / "data.parquet"
            of_day.drop("event_date").write_parquet(target, compression="zstd", compression_level=LEVEL, mkdir=True)

    def made(self, table: Table) -> list[Path]:
        """The files of a table that were written here."""
        return sorted((self.folder / table.name).rglob("*.parquet"))

    def with_history(self, table: Table) -> str:
        """The SELECT over a table's days before the range, and those that were made here."""
        return read(table, [*self.before[table.name], *self.made(table)])

    def as_models(self) -> dict[str, tuple[str, str]]:
        """The same statements as dbt's models: by name, how it is kept (`view` or `table`) and its SQL with `ref`s.

        A day's own rows of the tables with history are models of the table's name and `_made`.
        """
        views = {name: f"SELECT * FROM '{self._parquet(name, rows)}'" for name, rows in self.small_tables().items()}
        views["window_spans"] = f"SELECT * FROM '{self._parquet('window_spans', self.windows)}'"
        views["landed"] = read(EVENTS, [path for paths in self.landed.values() for path in paths])
        views["events"] = "SELECT * FROM landed"
        views["player_months"] = read(PLAYER_MONTHS, [])
        views |= {name: self.statements[name] for name in ("player_spans", *OF_FAIRNESS)}
        tables = {name: self.statements[name] for name in ("xp_baselines", *TABLES[1:]) if name != "player_months"}
        for table in WITH_HISTORY:
            tables[f"{table.name}_made"] = tables.pop(table.name)
            history = read(table, self.before[table.name])
            views[table.name] = f"SELECT * FROM ({history}) UNION ALL BY NAME SELECT * FROM {table.name}_made"
        kept = dict.fromkeys(views, "view") | dict.fromkeys(tables, "table")
        return {name: (kept[name], referring(sql, {*kept} - {name})) for name, sql in {**views, **tables}.items()}

    def answers(self) -> dict[str, Answer]:
        """What it computed, as `CHECKS` has it; of events that were compacted before, what it read."""
        con = duckdb.connect()
        files = {name: self.made(CONTRACTS[name]) for name in TABLES}
        files["events"] = files["events"] or [path for paths in self.landed.values() for path in paths]
        return {name: checked(con, name, f"({read(CONTRACTS[name], paths)})") for name, paths in files.items()}

    def _parquet(self, name: str, rows: pa.Table) -> Path:
        path = self.folder / f"{name}.parquet"
        pq.write_table(rows, path)
        return path

    def filled(self, days: Days) -> dict[str, str]:
        """The models with the parameters of those days filled in."""
        parameters: dict[str, Parameter] = {
            "first_day": days.first,
            "last_day": days.last,
            "baseline_days": BASELINE_DAYS,
            "month_start": days.first - timedelta(days=MONTH_DAYS - 1),
            "min_n": self.rules["boss_time"].min_n,
        }
        names = [*TABLES[1:], *OF_FAIRNESS, "landings", "player_spans", "event_scores", "evidence"]
        sql = {name: model(name).sql for name in names} | {"fastest": FASTEST}
        return {name: with_values(text, parameters).sql(dialect="duckdb") for name, text in sql.items()}


def frame(con: duckdb.DuckDBPyConnection, sql: str) -> pl.DataFrame:
    """What a statement gives."""
    return pl.DataFrame(pl.from_arrow(con.sql(sql).to_arrow_table()))


def read(table: Table, files: list[Path]) -> str:
    """The SELECT over a table's files; of none, its columns."""
    paths = ", ".join(f"'{path}'" for path in files)
    return f"SELECT * FROM read_parquet([{paths}], hive_partitioning = true)" if files else scan(table, [])


def checked(con: duckdb.DuckDBPyConnection, name: str, relation: str) -> Answer:
    """The `CHECKS` of a table."""
    row: Answer = con.execute(f"SELECT {CHECKS[name]} FROM {relation}").fetchone()
    return row


def referring(sql: str, names: set[str]) -> str:
    """The SQL with dbt's `ref` in place of the relations it reads."""
    return re.sub(r"\b(FROM|JOIN) (\w+)\b", lambda m: f"{m[1]} {{{{ ref('{m[2]}') }}}}" if m[2] in names else m[0], sql)


def engine_answers(settings: Settings, days: Days, names: Iterable[str] = TABLES) -> dict[str, Answer]:
    """What the lake holds for the range (of boards, whatever it holds), as `CHECKS` has it."""
    with DuckDBEngine(settings) as engine:
        for name in names:
            engine.bind(CONTRACTS[name], None if name == "leaderboards" else days)
        return {name: checked(engine.connection, name, name) for name in names}
