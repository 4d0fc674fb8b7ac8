"""The day's fairness report: who is under review, since when, and how the rules have done; as Markdown and as one HTML file.

What does not belong here: the scores (`fairness/`), and where a report is shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from html import escape

import polars as pl
import sqlalchemy as sa

from warehouse import cases
from warehouse.calendar import Days
from warehouse.engine import Engine, frame
from warehouse.fairness.rules import BASELINE_DAYS, RULES
from warehouse.readings import suspects, verdicts
from warehouse.tables import FAIRNESS

SHOWN = 100
BAR = 20

Rows = list[Sequence[object]]


@dataclass(frozen=True, slots=True)
class FairnessReport:
    """One day. `suspects` as in `readings`; `per_day` counts them over the trailing days, `new` and `gone` since the last."""

    day: date
    suspects: pl.DataFrame
    counts: dict[str, dict[str, int]]
    per_day: list[tuple[date, int]]
    new: list[str]
    gone: list[str]
    precision: list[cases.Precision]


def build(engine: Engine, connection: sa.Connection | None, day: date) -> FairnessReport:
    """The report of a day that has been scored; an empty one of a day that has not."""
    engine.bind(FAIRNESS, Days(day - timedelta(days=BASELINE_DAYS), day))
    counted = engine.query(
        "SELECT event_date, count(*) FILTER (WHERE verdict = 'flagged') AS players FROM fairness WHERE rule = 'suspicion'"
        " GROUP BY ALL ORDER BY ALL"
    )
    per_day = list(frame(counted).iter_rows())
    before = max((scored for scored, _ in per_day if scored < day), default=None)
    today, counts = suspects(engine, day), verdicts(engine, day)
    earlier = set(suspects(engine, before)["player_id"]) if before else set()
    now = today["player_id"].to_list()
    return FairnessReport(
        day=day,
        suspects=today,
        counts=counts,
        per_day=per_day,
        new=[player for player in now if player not in earlier],
        gone=sorted(earlier - set(now)),
        precision=cases.precision(connection),
    )


def as_markdown(report: FairnessReport) -> str:
    """The report for Dagster's page. Player ids are text from outside: each stands as code, without what would end it."""
    chart = _table(["day", "players", ""], [(day, n, "█" * _width(report, n)) for day, n in report.per_day])
    parts = [f"## {_headline(report)}", _table(_SUSPECTS, _suspects(report)), "### By day", chart]
    parts += ["### Rules", _table(_COUNTS, _counts(report)), "### Precision so far", _table(_PRECISION, _precision(report))]
    return "\n\n".join([*parts, _changes(report)])


def as_html(report: FairnessReport) -> str:
    """The report as one file that needs nothing else: tables, and the chart as SVG."""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Fairness {report.day}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1c2730}}
table{{border-collapse:collapse;margin:1em 0}}td,th{{padding:.2em .8em;text-align:left;border-bottom:1px solid #d8dee3}}
code{{background:#f2f4f6}}rect{{fill:#1f5f7a}}rect:last-of-type{{fill:#c2572b}}</style>
<h1>{escape(_headline(report))}</h1>
<p>A flag is a question, not a verdict. Evidence first: the events, then what is usual, then the score.</p>
{_html_table(_SUSPECTS, _suspects(report))}
<h2>By day</h2>{_svg(report)}
<h2>Rules</h2>{_html_table(_COUNTS, _counts(report))}
<h2>Precision so far</h2>{_html_table(_PRECISION, _precision(report))}
<p>{escape(_changes(report))}</p></html>
"""


_SUSPECTS = ("player", "events", "strongest reason", "observed", "usual", "unit", "z", "share", "q")
_COUNTS = ("rule", "flagged", "clear", "insufficient data")
_PRECISION = ("rule", "version", "confirmed", "dismissed", "insufficient", "precision")


def _headline(report: FairnessReport) -> str:
    return f"{report.day}: {report.suspects.height:,} players under suspicion, {len(report.new):,} of them new"


def _suspects(report: FairnessReport) -> Rows:
    return [
        (_Id(row["player_id"]), _Id(", ".join(row["evidence"][:3])), row["rule"], _number(row["observed"]),
         _number(row["baseline_center"]), RULES[row["rule"]].unit, _number(row["z"]), f"{row['share']:.0%}", f"{row['q']:.1e}")
        for row in report.suspects.head(SHOWN).iter_rows(named=True)
    ]  # fmt: skip


def _counts(report: FairnessReport) -> Rows:
    return [(rule, *(f"{counts.get(name, 0):,}" for name in _COUNTS[1:])) for rule, counts in report.counts.items()]


def _precision(report: FairnessReport) -> Rows:
    return [
        (one.rule, one.rule_version, one.confirmed, one.dismissed, one.insufficient,
         "-" if one.precision is None else f"{one.precision:.0%}")
        for one in report.precision
    ]  # fmt: skip


def _changes(report: FairnessReport) -> str:
    more = f" The strongest {SHOWN} are shown." if report.suspects.height > SHOWN else ""
    return f"Since the day before: {len(report.new):,} came under suspicion, {len(report.gone):,} are so no more.{more}"


class _Id(str):
    """Text from outside."""

    __slots__ = ()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _width(report: FairnessReport, count: int) -> int:
    return round(BAR * count / max(1, *(n for _, n in report.per_day)))


def _table(columns: Iterable[str], rows: Rows) -> str:
    head = list(columns)
    if not rows:
        return "Nothing yet."
    lines = [head, ["---"] * len(head), *([_markdown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown(cell: object) -> str:
    return "`" + cell.replace("|", "\\|").replace("`", "'") + "`" if isinstance(cell, _Id) and cell else str(cell)


def _html_table(columns: Iterable[str], rows: Rows) -> str:
    if not rows:
        return "<p>Nothing yet.</p>"
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _html(cell: object) -> str:
    return f"<code>{escape(cell)}</code>" if isinstance(cell, _Id) else escape(str(cell))


def _svg(report: FairnessReport) -> str:
    """A bar per day, today's in another colour."""
    bars = "".join(
        f'<rect x="{24 * n}" y="{100 - 5 * _width(report, count)}" width="18" height="{5 * _width(report, count)}">'
        f"<title>{day}: {count}</title></rect>"
        for n, (day, count) in enumerate(report.per_day)
    )
    return f'<svg viewBox="0 0 {24 * max(1, len(report.per_day))} 100" height="120" role="img">{bars}</svg>'
