"""What players did, who signs and who cheats is for one user of the machine: the data folder is 0700, its files 0600.

What does not belong here: who may ask the service, or Redis (`embedded_redis.py`).
"""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from warehouse.errors import SettingsError
from warehouse.settings import load_settings

_OTHERS = 0o077
_OURS = {"journal", "lake", "redis", "instance", "keys.json", "fairboard.sqlite", "_lake.json"}  # one is in any folder of ours


def keep_private() -> None:
    """Make what this process and its children write their user's alone, and what is in the data folder. A process's first step.

    Settings that cannot be used are reported by who needs them: `--help` does not.
    """
    os.umask(_OTHERS)
    with suppress(SettingsError):
        settings = load_settings()
        for folder in (settings.data_dir, *([] if settings.lake_bucket else [settings.lake_dir])):
            try:
                close_to_others(folder)
            except OSError as error:
                sys.stderr.write(f"{folder} stays as open to other users as it was: {error}\n")


def close_to_others(folder: Path) -> None:
    """Take a folder, and all in it that is this user's, from other users.

    The folder comes last, and so says that it is done: walking a lake of years takes seconds. Links are not followed; a folder
    of another user, or everybody's (/tmp), or without anything that Fairboard makes, is not ours to close.
    """
    if not folder.is_dir() or _is_anothers(folder):
        return
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX or not status.st_mode & _OTHERS:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _close(os.path.join(parent, name))  # noqa: PTH118 - a Path of each costs more than the rest
    _close(str(folder))


def _is_anothers(folder: Path) -> bool:
    names = set(os.listdir(folder))  # noqa: PTH208 - the names are all that is wanted
    return bool(names) and not names & _OURS


def _close(path: str) -> None:
    with suppress(FileNotFoundError):  # another process was done with it
        status = os.lstat(path)
        if status.st_uid == os.geteuid() and status.st_mode & _OTHERS and not stat.S_ISLNK(status.st_mode):
            os.chmod(path, stat.S_IMODE(status.st_mode) & ~_OTHERS)  # noqa: PTH101 - as above
