"""Why a closed board's revision differs from the one before: which late events, which verdict, for each player.

What belongs here: finding the causes. What does not: what differs, and where it is kept (`revisions.py`).
"""

from collections.abc import Iterable
from datetime import date, datetime

import polars as pl
import pyarrow as pa

from warehouse.calendar import Window
from warehouse.engine import Engine, scan
from warehouse.imports import IMPORT_KEY
from warehouse.lake import PARTITION_FILE
from warehouse.tables import EVENTS, PLAYER_DAYS
from warehouse.verdicts import Verdict

LATE_EVENTS = 10
CAUSES = pl.Schema([("player_id", pl.String()), ("late_events", pl.List(pl.String())), ("verdict_id", pl.Int64())])

Folded = dict[str, int]


def folded_days(engine: Engine) -> Folded:
    """When each day was folded: ns since the epoch by ISO date."""
    partitions = engine.lake.partitions(PLAYER_DAYS)
    files = {str(keys["event_date"]): engine.lake.folder(PLAYER_DAYS, keys) / PARTITION_FILE for keys in partitions}
    return {day: path.stat().st_mtime_ns for day, path in files.items() if path.exists()}


def causes_of(
    engine: Engine,
    verdicts: Iterable[Verdict],
    window: Window,
    changes: pl.DataFrame,
    *,
    since: datetime,
    before: Folded,
    now: Folded,
) -> pl.DataFrame:
    """Why the XP differs of each player whose XP does (schema `CAUSES`, ids of events the last to arrive first).

    `changes` has the columns of `revisions.compare`; `verdicts` are those that touch the window, the newest first; `since` is
    when the revision before was recorded, `before` when its days had been folded, and `now` when they have been by now.
    """
    oldest_first = list(verdicts)[::-1]
    out = {verdict.player_id: verdict.id for verdict in oldest_first if verdict.excludes}
    back = {v.player_id: v.id for v in oldest_first if v.reversed_at and v.reversed_at > since}
    changed = changes.filter(pl.col("xp_before").ne_missing(pl.col("xp_after")))
    judged = [
        (player, out.get(player) if after is None else back.get(player) if before is None else None)
        for player, before, after in changed.select("player_id", "xp_before", "xp_after").iter_rows()
    ]
    causes = pl.DataFrame(judged, schema={name: CAUSES[name] for name in ("player_id", "verdict_id")}, orient="row")
    late = _late_events(engine, window, causes["player_id"], before, now)
    joined = causes.join(late, on="player_id", how="left", maintain_order="left")
    return joined.select("player_id", pl.col("late_events").fill_null([]), "verdict_id")


def in_words(causes: pl.DataFrame, verdicts: Iterable[Verdict]) -> str:
    """Causes in one line; `recomputed` where neither an event nor a verdict explains them (another calendar, say)."""
    ids = set(causes["verdict_id"].drop_nulls())
    words = ["late events"] if (causes["late_events"].list.len() > 0).any() else []
    words += [f"verdict {v.id}" + (" reversed" if v.reversed_at else "") for v in verdicts if v.id in ids]
    return ", ".join(words) or "recomputed"


def _late_events(engine: Engine, window: Window, players: pl.Series, before: Folded, now: Folded) -> pl.DataFrame:
    """Ids of those players' XP events that were not counted `before`: player_id, late_events.

    They are of days folded again, in files written since the fold before, and in none that is older. A file made of older ones
    (compaction) would make all its events late: so they must have arrived since, too, or just before, as a journal is sealed
    some seconds later. Imported events have no time of arrival.
    """
    days = {str(keys["event_date"]): engine.lake.folder(EVENTS, keys) for keys in engine.lake.partitions(EVENTS, window.days)}
    is_newer = {
        path: path.stat().st_mtime_ns > before.get(day, 0)
        for day, folder in days.items()
        if before.get(day) != now.get(day)
        for path in folder.glob("*.parquet")
    }
    newer, older = ([path for path, found in is_newer.items() if found is wanted] for wanted in (True, False))
    engine.connection.execute(f"CREATE OR REPLACE TEMP VIEW newer_events AS {scan(EVENTS, newer)}")
    engine.connection.execute(f"CREATE OR REPLACE TEMP VIEW older_events AS {scan(EVENTS, older)}")
    engine.bind_rows("changed_players", pa.table({"player_id": pa.array(players.to_list(), pa.string())}))
    dates = pa.array([date.fromisoformat(day) for day in before], pa.date32())
    times = pa.array([ns // 1_000_000 for ns in before.values()], pa.int64())
    engine.bind_rows("folded_days", pa.table({"event_date": dates, "folded_ms": times}))
    return engine.connection.execute(
        """
        WITH late AS (
            SELECT n.event_date, n.event_id, n.player_id, min(n.received_ms) AS received_ms
            FROM newer_events AS n
            SEMI JOIN changed_players AS p ON n.player_id = p.player_id
            ANTI JOIN older_events AS o ON n.event_date = o.event_date AND n.event_id = o.event_id
            LEFT JOIN folded_days AS f ON n.event_date = f.event_date
            WHERE n.type = 'progression' AND n.delta_xp <> 0
                AND (n.key_id = $imported OR n.received_ms > coalesce(f.folded_ms, 0) - $sealing_ms)
            GROUP BY ALL
        )
        SELECT player_id, list(event_id ORDER BY received_ms DESC, event_id)[1:$most] AS late_events
        FROM late GROUP BY player_id
        """,
        {"imported": IMPORT_KEY, "sealing_ms": round(2000 * engine.settings.seal_after_s), "most": LATE_EVENTS},
    ).pl()
