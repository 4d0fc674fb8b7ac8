"""Everything Dagster knows of Fairboard, put together in one thin function."""

from collections.abc import Mapping

import dagster as dg

from assets.publications import publication_assets
from assets.reports import report_asset
from assets.tables import table_assets
from pipelines.housekeeping import housekeeping_job, housekeeping_schedule
from pipelines.live import live_job, live_sensor
from pipelines.schedules import DAY_JOB, refresh_schedule
from pipelines.verdicts import verdicts_job, verdicts_sensor
from warehouse.privacy import keep_private
from warehouse.settings import Settings, load_settings


def build_definitions(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """The definitions; `resource_overrides` swaps resources (`settings`) in tests.

    Raises:
        SettingsError: the environment cannot be used.
    """
    resources = {"settings": load_settings(), **(resource_overrides or {})}
    settings = resources["settings"]
    assert isinstance(settings, Settings)
    day_job = dg.define_asset_job(
        DAY_JOB,
        selection=dg.AssetSelection.all(),
        description="Fold a day, score it, rank it, publish it; for one day or a range.",
    )
    return dg.Definitions(
        assets=[*table_assets(settings), *publication_assets(settings), report_asset(settings)],
        jobs=[day_job, live_job, verdicts_job, housekeeping_job],
        schedules=[refresh_schedule(), housekeeping_schedule],
        sensors=[live_sensor(), verdicts_sensor],
        resources=resources,
        # A day is ten steps of under a second each; a process per step would take a minute to start them.
        executor=dg.in_process_executor,
    )


keep_private()  # a code server, or the process of a run
defs = build_definitions()
