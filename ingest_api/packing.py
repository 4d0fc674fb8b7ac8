"""`Content-Encoding`: packed bodies unpacked, with a cap, as RFC 1952 (gzip) and RFC 8878 (zstd) have them.

What does not belong here: what is in a body (`bodies.py`).
"""

import zlib
from collections.abc import Callable
from typing import Any, Final

import zstandard

from ingest_api.problems import Problem

MAX_UNPACKED_BYTES: Final = 16 * 1024 * 1024
# The largest window that RFC 8878 asks a decoder to support.
_MAX_ZSTD_WINDOW_BYTES: Final = 8 * 1024 * 1024
# A step may overshoot the cap: 4 bytes of zstd unpack to 128 KiB at most, a byte of gzip to 1,032. It is also what is copied
# where a member ends, so that thousands of them do not copy the rest of the body each time.
_ZSTD_STEP_BYTES: Final = 512
_GZIP_STEP_BYTES: Final = 16 * 1024
_MAX_MEMBERS: Final = 1_000
_NAMES: Final = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}


def packing(encoding: bytes) -> str:
    """What a `Content-Encoding` says: `gzip`, `zstd` or nothing.

    Raises:
        Problem: 415 for an encoding nobody reads here.
    """
    if not encoding:
        return ""
    text = encoding.decode("latin-1").lower()
    names = [name for part in text.split(",") if (name := _NAMES.get(part.strip(), part))]
    if len(names) > 1 or not _NAMES.keys() >= set(names):
        raise Problem(415, "encoding", f"Content-Encoding {text!r} is not read here; send gzip, zstd or none.")
    return names[0] if names else ""


def unpack(body: bytes, packing: str) -> bytes:
    """Undo a packing, stopping as soon as the result is too large.

    Raises:
        Problem: 400 for a damaged body, 413 for one too large.
    """
    if not packing:
        return body
    make, step = _UNPACKERS[packing]
    try:
        return _unpack(body, make, step)
    except (zlib.error, zstandard.ZstdError) as error:
        raise Problem(400, "encoding", f"The body is not sound {packing}: {error}.") from None


def _unpack(body: bytes, make: Callable[[], Any], step: int) -> bytes:
    """One member (gzip) or frame (zstd) after the other: both say that what stands behind one is another."""
    parts, size, members, member = [], 0, 1, make()
    for start in range(0, len(body), step):
        part = body[start : start + step]
        while part:
            if member.eof:
                if not (part := _without_padding(part, members)):
                    break
                members, member = members + 1, make()
            parts.append(member.decompress(part))
            size += len(parts[-1])
            part = member.unused_data
        if size > MAX_UNPACKED_BYTES:
            raise Problem(413, "too-large", f"The body unpacks to more than {MAX_UNPACKED_BYTES:,} bytes.")
    if not member.eof:
        raise zlib.error("it ends too early")
    return b"".join(parts)


def _without_padding(rest: bytes, members: int) -> bytes:
    """What stands behind a member without the zeros that tapes and block devices leave, as gzip itself passes them over."""
    if members == _MAX_MEMBERS:
        raise zlib.error(f"it has more than {_MAX_MEMBERS:,} members or frames")
    return rest.lstrip(b"\0")


def _gunzip() -> Any:
    return zlib.decompressobj(wbits=31)


def _unzstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES).decompressobj()


_UNPACKERS: Final[dict[str, tuple[Callable[[], Any], int]]] = {
    "gzip": (_gunzip, _GZIP_STEP_BYTES),
    "zstd": (_unzstd, _ZSTD_STEP_BYTES),
}
