"""The HTTP service of one worker, on Granian's RSGI: routes and answers.

What does not belong here: anything that could be wrong without HTTP.
"""

import asyncio
import os
import signal
import time
from typing import Any, Final

import msgspec
import structlog

from ingest_api.gate import Gate
from ingest_api.group import Group, Outcome
from ingest_api.health import readiness
from ingest_api.intake import Intake, request_id
from ingest_api.journal import Journal, Slot, journal_dir
from ingest_api.metrics import Metrics, exposition
from ingest_api.pressure import Pressure
from ingest_api.problems import Problem
from ingest_api.redis_link import RedisLink
from warehouse.errors import SettingsError
from warehouse.settings import Settings

_JSON: Final = ("content-type", "application/json")
_PROBLEM: Final = ("content-type", "application/problem+json")
_METRICS: Final = ("content-type", "text/plain; version=0.0.4; charset=utf-8")
_INTAKE: Final = ("/events", "/events/batch")
_TICK_S: Final = 0.5
_BODY_WITHIN_S: Final = 20.0

log = structlog.get_logger(__name__)

Answer = tuple[int, list[tuple[str, str]], bytes]


class IngestApp:
    """One worker: its journal, its connection to Redis, its routes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._intake = Intake(settings)
        self._root = journal_dir(settings)
        self._parent = os.getppid()
        self._reading: dict[asyncio.Task[Any], float] = {}

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        settings = self._settings
        slot = Slot.claim(self._root)
        self._loop = loop
        self._metrics = Metrics.of(self._root, slot.name)
        self._journal = Journal(slot, settings.seal_after_s, settings.segment_mb * 1024 * 1024)
        self._pressure = Pressure(settings, self._root)
        self._link = RedisLink(settings, loop)
        self._group = Group(
            loop,
            self._journal,
            Gate(settings.rate_limit, settings.rate_window_s),
            self._link,
            self._pressure,
            self._metrics,
            refuse_without_redis=settings.redis_away == "closed",
        )
        loop.call_soon(self._tick)
        log.info("worker.started", slot=slot.name, pid=os.getpid())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._group.drained())
        self._link.close()
        self._journal.close()
        self._metrics.remove()
        log.info("worker.stopped", pid=os.getpid())

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """Answer one request."""
        name = request_id(scope.headers.get("x-request-id"))
        try:
            if scope.method == "POST" and scope.path in _INTAKE:
                status, headers, body = await self._ingest(scope, proto, name)
            else:
                status, headers, body = self._read(scope)
        except Problem as problem:
            status, headers, body = _refusal(problem, name)
        except Exception:
            log.exception("request.failed", request_id=name)
            status, headers, body = _refusal(Problem(500, "internal", "A fault of this service; it has been logged."), name)
        self._metrics.answered(status)
        headers.append(("x-request-id", name))
        proto.response_bytes(status, headers, body)

    async def _ingest(self, scope: Any, proto: Any, name: str) -> Answer:
        if self._pressure.reason:
            raise Problem(503, "pressure", self._pressure.reason, headers=(("retry-after", "5"),))
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = self._loop.time()
        try:
            caller, checked, arrival = await self._intake.take(scope, proto, name)
        except asyncio.CancelledError:
            raise Problem(408, "slow", f"The body did not arrive within {_BODY_WITHIN_S:.0f} s.") from None
        finally:
            del self._reading[task]
        self._metrics.add("fairboard_ingest_bytes_total", len(arrival.raw))
        return self._answer(await self._group.join(caller, checked, arrival), name)

    def _answer(self, outcome: Outcome, name: str) -> Answer:
        finding, admitted, body = outcome
        headers = [_JSON]
        if finding.refusal is not None:
            return _refusal(finding.refusal, name)
        if finding.rate is not None:
            headers += finding.rate.headers()
        if admitted is None:
            return (202 if self._settings.idempotency == "replay" else 409), headers, body
        if admitted.single_error is not None:
            error = admitted.single_error
            return _refusal(Problem(400, "invalid-event", str(error), field=error.field), name)
        return 202, headers, body

    def _read(self, scope: Any) -> Answer:
        if scope.path in _INTAKE:
            raise Problem(405, "method", f"{scope.path} takes POST.", headers=(("allow", "POST"),))
        if scope.method != "GET":
            raise Problem(404, "not-found", f"Nothing answers to {scope.method} {scope.path} here.")
        if scope.path == "/healthz":
            return 200, [_JSON], b'{"status":"alive"}'
        if scope.path == "/readyz":
            ready = readiness(self._pressure, self._link, self._settings.redis_away)
            return 503 if ready.status == "unready" else 200, [_JSON], msgspec.json.encode(ready)
        if scope.path == "/metrics":
            return 200, [_METRICS], exposition(self._root).encode()
        raise Problem(404, "not-found", f"Nothing answers to {scope.method} {scope.path} here.")

    def _tick(self) -> None:
        """Twice a second: what is due by the clock, and stop when the server that started this worker is gone."""
        if os.getppid() != self._parent:
            log.warning("worker.orphaned", pid=os.getpid())
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._loop.call_later(_TICK_S, self._tick)
        self._journal.rotate_if_due(time.monotonic())
        self._link.keep()
        self._look_around()
        too_slow = self._loop.time() - _BODY_WITHIN_S
        for task in [task for task, since in self._reading.items() if since < too_slow]:
            task.cancel()

    def _look_around(self) -> None:
        before = self._pressure.reason
        self._pressure.look()
        if self._pressure.reason != before:
            log.warning("pressure.changed", reason=self._pressure.reason or "accepting again")
        self._metrics.put("fairboard_ingest_redis_up", self._link.up)
        self._metrics.put("fairboard_ingest_accepting", not self._pressure.reason)
        self._metrics.put("fairboard_ingest_journal_bytes", self._pressure.journal_bytes)
        self._metrics.put("fairboard_ingest_disk_free_bytes", self._pressure.free_bytes)
        try:
            self._intake.reload_keys()
        except SettingsError as error:
            log.error("keys.unreadable", reason=str(error), kept="the keys as they were")  # noqa: TRY400 - no stack needed


def _refusal(problem: Problem, name: str) -> Answer:
    log.info("request.refused", request_id=name, status=problem.status, code=problem.code)
    return problem.status, [_PROBLEM, *problem.headers], problem.document(name)
