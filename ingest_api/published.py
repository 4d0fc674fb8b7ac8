"""Reads what is published in Redis: each answer from one publication, however many keys it is put together from.

The keys of one board are swapped in one transaction, so they are read in one, and their revisions are compared all the same.
Pages, neighbours and ranks are kept while their boards' revisions stand; one that was seen within a tenth of a second is taken
to stand.
None means that Redis cannot answer; then the warehouse does. What does not belong here: the keys (`warehouse.boards`).
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache, partial
from time import monotonic
from typing import Any, Final, NamedTuple, cast

import msgspec

from ingest_api import answers
from ingest_api.answers import Line, tag_of
from ingest_api.problems import Problem
from ingest_api.readers import Found
from ingest_api.redis_link import RedisError, RedisLink, Reply, command
from warehouse.boards import TOP
from warehouse.boards import Board as TopPage
from warehouse.calendar import Calendar, Window

_FIELDS: Final = (b"start", b"published_at", b"players", b"revision", b"exact")
_TRIES: Final = 3
_FRESH_S: Final = 0.1
_KEPT_BYTES: Final = 16 * 1024 * 1024
_OVERHEAD_BYTES: Final = 512  # of Python for an answer that is kept

_MULTI, _EXEC = command(b"MULTI"), command(b"EXEC")
_top_page = msgspec.json.Decoder(TopPage)


class Board(NamedTuple):
    """Which board is asked for: its window, and the key it is published under."""

    window: Window
    key: bytes


class Head(NamedTuple):
    """The metadata of a publication; `tag` tells it from every other: a Redis that starts anew counts from 1 again."""

    window: Window
    published_at: str
    players: int
    revision: int
    tag: str


class Published:
    """Asks one Redis."""

    def __init__(self, link: RedisLink, calendar: Calendar) -> None:
        self._link = link
        self._calendar = calendar
        self._heads: dict[bytes, tuple[Head, Reply, float]] = {}
        self._kept: OrderedDict[Hashable, Found] = OrderedDict()
        self._kept_bytes = 0

    async def page(self, board: Board, offset: int, limit: int) -> Found | None:
        """A page by rank."""
        if self._fresh([board]) is None and await self._head(board) is None:
            return None
        if kept := self._known([board], (offset, limit)):
            return kept
        read = await self._rows(board, offset, limit)
        if read is None:
            return None
        head, lines = read
        behind = offset + limit
        goes_on = answers.cursor(behind, head.tag) if behind < head.players else None
        page = answers.Page(**self._about(head), entries=lines, next=goes_on)
        return self._keep([head], (offset, limit), Found(head.tag, msgspec.json.encode(page)))

    async def around(self, board: Board, player: str, limit: int) -> Found | None:
        """A player's neighbours.

        Raises:
            Problem: 404 for a player who is not on the board.
        """
        if kept := self._known([board], (player, limit)):
            return kept
        for _ in range(_TRIES):
            found = await self._lines([board], [player])
            if found is None:
                return None
            head, (me,) = found[0]
            if me is None:
                raise Problem(404, "not-found", answers.not_on_board(player, board.window))
            read = await self._rows(board, answers.first_around(me.rank, limit), limit)
            if read is None:
                return None
            if read[0] == head:  # else a publication came between the rank and its neighbours
                around = answers.Board(**self._about(head), entries=read[1])
                return self._keep([head], (player, limit), Found(head.tag, msgspec.json.encode(around)))
        return None

    async def friends(self, board: Board, players: list[str]) -> Found | None:
        """Chosen players, by rank."""
        found = await self._lines([board], players)
        if found is None:
            return None
        head, lines = found[0]
        here = sorted((line for line in lines if line is not None), key=lambda line: line.rank)
        missing = [player for player, line in zip(players, lines, strict=True) if line is None]
        return Found(head.tag, msgspec.json.encode(answers.Friends(**self._about(head), entries=here, missing=missing)))

    async def ranks(self, boards: list[Board], player: str) -> Found | None:
        """A player's place on each of the boards, all at one moment.

        Raises:
            Problem: 404 for a player who is on none.
        """
        if kept := self._known(boards, player):
            return kept
        found = await self._lines(boards, [player])
        if found is None:
            return None
        if all(line is None for _, (line,) in found):
            raise Problem(404, "not-found", answers.on_no_board(player))
        place = partial(answers.place, self._calendar)
        places = [place(head.window, line, revision=head.revision, players=head.players) for head, (line,) in found]
        answer = msgspec.json.encode(answers.Ranks(player, places))
        return self._keep([head for head, _ in found], player, Found(None, answer))

    async def progress(self, player: str) -> Found | None:
        """How far a player is."""
        key = f"player:{player}:progress".encode()
        (values,) = await self._ask(command(b"HMGET", key, b"xp", b"level", b"xp_to_next", b"updated_at"), 1)
        xp, level, missing, updated_at = cast("list[bytes | None]", values)
        if xp is None or level is None or updated_at is None:
            return None
        progress = answers.Progress(player, int(xp), int(level), int(missing) if missing else None, updated_at.decode())
        return Found(None, msgspec.json.encode(progress))

    def _fresh(self, boards: list[Board]) -> list[Head] | None:
        """The publications that stood within the last tenth of a second; None where that is not known of all the boards."""
        since, heads = monotonic() - _FRESH_S, []
        for board in boards:
            head, _, asked = self._heads.get(board.key, (None, None, 0.0))
            if head is None or asked < since or head.window != board.window:
                return None
            heads.append(head)
        return heads

    def _known(self, boards: list[Board], question: Hashable) -> Found | None:
        """The answer that was kept, if the publications it is of still stand."""
        heads = self._fresh(boards)
        if heads is None:
            return None
        name = (question, *[head.tag for head in heads])
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
        return kept

    def _keep(self, heads: list[Head], question: Hashable, answer: Found) -> Found:
        name = (question, *[head.tag for head in heads])
        if name not in self._kept:
            self._kept_bytes += len(answer.body) + _OVERHEAD_BYTES
            self._kept[name] = answer
        while self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1].body) + _OVERHEAD_BYTES
        return answer

    async def _head(self, board: Board) -> Head | None:
        return self._read_head(board, (await self._ask(_head_of(board.key), 1))[0])

    def _read_head(self, board: Board, values: Reply) -> Head | None:
        """The metadata, or None where none is published, or that of another window: the day has just changed.

        None, too, where the ZSET has not everybody's exact XP: all that is told of such a board comes from the warehouse.
        """
        head, before, _ = self._heads.get(board.key, (None, None, 0.0))
        if head is None or values != before or head.window != board.window:
            start, published_at, players, revision, exact = cast("list[bytes | None]", values)
            if start != str(board.window.start).encode() or exact != b"1":
                return None
            if published_at is None or players is None or revision is None:
                return None
            tag = tag_of(board.window, f"{int(revision)}.{published_at.decode()}")
            head = Head(board.window, published_at.decode(), int(players), int(revision), tag)
        self._heads[board.key] = head, values, monotonic()
        return head

    async def _lines(self, boards: list[Board], players: list[str]) -> list[tuple[Head, list[Line | None]]] | None:
        """Each player's line on each of the boards, or None for it."""
        names = [_word(player.encode()) for player in players]
        commands: list[bytes] = []
        for board in boards:
            rank, score = _rank_of(board.key), _score_of(board.key)
            commands.append(_head_of(board.key))
            for name in names:
                commands += (rank + name, score + name)
        rest = iter(await self._together(commands))
        found = []
        for board in boards:
            head = self._read_head(board, next(rest))
            if head is None:
                return None
            found.append((head, [_line(player, next(rest), next(rest)) for player in players]))
        return found

    async def _rows(self, board: Board, offset: int, limit: int) -> tuple[Head, list[Line]] | None:
        """Metadata and a page of one publication. Lines behind the first `TOP` do not know their movement."""
        behind, last = max(offset, TOP), offset + limit - 1
        commands = [_head_of(board.key)]
        if offset < TOP:
            commands.append(command(b"GET", b"%b:top" % board.key))
        if last >= TOP:
            commands.append(command(b"ZREVRANGE", board.key, b"%d" % behind, b"%d" % last, b"WITHSCORES"))
        rest = iter(await self._together(commands))
        head, lines = self._read_head(board, next(rest)), []
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


@lru_cache(maxsize=256)
def _head_of(key: bytes) -> bytes:
    """What asks for a board's metadata."""
    return command(b"HMGET", b"%b:meta" % key, *_FIELDS)


@lru_cache(maxsize=256)
def _rank_of(key: bytes) -> bytes:
    """ZREVRANK of a board, but for the player."""
    return b"*3\r\n" + _word(b"ZREVRANK") + _word(key)


@lru_cache(maxsize=256)
def _score_of(key: bytes) -> bytes:
    """ZSCORE of a board, but for the player."""
    return b"*3\r\n" + _word(b"ZSCORE") + _word(key)


def _word(word: bytes) -> bytes:
    """A part of a command, as it goes over the wire."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _line(player: str, rank: Reply, score: Reply) -> Line | None:
    return None if rank is None or score is None else Line(cast("int", rank) + 1, player, _score(cast("bytes", score)))


def _score(score: bytes) -> int:
    """The XP: the fraction only orders equals (docs/adr/0004)."""
    return math.floor(float(score))
