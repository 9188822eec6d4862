"""Charts of where a trained adapter uses its ranks: ranks by module, spectra, agreement of seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_style import PALETTE, WIDTH_PX, configured, row_axis, styled
from lab.figures_quantisation import why_not

if TYPE_CHECKING:
    import altair as alt

MOST_NUMBERS = 8
"""Layers of a network whose cells still have room for numbers."""
PANEL_PX = WIDTH_PX - 86
"""Plotting width of a heat map."""
HALF_PX = 138
"""Plotting width of each of two panels beside each other."""


def ranks(frame: pl.DataFrame) -> alt.FacetChart:
    """Heat maps of rank: a panel an arm, a row a projection, a column a layer; means over seeds and shuffles.

    Parameters
    ----------
    frame
        One row an arm, projection and layer: arm, projection, layer (null outside blocks), rank (mean),
        least, most, adapters; in the order of panels and rows.
    """
    import altair as alt

    most = float(str(frame["rank"].max()))
    rows = frame.select(
        "arm",
        "projection",
        pl.col("rank").round(2),
        "least",
        "most",
        "adapters",
        column=_name(pl.col("layer")),
    )
    layers_there = frame.select("layer").unique().sort("layer", nulls_last=True)
    columns = layers_there.select(_name(pl.col("layer")))["layer"].to_list()
    are_few = len(columns) <= MOST_NUMBERS
    rows = rows.with_columns(shown=_short(pl.col("rank"))) if are_few else rows
    base = alt.Chart().encode(
        y=alt.Y("projection:N", title=None, sort=list(dict.fromkeys(rows["projection"])), axis=row_axis()),
        x=alt.X("column:N", title="layer", sort=columns, axis=_layers(columns)),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("projection:N"),
            alt.Tooltip("column:N", title="layer"),
            alt.Tooltip("rank:Q", format=".3~g", title="mean rank"),
            alt.Tooltip("least:Q"),
            alt.Tooltip("most:Q"),
            alt.Tooltip("adapters:Q"),
        ],
    )
    mark = base.mark_rect(color=PALETTE["detected"], stroke=PALETTE["line"], strokeWidth=0.5, aria=are_few)
    legend = alt.Legend(
        orient="bottom",
        title="rank",
        titleOrient="left",
        symbolType="square",
        format="d",
        values=[2**k for k in range(10) if 2**k <= most],
    )
    darker = alt.Scale(type="symlog", constant=1, domain=[0, most], range=[0, 0.6])
    cell = mark.encode(opacity=alt.Opacity("rank:Q", scale=darker, legend=legend))
    value = base.mark_text(fontSize=11, color=PALETTE["ink"]).encode(text="shown:N")
    layers = [cell, value] if are_few else [cell]
    sized = alt.layer(*layers, data=rows).properties(
        width=PANEL_PX, height=16 * rows["projection"].n_unique()
    )
    faceted = sized.facet(facet=_headed("arm", rows), columns=1)
    done: alt.FacetChart = configured(faceted.properties(spacing=8, description=_said_ranks(rows)))
    return done


def _name(layer: pl.Expr) -> pl.Expr:
    return pl.coalesce(layer.cast(pl.String), pl.lit("none"))


def _layers(columns: list[str]) -> alt.Axis:
    """Names of few layers, every fourth of many."""
    import altair as alt

    shown = columns if len(columns) <= MOST_NUMBERS else columns[::4]
    return alt.Axis(labelAngle=0, ticks=False, domain=False, values=shown)


def _short(value: pl.Expr) -> pl.Expr:
    """`4`, `3.5`, `12`."""
    rounded = value.round(1)
    whole = rounded == rounded.floor()
    return (
        pl.when(whole | (value >= 10))
        .then(value.round(0).cast(pl.Int64).cast(pl.String))
        .otherwise(rounded.cast(pl.String))
    )


def _said_ranks(rows: pl.DataFrame) -> str:
    told = []
    for (arm,), own in rows.group_by(["arm"], maintain_order=True):
        means = own.group_by("projection", maintain_order=True).agg(pl.col("rank").mean())
        each = ", ".join(f"{name} {mean:.1f}" for name, mean in means.iter_rows())
        told.append(f"{arm}: {each}")
    return f"Mean rank by projection. {'; '.join(told)}."


def spectra(frame: pl.DataFrame) -> alt.FacetChart:
    """Singular values of each module of the probe over its largest, a line a module, a panel a projection.

    Parameters
    ----------
    frame
        One row a module: projection, layer, module, seeds, shares (of the largest singular value, falling;
        mean over seeds; null without energy), reason.
    """
    import altair as alt

    rows = _with_median(frame)
    most = int(str(rows["shares"].list.len().max()))
    tick = 4 if most <= 16 else 16
    base = alt.Chart().encode(
        x=alt.X(
            "place:Q",
            title="singular value",
            scale=alt.Scale(domain=[1, max(2, most)], nice=False),
            axis=alt.Axis(values=[1, *range(tick, most + 1, tick)]),
        ),
        y=alt.Y("share:Q", title="share of the first", axis=alt.Axis(tickCount=3, grid=True)),
    )
    tips = [alt.Tooltip("module:N"), alt.Tooltip("layer:N"), alt.Tooltip("seeds:Q")]
    one = base.transform_filter("datum.layer !== 'all'").encode(detail="module:N", tooltip=tips)
    line = one.mark_line(color=PALETTE["muted"], strokeWidth=1, opacity=_faint(frame))
    of_all = base.transform_filter("datum.layer === 'all'").encode(tooltip=tips)
    middle = of_all.mark_line(color=PALETTE["detected"], strokeWidth=2)
    steps: Any = [{"op": "row_number", "as": "place"}]
    faceted = (
        alt.layer(line, middle, *_without(rows), data=rows)
        .properties(width=HALF_PX, height=74)
        .facet(facet=_headed("projection", rows), columns=2)
        .transform_flatten(["shares"], as_=["share"])
        .transform_window(steps, groupby=["projection", "module"])
    )
    done: alt.FacetChart = configured(faceted.properties(spacing=12, description=_said_spectra(frame)))
    return done


def _headed(name: str, rows: pl.DataFrame) -> alt.Facet:
    """A panel a value, in the order of the rows."""
    import altair as alt

    header = alt.Header(labelAnchor="start", labelPadding=2, labelFontWeight="bold")
    return alt.Facet(f"{name}:N", title=None, sort=list(dict.fromkeys(rows[name])), header=header)


def _with_median(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds a row a projection, of layer `all`: the median over its modules, and how many have no energy."""
    nothing = pl.lit([None], dtype=pl.List(pl.Float64))
    gone = pl.col("reason").is_not_null()
    rows = frame.select(
        "projection",
        "seeds",
        "module",
        layer=_name(pl.col("layer")),
        shares=pl.when(gone).then(nothing).otherwise("shares"),
        why=pl.lit(None, pl.String),
    )
    places = pl.int_range(pl.len()).over("module")
    medians = (
        rows.explode("shares")
        .with_columns(place=places)
        .group_by("projection", "place", maintain_order=True)
        .agg(pl.col("shares").median(), pl.col("seeds").max())
        .group_by("projection", maintain_order=True)
        .agg(pl.col("shares"), pl.col("seeds").max())
    )
    missing = frame.group_by("projection").agg(missing=gone.sum(), of=pl.len())
    said = pl.format("no energy: {} of {}", "missing", "of")
    closing = medians.join(missing, on="projection", how="left", maintain_order="left").select(
        "projection",
        "seeds",
        module=pl.format("median of {} modules", "of"),
        layer=pl.lit("all"),
        shares="shares",
        why=pl.when(pl.col("missing") > 0).then(said),
    )
    return pl.concat([rows, closing])


def _faint(rows: pl.DataFrame) -> float:
    """Lines of many modules are fainter, so that their bundle can be seen."""
    return 0.7 if rows.height <= 56 else 0.35


def _without(rows: pl.DataFrame) -> list[alt.Chart]:
    """In each panel, how many modules have no line."""
    import altair as alt

    if rows["why"].null_count() == rows.height:
        return []
    note: alt.Chart = (
        alt.Chart()
        .transform_filter("datum.why !== null && datum.place === 1")
        .mark_text(align="right", color=PALETTE["invalid"], fontSize=11, baseline="top")
        .encode(
            x=alt.value(HALF_PX - 2),
            y=alt.value(2),
            text="why:N",
            tooltip=alt.Tooltip("why:N", title="left out"),
        )
    )
    return [note]


def _said_spectra(rows: pl.DataFrame) -> str:
    told = []
    for (projection,), own in rows.group_by(["projection"], maintain_order=True):
        known = own.filter(pl.col("reason").is_null())["shares"].to_list()
        counts = sorted(sum(share > 0.1 for share in one) for one in known)
        missing = own.height - len(counts)
        said = f"{counts[len(counts) // 2]} above a tenth of the largest" if counts else "no energy"
        left = f", {missing} modules without energy" if missing and counts else ""
        told.append(f"{projection}, {own.height} modules: {said}{left}")
    return f"Singular values of the probe, in the middle module of each projection. {'; '.join(told)}."


def stability(frame: pl.DataFrame) -> alt.LayerChart:
    """Rank correlation of two seeds' audits over modules: a row a measure, a dot a pair of seeds, the median.

    Parameters
    ----------
    frame
        One row a measure and pair: measure, pair, spearman, modules; median, low, high and pairs of the
        measure; reason.
    """
    import altair as alt

    rows = frame.with_columns(row=pl.col("measure").str.replace_all("_", " "), value=pl.col("median"))
    names = list(dict.fromkeys(rows["row"]))
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=row_axis())
    there = rows.filter(pl.col("spearman").is_not_null())
    least = float(str(there["spearman"].min())) if there.height else 0.0
    scale = alt.Scale(domain=[-1.0 if least < 0 else 0.0, 1.0], nice=False)
    x = alt.X("low:Q", title="rank correlation over modules", scale=scale, axis=alt.Axis(tickCount=5))
    whole = alt.Chart(there.unique(subset=["row"], maintain_order=True))
    tips = [
        alt.Tooltip("measure:N"),
        alt.Tooltip("median:Q", format="+.3f"),
        alt.Tooltip("low:Q", format="+.3f", title="least"),
        alt.Tooltip("high:Q", format="+.3f", title="most"),
        alt.Tooltip("pairs:Q", title="pairs of seeds"),
    ]
    bar = whole.mark_rule(color=PALETTE["ink"], strokeWidth=1.4).encode(x=x, x2="high:Q", y=y, tooltip=tips)
    middle = whole.mark_tick(color=PALETTE["ink"], thickness=2.5, size=13, opacity=1).encode(
        x="median:Q", y=y, tooltip=tips
    )
    dot = alt.Chart(there).mark_point(filled=True, size=30, opacity=0.6, color=PALETTE["detected"], yOffset=8)
    pair = dot.encode(
        x="spearman:Q",
        y=y,
        tooltip=[
            alt.Tooltip("measure:N"),
            alt.Tooltip("pair:N"),
            alt.Tooltip("spearman:Q", format="+.3f"),
            alt.Tooltip("modules:Q"),
        ],
    )
    told = "; ".join(
        f"{r['row']}: no number, {r['reason']}"
        if r["median"] is None
        else f"{r['row']}: median {r['median']:+.2f}, {r['low']:+.2f} to {r['high']:+.2f}, {r['pairs']} pairs"
        for r in rows.unique(subset=["row"], maintain_order=True).iter_rows(named=True)
    )
    chart = alt.layer(bar, pair, middle, *why_not(rows, y, "value"))
    return styled(chart, height=27 * len(names), description=f"Agreement of seeds. {told}.")
