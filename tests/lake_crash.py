"""`lake_crash.py ORIGIN WORK ACTION STRIDE`: act, and die (SIGKILL) before the N-th step that touches the disk; act again.

For every STRIDE-th N, on a copy of ORIGIN at WORK/N; WORK/0 is what was not killed. Prints how many steps there are.
One interpreter that forks, because starting one takes two seconds; nothing may have started threads before the fork.
"""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from warehouse.calendar import Days
from warehouse.engine import MODELS, DuckDBEngine, model
from warehouse.erasure import forget
from warehouse.folds import fold
from warehouse.publications import Outlets
from warehouse.settings import Settings
from warehouse.upgrade import upgrade

DAY = Days.parse("2024-05-01", "2024-05-01")


def act(action: str, folder: Path) -> None:
    settings = Settings(data_dir=folder, _env_file=None)
    if action == "upgrade":
        upgrade(settings)
        return
    with DuckDBEngine(settings) as engine:
        if action == "compact":
            fold(engine, "events", DAY)
        else:
            forget(engine, Outlets(settings, 1714780800.0), action)


def forked(action: str, folder: Path, last: int) -> tuple[int, int]:
    """Act in a child that dies before step `last`, or never with 0: its exit status, and the steps it made."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        steps = itertools.count(1)

        def counted(function: Any) -> Any:
            def step(*args: Any, **kwargs: Any) -> Any:
                if (now := next(steps)) == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.write(writing, now.to_bytes(4))
                return function(*args, **kwargs)

            return step

        for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        DeltaTable.create_write_transaction = counted(DeltaTable.create_write_transaction)
        act(action, folder)
        os._exit(0)
    os.close(writing)
    made = b""
    while part := os.read(reading, 1 << 16):
        made += part
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(made) // 4


for path in MODELS.glob("*.sql"):
    model(path.stem)  # parsed once, not in every child
origin, work, action, stride = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
shutil.copytree(origin, work / "0")
status, total = forked(action, work / "0", 0)
assert status == 0, status
for number in range(1, total + 1, stride):
    shutil.copytree(origin, work / str(number))
    status, _ = forked(action, work / str(number), number)
    assert status == -signal.SIGKILL, (number, status)
    status, _ = forked(action, work / str(number), 0)
    assert status == 0, (number, status)
sys.stdout.write(str(total))
