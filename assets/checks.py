"""Checks of what was written, made from the tables' contract; they block what lies downstream."""

import dagster as dg

from warehouse.engine import Engine
from warehouse.settings import Settings
from warehouse.tables import FAIRNESS, LEADERBOARDS, PLAYER_BOSS_DAYS, PLAYER_DAYS, PLAYER_ITEM_DAYS, PROGRESSION, Table


def table_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of every folded table."""
    folded = (PLAYER_DAYS, PLAYER_BOSS_DAYS, PLAYER_ITEM_DAYS, PROGRESSION, LEADERBOARDS, FAIRNESS)
    return [_key_check(table) for table in folded]


def _key_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.name,
        name="keys_unique",
        blocking=True,
        description=f"No two rows share {', '.join(table.key)}.",
    )
    def keys_unique(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        with Engine(settings) as engine:
            engine.bind(table)
            key = ", ".join(table.key)
            repeated = engine.connection.sql(f"SELECT {key} FROM {table.name} GROUP BY {key} HAVING count(*) > 1 LIMIT 5")  # noqa: S608
            found = repeated.fetchall()
        return dg.AssetCheckResult(passed=not found, metadata={"repeated keys": str(found)} if found else {})

    return keys_unique
