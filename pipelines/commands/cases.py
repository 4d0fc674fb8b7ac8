"""Cases: list, show, assign, comment, decide, reverse, precision. Evidence first, then the score."""

from datetime import datetime
from typing import Annotated

import typer

from pipelines.output import emit_json, out, table
from warehouse import cases, verdicts
from warehouse.database import open_database, reading
from warehouse.enforcement import enforce
from warehouse.errors import FairboardError
from warehouse.fairness.rules import RULES
from warehouse.settings import Settings, load_settings
from warehouse.verdicts import Decision

By = Annotated[str, typer.Option("--by", help="Who says so.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for whoever asks later.")]
Number = Annotated[int, typer.Argument(metavar="CASE", help="The case's id.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(help="Players under review: the evidence, and how it ends.", no_args_is_help=True)
    for command in (show, assign, comment, decide, reverse, precision):
        commands.command()(command)
    commands.command("list")(list_)
    app.add_typer(commands, name="cases")


def list_(
    every: Annotated[bool, typer.Option("--all", help="Closed cases too.")] = False,
    player: Annotated[str | None, typer.Option(help="Of this player only.")] = None,
    json: Json = False,
) -> None:
    """The open cases, the newest first."""
    with reading(load_settings()) as connection:
        found = cases.find(connection, every=every, player_id=player)
    if json:
        emit_json(found)
        return
    rows = [(c.id, c.player_id, "open" if c.is_open else "closed", c.opened_at.date(), c.assigned_to) for c in found]
    table("Cases", ["case", "player", "state", "opened", "assigned to"], rows, right=["case"])


def show(case: Number, json: Json = False) -> None:
    """A case: the events behind it first, then what the rules say, then everything that happened."""
    with reading(load_settings()) as connection:
        found = cases.get(connection, case)
        if connection is None:
            return
        evidence, notes = cases.evidence_of(connection, case), cases.notes_of(connection, case)
        decided = [v for v in verdicts.history(connection, found.player_id) if v.case_id == case]
    if json:
        emit_json({"case": found, "evidence": evidence, "notes": notes, "verdicts": decided})
        return
    out.print(f"case {found.id}, {'open' if found.is_open else 'closed'}: player {found.player_id}")
    events = [(e.event_date, e.rule, ", ".join(e.evidence)) for e in evidence if e.evidence and e.rule != "suspicion"]
    table("\nThe events", ["day", "rule", "event ids, the strongest first"], events)
    columns = ["day", "rule", "version", "observed", "usual", "of so many", "unit", "z", "q", "share"]
    rows = [
        (e.event_date, e.rule, e.rule_version, e.observed, e.baseline_center, e.baseline_n, RULES[e.rule].unit, e.z,
         None if e.q is None else f"{e.q:.1e}", None if e.share is None else f"{e.share:.0%}")
        for e in evidence
    ]  # fmt: skip
    table("\nWhat the rules say", columns, rows, right=columns[2:])
    happened = [(n.noted_at.strftime("%Y-%m-%d %H:%M"), n.noted_by, n.action, n.text) for n in notes]
    table("\nWhat happened (UTC)", ["when", "who", "what", ""], happened)


def assign(case: Number, to: Annotated[str, typer.Option(help="Who looks at it.")], by: By, why: Why = "") -> None:
    """Hand a case to somebody."""
    with open_database(load_settings()).begin() as connection:
        cases.assign(connection, case, to, by=by, why=why)
    out.print(f"case {case} is with {to}")


def comment(case: Number, text: Annotated[str, typer.Argument(help="The remark.")], by: By) -> None:
    """Add a remark, to an open or a closed case."""
    with open_database(load_settings()).begin() as connection:
        cases.comment(connection, case, text, by=by)
    out.print("noted")


def decide(
    case: Number,
    decision: Annotated[Decision, typer.Argument(help="How it ends.")],
    by: By,
    why: Why,
    exclude_from: Day = None,
    exclude_until: Day = None,
) -> None:
    """End a case. With --exclude-from, a confirmed player leaves every board that has a day from then on."""
    settings = load_settings()
    with open_database(settings).begin() as connection:
        number = cases.decide(
            connection, case, decision, by=by, why=why, excluded_from=exclude_from.date() if exclude_from else None,
            excluded_until=exclude_until.date() if exclude_until else None,
        )  # fmt: skip
    out.print(f"case {case} is closed: verdict {number}, {decision}")
    _follow(settings)


def reverse(case: Number, by: By, why: Why) -> None:
    """Take a case's verdict back: the case is open again, and its player back on the boards."""
    settings = load_settings()
    with open_database(settings).begin() as connection:
        verdict = cases.reverse(connection, case, by=by, why=why)
    out.print(f"verdict {verdict.id} of case {case} is reversed")
    _follow(settings)


def precision(json: Json = False) -> None:
    """How each rule version's flags were judged so far: what dismissals cost a rule."""
    with reading(load_settings()) as connection:
        found = cases.precision(connection)
    if json:
        emit_json([{**{n: getattr(one, n) for n in one.__struct_fields__}, "precision": one.precision} for one in found])
        return
    if not found:
        raise FairboardError("No case was decided yet: nothing is known of the rules' precision.")
    columns = ["rule", "version", "confirmed", "dismissed", "insufficient", "precision"]
    rows = [
        (
            o.rule,
            o.rule_version,
            o.confirmed,
            o.dismissed,
            o.insufficient,
            None if o.precision is None else f"{o.precision:.0%}",
        )
        for o in found
    ]
    table("Cases decided, by the rules that flagged", columns, rows, right=columns[1:])


def _follow(settings: Settings) -> None:
    done = enforce(settings)
    if done.verdicts:
        out.print(done.sentence)
