"""`bucket_crash.py ORIGIN WORK ACTION KILLS URL`: act on a lake in S3, and die (SIGKILL) before the N-th step; act again.

For KILLS numbers N, spread over all steps, on a copy of ORIGIN at WORK/N and of the bucket's URL at URL.N; 0 is what was not
killed. One interpreter that forks, as `lake_crash.py`: nothing may have asked the bucket through obstore before the fork.
"""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import obstore
from deltalake import DeltaTable

from ingest_api.sealer import seal_once
from warehouse.calendar import Days
from warehouse.engine import MODELS, DuckDBEngine, model
from warehouse.folds import FOLDS, fold
from warehouse.settings import Settings

DAYS = Days.parse("2024-05-01", "2024-05-03")
STEPS = {
    os: ("fsync", "rename", "replace", "unlink"),
    obstore: ("put", "delete", "rename"),
    DeltaTable: ("create_write_transaction", "create", "create_checkpoint"),
}


def act(action: str, settings: Settings) -> None:
    if action == "seal":
        seal_once(settings)
        return
    with DuckDBEngine(settings) as engine:
        for name in FOLDS:
            fold(engine, name, DAYS)


def forked(action: str, settings: Settings, last: int) -> tuple[int, int]:
    """Act in a child that dies before step `last`, or never with 0: its exit status, and the steps it made."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        steps = itertools.count(1)

        def counted(function: Any) -> Any:
            def step(*args: Any, **kwargs: Any) -> Any:
                if next(steps) == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.write(writing, b".")
                return function(*args, **kwargs)

            return step

        for owner, names in STEPS.items():
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        act(action, settings)
        os._exit(0)
    os.close(writing)
    made = 0
    while part := os.read(reading, 1 << 16):
        made += len(part)
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), made


def copied(origin: Path, work: Path, url: str, number: int) -> Settings:
    shutil.copytree(origin, work / str(number))
    bucket, prefix = urlsplit(url).netloc, urlsplit(url).path.strip("/")
    client = boto3.client("s3")
    for one in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", []):
        name = one["Key"].removeprefix(prefix)
        client.copy_object(Bucket=bucket, Key=f"{prefix}.{number}{name}", CopySource={"Bucket": bucket, "Key": one["Key"]})
    return Settings(data_dir=work / str(number), lake_url=f"{url}.{number}", _env_file=None)


for path in MODELS.glob("*.sql"):
    model(path.stem)  # parsed once, not in every child
origin, work, action, kills, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
status, total = forked(action, copied(origin, work, url, 0), 0)
assert status == 0, status
for number in sorted({1 + step * (total - 1) // (kills - 1) for step in range(kills)}):
    settings = copied(origin, work, url, number)
    status, _ = forked(action, settings, number)
    assert status == -signal.SIGKILL, (number, status)
    status, _ = forked(action, settings, 0)
    assert status == 0, (number, status)
sys.stdout.write(str(total))
