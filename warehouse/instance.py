"""Which data folder a service serves, told without its path: a random id that is kept in the folder and shown by `/readyz`.

What does not belong here: the lake's identity (`lake.py`).
"""

import os
import secrets
from functools import cache
from pathlib import Path

from warehouse.settings import Settings

NAME = "instance"


def instance_of(settings: Settings) -> str:
    """The data folder's id, made where there is none yet. Of two processes that make one at once, one wins for both."""
    return _made(settings.data_dir.absolute())


def known_instance(settings: Settings) -> str | None:
    """The data folder's id, or None where no service has ever run on it."""
    try:
        return (settings.data_dir / NAME).read_text(encoding="ascii")
    except FileNotFoundError:
        return None


@cache
def _made(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / NAME, folder / f"{NAME}.{os.getpid()}.tmp"
    temporary.write_text(secrets.token_hex(16), encoding="ascii")
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass  # it is there, or another process was first
    finally:
        temporary.unlink()
    return path.read_text(encoding="ascii")
