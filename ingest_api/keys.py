"""Keys: who may send events, and who may read.

An id has one use, and may have several live secrets, so that a key changes without downtime. Signing keys come from
`FAIRBOARD_HMAC_KEYS` and from `DATA_DIR/keys.json`, which `fairboard keys` writes; read keys from that file alone. What does
not belong here: checking a signature (`signature.py`) or a read key (`access.py`).
"""

import hashlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import Literal

import msgspec

from ingest_api.signature import new_secret, secret_bytes
from warehouse.errors import SettingsError
from warehouse.settings import Settings

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # it becomes part of Redis keys and log lines
MIN_SECRET_CHARS = 8
_SECRET_BYTES = 32


class StoredKey(msgspec.Struct, frozen=True):
    """A secret of the keys file; of a read key its SHA-256 (hex), which is enough to recognize it.

    `retired_at` is in seconds since the epoch; a retired secret verifies nothing.
    """

    id: str
    secret: str
    created_at: int
    retired_at: int | None = None
    use: Literal["sign", "read"] = "sign"


def keys_file(settings: Settings) -> Path:
    """Where the keys are kept, readable by their owner alone."""
    return settings.data_dir / "keys.json"


def keys_changed_ns(settings: Settings) -> int:
    """When the keys file was last written, in ns since the epoch; 0 where there is none."""
    try:
        return keys_file(settings).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def stored_keys(settings: Settings) -> list[StoredKey]:
    """Every secret in the keys file, retired ones included.

    Raises:
        SettingsError: the file is damaged.
    """
    path = keys_file(settings)
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[StoredKey])
    except FileNotFoundError:
        return []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is damaged ({error}); nothing was started. Restore it, or make new keys.") from error


def live_secrets(settings: Settings) -> dict[str, list[str]]:
    """The secrets that verify, by key id.

    Raises:
        SettingsError: `FAIRBOARD_HMAC_KEYS` or the keys file cannot be read, or two ids share a secret.
    """
    live: dict[str, list[str]] = {}
    owners: dict[bytes, str] = {}
    for key_id, secret in _environment_keys(settings.hmac_keys):
        live.setdefault(key_id, []).append(secret)
    for key in stored_keys(settings):
        if key.retired_at is None and key.use == "sign":
            live.setdefault(key.id, []).append(key.secret)
    for key_id, found in live.items():
        for text in found:
            try:
                signs_with = secret_bytes(text)
            except ValueError as error:
                raise SettingsError(f"The key {key_id!r} cannot be used: {error}.") from None
            if owners.setdefault(signs_with, key_id) != key_id:
                raise SettingsError(
                    f"{owners[signs_with]!r} and {key_id!r} have the same secret: what one has signed could be sent once more "
                    "as the other's. Give each a secret of its own; several live secrets of one id are fine."
                )
    return live


def read_keys(settings: Settings) -> list[tuple[str, str]]:
    """Id and SHA-256 (hex) of every live read key.

    Raises:
        SettingsError: the keys file cannot be read.
    """
    return [(key.id, key.secret) for key in stored_keys(settings) if key.retired_at is None and key.use == "read"]


def require_keys(settings: Settings) -> dict[str, list[str]]:
    """The live secrets; in profile `demo` a random key is made where there is none.

    Raises:
        SettingsError: in production there is none.
    """
    live = live_secrets(settings)
    if not live and settings.profile == "production":
        raise SettingsError(
            "There is no signing key, so no event could be accepted; nothing was started. "
            "Make one with `fairboard keys make ID`, or set FAIRBOARD_HMAC_KEYS=ID:SECRET."
        )
    if not live:
        make_key(settings, "demo")
        live = live_secrets(settings)
    return live


def ensure_demo_key(settings: Settings) -> tuple[str, str]:
    """A key for our own callers: the first live one, made if there is none. Returns id and secret.

    Raises:
        SettingsError: in production there is none.
    """
    key_id, found = next(iter(require_keys(settings).items()))
    return key_id, found[0]


def make_key(settings: Settings, key_id: str, use: Literal["sign", "read"] = "sign") -> str:
    """Add a random secret to `key_id`, and return it; its older secrets stay live.

    Raises:
        SettingsError: the id cannot name a key, or names one of the other use.
    """
    _check_id(key_id, "A key id")
    keys = stored_keys(settings)
    if other := next((key.use for key in keys if key.id == key_id and key.use != use), None):
        raise SettingsError(f"{key_id!r} is there to {other}; a key to {use} needs another id. Nothing was changed.")
    secret = new_secret(secrets.token_bytes(_SECRET_BYTES)) if use == "sign" else secrets.token_urlsafe(_SECRET_BYTES)
    kept = secret if use == "sign" else hashlib.sha256(secret.encode()).hexdigest()
    _save(settings, [*keys, StoredKey(key_id, kept, int(time.time()), use=use)])
    return secret


def retire_keys(settings: Settings, key_id: str, keep_newest: bool = False) -> int:
    """Retire the secrets of `key_id` in the keys file, the newest excepted where asked. Returns how many.

    Raises:
        SettingsError: no live secret of that id is in the file.
    """
    keys = stored_keys(settings)
    live = [at for at, key in enumerate(keys) if key.id == key_id and key.retired_at is None]
    if not live:
        raise SettingsError(f"{keys_file(settings)} holds no live secret of {key_id!r}; nothing was changed.")
    retired = live[:-1] if keep_newest else live
    for at in retired:
        keys[at] = msgspec.structs.replace(keys[at], retired_at=int(time.time()))
    _save(settings, keys)
    return len(retired)


def _environment_keys(text: str) -> list[tuple[str, str]]:
    pairs = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        key_id, _, secret = item.partition(":")
        _check_id(key_id, "FAIRBOARD_HMAC_KEYS: an id")
        if len(secret) < MIN_SECRET_CHARS:
            raise SettingsError(f"FAIRBOARD_HMAC_KEYS: the secret of {key_id!r} is shorter than {MIN_SECRET_CHARS} characters.")
        pairs.append((key_id, secret))
    return pairs


def _check_id(key_id: str, what: str) -> None:
    if not _KEY_ID.fullmatch(key_id):
        raise SettingsError(
            f"{what} has 1 to 64 letters, digits, `.`, `_` or `-`; {key_id[:70]!r} has not. Nothing was changed."
        )


def _save(settings: Settings, keys: list[StoredKey]) -> None:
    path = keys_file(settings)
    temporary = path.with_name(f".keys.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(keys)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}); the keys are as they were.") from error
