"""The simulated game: the same every time, within the contract, and its planted truth is true."""

import gzip
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipelines.simulation import KINDS, Scenario, Simulation, demo_scenario, land, wire
from warehouse import folds
from warehouse.calendar import ONE_DAY, Calendar, Days
from warehouse.engine import DuckDBEngine
from warehouse.errors import FairboardError
from warehouse.events import AHEAD_S, decode_event
from warehouse.imports import import_file
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS, PLAYER_DAYS, Table

UTC = Calendar("month", ZoneInfo("UTC"))
BERLIN = Calendar("month", ZoneInfo("Europe/Berlin"))
TEN_DAYS = Days(date(2026, 3, 23), date(2026, 4, 1))  # holds the day in March that has 23 hours in Berlin
CONTENT = [name for name in EVENTS.file_schema.names if name != "event_id"]


def small(**changes: object) -> Scenario:
    return replace(Scenario(players=600, days=TEN_DAYS, seed=3, events_per_player_day=8), **changes)  # type: ignore[arg-type]


def every_kind(each: int = 3, **changes: object) -> Scenario:
    return small(cheaters=dict.fromkeys(KINDS, each), **changes)


def frame(simulation: Simulation, days: Days | None = None) -> pl.DataFrame:
    tables = [(day, simulation.day(day)) for day in days or simulation.scenario.days]
    rows = [pl.DataFrame(table).with_columns(event_date=pl.lit(day)) for day, table in tables]
    return pl.concat(rows)


def truth(simulation: Simulation) -> pl.DataFrame:
    return pl.DataFrame(simulation.truth)


def table(engine: DuckDBEngine, of: Table) -> pl.DataFrame:
    return pl.read_parquet(engine.lake.paths(engine.lake.files(of)), hive_partitioning=True)


def engine_in(folder: Path, timezone: str = "UTC") -> DuckDBEngine:
    return DuckDBEngine(Settings(data_dir=folder, timezone=timezone, _env_file=None))  # type: ignore[call-arg]


class TestDeterminism:
    def test_the_same_scenario_gives_the_same_events_in_whatever_order_the_days_are_asked_for(self):
        forth, back = Simulation(every_kind(), UTC), Simulation(every_kind(), UTC)
        forwards = {day: forth.day(day) for day in TEN_DAYS}
        backwards = {day: back.day(day) for day in reversed(list(TEN_DAYS))}
        assert all(forwards[day].equals(backwards[day]) for day in TEN_DAYS)
        assert forth.truth.equals(back.truth)

    def test_landing_twice_gives_the_same_bytes(self, tmp_path):
        scenario = every_kind(each=1)
        with engine_in(tmp_path / "a") as a, engine_in(tmp_path / "b") as b:
            for engine in (a, b):
                land(engine.lake, Simulation(scenario, UTC), TEN_DAYS.last)
            (first,), (second,) = (engine.lake.paths(engine.lake.files(EVENTS)) for engine in (a, b))
            assert first.read_bytes() == second.read_bytes()
            assert first.name == second.name

    def test_another_seed_gives_other_events(self):
        assert not Simulation(small(), UTC).day(TEN_DAYS.first).equals(Simulation(small(seed=4), UTC).day(TEN_DAYS.first))


class TestContract:
    @pytest.fixture
    def simulation(self):
        return Simulation(every_kind(), BERLIN)

    def test_every_wire_event_is_one_that_the_service_accepts(self, simulation):
        seen = set()
        for day in TEN_DAYS:
            midnight, end = BERLIN.starts_at(day), BERLIN.starts_at(day + ONE_DAY)
            for body in wire(simulation.day(day)):
                event = decode_event(body)
                assert midnight <= event.ts < end
                seen.add(type(event).__name__)
        assert seen == {"Progression", "BossKill", "DropClaimed"}

    def test_ids_are_unique_over_all_days_and_players(self, simulation):
        assert frame(simulation)["event_id"].is_unique().all()

    def test_ids_do_not_tell_who_cheats(self):
        clean, cheated = (frame(Simulation(s, UTC))["event_id"].str.replace_all(r"\d", "0") for s in (small(), every_kind()))
        assert set(clean) == set(cheated)

    def test_rows_are_as_the_lake_has_them(self, simulation):
        rows = simulation.day(TEN_DAYS.first)
        assert rows.schema == EVENTS.file_schema
        assert rows.equals(rows.sort_by([(name, "ascending") for name in EVENTS.sort]))

    def test_the_mean_of_events_is_what_was_asked_for(self):
        rows = frame(Simulation(small(players=3_000), UTC))
        assert rows.height / (3_000 * len(TEN_DAYS)) == pytest.approx(8, rel=0.12)

    def test_a_huge_day_comes_in_parts_of_different_players(self, monkeypatch, tmp_path):
        monkeypatch.setattr("pipelines.simulation.game.PART_EVENTS", 800)
        simulation = Simulation(small(), UTC)
        parts = [set(part["player_id"].to_pylist()) for part in simulation.parts(TEN_DAYS.first)]
        assert len(parts) == 6
        assert sum(map(len, parts)) == len(set().union(*parts))
        with engine_in(tmp_path) as engine:
            landed = land(engine.lake, simulation, TEN_DAYS.first)
            assert [file.label for file in engine.lake.files(EVENTS)] == [f"sim-3-{n:04}" for n in range(6)]
            assert landed == simulation.day(TEN_DAYS.first).num_rows

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"players": 0}, "needs players"),
            ({"seed": -1}, "seed of 0 or more"),
            ({"cheaters": {"xp_x10": 601}}, "more than 600 players"),
            ({"cheats_from": Days(date(2026, 4, 1), date(2026, 4, 2))}, "not within"),
            ({"cheaters": {"wallhack": 1}}, "no way to cheat called wallhack"),
        ],
    )
    def test_a_scenario_that_cannot_be_is_refused(self, wrong, says):
        with pytest.raises(FairboardError, match=says):
            Simulation(small(**wrong), UTC)

    def test_a_day_outside_is_refused(self, simulation):
        with pytest.raises(FairboardError, match="is not within"):
            simulation.day(TEN_DAYS.first - ONE_DAY)


class TestUntil:
    @pytest.mark.parametrize("elapsed_s", [1, 60, 3_600, 43_200, 86_400, 90_000])
    def test_no_event_is_ahead_of_the_clock_and_none_is_lost(self, elapsed_s):
        midnight = UTC.starts_at(TEN_DAYS.last)
        whole = Simulation(every_kind(), UTC).day(TEN_DAYS.last)
        squeezed = Simulation(every_kind(), UTC, until=midnight + elapsed_s).day(TEN_DAYS.last)
        ts = squeezed["ts"].to_numpy()
        assert midnight <= ts.min() <= ts.max() < midnight + min(elapsed_s, 86_400)
        same = [name for name in EVENTS.file_schema.names if name not in ("ts", "received_ms")]
        assert squeezed.select(same).equals(whole.select(same))
        assert squeezed.equals(squeezed.sort_by([(name, "ascending") for name in EVENTS.sort]))

    def test_only_the_last_day_is_squeezed(self):
        until = UTC.starts_at(TEN_DAYS.last) + 60
        before = TEN_DAYS.last - ONE_DAY
        assert Simulation(small(), UTC, until=until).day(before).equals(Simulation(small(), UTC).day(before))

    def test_a_day_that_has_not_begun_is_refused(self):
        with pytest.raises(FairboardError, match="has not begun"):
            Simulation(small(), UTC, until=UTC.starts_at(TEN_DAYS.last))

    def test_the_demo_is_accepted_right_after_midnight(self):
        now = UTC.starts_at(TEN_DAYS.last) + 1
        rows = Simulation(demo_scenario(TEN_DAYS.last), UTC, until=now).day(TEN_DAYS.last)
        assert max(rows["ts"].to_pylist()) <= now + AHEAD_S


@pytest.fixture(scope="module")
def simulation():
    return Simulation(every_kind(), UTC)


@pytest.fixture(scope="module")
def rows(simulation):
    return frame(simulation)


@pytest.fixture(scope="module")
def honest():
    return frame(Simulation(small(), UTC))


class TestTruth:
    """A scenario with cheaters and one without differ in what the cheaters did since they began, and in nothing else."""

    def cheated(self, simulation, rows, kind, days: int = 99) -> pl.DataFrame:
        """What that kind of cheater did, on so many days from the first."""
        return rows.join(truth(simulation).filter(kind=kind), on="player_id").filter(
            pl.col("event_date") >= pl.col("from_day"),
            pl.col("event_date") < pl.col("from_day") + timedelta(days=days),
        )

    def test_there_are_as_many_as_planted_and_each_begins_in_time(self, simulation):
        found = truth(simulation)
        assert dict(found.group_by("kind").len().iter_rows()) == dict.fromkeys(KINDS, 3)
        assert found["player_id"].is_unique().all()
        assert set(found["from_day"]) <= set(simulation.scenario.cheating_starts)

    def test_nobody_else_and_no_earlier_day_is_touched(self, simulation, rows, honest):
        def untouched(events: pl.DataFrame) -> pl.DataFrame:
            events = events.join(truth(simulation), on="player_id", how="left")
            events = events.filter(pl.col("from_day").is_null() | (pl.col("event_date") < pl.col("from_day")))
            return events.select("event_date", *CONTENT)

        assert_frame_equal(untouched(rows), untouched(honest))

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_plays_and_cheats_on_the_first_day(self, simulation, rows, honest, kind):
        first = self.cheated(simulation, rows, kind, days=1)
        assert (first.group_by("player_id").len()["len"] >= 20).all()
        assert first["player_id"].n_unique() == 3
        for player, events in first.group_by("player_id"):
            day = honest.filter(player_id=player[0], event_date=events["event_date"][0])
            assert not events.select(CONTENT).equals(day.select(CONTENT))

    @pytest.mark.parametrize(("kind", "factor"), [("xp_x1.5", 1.5), ("xp_x3", 3.0), ("xp_x10", 10.0)])
    def test_multipliers_multiply(self, rows, honest, simulation, kind, factor):
        gains = pl.col("delta_xp").filter(pl.col("delta_xp") > 0).log().mean().exp()
        before = honest.join(truth(simulation).filter(kind=kind), on="player_id").select(gains).item()
        assert self.cheated(simulation, rows, kind).select(gains).item() / before == pytest.approx(factor, rel=0.25)

    def test_bots_are_even_and_hardly_sleep(self, simulation, rows):
        for _, day in self.cheated(simulation, rows, "bot").group_by("player_id", "event_date"):
            gaps = day.sort("ts")["ts"].diff().drop_nulls()
            assert day["ts"].max() - day["ts"].min() == pytest.approx(20 * 3600, rel=0.02)
            assert gaps.std() / gaps.mean() < 0.15  # type: ignore[operator]

    def test_bosses_fall_impossibly_fast(self, simulation, rows, honest):
        median = honest.group_by("boss_id", "party_size", "difficulty").agg(usual=pl.col("duration_ms").median())
        kills = (
            self.cheated(simulation, rows, "boss_time")
            .filter(type="boss_kill")
            .join(median, on=["boss_id", "party_size", "difficulty"])
        )
        assert kills.height > 10
        assert (kills["duration_ms"] / kills["usual"]).max() < 0.35

    def test_lucky_players_find_more(self, simulation, rows, honest):
        def rate(events: pl.DataFrame) -> float:
            return events.filter(pl.col("rarity") != "common").height / events.filter(type="boss_kill").height

        assert rate(honest) == pytest.approx(0.078, rel=0.25)
        assert rate(self.cheated(simulation, rows, "lucky_drops")) > 3 * rate(honest)

    def test_injections_are_few_and_huge(self, simulation, rows, honest):
        largest = honest["delta_xp"].max()
        assert isinstance(largest, int)
        huge = self.cheated(simulation, rows, "injection").filter(pl.col("delta_xp") > 3 * largest)
        assert (huge.group_by("player_id", "event_date").len()["len"] <= 3).all()
        assert (huge["event_date"] == huge["from_day"]).sum() >= 3

    def test_a_ramp_is_slow(self):
        days = Days(date(2026, 1, 1), date(2026, 2, 19))
        simulation = Simulation(small(days=days, players=300, cheaters={"slow_ramp": 20}), UTC)
        gains = pl.col("delta_xp").filter(pl.col("delta_xp") > 0).log().mean()
        day = (pl.col("event_date") - pl.col("from_day")).dt.total_days()
        ramp = self.cheated(simulation, frame(simulation), "slow_ramp").group_by(day.alias("day")).agg(gains).sort("day")
        assert ramp["delta_xp"].head(3).mean() < ramp["delta_xp"].mean() < ramp["delta_xp"].tail(3).mean()  # type: ignore[operator]
        assert ramp["delta_xp"].diff().abs().max() < 0.5  # type: ignore[operator]

    def test_a_stolen_account_keeps_other_hours(self, simulation, rows):
        stolen = truth(simulation).filter(kind="stolen_account")
        hours = rows.join(stolen, on="player_id").with_columns(
            after=pl.col("event_date") >= pl.col("from_day"), angle=(pl.col("ts") % 86_400) * (2 * 3.14159265 / 86_400)
        )
        means = hours.group_by("player_id", "after").agg(
            hour=pl.arctan2(pl.col("angle").sin().mean(), pl.col("angle").cos().mean()) * 12 / 3.14159265
        )
        for _, player in means.group_by("player_id"):
            apart = abs(player["hour"][0] - player["hour"][1])
            assert min(apart, 24 - apart) > 4

    def test_double_xp_and_a_patch_move_everyone(self, honest):
        doubled, patched = date(2026, 3, 28), date(2026, 3, 31)
        shaken = frame(Simulation(small(double_xp=Days(doubled, doubled + ONE_DAY), patch_day=patched), UTC))
        assert shaken.height == honest.height
        ratio = (shaken["delta_xp"] / honest["delta_xp"]).alias("ratio")
        by_day = dict(honest.with_columns(ratio).group_by("event_date").agg(pl.col("ratio").median()).iter_rows())
        assert [round(by_day[day], 1) for day in TEN_DAYS] == [1.0] * 5 + [2.0, 2.0] + [1.0] + [1.3, 1.3]
        kills = (shaken["duration_ms"] / honest["duration_ms"]).filter(honest["event_date"] >= patched)
        assert kills.median() == pytest.approx(0.85, abs=0.01)


def test_wire_and_land_give_the_same_player_days(tmp_path):
    simulation = Simulation(every_kind(each=1), BERLIN)
    days = Days(TEN_DAYS.last - 3 * ONE_DAY, TEN_DAYS.last)
    file = tmp_path / "events.ndjson.gz"
    file.write_bytes(gzip.compress(b"\n".join(body for day in days for body in wire(simulation.day(day)))))
    with engine_in(tmp_path / "landed", "Europe/Berlin") as landed, engine_in(tmp_path / "sent", "Europe/Berlin") as sent:
        count = sum(land(landed.lake, simulation, day) for day in days)
        assert import_file(sent.lake, BERLIN, file).accepted == count
        for engine in (landed, sent):
            assert folds.fold(engine, "events", days).rows == count
            folds.fold(engine, "player_days", days)
        assert_frame_equal(table(landed, PLAYER_DAYS), table(sent, PLAYER_DAYS))


@pytest.mark.parametrize("today", [date(2026, 11, 23), date(2026, 11, 28)])
def test_the_demo_flags_those_who_cheat_and_hardly_anybody_else(tmp_path, today):
    with engine_in(tmp_path) as engine:
        scenario = demo_scenario(today)
        simulation = Simulation(scenario, engine.calendar, until=engine.calendar.starts_at(today) + 61)
        assert 60_000 <= sum(land(engine.lake, simulation, day) for day in scenario.days) <= 100_000
        for name in ("player_days", "player_boss_days", "player_item_days", "fairness"):
            folds.fold(engine, name, scenario.days)
        planted = set(truth(simulation)["player_id"])
        flagged = table(engine, FAIRNESS).filter(event_date=today, verdict="flagged")
        suspects = flagged.filter(rule="suspicion").sort("p")["player_id"].to_list()
        assert set(suspects[:12]) == planted
        assert len(suspects) <= 13
        assert planted <= set(flagged.filter(rule="self")["player_id"])
