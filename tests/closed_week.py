"""A week in May that has closed: what an operator does with it on the command line, and reads of its revisions."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from conftest import Fairboard, encode, progression

from warehouse.settings import Settings

FIRST, SECOND, THIRD = "2026-05-04", "2026-05-05", "2026-05-06"  # a week from Monday

GAME = [
    progression("ann", FIRST, 30, eventId="a1"),
    progression("bob", FIRST, 20, eventId="b1"),
    progression("cid", SECOND, 10, eventId="c1"),
]


class Week:
    """What an operator does with one week in May, and reads of it."""

    def __init__(self, fairboard: Fairboard, folder: Path) -> None:
        self.fairboard = fairboard
        self.folder = folder
        self.files = 0

    def brings(self, *events: dict[str, Any], refused: bool = False) -> None:
        """Import events as one more file; `refused` says that one of them is."""
        self.files += 1
        path = self.folder / f"{self.files}.ndjson"
        path.write_bytes(b"\n".join(map(encode, events)))
        self.fairboard("import", str(path), status=int(refused))

    def computes(self, first: str = FIRST, last: str = THIRD) -> None:
        """Materialize and publish a range of days, as a run of Dagster does."""
        self.fairboard("materialize", "--from", first, "--to", last)
        self.fairboard("publish", "--from", first, "--to", last)

    def revisions(self, kind: str = "weekly", diff: int = 0) -> Any:
        arguments = ["--diff", str(diff)] if diff else []
        answer = self.fairboard("revisions", "--window", kind, "--at", FIRST, "--json", *arguments)
        return msgspec.json.decode(answer.stdout)

    def causes(self, kind: str = "weekly") -> list[str]:
        """The causes of its revisions, the first first."""
        return [one["cause"] for one in reversed(self.revisions(kind)["revisions"])]

    def diff(self, revision: int, kind: str = "weekly") -> list[tuple[Any, ...]]:
        """Per player: id, rank and XP before, after, late events, verdict."""
        return [tuple(player.values()) for player in self.revisions(kind, revision)["diff"]["players"]]


def publisher(settings: Settings, first: str, last: str) -> "subprocess.Popen[str]":
    """`fairboard publish` as a process of its own."""
    environment = {
        "FAIRBOARD_DATA_DIR": str(settings.data_dir),
        "FAIRBOARD_REDIS_URL": str(settings.redis_url),
        **({"FAIRBOARD_DATABASE_URL": settings.database_url} if settings.database_url else {}),
    }
    command = [str(Path(sys.executable).parent / "fairboard"), "publish", "--from", first, "--to", last, "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def receipts_of(process: "subprocess.Popen[str]") -> int:
    """How many receipts the process has granted, once it has ended."""
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return int(next(one["rows"] for one in msgspec.json.decode(stdout) if one["name"] == "receipts"))
