"""How columns are encoded on disk: small, quick to write, and readable by what people have (docs/lake.md has the list).

`events`, measured on 325,000 simulated events of one day as they are sent: 7.1 bytes an event with the writer's defaults, 4.8
so. Event ids share their beginnings with the row before (delta byte array: 1.4 to 0.4); players stand in runs, which zstd finds
where no dictionary hides them (delta length byte array: 0.1); kill times differ in their lower bits (delta binary packed: 0.3);
times have nothing that is shorter than zstd over the plain numbers (1.9; packed 2.1); the rest repeats (dictionary).
Byte stream split would save another 0.5 bytes, and is not used: DuckDB before 2, Spark before 4.3, PyArrow before 16 and their
like refuse it for integers.

Elsewhere only names repeat. A dictionary of ids and sums is as long as the column, and took half of the writer's time and a
fifth of the bytes of 80,000 `player_days`.
What does not belong here: which rows are written, and where.
"""

from typing import Any

import pyarrow as pa

from warehouse.tables import EVENTS, Table

_ENCODED = {
    "event_id": "DELTA_BYTE_ARRAY",
    "player_id": "DELTA_LENGTH_BYTE_ARRAY",
    "ts": "PLAIN",
    "duration_ms": "DELTA_BINARY_PACKED",
}
_EVENTS: dict[str, Any] = {
    "column_encoding": _ENCODED,
    "use_dictionary": [name for name in EVENTS.file_schema.names if name not in _ENCODED],
    "write_statistics": ["ts"],  # in the order of arrival others tell readers nothing, and took an eighth of the writing
}
# Random text (UUIDs) took 13 µs an event at level 15, and came out larger than at 1; at 7 it takes 0.6. Times that are all
# different take 4 µs at 17 and 0.3 at 8, and come out as large.
_FREE = {"event_id": 7, "extra": 3, "ts": 8, "received_ms": 8}
ROW_GROUP = 1 << 18  # rows: DuckDB and Polars read row groups side by side, and 2^20 saved 1 % only


def fresh(table: Table) -> dict[str, Any]:
    """What a file is written with that is rewritten soon, or small: fast (zstd 1)."""
    names = [field.name for field in table.file_schema if field.type == pa.string() and field.name != "player_id"]
    return {"compression": "zstd", **(_EVENTS if table is EVENTS else {"use_dictionary": names})}


def settled(table: Table) -> dict[str, Any]:
    """What a file is written with that stays: 1.2 µs of CPU an event, 1.8 where its ids are random.

    One page per column and row group, because each page is compressed for itself: 20,000 rows a page were 7 % larger.
    """
    levels = {name: _FREE.get(name, 17) for name in table.file_schema.names}
    return {
        **fresh(table),
        "write_statistics": True,
        "compression_level": levels,
        "data_page_size": 1 << 23,
        "max_rows_per_page": ROW_GROUP,
    }
