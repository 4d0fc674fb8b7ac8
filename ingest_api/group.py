"""Group commit: requests that wait together go to disk together.

What does not belong here: what is in a request, what the client is told.
"""

import asyncio
import time

from ingest_api.door import Door
from ingest_api.journal import Journal, Refusal, Request
from warehouse.errors import FairboardError


class Group:
    """Collects what arrives in one turn of the event loop and commits it in the next.

    The commit runs in the loop's own thread: while it waits for the disk, arriving requests collect in the HTTP server's
    thread and make the next group. Handing the commit to another thread cost more than it hid (see docs/ingest.md).
    """

    def __init__(self, journal: Journal, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._door = door
        self._loop = loop
        self._requests: list[Request] = []
        self._refusals: list[Refusal] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._size = 0

    def join(self, request: Request | None, refusals: list[Refusal]) -> asyncio.Future[None]:
        """Put a request into the next commit. The future is done when it is on disk, or has the journal's error."""
        if not self._waiting:
            self._loop.call_soon(self.commit)
        if request is not None:
            self._requests.append(request)
            self._size += len(request.body)
        self._refusals += refusals
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def commit(self) -> None:
        """Commit what has collected, and tell everyone who waits."""
        requests, refusals, waiting, size = self._requests, self._refusals, self._waiting, self._size
        self._requests, self._refusals, self._waiting, self._size = [], [], [], 0
        error: FairboardError | None = None
        try:
            self._journal.append(requests, refusals, size)
        except FairboardError as failure:
            error = failure
            self._door.forget()
        for future in waiting:
            if future.cancelled():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self._journal.rotate_if_due(time.monotonic())
