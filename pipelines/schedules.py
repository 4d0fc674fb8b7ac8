"""When it runs: every five minutes, for the days whose events changed or whose run failed, and once for every new day."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta

import dagster as dg

from assets.tables import partitions_among
from warehouse.basis import behind
from warehouse.engine import DuckDBEngine
from warehouse.settings import Settings

DAY_JOB = "day"

# A run takes 5 to 10 s to start: a handful a tick is what a small machine does within the five minutes.
DAYS_A_TICK = 10
RETRIED_FOR = timedelta(days=1)
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
        tick = context.scheduled_execution_time
        running = dg.RunsFilter(job_name=DAY_JOB, statuses=[dg.DagsterRunStatus.QUEUED, *IN_PROGRESS])
        if context.instance.get_runs_count(running):
            yield dg.SkipReason("The runs of an earlier tick are still at it.")
            return
        with DuckDBEngine(settings) as engine:
            waiting: dict[date, int] = {}
            for one in behind(engine):
                waiting[one.day] = max(waiting.get(one.day, 0), one.since_ms)
            today = engine.calendar.day_of(int(tick.timestamp()))
        # Dagster asks which days are partitions at the tick's time, however late it runs.
        due = partitions_among(settings, waiting.keys() | failed_days(context.instance, tick - RETRIED_FOR), tick)
        if today not in due and partitions_among(settings, [today], tick):
            yield dg.RunRequest(run_key=f"new day {today}", partition_key=str(today))
        for day in sorted(due, key=lambda day: (waiting.get(day, 0), day))[:DAYS_A_TICK]:
            # The tick is part of the key: a day may be asked for any number of times.
            yield dg.RunRequest(run_key=f"{day} at {tick}", partition_key=str(day))

    return refresh


def failed_days(instance: dg.DagsterInstance, since: datetime) -> set[date]:
    """The days whose latest run since then failed: their tables may be new while their boards are old (Redis was away, say)."""
    latest: dict[str, dg.DagsterRunStatus] = {}
    for record in instance.get_run_records(dg.RunsFilter(job_name=DAY_JOB, created_after=since)):  # the newest first
        if day := record.dagster_run.tags.get("dagster/partition"):
            latest.setdefault(day, record.dagster_run.status)
    return {date.fromisoformat(day) for day, status in latest.items() if status is dg.DagsterRunStatus.FAILURE}
