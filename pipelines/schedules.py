"""When it runs: every five minutes, for the days whose events changed, and once for every new day."""

from collections.abc import Iterator

import dagster as dg

from warehouse.engine import Engine
from warehouse.folds import stale_days
from warehouse.settings import Settings

DAY_JOB = "day"

# A run takes 5 to 10 s to start: a handful a tick is what a small machine does within the five minutes.
DAYS_A_TICK = 10
IN_PROGRESS = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def refresh_schedule() -> dg.ScheduleDefinition:
    """Request the day job for every day with new events, the newest first, late events' days included."""

    @dg.schedule(
        name="refresh",
        job_name=DAY_JOB,
        cron_schedule="*/5 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Days whose events changed since they were folded, and every new day once, so that its boards exist.",
    )
    def refresh(
        context: dg.ScheduleEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        running = dg.RunsFilter(job_name=DAY_JOB, statuses=[dg.DagsterRunStatus.QUEUED, *IN_PROGRESS])
        if context.instance.get_runs_count(running):
            yield dg.SkipReason("The runs of an earlier tick are still at it.")
            return
        with Engine(settings) as engine:
            stale = [day for day in stale_days(engine) if day >= settings.first_day]
            today = engine.calendar.day_of(int(context.scheduled_execution_time.timestamp()))
        requests = [dg.RunRequest(run_key=f"new day {today}", partition_key=str(today))] if today not in stale else []
        # The tick is part of the key: a day whose run failed stays stale, and is asked for again.
        requests += [
            dg.RunRequest(run_key=f"{day} at {context.scheduled_execution_time}", partition_key=str(day))
            for day in sorted(stale, reverse=True)[:DAYS_A_TICK]
        ]
        yield from requests

    return refresh
