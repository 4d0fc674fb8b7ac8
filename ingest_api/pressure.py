"""Reasons to accept nothing for now: a full disk, a sealer that fell behind, a journal that failed.

Looked up twice a second, not per request. What does not belong here: answering 503 (`app.py`).
"""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Final

from ingest_api import trouble
from ingest_api.journal import READY
from warehouse.settings import Settings

_MIB: Final = 1024 * 1024
_WAITS_S: Final = 120.0  # much longer than a sealer needs that is merely busy, or started again


class Pressure:
    """What the last look found. `reason` is empty while events can be accepted."""

    def __init__(self, settings: Settings, journal: Path) -> None:
        self._floor = settings.disk_floor_mb * _MIB
        self._limit = settings.journal_limit_mb * _MIB
        self._journal = journal
        self.broken = ""
        self.reason = ""
        self.stuck = ""  # why nothing is sealed; events are accepted all the same, until the journal is too large
        self.free_bytes = 0
        self.journal_bytes = 0

    def look(self) -> None:
        """Measure the disk and the journal."""
        self.free_bytes = shutil.disk_usage(self._journal).free
        self.journal_bytes = _unsealed_bytes(self._journal)
        self.stuck = trouble.read(self._journal) or self._delay()
        self.reason = self.broken or self._shortage()

    def give_up(self, reason: str) -> None:
        """Accept nothing more until this process is started again."""
        self.broken = self.reason = reason

    def _delay(self) -> str:
        """A sealer that hangs, or dies before it has sealed anything, says nothing itself."""
        ready = [path.stat().st_mtime for path in self._journal.glob(f"*/*{READY}") if path.exists()]
        waits_s = time.time() - min(ready, default=math.inf)
        return f"What is ready to be sealed has waited for {waits_s:.0f} s." if waits_s > _WAITS_S else ""

    def _shortage(self) -> str:
        if self.free_bytes < self._floor:
            return (
                f"The disk has {self.free_bytes // _MIB:,} MiB left; events are accepted from {self._floor // _MIB:,} MiB on."
            )
        if self.journal_bytes > self._limit:
            return (
                f"The sealer is behind by {self.journal_bytes // _MIB:,} MiB of journal; "
                f"events are accepted up to {self._limit // _MIB:,} MiB."
            )
        return ""


def _unsealed_bytes(root: Path) -> int:
    total = 0
    for folder in root.iterdir():
        if folder.is_dir():
            with os.scandir(folder) as entries:
                total += sum(_size(entry) for entry in entries)
    return total


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # sealed between the listing and this look
        return 0
