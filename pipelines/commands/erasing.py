"""The command that removes a player: forget."""

import sys
import time
from typing import Annotated

import typer

from ingest_api.journal import DAMAGED, OPEN, READY, journal_dir
from ingest_api.logs import configure_logs
from ingest_api.sealer import seal_once
from pipelines.output import complain, emit_json, table
from warehouse.engine import open_engine
from warehouse.erasure import Forgotten, forget
from warehouse.errors import FairboardError, StoreUnavailable
from warehouse.outlets import Outlets
from warehouse.settings import Settings, load_settings

PATIENCE_S = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("forget")(forget_)


def forget_(
    player_id: Annotated[str, typer.Argument(metavar="PLAYER")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Remove a player from lake, dead letters, boards, database and Redis, for good. What others have stays right."""
    if not yes:
        if not sys.stdin.isatty():
            raise FairboardError(f"Removing {player_id!r} cannot be undone; nothing was removed. Add --yes.")
        typer.confirm(f"Remove every trace of {player_id!r}? This cannot be undone.", abort=True)
    settings = load_settings()
    configure_logs(settings)  # the sealer has something to say
    try:
        outlets = Outlets(settings, needs_redis=False)
    except StoreUnavailable as error:
        raise StoreUnavailable(f"Nothing was removed, as it would stay in Redis or the database. {error}") from error
    damaged = _seal(settings)
    with open_engine(settings) as engine:
        forgotten = forget(engine, outlets, player_id)
    forgotten.left += damaged
    if json:
        emit_json(forgotten)
    else:
        _show(forgotten)
    if forgotten.left:
        raise FairboardError(f"{player_id!r} is not forgotten everywhere: {len(forgotten.left)} places could not be searched.")


def _show(forgotten: Forgotten) -> None:
    again = f"; {forgotten.first_day} to {forgotten.last_day} computed again" if forgotten.first_day else ""
    table(f"Removed {forgotten.player_id}{again}", ["from", "removed"], forgotten.removed.items(), right=["removed"])
    for sentence in forgotten.left:
        complain(sentence)
    complain(
        "Backups from before hold them still: make a new one and let the others go (`fairboard backup TO --keep 1`). Logs and "
        "the previews in Dagster's run history are not touched."
    )


def _seal(settings: Settings) -> list[str]:
    """Bring what the journal holds into the lake, where the player can be found. Returns what cannot be searched.

    Raises:
        FairboardError: a worker keeps a segment open; nothing was removed.
    """
    root = journal_dir(settings)
    deadline = time.monotonic() + settings.seal_after_s + PATIENCE_S
    before = {path.stem for suffix in (OPEN, READY) for path in root.glob(f"*/*{suffix}")}
    while before:
        seal_once(settings)
        before &= {path.stem for suffix in (OPEN, READY) for path in root.glob(f"*/*{suffix}")}
        if before and time.monotonic() > deadline:
            raise FairboardError(
                f"{len(before)} segments of the journal cannot be sealed now, and may name the player; nothing was removed. "
                "Stop the ingest service, and run the same again."
            )
        time.sleep(0.2 if before else 0)
    return [f"{path} is damaged, and was not searched" for path in sorted(root.glob(f"*/*{DAMAGED}"))]
