"""How much a reader may read: counted in Redis after each answer, held against the next read.

Counting first would cost every read Redis' write to its append-only file, 60 to 130 µs where an answer takes 200. The price:
of reads that arrive together some pass beyond the limit. What does not belong here: the limit of those who send (`gate.py`).
"""

import asyncio
import time
from collections import OrderedDict
from functools import partial
from typing import Final

from ingest_api.gate import Caller, Gate, Rate
from ingest_api.problems import Problem
from ingest_api.redis_link import RedisError, RedisLink, Reply

_READERS: Final = 100_000


class ReadLimit:
    """Knows where the readers of late stand. Without Redis there is no limit."""

    def __init__(self, gate: Gate, link: RedisLink) -> None:
        self._gate = gate
        self._link = link
        self._standing: OrderedDict[bytes, tuple[Rate, float]] = OrderedDict()

    def check(self, name: bytes) -> Rate | None:
        """Where a reader stood after the read before, or None where nothing is known.

        Raises:
            Problem: 429, nothing was left in a window that has not ended.
        """
        rate, until_s = self._standing.get(name, (None, 0.0))
        if rate is None or time.time() >= until_s:
            return None
        if rate.remaining <= 0:
            detail = f"More than {rate.limit:,} reads in {rate.window_s} s by this reader and address."
            raise Problem(429, "rate-limit", detail, headers=(("retry-after", str(rate.resets_s)), *rate.headers()))
        return rate

    def count(self, name: bytes) -> None:
        """Count a read that was answered or refused."""
        callers, now_s = [Caller(name, None, b"", None)], time.time()
        question, replies = self._gate.question(callers, now_s)
        if replies and self._link.up:
            self._link.ask(question, replies).add_done_callback(partial(self._counted, callers, now_s))

    def _counted(self, callers: list[Caller], now_s: float, replies: "asyncio.Future[list[Reply]]") -> None:
        try:
            rate = self._gate.findings(callers, now_s, replies.result())[0].rate
        except (RedisError, asyncio.CancelledError):
            return  # Redis went away: the next read finds it so
        assert rate is not None
        self._standing[callers[0].name] = (rate, now_s + rate.resets_s)
        self._standing.move_to_end(callers[0].name)
        if len(self._standing) > _READERS:
            self._standing.popitem(last=False)
