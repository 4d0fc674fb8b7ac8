"""What is in the data folder is for nobody else on the machine, whoever wrote it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import ingest_fixtures
import pytest
from conftest import Fairboard, encode, progression
from ingest_fixtures import service

from warehouse.privacy import close_to_others

REPO = Path(__file__).parent.parent
PAGE = str(REPO / "dashboard" / "app.py")
BIN = Path(sys.executable).parent


def open_to_others(folder: Path) -> list[str]:
    """Every file and folder, the folder itself included, that another user could read or enter."""
    paths = [folder, *folder.rglob("*")]
    return sorted(str(path.relative_to(folder)) for path in paths if path.exists() and path.lstat().st_mode & 0o077)


def opened(folder: Path) -> None:
    """As an older version left it."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.chmod(0o755)


def test_nothing_that_the_commands_write_is_open(fairboard: Fairboard, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "events.ndjson").write_bytes(encode(progression("ann", "2026-05-01", 10)))
    fairboard("import", "events.ndjson")
    fairboard("keys", "make", "game")
    fairboard("materialize", "--from", "2026-05-01", "--to", "2026-05-01")
    fairboard("verdict", "list")
    assert open_to_others(data) == []
    opened(data)
    fairboard("doctor")
    assert open_to_others(data) == []


def test_nothing_that_the_service_and_redis_write_is_open(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    redis = subprocess.Popen(
        [BIN / "fairboard", "redis"], stdout=subprocess.PIPE, env=os.environ | {"FAIRBOARD_DATA_DIR": str(data)}
    )
    assert redis.stdout is not None
    redis.stdout.readline()  # it is up
    with service(data) as running:
        assert running.client().post_batch([ingest_fixtures.progression("ann")]).accepted == 1
        assert list(data.glob("journal/*/*"))
        assert open_to_others(data) == []
    redis.terminate()
    redis.wait()
    assert list(data.glob("lake/events/*/*.parquet"))
    assert open_to_others(data) == []


@pytest.mark.parametrize("module", ["pipelines.definitions", "pipelines.cli", "dashboard/app.py"])
def test_every_process_closes_what_an_older_version_left_open(tmp_path: Path, module: str) -> None:
    data = tmp_path / "data"
    (data / "lake").mkdir(parents=True)
    (data / "lake" / "old.parquet").touch()
    opened(data)
    code = {
        "pipelines.definitions": "import pipelines.definitions",
        "pipelines.cli": "from pipelines.cli import main; main(['keys', 'list'])",
        "dashboard/app.py": f"from streamlit.testing.v1 import AppTest; AppTest.from_file({PAGE!r}).run(timeout=60)",
    }[module]
    code += "\nfrom pathlib import Path; Path('new').touch()" if module != "pipelines.cli" else ""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPO)})
    assert open_to_others(data) == []
    assert module == "pipelines.cli" or not (tmp_path / "new").stat().st_mode & 0o077


def test_links_and_folders_of_everybody_are_left_as_they_are(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch(0o644)
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder in (shared, own):
        folder.mkdir()
        (folder / "journal").mkdir(0o700)
        (folder / "link").symlink_to(outside)
        (folder / "tool").touch()
        (folder / "tool").chmod(0o755)
    shared.chmod(0o1777)
    for folder in (shared, own):
        close_to_others(folder)
    anothers = tmp_path / "home"
    anothers.mkdir()
    (anothers / "letter").touch(0o644)
    close_to_others(anothers)
    assert stat.S_IMODE((anothers / "letter").stat().st_mode) == 0o644
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (outside, shared, shared / "tool", own, own / "tool")]
    assert modes == [0o644, 0o1777, 0o755, 0o700, 0o700]
