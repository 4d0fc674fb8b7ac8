"""From a request's headers and raw body to what waits for the group commit: who sent it, is it theirs, what is in it.

What does not belong here: answers (`app.py`), Redis and the disk (`group.py`).
"""

import time
from typing import Final

from ingest_api.admission import Arrival
from ingest_api.bodies import Body, Checked, check_batch, check_event
from ingest_api.clients import Addresses
from ingest_api.gate import IDEMPOTENCY_S, REPLAY_S, Caller, digest, fingerprint
from ingest_api.ids import derived_base, name_digest, uuid7_base
from ingest_api.keys import keys_changed_ns, live_secrets, require_keys
from ingest_api.problems import Problem
from ingest_api.request import Request
from ingest_api.signature import Signatures, Signer
from warehouse.settings import Settings

_MAX_NAME_CHARS: Final = 256  # of an Idempotency-Key or an X-Request-ID


class Intake:
    """Reads and checks requests as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys_changed_ns = keys_changed_ns(settings)
        self._signatures = Signatures(require_keys(settings))
        self._addresses = Addresses(settings.trusted_proxies)
        self._signed_identity = settings.identity == "signed" or (
            settings.identity is None and settings.profile == "production"
        )

    def reload_keys(self) -> None:
        """Read the keys again where the file has changed: one may have been made or retired.

        Raises:
            SettingsError: the file is damaged; the keys stay as they were.
        """
        changed_ns = keys_changed_ns(self._settings)
        if changed_ns != self._keys_changed_ns:
            self._keys_changed_ns = changed_ns
            self._signatures = Signatures(live_secrets(self._settings))

    def verify(self, request: Request) -> Signer:
        """Who signed the request. Any thread may ask.

        Raises:
            Problem: nobody that is known here.
        """
        return self._signatures.verify(request.headers, request.body, int(time.time()))

    def take(self, request: Request, signer: Signer) -> tuple[Caller, Checked, Arrival]:
        """Read one request that is signed.

        Raises:
            Problem: it is refused as a whole.
        """
        header, now_ms = request.headers.get, time.time_ns() // 1_000_000
        key, encoding = header(b"idempotency-key"), header(b"content-encoding", b"")
        if key is not None and not is_name(key):
            raise Problem(400, "idempotency-key", f"Idempotency-Key is 1 to {_MAX_NAME_CHARS} printable ASCII characters.")
        body = Body.of(request.body, encoding)
        checked = check_event(body, now_ms) if request.path == b"/events" else check_batch(body, now_ms)
        named = all(event.eventId is not None for event in checked.events)
        if self._signed_identity:
            _check_identity(signer, named)
        caller, base = self._identify(request, signer, key, named, body.plain, now_ms)
        return caller, checked, Arrival(now_ms, signer.key_id, base, request.id.decode(), body)

    def _identify(
        self, request: Request, signer: Signer, key: bytes | None, named: bool, plain: bytes, now_ms: int
    ) -> tuple[Caller, bytes]:
        """Who sends it, and the base of its events' ids: from what names the request, or new."""
        sender = b"%b:%b" % (
            signer.key_id.encode(),
            self._addresses.client(request.address, request.headers.get(b"x-forwarded-for")),
        )
        replay = None if signer.signature is None or (named and key is None) else b"replay:%b" % signer.signature
        if signer.message_id is not None:
            name, keep_s = b"webhook\0%b\0%b" % (signer.key_id.encode(), signer.message_id), REPLAY_S
        elif key is not None:
            name, keep_s = b"key\0%b\0%b" % (signer.key_id.encode(), key), IDEMPOTENCY_S
        else:
            return Caller(sender, None, b"", replay), uuid7_base(now_ms)
        content = digest(plain)
        kept = b"idempotency:%b" % name_digest(name)
        return Caller(sender, kept, fingerprint(request.path, content), replay, keep_s), derived_base(name, content)


def _check_identity(signer: Signer, named: bool) -> None:
    """Every request is stamped, and what names an event is signed: else who has seen a request could make it count again.

    Raises:
        Problem: 400, saying what to send.
    """
    if not signer.stamped:
        detail = (
            "Nothing was accepted: a request is stamped here. Sign it as Standard Webhooks has it (webhook-id, "
            "webhook-timestamp, webhook-signature), or send X-Timestamp and sign `body.timestamp`."
        )
        raise Problem(400, "unstamped", detail)
    if signer.message_id is None and not named:
        detail = (
            "Nothing was accepted: every event is named by its eventId here, or by a signed webhook-id (Standard Webhooks) of "
            "its request. An Idempotency-Key is not signed and names nothing."
        )
        raise Problem(400, "unnamed", detail)


def is_name(text: bytes) -> bool:
    """Whether a client's header can name something: 1 to 256 printable ASCII characters."""
    return 0 < len(text) <= _MAX_NAME_CHARS and text.isascii() and text.decode().isprintable()
