"""What the pages have in common: choosing a day and a player, following a row, and what to say where there is nothing.

What belongs here: widgets whose values stand in the URL. What does not: queries and charts.
"""

from bisect import bisect_left, bisect_right
from datetime import date

import polars as pl
import streamlit as st

from dashboard import queries
from warehouse.settings import Settings, load_settings
from warehouse.tables import EVENTS, PLAYER_DAYS, Table

DAY, PLAYER = "day", "player"


def open_page(title: str, about: str) -> Settings:
    """Head of a page: its title, one sentence, and the settings it reads by."""
    st.title(title)
    st.caption(about)
    return load_settings()


def need(settings: Settings, table: Table) -> None:
    """End the page where the lake has nothing of `table`, and say what to do."""
    if not queries.partitions(settings, table):
        _nothing_yet(settings)
        st.stop()


def _nothing_yet(settings: Settings) -> None:
    landed = queries.days_of(settings, EVENTS)
    if landed:
        st.info(f"{len(landed)} day(s) of events have landed and wait to be computed.", icon=":material/hourglass_empty:")
        st.code(f"fairboard materialize --from {landed[0]} --to {landed[-1]}", language="bash")
        return
    st.info("The lake is empty: no event has landed yet.", icon=":material/inbox:")
    st.write("Play a small game through the whole system, or bring history:")
    st.code("make demo\n\nfairboard import events.ndjson.gz\nfairboard materialize --from DAY --to DAY", language="bash")
    st.caption("The lake of this dashboard:")
    st.code(settings.lake_place, language=None)


def choose_day(days: list[date]) -> date:
    """A day, in the URL as `?day=`; the arrows go to the neighbours that have events."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", width="content"):
        left = st.container(width="content")
        chosen = st.date_input("Day", days[-1], days[0], days[-1], key=DAY, format="YYYY-MM-DD", width=170, bind="query-params")
        day = chosen if isinstance(chosen, date) else days[-1]
        before, after = days[: bisect_left(days, day)], days[bisect_right(days, day) :]
        with left:
            _arrow("left", "The day with events before", before[-1:])
        _arrow("right", "The next day with events", after[:1])
    return day


def _arrow(side: str, text: str, target: list[date]) -> None:
    """A button that goes to the target's day; a dead one without a target."""
    st.button(
        "", icon=f":material/chevron_{side}:", key=f"day_{side}", help=text, disabled=not target, on_click=_go_to, args=target
    )


def _go_to(day: date) -> None:
    st.session_state[DAY] = day


def has_day(day: date, days: list[date]) -> bool:
    """Whether there is something to show of that day; says so where not."""
    if day in days:
        return True
    nearest = min(days, key=lambda other: abs(other - day))
    st.info(f"No events on {day}. The nearest day with events is {nearest}.", icon=":material/event_busy:")
    return False


def choose_player() -> str:
    """A player's id as it was given, in the URL as `?player=`: it may begin or end with a blank."""
    return (
        st.text_input("Player", key=PLAYER, placeholder="A player's id, or a part of it", width=360, bind="query-params") or ""
    )


def offer_similar(settings: Settings, text: str) -> None:
    """Say that nobody has that id, and list who comes close."""
    found = queries.similar_players(settings, text.strip(), queries.days_of(settings, PLAYER_DAYS)[-1])
    st.info("No player has that id." + (" Did you mean:" if found else " Nobody of the last week is called like it."))
    for player in found:
        st.button(as_text(player), key=f"similar-{player}", type="tertiary", on_click=_follow, args=(player,))


def _follow(player: str) -> None:
    st.session_state[PLAYER] = player


def follow_row(frame: pl.DataFrame, key: str) -> None:
    """Make the player of the chosen row of grid `key` the page's player."""
    rows = st.session_state[key]["selection"]["rows"]
    if rows:
        _follow(frame["player_id"][rows[0]])


def as_text(untrusted: str) -> str:
    """An id as Markdown that shows just the id: every ASCII sign that Markdown could read is escaped."""
    return "".join(f"\\{sign}" if sign.isascii() and not sign.isalnum() and sign != " " else sign for sign in untrusted)
