"""The lakes that `warehouse_bench.py` measures on, made by the simulator straight into Parquet; kept between runs on request.

What does not belong here: what is measured on them.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.simulation import Scenario, Simulation, land
from warehouse.calendar import Calendar, Days
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, fold
from warehouse.lake import DATA, Keys, Lake, LakeFile, Staged, cache, storage
from warehouse.settings import Settings
from warehouse.tables import EVENTS, PLAYER_DAYS, TABLES, Table

DAY = date(2026, 5, 31)  # the last of its month: nothing of the running month is rolled up
MONTH = Days.ending(DAY, 30)
YEAR = Days.ending(DAY, 365)
PLAYERS, EVENTS_A_DAY = 200_000, 1_000_000
HUGE_PLAYERS, HUGE_EVENTS = 2_000_000, 100_000_000
DAILY = [TABLES[name] for name in FOLDS if name != EVENTS.name and TABLES[name].partition == ("event_date",)]
TIMES = ("first_ts", "last_ts", "xp_first_ts", "xp_changed_ts")


@dataclass(frozen=True)
class Data:
    """Lakes below one folder, each made when it is first asked for."""

    folder: Path
    scale: float

    def events(self) -> Settings:
        """30 days of a million events, nothing folded."""
        return self._lake("events", lambda settings: simulate(settings, MONTH, PLAYERS * self.scale, EVENTS_A_DAY * self.scale))

    def month(self) -> Settings:
        """The same, every table folded."""

        def make(settings: Settings) -> None:
            link(self.events(), settings, EVENTS.name)
            materialize(settings, MONTH)

        return self._lake("month", make)

    def year(self) -> Settings:
        """Its tables, with 335 days before them that are copies of the 30: `player_days` shifted in time, then their months.

        What a day's folds read of the days before is as it would be; of tables whose history nothing reads, the same files
        stand under other days.
        """

        def make(settings: Settings) -> None:
            for table in (EVENTS, *DAILY):
                link(self.month(), settings, table.name)
            with Lake(settings) as lake:
                for table in DAILY:
                    staged = []
                    for day in Days(YEAR.first, MONTH.first - timedelta(days=1)):
                        back = -((day - MONTH.first).days // len(MONTH)) * len(MONTH)
                        keys: Keys = {"event_date": day}
                        [source] = lake.files(table, [day + timedelta(days=back)])
                        if table is PLAYER_DAYS:
                            rows = shifted(pq.read_table(lake.path(source), partitioning=None), back)
                            staged.append(lake.stage(table, rows, keys, basis=source.basis))
                        else:
                            staged.append(linked(lake, source, table, keys))
                    lake.commit(table, staged)
            materialize(settings, YEAR, ["player_months"])

        return self._lake("year", make)

    def huge_day(self) -> Settings:
        """100 million events in one day."""
        return self._lake(
            "huge", lambda settings: simulate(settings, Days(DAY, DAY), HUGE_PLAYERS * self.scale, HUGE_EVENTS * self.scale)
        )

    def sparse_year(self) -> Settings:
        """A year with events on three days."""

        def make(settings: Settings) -> None:
            for day in (YEAR.first, Days.ending(DAY, 180).first, DAY):
                simulate(settings, Days(day, day), PLAYERS * self.scale, EVENTS_A_DAY * self.scale)

        return self._lake("sparse", make)

    def copy(self, settings: Settings, name: str) -> Settings:
        """A lake of the same files, to fold in."""
        copied = Settings(data_dir=self.folder / name, _env_file=None)
        shutil.rmtree(copied.data_dir, ignore_errors=True)
        shutil.copytree(settings.data_dir, copied.data_dir, copy_function=link_or_copy)
        return copied

    def _lake(self, name: str, make: Callable[[Settings], None]) -> Settings:
        settings = Settings(data_dir=self.folder / f"{name}-{self.scale:g}", _env_file=None)
        if not settings.data_dir.exists():
            making = Settings(data_dir=self.folder / f"{name}-{self.scale:g}.making", _env_file=None)
            shutil.rmtree(making.data_dir, ignore_errors=True)
            make(making)
            making.data_dir.rename(settings.data_dir)
        return settings


def simulate(settings: Settings, days: Days, players: float, events_a_day: float) -> None:
    """Play the days into the lake."""
    scenario = Scenario(players=round(players), days=days, seed=7, events_per_player_day=events_a_day / players, newcomers=0)
    game, lake = Simulation(scenario, Calendar.of(settings)), Lake(settings)
    for day in days:
        land(lake, game, day)


def materialize(settings: Settings, days: Days, tables: list[str] | None = None) -> float:
    """Fold the tables over the range, in one process as the assets do; seconds.

    A run is a process of its own, so what it reads is compared with its digests in each.
    """
    for checked in (storage._CHECKED, cache._CHECKED):  # noqa: SLF001 - there is no other way to be a new process
        checked.clear()
    with DuckDBEngine(settings) as engine:
        return sum(fold(engine, name, days).seconds for name in tables or FOLDS)


def shifted(rows: pa.Table, days: int) -> pa.Table:
    """The rows as they would be that many days earlier."""
    for name in TIMES:
        place = rows.column_names.index(name)
        rows = rows.set_column(place, rows.schema.field(name), pc.subtract(rows[name], days * 86_400))
    return rows


def link(source: Settings, target: Settings, table: str) -> None:
    """A table of a lake in another, its files as hard links."""
    with Lake(target) as lake:
        shutil.copytree(source.lake_dir / table, lake.scratch.parent / table, copy_function=link_or_copy)


def linked(lake: Lake, source: LakeFile, table: Table, keys: Keys) -> Staged:
    """A file of a lake on its way into another partition, as a hard link."""
    temporary = lake.beside(table.name)
    temporary.hardlink_to(lake.path(source))
    return Staged(table, keys, DATA, source.basis, temporary, source.sha256, source.size, source.rows)


def link_or_copy(source: str, target: str) -> None:
    """`shutil.copytree` without the copy of what no lake changes in place."""
    if source.endswith(".parquet"):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
