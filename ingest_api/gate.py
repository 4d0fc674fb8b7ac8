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
REPLAY_S: Final = 2 * TOLERANCE_S + 60  # from 5 minutes ahead to 5 minutes behind, and clocks that differ


class Caller(Struct, frozen=True, gc=False):
    """Who sends a request, and what makes it recognizable. `name` counts for the rate limit.

    `idempotency_key` is where the answer to a request that names itself is kept, for `keep_s` seconds; `fingerprint` is that of
    its body and path. `replay_key` is where a stamped signature is noted as seen.
    """

    name: bytes
    idempotency_key: bytes | None
    fingerprint: bytes
    replay_key: bytes | None
    keep_s: int = IDEMPOTENCY_S


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
    """What Redis said of one request: nothing against it, a refusal, or the answer that it had before.

    `noted` is whether its signature was noted just now: where the request is not accepted after all, that is undone.
    """

    refusal: Problem | None
    earlier: bytes | None
    rate: Rate | None
    noted: bool = False


NOTHING: Final = Finding(None, None, None)


def digest(content: bytes) -> bytes:
    """What tells two bodies, unpacked, that have one name apart: who could make two alike has signed both.

    SHA-256 took a twelfth of the time that a batch takes.
    """
    return xxhash.xxh3_128_digest(content)


def fingerprint(path: bytes, content: bytes) -> bytes:
    """What tells two requests with one name apart, from the digest of their bodies."""
    return xxhash.xxh3_128_digest(content + path)


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
        seconds = b"%d" % REPLAY_S
        for caller in callers:
            if (seen := caller.replay_key) is not None:  # (one command for both, SET with NX and GET, is refused by Redis 6.2)
                parts += [command(b"SET", seen, _owner(caller), b"NX", b"EX", seconds), command(b"GET", seen)]
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
                (next(rest), next(rest)) if caller.replay_key is not None else None,
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
    assert 100 <= caller.keep_s <= 999  # noqa: PLR2004 - three digits, as the command says
    value = caller.fingerprint + answer
    return _SET_IDEMPOTENCY % (len(caller.idempotency_key), caller.idempotency_key, len(value), value, caller.keep_s)


_SET_IDEMPOTENCY: Final = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$3\r\n%03d\r\n"


def other_body() -> Problem:
    """The refusal of a known name with another body."""
    detail = "This Idempotency-Key or webhook-id came with another body or path in the last minutes; it names one request."
    return Problem(422, "idempotency-key", detail)


def _owner(caller: Caller) -> bytes:
    """Who may send a signature again: the request of the same name."""
    return caller.idempotency_key or b""


def _finding(caller: Caller, rate: Rate | None, stored: bytes | None, replay: tuple[Reply, Reply] | None) -> Finding:
    noted = replay is not None and replay[0] is not None
    if replay is not None and not noted and (caller.idempotency_key is None or replay[1] != caller.idempotency_key):
        detail = (
            "This stamped signature was seen before. To repeat a request on purpose, sign it as a webhook (webhook-id), "
            "add an eventId to every event, or send the Idempotency-Key that it came with."
        )
        return Finding(Problem(409, "replay", detail), None, rate)
    if rate is not None and rate.remaining < 0:
        detail = f"More than {rate.limit:,} requests in {rate.window_s} s from this key and address."
        headers = (("retry-after", str(rate.resets_s)), *rate.headers())
        return Finding(Problem(429, "rate-limit", detail, headers=headers), None, rate, noted)
    if stored is not None and stored[:_FINGERPRINT_BYTES] != caller.fingerprint:
        return Finding(other_body(), None, rate, noted)
    return Finding(None, stored[_FINGERPRINT_BYTES:] if stored is not None else None, rate, noted)
