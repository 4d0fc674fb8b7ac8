"""Keys to sign events and to read: make, list, retire.

Rotation is: make, change the senders, retire the old ones; nothing stops meanwhile.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ingest_api.keys import keys_file, make_key, retire_keys, stored_keys
from pipelines.output import emit_json, out, table
from warehouse.settings import load_settings

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's name; of a signing key what X-Key-Id says.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(help="Keys to sign events and to read: make, list, retire.", no_args_is_help=True)
    keys.command()(make)
    keys.command("list")(list_)
    keys.command()(retire)
    app.add_typer(keys, name="keys")


def make(
    key_id: KeyId,
    read: Annotated[bool, typer.Option("--read", help="A key to read boards with; it signs nothing.")] = False,
) -> None:
    """Add a secret to an id, and print it: this is the only time it is shown. Older secrets of the id stay live."""
    out.print(make_key(load_settings(), key_id, "read" if read else "sign"))


def list_(json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False) -> None:
    """The keys in the keys file, without their secrets. Those of FAIRBOARD_HMAC_KEYS are not in it."""
    settings = load_settings()
    rows = [(key.id, key.use, _moment(key.created_at), _moment(key.retired_at)) for key in stored_keys(settings)]
    if json:
        emit_json([dict(zip(("id", "use", "created_at", "retired_at"), row, strict=True)) for row in rows])
    else:
        table(str(keys_file(settings)), ["id", "use", "created", "retired"], rows)


def retire(
    key_id: KeyId,
    keep_newest: Annotated[
        bool, typer.Option("--keep-newest", help="All but the newest secret: the end of a rotation.")
    ] = False,
) -> None:
    """Retire the secrets of an id; they are refused within a second."""
    out.print(f"retired {retire_keys(load_settings(), key_id, keep_newest)} of {key_id}")


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
