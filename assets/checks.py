"""Checks of what was written, made from the tables' contract; they block what lies downstream."""

import dagster as dg

from warehouse.engine import open_engine
from warehouse.settings import Settings
from warehouse.tables import FAIRNESS, LEADERBOARDS, PLAYER_DAYS, PROGRESSION, Table


def table_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of every folded table."""
    return [_key_check(table) for table in (PLAYER_DAYS, PROGRESSION, LEADERBOARDS, FAIRNESS)]


def _key_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.name,
        name="keys_unique",
        blocking=True,
        description=f"No two rows share {', '.join(table.key)}.",
    )
    def keys_unique(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        with open_engine(settings) as engine:
            engine.bind(table)
            key = ", ".join(table.key)
            repeated = engine.query(f"SELECT {key} FROM {table.name} GROUP BY {key} HAVING count(*) > 1 LIMIT 5")  # noqa: S608
            found = repeated.read_all().to_pylist()
        return dg.AssetCheckResult(passed=not found, metadata={"repeated keys": str(found)} if found else {})

    return keys_unique
