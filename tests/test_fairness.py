"""The fairness rules: their statistics against SciPy's, and what they say of honest, odd and cheating players."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import Land, at, progression
from scipy import stats

from warehouse.calendar import Days
from warehouse.engine import DuckDBEngine
from warehouse.errors import SettingsError
from warehouse.fairness.rules import RULES
from warehouse.fairness.statistics import binomial_tail, normal_tail, of_the_smallest, robust_z, student_tail
from warehouse.fairness.suspicion import suspicions, with_q
from warehouse.folds import FOLDS, fold
from warehouse.settings import DATA, Settings

LAST = date(2026, 5, 20)
DAYS = Days(LAST - timedelta(days=14), LAST)
RNG = np.random.default_rng(1)


def judged(settings: Settings, days: Days = DAYS) -> pl.DataFrame:
    """Everything folded; the last day's rows of `fairness`."""
    with DuckDBEngine(settings) as engine:
        for name in FOLDS:
            fold(engine, name, days)
        engine.bind_all()
        return engine.connection.sql("SELECT * FROM fairness WHERE event_date = $day", params={"day": days.last}).pl()


def row(rows: pl.DataFrame, player: str, rule: str) -> dict[str, Any]:
    return rows.row(by_predicate=(pl.col("player_id") == player) & (pl.col("rule") == rule), named=True)


def crowd(players: int = 40, each: int = 12, factor_today: float = 1.0, seed: int = 1) -> list[dict[str, Any]]:
    """Players with log-normal XP at uneven times, every day."""
    rng, events = np.random.default_rng(seed), []
    for day in DAYS:
        for player in range(players):
            seconds = np.sort(rng.integers(8 * 3600, 20 * 3600, each))
            xp = np.exp(rng.normal(4.6, 0.4, each)) * (factor_today if day == LAST else 1.0)
            for second, gain in zip(seconds.tolist(), xp.tolist(), strict=True):
                event = progression(f"p{player:02}", str(day), round(gain))
                events.append(event | {"ts": at(str(day), "00:00:00") + second})
    return events


def today(player: str, *gains: int, every_s: int = 600) -> list[dict[str, Any]]:
    start = at(str(LAST), "09:00:00")
    return [
        progression(player, str(LAST), xp) | {"ts": start + every_s * n, "eventId": f"{player}-{n}"}
        for n, xp in enumerate(gains)
    ]


def kill(player: str, day: date, ms: int, second: int, **more: Any) -> dict[str, Any]:
    payload = {"bossId": "hydra", "durationMs": ms, "partySize": 1, "difficulty": "normal"}
    return {"type": "boss_kill", "playerId": player, "ts": at(str(day)) + second, "payload": payload, **more}


def drop(player: str, day: date, second: int, item: str = "crown") -> dict[str, Any]:
    payload = {"bossId": "hydra", "itemId": item, "rarity": "legendary"}
    return {"type": "drop_claimed", "playerId": player, "ts": at(str(day)) + second, "payload": payload}


class TestStatistics:
    def test_tails_are_scipys(self):
        z = RNG.normal(0, 4, 200)
        assert normal_tail(pl.Series(z)).to_numpy() == pytest.approx(stats.norm.sf(z), rel=1e-12)
        freedom = RNG.uniform(1, 60, 200)
        assert student_tail(pl.Series(z), pl.Series(freedom)).to_numpy() == pytest.approx(stats.t.sf(z, freedom), rel=1e-9)
        trials = RNG.integers(1, 200, 200)
        hits, chance = RNG.integers(0, trials + 1), RNG.uniform(0.001, 0.5, 200)
        exact = [stats.binomtest(int(k), int(n), p, "greater").pvalue for k, n, p in zip(hits, trials, chance, strict=True)]
        assert binomial_tail(pl.Series(hits), pl.Series(trials), pl.Series(chance)).to_numpy() == pytest.approx(exact, rel=1e-9)

    def test_the_smallest_of_many_p_is_adjusted_for_them(self):
        p, tests = RNG.uniform(0, 0.1, 50), RNG.integers(1, 30, 50)
        assert of_the_smallest(pl.Series(p), pl.Series(tests)).to_numpy() == pytest.approx(
            stats.beta.cdf(p, 1, tests), rel=1e-9
        )

    def test_robust_z_is_the_modified_z_score(self):
        x = RNG.lognormal(size=101)
        z = pl.DataFrame({"x": x, "day": 1}).select(robust_z("x", ["day"]))["z"].to_numpy()
        assert z == pytest.approx((x - np.median(x)) / stats.median_abs_deviation(x, scale="normal"), rel=1e-4)

    @pytest.mark.parametrize(("x", "expected"), [([5.0] * 9 + [50.0], 45 / (1.2533 * 4.5)), ([5.0] * 10, 0.0)])
    def test_without_a_mad_the_mean_deviation_serves_and_equals_are_equal(self, x: list[float], expected: float):
        z = pl.DataFrame({"x": x, "day": 1}).select(robust_z("x", ["day"]))["z"]
        assert z[-1] == pytest.approx(expected)

    def test_q_is_benjamini_hochbergs_per_day_and_rule(self):
        frames = []
        for day, rule in ((date(2026, 5, 1), "a"), (date(2026, 5, 2), "a"), (date(2026, 5, 2), "b")):
            p = RNG.uniform(size=60) ** 3
            p[:3] = p[3]  # ties
            players = [f"p{n}" for n in range(60)]
            frames.append(pl.DataFrame({"event_date": day, "rule": rule, "player_id": players, "p": p}))
        untested = frames[0].head(5).with_columns(player_id="x" + pl.col("player_id"), p=pl.lit(None, pl.Float64))
        for group in with_q(pl.concat([*frames, untested])).drop_nulls("p").partition_by("event_date", "rule"):
            assert group["q"].to_numpy() == pytest.approx(stats.false_discovery_control(group["p"].to_numpy()), rel=1e-12)

    def test_q_of_those_not_tested_is_nothing(self):
        rows = pl.DataFrame({"event_date": [LAST] * 3, "rule": "a", "player_id": ["a", "b", "c"], "p": [0.01, None, 0.5]})
        assert dict(with_q(rows).select("player_id", "q").iter_rows()) == {"a": pytest.approx(0.02), "b": None, "c": 0.5}

    def test_the_suspicion_is_the_harmonic_mean_and_holds_under_dependence(self):
        p = [0.001, 0.5, 0.2, None]
        rows = pl.DataFrame({"event_date": LAST, "player_id": "a", "rule": ["a", "b", "c", "d"], "p": p})
        assert suspicions(rows)["p"][0] == pytest.approx(stats.hmean(p[:3]))
        rng = np.random.default_rng(3)
        z = 0.7**0.5 * rng.normal(size=(20_000, 1)) + 0.3**0.5 * rng.normal(size=(20_000, 8))
        combined = stats.hmean(stats.norm.sf(z), axis=1)
        assert (combined <= 0.001).mean() < 0.002


class TestRules:
    def test_a_multiplier_is_found_and_the_crowd_left_alone(self, settings: Settings, land: Land):
        land([*crowd(), *today("p07", *[400] * 12)])
        rows = judged(settings)
        suspects = rows.filter((pl.col("rule") == "suspicion") & (pl.col("verdict") == "flagged"))
        assert suspects["player_id"].to_list() == ["p07"]
        assert "p07-0" in row(rows, "p07", "suspicion")["evidence"]
        parts = rows.filter((pl.col("player_id") == "p07") & (pl.col("rule") != "suspicion"))
        assert parts["share"].sum() == pytest.approx(1.0)
        own = row(rows, "p07", "self_day")
        assert own["verdict"] == "flagged"
        assert (own["baseline_from"], own["baseline_to"]) == (LAST - timedelta(days=28), LAST - timedelta(days=1))
        assert own["baseline_n"] == 14 * 12
        assert 80 < own["baseline_center"] < 120

    def test_a_double_xp_day_flags_nobody_but_by_the_original_rule(self, settings: Settings, land: Land):
        land(crowd(factor_today=2.0))
        flagged = judged(settings).filter(pl.col("verdict") == "flagged")
        assert set(flagged["rule"]) == {"self"}

    def test_even_intervals_are_found(self, settings: Settings, land: Land):
        land([*crowd(each=40), *today("bot", *RNG.integers(60, 160, 60).tolist(), every_s=300)])
        rows = judged(settings)
        assert rows.filter((pl.col("rule") == "regularity") & (pl.col("verdict") == "flagged"))["player_id"].to_list() == [
            "bot"
        ]
        assert len(row(rows, "bot", "regularity")["evidence"]) == 10

    def test_a_burst_within_seconds_is_no_rhythm(self, settings: Settings, land: Land):
        land([*crowd(each=40), *today("flush", *[100] * 60, every_s=1)])
        assert row(judged(settings), "flush", "regularity")["verdict"] == "insufficient data"

    def test_an_impossible_kill_is_found_even_after_a_patch_made_all_bosses_weaker(self, settings: Settings, land: Land):
        rng = np.random.default_rng(2)
        times = [
            (f"p{n:02}", day, round(60_000 * (0.8 if day == LAST else 1) * np.exp(rng.normal(0, 0.2))))
            for n in range(40)
            for day in DAYS
        ]
        kills = [kill(player, day, ms, n) for n, (player, day, ms) in enumerate(times)]
        land([*kills, kill("hacker", LAST, 4_000, 9_999, eventId="impossible")])
        rows = judged(settings)
        found = rows.filter((pl.col("rule") == "boss_time") & (pl.col("verdict") == "flagged"))
        assert found.select("player_id", "observed").rows() == [("hacker", 4_000.0)]
        assert found["evidence"].to_list() == [["impossible"]]

    def test_lucky_drops_are_an_exact_test_against_everybody_elses_rate(self, settings: Settings, land: Land):
        rng, events = np.random.default_rng(4), []
        for day in DAYS:
            for player in range(30):
                for n in range(3):
                    events.append(kill(f"p{player:02}", day, 60_000, 60 * n + player))
                    if rng.random() < (0.6 if player == 9 else 0.03):
                        events.append(drop(f"p{player:02}", day, 60 * n + player + 1))
        events.append(drop("p09", LAST, 300))
        land(events)
        rows = judged(settings)
        lucky = row(rows, "p09", "drops")
        assert lucky["verdict"] == "flagged"
        assert rows.filter((pl.col("rule") == "drops") & (pl.col("verdict") == "flagged")).height == 1
        kills, drops = 3 * len(DAYS), sum(e["type"] == "drop_claimed" for e in events)
        own = sum(e["type"] == "drop_claimed" and e["playerId"] == "p09" for e in events)
        rate = (drops - own + 1) / (29 * kills + 1)
        assert lucky["p"] == pytest.approx(stats.binomtest(own, kills, rate, "greater").pvalue, rel=1e-3)

    def test_a_pity_system_flags_nobody(self, settings: Settings, land: Land):
        """Every twentieth kill drops, for all at the same count: no luck at all."""
        kills = [kill(f"p{n:02}", day, 60_000, 60 * k + n) for day in DAYS for n in range(30) for k in range(4)]
        drops = [drop(f"p{n:02}", day, 60 * 3 + n + 1) for at_day, day in enumerate(DAYS) for n in range(30) if at_day % 5 == 4]
        land([*kills, *drops])
        rows = judged(settings).filter(pl.col("rule") == "drops")
        assert rows.height == 30
        assert set(rows["verdict"]) == {"clear"}


class TestOddInput:
    def test_a_billion_xp_at_once_moves_nobody_else(self, settings: Settings, land: Land):
        land([*crowd(), *today("p07", 10**9)])
        with_whale = judged(settings).filter((pl.col("player_id") != "p07") & pl.col("rule").str.starts_with("cohort"))
        assert with_whale.height > 30
        assert set(with_whale["verdict"]) <= {"clear", "insufficient data"}
        assert with_whale["z"].abs().max() < 5  # type: ignore[operator]

    def test_a_constant_player_divides_by_nothing(self, settings: Settings, land: Land):
        land([progression("ann", str(day), 100, f"10:{n:02}:00") for day in DAYS for n in range(20)])
        rows = judged(settings).filter(pl.col("rule").is_in(["self", "self_log", "self_day"]))
        assert rows["z"].to_list() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
        assert set(rows["verdict"]) == {"clear"}

    def test_a_cohort_of_one_is_insufficient_data_and_never_clear(self, settings: Settings, land: Land):
        land(today("ann", *[100] * 12))
        rows = judged(settings)
        assert set(rows["verdict"]) == {"insufficient data"}
        assert row(rows, "ann", "cohort_xp_per_event")["baseline_n"] == 1

    def test_a_negative_correction_is_not_suspicious(self, settings: Settings, land: Land):
        land([*crowd(), *today("p07", -50_000)])
        rows = judged(settings).filter((pl.col("player_id") == "p07") & (pl.col("verdict") == "flagged"))
        assert rows.filter(pl.col("rule") != "self").height == 0
        assert not any("p07-0" in ids for ids in rows["evidence"].to_list())

    def test_squares_do_not_overflow(self, settings: Settings, land: Land):
        land(
            [*crowd(players=3), *[progression("max", str(day), 2**63 - 1, f"10:{n:02}:00") for day in DAYS for n in range(12)]]
        )
        assert row(judged(settings), "max", "self")["z"] == 0.0


class TestThresholds:
    def rules(self, settings: Settings, change: dict[str, dict[str, object]], folder: Any) -> Settings:
        rows = pl.read_csv(DATA / "fairness_rules.csv").to_dicts()
        file = folder / "rules.csv"
        pl.DataFrame([row | change.get(row["rule"], {}) for row in rows], infer_schema_length=None).write_csv(file)
        return settings.model_copy(update={"rules_file": file})

    def test_act_is_off_until_somebody_sets_it(self, settings: Settings, land: Land, tmp_path: Any):
        land([*crowd(players=25), *today("p07", *[900] * 12)])
        assert not judged(settings)["act"].any()
        acting = judged(self.rules(settings, {"suspicion": {"act": 1e-6}}, tmp_path))
        assert acting.filter("act").select("player_id", "rule").rows() == [("p07", "suspicion")]

    @pytest.mark.parametrize("change", [{"rule": "unheard_of"}, {"measure": "q"}, {"review": -1.0}])
    def test_rules_that_cannot_be_are_refused(self, settings: Settings, land: Land, tmp_path: Any, change: dict[str, object]):
        land([progression("ann", str(LAST), 5)])
        with pytest.raises(SettingsError, match="FAIRBOARD_RULES_FILE"):
            judged(self.rules(settings, {"self": change}, tmp_path))

    def test_every_rule_has_a_version_with_a_reason(self):
        versions = pl.read_csv(DATA / "fairness_rules.csv")
        assert set(versions["rule"]) == set(RULES)
        assert versions.select("rule", "version").is_unique().all()
        assert versions.select("changed_by", "changed_on", "reason").null_count().sum_horizontal().item() == 0
