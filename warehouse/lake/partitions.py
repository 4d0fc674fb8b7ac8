"""Rows that are sorted by partition, cut into one table per partition. What does not belong here: files."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute

from warehouse.lake.names import Keys
from warehouse.tables import Table


def split_partitions(table: Table, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Keys, pa.Table]]:
    """Cut batches that are sorted by the partition columns into one table per partition."""
    pending: list[pa.RecordBatch] = []
    current: tuple[Any, ...] | None = None
    for batch in batches:
        start = 0
        for key, stop in _runs(batch.select(list(table.partition))):
            if key != current and pending:
                yield dict(zip(table.partition, current or (), strict=True)), pa.Table.from_batches(pending)
                pending = []
            current = key
            pending.append(batch.slice(start, stop - start))
            start = stop
    if pending and current is not None:
        yield dict(zip(table.partition, current, strict=True)), pa.Table.from_batches(pending)


def _runs(keys: pa.RecordBatch) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The runs of equal rows in sorted keys: (key, end of the run)."""
    starts = [0] if keys.num_rows else []
    if keys.num_rows > 1:
        changed = [pa.compute.not_equal(c.slice(1), c.slice(0, keys.num_rows - 1)) for c in keys.columns]
        any_changed = changed[0]
        for other in changed[1:]:
            any_changed = pa.compute.or_(any_changed, other)
        starts += [i.as_py() + 1 for i in pa.compute.indices_nonzero(any_changed)]
    for start, stop in zip(starts, [*starts[1:], keys.num_rows], strict=True):
        yield tuple(column[start].as_py() for column in keys.columns), stop
