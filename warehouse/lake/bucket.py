"""The lake in a bucket: S3 and what speaks it, Azure Blob, Google Cloud Storage; credentials by each cloud's own variables.

What belongs here: a `Storage` over obstore. What does not: what its errors mean (`trouble.py`), the copies that DuckDB reads
(`cache.py`).
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from warehouse.lake.cache import HELD_S, Cache
from warehouse.lake.names import LakeFile, is_data_file
from warehouse.lake.storage import DamagedFile, Storage, Stored, sha256
from warehouse.lake.trouble import PASSING, BucketUnavailable, cloud_prefix, explain

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

# A request has this long, and so have its repetitions: whatever the bucket does, a call ends within a minute.
PATIENCE_S: Final = 30.0
CONNECT_S: Final = 5.0
BACKOFF_S: Final = (0.1, 2.0)  # between two tries, growing
AT_ONCE: Final = 16  # requests
# The smallest part that S3 takes: at `PARTS_AT_ONCE`, 6 Mbit/s are enough for a part to be done in time.
PART_BYTES: Final = 5 * 2**20
PARTS_AT_ONCE: Final = 4

T = TypeVar("T")


class Bucket(Storage):
    """A bucket below `url`, read through a cache on this machine. Whatever goes wrong with it is a `BucketUnavailable`."""

    def __init__(self, url: str, cache_folder: Path, cache_bytes: int, patience_s: float = PATIENCE_S) -> None:
        self.url = url.rstrip("/")
        self.cache = Cache(cache_folder, cache_bytes, self._fetch)
        self.scratch = self.cache.scratch
        self._patience_s = patience_s
        self.options = {  # delta-rs reads the clouds' variables by itself
            "timeout": f"{patience_s:.3f}s",
            "connect_timeout": f"{min(CONNECT_S, patience_s):.3f}s",
            "retry_timeout": f"{patience_s:.3f}s",
            "max_retries": "1000",
            "backoff_config.init_backoff": f"{BACKOFF_S[0]}s",
            "backoff_config.max_backoff": f"{BACKOFF_S[1]}s",
        }
        if url.startswith("s3:"):  # its default, which no variable shall change: two commits of one version would both win
            self.options |= {"aws_conditional_put": "etag"}
        with self.guarded():
            prefix = f"{cloud_prefix(self.url)}_"
            environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(prefix)))
            self._store = _store(self.url, patience_s, 1000, environment)
            self._once = _store(self.url, patience_s, 0, environment)
        self._requests = ThreadPoolExecutor(AT_ONCE, "bucket")
        self._parts = ThreadPoolExecutor(PARTS_AT_ONCE, "bucket-part")  # waited for by threads of the other

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """See `Storage`."""
        try:
            yield
        except (BaseError, OSError) as error:  # delta-rs raises OSError, obstore both
            raise BucketUnavailable(self.url, error) from error

    def paths(self, files: Sequence[LakeFile], *, check: bool = True) -> list[Path]:
        """See `Storage`: in the cache of this machine, which fetches what it has not. What is fetched is always checked."""
        return self.cache.paths(files, check=check)

    def examine(self, file: LakeFile) -> None:
        """See `Storage`: in the bucket, whatever the cache has."""
        with self.cache.fetched(file):
            pass

    def heal(self, file: LakeFile) -> bool:
        """See `Storage`."""
        copy = self.cache.folder / file.name
        if not copy.exists() or sha256(copy) != file.sha256:
            return False
        with self.guarded():
            obstore.put(self._store, file.name, copy)
        return True

    def _fetch(self, file: LakeFile, target: Path) -> None:
        """Download a file, whatever it holds."""
        try:
            with self.guarded():
                if file.size <= PART_BYTES:
                    parts: Iterable[bytes] = [obstore.get(self._store, file.name).bytes().to_bytes()]
                elif (size := obstore.head(self._store, file.name)["size"]) == file.size:
                    parts = self._parts.map(lambda start: self._fetch_part(file, start), range(0, size, PART_BYTES))
                else:
                    raise DamagedFile(file, f"has {size:,} bytes in place of {file.size:,}")
        except BucketUnavailable as error:
            if error.no_file:
                raise DamagedFile(file, f"is missing, with {file.rows:,} rows") from error
            raise
        with target.open("wb") as out:
            out.writelines(parts)

    def _fetch_part(self, file: LakeFile, start: int) -> bytes:
        with self.guarded():
            end = min(start + PART_BYTES, file.size)
            return obstore.get_range(self._store, file.name, start=start, end=end).to_bytes()

    def put(self, sources: Mapping[str, Path]) -> None:
        """See `Storage`. A data file written in `scratch` is in the cache then: what is written is soon read."""
        small = {name: source for name, source in sources.items() if source.stat().st_size <= PART_BYTES}
        self._at_once(self._put, small.items())
        for item in sources.items() - small.items():
            self._put(item)

    def _put(self, item: tuple[str, Path]) -> None:
        name, source = item
        with self.guarded():
            obstore.put(self._store, name, source, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        if is_data_file(name) and source.is_relative_to(self.scratch):
            self.cache.adopt(name, source)
        else:
            source.unlink()

    def _at_once(self, work: Callable[[T], None], items: Iterable[T]) -> None:
        """Do it for all; after a failure no more are begun, and none is still at work when it is raised."""
        begun = [self._requests.submit(work, item) for item in items]
        wait(begun, return_when=FIRST_EXCEPTION)
        ended = [one for one in begun if not one.cancel()]
        wait(ended)
        for one in ended:
            one.result()

    def flush(self, names: Sequence[str]) -> None:
        """See `Storage`. A bucket answers when it has stored."""

    def read(self, name: str) -> bytes | None:
        """See `Storage`."""
        try:
            with self.guarded():
                return obstore.get(self._store, name).bytes().to_bytes()
        except BucketUnavailable as error:
            if error.no_file:
                return None
            raise

    def create(self, name: str, content: bytes) -> bool:
        """See `Storage`.

        An answer that was lost leaves open whether we were first: then what is there decides, so `content` should tell writers
        apart where that matters.
        """
        unsure, wait_s, deadline = False, BACKOFF_S[0], time.monotonic() + self._patience_s
        while True:
            try:
                obstore.put(self._once, name, content, mode="create")
            except AlreadyExistsError:
                return unsure and self.read(name) == content
            except (BaseError, OSError) as error:
                if explain(self.url, error).kind not in PASSING or time.monotonic() > deadline:
                    raise BucketUnavailable(self.url, error) from error
                unsure = True
            else:
                return True
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, BACKOFF_S[1])

    def replace(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        with self.guarded():
            obstore.put(self._store, name, content)

    def list(self, prefix: str) -> Iterator[Stored]:
        """See `Storage`."""
        with self.guarded():
            for page in obstore.list(self._store, prefix, chunk_size=1000):
                yield from (Stored(one["path"], one["size"], one["last_modified"].timestamp()) for one in page)

    def move(self, name: str, target: str) -> bool:
        """See `Storage`: a copy, then the old name goes. Stopped between, it has both."""
        try:
            with self.guarded():
                obstore.rename(self._store, name, target)
        except BucketUnavailable as error:
            if error.no_file:
                return False
            raise
        self.cache.forget([name, target])
        return True

    def delete(self, names: Iterable[str]) -> None:
        """See `Storage`: from this machine's cache, too. Other machines lose their copies by `tidy_copies`."""
        names = list(names)
        self._at_once(self._delete, names)
        self.cache.forget(names)

    def _delete(self, name: str) -> None:
        try:
            with self.guarded():
                obstore.delete(self._store, name)
        except BucketUnavailable as error:
            if not error.no_file:
                raise

    def tidy_copies(self, *, at_once: bool = False) -> None:
        """See `Storage`."""
        began = time.time()
        names = {stored.name for stored in self.list("")}
        self.cache.keep_only(names, began if at_once else began - HELD_S)  # what was put meanwhile is not in the list

    def shown(self, name: str) -> str:
        """See `Storage`."""
        return f"{self.url}/{name}"


@lru_cache(maxsize=8)
def _store(url: str, patience_s: float, tries: int, environment: tuple[tuple[str, str], ...]) -> "ObjectStore":
    """A client of obstore, which finds the cloud's variables itself: making one takes 25 ms, so a process shares them."""
    variables, prefix = dict(environment), cloud_prefix(url)
    # Options given here take the place of all that the environment says of the connection.
    client: ClientConfig = {"timeout": f"{patience_s:.3f}s", "connect_timeout": f"{min(CONNECT_S, patience_s):.3f}s"}
    if variables.get(f"{prefix}_ALLOW_HTTP", "").lower() in {"1", "true"}:
        client["allow_http"] = True
    if proxy := variables.get(f"{prefix}_PROXY_URL"):
        client["proxy_url"] = proxy
    first_s, longest_s = BACKOFF_S
    retry: RetryConfig = {
        "max_retries": tries,
        "retry_timeout": timedelta(seconds=patience_s),
        "backoff": {"init_backoff": timedelta(seconds=first_s), "max_backoff": timedelta(seconds=longest_s), "base": 2},
    }
    return from_url(url, client_options=client, retry_config=retry)
