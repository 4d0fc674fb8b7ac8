"""How the game does: who plays, who comes back, for how long, and what they play. Definitions: docs/metrics.md."""

from datetime import date, timedelta

import polars as pl
import streamlit as st

from dashboard import charts, controls, grids, metric_charts, queries
from warehouse.calendar import Days
from warehouse.metrics import METRICS
from warehouse.settings import Settings
from warehouse.tables import ACTIVITY_DAYS, DAILY_METRICS

RANGES = {"30 days": 30, "90 days": 90, "1 year": 365}
HEADLINES = ("dau", "wau", "mau", "stickiness", "sessions_per_player", "session_length")
LABELS = {
    "dau": "DAU",
    "wau": "WAU",
    "mau": "MAU",
    "stickiness": "Stickiness",
    "sessions_per_player": "Sessions per player",
    "session_length": "Mean session",
    "new_players": "new",
    "returning_players": "returning",
}
WHOLE_NUMBERS = ("dau", "wau", "mau")
RETENTION_DAYS = (1, 7, 30)
COHORTS = timedelta(days=34)
SHOWN_ROWS = 11


def meaning(*names: str) -> str:
    """What the metrics are, in the words of their definitions."""
    return "\n\n".join(f"{METRICS[name].doc} `{METRICS[name].formula}`" for name in names)


def show_headlines(frame: pl.DataFrame, day: date) -> None:
    """The day in figures, each beside the same weekday a week before: games have weekends."""
    values = {(row["event_date"], row["metric"]): row["value"] for row in frame.iter_rows(named=True)}
    st.caption(f"{day}, and the change to the same weekday a week before")
    for cell, name in zip(st.columns(len(HEADLINES)), HEADLINES, strict=True):
        now, before = values.get((day, name)), values.get((day - timedelta(days=7), name))
        cell.metric(
            LABELS[name],
            "-" if now is None else in_words(name, now),
            None if now is None or not before else f"{now / before - 1:+.1%}",
            delta_color="off",
            border=True,
            help=meaning(name),
        )


def in_words(name: str, value: float) -> str:
    """A headline's value with its unit."""
    if name == "session_length":
        return f"{value / 60:.1f} min"
    if name == "stickiness":
        return f"{value:.1%}"
    return f"{value:,.0f}" if name in WHOLE_NUMBERS else f"{value:.2f}"


def show_players(frame: pl.DataFrame) -> None:
    """Active players, and how many of the day's are new."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Active players", help=meaning("dau", "wau", "mau"))
        st.altair_chart(
            metric_charts.lines(frame, {name: LABELS[name] for name in ("mau", "wau", "dau")}), alt="Active players"
        )
    with right:
        st.subheader("New and returning", help=meaning("new_players", "returning_players"))
        names = {name: LABELS[name] for name in ("returning_players", "new_players")}
        parts = frame.filter(pl.col("metric").is_in(list(names))).with_columns(players=pl.col("metric").replace(names))
        st.altair_chart(metric_charts.stacked(parts, "value", "players", list(names.values())), alt="New and returning players")


def show_retention(settings: Settings, day: date) -> None:
    """The cohorts' heat map, and how its first, seventh and thirtieth days develop."""
    rows = queries.retention(settings, Days(day - COHORTS, day))
    st.subheader("Retention", help=meaning("retention"))
    if rows.is_empty():
        st.write("No cohort is a day old yet.")
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.caption("Share of each first day's players who came back, by days since")
        st.altair_chart(metric_charts.cohorts(rows), alt="Retention by cohort")
    with right:
        cells = st.columns(len(RETENTION_DAYS))
        for cell, n in zip(cells, RETENTION_DAYS, strict=True):
            of_day = rows.filter(pl.col("n") == n)
            players, returned = int(of_day["players"].sum()), int(of_day["returned"].sum())
            share = f"{returned / players:.1%}" if players else "-"
            cell.metric(f"D{n}", share, border=True, help=f"Of all cohorts shown that are {n} days old: {players:,} players.")
        st.caption("By first day")
        named = rows.filter(pl.col("n").is_in(RETENTION_DAYS)).select(
            event_date="cohort", metric=pl.concat_str(pl.lit("D"), pl.col("n").cast(pl.String)), value="value"
        )
        st.altair_chart(
            metric_charts.lines(named, {f"D{n}": f"D{n}" for n in RETENTION_DAYS}, "%", 330), alt="Retention over time"
        )


def show_sessions(frame: pl.DataFrame) -> None:
    """How often and how long."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Sessions per day", help=meaning("sessions"))
        sessions = frame.filter(pl.col("metric") == "sessions")
        st.altair_chart(charts.daily_bars(sessions, "value", ""), alt="Sessions per day")
    with right:
        st.subheader("Mean session, minutes", help=meaning("session_length"))
        minutes = frame.filter(pl.col("metric") == "session_length").with_columns(pl.col("value") / 60)
        st.altair_chart(metric_charts.lines(minutes, {"session_length": "minutes"}, height=charts.HEIGHT), alt="Mean session")


def show_activities_and_levels(settings: Settings, day: date, span: Days) -> None:
    """What the XP came from, and how far it has brought the players."""
    st.subheader("XP by activity")
    activities = queries.xp_by_activity(settings, span)
    if activities.height:
        order = activities.group_by("activity").agg(pl.col("place").min()).sort("place")["activity"].to_list()
        st.altair_chart(metric_charts.stacked(activities, "xp", "activity", order, 1150), alt="XP by activity")
    levels = queries.levels(settings, day)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Levels", help=meaning("players_at_level"))
        st.altair_chart(charts.level_bars(levels.drop_nulls("players")), alt="Players by level")
    with right:
        st.subheader("Time to level", help=meaning("days_to_level"))
        if levels["level_ups"].null_count() == levels.height:
            st.write(f"Nobody passed a level on {day}.")
        else:
            st.altair_chart(metric_charts.days_to_level(levels), alt="Days to each level")


def show_bosses(settings: Settings, day: date) -> None:
    """The day's kills and their times, of one difficulty."""
    st.subheader("Bosses", help="Kills of the day. Party sizes are apart: medians do not add up.")
    rows = queries.kills(settings, day)
    if rows.is_empty():
        st.write(f"No boss fell on {day}.")
        return
    difficulties = rows["difficulty"].unique().sort().to_list()
    chosen = st.segmented_control(
        "Difficulty", difficulties, default=difficulties[0], required=True, key="difficulty",
        format_func=lambda name: name or "not said", bind="query-params",
    )  # fmt: skip
    rows = rows.filter(pl.col("difficulty") == (difficulties[0] if chosen is None else chosen))
    left, right = st.columns(2, gap="large")
    with left:
        columns = ["boss_id", "party_size", "events", "players", "duration_median_ms", "duration_p90_ms"]
        grids.grid(
            rows,
            ACTIVITY_DAYS,
            columns,
            name="Kills",
            extra={"events": grids.renamed(ACTIVITY_DAYS, "events", "Kills")},
            height=400 if rows.height > SHOWN_ROWS else None,
        )
        grids.download_csv(lambda: rows, f"kills-{day}.csv", key="kills_csv")
    with right:
        timed = rows.filter(pl.col("timed_kills") > 0)
        if timed.height:
            st.caption("Kill times by party size: median (dot) to p90 (tick)")
            st.altair_chart(metric_charts.kill_times(timed), alt="Kill times")


def show_drops(settings: Settings, span: Days) -> None:
    """Drops per kill over the range: a day has too few of the rare ones."""
    st.subheader("Drops per kill", help=f"{meaning('drop_rate')}\n\nOver {span}.")
    rows = queries.drop_rates(settings, span)
    if rows.is_empty():
        st.write("No named boss has dropped anything.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        columns = ["boss_id", "item_id", "rarity", "events", "kills", "rate"]
        extra = {
            "events": grids.renamed(ACTIVITY_DAYS, "events", "Drops"),
            "kills": st.column_config.NumberColumn("Kills", help="Kills of the boss.", format="localized"),
            "rate": st.column_config.NumberColumn("Per kill", help=meaning("drop_rate"), format="percent"),
        }
        grids.grid(rows, ACTIVITY_DAYS, columns, name="Drops", extra=extra, height=400 if rows.height > SHOWN_ROWS else None)
        grids.download_csv(lambda: rows, f"drops-{span.first}-{span.last}.csv", key="drops_csv")
    with right:
        by_rarity = rows.group_by("boss_id", "rarity", "kills").agg(pl.col("events").sum(), pl.col("rate").sum())
        st.altair_chart(metric_charts.rates(by_rarity), alt="Drops per kill by rarity")


settings = controls.open_page("Metrics", "How the game does: who plays, who comes back, for how long, and what they play.")
controls.need(settings, DAILY_METRICS)
days = queries.days_of(settings, DAILY_METRICS)
with st.container(horizontal=True, vertical_alignment="bottom"):
    day = controls.choose_day(days)
    chosen = st.segmented_control("Up to it", list(RANGES), default="30 days", required=True, key="range", bind="query-params")
if controls.has_day(day, days):
    span = Days.ending(day, RANGES[chosen or "30 days"])
    names = [*LABELS, "sessions"]
    frame = queries.metrics(settings, names, span)
    show_headlines(frame, day)
    show_players(frame)
    show_retention(settings, day)
    show_sessions(frame)
    show_activities_and_levels(settings, day, span)
    show_bosses(settings, day)
    show_drops(settings, span)
