"""What Redis knows of a request: its client's rate, its `Idempotency-Key`, its signature.

A group of requests asks in one round trip, and tells after its commit, so that what Redis remembers is always on disk.
Exactness does not depend on any of it: an event counts once by its id. What does not belong here: the connection.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, cast

import xxhash
from msgspec import Struct

from ingest_api.problems import Problem
from ingest_api.redis_link import Reply, command
from ingest_api.signature import TOLERANCE_S

IDEMPOTENCY_S: Final = 300
_FINGERPRINT_BYTES: Final = 16
_REPLAY_S: Final = 2 * TOLERANCE_S + 60  # from 5 minutes ahead to 5 minutes behind, and clocks that differ


class Caller(Struct, frozen=True, gc=False):
    """Who sends a request, and what makes it recognizable. `name` counts for the rate limit."""

    name: bytes
    idempotency_key: bytes | None
    fingerprint: bytes
    replay_key: bytes | None


class Rate(Struct, frozen=True, gc=False):
    """Where a client stands in its rate limit; `remaining` is below 0 beyond it. `resets_s`: when the fixed window ends."""

    limit: int
    remaining: int
    resets_s: int
    window_s: int

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The fields of the IETF's RateLimit draft."""
        return (
            ("ratelimit-policy", f'"requests";q={self.limit};w={self.window_s}'),
            ("ratelimit", f'"requests";r={max(0, self.remaining)};t={self.resets_s}'),
        )

    def head(self) -> bytes:
        """The same fields, as header lines."""
        return b'ratelimit-policy: "requests";q=%d;w=%d\r\nratelimit: "requests";r=%d;t=%d\r\n' % (
            self.limit, self.window_s, self.remaining, self.resets_s,
        )  # fmt: skip


class Finding(Struct, frozen=True, gc=False):
    """What Redis said of one request: nothing against it, a refusal, or the answer that it had before."""

    refusal: Problem | None
    earlier: bytes | None
    rate: Rate | None


NOTHING: Final = Finding(None, None, None)


def fingerprint(path: bytes, body: bytes) -> bytes:
    """What tells two requests with one `Idempotency-Key` apart: who could make two alike has signed both.

    SHA-256 took a twelfth of the time that a batch takes.
    """
    return xxhash.xxh3_128_digest(body, seed=xxhash.xxh3_64_intdigest(path))


class Gate:
    """Turns a group into commands, and the replies into findings."""

    def __init__(self, limit: int, window_s: int) -> None:
        self._limit = limit
        self._window_s = window_s

    def question(self, callers: list[Caller], now_s: float) -> tuple[bytes, int]:
        """The commands for a group, and the number of their replies."""
        parts: list[bytes] = []
        window = int(now_s) // self._window_s
        for name, count in self._counts(callers).items():
            key, before = b"rate_limit:%b:%d" % (name, window), b"rate_limit:%b:%d" % (name, window - 1)
            expires = command(b"EXPIRE", key, b"%d" % (2 * self._window_s))
            parts += [command(b"INCRBY", key, b"%d" % count), expires, command(b"GET", before)]
        if keys := [caller.idempotency_key for caller in callers if caller.idempotency_key is not None]:
            parts.append(command(b"MGET", *keys))
        seconds = b"%d" % _REPLAY_S
        signed = [caller.replay_key for caller in callers if caller.replay_key is not None]
        parts += [command(b"SET", key, b"1", b"NX", b"EX", seconds) for key in signed]
        return b"".join(parts), len(parts)

    def findings(self, callers: list[Caller], now_s: float, replies: list[Reply]) -> list[Finding]:
        """What the replies to `question` say, in the order of the callers."""
        rest = iter(replies)
        rates = self._rates(callers, now_s, rest)
        has_keys = any(caller.idempotency_key is not None for caller in callers)
        stored = iter(cast("list[bytes | None]", next(rest)) if has_keys else [])
        return [
            _finding(
                caller,
                rate,
                next(stored) if caller.idempotency_key is not None else None,
                caller.replay_key is not None and next(rest) is None,
            )
            for caller, rate in zip(callers, rates, strict=True)
        ]

    def _counts(self, callers: list[Caller]) -> Counter[bytes]:
        return Counter(caller.name for caller in callers) if self._limit else Counter()

    def _rates(self, callers: list[Caller], now_s: float, replies: Iterator[Reply]) -> list[Rate | None]:
        elapsed_s = now_s % self._window_s
        resets_s = int(self._window_s - elapsed_s) + 1
        left: dict[bytes, int] = {}
        for name, count in self._counts(callers).items():
            total, _, before = cast("tuple[int, int, bytes | None]", (next(replies), next(replies), next(replies)))
            # The share of the window before that a sliding window still covers.
            carried = int(int(before or 0) * (1 - elapsed_s / self._window_s))
            left[name] = self._limit - carried - (total - count)
        rates: list[Rate | None] = []
        for caller in callers:
            if caller.name in left:
                left[caller.name] -= 1
                rates.append(Rate(self._limit, left[caller.name], resets_s, self._window_s))
            else:
                rates.append(None)
        return rates


def memory(caller: Caller, answer: bytes) -> bytes:
    """The command that remembers the answer to a request with an `Idempotency-Key`. It has one reply."""
    assert caller.idempotency_key is not None
    value = caller.fingerprint + answer
    return _SET_IDEMPOTENCY % (len(caller.idempotency_key), caller.idempotency_key, len(value), value)


_SET_IDEMPOTENCY: Final = b"*5\r\n$3\r\nSET\r\n$%%d\r\n%%b\r\n$%%d\r\n%%b\r\n$2\r\nEX\r\n$3\r\n%d\r\n" % IDEMPOTENCY_S


def forgetting(caller: Caller) -> bytes:
    """The command that forgets a signature whose request was not accepted, so that it can come again. It has one reply."""
    assert caller.replay_key is not None
    return command(b"DEL", caller.replay_key)


def other_body() -> Problem:
    """The refusal of a known `Idempotency-Key` with another body."""
    return Problem(422, "idempotency-key", "This Idempotency-Key came with another body or path in the last 5 minutes.")


def _finding(caller: Caller, rate: Rate | None, stored: bytes | None, seen: bool) -> Finding:
    if seen:
        detail = (
            "This stamped signature was seen before. "
            "Add an eventId to every event or an Idempotency-Key to repeat it on purpose."
        )
        return Finding(Problem(409, "replay", detail), None, rate)
    if rate is not None and rate.remaining < 0:
        detail = f"More than {rate.limit:,} requests in {rate.window_s} s from this key and address."
        headers = (("retry-after", str(rate.resets_s)), *rate.headers())
        return Finding(Problem(429, "rate-limit", detail, headers=headers), None, rate)
    if stored is not None and stored[:_FINGERPRINT_BYTES] != caller.fingerprint:
        return Finding(other_body(), None, rate)
    return Finding(None, stored[_FINGERPRINT_BYTES:] if stored is not None else None, rate)
