"""Copies of the journal, made while workers write it: what a backup needs.

A segment that is still written is copied as its file and its WAL, and finished in the copy. What does not belong here: where
the copies go (`warehouse.backup`).
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from ingest_api import segment
from ingest_api.journal import DAMAGED, OPEN, READY, journal_dir
from ingest_api.segment import SegmentDamagedError
from warehouse.errors import FairboardError
from warehouse.lake import write_durably
from warehouse.settings import Settings

RESTORED: Final = "1024"  # the folder of segments that came from a backup: beyond the slots that workers take
_TRIES: Final = 1000
_WAL_HEADER: Final = 32  # bytes; two of its words change whenever the WAL begins anew
log = structlog.get_logger(__name__)


def copy_journal(settings: Settings, folder: Path) -> Iterator[tuple[str, Path]]:
    """Copy every segment into a folder, those of workers that run included: the name it has when it is sealed, and the copy.

    One that goes meanwhile was sealed: whoever looks at the lake later finds its events there.
    """
    for path in sorted(journal_dir(settings).glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        if path.suffix == OPEN:
            name = f"{path.parent.name}/{path.stem}{READY}"
            copy = _copy_open(path, folder / f"{path.stem}{READY}")
        elif path.suffix == READY or DAMAGED in path.name:
            copy = _copy(path, folder / path.name)
        else:
            continue
        if copy is not None:
            yield name, copy


def restore_segment(settings: Settings, name: str, content: bytes) -> bool:
    """Put a segment of a backup where the sealer finds it, unless it is in the journal. Returns whether it was put there.

    Sealing one again that was sealed already changes nothing: its events have their ids.
    """
    root, file = journal_dir(settings), Path(name).name
    # Of a damaged segment each part is a file that a person needs; of a sound one any form of it is the segment.
    if any(root.glob(f"*/{file}" if DAMAGED in file else f"*/{Path(file).stem}.*")):
        return False
    folder = root / RESTORED
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / file, content)
    return True


def _copy(path: Path, target: Path) -> Path | None:
    try:
        shutil.copyfile(path, target)
    except FileNotFoundError:
        return None
    return target


def _copy_open(path: Path, target: Path) -> Path | None:
    """A copy of a segment that is being written, with everything that was committed before this was called."""
    wal, wal_copy = path.with_name(f"{path.name}-wal"), target.with_name(f"{target.name}-wal")
    for _ in range(_TRIES):
        # What moves from the WAL into the file stays in the WAL until that begins anew: file first, WAL second, the same WAL
        # all the time, and the one makes up for what the other was still lacking.
        before = _header(wal)
        if _copy(path, target) is None:
            return _copy(path.with_suffix(READY), target.with_suffix(READY))
        wal_copy.unlink(missing_ok=True)
        _copy(wal, wal_copy)
        if _header(wal) == before == _header(wal_copy) and path.exists() and (found := _finished(target)) is not None:
            return target if found else None
    raise FairboardError(f"{path} changes faster than it can be copied; no backup was made. Run it again.")


def _header(wal: Path) -> bytes:
    try:
        with wal.open("rb") as file:
            return file.read(_WAL_HEADER)
    except FileNotFoundError:
        return b""


def _finished(copy: Path) -> bool | None:
    """Whether a copy, its WAL now moved into it, holds anything; None where it is not whole."""
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            has_rows = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'refusals'").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if has_rows:
            segment.read(copy)
    except (sqlite3.DatabaseError, SegmentDamagedError) as error:
        log.debug("journal.copied_again", segment=copy.stem, reason=str(error))
        return None
    return bool(has_rows)
