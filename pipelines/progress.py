"""How a person sees long work: a bar on a terminal, elsewhere a line now and then. On stderr: stdout is for what comes out.

What does not belong here: what is done meanwhile.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipelines.output import complain, shown
from warehouse.watching import Watch

LINE_EVERY_S = 10.0


@contextmanager
def watched() -> Iterator[Watch]:
    """Somebody who shows a person how far the work has come. A bar is gone when it is over."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


class _Bar:
    """A bar for one task after the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def begin(self, task: str, steps: int) -> None:
        """See `Watch`."""
        self._progress.reset(self._task, description=shown(task), total=steps)

    def reach(self, step: int) -> None:
        """See `Watch`."""
        self._progress.update(self._task, completed=step)


class _Lines:
    """A line every ten seconds; short work says nothing."""

    def __init__(self) -> None:
        self._task, self._steps, self._said_at = "", 0, time.monotonic()

    def begin(self, task: str, steps: int) -> None:
        """See `Watch`."""
        self._task, self._steps = task, steps
        self.reach(0)

    def reach(self, step: int) -> None:
        """See `Watch`."""
        if time.monotonic() - self._said_at >= LINE_EVERY_S:
            complain(f"{self._task}: {step:,} of {self._steps:,}")
            self._said_at = time.monotonic()
