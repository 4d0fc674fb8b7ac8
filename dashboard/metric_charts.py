"""The charts of the metrics page: Altair over a few hundred rows, one function each, no query and no widget.

What does not belong here: charts of players and boards (`charts.py`).
"""

import altair as alt
import polars as pl

from dashboard.charts import ACCENT, FLAGGED, HEIGHT, MUTED, Chart

SERIES = (ACCENT, FLAGGED, MUTED, "#6b8f3f", "#7a5aa6", "#c9d1d8")
_DAY = alt.Tooltip("event_date:T", title="day", format="%Y-%m-%d")
_X = alt.X("event_date:T", axis=alt.Axis(title=None, labelOverlap=True, tickCount=6))
_LEGEND = alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3)
MANY_DAYS = 45
TALL = 280  # a legend takes its part of the height
COHORT_STEP, PARTY_STEP, BOSS_WIDTH = 13, 15, 430


def lines(frame: pl.DataFrame, names: dict[str, str], form: str = "~s", height: int = TALL) -> Chart:
    """A line per metric over the days (event_date, metric, value); `names` maps metrics to what the legend calls them."""
    shown = frame.filter(pl.col("metric").is_in(list(names))).with_columns(series=pl.col("metric").replace(names))
    return (
        alt.Chart(shown, height=height)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18) if shown["event_date"].n_unique() <= MANY_DAYS else False)
        .encode(
            x=_X,
            y=alt.Y("value:Q", title=None, axis=alt.Axis(format=form, tickCount=4), scale=alt.Scale(domainMin=0)),
            color=alt.Color("series:N", scale=_colours(list(names.values())), legend=_LEGEND if len(names) > 1 else None),
            tooltip=[_DAY, alt.Tooltip("series:N", title="metric"), alt.Tooltip("value:Q", format=",.4~g")],
        )
    )


def stacked(frame: pl.DataFrame, column: str, group: str, order: list[str], width: int = 540) -> Chart:
    """Bars per day, parted by `group`, the first of `order` at the bottom; `width` is what the page has for it, in px."""
    days = frame["event_date"].n_unique()
    ranked = frame.with_columns(place=pl.col(group).replace_strict(order, range(len(order)), return_dtype=pl.Int64))
    return (
        alt.Chart(ranked, height=TALL)
        .mark_bar(size=max(1.0, min(22.0, 0.6 * width / days)))
        .encode(
            x=_X,
            y=alt.Y(f"{column}:Q", title=None, axis=alt.Axis(format="~s", tickCount=4)),
            color=alt.Color(
                f"{group}:N", scale=_colours(order), legend=alt.Legend(title=None, orient="top", symbolType="square")
            ),
            order=alt.Order("place:Q"),
            tooltip=[_DAY, alt.Tooltip(f"{group}:N"), alt.Tooltip(f"{column}:Q", format=",")],
        )
    )


def cohorts(frame: pl.DataFrame) -> Chart:
    """The retention heat map: a row per cohort, a column per day since (cohort, n, players, returned, value)."""
    named = frame.with_columns(first_day=pl.col("cohort").cast(pl.String))
    labels = max(1, round(named["first_day"].n_unique() / 16))
    days = sorted(named["first_day"].unique(), reverse=True)
    return (
        alt.Chart(named, height=alt.Step(COHORT_STEP))
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X(
                "n:O",
                title="Days since the first day",
                axis=alt.Axis(labelAngle=0, values=[1, *range(5, 31, 5), 7], ticks=False, domain=False),
                scale=alt.Scale(domain=list(range(1, 31)), paddingInner=0),
            ),
            y=alt.Y(
                "first_day:O",
                title=None,
                sort=days,
                axis=alt.Axis(values=days[::labels], ticks=False, domain=False),
            ),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(domainMin=0, range=["#f2f6f8", "#93b9ca", ACCENT, "#0d3546"]),
                legend=alt.Legend(title=None, format="%", orient="right", gradientLength=150, tickCount=4),
            ),
            tooltip=[
                alt.Tooltip("first_day:N", title="first day"),
                alt.Tooltip("n:O", title="days since"),
                alt.Tooltip("players:Q", title="cohort", format=","),
                alt.Tooltip("returned:Q", title="came back", format=","),
                alt.Tooltip("value:Q", title="retention", format=".1%"),
            ],
        )
    )


def kill_times(frame: pl.DataFrame) -> Chart:
    """Median and p90 of a difficulty's kill times by boss and party size (rows of `activity_days`)."""
    seconds = frame.with_columns(
        median=pl.col("duration_median_ms") / 1000,
        p90=pl.col("duration_p90_ms") / 1000,
        party=pl.when(pl.col("party_size") == 0).then(pl.lit("?")).otherwise(pl.col("party_size").cast(pl.String)),
    )
    base = alt.Chart(seconds).encode(
        y=alt.Y("party:O", title=None, axis=alt.Axis(ticks=False, domain=False, labelOverlap=False, labelFontSize=10)),
        tooltip=[
            alt.Tooltip("boss_id:N", title="boss"),
            alt.Tooltip("party:N", title="party of"),
            alt.Tooltip("timed_kills:Q", title="kills", format=","),
            alt.Tooltip("median:Q", title="median, s", format=",.1f"),
            alt.Tooltip("p90:Q", title="p90, s", format=",.1f"),
        ],
    )
    x = alt.X("median:Q", title="Seconds", axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=True))
    rule = base.mark_rule(color=MUTED, opacity=0.6, strokeWidth=2).encode(x=x, x2="p90:Q")
    tick = base.mark_tick(color=MUTED, thickness=2, size=10).encode(x="p90:Q")
    dot = base.mark_circle(color=ACCENT, size=70, opacity=1).encode(x=x)
    facet = alt.Row("boss_id:N", title=None, header=alt.Header(labelAngle=0, labelAlign="left", labelLimit=110))
    return alt.layer(rule, tick, dot).properties(height=alt.Step(PARTY_STEP), width=BOSS_WIDTH).facet(row=facet, spacing=8)


def rates(frame: pl.DataFrame) -> Chart:
    """Drops per kill by boss and rarity (boss_id, rarity, events, kills, rate), on a log scale: rarities are decades apart."""
    order = frame.group_by("rarity").agg(pl.col("events").sum()).sort("events", descending=True)["rarity"].to_list()
    base = alt.Chart(frame).encode(
        x=alt.X("rarity:N", title=None, sort=order, axis=alt.Axis(labelAngle=0, ticks=False, domain=False, orient="top")),
        y=alt.Y("boss_id:N", title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=110)),
        tooltip=[
            alt.Tooltip("boss_id:N", title="boss"),
            alt.Tooltip("rarity:N"),
            alt.Tooltip("events:Q", title="drops", format=","),
            alt.Tooltip("kills:Q", format=","),
            alt.Tooltip("rate:Q", title="per kill", format=".2%"),
        ],
    )
    scale = alt.Scale(type="log", range=["#e8f0f4", ACCENT])
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(color=alt.Color("rate:Q", scale=scale, legend=None))
    middle = frame.select((pl.col("rate").min() * pl.col("rate").max()).sqrt()).item()  # of the log scale
    dark = alt.condition(f"datum.rate > {middle}", alt.value("white"), alt.value("#1c2730"))
    text = base.mark_text(fontSize=12).encode(text=alt.Text("rate:Q", format=".2~%"), color=dark)
    return (cells + text).properties(height=alt.Step(34))


def days_to_level(frame: pl.DataFrame) -> Chart:
    """Median days to a level, a dot per level as big as the players who passed it (level, level_ups, days_to_level)."""
    return (
        alt.Chart(frame.drop_nulls("days_to_level"), height=HEIGHT)
        .mark_circle(color=ACCENT, opacity=0.85)
        .encode(
            x=alt.X("level:Q", title="Level passed on the day", axis=alt.Axis(tickMinStep=1, grid=False)),
            y=alt.Y("days_to_level:Q", title="Median days since the first", axis=alt.Axis(tickCount=5)),
            size=alt.Size("level_ups:Q", legend=None, scale=alt.Scale(range=[20, 220])),
            tooltip=[
                "level:Q",
                alt.Tooltip("days_to_level:Q", title="median days"),
                alt.Tooltip("level_ups:Q", title="players"),
            ],
        )
    )


def _colours(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, range=list(SERIES[: len(names)]))
