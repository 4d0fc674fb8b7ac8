"""The copies on this machine of a bucket's files, through which DuckDB, Polars and Spark read it; many processes share them.

What belongs here: which copies there are, and that they are whole. What does not: how a file is fetched (`bucket.py`).
"""

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from warehouse.lake.names import LakeFile
from warehouse.lake.storage import DamagedFile, sha256

HELD_S: Final = 15 * 60  # a query that was given a path may read it so long
LEFTOVER_S: Final = 24 * 3600
AT_ONCE: Final = 16
LOW_WATER: Final = 0.9  # of the bound; what is made room for at once

Mark = tuple[str, int, int, int]  # path, inode, time and size of a copy
_CHECKED: Final[set[Mark]] = set()  # found whole by this process


class Cache:
    """Files below `folder`, by their names in the lake. `fetch(file, path)` downloads one.

    At most `limit_bytes`, unless more was used within `HELD_S`: the files used longest ago go first.
    """

    def __init__(self, folder: Path, limit_bytes: int, fetch: Callable[[LakeFile, Path], None]) -> None:
        self.folder = folder
        self.scratch = folder / "_tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._lock = self.scratch / "lock"
        self._limit_bytes = limit_bytes
        self._fetch = fetch
        self._added_bytes = limit_bytes  # by this process since it looked: so it looks at first

    def paths(self, files: Sequence[LakeFile], *, check: bool = True) -> list[Path]:
        """Where these files are on this machine, whole: compared with the digest in their names, once a process.

        Raises:
            DamagedFile: the bucket's is missing, or not as it was written.
        """
        with self._locked(fcntl.LOCK_SH):  # what is marked as used here stays
            found = [self._use(self.folder / file.name) for file in files]
            doubtful = [
                file for file, mark in zip(files, found, strict=True) if mark is None or (check and mark not in _CHECKED)
            ]
        if doubtful:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._ensure, doubtful))
            self._make_room()
        return [self.folder / file.name for file in files]

    def _use(self, path: Path) -> Mark | None:
        """Mark a copy as used now. Its access time says so, which is this cache's to set: many disks keep none."""
        try:
            status = path.stat()
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        except FileNotFoundError:
            return None
        return str(path), status.st_ino, status.st_mtime_ns, status.st_size

    def _ensure(self, file: LakeFile) -> None:
        path = self.folder / file.name
        mark = self._use(path)
        with suppress(FileNotFoundError):
            if mark and sha256(path) == file.sha256:
                _CHECKED.add(mark)
                return
        with self.fetched(file) as temporary:
            self._place(temporary, path)

    @contextmanager
    def fetched(self, file: LakeFile) -> Iterator[Path]:
        """A download of the bucket's file, compared with the digest in its name; it is gone afterwards, unless it was moved.

        Raises:
            DamagedFile: it is missing, or not as it was written.
        """
        temporary = self.scratch / f"fetch.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            self._fetch(file, temporary)
            if sha256(temporary) != file.sha256:
                raise DamagedFile(file, f"has changed since it was written with {file.rows:,} rows (SHA-256 differs)")
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def adopt(self, name: str, source: Path) -> None:
        """Have a local file, which the bucket has, as the copy of it; `source` is gone then."""
        self._place(source, self.folder / name)
        self._make_room()

    def _place(self, source: Path, path: Path) -> None:
        self._added_bytes += source.stat().st_size
        path.parent.mkdir(parents=True, exist_ok=True)
        source.replace(path)
        if mark := self._use(path):
            _CHECKED.add(mark)

    def forget(self, names: Iterable[str]) -> None:
        """Take copies away at once, whoever reads them: what erasure needs."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def keep_only(self, names: Collection[str], unused_since: float) -> None:
        """Take away every copy that is not of these names and was not used since then (s since the epoch).

        The bucket's present files given, copies of what others have erased or vacuumed go.
        """
        with self._locked(fcntl.LOCK_EX):
            for path, _, used in self._copies():
                if used < unused_since and path.relative_to(self.folder).as_posix() not in names:
                    path.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Look at the whole cache only after having added a tenth of what the bound leaves free."""
        if self._added_bytes < (1 - LOW_WATER) * self._limit_bytes / 10:
            return
        with self._locked(fcntl.LOCK_EX):
            copies = sorted(self._copies(), key=lambda copy: copy[2])
            total = sum(size for _, size, _ in copies)
            if total > LOW_WATER * self._limit_bytes:
                for path, size, used in copies:
                    if total <= LOW_WATER * self._limit_bytes or time.time() - used < HELD_S:
                        break
                    path.unlink(missing_ok=True)
                    total -= size
            self._added_bytes = 0

    def _copies(self) -> Iterator[tuple[Path, int, float]]:
        """Every copy with its bytes and when it was used; what killed processes left of downloads goes."""
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = Path(parent, name)
                with suppress(FileNotFoundError):  # it has just gone
                    status = path.stat()
                    if not Path(parent).is_relative_to(self.scratch):
                        yield path, status.st_size, status.st_atime
                    elif path != self._lock and time.time() - status.st_mtime > LEFTOVER_S:
                        path.unlink()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Between marking as used and taking away: this folder is on a disk of this machine, where flock holds."""
        with self._lock.open("ab") as file:
            fcntl.flock(file, how)
            yield
