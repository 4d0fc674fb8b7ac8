"""Who writes a table, or publishes: one at a time, on one machine or on several.

On one machine a lock file in the data folder, which dies with its process; where the SQL database is PostgreSQL, its advisory
locks, which die with their connection. Neither is what keeps a table whole: that is the conditional commit.
"""

import fcntl
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from warehouse.errors import StoreUnavailable
from warehouse.settings import Settings


class Leases(ABC):
    """The right to do something that one process at a time may do."""

    @abstractmethod
    def hold(self, name: str) -> AbstractContextManager[None]:
        """Hold the right while the context lasts; wait until it is free.

        Raises:
            StoreUnavailable: the database that keeps the rights cannot be reached; nothing was done.
        """

    @abstractmethod
    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Hold the right while the context lasts, if it is free: False where another has it."""


class LockFiles(Leases):
    """Lock files in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """See `Leases`."""
        with self._path(name).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """See `Leases`."""
        with self._path(name).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _path(self, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{name}.lock"


class AdvisoryLocks(Leases):
    """PostgreSQL's advisory locks: each holds one connection."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """See `Leases`."""
        with self._asked(sa.func.pg_advisory_lock, name):
            yield

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """See `Leases`."""
        with self._asked(sa.func.pg_try_advisory_lock, name) as granted:
            yield bool(granted)

    @contextmanager
    def _asked(self, function: Callable[[int], sa.ColumnElement[Any]], name: str) -> Iterator[Any]:
        """The answer to a question for a right, which is given back with the connection that it was asked on."""
        with ExitStack() as opened:
            try:
                connection = opened.enter_context(self._engine.connect())
                answer = connection.scalar(sa.select(function(_number(name))))
            except sa.exc.SQLAlchemyError as error:
                raise StoreUnavailable(
                    f"The database that says who writes the lake cannot be used ({error.__class__.__name__}). Nothing was "
                    "written. Start it, or correct FAIRBOARD_DATABASE_URL, and run the same again."
                ) from error
            yield answer


def open_leases(settings: Settings) -> Leases:
    """The leases of a deployment."""
    if settings.sqlalchemy_url.startswith("postgresql"):
        return _advisory_locks(settings.sqlalchemy_url)
    return LockFiles(settings.data_dir.absolute() / "locks")


@cache
def _advisory_locks(url: str) -> AdvisoryLocks:
    return AdvisoryLocks(url)


def _number(name: str) -> int:
    """A lock's number: PostgreSQL knows 64 bits and no names."""
    return int.from_bytes(hashlib.sha256(f"fairboard {name}".encode()).digest()[:8], signed=True)
