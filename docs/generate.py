"""Writes what follows from the code: `.env.example`, `docs/tables.md`, the table of `docs/metrics.md`.

`make docs` runs it; a test fails when a file is out of date.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic_core import PydanticUndefined

from warehouse.metrics import METRICS
from warehouse.settings import DATA, Settings
from warehouse.tables import TABLES, Table

REPO = Path(__file__).parent.parent
METRICS_FILE = REPO / "docs/metrics.md"
BEGIN, END = "<!-- from warehouse/metrics.py -->", "<!-- end -->"


def env_example() -> str:
    """Every setting with its description and default."""
    head = "# Copy to .env; every command reads it, and real environment variables win. These are the defaults.\n"
    return head + "\n".join(_setting_lines()) + "\n"


def _setting_lines() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, PydanticUndefined) else field.default
        if isinstance(default, Path) and default.is_relative_to(DATA):
            default = f"warehouse/data/{default.name}"
        yield f"\n# {field.description}\n# FAIRBOARD_{name.upper()}={default}"


def tables() -> str:
    """Every table of the lake with its grain, keys and columns."""
    head = (
        "# The tables of the lake\n\nWritten by `make docs` from `warehouse/tables.py`. Each is a folder of Parquet files "
        "below `lake/`, Hive-partitioned, and a view of the same name in `fairboard sql` and on the dashboard's SQL page.\n\n"
        "The metrics of `daily_metrics` are defined in [metrics.md](metrics.md).\n"
    )
    return head + "".join(map(_table, TABLES.values()))


def _table(table: Table) -> str:
    facts = {
        "Grain": table.grain,
        "Key": _names(table.key) or "none",
        "Partitioned by": _names(table.partition),
        "Sorted by": _names(table.sort),
    }
    head = f"\n## {table.name}\n\n{table.doc}\n\n" + "".join(f"- {name}: {text}\n" for name, text in facts.items())
    rows = ((f"`{c.name}`", f"{c.sql_type}{' NULL' if c.nullable else ''}", c.unit, c.doc) for c in table.columns)
    return head + "\n" + _grid(("column", "type", "unit", "what it holds"), rows)


def metrics() -> str:
    """`docs/metrics.md` with every metric of `daily_metrics` in its table."""
    before, rest = METRICS_FILE.read_text(encoding="utf-8").split(BEGIN)
    rows = (
        (f"`{m.name}`", m.unit, " · ".join(filter(None, (m.subject, m.detail))), m.doc, m.formula) for m in METRICS.values()
    )
    table = _grid(("metric", "unit", "subject · detail", "what it is", "formula"), rows)
    return f"{before}{BEGIN}\n{table}{END}{rest.split(END)[1]}"


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


FILES = {REPO / ".env.example": env_example, REPO / "docs/tables.md": tables, METRICS_FILE: metrics}

if __name__ == "__main__":
    for path, content in FILES.items():
        path.write_text(content(), encoding="utf-8")
