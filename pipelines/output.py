r"""How the command line shows things: tables for people, JSON for programs.

All that a command says goes through here, so that nothing out of the data moves the cursor, colours a line or adds one: what
does not print is shown as its escape (`\x1b`), and no text is read as markup.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import polars as pl
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

PIPE_WIDTH = 120
SIGNIFICANT = 4  # digits of a measured value
PLAIN = 1e-4, 1e15  # outside, a value has an exponent

_json = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def shown(text: str, keep: str = "") -> str:
    """Text from outside on one line: what does not print, but for the characters of `keep`, is its escape."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else repr(sign)[1:-1] for sign in text)


class _Terminal(Console):
    """Rich's console; every text that it lays out comes by `render_str`. Line breaks are ours: cells have none."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text, keep="\n"), **options)


# A pipe or a log has no width of its own; Rich would take 80 columns and cut tables short.
out = _Terminal(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def complain(sentence: str, keep: str = "") -> None:
    """A line on stderr, never wrapped; lines, where line breaks are kept (see `shown`)."""
    print(shown(sentence, keep), file=sys.stderr)


def emit_json(value: Any) -> None:
    """One JSON document on stdout. Dates are ISO 8601, decimals are numbers with all their digits."""
    text = msgspec.json.format(_json.encode(value), indent=2).decode()
    print("".join(sign if sign.isprintable() or sign == "\n" else _json_escape(sign) for sign in text))


def _json_escape(sign: str) -> str:
    """What JSON leaves as it is and a terminal may obey."""
    units = sign.encode("utf-16-be")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows for JSON."""
    return frame.to_dicts()


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    exact: bool = False,
) -> None:
    """A table with a title line on stdout. With `exact`, numbers have all their digits, else those that matter."""
    out.print(title, style="bold")
    out.print(build_table(columns, rows, right=right, exact=exact))


def build_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = (), exact: bool = False
) -> RichTable:
    """A table to print, or to lay out beside others (see `table`)."""
    rich = RichTable(header_style="dim", box=None, pad_edge=False)
    for column in columns:
        rich.add_column(shown(column), justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        rich.add_row(*(shown(_text(value, exact=exact)) for value in row))
    return rich


def _text(value: object, *, exact: bool) -> str:
    match value:
        case None:
            text = "-"
        case bool():
            text = str(value).lower()
        case float():
            text = repr(value) if exact else _rounded(value)
        case int():
            text = f"{value:,}"
        case Decimal():
            text = f"{value:,f}"
        case date():
            text = value.isoformat()
        case _:
            text = str(value)
    return text


def _rounded(value: float) -> str:
    """A value with its significant digits and one decimal at least: a p of 10⁻⁹ is not 0, a rate of 0.0163 not 0.0."""
    size = abs(value)
    if not size or not math.isfinite(value):
        return str(value)
    if not PLAIN[0] <= size < PLAIN[1]:
        return f"{value:.{SIGNIFICANT}g}"
    decimals = max(1, SIGNIFICANT - 1 - math.floor(math.log10(size)))
    whole, _, fraction = f"{value:,.{decimals}f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def arrow(movement: int | None) -> str:
    """Rank movement: ▲ up, ▼ down, = none, new."""
    if movement is None:
        return "new"
    return f"▲{movement}" if movement > 0 else f"▼{-movement}" if movement < 0 else "="
