"""`GET /leaderboard` and `GET /players/{id}/progress`: what is published in Redis, over HTTP.

Asked in threads of their own, with redis-py: reading never stands in the way of events. What does not belong here: publishing
(`warehouse.boards`).
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from urllib.parse import parse_qs, unquote

import msgspec

from ingest_api.problems import Problem
from warehouse.boards import Client, read_board, read_progress
from warehouse.calendar import Calendar, WindowKind
from warehouse.embedded_redis import REDIS_ERRORS, connect
from warehouse.errors import FairboardError, StoreUnavailable
from warehouse.settings import Settings

MAX_LIMIT: Final = 1_000
_DEFAULT_LIMIT: Final = 100
_THREADS: Final = 4

T = TypeVar("T")


class Progress(msgspec.Struct, frozen=True):
    """How far a player is. `xp_to_next` is null at the last level."""

    player_id: str
    xp: int
    level: int
    xp_to_next: int | None
    updated_at: str


class Reads:
    """Reads the boards and the progress that are published."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._calendar = Calendar.of(settings)
        self._threads = ThreadPoolExecutor(_THREADS, "read")
        self._client: Client | None = None

    def leaderboard(self, query: str) -> bytes:
        """The running board that the query names, as JSON.

        Raises:
            Problem: 400 for a query that names none, 404 where none is published, 503 where Redis is away.
        """
        given = parse_qs(query)
        kind, limit = _window(given.get("window", ["daily"])[0]), _limit(given.get("limit", [str(_DEFAULT_LIMIT)])[0])
        today = self._calendar.day_of(int(time.time()))
        try:
            key = self._calendar.window_at(kind, today).redis_key
        except FairboardError as error:
            raise Problem(404, "no-board", str(error)) from None
        board = self._ask(lambda client: read_board(client, key, limit))
        if board is None:
            raise Problem(404, "no-board", f"No {kind} board is published yet.")
        return msgspec.json.encode(board)

    def progress(self, name: str) -> bytes:
        """A player's progress, as JSON. `name` is the id as it stands in the path.

        Raises:
            Problem: 404 where none is published, 503 where Redis is away.
        """
        player = unquote(name)
        found = self._ask(lambda client: read_progress(client, player))
        if not found:
            raise Problem(404, "no-player", "No progress of this player is published.")
        missing = int(found["xp_to_next"]) if found["xp_to_next"] else None
        return msgspec.json.encode(Progress(player, int(found["xp"]), int(found["level"]), missing, found["updated_at"]))

    def later(self, read: Callable[[], bytes]) -> "asyncio.Future[bytes]":
        """Run a reading in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, read)

    def _ask(self, question: Callable[[Client], T]) -> T:
        try:
            client = self._client or connect(self._settings)
            answer = question(client)
        except (*REDIS_ERRORS, StoreUnavailable):
            self._client = None  # the next reading looks again where Redis is
            raise Problem(
                503, "redis", "Redis is away; events are taken all the same.", headers=(("retry-after", "5"),)
            ) from None
        self._client = client
        return answer


def _window(text: str) -> WindowKind:
    try:
        return WindowKind(text)
    except ValueError:
        known = ", ".join(WindowKind)
        raise Problem(400, "query", f"There is no such window; known: {known}.", field="window") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_LIMIT):
        raise Problem(400, "query", f"limit is a whole number from 1 to {MAX_LIMIT}.", field="limit")
    return int(text)
