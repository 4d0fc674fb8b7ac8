"""What `fairboard doctor` looks at: each examination gives one finding, and leaves everything as it was."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import httpx
import msgspec
import redis
import sqlalchemy as sa

from ingest_api.keys import live_secrets
from warehouse.basis import behind
from warehouse.boards import node_of
from warehouse.calendar import Calendar
from warehouse.embedded_redis import REDIS_ERRORS, connect, find_server
from warehouse.engine import DuckDBEngine
from warehouse.errors import FairboardError
from warehouse.instance import known_instance
from warehouse.lake.examination import examine_storage
from warehouse.lake.opening import open_storage
from warehouse.losses import held_days
from warehouse.readings import landed_days, last_day
from warehouse.refresh import read_pulse
from warehouse.settings import Settings
from warehouse.stale import out_of_reach, overdue, span, todo

INGEST_URL = "http://127.0.0.1:8080"
LOW_DISK_BYTES = 2 * 2**30
LIVE_SILENCE_S = 60.0
PATIENCE_S = 5.0  # with a bucket, per question: who asks what is wrong is waiting


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: `wrong` needs a hand, `look` may be as it should."""

    what: str
    state: Literal["ok", "look", "wrong"]
    found: str
    todo: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every finding. An examination that fails is a finding too."""
    findings = []
    settings = settings.model_copy(update={"bucket_patience_s": min(PATIENCE_S, settings.bucket_patience_s)})
    for what, look in EXAMINATIONS.items():
        try:
            findings.append(look(settings))
        except FairboardError as error:
            findings.append(Finding(what, "wrong", str(error)))
    return findings


def _settings(settings: Settings) -> Finding:
    return Finding(
        "settings",
        "ok",
        f"profile {settings.profile}, data in {settings.data_dir.absolute()}, days end in {settings.timezone}, "
        f"seasons {settings.seasons}",
    )


def _disk(settings: Settings) -> Finding:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.data_dir).free
    low = free < LOW_DISK_BYTES
    return Finding("disk", "look" if low else "ok", f"{free / 2**30:,.1f} GiB free", "make room" if low else "")


def _keys(settings: Settings) -> Finding:
    ids = sorted(live_secrets(settings))
    if ids:
        return Finding("keys", "ok", f"live signing keys: {', '.join(ids)}")
    if settings.profile == "demo":
        return Finding("keys", "look", "no signing key yet", "`fairboard serve` makes one in the demo profile")
    return Finding("keys", "wrong", "no signing key", "set FAIRBOARD_HMAC_KEYS=id:secret")


class _Readiness(msgspec.Struct):
    """What is asked of the body of `/readyz`."""

    instance: str


def _ingest(settings: Settings) -> Finding:
    try:
        answer = httpx.get(f"{INGEST_URL}/readyz", timeout=2, trust_env=False)
        served = msgspec.json.decode(answer.content, type=_Readiness).instance
    except httpx.HTTPError:
        return Finding("ingest", "look", f"nothing answers at {INGEST_URL}", "start it with `make up` or `fairboard serve`")
    except msgspec.DecodeError:
        return Finding("ingest", "look", f"what answers at {INGEST_URL} is no ingest service of this version", "see what it is")
    if served != known_instance(settings):
        todo = "stop that one, or set FAIRBOARD_DATA_DIR to its folder; here, start `make up` or `fairboard serve`"
        return Finding("ingest", "look", f"the service at {INGEST_URL} serves another data folder", todo)
    if answer.status_code == httpx.codes.OK:
        return Finding("ingest", "ok", f"ready at {INGEST_URL}")
    return Finding("ingest", "wrong", f"{INGEST_URL} is not ready: {answer.text}", "see the reason")


def _redis(settings: Settings) -> Finding:
    try:
        client = connect(settings)
        cluster = isinstance(client, redis.RedisCluster)
        about = node_of(client, "").info("server")
    except FairboardError:
        return Finding(
            "redis", "look", f"not running; {find_server()} would be", "start it with `make up` or `fairboard redis`"
        )
    except REDIS_ERRORS as error:
        return Finding("redis", "wrong", f"does not answer: {error}", "start it, or correct FAIRBOARD_REDIS_URL")
    return Finding("redis", "ok", f"answers{', a cluster' * cluster}, version {about['redis_version']}")


def _database(settings: Settings) -> Finding:
    engine = sa.create_engine(settings.sqlalchemy_url)
    try:
        tables = sa.inspect(engine).get_table_names()
    except sa.exc.SQLAlchemyError as error:
        return Finding("database", "wrong", f"cannot be used: {error}", "correct FAIRBOARD_DATABASE_URL")
    where = engine.url.render_as_string()
    if not tables:
        return Finding("database", "look", f"{where} has no tables yet", "the first publication makes them")
    if settings.lake_bucket and engine.dialect.name == "sqlite":
        found = f"{where}: with SQLite one host alone may compute the lake in {settings.lake_bucket}"
        return Finding(
            "database", "look", found, "for several hosts, set FAIRBOARD_DATABASE_URL to a PostgreSQL that all of them use"
        )
    return Finding("database", "ok", f"{where}, {len(tables)} tables")


def _storage(settings: Settings) -> Finding:
    found = examine_storage(open_storage(settings))
    return Finding("storage", "wrong" if found.kind else "ok", f"{settings.lake_place}: {found.found}", found.todo)


def _lake(settings: Settings) -> Finding:
    with DuckDBEngine(settings) as engine:
        days, held = landed_days(engine), sorted(held_days(engine.lake))
    if held:
        first, more = held[0], f" and {len(held) - 1:,} more days" if len(held) > 1 else ""
        return Finding(
            "lake",
            "wrong",
            f"files of events of {first}{more} were damaged and set aside: such days are not computed",
            f"restore them (docs/operations.md), or go on without: `fairboard accept-loss {first}`",
        )
    if not days:
        return Finding(
            "lake", "look", f"{settings.lake_place} has no events", "`make demo`, `fairboard import` or `fairboard serve`"
        )
    return Finding("lake", "ok", f"{settings.lake_place}: events on {len(days):,} days, {days[0]} to {days[-1]}")


def _fresh(settings: Settings) -> Finding:
    with DuckDBEngine(settings) as engine:
        folded, owed = last_day(engine), overdue(engine, behind(engine))
    if days := span(owed):
        unreached = out_of_reach(settings, owed)
        tables = ", ".join(dict.fromkeys(one.table for one in owed))
        wait = "" if unreached else "wait for Dagster's schedule, or "
        return Finding(
            "fresh",
            "look",
            f"{len(owed):,} partitions of {tables} are not what would be computed now, of days {days} (`fairboard stale`)",
            f"{wait}`{todo(owed)}`",
        )
    if folded is None:
        return Finding("fresh", "look", "nothing is materialized")
    ago = (Calendar.of(settings).day_of(int(time.time())) - folded).days
    return Finding("fresh", "ok", f"nothing is behind; the last day is {folded} ({ago:,} days ago)")


def _live(settings: Settings) -> Finding:
    pulse = read_pulse(settings)
    if pulse is None:
        return Finding("live", "look", "no boards have followed the events yet", "start it with `make up`")
    now = time.time()
    if pulse.trouble:
        return Finding("live", "wrong", f"the boards are {now - pulse.current_until:,.0f} s behind: {pulse.trouble}")
    if now - pulse.at > max(LIVE_SILENCE_S, 3 * settings.refresh_s):
        todo = "start it with `make up`; if that runs, see the sensor and the job `live` in Dagster"
        return Finding("live", "look", f"the boards have not been refreshed for {now - pulse.at:,.0f} s", todo)
    age_s = now - pulse.current_until
    return Finding("live", "ok", f"the boards hold what was sealed {age_s:,.0f} s ago; a refresh takes {pulse.refresh_s:.1f} s")


EXAMINATIONS: dict[str, Callable[[Settings], Finding]] = {
    "settings": _settings,
    "disk": _disk,
    "keys": _keys,
    "ingest": _ingest,
    "redis": _redis,
    "database": _database,
    "storage": _storage,
    "lake": _lake,
    "fresh": _fresh,
    "live": _live,
}
