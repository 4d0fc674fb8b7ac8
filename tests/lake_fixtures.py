"""What the tests of the lake's files share: a game of three days in many small files, and what a lake holds."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import boss_kill, land_events, progression

from warehouse.calendar import Days
from warehouse.damage import Damage, verify
from warehouse.engine import DuckDBEngine
from warehouse.folds import FOLDS, Folded, fold
from warehouse.lake import Lake, LakeFile
from warehouse.settings import Settings
from warehouse.tables import TABLES, Table

REPO = Path(__file__).parent.parent
DAYS = ("2024-05-01", "2024-05-02", "2024-05-03")
RANGE = Days.parse(DAYS[0], DAYS[-1])


def game() -> list[dict[str, Any]]:
    """Events of five players: some ids come twice, one with other content, one with other unknown fields."""
    chance = random.Random(5)
    players = ["ann", "bob", "cid", "dee", 'e"ve']
    events = [
        progression(
            chance.choice(players), chance.choice(DAYS), chance.randrange(-5, 500), f"{n % 24:02}:00:00", eventId=f"e{n}"
        )
        for n in range(120)
    ]
    events += [boss_kill(player, day, "21:00:00", eventId=f"kill-{player}-{day}") for player in players for day in DAYS]
    late = 60_000  # ms
    events += [event | {"received_ms": event["ts"] * 1000 + late} for event in events[:7]]
    other = progression("bob", DAYS[0], 10**6, eventId="same")
    events += [progression("bob", DAYS[0], 1, eventId="same"), other | {"received_ms": other["ts"] * 1000 + late}]
    return [*events, events[0] | {"build": "1.1"}]


def land_game(settings: Settings, files: int = 6, events: list[dict[str, Any]] | None = None) -> None:
    """Land the game in so many files a day."""
    for number in range(files):
        part = [dict(event) for event in (events or game())[number::files]]
        land_events(settings, part, f"seal-{number}")


def fold_all(settings: Settings, days: Days = RANGE) -> dict[str, Folded]:
    with DuckDBEngine(settings) as engine:
        return {name: fold(engine, name, days) for name in FOLDS}


def damages(settings: Settings) -> list[Damage]:
    return [found for found in verify(Lake(settings)) if isinstance(found, Damage)]


def flip(path: Path) -> bytes:
    """Change one bit; the file as it was."""
    sound = path.read_bytes()
    path.write_bytes(sound[:40] + bytes([sound[40] ^ 4]) + sound[41:])
    return sound


def paths_of(settings: Settings, table: Table, days: Days | None = None) -> list[Path]:
    """The files that a table has now, of those days."""
    with Lake(settings) as lake:
        return lake.paths(lake.files(table, days))


def tree(settings: Settings) -> dict[str, bytes]:
    """Every file of the lake's newest snapshots, by name."""
    with Lake(settings) as lake:
        files = [file for table in TABLES.values() for files in lake.snapshot(table).files.values() for file in files]
        return {file.name: lake.path(file).read_bytes() for file in files}


def contents(settings: Settings) -> dict[str, bytes]:
    """The same by partition and label, whatever it was made of."""
    return {f"{name.rpartition('/')[0]}/{LakeFile(name, 0, 0, 0).label}": content for name, content in tree(settings).items()}


def on_disk(settings: Settings) -> dict[str, bytes]:
    """Every file of the lake but scratch, superseded ones and the log included."""
    folder = settings.lake_dir
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "_tmp"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def ask(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    with DuckDBEngine(settings) as engine:
        engine.bind_all()
        return engine.connection.sql(sql).fetchall()


def kill_at_each_step(origin: Path, work: Path, action: str, stride: int, environment: dict[str, str]) -> int:
    """Run `lake_crash.py`. Returns the steps there were."""
    command = [sys.executable, "tests/lake_crash.py", str(origin), str(work), action, str(stride)]
    environment = environment | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=REPO)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
