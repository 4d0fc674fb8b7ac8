"""Commands that bring events in: import, simulate."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ingest_api.client import SignedClient
from ingest_api.keys import ensure_demo_key
from pipelines import play
from pipelines.output import complain, emit_json, out
from pipelines.progress import watched
from pipelines.simulation import Scenario, Simulation
from warehouse.calendar import Calendar, Days
from warehouse.errors import FairboardError
from warehouse.imports import Imported, import_file
from warehouse.lake import Lake
from warehouse.settings import load_settings

SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_)
    app.command()(simulate)


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="NDJSON, gzip of it, or Parquet.")],
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Load history, through the checks of the service but for the 30 days. Bad lines are named; the rest is imported."""
    settings = load_settings()
    lake, calendar = Lake(settings), Calendar.of(settings)
    with watched() as watch:
        imported = [import_file(lake, calendar, path, watch) for path in files]
    if json:
        emit_json([_summary(one) for one in imported])
    for one in imported:
        if not json:
            out.print(f"{one.path}: {_sentence(one)}", soft_wrap=True)
            if one.days and min(one.days) < settings.first_day:
                out.print(
                    f"  Dagster shows days from {settings.first_day} on; set FAIRBOARD_FIRST_DAY={min(one.days)} for all."
                )
        for line, error in one.rejected[:SHOWN]:
            complain(f"{one.path}:{line}: {error}")
        if len(one.rejected) > SHOWN:
            complain(f"{one.path}: {len(one.rejected) - SHOWN:,} more; all of them are in the table rejects, with their reason")
    if any(one.rejected for one in imported):
        raise typer.Exit(1)


def simulate(
    url: Annotated[str, typer.Option(help="The ingest service.")] = "http://127.0.0.1:8080",
    players: Annotated[int, typer.Option(min=1, help="How many players.")] = 1_000,
    days: Annotated[int, typer.Option(min=1, max=30, help="How many days, today the last of them.")] = 3,
    events: Annotated[float, typer.Option(min=0.1, help="Mean events per player and day.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same game.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Play a seeded game through the signed HTTP API of a running service."""
    settings = load_settings()
    now = int(datetime.now(UTC).timestamp())
    calendar = Calendar.of(settings)
    scenario = Scenario(
        players=players,
        days=Days.ending(calendar.day_of(now), days),
        seed=seed,
        events_per_player_day=events,
        cheaters={"xp_x10": players // 500},
    )
    key_id, secret = ensure_demo_key(settings)
    with SignedClient(url, key_id, secret) as client:
        tally = play.send(client, Simulation(scenario, calendar, until=now))
    if json:
        emit_json(tally)
    else:
        out.print(tally.sentence())
    if tally.sent != tally.accepted + tally.duplicates + tally.rejected:
        raise FairboardError("The service's counts do not add up to what was sent; keep DATA_DIR and report this.")


def _sentence(one: Imported) -> str:
    span = f" ({Days(min(one.days), max(one.days))})" if one.days else ""
    return f"{_count(one.accepted, 'event')} on {_count(len(one.days), 'day')}{span}, {len(one.rejected):,} rejected"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _summary(one: Imported) -> dict[str, object]:
    return {
        "file": str(one.path),
        "accepted": one.accepted,
        "days": len(one.days),
        "first_day": min(one.days, default=None),
        "last_day": max(one.days, default=None),
        "rejected": [{"line": line, "field": error.field, "reason": error.reason} for line, error in one.rejected],
    }
