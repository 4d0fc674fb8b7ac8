"""What `fairboard doctor` tries on the lake's folder or bucket: each right by using it, on a file of its own.

What belongs here: the trying, and what was found. What does not: what an error means (`trouble.py`).
"""

import os
import time
from typing import Final, NamedTuple

from warehouse.lake.storage import Storage
from warehouse.lake.trouble import BucketUnavailable, Kind, Trouble

CLOCK_OFF_S: Final = 60  # clouds refuse what is 15 minutes off; what is kept by age here should not be off by as much
FOLDER: Final = "_doctor"


class Examined(NamedTuple):
    """What was found of the lake's place. `kind` is None and `todo` empty where all is well."""

    kind: Kind | None
    found: str
    todo: str = ""


def examine_storage(storage: Storage) -> Examined:
    """Write, read, list and delete a small file; see that a second writer of it is refused, and that both clocks agree."""
    probe, began = _Probe(storage), time.time()
    refused: dict[str, Trouble] = {}
    for right in ("write", "read", "list", "delete"):
        try:
            getattr(probe, right)()
        except BucketUnavailable as error:
            if error.trouble.kind != Kind.RIGHTS:
                return Examined(error.trouble.kind, f"{error.trouble.kind}: {error.trouble.said}", error.trouble.todo)
            refused[right] = error.trouble
        except OSError as error:  # of a folder
            refused[right] = Trouble(Kind.RIGHTS, str(error), f"let this user list, read, write and delete in {storage.url}")
    if refused:
        first = next(iter(refused.values()))
        return Examined(Kind.RIGHTS, f"no right to {', '.join(refused)}: {first.said}", first.todo)
    if probe.written_twice:
        return Examined(
            Kind.CONDITIONS, Kind.CONDITIONS, "use a bucket that has them (`If-None-Match`); this one would lose commits"
        )
    if probe.modified and abs(off_s := probe.modified - began) > CLOCK_OFF_S:
        return Examined(Kind.CLOCK, f"this machine's clock differs from the bucket's by {abs(off_s):,.0f} s", "set the clock")
    return Examined(None, f"listed, read, written and deleted in {1000 * (time.time() - began):,.0f} ms")


class _Probe:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._name = f"{FOLDER}/{os.urandom(8).hex()}"
        self.written_twice = False
        self.modified: float | None = None

    def write(self) -> None:
        self._storage.create(self._name, b"first")
        self.written_twice = self._storage.create(self._name, b"second")

    def read(self) -> None:
        self._storage.read(self._name)

    def list(self) -> None:
        self.modified = next((one.modified for one in self._storage.list(FOLDER) if one.name == self._name), None)

    def delete(self) -> None:
        self._storage.delete([self._name])
