"""What the tests of repair, backup and upgrade share: a closed week with everything a lake can hold, and its answers."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from closed_week import FIRST, GAME, SECOND, THIRD, Week
from conftest import Done, Fairboard, boss_kill, progression

from warehouse.engine import DuckDBEngine
from warehouse.lake import Lake, vacuum_now
from warehouse.settings import Settings
from warehouse.tables import TABLES

LATE = [
    progression("dee", FIRST, 70, eventId="d1"),
    GAME[0],  # a copy
    progression("bob", FIRST, 99, eventId="b1"),  # another content of an id
    {"type": "progression", "playerId": "ann", "ts": 1_777_900_000, "payload": {"deltaXp": 1.5, "activity": "refused"}},
]


def answers(settings: Settings) -> dict[str, list[str]]:
    """Every row of every table, in a stable order."""
    with DuckDBEngine(settings) as engine:
        engine.bind_all()
        return {name: sorted(map(repr, engine.connection.sql(f"FROM {name}").fetchall())) for name in TABLES}


def data_files(settings: Settings, table: str = "") -> list[Path]:
    """The Parquet files of a table's folder, or of the lake."""
    return sorted(path for path in (settings.lake_dir / table).rglob("*.parquet") if path.parent.name != "_delta_log")


def make_old(*paths: Path) -> None:
    """As if the files had been written an hour ago."""
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2)


def flip(path: Path) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def restored_by_hand(settings: Settings, saved: Path, *without: str) -> None:
    """Put a saved lake in the place of the present one, as somebody may who leaves something out."""
    shutil.rmtree(settings.lake_dir)
    shutil.copytree(saved, settings.lake_dir)
    for name in without:
        shutil.rmtree(settings.lake_dir / name)


def forget_history(settings: Settings) -> None:
    """Vacuum what was superseded, as if its time were over."""
    with Lake(settings) as lake:
        vacuum_now(lake, TABLES.values())


def verified(fairboard: Fairboard, *arguments: str, status: int = 0) -> Any:
    """What `fairboard verify` says."""
    return msgspec.json.decode(fairboard("verify", "--json", *arguments, status=status).stdout)


def materialize(fairboard: Fairboard, *, status: int = 0) -> Done:
    return fairboard("materialize", "--from", FIRST, "--to", THIRD, status=status)


@pytest.fixture
def deployment(redis_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FAIRBOARD_REDIS_URL", str(redis_settings.redis_url))
    return redis_settings


@pytest.fixture(scope="session")
def saved_week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("week") / "data"


@pytest.fixture
def week(deployment: Settings, fairboard: Fairboard, tmp_path: Path, saved_week: Path) -> Week:
    """A week with compacted and late events, a copy, a conflict, a refused line, and two revisions of its boards; tidied.

    It is played once a process, and copied for each test.
    """
    week = Week(fairboard, tmp_path)
    if saved_week.exists():
        shutil.copytree(saved_week, deployment.data_dir)
        return week
    drop = {"type": "drop_claimed", "payload": {"itemId": "sword", "rarity": "epic"}}
    week.brings(*GAME, progression("ann", SECOND, 3), boss_kill("ann", SECOND), progression("ann", SECOND, 3) | drop)
    week.computes()
    week.brings(*LATE, refused=True)
    week.computes()
    forget_history(deployment)
    shutil.copytree(deployment.data_dir, saved_week)
    return week
