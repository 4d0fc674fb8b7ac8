"""The charts: Altair over a few hundred rows at most, one function each, no query and no widget.

Colours come from the theme (`.streamlit/config.toml`) except where one means something: `FLAGGED`.
"""

from typing import Any

import altair as alt
import polars as pl

Chart = Any  # Altair's fluent methods are untyped

LONG_SPAN_DAYS, MANY_POINTS = 120, 60
ACCENT, FLAGGED, MUTED = "#1f5f7a", "#c2572b", "#8a97a3"
JUDGED = {"flagged": FLAGGED, "as usual": ACCENT, "not judged": MUTED}
HEIGHT = 220
_DAY_AXIS = alt.Axis(title=None, format="%b %d", labelOverlap=True, tickCount=6)
_LONG_AXIS = alt.Axis(title=None, labelOverlap=True, tickCount=6)


def daily_bars(frame: pl.DataFrame, column: str, title: str) -> Chart:
    """A bar per day of `event_date`."""
    days = (frame["event_date"].max() - frame["event_date"].min()).days + 1 if frame.height else 1  # type: ignore[operator,union-attr]
    width = max(1.0, min(22.0, 260 / days))
    return (
        alt.Chart(frame, height=HEIGHT, title=title)
        .mark_bar(size=width, color=ACCENT)
        .encode(
            x=alt.X("event_date:T", axis=_DAY_AXIS if days <= LONG_SPAN_DAYS else _LONG_AXIS, scale=alt.Scale(padding=width)),
            y=alt.Y(f"{column}:Q", title=None, axis=alt.Axis(format="~s", tickCount=4)),
            tooltip=[
                alt.Tooltip("event_date:T", title="day", format="%Y-%m-%d"),
                alt.Tooltip(f"{column}:Q", format=",", title=title),
            ],
        )
    )


def level_bars(frame: pl.DataFrame) -> Chart:
    """Players by level, levels that nobody has included."""
    lowest, highest = int(frame["level"][0]), int(frame["level"][-1])
    return (
        alt.Chart(frame, height=HEIGHT)
        .mark_bar(color=ACCENT)
        .encode(
            x=alt.X(
                "level:O",
                title="Level at the end of the day",
                scale=alt.Scale(domain=list(range(lowest, highest + 1))),
                axis=alt.Axis(labelAngle=0, labelOverlap=True),
            ),
            y=alt.Y("players:Q", title="Players", axis=alt.Axis(format="~s", tickCount=4)),
            tooltip=["level:O", alt.Tooltip("players:Q", format=",")],
        )
    )


def xp_line(frame: pl.DataFrame) -> Chart:
    """A player's XP at the end of each day, with a mark on each."""
    base = alt.Chart(frame, height=260).encode(
        x=alt.X("event_date:T", title=None, axis=alt.Axis(labelOverlap=True, tickCount=8)),
        y=alt.Y("xp_total:Q", title="XP", axis=alt.Axis(format="~s", tickCount=5)),
        tooltip=[
            alt.Tooltip("event_date:T", title="day", format="%Y-%m-%d"),
            alt.Tooltip("xp_total:Q", title="XP", format=","),
            alt.Tooltip("xp_gained:Q", title="won that day", format=","),
            alt.Tooltip("level_after:Q", title="level"),
        ],
    )
    marks = base.mark_circle(size=30, color=ACCENT, opacity=1 if frame.height < MANY_POINTS else 0)
    return base.mark_line(interpolate="step-after", color=ACCENT) + marks


def evidence(events: pl.DataFrame, *, logarithmic: bool) -> Chart:
    """A player's events of a day (ts, delta_xp, activity, z, flagged, low, mid, high) against what is usual for them."""
    scale = alt.Scale(type="log", nice=False) if logarithmic else alt.Scale(zero=False)
    y = alt.Y("delta_xp:Q", title="XP of the event", scale=scale, axis=alt.Axis(format="~s", tickCount=5, grid=not logarithmic))
    x = alt.X("ts:T", title=None, axis=alt.Axis(format="%H:%M", tickCount=8), scale=alt.Scale(padding=12))
    band = events.select("low", "mid", "high").head(1).drop_nulls()
    area = alt.Chart(band).mark_rect(color=ACCENT, opacity=0.1).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    middle = alt.Chart(band).mark_rule(color=ACCENT, strokeDash=[4, 3]).encode(y=alt.Y("mid:Q", scale=scale))
    points = (
        alt.Chart(events)
        .mark_circle(size=70, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "flagged:N",
                scale=alt.Scale(domain=[*JUDGED], range=[*JUDGED.values()]),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=[
                alt.Tooltip("ts:T", title="time", format="%H:%M:%S"),
                alt.Tooltip("delta_xp:Q", title="XP", format=","),
                alt.Tooltip("z:Q", format=".2f"),
                alt.Tooltip("activity:N"),
                alt.Tooltip("event_id:N", title="event"),
            ],
        )
    )
    return (area + middle + points).properties(height=280)


def judgement_line(frame: pl.DataFrame) -> Chart:
    """A rule's z of a player over the days, with its threshold; days without enough data have no point."""
    base = alt.Chart(frame).encode(x=alt.X("event_date:T", axis=_DAY_AXIS))
    points = base.mark_line(point=alt.OverlayMarkDef(size=45, filled=True), color=ACCENT).encode(
        y=alt.Y("z:Q", title="z of the strongest event", axis=alt.Axis(tickCount=5)),
        tooltip=[
            alt.Tooltip("event_date:T", title="day", format="%Y-%m-%d"),
            alt.Tooltip("z:Q", format=".2f"),
            alt.Tooltip("verdict:N"),
            alt.Tooltip("observed:Q", title="XP", format=","),
        ],
    )
    limit = base.mark_line(color=FLAGGED, strokeDash=[4, 3], interpolate="step").encode(y="threshold:Q")
    return (limit + points).properties(height=280)


def gaps(frame: pl.DataFrame) -> Chart:
    """Each player's distance in XP to the leader: rows player_id, rank, xp, leader_xp, behind, to_next."""
    order = alt.EncodingSortField("rank")
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "player_id:N",
            sort=order,
            title=None,
            axis=alt.Axis(labelLimit=150, labelFlush=False, labelBound=False, labelOverlap=False, ticks=False, domain=False),
        )
    )
    x = alt.X("xp:Q", title="XP", scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(format="~s", tickCount=6))
    rule = base.mark_rule(color=MUTED, opacity=0.5, strokeWidth=1.5).encode(x=x, x2="leader_xp:Q")
    dot = base.mark_circle(size=75, color=ACCENT, opacity=1).encode(
        x=x,
        tooltip=[
            alt.Tooltip("rank:Q"),
            alt.Tooltip("player_id:N", title="player"),
            alt.Tooltip("xp:Q", title="XP", format=","),
            alt.Tooltip("behind:Q", title="behind the leader", format=","),
            alt.Tooltip("to_next:Q", title="behind the next", format=","),
        ],
    )
    text = (
        base.transform_filter("datum.behind > 0")
        .mark_text(align="right", dx=-9, color=MUTED, fontSize=11)
        .encode(x=x, text=alt.Text("gap:Q", format=","))
    )
    return (rule + dot + text).properties(height=alt.Step(22))
