"""The boards follow the events: a run that refreshes them every few seconds, and the sensor that keeps one such run alive.

A run takes 5 to 10 s to start, so it lives for hours and reports to Dagster once a minute. It is known by a lock that dies with
its process, not by what Dagster believes of it. What does not belong here: what a refresh does (`warehouse.refresh`).
"""

import time
import warnings
from dataclasses import dataclass, field
from datetime import date

import dagster as dg

from assets.tables import partitions_among
from warehouse.calendar import ONE_DAY, Calendar
from warehouse.engine import open_engine
from warehouse.errors import FairboardError
from warehouse.lake import Lake, tidy
from warehouse.outlets import Outlets
from warehouse.publisher import Publication, forget_publications
from warehouse.refresh import FOLDED, Pulse, Refreshed, claim, refresh, write_pulse
from warehouse.settings import Settings
from warehouse.tables import EVENTS, TABLES

# Dagster's own decorator passes an argument that it calls beta, once per process.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*owners.*SensorDefinition")

LIVE_JOB = "live"
RUN_FOR_S = 6 * 3600
REPORT_EVERY_S = 60
GIVES_UP_AFTER_S = 60  # a run that cannot refresh for so long fails, for ops to see, and the sensor starts another
LOOK_EVERY_S = 15
STARTS_WITHIN_S = 30
WRITTEN = (EVENTS, *(TABLES[name] for name in FOLDED))  # all the time, by the sealer and by this
COMING = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING)
BELIEVED_ALIVE = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@dataclass(slots=True)
class Tally:
    """What happened since the last report."""

    since: float = field(default_factory=time.monotonic)
    cpu_since: float = field(default_factory=time.process_time)
    refreshes: int = 0
    days: set[date] = field(default_factory=set)
    published: list[Publication] = field(default_factory=list)
    fold_s: float = 0.0
    publish_s: float = 0.0
    behind_s: float = 0.0

    def add(self, done: Refreshed, behind_s: float) -> None:
        """Count a refresh; `behind_s` is how old the oldest event could be that the boards did not hold just before it."""
        self.refreshes += 1
        self.days.update(day for folded in done.folded if folded.table == FOLDED[0] for day in folded.days)
        self.published += done.published
        self.fold_s, self.publish_s = self.fold_s + done.fold_s, self.publish_s + done.publish_s
        self.behind_s = max(self.behind_s, behind_s)

    def metadata(self) -> dict[str, float | int]:
        """The tally as Dagster shows it."""
        return {
            "refreshes": self.refreshes,
            "boards published": len(self.published),
            "of them whole": sum(one.how == "whole" for one in self.published),
            "members sent": sum(one.members for one in self.published),
            "behind the lake at most (s)": round(self.behind_s, 1),
            "fold (s per refresh)": round(self.fold_s / max(1, self.refreshes), 3),
            "publish (s per refresh)": round(self.publish_s / max(1, self.refreshes), 3),
            "share of a core": round((time.process_time() - self.cpu_since) / (time.monotonic() - self.since), 3),
        }


class Follower:
    """Refreshes until its time is over."""

    def __init__(self, context: dg.OpExecutionContext, settings: Settings) -> None:
        self._log, self._report_event = context.log, context.log_event
        self._settings = settings
        self._calendar = Calendar.of(settings)
        self._outlets: Outlets | None = None
        self._tally = Tally()
        self._current_until = time.time()
        self._failing_since: float | None = None
        self._is_tidy = False

    def run(self, run_for_s: float) -> None:
        """Refresh every FAIRBOARD_REFRESH_S seconds, and on the stroke of midnight.

        Raises:
            FairboardError: it has not been possible for a minute.
        """
        ends = time.monotonic() + run_for_s
        while time.monotonic() < ends:
            began = time.time()
            self._try_refresh(began)
            if time.monotonic() - self._tally.since >= REPORT_EVERY_S:
                self._tidy()
                self._report()
            time.sleep(self._pause(began, time.time()))
        self._tidy()
        self._report()

    def _try_refresh(self, began: float) -> None:
        try:
            if self._outlets is None:
                self._outlets = Outlets(self._settings)
                forget_publications(self._outlets)
            with open_engine(self._settings) as engine:
                done = refresh(engine, self._outlets)
        except FairboardError as error:
            self._outlets = None  # the next attempt looks again where Redis and the database are
            self._log.warning(str(error))
            write_pulse(self._settings, Pulse(began, self._current_until, 0, str(error)))
            self._failing_since = self._failing_since or began
            if began - self._failing_since >= GIVES_UP_AFTER_S:
                raise
            return
        self._failing_since = None
        ended = time.time()
        self._tally.add(done, ended - self._current_until)
        self._current_until = began
        write_pulse(self._settings, Pulse(ended, began, ended - began))

    def _pause(self, began: float, now: float) -> float:
        """Until the next refresh, in s: as long at least as the last one took, so that it never has more than half a core."""
        midnight = self._calendar.starts_at(self._calendar.day_of(int(now)) + ONE_DAY)
        return min(max(began + self._settings.refresh_s - now, now - began), midnight - now)

    def _tidy(self) -> None:
        """Have what the refreshes superseded taken away; not where nothing was written since the last time left nothing."""
        if self._is_tidy and not self._tally.days:
            return
        try:
            with Lake(self._settings) as lake:
                self._is_tidy = not any(done.superseded for done in tidy(lake, WRITTEN))
        except FairboardError as error:
            self._log.warning(str(error))

    def _report(self) -> None:
        """Tell Dagster what was materialized since the last time: booking it each time would cost a third of a refresh."""
        tally, self._tally = self._tally, Tally()
        metadata = tally.metadata()
        for day in sorted(partitions_among(self._settings, tally.days)):
            for table in FOLDED:
                self._report_event(dg.AssetMaterialization(table, partition=str(day)))
        if tally.published:
            today = self._calendar.day_of(int(time.time()))
            self._report_event(dg.AssetMaterialization("publications", partition=str(today), metadata=metadata))
        self._log.info(f"boards followed the events: {metadata}")


@dg.op(description="Refresh the boards every FAIRBOARD_REFRESH_S seconds, for six hours.")
def follow_events(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Only one at a time: a second one ends at once."""
    with claim(settings) as claimed:
        if claimed:
            Follower(context, settings).run(RUN_FOR_S)
        else:
            context.log.info("Another run keeps the boards fresh already; this one is not needed.")


# First in the queue: a long backfill must not stop the boards.
@dg.job(
    name=LIVE_JOB, description="Keeps the boards in Redis a few seconds behind the events.", tags={"dagster/priority": "10"}
)
def live_job() -> None:
    """One op that lives for hours."""
    follow_events()


def live_sensor() -> dg.SensorDefinition:
    """Start the live job where none is running, a killed one's place included."""

    @dg.sensor(
        name="live",
        job=live_job,
        minimum_interval_seconds=LOOK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the live job again when it has ended, by itself or not. Switch it off to stop the boards.",
    )
    def live(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.RunRequest | dg.SkipReason:
        with claim(settings) as free:
            if not free:
                return dg.SkipReason("The live job is running.")
        young = time.time() - STARTS_WITHIN_S
        for record in context.instance.get_run_records(dg.RunsFilter(job_name=LIVE_JOB, statuses=[*COMING, *BELIEVED_ALIVE])):
            run = record.dagster_run
            if run.status in COMING or (record.start_time or 0) > young:
                return dg.SkipReason("The live job is starting.")
            context.instance.report_run_failed(run, "Its process is gone: it was killed, or the machine went down.")
        return dg.RunRequest()

    return live
