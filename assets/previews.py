"""What a person wants to see of a materialization at one glance: a few rows, as Markdown in Dagster's UI."""

import dagster as dg

from warehouse.calendar import Days
from warehouse.engine import Engine
from warehouse.tables import Table

_ROWS = {
    "player_days": "SELECT player_id, events, xp, active_minutes FROM player_days ORDER BY xp DESC LIMIT 5",
    "player_months": "SELECT player_id, active_days, xp, boss_kills FROM player_months"
    " WHERE month_start = (SELECT max(month_start) FROM player_months) ORDER BY xp DESC LIMIT 5",
    "activity_days": "SELECT type, activity, boss_id, item_id, events, players, xp FROM activity_days"
    " ORDER BY events DESC LIMIT 10",
    "progression": "SELECT player_id, xp_gained, xp_total, level_before, level_after FROM progression"
    " ORDER BY level_ups DESC, xp_gained DESC LIMIT 5",
    "leaderboards": "SELECT window_kind, rank, player_id, xp, movement FROM leaderboards"
    " WHERE rank <= 3 AND as_of = (SELECT max(as_of) FROM leaderboards) ORDER BY window_kind, rank",
    "daily_metrics": "SELECT metric, value FROM daily_metrics WHERE subject = '' ORDER BY metric",
    "fairness": "SELECT player_id, rule, round(observed, 1) AS observed, round(baseline_center, 1) AS usual, round(z, 1) AS z,"
    " q FROM fairness WHERE verdict = 'flagged' AND p IS NOT NULL ORDER BY p, player_id, rule LIMIT 10",
}


def preview(engine: Engine, table: Table, days: Days) -> dict[str, dg.MetadataValue]:
    """The rows of the range's last day that tell the most."""
    sql = _ROWS.get(table.name)
    if sql is None:
        return {}
    engine.bind(table, Days(days.last, days.last) if "event_date" in table.partition else None)
    rows = engine.query(sql).read_all()
    lines = [rows.column_names, ["---"] * rows.num_columns, *zip(*rows.to_pydict().values(), strict=True)]
    return {"preview": dg.MetadataValue.md("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))}


def _cell(value: object) -> str:
    """A value as a Markdown cell; player ids are text from outside."""
    return (
        "`" + str(value).replace("|", "\\|").replace("`", "'") + "`"
        if isinstance(value, str) and value != "---"
        else str(value)
    )
