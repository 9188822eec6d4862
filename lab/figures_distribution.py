"""Charts of distributions: seeds against uniform ones, and an observed statistic among its permutations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lab.chart_style import PALETTE, WIDTH_PX, configured, row_axis, styled

if TYPE_CHECKING:
    import altair as alt


def seed_quantiles(frame: pl.DataFrame) -> alt.FacetChart:
    """Quantiles of each source's seeds minus uniform ones: a Q-Q plot with its diagonal laid flat.

    Parameters
    ----------
    frame
        Columns source, expected (0 to 1), deviation (observed minus expected) and n (draws of the source).
    """
    import altair as alt

    half = 2.576 * (pl.col("expected") * (1 - pl.col("expected")) / pl.col("n")).sqrt()
    rows = frame.with_columns(
        low=-half, high=half, panel=pl.col("source") + ", " + pl.col("n").cast(pl.String) + " draws"
    )
    tips = [
        alt.Tooltip("source:N"),
        alt.Tooltip("expected:Q", format=".2f", title="uniform quantile"),
        alt.Tooltip("deviation:Q", format="+.4f"),
    ]
    base = alt.Chart(rows).encode(x=alt.X("expected:Q", title="uniform quantile", axis=alt.Axis(tickCount=5)))
    y = alt.Y("deviation:Q", title=None, axis=alt.Axis(tickCount=3))
    band = base.mark_area(color=PALETTE["ink"], opacity=0.12).encode(
        y=alt.Y("low:Q", title=None), y2="high:Q"
    )
    line = base.mark_line(color=PALETTE["ink"], strokeWidth=1.4, interpolate="linear").encode(
        y=y, tooltip=tips
    )
    largest = rows.group_by("source", maintain_order=True).agg(pl.col("deviation").abs().max())
    told = "; ".join(f"{r['source']}: at most {r['deviation']:.4f}" for r in largest.iter_rows(named=True))
    chart = (
        alt.layer(band, line)
        .properties(width=WIDTH_PX - 60, height=54)
        .facet(
            facet=alt.Facet("panel:N", title=None, header=alt.Header(labelAnchor="start", labelPadding=2)),
            columns=1,
        )
        .resolve_scale(y="independent")
        .properties(spacing=10)
    )
    done: alt.FacetChart = configured(chart.properties(description=f"Seeds minus uniform quantiles. {told}."))
    return done


def permutation_null(frame: pl.DataFrame) -> alt.LayerChart:
    """Where each observed statistic lies beside the middle 95 % of its permutations, a row a metric.

    Parameters
    ----------
    frame
        One row a metric: metric, statistic (observed), low and high (of the permutations), p and p_adjusted.
    """
    import altair as alt

    y = alt.Y("metric:N", sort=frame["metric"].to_list(), title=None, axis=row_axis())
    tips = [
        alt.Tooltip("metric:N"),
        alt.Tooltip("statistic:Q", format=".3f", title="observed"),
        alt.Tooltip("low:Q", format=".3f", title="permutations, 2.5 %"),
        alt.Tooltip("high:Q", format=".3f", title="97.5 %"),
        alt.Tooltip("p:Q", format=".3g"),
        alt.Tooltip("p_adjusted:Q", format=".3g", title="p, max-T"),
    ]
    base = alt.Chart(frame).encode(y=y)
    x = alt.X("low:Q", title="omnibus statistic", scale=alt.Scale(zero=True))
    null = base.mark_rule(color=PALETTE["line"], strokeWidth=10).encode(x=x, x2="high:Q", tooltip=tips)
    dot = base.mark_point(filled=True, size=64, color=PALETTE["ink"], shape="diamond", opacity=1).encode(
        x="statistic:Q", tooltip=tips
    )
    told = "; ".join(
        f"{r['metric']}: {r['statistic']:.2f}, permutations {r['low']:.2f} to {r['high']:.2f}"
        for r in frame.iter_rows(named=True)
    )
    return styled(
        alt.layer(null, dot), height=26 * frame.height, description=f"Observed among permutations. {told}."
    )
