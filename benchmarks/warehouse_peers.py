"""The rollup of raw events to one row per player and day in pandas and in Spark, as one would write it there.

Run by the interpreter of an environment that has pandas, pyarrow and pyspark; nothing of Fairboard is imported:

    PEERS/bin/python benchmarks/warehouse_peers.py pandas|spark LAKE OUT

Prints one JSON line: seconds without imports and Spark's start, rows, and their XP. Like the model it counts an id once a day.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

LIMIT = 2**31 - 1
READ = ["event_id", "player_id", "type", "ts", "delta_xp"]


def in_pandas(lake: str, out: Path) -> dict[str, float]:
    """A day at a time: 30 days at once do not fit the memory of a small machine."""
    import numpy as np  # noqa: PLC0415 - of the peers' environment
    import pandas as pd  # noqa: PLC0415

    started, rows, xp = perf_counter(), 0, 0
    for folder in sorted(Path(lake, "events").glob("event_date=*")):
        events = pd.concat(
            [pd.read_parquet(path, columns=READ, partitioning=None) for path in sorted(folder.glob("*.parquet"))]
        )
        events = events.drop_duplicates("event_id")
        gains = events["type"] == "progression"
        moved = events["delta_xp"].where(gains)
        x = moved.clip(-LIMIT, LIMIT)
        log = np.log(moved.where(moved > 0))
        events = events.assign(
            minute=events["ts"] // 60,
            moved=moved,
            x=x,
            x_sq=x * x,
            log_e6=(log * 1e6).round(),
            log_sq_e6=(log * log * 1e6).round(),
            xp_ts=events["ts"].where(gains),
            changed_ts=events["ts"].where(moved != 0).where(gains),
            gain=moved > 0,
            kill=events["type"] == "boss_kill",
            drop=events["type"] == "drop_claimed",
        )
        days = events.groupby("player_id", sort=True).agg(
            events=("ts", "size"),
            first_ts=("ts", "min"),
            last_ts=("ts", "max"),
            active_minutes=("minute", "nunique"),
            xp=("moved", "sum"),
            xp_events=("moved", "count"),
            xp_first_ts=("xp_ts", "min"),
            xp_changed_ts=("changed_ts", "max"),
            xp_sum=("x", "sum"),
            xp_sum_sq=("x_sq", "sum"),
            gain_events=("gain", "sum"),
            log_sum_e6=("log_e6", "sum"),
            log_sum_sq_e6=("log_sq_e6", "sum"),
            boss_kills=("kill", "sum"),
            drops=("drop", "sum"),
        )
        days.to_parquet(out / f"{folder.name}.parquet", compression="zstd")
        rows, xp = rows + len(days), xp + int(days["xp"].sum())
    return {"seconds": perf_counter() - started, "rows": rows, "xp": xp}


def in_spark(lake: str, out: Path) -> dict[str, float]:
    """One job on two cores."""
    from pyspark.sql import SparkSession  # noqa: PLC0415 - of the peers' environment

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "6g")
        .config("spark.sql.shuffle.partitions", "16")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    started = perf_counter()
    spark.read.parquet(f"{lake}/events").dropDuplicates(["event_date", "event_id"]).createOrReplaceTempView("events")
    days = spark.sql(f"""
        SELECT event_date, player_id, count(*) AS events, min(ts) AS first_ts, max(ts) AS last_ts,
            count(DISTINCT ts DIV 60) AS active_minutes, sum(moved) AS xp, count(moved) AS xp_events,
            min(CASE WHEN moved IS NOT NULL THEN ts END) AS xp_first_ts, max(CASE WHEN moved <> 0 THEN ts END) AS xp_changed_ts,
            sum(x) AS xp_sum, sum(CAST(x * x AS DECIMAL(38, 0))) AS xp_sum_sq, count(log_x) AS gain_events,
            sum(CAST(round(log_x * 1e6) AS BIGINT)) AS log_sum_e6,
            sum(CAST(round(log_x * log_x * 1e6) AS BIGINT)) AS log_sum_sq_e6,
            count(CASE WHEN type = 'boss_kill' THEN 1 END) AS boss_kills,
            count(CASE WHEN type = 'drop_claimed' THEN 1 END) AS drops
        FROM (
            SELECT *, CASE WHEN type = 'progression' THEN delta_xp END AS moved,
                CASE WHEN type = 'progression' THEN greatest(least(delta_xp, {LIMIT}), -{LIMIT}) END AS x,
                CASE WHEN type = 'progression' AND delta_xp > 0 THEN ln(delta_xp) END AS log_x
            FROM events)
        GROUP BY event_date, player_id""")
    days.write.partitionBy("event_date").option("compression", "zstd").parquet(str(out / "player_days"))
    seconds = perf_counter() - started
    rows, xp = spark.read.parquet(str(out / "player_days")).selectExpr("count(*)", "sum(xp)").first()
    spark.stop()
    return {"seconds": seconds, "rows": rows, "xp": xp}


if __name__ == "__main__":
    which, lake_folder, out_folder = sys.argv[1:]
    answer = {"pandas": in_pandas, "spark": in_spark}[which](lake_folder, Path(out_folder))
    print(json.dumps(answer))
