"""Verdicts in Dagster: a job that makes the boards follow, and the sensor that asks for it where nobody else has.

Who records a verdict makes the boards follow at once; this is for what was killed meanwhile, or met a Redis that was away.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from pipelines.schedules import IN_PROGRESS
from warehouse.database import reading
from warehouse.enforcement import enforce
from warehouse.settings import Settings
from warehouse.verdicts import unenforced

VERDICTS_JOB = "verdicts"

EVERY = timedelta(minutes=5)
GRACE = timedelta(minutes=1)  # for the process that recorded it: it folds and publishes in seconds


@dg.op(description="Fold and publish the boards that verdicts touch and that have not followed them yet.")
def enforce_verdicts(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """The whole job."""
    done = enforce(settings)
    context.log.info("%d boards changed for verdicts %s", done.boards, done.verdicts)


@dg.job(name=VERDICTS_JOB, description="The boards follow the verdicts.")
def verdicts_job() -> None:
    """One step."""
    enforce_verdicts()


@dg.sensor(
    job=verdicts_job,
    name=VERDICTS_JOB,
    minimum_interval_seconds=int(EVERY.total_seconds()),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Verdicts and reversals that the boards have not followed.",
)
def verdicts_sensor(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.RunRequest | dg.SkipReason:
    """Ask for the job while there is something to follow."""
    running = dg.RunsFilter(job_name=VERDICTS_JOB, statuses=[dg.DagsterRunStatus.QUEUED, *IN_PROGRESS])
    if context.instance.get_runs_count(running):
        return dg.SkipReason("The run of an earlier tick is still at it.")
    with reading(settings) as connection:
        due = unenforced(connection)
    before = datetime.now(UTC) - GRACE
    if any((verdict.reversed_at or verdict.decided_at) < before for verdict in due):
        return dg.RunRequest()
    return dg.SkipReason("The boards follow every verdict.")
