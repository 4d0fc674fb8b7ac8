"""Why a closed board's revision differs from the one before: which late events, which verdict, for each player.

What belongs here: finding the causes. What does not: what differs, and where it is kept (`revisions.py`).
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime

import msgspec
import polars as pl
import pyarrow as pa

from warehouse.basis import DATA_UPSTREAM
from warehouse.calendar import Window
from warehouse.engine import Engine, frame
from warehouse.imports import IMPORT_KEY
from warehouse.lake import LakeFile, fingerprint_of
from warehouse.tables import EVENTS, PLAYER_DAYS
from warehouse.verdicts import Verdict

LATE_EVENTS = 10
CAUSES = pl.Schema([("player_id", pl.String()), ("late_events", pl.List(pl.String())), ("verdict_id", pl.Int64())])


class Counted(msgspec.Struct, frozen=True):
    """What a day's fold had counted: the fingerprint of the day in `events`, and when (ms since the epoch)."""

    files: str
    at_ms: int


Folded = dict[str, Counted]


def folded_days(engine: Engine) -> Folded:
    """What is counted of each day that has been folded, by ISO date."""
    lake = engine.lake
    return {
        str(keys["event_date"]): Counted(file.basis[DATA_UPSTREAM], file.modified_ms)
        for keys in lake.partitions(PLAYER_DAYS)
        for file in lake.of(PLAYER_DAYS, keys)
    }


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
    when the revision before was recorded, `before` what it had counted of its days, and `now` what is counted by now.
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

    Files come one after the other, so that those counted before are the first ones. Where compaction has merged them with later
    ones since, an event is late that arrived after that fold, or just before: a journal is sealed some seconds later.
    Imported events have no time of arrival.
    """
    older: list[LakeFile] = []
    newer: list[LakeFile] = []
    arrived: dict[date, int] = {}
    for keys in engine.lake.partitions(EVENTS, window.days):
        day = str(keys["event_date"])
        was, has = before.get(day), now.get(day)
        if has is None or (was is not None and was.files == has.files):
            continue
        files = sorted(engine.lake.of(EVENTS, keys), key=lambda file: (file.modified_ms, file.name))
        counted = 0 if was is None else _counted(files, was.files)
        if counted is None and was is not None:
            arrived[date.fromisoformat(day)] = was.at_ms - round(2000 * engine.settings.seal_after_s)
        older += files[: counted or 0]
        newer += files[counted or 0 : _counted(files, has.files)]
    duckdb = engine.duckdb
    duckdb.bind_files(EVENTS, newer, "newer_events")
    duckdb.bind_files(EVENTS, older, "older_events")
    duckdb.bind_rows("changed_players", pa.table({"player_id": pa.array(players.to_list(), pa.string())}))
    dates, times = pa.array(arrived, pa.date32()), pa.array(arrived.values(), pa.int64())
    duckdb.bind_rows("merged_days", pa.table({"event_date": dates, "after_ms": times}))
    late = duckdb.query(
        """
        WITH late AS (
            SELECT n.event_date, n.event_id, n.player_id, min(n.received_ms) AS received_ms
            FROM newer_events AS n
            SEMI JOIN changed_players AS p ON n.player_id = p.player_id
            ANTI JOIN older_events AS o ON n.event_date = o.event_date AND n.event_id = o.event_id
            LEFT JOIN merged_days AS m ON n.event_date = m.event_date
            WHERE n.type = 'progression' AND n.delta_xp <> 0
                AND (n.key_id = $imported OR m.after_ms IS NULL OR n.received_ms > m.after_ms)
            GROUP BY ALL
        )
        SELECT player_id, list(event_id ORDER BY received_ms DESC, event_id)[1:$most] AS late_events
        FROM late GROUP BY player_id
        """,
        imported=IMPORT_KEY,
        most=LATE_EVENTS,
    )
    return frame(late)


def _counted(files: Sequence[LakeFile], fingerprint: str) -> int | None:
    """How many of the files, from the first, have that fingerprint; None where no such number has."""
    counts = range(1, len(files) + 1)
    return next((number for number in counts if fingerprint_of(EVENTS, files[:number]) == fingerprint), None)
