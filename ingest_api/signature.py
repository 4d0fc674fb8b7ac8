"""Is a request signed by a live secret? Checked on the raw bytes, in constant time, before anything is parsed.

What does not belong here: where secrets come from (`keys.py`), whether a signature was seen before (`limits.py`).
"""

import hmac

from ingest_api.problems import Problem

TOLERANCE_S = 300


class Signatures:
    """Verifies signatures with the live secrets of each key id."""

    def __init__(self, secrets: dict[str, list[bytes]]) -> None:
        self._secrets = secrets
        self._default = next(iter(secrets), "")

    def verify(self, body: bytes, signature: str | None, timestamp: str | None, key_id: str | None, now_s: int) -> str:
        """Check `X-Signature` of `body`, stamped where `X-Timestamp` is given. Returns the id of the key that signed.

        Without `X-Key-Id` the first configured key is meant, as in the system whose clients send none.

        Raises:
            Problem: 401, without a word on what would have been right.
        """
        if not signature:
            raise _refused("X-Signature is required: the hex HMAC-SHA256 of the raw body.")
        signed = body
        if timestamp is not None:
            _check_stamp(timestamp, now_s)
            signed = b"%b.%b" % (body, timestamp.encode())
        key_id = self._default if key_id is None else key_id
        given = signature.lower().encode()
        for secret in self._secrets.get(key_id, [b""]):
            # No early way out for an unknown key: it costs one digest like a known one.
            if hmac.compare_digest(hmac.digest(secret, signed, "sha256").hex().encode(), given) and key_id in self._secrets:
                return key_id
        raise _refused("The signature does not fit the raw body and the key.")


def sign(secret: bytes, body: bytes, timestamp: int | None = None) -> str:
    """The `X-Signature` of a body; stamped where a timestamp (seconds since the epoch) is given."""
    signed = body if timestamp is None else b"%b.%d" % (body, timestamp)
    return hmac.digest(secret, signed, "sha256").hex()


def _check_stamp(timestamp: str, now_s: int) -> None:
    # isdecimal() alone would let other scripts' digits through to the signed bytes.
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 12):  # noqa: PLR2004 - year 5138
        raise _refused("X-Timestamp is whole seconds since the epoch.")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise _refused(f"X-Timestamp is more than {TOLERANCE_S // 60} minutes from the server's clock ({now_s}).")


def _refused(detail: str) -> Problem:
    return Problem(401, "signature", detail)
