"""The thread in which a group waits for the disk, so that the next one is read and checked meanwhile.

Only the commit happens there: one call that leaves the interpreter to the others. What does not belong here: writing rows.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ingest_api.journal import Journal

Done = Callable[[Exception | None], None]


class Committer:
    """Commits the journal, one group at a time."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._loop = loop
        self._orders: SimpleQueue[Done] = SimpleQueue()
        threading.Thread(target=self._run, name="commit", daemon=True).start()

    def commit(self, done: Done) -> None:
        """Commit what was put; then call `done` in the loop's thread, with the journal's error if there was one."""
        self._orders.put(done)

    def _run(self) -> None:
        while True:
            done = self._orders.get()
            error: Exception | None = None
            try:
                self._journal.commit()
            except Exception as failure:  # noqa: BLE001 - whatever it is, the group is told, and the next one is committed
                error = failure
            self._loop.call_soon_threadsafe(done, error)
