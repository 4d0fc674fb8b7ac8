"""Identity of what arrives: segments, requests and events.

An event without an `eventId` is named by its request's base plus its position there, so that sealing a journal twice gives
the same ids. What does not belong here: who has seen an id already (`door.py`).
"""

import hashlib
import os
import time
from typing import Final

POSITION_BITS: Final = 13  # 8,192 positions: above the 5,000 events of a batch
_POSITIONS: Final = (1 << POSITION_BITS) - 1
# Of 128 bits: what is neither version, variant nor position; and version 8, variant 10.
_UUID_FREE: Final = (1 << 128) - 1 & ~(0xF << 76) & ~(0b11 << 62) & ~_POSITIONS
_UUID_8: Final = 0x8 << 76 | 0b10 << 62
_RANDOM_49: Final = (1 << 49) - 1


def uuid7_base(now_ms: int | None = None) -> bytes:
    """A new UUIDv7 (RFC 9562) whose last 13 bits are left to the position in the request."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    random = int.from_bytes(os.urandom(8))
    upper = now_ms << 16 | 0x7000 | random >> 52
    lower = 0b10 << 62 | (random & _RANDOM_49) << POSITION_BITS
    return (upper << 64 | lower).to_bytes(16)


def derived_base(name: bytes, content: bytes) -> bytes:
    """The base of a request that names itself: a UUIDv8 from a SHA-256 of its name and of its content's digest.

    A name alone would give two bodies that are sent under it the same ids, and one of two accepted events would be dropped.
    """
    digest = hashlib.sha256(b"%b\0%b" % (content, name)).digest()
    return (int.from_bytes(digest[:16]) & _UUID_FREE | _UUID_8).to_bytes(16)


def name_digest(name: bytes) -> bytes:
    """A name as part of a Redis key, in hex: what a client sends does not get there as it came."""
    return hashlib.sha256(name).hexdigest()[:32].encode()


def event_id(base: bytes, position: int) -> str:
    """The id of the event at that position of the request with that base."""
    text = (int.from_bytes(base) | position).to_bytes(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def segment_id() -> str:
    """A name for a journal segment: unique forever, and in the order of time."""
    now_ns = time.time_ns()
    return f"{now_ns // 1_000_000:012x}{now_ns % 1_000_000:05x}{os.urandom(5).hex()}"
