"""Each rule's measurement of each player and day: one function per rule, from the sums of `models/fairness.sql` to a p.

Every function takes the sums (one row per player and day) and gives rows (`ROW`) for those in whom there is something to
measure; `z` and `p` are NULL where the data do not suffice. All tests are one-sided, towards "too good". What does not belong
here: correction for many tests, verdicts (`suspicion.py`).
"""

import math
from collections.abc import Callable

import polars as pl

from warehouse.fairness.statistics import binomial_tail, normal_tail, of_the_smallest, robust_z, student_tail

KEY = ["event_date", "player_id"]
ROW = {
    "event_date": pl.Date,
    "player_id": pl.String,
    "rule": pl.String,
    "tests": pl.Int64,
    "observed": pl.Float64,
    "baseline_center": pl.Float64,
    "baseline_spread": pl.Float64,
    "baseline_n": pl.Int64,
    "z": pl.Float64,
    "p": pl.Float64,
}

MIN_DAYS = 3  # days of one's own from which a spread between days can be told
PRIOR = (
    10  # weight, in observations, of what is usual for everybody beside a player's own spread (Smyth 2004 estimates 3 to 20)
)
MIN_DAY_EVENTS = 10  # gains, or kills, from which a day's mean or rate is worth comparing
MIN_PLAYERS = 20  # players from which a population's median and MAD are worth anything
COHORTS, COHORT_PLAYERS = 10, 100  # tenths of the day's players by XP of the trailing days; fewer where a tenth would be small
COHORT_FREEDOM = 10.0  # degrees of freedom: a MAD tells the middle of a cohort, not its tail, and people buy boosts
NEWCOMERS = -1
SMALLEST_VARIANCE = 1e-4  # of ln XP: below 1 % of spread lies the rounding of the sums
EVEN_FLOOR = 0.01  # `ts` has whole seconds: a spread of ln s below 1 % is rounding
MIN_PACE_S = 5.0  # nearer together, whole seconds make any rhythm even: a client that sends its events in one burst is no bot

Frame = pl.DataFrame
MinN = dict[str, int]


def score(sums: Frame, fastest: Frame, min_n: MinN) -> Frame:
    """All rules' rows of those sums. `fastest` has each player's fastest kill (fastest_ms) by KEY and boss_id."""
    sums = sums.with_columns(cohort=_cohort())
    rows = [rule(sums, min_n) for rule in (_self, _self_log, _self_day, _regularity, _hours, _drops, _boss_time)]
    return pl.concat([*rows, *_cohorts(sums, fastest, min_n)])


def _self(sums: Frame, min_n: MinN) -> Frame:
    """The original rule. XP is no bell curve, so its z has no p and no part in the suspicion."""
    gains = sums.filter(pl.col("gain_events") > 0)
    return _strongest(gains, "self", pl.col("n") >= min_n["self"], "mean", "sd", lambda x: x, p=pl.lit(None, pl.Float64))


def _self_log(sums: Frame, min_n: MinN) -> Frame:
    """The strongest gain on the log scale; p by the predictive distribution of a next observation, Student's t."""
    gains = sums.filter(pl.col("gain_events") > 0).with_columns(log_center=pl.col("log_mean") + pl.col("level"))
    z = pl.when(pl.col("log_sd") > 0).then((pl.col("gain_max").log() - pl.col("log_center")) / pl.col("log_sd")).otherwise(0.0)
    gains = gains.with_columns(t=z / (1 + 1 / pl.col("log_n")).sqrt())
    p = of_the_smallest(student_tail(gains["t"], gains["log_n"] - 1), gains["gain_events"])
    enough = pl.col("log_n") >= min_n["self_log"]
    rows = _strongest(gains.with_columns(p=p), "self_log", enough, "log_center", "log_sd", pl.Expr.log, p=pl.col("p"))
    return rows.with_columns(pl.col("baseline_center").exp())


def _strongest(gains: Frame, rule: str, enough: pl.Expr, mean: str, sd: str, scale: Callable[[pl.Expr], pl.Expr],
               p: pl.Expr) -> Frame:  # fmt: skip
    """Rows of the gain furthest from the mean: it is the largest or the smallest."""
    center, spread = pl.col(mean), pl.col(sd)
    highest, lowest = ((scale(pl.col(name).cast(pl.Float64)) - center) / spread for name in ("gain_max", "gain_min"))
    upper = highest >= -lowest
    z = pl.when(spread > 0).then(pl.when(upper).then(highest).otherwise(lowest)).when(spread == 0).then(0.0)
    observed = pl.when((spread > 0) & upper.not_()).then(pl.col("gain_min")).otherwise(pl.col("gain_max"))
    n = pl.col("n" if rule == "self" else "log_n")
    return _rows(
        gains, rule, enough, tests=pl.col("gain_events"), observed=observed, center=center, spread=spread, n=n, z=z, p=p
    )


def _self_day(sums: Frame, min_n: MinN) -> Frame:
    """The day's mean ln XP against the player's own days: a one-way random-effects model (within days, between days).

    The variance between days is DerSimonian & Laird's (1986); a player's own variances are moderated by the median player's
    with the weight of PRIOR observations (Smyth 2004), so that three quiet days are no proof of steadiness. Where the day's z
    are wider than they should be, they are narrowed to their MAD (empirical null, Efron 2004): a patch may please some only.
    """
    days, n = pl.col("log_days"), pl.col("log_n")
    enough = (n >= min_n["self_day"]) & (days >= MIN_DAYS) & (n > days)
    gains = sums.filter(pl.col("gain_events") > 0).with_columns(enough=enough.fill_null(value=False))
    judged = pl.when(pl.col("enough"))
    within = (pl.col("log_within_sq") / (n - days)).clip(SMALLEST_VARIANCE)
    gains = gains.with_columns(within=judged.then(within))
    between = (pl.col("log_between_sq") - (days - 1) * pl.col("within")) / (n - pl.col("log_n_sq") / n)
    gains = gains.with_columns(between=judged.then(between))
    usual_within, usual_between = (pl.col(name).median().over("event_date") for name in ("within", "between"))
    within = (PRIOR * usual_within + (n - days) * pl.col("within")) / (PRIOR + n - days)
    between = ((PRIOR * usual_between.clip(0) + (days - 1) * pl.col("between")) / (PRIOR + days - 1)).clip(0)
    variance = within * (1 / pl.col("gain_events") + 1 / n) + between * (1 + pl.col("log_n_sq") / (n * n))
    shift = pl.col("log_sum") / pl.col("gain_events") - pl.col("level") - pl.col("log_mean")
    gains = gains.with_columns(spread=variance.sqrt(), shift=shift)
    gains = gains.with_columns(t=pl.when(pl.col("spread") > 0).then(pl.col("shift") / pl.col("spread")).otherwise(0.0))
    gains = gains.with_columns(t=judged.then(pl.col("t")), players=pl.col("enough").sum().over("event_date"))
    gains = _narrowed(gains)
    gains = gains.with_columns(p=student_tail(gains["t"], PRIOR + gains["log_days"] - 1))
    return _rows(
        gains, "self_day", pl.col("enough"), tests=pl.lit(1), observed=(pl.col("log_sum") / pl.col("gain_events")).exp(),
        center=(pl.col("log_mean") + pl.col("level")).exp(), spread=pl.col("spread"), n=n, z=pl.col("t"), p=pl.col("p"),
    )  # fmt: skip


def _narrowed(gains: Frame) -> Frame:
    """`t` divided by the MAD of the day's t, where that is above 1 and there are players enough to tell."""
    off = (pl.col("t") - pl.col("t").median().over("event_date")).abs()
    width = pl.when(pl.col("players") >= MIN_PLAYERS).then(1.4826 * off.median().over("event_date")).otherwise(1.0).clip(1.0)
    return gains.with_columns(t=pl.col("t") / width)


def _regularity(sums: Frame, min_n: MinN) -> Frame:
    """The spread (sd of ln) of the intervals between events, against everybody's that day: a person's are never even."""
    n = pl.col("gaps")
    variance = (pl.col("gap_log_sum_sq") - pl.col("gap_log_sum") ** 2 / n) / (n - 1)
    paced = pl.col("gap_log_sum") >= n * math.log(MIN_PACE_S)
    timed = sums.filter(n > 0).with_columns(enough=(n >= min_n["regularity"]) & paced)
    timed = timed.with_columns(evenness=pl.when(pl.col("enough")).then(-variance.clip(EVEN_FLOOR**2).sqrt().log()))
    timed = timed.with_columns(robust_z("evenness", ["event_date", "enough"]))
    timed = timed.with_columns(p=normal_tail(timed["z"]))
    enough = pl.col("enough") & (pl.col("n") >= MIN_PLAYERS)
    return _rows(
        timed, "regularity", enough, tests=pl.lit(1), observed=(-pl.col("evenness")).exp(), center=(-pl.col("center")).exp(),
        spread=pl.col("spread"), n=n, z=pl.col("z"), p=pl.col("p"),
    )  # fmt: skip


def _hours(sums: Frame, min_n: MinN) -> Frame:
    """Active hours, by how many of all others' trailing days were as long: no distribution is assumed.

    With its own day among them, p is exact (Phipson & Smyth 2010) and never 0.
    """
    others = pl.col("player_days") - pl.col("baseline_days")
    p = (1 + pl.col("as_long") - pl.col("own_as_long")) / (1 + others)
    nothing = pl.lit(None, pl.Float64)
    return _rows(sums, "hours", others >= min_n["hours"], tests=pl.lit(1), observed=pl.col("active_hours"), center=nothing,
                 spread=nothing, n=others, z=nothing, p=p)  # fmt: skip


def _drops(sums: Frame, min_n: MinN) -> Frame:
    """Rare drops, an exact binomial test at the trials' mean rate.

    Rates differ by item; of all sums of trials with that mean, the binomial has the heaviest tail (Hoeffding 1956). A pity
    system makes counts more even than chance, and so only less suspicious.
    """
    looted = sums.filter(pl.col("trials").is_not_null())
    chance = looted["expected_drops"] / looted["trials"]
    looted = looted.with_columns(p=binomial_tail(looted["rare_drops"], looted["trials"], chance), chance=chance)
    spread = (pl.col("expected_drops") * (1 - pl.col("chance"))).sqrt()
    z = pl.when(spread > 0).then((pl.col("rare_drops") - pl.col("expected_drops")) / spread).otherwise(0.0)
    return _rows(
        looted, "drops", pl.col("others_kills") >= min_n["drops"], tests=pl.col("trials"), observed=pl.col("rare_drops"),
        center=pl.col("expected_drops"), spread=spread, n=pl.col("others_kills"), z=z, p=pl.col("p"),
    )  # fmt: skip


def _boss_time(sums: Frame, _min_n: MinN) -> Frame:
    """The fastest kill among its like (`models/kill_times.sql`), Šidák over the player's kills of the day."""
    killers = sums.filter(pl.col("fastest_ms").is_not_null()).with_columns(z=-pl.col("kill_z"))
    killers = killers.with_columns(p=of_the_smallest(normal_tail(killers["z"]), killers["kills"]))
    return _rows(
        killers, "boss_time", pl.col("z").is_not_null(), tests=pl.col("kills"), observed=pl.col("fastest_ms"),
        center=pl.col("center_ms"), spread=pl.col("kill_spread"), n=pl.col("kill_n"), z=pl.col("z"), p=pl.col("p"),
    )  # fmt: skip


def _cohort() -> pl.Expr:
    """Players of like level: a tenth of the day's players by the XP of their trailing days; those without any, by themselves.

    The level itself would do as well, but it stands on the whole history: a late event of last year would move today's cohorts.
    """
    known = pl.col("baseline_days") > 0
    players = known.sum().over("event_date")
    bands = (players // COHORT_PLAYERS).clip(1, COHORTS)
    place = pl.when(known).then(pl.col("baseline_xp")).rank("min").over("event_date") - 1
    return pl.when(known).then((place * bands // players).cast(pl.Int64)).otherwise(NEWCOMERS)


def _cohorts(sums: Frame, fastest: Frame, min_n: MinN) -> list[Frame]:
    """Four comparisons with players of like level on the same day, each on the log scale."""
    gains, xp = pl.col("gain_events") >= MIN_DAY_EVENTS, pl.col("xp")
    kills = pl.col("boss_kills")
    measures = {
        "cohort_xp_per_minute": (gains & (xp > 0), xp / pl.col("active_minutes")),
        "cohort_xp_per_event": (gains, (pl.col("log_sum") / pl.col("gain_events")).exp()),
        "cohort_kills_per_hour": (kills >= MIN_DAY_EVENTS, kills / pl.col("active_hours")),
    }
    rows = [
        _alike(sums.filter(where).with_columns(observed=value, x=value.log()), rule, ["cohort"], min_n[rule])
        for rule, (where, value) in measures.items()
    ]
    killers = fastest.join(sums.select(*KEY, "cohort"), on=KEY)
    killers = killers.with_columns(observed=pl.col("fastest_ms").cast(pl.Float64), x=-pl.col("fastest_ms").log())
    return [*rows, _alike(killers, "cohort_fastest_kill", ["cohort", "boss_id"], min_n["cohort_fastest_kill"])]


def _alike(measured: Frame, rule: str, alike: list[str], least: int) -> Frame:
    """Rows of `observed` and its `x` (what is high is suspicious) among those alike that day; of several, the strongest."""
    measured = measured.with_columns(robust_z("x", ["event_date", *alike]))
    enough = pl.col("n") >= least
    measured = measured.with_columns(enough=enough, z=pl.when(enough).then(pl.col("z")))
    falling = -1.0 if rule == "cohort_fastest_kill" else 1.0
    measured = measured.sort([*KEY, "z", *alike], descending=[False, False, True, *[False] * len(alike)], nulls_last=True)
    measured = measured.with_columns(tests=pl.col("enough").sum().clip(1).over(KEY)).unique(
        KEY, keep="first", maintain_order=True
    )
    tail = student_tail(measured["z"], pl.repeat(COHORT_FREEDOM, measured.height, eager=True))
    measured = measured.with_columns(p=of_the_smallest(tail, measured["tests"]))
    return _rows(measured, rule, pl.col("enough"), tests=pl.col("tests"), observed=pl.col("observed"),
                 center=(falling * pl.col("center")).exp(), spread=pl.col("spread"), n=pl.col("n"), z=pl.col("z"),
                 p=pl.col("p"))  # fmt: skip


def _rows(frame: Frame, rule: str, enough: pl.Expr, *, tests: pl.Expr, observed: pl.Expr, center: pl.Expr, spread: pl.Expr,
          n: pl.Expr, z: pl.Expr, p: pl.Expr) -> Frame:  # fmt: skip
    """The rule's rows; where the data do not suffice, what was seen and counted but no judgement."""
    judged = {"baseline_center": center, "baseline_spread": spread, "z": z, "p": p}
    columns = {"rule": pl.lit(rule), "tests": tests, "observed": observed, "baseline_n": n.fill_null(0)}
    columns |= {name: pl.when(enough).then(value) for name, value in judged.items()}
    return frame.select(*KEY, **columns).select(pl.col(name).cast(kind) for name, kind in ROW.items())
