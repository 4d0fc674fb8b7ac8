"""Commands that compute and publish: stale, materialize, accept-loss, vacuum, publish."""

import time
from datetime import date, datetime
from typing import Annotated

import typer

from pipelines.output import emit_json, out, table
from pipelines.progress import watched
from warehouse import stale as staleness
from warehouse.basis import behind
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine, open_engine
from warehouse.errors import FairboardError
from warehouse.fairness.rules import check_small_tables
from warehouse.folds import FOLDS, fold
from warehouse.lake import Lake, tidy
from warehouse.losses import accept
from warehouse.outlets import Outlets
from warehouse.publications import PUBLISHED, publish, publish_all
from warehouse.readings import last_day
from warehouse.settings import Settings, load_settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(stale)
    app.command()(materialize)
    app.command("accept-loss")(accept_loss)
    app.command()(vacuum)
    app.command("publish")(publish_)


def stale(json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False) -> None:
    """What is not as it would be computed now, by table: which days, why, since when. Dagster's schedule works through it."""
    settings = load_settings()
    with DuckDBEngine(settings) as engine:
        found = behind(engine)
        lines = staleness.ranges(engine, found)
    if json:
        emit_json(lines)
        return
    if not lines:
        out.print("Nothing is behind.")
        return
    rows = [(s.table, str(Days(s.first, s.last)), s.partitions, s.why, _moment(s.since_ms, settings)) for s in lines]
    table("Behind", ["table", "days", "partitions", "why", "since"], rows, right=["partitions"])
    if unreached := staleness.out_of_reach(settings, found):
        out.print(
            f"Dagster's days begin with {settings.first_day} (FAIRBOARD_FIRST_DAY); what is before is computed by "
            f"`{staleness.materialize(unreached)}`.",
            soft_wrap=True,
        )


def _moment(since_ms: int, settings: Settings) -> str:
    return datetime.fromtimestamp(since_ms / 1000, settings.zone).isoformat(" ", "seconds") if since_ms else "-"


def materialize(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day.")],
    select: Annotated[list[str] | None, typer.Option(help=f"Tables to compute, of {', '.join(FOLDS)}; default all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Compute the tables of any range of days in one pass, without Dagster's bookkeeping: for long history."""
    if unknown := set(select or ()) - set(FOLDS):
        raise FairboardError(f"--select: there is no table {', '.join(sorted(unknown))}; there are {', '.join(FOLDS)}.")
    days = Days(first.date(), last.date())
    with open_engine(load_settings()) as engine, watched() as engine.watch:
        check_small_tables(engine)
        done = [fold(engine, name, days) for name in FOLDS if not select or name in select]
    if json:
        emit_json(done)
        return
    columns = ["table", "rows", "partitions", "changed", "seconds"]
    rows = [(one.table, one.rows, one.partitions, one.changed, one.seconds) for one in done]
    table(f"Materialized {days}", columns, rows, right=columns[1:])


def accept_loss(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="A day of which events were set aside as damaged.")],
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Go on without events that cannot be restored: what was set aside of the day goes for good, and it is computed again."""
    with Lake(load_settings()) as lake:
        gone = accept(lake, day.date())
    if not gone:
        raise FairboardError(f"Nothing of {day.date()} was set aside; nothing was changed. `fairboard doctor` names such days.")
    if json:
        emit_json({"day": day.date(), "accepted": gone})
        return
    for path in gone:
        out.print(f"Gone for good: {path}")
    out.print(
        f"The next run computes the day without it; so does `{staleness.materialize(Days(day.date(), day.date()))}`.",
        soft_wrap=True,
    )


def vacuum(json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False) -> None:
    """Take away what was superseded longer ago than FAIRBOARD_SNAPSHOT_MINUTES. Dagster does it every 15 minutes by itself."""
    with Lake(load_settings()) as lake:
        done = tidy(lake)
    if json:
        emit_json(done)
        return
    columns = ["table", "files gone", "bytes gone", "bytes superseded", "bytes live"]
    rows = [(one.table, one.files, one.freed, one.superseded, one.live) for one in done]
    table("Vacuumed", columns, rows, right=columns[1:])


def publish_(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="Default: the last folded day.")
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Default: the last folded day.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Build Redis anew: every board that belongs there, whole, and everybody's progress.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Publish what is materialized: boards and progress to Redis, receipts, snapshots and suspicious events to the database."""
    settings = load_settings()
    with open_engine(settings) as engine:
        newest = last_day(engine)
        if newest is None:
            raise FairboardError("There is nothing to publish: nothing is materialized. Run `fairboard materialize` first.")
        days = Days(_date(first) or _date(last) or newest, _date(last) or newest)
        outlets = Outlets(settings, time.time())
        done = publish_all(engine, outlets) if everything else [publish(engine, outlets, name, days) for name in PUBLISHED]
    if json:
        emit_json(done)
        return
    columns = ["publication", "rows", "seconds"]
    table(
        f"Published {'everything' if everything else days}",
        columns,
        [(one.name, one.rows, one.seconds) for one in done],
        right=columns[1:],
    )
    out.print("The boards in Redis are those that run now; look at one with `fairboard leaderboard --window weekly`.")


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
