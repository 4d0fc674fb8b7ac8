"""Commands that read: leaderboard, revisions, player, sql, verify, doctor. Each takes --json."""

from datetime import UTC, datetime
from typing import Annotated, Any

import polars as pl
import typer
from msgspec.structs import asdict

from pipelines import doctor as doctoring
from pipelines.output import arrow, complain, emit_json, out, records, table
from warehouse import readings
from warehouse import revisions as revising
from warehouse.analysts import ask
from warehouse.boards import entries
from warehouse.calendar import Calendar, WindowKind
from warehouse.damage import Damage
from warehouse.damage import verify as verified
from warehouse.database import reading
from warehouse.engine import DuckDBEngine, open_engine
from warehouse.errors import FairboardError
from warehouse.lake import Lake, LakeFile
from warehouse.repair import Repaired
from warehouse.repair import repair as mended
from warehouse.settings import Settings, load_settings

CLOCKS = [f"%Y-%m-%d{t}%H:%M{rest}" for t in ("T", " ") for rest in ("", ":%S", ":%S%z", ":%S.%f%z")]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        formats=CLOCKS,
        metavar="YYYY-MM-DDTHH:MM[:SS]",
        help="As the lake had it then (the deployment's time), while that is kept.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (leaderboard, revisions, player, sql, verify, doctor):
        app.command()(command)


def leaderboard(
    window: Annotated[WindowKind, typer.Option(help="How long the board runs.")],
    season: Annotated[str | None, typer.Option(help="Season's id; default the newest day's.")] = None,
    at: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="As it stood at the end of that day.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Ranks to show.")] = 10,
    as_of: AsOf = None,
    json: Json = False,
) -> None:
    """Who leads, or led: any window, as it stands or stood, from the lake."""
    settings = load_settings()
    with DuckDBEngine(settings, at=_moment(settings, as_of)) as engine:
        standing = readings.leaderboard(engine, window, season, at.date() if at else None)
        if not readings.is_played(engine, standing.window):
            season_of = "" if window is WindowKind.ALLTIME else f" of season {standing.window.season}"
            raise FairboardError(
                f"There is no such board yet: no day{season_of} is materialized. "
                "`fairboard materialize` computes the days that have events."
            )
    top = entries(standing.board.head(limit))
    if json:
        emit_json(
            {
                "window": str(window),
                "season": standing.window.season,
                "start": standing.window.start,
                "end": standing.window.end,
                "at": standing.at,
                "players": standing.board.height,
                "entries": top,
            }
        )
        return
    title = f"{window} board of season {standing.window.season} from {standing.window.start}, as of {standing.at}"
    rows = [(e.rank, arrow(e.movement), e.player_id, e.score) for e in top]
    table(title, ["rank", "", "player", "XP"], rows, right=["rank", "XP"])
    out.print(f"{standing.board.height:,} players")


def revisions(
    window: Annotated[WindowKind, typer.Option(help="How long the board ran.")],
    season: Annotated[str | None, typer.Option(help="Season's id; default that of the latest window published.")] = None,
    at: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day of the window.")] = None,
    diff: Annotated[int | None, typer.Option(min=1, metavar="N", help="Who moved from revision N-1 to N, and why.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Lines of the diff to show.")] = 20,
    json: Json = False,
) -> None:
    """How a closed board has changed since it was first published: late events, corrections, verdicts, reversals."""
    settings = load_settings()
    calendar = Calendar.of(settings)
    with reading(settings) as connection, Lake(settings) as lake:
        found = revising.find_window(calendar, connection, window, season, at.date() if at else None)
        known = revising.history(connection, found)
        changes = revising.diff(lake, connection, found, diff) if diff else None
    if json:
        emit_json(
            {
                "window": str(window),
                "season": found.season,
                "start": found.start,
                "end": found.end,
                "revisions": [{name: value for name, value in asdict(one).items() if name != "folded"} for one in known],
                "diff": None if changes is None else {"revision": diff, "players": records(changes)},
            }
        )
        return
    columns = ["revision", "recorded", "cause", "players", "moved"]
    rows = [(r.revision, r.recorded_at.isoformat(" ", "seconds"), r.cause, r.players, r.moved) for r in known]
    table(f"Revisions of the {found}, season {found.season}", columns, rows, right=["revision", "players", "moved"])
    if not known:
        out.print("None: it has not closed yet, or was not published since.")
    if changes is not None:
        _show_diff(changes, diff, limit)


def _show_diff(changes: pl.DataFrame, revision: int | None, limit: int) -> None:
    columns = ["player", "rank before", "rank", "XP before", "XP", "because of"]
    rows = [
        (c["player_id"], c["rank_before"], c["rank_after"], c["xp_before"], c["xp_after"], _because(c))
        for c in changes.head(limit).iter_rows(named=True)
    ]
    table(f"What revision {revision} changed", columns, rows, right=columns[1:5])
    if changes.height > limit:
        out.print(f"{changes.height - limit:,} more; see --limit, or --json for all")


def _because(change: dict[str, Any]) -> str:
    """The causes of one player's change; those who only moved have none of their own."""
    verdict = [f"verdict {change['verdict_id']}"] if change["verdict_id"] else []
    return ", ".join([*verdict, *(change["late_events"] or [])]) or "-"


def player(player_id: Annotated[str, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """How far a player is, and how they got there."""
    with DuckDBEngine(load_settings()) as engine:
        days = readings.progress(engine, player_id)
    if not days.height:
        raise FairboardError(f"No player {player_id!r} is in the lake. Ids are exact; `fairboard leaderboard` shows some.")
    now = days.row(0, named=True)
    if json:
        emit_json({"playerId": player_id, "now": now, "days": records(days)})
        return
    missing = f"{now['xp_to_next']:,} XP to the next" if now["xp_to_next"] is not None else "the last there is"
    out.print(f"{player_id}: level {now['level_after']}, {now['xp_total']:,} XP, {missing}")
    columns = ["event_date", "xp_gained", "xp_total", "level_before", "level_after"]
    table("Last days played", columns, days.select(columns).head(10).iter_rows(), right=columns[1:])


def _moment(settings: Settings, as_of: datetime | None) -> datetime | None:
    """The moment that is meant.

    Raises:
        FairboardError: it lies ahead.
    """
    if as_of is None:
        return None
    moment = as_of if as_of.tzinfo else as_of.replace(tzinfo=settings.zone)
    if moment > datetime.now(UTC):
        raise FairboardError(f"--as-of: {as_of.isoformat(' ', 'seconds')} lies ahead; nothing was read. Leave it out for now.")
    return moment


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT in DuckDB's dialect.")],
    as_of: AsOf = None,
    json: Json = False,
) -> None:
    """Ask the lake anything, read-only: every table is a view of its name."""
    settings = load_settings()
    answer = ask(settings, statement, at=_moment(settings, as_of))
    if json:
        emit_json(records(answer.rows))
        return
    table("", answer.rows.columns, answer.rows.iter_rows(), exact=True)
    if answer.truncated:
        complain(f"Only the first {answer.rows.height:,} rows are shown; aggregate, or add a LIMIT of your own.")


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute again what is damaged, take in what is in no table, set the rest aside.")
    ] = False,
    json: Json = False,
) -> None:
    """Read every file of the lake and compare it with the digest in its name; say what is damaged, missing or in no table."""
    files, rows = 0, 0
    done: list[Repaired] = []
    left: list[Damage | Repaired] = []
    with open_engine(load_settings()) as engine:
        for found in mended(engine) if repair else verified(engine.lake):
            if isinstance(found, LakeFile):
                files, rows = files + 1, rows + found.rows
            elif isinstance(found, Repaired) and found.is_whole:
                done.append(found)
            else:
                left.append(found)
    if json:
        damaged, repaired = ([{"path": one.path, "what": one.what} for one in some] for some in (left, done))
        emit_json({"files": files, "rows": rows, "damaged": damaged, "repaired": repaired})
    else:
        out.print(f"{files:,} files with {rows:,} rows are as they were written")
        for one in done:
            out.print(f"{one.path} {one.what}", soft_wrap=True)
    for damage in left:
        complain(f"{damage.path} {damage.what}")
    if left and repair:
        raise FairboardError(f"{len(left)} files cannot be repaired here; everything else is whole.")
    if left:
        raise FairboardError(
            f"{len(left)} files are not as they should be. `fairboard verify --repair` computes again what was computed, takes "
            "in what is in no table, and sets damaged events aside."
        )


def doctor(json: Json = False) -> None:
    """What is configured, reachable and fresh, line by line, and what to do about what is not."""
    findings = doctoring.examine(load_settings())
    if json:
        emit_json(findings)
    else:
        for finding in findings:
            style = {"ok": "green", "look": "yellow", "wrong": "red"}[finding.state]
            out.print(f"{finding.state:>5}", style=style, end="")
            out.print(f"  {finding.what}: {finding.found}" + (f"  → {finding.todo}" if finding.todo else ""))
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)
