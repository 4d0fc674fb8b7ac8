"""Who is under suspicion: the day's report, the evidence behind each row, the player's case. A flag is a question."""

from datetime import date, timedelta
from typing import Any

import polars as pl
import streamlit as st

from dashboard import casework, charts, controls, grids, queries
from warehouse.calendar import Days
from warehouse.database import reading
from warehouse.engine import DuckDBEngine
from warehouse.fairness.rules import RULES, SUSPICION
from warehouse.reports import as_html, as_markdown, build
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS

VERDICTS = ("flagged", "insufficient data", "clear")
EVERY_RULE = "every rule"
ON_A_SCALE_OF_XP = ("self", "self_log")
EVERYBODY = 2**62
SHOWN_ROWS = 12
FEW = 3
WHOLE = 1_000
HISTORY = timedelta(days=89)


def choose_report(rules: list[str]) -> tuple[str | None, str]:
    """Rule (None: every rule) and verdict, both in the URL; at first the suspicion that combines them."""
    others = [rule for rule in rules if rule != SUSPICION]
    rule = st.selectbox("Rule", [SUSPICION, EVERY_RULE, *others], key="rule", width=220, bind="query-params")
    verdict = st.segmented_control("Verdict", VERDICTS, default="flagged", required=True, key="verdict", bind="query-params")
    return (None if rule == EVERY_RULE else rule), verdict or "flagged"


def show_counts(counts: pl.DataFrame) -> None:
    """The day per rule. Too little data is a count of its own: it is never clean."""
    config = {
        "rule": grids.renamed(FAIRNESS, "rule", "Rule"),
        "rule_version": grids.renamed(FAIRNESS, "rule_version", "Version"),
        "threshold": grids.renamed(FAIRNESS, "threshold", "Threshold"),
        "players": st.column_config.NumberColumn("Players judged", format="localized"),
        "flagged": st.column_config.NumberColumn("Flagged", format="localized"),
        "clear": st.column_config.NumberColumn("Clear", format="localized"),
        "insufficient": st.column_config.NumberColumn(
            "Insufficient data", format="localized", help="Too short a history to judge. It says nothing about the player."
        ),
    }
    st.dataframe(counts, column_config=config, hide_index=True, row_height=32, alt="Verdicts per rule")


def show_judged(settings: Settings, day: date, rule: str | None, verdict: str) -> None:
    """The players with that verdict, the strongest first; a row leads to the evidence."""
    rows = queries.judged(settings, day, rule, verdict)
    if rows.is_empty():
        st.write(f"Nobody has the verdict “{verdict}” on {day}.")
        return
    cut = f" (the first {queries.TOP}; the file has all)" if rows.height == queries.TOP else ""
    st.caption(f"{rows.height} row(s), the smallest p first{cut}. Choose one for the evidence.")
    columns = ["player_id", "rule", "observed", "baseline_center", "baseline_n", "z", "p", "q", "share", "tests"]
    key = f"judged-{day}-{rule}-{verdict}"
    grids.grid(
        rows, FAIRNESS, columns, name="Judged players", key=key, on_select=lambda: controls.follow_row(rows, key),
        height=420 if rows.height > SHOWN_ROWS else None,
    )  # fmt: skip
    grids.download_csv(
        lambda: queries.judged(settings, day, rule, verdict, limit=EVERYBODY),
        f"fairness-{day}-{verdict.replace(' ', '-')}.csv", key="judged_csv",
    )  # fmt: skip


def show_player(settings: Settings, player: str, day: date, rule: str | None) -> None:
    """Evidence first: the day's events against what is usual for the player; then the score, then the history."""
    st.subheader(f"Evidence: {controls.as_text(player)}")
    history = queries.player_judgements(settings, player, Days(day - HISTORY, day))
    today = history.filter(pl.col("event_date") == day)
    if today.is_empty():
        st.info("This player has no row in that day's report.")
        if history.is_empty():
            controls.offer_similar(settings, player)
        return
    for judgement in today.sort("share", "rule", descending=[True, False], nulls_last=True).iter_rows(named=True):
        if rule in (None, SUSPICION, judgement["rule"]):
            show_evidence(settings, judgement, history.filter(pl.col("rule") == judgement["rule"]))


def show_report(settings: Settings, day: date) -> None:
    """The day's report as Dagster's page has it, and as a file to send."""
    if not st.toggle("The day's report", key="report"):
        return
    with DuckDBEngine(settings) as engine, reading(settings) as connection:
        report = build(engine, connection, day)
    st.markdown(as_markdown(report))
    st.download_button("HTML", as_html(report), f"fairness-{day}.html", "text/html", key="report_html")


def show_evidence(settings: Settings, judgement: dict[str, Any], history: pl.DataFrame) -> None:
    """One rule's judgement of the player: the events, then what the rule says of them."""
    with st.container(border=True):
        show_event_ids(settings, judgement)
        st.markdown(f"**Rule `{judgement['rule']}`** · {sentence(judgement)}")
        if judgement["rule"] not in ON_A_SCALE_OF_XP:
            return
        scores = queries.scored_events(settings, judgement["player_id"], judgement["event_date"])
        scores = scores.filter(pl.col("rule") == judgement["rule"])
        if scores.height and scores["version"][0] != judgement["rule_version"]:
            st.warning("The rule has changed since this report was made; materialize the day again to compare like with like.")
        left, right = st.columns(2, gap="large")
        with left:
            show_events(scores, settings, logarithmic=judgement["rule"] == "self_log")
        with right:
            show_history(history)


def show_events(scores: pl.DataFrame, settings: Settings, *, logarithmic: bool) -> None:
    """The day's events, with the band where there is a baseline."""
    st.caption("Events of the day; the band is what the rule takes as usual for this player")
    rows = against_baseline(scores, settings, logarithmic=logarithmic)
    st.altair_chart(charts.evidence(rows, logarithmic=logarithmic), alt="Events of the day")


def show_history(history: pl.DataFrame) -> None:
    """The rule's z over the days; nothing is drawn where no day could be judged."""
    st.caption("The rule's z, up to that day")
    if history["z"].null_count() == history.height:
        st.write("No day up to this one had enough data to be judged.")
    else:
        st.altair_chart(charts.judgement_line(history), alt="z over the days")


def sentence(judgement: dict[str, Any]) -> str:
    """What the row says, in words."""
    rule = RULES[judgement["rule"]]
    baseline = f"{judgement['baseline_n']:,} {rule.counts}"
    if judgement["verdict"] == "insufficient data":
        return f"insufficient data: {baseline} in the baseline. It says nothing about the player."
    if judgement["rule"] == SUSPICION:
        return f"{judgement['verdict']}: {judgement['tests']} rules combined, q {judgement['q']:.1e}."
    usual = "" if judgement["baseline_center"] is None else f", usual {rounded(judgement['baseline_center'])}"
    scores = [f"{name} {judgement[name]:.3g}" for name in ("z", "q") if judgement[name] is not None]
    said = f"{judgement['verdict']}: observed {rounded(judgement['observed'])} {rule.unit}{usual}; {', '.join(scores)}, "
    days = f"{judgement['baseline_from']} to {judgement['baseline_to']}"
    return f"{said}threshold {judgement['threshold']:g}. Baseline: {baseline}, {days}. {rule.asks}"


def rounded(value: float) -> str:
    """Four digits, or the whole part where that has more."""
    return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.4g}"


def against_baseline(scores: pl.DataFrame, settings: Settings, *, logarithmic: bool) -> pl.DataFrame:
    """The events with the rule's band (low, mid, high) in XP, and whether each is beyond it."""
    reach = pl.col("threshold") * pl.col("sd")
    band = {"low": pl.col("mean") - reach, "mid": pl.col("mean"), "high": pl.col("mean") + reach}
    in_xp = {name: edge.exp() if logarithmic else edge for name, edge in band.items()}
    judged = pl.when(pl.col("z").abs() > pl.col("threshold")).then(pl.lit("flagged")).otherwise(pl.lit("as usual"))
    beyond = pl.when(pl.col("z").is_null()).then(pl.lit("not judged")).otherwise(judged)
    return grids.in_zone(scores.with_columns(**in_xp, flagged=beyond), settings.zone)


def show_event_ids(settings: Settings, judgement: dict[str, Any]) -> None:
    """The flagged events, by id: what a reviewer quotes."""
    ids = list(judgement["evidence"])
    if not ids:
        return
    with st.expander(f"Evidence: {len(ids)} event(s)", expanded=len(ids) <= FEW):
        shown = grids.in_zone(queries.events_by_id(settings, judgement["event_date"], ids), settings.zone)
        words = grids.column_config(EVENTS, settings.zone)
        names = ("event_id", "ts", "type", "delta_xp", "activity", "boss_id", "duration_ms", "item_id")
        config = {name: words[name] for name in names}
        st.dataframe(shown.select(list(config)), column_config=config, hide_index=True, alt="Evidence")
        grids.download_csv(lambda: shown, "evidence.csv", key=f"evidence-{judgement['rule']}")


settings = controls.open_page("Fairness", "Who is under suspicion, and why. A flag is a question, not a verdict.")
controls.need(settings, FAIRNESS)
days = queries.days_of(settings, FAIRNESS)
with st.container(horizontal=True, vertical_alignment="bottom"):
    day = controls.choose_day(days)
    counts = queries.verdicts(settings, day)
    rule, verdict = choose_report(sorted(counts["rule"].to_list()))
if controls.has_day(day, days):
    show_counts(counts)
    show_judged(settings, day, rule, verdict)
    show_report(settings, day)
    player = controls.choose_player()
    if player:
        show_player(settings, player, day, rule)
        casework.show_cases(settings, player)
