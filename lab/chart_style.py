"""How every chart looks: colours, axes, the margin band, and the rows of a forest plot.

A chart is narrow enough for a phone (360 px) and stretches where there is room. Colours are few and named in
`PALETTE`, so that the page can swap them for its own variables and follow the reader's dark mode; whatever a
colour says, a shape or a word says too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import altair as alt

WIDTH_PX = 360
"""Outer width of a chart, axis labels included."""
PALETTE: Mapping[str, str] = {
    "ink": "#1d2329",
    "muted": "#66707a",
    "line": "#d5d9dd",
    "band": "#e9edf0",
    "paper": "#fdfdfc",
    "detected": "#1f5fa8",
    "equivalent": "#1f7a5c",
    "inconclusive": "#946200",
    "invalid": "#b3261e",
}
"""Light colours by name; `lab/report.css` has a variable of the same name for each."""
STATUS = (
    ("excludes 0", "detected", "diamond"),
    ("excludes 0, inside margin", "detected", "triangle-up"),
    ("inside margin", "equivalent", "square"),
    ("neither", "inconclusive", "circle"),
)
"""What a contrast's tests say, its colour and its shape."""


def contrast_labels(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `head` (the metric), `row` (unique: head, bar, contrast), `status` and `level`."""
    several = "model" in frame.columns and frame["model"].n_unique() > 1
    head = pl.col("model") + " · " + pl.col("metric") if several else pl.col("metric")
    excludes, inside = pl.col("excludes_zero").fill_null(False), pl.col("inside_margin").fill_null(False)
    status = (
        pl.when(excludes & inside)
        .then(pl.lit("excludes 0, inside margin"))
        .when(excludes)
        .then(pl.lit("excludes 0"))
        .when(inside)
        .then(pl.lit("inside margin"))
        .otherwise(pl.lit("neither"))
    )
    contrast = pl.col("contrast").map_elements(contrast_name, return_dtype=pl.String)
    return frame.with_columns(head=head, row=head + "|" + contrast, status=status, level=level())


def contrast_name(contrast: str) -> str:
    """Both sides of a contrast, what they share once.

    >>> contrast_name("PRNG-TRNG"), contrast_name("select/BIASED-select/PRNG")
    ('PRNG − TRNG', 'select: BIASED − PRNG')
    """
    left, _, right = contrast.partition("-")
    shared, _, one = left.rpartition("/")
    if shared and right.startswith(f"{shared}/"):
        return f"{shared}: {one} − {right.removeprefix(f'{shared}/')}"
    return contrast.replace("-", " − ", 1)


def headed(rows: pl.DataFrame) -> list[str]:
    """Row names top down, each metric's name above its contrasts."""
    names: dict[str, list[str]] = {}
    for head, row in rows.select("head", "row").iter_rows():
        names.setdefault(f"{head}|", []).append(row)
    return [name for head, found in names.items() for name in (head, *dict.fromkeys(found))]


def headed_axis() -> alt.Axis:
    """Shows the names of `headed`: a metric in bold, a contrast without its metric."""
    import altair as alt

    last = "split(datum.label, '|')[1]"
    bold: Any = {"condition": {"test": f"{last} === ''", "value": "bold"}, "value": "normal"}
    return alt.Axis(
        labelExpr=f"{last} || split(datum.label, '|')[0]",
        labelFontWeight=bold,
        labelLimit=230,
        ticks=False,
        domain=False,
    )


def row_axis() -> alt.Axis:
    """Names of rows, clear of dots at the left edge."""
    import altair as alt

    return alt.Axis(ticks=False, domain=False, labelPadding=8)


def level() -> pl.Expr:
    """Level of the interval in words, from `alpha`."""
    return ((1 - pl.col("alpha")) * 100).round(2).cast(pl.String) + " %"


def say_forest(rows: pl.DataFrame) -> str:
    """What a forest plot shows, in words."""
    told = (
        f"{r['head']} {r['contrast']}: {r['effect']:+.2f} "
        f"[{r['low_sd']:+.2f}, {r['high_sd']:+.2f}], {r['status']}"
        for r in rows.iter_rows(named=True)
    )
    return "Differences in within-cell SD. " + "; ".join(told)


def margin_band(rows: pl.DataFrame) -> list[alt.Chart]:
    """The margin as a band around 0; nothing where no row has one."""
    import altair as alt

    margin = pl.col("margin").max()
    data = rows.select(low=-margin, high=margin).drop_nulls()
    band: alt.Chart = alt.Chart(data).mark_rect(color=PALETTE["band"]).encode(x="low:Q", x2="high:Q")
    return [band] if data.height else []


def zero() -> alt.Chart:
    """The line of no difference."""
    import altair as alt

    line: alt.Chart = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=PALETTE["muted"])
    return line.encode(x="zero:Q")


def status_scales(present: set[str]) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of the statuses that occur, under one legend."""
    import altair as alt

    shown = [status for status in STATUS if status[0] in present]
    names = [name for name, _, _ in shown]
    legend = alt.Legend(
        orient="bottom", title=None, columns=1, symbolStrokeWidth=0, symbolSize=64, labelLimit=0
    )
    colours = alt.Scale(domain=names, range=[PALETTE[colour] for _, colour, _ in shown])
    shapes = alt.Scale(domain=names, range=[shape for _, _, shape in shown])
    colour = alt.Color("status:N", scale=colours, legend=legend)
    return colour, alt.Shape("status:N", scale=shapes, legend=legend)


def styled(chart: Any, *, height: int, description: str) -> alt.LayerChart:
    """A layered chart at its size, with what it shows in words."""
    import altair as alt

    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    sized = chart.properties(width=WIDTH_PX, height=height, autosize=fit, description=description)
    done: alt.LayerChart = configured(sized)
    return done


def configured(chart: Any) -> Any:
    """One look for all: thin lines, no frame, 12 px type."""
    ink, muted, line = PALETTE["ink"], PALETTE["muted"], PALETTE["line"]
    text = {"labelColor": ink, "titleColor": muted, "labelFontSize": 12}
    axis = {"gridColor": line, "domainColor": line, "tickColor": line, "gridDash": [2, 3]}
    return chart.configure(  # one call: each copies the chart with its data
        font="sans-serif",
        background="transparent",
        padding=4,
        view={"stroke": None},
        axis={**text, **axis, "titleFontSize": 12, "titleFontWeight": "normal"},
        axisY={"grid": False},
        legend=text,
        header=text,
    )
