"""From a request's headers and raw body to what waits for the group commit: who sent it, is it theirs, what is in it.

What does not belong here: answers (`app.py`), Redis and the disk (`group.py`).
"""

import time
from typing import Any, Final

from ingest_api.admission import Arrival
from ingest_api.bodies import Checked, check_batch, check_event, read, unpack
from ingest_api.clients import Addresses
from ingest_api.gate import Caller, fingerprint
from ingest_api.ids import derived_base, uuid7_base
from ingest_api.keys import keys_changed_ns, live_secrets, require_keys
from ingest_api.problems import Problem
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

    async def take(self, scope: Any, proto: Any, request_id: str) -> tuple[Caller, Checked, Arrival]:
        """Read one request.

        Raises:
            Problem: it is refused as a whole.
        """
        header = scope.headers.get
        raw = await read(proto, header("content-length"))
        now_ms = time.time_ns() // 1_000_000
        signature, stamp = header("x-signature"), header("x-timestamp")
        key_id = self._signatures.verify(raw, signature, stamp, header("x-key-id"), now_ms // 1000)
        if stamp is None and self._unstamped == "refuse":
            raise Problem(401, "unstamped", "Signatures without X-Timestamp are switched off here.")
        encoding = header("content-encoding") or ""
        plain = unpack(raw, encoding)
        checked = check_event(plain, now_ms) if scope.path == "/events" else check_batch(plain, now_ms)
        name = header("idempotency-key")
        base = uuid7_base(now_ms) if name is None else _named_base(key_id, name)
        replay_key = None if name is not None else self._replay_key(checked, signature or "", stamp)
        address = self._addresses.client(scope.client, header("x-forwarded-for"))
        caller = Caller(
            f"{key_id}:{address}".encode(),
            None if name is None else b"idempotency:%b" % base.hex().encode(),
            b"" if name is None else fingerprint(scope.path, raw),
            replay_key,
        )
        return caller, checked, Arrival(now_ms, key_id, base, request_id, encoding, raw, plain)

    def _replay_key(self, checked: Checked, signature: str, stamp: str | None) -> bytes | None:
        """Where to look whether this very request came before, for one whose events do not all name themselves."""
        if all(event.eventId is not None for event in checked.events):
            return None
        if stamp is not None:
            return b"replay:%b" % signature.lower().encode()
        if self._unstamped == "named":
            raise Problem(
                401,
                "unstamped",
                "An unstamped request needs an eventId in every event, or an Idempotency-Key: it could be replayed.",
            )
        return None


def request_id(given: str | None) -> str:
    """The request's own id if it can be one, else a new one."""
    return given if given is not None and _is_name(given) else uuid7_base().hex()


def _named_base(key_id: str, name: str) -> bytes:
    if not _is_name(name):
        raise Problem(400, "idempotency-key", f"Idempotency-Key is 1 to {_MAX_NAME_CHARS} printable ASCII characters.")
    return derived_base(key_id, name)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME_CHARS and text.isascii() and text.isprintable()
