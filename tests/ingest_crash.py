"""`python crash.py N`: seal, and die (SIGKILL) before the N-th step that touches the disk. Exits 0 when there were fewer steps.

The settings come from the environment, as for the real sealer.
"""

import itertools
import os
import signal
import sys
from typing import Any

from ingest_api.sealer import seal_once
from warehouse.settings import load_settings

_steps = itertools.count(1)
_last = int(sys.argv[1])


def _counted(function: Any) -> Any:
    def step(*args: Any, **kwargs: Any) -> Any:
        if next(_steps) == _last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return step


for name in ("fsync", "rename", "replace", "unlink", "mkdir"):
    setattr(os, name, _counted(getattr(os, name)))

seal_once(load_settings())
