"""Commands about fairness: the day's suspects, what other thresholds would flag, and the report as a file."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from pipelines.output import emit_json, out, records, table
from warehouse import readings, whatif
from warehouse.calendar import Days
from warehouse.database import reading
from warehouse.engine import DuckDBEngine
from warehouse.errors import FairboardError
from warehouse.fairness.rules import SUSPICION
from warehouse.reports import as_html, build
from warehouse.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(fairness)
    app.command()(report)


def fairness(
    day: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="The day's suspects.")] = None,
    rules: Annotated[Path | None, typer.Option(help="What if: other rules, over --from to --to.")] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day of the what-if.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day of the what-if.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Players to show.")] = 20,
    json: Json = False,
) -> None:
    """Who is under review on a day and why, with --date; or who would be, by other rules, with --rules, --from and --to."""
    if day and not (rules or first or last):
        _show_day(day.date(), limit, json=json)
    elif rules and first and last and not day:
        _show_whatif(rules, Days(first.date(), last.date()), limit, json=json)
    else:
        raise typer.BadParameter("Give --date alone, or --rules with --from and --to.")


def report(
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="The day.")],
    file: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
) -> None:
    """The day's fairness report as one HTML file, to send to whoever has to decide."""
    settings = load_settings()
    with DuckDBEngine(settings) as engine, reading(settings) as connection:
        built = build(engine, connection, day.date())
    if not built.counts:
        raise FairboardError(
            f"Nothing was scored on {day.date()}: it has no events, or is not materialized. No file was written."
        )
    file.write_text(as_html(built), encoding="utf-8")
    out.print(f"{file}: {built.suspects.height:,} players under suspicion on {day.date()}")


def _show_day(day: date, limit: int, *, json: bool) -> None:
    with DuckDBEngine(load_settings()) as engine:
        suspects, counts = readings.suspects(engine, day), readings.verdicts(engine, day)
    if json:
        emit_json({"date": day, "verdicts": counts, "suspects": records(suspects)})
        return
    columns = ["player_id", "rule", "observed", "baseline_center", "baseline_n", "z", "share", "q"]
    rows = suspects.with_columns(pl.col("q").map_elements("{:.1e}".format, pl.String)).select(columns).head(limit)
    titles = ["player", "strongest reason", "observed", "usual", "of so many", "z", "its share", "q"]
    table(f"Under review on {day}, the most suspicious first", titles, rows.iter_rows(), right=titles[2:])
    if suspects.height > limit:
        out.print(f"{suspects.height - limit:,} more; see --limit, or --json for all with their event ids")
    for rule, verdicts in counts.items():
        out.print(f"{rule}: " + ", ".join(f"{players:,} {verdict}" for verdict, players in verdicts.items()))
    if not counts:
        out.print("Nothing was scored on that day: it has no events, or is not materialized.")


def _show_whatif(rules: Path, days: Days, limit: int, *, json: bool) -> None:
    changes = whatif.compare(load_settings(), rules, days)
    if json:
        emit_json({"from": days.first, "to": days.last, "changes": records(changes)})
        return
    suspects = changes.filter(pl.col("rule") == SUSPICION)
    title = f"Under review by {rules} and not now, or the other way round, {days}"
    table(title, ["day", "player", "change"], suspects.select("event_date", "player_id", "change").head(limit).iter_rows())
    if suspects.height > limit:
        out.print(f"{suspects.height - limit:,} more; see --limit, or --json for all")
    for rule, change, players in changes.group_by("rule", "change").len().sort("rule", "change").iter_rows():
        out.print(f"{rule}: {players:,} player-days {change}")
    if not changes.height:
        out.print("The same flags either way.")
