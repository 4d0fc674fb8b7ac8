"""Who played unlike themselves: the day's report, and the evidence behind each row. A flag is a question, not a verdict."""

from datetime import date, timedelta

import polars as pl
import streamlit as st

from dashboard import charts, controls, grids, queries
from warehouse.calendar import Days
from warehouse.settings import Settings
from warehouse.tables import EVENTS, FAIRNESS

VERDICTS = ("flagged", "insufficient data", "clear")
EVERY_RULE = "every rule"
EVERYBODY = 2**62
SHOWN_ROWS = 12
HISTORY = timedelta(days=89)


def choose_report(rules: list[str]) -> tuple[str | None, str]:
    """Rule (None: every rule) and verdict, both in the URL."""
    rule = st.selectbox("Rule", [EVERY_RULE, *rules], key="rule", width=220, bind="query-params")
    verdict = st.segmented_control("Verdict", VERDICTS, default="flagged", required=True, key="verdict", bind="query-params")
    return (None if rule == EVERY_RULE else rule), verdict or "flagged"


def show_counts(counts: pl.DataFrame) -> None:
    """The day per rule. Too little data is a count of its own: it is never clean."""
    config = {
        "rule": grids.renamed(FAIRNESS, "rule", "Rule"),
        "rule_version": grids.renamed(FAIRNESS, "rule_version", "Version"),
        "threshold": grids.renamed(FAIRNESS, "threshold", "Threshold |z|"),
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
    st.caption(f"{rows.height} row(s), the largest |z| first{cut}. Choose one for the evidence.")
    columns = [
        "player_id",
        "rule",
        "z",
        "observed_xp",
        "baseline_mean",
        "baseline_sd",
        "baseline_events",
        "flagged_events",
        "events",
    ]
    key = f"judged-{day}-{rule}-{verdict}"
    grids.grid(
        rows, FAIRNESS, columns, name="Judged players", key=key, on_select=lambda: controls.follow_row(rows, key),
        height=420 if rows.height > SHOWN_ROWS else None,
    )  # fmt: skip
    grids.download(
        "CSV", lambda: grids.csv(queries.judged(settings, day, rule, verdict, limit=EVERYBODY)),
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
    for judgement in today.sort(pl.col("z").abs(), descending=True, nulls_last=True).iter_rows(named=True):
        if rule in (None, judgement["rule"]):
            show_evidence(settings, judgement, history.filter(pl.col("rule") == judgement["rule"]))


def show_evidence(settings: Settings, judgement: dict[str, object], history: pl.DataFrame) -> None:
    """One rule's judgement of the player."""
    scores = queries.scored_events(settings, str(judgement["player_id"]), judgement["event_date"])  # type: ignore[arg-type]
    scores = scores.filter(pl.col("rule") == judgement["rule"])
    with st.container(border=True):
        st.markdown(f"**Rule `{judgement['rule']}`** · {sentence(judgement)}")
        if scores.height and scores["version"][0] != judgement["rule_version"]:
            st.warning("The rule has changed since this report was made; materialize the day again to compare like with like.")
        left, right = st.columns(2, gap="large")
        with left:
            show_events(scores, settings, logarithmic=judgement["rule"] == "self_log")
        with right:
            show_history(history)
        show_event_ids(scores, settings, judgement)


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


def sentence(judgement: dict[str, object]) -> str:
    """What the row says, in words."""
    if judgement["z"] is None:
        return f"insufficient data: {judgement['baseline_events']} events in the baseline. It says nothing about the player."
    return (
        f"{judgement['verdict']}: strongest event {judgement['observed_xp']:,} XP, z {judgement['z']:.2f} "
        f"against a threshold of {judgement['threshold']:g}; {judgement['flagged_events']} of {judgement['events']} "
        f"events above it. Baseline: {judgement['baseline_events']:,} events, "
        f"{judgement['baseline_from']} to {judgement['baseline_to']}."
    )


def against_baseline(scores: pl.DataFrame, settings: Settings, *, logarithmic: bool) -> pl.DataFrame:
    """The events with the rule's band (low, mid, high) in XP, and whether each is beyond it."""
    reach = pl.col("threshold") * pl.col("sd")
    band = {"low": pl.col("mean") - reach, "mid": pl.col("mean"), "high": pl.col("mean") + reach}
    in_xp = {name: edge.exp() if logarithmic else edge for name, edge in band.items()}
    judged = pl.when(pl.col("z").abs() > pl.col("threshold")).then(pl.lit("flagged")).otherwise(pl.lit("as usual"))
    beyond = pl.when(pl.col("z").is_null()).then(pl.lit("not judged")).otherwise(judged)
    return grids.in_zone(scores.with_columns(**in_xp, flagged=beyond), settings.zone)


def show_event_ids(scores: pl.DataFrame, settings: Settings, judgement: dict[str, object]) -> None:
    """The flagged events, by id: what a reviewer quotes."""
    flagged = scores.filter(pl.col("event_id").is_in(list(judgement["evidence"])))  # type: ignore[call-overload]
    if flagged.is_empty():
        return
    with st.expander(f"Evidence: {flagged.height} event(s)"):
        shown = grids.in_zone(flagged.sort(pl.col("z").abs(), descending=True), settings.zone)
        words = grids.column_config(EVENTS, settings.zone)
        config = {name: words[name] for name in ("event_id", "ts", "delta_xp", "activity")}
        config["z"] = grids.renamed(FAIRNESS, "z", "z")
        st.dataframe(shown.select(list(config)), column_config=config, hide_index=True, alt="Evidence")
        grids.download("CSV", lambda: grids.csv(shown), "evidence.csv", key=f"evidence-{judgement['rule']}")


settings = controls.open_page("Fairness", "Who played unlike themselves. A flag is a question, not a verdict.")
controls.need(settings, FAIRNESS)
days = queries.days_of(settings, FAIRNESS)
with st.container(horizontal=True, vertical_alignment="bottom"):
    day = controls.choose_day(days)
    counts = queries.verdicts(settings, day)
    rule, verdict = choose_report(sorted(counts["rule"].to_list()))
if controls.has_day(day, days):
    show_counts(counts)
    show_judged(settings, day, rule, verdict)
    player = controls.choose_player()
    if player:
        show_player(settings, player, day, rule)
