"""The read API: boards, ranks, progress and seasons, from Redis, else from the warehouse (docs/reads.md).

Redis is asked over a connection of its own, the warehouse in processes of its own: reading stands in the way of no event.
What does not belong here: the shapes (`answers.py`), who may read (`access.py`).
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import date
from functools import lru_cache, partial
from typing import Final, NamedTuple

from ingest_api import answers
from ingest_api.access import Access
from ingest_api.answers import AroundQuery, FriendsQuery, PageQuery, WindowQuery
from ingest_api.clients import Addresses
from ingest_api.gate import Gate, Rate
from ingest_api.metrics import Metrics
from ingest_api.problems import Problem
from ingest_api.published import Board, Published
from ingest_api.questions import (
    AskAround,
    AskFriends,
    AskPage,
    AskProgress,
    AskRanks,
    AskSeasons,
    AskWhole,
    Question,
    WhichBoard,
)
from ingest_api.readers import Found, Readers
from ingest_api.redis_link import RedisError, RedisLink
from ingest_api.request import Request
from ingest_api.request_limit import RequestLimit
from warehouse.boards import key_of
from warehouse.calendar import ONE_DAY, Calendar, WindowKind
from warehouse.errors import FairboardError
from warehouse.settings import Settings

_ANSWERS_AT_ONCE, _ANSWERS_WAITING = 2, 64
_STREAMS_AT_ONCE, _STREAMS_WAITING = 2, 4
_NDJSON: Final = b"application/x-ndjson"
_JSON: Final = b"application/json"
_HEAD: Final = b"content-type: %b\r\nvary: accept\r\ncache-control: no-cache\r\nx-fairboard-source: %b\r\n"


class Plan(NamedTuple):
    """How a read is answered: by `published`, where that gives None or Redis is away by the warehouse's answer to `question`.

    `tag` is the only revision that will do, that of a cursor.
    """

    published: Callable[[], Awaitable[Found | None]] | None
    question: Question
    tag: str | None = None


class Answer(NamedTuple):
    """Status, header lines and body."""

    status: int
    head: bytes
    body: bytes


class Reads:
    """Answers reads, each in a task."""

    def __init__(self, settings: Settings, link: RedisLink, access: Access, metrics: Metrics) -> None:
        self._calendar = Calendar.of(settings)
        self._window_at = lru_cache(maxsize=256)(self._calendar.window_at)
        self._windows_of = lru_cache(maxsize=2)(self._calendar.windows_of)
        self._link = link
        self._published = Published(link, self._calendar)
        self._access = access
        self._metrics = metrics
        self._limit = RequestLimit(
            Gate(settings.rate_limit, settings.rate_window_s), link, "reads", "by this reader and address"
        )
        self._addresses = Addresses(settings.trusted_proxies)
        self._readers = Readers(_ANSWERS_AT_ONCE, _ANSWERS_WAITING)
        self._streams = Readers(_STREAMS_AT_ONCE, _STREAMS_WAITING)
        self._fixed: dict[bytes, Callable[[Request], Plan]] = {
            b"/leaderboard": self._page,
            b"/leaderboard/players": self._friends,
            b"/seasons": self._seasons,
        }
        self._of_player: tuple[tuple[bytes, bytes, Callable[[bytes, Request], Plan]], ...] = (
            (b"/leaderboard/around/", b"", self._around),
            (b"/players/", b"/rank", self._ranks),
            (b"/players/", b"/progress", self._progress),
        )

    def route(self, path: bytes) -> Callable[[Request], Plan] | None:
        """What plans the answer to a path, or None where nothing does."""
        if plan := self._fixed.get(path):
            return plan
        for prefix, suffix, planned in self._of_player:
            name = path[len(prefix) : len(path) - len(suffix)]
            if path.startswith(prefix) and path.endswith(suffix) and name and b"/" not in name:
                return partial(planned, name)
        return None

    async def answer(self, request: Request, plan: Callable[[Request], Plan]) -> Answer | None:
        """The answer; None where it was sent already, as a stream.

        Raises:
            Problem: there is none; it says why, and what to do.
        """
        address = self._addresses.client(request.address, request.headers.get(b"x-forwarded-for"))
        reader = b"!read:%b:%b" % (self._access.reader(request), address)
        try:
            return await self._answer(request, plan(request), self._limit.check(reader))
        finally:
            asyncio.get_running_loop().call_soon(self._limit.count, reader)  # behind the answer

    def close(self) -> None:
        """End the processes that read the warehouse."""
        self._readers.close()
        self._streams.close()

    async def _answer(self, request: Request, planned: Plan, rate: Rate | None) -> Answer | None:
        rate_head = b"" if rate is None else rate.head()
        if isinstance(planned.question, AskWhole):
            return await self._stream(request, planned.question, rate_head)
        found, source = await self._ask_redis(planned), b"redis"
        if found is None:
            self._metrics.add("fairboard_read_warehouse_total")
            found, source = await self._readers.ask(planned.question), b"warehouse"
        if planned.tag is not None and found.tag != planned.tag:
            raise Problem(410, "cursor", "The board has a newer revision; begin again without a cursor.", field="cursor")
        tag = (found.tag or hashlib.sha256(found.body).hexdigest()[:16]).encode()
        head = _HEAD % (_JSON, source) + b'etag: "%b"\r\n' % tag + rate_head
        if tag in _known(request):
            return Answer(304, head, b"")
        return Answer(200, head, found.body)

    # Plans, by route

    def _page(self, request: Request) -> Plan:
        if _NDJSON in request.headers.get(b"accept", b""):
            if request.version == "1.0":
                raise Problem(505, "version", "A whole board is sent in chunks, which HTTP/1.0 does not know.")
            return Plan(None, AskWhole(self._board(answers.parse(request.query, WindowQuery))[1]))
        query = answers.parse(request.query, PageQuery)
        board, which = self._board(query)
        offset, tag = (0, None) if query.cursor is None else answers.read_cursor(query.cursor)
        question = AskPage(which, offset, query.limit)
        if board is None:
            return Plan(None, question, tag)
        return Plan(partial(self._published.page, board, offset, query.limit), question, tag)

    def _around(self, name: bytes, request: Request) -> Plan:
        player = answers.text(name)
        query = answers.parse(request.query, AroundQuery)
        board, which = self._board(query)
        question = AskAround(which, player, query.limit)
        if board is None:
            return Plan(None, question)
        return Plan(partial(self._published.around, board, player, query.limit), question)

    def _friends(self, request: Request) -> Plan:
        query = answers.parse(request.query, FriendsQuery)
        board, which = self._board(query)
        players = list(dict.fromkeys(query.ids))
        question = AskFriends(which, players)
        if board is None:
            return Plan(None, question)
        return Plan(partial(self._published.friends, board, players), question)

    def _ranks(self, name: bytes, request: Request) -> Plan:
        player = answers.text(name)
        _no_parameters(request)
        today = self._today()
        boards = [Board(window, window.redis_key.encode()) for window in self._windows_of(today)]
        return Plan(partial(self._published.ranks, boards, player), AskRanks(player, today))

    def _progress(self, name: bytes, request: Request) -> Plan:
        player = answers.text(name)
        _no_parameters(request)
        return Plan(partial(self._published.progress, player), AskProgress(player))

    def _seasons(self, request: Request) -> Plan:
        _no_parameters(request)
        return Plan(None, AskSeasons(self._today()))

    def _board(self, query: WindowQuery) -> tuple[Board | None, WhichBoard]:
        """The board that a query names, in Redis (None where it can only be in the warehouse) and in the warehouse.

        Raises:
            Problem: 400 or 404 where there is and was none.
        """
        today = self._today()
        day = _day_of(self._calendar, query, today)
        which = WhichBoard(query.window, None if query.window is WindowKind.ALLTIME else query.season, day)
        if day is None:
            return None, which
        try:
            window = self._window_at(query.window, day)
        except FairboardError as error:
            raise Problem(404, "not-found", str(error)) from None
        stands = day >= min(window.end - ONE_DAY, today)  # else it is how the board stood, which Redis does not keep
        key = key_of(window, self._calendar, today) if stands else None
        return (Board(window, key.encode()) if key else None), which

    def _today(self) -> date:
        return self._calendar.day_of(int(time.time()))

    # Asking

    async def _ask_redis(self, plan: Plan) -> Found | None:
        if plan.published is None or not self._link.up:
            return None
        try:
            return await plan.published()
        except RedisError:
            return None

    async def _stream(self, request: Request, question: AskWhole, head: bytes) -> Answer | None:
        """Send a whole board from one file of the lake, as fast as the client reads it."""
        async with self._streams.open(question) as (revision, parts):
            tag = f"{revision}.ndjson".encode()
            head = _HEAD % (_NDJSON, b"warehouse") + b'etag: "%b"\r\n' % tag + head
            if tag in _known(request):
                return Answer(304, head, b"")
            await request.stream(200, head, parts)
            return None


def _day_of(calendar: Calendar, query: WindowQuery, today: date) -> date | None:
    """The day whose window is asked for; None for the last one played of a season that is over.

    Raises:
        Problem: 400 for a day outside the season or in the future, 404 for a season that is unknown or has not begun.
    """
    if query.at is not None and query.at > today:
        raise Problem(400, "query", f"{query.at} is in the future; today is {today}.", field="at")
    if query.season is None or query.window is WindowKind.ALLTIME:
        return query.at or today
    try:
        season = calendar.find_season(query.season)
    except FairboardError as error:
        raise Problem(404, "not-found", str(error), field="season") from None
    if season.start > today:
        raise Problem(404, "not-found", f"Season {season.id} begins on {season.start}.", field="season")
    if query.at is not None and not season.start <= query.at < season.end:
        span = f"{season.start} to {season.end - ONE_DAY}"
        raise Problem(400, "query", f"{query.at} is not in season {season.id} ({span}).", field="at")
    if query.at is not None or today < season.end:
        return query.at or today
    return season.end - ONE_DAY if query.window is WindowKind.SEASONAL else None


def _known(request: Request) -> set[bytes]:
    """The tags that `If-None-Match` names."""
    given = request.headers.get(b"if-none-match", b"")
    return {tag.strip().removeprefix(b"W/").strip(b'"') for tag in given.split(b",") if tag.strip()}


def _no_parameters(request: Request) -> None:
    if request.query:
        raise Problem(400, "query", f"{request.path.decode('latin-1')} takes no parameters.")
