"""Is a request signed by a live secret? Checked on the raw bytes, in constant time, before anything is parsed.

Two schemes: Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`), which signs a message id, and the
original system's (`X-Signature`, with or without `X-Timestamp`). A signature made for one of the three forms is valid in no
other. What does not belong here: where secrets come from (`keys.py`), whether a signature was seen before (`gate.py`).
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ingest_api.problems import Problem

TOLERANCE_S: Final = 300
_STAMP_DIGITS: Final = 11  # until the year 5138
_MAX_SIGNATURES: Final = 16  # of a webhook: one for each secret while keys rotate
_WEBHOOK_SECRET: Final = "whsec_"  # noqa: S105 - what such secrets begin with
# Without the full stop, which separates the parts, and without what JSON begins with: so no body of the original scheme can be
# read as a webhook's message.
_ID: Final = "[A-Za-z0-9_:/+=@-]{1,256}"
MESSAGE_ID: Final = f"^{_ID}$"
_MESSAGE_ID: Final = re.compile(_ID.encode())
_WEBHOOK_MESSAGE: Final = re.compile(rb"%b\.[0-9]{1,11}\." % _ID.encode())
_STAMPED_MESSAGE: Final = re.compile(rb"\.[0-9]{1,11}\Z")
_PACKED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd; neither is read with a stamp behind its end


class Signer(Struct, frozen=True, gc=False):
    """Who signed, and what of the request's identity is signed.

    `message_id` is a webhook's; `signature` (hex, lower case) that of a stamped request of the original scheme.
    """

    key_id: str
    stamped: bool
    message_id: bytes | None
    signature: bytes | None


class Signatures:
    """Verifies signatures with the live secrets of each key id."""

    def __init__(self, secrets: dict[str, list[str]]) -> None:
        self._keyed = {
            key_id.encode(): (key_id, [hmac.new(secret_bytes(secret), digestmod="sha256") for secret in found])
            for key_id, found in secrets.items()
        }
        self._default = next(iter(self._keyed), b"")

    def verify(self, headers: Mapping[bytes, bytes], body: bytes, now_s: int) -> Signer:
        """Who signed that body. Without `X-Key-Id` the first configured key is meant, as in the system whose clients send none.

        Raises:
            Problem: 401, without a word on what would have been right; 400 for a message id that cannot be one.
        """
        if b"webhook-signature" in headers or b"webhook-id" in headers:
            return self._webhook(headers, body, now_s)
        signature, stamp = headers.get(b"x-signature"), headers.get(b"x-timestamp")
        if not signature:
            raise _refused("webhook-signature (Standard Webhooks) or X-Signature (hex HMAC-SHA256 of the body) is required.")
        if stamp is not None:
            _check_stamp(b"X-Timestamp", stamp, now_s)
        signature = signature.lower()
        name, keyed = self._of(headers)
        for key in keyed:
            mac = key.copy()  # keyed already, which is the larger part for a small body
            mac.update(body)
            if stamp is not None:
                mac.update(b"." + stamp)
            if hmac.compare_digest(mac.hexdigest().encode(), signature) and name:
                _check_form(body, stamp)
                return Signer(name, stamp is not None, None, None if stamp is None else signature)
        raise _refused("The signature does not fit the raw body and the key.")

    def _webhook(self, headers: Mapping[bytes, bytes], body: bytes, now_s: int) -> Signer:
        try:
            message_id, stamp = headers[b"webhook-id"], headers[b"webhook-timestamp"]
            given = headers[b"webhook-signature"].split(b" ")
        except KeyError:
            raise _refused("webhook-id, webhook-timestamp and webhook-signature belong together.") from None
        if not _MESSAGE_ID.fullmatch(message_id):
            detail = "webhook-id is 1 to 256 letters, digits or `_ : / + = @ -`."
            raise Problem(400, "webhook-id", detail)
        _check_stamp(b"webhook-timestamp", stamp, now_s)
        name, keyed = self._of(headers)
        for key in keyed:
            mac = key.copy()
            mac.update(b"%b.%b." % (message_id, stamp))
            mac.update(body)
            expected = b"v1," + base64.b64encode(mac.digest())
            if any([hmac.compare_digest(expected, one) for one in given[:_MAX_SIGNATURES]]) and name:  # noqa: C419 - all of them
                return Signer(name, True, message_id, None)
        raise _refused("No signature of `webhook-id.webhook-timestamp.body` fits the key.")

    def _of(self, headers: Mapping[bytes, bytes]) -> "tuple[str, list[hmac.HMAC]]":
        return self._keyed.get(headers.get(b"x-key-id", self._default), ("", _NOBODYS))


# An unknown key costs one digest like a known one.
_NOBODYS: Final = [hmac.new(b"nobody's", digestmod="sha256")]


def secret_bytes(secret: str) -> bytes:
    """What a secret signs with: `whsec_` and base64 as Standard Webhooks has it, any other is its own text.

    Raises:
        ValueError: it is no base64.
    """
    if not secret.startswith(_WEBHOOK_SECRET):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_WEBHOOK_SECRET), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a secret that begins with {_WEBHOOK_SECRET} goes on in base64: {error}") from None


def new_secret(random: bytes) -> str:
    """Those bytes as a secret that the libraries of Standard Webhooks take."""
    return _WEBHOOK_SECRET + base64.b64encode(random).decode()


def sign(secret: bytes, body: bytes, timestamp: int | None = None) -> str:
    """The `X-Signature` of a body; stamped where a timestamp (seconds since the epoch) is given."""
    signed = body if timestamp is None else b"%b.%d" % (body, timestamp)
    return hmac.digest(secret, signed, "sha256").hex()


def sign_webhook(secret: bytes, body: bytes, message_id: str, timestamp: int) -> dict[str, str]:
    """The three headers of Standard Webhooks; `timestamp` is in seconds since the epoch."""
    mac = hmac.digest(secret, b"%b.%d.%b" % (message_id.encode(), timestamp, body), "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }


def _check_form(body: bytes, stamp: bytes | None) -> None:
    """Refuse a body of the original scheme that is the message of another form: its signature signs that, and no body.

    The signature of `body.stamp` is also that of an unstamped body with the stamp at its end.
    """
    if _WEBHOOK_MESSAGE.match(body):
        raise _refused("A webhook's signature is valid with its webhook-id and webhook-timestamp alone.")
    if stamp is None and not body.startswith(_PACKED) and _STAMPED_MESSAGE.search(body, max(0, len(body) - _STAMP_DIGITS - 1)):
        raise _refused("A stamped signature is valid with its X-Timestamp alone.")


def _check_stamp(header: bytes, stamp: bytes, now_s: int) -> None:
    if not stamp.isdigit() or len(stamp) > _STAMP_DIGITS:  # of bytes, isdigit() means 0 to 9
        raise _refused(f"{header.decode()} is whole seconds since the epoch.")
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        raise _refused(f"{header.decode()} is more than {TOLERANCE_S // 60} minutes from the server's clock ({now_s}).")


def _refused(detail: str) -> Problem:
    return Problem(401, "signature", detail)
