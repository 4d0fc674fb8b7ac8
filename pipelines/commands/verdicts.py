"""Verdicts: exclude, reverse, list, enforce. The boards follow at once, wherever they are."""

from datetime import datetime
from typing import Annotated

import typer

from pipelines.output import emit_json, out, table
from warehouse import verdicts
from warehouse.database import open_database, reading
from warehouse.enforcement import Enforced, enforce
from warehouse.settings import Settings, load_settings
from warehouse.verdicts import Decision, Said

By = Annotated[str, typer.Option("--by", help="Who says so.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for whoever asks later.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(help="Verdicts: who is excluded from boards, why, and back.", no_args_is_help=True)
    commands.command()(exclude)
    commands.command()(reverse)
    commands.command("list")(list_)
    commands.command("enforce")(enforce_)
    app.add_typer(commands, name="verdict")


def exclude(
    player: Annotated[str, typer.Argument(metavar="PLAYER", help="The player's id.")],
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day of the exclusion.")],
    by: By,
    why: Why,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day on which it ends; default: for good.")
    ] = None,
) -> None:
    """Take a player off every board that has a day of the exclusion: running, closed, and the all-time one."""
    settings = load_settings()
    said: Said = {
        "player_id": player,
        "decision": Decision.CONFIRMED,
        "decided_by": by,
        "reason": why,
        "excluded_from": first.date(),
        "excluded_until": until.date() if until else None,
    }
    with open_database(settings).begin() as connection:
        known = verdicts.in_force(connection, said)
        number = known or verdicts.record(connection, **said)
    end = f"to {until.date()} (exclusive)" if until else "for good"
    before = "; that was recorded before" if known else ""
    out.print(f"verdict {number}: {player} is excluded from {first.date()} {end}{before}")
    _follow(settings)


def reverse(
    number: Annotated[int, typer.Argument(metavar="ID", help="The verdict's id.")],
    by: By,
    why: Why,
) -> None:
    """Take a verdict back: its player returns to the boards, at the rank their XP has."""
    settings = load_settings()
    with open_database(settings).begin() as connection:
        verdict = verdicts.reverse(connection, number, reversed_by=by, reason=why)
    out.print(f"verdict {number} is reversed: {verdict.player_id} is back")
    _follow(settings)


def list_(
    player: Annotated[str | None, typer.Option(help="Of this player only.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Every verdict, the newest first."""
    with reading(load_settings()) as connection:
        found = verdicts.history(connection, player)
    if json:
        emit_json(found)
        return
    columns = ["id", "player", "decision", "from", "until", "by", "on", "reason", "reversed"]
    rows = [
        (v.id, v.player_id, v.decision, v.excluded_from, v.excluded_until, v.decided_by, v.decided_at.date(), v.reason,
         f"by {v.reversed_by}: {v.reversal_reason}" if v.reversed_at else None)
        for v in found
    ]  # fmt: skip
    table("Verdicts", columns, rows, right=["id"])


def enforce_() -> None:
    """Make the boards follow the verdicts that they have not followed yet, because Redis was away, say."""
    done = _follow(load_settings())
    if not done.verdicts:
        out.print("The boards follow every verdict.")


def _follow(settings: Settings) -> Enforced:
    done = enforce(settings)
    if done.verdicts:
        out.print(done.sentence)
    return done
