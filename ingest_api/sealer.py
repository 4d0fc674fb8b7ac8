"""From the journal to Parquet: its own process, so that converting never takes the workers' time.

A segment becomes one file per day, and all segments that are ready one commit per table. They go only when it is durable; what
was committed when the sealer died is known by the number that the commit was marked with (`<number>.batch.json`).
What does not belong here: writing Parquet (`warehouse.lake`), what an event is (`warehouse.events`).
"""

import fcntl
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import structlog

from ingest_api import segment, trouble
from ingest_api.journal import READY, Slot, journal_dir, recover, set_aside
from ingest_api.logs import configure_logs
from ingest_api.metrics import Metrics
from ingest_api.segment import Refusal, SegmentDamagedError
from ingest_api.unfold import unfold
from warehouse.damage import quarantined
from warehouse.errors import LakeError, StoreUnavailable
from warehouse.event_rows import split_days
from warehouse.instance import instance_of
from warehouse.lake import Lake, Marker, Staged, write_durably
from warehouse.lake.opening import open_storage
from warehouse.privacy import keep_private
from warehouse.settings import Settings, load_settings
from warehouse.tables import EVENTS, REJECTS

_PAUSE_S = 0.2
_LOOKS_EVERY_S = 60
_AT_ONCE = 2
_TIDY_S = 15 * 60  # between two looks for copies of a bucket's files that are no more
_BATCH = 16  # segments that are committed together
_NOTED = ".batch.json"

log = structlog.get_logger(__name__)


def seal_once(settings: Settings) -> int:
    """Seal every segment that is ready, those of dead workers included. Returns how many events and refusals were sealed.

    Raises:
        StoreUnavailable: the lake's bucket cannot be used; everything stays in the journal.
    """
    root = journal_dir(settings)
    root.mkdir(parents=True, exist_ok=True)
    # Arrow's own pool gives memory back after each segment, and the next pays for clear pages: 8 % of the time.
    pa.set_memory_pool(pa.system_memory_pool())
    with _alone(root):
        _recover_dead_slots(root)
        sealer = _Sealer(settings, root)
        if sealer.finish_batches():
            segments = sorted(root.glob(f"*/*{READY}"), key=lambda path: path.name)
            batches = (segments[start : start + _BATCH] for start in range(0, len(segments), _BATCH))
            # A table knows the number of the last batch alone: none is begun behind one that may be half committed.
            all(sealer.seal(batch) for batch in batches)
        if sealer.failed:
            trouble.note(
                root, f"{sealer.failed} segments of the journal cannot be sealed; they are kept, and the log says why."
            )
        else:
            trouble.clear(root)
        return sealer.sealed


def run(settings: Settings, parent: int) -> None:
    """Seal until SIGTERM or SIGINT, then once more; stop likewise when the parent (a process id) is gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    looked, tidied = -math.inf, time.monotonic()
    while not stop.wait(_PAUSE_S) and os.getppid() == parent:
        _try_to_seal(settings)
        if time.monotonic() - looked >= _LOOKS_EVERY_S:
            looked = time.monotonic()
            count_damaged(settings)
        if time.monotonic() - tidied >= _TIDY_S:
            tidied = time.monotonic()
            _tidy_copies(settings)
    _try_to_seal(settings)


def _try_to_seal(settings: Settings) -> None:
    """A bucket that is away may be back at the next pass; dying of it would only cost another start."""
    try:
        seal_once(settings)
    except (StoreUnavailable, LakeError) as error:
        trouble.note(
            journal_dir(settings), "The lake cannot be written; everything is kept in the journal, and the log says why."
        )
        log.error("seal.failed", segment="all", reason=str(error))  # noqa: TRY400 - its stack says nothing more


def count_damaged(settings: Settings) -> None:
    """Say how many files of events are set aside as damaged: the service accepts all the same, but somebody should look."""
    try:
        with Lake(settings) as lake:
            Metrics.of(journal_dir(settings), "sealer").put("fairboard_lake_damaged_files", len(quarantined(lake, EVENTS)))
    except (OSError, LakeError, StoreUnavailable) as error:
        log.warning("lake.unseen", reason=str(error))


def _tidy_copies(settings: Settings) -> None:
    """Let copies go of what other machines have erased since: this process may be the only one of ours here."""
    try:
        open_storage(settings).tidy_copies()
    except StoreUnavailable as error:
        log.warning("copies.untidied", reason=str(error))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two sealers of one journal take turns: each has to know what the other has noted and committed."""
    with (root / "sealer.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _recover_dead_slots(root: Path) -> None:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if slot := Slot.take(folder):
            recover(slot)
            slot.release()


class _Content(NamedTuple):
    """A segment as staged files: how many events and refused ones are in them."""

    files: list[Staged]
    events: int
    refused: int


class _Batch(msgspec.Struct, frozen=True):
    """Segments that are committed together, noted before they are: their paths in the journal, and the commits' number."""

    number: int
    segments: list[str]


class _Sealer:
    """One pass over the journal."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings, self._root = settings, root
        self._lake = Lake(settings)
        self._metrics = Metrics.of(root, "sealer")
        self._writer = f"journal {instance_of(settings)}"
        self.sealed = 0
        self.failed = 0

    def seal(self, segments: list[Path]) -> bool:
        """Seal segments in one commit per table. One that cannot be read stays, and does not stop the others.

        Returns whether the batch was finished; if not, the next pass finds out what was committed of it.
        """
        # Arrow's readers, sorts and writers leave the interpreter free.
        with ThreadPoolExecutor(_AT_ONCE, "stage-segment") as pool:
            staging = [(path, pool.submit(_stage, self._lake, self._settings, path)) for path in segments]
            contents = {path: content for path, future in staging if (content := self._staged(path, future))}
        if not contents:
            return True
        batch = _Batch(time.time_ns(), [str(path.relative_to(self._root)) for path in contents])
        note = self._root / f"{batch.number}{_NOTED}"
        try:
            write_durably(note, msgspec.json.encode(batch))
            self._commit(batch, contents)
            self._done(note, contents)
        except Exception as error:  # noqa: BLE001 - whatever it is, the segments stay
            self._fail(list(contents), error)
            return False
        return True

    def finish_batches(self) -> bool:
        """Find out what was committed of a batch that a pass before did not finish, and do the rest. Returns whether it is."""
        for note in sorted(self._root.glob(f"*{_NOTED}")):
            batch = msgspec.json.decode(note.read_bytes(), type=_Batch)
            paths = [path for name in batch.segments if (path := self._root / name).exists()]
            try:
                if not any(self._lake.marked(table, self._writer) == batch.number for table in (EVENTS, REJECTS)):
                    note.unlink()  # nothing of it was: its segments are like all others
                    continue
                contents = {path: content for path in paths if (content := self._stage_now(path))}
                self._commit(batch, contents)
                self._done(note, contents)
            except Exception as error:  # noqa: BLE001 - as in `seal`
                self._fail(paths, error)
                return False
        return True

    def _stage_now(self, path: Path) -> _Content | None:
        """A segment of a batch again; None of one that was damaged since."""
        try:
            return _stage(self._lake, self._settings, path)
        except SegmentDamagedError as error:
            self._set_aside(path, error)
            return None

    def _staged(self, path: Path, future: Future[_Content]) -> _Content | None:
        try:
            return future.result()
        except SegmentDamagedError as error:
            self._set_aside(path, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other segments are sealed, and this one is tried again
            self._fail([path], error)
        return None

    def _set_aside(self, path: Path, error: SegmentDamagedError) -> None:
        if path.exists():
            set_aside(path, str(error))
            self._metrics.add("fairboard_seal_damaged_total")

    def _commit(self, batch: _Batch, contents: dict[Path, _Content]) -> None:
        marker = Marker(self._writer, batch.number)
        files = [file for content in contents.values() for file in content.files]
        try:
            for table in (EVENTS, REJECTS):
                of_table = [file for file in files if file.table is table and not self._has_letters(file)]
                if of_table and self._lake.marked(table, self._writer) != batch.number:
                    self._lake.commit(table, of_table, marker=marker)
        finally:
            for file in files:
                file.drop()

    def _has_letters(self, staged: Staged) -> bool:
        """Whether a segment's refusals are there already: one from a backup may be sealed again, and they have no ids."""
        if staged.table is not REJECTS:
            return False
        return any(file.label == staged.label for file in self._lake.of(REJECTS, staged.keys))

    def _done(self, note: Path, contents: dict[Path, _Content]) -> None:
        for path, content in contents.items():
            path.unlink()
            log.debug("segment.sealed", segment=path.stem, events=content.events, refused=content.refused)
            self._metrics.add("fairboard_seal_events_total", content.events)
            self._metrics.add("fairboard_seal_rejects_total", content.refused)
            self._metrics.add("fairboard_seal_segments_total")
            self.sealed += content.events + content.refused
        note.unlink()

    def _fail(self, paths: list[Path], error: Exception) -> None:
        self.failed += len(paths)
        names = ", ".join(path.stem for path in paths)
        log.error("seal.failed", segment=names, reason=str(error), exc_info=_stack_of(error))
        self._metrics.add("fairboard_seal_failures_total", len(paths))


def _stack_of(error: Exception) -> Exception | None:
    """What is a fault of ours, not the disk's or the lake's, is logged with its stack."""
    return None if isinstance(error, OSError | LakeError | StoreUnavailable) else error


def _stage(lake: Lake, settings: Settings, path: Path) -> _Content:
    """Make a segment Parquet, beside the tables."""
    entries, refused = segment.read(path)
    table, conflicts = unfold(entries)
    refused += conflicts
    staged = [lake.stage(EVENTS, part, {"event_date": day}, path.stem) for day, part in split_days(table, settings.zone)]
    staged += [lake.stage(REJECTS, part, {"event_date": day}, path.stem) for day, part in _reject_days(settings, refused)]
    return _Content(staged, table.num_rows, len(refused))


def _reject_days(settings: Settings, refused: list[Refusal]) -> Iterator[tuple[date, pa.Table]]:
    """The refused events per day of arrival."""
    days: dict[date, list[dict[str, Any]]] = {}
    for refusal in refused:
        day = datetime.fromtimestamp(refusal.received_ms / 1000, UTC).astimezone(settings.zone).date()
        days.setdefault(day, []).append(refusal._asdict() | {"body": refusal.body.decode(errors="backslashreplace")})
    for day, rows in days.items():
        yield day, pa.Table.from_pylist(rows, schema=REJECTS.file_schema)


if __name__ == "__main__":
    keep_private()
    os.nice(10)  # where the machine is short, accepting comes first: what waits here is on disk
    configured = load_settings()
    configure_logs(configured)
    if sys.argv[1] == "once":
        _try_to_seal(configured)
    else:
        run(configured, parent=int(sys.argv[1]))
