"""How well the fairness rules find planted cheaters and leave the honest alone, one JSON line per figure.

    python benchmarks/fairness_bench.py [--seeds 5] [--scale 1.0] [--pyod] [--speed]

Per seed: 50,000 players (times --scale), 60 days with a double-XP weekend and a patch, nine kinds of cheating with 50 players
each (0.9 % of all); the last 32 days are scored. Seed 1 is also played without cheaters: what is flagged there is false. --pyod
adds PyOD's detectors on the same features, in an environment of its own; --speed times a day of a million events. A figure is
printed after its data were checked: every scored day has its rows, and every planted player is in the truth once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.simulation import KINDS, Scenario, Simulation, land
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine, Engine
from warehouse.fairness.judgements import bind_models
from warehouse.fairness.rules import BASELINE_DAYS, SUSPICION
from warehouse.folds import fold
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS

FIRST = date(2026, 3, 2)
DAYS = Days(FIRST, FIRST + timedelta(days=59))
SCORED = Days(FIRST + timedelta(days=BASELINE_DAYS), DAYS.last)
TO_FIND = ("xp_x3", "xp_x10", "bot", "boss_time", "injection")  # what has to be found; the rest is shown
DAY_TABLES = ("player_days", "player_boss_days", "player_item_days")
DETECTORS = Path(__file__).with_name("fairness_pyod.py")
PYOD_DAYS = 8
FEATURES = ("self", "self_log", "self_day", "cohort_xp_per_minute", "cohort_xp_per_event", "cohort_kills_per_hour",
            "cohort_fastest_kill", "regularity", "drops", "boss_time")  # fmt: skip


def scenario(seed: int, scale: float) -> Scenario:
    """A game with everything that honest players do and all who cheat."""
    weekend = Days(date(2026, 4, 11), date(2026, 4, 12))
    return Scenario(
        players=round(50_000 * scale), days=DAYS, seed=seed, cheaters=dict.fromkeys(KINDS, max(2, round(50 * scale))),
        double_xp=weekend, patch_day=date(2026, 4, 21),
    )  # fmt: skip


def play(engine: Engine, game: Simulation) -> pl.DataFrame:
    """Land, fold and score a game. The rows of `fairness` with `kind` (NULL of the honest) and `cheats` (that day)."""
    for day in game.scenario.days:
        land(engine.lake, game, day)
    for table in DAY_TABLES:
        fold(engine, table, DAYS)
    fold(engine, "fairness", SCORED)
    rows = pl.read_parquet(engine.lake.paths(engine.lake.files(FAIRNESS)), hive_partitioning=True)
    assert rows["event_date"].n_unique() == len(SCORED)
    truth = pl.DataFrame(game.truth)
    assert truth["player_id"].is_unique().all()
    assert truth.height == sum(game.scenario.cheaters.values())
    rows = rows.join(truth, on="player_id", how="left")
    return rows.with_columns(cheats=(pl.col("event_date") >= pl.col("from_day")).fill_null(value=False))


def figures(rows: pl.DataFrame) -> dict[str, float]:
    """One seed's figures."""
    planted = rows.filter(pl.col("kind").is_not_null()).select("player_id", "kind").unique()
    # Before they begin, cheaters are honest: those days are neither found nor false.
    rows = rows.filter(pl.col("kind").is_null() | pl.col("cheats"))
    suspicion = rows.filter(pl.col("rule") == SUSPICION)
    textbook = rows.filter(pl.col("rule") == "self").with_columns(p=-pl.col("z").abs())
    found = {
        "precision_at_recall_90": at_recall(suspicion, planted),
        "original_rule_at_recall_90": at_recall(textbook, planted),
    }
    found["false_flags_per_20k_beside_cheaters"] = false_flags(rows)
    for (rule,), of_rule in rows.filter(pl.col("verdict") == "flagged").group_by("rule"):
        players = of_rule.select("player_id", "kind").unique()
        found[f"precision/{rule}"] = players["kind"].count() / players.height
        to_find = planted.filter(pl.col("kind").is_in(TO_FIND))
        found[f"found/{rule}"] = to_find["player_id"].is_in(players["player_id"].to_list()).mean()  # type: ignore[assignment]
    caught = suspicion.filter((pl.col("verdict") == "flagged") & pl.col("cheats"))
    first = caught.group_by("player_id").agg(pl.col("event_date").min(), pl.col("from_day").first())
    waited = first.with_columns(days=(pl.col("event_date") - pl.col("from_day")).dt.total_days()).join(planted, on="player_id")
    for kind in KINDS:
        of_kind = waited.filter(pl.col("kind") == kind)["days"]
        found[f"caught/{kind}"] = of_kind.len() / planted.filter(pl.col("kind") == kind).height
        if of_kind.len():
            found[f"days_to_detection/{kind}"] = float(of_kind.median())  # type: ignore[arg-type]
    return found


def at_recall(rows: pl.DataFrame, planted: pl.DataFrame, recall: float = 0.9) -> float:
    """Precision of the players ranked by their smallest p, where `recall` of those to find are among them."""
    to_find = planted.filter(pl.col("kind").is_in(TO_FIND)).height
    ranked = rows.drop_nulls("p").group_by("player_id", "kind").agg(pl.col("p").min()).sort("p", "player_id")
    hits = ranked["kind"].is_in(TO_FIND).fill_null(value=False).cum_sum()
    depth = int((hits >= recall * to_find).arg_max() or 0) + 1
    assert hits[depth - 1] >= recall * to_find
    return ranked.head(depth)["kind"].count() / depth


def false_flags(rows: pl.DataFrame) -> float:
    """Honest player-days under suspicion, per 20,000."""
    honest = rows.filter((pl.col("rule") == SUSPICION) & pl.col("kind").is_null())
    return honest.filter(pl.col("verdict") == "flagged").height * 20_000 / honest.height


def against_pyod(rows: pl.DataFrame, folder: Path) -> dict[str, float]:
    """Average precision over player-days (any kind of cheating), of the suspicion and of PyOD's on the same z."""
    days = SCORED.first + timedelta(days=3), timedelta(days=len(SCORED) // PYOD_DAYS)
    chosen = rows.filter(pl.col("event_date").is_in([days[0] + n * days[1] for n in range(PYOD_DAYS)]))
    wide = chosen.filter(pl.col("rule").is_in(FEATURES)).pivot("rule", index=["event_date", "player_id"], values="z")
    hours = chosen.filter(pl.col("rule") == "hours").select("event_date", "player_id", hours="observed")
    ours = chosen.filter(pl.col("rule") == SUSPICION).select("event_date", "player_id", "cheats", suspicion=-pl.col("p").log())
    features = wide.join(hours, on=["event_date", "player_id"]).with_columns(pl.col(FEATURES).fill_null(0.0))
    features = features.join(ours, on=["event_date", "player_id"]).fill_null(0.0).sort("event_date", "player_id")
    file = folder / "features.parquet"
    features.write_parquet(file)
    command = ["uv", "run", "--quiet", "--no-project", "--isolated", "--with", "pyod==3.6.7", "--with", "polars", "python"]
    subprocess.run([*command, str(DETECTORS), str(file)], check=True)
    scores = pl.read_parquet(file)
    truth = scores["cheats"].to_numpy()
    return {name: average_precision(truth, scores[name].to_numpy()) for name in ("suspicion", "ecod", "iforest")}


def average_precision(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve; equal scores are one step."""
    order = np.argsort(-score, kind="stable")
    hits, seen = np.cumsum(truth[order]), np.arange(1, len(order) + 1)
    ends = np.append(np.diff(score[order]) != 0, True)
    recall = np.append(0.0, hits[ends] / hits[-1])
    return float(np.sum(np.diff(recall) * hits[ends] / seen[ends]))


def speed(rounds: int) -> Iterator[float]:
    """A scored day's seconds, stored and with its evidence, to the SQL's alone: 1 M events, 200,000 players, 28 days before."""
    last = FIRST + timedelta(days=BASELINE_DAYS)
    game = replace(scenario(1, 4.0), days=Days(FIRST, last), double_xp=None, patch_day=None, cheaters={})
    day = Days(last, last)
    with tempfile.TemporaryDirectory() as folder, DuckDBEngine(Settings(data_dir=Path(folder), _env_file=None)) as engine:
        simulation = Simulation(game, engine.calendar)
        for before in game.days:
            assert land(engine.lake, simulation, before) > 500_000
            for table in DAY_TABLES:
                fold(engine, table, Days(before, before))
        for _ in range(rounds):
            started = time.perf_counter()
            engine.bind(EVENTS, day)
            for table in DAY_TABLES:
                engine.run(table, first_day=last, last_day=last).read_all()
            bind_models(engine, day)
            players = engine.run("fairness", first_day=last, last_day=last).read_all().num_rows
            sql = time.perf_counter() - started
            started = time.perf_counter()
            for table in (*DAY_TABLES, "fairness"):
                folded = fold(engine, table, day)
            assert folded.rows > players > 50_000
            yield (time.perf_counter() - started) / sql


def show(name: str, values: list[float], unit: str, baseline: str = "", baseline_value: float | None = None) -> None:
    """One line: the mean over the seeds."""
    value = statistics.mean(values)
    ratio = value / baseline_value if baseline_value else None
    line = {"name": name, "value": value, "unit": unit, "baseline": baseline, "baseline_value": baseline_value, "ratio": ratio}
    print(json.dumps(line | {"worst": min(values), "best": max(values), "seeds": len(values)}), flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--pyod", action="store_true", help="compare with PyOD")
    parser.add_argument("--speed", action="store_true", help="only the speed of a day")
    arguments = parser.parse_args()
    if arguments.speed:
        show("score_day_vs_sql", list(speed(3)), "times", "the SQL of the same sums", 1.0)
        return
    collected: dict[str, list[float]] = {}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        planted = scenario(seed, arguments.scale)
        games = [planted, replace(planted, cheaters={})] if seed == 1 else [planted]
        for game in games:
            with (
                tempfile.TemporaryDirectory() as folder,
                DuckDBEngine(Settings(data_dir=Path(folder), _env_file=None)) as engine,
            ):
                rows = play(engine, Simulation(game, engine.calendar))
                one = figures(rows) if game.cheaters else {"false_flags_per_20k": false_flags(rows)}
                if arguments.pyod and game.cheaters:
                    one |= {f"auprc/{name}": value for name, value in against_pyod(rows, Path(folder)).items()}
            for name, value in one.items():
                collected.setdefault(name, []).append(value)
    report(collected)


def report(collected: dict[str, list[float]]) -> None:
    """Every figure, those with a goal first."""
    original = statistics.mean(collected.pop("original_rule_at_recall_90"))
    show("precision_at_recall_90", collected.pop("precision_at_recall_90"), "share", "original rule (self)", original)
    if "auprc/suspicion" in collected:
        best = max(statistics.mean(collected[f"auprc/{name}"]) for name in ("ecod", "iforest"))
        show("auprc_vs_pyod", collected.pop("auprc/suspicion"), "area", "the better of ECOD and IsolationForest", best)
    show("original_rule_precision", collected.pop("precision/self"), "share")
    for name in sorted(collected):
        unit = "days" if name.startswith("days") else "player-days" if name.startswith("false") else "share"
        show(name, collected[name], unit)


if __name__ == "__main__":
    sys.exit(main())
