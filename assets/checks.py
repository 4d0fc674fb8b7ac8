"""The tables' checks (`warehouse.checks`) as Dagster's: run in the step that wrote, over what it wrote, on its DuckDB.

They block: where one fails, nothing downstream is computed or published.
"""

import dagster as dg

from warehouse.calendar import Days
from warehouse.checks import checks_of, faults
from warehouse.engine import DuckDBEngine
from warehouse.tables import Table


def check_specs(table: Table) -> list[dg.AssetCheckSpec]:
    """The checks that a table's asset promises."""
    return [dg.AssetCheckSpec(c.name, asset=table.name, blocking=True, description=c.about) for c in checks_of(table)]


def check_results(engine: DuckDBEngine, table: Table, days: Days) -> list[dg.AssetCheckResult]:
    """What the checks say of the partitions of those days."""
    return [_result(check.name, faults(check, engine, table, days)) for check in checks_of(table)]


def _result(name: str, found: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name, passed=not found, metadata={"faults": dg.JsonMetadataValue(found)} if found else {}
    )
