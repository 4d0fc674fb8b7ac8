"""What long work tells of its progress: one task after the other, each in steps.

What does not belong here: how a person sees it (`pipelines/progress.py`).
"""

from typing import Protocol


class Watch(Protocol):
    """Follows long work."""

    def begin(self, task: str, steps: int) -> None:
        """A task of about so many steps begins; the one before is over."""

    def reach(self, step: int) -> None:
        """So many steps of the task are done."""


class _Unwatched:
    """Nobody wants to know."""

    def begin(self, task: str, steps: int) -> None:
        """See `Watch`."""

    def reach(self, step: int) -> None:
        """See `Watch`."""


UNWATCHED: Watch = _Unwatched()
