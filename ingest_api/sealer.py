"""From the journal to Parquet: its own process, so that converting never takes the workers' time.

A segment becomes one file per day, named after the segment: sealing it twice gives the same files. The segment goes only when
they are durable. What does not belong here: writing Parquet (`warehouse.lake`), what an event is (`warehouse.events`).
"""

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import structlog

from ingest_api import segment, trouble
from ingest_api.journal import READY, Slot, journal_dir, recover, set_aside
from ingest_api.logs import configure_logs
from ingest_api.metrics import Metrics
from ingest_api.segment import Refusal, SegmentDamagedError
from ingest_api.unfold import unfold
from warehouse.errors import LakeError
from warehouse.event_rows import split_days
from warehouse.lake import Lake, Staged
from warehouse.privacy import keep_private
from warehouse.settings import Settings, load_settings
from warehouse.tables import EVENTS, REJECTS

_PAUSE_S = 0.2
_AT_ONCE = 2

log = structlog.get_logger(__name__)


def seal_once(settings: Settings) -> int:
    """Seal every segment that is ready, those of dead workers included. Returns how many events and refusals were sealed."""
    root = journal_dir(settings)
    root.mkdir(parents=True, exist_ok=True)
    # Arrow's own pool gives memory back after each segment, and the next pays for clear pages: 8 % of the time.
    pa.set_memory_pool(pa.system_memory_pool())
    with _alone(root):
        lake = Lake(settings.lake_dir, settings.timezone)
        metrics = Metrics.of(root, "sealer")
        _recover_dead_slots(root)
        segments = sorted(root.glob(f"*/*{READY}"), key=lambda path: path.name)
        # Arrow's readers, sorts and writers leave the interpreter free. Only staging is concurrent: a commit relies on the
        # folders that it finds being on disk.
        with ThreadPoolExecutor(_AT_ONCE, "stage-segment") as pool:
            staged = [(path, pool.submit(_stage, lake, settings, path)) for path in segments]
            sealed = [_try(lake, metrics, path, content) for path, content in staged]
        if failed := sealed.count(None):
            trouble.note(root, f"{failed} segments of the journal cannot be sealed; they are kept, and the log says why.")
        else:
            trouble.clear(root)
        return sum(count or 0 for count in sealed)


def run(settings: Settings, parent: int) -> None:
    """Seal until SIGTERM or SIGINT, then once more; stop likewise when the parent (a process id) is gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(_PAUSE_S) and os.getppid() == parent:
        seal_once(settings)
    seal_once(settings)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two sealers take turns. Without this they would be slow, not wrong: both would write the same files."""
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


def _try(lake: Lake, metrics: Metrics, path: Path, content: Future[_Content]) -> int | None:
    """Seal a segment; None for one that cannot be sealed now: it stays for the next time, and does not stop the others."""
    try:
        files, events, refused = content.result()
        lake.commit(files)
        path.unlink()
    except SegmentDamagedError as error:
        if path.exists():
            set_aside(path, str(error))
            metrics.add("fairboard_seal_damaged_total")
        return 0
    except Exception as error:  # whatever it is, the other segments are sealed, and this one is tried again
        log.exception("seal.failed", segment=path.stem, reason=str(error), exc_info=_stack_of(error))
        metrics.add("fairboard_seal_failures_total")
        return None
    log.debug("segment.sealed", segment=path.stem, events=events, refused=refused)
    metrics.add("fairboard_seal_events_total", events)
    metrics.add("fairboard_seal_rejects_total", refused)
    metrics.add("fairboard_seal_segments_total")
    return events + refused


def _stack_of(error: Exception) -> Exception | None:
    """What is a fault of ours, not the disk's or the lake's, is logged with its stack."""
    return None if isinstance(error, OSError | LakeError) else error


def _stage(lake: Lake, settings: Settings, path: Path) -> _Content:
    """Make a segment Parquet, beside the tables."""
    entries, refused = segment.read(path)
    table, conflicts = unfold(entries)
    refused += conflicts
    name = f"{path.stem}.parquet"
    staged = [lake.stage(EVENTS, part, {"event_date": day}, name) for day, part in split_days(table, settings.zone)]
    staged += [lake.stage(REJECTS, part, {"event_date": day}, name) for day, part in _reject_days(settings, refused)]
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
        seal_once(configured)
    else:
        run(configured, parent=int(sys.argv[1]))
