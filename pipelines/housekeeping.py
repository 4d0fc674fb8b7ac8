"""The lake keeps itself in order: superseded files go after their time, logs get checkpoints and are cut.

The live job does the same for the tables that it writes (`live.py`). What does not belong here: what may go, and when
(`warehouse.lake`).
"""

from collections.abc import Sequence
from dataclasses import asdict

import dagster as dg

from warehouse.lake import Lake, Tidied, tidy
from warehouse.settings import Settings

HOUSEKEEPING_JOB = "housekeeping"


def summed(done: Sequence[Tidied]) -> dict[str, int]:
    """The figures of all tables together: see `Tidied`."""
    return {name: sum(asdict(one)[name] for one in done) for name in ("files", "freed", "superseded", "live")}


@dg.op(description="Vacuum what nobody can read any more, and write checkpoints.")
def tidy_lake(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """The whole job."""
    with Lake(settings) as lake:
        figures = summed(tidy(lake))
    context.log.info("the lake is in order; bytes: %s", figures)


@dg.job(name=HOUSEKEEPING_JOB, description="The lake's superseded files go after FAIRBOARD_SNAPSHOT_MINUTES.")
def housekeeping_job() -> None:
    """One step."""
    tidy_lake()


housekeeping_schedule = dg.ScheduleDefinition(
    name=HOUSEKEEPING_JOB,
    job=housekeeping_job,
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Superseded files of the lake, its checkpoints and logs.",
)
