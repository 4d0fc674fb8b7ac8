"""How the deployment stands: what landed last, whether it is fresh, what is flagged, who leads."""

from datetime import date, datetime, timedelta

import polars as pl
import streamlit as st

from dashboard import charts, controls, grids, queries
from warehouse.calendar import Days
from warehouse.fairness.rules import SUSPICION
from warehouse.settings import Settings
from warehouse.tables import FAIRNESS, LEADERBOARDS, PLAYER_DAYS, REJECTS

RANGES = {"30 days": 30, "90 days": 90, "1 year": 365, "All": None}


def show_figures(settings: Settings, day: date, before: pl.DataFrame) -> None:
    """The last day in figures, each beside the day with events before it."""
    *earlier, today = before.tail(2).to_dicts()
    suspects = queries.judged(settings, day, SUSPICION, "flagged", limit=2**62).height
    cells = st.columns(5)
    cells[0].metric("Last landed day", str(day), border=True, height="stretch")
    for cell, name, text in zip(cells[1:4], ("players", "events", "xp"), ("Players", "Events", "XP won"), strict=True):
        change = today[name] - earlier[0][name] if earlier else None
        cell.metric(
            text,
            today[name],
            change,
            format="localized",
            border=True,
            height="stretch",
            delta_color="off",
            delta_description="to the day before",
        )
    cells[4].metric(
        "Under suspicion",
        suspects,
        border=True,
        height="stretch",
        help="Players whose combined suspicion is beyond its threshold.",
    )


def show_freshness(settings: Settings, day: date) -> None:
    """When the last event happened, and what is behind."""
    seconds = queries.last_event(settings, day)
    if seconds is not None:
        moment = datetime.fromtimestamp(seconds, settings.zone)
        st.caption(f"The last event happened {moment:%Y-%m-%d %H:%M:%S} ({settings.timezone}).")
    owed, command = queries.overdue(settings, settings.lake_place)
    if owed:
        days = Days(min(one.first for one in owed), max(one.last for one in owed))
        tables = ", ".join(dict.fromkeys(f"`{one.table}`" for one in owed))
        reasons = "; ".join(dict.fromkeys(one.why for one in owed))
        st.warning(f"{days}: {tables} are not what would be computed now ({reasons}).", icon=":material/update:")
        st.caption("Dagster's schedule works through it; `fairboard stale` lists it, and this computes it at once:")
        st.code(command, language="bash")


def show_flagged(settings: Settings, day: date) -> None:
    """The strongest flags of the day."""
    st.subheader("Flagged that day", help="The strongest five; the fairness page has all, and the evidence.")
    rows = queries.judged(settings, day, SUSPICION, "flagged", limit=5)
    if rows.is_empty():
        st.write("Nothing was flagged.")
        unjudged = max(queries.verdicts(settings, day)["insufficient"].to_list(), default=0)
        st.caption(f"{unjudged:,} player(s) had too short a history to be judged: that is not the same as clean.")
        return
    grids.grid(rows, FAIRNESS, ["player_id", "tests", "p", "q"], name="Flagged players")
    st.page_link("app_pages/fairness.py", label="See the evidence", icon=":material/balance:", query_params={"day": str(day)})


def show_leaders(settings: Settings, day: date) -> None:
    """The top of the day's board."""
    st.subheader("Top of the daily board")
    board = next((b for b in queries.boards(settings) if b.window == "daily" and b.start == day), None)
    if board is None:
        st.write("That day has no daily board: it is in no season, or the boards are not computed yet.")
        return
    rows = queries.ranks(settings, board, 1, 5)
    columns = ["rank", "player_id", "xp", "change", "boss_kills"]
    grids.grid(grids.arrows(rows), LEADERBOARDS, columns, name="Top five", extra=grids.CHANGE)
    st.page_link("app_pages/leaderboards.py", label="See every board", icon=":material/leaderboard:")


def show_refused(settings: Settings, days: Days) -> None:
    """What was refused, by reason."""
    st.subheader(
        "Refused events", help="Dead letters that arrived in the time chosen above, and ids that came with other content."
    )
    rows = queries.rejects_by_reason(settings, days)
    if rows.is_empty():
        st.write("Nothing was refused in that time.")
        return
    config = {
        "field": grids.renamed(REJECTS, "field", "Field"),
        "reason": grids.renamed(REJECTS, "reason", "Reason"),
        "refused": st.column_config.NumberColumn("Events", format="localized"),
        "last_request": st.column_config.TextColumn("Last request or file"),
    }
    st.dataframe(rows, column_config=config, hide_index=True, alt="Refused events")


settings = controls.open_page("Overview", "What landed, how fresh it is, and what deserves a look.")
controls.need(settings, PLAYER_DAYS)
days = queries.days_of(settings, PLAYER_DAYS)
last = days[-1]
show_freshness(settings, last)
show_figures(settings, last, queries.daily_totals(settings, Days(days[-min(2, len(days))], last)))

chosen = st.segmented_control(
    "Time", list(RANGES), default="30 days", required=True, key="range", label_visibility="collapsed", bind="query-params"
)
back = RANGES[chosen or "30 days"]
span = Days(max(days[0], last - timedelta(days=back - 1)) if back else days[0], last)
totals = queries.daily_totals(settings, span)
for cell, (column, title) in zip(
    st.columns(3), {"events": "Events per day", "players": "Players per day", "xp": "XP per day"}.items(), strict=True
):
    cell.altair_chart(charts.daily_bars(totals, column, title), alt=title)

left, right = st.columns(2, gap="large")
with left:
    show_flagged(settings, last)
with right:
    show_leaders(settings, last)
show_refused(settings, Days(span.first, max(span.last, datetime.now(settings.zone).date())))
