"""How far the players are: levels and gains of a day, and one player's way."""

from datetime import date, timedelta

import polars as pl
import streamlit as st

from dashboard import charts, controls, grids, queries
from warehouse.calendar import Days
from warehouse.settings import Settings
from warehouse.tables import PLAYER_DAYS, PROGRESSION

HISTORY = timedelta(days=89)


def show_day(settings: Settings, day: date, first: date) -> None:
    """The day's figures, levels, XP over time and biggest gains."""
    totals = queries.progress_totals(settings, day)
    cells = st.columns(4)
    cells[0].metric("Players active", totals["players"], format="localized", border=True)
    cells[1].metric("XP won", totals["xp"], format="%,.0f", border=True)
    cells[2].metric("Levels won", totals["level_ups"], format="localized", border=True)
    cells[3].metric("Highest level", totals["top_level"], border=True)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Levels", help="Players active on the day, by their level at its end.")
        st.altair_chart(charts.level_bars(queries.levels_reached(settings, day)), alt="Players by level")
    with right:
        st.subheader("XP per day", help="The 90 days up to the day.")
        totals_per_day = queries.daily_totals(settings, Days(max(first, day - HISTORY), day))
        st.altair_chart(charts.daily_bars(totals_per_day, "xp", ""), alt="XP per day")


def show_gains(settings: Settings, day: date) -> None:
    """Who won most; a row leads to the player."""
    st.subheader("Biggest gains of the day", help="Choose a row to see the player below.")
    rows = queries.biggest_gains(settings, day)
    columns = ["player_id", "xp_gained", "xp_total", "level_before", "level_after", "level_ups", "xp_to_next"]
    grids.grid(
        rows, PROGRESSION, columns, name="Biggest gains", key="gains", on_select=lambda: controls.follow_row(rows, "gains")
    )


def show_player(history: pl.DataFrame) -> None:
    """A player's standing and way."""
    now = history.row(-1, named=True)
    cells = st.columns(4)
    cells[0].metric("XP", now["xp_total"], format="localized", border=True)
    cells[1].metric("Level", now["level_after"], border=True)
    missing = now["xp_to_next"]
    cells[2].metric("XP to the next level", "last level" if missing is None else missing, format="localized", border=True)
    cells[3].metric("Last played", str(now["event_date"]), border=True)
    st.altair_chart(charts.xp_line(history), alt="XP over time")
    with st.expander("Day by day"):
        columns = ["event_date", "xp_gained", "xp_total", "level_after", "level_ups"]
        grids.grid(history.reverse(), PROGRESSION, columns, name="Day by day", height=280)
        grids.download_csv(lambda: history, "progression.csv", key="history_csv")


settings = controls.open_page("Progression", "How far every player is, day by day.")
controls.need(settings, PROGRESSION)
days = queries.days_of(settings, PROGRESSION)
day = controls.choose_day(days)
if controls.has_day(day, days):
    show_day(settings, day, queries.days_of(settings, PLAYER_DAYS)[0])
    show_gains(settings, day)
st.subheader("A player's way")
player = controls.choose_player()
if player:
    found = queries.player_progress(settings, player)
    if found.is_empty():
        controls.offer_similar(settings, player)
    else:
        show_player(found)
