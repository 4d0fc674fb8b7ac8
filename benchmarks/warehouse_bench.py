"""The figures of the warehouse, each beside what it is measured against, as one JSON line each.

    python benchmarks/warehouse_bench.py [NAME…] [--scale 1] [--rounds 3] [--data FOLDER] [--peers ENVIRONMENT]

Seconds; `ratio` is value / baseline_value. Scale 1 is 30 million events of 200,000 players in 30 days, and 100 million in one
day; `--scale 0.1` for a quick look. `--data` keeps the lakes between runs (4 GB). `--peers` is an environment with pandas,
pyarrow, pyspark and dbt-duckdb; without it the figures that need one are left out, saying so. A figure is printed only after
both sides gave the same answer; the sides take turns, and the middle ratio counts, because a machine's mood changes.
`cpu_ratio` is the same of CPU seconds, which a busy machine changes least.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import duckdb
from warehouse_data import DAY, MONTH, YEAR, Data, materialize
from warehouse_sql import CHECKS, ByHand, engine_answers

from warehouse.calendar import Days
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.engine import DuckDBEngine
from warehouse.folds import BASELINE_DAYS
from warehouse.lake import PARTITION_FILE
from warehouse.publications import PUBLISHED, Outlets, publish
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION

HERE = Path(__file__).parent
TODAY = Days(DAY, DAY)


@dataclass(frozen=True)
class Bench:
    """What every figure is given."""

    data: Data
    rounds: int
    peers: Path | None

    def out(self, name: str) -> Path:
        """An empty folder to write into."""
        folder = self.data.folder / f"{name}.out"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def peer(self, program: str) -> str:
        """A program of the peers' environment."""
        if self.peers is None:
            raise LeftOut("it needs --peers, an environment with pandas, pyarrow, pyspark and dbt-duckdb")
        return str(self.peers / "bin" / program)


class LeftOut(Exception):
    """A figure that cannot be taken here."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took: seconds, and CPU seconds of this process and the children it waited for."""

    seconds: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """Do the work."""
    started, before = perf_counter(), os.times()
    work()
    seconds, after = perf_counter() - started, os.times()
    return Cost(seconds, sum(after[:4]) - sum(before[:4]))


def report(name: str, pairs: list[tuple[Cost, Cost]], baseline: str) -> None:
    """Print the pair (ours, baseline) whose ratio is the middle one, and beside it the middle ratio of CPU seconds."""
    ours, other = sorted(pairs, key=lambda pair: pair[0].seconds / pair[1].seconds)[len(pairs) // 2]
    cpu_ratio = statistics.median(one.cpu / another.cpu for one, another in pairs)
    figure = {"name": name, "value": round(ours.seconds, 3), "unit": "s", "baseline": baseline}
    figure |= {"baseline_value": round(other.seconds, 3), "ratio": round(ours.seconds / other.seconds, 3)}
    print(json.dumps(figure | {"cpu_ratio": round(cpu_ratio, 3)}), flush=True)


def forget_day(settings: Settings) -> None:
    """Take away what was computed of the day, so that it is computed and written anew."""
    with DuckDBEngine(settings) as engine:
        lake = engine.lake
        for table in (PLAYER_DAYS, PROGRESSION, FAIRNESS):
            lake.remove(lake.folder(table, {"event_date": DAY}) / PARTITION_FILE)
        for path in lake.files(LEADERBOARDS):
            lake.remove(path)


@contextmanager
def folding_in(bench: Bench, source: Settings, name: str) -> Iterator[Settings]:
    """A copy of a lake to fold in, gone afterwards."""
    settings = bench.data.copy(source, f"{name}.copy")
    yield settings
    shutil.rmtree(settings.data_dir)


def day_vs_sql(bench: Bench) -> None:
    """One day's graph, events to all tables, beside the same queries by hand."""
    pairs = []
    with folding_in(bench, bench.data.month(), "day") as settings:
        hand = ByHand(settings, TODAY, bench.out("day"))
        for _ in range(bench.rounds):
            forget_day(settings)
            pairs.append((cost(lambda: materialize(settings, TODAY)), cost(hand.run)))
        assert hand.answers() == engine_answers(settings, TODAY)
    report("day_vs_sql", pairs, "the same models by hand in DuckDB")


def day_365_vs_30(bench: Bench) -> None:
    """The same day on top of 365 days of history and of 30."""
    pairs = []
    with folding_in(bench, bench.data.year(), "year") as year, folding_in(bench, bench.data.month(), "month") as month:
        for _ in range(bench.rounds):
            for settings in (year, month):
                forget_day(settings)
            pairs.append((cost(lambda: materialize(year, TODAY)), cost(lambda: materialize(month, TODAY))))
        answers = [engine_answers(settings, TODAY) for settings in (year, month)]
        assert [answer["player_days"] for answer in answers] == [answers[0]["player_days"]] * 2
        assert answers[0]["fairness"] == answers[1]["fairness"]
        check_totals(year)
    report("day_365_vs_30", pairs, "30 days of history")


def check_totals(settings: Settings) -> None:
    """The day's totals are the sums of all days, added up without any month."""
    with DuckDBEngine(settings) as engine:
        engine.bind(PLAYER_DAYS)
        engine.bind(PROGRESSION, TODAY)
        wrong = engine.connection.sql(
            "WITH totals AS (SELECT player_id, sum(xp) AS xp FROM player_days GROUP BY player_id)"
            " SELECT p.player_id FROM progression AS p LEFT JOIN totals AS t USING (player_id)"
            " WHERE t.xp IS DISTINCT FROM p.xp_total"
        ).fetchall()
    assert wrong == []


def backfill_vs_sql(bench: Bench) -> None:
    """30 days in one run, from events alone, beside the same queries by hand over all 30."""
    pairs = []
    for _ in range(bench.rounds):
        with folding_in(bench, bench.data.events(), "backfill") as settings:
            ours = cost(lambda: materialize(settings, MONTH))
            hand = ByHand(settings, MONTH, bench.out("backfill"))
            pairs.append((ours, cost(hand.run)))
            assert hand.answers() == engine_answers(settings, MONTH)
    report("backfill_vs_sql", pairs, "the same models by hand in DuckDB")


def empty_days(bench: Bench) -> None:
    """A year with events on three days beside those three days."""
    days = [Days(day, day) for day in (YEAR.first, Days.ending(DAY, 180).first, DAY)]
    pairs = []
    for _ in range(bench.rounds):
        with (
            folding_in(bench, bench.data.sparse_year(), "sparse") as year,
            folding_in(bench, bench.data.sparse_year(), "three") as three,
        ):
            ours = cost(lambda: materialize(year, YEAR))
            pairs.append((ours, cost(lambda: [materialize(three, day) for day in days])))
            assert engine_answers(year, YEAR) == engine_answers(three, YEAR)
    report("empty_days", pairs, "a run for each of the three days")


def rollup_vs_pandas(bench: Bench) -> None:
    """30 days of events to `player_days`, beside pandas, a day at a time."""
    rollup_beside(bench, "pandas")


def rollup_vs_spark(bench: Bench) -> None:
    """30 days of events to `player_days`, beside Spark on two cores."""
    rollup_beside(bench, "spark")


def rollup_beside(bench: Bench, peer: str) -> None:
    """The fold with its hashing and syncing, against what the peer needs to read, compute and write."""
    command = [bench.peer("python"), str(HERE / "warehouse_peers.py"), peer]
    with folding_in(bench, bench.data.events(), "rollup") as settings:
        ours = cost(lambda: materialize(settings, MONTH, ["player_days"]))
        done = subprocess.run([*command, settings.lake_dir, bench.out("rollup")], check=True, capture_output=True, text=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
        with DuckDBEngine(settings) as engine:
            engine.bind(PLAYER_DAYS)
            found = engine.connection.execute("SELECT count(*), sum(xp) FROM player_days").fetchone()
        assert found == (theirs["rows"], theirs["xp"])
    report(f"rollup_vs_{peer}", [(ours, Cost(theirs["seconds"], theirs["cpu"]))], f"{peer}, without imports and start")


def models_vs_dbt(bench: Bench) -> None:
    """One day by `fairboard materialize`, beside `dbt run` of the same models on dbt-duckdb: both as commands, start to end."""
    program = bench.peer("dbt")
    pairs = []
    with folding_in(bench, bench.data.month(), "dbt") as settings:
        hand = ByHand(settings, TODAY, bench.out("dbt"))
        project = dbt_project(hand, bench.out("dbt-project"))
        environment = os.environ | {"FAIRBOARD_DATA_DIR": str(settings.data_dir), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        fairboard = [str(Path(sys.executable).parent / "fairboard"), "materialize", "--from", str(DAY), "--to", str(DAY)]
        for _ in range(bench.rounds):
            forget_day(settings)
            ours = cost(lambda: run(fairboard, environment))
            (project / "out.duckdb").unlink(missing_ok=True)
            dbt = [program, "run", "--project-dir", str(project), "--profiles-dir", str(project)]
            pairs.append((ours, cost(lambda: run(dbt, environment))))  # noqa: B023 - called at once
        with duckdb.connect(str(project / "out.duckdb")) as con:
            for name, answer in engine_answers(settings, TODAY).items():
                assert con.execute(f"SELECT {CHECKS[name]} FROM {name} {where(name)}").fetchone() == answer, name
    report("models_vs_dbt", pairs, "dbt run with dbt-duckdb, into one DuckDB file")


def where(name: str) -> str:
    """`player_days` in dbt's file holds the history that the other models read."""
    return f"WHERE event_date = DATE '{DAY}'" if name == "player_days" else ""


def dbt_project(hand: ByHand, folder: Path) -> Path:
    """The models as a dbt project: files become `ref`s, the rest is the same SQL."""
    models = folder / "models"
    models.mkdir()
    (folder / "dbt_project.yml").write_text("name: fairboard\nversion: 1.0.0\nprofile: fairboard\n")
    (folder / "profiles.yml").write_text(
        f"fairboard: {{target: d, outputs: {{d: {{type: duckdb, path: '{folder / 'out.duckdb'}', threads: 2}}}}}}\n"
    )
    for name, (kind, sql) in hand.as_models().items():
        (models / f"{name}.sql").write_text("{{ config(materialized='" + kind + "') }}\n" + sql)
    return folder


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def bounded_memory(bench: Bench) -> None:
    """100 million events in one day to all tables, with 4 GB (as much less as `--scale` says) and with what the machine has."""
    with folding_in(bench, bench.data.huge_day(), "huge") as settings:
        costs, answers = [], []
        for limit in (f"{round(4096 * bench.data.scale)}MiB", None):
            limited = settings.model_copy(update={"memory_limit": limit})
            costs.append(cost(lambda: materialize(limited, TODAY)))  # noqa: B023 - called at once
            answers.append(engine_answers(settings, TODAY))
            forget_day(settings)
        assert answers[0] == answers[1]
    report("bounded_memory", [(costs[0], costs[1])], "without a limit")


def fairness_vs_window(bench: Bench) -> None:
    """A day's scores from sums, beside a window over all raw events of the baseline."""
    settings = bench.data.month()
    raw = Days(DAY - timedelta(days=BASELINE_DAYS), DAY)
    scaled = " UNION ALL ".join(
        f"SELECT event_date, player_id, '{rule}' AS rule, {x} AS x FROM events WHERE type = 'progression' {gains}"
        for rule, x, gains in (("self", "CAST(delta_xp AS DOUBLE)", ""), ("self_log", "ln(delta_xp)", "AND delta_xp > 0"))
    )
    window = (
        f"WITH scaled AS ({scaled}),"
        " scored AS (SELECT *, count(*) OVER w AS n, avg(x) OVER w AS mean, stddev_samp(x) OVER w AS sd"
        " FROM scaled WINDOW w AS (PARTITION BY rule, player_id ORDER BY event_date - DATE '1970-01-01'"
        f" RANGE BETWEEN {BASELINE_DAYS} PRECEDING AND 1 PRECEDING))"
        " SELECT rule, count(*), count(CASE WHEN n >= min_events AND abs(x - mean) / sd > threshold THEN 1 END)"
        f" FROM scored JOIN fairness_rules USING (rule) WHERE event_date = DATE '{DAY}' GROUP BY rule ORDER BY rule"
    )
    pairs, theirs = [], []
    with folding_in(bench, settings, "fairness") as ours, DuckDBEngine(settings) as engine:
        engine.bind(EVENTS, raw)
        engine.bind_rules()
        for _ in range(bench.rounds):
            forget_day_of_fairness(ours)
            mine = cost(lambda: materialize(ours, TODAY, ["fairness"]))
            pairs.append((mine, cost(lambda: theirs.extend(engine.connection.sql(window).fetchall()))))
        with DuckDBEngine(ours) as checked:
            checked.bind(FAIRNESS, TODAY)
            found = checked.connection.sql(
                "SELECT rule, sum(events), sum(flagged_events) FROM fairness GROUP BY rule ORDER BY rule"
            )
            assert found.fetchall() == theirs, (found.fetchall(), theirs)
    report("fairness_vs_window", pairs, "a window over the raw events of 29 days")


def forget_day_of_fairness(settings: Settings) -> None:
    """Take the day's scores away."""
    with DuckDBEngine(settings) as engine:
        engine.lake.remove(engine.lake.folder(FAIRNESS, {"event_date": DAY}) / PARTITION_FILE)


def run_overhead(bench: Bench) -> None:
    """A Dagster run of a day with everything it publishes, process start to end, beside the folds and publications alone."""
    dagster = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "-m", "pipelines.definitions"]
    pairs = []
    with folding_in(bench, bench.data.month(), "run") as settings, EmbeddedRedis(settings):
        home = bench.out("dagster")
        shutil.copy(HERE.parent / "dagster.yaml", home)
        environment = os.environ | {
            "DAGSTER_HOME": str(home),
            "FAIRBOARD_DATA_DIR": str(settings.data_dir),
            "FAIRBOARD_FIRST_DAY": str(MONTH.first),
        }
        for _ in range(bench.rounds):
            forget_day(settings)
            whole = cost(lambda: run([*dagster, "--select", "*", "--partition", str(DAY)], environment))
            answers = engine_answers(settings, TODAY)
            forget_day(settings)
            pairs.append((whole, cost(lambda: fold_and_publish(settings))))
            assert engine_answers(settings, TODAY) == answers
    report("run_overhead", pairs, "folds and publications in a process that is up")


def fold_and_publish(settings: Settings) -> None:
    """What a run of the day does, without Dagster."""
    materialize(settings, TODAY)
    with DuckDBEngine(settings) as engine:
        outlets = Outlets(settings)
        for name in PUBLISHED:
            publish(engine, outlets, name, TODAY)


FIGURES: dict[str, Callable[[Bench], None]] = {
    figure.__name__: figure
    for figure in (
        day_vs_sql,
        day_365_vs_30,
        backfill_vs_sql,
        empty_days,
        rollup_vs_pandas,
        rollup_vs_spark,
        models_vs_dbt,
        fairness_vs_window,
        run_overhead,
        bounded_memory,
    )
}


def main() -> None:
    """Take the figures that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []], help="which figures; default all")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder that keeps the lakes; default a temporary one")
    parser.add_argument("--peers", type=Path, help="folder of a virtual environment with pandas, pyarrow, pyspark, dbt-duckdb")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="warehouse-bench-") as temporary:
        data = Data((arguments.data or Path(temporary)).absolute(), arguments.scale)
        for name in arguments.names or FIGURES:
            try:
                FIGURES[name](Bench(data, arguments.rounds, arguments.peers))
            except LeftOut as reason:
                print(f"{name} was left out: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
