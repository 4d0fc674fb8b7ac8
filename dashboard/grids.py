"""Tables on the page: the contract's columns as Streamlit's, with the contract's own words as help.

What belongs here: how a row is shown and downloaded. What does not: which rows (`queries.py`).
"""

from collections.abc import Callable, Iterable
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pyarrow as pa
import streamlit as st

from warehouse.tables import LEADERBOARDS, Column, Table

_LABELS = {
    "z": "z",
    "p": "p",
    "q": "q",
    "ts": "time",
    "baseline_center": "usual",
    "baseline_n": "of so many",
    "delta_xp": "XP",
    "duration_median_ms": "median, ms",
    "duration_p90_ms": "p90, ms",
}

_MOVEMENT = next(column for column in LEADERBOARDS.columns if column.name == "movement")


def label(name: str) -> str:
    """A column's name as a heading: `xp_to_next` is `XP to next`."""
    text = _LABELS.get(name, name.removesuffix("_ts").replace("_", " "))
    words = ["XP" if word.lower() == "xp" else word for word in text.split()]
    return " ".join([words[0][0].upper() + words[0][1:] if len(words[0]) > 1 else words[0], *words[1:]])


def help_of(column: Column) -> str:
    """A column's description and unit, as the contract has them."""
    return f"{column.doc} ({column.unit})" if column.unit else column.doc


CHANGE = {"change": st.column_config.TextColumn("Movement", help=help_of(_MOVEMENT), width="small")}


def column_config(table: Table, zone: ZoneInfo | None = None) -> dict[str, Any]:
    """Streamlit's configuration of every column of a table."""
    return {column.name: _config(column, zone) for column in table.columns}


def renamed(table: Table, name: str, heading: str) -> Any:
    """A column under another heading, with the contract's help."""
    return _config(next(column for column in table.columns if column.name == name), None, heading)


def _config(column: Column, zone: ZoneInfo | None, heading: str = "") -> Any:
    heading, text = heading or label(column.name), help_of(column)
    if _is_time(column.name):
        return st.column_config.DatetimeColumn(heading, help=f"{column.doc} ({zone})", format="YYYY-MM-DD HH:mm:ss")
    if pa.types.is_integer(column.type):
        return st.column_config.NumberColumn(heading, help=text, format="localized")
    if pa.types.is_floating(column.type):
        # A p is 10⁻⁵⁰ or 0.4: two places would show most as 0.
        return st.column_config.NumberColumn(heading, help=text, format="%.1e" if column.name in ("p", "q") else "%.2f")
    if pa.types.is_date(column.type):
        return st.column_config.DateColumn(heading, help=text, format="YYYY-MM-DD")
    if pa.types.is_list(column.type):
        return st.column_config.ListColumn(heading, help=text)
    return st.column_config.TextColumn(heading, help=text)


def grid(
    frame: pl.DataFrame,
    table: Table,
    columns: Iterable[str],
    *,
    zone: ZoneInfo | None = None,
    name: str,
    key: str | None = None,
    on_select: Callable[[], None] | None = None,
    extra: dict[str, Any] | None = None,
    height: int | None = None,
) -> None:
    """Draw those columns. With `on_select`, a row can be chosen. `name` is what a screen reader calls the table."""
    shown = in_zone(frame.select(columns), zone)
    options: dict[str, Any] = {"on_select": on_select, "selection_mode": "single-row"} if on_select else {}
    st.dataframe(
        shown,
        column_config=column_config(table, zone) | (extra or {}),
        hide_index=True,
        key=key,
        placeholder="-",
        alt=name,
        height=height or "auto",
        row_height=32,
        **options,
    )


def _is_time(name: str) -> bool:
    return name == "ts" or name.endswith("_ts")


def in_zone(frame: pl.DataFrame, zone: ZoneInfo | None) -> pl.DataFrame:
    """Seconds since the epoch as wall time of the deployment."""
    times = [name for name in frame.columns if _is_time(name) and frame[name].dtype == pl.Int64]
    wall = pl.from_epoch(pl.col(times), time_unit="s").dt.replace_time_zone("UTC")
    return frame.with_columns(wall.dt.convert_time_zone(str(zone or "UTC")).dt.replace_time_zone(None)) if times else frame


def arrows(rows: pl.DataFrame) -> pl.DataFrame:
    """The column `change`: `movement` as a reader says it (▲ 3, ▼ 1, =, new)."""
    size = pl.col("movement").abs().cast(pl.String)
    return rows.with_columns(
        change=pl.when(pl.col("movement").is_null())
        .then(pl.lit("new"))
        .when(pl.col("movement") > 0)
        .then(pl.lit("▲ ") + size)
        .when(pl.col("movement") < 0)
        .then(pl.lit("▼ ") + size)
        .otherwise(pl.lit("="))
    )


def csv(frame: pl.DataFrame) -> bytes:
    """The rows as CSV; lists as words apart. No text of it is a formula to a spreadsheet: `'` stands before what begins one.

    The rule is OWASP's (https://owasp.org/www-community/attacks/CSV_Injection), and it holds behind every sign that parts cells
    somewhere: where the comma is the decimal sign, `;` does. Numbers stay numbers.
    """
    texts = frame.with_columns(
        _as_words(column)
        for column in frame
        if column.dtype.is_nested() or column.dtype in (pl.Categorical, pl.Enum, pl.Binary)
    )
    heads = pl.DataFrame({"head": texts.columns}).select(_guarded("head"))["head"].to_list()
    return texts.with_columns(_guarded(pl.String)).rename(dict(zip(texts.columns, heads, strict=True))).write_csv().encode()


def _guarded(columns: Any) -> pl.Expr:
    at_start = pl.col(columns).str.replace(r"^([\t\r\n])", "'$1")
    return at_start.str.replace_all(r"""(^|[,;"\t\r\n])([\p{C}\s]*[-=+@\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}])""", "$1'$2")


def _as_words(column: pl.Series) -> pl.Series:
    """A column of lists, structs, bytes or categories as text."""
    values = (" ".join(map(str, value)) if isinstance(value, pl.Series | list) else value for value in column)
    return pl.Series(column.name, [None if value is None else str(value) for value in values], pl.String)


def download_csv(rows: Callable[[], pl.DataFrame], file_name: str, key: str, text: str = "CSV") -> None:
    """A button for rows as CSV: the one way in which the pages hand any out."""
    download(text, lambda: csv(rows()), file_name, key)


def download(text: str, data: Callable[[], bytes], file_name: str, key: str) -> None:
    """A button whose file is made when it is pressed."""
    st.download_button(text, data, file_name, key=key, icon=":material/download:", on_click="ignore")


def hide_unguarded_downloads() -> None:
    """Take the CSV button away that Streamlit gives every grid: the browser makes that file, with formulas in it."""
    st.html('<style>button[aria-label^="Download as CSV"] { display: none; }</style>')
