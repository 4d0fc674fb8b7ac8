"""How small `events` is on disk, and what that costs, as one JSON line each.

    python benchmarks/warehouse_size.py [NAME…] [--players 40000] [--days 3]

A simulated game as `fairboard simulate` sends it (500 events a request), sealed in files of 20,000 events, then compacted.
A figure is printed only after what was written reads back equal, by DuckDB and by Polars.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from polars.testing import assert_frame_equal

from pipelines.simulation import Scenario, Simulation, wire
from warehouse.calendar import Calendar, Days
from warehouse.damage import Damage, verify
from warehouse.engine import DuckDBEngine
from warehouse.folds import fold
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS

FIRST = date(2024, 5, 1)
REQUEST, SEGMENT = 500, 20_000  # events


def gzipped(lines: Iterator[bytes]) -> int:
    """Bytes of NDJSON under gzip level 6."""
    return len(gzip.compress(b"\n".join(lines), 6))


def whole(rows: pa.Table) -> Iterator[bytes]:
    """Every column of the rows as NDJSON, as DuckDB and Polars write it: NULLs included."""
    encode = msgspec.json.Encoder().encode
    for batch in rows.to_batches(max_chunksize=50_000):
        yield from map(encode, batch.to_pylist())


class Game:
    """A simulated game landed in a lake, in small files and then compacted."""

    def __init__(self, folder: Path, players: int, days: int) -> None:
        self.settings = Settings(data_dir=folder, _env_file=None)
        self.days = Days(FIRST, FIRST + timedelta(days=days - 1))
        scenario = Scenario(players=players, days=self.days, seed=7, events_per_player_day=8)
        simulation = Simulation(scenario, Calendar.of(self.settings))
        self.lake = Lake(self.settings)
        self.landed = {day: _as_sent(simulation.day(day)) for day in self.days}
        self.events = sum(rows.num_rows for rows in self.landed.values())
        started = time.perf_counter()
        for day, rows in self.landed.items():
            for start in range(0, rows.num_rows, SEGMENT):
                self.lake.write(EVENTS, rows.slice(start, SEGMENT), {"event_date": day}, f"seal-{start:08}.parquet")
        self.seal_s = time.perf_counter() - started
        self.small_read_s = self.read_s()
        started = time.perf_counter()
        with DuckDBEngine(self.settings) as engine:
            assert fold(engine, "events", self.days).details["events"] == self.events
        self.compact_s = time.perf_counter() - started
        self._check()

    def read_s(self) -> float:
        """Seconds that DuckDB takes to read every column of every event, the best of three."""
        return min(self._read_once() for _ in range(3))

    def _read_once(self) -> float:
        with DuckDBEngine(self.settings) as engine:
            started = time.perf_counter()
            engine.bind(EVENTS)
            engine.connection.sql("SELECT hash(COLUMNS(*)) FROM events").to_arrow_table()
            return time.perf_counter() - started

    def _check(self) -> None:
        """What was landed reads back equal, by both engines, from one file a day."""
        self.lake.refresh()
        assert not [found for found in verify(self.lake) if isinstance(found, Damage)]
        for day, rows in self.landed.items():
            [path] = self.lake.paths(self.lake.files(EVENTS, Days(day, day)))
            expected = pl.DataFrame(pl.from_arrow(rows)).sort(EVENTS.sort)
            assert_frame_equal(pl.read_parquet(path, hive_partitioning=False), expected)
            by_duckdb = duckdb.sql(f"SELECT * FROM read_parquet('{path}', hive_partitioning = false)").pl()
            assert_frame_equal(by_duckdb, expected)


def _as_sent(rows: pa.Table) -> pa.Table:
    """The rows with the arrival times of a game sent over HTTP: one for each request, 9 ms apart."""
    arrived = rows["received_ms"][0].as_py() + np.arange(rows.num_rows) // REQUEST * 9
    return rows.set_column(rows.schema.get_field_index("received_ms"), EVENTS.schema.field("received_ms"), pa.array(arrived))


def report(name: str, value: float, unit: str, baseline: str, baseline_value: float, **more: object) -> None:
    """Print one figure."""
    figure = {"name": name, "value": round(value, 3), "unit": unit, "baseline": baseline}
    ratio = round(value / baseline_value, 3)
    print(json.dumps(figure | {"baseline_value": round(baseline_value, 3), "ratio": ratio} | more), flush=True)


def events_size(game: Game) -> None:
    """Bytes of an event on disk beside gzip -6 of the same rows as NDJSON; beside what the game sent, in `ratio_to_sent`."""
    size = sum(path.stat().st_size for path in game.lake.paths(game.lake.files(EVENTS))) / game.events
    rows = sum(gzipped(whole(rows)) for rows in game.landed.values()) / game.events
    sent = sum(gzipped(wire(rows)) for rows in game.landed.values()) / game.events
    report("events_size", size, "bytes/event", "gzip -6 of the same rows as NDJSON", rows, ratio_to_sent=round(size / sent, 3))


def events_write(game: Game) -> None:
    """Microseconds to compact an event, beside sealing it."""
    micro = 1e6 / game.events
    report("events_write", game.compact_s * micro, "µs/event", "sealing into small files", game.seal_s * micro)


def events_read(game: Game) -> None:
    """Microseconds to read an event with DuckDB from compacted files, beside the small ones, copies looked for."""
    micro = 1e6 / game.events
    report("events_read", game.read_s() * micro, "µs/event", "the small files", game.small_read_s * micro)


FIGURES = {figure.__name__: figure for figure in (events_size, events_write, events_read)}


def main() -> None:
    """Take the figures that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []], help="which figures; default all")
    parser.add_argument("--players", type=int, default=40_000)
    parser.add_argument("--days", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="warehouse-size-") as folder:
        game = Game(Path(folder), arguments.players, arguments.days)
        for name in arguments.names or FIGURES:
            FIGURES[name](game)


if __name__ == "__main__":
    main()
