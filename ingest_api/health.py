"""Is the worker alive, and would it accept an event?

What does not belong here: measuring (`pressure.py`, `redis_link.py`).
"""

from typing import Literal

import msgspec

from ingest_api.pressure import Pressure
from ingest_api.redis_link import RedisLink


class Readiness(msgspec.Struct, frozen=True):
    """The body of `/readyz`, which names no paths: everyone may read it.

    `instance` tells which data folder is served (`warehouse.instance`). `degraded` accepts events, without what Redis adds;
    `unready` accepts none, or cannot seal what it accepts.
    """

    status: Literal["ready", "degraded", "unready"]
    instance: str
    journal: str
    sealer: str
    redis: str
    disk_free_bytes: int
    journal_bytes: int


def readiness(pressure: Pressure, link: RedisLink, redis_away: Literal["open", "closed"], instance: str) -> Readiness:
    """What the last look found."""
    status: Literal["ready", "degraded", "unready"] = "ready" if link.up else "degraded"
    if pressure.reason or pressure.stuck or (not link.up and redis_away == "closed"):
        status = "unready"
    return Readiness(
        status,
        instance,
        pressure.reason or "ok",
        pressure.stuck or "ok",
        "ok" if link.up else f"away; set to stay {redis_away} meanwhile, and the log says why",
        pressure.free_bytes,
        pressure.journal_bytes,
    )
