"""Making a lake whole again: what `verify` has found is computed again, taken in, set aside, or left for a person.

Nothing of `events` goes: a file of it that is in no table is taken in, and one whose rows another stands for becomes that one's
history. What does not belong here: finding it (`damage.py`), and copies elsewhere (`restore.py`).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow.parquet as pq

from warehouse.compaction import facts_of, short
from warehouse.damage import FOREIGN, MISSING, STRAY, Damage, check_aside, check_files, check_strays, is_readable, quarantine
from warehouse.engine import Engine
from warehouse.folds import has_landed, mend
from warehouse.lake import QUARANTINE, DamagedFile, Lake, LakeFile, Staged, as_basis, origin_of
from warehouse.lake.names import keys_of
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, REJECTS, TABLES, Table


class Repaired(NamedTuple):
    """What was done about a damage, or why nothing was; with `is_whole`, nothing is left to do. `taken` is in its table now."""

    path: str
    what: str
    is_whole: bool
    taken: LakeFile | None = None


class Taken(NamedTuple):
    """What became of files that were offered to a table: taken in; known already by another file; not as they were written."""

    rows: int
    taken: set[str]
    known: set[str]
    damaged: list[DamagedFile]


def repair(engine: Engine) -> Iterator[LakeFile | Repaired]:
    """Read every file, and do at once what can be done about each that is not as it should be; the sound ones in between."""
    lake = engine.lake
    for table in TABLES.values():
        for found in list(check_files(lake, table)):
            if isinstance(found, LakeFile):
                yield found
            elif found.file is None:
                yield _begin_log(lake, table, found.path)
                yield from lake.snapshot(table).all_files
            else:
                yield _mend(engine, table, found.file, found)
        back: list[LakeFile] = []
        for done in settle_strays(lake, table):
            back += [done.taken] if done.taken else []
            yield done
        for found in check_aside(lake, table):
            assert found.file is not None
            yield _bring_back(lake, table, found.file, found, back)


def take_in(lake: Lake, table: Table, files: Sequence[LakeFile]) -> Taken:
    """Make files that lie in a table's folders part of it, all in one commit; begin its log anew where that is damaged.

    Of `events` every file whose rows are not there already; of another table those of partitions, and of `rejects` those of
    labels, that have none: what is there stays. Of two for one place the newer is taken.
    """
    taken: list[Staged] = []
    known: list[Staged] = []
    damaged: list[DamagedFile] = []
    folders = {file.folder for file in files}
    with lake.lock(table.name):
        lake.refresh()
        has_log = is_readable(lake, table)
        there = [file for file in lake.snapshot(table).all_files if file.folder in folders] if has_log else []
        have = {one for file in there for one in _claims(lake, table, file)}
        live = {file.name for file in there}
        # What is in the table by now, somebody has committed or taken in while this waited: it stays.
        for file in _best_first(lake, table, [file for file in files if file.name not in live]):
            try:
                lake.storage.examine(file)
            except DamagedFile as error:
                damaged.append(error)
                continue
            claims = _claims(lake, table, file)
            (known if claims <= have else taken).append(_in_place(lake, table, file))
            have |= claims
        kept = [*taken, *known] if table is EVENTS else taken
        if not has_log:
            lake.found_anew(table, kept)
        elif kept:
            lake.commit(table, kept)
        if table is EVENTS and known:  # from here on they are history, as if they had been merged here
            names = {one.name for one in known}
            lake.refresh()
            lake.commit(table, [], [file for file in lake.snapshot(table).all_files if file.name in names])
        lake.refresh()
    return Taken(sum(one.rows for one in taken), {one.name for one in taken}, {one.name for one in known}, damaged)


def _best_first(lake: Lake, table: Table, files: Iterable[LakeFile]) -> list[LakeFile]:
    """Files in the order of being offered: of events those that stand for the most, else the newest."""
    if table is EVENTS:
        return sorted(files, key=lambda file: (-len(_claims(lake, table, file)), file.name))
    return sorted(files, key=lambda file: (-file.modified_ms, file.name))


def _claims(lake: Lake, table: Table, file: LakeFile) -> set[tuple[str, ...]]:
    """What a file stands for, of which a table needs one: files that landed, a label of `rejects`, or a whole partition."""
    folder = file.folder
    if table is EVENTS:
        try:
            imports = facts_of(lake, file).imports
        except (DamagedFile, OSError, ValueError):  # a damaged one stands for nothing else; who reads it says so
            imports = ()
        return {(folder, one) for one in (short(file), *imports)}
    return {(folder, file.label)} if table is REJECTS else {(folder,)}


def _in_place(lake: Lake, table: Table, file: LakeFile) -> Staged:
    """A file that is where it belongs, to be committed."""
    keys = keys_of(table, file.name)
    assert keys is not None
    rows = pq.read_metadata(lake.storage.paths([file])[0]).num_rows
    return Staged(table, keys, file.label, file.basis, None, file.sha256, file.size, rows)


def is_kept(table: Table, file: LakeFile) -> bool:
    """Whether a file holds what cannot be computed again."""
    return has_landed(table, file) or table is LEADERBOARD_REVISIONS


def _begin_log(lake: Lake, table: Table, path: str) -> Repaired:
    files = [one.file for one in check_strays(lake, table) if one.file and one.what == STRAY]
    done = take_in(lake, table, files)
    return Repaired(path, f"was begun anew with {len(done.taken):,} files that hold {done.rows:,} rows", is_whole=True)


def _mend(engine: Engine, table: Table, file: LakeFile, damage: Damage) -> Repaired:
    """A damaged file of a table."""
    engine.lake.refresh()
    if file not in engine.lake.snapshot(table).all_files:
        return Repaired(damage.path, f"{damage.what}. It was replaced meanwhile", is_whole=True)
    if engine.lake.storage.heal(file):
        return Repaired(damage.path, f"{damage.what}. This machine's copy was put in its place", is_whole=True)
    if table is LEADERBOARD_REVISIONS:
        what = f"{damage.what}. It cannot be computed again: put its copy from a backup in its place (docs/operations.md)"
        return Repaired(damage.path, what, is_whole=False)
    mend(engine, file, damage.what)
    if not has_landed(table, file):
        return Repaired(damage.path, f"{damage.what}. It was computed again", is_whole=True)
    what = f"{damage.what}. It was set aside: nothing is computed from it. Put its copy from a backup in its place, and repair"
    return Repaired(damage.path, f"{what} again (docs/operations.md)", is_whole=False)


def settle_strays(lake: Lake, table: Table) -> Iterator[Repaired]:
    """The files in a table's folders that are not of it."""
    found = list(check_strays(lake, table))
    landed = [one.file for one in found if one.file and one.what == STRAY and is_kept(table, one.file)]
    done = take_in(lake, table, landed) if landed else Taken(0, set(), set(), [])
    damaged = {error.file.name: error for error in done.damaged}
    for one in found:
        assert one.file is not None
        name = one.file.name
        if one.what == FOREIGN:
            yield Repaired(one.path, one.what, is_whole=False)
        elif name in damaged:
            target = lake.storage.shown(quarantine(lake, name))
            yield Repaired(one.path, f"{damaged[name].what}, and was in no table. It was moved to {target}", is_whole=False)
        elif name in done.taken:
            yield Repaired(one.path, "was taken in", is_whole=True, taken=one.file)
        elif is_kept(table, one.file) and name not in done.known:
            yield Repaired(one.path, "is in its table by now", is_whole=True)
        elif name in done.known and table is EVENTS:
            what = "holds what other files of its day hold already: it goes as what was merged does"
            yield Repaired(one.path, what, is_whole=True)
        else:
            yield _let_go(lake, one.file, one)


def _let_go(lake: Lake, file: LakeFile, damage: Damage) -> Repaired:
    """Delete a file that was computed, or that another one stands for, once no writer can still be about to commit it."""
    minutes = lake.settings.snapshot_minutes
    if file.modified_ms / 1000 > time.time() - minutes * 60:
        what = f"{damage.what}. It is not needed; repairing deletes it when it is {minutes} minutes old"
    else:
        lake.storage.delete([file.name])
        what = "was in no table, and is not needed: it was deleted"
    return Repaired(damage.path, what, is_whole=True)


def _bring_back(lake: Lake, table: Table, file: LakeFile, damage: Damage, back: Sequence[LakeFile]) -> Repaired:
    """A file of the quarantine: its copy may be in the table again, or what it was merged from, or it may be sound."""
    name = file.name.removeprefix(f"{QUARANTINE}/").removesuffix(MISSING)
    lake.refresh()
    if name in {one.name for one in lake.snapshot(table).all_files}:
        lake.storage.delete([file.name])
        return Repaired(damage.path, "is in its table again, as it was written: what was set aside was deleted", is_whole=True)
    lost = LakeFile(name, 0, 0, 0)
    merged_from = [one for one in back if one.folder == lost.folder]
    if table is EVENTS and lost.basis and lost.basis == as_basis(sum(map(origin_of, merged_from))):
        lake.storage.delete([file.name])
        return Repaired(damage.path, "was merged from files that are back: what was set aside was deleted", is_whole=True)
    try:
        lake.storage.examine(file)
    except DamagedFile:
        return Repaired(damage.path, damage.what, is_whole=False)
    lake.storage.move(file.name, name)
    done = take_in(lake, table, [LakeFile(name, file.size, file.rows, file.modified_ms)])
    lake.storage.delete([f"{QUARANTINE}/{name}{MISSING}"])
    return Repaired(damage.path, f"is as it was written: it was taken in again, with {done.rows:,} new rows", is_whole=True)
