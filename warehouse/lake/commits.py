"""One commit per change of a table: files that are to be in it and files that are to be out of it, all or none.

Delta refuses a commit where any other has taken a file away since the table was read, of whatever partition. So a commit that
was refused is looked at again and tried again: it is lost only where what it takes away was taken by somebody else.
What does not belong here: what is written (`lake.py`), and what becomes of superseded files (`housekeeping.py`).
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, Transaction, create_table_with_add_actions

from warehouse.errors import LakeError
from warehouse.lake.entries import ASIDE
from warehouse.lake.names import Keys, LakeFile, file_name
from warehouse.lake.snapshots import LogDamaged, Opened, Snapshot, log_entry, newest, snapshot_of
from warehouse.lake.storage import DamagedFile, Storage
from warehouse.tables import EVENTS, REJECTS, Table

_TRIES: Final = 100
_PAUSE_S: Final = 0.02
LANDED: Final = (EVENTS, REJECTS)  # tables whose partitions have many files; of the others each has one
LOG_KEPT_S: Final = 3600  # a log entry is kept for an hour after its files may go


class Marker(NamedTuple):
    """What a writer notes in the commit itself, to find out after a crash whether it was made."""

    writer: str
    number: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A file on its way into a table, with its content's digest, rows and bytes.

    `temporary` is where it was written; None of one that is in its place already.
    """

    table: Table
    keys: Keys
    label: str
    basis: str
    temporary: Path | None
    sha256: str
    size: int
    rows: int

    @property
    def name(self) -> str:
        """The name it will have."""
        return file_name(self.table, self.keys, self.label, self.basis, self.sha256)

    def drop(self) -> None:
        """Take away what was written beside the tables."""
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)


class LostRace(LakeError):
    """What a commit was to take away is gone: another writer was faster. Nothing was changed by this one."""


def commit(
    storage: Storage,
    table: Table,
    staged: Sequence[Staged],
    removed: Sequence[LakeFile],
    *,
    marker: Marker | None = None,
    aside: bool = False,
    kept_s: float,
    known: Opened | None = None,
) -> tuple[Opened, int]:
    """Make one commit, on disk when this returns. Returns the table after it, and how many files came or went.

    A staged file that the table has already is looked at, and put in its place where that is damaged. With `aside`, what is
    removed is damaged, not superseded: should it come back, it is not vacuumed. `kept_s` is for how long superseded files stay
    (for a table that is founded here), `known` the table as the caller has it: opening it anew costs as much as the commit.

    Raises:
        LostRace: a file of `removed` is not in the table any more.
        LakeError: rows are to be replaced, and those that are there have columns that this version does not know.
    """
    placed: set[str] = set()
    for attempt in range(_TRIES):
        known = newest(storage, table, known) or _found(storage, table, kept_s)
        delta, before = known
        present = {file.name: file for files in before.files.values() for file in files}
        gone = [file.name for file in removed if file.name not in present]
        is_ours = marker is None or delta.transaction_version(marker.writer) == marker.number
        if attempt and is_ours and len(gone) == len(removed) and all(one.name in present for one in staged):
            return known, len(staged) + len(removed)  # the answer to an attempt was lost, and it was made
        if gone:
            raise LostRace(
                f"{table.name}: {gone[0]} was taken away by another writer meanwhile; nothing was changed by this one. "
                "Run the same again."
            )
        if others := _besides(table, before, staged, removed):
            raise LostRace(
                f"{table.name}: another writer has computed the partition of {others[0]} meanwhile; nothing was changed by "
                "this one. Run the same again."
            )
        placed |= _heal(storage, [(present[one.name], one) for one in staged if one.name in present])
        added = [one for one in staged if one.name not in present]
        names = {one.name for one in staged}
        taken = [file for file in removed if file.name not in names]
        if not added and not taken and marker is None:
            return known, 0
        if added and taken:
            _refuse_to_lose_columns(table, delta)
        if waiting := {one.name: one.temporary for one in added if one.temporary and one.name not in placed}:
            storage.put(waiting)  # one that somebody has taken away meanwhile is an error: nothing may stand for it
            placed |= waiting.keys()
        # Another's commit may be visible and not on disk yet: what stands on it must not outlive it.
        storage.flush([log_entry(table, before.version)])
        try:
            with storage.guarded():
                _evolve(table, delta)
                delta.create_write_transaction(
                    [*(_add(table, one) for one in added), *(_remove(table, file) for file in taken)],
                    mode="append",
                    schema=_schema(table),
                    partition_by=list(table.partition),
                    commit_properties=CommitProperties(
                        app_transactions=_transactions(table, marker),
                        custom_metadata={ASIDE: "yes"} if aside else None,
                    ),
                    post_commithook_properties=PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
                )
        except CommitFailedError:
            time.sleep(random.uniform(0, _PAUSE_S * min(attempt + 1, 10)))  # noqa: S311 - no secret
            continue
        except DeltaError as error:
            raise LogDamaged(
                f"The log of {storage.shown(table.name)} cannot be written: {error} Nothing was changed. "
                "`fairboard verify --repair` sets it aside and begins a new one with the files that are there."
            ) from error
        with storage.guarded():
            delta.update_incremental()
        after = snapshot_of(table, delta)
        storage.flush([log_entry(table, version) for version in range(before.version + 1, after.version + 1)])
        return (delta, after), len(added) + len(taken)
    raise LakeError(f"{table.name}: others wrote without a pause, {_TRIES} attempts failed; nothing was changed. Run it again.")


def _transactions(table: Table, marker: Marker | None) -> list[Transaction]:
    """What a commit is marked with. One that computes is refused beside another: delta-rs takes two that only add files."""
    marks = [Transaction(*marker)] if marker else []
    return marks if table in LANDED else [*marks, Transaction("computed", time.time_ns())]


def _besides(table: Table, before: Snapshot, staged: Sequence[Staged], removed: Sequence[LakeFile]) -> list[str]:
    """Files that a partition which is computed as a whole would have beside the staged one."""
    if table in LANDED:
        return []
    gone = {file.name for file in removed} | {one.name for one in staged}
    return [file.name for one in staged for file in before.of(one.keys) if file.name not in gone]


def found_anew(storage: Storage, table: Table, staged: Sequence[Staged], kept_s: float) -> None:
    """Begin the log of a table that has none with files that are in their places already, in one step."""
    actions = [_add(table, one) for one in staged]
    with storage.guarded():
        create_table_with_add_actions(
            f"{storage.url}/{table.name}", _schema(table), actions, mode="error", **_description(storage, table, kept_s)
        )
    storage.flush([log_entry(table, 0)])


def _description(storage: Storage, table: Table, kept_s: float) -> dict[str, Any]:
    """What a new table is told of itself."""
    return {
        "partition_by": list(table.partition),
        "name": table.name,
        "description": table.doc,
        "configuration": configuration(kept_s),
        "storage_options": dict(storage.options),
    }


def configuration(kept_s: float) -> dict[str, str | None]:
    """The table's properties: for how long superseded files are known. Checkpoints are ours (`housekeeping`), to fsync them."""
    interval = f"interval {int(kept_s) + LOG_KEPT_S} seconds"
    return {"delta.logRetentionDuration": interval, "delta.deletedFileRetentionDuration": interval}


def _found(storage: Storage, table: Table, kept_s: float) -> Opened:
    """Found a table. Of two that do so at once, one does it for both."""
    uri = f"{storage.url}/{table.name}"
    try:
        with storage.guarded():
            delta = DeltaTable.create(uri, _schema(table), mode="ignore", **_description(storage, table, kept_s))
        opened = delta, snapshot_of(table, delta)
    except DeltaError:
        found = newest(storage, table)
        if found is None:
            raise
        opened = found
    storage.flush([log_entry(table, 0)])
    return opened


def _refuse_to_lose_columns(table: Table, delta: DeltaTable) -> None:
    """To add rows without a column is no loss: it is NULL there. To put them in the place of others is."""
    unknown = sorted({field.name for field in delta.schema().fields} - set(table.schema.names))
    if unknown:
        raise LakeError(
            f"{table.name} has columns that this version of Fairboard does not know ({', '.join(unknown)}): a later one wrote "
            "them, and rows that replace its own would lose them. Nothing was changed. Run the later version."
        )


def _evolve(table: Table, delta: DeltaTable) -> None:
    """Give the table every column of the contract: a nullable one may be younger than it."""
    known = {field.name for field in delta.schema().fields}
    missing = [field for field in _schema(table).fields if field.name not in known]
    if missing:
        delta.alter.add_columns(missing)
        delta.update_incremental()


def _schema(table: Table) -> Schema:
    return Schema([Field.from_arrow(field) for field in table.schema])


def _add(table: Table, one: Staged) -> AddAction:
    """Only rows are counted: least and greatest values would keep players in the log who were forgotten."""
    return AddAction(
        path=one.name.removeprefix(f"{table.name}/"),
        size=one.size,
        partition_values={name: str(one.keys[name]) for name in table.partition},
        modification_time=time.time_ns() // 1_000_000,
        data_change=True,
        stats=json.dumps({"numRecords": one.rows}),
    )


def _remove(table: Table, file: LakeFile) -> RemoveAction:
    return RemoveAction(
        path=file.name.removeprefix(f"{table.name}/"),
        data_change=True,
        deletion_timestamp=time.time_ns() // 1_000_000,
        size=file.size,
    )


def _heal(storage: Storage, there: Sequence[tuple[LakeFile, Staged]]) -> set[str]:
    """Put staged files in the place of those of their names that are damaged. Returns which."""
    damaged: dict[str, Path] = {}
    for file, one in there:
        if one.temporary is None:
            continue
        try:
            storage.examine(file)
        except DamagedFile:
            damaged[one.name] = one.temporary
    storage.put(damaged)
    return set(damaged)
