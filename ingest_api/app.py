"""The HTTP service of one worker, on Granian's RSGI: routes, headers, answers.

What does not belong here: anything that could be wrong without HTTP.
"""

import asyncio
import os
import signal
import time
from typing import Any, Final

import msgspec
import structlog

from ingest_api.admission import Admitted, Arrival, admit
from ingest_api.bodies import MAX_RAW_BYTES, check_batch, check_event, unpack
from ingest_api.door import Door
from ingest_api.group import Group
from ingest_api.ids import derived_base, uuid7_base
from ingest_api.journal import Journal, JournalBrokenError, JournalFullError, Slot, journal_dir
from ingest_api.keys import require_keys
from ingest_api.problems import Problem
from ingest_api.signature import Signatures
from warehouse.settings import Settings

_JSON: Final = ("content-type", "application/json")
_PROBLEM: Final = ("content-type", "application/problem+json")
_ONE_ACCEPTED: Final = b'{"accepted":1,"duplicates":0,"rejected":0,"errors":[]}'
_MAX_NAME_CHARS: Final = 256  # of an Idempotency-Key or an X-Request-ID
_TICK_S: Final = 0.5

log = structlog.get_logger(__name__)


class IngestApp:
    """One worker: its keys, its journal and its routes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signatures = Signatures(require_keys(settings))
        self._door = Door()
        self._parent = os.getppid()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        slot = Slot.claim(journal_dir(self._settings))
        self._journal = Journal(slot, self._settings.seal_after_s, self._settings.segment_mb * 1024 * 1024)
        self._group = Group(self._journal, self._door, loop)
        self._loop = loop
        loop.call_later(_TICK_S, self._tick)
        log.info("worker.started", slot=slot.name, pid=os.getpid())

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        self._journal.close()
        log.info("worker.stopped", pid=os.getpid())

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """Answer one request."""
        request_id = _request_id(scope.headers.get("x-request-id"))
        try:
            status, body = await self._route(scope, proto, request_id)
        except Problem as problem:
            log.info("request.refused", request_id=request_id, status=problem.status, code=problem.code)
            headers = [_PROBLEM, ("x-request-id", request_id), *problem.headers]
            proto.response_bytes(problem.status, headers, problem.document(request_id))
        else:
            proto.response_bytes(status, [_JSON, ("x-request-id", request_id)], body)

    async def _route(self, scope: Any, proto: Any, request_id: str) -> tuple[int, bytes]:
        route = (scope.method, scope.path)
        if route in (("POST", "/events"), ("POST", "/events/batch")):
            return await self._ingest(scope, proto, request_id)
        if route in (("GET", "/healthz"), ("GET", "/readyz")):
            return 200, b'{"status":"ok"}'
        raise Problem(404, "not-found", f"Nothing answers to {scope.method} {scope.path} here.")

    async def _ingest(self, scope: Any, proto: Any, request_id: str) -> tuple[int, bytes]:
        header = scope.headers.get
        raw = await _read(proto, header("content-length"))
        now_ms = time.time_ns() // 1_000_000
        key_id = self._signatures.verify(raw, header("x-signature"), header("x-timestamp"), header("x-key-id"), now_ms // 1000)
        encoding = header("content-encoding", "")
        plain = unpack(raw, encoding) if encoding else raw
        single = scope.path == "/events"
        checked = check_event(plain, now_ms) if single else check_batch(plain, now_ms)
        base = _base(key_id, header("idempotency-key"), now_ms)
        arrival = Arrival(now_ms, key_id, base, request_id, encoding, raw, plain)
        admitted = admit(checked, arrival, self._door)
        await self._durable(admitted)
        if single and admitted.first_error is not None:
            raise Problem(400, "invalid-event", str(admitted.first_error), field=admitted.first_error.field)
        return 202, _ONE_ACCEPTED if single and not admitted.answer.duplicates else msgspec.json.encode(admitted.answer)

    async def _durable(self, admitted: Admitted) -> None:
        """Wait until the journal has it on disk."""
        try:
            await self._group.join(admitted.request, admitted.refusals)
        except (JournalFullError, JournalBrokenError) as error:
            raise Problem(503, "journal", str(error), headers=(("retry-after", "5"),)) from error

    def _tick(self) -> None:
        """Twice a second: seal by age, and stop when the server that started this worker is gone."""
        self._journal.rotate_if_due(time.monotonic())
        if os.getppid() != self._parent:
            log.warning("worker.orphaned", pid=os.getpid())
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._loop.call_later(_TICK_S, self._tick)


async def _read(proto: Any, length: str | None) -> bytes:
    """The raw body.

    Raises:
        Problem: 413 where it is too large; what is too large is not read.
    """
    if length is not None and length.isdecimal():
        if int(length) > MAX_RAW_BYTES:
            raise _too_large()
        return bytes(await proto())
    parts, size = [], 0
    async for chunk in proto:
        size += len(chunk)
        if size > MAX_RAW_BYTES:
            raise _too_large()
        parts.append(chunk)
    return b"".join(parts)


def _too_large() -> Problem:
    return Problem(413, "too-large", f"The body is larger than {MAX_RAW_BYTES:,} bytes; send smaller batches.")


def _base(key_id: str, idempotency_key: str | None, now_ms: int) -> bytes:
    if idempotency_key is None:
        return uuid7_base(now_ms)
    if not _is_name(idempotency_key):
        raise Problem(400, "idempotency-key", f"Idempotency-Key is 1 to {_MAX_NAME_CHARS} printable ASCII characters.")
    return derived_base(key_id, idempotency_key)


def _request_id(given: str | None) -> str:
    return given if given is not None and _is_name(given) else uuid7_base().hex()


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME_CHARS and text.isascii() and text.isprintable()
