"""When it runs: every five minutes, for all that is behind or failed, and once for every new day.

Days without a gap are one run; where one fails, its halves come next, so that a day that always fails stands alone in the end.
What does not belong here: what is behind (`warehouse.basis`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import dagster as dg

from assets.tables import partitions_among
from warehouse.basis import behind
from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.errors import StoreUnavailable
from warehouse.losses import held_days
from warehouse.settings import Settings
from warehouse.stale import materialize, out_of_reach

DAY_JOB = "day"

# A run takes 5 to 10 s to start: a handful a tick is what a small machine does within the five minutes.
RUNS_AT_ONCE = 10
LONGEST = 366  # days of one run: its folds hold their tables meanwhile
# A day between two that are due costs a run some 0.5 s of Dagster's bookkeeping, which is less than another run.
BRIDGED = timedelta(days=10)
RETRIED_FOR = timedelta(days=1)
TODAY_FIRST = {"dagster/priority": "5"}  # among what waits for its turn; the live job has 10
IN_PROGRESS = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
RANGE: Final = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass(frozen=True)
class Attempt:
    """A run of the day job: which days, when it was asked for (ms since the epoch), what became of it."""

    instance: dg.DagsterInstance
    run: dg.DagsterRun
    at_ms: float

    @cached_property
    def days(self) -> Days | None:
        """The days; None of a run over none (of everything, say)."""
        tags = self.run.tags
        first, last = (tags.get(name) or tags.get("dagster/partition") for name in RANGE)
        return Days.parse(first, last) if first and last else None

    @property
    def failed(self) -> bool:
        """Whether it failed: its tables may be new while its boards are old (Redis was away, say)."""
        return self.run.status is dg.DagsterRunStatus.FAILURE

    @cached_property
    def longest_next(self) -> int:
        """How many days the next run over one of its days may have."""
        if not self.failed or self.days is None or self._store_was_away:
            return LONGEST
        return max(1, len(self.days) // 2)

    @property
    def _store_was_away(self) -> bool:
        """Whether all that failed was Redis or the database: then no day is to blame."""
        failures = self.instance.all_logs(self.run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        errors = [entry.dagster_event.step_failure_data.error for entry in failures if entry.dagster_event]
        return bool(errors) and all(
            error is not None and StoreUnavailable.__name__ in (error.cls_name, error.cause and error.cause.cls_name)
            for error in errors
        )


def refresh_schedule() -> dg.ScheduleDefinition:
    """Request the day job for all that is behind; what has waited longest comes first, and today has a run of its own."""

    @dg.schedule(
        name="refresh",
        job_name=DAY_JOB,
        cron_schedule="*/5 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Whatever is not what would be computed now (`fairboard stale`), whatever failed within a day, and every "
        "new day once, so that its boards exist.",
    )
    def refresh(
        context: dg.ScheduleEvaluationContext, settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        tick = context.scheduled_execution_time
        with DuckDBEngine(settings) as engine:
            found, held = behind(engine), held_days(engine.lake)
            today = engine.calendar.day_of(int(tick.timestamp()))
        if unreached := out_of_reach(settings, found):
            context.log.warning("No run reaches what is behind before FIRST_DAY: `%s` computes it.", materialize(unreached))
        for day in sorted(held):
            context.log.warning("%s is held: a file of its events was set aside as damaged (docs/operations.md).", day)
        waiting: dict[date, float] = {}
        for one in found:
            waiting[one.day] = min(waiting.get(one.day, one.since_ms), one.since_ms)
        running = list(attempts(context.instance, statuses=[dg.DagsterRunStatus.QUEUED, *IN_PROGRESS]))
        tried = latest(attempts(context.instance, created_after=tick - RETRIED_FOR))
        due = waiting.keys() | {day for day, attempt in tried.items() if attempt.failed} | ({today} - tried.keys())
        due -= {day for attempt in running for day in attempt.days or ()} | held
        # Dagster asks which days are partitions at the tick's time, however late it runs.
        due = partitions_among(settings, due, tick)
        asked = list(plan(due - {today}, held, waiting, tried))[: max(0, RUNS_AT_ONCE - len(running))]
        if today in due:
            yield _request(Days(today, today), tick, TODAY_FIRST)
        yield from (_request(days, tick, {}) for days in asked)
        if not asked and today not in due:
            yield dg.SkipReason("The runs of an earlier tick are still at it." if running else "Nothing is behind.")

    return refresh


def plan(
    due: Collection[date], held: Collection[date], waiting: Mapping[date, float], tried: Mapping[date, Attempt]
) -> list[Days]:
    """The days in as few runs as can be, what has waited longest first. `waiting` says since when a day is behind (ms).

    A day waits since then or since it was last tried, whichever is later: so what fails again and again takes its turn among
    the rest. A run bridges days that are not due, but none that is held, and is as long as each of its days allows.
    """
    since = {day: max(waiting.get(day, 0), tried[day].at_ms if day in tried else 0) for day in due}
    runs: list[Days] = []
    limit = 0
    for day in sorted(due):
        allowed = tried[day].longest_next if day in tried else LONGEST
        limit = min(limit, allowed)
        if runs and _joins(day, runs[-1], limit) and not any(runs[-1].last < other < day for other in held):
            runs[-1] = Days(runs[-1].first, day)
        else:
            runs.append(Days(day, day))
            limit = allowed
    return sorted(runs, key=lambda days: min(since[day] for day in days if day in since))


def _joins(day: date, days: Days, limit: int) -> bool:
    return day - days.last <= BRIDGED and (day - days.first).days < limit


def attempts(instance: dg.DagsterInstance, **which: Any) -> Iterator[Attempt]:
    """Runs of the day job, the newest first."""
    for record in instance.get_run_records(dg.RunsFilter(job_name=DAY_JOB, **which)):
        yield Attempt(instance, record.dagster_run, record.create_timestamp.timestamp() * 1000)


def latest(found: Iterable[Attempt]) -> dict[date, Attempt]:
    """The last attempt at each day."""
    tried: dict[date, Attempt] = {}
    for attempt in found:
        for day in attempt.days or ():
            tried.setdefault(day, attempt)
    return tried


def _request(days: Days, tick: datetime, tags: Mapping[str, str]) -> dg.RunRequest:
    """One run over the days. The tick is part of the key: they may be asked for any number of times."""
    key = f"{days} at {tick}"
    if len(days) == 1:
        return dg.RunRequest(run_key=key, partition_key=str(days.first), tags=tags)
    return dg.RunRequest(run_key=key, tags={**tags, **dict(zip(RANGE, map(str, (days.first, days.last)), strict=True))})
