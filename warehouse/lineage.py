"""What a model stands on, read from its SQL by SQLGlot: the tables, and for each column the columns that its values come from.

What does not belong here: how Dagster shows it (`assets/tables.py`), and running a model (`engine.py`).
"""

from functools import cache

from sqlglot import exp
from sqlglot.lineage import lineage

from warehouse.engine import MODELS, model
from warehouse.tables import EVENTS, TABLES

SourceColumn = tuple[str, str]


def upstream_tables(name: str) -> list[str]:
    """The tables of the lake that a model reads, itself or through other models."""
    read = {relation for reader in (name, *_nested(name)) for relation in model(reader).upstream}
    return sorted(read & TABLES.keys() - {name})


@cache
def column_lineage(name: str) -> dict[str, list[SourceColumn]]:
    """For each column of a model, the (table, column) pairs of the lake that its values come from.

    What only chooses rows (a join, a filter) is no source; a count has none. Takes some 20 ms a model.
    """
    schema = {table.name: {column.name: column.sql_type for column in table.columns} for table in TABLES.values()}
    schema["landed"] = schema[EVENTS.name]
    sources = {nested: model(nested).sql for nested in _nested(name)}
    # Untrimmed: trimming copies every SELECT once per column, for pictures that nobody draws, and takes four times as long.
    columns = lineage(None, model(name).sql, schema, sources=sources, dialect="duckdb", trim_selects=False)
    leaves = {
        column: {
            (leaf.expression.name, leaf.name.rpartition(".")[2])
            for leaf in node.walk()
            if isinstance(leaf.expression, exp.Table) and leaf.expression.name in TABLES
        }
        for column, node in columns.items()
    }
    return {column: sorted(found) for column, found in leaves.items()}


def _nested(name: str) -> set[str]:
    """The models that are no tables and that a model reads, itself or through each other."""
    read = {relation for relation in model(name).upstream - TABLES.keys() if (MODELS / f"{relation}.sql").exists()}
    return read.union(*map(_nested, read))
