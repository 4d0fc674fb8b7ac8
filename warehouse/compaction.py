"""Few files a day: the small ones that the sealer writes are merged into one, copies dropped, sorted, encoded to stay.

A compacted file is named after the digests of the files that it stands for, and its record lists them: merging the same files
gives the same bytes and name, whatever was merged before, and a file that is sealed again after a crash is known. It is
durable before what it stands for goes. Of an id that came with other content each content stays, so that who was first, and
`conflicts`, are the same before and after.
What does not belong here: which copy counts (`models/events.sql`), damage (`damage.py`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse import encodings
from warehouse.calendar import Days
from warehouse.damage import examine, refuse_foreign, set_aside
from warehouse.engine import DuckDBEngine, model
from warehouse.lake import FileRecord, Keys, Lake, Staged, conform, sha256
from warehouse.tables import EVENTS, PLAYER_DAYS

PREFIX = "compacted-"
OWNER = "compaction"
MANY = 64  # files: a day in so many is read 1.6 times slower than in one, in 2,000 31 times


class Settled(NamedTuple):
    """What `settle` found and did: files set aside, and whether files were merged."""

    set_aside: int
    merged: bool


class Landed(NamedTuple):
    """What the files of some days hold: rows that landed, copies dropped since included; ids; other contents of ids."""

    landed: int
    events: int
    conflicts: int


def settle(engine: DuckDBEngine, keys: Keys, *, closed: bool) -> Settled:
    """Bring a day of `events` in order: damaged files aside, what is superseded away, small files merged.

    A closed day becomes one file. What comes late stands beside it until `player_days` counted it or there are `MANY` files:
    a trickle of late events does not rewrite the day with each, and a revision of a board can tell which they were. Of a day
    that is still going on, small files are merged when they are `MANY`. For the holder of the table's lock; a sealer may add
    files meanwhile.

    Raises:
        LakeError: a file of a foreign schema lies in the folder; nothing was merged.
    """
    lake, folder = engine.lake, engine.lake.folder(EVENTS, keys)
    lake.sweep(OWNER)
    condition = examine(lake, EVENTS, keys)
    for damage in condition.damages:
        set_aside(lake, damage)
    # A compacted file that is not recorded is what a killed run left: all that it was made of is still there.
    leftovers = [path for path in condition.unrecorded if path.name.startswith(PREFIX)]
    lake.remove(*condition.superseded, *leftovers)
    refuse_foreign(EVENTS, [*(folder / name for name in condition.sound), *(set(condition.unrecorded) - set(leftovers))])
    # Nothing is late to a day that has never been counted.
    counted = lake.inputs(PLAYER_DAYS, keys) in ("", lake.fingerprint(EVENTS, keys))
    chosen = _due_closed(condition.sound, counted=counted) if closed else _due_open(condition.sound)
    if chosen:
        merge(engine, keys, chosen, closed=closed)
    return Settled(len(condition.damages), bool(chosen))


def merge(
    engine: DuckDBEngine, keys: Keys, files: Mapping[str, FileRecord], *, closed: bool = False, without: str | None = None
) -> None:
    """Make one file of these, and take them away; where no rows are left, there will be none. `without` leaves a player out.

    A file without somebody has its own digest among its sources: what it stands for is no longer what landed.
    """
    lake, folder = engine.lake, engine.lake.folder(EVENTS, keys)
    paths = [folder / name for name in sorted(files)]
    sources = {digest for record in files.values() for digest in record.origin}
    landed = sum(record.landed or record.rows for record in files.values())
    engine.bind_landed(paths, without)
    if without is not None:
        landed -= sum(record.rows for record in files.values()) - _ask(engine, "SELECT count(*) FROM landed")
    temporary = lake.beside(folder / "merged.parquet", OWNER)
    merged: Path | None = None
    try:
        rows = _write(temporary, engine.connection.sql(model("versions").sql).to_arrow_reader(encodings.ROW_GROUP))
        if rows:
            ids = _ask(engine, "SELECT count(DISTINCT event_id) FROM read_parquet($1)", str(temporary))
            digest = sha256(temporary)
            stands_for = tuple(sorted(sources if without is None else sources | {digest}))
            merged = folder / _name(stands_for)
            closed = closed or any(record.closed for record in files.values())
            record = FileRecord(rows, digest, sources=stands_for, landed=landed, ids=ids, closed=closed)
            lake.commit([lake.staged(merged, temporary, record)])
    finally:
        temporary.unlink(missing_ok=True)
    lake.remove(*(path for path in paths if path != merged))


def stage_settled(lake: Lake, rows: pa.Table, keys: Keys, name: str, *, closed: bool) -> Staged:
    """Stage rows of a day's `events` as they are to stay: sorted, encoded as a compacted file is, each id counted.

    Where no other file is there, no id comes twice and the day is over (`closed`), nothing is left for `settle` to do.
    """
    path = lake.folder(EVENTS, keys) / name
    temporary = lake.beside(path, EVENTS.name)  # not ours: a fold that sweeps up behind a killed one runs beside
    try:
        _write(temporary, rows.sort_by([(column, "ascending") for column in EVENTS.sort]).to_batches())
        digest, before = sha256(temporary), lake.record(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if before and before.sha256 == digest:  # imported again: whether it is alone was decided then
        return lake.staged(path, temporary, before)
    each_once = pc.count_distinct(rows["event_id"]).as_py() == rows.num_rows
    alone = not lake.records(EVENTS, keys).keys() - {name}
    ids = rows.num_rows if each_once else 0
    return lake.staged(path, temporary, FileRecord(rows.num_rows, digest, ids=ids, closed=closed and each_once and alone))


def count_landed(engine: DuckDBEngine, days: Days) -> Landed:
    """Count the days' events. Of a day that is one file whose ids were counted its record tells; the others are read."""
    told, read = [], []
    for keys in engine.lake.partitions(EVENTS, days):
        files = sorted(engine.lake.folder(EVENTS, keys).glob("*.parquet"))
        records = [engine.lake.record(path) for path in files]
        if len(files) == 1 and (record := records[0]) and record.ids:
            told.append(Landed(record.landed or record.rows, record.ids, record.rows - record.ids))
        else:
            merged = {digest for record in records if record for digest in record.sources}
            rows = sum(_landed_rows(path, record, merged) for path, record in zip(files, records, strict=True))
            told.append(Landed(rows, 0, 0))
            read += files
    if read:
        engine.bind_landed(read)
        told += [Landed(0, row["events"], row["conflicts"]) for row in engine.run("landings").read_all().to_pylist()]
    return Landed(*(sum(counts) for counts in zip(*told, strict=True))) if told else Landed(0, 0, 0)


def _landed_rows(path: Path, record: FileRecord | None, merged: set[str]) -> int:
    """A file's rows as they landed; none of a file that was sealed again after it was merged."""
    if record is None:  # the sealer writes its record next
        return pq.read_metadata(path).num_rows
    if record.sources:
        return record.landed
    return 0 if record.sha256 in merged else record.rows


def _due_open(sound: Mapping[str, FileRecord]) -> Mapping[str, FileRecord]:
    """The files of a day still going on to merge now: the small ones when they are many, else all when those are."""
    small = {name: record for name, record in sound.items() if not record.sources}
    if len(small) >= MANY:
        return small
    return sound if len(sound) >= MANY else {}


def _due_closed(sound: Mapping[str, FileRecord], *, counted: bool) -> Mapping[str, FileRecord]:
    """All files of a closed day, if they are to be merged now (see `settle`)."""
    is_closed = any(record.closed for record in sound.values())
    due = not is_closed or (counted and len(sound) > 1) or len(sound) >= MANY
    return sound if due else {}


def _name(sources: tuple[str, ...]) -> str:
    return f"{PREFIX}{hashlib.sha256(''.join(sources).encode()).hexdigest()[:16]}.parquet"


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write sorted events, in row groups that do not depend on how the batches were cut. Returns the rows."""
    rows = 0
    with pq.ParquetWriter(path, EVENTS.file_schema, **encodings.settled(EVENTS)) as writer:
        for group in _row_groups(batches):
            writer.write_table(conform(EVENTS, group).combine_chunks(), encodings.ROW_GROUP)
            rows += group.num_rows
    return rows


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    missing = encodings.ROW_GROUP
    for batch in batches:
        rest = batch
        while rest.num_rows >= missing:
            yield pa.Table.from_batches([*pending, rest.slice(0, missing)])
            rest, pending, missing = rest.slice(missing), [], encodings.ROW_GROUP
        if rest.num_rows:
            pending.append(rest)
            missing -= rest.num_rows
    if pending:
        yield pa.Table.from_batches(pending)


def _ask(engine: DuckDBEngine, sql: str, *parameters: str) -> int:
    [(number,)] = engine.connection.execute(sql, parameters).fetchall()
    return int(number)
