"""The version of what computes a table: its SQL, its schema, its Python, and the small tables that stand beside the data.

Comments and layout count for nothing: a corrected sentence does not compute a year again. What does not belong here: the data
(`basis.py`).
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pyarrow as pa
import sqlglot

from warehouse import small_tables
from warehouse.engine import MODELS, model
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS, TABLES, Table

# What of `fairness` is computed beside its model.
_CODE: Final = {FAIRNESS.name: ("judgements.py", "scores.py", "statistics.py", "suspicion.py")}


@cache
def code_of(table: Table) -> str:
    """The version of what computes a table: its model and those that it reads, its schema; 8 hex digits."""
    schema = [(c.name, str(c.type), c.nullable) for c in table.columns]
    parts = [repr((table.key, table.partition, table.sort, schema)), *_models(table.name)]
    parts += [_program(Path(__file__).parent / "fairness" / name) for name in _CODE.get(table.name, ())]
    return digest("\n".join(parts))[:8]


def _models(name: str) -> Iterator[str]:
    """A model's SQL without comments and layout, and that of the models it reads that are no tables of their own."""
    yield " ".join(token.text for token in sqlglot.tokenize(model(name).sql, read="duckdb"))
    for upstream in sorted(model(name).upstream):
        if (upstream not in TABLES or upstream == EVENTS.name) and (MODELS / f"{upstream}.sql").exists():
            yield from _models(upstream)


def _program(path: Path) -> str:
    """A module's code without comments, layout and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def digest_of(rows: pa.Table | None) -> str:
    """The version of small tables that stand beside the data; 8 hex digits."""
    return digest(repr(rows.to_pylist()) if rows is not None else "")[:8]


def rewards_version(settings: Settings) -> str:
    """The version of what a level pays; 8 hex digits."""
    return digest_of(small_tables.rewards(settings.rewards_file))


def digest(text: str) -> str:
    """A digest of any text; 32 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
