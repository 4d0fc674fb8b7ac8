"""The HTTP service of one worker: routes and answers.

What does not belong here: bytes on sockets (`connection.py`), and anything that could be wrong without HTTP.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from ingest_api.access import PREFLIGHT_READ, PREFLIGHT_SEND, Access
from ingest_api.arrivals import Arrivals
from ingest_api.clients import Addresses
from ingest_api.connection_limit import ConnectionLimit
from ingest_api.gate import Gate
from ingest_api.group import Group, Outcome, Waiting
from ingest_api.health import readiness
from ingest_api.intake import Intake, is_name
from ingest_api.metrics import Metrics, exposition
from ingest_api.openapi import openapi_document
from ingest_api.pressure import Pressure
from ingest_api.problems import Problem
from ingest_api.reads import Answer, Plan, Reads
from ingest_api.redis_link import RedisLink
from ingest_api.request import ClientGone, Request
from ingest_api.request_limit import RequestLimit
from ingest_api.request_parser import HeldBodies
from ingest_api.signature import Signer
from warehouse.instance import instance_of
from warehouse.settings import Settings

if TYPE_CHECKING:
    from ingest_api.connection import Connection

_JSON: Final = b"content-type: application/json\r\n"
_PROBLEM: Final = b"content-type: application/problem+json\r\n"
_METRICS: Final = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_EXPOSED_S: Final = 0.2
_INTAKE: Final = (b"/events", b"/events/batch")
# From here on a body's digest takes longer than to have it made by another thread, without the interpreter's lock.
_LARGE_BODY_BYTES: Final = 32 * 1024

log = structlog.get_logger(__name__)


class App:
    """Answers requests: those that bring events through the group commit, the others at once."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        intake: Intake,
        group: Group,
        link: RedisLink,
        pressure: Pressure,
        metrics: Metrics,
        access: Access,
        reads: Reads,
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._intake = intake
        self._group = group
        self._link = link
        self._pressure = pressure
        self._metrics = metrics
        self._repeat_status = 202 if settings.idempotency == "replay" else 409
        self._id_prefix = os.urandom(8).hex().encode()
        self._count = 0
        self._exposed, self._exposed_at = b"", -math.inf
        self._pages: dict[bytes, Callable[[Request], None]] = {
            b"/healthz": self._healthz,
            b"/readyz": self._readyz,
            b"/metrics": self._metrics_page,
            b"/openapi.json": self._openapi,
        }
        self.arrivals = Arrivals(loop, partial(self._try, self._verify))
        self._verifier = ThreadPoolExecutor(1, "verify")
        self._verifying = 0
        self._access = access
        self._reads = reads
        self._reading: set[asyncio.Task[Answer | None]] = set()
        self._addresses = Addresses(settings.trusted_proxies)
        self._refusals = RequestLimit(
            Gate(settings.rate_limit, settings.rate_window_s), link, "refused requests", "from this address"
        )
        self.connections: set[Connection] = set()
        self.bodies = HeldBodies()
        self.limit = ConnectionLimit(settings.connections_per_address, self._addresses)
        self.date = b""
        self.set_date()

    def set_date(self) -> None:
        """Renew the value of the Date header."""
        self.date = formatdate(usegmt=True).encode()

    @property
    def busy(self) -> bool:
        """Whether something has arrived that is neither answered nor with the group."""
        return bool(self.arrivals) or self._verifying > 0

    def handle(self, request: Request) -> None:
        """Answer a request, now or when its group is on disk. Nothing that a client sends makes this raise."""
        self._name(request)
        if request.path in _INTAKE:
            request.common = self._access.cors(request)
            if request.method == b"POST":
                self.arrivals.add(request)
                return
        request.drop_body()
        self._try(self._page, request)

    def refuse(self, request: Request, problem: Problem) -> None:
        """Answer a request that is no proper HTTP, or too large, or too slow."""
        self._name(request)
        request.common = self._access.cors(request)  # else a page of the game would see a network error alone
        self._refuse(request, problem)

    def _name(self, request: Request) -> None:
        given = request.headers.get(b"x-request-id")
        if given is not None and is_name(given):
            request.id = given
        else:
            self._count += 1
            request.id = b"%b%012x" % (self._id_prefix, self._count)

    def _try(self, step: Callable[[Request], None], request: Request) -> None:
        try:
            step(request)
        except Problem as problem:
            self._refuse(request, problem)
        except Exception as error:  # noqa: BLE001 - a bug: the client is told, the connection and the worker live on
            self._fault(request, error)

    def _verify(self, request: Request) -> None:
        if self._pressure.reason:
            raise Problem(503, "pressure", self._pressure.reason, headers=(("retry-after", "5"),))
        if len(request.body) < _LARGE_BODY_BYTES:
            self._take(request, self._intake.verify(request))
            return
        self._verifying += 1
        verified = self._loop.run_in_executor(self._verifier, self._intake.verify, request)
        verified.add_done_callback(partial(self._verified, request))

    def _verified(self, request: Request, signer: asyncio.Future[Signer]) -> None:
        self._verifying -= 1
        self._try(lambda _: self._take(request, signer.result()), request)

    def _take(self, request: Request, signer: Signer) -> None:
        caller, checked, arrival = self._intake.take(request, signer)
        self._metrics.add("fairboard_ingest_bytes_total", len(request.body))
        self._group.join(Waiting(caller, checked, arrival, partial(self._done, request)))

    def _done(self, request: Request, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Problem):
            self._refuse(request, outcome)
        elif isinstance(outcome, Exception):
            self._fault(request, outcome)
        elif outcome.finding.refusal is not None:
            self._refuse(request, outcome.finding.refusal)
        elif outcome.admitted is not None and (error := outcome.admitted.single_error) is not None:
            self._refuse(request, Problem(400, "invalid-event", str(error), field=error.field))
        else:
            rate = outcome.finding.rate
            head = _JSON if rate is None else _JSON + rate.head()
            self._answer(request, 202 if outcome.admitted is not None else self._repeat_status, head, outcome.answer)

    def _page(self, request: Request) -> None:
        if request.method == b"OPTIONS" and request.path == b"*":
            self._answer(request, 204, b"", b"")
            return
        if request.path in _INTAKE:
            if request.method == b"OPTIONS":
                self._answer(request, 204, _preflight(request, PREFLIGHT_SEND), b"")
                return
            raise Problem(405, "method", f"{request.path.decode()} takes POST.", headers=(("allow", "POST, OPTIONS"),))
        plan = self._reads.route(request.path)
        page = partial(self._read, plan) if plan is not None else self._pages.get(request.path)
        if page is None:
            raise Problem(404, "not-found", "Nothing answers to this path here; /openapi.json lists what does.")
        if plan is not None:
            request.common = self._access.cors(request)
            if request.method == b"OPTIONS":
                self._answer(request, 204, _preflight(request, PREFLIGHT_READ), b"")
                return
        if request.method not in (b"GET", b"HEAD"):
            raise Problem(405, "method", f"{request.path.decode('latin-1')} takes GET.", headers=(("allow", "GET, HEAD"),))
        page(request)

    def _healthz(self, request: Request) -> None:
        self._answer(request, 200, _JSON, b'{"status":"alive"}')

    def _readyz(self, request: Request) -> None:
        ready = readiness(self._pressure, self._link, self._settings.redis_away, instance_of(self._settings))
        self._answer(request, 503 if ready.status == "unready" else 200, _JSON, msgspec.json.encode(ready))

    def _metrics_page(self, request: Request) -> None:
        self._access.check_internal(request, self._address_of(request))
        now = time.monotonic()
        if now - self._exposed_at > _EXPOSED_S:  # it takes a millisecond, and may be asked for a hundred times at once
            self._exposed, self._exposed_at = exposition(self._metrics.folder).encode(), now
        self._answer(request, 200, _METRICS, self._exposed)

    def _openapi(self, request: Request) -> None:
        self._access.check_internal(request, self._address_of(request))
        self._answer(request, 200, _JSON, openapi_document())

    def _read(self, plan: Callable[[Request], Plan], request: Request) -> None:
        task = self._loop.create_task(self._reads.answer(request, plan))
        self._reading.add(task)
        task.add_done_callback(partial(self._have_read, request))

    def _have_read(self, request: Request, task: "asyncio.Task[Answer | None]") -> None:
        self._reading.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, ClientGone):
            log.info("stream.left", request_id=request.id.decode(), reason=str(error))
        elif error is not None and request.begun:
            log.error("stream.cut", request_id=request.id.decode(), reason=str(error))
        elif isinstance(error, Problem):
            self._refuse(request, error)
        elif error is not None:
            self._fault(request, error)
        elif (answer := task.result()) is not None:
            self._answer(request, *answer)
        else:
            self._metrics.answered(200)

    def _answer(self, request: Request, status: int, head: bytes, body: bytes) -> None:
        self._metrics.answered(status)
        request.answer(status, head, body)

    def _refuse(self, request: Request, problem: Problem) -> None:
        name = request.id.decode()
        if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = self._limited(request, problem)
        log.info("request.refused", request_id=name, status=problem.status, code=problem.code)
        head = _PROBLEM + "".join(f"{key}: {value}\r\n" for key, value in problem.headers).encode()
        self._answer(request, problem.status, head, problem.document(name))

    def _limited(self, request: Request, problem: Problem) -> Problem:
        """Count a refusal by its client's address; who is refused too often is told that instead."""
        client = b"!refused:%b" % self._addresses.client(request.address, request.headers.get(b"x-forwarded-for"))
        self._refusals.count(client)
        try:
            self._refusals.check(client)
        except Problem as limit:
            return limit
        return problem

    def _address_of(self, request: Request) -> bytes:
        return self._addresses.address(request.address, request.headers.get(b"x-forwarded-for"))

    def _fault(self, request: Request, error: BaseException) -> None:
        log.error("request.failed", request_id=request.id.decode(), exc_info=error)
        if request.answered is not None:  # it failed on the way out
            request.connection.cut()
            return
        self._refuse(request, Problem(500, "internal", "A fault of this service; it has been logged."))


def _preflight(request: Request, allowed: bytes) -> bytes:
    """What a page of that origin may do here: nothing, where the origin is none of the configured ones."""
    return allowed if b"access-control-allow-origin" in request.common else b""
