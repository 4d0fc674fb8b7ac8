"""Who may read, and which web pages may send and show what was read: read keys, public reading, internal pages, CORS.

What does not belong here: where keys come from (`keys.py`), who may send events (`signature.py`).
"""

import hashlib
import hmac
from typing import Final

from ingest_api.clients import is_in, networks
from ingest_api.keys import keys_changed_ns, read_keys
from ingest_api.problems import Problem
from ingest_api.request import Request
from warehouse.settings import Settings

_BEARER: Final = b"bearer "
_LOOPBACK: Final = "127.0.0.0/8,::1"
_PUBLIC: Final = b"public"
_EXPOSED: Final = b"access-control-expose-headers: etag, retry-after, ratelimit, x-fairboard-source, x-request-id\r\n"
_PREFLIGHT: Final = b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\naccess-control-max-age: 7200\r\n"
PREFLIGHT_READ: Final = _PREFLIGHT % (b"GET", b"authorization, if-none-match, x-request-id")
_SENT: Final = (
    b"content-type, content-encoding, x-key-id, webhook-id, webhook-timestamp, webhook-signature, "
    b"x-signature, x-timestamp, idempotency-key, x-request-id"
)
PREFLIGHT_SEND: Final = _PREFLIGHT % (b"POST", _SENT)


class Access:
    """Knows the live read keys and the allowed origins."""

    def __init__(self, settings: Settings) -> None:
        demo = settings.profile == "demo"
        self._settings = settings
        self._public = demo if settings.public_reads is None else settings.public_reads
        origins = ("*" if demo else "") if settings.cors_origins is None else settings.cors_origins
        inside = ("anyone" if demo else _LOOPBACK) if settings.internal_pages is None else settings.internal_pages
        self._inside = None if inside.strip() == "anyone" else networks("FAIRBOARD_INTERNAL_PAGES", inside)
        self._origins = {origin.strip().encode() for origin in origins.split(",") if origin.strip()}
        self._changed_ns = keys_changed_ns(settings)
        self._keys = read_keys(settings)

    def reload_keys(self) -> None:
        """Read the keys again where the file has changed.

        Raises:
            SettingsError: the file is damaged; the keys stay as they were.
        """
        changed_ns = keys_changed_ns(self._settings)
        if changed_ns != self._changed_ns:
            self._changed_ns = changed_ns
            self._keys = read_keys(self._settings)

    def reader(self, request: Request) -> bytes:
        """The id of the key that reads, or `public`: what the rate limit counts by, beside the address.

        Raises:
            Problem: 401 where reading needs a key and none fits.
        """
        return _PUBLIC if self._public else self._key_of(request)

    def check_internal(self, request: Request, address: bytes) -> None:
        """Keep a page about the service itself to those it is for. `address` is the client's, behind trusted proxies.

        Raises:
            Problem: 401 for who is none of them and has no read key.
        """
        if self._inside is not None and not is_in(address, self._inside):
            self._key_of(request)

    def _key_of(self, request: Request) -> bytes:
        given = request.headers.get(b"authorization", b"")
        digest = hashlib.sha256(given[len(_BEARER) :].strip()).hexdigest()
        fits = [key_id for key_id, known in self._keys if hmac.compare_digest(known, digest)]
        if fits and given[: len(_BEARER)].lower() == _BEARER:
            return fits[0].encode()
        detail = "Reading needs `Authorization: Bearer KEY` with a live read key (`fairboard keys make ID --read`)."
        raise Problem(401, "read-key", detail, headers=(("www-authenticate", "Bearer"),))

    def cors(self, request: Request) -> bytes:
        """The header lines that let the page of an allowed origin see the answer."""
        origin = request.headers.get(b"origin")
        if origin is None or not self._origins:
            return b""
        if b"*" in self._origins:
            return b"access-control-allow-origin: *\r\n" + _EXPOSED
        if origin in self._origins:
            return b"access-control-allow-origin: %b\r\nvary: origin\r\n" % origin + _EXPOSED
        return b"vary: origin\r\n"
