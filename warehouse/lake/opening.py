"""Where this deployment's lake is: a folder of this machine, or a bucket. What a path means to the rest is `storage.py`'s."""

from functools import cache
from pathlib import Path

from warehouse.lake.bucket import Bucket
from warehouse.lake.storage import Folder, Storage
from warehouse.settings import Settings


def open_storage(settings: Settings) -> Storage:
    """The folder or bucket of the lake. A bucket is not asked anything yet.

    Raises:
        BucketUnavailable: what is configured of a bucket cannot be right, for example a key that is no key.
    """
    if settings.lake_bucket:
        cache_bytes = settings.cache_mb * 2**20
        return _bucket(settings.lake_bucket, settings.data_dir.absolute() / "cache", cache_bytes, settings.bucket_patience_s)
    return Folder(settings.lake_dir)


@cache
def _bucket(url: str, folder: Path, limit_bytes: int, patience_s: float) -> Bucket:
    """One a process: it has connections, and knows which copies it has looked at."""
    return Bucket(url, folder, limit_bytes, patience_s)
