"""Verdicts: what was decided about a player, by whom and why, and whom that excludes from boards.

A verdict is never changed nor deleted; it is reversed. What does not belong here: how the boards follow (`enforcement.py`).
"""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TypedDict

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from warehouse.calendar import ALL_TIME_END
from warehouse.database import VERDICTS, in_utc, reading
from warehouse.errors import FairboardError
from warehouse.settings import Settings

_COLUMNS: dict[str, pa.DataType] = {"player_id": pa.string(), "excluded_from": pa.date32(), "excluded_until": pa.date32()}
EXCLUSIONS = pa.schema(_COLUMNS)

_EXCLUDES = sa.and_(VERDICTS.c.decision == "confirmed", VERDICTS.c.excluded_from.is_not(None), VERDICTS.c.reversed_at.is_(None))


class Decision(StrEnum):
    """What was decided. Only `confirmed` may exclude."""

    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"
    INSUFFICIENT = "insufficient"


class Verdict(msgspec.Struct, frozen=True):
    """A row of `verdicts`. `excluded_until` is exclusive, None for good; times are in UTC."""

    id: int
    player_id: str
    case_id: int | None
    decision: Decision
    excluded_from: date | None
    excluded_until: date | None
    decided_by: str
    decided_at: datetime
    reason: str
    rules_version: str | None
    reversed_by: str | None
    reversed_at: datetime | None
    reversal_reason: str | None
    enforced_at: datetime | None

    @property
    def excludes(self) -> bool:
        """Whether it keeps its player off boards now."""
        return self.decision is Decision.CONFIRMED and self.excluded_from is not None and self.reversed_at is None


class Said(TypedDict):
    """What a person says with an exclusion; `excluded_until` is exclusive."""

    player_id: str
    decision: Decision
    decided_by: str
    reason: str
    excluded_from: date
    excluded_until: date | None


def in_force(connection: sa.Connection, said: Said) -> int | None:
    """The id of the verdict that says just this and was not reversed, if there is one."""
    same = [VERDICTS.c[name].is_not_distinct_from(value) for name, value in said.items()]
    query = sa.select(VERDICTS.c.id).where(*same, VERDICTS.c.reversed_at.is_(None))
    return connection.execute(query.order_by(VERDICTS.c.id)).scalars().first()


def record(
    connection: sa.Connection,
    *,
    player_id: str,
    decision: Decision,
    decided_by: str,
    reason: str,
    excluded_from: date | None = None,
    excluded_until: date | None = None,
    case_id: int | None = None,
    rules_version: str | None = None,
) -> int:
    """Add a verdict; its id. The boards follow with `enforcement.enforce`, once the transaction has ended.

    Raises:
        FairboardError: it says nobody, no reason, or an exclusion that cannot be; nothing was recorded.
    """
    if not (player_id and decided_by.strip() and reason.strip()):
        raise FairboardError("A verdict names its player, who decided and why; nothing was recorded.")
    if decision is not Decision.CONFIRMED and (excluded_from or excluded_until):
        raise FairboardError(f"A verdict of {decision} excludes nobody; nothing was recorded.")
    if excluded_until and not excluded_from:
        raise FairboardError("An exclusion has a first day; nothing was recorded.")
    if excluded_from and excluded_from >= (excluded_until or ALL_TIME_END):
        raise FairboardError(
            f"The exclusion ends ({excluded_until or ALL_TIME_END}, exclusive) before it starts ({excluded_from}); "
            "nothing was recorded."
        )
    now = datetime.now(UTC)
    row = {
        "player_id": player_id,
        "case_id": case_id,
        "decision": str(decision),
        "excluded_from": excluded_from,
        "excluded_until": excluded_until,
        "decided_by": decided_by,
        "decided_at": now,
        "reason": reason,
        "rules_version": rules_version,
        "enforced_at": None if excluded_from else now,
    }
    recorded: int = connection.execute(sa.insert(VERDICTS).returning(VERDICTS.c.id), row).scalar_one()
    return recorded


def reverse(connection: sa.Connection, verdict_id: int, *, reversed_by: str, reason: str) -> Verdict:
    """Take a verdict back; the verdict as it stands then. The boards follow with `enforcement.enforce`, as for `record`.

    Raises:
        FairboardError: there is no such verdict, or it is reversed already; nothing was changed.
    """
    if not (reversed_by.strip() and reason.strip()):
        raise FairboardError("A reversal says who reversed and why; nothing was changed.")
    this = VERDICTS.c.id == verdict_id
    change = {
        "reversed_by": reversed_by,
        "reversed_at": datetime.now(UTC),
        "reversal_reason": reason,
        "enforced_at": sa.case((VERDICTS.c.excluded_from.is_(None), VERDICTS.c.enforced_at), else_=None),
    }
    changed = connection.execute(sa.update(VERDICTS).where(this, VERDICTS.c.reversed_at.is_(None)).values(change)).rowcount
    found = _select(connection, this)
    if not found:
        raise FairboardError(f"There is no verdict {verdict_id}; `fairboard verdict list` shows them. Nothing was changed.")
    if not changed:
        raise FairboardError(f"Verdict {verdict_id} was reversed before, by {found[0].reversed_by}; nothing was changed.")
    return found[0]


def history(connection: sa.Connection | None, player_id: str | None = None) -> list[Verdict]:
    """Every verdict, of one player if asked for, the newest first. None, where there is no database yet, has none."""
    if connection is None:
        return []
    return _select(connection, sa.true() if player_id is None else VERDICTS.c.player_id == player_id)


def unenforced(connection: sa.Connection | None) -> list[Verdict]:
    """The verdicts and reversals that the boards have not followed yet, the newest first."""
    return [] if connection is None else _select(connection, VERDICTS.c.enforced_at.is_(None))


def mark_enforced(connection: sa.Connection, followed: list[Verdict]) -> None:
    """Note that the boards have followed these verdicts, in the state given: one reversed meanwhile is left to be followed."""
    for verdict in followed:
        reversed_at = VERDICTS.c.reversed_at
        same = reversed_at.is_(None) if verdict.reversed_at is None else reversed_at.is_not(None)
        these = sa.update(VERDICTS).where(VERDICTS.c.id == verdict.id, same)
        connection.execute(these.values(enforced_at=datetime.now(UTC)))


def touching(connection: sa.Connection, start: date, end: date) -> list[Verdict]:
    """The verdicts that exclude, or excluded until they were reversed, from a day of `start` to `end` (exclusive)."""
    until = sa.func.coalesce(VERDICTS.c.excluded_until, sa.literal(ALL_TIME_END, sa.Date))
    return _select(connection, sa.and_(VERDICTS.c.excluded_from < end, until > start))


def exclusions(settings: Settings) -> pa.Table:
    """Who is excluded, and when (schema `EXCLUSIONS`): the confirmed verdicts that nobody reversed.

    Raises:
        StoreUnavailable: the SQL database cannot be reached.
    """
    until = sa.func.coalesce(VERDICTS.c.excluded_until, sa.literal(ALL_TIME_END, sa.Date))
    query = sa.select(VERDICTS.c.player_id, VERDICTS.c.excluded_from, until.label("excluded_until")).where(_EXCLUDES)
    with reading(settings) as connection:
        rows = [] if connection is None else [dict(row) for row in connection.execute(query).mappings()]
    return pa.Table.from_pylist(rows, schema=EXCLUSIONS)


def _select(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[Verdict]:
    rows = connection.execute(sa.select(VERDICTS).where(which).order_by(VERDICTS.c.id.desc())).mappings()
    return [msgspec.convert(in_utc(row), Verdict) for row in rows]
