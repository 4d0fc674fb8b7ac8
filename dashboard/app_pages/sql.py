"""Analysts' SQL over the lake, read only."""

import io

import polars as pl
import streamlit as st

from dashboard import controls, grids
from warehouse import analysts
from warehouse.errors import FairboardError
from warehouse.settings import Settings
from warehouse.tables import TABLES, Table

EXAMPLES = {
    "XP by activity": "SELECT activity, count(*) AS events, sum(delta_xp) AS xp\nFROM events\nWHERE type = 'progression'\n"
    "GROUP BY activity\nORDER BY xp DESC",
    "Players per level": "SELECT level_after, count(*) AS players\nFROM progression\n"
    "WHERE event_date = (SELECT max(event_date) FROM progression)\nGROUP BY level_after\nORDER BY level_after",
    "Flags per rule and day": "SELECT event_date, rule, count(*) AS flagged\nFROM fairness\nWHERE verdict = 'flagged'\n"
    "GROUP BY event_date, rule\nORDER BY event_date DESC, rule",
    "Top 10 of all time": "SELECT rank, player_id, xp, boss_kills\nFROM leaderboards\nWHERE window_kind = 'alltime'\n"
    "ORDER BY rank\nLIMIT 10",
}


def take_example() -> None:
    """Put the chosen example into the editor."""
    if chosen := st.session_state["example"]:
        st.session_state["q"] = EXAMPLES[chosen]


def show_tables() -> None:
    """Every table and column, in the contract's words."""
    for table in TABLES.values():
        with st.expander(table.name):
            st.caption(f"{table.doc} One row per {table.grain}.")
            st.markdown(described(table))
    st.caption("And `levels`, `rewards`, `fairness_rules`: the game's own files.")


def described(table: Table) -> str:
    """A table's columns as a Markdown list."""
    return "\n".join(f"- `{column.name}` :gray[{column.sql_type}] {grids.help_of(column)}" for column in table.columns)


def ask(settings: Settings, sql: str) -> None:
    """Run the query and keep what came of it: a rerun of the page shows it again without running it again."""
    try:
        st.session_state["answer"] = analysts.ask(settings, sql)
    except FairboardError as error:
        st.session_state["answer"] = error


def show_answer(answer: analysts.Answer) -> None:
    """The rows, how many, and the downloads."""
    rows = answer.rows
    cut = f" There are more: the first {rows.height:,} are here." if answer.truncated else ""
    st.caption(f"{rows.height:,} row(s) in {answer.seconds:.2f} s.{cut}")
    st.dataframe(rows, hide_index=True, row_height=32, placeholder="NULL", alt="Result")
    with st.container(horizontal=True):
        grids.download_csv(lambda: rows, "result.csv", key="result_csv")
        grids.download("Parquet", lambda: parquet(rows), "result.parquet", key="result_parquet")


def parquet(rows: pl.DataFrame) -> bytes:
    """The rows as one Parquet file."""
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()


settings = controls.open_page("SQL", "DuckDB's SQL over the lake, read only. One SELECT at a time.")
editor, reference = st.columns([2, 1], gap="large")
with reference:
    st.subheader("Tables")
    show_tables()
with editor:
    st.html("<style>textarea { font-family: 'Source Code Pro', monospace !important; font-size: 0.875rem !important; }</style>")
    st.pills("Examples", list(EXAMPLES), key="example", on_change=take_example)
    with st.form("query", border=False):
        sql = st.text_area("Query", next(iter(EXAMPLES.values())), height=210, key="q", bind="query-params")
        if st.form_submit_button("Run", type="primary", icon=":material/play_arrow:"):
            ask(settings, sql or "")
    answer = st.session_state.get("answer")
    if isinstance(answer, analysts.Answer):
        show_answer(answer)
    elif answer is not None:
        st.error("The query did not run.", icon=":material/error:")
        st.code(str(answer), language=None, wrap_lines=True)
