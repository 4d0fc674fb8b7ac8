"""Where the lake's files are: a folder, or a bucket (`bucket.py`). Names are relative to its root, with `/` between folders.

Files are immutable: one of a name has one content for ever. What belongs here: bytes in and out, durably. What does not: which
files are a table (`lake.py`).
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from warehouse.errors import LakeError
from warehouse.lake.names import LakeFile

FLUSHES: Final = 16  # at once
_CHECKED: set[tuple[str, int, int, int]] = set()  # path, inode, time and size of files found sound by this process


class Stored(NamedTuple):
    """What a listing says of a file; `modified` is in s since the epoch."""

    name: str
    size: int
    modified: float


class DamagedFile(LakeError):
    """A file is missing, or not as it was written."""

    def __init__(self, file: LakeFile, what: str) -> None:
        self.file = file
        self.what = what
        super().__init__(
            f"{file.name} {what}. Nothing was computed from it. `fairboard verify --repair` says what can be done."
        )


class Storage(ABC):
    """A folder or a bucket. `url` and `options` are what delta-rs opens it with; `scratch` is a folder of this machine."""

    url: str
    options: Mapping[str, str]
    scratch: Path

    @abstractmethod
    def paths(self, files: Sequence[LakeFile], *, check: bool = True) -> list[Path]:
        """Where this machine reads these files of a snapshot. `check` compares each with its name's digest, once a process.

        Raises:
            DamagedFile: one is not as it was written, or cannot be had.
        """

    @abstractmethod
    def examine(self, file: LakeFile) -> None:
        """Read a file where it is kept, however often it was read before, and compare it with the digest in its name.

        Raises:
            DamagedFile: it is not as it was written, or cannot be had.
        """

    @abstractmethod
    def put(self, sources: Mapping[str, Path]) -> None:
        """Make each local file the one of its name, on disk when this returns. The local files are gone then.

        One that is there already under the same name is replaced: it has the same content, or is damaged.
        """

    @abstractmethod
    def flush(self, names: Sequence[str]) -> None:
        """Have on disk what a library wrote under those names, and their folders' entries."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A small file's content, or None where there is none."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a small file, unless there is one of that name. Returns whether it was written."""

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all, in place of one of that name."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Stored]:
        """The files below a folder, in any order; none where there is no such folder."""

    @abstractmethod
    def move(self, name: str, target: str) -> bool:
        """Give a file another name, durably. Returns whether there was one."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Take files away; those that are gone already are no error."""

    def guarded(self) -> AbstractContextManager[None]:
        """Around what a library does at `url`: a bucket that is away or refuses becomes a `BucketUnavailable`."""
        return nullcontext()

    def heal(self, _file: LakeFile) -> bool:
        """Put a sound copy that this machine has in the place of a damaged file. Returns whether there was one."""
        return False

    @abstractmethod
    def tidy_copies(self, *, at_once: bool = False) -> None:
        """Let go of this machine's copies of files that are no more: what other machines erased or vacuumed.

        Those that a query may be reading stay for now, unless `at_once`.
        """

    @abstractmethod
    def shown(self, name: str) -> str:
        """A file as people name it: its path or URL."""


class Folder(Storage):
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self.options = {}
        self.scratch = root / "_tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)

    def paths(self, files: Sequence[LakeFile], *, check: bool = True) -> list[Path]:
        """See `Storage`. Reading some 1.5 GB/s."""
        paths = [self.root / file.name for file in files]
        for file, path in zip(files if check else (), paths, strict=False):
            self._check(file, path)
        return paths

    def _check(self, file: LakeFile, path: Path) -> None:
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise DamagedFile(file, f"is missing, with {file.rows:,} rows") from error
        mark = (str(path), status.st_ino, status.st_mtime_ns, status.st_size)
        if mark not in _CHECKED:
            self.examine(file)
            _CHECKED.add(mark)

    def examine(self, file: LakeFile) -> None:
        """See `Storage`."""
        try:
            digest = sha256(self.root / file.name)
        except FileNotFoundError as error:
            raise DamagedFile(file, f"is missing, with {file.rows:,} rows") from error
        if digest != file.sha256:
            raise DamagedFile(file, f"has changed since it was written with {file.rows:,} rows (SHA-256 differs)")

    def put(self, sources: Mapping[str, Path]) -> None:
        """See `Storage`."""
        move_durably([(source, self.root / name) for name, source in sources.items()])

    def flush(self, names: Sequence[str]) -> None:
        """See `Storage`."""
        paths = [self.root / name for name in names]
        folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(self.root)}
        flush([*(path for path in paths if path.exists()), *sorted(folders)])

    def read(self, name: str) -> bytes | None:
        """See `Storage`."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> bool:
        """See `Storage`."""
        path, temporary = self.root / name, self._beside(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            flush([temporary])
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        flush([path.parent])
        return True

    def replace(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        move_durably([(self._beside(content), self.root / name)])

    def _beside(self, content: bytes) -> Path:
        temporary = self.scratch / f"small.{os.getpid()}.{os.urandom(4).hex()}"
        temporary.write_bytes(content)
        return temporary

    def list(self, prefix: str) -> Iterator[Stored]:
        """See `Storage`."""
        for parent, _, names in os.walk(self.root / prefix):
            folder = os.path.relpath(parent, self.root)
            for name in names:
                try:
                    status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118 - a Path of each costs more than the listing
                except FileNotFoundError:  # it has just gone
                    continue
                yield Stored(f"{folder}/{name}", status.st_size, status.st_mtime)

    def move(self, name: str, target: str) -> bool:
        """See `Storage`."""
        exists = (self.root / name).exists()
        if exists:
            move_durably([(self.root / name, self.root / target)])
        return exists

    def delete(self, names: Iterable[str]) -> None:
        """See `Storage`."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def tidy_copies(self, *, at_once: bool = False) -> None:
        """See `Storage`. There are none: it is read where it is."""

    def shown(self, name: str) -> str:
        """See `Storage`."""
        return str(self.root / name)


def sha256(path: Path) -> str:
    """A file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def move_durably(moves: Sequence[tuple[Path, Path]]) -> None:
    """Flush the sources, rename each to its target, then flush the folders, and those that had to be made."""
    flush([source for source, _ in moves])
    folders = set()
    for source, target in moves:
        made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(source)  # what was staged long ago is new in its place: a vacuum and a repair go by that
        source.replace(target)
        folders |= {target.parent, *(folder.parent for folder in made)}
    flush(sorted(folders))


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file, whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    move_durably([(temporary, path)])


def flush(paths: Sequence[Path]) -> None:
    """Have files and folders on disk. At once: 16 of them one by one took ten times as long."""
    if len(paths) < 2:  # noqa: PLR2004 - a thread for one costs more than it saves
        for path in paths:
            fsync(path)
        return
    with ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(fsync, paths))


def fsync(path: Path) -> None:
    """Have a file, or a folder's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
