"""Where publications go: the SQL database and the Redis of one deployment.

What does not belong here: what is published (`publications.py`, `publisher.py`).
"""

import time

from warehouse.boards import Client
from warehouse.calendar import Calendar
from warehouse.database import open_database
from warehouse.embedded_redis import REDIS_ERRORS, connect, never_ran, where_is
from warehouse.errors import StoreUnavailable
from warehouse.settings import Settings
from warehouse.swaps import Sent


class Outlets:
    """Both, at one moment `now` (s since the epoch), and the boards last sent through this object, by key."""

    sent: dict[str, Sent]

    def __init__(self, settings: Settings, now: float | None = None, *, needs_redis: bool = True) -> None:
        """Open both; without `needs_redis` the database alone where no Redis ever ran.

        Raises:
            StoreUnavailable: one of them cannot be reached; nothing was published.
        """
        self._calendar = Calendar.of(settings)
        self.turn(time.time() if now is None else now)
        self.sent = {}
        self._redis = _open_redis(settings) if needs_redis or not never_ran(settings) else None
        self.database = open_database(settings)

    @property
    def has_redis(self) -> bool:
        """Whether there is a Redis to publish to."""
        return self._redis is not None

    @property
    def redis(self) -> Client:
        """The Redis, for who has asked for one or made sure of it."""
        assert self._redis is not None
        return self._redis

    def turn(self, now: float) -> None:
        """Set the clock of what is published next."""
        self.now = now
        self.today = self._calendar.day_of(int(now))


def _open_redis(settings: Settings) -> Client:
    try:
        client = connect(settings)
        client.ping()
    except REDIS_ERRORS as error:
        raise StoreUnavailable(
            f"Redis at {where_is(settings)} does not answer: {error}. Nothing was published; the boards "
            "in it are as they were. Start it (`make up` or `fairboard redis`), or correct FAIRBOARD_REDIS_URL, and "
            "publish again: everything is in the lake."
        ) from error
    return client
