"""Charts of quantised models: what INT4 costs each language, and what keeping some weights buys.

Every row of a frame is drawn or says in words why it has no number. A replicate is a training seed, or a fold
of the sentences. Quantities are bits an aligned sentence unless an axis says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_style import PALETTE, WIDTH_PX, configured, headed, headed_axis, level, styled, zero

if TYPE_CHECKING:
    import altair as alt

TIERS = (("high", "high-resource", "detected", "circle"), ("low", "low-resource", "inconclusive", "diamond"))
"""A tier, its name, colour and shape."""
SELECTORS = (
    ("nothing kept", "ink", "cross"),
    ("random", "muted", "circle"),
    ("activation", "detected", "diamond"),
    ("magnitude", "equivalent", "square"),
    ("hessian", "inconclusive", "triangle-up"),
)
"""Whose weights are kept, with colour and shape; random ones are the control."""
PANEL_PX = WIDTH_PX - 62
"""Plotting width of a panel that does not stretch."""
OFF_SCALE = ("int2", "legacy")
"""Variants whose change is several times that of the others: left to the table."""


def scales(
    field: str, known: Sequence[tuple[str, str, str]], *, columns: int = 3
) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of the names that occur, under one legend of so many columns."""
    import altair as alt

    names = [name for name, _, _ in known]
    legend = alt.Legend(
        orient="bottom", title=None, columns=columns, symbolStrokeWidth=0, symbolSize=64, labelLimit=0
    )
    colours = alt.Scale(domain=names, range=[PALETTE[colour] for _, colour, _ in known])
    shapes = alt.Scale(domain=names, range=[shape for _, _, shape in known])
    return alt.Color(field, scale=colours, legend=legend), alt.Shape(field, scale=shapes, legend=legend)


def why_not(rows: pl.DataFrame, y: alt.Y, value: str) -> list[alt.Chart]:
    """In place of a number that is missing, the reason; nothing where all are there."""
    import altair as alt

    missing = rows.filter(pl.col(value).is_null()).unique(subset=["row"], maintain_order=True)
    if missing.is_empty():
        return []
    told = missing.select("row", "reason", why="no number: " + pl.col("reason").fill_null("unknown why"))
    mark: alt.Chart = (
        alt.Chart(told)
        .mark_text(align="left", limit=WIDTH_PX - 150, color=PALETTE["invalid"], fontSize=11)
        .encode(y=y, x=alt.value(4), text="why:N", tooltip=alt.Tooltip("reason:N", title="no number"))
    )
    return [mark]


def in_words(rows: pl.DataFrame, value: str, low: str, high: str, label: str) -> str:
    """What the chart shows, in words; of a missing number the reason."""
    return "; ".join(
        f"{r[label]}: no number, {r['reason']}"
        if r[value] is None
        else f"{r[label]}: {r[value]:+.2f}"
        + (f" [{r[low]:+.2f}, {r[high]:+.2f}]" if r[low] is not None else "")
        for r in rows.iter_rows(named=True)
    )


def languages(frame: pl.DataFrame) -> alt.LayerChart:
    """Change of each language with its interval, the largest first, replicates of a model under each other.

    Parameters
    ----------
    frame
        One row a language and replicate: model, replicate, name, tier, change, low, high, alpha, reason; in
        the order of the rows of the chart.
    """
    import altair as alt

    shown = {tier: name for tier, name, _, _ in TIERS}
    rows = frame.with_columns(
        head=pl.col("model"),
        row=pl.col("model") + "|" + pl.col("name"),
        resources=pl.col("tier").replace_strict(shown, default=pl.col("tier")),
        label=pl.col("replicate") + " " + pl.col("name"),
        level=level(),
    )
    names = headed(rows)
    per_row = rows.group_by("row").len()["len"].max()
    step = max(19, 8 * int(str(per_row)))
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis())
    offset = alt.YOffset("replicate:N", scale=alt.Scale(paddingOuter=0.3))
    there = [one[1:] for one in TIERS if one[1] in set(rows["resources"])]
    colour, shape = scales("resources:N", there)
    tips = [
        alt.Tooltip("replicate:N"),
        alt.Tooltip("name:N", title="language"),
        alt.Tooltip("resources:N"),
        alt.Tooltip("share:Q", format=".1%", title="share of training"),
        alt.Tooltip("change:Q", format="+.3f"),
        alt.Tooltip("low:Q", format="+.3f"),
        alt.Tooltip("high:Q", format="+.3f"),
        alt.Tooltip("level:N", title="interval"),
    ]
    base = alt.Chart(rows.filter(pl.col("change").is_not_null())).encode(y=y, yOffset=offset)
    bar = base.mark_rule(strokeWidth=1.4).encode(
        x=alt.X("low:Q", title="change, bits an aligned sentence", axis=alt.Axis(tickCount=5)),
        x2="high:Q",
        color=colour,
        tooltip=tips,
    )
    dot = base.mark_point(filled=True, size=40, opacity=1).encode(
        x="change:Q", color=colour, shape=shape, tooltip=tips
    )
    told = in_words(rows, "change", "low", "high", "label")
    chart = alt.layer(zero(), bar, dot, *why_not(rows, y, "change"))
    return styled(chart, height=step * len(names), description=f"Change by language. {told}.")


def _selected(frame: pl.DataFrame) -> tuple[alt.Color, alt.Shape]:
    there = set(frame["selector"])
    return scales("selector:N", [one for one in SELECTORS if one[0] in there])


def _panels(chart: Any, *, height: int, description: str) -> alt.FacetChart:
    """A panel a replicate, under each other."""
    import altair as alt

    header = alt.Header(labelAnchor="start", labelPadding=2)
    faceted = chart.properties(width=PANEL_PX, height=height).facet(
        facet=alt.Facet("replicate:N", title=None, header=header), columns=1
    )
    done: alt.FacetChart = configured(faceted.properties(spacing=10, description=description))
    return done


def _with_missing(rows: pl.DataFrame, is_missing: pl.Expr) -> pl.DataFrame:
    """Adds `why`: on one row of each replicate, which variants have no place in its panel."""
    names = rows.filter(is_missing).group_by("replicate").agg(
        why="no number: " + pl.col("variant").str.join(", "), because=pl.col("reason").unique().str.join("; ")
    )  # fmt: skip
    first = pl.int_range(pl.len()).over("replicate") == 0
    joined = rows.join(names, on="replicate", how="left", maintain_order="left")
    return joined.with_columns(why=pl.when(first).then("why"))


def _missing(rows: pl.DataFrame) -> list[alt.Chart]:
    """That note in each panel; every layer of a panel has the same data, else it would not be split."""
    import altair as alt

    if rows["why"].null_count() == rows.height:
        return []
    mark = (
        alt.Chart(rows)
        .transform_filter("datum.why !== null")
        .mark_text(align="left", limit=PANEL_PX - 8, color=PALETTE["invalid"], fontSize=11, baseline="top")
    )
    tips = [alt.Tooltip("why:N", title="left out"), alt.Tooltip("because:N")]
    note: alt.Chart = mark.encode(x=alt.value(4), y=alt.value(2), text="why:N", tooltip=tips)
    return [note]


def _level_line(rows: pl.DataFrame) -> alt.Chart:
    import altair as alt

    once = alt.Chart(rows).transform_aggregate(rows="count()", groupby=["replicate"])
    line: alt.Chart = once.mark_rule(color=PALETTE["muted"]).encode(y=alt.datum(0.0))
    return line


def budgets(frame: pl.DataFrame) -> alt.FacetChart:
    """Gap against the share of weights kept, selectors beside the random control, a panel a replicate.

    Parameters
    ----------
    frame
        One row a variant and replicate: replicate, variant, selector, percent, gap, low, high, p, alpha,
        reason.
    """
    import altair as alt

    label = pl.col("replicate") + " " + pl.col("variant")
    rows = _with_missing(frame.with_columns(level=level(), label=label), pl.col("gap").is_null())
    colour, shape = _selected(rows)
    order = [name for name, _, _ in SELECTORS if name in set(rows["selector"])]
    tips = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("gap:Q", format="+.3f"),
        alt.Tooltip("low:Q", format="+.3f"),
        alt.Tooltip("high:Q", format="+.3f"),
        alt.Tooltip("level:N", title="interval"),
        alt.Tooltip("p:Q", format=".3g"),
    ]
    base = alt.Chart(rows).encode(
        x=alt.X("percent:O", title="weights kept, %", axis=alt.Axis(labelAngle=0, ticks=False)),
        xOffset=alt.XOffset("selector:N", scale=alt.Scale(domain=order, paddingOuter=0.6)),
        color=colour,
    )
    bar = base.mark_rule(strokeWidth=1.6).encode(
        y=alt.Y("low:Q", title="gap, bits a sentence", axis=alt.Axis(tickCount=5, grid=True)),
        y2="high:Q",
        tooltip=tips,
    )
    dot = base.mark_point(filled=True, size=48, opacity=1).encode(y="gap:Q", shape=shape, tooltip=tips)
    told = in_words(rows, "gap", "low", "high", "label")
    layers = [_level_line(rows), bar, dot, *_missing(rows)]
    return _panels(alt.layer(*layers, data=rows), height=120, description=f"Gap by budget. {told}.")


def pareto_change(frame: pl.DataFrame) -> alt.FacetChart:
    """Mean change over languages against bits per weight; the frame is that of `pareto_gap`."""
    return _pareto(frame, "change", "mean change, bits", "Mean change by bits per weight")


def pareto_gap(frame: pl.DataFrame) -> alt.FacetChart:
    """Gap against bits per weight, selectors as colours, a panel a replicate.

    Parameters
    ----------
    frame
        One row a variant and replicate: replicate, variant, selector, bits_per_weight, change and gap, each
        with _low and _high (null where no interval was stored), and reason where there is no number.
    """
    return _pareto(frame, "gap", "gap, bits a sentence", "Gap by bits per weight")


def _pareto(frame: pl.DataFrame, value: str, title: str, said: str) -> alt.FacetChart:
    import altair as alt

    size = pl.format(" at {} bits", pl.col("bits_per_weight").round(2)).fill_null("")
    label = pl.col("replicate") + " " + pl.col("variant") + size
    drawn = frame.filter(~pl.col("variant").is_in(OFF_SCALE)).with_columns(label=label)
    is_missing = pl.col(value).is_null() | pl.col("bits_per_weight").is_null()
    rows = _with_missing(drawn, is_missing)
    colour, shape = _selected(rows)
    x = alt.X(
        "bits_per_weight:Q",
        title="bits per weight, with scales and kept weights",
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y(f"{value}_low:Q", title=title, axis=alt.Axis(tickCount=5, grid=True))
    tips = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("bits_per_weight:Q", format=".2f"),
        alt.Tooltip(f"{value}:Q", format="+.3f"),
        alt.Tooltip(f"{value}_low:Q", format="+.3f", title="low"),
        alt.Tooltip(f"{value}_high:Q", format="+.3f", title="high"),
    ]
    layers: list[alt.Chart] = [_level_line(rows)]
    known = rows.filter(~is_missing)
    for place, (name, _, _) in enumerate(SELECTORS):  # one size, several selectors: beside each other
        own = known.filter(pl.col("selector") == name)
        aside = 0 if place == 0 else 6 * place - 15
        base = alt.Chart(rows).encode(x=x, color=colour, tooltip=tips)
        base = base.transform_filter(f"datum.selector === '{name}' && datum.{value} !== null")
        if own[f"{value}_low"].count():
            layers.append(base.mark_rule(strokeWidth=1.6, xOffset=aside).encode(y=y, y2=f"{value}_high:Q"))
        if own.height:
            dot = base.mark_point(filled=True, size=48, opacity=1, xOffset=aside)
            layers.append(dot.encode(y=alt.Y(f"{value}:Q", title=title), shape=shape))
    told = in_words(rows, value, f"{value}_low", f"{value}_high", "label")
    return _panels(alt.layer(*layers, *_missing(rows), data=rows), height=120, description=f"{said}. {told}.")
