"""The lake's tables as Dagster assets: each a thin call of its fold, for whatever range of days the run has.

What belongs here: names, partitions, dependencies, metadata. What does not: how a table is computed (`warehouse.folds`).
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime

import dagster as dg

from assets.checks import check_results, check_specs
from assets.damage import damage_result, damage_spec
from assets.previews import preview
from warehouse.basis import Bases
from warehouse.calendar import Days
from warehouse.engine import Engine, model, open_engine
from warehouse.folds import AFTER, FOLDS, Folded, fold
from warehouse.lineage import column_lineage, upstream_tables
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES, Table
from warehouse.versions import code_of, digest

GROUP = "warehouse"


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """One partition a day from FIRST_DAY on, today included, in the deployment's time zone."""
    return dg.DailyPartitionsDefinition(start_date=str(settings.first_day), timezone=settings.timezone, end_offset=1)


def partitions_among(settings: Settings, days: Iterable[date], at: datetime | None = None) -> set[date]:
    """Of those days the ones that are partitions at that moment, by default now.

    Dagster stops at a key that is none. An event may be 5 minutes ahead, and so of tomorrow; others lie before FIRST_DAY.
    """
    partitions = daily_partitions(settings)
    with dg.partition_loading_context(at):
        return {day for day in days if partitions.has_partition_key(str(day))}


def days_of(context: dg.AssetExecutionContext) -> Days:
    """The days that a run is about: one partition, or a backfill's range."""
    keys = sorted(context.partition_keys)
    return Days.parse(keys[0], keys[-1])


def column_schema(table: Table) -> dg.TableSchema:
    """The table's columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.sql_type,
                f"{column.doc} [{column.unit}]" if column.unit else column.doc,
                dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )


def table_lineage(table: Table) -> dg.TableColumnLineage:
    """Which columns of the assets upstream each column comes from."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=upstream, column_name=source) for upstream, source in sources]
            for column, sources in column_lineage(table.name).items()
            if sources and column in table.schema.names  # the model of `fairness` is judged further, by the rules
        }
    )


def table_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """One asset for each table that is folded."""
    partitions = daily_partitions(settings)
    return [_table_asset(TABLES[name], partitions, settings.engine) for name in FOLDS]


def _table_asset(table: Table, partitions: dg.PartitionsDefinition, kind: str) -> dg.AssetsDefinition:
    """A table's asset. `events` is landed by the ingest service: its materialization counts what came."""
    # Dagster's UI draws the lineage of the last materialization, its API gives the definition's.
    lineage = {"dagster/column_lineage": table_lineage(table)}

    @dg.asset(
        name=table.name,
        group_name=GROUP,
        partitions_def=partitions,
        deps=[*upstream_tables(table.name), *AFTER.get(table.name, [])],
        description=f"{table.doc}\n\nGrain: {table.grain}.\n\n```sql\n{model(table.name).sql}```",
        metadata={"dagster/column_schema": column_schema(table), **lineage},
        kinds={kind, "parquet"},
        check_specs=[*check_specs(table), *([damage_spec()] if table is EVENTS else [])],
        code_version=code_of(table),
        # One pass over a range is what the folds are made for: a backfill of a year is one run.
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def table_asset(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.MaterializeResult[None]]:
        with open_engine(settings) as engine:
            days = days_of(context)
            folded = fold(engine, table.name, days)
            checked = check_results(engine.duckdb, table, folded.days)
            yield dg.MaterializeResult(
                metadata={**_metadata(folded), **lineage, **preview(engine.duckdb, table, days)},
                check_results=[*checked, *([damage_result(engine.lake, days)] if table is EVENTS else [])],
                data_version=data_version(engine, table, days),
            )

    return table_asset


def data_version(engine: Engine, table: Table, days: Days) -> dg.DataVersion:
    """What the table holds of those days, of months and boards those that a day is in: the same where nothing has changed.

    A run over a range has one for all of its partitions: Dagster takes no more from a run.
    """
    by_day = "event_date" in table.partition
    places = engine.lake.snapshot(table).files if by_day else Bases(engine).of(table, days)
    keys = [dict(zip(table.partition, place, strict=True)) for place in places if not by_day or place[-1] in days]
    return dg.DataVersion(digest(repr(sorted(repr((one, engine.lake.fingerprint(table, one))) for one in keys))))


def _metadata(folded: Folded) -> dict[str, int | float | str]:
    return {
        "dagster/row_count": folded.rows,
        "days": str(folded.days),
        "partitions written": folded.partitions,
        "partitions changed": folded.changed,
        "seconds": round(folded.seconds, 3),
        **folded.details,
    }
