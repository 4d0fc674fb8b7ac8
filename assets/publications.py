"""What leaves the lake as Dagster assets: receipts, progress, suspicious events, snapshots, and the boards in Redis."""

import dagster as dg

from assets.tables import daily_partitions, days_of
from warehouse.engine import open_engine
from warehouse.outlets import Outlets
from warehouse.publications import PUBLISHED, publish
from warehouse.settings import Settings

GROUP = "publications"

_UPSTREAM = {
    "receipts": ["progression"],
    "player_progress": ["progression"],
    "suspicious_events": ["fairness"],
    "cases": ["fairness"],
    "leaderboard_snapshots": ["leaderboards"],
    "publications": ["leaderboards"],
}
_KINDS = {"receipts": {"sql"}, "player_progress": {"sql", "redis"}, "publications": {"redis"}}


def publication_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """One asset for each publication."""
    partitions = daily_partitions(settings)
    return [_publication_asset(name, partitions) for name in PUBLISHED]


def _publication_asset(name: str, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name=GROUP,
        partitions_def=partitions,
        deps=_UPSTREAM[name],
        description=PUBLISHED[name].__doc__,
        kinds=_KINDS.get(name, {"sql"}),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def publication_asset(
        context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        with open_engine(settings) as engine:
            published = publish(engine, Outlets(settings), name, days_of(context))
        return dg.MaterializeResult(metadata={"dagster/row_count": published.rows, "seconds": round(published.seconds, 3)})

    return publication_asset
