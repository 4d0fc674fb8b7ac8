"""Few files a day: the small ones that the sealer writes are merged into one, copies dropped, sorted, encoded to stay.

A compacted file's basis is the sum of the digests of what landed in it, whatever was merged in which order: to what is computed
from a day, merging changes nothing. Of an id that came with other content each content stays, so that who was first, and
`conflicts`, are the same before and after.
What does not belong here: which copy counts (`models/events.sql`), damage (`damage.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse import encodings
from warehouse.calendar import Days
from warehouse.damage import damaged, set_aside
from warehouse.engine import DuckDBEngine, model
from warehouse.lake import FACTS, Keys, Lake, LakeFile, Staged, as_basis, conform, noted_in, origin_of
from warehouse.tables import EVENTS, PLAYER_DAYS

COMPACTED, IMPORTED = "compacted", "import-"  # the labels of files; the second begins those of imported ones
OWNER = "compaction"
MANY = 64  # files: a day in so many is read 1.6 times slower than in one, in 2,000 31 times


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a compacted or imported file tells of itself, noted in its footer.

    `landed` counts the rows of the files that it stands for, `ids` the distinct event ids that it holds (0 where nobody counted
    them), `imports` has the beginnings of the digests of imported files that are in it; `closed` says that it was all of its
    day, and the day over.
    """

    landed: int = 0
    ids: int = 0
    closed: bool = False
    imports: tuple[str, ...] = ()


@dataclass(slots=True)
class Changes:
    """What a table of events is to get and to lose, in one commit."""

    staged: list[Staged] = field(default_factory=list)
    removed: list[LakeFile] = field(default_factory=list)

    def commit(self, lake: Lake) -> None:
        """Make the commit, if there is anything to change."""
        if self.staged or self.removed:
            lake.commit(EVENTS, self.staged, self.removed)

    def drop(self) -> None:
        """Leave all as it is."""
        for one in self.staged:
            one.drop()


class Settled(NamedTuple):
    """What `settle` found and did: files set aside, and days whose files were merged."""

    set_aside: int
    merged: int


class Landed(NamedTuple):
    """What the files of some days hold: rows that landed, copies dropped since included; ids; other contents of ids."""

    landed: int
    events: int
    conflicts: int


def settle(engine: DuckDBEngine, days: Sequence[Keys], *, today: date) -> Settled:
    """Bring days of `events` in order, in one commit: damaged files aside, what is there twice away, small files merged.

    A closed day, before `today`, becomes one file. What comes late stands beside it until `player_days` counted it or there are
    `MANY` files: a trickle of late events does not rewrite the day with each, and a revision of a board can tell which they
    were. Of a day that is still going on, small files are merged when they are `MANY`. For the holder of the table's lock; a
    sealer may add files meanwhile.
    """
    lake, changes = engine.lake, Changes()
    lake.sweep(OWNER)
    found = damaged(lake, [file for keys in days for file in lake.of(EVENTS, keys)])
    for damage in found:
        set_aside(lake, EVENTS, damage.file, damage.what)
    try:
        for number, keys in enumerate(days, 1):
            _settle_day(engine, keys, changes, closed=str(keys["event_date"]) < str(today))
            engine.watch.reach(number)
        changes.commit(lake)
    except BaseException:
        changes.drop()
        raise
    return Settled(len(found), len(changes.staged))


def _settle_day(engine: DuckDBEngine, keys: Keys, changes: Changes, *, closed: bool) -> None:
    lake, present = engine.lake, engine.lake.of(EVENTS, keys)
    again = imported_again(lake, present)
    files = [file for file in present if file not in again]
    changes.removed += again
    # Nothing is late to a day that has never been counted. What was counted is the end of a basis (`basis.DATA_UPSTREAM`).
    counted = (lake.basis(PLAYER_DAYS, keys) or "")[-32:] in ("", lake.fingerprint(EVENTS, keys))
    if chosen := _due_closed(lake, files, counted=counted) if closed else _due_open(files):
        merge(engine, keys, chosen, changes, closed=closed)


def merge(
    engine: DuckDBEngine,
    keys: Keys,
    files: Sequence[LakeFile],
    changes: Changes,
    *,
    closed: bool = False,
    without: str | None = None,
) -> None:
    """Make one file of these, in their place; where no rows are left, there will be none. `without` leaves a player out.

    A file without somebody stands for itself alone: what it was made of is no longer what landed.
    """
    lake = engine.lake
    facts = [facts_of(lake, file) for file in files]
    landed = sum(fact.landed or file.rows for fact, file in zip(facts, files, strict=True))
    engine.bind_landed(files, without)
    rows = _ask(engine, "SELECT count(*) FROM landed")
    basis = ""
    imports: set[str] = set()
    if without is None:
        basis = as_basis(sum(map(origin_of, files)))
        imports = {short(file) for file in files if file.label.startswith(IMPORTED)}.union(*(fact.imports for fact in facts))
    else:
        landed -= sum(file.rows for file in files) - rows
    changes.removed += files
    if not rows:
        return
    ids = _ask(engine, "SELECT count(DISTINCT event_id) FROM landed")
    merged = Facts(landed, ids, closed or any(fact.closed for fact in facts), tuple(sorted(imports)))
    temporary = lake.beside(OWNER)
    try:
        batches = engine.connection.sql(model("versions").sql).to_arrow_reader(encodings.ROW_GROUP)
        changes.staged.append(lake.staged(EVENTS, keys, COMPACTED, basis, temporary, _write(temporary, batches, merged)))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def imported_again(lake: Lake, files: Sequence[LakeFile]) -> list[LakeFile]:
    """The imported files that a compacted one holds already."""
    held = {one for file in files if file.label == COMPACTED for one in facts_of(lake, file).imports}
    return [file for file in files if file.label.startswith(IMPORTED) and short(file) in held]


def stage_settled(lake: Lake, rows: pa.Table, keys: Keys, label: str, *, closed: bool) -> Staged:
    """Stage rows of a day's `events` as they are to stay: sorted, encoded as a compacted file is, each id counted.

    Where no other file is there, no id comes twice and the day is over (`closed`), nothing is left for `settle` to do.
    """
    temporary = lake.beside(EVENTS.name)  # not ours: a fold that sweeps up behind a killed one runs beside
    try:
        each_once = pc.count_distinct(rows["event_id"]).as_py() == rows.num_rows
        facts = Facts(ids=rows.num_rows if each_once else 0, closed=closed and each_once)
        _write(temporary, rows.sort_by([(column, "ascending") for column in EVENTS.sort]).to_batches(), facts)
        staged = lake.staged(EVENTS, keys, label, "", temporary, rows.num_rows)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return staged


def count_landed(engine: DuckDBEngine, days: Days) -> Landed:
    """Count the days' events. A day that is one file whose ids were counted tells itself; the others are read."""
    told: list[Landed] = []
    read: list[LakeFile] = []
    for keys in engine.lake.partitions(EVENTS, days):
        files = engine.lake.of(EVENTS, keys)
        facts = [facts_of(engine.lake, file) for file in files]
        landed = sum(fact.landed or file.rows for fact, file in zip(facts, files, strict=True))
        if len(files) == 1 and facts[0].ids:
            told.append(Landed(landed, facts[0].ids, files[0].rows - facts[0].ids))
        else:
            told.append(Landed(landed, 0, 0))
            read += files
    if read:
        engine.bind_landed(read)
        told += [Landed(0, row["events"], row["conflicts"]) for row in engine.run("landings").read_all().to_pylist()]
    return Landed(*(sum(counts) for counts in zip(*told, strict=True))) if told else Landed(0, 0, 0)


def facts_of(lake: Lake, file: LakeFile) -> Facts:
    """What a file of `events` tells of itself."""
    return msgspec.convert(noted_in(lake.path(file)), Facts)


def _due_open(files: Sequence[LakeFile]) -> Sequence[LakeFile]:
    """The files of a day still going on to merge now: the small ones when they are many, else all when those are."""
    small = [file for file in files if file.label != COMPACTED]
    if len(small) >= MANY:
        return small
    return files if len(files) >= MANY else []


def _due_closed(lake: Lake, files: Sequence[LakeFile], *, counted: bool) -> Sequence[LakeFile]:
    """All files of a closed day, if they are to be merged now (see `settle`)."""
    is_closed = any(facts_of(lake, file).closed for file in files)
    due = not is_closed or (counted and len(files) > 1) or len(files) >= MANY
    return files if due else []


def short(file: LakeFile) -> str:
    """The beginning of a file's digest, by which a merged one knows an imported one."""
    return file.sha256[:16]


def _write(path: Path, batches: Iterable[pa.RecordBatch], facts: Facts) -> int:
    """Write sorted events, in row groups that do not depend on how the batches were cut. Returns the rows."""
    rows = 0
    with pq.ParquetWriter(path, EVENTS.file_schema, **encodings.settled(EVENTS)) as writer:
        for group in _row_groups(batches):
            writer.write_table(conform(EVENTS, group).combine_chunks(), encodings.ROW_GROUP)
            rows += group.num_rows
        writer.add_key_value_metadata({FACTS: msgspec.json.encode(facts).decode()})
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
