"""Writers and readers of the same tables at once, for a while: no read fails, none mixes, and the end is as computed afresh.

    python benchmarks/stress_lake.py [--seconds 120] [--seed 1] [--kept 10]

Processes, not threads: two sealers append, two folders fold overlapping ranges (events with their compaction, player_days,
leaderboards), and one vacuums what was superseded `--kept` seconds ago. Beside them four readers: an analyst's SQL, boards,
DuckDB over the files of a snapshot that it holds for longer than superseded files stay, and one that looks back in time.

What a read has to show: days come in pairs, and every commit gives both days of a pair as many events and as much XP; the
season's board and the one over everything have the same XP; from one read to the next nothing becomes less. In the end, what is
behind is folded, and every file of a derived table has to be, byte for byte, that of a lake into which the same events came at
once.

Prints one JSON line; exits with 1 where a read or write failed, a read was mixed, or the end is another one.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import duckdb
import structlog

from ingest_api import trouble
from ingest_api.admission import Arrival, admit
from ingest_api.bodies import Body, check_batch
from ingest_api.door import Door
from ingest_api.ids import derived_base
from ingest_api.journal import Journal, Slot, journal_dir
from ingest_api.sealer import seal_once
from ingest_api.segment import Entry
from warehouse import analysts
from warehouse.basis import Bases
from warehouse.calendar import ONE_DAY, Days, WindowKind
from warehouse.engine import DuckDBEngine, Engine, scan
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake, housekeeping, tidy
from warehouse.readings import leaderboard
from warehouse.settings import Settings
from warehouse.tables import EVENTS, LEADERBOARDS, PLAYER_DAYS, TABLES

MONDAY = date(2026, 3, 2)
# Nobody plays on the day after a pair: its daily board looks back on the pair's second day.
PAIRS = [(first, first + ONE_DAY) for first in (MONDAY + timedelta(days=n) for n in (0, 3, 7, 10))]
ALL = Days(PAIRS[0][0], PAIRS[-1][1])
RANGES = [Days(PAIRS[n][0], PAIRS[m][1]) for n, m in ((0, 1), (1, 2), (2, 3), (0, 3))]  # a fold never cuts a pair
NOW_MS = int(datetime(2026, 3, 14, tzinfo=UTC).timestamp() * 1000)
FOLDED = [table.name for table in (EVENTS, PLAYER_DAYS, LEADERBOARDS)]
PLAYERS, EVENTS_A_DAY, FIRST_REQUESTS = 200, 20, 20
BY_DAY = (
    "SELECT 'events' AS source, event_date, count(*) AS events, sum(delta_xp) AS xp FROM events GROUP BY event_date"
    " UNION ALL SELECT 'player_days', event_date, sum(events), sum(xp) FROM player_days GROUP BY event_date"
)
LOOKED_BACK = 0.5  # of the time that superseded files stay: how far back is looked

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
Totals = dict[tuple[str, date], tuple[int, int]]  # by source and day: events and XP


@dataclass
class Tally:
    """What a process did: how often, what failed, which reads were mixed, and what else it counted."""

    done: int = 0
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Mixed(Exception):
    """A read that no single snapshot can have given."""


Step = Callable[[], Counter[str]]
_barrier: Barrier


def together(barrier: Barrier) -> None:
    """Begin when all processes are there."""
    global _barrier  # noqa: PLW0603 - what a pool's processes inherit
    _barrier = barrier


def run(role: str, settings: Settings, seed: int, seconds: float) -> Tally:
    """Be a writer or reader until the time is up."""
    step, tally = ROLES[role](settings, seed), Tally()
    _barrier.wait(timeout=300)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            tally.counts += step()
            tally.done += 1
        except Mixed as error:
            tally.mixed.append(f"{role}: {error}")
        except Exception:  # noqa: BLE001 - whatever fails is what is counted
            tally.failed.append(f"{role}: {traceback.format_exc()}")
    return tally


# Writers


def entry(sender: int, number: int) -> tuple[Entry, int]:
    """A request, always the same under its numbers: as many events and as much XP for both days of a pair."""
    chance = random.Random(f"{sender} {number}")
    gains = [(f"player_{chance.randrange(PLAYERS):03}", chance.randrange(1, 500)) for _ in range(EVENTS_A_DAY)]
    raw = json.dumps(
        [
            {
                "eventId": f"{sender}-{number}-{day}-{n}",
                "type": "progression",
                "playerId": player,
                "ts": int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) + n,
                "payload": {"deltaXp": xp, "activity": "quest"},
            }
            for day in chance.choice(PAIRS)
            for n, (player, xp) in enumerate(gains)
        ]
    ).encode()
    body = Body.of(raw, b"")
    arrival = Arrival(NOW_MS, "stress", derived_base(b"%d %d" % (sender, number), b""), "r", body)
    admitted = admit(check_batch(body, NOW_MS), arrival, Door()).entry
    assert admitted is not None
    return admitted, len(raw)


def sealer(settings: Settings, seed: int) -> Step:
    """Requests through a journal of its own into the lake."""
    journal, numbers = Journal(Slot.claim(journal_dir(settings)), 3600, 2**30), iter(range(10**9))

    def step() -> Counter[str]:
        put(journal, [entry(seed, next(numbers))])
        seal_once(settings)
        if reason := trouble.read(journal_dir(settings)):
            raise RuntimeError(reason)
        return Counter({f"requests of {seed}": 1})

    return step


def put(journal: Journal, entries: list[tuple[Entry, int]]) -> None:
    """Write requests as one segment that is ready."""
    journal.put([one for one, _ in entries], [], sum(size for _, size in entries))
    journal.commit()
    journal.rotate()


def folder(settings: Settings, seed: int) -> Step:
    """Folds of overlapping ranges."""
    chance = random.Random(seed)

    def step() -> Counter[str]:
        days, counts = chance.choice(RANGES), Counter[str]()
        with DuckDBEngine(settings) as engine:
            for table in FOLDED:
                counts[f"partitions changed in {table}"] += fold(engine, table, days).changed
        return counts

    return step


def housekeeper(settings: Settings, _seed: int) -> Step:
    """Vacuum, twice a second."""
    lake = Lake(settings)
    housekeeping.HASTE_S = settings.snapshot_minutes * 60  # type: ignore[misc]  # a minute is long beside a short run

    def step() -> Counter[str]:
        tidied = tidy(lake)
        time.sleep(0.5)
        return Counter({"files vacuumed": sum(one.files for one in tidied)})

    return step


# Readers


def totals(rows: Iterable[dict[str, Any]]) -> Totals:
    """Rows of `BY_DAY`."""
    return {(row["source"], row["event_date"]): (int(row["events"]), int(row["xp"])) for row in rows}


def check(found: Totals, before: Totals | None = None) -> Totals:
    """Both days of each pair have the same, and nothing has become less.

    Raises:
        Mixed: it is not so.
    """
    for source in {source for source, _ in found}:
        for one, other in PAIRS:
            if found.get((source, one)) != found.get((source, other)):
                raise Mixed(f"{source}: {one} has {found.get((source, one))}, {other} {found.get((source, other))}")
    for place, had in (before or {}).items():
        if found.get(place, (0, 0)) < had:
            raise Mixed(f"{place}: had {had}, has {found.get(place)}")
    return found


def analyst(settings: Settings, _seed: int) -> Step:
    """SQL as the dashboard and `fairboard sql` run it."""
    before: Totals = {}

    def step() -> Counter[str]:
        before.update(check(totals(analysts.ask(settings, BY_DAY).rows.to_dicts()), before))
        return Counter()

    return step


def board_reader(settings: Settings, _seed: int) -> Step:
    """Boards as the command line and the dashboard read them: the season's and the one over everything, and daily ones."""

    def xp(engine: Engine, kind: WindowKind, day: date) -> tuple[int, int]:
        board = leaderboard(engine, kind, at=day).board
        return board.height, int(board["xp"].sum())

    def step() -> Counter[str]:
        with DuckDBEngine(settings) as engine:
            season, alltime = (xp(engine, kind, ALL.last) for kind in (WindowKind.SEASONAL, WindowKind.ALLTIME))
            if season != alltime:
                raise Mixed(f"the season's board has (players, XP) {season}, the one over everything {alltime}")
            check({("daily boards", day): xp(engine, WindowKind.DAILY, day) for pair in PAIRS for day in pair})
        return Counter()

    return step


def file_reader(settings: Settings, _seed: int) -> Step:
    """DuckDB, file after file of a snapshot, for longer than superseded files stay or 5 s."""
    pause_s = min(settings.snapshot_minutes * 60, 5)

    def step() -> Counter[str]:
        with Lake(settings) as lake:
            files = {table: lake.files(table) for table in (EVENTS, PLAYER_DAYS)}
            time.sleep(pause_s)
            by_day: Counter[tuple[str, date]] = Counter()
            xp: Counter[tuple[str, date]] = Counter()
            for table, of_table in files.items():
                column = "delta_xp" if table is EVENTS else "xp"
                for path in lake.paths(of_table):
                    sql = f"SELECT event_date, count(*), sum({column}) FROM ({scan(table, [path])}) GROUP BY event_date"
                    for day, rows, gained in duckdb.execute(sql).fetchall():
                        by_day[table.name, day] += rows
                        xp[table.name, day] += int(gained)
            expected = sum(file.rows for of_table in files.values() for file in of_table)
        if by_day.total() != expected:
            raise Mixed(f"a snapshot of {expected} rows had {by_day.total()}")
        check({place: (rows, xp[place]) for place, rows in by_day.items()})
        return Counter()

    return step


def historian(settings: Settings, seed: int) -> Step:
    """The tables as they were a moment ago, twice: what is past does not change."""
    chance, back_s = random.Random(seed), settings.snapshot_minutes * 60 * LOOKED_BACK
    began = time.time()

    def step() -> Counter[str]:
        then = datetime.fromtimestamp(max(began, time.time() - chance.uniform(0, back_s)), UTC)
        found = []
        for _ in range(2):
            with DuckDBEngine(settings, at=then) as engine:
                engine.bind(EVENTS)
                engine.bind(PLAYER_DAYS)
                found.append(check(totals(engine.query(BY_DAY).read_all().to_pylist())))
        if found[0] != found[1]:
            raise Mixed(f"as of {then}: first {found[0]}, then {found[1]}")
        return Counter()

    return step


ROLES: dict[str, Callable[[Settings, int], Step]] = {
    role.__name__: role for role in (sealer, folder, housekeeper, analyst, board_reader, file_reader, historian)
}
WRITERS = ["sealer", "sealer", "folder", "folder", "housekeeper"]
READERS = ["analyst", "board_reader", "file_reader", "historian"]


# The whole


def stress(folder_: Path, seconds: float, seed: int, kept_s: float) -> dict[str, object]:
    """Run all of it; the figures."""
    settings = Settings(data_dir=folder_ / "stressed", _env_file=None)
    settings = settings.model_copy(update={"snapshot_minutes": kept_s / 60})
    begin(settings)
    roles = WRITERS + READERS
    context = get_context("spawn")
    with ProcessPoolExecutor(len(roles), context, together, (context.Barrier(len(roles)),)) as pool:
        runs = [pool.submit(run, role, settings, seed + n, seconds) for n, role in enumerate(roles)]
        tallies = {f"{role} {n}": one.result() for n, (role, one) in enumerate(zip(roles, runs, strict=True))}
    counts = sum((tally.counts for tally in tallies.values()), Counter[str]())
    requests = {seed + n: counts.pop(f"requests of {seed + n}", 0) for n, role in enumerate(roles) if role == "sealer"}
    for problem in [problem for tally in tallies.values() for problem in (*tally.failed, *tally.mixed)][:10]:
        print(problem, file=sys.stderr)

    def number(of: list[str], what: Callable[[Tally], int]) -> int:
        return sum(what(tally) for name, tally in tallies.items() if name.partition(" ")[0] in of)

    with Lake(settings) as lake:
        commits = sum(lake.snapshot(table).version + 1 for table in TABLES.values())
    fold_behind(settings, list(FOLDS))
    return {
        "name": "stress_lake", "seconds": seconds,
        "writes": number(WRITERS, lambda tally: tally.done), "failed_writes": number(WRITERS, lambda tally: len(tally.failed)),
        "reads": number(READERS, lambda tally: tally.done), "failed_reads": number(READERS, lambda tally: len(tally.failed)),
        "mixed_reads": number(READERS, lambda tally: len(tally.mixed)), "commits": commits, **dict(sorted(counts.items())),
        "by_role": {name: tally.done for name, tally in tallies.items()},
        "events": sum(requests.values()) * 2 * EVENTS_A_DAY, "end": difference(settings, computed_afresh(folder_, requests)),
    }  # fmt: skip


def begin(settings: Settings) -> None:
    """Some requests, folded: what readers meet first."""
    journal = Journal(Slot.claim(journal_dir(settings)), 3600, 2**30)
    put(journal, [entry(0, number) for number in range(FIRST_REQUESTS)])
    journal.close()
    fold_behind(settings, FOLDED)


def computed_afresh(folder_: Path, requests: dict[int, int]) -> Settings:
    """A lake into which the same requests came at once, everything folded once."""
    settings = Settings(data_dir=folder_ / "afresh", _env_file=None)
    journal = Journal(Slot.claim(journal_dir(settings)), 3600, 2**30)
    put(journal, [entry(0, number) for number in range(FIRST_REQUESTS)])
    for sender, count in requests.items():
        if count:
            put(journal, [entry(sender, number) for number in range(count)])
    journal.close()
    fold_behind(settings, list(FOLDS))
    return settings


def fold_behind(settings: Settings, tables: list[str]) -> None:
    """Seal what is left, then fold what is behind, table by table; nothing is behind then."""
    seal_once(settings)
    with DuckDBEngine(settings) as engine:
        fold(engine, EVENTS.name, ALL)
        for table in tables[1:]:
            if days := [one.day for one in Bases(engine).behind(TABLES[table])]:
                fold(engine, table, Days(min(days), max(days)))
        engine.lake.refresh()
        bases = Bases(engine)
        assert not any(bases.behind(TABLES[table]) for table in tables[1:])


def difference(settings: Settings, other: Settings) -> str:
    """Where two lakes differ: in a row of events, or a file of a derived table."""
    with DuckDBEngine(settings) as one, DuckDBEngine(other) as two:
        rows = []
        for engine in (one, two):
            engine.bind(EVENTS)
            rows.append(engine.query("SELECT * FROM events ORDER BY ALL").read_all())
        if not rows[0].equals(rows[1]):
            return f"events: {rows[0].num_rows} rows, not these {rows[1].num_rows}"
        for name in FOLDS.keys() - {EVENTS.name}:
            files = [{(f.name.rpartition("/")[0], f.sha256) for f in engine.lake.files(TABLES[name])} for engine in (one, two)]
            if files[0] != files[1]:
                return f"{name}: {sorted(folder for folder, _ in files[0] ^ files[1])}"
    return ""


def main() -> int:
    """Run it. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", type=float, default=10, help="for how many seconds superseded files stay")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stress-") as folder_:
        figure = stress(Path(folder_), arguments.seconds, arguments.seed, arguments.kept)
    print(json.dumps(figure))
    return int(any(figure[name] for name in ("failed_writes", "failed_reads", "mixed_reads", "end")))


if __name__ == "__main__":
    sys.exit(main())
