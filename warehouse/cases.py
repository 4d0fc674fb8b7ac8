"""Cases: who is under review, on what evidence, who looks at it, and how it ended.

A suspicion beyond its review threshold opens a case, or joins the player's open one. Whatever happens to a case is a note with
who, when and why; its end is a verdict (`verdicts.py`). What does not belong here: the scores, and how the boards follow.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import polars as pl
import sqlalchemy as sa

from warehouse import verdicts
from warehouse.calendar import Days
from warehouse.database import CASE_EVIDENCE, CASE_NOTES, CASES, VERDICTS, in_utc
from warehouse.engine import Engine, frame
from warehouse.errors import FairboardError
from warehouse.fairness.rules import SUSPICION
from warehouse.tables import FAIRNESS
from warehouse.verdicts import Decision, Verdict

SYSTEM = "fairboard"


class Evidence(msgspec.Struct, frozen=True):
    """What one rule said on one day: a row of `case_evidence`, with the columns of the lake's `fairness`."""

    case_id: int
    event_date: date
    rule: str
    rule_version: int
    verdict: str
    act: bool
    observed: float | None
    baseline_center: float | None
    baseline_n: int
    z: float | None
    p: float | None
    q: float | None
    share: float | None
    evidence: list[str]


class Note(msgspec.Struct, frozen=True):
    """One thing that happened to a case."""

    id: int
    case_id: int
    noted_at: datetime
    noted_by: str
    action: str
    text: str


class Case(msgspec.Struct, frozen=True):
    """A row of `cases`. Times are in UTC."""

    id: int
    player_id: str
    is_open: bool
    opened_at: datetime
    assigned_to: str | None


class Precision(msgspec.Struct, frozen=True):
    """How a rule's flags were judged, of the cases that have a standing verdict. None where none has."""

    rule: str
    rule_version: int
    confirmed: int
    dismissed: int
    insufficient: int

    @property
    def precision(self) -> float | None:
        """Share of the confirmed among the confirmed and dismissed."""
        judged = self.confirmed + self.dismissed
        return self.confirmed / judged if judged else None


def open_cases(engine: Engine, connection: sa.Connection, days: Days) -> list[int]:
    """Open a case for every suspicion of those days, or add it to the player's; ids of the cases with new evidence.

    What a decided case of the player holds already (the same events of the day) opens nothing; new evidence of a player whose
    confirmed verdict stands joins that case, which stays closed.
    """
    touched = []
    known = _known(connection)
    for player, evidence in sorted(_suspicions(engine, days).items()):
        new = [row for row in evidence if (row["event_date"], tuple(row["evidence"])) not in known.decided[player]]
        if not new:
            continue
        case_id = known.standing.get(player) or _open(connection, player, new)
        known.standing[player] = case_id
        touched += [case_id] * _add(connection, case_id, new)
    return touched


def urgent_cases(connection: sa.Connection) -> list[int]:
    """The open cases with a suspicion beyond its act threshold."""
    acts = CASE_EVIDENCE.c.act & (CASE_EVIDENCE.c.rule == SUSPICION)
    query = sa.select(CASES.c.id).join(CASE_EVIDENCE, CASE_EVIDENCE.c.case_id == CASES.c.id).where(CASES.c.is_open, acts)
    return sorted(set(connection.execute(query).scalars()))


class _Known(msgspec.Struct):
    """What the database knows of players: the case that takes new evidence, and the evidence that was decided."""

    standing: dict[str, int]
    decided: defaultdict[str, set[tuple[date, tuple[str, ...]]]]


def _known(connection: sa.Connection) -> _Known:
    confirmed = sa.exists().where(
        VERDICTS.c.case_id == CASES.c.id, VERDICTS.c.decision == str(Decision.CONFIRMED), VERDICTS.c.reversed_at.is_(None)
    )
    takes = (
        sa.select(CASES.c.player_id, CASES.c.id).where(sa.or_(CASES.c.is_open, confirmed)).order_by(CASES.c.is_open, CASES.c.id)
    )
    known = _Known({row.player_id: row.id for row in connection.execute(takes)}, defaultdict(set))
    closed = (
        sa.select(CASES.c.player_id, CASE_EVIDENCE.c.event_date, CASE_EVIDENCE.c.evidence)
        .join(CASE_EVIDENCE, CASE_EVIDENCE.c.case_id == CASES.c.id)
        .where(CASES.c.is_open.is_(False), CASE_EVIDENCE.c.rule == SUSPICION)
    )
    for player, day, ids in connection.execute(closed):
        known.decided[player].add((day, tuple(ids)))
    return known


def _suspicions(engine: Engine, days: Days) -> dict[str, list[dict[str, Any]]]:
    """By player, the suspicions of those days, each with `parts`: the rows of the rules behind it."""
    engine.bind(FAIRNESS, days)
    names = [name for name in Evidence.__struct_fields__ if name != "case_id"]
    rows = engine.query(
        "SELECT f.* FROM fairness AS f"
        " SEMI JOIN (SELECT event_date, player_id FROM fairness WHERE rule = 'suspicion' AND verdict = 'flagged') AS s"
        " ON f.event_date = s.event_date AND f.player_id = s.player_id"
        " WHERE f.rule = 'suspicion' OR f.verdict = 'flagged' OR f.share > 0.01 ORDER BY f.event_date, f.player_id, f.rule"
    )
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (_, player), of_day in frame(rows).group_by("event_date", "player_id", maintain_order=True):
        parts = of_day.select(names).to_dicts()
        suspicion = of_day.row(by_predicate=pl.col("rule") == SUSPICION, named=True)
        found[str(player)].append(suspicion | {"parts": parts})
    return found


def _open(connection: sa.Connection, player: str, evidence: list[dict[str, Any]]) -> int:
    row = {"player_id": player, "is_open": True, "opened_at": datetime.now(UTC)}
    case_id: int = connection.execute(sa.insert(CASES).returning(CASES.c.id), row).scalar_one()
    _note(connection, case_id, SYSTEM, "opened", f"suspicion of {', '.join(str(row['event_date']) for row in evidence)}")
    return case_id


def _add(connection: sa.Connection, case_id: int, evidence: list[dict[str, Any]]) -> bool:
    """Replace what the case says of those days. Returns whether anything is new."""
    days = [row["event_date"] for row in evidence]
    of_days = sa.and_(CASE_EVIDENCE.c.case_id == case_id, CASE_EVIDENCE.c.event_date.in_(days))
    before = {(e.event_date, e.rule, *e.evidence) for e in _evidence(connection, of_days)}
    rows = [{"case_id": case_id, **part} for row in evidence for part in row["parts"]]
    connection.execute(sa.delete(CASE_EVIDENCE).where(of_days))
    connection.execute(sa.insert(CASE_EVIDENCE), rows)
    return before != {(row["event_date"], row["rule"], *row["evidence"]) for row in rows}


def find(connection: sa.Connection | None, *, every: bool = False, player_id: str | None = None) -> list[Case]:
    """The open cases, or every case, the newest first; of one player if asked for. Without a database, none."""
    if connection is None:
        return []
    which = sa.true() if every else CASES.c.is_open
    of = sa.true() if player_id is None else CASES.c.player_id == player_id
    rows = connection.execute(sa.select(CASES).where(which, of).order_by(CASES.c.id.desc())).mappings()
    return [msgspec.convert(in_utc(row), Case) for row in rows]


def get(connection: sa.Connection | None, case_id: int) -> Case:
    """One case.

    Raises:
        FairboardError: there is no such case.
    """
    row = None if connection is None else connection.execute(sa.select(CASES).where(CASES.c.id == case_id)).mappings().first()
    if row is None:
        raise FairboardError(f"There is no case {case_id}; `fairboard cases list --all` shows them. Nothing was changed.")
    return msgspec.convert(in_utc(row), Case)


def evidence_of(connection: sa.Connection, case_id: int) -> list[Evidence]:
    """Everything that the rules said, the newest day first, within a day the largest share first."""
    found = _evidence(connection, CASE_EVIDENCE.c.case_id == case_id)
    return sorted(found, key=lambda e: (-e.event_date.toordinal(), e.rule != SUSPICION, -(e.share or 0), e.rule))


def notes_of(connection: sa.Connection, case_id: int) -> list[Note]:
    """Everything that happened, in order."""
    rows = connection.execute(sa.select(CASE_NOTES).where(CASE_NOTES.c.case_id == case_id).order_by(CASE_NOTES.c.id)).mappings()
    return [msgspec.convert(in_utc(row), Note) for row in rows]


def assign(connection: sa.Connection, case_id: int, to: str, *, by: str, why: str = "") -> None:
    """Hand a case to somebody.

    Raises:
        FairboardError: there is no such open case; nothing was changed.
    """
    _need_open(connection, case_id)
    connection.execute(sa.update(CASES).where(CASES.c.id == case_id).values(assigned_to=to))
    _note(connection, case_id, by, "assigned", f"to {to}" + (f": {why}" if why else ""))


def comment(connection: sa.Connection, case_id: int, text: str, *, by: str) -> None:
    """Add a remark to a case, open or closed.

    Raises:
        FairboardError: there is no such case, or the remark is empty.
    """
    get(connection, case_id)
    if not text.strip():
        raise FairboardError("An empty remark says nothing; nothing was recorded.")
    _note(connection, case_id, by, "commented", text)


def decide(
    connection: sa.Connection, case_id: int, decision: Decision, *, by: str, why: str,
    excluded_from: date | None = None, excluded_until: date | None = None,
) -> int:  # fmt: skip
    """End a case with a verdict; its id. The boards follow with `enforcement.enforce`, once the transaction has ended.

    The verdict keeps the versions of the thresholds that the evidence was judged by.

    Raises:
        FairboardError: there is no such open case, or the verdict cannot be (`verdicts.record`); nothing was changed.
    """
    case = _need_open(connection, case_id)
    versions = sorted({f"{e.rule} {e.rule_version}" for e in evidence_of(connection, case_id)})
    number = verdicts.record(
        connection, player_id=case.player_id, decision=decision, decided_by=by, reason=why, excluded_from=excluded_from,
        excluded_until=excluded_until, case_id=case_id, rules_version=", ".join(versions),
    )  # fmt: skip
    connection.execute(sa.update(CASES).where(CASES.c.id == case_id).values(is_open=False))
    _note(connection, case_id, by, "decided", f"{decision}: {why}")
    return number


def reverse(connection: sa.Connection, case_id: int, *, by: str, why: str) -> Verdict:
    """Take a case's verdict back, and open the case again unless the player has another open by now.

    Raises:
        FairboardError: the case has no standing verdict; nothing was changed.
    """
    case = get(connection, case_id)
    standing = [v for v in verdicts.history(connection, case.player_id) if v.case_id == case_id and v.reversed_at is None]
    if not standing:
        raise FairboardError(f"Case {case_id} has no verdict that stands; nothing was changed.")
    verdict = verdicts.reverse(connection, standing[0].id, reversed_by=by, reason=why)
    if not find(connection, player_id=case.player_id):
        connection.execute(sa.update(CASES).where(CASES.c.id == case_id).values(is_open=True))
    _note(connection, case_id, by, "reversed", why)
    return verdict


def precision(connection: sa.Connection | None) -> list[Precision]:
    """How each rule version's flags were judged so far, by rule and version."""
    if connection is None:
        return []
    flags = sa.select(CASE_EVIDENCE.c.case_id, CASE_EVIDENCE.c.rule, CASE_EVIDENCE.c.rule_version).where(
        CASE_EVIDENCE.c.verdict == "flagged"
    ).distinct().subquery()  # fmt: skip
    counts = [
        sa.func.sum(sa.case((VERDICTS.c.decision == str(decision), 1), else_=0)).label(str(decision)) for decision in Decision
    ]
    query = (
        sa.select(flags.c.rule, flags.c.rule_version, *counts)
        .join(VERDICTS, sa.and_(VERDICTS.c.case_id == flags.c.case_id, VERDICTS.c.reversed_at.is_(None)))
        .group_by(flags.c.rule, flags.c.rule_version)
        .order_by(flags.c.rule, flags.c.rule_version)
    )
    return [msgspec.convert(in_utc(row), Precision, strict=False) for row in connection.execute(query).mappings()]


def _need_open(connection: sa.Connection, case_id: int) -> Case:
    case = get(connection, case_id)
    if not case.is_open:
        raise FairboardError(
            f"Case {case_id} is closed; `fairboard cases reverse {case_id}` opens it again. Nothing was changed."
        )
    return case


def _note(connection: sa.Connection, case_id: int, by: str, action: str, text: str) -> None:
    if not by.strip():
        raise FairboardError("Whatever happens to a case has somebody's name; nothing was recorded.")
    row = {"case_id": case_id, "noted_at": datetime.now(UTC), "noted_by": by, "action": action, "text": text}
    connection.execute(sa.insert(CASE_NOTES), row)


def _evidence(connection: sa.Connection, which: sa.ColumnElement[bool]) -> Iterable[Evidence]:
    return [
        msgspec.convert(in_utc(row), Evidence) for row in connection.execute(sa.select(CASE_EVIDENCE).where(which)).mappings()
    ]
