"""Group commit: requests that wait together ask Redis together and go to disk together.

One group is on its way at a time; what arrives meanwhile is the next one. What does not belong here: HTTP.
"""

import asyncio
import time
from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from ingest_api.admission import Admitted, Arrival, admit
from ingest_api.bodies import Checked
from ingest_api.door import Door
from ingest_api.gate import NOTHING, Caller, Finding, Gate, memory, other_body
from ingest_api.journal import Journal, JournalBrokenError, JournalFullError, Refusal, Request
from ingest_api.metrics import Metrics
from ingest_api.pressure import Pressure
from ingest_api.problems import Problem
from ingest_api.redis_link import RedisError, RedisLink, Reply, command

_ONE_ACCEPTED = b'{"accepted":1,"duplicates":0,"rejected":0,"errors":[]}'
_REDIS_AWAY = Problem(503, "redis", "Redis is away and this service is set to refuse then.", headers=(("retry-after", "5"),))

log = structlog.get_logger(__name__)


class Outcome(NamedTuple):
    """What became of a request: a refusal, the answer of an earlier one with its key, or its own answer."""

    finding: Finding
    admitted: Admitted | None
    answer: bytes


class Waiting(NamedTuple):
    """A checked request that waits for its group."""

    caller: Caller
    checked: Checked
    arrival: Arrival
    done: asyncio.Future[Outcome]


class Group:
    """Collects what arrives while the group before is on its way.

    The commit runs in the loop's own thread: while it waits for the disk, arriving requests collect in the HTTP server's
    thread and make the next group. Handing the commit to another thread cost more than it hid (docs/ingest.md).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
        gate: Gate,
        link: RedisLink,
        pressure: Pressure,
        metrics: Metrics,
        *,
        refuse_without_redis: bool,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._gate = gate
        self._link = link
        self._pressure = pressure
        self._metrics = metrics
        self._without_redis = Finding(_REDIS_AWAY, None, None) if refuse_without_redis else NOTHING
        self._door = Door()
        self._next: list[Waiting] = []
        self._on_its_way = False

    def join(self, caller: Caller, checked: Checked, arrival: Arrival) -> asyncio.Future[Outcome]:
        """Put a request into the next group. The future has its outcome, or the problem to answer with."""
        done: asyncio.Future[Outcome] = self._loop.create_future()
        self._next.append(Waiting(caller, checked, arrival, done))
        if not self._on_its_way:
            self._on_its_way = True
            self._loop.call_soon(self._start)
        return done

    async def drained(self) -> None:
        """Wait until nobody waits."""
        while self._on_its_way:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._loop.call_soon(waiting.set_result, None)
            await waiting

    def _start(self) -> None:
        group, self._next = self._next, []
        callers, now_s = [waiting.caller for waiting in group], time.time()
        question, replies = self._gate.question(callers, now_s)
        if replies and self._link.up:
            self._link.ask(question, replies).add_done_callback(partial(self._asked, group, callers, now_s))
        else:
            self._finish(group, self._answers_without_redis(len(group), asked=replies > 0))

    def _asked(self, group: list[Waiting], callers: list[Caller], now_s: float, replies: asyncio.Future[list[Reply]]) -> None:
        try:
            findings = self._gate.findings(callers, now_s, replies.result())
        except RedisError:
            findings = self._answers_without_redis(len(group), asked=True)
        self._finish(group, findings)

    def _answers_without_redis(self, count: int, *, asked: bool) -> list[Finding]:
        if not asked:
            return [NOTHING] * count
        self._metrics.add("fairboard_ingest_without_redis_total", count)
        return [self._without_redis] * count

    def _finish(self, group: list[Waiting], findings: list[Finding]) -> None:
        """Commit, tell everyone, begin with the next group. Whatever happens, nobody is left waiting."""
        try:
            outcomes = self._commit(group, findings)
        except Problem as problem:
            self._fail(group, problem)
        except Exception as error:
            log.exception("group.failed")
            self._fail(group, error)
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(outcome)
        self._on_its_way = bool(self._next)
        if self._on_its_way:
            self._loop.call_soon(self._start)

    def _commit(self, group: list[Waiting], findings: list[Finding]) -> list[Outcome]:
        outcomes = _Outcomes(self._door)
        for waiting, finding in zip(group, findings, strict=True):
            outcomes.add(waiting, finding)
        if outcomes.requests or outcomes.refusals:
            self._write(outcomes)
        if outcomes.memories:
            self._link.tell(b"".join(outcomes.memories), len(outcomes.memories))
        self._metrics.events(outcomes.accepted, outcomes.duplicates, outcomes.rejected)
        return outcomes.all

    def _write(self, outcomes: "_Outcomes") -> None:
        start = time.perf_counter()
        try:
            self._journal.append(outcomes.requests, outcomes.refusals, outcomes.size)
        except (JournalFullError, JournalBrokenError) as error:
            log.error("journal.failed", reason=str(error))  # noqa: TRY400 - the reason is the message
            if isinstance(error, JournalBrokenError):
                self._pressure.give_up(str(error))
            raise Problem(503, "journal", str(error), headers=(("retry-after", "5"),)) from error
        self._metrics.committed(time.perf_counter() - start)
        self._journal.rotate_if_due(time.monotonic())

    def _fail(self, group: list[Waiting], error: Exception) -> None:
        self._metrics.add("fairboard_ingest_commit_failures_total")
        self._door.forget()
        if keys := [waiting.caller.replay_key for waiting in group if waiting.caller.replay_key is not None]:
            self._link.tell(command(b"DEL", *keys), 1)
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_exception(error)


class _Outcomes:
    """A group's outcomes, and what it adds to the journal."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._keys: dict[bytes, tuple[bytes, bytes]] = {}
        self.all: list[Outcome] = []
        self.requests: list[Request] = []
        self.refusals: list[Refusal] = []
        self.memories: list[bytes] = []
        self.size = self.accepted = self.duplicates = self.rejected = 0

    def add(self, waiting: Waiting, finding: Finding) -> None:
        """Decide about the next request of the group."""
        key = waiting.caller.idempotency_key
        if key is not None and key in self._keys and finding.refusal is None:
            finding = _same_key(waiting.caller, finding, *self._keys[key])
        if finding.refusal is not None or finding.earlier is not None:
            self.all.append(Outcome(finding, None, finding.earlier or b""))
            return
        admitted = admit(waiting.checked, waiting.arrival, self._door)
        self._take(admitted)
        answer = _encode(admitted)
        if key is not None and admitted.single_error is None:
            self._keys[key] = (waiting.caller.fingerprint, answer)
            self.memories.append(memory(waiting.caller, answer))
        self.all.append(Outcome(finding, admitted, answer))

    def _take(self, admitted: Admitted) -> None:
        if admitted.request is not None:
            self.requests.append(admitted.request)
            self.size += len(admitted.request.body)
        self.refusals += admitted.refusals
        self.accepted += admitted.answer.accepted
        self.duplicates += admitted.answer.duplicates
        self.rejected += admitted.answer.rejected


def _same_key(caller: Caller, finding: Finding, fingerprint: bytes, answer: bytes) -> Finding:
    """Two requests of one group have the same `Idempotency-Key`: the second one is told what Redis would say."""
    if fingerprint != caller.fingerprint:
        return finding._replace(refusal=other_body())
    return finding._replace(earlier=answer)


def _encode(admitted: Admitted) -> bytes:
    if admitted.request is not None and admitted.request.form == "event":
        return _ONE_ACCEPTED
    return msgspec.json.encode(admitted.answer)
