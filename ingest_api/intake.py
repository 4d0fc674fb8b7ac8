"""From a request's headers and raw body to what waits for the group commit: who sent it, is it theirs, what is in it.

What does not belong here: answers (`app.py`), Redis and the disk (`group.py`).
"""

import time
from typing import Final

from ingest_api.admission import Arrival
from ingest_api.bodies import Checked, check_batch, check_event, unpack
from ingest_api.clients import Addresses
from ingest_api.gate import Caller, fingerprint
from ingest_api.ids import derived_base, uuid7_base
from ingest_api.keys import keys_changed_ns, live_secrets, require_keys
from ingest_api.problems import Problem
from ingest_api.request import Request
from ingest_api.signature import Signatures
from warehouse.settings import Settings

_MAX_NAME_CHARS: Final = 256  # of an Idempotency-Key or an X-Request-ID


class Intake:
    """Reads and checks requests as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys_changed_ns = keys_changed_ns(settings)
        self._signatures = Signatures(require_keys(settings))
        self._addresses = Addresses(settings.trusted_proxies)
        self._unstamped = settings.unstamped or ("named" if settings.profile == "production" else "accept")

    def reload_keys(self) -> None:
        """Read the keys again where the file has changed: one may have been made or retired.

        Raises:
            SettingsError: the file is damaged; the keys stay as they were.
        """
        changed_ns = keys_changed_ns(self._settings)
        if changed_ns != self._keys_changed_ns:
            self._keys_changed_ns = changed_ns
            self._signatures = Signatures(live_secrets(self._settings))

    def verify(self, request: Request) -> str:
        """Who signed the request: the id of their key. Any thread may ask.

        Raises:
            Problem: nobody that is known here.
        """
        header = request.headers.get
        signature, stamp, key_id = header(b"x-signature"), header(b"x-timestamp"), header(b"x-key-id")
        return self._signatures.verify(request.body, signature, stamp, key_id, int(time.time()))

    def take(self, request: Request, key_id: str) -> tuple[Caller, Checked, Arrival]:
        """Read one request, signed with that key.

        Raises:
            Problem: it is refused as a whole.
        """
        header, raw, now_ms = request.headers.get, request.body, time.time_ns() // 1_000_000
        signature, stamp, name = header(b"x-signature"), header(b"x-timestamp"), header(b"idempotency-key")
        if stamp is None and self._unstamped == "refuse":
            raise Problem(401, "unstamped", "Signatures without X-Timestamp are switched off here.")
        if name is not None and not is_name(name):
            raise Problem(400, "idempotency-key", f"Idempotency-Key is 1 to {_MAX_NAME_CHARS} printable ASCII characters.")
        encoding = header(b"content-encoding", b"").decode("latin-1")
        plain = unpack(raw, encoding)
        checked = check_event(plain, now_ms) if request.path == b"/events" else check_batch(plain, now_ms)
        address = self._addresses.client(request.address, header(b"x-forwarded-for"))
        base = uuid7_base(now_ms) if name is None else derived_base(key_id, name)
        caller = Caller(
            b"%b:%b" % (key_id.encode(), address),
            None if name is None else b"idempotency:%b" % base.hex().encode(),
            b"" if name is None else fingerprint(request.path, raw),
            None if name is not None else self._replay_key(checked, signature, stamp),
        )
        return caller, checked, Arrival(now_ms, key_id, base, request.id.decode(), encoding, raw, plain)

    def _replay_key(self, checked: Checked, signature: bytes | None, stamp: bytes | None) -> bytes | None:
        """Where to look whether this very request came before, for one whose events do not all name themselves."""
        if all(event.eventId is not None for event in checked.events):
            return None
        if stamp is not None:
            return b"replay:%b" % (signature or b"").lower()
        if self._unstamped == "named":
            detail = "An unstamped request needs an eventId in every event, or an Idempotency-Key: it could be replayed."
            raise Problem(401, "unstamped", detail)
        return None


def is_name(text: bytes) -> bool:
    """Whether a client's header can name something: 1 to 256 printable ASCII characters."""
    return 0 < len(text) <= _MAX_NAME_CHARS and text.isascii() and text.decode().isprintable()
