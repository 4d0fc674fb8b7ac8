"""The simulation: a scenario's days as rows of the lake's `events`, as wire JSON, or as files in a lake.

What does not belong here: how anyone plays (`players.py`, `play.py`) or cheats (`cheats.py`).
"""

from collections.abc import Iterator
from datetime import date

import msgspec
import numpy as np
import pyarrow as pa

from pipelines.simulation.arrays import Codes, Flags, Ints
from pipelines.simulation.cheats import NAMES, Cheaters, draw_cheaters, plan_cheats
from pipelines.simulation.play import (
    ACTIVITIES,
    BOSS_KILL,
    BOSSES,
    DIFFICULTIES,
    DROP_CLAIMED,
    ITEMS,
    PROGRESSION,
    RARITIES,
    TYPES,
    Played,
    play,
)
from pipelines.simulation.players import draw_players, plan_day
from pipelines.simulation.scenario import Scenario
from warehouse.calendar import ONE_DAY, Calendar
from warehouse.errors import FairboardError
from warehouse.lake import Lake
from warehouse.tables import EVENTS

KEY_ID = "simulation"
BATCH_S = 5
_LONGEST_DAY_S = 26 * 3600  # no clock change adds more than an hour or two
PART_EVENTS = 1_000_000  # a part is made in memory at once; this many events take about 0.5 GB on the way
_PEOPLE, _CHEATERS, _HONEST, _CHEATING, _ARRIVAL = range(5)  # streams of random numbers that do not disturb each other


class Simulation:
    """One scenario, played. Any day can be had at any time, in any order: its random numbers are its own.

    `until` (seconds since the epoch) is where the last day ends so far: its events are squeezed between its midnight and that
    moment, so that none is ahead of the clock and none is lost.
    """

    def __init__(self, scenario: Scenario, calendar: Calendar, until: int | None = None) -> None:
        if until is not None and until <= calendar.starts_at(scenario.days.last):
            raise FairboardError(f"{scenario.days.last} has not begun at {until}; nothing was simulated.")
        self.scenario = scenario
        self._calendar = calendar
        self._until = until
        self._players = draw_players(scenario, self._random(_PEOPLE))
        self._cheaters = draw_cheaters(scenario, self._players, self._random(_CHEATERS))
        self._digits = max(5, len(str(scenario.players - 1)))
        self._names = _numbered("player_", (np.arange(scenario.players), self._digits))

    @property
    def truth(self) -> pa.Table:
        """The planted cheaters: player_id, kind, from_day."""
        days = list(self.scenario.days)
        return pa.table(
            {
                "player_id": self._names.take(self._cheaters.player),
                "kind": _names(NAMES, self._cheaters.kind),
                "from_day": pa.array([days[at] for at in self._cheaters.start], pa.date32()),
            }
        )

    def day(self, day: date) -> pa.Table:
        """The day's events, sorted as the lake sorts them. Schema: `EVENTS.file_schema`."""
        return pa.concat_tables([EVENTS.file_schema.empty_table(), *self.parts(day)])

    def parts(self, day: date) -> Iterator[pa.Table]:
        """The day's events in parts of about a million, each of its own players: what memory can hold of a huge day."""
        if day not in self.scenario.days:
            raise FairboardError(f"{day} is not within {self.scenario.days}; nothing was simulated.")
        step = max(1, round(PART_EVENTS / self.scenario.events_per_player_day))
        for part, first in enumerate(range(0, self.scenario.players, step)):
            yield self._part(day, part, first, min(first + step, self.scenario.players))

    def _part(self, day: date, part: int, first: int, stop: int) -> pa.Table:
        """Part number `part` of the day: the events of players `first` to `stop`."""
        index = (day - self.scenario.days.first).days
        midnight = self._calendar.starts_at(day)
        day_s = self._calendar.starts_at(day + ONE_DAY) - midnight
        share = 1.0
        if self._until is not None and day == self.scenario.days.last:
            share = min(1.0, (self._until - midnight) / day_s)
        played = self._played(index, part, first, stop, day_s)
        return self._table(played, index, midnight, share)

    def _played(self, index: int, part: int, first: int, stop: int, day_s: int) -> Played:
        """What players `first` to `stop` do on day number `index`; of those who cheat, that instead of the honest."""
        rng = self._random(_HONEST, index, part)
        plan = plan_day(self.scenario, self._players.take(slice(first, stop)), first, index, rng)
        played = play(plan, day_s, self.scenario.corrections, rng)
        cheating = self._cheating(index, first, stop)
        if not len(cheating.player):
            return played
        rng = self._random(_CHEATING, index, part)
        plan = plan_cheats(plan.take(cheating.player - first), cheating, index, rng)
        return _replaced(played, play(plan, day_s, self.scenario.corrections, rng), cheating)

    def _cheating(self, index: int, first: int, stop: int) -> Cheaters:
        """Those of players `first` to `stop` who cheat on day number `index`."""
        every = self._cheaters
        here = np.flatnonzero((every.player >= first) & (every.player < stop) & (every.start <= index))
        return every.take(here)

    def _table(self, played: Played, index: int, midnight: int, share: float) -> pa.Table:
        second = np.floor(played.second * share).astype(np.int64)
        gains, kills, drops = (played.type == kind for kind in (PROGRESSION, BOSS_KILL, DROP_CLAIMED))
        fights = kills | drops
        n = len(second)
        columns = {
            "event_id": self._ids(played.player, index),
            "type": _names(TYPES, played.type),
            "player_id": self._names.take(played.player),
            "ts": pa.array(midnight + second),
            "received_ms": pa.array(midnight * 1000 + self._arrivals(index)[second // BATCH_S]),
            "key_id": pa.repeat(KEY_ID, n),
            "delta_xp": pa.array(played.xp, mask=~gains),
            "activity": _names(ACTIVITIES, played.activity, gains),
            "boss_id": _names(BOSSES, played.boss, fights),
            "duration_ms": pa.array(played.duration_ms, mask=~kills),
            "party_size": pa.array(played.party, mask=~kills),
            "difficulty": _names(DIFFICULTIES, played.difficulty, kills),
            "item_id": _names(ITEMS, played.boss * len(RARITIES) + played.rarity, drops),
            "rarity": _names(RARITIES, played.rarity, drops),
            "quantity": pa.array(np.ones(n, np.int64), mask=~drops),
            "extra": pa.nulls(n, pa.string()),
        }
        return pa.table(columns, schema=EVENTS.file_schema)

    def _ids(self, player: Ints, index: int) -> pa.StringArray:
        """`sim-{seed}-{day}-{player}-{number}`: each player's client numbers its own events of the day."""
        first = np.flatnonzero(np.diff(player, prepend=-1))
        counts = np.diff(first, append=len(player))
        number = np.arange(len(player)) - np.repeat(first, counts)
        digits = max(4, len(str(counts.max(initial=0))))
        return _numbered(f"sim-{self.scenario.seed}-{index}-", (player, self._digits), (number, digits))

    def _arrivals(self, index: int) -> Ints:
        """When the day's batches arrive, in ms of the day: the game's servers send one every few seconds."""
        batches = _LONGEST_DAY_S // BATCH_S
        late = self._random(_ARRIVAL, index).integers(20, 400, batches)
        arrivals: Ints = np.arange(1, batches + 1) * BATCH_S * 1000 + late
        return arrivals

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.scenario.seed, *stream])


def _replaced(played: Played, cheated: Played, cheating: Cheaters) -> Played:
    """The events of the honest as they were, and of those who cheat the others."""
    kept = played.take(np.flatnonzero(~np.isin(played.player, cheating.player)))
    both = Played.concatenated([kept, cheated])
    return both.take(np.argsort(both.player, kind="stable"))


def _names(names: tuple[str, ...], codes: Codes, where: Flags | None = None) -> pa.StringArray:
    """The names that the codes stand for, NULL elsewhere."""
    indices = pa.array(codes, pa.int8(), mask=None if where is None else ~where)
    return pa.array(names, pa.string()).take(indices)


def _numbered(prefix: str, *numbers: tuple[Ints, int]) -> pa.StringArray:
    """The prefix and numbers of so many digits, joined by `-`: as bytes, because a million f-strings take half a second."""
    pattern = (prefix + "-".join("0" * digits for _, digits in numbers)).encode()
    text = np.tile(np.frombuffer(pattern, np.uint8), (len(numbers[0][0]), 1))
    end = len(prefix) - 1
    for values, digits in numbers:
        rest, end = values, end + 1 + digits
        for place in range(end - 1, end - 1 - digits, -1):
            rest, digit = np.divmod(rest, 10)
            text[:, place] += digit.astype(np.uint8)
    offsets = np.arange(len(text) + 1, dtype=np.int32) * len(pattern)
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets.data), pa.py_buffer(text.data))


_PAYLOADS = {
    "progression": {"deltaXp": "delta_xp", "activity": "activity"},
    "boss_kill": {"bossId": "boss_id", "durationMs": "duration_ms", "partySize": "party_size", "difficulty": "difficulty"},
    "drop_claimed": {"itemId": "item_id", "rarity": "rarity", "bossId": "boss_id", "quantity": "quantity"},
}


def wire(rows: pa.Table) -> Iterator[bytes]:
    """The same events as wire JSON, in the order of `rows`: lines of NDJSON, or bodies of POST /events."""
    encode = msgspec.json.Encoder().encode
    columns = ["event_id", "type", "player_id", "ts", *{column for names in _PAYLOADS.values() for column in names.values()}]
    places = {kind: [(name, columns.index(column)) for name, column in names.items()] for kind, names in _PAYLOADS.items()}
    for batch in rows.select(columns).to_batches(max_chunksize=50_000):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            payload = {name: row[place] for name, place in places[row[1]]}
            yield encode({"eventId": row[0], "type": row[1], "playerId": row[2], "ts": row[3], "payload": payload})


def land(lake: Lake, simulation: Simulation, day: date) -> int:
    """Write a day straight into the lake, a file per part. Returns its events."""
    landed = 0
    for number, rows in enumerate(simulation.parts(day)):
        lake.write(EVENTS, rows, {"event_date": day}, f"sim-{simulation.scenario.seed}-{number:04}")
        landed += rows.num_rows
    return landed
