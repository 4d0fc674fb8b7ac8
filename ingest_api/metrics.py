"""Counters of every process of the service, in one small mapped file each, so that any worker can answer for all.

A counter outlives a crash with its slot's file. What does not belong here: what is worth counting where it happens.
"""

import mmap
from pathlib import Path
from typing import Final, NamedTuple

_SUFFIX: Final = ".metrics"
_WIDTH: Final = 8
_STATUSES: Final = (200, 202, 204, 304, 400, 401, 404, 405, 408, 409, 410, 413, 415, 422, 429, 431, 500, 501, 503, 505)
_COMMIT_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)


class Series(NamedTuple):
    """One number with its labels."""

    name: str
    labels: str = ""


class Family(NamedTuple):
    """What Prometheus calls a metric."""

    name: str
    kind: str
    help: str


FAMILIES: Final = (
    Family("fairboard_ingest_requests_total", "counter", "Answers, by status."),
    Family("fairboard_ingest_events_total", "counter", "Events, by what became of them at the door."),
    Family("fairboard_ingest_bytes_total", "counter", "Bytes of bodies as they were sent."),
    Family("fairboard_ingest_commit_seconds", "histogram", "Time of a group commit, fsync included."),
    Family("fairboard_ingest_commit_failures_total", "counter", "Group commits that failed; their requests got 503."),
    Family("fairboard_ingest_without_redis_total", "counter", "Requests that were answered without asking Redis."),
    Family("fairboard_ingest_redis_up", "gauge", "1 where the worker reaches Redis."),
    Family("fairboard_ingest_accepting", "gauge", "1 where the worker accepts events."),
    Family("fairboard_ingest_connections", "gauge", "Open connections."),
    Family(
        "fairboard_ingest_connections_refused_total", "counter", "Connections turned away, of an address or in all too many."
    ),
    Family("fairboard_ingest_journal_bytes", "gauge", "Journal that is not sealed yet."),
    Family("fairboard_ingest_disk_free_bytes", "gauge", "Room on the journal's disk."),
    Family("fairboard_read_warehouse_total", "counter", "Reads that Redis could not answer."),
    Family("fairboard_seal_events_total", "counter", "Events sealed into Parquet."),
    Family("fairboard_seal_rejects_total", "counter", "Refused events sealed into Parquet."),
    Family("fairboard_seal_segments_total", "counter", "Segments sealed."),
    Family("fairboard_seal_failures_total", "counter", "Tries to seal that failed."),
    Family("fairboard_seal_stuck", "gauge", "1 where events cannot be sealed; /readyz and the log say why."),
    Family("fairboard_seal_damaged_total", "counter", "Segments set aside because they cannot be read."),
    Family(
        "fairboard_lake_damaged_files",
        "gauge",
        "Files of events set aside as damaged: their days wait for a decision (doctor).",
    ),
)

_SERIES: Final = (
    *(Series("fairboard_ingest_requests_total", f'status="{status}"') for status in _STATUSES),
    *(Series("fairboard_ingest_events_total", f'result="{result}"') for result in ("accepted", "duplicate", "rejected")),
    *(Series("fairboard_ingest_commit_seconds_bucket", f'le="{bound}"') for bound in (*_COMMIT_BOUNDS_S, "+Inf")),
    Series("fairboard_ingest_commit_seconds_sum"),
    Series("fairboard_ingest_commit_seconds_count"),
    *(Series(family.name) for family in FAMILIES[2:] if family.kind != "histogram"),
)
_PLACES: Final = {series: place for place, series in enumerate(_SERIES)}
_UNLABELLED: Final = {series.name: place for series, place in _PLACES.items() if not series.labels}
_REQUESTS: Final = {status: place for place, status in enumerate(_STATUSES)}
_EVENTS: Final = len(_STATUSES)
_COMMITS: Final = _EVENTS + 3
_COMMIT_SUM: Final = _COMMITS + len(_COMMIT_BOUNDS_S) + 1


class Metrics:
    """The numbers of one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.folder = path.parent
        size = len(_SERIES) * _WIDTH
        with path.open("a+b") as file:
            file.truncate(size)
            self._values = memoryview(mmap.mmap(file.fileno(), size)).cast("d")

    @classmethod
    def of(cls, root: Path, name: str) -> "Metrics":
        """The numbers of the process of that name, in the journal's folder."""
        return cls(root / f"{name}{_SUFFIX}")

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._values[_REQUESTS[status]] += 1

    def events(self, accepted: int, duplicates: int, rejected: int) -> None:
        """Count the events of an answer."""
        self._values[_EVENTS] += accepted
        self._values[_EVENTS + 1] += duplicates
        self._values[_EVENTS + 2] += rejected

    def committed(self, seconds: float) -> None:
        """Count a group commit."""
        for place, bound in enumerate(_COMMIT_BOUNDS_S):
            if seconds <= bound:
                self._values[_COMMITS + place] += 1
        self._values[_COMMITS + len(_COMMIT_BOUNDS_S)] += 1
        self._values[_COMMIT_SUM] += seconds
        self._values[_COMMIT_SUM + 1] += 1

    def add(self, name: str, amount: float = 1) -> None:
        """Raise a counter that has no labels."""
        self._values[_UNLABELLED[name]] += amount

    def put(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._values[_UNLABELLED[name]] = value

    def remove(self) -> None:
        """Take the file away: this process ends as it should, and its gauges mean nothing any more."""
        self._path.unlink(missing_ok=True)


def exposition(root: Path) -> str:
    """Every process's numbers in Prometheus' text format, labelled with the process."""
    files = {path.stem: memoryview(path.read_bytes()).cast("d") for path in sorted(root.glob(f"*{_SUFFIX}"))}
    lines = []
    for family in FAMILIES:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for series, place in _PLACES.items():
            if series.name == family.name or series.name.startswith(f"{family.name}_"):
                labels = f",{series.labels}" if series.labels else ""
                lines += [f'{series.name}{{worker="{name}"{labels}}} {values[place]:g}' for name, values in files.items()]
    return "\n".join(lines) + "\n"
