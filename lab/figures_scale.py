"""Charts over several models or doses: how an effect goes with size, and what a dose does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lab.chart_style import PALETTE, WIDTH_PX, configured, level, styled

if TYPE_CHECKING:
    import altair as alt

SHAPES = (
    ("DETECTED", "detected", "diamond"),
    ("EQUIVALENT", "equivalent", "square"),
    ("INCONCLUSIVE", "inconclusive", "circle"),
    ("INVALID", "invalid", "cross"),
)
"""A verdict, its colour and its shape."""


def verdict_scales(present: set[str]) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of the verdicts that occur, under one legend."""
    import altair as alt

    shown = [found for found in SHAPES if found[0] in present]
    names = [name for name, _, _ in shown]
    legend = alt.Legend(orient="bottom", title=None, symbolStrokeWidth=0, symbolSize=64)
    colours = alt.Scale(domain=names, range=[PALETTE[colour] for _, colour, _ in shown])
    shapes = alt.Scale(domain=names, range=[shape for _, _, shape in shown])
    return (
        alt.Color("verdict:N", scale=colours, legend=legend),
        alt.Shape("verdict:N", scale=shapes, legend=legend),
    )


def scale(frame: pl.DataFrame) -> alt.LayerChart:
    """Largest primary effect of every rung against its parameters, with margin band and crossover.

    Parameters
    ----------
    frame
        One row a rung: rung, parameters, effect, low, high, margin, alpha, verdict, p_adjusted, n and
        crossover (parameters from which every rung is EQUIVALENT; null without one). Rungs without an effect
        are left out.
    """
    import altair as alt

    rows = frame.filter(pl.col("effect").is_not_null()).with_columns(level=level())
    tips = [
        alt.Tooltip("rung:N"),
        alt.Tooltip("parameters:Q", format=".3s"),
        alt.Tooltip("effect:Q", format="+.3f", title="effect, SD"),
        alt.Tooltip("low:Q", format="+.3f"),
        alt.Tooltip("high:Q", format="+.3f"),
        alt.Tooltip("level:N", title="interval"),
        alt.Tooltip("p_adjusted:Q", format=".3g", title="p over rungs"),
        alt.Tooltip("n:Q", title="texts"),
    ]
    x = alt.X(
        "parameters:Q",
        title="parameters",
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=alt.Axis(values=rows["parameters"].to_list(), format=".2s", labelOverlap=True, grid=False),
    )
    y = alt.Y("effect:Q", title="effect, within-cell SD", axis=alt.Axis(grid=True, tickCount=5))
    colour, shape = verdict_scales(set(rows["verdict"]))
    base = alt.Chart(rows).encode(x=x)
    bar = base.mark_rule(strokeWidth=1.6).encode(y="low:Q", y2="high:Q", color=colour, tooltip=tips)
    dot = base.mark_point(filled=True, size=64, opacity=1).encode(
        y=y, color=colour, shape=shape, tooltip=tips
    )
    name = base.mark_text(align="left", dx=7, dy=-7, color=PALETTE["ink"], fontSize=11).encode(
        y="effect:Q", text="rung:N"
    )
    margin = pl.col("margin").max()
    band = (
        alt.Chart(rows.select(low=-margin, high=margin))
        .mark_rect(color=PALETTE["band"])
        .encode(y="low:Q", y2="high:Q")
    )
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=PALETTE["muted"]).encode(y="zero:Q")
    crossed = frame.select(pl.col("crossover").max().alias("parameters")).drop_nulls()
    line = (
        alt.Chart(crossed)
        .mark_rule(color=PALETTE["equivalent"], strokeDash=[5, 3], strokeWidth=1.5)
        .encode(x="parameters:Q", tooltip=alt.Tooltip("parameters:Q", title="EQUIVALENT from", format=".3s"))
    )
    told = "; ".join(
        f"{r['rung']}: {r['effect']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}], {r['verdict']}"
        for r in rows.iter_rows(named=True)
    )
    layers = [band, zero, *([line] if crossed.height else []), bar, dot, name]
    return styled(alt.layer(*layers), height=220, description=f"Effect by size of model. {told}.")


def doses(frame: pl.DataFrame) -> alt.FacetChart:
    """Difference of each metric from no injection against the dose of noise on the logits, a line a law.

    Parameters
    ----------
    frame
        One row a dose, law and metric: dose (SD of the noise, in logits), law, metric, effect, low_sd,
        high_sd, margin and p_adjusted.
    """
    import altair as alt

    tips = [
        alt.Tooltip("metric:N"),
        alt.Tooltip("law:N"),
        alt.Tooltip("dose:Q", title="dose, logits"),
        alt.Tooltip("effect:Q", format="+.3f", title="difference, SD"),
        alt.Tooltip("low_sd:Q", format="+.3f", title="low"),
        alt.Tooltip("high_sd:Q", format="+.3f", title="high"),
        alt.Tooltip("p_adjusted:Q", format=".3g"),
    ]
    laws = sorted(set(frame["law"].to_list()))
    colour = alt.Color(
        "law:N",
        scale=alt.Scale(domain=laws, range=[PALETTE["ink"], PALETTE["detected"]][: len(laws)]),
        legend=alt.Legend(orient="bottom", title=None),
    )
    shape = alt.Shape("law:N", scale=alt.Scale(domain=laws, range=["circle", "diamond"][: len(laws)]))
    x = alt.X(
        "dose:Q",
        title="noise on the logits, SD",
        scale=alt.Scale(type="symlog", constant=0.1),
        axis=alt.Axis(values=sorted(set(frame["dose"].to_list())), format="g"),
    )
    base = alt.Chart(frame).encode(x=x, color=colour)
    line = base.mark_line(strokeWidth=1.2).encode(
        y=alt.Y("effect:Q", title="difference, SD", axis=alt.Axis(tickCount=4))
    )
    bar = base.mark_rule(strokeWidth=1.6).encode(y="low_sd:Q", y2="high_sd:Q", tooltip=tips)
    dot = base.mark_point(filled=True, size=56, opacity=1).encode(y="effect:Q", shape=shape, tooltip=tips)
    zero = alt.Chart(frame).mark_rule(color=PALETTE["muted"]).encode(y=alt.datum(0.0))
    told = "; ".join(
        f"{r['metric']} {r['law']} at {r['dose']:g}: {r['effect']:+.2f}" for r in frame.iter_rows(named=True)
    )
    chart = (
        alt.layer(zero, line, bar, dot)
        .properties(width=WIDTH_PX - 60, height=90)
        .facet(
            facet=alt.Facet("metric:N", title=None, header=alt.Header(labelAnchor="start", labelPadding=2)),
            columns=1,
        )
        .properties(spacing=10, description=f"Difference from no injection, within-cell SD. {told}.")
    )
    done: alt.FacetChart = configured(chart)
    return done
