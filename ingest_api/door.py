"""What a worker knows of the ids that came lately, so that it can say `duplicates` at once.

It forgets: exactness comes from the fold over a day's events, which knows every id. What does not belong here: Redis.
"""

from typing import Final

from warehouse.events import Event

# Two generations of this many ids, some 150 bytes each: a bound on the worker's memory, not on what is exact.
_GENERATION: Final = 200_000


class Door:
    """Ids seen lately, with a hash of the content that came under each.

    Content is what the contract's fields say; unknown fields do not make two events different.
    """

    def __init__(self) -> None:
        self._recent: dict[str, int] = {}
        self._older: dict[str, int] = {}

    def take(self, events: list[Event]) -> bool:
        """Remember events of which none has an id that another one has, here or lately: true of almost every body.

        Returns whether it is true of these; if not, none of them is remembered.
        """
        named = [event for event in events if event.eventId is not None]
        if not named:
            return True
        ids = {event.eventId for event in named}
        if len(ids) < len(named) or not self._recent.keys().isdisjoint(ids) or not self._older.keys().isdisjoint(ids):
            return False
        self.remember(named)
        return True

    def content_of(self, event: Event) -> int | None:
        """The hash of what came under the event's id before, or None."""
        if event.eventId is None:
            return None
        known = self._recent.get(event.eventId)
        return self._older.get(event.eventId) if known is None else known

    def remember(self, events: list[Event]) -> None:
        """Take note of events that are on their way to the disk."""
        self._recent.update({event.eventId: hash(event) for event in events if event.eventId is not None})
        if len(self._recent) > _GENERATION:
            self._older, self._recent = self._recent, {}

    def forget(self) -> None:
        """Forget everything: a commit failed, so that some of it is not on disk."""
        self._recent.clear()
        self._older.clear()
