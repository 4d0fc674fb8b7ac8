"""Boards follow verdicts: what a verdict or its reversal touches is folded again and published, and nothing else.

A verdict is recorded first and marked when every board has followed, so that nothing is lost where a process is killed or
Redis is away: whoever comes next finds it unmarked. What does not belong here: the verdicts themselves (`verdicts.py`).
"""

from dataclasses import dataclass, field
from datetime import date

from warehouse import verdicts
from warehouse.calendar import ONE_DAY, Days
from warehouse.database import open_database
from warehouse.engine import open_engine
from warehouse.errors import StoreUnavailable
from warehouse.folds import fold
from warehouse.outlets import Outlets
from warehouse.publications import publish
from warehouse.settings import Settings
from warehouse.spans import days_of
from warehouse.tables import LEADERBOARDS, PLAYER_DAYS
from warehouse.verdicts import Verdict


@dataclass(slots=True)
class Enforced:
    """What followed: the ids of the verdicts, how many boards of the lake changed, and whether there is a Redis."""

    verdicts: list[int] = field(default_factory=list)
    boards: int = 0
    in_redis: bool = True

    @property
    def sentence(self) -> str:
        """The same for a person."""
        boards = "1 board" if self.boards == 1 else f"{self.boards:,} boards"
        published = "published" if self.in_redis else "none of them published: no Redis has run here yet"
        return f"{boards} changed, {published}"


def enforce(settings: Settings, now: float | None = None) -> Enforced:
    """Make the boards follow every verdict that they have not followed: the lake's first, then the published ones.

    `now` is the time of publication (s since the epoch), by default the present.

    Raises:
        StoreUnavailable: Redis or the database is away. The verdicts are kept, and are followed by the next call.
    """
    database = open_database(settings)
    with database.connect() as connection:
        due = verdicts.unenforced(connection)
    if not due:
        return Enforced()
    done = Enforced([verdict.id for verdict in due])
    with open_engine(settings) as engine:
        active = days_of(engine, PLAYER_DAYS)
        ranges = sorted({days for verdict in due if (days := _days(verdict, active))})
        done.boards = sum(fold(engine, LEADERBOARDS.name, days).changed for days in ranges)
        try:
            outlets = Outlets(settings, now, needs_redis=False)
            done.in_redis = outlets.has_redis
            for days in ranges:
                publish(engine, outlets, "leaderboard_snapshots", days)
                if outlets.has_redis:
                    publish(engine, outlets, "publications", days)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"Recorded, and followed by the lake's boards: verdict {', '.join(map(str, done.verdicts))}. The published "
                f"boards do not follow yet: {error} Dagster tries again within minutes, `fairboard verdict enforce` at once."
            ) from error
    with database.begin() as connection:
        verdicts.mark_enforced(connection, due)
    return done


def _days(verdict: Verdict, active: list[date]) -> Days | None:
    """The exclusion's days as far as anybody has played; every played window that it touches contains one of them."""
    if not active or verdict.excluded_from is None:
        return None
    last = min(active[-1], verdict.excluded_until - ONE_DAY) if verdict.excluded_until else active[-1]
    return Days(verdict.excluded_from, max(verdict.excluded_from, last))
