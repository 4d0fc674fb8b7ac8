"""`python ingest_crash.py ORIGIN COPIES`: seal copies of a deployment, the N-th dying (SIGKILL) before the N-th disk step.

It ends with the first copy that had fewer steps, and fails where a copy ended otherwise. A copy is sealed by a fork: starting
Python for each would take a minute.
"""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import fsspec.implementations.memory  # noqa: F401 - else each fork imports it
import pandas as pd  # noqa: F401 - pyarrow imports it with the first array
from deltalake import DeltaTable

from ingest_api.sealer import seal_once
from warehouse.settings import Settings


def seal(folder: Path, last: int) -> None:
    """Seal, and die before that step."""
    steps = itertools.count(1)

    def counted(function: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step

    for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    DeltaTable.create_write_transaction = counted(DeltaTable.create_write_transaction)
    seal_once(Settings(data_dir=folder, _env_file=None))


def main(origin: Path, copies: Path) -> None:
    """Seal one copy after the other."""
    for step in itertools.count(1):
        folder = copies / str(step)
        shutil.copytree(origin, folder)
        child = os.fork()
        if not child:
            seal(folder, step)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        if status != -signal.SIGKILL:
            sys.exit(f"step {step}: exit code {status}")


main(*map(Path, sys.argv[1:]))
