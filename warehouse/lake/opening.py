"""Where this deployment's lake is: a folder of this machine, or a bucket. What a path means to the rest is `storage.py`'s."""

from functools import cache
from pathlib import Path

from warehouse.lake.bucket import PATIENCE_S, Bucket
from warehouse.lake.storage import Folder, Storage
from warehouse.settings import Settings, is_bucket


def open_storage(settings: Settings, patience_s: float = PATIENCE_S) -> Storage:
    """The folder or bucket of the lake. A bucket is not asked anything yet; a request to it is given up after `patience_s`.

    Raises:
        BucketUnavailable: what is configured of a bucket cannot be right, for example a key that is no key.
    """
    return open_place(settings, settings.lake_bucket or str(settings.lake_dir), patience_s)


def open_place(settings: Settings, where: str, patience_s: float = PATIENCE_S) -> Storage:
    """Any folder (a path or file://…) or bucket; see `open_storage`."""
    if is_bucket(where):
        return _bucket(where, settings.data_dir.absolute() / "cache", settings.cache_mb * 2**20, patience_s)
    return Folder(Path(where.removeprefix("file://")).absolute())


@cache
def _bucket(url: str, folder: Path, limit_bytes: int, patience_s: float) -> Bucket:
    """One a process: it has connections, and knows which copies it has looked at."""
    return Bucket(url, folder, limit_bytes, patience_s)
