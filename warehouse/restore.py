"""Bringing a backup back, whole or in part: what is missing is put in its place, and nothing that is there goes.

A table takes in those files of the backup whose rows it lacks (`repair.take_in`). What cannot be joined, the keys and the
database, stays as it is unless it is to be replaced, and is kept then. What does not belong here: the journal's segments
(`ingest_api.journal_copies`), and making backups (`backup.py`).
"""

import hashlib
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from warehouse.backup import BESIDE_TABLES, DATABASE, KEYS, LAKE, Kept, Manifest, pool_name, sqlite_file
from warehouse.basis import behind
from warehouse.damage import MISSING, check_strays, is_readable
from warehouse.database import BOARD_REVISIONS, reading
from warehouse.engine import Engine
from warehouse.errors import SettingsError
from warehouse.lake import QUARANTINE, DamagedFile, Lake, LakeFile, sha256, write_durably
from warehouse.lake.names import folder_of
from warehouse.lake.storage import Storage
from warehouse.repair import is_kept, take_in
from warehouse.settings import Settings
from warehouse.tables import EVENTS, LEADERBOARD_REVISIONS, TABLES, Table

_AT_ONCE: Final = 64  # files that are flushed together


@dataclass(slots=True)
class Restored:
    """What came back (rows by table, other files by name), what was kept as it is, and what a person has to look at."""

    rows: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    look: list[str] = field(default_factory=list)


def check_timezone(settings: Settings, manifest: Manifest) -> None:
    """Refuse a lake whose days are not this deployment's.

    Raises:
        SettingsError: it ends its days in another time zone.
    """
    if manifest.timezone != settings.timezone:
        raise SettingsError(
            f"The backup's lake ends its days in {manifest.timezone}, the settings say {settings.timezone}. Nothing was "
            f"restored. Set FAIRBOARD_TIMEZONE={manifest.timezone}."
        )


def restore_lake(lake: Lake, backups: Storage, manifest: Manifest, done: Restored) -> None:
    """Bring the tables back, and what was set aside."""
    for name, files in manifest.lake.items():
        if name in TABLES:
            done.rows[name] = _restore_table(lake, TABLES[name], backups, files, done)
        elif files:
            done.missing.append(f"{name}: this version has no such table; its {len(files):,} files stay in the backup")
    lake.refresh()
    there = {f"{QUARANTINE}/{file.name}" for table in TABLES.values() for file in lake.snapshot(table).all_files}
    for kept in manifest.files:
        name = kept.name.removeprefix(f"{LAKE}/")
        is_due = kept.name != name and name.startswith(BESIDE_TABLES) and lake.storage.read(name) is None
        is_due = is_due and name.removesuffix(MISSING) not in there  # what was set aside then is in its table now
        if is_due and (content := _content(backups, kept, done)) is not None:
            lake.storage.create(name, content)
            done.files.append(kept.name)


def _restore_table(lake: Lake, table: Table, backups: Storage, files: Sequence[Kept], done: Restored) -> int:
    """Copy what the table lacks or has damaged, then take it in. Returns how many rows came."""
    lake.refresh()
    known = lake.snapshot(table).all_files if is_readable(lake, table) else []
    # A partition that is computed stays as it is, unless one of its files is the backup's, and may be damaged.
    live, held = {file.name for file in known}, {folder_of(file.name) for file in known}
    wanted = [
        file
        for kept in files
        if is_kept(table, file := LakeFile(kept.name, kept.size, 0, kept.modified_ms))
        or file.name in live
        or folder_of(file.name) not in held
    ]
    waiting: dict[str, Path] = {}
    got = []
    for file in wanted:
        with suppress(DamagedFile):
            lake.storage.examine(file)
            got.append(file)
            continue
        try:
            [path] = backups.paths([LakeFile(f"{LAKE}/{file.name}", file.size, 0, 0)])
        except DamagedFile as error:
            done.missing.append(f"{backups.shown(f'{LAKE}/{file.name}')} {error.what}: it did not come back")
            continue
        waiting[file.name] = lake.beside("restore")
        shutil.copyfile(path, waiting[file.name])
        got.append(file)
        if len(waiting) >= _AT_ONCE:
            lake.storage.put(waiting)
            waiting = {}
    lake.storage.put(waiting)
    offered = [file for file in got if file.name not in live]
    if not is_readable(lake, table):  # its log is lost: what lies there is all that is left of it
        offered += [
            one.file for one in check_strays(lake, table) if one.file and one.file.name not in {f.name for f in offered}
        ]
    return take_in(lake, table, offered).rows if offered else 0


def _content(backups: Storage, kept: Kept, done: Restored) -> bytes | None:
    """A file of the backup; None, and said so, where it is not as it was."""
    content = backups.read(pool_name(kept))
    if content is None or hashlib.sha256(content).hexdigest() != kept.sha256:
        what = "is missing" if content is None else "has changed since it was written (SHA-256 differs)"
        done.missing.append(f"{backups.shown(pool_name(kept))}, {kept.name}, {what}: it did not come back")
        return None
    return content


def segments(backups: Storage, manifest: Manifest, done: Restored) -> Iterator[tuple[str, bytes]]:
    """The segments of the journal: their names there, and what they hold."""
    for kept in manifest.files:
        if kept.name.startswith("journal/") and (content := _content(backups, kept, done)) is not None:
            yield kept.name.removeprefix("journal/"), content


def restore_keys(settings: Settings, backups: Storage, manifest: Manifest, done: Restored, *, replace: bool) -> None:
    """Bring the keys file back."""
    for kept in manifest.files:
        if kept.name == KEYS:
            _restore_file(settings.data_dir / KEYS, backups, kept, done, replace=replace)


def restore_database(settings: Settings, backups: Storage, manifest: Manifest, done: Restored, *, replace: bool) -> None:
    """Bring the SQLite file back. One without a row in it counts as none."""
    path = sqlite_file(settings)
    for kept in manifest.files:
        if kept.name == DATABASE and path is None:
            done.refused.append(
                "The backup has an SQLite file, and FAIRBOARD_DATABASE_URL says another database: it was left out"
            )
        elif kept.name == DATABASE and path is not None:
            _restore_file(path, backups, kept, done, replace=replace or _is_empty(path))


def _restore_file(path: Path, backups: Storage, kept: Kept, done: Restored, *, replace: bool) -> None:
    """Put a file in its place; another one that is there is kept beside it, or stays."""
    wal = path.with_name(f"{path.name}-wal")
    is_same = path.exists() and sha256(path) == kept.sha256 and not (wal.exists() and wal.stat().st_size)
    if is_same:
        return
    if path.exists() and not replace:
        done.refused.append(
            f"{path} is there, and differs from the backup's: it stays. With --replace the backup's takes its place, and this "
            "one is kept beside it; stop every process of Fairboard before"
        )
        return
    if (content := _content(backups, kept, done)) is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in (path, wal, path.with_name(f"{path.name}-shm")):
        if part.exists():
            aside = part.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}{part.name.removeprefix(path.name)}")
            part.rename(aside)
            done.look.append(f"{part} was kept as {aside}")
    write_durably(path, content)
    done.files.append(kept.name)


def _is_empty(path: Path) -> bool:
    if not path.exists():
        return True
    with closing(sqlite3.connect(path)) as connection:
        try:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            tables = [name for name in names if name not in ("alembic_version", "sqlite_sequence")]
            return not any(connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in tables)  # noqa: S608 - its own names
        except sqlite3.DatabaseError:  # damaged: there is something in it that may be wanted
            return False


def misfits(engine: Engine, manifest: Manifest, only: Collection[str]) -> Iterator[str]:
    """What of the deployment does not fit together now: sentences that say what to do."""
    lake, settings = engine.lake, engine.settings
    lake.refresh()
    boards = {tuple(map(str, place)) for place in lake.snapshot(LEADERBOARD_REVISIONS).files}
    columns = [BOARD_REVISIONS.c[name] for name in LEADERBOARD_REVISIONS.partition]
    with reading(settings) as connection:
        rows = connection.execute(sa.select(*columns)).all() if connection is not None else []
    recorded = {tuple(map(str, row)) for row in rows}
    if lost := recorded - boards:
        yield (
            f"{len(lost):,} revisions of closed boards are recorded in the database, and the lake has no file of them: it "
            "is older. Restore it from a later backup, too; until then `fairboard revisions --diff` cannot show them"
        )
    if unknown := boards - recorded:
        yield (
            f"{len(unknown):,} revisions of closed boards are in the lake, and not recorded in the database: the database is "
            "older, or not there. Restore it from the same backup; otherwise publishing numbers them anew, and replaces them"
        )
    newest = max((file.modified_ms for file in lake.snapshot(EVENTS).all_files), default=0)
    held = {one.name for some in manifest.lake.values() for one in some}
    later = [file for file in lake.snapshot(EVENTS).all_files if file.name not in held]
    if "database" in only and later and newest > manifest.made_at.timestamp() * 1000:
        yield (
            f"The database is as of {manifest.made_at:%Y-%m-%d %H:%M} UTC, and the lake has events that came later: verdicts "
            "and receipts since then are not in it. Decide the verdicts again before you publish; receipts are granted again"
        )
    if late := behind(engine):
        first, last = min(one.day for one in late), max(one.day for one in late)
        yield (
            f"{len(late):,} partitions were not computed from what is there now. The schedule computes them, or `fairboard "
            f"materialize --from {first} --to {last}`; then `fairboard publish --all`"
        )
