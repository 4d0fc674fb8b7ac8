"""A real PostgreSQL for tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """A server of its own on a socket in a folder of its own, without a port."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *(Path(p) for p in os.environ["PATH"].split(":"))]
    binaries = next((path for path in found if (path / "initdb").exists()), None)
    if binaries is None:
        missing("PostgreSQL (apt-get install postgresql, brew install postgresql)")
        return
    folder = Path(tempfile.mkdtemp(prefix="fairboard-pg-"))  # pytest's own folders are closed to other users
    owner = "postgres" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    if owner:
        shutil.chown(folder, owner)

    def run(*command: str) -> None:
        subprocess.run(command, user=owner, cwd=folder, stdout=subprocess.DEVNULL, check=True)

    run(str(binaries / "initdb"), "--auth=trust", "--username=fairboard", "--no-sync", str(folder / "data"))
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    control = (str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log"))
    run(*control, "-o", options, "start")
    yield f"postgresql+psycopg://fairboard@/postgres?host={folder}"
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(folder)
