"""Is a request signed by a live secret? Checked on the raw bytes, in constant time, before anything is parsed.

What does not belong here: where secrets come from (`keys.py`), whether a signature was seen before (`gate.py`).
"""

import hmac
from typing import Final

from ingest_api.problems import Problem

TOLERANCE_S: Final = 300
_STAMP_DIGITS: Final = 11  # until the year 5138


class Signatures:
    """Verifies signatures with the live secrets of each key id."""

    def __init__(self, secrets: dict[str, list[bytes]]) -> None:
        self._keyed = {
            key_id.encode(): (key_id, [hmac.new(secret, digestmod="sha256") for secret in found])
            for key_id, found in secrets.items()
        }
        self._default = next(iter(self._keyed), b"")

    def verify(self, body: bytes, signature: bytes | None, stamp: bytes | None, key_id: bytes | None, now_s: int) -> str:
        """Check `X-Signature` of `body`, stamped where `X-Timestamp` is given. Returns the id of the key that signed.

        Without `X-Key-Id` the first configured key is meant, as in the system whose clients send none.

        Raises:
            Problem: 401, without a word on what would have been right.
        """
        if not signature:
            raise _refused("X-Signature is required: the hex HMAC-SHA256 of the raw body.")
        if stamp is not None:
            _check_stamp(stamp, now_s)
        given = signature.lower()
        name, keyed = self._keyed.get(self._default if key_id is None else key_id, ("", _NOBODYS))
        for key in keyed:
            mac = key.copy()  # keyed already, which is the larger part for a small body
            mac.update(body)
            if stamp is not None:
                mac.update(b"." + stamp)
            if hmac.compare_digest(mac.hexdigest().encode(), given) and name:
                return name
        raise _refused("The signature does not fit the raw body and the key.")


# An unknown key costs one digest like a known one.
_NOBODYS: Final = [hmac.new(b"nobody's", digestmod="sha256")]


def sign(secret: bytes, body: bytes, timestamp: int | None = None) -> str:
    """The `X-Signature` of a body; stamped where a timestamp (seconds since the epoch) is given."""
    signed = body if timestamp is None else b"%b.%d" % (body, timestamp)
    return hmac.digest(secret, signed, "sha256").hex()


def _check_stamp(stamp: bytes, now_s: int) -> None:
    if not stamp.isdigit() or len(stamp) > _STAMP_DIGITS:  # of bytes, isdigit() means 0 to 9
        raise _refused("X-Timestamp is whole seconds since the epoch.")
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        raise _refused(f"X-Timestamp is more than {TOLERANCE_S // 60} minutes from the server's clock ({now_s}).")


def _refused(detail: str) -> Problem:
    return Problem(401, "signature", detail)
