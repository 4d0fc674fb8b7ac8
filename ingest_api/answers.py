"""The read API's contract as types: what may be asked, what is answered. JSON and the OpenAPI document both come from them.

What does not belong here: where an answer is found (`published.py` in Redis, `reader.py` in the warehouse).
"""

import base64
import binascii
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ingest_api.problems import Problem
from warehouse.calendar import Calendar, Window, WindowKind, iso

MAX_LIMIT: Final = 1_000
MAX_IDS: Final = 100
_CURSOR_DIGITS: Final = 12

Q = TypeVar("Q", bound=msgspec.Struct)
Moment = Annotated[str, Meta(description="ISO 8601, UTC.", examples=["2026-11-30T00:00:00Z"])]
PlayerId = Annotated[str, Meta(min_length=1, max_length=128, examples=["player_12345"])]


class WindowQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which board."""

    window: Annotated[WindowKind, Meta(description="daily, weekly, seasonal or alltime.")] = WindowKind.DAILY
    season: Annotated[
        str | None, Meta(description="A season's id, of those that /seasons lists; the running one where it is missing.")
    ] = None
    at: Annotated[
        date | None, Meta(description="A day, YYYY-MM-DD: the board of the window it is in, as it stood at that day's end.")
    ] = None


class PageQuery(WindowQuery, frozen=True):
    """A page of it."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description=f"How many entries, 1 to {MAX_LIMIT:,}.")] = 100
    cursor: Annotated[str | None, Meta(description="`next` of the page before, to go on behind it in the same revision.")] = (
        None
    )


class AroundQuery(WindowQuery, frozen=True):
    """The neighbours of a player."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description=f"How many entries, 1 to {MAX_LIMIT:,}.")] = 11


class FriendsQuery(WindowQuery, frozen=True, kw_only=True):
    """Chosen players."""

    ids: Annotated[
        list[PlayerId],
        Meta(
            min_length=1,
            max_length=MAX_IDS,
            description=f"1 to {MAX_IDS} player ids with commas between them; a comma in one is %2C.",
        ),
    ]


class Line(msgspec.Struct, frozen=True, rename="camel"):
    """One player on a board."""

    rank: Annotated[int, Meta(description="1 for the leader; no two players share one.", examples=[3])]
    player_id: PlayerId
    score: Annotated[int, Meta(description="XP won in the window.", examples=[4_150])]
    previous_rank: Annotated[
        int | UnsetType | None,
        Meta(
            description="Rank at the end of the day before; null for the newly ranked, absent where it is not known.",
            examples=[5],
        ),
    ] = UNSET
    movement: Annotated[int | UnsetType | None, Meta(description="previousRank - rank: above 0 is up.", examples=[2])] = UNSET


class Board(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Lines of one board, all of one revision."""

    window: WindowKind
    season: Annotated[str, Meta(description="Season's id; `all` for the all-time board.", examples=["2026-11"])]
    start: Annotated[str, Meta(description="First day of the window.", examples=["2026-11-23"])]
    end: Annotated[
        str | None, Meta(description="The day it ends before; null for the all-time board.", examples=["2026-11-30"])
    ]
    resets_at: Moment | None
    updated_at: Annotated[str | None, Meta(description="When this board was made; null where nobody has been on it.")]
    revision: Annotated[
        int | None, Meta(description="Number of its publication in Redis; null from the warehouse.", examples=[17])
    ]
    players: Annotated[int, Meta(description="On the whole board.", examples=[48_210])]
    entries: list[Line]


class Page(Board, frozen=True, rename="camel", kw_only=True):
    """A page of a board, by rank."""

    next: Annotated[str | None, Meta(description="`cursor` of the page behind this one; null on the last.")]


class Friends(Board, frozen=True, rename="camel", kw_only=True):
    """Chosen players, by rank on the whole board."""

    missing: Annotated[list[str], Meta(description="Those who are not on it.")]


class Place(msgspec.Struct, frozen=True, rename="camel"):
    """Where a player stands on one running board; rank, score and percentile are null where they are not on it."""

    window: WindowKind
    season: str
    start: str
    resets_at: Moment | None
    revision: int | None
    players: int
    rank: int | None
    score: int | None
    percentile: Annotated[
        float | None, Meta(description="Percent of the board that ranks at or below; 100 for the leader.", examples=[99.9])
    ]


class Ranks(msgspec.Struct, frozen=True, rename="camel"):
    """Where a player stands on every running board."""

    player_id: PlayerId
    ranks: list[Place]


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """How far a player is."""

    player_id: PlayerId
    xp: int
    level: int
    xp_to_next: Annotated[int | None, Meta(description="Null at the last level.")]
    updated_at: Moment


class SeasonSpan(msgspec.Struct, frozen=True, rename="camel"):
    """A season; `end` is exclusive."""

    id: Annotated[str, Meta(examples=["2026-11"])]
    start: Annotated[str, Meta(examples=["2026-11-01"])]
    end: Annotated[str, Meta(examples=["2026-12-01"])]
    resets_at: Moment
    running: bool


class Seasons(msgspec.Struct, frozen=True):
    """Seasons that have boards, the running one, and those a calendar announces; the newest first."""

    seasons: list[SeasonSpan]


def parse(query: bytes, kind: type[Q]) -> Q:
    """The parameters of a query string, as their type.

    Raises:
        Problem: 400 for a parameter that is unknown, given twice, or has a value it cannot have.
    """
    given: dict[str, str | list[str]] = {}
    for part in filter(None, query.split(b"&")):
        raw_name, _, raw = part.partition(b"=")
        name = text(raw_name)
        if name in given:
            raise Problem(400, "query", f"{name} is given twice.", field=name)
        # A list is cut before its parts are decoded: an id may hold a comma.
        given[name] = (
            [text(one.replace(b"+", b" ")) for one in raw.split(b",")] if name == "ids" else text(raw.replace(b"+", b" "))
        )
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(str(error), kind) from None


def text(raw: bytes) -> str:
    """Percent-decoded text.

    Raises:
        Problem: 400 where it is no UTF-8.
    """
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Problem(400, "encoding", "The address is not percent-encoded UTF-8.") from None


def cursor(offset: int, tag: str) -> str:
    """What goes on behind `offset` entries of the board with that tag."""
    return base64.urlsafe_b64encode(f"{offset}:{tag}".encode()).decode().rstrip("=")


def read_cursor(given: str) -> tuple[int, str]:
    """Offset and tag of a cursor.

    Raises:
        Problem: 400 where it is none of ours.
    """
    try:
        offset, _, tag = (
            base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True).decode().partition(":")
        )
        if offset.isascii() and offset.isdigit() and len(offset) <= _CURSOR_DIGITS and tag:
            return int(offset), tag
    except (binascii.Error, ValueError):
        pass
    raise Problem(400, "cursor", "This is no cursor; take `next` of an answer as it stands.", field="cursor")


def percentile(rank: int, players: int) -> float:
    """Percent of a board that ranks at or below `rank`, rounded down to hundredths: 100 is the leader's alone."""
    return 10_000 * (players - rank + 1) // players / 100


def about(calendar: Calendar, window: Window, *, updated_at: str | None, revision: int | None, players: int) -> dict[str, Any]:
    """What every answer says of its board: the fields of `Board` but the entries."""
    return {
        "window": window.kind,
        "season": window.season,
        "start": str(window.start),
        "end": None if window.kind is WindowKind.ALLTIME else str(window.end),
        "resets_at": _resets_at(calendar, window),
        "updated_at": updated_at,
        "revision": revision,
        "players": players,
    }


def tag_of(window: Window, revision: str) -> str:
    """What tells this revision of this board from every other, in Redis and in the warehouse."""
    return f"{window.kind}.{window.season}.{window.start}.{revision}"


def first_around(rank: int, limit: int) -> int:
    """How many lead before the first of `limit` neighbours of a rank: half of them above, more where fewer are below."""
    return max(0, rank - 1 - limit // 2)


def not_on_board(player: str, window: Window) -> str:
    """Why there is nobody around."""
    return (
        f"{player!r} is not on the {window.kind} board that starts on {window.start}. Ids are exact; /leaderboard lists some."
    )


def place(calendar: Calendar, window: Window, stand: Line | None, *, revision: int | None, players: int) -> Place:
    """A player's place on a board, from their line of it."""
    rank, score = (None, None) if stand is None else (stand.rank, stand.score)
    share = None if rank is None else percentile(rank, players)
    resets_at = _resets_at(calendar, window)
    return Place(window.kind, window.season, str(window.start), resets_at, revision, players, rank, score, share)


def on_no_board(player: str) -> str:
    """Why a player has no rank."""
    return (
        f"{player!r} is on no board that runs now. Ids are exact; a player is on a board from their first XP in its window on."
    )


@lru_cache(maxsize=256)
def _resets_at(calendar: Calendar, window: Window) -> str | None:
    return None if window.kind is WindowKind.ALLTIME else iso(calendar.starts_at(window.end))


def _wrong(message: str, kind: type[msgspec.Struct]) -> Problem:
    """A refusal that names the parameter, and says what it takes."""
    reason, _, path = message.partition(" - at `$.")
    name = path.rstrip("`").partition("[")[0]
    for ours, theirs in (
        ("Unknown parameter", "Object contains unknown field"),
        ("Missing parameter", "Object missing required field"),
    ):
        reason = reason.replace(theirs, ours)
    known = {field.name: field.type.__metadata__[0].description for field in msgspec.structs.fields(kind)}
    return Problem(400, "query", f"{reason}. {known.get(name) or 'There are: ' + ', '.join(known)}", field=name or None)
