"""Who leads: every board of the lake, its movement and its gaps."""

from functools import partial

import polars as pl
import streamlit as st

from dashboard import charts, controls, grids, queries
from warehouse.calendar import WindowKind
from warehouse.settings import Settings
from warehouse.tables import LEADERBOARDS

KINDS = [str(kind) for kind in WindowKind]
GAPS = 20
AROUND = 3
SHOWN_ROWS = 18


def choose_board(found: list[queries.Board]) -> queries.Board | None:
    """Window, season and start, all in the URL; the latest by default."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control("Window", KINDS, default="daily", required=True, key="window", bind="query-params")
        boards = [board for board in found if board.window == kind]
        seasons = list(dict.fromkeys(board.season for board in boards))
        if kind != "alltime" and seasons:
            season = st.selectbox("Season", seasons, key="season", width=160, bind="query-params")
            boards = [board for board in boards if board.season == season]
        if kind in ("daily", "weekly") and boards:
            starts = [board.start for board in boards]
            start = st.selectbox("Start", starts, key="start", width=180, bind="query-params")
            boards = [board for board in boards if board.start == start]
    return boards[0] if boards else None


def show_figures(figures: dict[str, object]) -> None:
    """The board in figures."""
    cells = st.columns(4)
    cells[0].metric("Players", figures["players"], format="localized", border=True)  # type: ignore[arg-type]
    cells[1].metric("Leader's XP", figures["leader_xp"], format="localized", border=True)  # type: ignore[arg-type]
    cells[2].metric("Bosses killed", figures["boss_kills"], format="localized", border=True)  # type: ignore[arg-type]
    cells[3].metric(
        "Counted up to", str(figures["as_of"]), border=True, help="The last day with events that the board has counted."
    )


def show_rows(rows: pl.DataFrame, settings: Settings, key: str) -> None:
    """Rows of a board."""
    columns = ["rank", "player_id", "xp", "change", "boss_kills", "reached_ts"]
    grids.grid(
        grids.arrows(rows), LEADERBOARDS, columns, zone=settings.zone, name="Leaderboard", key=key, extra=grids.CHANGE,
        height=620 if rows.height > SHOWN_ROWS else None,
    )  # fmt: skip


def show_gaps(rows: pl.DataFrame) -> None:
    """How far the first are apart."""
    top = rows.head(GAPS).with_columns(leader_xp=pl.col("xp").first())
    gap = pl.col("xp") - pl.col("leader_xp")
    top = top.with_columns(gap=gap, behind=-gap, to_next=pl.col("xp").shift(1) - pl.col("xp"))
    st.altair_chart(charts.gaps(top), alt="Gaps to the leader")


settings = controls.open_page("Leaderboards", "Equal XP is ordered by who reached it first, then by player id.")
controls.need(settings, LEADERBOARDS)
board = choose_board(queries.boards(settings))
if board is None:
    st.info("There is no board of that window yet.", icon=":material/leaderboard:")
    st.stop()
figures = queries.board_figures(settings, board)
show_figures(figures)
top = queries.ranks(settings, board, 1, queries.TOP)
left, right = st.columns([3, 2], gap="large")
with left:
    st.subheader(f"The first {min(queries.TOP, figures['players'])}")
    show_rows(top, settings, "board")
    name = f"{board.window}-{board.season}-{board.start}.csv"
    grids.download("The whole board as CSV", partial(queries.whole_board, settings, board), name, key="board_csv")
with right:
    st.subheader("Gaps", help="XP behind the leader.")
    show_gaps(top)

st.subheader("A player on this board")
player = controls.choose_player()
if player:
    rank = queries.rank_of(settings, board, player)
    if rank is None:
        st.info("That player is not on this board.")
    else:
        show_rows(queries.ranks(settings, board, rank - AROUND, rank + AROUND), settings, "around")
