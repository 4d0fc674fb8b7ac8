"""Reads what is published in Redis: each answer from one publication, however many keys it is put together from.

The keys of one board are swapped in one transaction, so they are read in one, and their revisions are compared all the same.
None means that Redis cannot answer; then the warehouse does. What does not belong here: the keys (`warehouse.boards`).
"""

import math
from collections import OrderedDict
from functools import partial
from typing import Any, Final, NamedTuple, cast

import msgspec

from ingest_api import answers
from ingest_api.answers import Line, tag_of
from ingest_api.redis_link import RedisError, RedisLink, Reply, command
from warehouse.boards import TOP
from warehouse.boards import Board as TopPage
from warehouse.calendar import Calendar, Window

_FIELDS: Final = (b"start", b"published_at", b"players", b"revision")
_TRIES: Final = 3
_PAGES: Final = 64

_MULTI, _EXEC = command(b"MULTI"), command(b"EXEC")
_top_page = msgspec.json.Decoder(TopPage)


class Board(NamedTuple):
    """Which board is asked for: its window, and the key it is published under."""

    window: Window
    key: bytes


class Head(NamedTuple):
    """The metadata of a publication."""

    window: Window
    published_at: str
    players: int
    revision: int

    @property
    def tag(self) -> str:
        """What tells it from every other: a Redis that starts anew counts its revisions from 1 again."""
        return tag_of(self.window, f"{self.revision}.{self.published_at}")


class Published:
    """Asks one Redis."""

    def __init__(self, link: RedisLink, calendar: Calendar) -> None:
        self._link = link
        self._calendar = calendar
        self._pages: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    async def page(self, board: Board, offset: int, limit: int, known: str | None) -> tuple[Head, bytes] | None:
        """A page, ready to be sent; without a body where `known` is its tag. The pages asked for last are kept."""
        head = await self._head(board)
        if head is None or head.tag == known:
            return head and (head, b"")
        name = (head.tag, offset, limit)
        if (body := self._pages.get(name)) is not None:
            self._pages.move_to_end(name)
            return head, body
        read = await self._rows(board, offset, limit)
        if read is None:
            return None
        head, lines = read
        behind = offset + limit
        goes_on = answers.cursor(behind, head.tag) if behind < head.players else None
        body = msgspec.json.encode(answers.Page(**self._about(head), entries=lines, next=goes_on))
        self._pages[(head.tag, offset, limit)] = body
        if len(self._pages) > _PAGES:
            self._pages.popitem(last=False)
        return head, body

    async def around(self, board: Board, player: str, limit: int) -> tuple[Head, answers.Board | None] | None:
        """The neighbours of a player; no board where they are not on it."""
        for _ in range(_TRIES):
            found = await self._lines([board], [player])
            if found is None:
                return None
            head, (me,) = found[0]
            if me is None:
                return head, None
            read = await self._rows(board, answers.first_around(me.rank, limit), limit)
            if read is None:
                return None
            if read[0] == head:  # else a publication came between the rank and its neighbours
                return head, answers.Board(**self._about(head), entries=read[1])
        return None

    async def friends(self, board: Board, players: list[str]) -> tuple[Head, answers.Friends] | None:
        """Chosen players, by rank."""
        found = await self._lines([board], players)
        if found is None:
            return None
        head, lines = found[0]
        here = sorted((line for line in lines if line is not None), key=lambda line: line.rank)
        missing = [player for player, line in zip(players, lines, strict=True) if line is None]
        return head, answers.Friends(**self._about(head), entries=here, missing=missing)

    async def ranks(self, boards: list[Board], player: str) -> answers.Ranks | None:
        """A player's place on each of the boards, all at one moment."""
        found = await self._lines(boards, [player])
        if found is None:
            return None
        place = partial(answers.place, self._calendar)
        return answers.Ranks(
            player, [place(head.window, line, revision=head.revision, players=head.players) for head, (line,) in found]
        )

    async def progress(self, player: str) -> answers.Progress | None:
        """How far a player is."""
        key = f"player:{player}:progress".encode()
        (values,) = await self._ask(command(b"HMGET", key, b"xp", b"level", b"xp_to_next", b"updated_at"), 1)
        xp, level, missing, updated_at = cast("list[bytes | None]", values)
        if xp is None or level is None or updated_at is None:
            return None
        return answers.Progress(player, int(xp), int(level), int(missing) if missing else None, updated_at.decode())

    async def _head(self, board: Board) -> Head | None:
        return _read_head(board, (await self._ask(_head_of(board), 1))[0])

    async def _lines(self, boards: list[Board], players: list[str]) -> list[tuple[Head, list[Line | None]]] | None:
        """Each player's line on each of the boards, or None for it."""
        names = [player.encode() for player in players]
        commands: list[bytes] = []
        for board in boards:
            commands += [_head_of(board), command(b"ZMSCORE", board.key, *names)]
            commands += [command(b"ZREVRANK", board.key, name) for name in names]
        rest = iter(await self._together(commands))
        found = []
        for board in boards:
            head, scores = _read_head(board, next(rest)), cast("list[bytes | None]", next(rest))
            if head is None:
                return None
            ranks = [cast("int | None", next(rest)) for _ in names]
            found.append((head, [_line(*one) for one in zip(players, ranks, scores, strict=True)]))
        return found

    async def _rows(self, board: Board, offset: int, limit: int) -> tuple[Head, list[Line]] | None:
        """Metadata and a page of one publication. Lines behind the first `TOP` do not know their movement."""
        behind, last = max(offset, TOP), offset + limit - 1
        commands = [_head_of(board)]
        if offset < TOP:
            commands.append(command(b"GET", b"%b:top" % board.key))
        if last >= TOP:
            commands.append(command(b"ZREVRANGE", board.key, b"%d" % behind, b"%d" % last, b"WITHSCORES"))
        rest = iter(await self._together(commands))
        head, lines = _read_head(board, next(rest)), []
        if head is None:
            return None
        if offset < TOP:
            top = cast("bytes | None", next(rest))
            if top is None or (page := _top_page.decode(top)).meta.revision != head.revision:
                return None
            lines = [
                Line(one.rank, one.player_id, one.score, one.previous_rank, one.movement)
                for one in page.entries[offset : last + 1]
            ]
        if last >= TOP:
            members = cast("list[bytes]", next(rest))
            pairs = zip(members[::2], members[1::2], strict=True)
            lines += [Line(rank, player.decode(), _score(score)) for rank, (player, score) in enumerate(pairs, behind + 1)]
        return head, lines

    def _about(self, head: Head) -> dict[str, Any]:
        return answers.about(
            self._calendar, head.window, updated_at=head.published_at, revision=head.revision, players=head.players
        )

    async def _together(self, commands: list[bytes]) -> list[Reply]:
        """The replies of commands that see one moment."""
        replies = await self._ask(_MULTI + b"".join(commands) + _EXEC, len(commands) + 2)
        found = cast("list[Reply | RedisError]", replies[-1])
        for reply in found:
            if isinstance(reply, RedisError):
                raise reply
        return cast("list[Reply]", found)

    async def _ask(self, commands: bytes, replies: int) -> list[Reply]:
        if not self._link.up:
            raise RedisError(self._link.trouble)
        return await self._link.ask(commands, replies)


def _head_of(board: Board) -> bytes:
    return command(b"HMGET", b"%b:meta" % board.key, *_FIELDS)


def _read_head(board: Board, values: Reply) -> Head | None:
    """The metadata, or None where none is published, or that of another window: the day has just changed."""
    start, published_at, players, revision = cast("list[bytes | None]", values)
    if start != str(board.window.start).encode() or published_at is None or players is None or revision is None:
        return None
    return Head(board.window, published_at.decode(), int(players), int(revision))


def _line(player: str, rank: int | None, score: bytes | None) -> Line | None:
    return None if rank is None or score is None else Line(rank + 1, player, _score(score))


def _score(score: bytes) -> int:
    """The XP: the fraction only orders equals (docs/adr/0004)."""
    return math.floor(float(score))
