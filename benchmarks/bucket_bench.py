"""What a lake in a bucket costs a day's graph, as one JSON line for each figure.

    python benchmarks/bucket_bench.py [--scale 0.1] [--rounds 3] [--data FOLDER]

`warm_bucket_day_vs_local`: the day of `warehouse_bench.py`, on 30 days of history, with the lake in a bucket whose files this
machine has copies of, beside the same lake in a folder. `cold_bucket_day_vs_local`: with no copy of any file. The bucket is
moto's, a process in Python on the same cores that answers one request at a time: a real one is further away, and answers many.
A figure is printed only after bucket and folder gave the same answers.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import obstore
from obstore.store import from_url
from warehouse_bench import TODAY, Cost, agree, cost, forget_day, report
from warehouse_data import Data, materialize
from warehouse_sql import engine_answers

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from buckets import s3

from warehouse.lake import opening
from warehouse.settings import Settings


def bucket_day(data: Data, rounds: int, url: str) -> None:
    """Both figures."""
    local = data.copy(data.month(), "local.copy")
    upload(local.lake_dir, url)
    bucket = Settings(data_dir=data.folder / "bucket.copy", lake_url=url, _env_file=None)
    pairs: dict[str, list[tuple[Cost, Cost]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        forget_day(local)
        ours = cost(lambda: materialize(local, TODAY))
        opening._bucket.cache_clear()  # noqa: SLF001 - a new process's
        shutil.rmtree(bucket.data_dir, ignore_errors=True)
        for found in pairs.values():  # the second time, everything is there
            forget_day(bucket)
            found.append((cost(lambda: materialize(bucket, TODAY)), ours))
            agree(engine_answers(bucket, TODAY), engine_answers(local, TODAY))
    for name, found in pairs.items():
        report(f"{name}_bucket_day_vs_local", found, "the lake in a folder")
    for settings in (local, bucket):
        shutil.rmtree(settings.data_dir)


def upload(folder: Path, url: str) -> None:
    """A lake's files into the bucket."""
    store = from_url(url, client_options={"allow_http": True})
    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(store, path.relative_to(folder).as_posix(), path)


def main() -> None:
    """Take the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder that keeps the lakes; default a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bucket-bench-") as temporary, s3() as emulator:
        os.environ.update(emulator.environment)
        data = Data((arguments.data or Path(temporary)).absolute(), arguments.scale)
        bucket_day(data, arguments.rounds, emulator.below("lake").url)


if __name__ == "__main__":
    main()
