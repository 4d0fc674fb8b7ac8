"""Answers reads from the warehouse, in a process of its own: DuckDB and Parquet take neither the worker's interpreter nor core.

    python -m ingest_api.reader

A line on stdin is a question (JSON) or, empty, asks for more of the answer; each gets one frame on stdout: a `Reply`, then the
parts of the body, then an empty one. So nothing is read before it is wanted, and an answer is left by asking something else.
It ends with its stdin, so with the worker that asks (`readers.py`). What does not belong here: HTTP, Redis.
"""

import os
import sys
from collections.abc import Iterator
from datetime import date
from typing import BinaryIO, Final

import msgspec
import polars as pl
import pyarrow as pa

from ingest_api.answers import (
    Board,
    Friends,
    Line,
    Page,
    Progress,
    Ranks,
    Seasons,
    SeasonSpan,
    about,
    cursor,
    first_around,
    not_on_board,
    on_no_board,
    place,
    tag_of,
)
from ingest_api.questions import (
    LENGTH_BYTES,
    AskAround,
    AskFriends,
    AskPage,
    AskProgress,
    AskRanks,
    AskSeasons,
    AskWhole,
    Question,
    Reply,
)
from warehouse import readings
from warehouse.calendar import Season, WindowKind, iso
from warehouse.engine import DuckDBEngine, Engine
from warehouse.errors import FairboardError
from warehouse.privacy import keep_private
from warehouse.settings import load_settings
from warehouse.standings import BoardRows, open_board
from warehouse.tables import LEADERBOARDS, PROGRESSION

_NICE: Final = 5


class Unknown(FairboardError):
    """What was asked for is not there."""


def answer(engine: Engine, question: Question) -> Iterator[bytes]:
    """The frames of an answer, of one snapshot of the lake throughout.

    Raises:
        FairboardError: there is no such season, player, day.
    """
    with engine.lake:
        yield from _frames(engine, question)


def _frames(engine: Engine, question: Question) -> Iterator[bytes]:
    if isinstance(question, AskRanks):
        yield from _whole(_ranks(engine, question))
    elif isinstance(question, AskProgress):
        yield from _whole(_progress(engine, question.player))
    elif isinstance(question, AskSeasons):
        yield from _whole(_seasons(engine, question.today))
    else:
        with open_board(engine, question.board.kind, question.board.season, question.board.day) as rows:
            head = msgspec.json.encode(Reply(tag_of(rows.window, rows.revision)))
            if isinstance(question, AskWhole):
                yield head
                yield from (lines(batch) for batch in rows.batches())
            else:
                part = msgspec.json.encode(_part(engine, rows, question))
                yield head
                yield part


def lines(batch: pa.RecordBatch) -> bytes:
    """Rows of a board as NDJSON, each a `Line`."""
    names = dict(zip(batch.schema.names, Line.__struct_encode_fields__, strict=True))
    return pl.DataFrame(batch).rename(names).write_ndjson().encode()


def _whole(found: msgspec.Struct) -> Iterator[bytes]:
    yield msgspec.json.encode(Reply())
    yield msgspec.json.encode(found)


def _part(engine: Engine, rows: BoardRows, question: AskPage | AskAround | AskFriends) -> Board:
    window = rows.window
    made_at = None if rows.made_at is None else iso(rows.made_at)
    board = about(engine.calendar, window, updated_at=made_at, revision=None, players=rows.players)
    if isinstance(question, AskFriends):
        found = _lines(rows.of(question.players))
        here = {line.player_id for line in found}
        return Friends(**board, entries=found, missing=[name for name in question.players if name not in here])
    if isinstance(question, AskAround):
        me = _lines(rows.of([question.player]))
        if not me:
            raise Unknown(not_on_board(question.player, window))
        return Board(**board, entries=_lines(rows.page(first_around(me[0].rank, question.limit), question.limit)))
    behind = question.offset + question.limit
    goes_on = cursor(behind, tag_of(window, rows.revision)) if behind < rows.players else None
    return Page(**board, entries=_lines(rows.page(question.offset, question.limit)), next=goes_on)


def _lines(rows: pa.Table) -> list[Line]:
    return [Line(*row) for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)]


def _ranks(engine: Engine, question: AskRanks) -> Ranks:
    places = []
    for window in engine.calendar.windows_of(question.today):
        with open_board(engine, window.kind, at=question.today) as rows:
            line = next(iter(_lines(rows.of([question.player]))), None)
        places.append(place(engine.calendar, window, line, revision=None, players=rows.players))
    if all(one.rank is None for one in places):
        raise Unknown(on_no_board(question.player))
    return Ranks(question.player, places)


def _progress(engine: Engine, player: str) -> Progress:
    days = readings.progress(engine, player)
    if not days.height:
        raise Unknown(f"Nobody has seen a player {player!r}. Ids are exact; /leaderboard lists some.")
    last = days.row(0, named=True)
    made_ms = max(file.modified_ms for file in engine.lake.of(PROGRESSION, {"event_date": last["event_date"]}))
    return Progress(player, last["xp_total"], last["level_after"], last["xp_to_next"], iso(made_ms / 1000))


def _seasons(engine: Engine, today: date) -> Seasons:
    calendar = engine.calendar
    running = calendar.season_of(today)
    boards = {
        str(keys["season"]) for keys in engine.lake.partitions(LEADERBOARDS) if keys["window_kind"] == WindowKind.SEASONAL
    }
    known = {calendar.find_season(name) for name in boards} | {*calendar.announced, *([running] if running else [])}
    return Seasons([_span(engine, season, season == running) for season in sorted(known, key=lambda s: s.start, reverse=True)])


def _span(engine: Engine, season: Season, running: bool) -> SeasonSpan:
    return SeasonSpan(season.id, str(season.start), str(season.end), iso(engine.calendar.starts_at(season.end)), running)


def serve(engine: Engine, questions: BinaryIO, out: BinaryIO) -> None:
    """Answer until the questions end."""
    decoder = msgspec.json.Decoder(Question)
    frames: Iterator[bytes] = iter(())
    for line in questions:
        try:
            if asked := line.strip():
                frames = answer(engine, decoder.decode(asked))
            frame = next(frames, b"")
        except FairboardError as error:
            frame = msgspec.json.encode(Reply(refusal=str(error)))
        out.write(len(frame).to_bytes(LENGTH_BYTES) + frame)
        out.flush()


if __name__ == "__main__":
    keep_private()
    os.nice(_NICE)
    with DuckDBEngine(load_settings()) as warehouse:
        warehouse.connection.execute("SET threads TO 1")
        serve(warehouse, sys.stdin.buffer, sys.stdout.buffer)
