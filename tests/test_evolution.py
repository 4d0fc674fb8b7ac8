"""A nullable column that is younger than a lake: what was written without it, with it, and by who does not know it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import polars as pl
import pyarrow as pa
from conftest import Fairboard, land_events, progression
from deltalake import DeltaTable
from lake_fixtures import DAYS, RANGE, ask, contents, damages, fold_all, land_game

from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, Column, Table

MOOD = Column("mood", pa.string(), "How the player felt.", nullable=True)


@contextmanager
def grown(*tables: Table) -> Iterator[None]:
    """The contract of a later version: these tables have another column, between two that there were."""
    before = {table.name: table.columns for table in tables}
    for table in tables:
        set_columns(table, (*table.columns[:3], MOOD, *table.columns[3:]))
    try:
        yield
    finally:
        for table in tables:
            set_columns(table, before[table.name])


def set_columns(table: Table, columns: tuple[Column, ...]) -> None:
    object.__setattr__(table, "columns", columns)
    for name in ("schema", "file_schema"):
        table.__dict__.pop(name, None)


def land_moods(settings: Settings, *moods: str, label: str = "moods") -> None:
    """An event each, by the version that knows the column."""
    rows = {name: [None] * len(moods) for name in EVENTS.file_schema.names} | {
        "event_id": [f"mood-{mood}" for mood in moods],
        "type": ["boss_kill"] * len(moods),
        "player_id": list(moods),
        "ts": [1714564800] * len(moods),
        "received_ms": [1714564800000] * len(moods),
        "key_id": ["test"] * len(moods),
        "mood": list(moods),
    }
    with Lake(settings) as lake:
        lake.write(EVENTS, pa.table(rows, schema=EVENTS.file_schema), {"event_date": RANGE.first}, label)


def moods(settings: Settings) -> list[tuple[Any, ...]]:
    return ask(settings, "SELECT mood, count(*) FROM events GROUP BY mood ORDER BY mood")


def test_a_lake_that_is_older_than_a_column_is_read_written_and_merged_with_it(settings: Settings) -> None:
    land_game(settings)
    fold_all(settings)
    [(count,)] = ask(settings, "SELECT count(*) FROM events")
    with grown(EVENTS):
        assert moods(settings) == [(None, count)]
        land_moods(settings, "glad", "sad")
        with_moods = [("glad", 1), ("sad", 1), (None, count)]
        assert moods(settings) == with_moods
        fold_all(settings)  # counts them, and merges them into the day's file
        fold_all(settings)
        assert moods(settings) == with_moods
        assert damages(settings) == []
    delta = DeltaTable(str(settings.lake_dir / EVENTS.name))
    by_polars, by_arrow = pl.read_delta(delta)["mood"], delta.to_pyarrow_table()["mood"]
    assert set(by_polars.to_list()) == set(by_arrow.to_pylist()) == {"glad", "sad", None}
    assert (delta.protocol().min_reader_version, delta.protocol().min_writer_version) == (1, 2)


def test_who_does_not_know_a_column_reads_and_adds_and_replaces_nothing_that_has_it(
    settings: Settings, fairboard: Fairboard
) -> None:
    land_game(settings)
    with grown(EVENTS):
        land_moods(settings, "glad")
    reduced = [name for name in EVENTS.schema.names if name != "mood"]
    assert [name for name, *_ in ask(settings, "DESCRIBE events")] == reduced
    assert ask(settings, "SELECT type FROM events WHERE player_id = 'glad'") == [("boss_kill",)]

    land_events(settings, [progression("late", DAYS[0], 5)], "late")
    assert ask(settings, "SELECT count(*) FROM events WHERE player_id = 'late'") == [(1,)]

    before = contents(settings)
    refused = fairboard("materialize", "--from", DAYS[0], "--to", DAYS[0], status=1).stderr
    assert "events has columns that this version of Fairboard does not know (mood)" in refused
    assert "Nothing was changed. Run the later version." in refused
    assert contents(settings) == before
    with grown(EVENTS):
        fold_all(settings)
        assert [mood for mood, _ in moods(settings)] == ["glad", None]


def test_writers_who_bring_a_column_at_once_all_write(settings: Settings) -> None:
    land_game(settings)
    names = [f"mood-{number}" for number in range(8)]
    with grown(EVENTS):
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: land_moods(settings, name, label=name), names))
        assert [mood for mood, _ in moods(settings)] == [*names, None]
