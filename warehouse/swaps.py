"""How a board gets into Redis: whole or by its changes, either way in one transaction (docs/adr/0013-publishing-boards.md).

Whole, it is built beside, under a staging key of the same slot, and takes the place of the old one by RENAME. What changed is
applied to the board that is there, if that is surely the one last sent. Beside the ZSET, in its slot, lies a stamp that says
which publication it is. What does not belong here: which boards are due, and when (`publisher.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import polars as pl
import redis

from warehouse.boards import (
    EXPIRY,
    Board,
    BoardMeta,
    Client,
    are_exact,
    entries,
    meta_key,
    node_of,
    page_key,
    scores,
    staging_key,
    stamp_key,
)
from warehouse.calendar import Calendar, Window, WindowKind, iso

# A variadic ZADD of 1,000 members is the fast one; ten of them hold the server for 13 ms.
CHUNK, GROUP = 1_000, 10_000
# Changes hold the server while they are applied (20,000 for 30 to 60 ms); a whole board is built in small groups.
CHANGES_AT_ONCE = 20_000
STAGING_EXPIRY_S = 3600  # a publisher that dies leaves nothing for ever

_HASH = pl.col("player_id").hash(1) ^ pl.col("score").hash(2)

Command = tuple[Any, ...] | bytes


class Stamp(msgspec.Struct, frozen=True):
    """Which publication a ZSET is: its number, the window's start, what it was made from, its count and checksum."""

    revision: int
    start: str
    source: str
    players: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A board as it was last put under a key: player_id, score and their hash by rank, and its stamp."""

    members: pl.DataFrame
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Standing:
    """What lies under a key.

    `sound` says that ZSET, page and metadata are there and of the stamp's publication; `revision` is the highest of them.
    """

    stamp: Stamp | None = None
    revision: int = 0
    sound: bool = False
    expires_in_s: int = 0


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a publication did: `how` is `whole` or `changes`, `members` how many were sent or taken out."""

    sent: Sent
    how: str
    members: int


class Wire:
    """One connection of a client: WATCH holds on it, and commands made in bulk go over it as they are."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()  # redis-py's connections are half typed
        self._owed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind:
            self._connection.disconnect()  # what it watched, and any transaction it had begun, ends with it
        self._pool.release(self._connection)

    def send(self, *commands: Command) -> None:
        """Send commands without waiting for their replies."""
        packed = [[command] if isinstance(command, bytes) else self._connection.pack_command(*command) for command in commands]
        self._owed += len(commands)
        self._connection.send_packed_command([b"".join(part for parts in packed for part in parts)])

    def receive(self) -> list[Any]:
        """The replies to everything sent.

        Raises:
            redis.RedisError: one of them is an error, the first that is.
        """
        replies, self._owed = [self._reply() for _ in range(self._owed)], 0
        for reply in replies:
            for value in reply if isinstance(reply, list) else [reply]:
                if isinstance(value, redis.ResponseError):
                    raise value
        return replies

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands and wait for their replies (errors as `receive`)."""
        self.send(*commands)
        return self.receive()

    def transaction(self, *commands: Command) -> None:
        """Have all of them, or nothing.

        Raises:
            redis.WatchError: something watched has changed.
        """
        if self.ask(("MULTI",), *commands, ("EXEC",))[-1] is None:
            raise redis.WatchError("another publisher changed the board meanwhile")

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:  # a reply like any other: those that follow it must be read too
            return error


def standings(client: Client, keys: list[str]) -> dict[str, Standing]:
    """What lies under each key."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(stamp_key(key))
            pipe.zcard(key)
            pipe.get(page_key(key))
            pipe.hget(meta_key(key), "revision")
            pipe.ttl(stamp_key(key))
        replies = pipe.execute()
    return {key: _standing(*replies[5 * n : 5 * n + 5]) for n, key in enumerate(keys)}


def publish_board(
    client: Client,
    key: str,
    xp: pl.DataFrame,
    top: pl.DataFrame,
    *,
    calendar: Calendar,
    window: Window,
    source: str,
    watermark: int | None,
    now: float,
    sent: Sent | None = None,
) -> Swapped:
    """Swap a board in: by its changes where `sent`, what was last put under the key, is still there; else whole.

    `xp` has the columns player_id and xp of everybody by rank, `top` those of an entry of the first `TOP`; `source` is a
    digest of what it was made from; `watermark` is the newest event counted, `now` the time of publication (s since the epoch).

    Raises:
        redis.RedisError: the old board stays.
    """
    score = scores(xp["xp"].to_numpy())
    exact = are_exact(score, xp["xp"].to_numpy())
    members = xp.select("player_id", score=pl.Series(score)).with_columns(hash=_HASH)
    stamp = Stamp(0, str(window.start), source, members.height, f"{_checksum(members):016x}")
    node = node_of(client, key)
    with Wire(node) as wire:
        changes = _changes(sent, members, stamp) if sent else None
        wire.ask(("WATCH", key, stamp_key(key)))
        before = standings(client, [key])[key]
        if sent is None or changes is None or not before.sound or before.stamp != sent.stamp:
            changes = None
            _stage(wire, node, staging_key(key), members)
            wire.ask(("WATCH", key, stamp_key(key)))
            before = standings(client, [key])[key]
        stamp = msgspec.structs.replace(stamp, revision=before.revision + 1)
        meta = _meta(window, calendar, stamp, watermark, now, exact=exact)
        ttl = _ttl(window, calendar, now)
        swap: list[Command] = [*(_whole(key, members) if changes is None else _in_place(key, changes))]
        swap += [("HSET", stamp_key(key), *_flat(stamp)), ("EXPIRE", key, ttl), ("EXPIRE", stamp_key(key), ttl)]
        pages: list[Command] = [
            ("SET", page_key(key), msgspec.json.encode(Board(meta, entries(top))), "EX", ttl),
            ("HSET", meta_key(key), *_flat(meta)),
            ("EXPIRE", meta_key(key), ttl),
        ]
        if isinstance(client, redis.RedisCluster):  # page and metadata are in other slots: each follows the ZSET
            wire.transaction(*swap)
            for command in pages:
                client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types here
        else:
            wire.transaction(*swap, *pages)
    sent = Sent(members, stamp)
    return Swapped(sent, "whole", members.height) if changes is None else Swapped(sent, "changes", len(changes))


def withdraw(client: Client, key: str) -> None:
    """Take a board away, with all that belongs to it."""
    with client.pipeline(transaction=False) as pipe:
        for name in (key, stamp_key(key), page_key(key), meta_key(key)):
            pipe.unlink(name)
        pipe.execute()


@dataclass(frozen=True, slots=True)
class _Changes:
    """What turns one board into another: members to put, with their scores, and players to take out."""

    put: pl.DataFrame
    gone: list[str]

    def __len__(self) -> int:
        return self.put.height + len(self.gone)


def _changes(sent: Sent, members: pl.DataFrame, stamp: Stamp) -> _Changes | None:
    """What changed since, or None where the whole board is the better or the safer way.

    Both boards fall along their ranks, so that one pass finds each score in the other: 1 million members take 6 ms, a search
    for each of them 23, a join by player 200.
    """
    old = sent.members
    if sent.stamp.start != stamp.start or not old.height or not members.height:
        return None
    rising = [board.select(score=-pl.col("score")).set_sorted("score") for board in (old, members)]
    at = rising[1].join_asof(rising[0].with_row_index("at"), on="score")["at"].fill_null(0).to_numpy()
    same = old["hash"].to_numpy()[at] == members["hash"].to_numpy()
    kept = np.zeros(old.height, dtype=bool)
    kept[at[same]] = True
    put, left = members[np.flatnonzero(~same)], old[np.flatnonzero(~kept)]
    changes = _Changes(put, left.join(put, on="player_id", how="anti")["player_id"].to_list())
    result = (int(sent.stamp.checksum, 16) - _checksum(left) + _checksum(put)) % 2**64
    return changes if len(changes) <= CHANGES_AT_ONCE and result == int(stamp.checksum, 16) else None


def _checksum(members: pl.DataFrame) -> int:
    """The sum of the members' hashes modulo 2⁶⁴. Another version of Polars may hash otherwise: then boards are sent whole."""
    return int(members["hash"].to_numpy().sum(dtype=np.uint64))


def _stage(wire: Wire, node: redis.Redis, staging: str, members: pl.DataFrame) -> None:
    """Build a board beside, group by group.

    Each group is a transaction that fails if anyone else has touched the key: what a killed publisher still had on its way, or
    a second one at the same time, cannot mix with ours. The next group is made while the server works on this one.
    """
    fence: tuple[Command, ...] = (("WATCH", staging), ("ZCARD", staging))
    put = 0
    try:
        wire.ask(("UNLINK", staging))
        wire.send(*fence)
        for group in members.iter_slices(GROUP):
            commands = [*zadds(staging, group)]
            _check(wire.receive(), put)
            wire.send(("MULTI",), *commands, ("EXPIRE", staging, STAGING_EXPIRY_S), ("EXEC",), *fence)
            put += group.height
        _check(wire.receive(), put)
    except redis.ResponseError:  # refused, for example because Redis is full: leave it the room
        node.unlink(staging)
        raise


def _check(replies: list[Any], put: int) -> None:
    if replies[-1] != put or None in replies:
        raise redis.WatchError("another publisher was building the same board")


def _whole(key: str, members: pl.DataFrame) -> Iterator[Command]:
    # UNLINK frees the old members in a thread of Redis; a RENAME over them holds the server, 0.4 s for a million.
    yield ("UNLINK", key)
    if members.height:
        yield ("RENAME", staging_key(key), key)


def _in_place(key: str, changes: _Changes) -> Iterator[Command]:
    if changes.gone:
        yield ("ZREM", key, *changes.gone)
    yield from zadds(key, changes.put)


def zadds(key: str, members: pl.DataFrame) -> Iterator[bytes]:
    """The members as ZADD commands, made in bulk: redis-py needs 5 s for a million of them, this 0.4 s."""
    name, score = key.encode(), pl.col("score").cast(pl.String)
    player = pl.col("player_id")
    pair = pl.format("${}\r\n{}\r\n${}\r\n{}\r\n", score.str.len_bytes(), score, player.str.len_bytes(), player)
    for chunk in members.iter_slices(CHUNK):
        pairs: str = chunk.select(pair.str.join()).item()
        yield b"*%d\r\n$4\r\nZADD\r\n$%d\r\n%b\r\n%b" % (2 + 2 * chunk.height, len(name), name, pairs.encode())


def _meta(window: Window, calendar: Calendar, stamp: Stamp, watermark: int | None, now: float, *, exact: bool) -> BoardMeta:
    endless = window.kind is WindowKind.ALLTIME
    return BoardMeta(
        window=str(window.kind),
        season=window.season,
        start=str(window.start),
        end="" if endless else str(window.end),
        resets_at="" if endless else iso(calendar.starts_at(window.end)),
        published_at=iso(now),
        watermark="" if watermark is None else iso(watermark),
        players=stamp.players,
        revision=stamp.revision,
        exact=int(exact),
    )


def _ttl(window: Window, calendar: Calendar, now: float) -> int:
    """How long a board stays, in seconds: a running one from its publication, a closed one from its end."""
    closed_for = max(0.0, now - calendar.starts_at(window.end))
    return max(1, round(EXPIRY[window.kind].total_seconds() - closed_for))


def _flat(fields: msgspec.Struct) -> list[Any]:
    return [part for field in msgspec.structs.asdict(fields).items() for part in field]


def _standing(fields: dict[str, str], count: int, page: str | None, revision: str | None, ttl: int) -> Standing:
    stamp = msgspec.convert(fields, Stamp, strict=False) if fields else None
    if stamp is None:
        return Standing(revision=int(revision or 0))
    pages = [] if page is None else [msgspec.json.decode(page, type=Board).meta.revision]
    sound = count == stamp.players and pages == [stamp.revision] and revision == str(stamp.revision)
    return Standing(stamp, max(stamp.revision, int(revision or 0)), sound, ttl)
