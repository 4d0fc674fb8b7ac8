"""The rollup of raw events to one row per player and day in pandas and in Spark, as one would write it there.

Run by the interpreter of an environment that has pandas, pyarrow and pyspark; nothing of Fairboard is imported:

    PEERS/bin/python benchmarks/warehouse_peers.py pandas|spark LAKE OUT

Prints one JSON line: seconds without imports and Spark's start. Every column of the model is there, an id counts once a day.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

LIMIT, PAUSE_S = 2**31 - 1, 1800
READ = ["event_id", "player_id", "type", "ts", "delta_xp"]


def in_pandas(lake: str, out: Path) -> float:
    """A day at a time: 30 days at once do not fit the memory of a small machine."""
    import numpy as np  # noqa: PLC0415 - of the peers' environment
    import pandas as pd  # noqa: PLC0415

    started = perf_counter()
    for folder in sorted(Path(lake, "events").glob("event_date=*")):
        events = pd.concat(
            [pd.read_parquet(path, columns=READ, partitioning=None) for path in sorted(folder.glob("*.parquet"))]
        )
        events = events.drop_duplicates("event_id").sort_values(["player_id", "ts"])
        player, ts = events["player_id"], events["ts"]
        gains, drops = events["type"] == "progression", events["type"] == "drop_claimed"
        moved = events["delta_xp"].where(gains)
        x = moved.clip(-LIMIT, LIMIT)
        gain = moved.where(moved > 0)
        pause = ts.diff().where(player == player.shift())
        acted, actor = ts[~drops], player[~drops]
        gap = acted.diff().where(actor == actor.shift())
        log, log_gap = np.log(gain), np.log(gap.clip(lower=1))
        events = events.assign(
            new_minute=pause.isna() | (ts // 60 != (ts - pause) // 60),
            new_hour=pause.isna() | (ts // 3600 != (ts - pause) // 3600),
            new_session=pause.isna() | (pause > PAUSE_S),
            session_s=pause.where(pause <= PAUSE_S),
            moved=moved,
            x=x,
            x_sq=x * x,
            gain=gain,
            log_e6=(log * 1e6).round(),
            log_sq_e6=(log * log * 1e6).round(),
            gap=gap,
            gap_log_e6=(log_gap * 1e6).round(),
            gap_log_sq_e6=(log_gap * log_gap * 1e6).round(),
            xp_ts=ts.where(gains),
            changed_ts=ts.where(moved != 0).where(gains),
            kill=events["type"] == "boss_kill",
            drop=drops,
        )
        days = events.groupby("player_id", sort=False).agg(
            events=("ts", "size"),
            first_ts=("ts", "min"),
            last_ts=("ts", "max"),
            active_minutes=("new_minute", "sum"),
            active_hours=("new_hour", "sum"),
            sessions=("new_session", "sum"),
            session_seconds=("session_s", "sum"),
            xp=("moved", "sum"),
            xp_events=("moved", "count"),
            xp_first_ts=("xp_ts", "min"),
            xp_changed_ts=("changed_ts", "max"),
            xp_sum=("x", "sum"),
            xp_sum_sq=("x_sq", "sum"),
            gain_events=("gain", "count"),
            log_sum_e6=("log_e6", "sum"),
            log_sum_sq_e6=("log_sq_e6", "sum"),
            gain_max=("gain", "max"),
            gain_min=("gain", "min"),
            gaps=("gap", "count"),
            gap_log_sum_e6=("gap_log_e6", "sum"),
            gap_log_sum_sq_e6=("gap_log_sq_e6", "sum"),
            boss_kills=("kill", "sum"),
            drops=("drop", "sum"),
        )
        days.to_parquet(out / f"{folder.name}.parquet", compression="zstd", compression_level=1)
    return perf_counter() - started


def in_spark(lake: str, out: Path) -> float:
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
            count_if(pause IS NULL OR ts DIV 60 <> (ts - pause) DIV 60) AS active_minutes,
            count_if(pause IS NULL OR ts DIV 3600 <> (ts - pause) DIV 3600) AS active_hours,
            count_if(pause IS NULL OR pause > {PAUSE_S}) AS sessions,
            coalesce(sum(CASE WHEN pause <= {PAUSE_S} THEN pause END), 0) AS session_seconds,
            coalesce(sum(moved), 0) AS xp, count(moved) AS xp_events,
            min(CASE WHEN moved IS NOT NULL THEN ts END) AS xp_first_ts, max(CASE WHEN moved <> 0 THEN ts END) AS xp_changed_ts,
            sum(x) AS xp_sum, sum(CAST(x * x AS DECIMAL(38, 0))) AS xp_sum_sq, count(log_x) AS gain_events,
            sum(CAST(round(log_x * 1e6) AS BIGINT)) AS log_sum_e6,
            sum(CAST(round(log_x * log_x * 1e6) AS BIGINT)) AS log_sum_sq_e6,
            max(CASE WHEN moved > 0 THEN moved END) AS gain_max, min(CASE WHEN moved > 0 THEN moved END) AS gain_min,
            count(log_gap) AS gaps, sum(CAST(round(log_gap * 1e6) AS BIGINT)) AS gap_log_sum_e6,
            sum(CAST(round(log_gap * log_gap * 1e6) AS BIGINT)) AS gap_log_sum_sq_e6,
            count_if(type = 'boss_kill') AS boss_kills, count_if(type = 'drop_claimed') AS drops
        FROM (
            SELECT *, CASE WHEN gap IS NOT NULL THEN ln(greatest(gap, 1)) END AS log_gap,
                CASE WHEN type = 'progression' THEN greatest(least(delta_xp, {LIMIT}), -{LIMIT}) END AS x,
                CASE WHEN moved > 0 THEN ln(moved) END AS log_x
            FROM (
                SELECT *, CASE WHEN type = 'progression' THEN delta_xp END AS moved, ts - lag(ts) OVER day AS pause,
                    CASE WHEN type <> 'drop_claimed' THEN
                        ts - lag(CASE WHEN type <> 'drop_claimed' THEN ts END) IGNORE NULLS OVER day
                    END AS gap
                FROM events
                WINDOW day AS (PARTITION BY event_date, player_id ORDER BY ts)))
        GROUP BY event_date, player_id""")
    days.write.partitionBy("event_date").option("compression", "zstd").parquet(str(out / "player_days"))
    seconds = perf_counter() - started
    spark.stop()
    return seconds


if __name__ == "__main__":
    which, lake_folder, out_folder = sys.argv[1:]
    print(json.dumps({"seconds": {"pandas": in_pandas, "spark": in_spark}[which](lake_folder, Path(out_folder))}))
