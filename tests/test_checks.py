"""Each check finds what it is there for, says it in a sentence, and looks at the run's partitions alone."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import boss_kill, land_events, progression

from warehouse.calendar import ONE_DAY, Days
from warehouse.checks import checks_of, faults
from warehouse.compaction import _write, facts_of
from warehouse.engine import DuckDBEngine
from warehouse.folds import CONFLICTS, FOLDS, fold
from warehouse.lake import Lake
from warehouse.settings import Settings
from warehouse.tables import EVENTS, REJECTS, TABLES

DAY, OTHER, LATER = date(2026, 5, 1), date(2026, 5, 20), date(2026, 6, 2)
MAY = Days(date(2026, 5, 1), date(2026, 5, 31))
MAX = 2**63 - 1


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two days of everything that can land: copies, conflicts, kills, drops, sums beyond 64 bits. A day of June closes May.

    All folded: 7 events of DAY landed, the copy was dropped by compaction, one of the 6 rows is a conflict.
    """
    settings = Settings(data_dir=tmp_path_factory.mktemp("sound"), _env_file=None)
    day, other = str(DAY), str(OTHER)
    land_events(settings, [progression("ann", day, 10, eventId="e1"), progression("bob", day, 5, eventId="e2")])
    land_events(settings, [progression("ann", day, 10, eventId="e1"), progression("bob", day, 7, eventId="e2")], name="again")
    land_events(settings, [progression("whale", on, MAX, f"13:00:0{n}") for on in (day, other) for n in range(2)], name="whale")
    land_events(settings, [boss_kill("ann", day), progression("ann", other, 20), progression("ann", other, -3)], name="more")
    land_events(settings, [drop("ann", other), progression("ann", str(LATER), 4)], name="later")
    with DuckDBEngine(settings) as engine:
        for name in FOLDS:
            fold(engine, name, Days(MAY.first, LATER))
    return settings


@pytest.fixture
def lake(sound: Settings, settings: Settings) -> Settings:
    """The sound lake, for a test to damage."""
    shutil.copytree(sound.lake_dir, settings.lake_dir)
    return settings


def drop(player: str, day: str) -> dict[str, Any]:
    return boss_kill(player, day) | {"type": "drop_claimed", "payload": {"bossId": "lich_king", "itemId": "crown"}}


def found(settings: Settings, days: Days = MAY) -> dict[str, list[str]]:
    """Every check that fails, as `table.check`, and what it says."""
    with DuckDBEngine(settings) as engine:
        said = {
            f"{name}.{check.name}": faults(check, engine, TABLES[name], days)
            for name in FOLDS
            for check in checks_of(TABLES[name])
        }
    return {name: sentences for name, sentences in said.items() if sentences}


def file_of(settings: Settings, table: str, partition: str = f"event_date={DAY}", label: str = "") -> Path:
    """The partition's only file, of those that are in the table; with `label`, the one so labelled."""
    with Lake(settings) as lake:
        inside = [file for file in lake.files(TABLES[table]) if file.name.startswith(f"{table}/{partition}/{label}")]
        return lake.path(min(inside, key=lambda file: file.name))


def change(settings: Settings, path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Put a file of other rows in the file's place, as if a fold had written them."""
    with Lake(settings) as lake:
        [file] = (f for t in TABLES.values() for f in lake.files(t) if lake.path(f) == path)
        table, keys = lake.place(file)
        rows = change(pl.read_parquet(path, hive_partitioning=False)).to_arrow().cast(table.file_schema)
        lake.commit(table, [lake.stage(table, rows, keys, file.label, file.basis)], [file])


def test_a_sound_lake_passes_every_check(lake: Settings) -> None:
    assert found(lake) == {}
    assert found(lake, Days(OTHER - ONE_DAY, OTHER - ONE_DAY)) == {}  # the boards of the day after are not this range's


def test_what_is_asked_of_each_table() -> None:
    names = {table: [check.name for check in checks_of(TABLES[table])] for table in FOLDS}
    assert names == {
        "events": ["files", "schema", "accounted"],
        "player_days": ["files", "schema", "keys", "sums"],
        "player_boss_days": ["files", "schema", "keys"],
        "player_item_days": ["files", "schema", "keys"],
        "player_months": ["files", "schema", "keys"],
        "activity_days": ["files", "schema", "keys", "sums"],
        "progression": ["files", "schema", "keys"],
        "leaderboards": ["files", "schema", "keys", "sums"],
        "fairness": ["files", "schema", "keys"],
        "daily_metrics": ["files", "schema", "keys", "sums"],
    }


PARTITIONS = {
    "leaderboards": "window_kind=daily/season=2026-05/window_start=2026-05-01",
    "player_item_days": f"event_date={OTHER}",
    "player_months": f"month_start={MAY.first}",
}


@pytest.mark.parametrize("table", FOLDS)
def test_a_flipped_bit_and_a_missing_file_are_named(lake: Settings, table: str) -> None:
    path = file_of(lake, table, PARTITIONS.get(table, f"event_date={DAY}"))
    rows = f"{pq.read_metadata(path).num_rows:,} rows"
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    assert found_files(lake, table) == [f"{path} has changed since it was written with {rows} (SHA-256 differs)."]
    path.unlink()
    assert found_files(lake, table) == [f"{path} is missing, with {rows}."]


@pytest.mark.parametrize("table", [name for name in FOLDS if name not in ("leaderboards", "player_months")])
def test_a_day_whose_folder_is_gone_is_named(lake: Settings, table: str) -> None:
    path = file_of(lake, table, PARTITIONS.get(table, f"event_date={DAY}"))
    rows = f"{pq.read_metadata(path).num_rows:,} rows"
    shutil.rmtree(path.parent)
    assert found_files(lake, table) == [f"{path} is missing, with {rows}."]


def test_a_run_within_a_month_looks_at_the_months_that_it_may_have_written(lake: Settings) -> None:
    path = file_of(lake, "player_months", f"month_start={MAY.first}")
    change(lake, path, lambda rows: pl.concat([rows, rows.head(1)]))
    for days, named in [
        (Days(OTHER, OTHER), [f"2 row(s) with month_start {MAY.first}, player_id ann."]),
        (Days(LATER, LATER), [f"2 row(s) with month_start {MAY.first}, player_id ann."]),  # June's first events close May
        (Days(date(2026, 4, 30), date(2026, 4, 30)), []),
    ]:
        assert found(lake, days).get("player_months.keys", []) == named


def found_files(settings: Settings, table: str) -> list[str]:
    with DuckDBEngine(settings) as engine:
        [check] = [check for check in checks_of(TABLES[table]) if check.name == "files"]
        return faults(check, engine, TABLES[table], MAY)


def test_a_partition_outside_the_range_is_not_looked_at(lake: Settings) -> None:
    file_of(lake, "player_days").unlink()
    assert "player_days.files" in found(lake)
    # The boards of its month hold that day, and what is asked of them reads it.
    assert found(lake, Days(OTHER, OTHER)).keys() <= {"leaderboards.sums", "daily_metrics.sums"}


def test_columns_of_other_types_missing_and_unknown_are_named(lake: Settings) -> None:
    path = file_of(lake, "progression")
    rows = pq.read_table(path, partitioning=None)
    kept = rows.drop_columns(["xp_total", "xp_to_next"])  # the second may be NULL: a column may be younger than a file
    floats = kept["xp_gained"].cast(pa.float64(), safe=False)
    pq.write_table(kept.set_column(1, "xp_gained", floats).append_column("gold", kept["level_ups"]), path)
    with DuckDBEngine(lake) as engine:
        said = faults(checks_of(TABLES["progression"])[1], engine, TABLES["progression"], MAY)
    assert said == [
        f"{path}: xp_gained is double, not int64.",
        f"{path} has no column xp_total.",
        f"{path} has a column gold that the contract does not know.",
    ]


def test_repeated_keys_and_null_keys_are_named(lake: Settings) -> None:
    rule = pl.read_parquet(file_of(lake, "fairness"))["rule"][0]  # each rule has a row of each player's day
    change(lake, file_of(lake, "fairness"), lambda rows: pl.concat([rows, rows.head(1)]))
    assert found(lake) == {"fairness.keys": [f"2 row(s) with event_date {DAY}, player_id ann, rule {rule}."]}
    path = file_of(lake, "progression")
    pl.read_parquet(path, hive_partitioning=False).with_columns(player_id=pl.lit(None, pl.String)).head(1).write_parquet(path)
    assert found(lake)["progression.keys"] == [f"1 row(s) with event_date {DAY}, player_id None."]


@pytest.mark.parametrize(
    ("lost", "events", "sums"),
    [
        ((pl.col("player_id") == "bob") & (pl.col("delta_xp") == 5), 5, "xp"),  # what stood second under the id counts now
        (pl.col("type") == "boss_kill", 4, "events"),
    ],
)
def test_an_event_that_was_landed_and_is_gone_is_missed(lake: Settings, lost: pl.Expr, events: int, sums: str) -> None:
    path = file_of(lake, "events")
    rows = pl.read_parquet(path, hive_partitioning=False)
    rows.filter(~lost).write_parquet(path)
    said = found(lake)
    [text] = said["events.accounted"]
    assert text == (
        f"{DAY}: 6 rows are recorded and 5 are in the files, with {events} ids; "
        f"{events} events, 0 duplicates and 1 conflicts stand for them."
    )
    assert said["player_days.sums"][0].startswith(f"{DAY}: {sums} adds up to")


def test_copies_that_are_not_compacted_yet_are_counted_and_an_event_beside_them_that_is_gone_is_missed(lake: Settings) -> None:
    day = str(DAY)
    land_events(lake, [progression("ann", day, 10, eventId="e1"), progression("cid", day, 1, eventId="new")], name="late")
    assert found(lake) == {}
    path = file_of(lake, "events", label="late")
    pl.read_parquet(path, hive_partitioning=False).filter(pl.col("event_id") == "e1").write_parquet(path)
    assert found(lake)["events.accounted"] == [
        f"{DAY}: 8 rows are recorded and 7 are in the files, with 5 ids; 5 events, 1 duplicates and 1 conflicts stand for them."
    ]


def take_conflicts_out(lake: Lake) -> None:
    lake.commit(REJECTS, [], [file for file in lake.files(REJECTS) if file.label == CONFLICTS])


def test_a_conflict_that_is_not_in_the_dead_letters_is_missed(lake: Settings) -> None:
    with DuckDBEngine(lake) as engine:
        take_conflicts_out(engine.lake)
    [text] = found(lake)["events.accounted"]
    assert text.endswith("with 5 ids; 5 events, 0 duplicates and 0 conflicts stand for them.")


def test_a_conflict_that_counts_as_an_event_is_missed(lake: Settings) -> None:
    with DuckDBEngine(lake) as engine:
        # As if compaction had taken the two contents of e2 for two ids: nobody would look for the second one again.
        [file] = engine.lake.of(EVENTS, {"event_date": DAY})
        rows = pq.read_table(engine.lake.path(file), partitioning=None)
        temporary = engine.lake.beside("events")
        _write(temporary, rows.to_batches(), msgspec.structs.replace(facts_of(engine.lake, file), ids=file.rows))
        wrong = engine.lake.staged(EVENTS, {"event_date": DAY}, file.label, file.basis, temporary, file.rows)
        engine.lake.commit(EVENTS, [wrong], [file])
        take_conflicts_out(engine.lake)
    [text] = found(lake)["events.accounted"]
    assert text.endswith("with 5 ids; 6 events, 0 duplicates and 0 conflicts stand for them.")


def test_events_that_land_meanwhile_make_a_day_stale_and_nothing_wrong(lake: Settings) -> None:
    land_events(lake, [progression("late", str(DAY), 5)], name="late")
    assert found(lake) == {}
    with DuckDBEngine(lake) as engine:
        fold(engine, "player_days", Days(DAY, DAY))  # as another run would, before its own boards
    assert found(lake) == {}


@pytest.mark.parametrize(
    ("table", "partition", "column", "check", "text"),
    [
        ("player_days", f"event_date={DAY}", "xp", "player_days.sums", f"{DAY}: xp adds up to"),
        ("activity_days", f"event_date={DAY}", "events", "activity_days.sums", f"{DAY}: events adds up to"),
        ("daily_metrics", f"event_date={DAY}", "numerator", "daily_metrics.sums", f"{DAY}: players adds up to"),
        (
            "leaderboards",
            "window_kind=alltime/season=all/window_start=1970-01-01",
            "xp",
            "leaderboards.sums",
            "alltime all 1970-01-01: xp adds up to",
        ),
    ],
)
def test_a_sum_that_is_off_by_one_is_named(
    lake: Settings, table: str, partition: str, column: str, check: str, text: str
) -> None:
    row = pl.col("metric") == "new_players" if table == "daily_metrics" else pl.int_range(pl.len()) == pl.len() - 1
    changed = pl.when(row).then(pl.col(column) - 1).otherwise(pl.col(column)).alias(column)
    change(lake, file_of(lake, table, partition), lambda rows: rows.with_columns(changed))
    assert found(lake)[check][0].startswith(text)
