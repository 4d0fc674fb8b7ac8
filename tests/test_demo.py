"""`fairboard demo` as a new user runs it, only smaller."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("demo")
COMMAND = str(Path(sys.executable).parent / "fairboard")


def demo(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "FAIRBOARD_DATA_DIR": str(folder)}
    return subprocess.run([COMMAND, "demo", *arguments], env=environment, capture_output=True, text=True, check=False)


def left_running(folder: Path) -> list[str]:
    """Processes that still know the demo's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (OSError, PermissionError):
            continue
        if str(folder).encode() in text and process.name != str(os.getpid()):
            found.append(process.name)
    return found


def test_the_demo_shows_boards_flags_and_counts_and_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    done = demo(folder, "--players", "300", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert "Daily board" in done.stdout
    assert "Weekly board" in done.stdout
    assert "Seasonal board" in done.stdout
    assert "leads the season" in done.stdout
    assert "500 duplicates, 3 rejected" in done.stdout
    assert "events are in the lake, each once" in done.stdout
    assert left_running(folder) == []


def test_the_demo_does_not_touch_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    done = demo(tmp_path / "data")
    assert done.returncode == 1
    assert "nothing was touched" in done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["precious"]
