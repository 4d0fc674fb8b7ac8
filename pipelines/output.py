"""How the command line shows things: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import msgspec
import polars as pl
from rich.console import Console
from rich.table import Table as RichTable

PIPE_WIDTH = 120

# A pipe or a log has no width of its own; Rich would take 80 columns and cut tables short.
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def complain(sentence: str) -> None:
    """A line on stderr, as it is: never wrapped, never markup."""
    print(sentence, file=sys.stderr)


def emit_json(value: Any) -> None:
    """One JSON document on stdout. Dates are ISO 8601."""
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows for JSON."""
    return frame.to_dicts()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """A table with a title line on stdout."""
    out.print(f"[bold]{title}[/]")
    out.print(build_table(columns, rows, right=right))


def build_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> RichTable:
    """A table to print, or to lay out beside others. Text from outside is shown as it is, never as markup."""
    rich = RichTable(header_style="dim", box=None, pad_edge=False)
    for column in columns:
        rich.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        rich.add_row(*(_text(value) for value in row))
    return rich


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value).replace("[", "\\[")


def arrow(movement: int | None) -> str:
    """Rank movement: ▲ up, ▼ down, = none, new."""
    if movement is None:
        return "new"
    return f"▲{movement}" if movement > 0 else f"▼{-movement}" if movement < 0 else "="
