"""What a worker asks the process that reads the warehouse, and the head of what comes back: one JSON document each.

What does not belong here: answering (`reader.py`), asking (`readers.py`).
"""

from datetime import date
from typing import Final

import msgspec

from warehouse.calendar import WindowKind

LENGTH_BYTES: Final = 4  # before every frame


class WhichBoard(msgspec.Struct, frozen=True):
    """A board as `readings.locate` finds it."""

    kind: WindowKind
    season: str | None
    day: date | None


class AskPage(msgspec.Struct, frozen=True, tag="page"):
    """A page of a board."""

    board: WhichBoard
    offset: int
    limit: int


class AskAround(msgspec.Struct, frozen=True, tag="around"):
    """A player's neighbours."""

    board: WhichBoard
    player: str
    limit: int


class AskFriends(msgspec.Struct, frozen=True, tag="friends"):
    """Chosen players."""

    board: WhichBoard
    players: list[str]


class AskWhole(msgspec.Struct, frozen=True, tag="whole"):
    """A whole board, as NDJSON."""

    board: WhichBoard


class AskRanks(msgspec.Struct, frozen=True, tag="ranks"):
    """A player's place on every board that runs."""

    player: str
    today: date


class AskProgress(msgspec.Struct, frozen=True, tag="progress"):
    """A player's progress."""

    player: str


class AskSeasons(msgspec.Struct, frozen=True, tag="seasons"):
    """The seasons."""

    today: date


Question = AskPage | AskAround | AskFriends | AskWhole | AskRanks | AskProgress | AskSeasons


class Reply(msgspec.Struct, frozen=True):
    """What comes before a body: the revision's tag (None: the body tells), or why there is none (a 404)."""

    tag: str | None = None
    refusal: str | None = None
