"""Boards of the lake read in parts: a page, some players, or all of it in constant memory, from one revision throughout.

What does not belong here: which window is asked for (`readings.py`), and Redis (`boards.py`).
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse.calendar import Window, WindowKind
from warehouse.engine import Engine
from warehouse.readings import leaderboard, locate
from warehouse.tables import LEADERBOARDS

COLUMNS = ("rank", "player_id", "xp", "previous_rank", "movement")
BATCH = 4_096
_SCHEMA = pa.schema([LEADERBOARDS.schema.field(name) for name in COLUMNS])


@dataclass(frozen=True, slots=True)
class BoardRows:
    """A window's board, by rank. `revision` differs where the content may; `made_at` is in s since the epoch, None if empty."""

    window: Window
    players: int
    revision: str
    made_at: float | None
    batches: Callable[[], Iterator[pa.RecordBatch]]

    def page(self, offset: int, limit: int) -> pa.Table:
        """Up to `limit` rows behind the first `offset`; the columns are `COLUMNS`."""
        found, before = [], 0
        for batch in self.batches():
            if before + batch.num_rows > offset:
                start = max(0, offset - before)
                found.append(batch.slice(start, offset + limit - before - start))
            before += batch.num_rows
            if before >= offset + limit:
                break
        return pa.Table.from_batches(found, _SCHEMA)

    def of(self, players: list[str]) -> pa.Table:
        """The rows of those players who are on it, by rank."""
        wanted = pa.array(players, pa.string())
        return pa.Table.from_batches(
            [batch.filter(pc.is_in(batch["player_id"], value_set=wanted)) for batch in self.batches()], _SCHEMA
        )


@contextmanager
def open_board(engine: Engine, kind: WindowKind, season_id: str | None = None, at: date | None = None) -> Iterator[BoardRows]:
    """The board of the window that `locate` finds, as it stood at the end of that day.

    The window's file is opened once and read through that handle. How an earlier day left the board is computed, and held in
    memory.

    Raises:
        FairboardError: there is no such season, or `at` is not in it.
    """
    window, day = locate(engine, kind, season_id, at)
    found = engine.lake.one(LEADERBOARDS, window.partition)
    if found is None:
        yield BoardRows(window, 0, "empty", None, lambda: iter(()))
        return
    made_at = found.modified_ms / 1000
    with engine.lake.path(found).open("rb") as file:
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 16)
        as_of = next(parquet.iter_batches(batch_size=1, columns=["as_of"]))["as_of"][0].as_py()
        if as_of > day:
            yield _as_it_stood(engine, kind, season_id, day, made_at)
            return
        batches = partial(parquet.iter_batches, BATCH, columns=list(COLUMNS))
        yield BoardRows(window, found.rows, found.sha256[:16], made_at, batches)


def _as_it_stood(engine: Engine, kind: WindowKind, season_id: str | None, day: date, made_at: float) -> BoardRows:
    standing = leaderboard(engine, kind, season_id, day)
    rows = standing.board.select(COLUMNS).to_arrow().cast(_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA) as writer:
        writer.write_table(rows)
    revision = hashlib.sha256(sink.getvalue()).hexdigest()[:16]
    return BoardRows(standing.window, rows.num_rows, revision, made_at, lambda: iter(rows.to_batches(BATCH)))
