"""The journal: where an event is on disk before its 202 leaves (docs/adr/0002-journal-segments.md).

A worker owns one slot (a folder and its lock) and appends to one open segment, an SQLite file. A sealed-off segment ends in
`.db` and is the sealer's. What does not belong here: what stands in a segment (`segment.py`), what becomes of it (`sealer.py`).
"""

import errno
import fcntl
import sqlite3
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import structlog

from ingest_api import segment
from ingest_api.ids import segment_id
from ingest_api.segment import Entry, Refusal
from warehouse.errors import FairboardError
from warehouse.lake import fsync
from warehouse.settings import Settings

OPEN, READY, DAMAGED = ".open", ".db", ".damaged"
_MAX_SLOTS = 1024
_RETRY_S = 1.0
log = structlog.get_logger(__name__)


class JournalFullError(FairboardError):
    """The disk is full. Nothing of the group was kept; the journal can be written again when there is room."""


class JournalBrokenError(FairboardError):
    """A write or an fsync failed. What it left on disk is unknown, so this journal is not written again."""


def journal_dir(settings: Settings) -> Path:
    """The folder of all slots."""
    return settings.data_dir.absolute() / "journal"


class Slot:
    """A worker's place in the journal, held by a lock that dies with its process."""

    def __init__(self, folder: Path, lock: BinaryIO) -> None:
        self.folder = folder
        self.name = folder.name
        self._lock = lock

    @classmethod
    def claim(cls, root: Path) -> "Slot":
        """Take the first free slot.

        Raises:
            FairboardError: every slot is taken.
        """
        for number in range(_MAX_SLOTS):
            if slot := cls.take(root / f"{number:03d}"):
                return slot
        raise FairboardError(f"All {_MAX_SLOTS} slots of {root} are taken; nothing was started.")

    @classmethod
    def take(cls, folder: Path) -> "Slot | None":
        """Take that slot, or return None while a living process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return cls(folder, lock)

    def release(self) -> None:
        """Let go of the slot."""
        self._lock.close()


class Journal:
    """The journal of one worker. One thread at a time may call it."""

    def __init__(self, slot: Slot, seal_after_s: float, segment_bytes: int) -> None:
        self._slot = slot
        self._seal_after_s = seal_after_s
        self._segment_bytes = segment_bytes
        self._connection: sqlite3.Connection | None = None
        self._path = slot.folder
        self._opened_at = 0.0
        self._bytes = 0
        self._finisher = ThreadPoolExecutor(1, "finish-segment")
        self._finishing: dict[Future[None], tuple[sqlite3.Connection, Path]] = {}
        self._unfinished: list[tuple[sqlite3.Connection, Path]] = []
        self._retry_at = 0.0
        recover(slot)

    def put(self, entries: Iterable[Entry], refusals: Iterable[Refusal], size: int) -> None:
        """Write a group; it counts from the commit on. `size` is the bytes of its bodies, unpacked: what the sealer will hold.

        Raises:
            JournalFullError: there is no room; nothing was kept.
            JournalBrokenError: writing failed.
        """
        try:
            connection = self._connection or self._open()
            segment.write(connection, entries, refusals)
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error
        except BaseException:  # a row that cannot be written: nothing of this group counts, and the next one begins anew
            self._roll_back()
            raise
        self._bytes += size

    def commit(self) -> None:
        """Wait until the group is on disk. The interpreter is free meanwhile.

        Raises:
            JournalFullError: there is no room; nothing was kept.
            JournalBrokenError: writing or the fsync failed.
        """
        assert self._connection is not None
        try:
            self._connection.commit()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def rotate_if_due(self, now: float) -> None:
        """Hand the open segment to the sealer when it is old or big enough. `now` is `time.monotonic()`."""
        self._look_after_finished(now)
        due = self._bytes >= self._segment_bytes or now - self._opened_at >= self._seal_after_s
        if self._connection is not None and due:
            self.rotate()

    def rotate(self) -> None:
        """Hand the open segment to the sealer. Its fsync happens in another thread: what was answered is in its WAL already."""
        if self._connection is not None:
            self._finishing[self._finisher.submit(_finish, self._connection, self._path)] = (self._connection, self._path)
            self._connection = None

    def close(self) -> None:
        """Hand over what is open, wait for it, and release the slot. What fails now is recovered by who takes the slot next."""
        self.rotate()
        self._finisher.shutdown(wait=True)
        for future, (_, path) in self._finishing.items():
            if error := future.exception():
                log.error("journal.unfinished", segment=path.stem, reason=str(error))
        self._slot.release()

    def _look_after_finished(self, now: float) -> None:
        """Try again, once a second, what could not be finished: on a full disk the WAL cannot be moved into its file."""
        for future in [future for future in self._finishing if future.done()]:
            connection, path = self._finishing.pop(future)
            if error := future.exception():
                log.error("journal.unfinished", segment=path.stem, reason=str(error))
                self._unfinished.append((connection, path))
        if self._unfinished and now >= self._retry_at:
            self._retry_at = now + _RETRY_S
            for connection, path in self._unfinished:
                self._finishing[self._finisher.submit(_finish_again, connection, path)] = (connection, path)
            self._unfinished = []

    def _open(self) -> sqlite3.Connection:
        self._path = self._slot.folder / (segment_id() + OPEN)
        try:
            connection = _create(self._path)
        except (sqlite3.Error, OSError):
            self._path.unlink(missing_ok=True)
            raise
        self._opened_at, self._bytes = time.monotonic(), 0
        self._connection = connection
        return connection

    def _failure(self, error: Exception) -> FairboardError:
        log.error("journal.unwritable", segment=str(self._path), reason=str(error))
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == errno.ENOSPC
        if full and (self._connection is None or not self._roll_back()):
            return JournalFullError("The disk is full; nothing of this group was kept.")
        reason = getattr(error, "strerror", None) or error  # without the path, which everyone would read in /readyz
        return JournalBrokenError(
            f"Writing the journal failed ({reason}). This worker accepts nothing more; what it answered with 202 is safe and "
            "will be sealed. Check the disk, then restart the worker."
        )

    def _roll_back(self) -> bool:
        """Undo the open transaction. Returns whether one is still open."""
        if self._connection is None:
            return False
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        return self._connection.in_transaction


def recover(slot: Slot) -> int:
    """Hand over what a dead worker left open in a slot that is ours now. Returns how many segments."""
    left = sorted(slot.folder.glob(f"*{OPEN}"))
    for path in left:
        log.warning("journal.recovered", segment=path.stem, slot=slot.name, bytes=path.stat().st_size)
        try:
            _finish(_connect(path), path)
        except sqlite3.DatabaseError as error:
            set_aside(path, str(error))
    return len(left)


def set_aside(path: Path, reason: str) -> None:
    """Keep a segment that cannot be read, out of the sealer's way, for a person to look at."""
    log.error("journal.damaged", segment=str(path), reason=reason, kept_as=path.stem + DAMAGED)
    for suffix in ("", "-wal"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(path.stem + DAMAGED + suffix))


def _create(path: Path) -> sqlite3.Connection:
    """A new segment. It is synced once, at the end, because requests wait meanwhile; nothing was promised before."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # A group fills several pages, each a frame of its own in the WAL: with 4 KiB a seventh fewer events went through.
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(segment.SCHEMA)
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    fsync(path)
    fsync(path.parent)
    return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Exclusive: one process at a time by the slot's lock, so no shared memory file and no locking per commit.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = FULL")
    # The WAL moves into its file a mebibyte at a time: 20 of them at the segment's end held up everybody's fsync for 60 ms.
    connection.execute("PRAGMA wal_autocheckpoint = 64")
    return connection


def _finish(connection: sqlite3.Connection, path: Path) -> None:
    """Move the WAL into the file, and give the file the name that the sealer looks for."""
    has_rows = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'refusals'").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    if has_rows:
        path.rename(path.with_suffix(READY))
    else:
        path.unlink()
    fsync(path.parent)


def _finish_again(connection: sqlite3.Connection, path: Path) -> None:
    connection.close()
    _finish(_connect(path), path)
