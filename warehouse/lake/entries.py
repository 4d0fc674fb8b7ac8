"""What the entries of a table's log say of the files that commits took out. What does not belong here: the files themselves."""

import json
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from warehouse.lake.storage import Storage, Stored
from warehouse.tables import Table

ASIDE: Final = "fairboard.aside"  # in a commit's own words: what it took out is damaged
_REMEMBERED: Final = 50_000
_seen: dict[tuple[str, str, int, float], "Entry"] = {}  # a bucket is asked for each once: an entry never changes


class Removal(NamedTuple):
    """A file that a commit took out: its name below the lake's root, and when (s since the epoch)."""

    name: str
    since: float


class Entry(NamedTuple):
    """One commit: when it was made (s since the epoch), whether it put files in, what it took out, and whether as damaged."""

    name: str
    at: float
    adds: bool
    removed: tuple[Removal, ...]
    aside: bool


def entries(storage: Storage, table: Table) -> Iterator[Entry]:
    """The entries that are there and can be read, the oldest first: where one is damaged, a checkpoint stands for it."""
    for stored in sorted(storage.list(f"{table.name}/_delta_log")):
        if stored.name.endswith(".json"):
            key = (storage.url, *stored)
            if key not in _seen and (entry := _read(storage, table, stored)):
                if len(_seen) >= _REMEMBERED:
                    _seen.clear()
                _seen[key] = entry
            if key in _seen:
                yield _seen[key]


def _read(storage: Storage, table: Table, stored: Stored) -> Entry | None:
    try:
        actions = [json.loads(line) for line in (storage.read(stored.name) or b"").splitlines()]
    except ValueError:
        return None
    said = [action["commitInfo"] for action in actions if "commitInfo" in action]
    removed = tuple(
        Removal(f"{table.name}/{unquote(one['remove']['path'])}", one["remove"]["deletionTimestamp"] / 1000)
        for one in actions
        if "remove" in one
    )
    at = max((one.get("timestamp", 0) / 1000 for one in said), default=0.0)
    return Entry(stored.name, at, any("add" in one for one in actions), removed, any(ASIDE in one for one in said))
