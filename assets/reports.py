"""The day's fairness report as a Dagster asset: read on its page, kept nowhere else.

What does not belong here: what the report says (`warehouse/reports.py`).
"""

import dagster as dg

from assets.tables import daily_partitions, days_of
from warehouse.database import reading
from warehouse.engine import DuckDBEngine
from warehouse.reports import as_markdown, build
from warehouse.settings import Settings


def report_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset `fairness_report`."""

    @dg.asset(
        group_name="publications",
        partitions_def=daily_partitions(settings),
        deps=["fairness", "cases"],
        description="Who is under suspicion on the day, since when, on what evidence, and how the rules have done so far.",
        kinds={"markdown"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def fairness_report(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        with DuckDBEngine(settings) as engine, reading(settings) as connection:
            report = build(engine, connection, days_of(context).last)
        players = report.suspects.height
        return dg.MaterializeResult(metadata={"dagster/row_count": players, "report": dg.MetadataValue.md(as_markdown(report))})

    return fairness_report
