"""The samples and clients that the documentation shows work as they stand."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.ingest_fixtures import KEY_ID, SECRET, Service, service
from warehouse.events import decode_event

EXAMPLES = Path(__file__).parent.parent / "examples"
CLIENTS = {
    "python": [sys.executable, "send.py"],
    "bash": ["bash", "send.sh"],
    "node": ["node", "send.mjs"],
    "go": ["go", "run", "send.go"],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("examples") / "data") as started:
        yield started


@pytest.mark.parametrize("name", ["progression", "boss_kill", "drop_claimed"])
def test_the_sample_of_each_type_is_valid_and_of_that_type(name: str) -> None:
    content = (EXAMPLES / "events" / f"{name}.json").read_bytes()
    assert json.loads(content)["type"] == name
    decode_event(content)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_client_of_each_language_signs_and_sends(client: str, running: Service, tmp_path: Path) -> None:
    command = CLIENTS[client]
    if not shutil.which(command[0]):
        missing(f"{command[0]}, to run examples/clients/{command[-1]}")
    environment = {"URL": running.url, "KEY_ID": KEY_ID, "SECRET": SECRET, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    environment |= {"GOCACHE": str(tmp_path / "go"), "HOME": str(tmp_path)}
    sent = subprocess.run(command, cwd=EXAMPLES / "clients", env=environment, capture_output=True, text=True, check=False)
    assert sent.returncode == 0, sent.stderr
    assert '"accepted":1' in sent.stdout.replace(" ", "")
