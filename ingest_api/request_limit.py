"""How many reads, and how many refused requests, a client may make: counted here, told to Redis ten times a second.

Asking Redis with every read would cost as much as the read: a write to its append-only file, 60 to 130 µs. The price: clients
that come to several workers may pass beyond the limit by what they ask for in a tenth of a second. What does not belong here:
the limit of those who send (`gate.py`).
"""

import asyncio
import time
from collections import Counter, OrderedDict
from functools import partial
from typing import Final

from msgspec.structs import replace

from ingest_api.gate import Caller, Gate, Rate
from ingest_api.problems import Problem
from ingest_api.redis_link import RedisError, RedisLink, Reply

_CLIENTS: Final = 100_000
_TELL_AFTER_S: Final = 0.1


class RequestLimit:
    """Knows where the clients of late stand. Without Redis there is no limit."""

    def __init__(self, gate: Gate, link: RedisLink, what: str, by: str) -> None:
        """`what` is counted, and `by` whom: the words of the refusal."""
        self._gate = gate
        self._link = link
        self._what, self._by = what, by
        self._standing: OrderedDict[bytes, tuple[Rate, float]] = OrderedDict()
        self._untold: Counter[bytes] = Counter()

    def check(self, name: bytes) -> Rate | None:
        """Where a client stands before this request, or None where nothing is known yet.

        Raises:
            Problem: 429, nothing is left in a window that has not ended.
        """
        rate, until_s = self._standing.get(name, (None, 0.0))
        if rate is None or time.time() >= until_s:
            return None
        rate = replace(rate, remaining=rate.remaining - self._untold[name])
        if rate.remaining <= 0:
            detail = f"More than {rate.limit:,} {self._what} in {rate.window_s} s {self._by}."
            raise Problem(429, "rate-limit", detail, headers=(("retry-after", str(rate.resets_s)), *rate.headers()))
        return rate

    def count(self, name: bytes) -> None:
        """Count a request that was answered."""
        if not self._untold:
            self._link.loop.call_later(_TELL_AFTER_S, self._tell)
        self._untold[name] += 1

    def _tell(self) -> None:
        callers, now_s = [Caller(name, None, b"", None) for name in self._untold.elements()], time.time()
        self._untold.clear()
        question, replies = self._gate.question(callers, now_s)
        if replies and self._link.up:
            self._link.ask(question, replies).add_done_callback(partial(self._told, callers, now_s))

    def _told(self, callers: list[Caller], now_s: float, replies: "asyncio.Future[list[Reply]]") -> None:
        try:
            findings = self._gate.findings(callers, now_s, replies.result())
        except (RedisError, asyncio.CancelledError):
            return  # Redis went away: the next read finds it so
        for caller, finding in zip(callers, findings, strict=True):  # the last of a name has the fewest left
            assert finding.rate is not None
            self._standing[caller.name] = (finding.rate, now_s + finding.rate.resets_s)
            self._standing.move_to_end(caller.name)
        while len(self._standing) > _CLIENTS:
            self._standing.popitem(last=False)
