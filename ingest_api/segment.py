"""What stands in a segment of the journal: its tables, how a group of requests is written, how all of it is read again.

A row holds requests that were committed together, packed: a row for each cost an eighth of what a single event costs.
What does not belong here: when segments begin, end and are synced (`journal.py`).
"""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import zstandard
from msgspec import Struct

from warehouse.errors import FairboardError

OTHER_CONTENT: Final = "this id came before with other content; the first one stays"  # a refusal at the door and of the sealer
# Far below the gigabyte that SQLite takes; packing more at once saves nothing.
_ROW_BYTES: Final = 1024 * 1024
SCHEMA: Final = """
CREATE TABLE requests (seq INTEGER PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE refusals (
    seq INTEGER PRIMARY KEY, received_ms INTEGER NOT NULL, key_id TEXT NOT NULL, request_id TEXT NOT NULL,
    position INTEGER NOT NULL, field TEXT NOT NULL, reason TEXT NOT NULL, event_id TEXT, body BLOB NOT NULL);
"""


class Entry(Struct, frozen=True, gc=False, array_like=True):
    """A request's accepted events, as they came.

    `form` is `event`, `array` or `lines`, with `+gzip` or `+zstd` where the client packed the body.
    `positions` is a JSON array of the events' places in the request, or None where all of it was accepted. `count` is how many
    events the door saw in it; 0 in a segment of an older version.
    """

    received_ms: int
    key_id: str
    id_base: bytes
    request_id: str
    form: str
    body: bytes
    positions: bytes | None
    count: int = 0


class Refusal(NamedTuple):
    """One refused event of a request."""

    received_ms: int
    key_id: str
    request_id: str
    position: int
    field: str
    reason: str
    event_id: str | None
    body: bytes


class SegmentDamagedError(FairboardError):
    """A segment cannot be read as it was written."""


_ADD_REQUESTS: Final = "INSERT INTO requests (packed) VALUES (?)"
_ADD_REFUSAL: Final = "INSERT INTO refusals VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"  # `seq`, then a `Refusal`
_READ_REQUESTS: Final = "SELECT packed FROM requests ORDER BY seq"
_READ_REFUSALS: Final = "SELECT * FROM refusals ORDER BY seq"
# The checksum is the only one of what has moved from the WAL into the file.
_compress = zstandard.ZstdCompressor(level=-1, write_checksum=True).compress
_encode = msgspec.msgpack.Encoder().encode


def write(connection: sqlite3.Connection, entries: Iterable[Entry], refusals: Iterable[Refusal]) -> None:
    """Begin a transaction and add a group. For one thread: there is one compressor."""
    rows = [(_compress(_encode(row)),) for row in _rows(entries)]
    connection.execute("BEGIN")
    connection.executemany(_ADD_REQUESTS, rows)
    connection.executemany(_ADD_REFUSAL, refusals)


def read(path: Path) -> tuple[list[Entry], list[Refusal]]:
    """All of a segment that is not written any more, in the order it came.

    Raises:
        SegmentDamagedError: it is no such segment, or damaged.
    """
    decompress, decode = zstandard.ZstdDecompressor().decompress, msgspec.msgpack.Decoder(list[Entry]).decode
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            entries = [entry for (row,) in connection.execute(_READ_REQUESTS) for entry in decode(decompress(row))]
            return entries, [Refusal(*row) for _, *row in connection.execute(_READ_REFUSALS)]
        finally:
            connection.close()
    except (sqlite3.DatabaseError, zstandard.ZstdError, msgspec.DecodeError) as error:
        raise SegmentDamagedError(str(error)) from error


def _rows(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    row, size = [], 0
    for entry in entries:
        row.append(entry)
        size += len(entry.body)
        if size >= _ROW_BYTES:
            yield row
            row, size = [], 0
    if row:
        yield row
