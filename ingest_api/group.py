"""Group commit: requests that wait together ask Redis together and go to disk together.

One group is on its way at a time; what arrives meanwhile is the next one. What does not belong here: HTTP.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from ingest_api.admission import Admitted, Arrival, admit
from ingest_api.bodies import Checked
from ingest_api.committer import Committer
from ingest_api.door import Door
from ingest_api.gate import NOTHING, Caller, Finding, Gate, memory, other_body
from ingest_api.journal import Journal, JournalBrokenError
from ingest_api.metrics import Metrics
from ingest_api.pressure import Pressure
from ingest_api.problems import Problem
from ingest_api.redis_link import RedisError, RedisLink, Reply, command
from warehouse.errors import FairboardError

if TYPE_CHECKING:
    from ingest_api.segment import Entry, Refusal

_ONE_ACCEPTED: Final = b'{"accepted":1,"duplicates":0,"rejected":0,"errors":[]}'
_LATER: Final = (("retry-after", "5"),)

log = structlog.get_logger(__name__)


# What a request becomes on its way is unseen by the garbage collector (`gc=False`), there are thousands a second: nothing that
# it holds may lead back to it.
class Outcome(Struct, frozen=True, gc=False):
    """What became of a request: a refusal or an earlier answer (in `finding`), or its own, now on disk."""

    finding: Finding
    admitted: Admitted | None
    answer: bytes


class Waiting(Struct, frozen=True, gc=False):
    """A checked request that waits for its group. `done` is called once, with its outcome or with why there is none."""

    caller: Caller
    checked: Checked
    arrival: Arrival
    done: Callable[[Outcome | Exception], None]


class Group:
    """Collects what arrives while the group before is on its way."""

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
        self._refuse_without_redis = refuse_without_redis
        self._committer = Committer(journal, loop)
        self._door = Door()
        self._next: list[Waiting] = []
        self.idle = True

    def join(self, waiting: Waiting) -> None:
        """Put a request into the next group."""
        self._next.append(waiting)
        if self.idle:
            self.idle = False
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        group, self._next = self._next, []
        callers, now_s = [waiting.caller for waiting in group], time.time()
        question, replies = self._gate.question(callers, now_s)
        if replies and self._link.up:
            self._link.ask(question, replies).add_done_callback(partial(self._asked, group, callers, now_s))
            self._link.flush()
        else:
            self._decide(group, self._without_redis(len(group)) if replies else [NOTHING] * len(group))

    def _asked(self, group: list[Waiting], callers: list[Caller], now_s: float, replies: asyncio.Future[list[Reply]]) -> None:
        try:
            findings = self._gate.findings(callers, now_s, replies.result())
        except RedisError:
            findings = self._without_redis(len(group))
        except Exception:  # a fault of ours: the clients still get their answers
            log.exception("gate.failed")
            findings = self._without_redis(len(group))
        self._decide(group, findings)

    def _without_redis(self, count: int) -> list[Finding]:
        self._metrics.add("fairboard_ingest_without_redis_total", count)
        if not self._refuse_without_redis:
            return [NOTHING] * count
        problem = Problem(503, "redis", "Redis is away, and this service is set to refuse then.", headers=_LATER)
        return [Finding(problem, None, None)] * count

    def _decide(self, group: list[Waiting], findings: list[Finding]) -> None:
        """Choose what goes to disk, write it, and have it committed."""
        decisions = _Decisions(self._door)
        for waiting, finding in zip(group, findings, strict=True):
            decisions.add(waiting, finding)
        try:
            if decisions.entries or decisions.refusals:
                self._journal.put(decisions.entries, decisions.refusals, decisions.size)
                self._committer.commit(partial(self._committed, group, decisions, time.perf_counter()))
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, every waiting client is told, and the loop goes on
            self._fail(group, decisions, error)
        else:
            self._succeed(group, decisions)

    def _committed(self, group: list[Waiting], decisions: "_Decisions", since: float, error: Exception | None) -> None:
        self._metrics.committed(time.perf_counter() - since)
        if error is None:
            self._succeed(group, decisions)
        else:
            self._fail(group, decisions, error)

    def _go_on(self) -> None:
        self._journal.rotate_if_due(time.monotonic())
        self.idle = not self._next
        if not self.idle:
            self._start()

    def _succeed(self, group: list[Waiting], decisions: "_Decisions") -> None:
        self._forget(decisions.forgotten)
        if decisions.memories:
            self._link.tell(b"".join(decisions.memories), len(decisions.memories))
        self._go_on()  # Redis works on the next group's question while this one is answered
        self._metrics.events(decisions.accepted, decisions.duplicates, decisions.rejected)
        for waiting, outcome in zip(group, decisions.outcomes, strict=True):
            _tell(waiting, outcome)

    def _forget(self, signatures: list[bytes]) -> None:
        """Let requests that were not accepted come again."""
        if signatures:
            self._link.tell(command(b"DEL", *signatures), 1)

    def _fail(self, group: list[Waiting], decisions: "_Decisions", error: Exception) -> None:
        """Nothing of the group counts: what was noted of it is forgotten, so that it can come again."""
        self._metrics.add("fairboard_ingest_commit_failures_total")
        self._door.forget()
        self._forget(decisions.noted + decisions.forgotten)
        if isinstance(error, JournalBrokenError):
            self._pressure.give_up(str(error))
        if isinstance(error, FairboardError):
            log.error("journal.failed", reason=str(error))
            error = Problem(503, "journal", str(error), headers=_LATER)
        self._go_on()
        for waiting in group:
            _tell(waiting, error)


def _tell(waiting: Waiting, outcome: Outcome | Exception) -> None:
    try:
        waiting.done(outcome)
    except Exception:  # a fault of ours at one connection: those behind it get their answers
        log.exception("answer.failed")


class _Decisions:
    """A group's outcomes, and what it adds to the journal and to Redis.

    `noted` are the signatures of what it accepts that it made known there, `forgotten` those of what it does not accept.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._keys: dict[bytes, tuple[bytes, bytes]] = {}
        self.outcomes: list[Outcome | Exception] = []
        self.entries: list[Entry] = []
        self.refusals: list[Refusal] = []
        self.memories: list[bytes] = []
        self.noted: list[bytes] = []
        self.forgotten: list[bytes] = []
        self.size = self.accepted = self.duplicates = self.rejected = 0

    def add(self, waiting: Waiting, finding: Finding) -> None:
        """Decide about the next request of the group. A fault of ours in it is that request's alone."""
        try:
            self._add(waiting, finding)
        except Exception as error:  # noqa: BLE001 - whatever it is, this client is told, and the others are served
            self._door.forget()  # some of its ids may be noted, and nothing of it is kept
            self._note(waiting, finding, accepted=False)
            self.outcomes.append(error)

    def _add(self, waiting: Waiting, finding: Finding) -> None:
        key = waiting.caller.idempotency_key
        if key is not None and key in self._keys and finding.refusal is None:
            finding = _same_key(waiting.caller, finding, *self._keys[key])
        if finding.refusal is not None or finding.earlier is not None:
            self.outcomes.append(Outcome(finding, None, finding.earlier or b""))
            self._note(waiting, finding, accepted=finding.refusal is None)
            return
        admitted = admit(waiting.checked, waiting.arrival, self._door)
        answer, accepted = _encode(admitted), admitted.single_error is None
        if key is not None and accepted:
            self.memories.append(memory(waiting.caller, answer))
            self._keys[key] = (waiting.caller.fingerprint, answer)
        self._count(admitted, len(waiting.arrival.body.plain))
        self._note(waiting, finding, accepted=accepted)
        self.outcomes.append(Outcome(finding, admitted, answer))

    def _note(self, waiting: Waiting, finding: Finding, *, accepted: bool) -> None:
        """Keep a signature that this request made known, or not."""
        if finding.noted and (signature := waiting.caller.replay_key) is not None:
            (self.noted if accepted else self.forgotten).append(signature)

    def _count(self, admitted: Admitted, size: int) -> None:
        if admitted.entry is not None:
            self.entries.append(admitted.entry)
            self.size += size
        self.refusals += admitted.refusals
        self.accepted += admitted.answer.accepted
        self.duplicates += admitted.answer.duplicates
        self.rejected += admitted.answer.rejected


def _same_key(caller: Caller, finding: Finding, fingerprint: bytes, answer: bytes) -> Finding:
    """Two requests of one group have the same `Idempotency-Key`: the second one is told what Redis would say."""
    if fingerprint != caller.fingerprint:
        return replace(finding, refusal=other_body())
    return replace(finding, earlier=answer)


def _encode(admitted: Admitted) -> bytes:
    if admitted.entry is not None and admitted.entry.form == "event":
        return _ONE_ACCEPTED
    return msgspec.json.encode(admitted.answer)
