"""The journal as a state machine: in whatever order it is written, committed, sealed and killed, nothing committed is lost."""

import json
import shutil
import tempfile
import time
from pathlib import Path

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest_api import ids
from ingest_api.ids import derived_base
from ingest_api.journal import Journal, Slot, journal_dir
from ingest_api.sealer import seal_once
from ingest_api.segment import Entry
from tests.ingest_fixtures import progression
from tests.lake_fixtures import paths_of
from warehouse.settings import Settings
from warehouse.tables import EVENTS


class Crashes(RuleBasedStateMachine):
    """One journal; a crash is an image of the files as they lie, taken while the process still holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="machine-"))
        self.lives = 0
        self.folder = self.top / "0"
        self.number = 0
        self.put: set[str] = set()
        self.committed: set[str] = set()
        self.skew_ns = 0
        self.real_time_ns = time.time_ns
        ids.time.time_ns = lambda: self.real_time_ns() + self.skew_ns
        self.journal: Journal | None = None

    @property
    def configured(self) -> Settings:
        return Settings(data_dir=self.folder, _env_file=None)

    def alive(self) -> Journal:
        if self.journal is None:
            self.journal = Journal(Slot.claim(journal_dir(self.configured)), 3600, 1 << 30)
        return self.journal

    @precondition(lambda self: not self.put)
    @rule(events=st.integers(1, 4))
    def write(self, events: int) -> None:
        self.number += 1
        names = [f"{self.number}-{n}" for n in range(events)]
        body = json.dumps([progression(eventId=name) for name in names]).encode()
        entry = Entry(1_790_000_000_000, "k", derived_base(b"%d" % self.number, b""), "r", "array", body, None)
        self.alive().put([entry], [], len(body))
        self.put = set(names)

    @precondition(lambda self: self.put)
    @rule()
    def commit(self) -> None:
        self.alive().commit()
        self.committed |= self.put
        self.put = set()

    @precondition(lambda self: not self.put)
    @rule()
    def rotate(self) -> None:
        self.alive().rotate()
        for finishing in list(self.alive()._finishing):  # noqa: SLF001 - an image is taken file by file: no name may change meanwhile
            finishing.result()

    @rule(hours=st.integers(-48, 48))
    def set_the_clock(self, hours: int) -> None:
        self.skew_ns = hours * 3_600 * 1_000_000_000

    @rule()
    def seal(self) -> None:
        seal_once(self.configured)

    @rule()
    def crash(self) -> None:
        self.lives += 1
        image = self.top / str(self.lives)
        if self.folder.exists():
            shutil.copytree(self.folder, image)
        if self.journal is not None and not self.put:
            self.journal.close()
        self.journal, self.folder, self.put = None, image, set()

    @invariant()
    def what_lies_in_the_lake_was_committed(self) -> None:
        assert self.sealed() <= self.committed

    def sealed(self) -> set[str]:
        if not (self.folder / "lake").exists():
            return set()
        files = paths_of(Settings(data_dir=self.folder, _env_file=None), EVENTS)
        names = [name for file in files for name in pl.read_parquet(file)["event_id"]]
        assert len(names) == len(set(names))
        return set(names)

    def teardown(self) -> None:
        if self.put:
            self.commit()
        if self.journal is not None:
            self.journal.close()
        seal_once(self.configured)
        assert self.sealed() == self.committed
        ids.time.time_ns = self.real_time_ns
        shutil.rmtree(self.top)


Crashes.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestCrashes = Crashes.TestCase
