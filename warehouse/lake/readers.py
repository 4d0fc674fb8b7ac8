"""Who on this machine is reading, and since when: a snapshot that is looked at is not vacuumed under its reader.

A file per reader, locked while it reads: one whose process was killed is known by its free lock. What does not belong here:
what is vacuumed (`housekeeping.py`).
"""

import fcntl
import os
import time
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from warehouse.settings import Settings


class Reader:
    """One reader, of the newest snapshots or those of `at`.

    It costs a file from the first snapshot that is looked at until the last is let go.
    """

    def __init__(self, settings: Settings, at: datetime | None = None) -> None:
        self._at = at
        self._folder = _folder(settings)
        self._file: BinaryIO | None = None
        self._path = self._folder

    def begin(self) -> None:
        """Be known to read from now on."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Locked before it has its name: a vacuum takes one without a lock for a dead one's.
            unnamed = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}.tmp"
            self._file = unnamed.open("xb")
            fcntl.flock(self._file, fcntl.LOCK_SH)
            since = min(time.time_ns(), int(self._at.timestamp() * 1e9)) if self._at else time.time_ns()
            self._path = unnamed.rename(self._folder / f"{max(since, 0):019}-{unnamed.stem}")

    def end(self) -> None:
        """Have let go of every snapshot."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.end()


def oldest_reader(settings: Settings) -> float | None:
    """Since when the longest of them reads (s since the epoch); None where nobody does. What the dead left goes."""
    for path in sorted(_folder(settings).glob("*-*-*")):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return int(path.name.partition("-")[0]) / 1e9
    return None


def _folder(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "readers"
