"""A file of history as events: plain NDJSON, gzip of it, or Parquet, and what is said of a file that is none of them.

What does not belong here: what the events must be, and where they go (`imports.py`).
"""

import gzip
import hashlib
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import FairboardError
from warehouse.watching import Watch

READ_BYTES, LINES_A_STEP = 1 << 20, 10_000
PARQUET_ROWS = 50_000
MARK = b"\xef\xbb\xbf"  # of UTF-8, as editors on Windows put it in front
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_FOREIGN = {
    _GZIP: "gzip inside gzip",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_LONGEST_MAGIC = max(map(len, [_PARQUET, *_FOREIGN]))

_WIRE_EVENT = {"event_id": "eventId", "player_id": "playerId", "type": "type", "ts": "ts"}
_WIRE_PAYLOAD = {
    "delta_xp": "deltaXp",
    "activity": "activity",
    "boss_id": "bossId",
    "duration_ms": "durationMs",
    "party_size": "partySize",
    "difficulty": "difficulty",
    "item_id": "itemId",
    "rarity": "rarity",
    "quantity": "quantity",
}


def digest_of(path: Path, watch: Watch) -> str:
    """16 hex digits of the SHA-256 of what the file holds, unpacked: packing it names no event anew.

    Raises:
        FairboardError: the file cannot be read, is damaged gzip, or something else; nothing was imported from it.
    """
    sha256 = hashlib.sha256()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FairboardError(
                f"{path} cannot be read: it is read twice, so it must be a file. Nothing was imported from it."
            )
        watch.begin(f"checking {path.name}", status.st_size)
        with _unpacked(path) as (content, raw):
            head = content.read(_LONGEST_MAGIC)
            if what := next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None):
                raise FairboardError(
                    f"{path} is {what}; what can be imported is NDJSON in UTF-8, gzip of it, and Parquet. "
                    "Nothing was imported from it."
                )
            if head.startswith(_PARQUET) and content is not raw:
                raise FairboardError(f"{path} is Parquet inside gzip: unpack it first. Nothing was imported from it.")
            sha256.update(head)
            for part in iter(partial(content.read, READ_BYTES), b""):
                sha256.update(part)
                watch.reach(raw.tell())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FairboardError(f"{path} is damaged: {error}. Nothing was imported from it; mend it, and try again.") from error
    except OSError as error:
        raise FairboardError(f"{path} cannot be read: {error.strerror}. Nothing was imported from it.") from error
    return sha256.hexdigest()[:16]


def events_of(path: Path, watch: Watch) -> Iterator[tuple[int, bytes]]:
    """The events of a file that has a digest, as JSON: (line or row, from 1; the bytes).

    Raises:
        FairboardError: it is damaged; the events before the damage were given.
    """
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET)) == _PARQUET
    try:
        yield from _parquet_events(path, watch) if is_parquet else _lines(path, watch)
    except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
        raise FairboardError(
            f"{path} is damaged: {error}. What stood before the damage may be imported; mend the file and import it again, "
            "events with an eventId count once."
        ) from error


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[BufferedIOBase, BufferedReader]]:
    """A file's content, unpacked where it is gzip, and the file as it is, which tells how far it has been read."""
    with path.open("rb") as raw:
        packed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        if not packed:
            yield raw, raw
            return
        with gzip.GzipFile(fileobj=raw) as content:
            yield content, raw


def _lines(path: Path, watch: Watch) -> Iterator[tuple[int, bytes]]:
    watch.begin(f"reading {path.name}", path.stat().st_size)
    with _unpacked(path) as (content, raw):
        for number, line in enumerate(content, 1):
            text = line.removeprefix(MARK) if number == 1 else line
            if number % LINES_A_STEP == 0:
                watch.reach(raw.tell())
            if text.strip():
                yield number, text.rstrip(b"\r\n")


def _parquet_events(path: Path, watch: Watch) -> Iterator[tuple[int, bytes]]:
    """Rows of Parquet in the wire's shape (playerId, payload …) or in that of the lake's `events`."""
    file, position = pq.ParquetFile(path), 0
    watch.begin(f"reading {path.name}", file.metadata.num_rows)
    for batch in file.iter_batches(batch_size=PARQUET_ROWS):
        for row in batch.to_pylist():
            position += 1
            event = _wire(row) if "player_id" in row else _without_nulls(row)
            yield position, msgspec.json.encode(event, enc_hook=str)
        watch.reach(position)


def _wire(row: dict[str, Any]) -> dict[str, Any]:
    extra, payload = _extra(row), {wire: row.get(name) for name, wire in _WIRE_PAYLOAD.items()}
    more = extra.pop("payload", {})
    payload |= more if isinstance(more, dict) else {"payload": more}
    event = {wire: row.get(name) for name, wire in _WIRE_EVENT.items()} | extra
    return _without_nulls(event | {"payload": payload})


def _extra(row: dict[str, Any]) -> dict[str, Any]:
    """The unknown fields. A column of that name which is no JSON object is another table's, and an unknown field itself."""
    given = row.get("extra")
    try:
        return msgspec.json.decode(given or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, TypeError):
        return {"extra": given}


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _without_nulls(item) if isinstance(item, dict) else item for key, item in value.items() if item is not None}
