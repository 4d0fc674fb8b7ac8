"""Backups: copies of a deployment's files in another folder, each named in a small manifest, shared by all backups there.

`lake/` has the data files under the names they have, `files/` everything else by its SHA-256, `backups/` a manifest per backup,
written last: a backup is there when its manifest is. What does not belong here: the journal's segments
(`ingest_api.journal_copies`), and bringing it back (`restore.py`).
"""

import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from warehouse.errors import FairboardError
from warehouse.lake import DamagedFile, Lake, LakeFile, sha256
from warehouse.lake.opening import open_place
from warehouse.lake.storage import Storage
from warehouse.settings import Settings, is_bucket
from warehouse.tables import TABLES

MANIFESTS: Final = "backups"
LAKE: Final = "lake"
BESIDE_TABLES: Final = ("_quarantine",)  # folders of the lake that are no tables
DATABASE: Final = "database.sqlite"
KEYS: Final = "keys.json"
_AT_ONCE: Final = 64  # files that are flushed together
_VERSION: Final = 1


class Kept(msgspec.Struct, frozen=True):
    """A file of a backup: its name in the deployment, what it holds, and when it was committed (ms; of the lake's)."""

    name: str
    sha256: str
    size: int
    modified_ms: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds: the files of each table's snapshot, and the others. `left_out` says what it does not hold."""

    made_at: datetime
    timezone: str
    lake: dict[str, list[Kept]]
    files: list[Kept]
    left_out: list[str]
    version: int = _VERSION


@dataclass(slots=True)
class BackedUp:
    """What a backup holds: files and bytes, how many of them were copied now, what could not be, and what went (`--keep`)."""

    name: str
    files: int = 0
    size: int = 0
    copied_files: int = 0
    copied: int = 0
    left_out: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    pruned: int = 0


def open_backups(settings: Settings, where: str) -> Storage:
    """The folder or bucket of backups.

    Raises:
        FairboardError: it is none that is known here.
    """
    if "://" in where and not where.startswith("file://") and not is_bucket(where):
        raise FairboardError(
            f"{where}: backups are kept in a folder (a path or file://…) or a bucket (s3://…). Nothing was done."
        )
    return open_place(settings, where)


class Pool:
    """The files that all backups of a place share. Use it as one process at a time."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        for left in storage.scratch.glob("backup.*"):  # of a run that was killed
            left.unlink()
        self._have = {one.name: one.size for folder in (LAKE, "files") for one in storage.list(folder)}
        self._waiting: dict[str, Path] = {}
        self.copied_files = self.copied = 0

    def add(self, name: str, source: Path, size: int) -> None:
        """Have a copy of a file under a name that says what it holds; nothing is copied where it is there."""
        if self._have.get(name) != size:
            temporary = self.storage.scratch / f"backup.{os.getpid()}.{os.urandom(4).hex()}"
            shutil.copyfile(source, temporary)
            self._have[name], self._waiting[name] = size, temporary
            self.copied_files, self.copied = self.copied_files + 1, self.copied + size
            if len(self._waiting) >= _AT_ONCE:
                self.flush()

    def has(self, name: str, size: int) -> bool:
        """Whether a copy is there."""
        return self._have.get(name) == size

    def keep(self, name: str, source: Path) -> Kept:
        """Have a copy of any other file: `name` is the one it has in the deployment."""
        kept = Kept(name, sha256(source), source.stat().st_size)
        self.add(pool_name(kept), source, kept.size)
        return kept

    def flush(self) -> None:
        """Have on disk what was added."""
        self.storage.put(self._waiting)
        self._waiting = {}


def pool_name(kept: Kept) -> str:
    """Where a file that is not of the lake's tables is kept."""
    return f"files/{kept.sha256}"


def back_up(settings: Settings, storage: Storage, journal: Iterable[tuple[str, Path]]) -> BackedUp:
    """Back a deployment up while it runs. `journal` are copies of its segments, which were made before this is called.

    In this order nothing is missed: an event goes from the journal to the lake, a revision's board is in the lake before the
    database knows of it.
    """
    pool = Pool(storage)
    left_out: list[str] = []
    damaged: list[str] = []
    files = [pool.keep(f"journal/{name}", path) for name, path in journal]
    if (keys := settings.data_dir / KEYS).exists():
        files.append(pool.keep(KEYS, keys))
    if (database := _copy_of_database(settings, storage.scratch, left_out)) is not None:
        files.append(pool.keep(DATABASE, database))
        database.unlink()
    tables: dict[str, list[Kept]] = {}
    with Lake(settings) as lake:
        snapshots = [lake.snapshot(table) for table in TABLES.values()]
        for snapshot in snapshots:
            kept = tables[snapshot.table.name] = []
            for file in snapshot.all_files:
                try:
                    _add_lake_file(pool, lake, file)
                    kept.append(Kept(file.name, file.sha256, file.size, file.modified_ms))
                except DamagedFile as error:
                    damaged.append(f"{lake.storage.shown(file.name)} {error.what}")
        files += _beside_tables(pool, lake)
    pool.flush()
    now = datetime.now(UTC)
    manifest = Manifest(now, settings.timezone, tables, files, [*left_out, *damaged])
    name = f"{MANIFESTS}/{now:%Y-%m-%dT%H-%M-%S.%fZ}.json"
    storage.create(name, msgspec.json.format(msgspec.json.encode(manifest)))
    every = [*files, *(one for some in tables.values() for one in some)]
    size = sum(one.size for one in every)
    return BackedUp(name, len(every), size, pool.copied_files, pool.copied, left_out, damaged)


def manifests(storage: Storage) -> dict[str, Manifest]:
    """The backups that are there, by name, the oldest first.

    Raises:
        FairboardError: one was made by a later version.
    """
    found = {}
    for one in sorted(storage.list(MANIFESTS)):
        manifest = msgspec.json.decode(storage.read(one.name) or b"", type=Manifest)
        if manifest.version > _VERSION:
            raise FairboardError(
                f"{storage.shown(one.name)} was made by a later version of Fairboard. Nothing was done. Use that version, or "
                "a later one."
            )
        found[one.name] = manifest
    return found


def prune(storage: Storage, keep: int, made: str) -> int:
    """Let all but the newest backups go, and every file that none of those names. Returns how many backups went.

    The one just `made` stays, whatever the clock said when others were.
    """
    found = manifests(storage)
    gone = [*(name for name in found if name != made), made][:-keep]
    storage.delete(gone)  # first: a backup whose files are gone would be none
    left = [manifest for name, manifest in found.items() if name not in gone]
    named = {pool_name(one) for manifest in left for one in manifest.files}
    named |= {f"{LAKE}/{one.name}" for manifest in left for some in manifest.lake.values() for one in some}
    storage.delete([one.name for folder in (LAKE, "files") for one in list(storage.list(folder)) if one.name not in named])
    return len(gone)


def sqlite_file(settings: Settings) -> Path | None:
    """The database's file; None where it is another database's."""
    url = sa.make_url(settings.sqlalchemy_url)
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _add_lake_file(pool: Pool, lake: Lake, file: LakeFile) -> None:
    name = f"{LAKE}/{file.name}"
    if not pool.has(name, file.size):
        [path] = lake.storage.paths([file])
        pool.add(name, path, file.size)


def _beside_tables(pool: Pool, lake: Lake) -> list[Kept]:
    """What was set aside, and whom somebody is about to forget."""
    kept = []
    for one in [one for folder in BESIDE_TABLES for one in lake.storage.list(folder)]:
        if (content := lake.storage.read(one.name)) is not None:
            temporary = lake.beside("backup")
            temporary.write_bytes(content)
            kept.append(pool.keep(f"{LAKE}/{one.name}", temporary))
            temporary.unlink()
    return kept


def _copy_of_database(settings: Settings, folder: Path, left_out: list[str]) -> Path | None:
    """A copy by SQLite's own backup; another database has its own tools."""
    path = sqlite_file(settings)
    if path is None:
        shown = sa.make_url(settings.sqlalchemy_url).set(drivername="postgresql").render_as_string()
        left_out.append(f"The SQL database is not in it; its server backs it up: pg_dump --format=custom --file=FILE {shown}")
        return None
    if not path.exists():
        return None
    copy = folder / f"backup.{os.getpid()}.sqlite"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy
