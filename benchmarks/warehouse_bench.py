"""The figures of the warehouse, each beside what it is measured against, as one JSON line each.

    python benchmarks/warehouse_bench.py [NAME…] [--scale 1] [--rounds 3] [--data FOLDER] [--peers ENVIRONMENT]

Seconds; `ratio` is value / baseline_value. Scale 1 is 30 million events of 200,000 players in 30 days, and 100 million in one
day; `--scale 0.1` for a quick look. `--data` keeps the lakes between runs (10 GB). `--peers` is an environment with what
`peers.txt` names (`make bench-warehouse` makes one); without it the figures that need one are left out, saying so.

A figure is printed only after both sides gave the same answer, for every table that both made. The sides take turns, and the
middle ratio counts, because a machine's mood changes; `cpu_ratio` is that of CPU seconds, which a busy machine changes least.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow.parquet as pq
from warehouse_data import DAILY, DAY, MONTH, YEAR, Data, materialize, simulate
from warehouse_sql import CHECKS, TABLES, WITH_HISTORY, Answer, ByHand, engine_answers

from warehouse.calendar import Days
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.engine import DuckDBEngine
from warehouse.fairness.judgements import bind_event_scores
from warehouse.fairness.rules import BASELINE_DAYS
from warehouse.lake import Lake, fsync
from warehouse.outlets import Outlets
from warehouse.publications import PUBLISHED, publish
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION, Table

HERE = Path(__file__).parent
TODAY = Days(DAY, DAY)
LEAST_MEMORY = 256  # MiB
COUNTED = ("events", "active_minutes", "active_hours", "sessions", "session_seconds", "xp", "xp_changed_ts", "gaps", "gain_max")

Rows = list[tuple[Any, ...]]


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
            raise LeftOut("it needs --peers, an environment with what benchmarks/peers.txt names")
        return str(self.peers / "bin" / program)


class LeftOut(Exception):
    """A figure that cannot be taken here."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took: seconds, and CPU seconds of this process and the children it waited for; 0 where nobody counted."""

    seconds: float
    cpu: float = 0.0


def cost(work: Callable[[], object]) -> Cost:
    """Do the work."""
    started, before = perf_counter(), os.times()
    work()
    seconds, after = perf_counter() - started, os.times()
    return Cost(seconds, sum(after[:4]) - sum(before[:4]))


def report(name: str, pairs: list[tuple[Cost, Cost]], baseline: str, **more: float) -> None:
    """Print the pair (ours, baseline) whose ratio is the middle one, and beside it the middle ratio of CPU seconds."""
    ours, other = sorted(pairs, key=lambda pair: pair[0].seconds / pair[1].seconds)[len(pairs) // 2]
    figure: dict[str, object] = {"name": name, "value": round(ours.seconds, 3), "unit": "s", "baseline": baseline}
    figure |= {"baseline_value": round(other.seconds, 3), "ratio": round(ours.seconds / other.seconds, 3)}
    if all(another.cpu for _, another in pairs):
        figure["cpu_ratio"] = round(statistics.median(one.cpu / another.cpu for one, another in pairs), 3)
    print(json.dumps(figure | more), flush=True)


def agree(ours: Mapping[str, Answer], theirs: Mapping[str, Answer]) -> None:
    """Both sides gave the same answer for every table."""
    different = {name: (ours[name], theirs.get(name)) for name in ours if ours[name] != theirs.get(name)}
    assert not different, different
    assert ours.keys() == theirs.keys()


def forget_day(settings: Settings, tables: Collection[Table] = (*DAILY, LEADERBOARDS)) -> None:
    """Take away what was computed of the day, and every board, so that it is computed and written anew."""
    with Lake(settings) as lake:
        for table in tables:
            files = lake.snapshot(table).files.items()
            lake.commit(table, [], [file for place, of in files if table is LEADERBOARDS or place == (DAY,) for file in of])


@contextmanager
def folding_in(bench: Bench, source: Settings, name: str) -> Iterator[Settings]:
    """A copy of a lake to fold in, gone afterwards."""
    settings = bench.data.copy(source, f"{name}.copy")
    yield settings
    shutil.rmtree(settings.data_dir)


def day_vs_sql(bench: Bench) -> None:
    """One day's graph, events to all tables, beside the same by hand. The day is one compacted file already, for both sides."""
    pairs = []
    with folding_in(bench, bench.data.month(), "day") as settings:
        for _ in range(bench.rounds):
            forget_day(settings)
            hand = ByHand(settings, TODAY, bench.out("day"))
            assert hand.compacted
            pairs.append((cost(lambda: materialize(settings, TODAY)), cost(hand.run)))
            agree(engine_answers(settings, TODAY), hand.answers())
    report("day_vs_sql", pairs, "the same models by hand in DuckDB")


def day_365_vs_30(bench: Bench) -> None:
    """The same day on top of 365 days of history and of 30.

    Tables that look back no further than 30 days have the same answer; totals and boards are added up without any month.
    """
    pairs = []
    of_the_day = [table.name for table in DAILY if table.name not in ("progression", "daily_metrics")]
    with folding_in(bench, bench.data.year(), "year") as year, folding_in(bench, bench.data.month(), "month") as month:
        for _ in range(bench.rounds):
            for settings in (year, month):
                forget_day(settings)
            pairs.append((cost(lambda: materialize(year, TODAY)), cost(lambda: materialize(month, TODAY))))
            agree(engine_answers(year, TODAY, of_the_day), engine_answers(month, TODAY, of_the_day))
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
    """30 days in one run, from events alone, beside the same by hand over all 30.

    The days are landed files: both sides make one sorted file of each (`compaction`). The days are of one month, the running
    one: it is rolled up by neither.
    """
    pairs = []
    source = bench.data.events()
    for _ in range(bench.rounds):
        with folding_in(bench, source, "backfill") as settings:
            hand = ByHand(source, MONTH, bench.out("backfill"))
            assert not hand.compacted
            pairs.append((cost(lambda: materialize(settings, MONTH)), cost(hand.run)))
            agree(engine_answers(settings, MONTH), hand.answers())
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
            agree(engine_answers(year, YEAR), engine_answers(three, YEAR))
    report("empty_days", pairs, "a run for each of the three days")


def rollup_vs_pandas(bench: Bench) -> None:
    """30 days of events to `player_days`, beside pandas, a day at a time."""
    rollup_beside(bench, "pandas")


def rollup_vs_spark(bench: Bench) -> None:
    """30 days of events to `player_days`, beside Spark on two cores."""
    rollup_beside(bench, "spark")


def rollup_beside(bench: Bench, peer: str) -> None:
    """The fold with its hashing and syncing, against what the peer needs to read, compute and write the same columns."""
    command = [bench.peer("python"), str(HERE / "warehouse_peers.py"), peer]
    pairs = []
    for _ in range(bench.rounds):
        with folding_in(bench, bench.data.events(), "rollup") as settings:
            ours, out = cost(lambda: materialize(settings, MONTH, ["player_days"])), bench.out("rollup")
            done = subprocess.run([*command, settings.lake_dir, out], check=True, capture_output=True, text=True)
            pairs.append((ours, Cost(json.loads(done.stdout.splitlines()[-1])["seconds"])))
            with DuckDBEngine(settings) as engine:
                engine.bind(PLAYER_DAYS)
                files = [str(path) for path in out.rglob("*.parquet")]
                engine.connection.read_parquet(files).create_view("theirs")
                sums = ", ".join(f"CAST(sum({name}) AS HUGEINT)" for name in COUNTED)
                mine, theirs = (
                    engine.connection.execute(f"SELECT count(*), {sums} FROM {name}").fetchone()
                    for name in ("player_days", "theirs")
                )
            agree({"player_days": mine}, {"player_days": theirs})
    report(f"rollup_vs_{peer}", pairs, f"{peer}, without imports and start")


def models_vs_dbt(bench: Bench) -> None:
    """One day by `fairboard materialize`, beside `dbt run` of the same models on dbt-duckdb: both as commands, start to end.

    dbt builds what is SQL: its `fairness` is the sums that the rules read. The rules in Python and the evidence are ours alone.
    """
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
        check_dbt(bench, settings, project)
    report("models_vs_dbt", pairs, "dbt run with dbt-duckdb, into one DuckDB file")


def check_dbt(bench: Bench, settings: Settings, project: Path) -> None:
    """Dbt's file, read by its own DuckDB, says what the lake does; `fairness` as far as it has it: the players judged."""
    made = {table.name: f"{table.name}_made" for table in WITH_HISTORY}
    names = [name for name in TABLES if name not in ("fairness", "player_months")]
    questions = {name: f"SELECT {CHECKS[name]} FROM {made.get(name, name)}" for name in names}
    players = "SELECT count(*) FROM fairness"
    script = (
        "import duckdb, json, sys; c = duckdb.connect(sys.argv[1], read_only=True);"
        " print(json.dumps({n: c.execute(q).fetchone() for n, q in json.loads(sys.argv[2]).items()}, default=int))"
    )
    command = [bench.peer("python"), "-c", script, str(project / "out.duckdb"), json.dumps({**questions, "players": players})]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    theirs = {name: tuple(answer) for name, answer in json.loads(done.stdout).items()}
    with DuckDBEngine(settings) as engine:
        engine.bind(FAIRNESS, TODAY)
        judged = engine.connection.execute(f"{players} WHERE rule = 'suspicion'").fetchone()
    agree({**engine_answers(settings, TODAY, names), "players": judged}, theirs)


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
    """100 million events in one day to all tables, compaction too, with 4 GB and with what the machine has.

    The limit is DuckDB's, as much smaller as `--scale` says; below LEAST_MEMORY two threads cannot sort any number of events.
    """
    pairs = []
    for _ in range(bench.rounds):
        costs, answers = [], []
        for limit in (f"{max(LEAST_MEMORY, round(4096 * bench.data.scale))}MiB", None):
            with folding_in(bench, bench.data.huge_day(), "huge") as settings:
                limited = settings.model_copy(update={"memory_limit": limit})
                costs.append(cost(lambda: materialize(limited, TODAY)))  # noqa: B023 - called at once
                answers.append(engine_answers(settings, TODAY))
        agree(*answers)
        pairs.append((costs[0], costs[1]))
    report("bounded_memory", pairs, "without a limit")


def fairness_vs_window(bench: Bench) -> None:
    """A day's event scores from the sums that are kept, beside a window over all raw events of the baseline; both counted.

    The scores are those of the rules `self` and `self_log`, as `event_scores` has them: gains alone are judged, corrections
    count in the plain baseline, logs are less the level of their day. `times` is how often ours fits into the window's time.
    `whole_fold` is beside the point for that, but what a day costs: eleven rules, corrected, combined, with evidence, written.
    """
    pairs, whole = [], []
    with folding_in(bench, bench.data.month(), "fairness") as ours, DuckDBEngine(ours) as engine:
        engine.bind(EVENTS, Days(DAY - timedelta(days=BASELINE_DAYS), DAY))
        engine.bind_rules()
        for _ in range(bench.rounds):
            forget_day(ours, [FAIRNESS])
            found: list[Rows] = []
            whole.append(cost(lambda: materialize(ours, TODAY, ["fairness"])))
            mine = cost(lambda: found.append(event_scores(ours)))  # noqa: B023 - called at once
            theirs = cost(lambda: found.append(engine.connection.sql(WINDOW).fetchall()))  # noqa: B023
            assert found[0] == found[1], found
            pairs.append((mine, theirs))
    times = statistics.median(theirs.seconds / mine.seconds for mine, theirs in pairs)
    times_whole = statistics.median(theirs.seconds / fold.seconds for (_, theirs), fold in zip(pairs, whole, strict=True))
    more = {"times": round(times, 1), "whole_fold": round(statistics.median(one.seconds for one in whole), 3)}
    baseline = f"a window over the raw events of {BASELINE_DAYS + 1} days"
    report("fairness_vs_window", pairs, baseline, **more, whole_fold_times=round(times_whole, 1))


def event_scores(settings: Settings) -> Rows:
    """How many gains of the day there are, are judged, and are beyond the threshold, by rule: from the sums."""
    with DuckDBEngine(settings) as engine:
        bind_event_scores(engine, TODAY)
        return engine.connection.sql(
            "SELECT rule, count(*), count(z), count(CASE WHEN abs(z) > threshold THEN 1 END) FROM event_scores"
            " GROUP BY rule ORDER BY rule"
        ).fetchall()


# The same from raw events. A day's level is its median player's mean ln XP, of 20 players or more.
WINDOW = f"""
WITH gains AS (
    SELECT event_date, player_id, CAST(delta_xp AS DOUBLE) AS x, CASE WHEN delta_xp > 0 THEN ln(delta_xp) END AS log_x
    FROM events
    WHERE type = 'progression'
),
players AS (
    SELECT event_date, avg(log_x) AS log_x FROM gains WHERE log_x IS NOT NULL GROUP BY event_date, player_id
),
levels AS (
    SELECT event_date, median(log_x) AS level, count(*) >= 20 AS known FROM players GROUP BY event_date
),
today AS (
    SELECT any_value(known) AS known FROM levels WHERE event_date = DATE '{DAY}'
),
leveled AS (
    SELECT g.*, CASE WHEN t.known THEN g.log_x - l.level ELSE g.log_x END AS log_y
    FROM gains AS g CROSS JOIN today AS t LEFT JOIN levels AS l ON g.event_date = l.event_date
),
measured AS (
    SELECT
        *,
        count(x) OVER w AS n, avg(x) OVER w AS mean, stddev_samp(x) OVER w AS sd, avg(x * x) OVER w AS mean_sq,
        count(log_y) OVER w AS log_n, avg(log_y) OVER w AS log_mean, stddev_samp(log_y) OVER w AS log_sd
    FROM leveled
    WINDOW w AS (
        PARTITION BY player_id
        ORDER BY event_date - DATE '1970-01-01' RANGE BETWEEN {BASELINE_DAYS} PRECEDING AND 1 PRECEDING
    )
),
scaled AS (
    SELECT 'self' AS rule, x, n, mean, CASE WHEN sd * sd > 1e-9 * mean_sq THEN sd WHEN n > 1 THEN 0 END AS sd
    FROM measured
    WHERE event_date = DATE '{DAY}' AND x > 0
    UNION ALL
    SELECT 'self_log', log_y, log_n, log_mean, CASE WHEN log_sd * log_sd > 1e-4 THEN log_sd WHEN log_n > 1 THEN 0 END
    FROM measured
    WHERE event_date = DATE '{DAY}' AND x > 0
),
scored AS (
    SELECT s.rule, r.review, CASE WHEN n >= min_n THEN CASE WHEN sd > 0 THEN (x - mean) / sd WHEN sd = 0 THEN 0 END END AS z
    FROM scaled AS s JOIN fairness_rules AS r ON s.rule = r.rule
)
SELECT rule, count(*), count(z), count(CASE WHEN abs(z) > review THEN 1 END) FROM scored GROUP BY rule ORDER BY rule
"""


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
            agree(engine_answers(settings, TODAY), answers)
    report("run_overhead", pairs, "folds and publications in a process that is up")


def fold_and_publish(settings: Settings) -> None:
    """What a run of the day does, without Dagster."""
    materialize(settings, TODAY)
    with DuckDBEngine(settings) as engine:
        outlets = Outlets(settings)
        for name in PUBLISHED:
            publish(engine, outlets, name, TODAY)


def lake_commit_ms(bench: Bench) -> None:
    """Replacing one partition of a table that has 365, beside what of it cannot be saved: two files and two folders flushed.

    Of 200 commits, each with a file that was written before; the checkpoints after every hundredth are among them.
    """
    settings = Settings(data_dir=bench.out("commits") / "data", _env_file=None)
    simulate(settings, TODAY, 1_000, 5_000)
    materialize(settings, TODAY, ["player_days"])
    ours, floor = [], []
    with Lake(settings) as lake:
        [file] = lake.files(PLAYER_DAYS)
        rows = pq.read_table(lake.path(file), partitioning=None)
        lake.commit(PLAYER_DAYS, [lake.stage(PLAYER_DAYS, rows, {"event_date": day}) for day in YEAR], [file])
        for number, day in enumerate(Days.ending(DAY, 200)):
            staged = lake.stage(PLAYER_DAYS, rows, {"event_date": day}, basis=f"{number:048x}")
            before, content = lake.of(PLAYER_DAYS, {"event_date": day}), staged.temporary.read_bytes()
            ours.append(cost(lambda: lake.commit(PLAYER_DAYS, [staged], before)).seconds * 1000)  # noqa: B023 - called at once
            floor.append(cost(lambda: flushed(settings.data_dir, number, content)).seconds * 1000)  # noqa: B023
        assert len(lake.files(PLAYER_DAYS)) == len(YEAR)
    figure = {"name": "lake_commit_ms", "value": round(statistics.median(ours), 1), "unit": "ms"}
    figure |= {"p95": round(statistics.quantiles(ours, n=20)[-1], 1), "longest": round(max(ours), 1)}
    figure |= {"baseline": "writing and flushing a file and a log entry", "baseline_value": round(statistics.median(floor), 1)}
    print(json.dumps(figure | {"ratio": round(statistics.median(ours) / statistics.median(floor), 2)}), flush=True)


def flushed(folder: Path, number: int, content: bytes) -> None:
    """A file and a small one that names it, each on disk with its folder's entry."""
    for kind, part in (("files", content), ("log", content[:500])):
        path = folder / kind / f"{number}.part"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(part)
        fsync(path)
        path.rename(path.with_suffix(""))
        fsync(path.parent)


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
        lake_commit_ms,
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
    parser.add_argument("--peers", type=Path, help="folder of an environment with what peers.txt names")
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
