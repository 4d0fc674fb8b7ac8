"""Who leads: every board of the lake, its movement and its gaps."""

from datetime import datetime
from functools import partial

import polars as pl
import streamlit as st

from dashboard import charts, controls, grids, queries
from warehouse.calendar import WindowKind
from warehouse.errors import LakeError
from warehouse.settings import Settings
from warehouse.tables import LEADERBOARDS

KINDS = [str(kind) for kind in WindowKind]
GAPS = 20
AROUND = 3
SHOWN_ROWS = 18

REVISION_COLUMNS = {
    "revision": st.column_config.NumberColumn("Revision", width="small"),
    "recorded": st.column_config.DatetimeColumn("Recorded (UTC)", format="YYYY-MM-DD HH:mm:ss"),
    "cause": st.column_config.TextColumn("Because of"),
    "players": st.column_config.NumberColumn("Players", format="localized"),
    "moved": st.column_config.NumberColumn("Moved", format="localized", help="Players whose rank or XP differs."),
}
DIFF_COLUMNS = {
    "player_id": st.column_config.TextColumn("Player id"),
    "rank_before": st.column_config.NumberColumn("Rank before", format="localized"),
    "xp_before": st.column_config.NumberColumn("XP before", format="localized"),
    "rank_after": st.column_config.NumberColumn("Rank", format="localized"),
    "xp_after": st.column_config.NumberColumn("XP", format="localized"),
    "late_events": st.column_config.ListColumn("Late events", help="Ids, the last to arrive first; ten at most."),
    "verdict_id": st.column_config.NumberColumn("Verdict", help="The verdict, or the one whose reversal brought them back."),
}


def choose_board(settings: Settings) -> queries.Board | None:
    """Window, season, start and moment, all in the URL; the latest by default."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        choice = st.container(horizontal=True, vertical_alignment="bottom", width="content")
        moment = choose_moment(settings)
    found = find_boards(settings, moment)
    with choice:
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


def choose_moment(settings: Settings) -> datetime | None:
    """A moment in the past, in the URL; none is now."""
    chosen = st.datetime_input(
        "As of",
        None,
        key="as_of",
        step=60,
        width=260,
        format="YYYY-MM-DD",
        bind="query-params",
        help=f"The boards as the lake had them then ({settings.timezone}), as far back as it is kept: "
        f"{settings.snapshot_minutes} minutes, or less where events come all the time. Empty is now.",
    )
    return chosen.replace(tzinfo=settings.zone) if chosen else None


def find_boards(settings: Settings, at: datetime | None) -> list[queries.Board]:
    """The boards of that moment; ends the page where it is not kept."""
    try:
        return queries.boards(settings, at)
    except LakeError as error:
        st.warning(str(error), icon=":material/history:")
        st.stop()


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


def show_revisions(settings: Settings, board: queries.Board) -> None:
    """How a closed board has changed since it was first published, and who moved."""
    window, root = queries.window_of(settings, board), settings.lake_place
    known = queries.revisions(settings, root, window)
    if not known:
        st.caption("A board has revisions once its window has closed and was published.")
        return
    rows = [(r.revision, r.recorded_at, r.cause, r.players, r.moved) for r in known]
    listed = pl.DataFrame(rows, schema=["revision", "recorded", "cause", "players", "moved"], orient="row")
    st.dataframe(listed, column_config=REVISION_COLUMNS, hide_index=True, alt="Revisions", row_height=32)
    numbers = [r.revision for r in known if r.revision > 1]
    if numbers:
        revision = st.selectbox("What changed in revision", numbers, key="revision", width=220, bind="query-params")
        changes = queries.revision_diff(settings, root, window, revision)
        st.dataframe(changes, column_config=DIFF_COLUMNS, hide_index=True, placeholder="-", alt="Changes", row_height=32)


settings = controls.open_page("Leaderboards", "Equal XP is ordered by who reached it first, then by player id.")
controls.need(settings, LEADERBOARDS)
board = choose_board(settings)
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
    grids.download_csv(partial(queries.whole_board, settings, board), name, key="board_csv", text="The whole board as CSV")
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

st.subheader("Revisions", help="A closed board changes by late events, corrections, verdicts and their reversals.")
show_revisions(settings, board)
