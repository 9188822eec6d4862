"""What charts of the nanodesmo study share: one colour, shape and dash a regime, forests, panels of "
"courses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import polars.selectors as cs

from lab.chart_style import PALETTE, WIDTH_PX, configured, headed, headed_axis, level, row_axis, styled
from lab.figures_quantisation import why_not

if TYPE_CHECKING:
    import altair as alt

REGIMES = (
    ("lr_heatwave", "inconclusive", "triangle-up", (7, 2)),
    ("sensory_fog", "detected", "diamond", (1, 0)),
    ("false_feedback", "ink", "cross", (2, 2)),
    ("self_clamp", "equivalent", "square", (7, 2, 2, 2)),
    ("bewilderment", "invalid", "circle", (4, 1)),
)
"""A regime, its colour, shape and dash, the same in every figure."""
SPARE = (
    ("muted", "triangle-down", (1, 0)),
    ("detected", "triangle-left", (3, 1)),
    ("equivalent", "triangle-right", (5, 2)),
    ("inconclusive", "triangle-down", (1, 1)),
    ("invalid", "square", (9, 2)),
)
"""Of regimes that a person makes up."""
CHANNEL_NAMES = {
    "loss_nats": "loss, nats",
    "entropy_nats": "entropy, nats",
    "top1": "top-1 probability",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "self_norm": "norm of s",
    "self_delta": "change of s",
    "self_drift": "drift, 1 − cos(s, r)",
    "relative_drift": "distance of s from r",
    "raw_norm": "norm of raw update",
    "memory_norm": "norm of memory",
    "clamped_norm": "memory, clamped",
    "gate": "gate",
    "cosine": "cos(s, s + m)",
    "effect_kl_nats": "state effect, nats",
}
"""A channel in words, with its unit where it has one."""
GUTTER_PX = 118
"""Room for row names where several panels stand under each other."""
PLOT_PX = WIDTH_PX - GUTTER_PX - 22
HALF_PX = (WIDTH_PX - 104) // 2
"""Plotting width of one of two panels beside each other."""


def looks_of(regime: str) -> tuple[str, str, str, tuple[int, ...]]:
    """Name, colour, shape and dash of a regime; one without its own gets spare ones by its name.

    >>> looks_of("sensory_fog")[1:3]
    ('detected', 'diamond')
    """
    for known in REGIMES:
        if known[0] == regime:
            return known
    return (regime, *SPARE[sum(regime.encode()) % len(SPARE)])


def legend(columns: int = 3, **more: Any) -> alt.Legend:
    """Under the chart, in full colours also where a layer is faint."""
    import altair as alt

    return alt.Legend(
        orient="bottom", title=None, columns=columns, symbolSize=64, labelLimit=0, symbolOpacity=1, **more
    )


def regime_scales(regimes: Sequence[str], *, columns: int = 2) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of the regimes that occur, under one legend."""
    import altair as alt

    names = list(dict.fromkeys(regimes))
    shown = [looks_of(name) for name in names]
    colours = alt.Scale(domain=names, range=[PALETTE[colour] for _, colour, _, _ in shown])
    shapes = alt.Scale(domain=names, range=[shape for _, _, shape, _ in shown])
    told = legend(columns, symbolStrokeWidth=0)
    return (
        alt.Color("regime:N", scale=colours, legend=told),
        alt.Shape("regime:N", scale=shapes, legend=told),
    )


def regime_dashes(regimes: Sequence[str]) -> tuple[alt.Color, alt.StrokeDash]:
    """Colour and dash of lines by regime, under one legend."""
    import altair as alt

    names = list(dict.fromkeys(regimes))
    shown = [looks_of(name) for name in names]
    told = legend(2, symbolType="stroke", symbolStrokeWidth=2)
    colours = alt.Scale(domain=names, range=[PALETTE[colour] for _, colour, _, _ in shown])
    dashes = alt.Scale(domain=names, range=[list(dash) for _, _, _, dash in shown])
    return (
        alt.Color("regime:N", scale=colours, legend=told),
        alt.StrokeDash("regime:N", scale=dashes, legend=told),
    )


def tips(*shown: tuple[str, str, str]) -> list[alt.Tooltip]:
    """Field, heading, format."""
    import altair as alt

    return [
        alt.Tooltip(field, title=head, format=form) if form else alt.Tooltip(field, title=head)
        for field, head, form in shown
    ]


def numbers(form: str, estimate: str = "estimate") -> tuple[tuple[str, str, str], ...]:
    """What a tooltip says of an estimate over seeds."""
    return (
        (f"{estimate}:Q", "mean", form),
        ("whole_low:Q", "low", form),
        ("whole_high:Q", "high", form),
        ("level:N", "interval", ""),
        ("n:Q", "seeds", ""),
    )


def cut(rows: pl.DataFrame, ends: Sequence[float]) -> pl.DataFrame:
    """Intervals cut at the ends of the axis, whole ones in `whole_low` and `whole_high` for tooltips.

    A clip path would do, but on a page with many charts the browser takes that of another.

    >>> cut(pl.DataFrame({"low": [-9.0], "high": [0.5]}), [-1.0, 1.0]).rows()
    [(-1.0, 0.5, -9.0, 0.5)]
    """
    return rows.with_columns(whole_low="low", whole_high="high").with_columns(
        pl.col("low", "high").clip(float(ends[0]), float(ends[1]))
    )


def drawn_of(rows: pl.DataFrame, *columns: str, digits: int = 6) -> pl.DataFrame:
    """Columns that a chart draws, numbers with so many digits: a page holds every other one for nothing.

    >>> drawn_of(pl.DataFrame({"a": [1 / 3], "b": ["long"]}), "a", "c").rows()
    [(0.333333,)]
    """
    there = rows.select(name for name in columns if name in rows.columns)
    return there.with_columns(cs.float().round_sig_figs(digits))


BARS = ("row", "label", "level", "regime", "arm", "part", "estimate", "low", "high", "whole_low",
        "whole_high", "n", "p", "p_adjusted", "value", "margin", "verdict", "feature")  # fmt: skip
"""Columns that marks with intervals and their tooltips may show."""


def bars(
    rows: pl.DataFrame, x: alt.X, y: alt.Y, tooltip: list[alt.Tooltip], *, size: int = 54, **look: Any
) -> list[alt.Chart]:
    """Estimates as marks with their intervals as rules, of the rows that have them.

    Parameters
    ----------
    look
        Encodings `color`, `shape`, or a `colour` of the palette for all.
    """
    import altair as alt

    there = drawn_of(rows.filter(pl.col("estimate").is_not_null()), *BARS)
    if "colour" in look:
        look["color"] = alt.value(PALETTE[look.pop("colour")])
    shape = {"shape": look.pop("shape")} if "shape" in look else {}
    rule = alt.Chart(there.filter(pl.col("low").is_not_null())).mark_rule(strokeWidth=1.6)
    dot = alt.Chart(there).mark_point(filled=True, size=size, opacity=1)
    return [
        rule.encode(x=x, x2="high:Q", y=y, tooltip=tooltip, **look),
        dot.encode(x="estimate:Q", y=y, tooltip=tooltip, **look, **shape),
    ]


def told(rows: pl.DataFrame, label: str, form: str = "+.3f") -> str:
    """Each estimate with its interval in words; of a missing one the reason.

    >>> told(pl.DataFrame({"a": ["x"], "estimate": [0.5], "low": [0.1], "high": [0.9]}), "a", ".1f")
    'x: 0.5 [0.1, 0.9]'
    """
    return "; ".join(
        f"{r[label]}: no number, {r.get('reason') or 'unknown why'}"
        if r["estimate"] is None
        else f"{r[label]}: {r['estimate']:{form}}"
        + (f" [{r['low']:{form}}, {r['high']:{form}}]" if r["low"] is not None else "")
        for r in rows.iter_rows(named=True)
    )


def reach(rows: pl.DataFrame, *points: str, widths: float = 1.5, around: float | None = None) -> list[float]:
    """Ends of an axis that shows every point, and of intervals so many widths of the points' range beyond.

    An interval over two seeds can be hundreds of times as wide as what they differ by.

    >>> reach(pl.DataFrame({"estimate": [0.0, 1.0], "low": [-9.0, 0.9], "high": [9.0, 1.1]}), "estimate")
    [-1.5, 2.5]
    """
    known = [float(v) for name in (*points, "estimate") for v in rows[name].drop_nulls()]
    known += [around] if around is not None else []
    if not known:
        return [0.0, 1.0]
    least, most = min(known), max(known)
    span = max(most - least, 0.02 * max(abs(least), abs(most)), 1e-9)
    ends = [float(v) for name in ("low", "high") for v in rows[name].drop_nulls()]
    low = max(min([least - 0.08 * span, *ends]), least - widths * span)
    high = min(max([most + 0.08 * span, *ends]), most + widths * span)
    return [low, high]


def within(ends: Sequence[float], least: float | None = None, most: float | None = None) -> list[float]:
    """Ends cut where a quantity cannot go."""
    low, high = ends
    return [low if least is None else max(low, least), high if most is None else min(high, most)]


def regime_forest(
    rows: pl.DataFrame, *, title: str, form: str, said: str, symlog: bool = False, step: int = 16
) -> alt.LayerChart:
    """A row a regime under each heading, its interval, and the line of no difference.

    Parameters
    ----------
    rows
        Columns head, regime, estimate, low, high, alpha, n, reason.
    """
    import altair as alt

    rows = rows.with_columns(
        row=pl.col("head") + "|" + pl.col("regime"),
        label=pl.col("head") + ", " + pl.col("regime"),
        level=level(),
    )
    names = headed(rows)
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis())
    domain = reach(rows, around=0.0)
    linear = {"scale": alt.Scale(domain=domain, nice=False), "axis": alt.Axis(tickCount=5)}
    x = alt.X("low:Q", title=title, **(signed_log(domain) if symlog else linear))
    colour, shape = regime_scales(sorted(set(rows["regime"])))
    shown = tips(("label:N", "what", ""), *numbers(form))
    origin = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=PALETTE["muted"]).encode(x="zero:Q")
    drawn = bars(cut(rows, domain), x, y, shown, color=colour, shape=shape)
    return styled(
        alt.layer(origin, *drawn, *why_not(rows, y, "estimate")),
        height=step * len(names),
        description=f"{said} {told(rows, 'label', form)}.",
    )


def signed_log(domain: Sequence[float]) -> dict[str, Any]:
    """Scale and axis that are linear within 1 of zero and logarithmic beyond."""
    import altair as alt

    largest = max(abs(end) for end in domain)
    powers = [value for k in range(7) for value in (10**k, 3 * 10**k) if value <= max(largest, 1.0)]
    ticks = [*(-p for p in reversed(powers)), 0, *powers]
    return {
        "scale": alt.Scale(type="symlog", constant=1, domain=list(domain), nice=False),
        "axis": alt.Axis(values=ticks, format=",d", labelOverlap=True),
    }


def stacked(parts: Sequence[alt.LayerChart], *, description: str) -> alt.VConcatChart:
    """Panels of rows under each other, their row names in one gutter."""
    import altair as alt

    whole = alt.vconcat(*parts, spacing=14).properties(description=description)
    done: alt.VConcatChart = configured(whole)
    return done


def panel(layers: Sequence[alt.Chart], rows: int, *, step: int = 17) -> alt.LayerChart:
    """One of the panels of `stacked`."""
    import altair as alt

    layered: Any = alt.layer(*layers)
    made: alt.LayerChart = layered.properties(width=PLOT_PX, height=step * rows)
    return made


def gutter(names: Sequence[str]) -> alt.Y:
    """Row names of a panel of `stacked`."""
    import altair as alt

    axis = _changed(row_axis(), minExtent=GUTTER_PX, maxExtent=GUTTER_PX, labelLimit=GUTTER_PX)
    return alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=list(names)), axis=axis)


def wide_heads(names: Sequence[str], limit: int = 200) -> alt.Y:
    """Names of `headed` with room for a verdict."""
    import altair as alt

    axis = _changed(headed_axis(), labelLimit=limit)
    return alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=list(names)), axis=axis)


def _changed(axis: alt.Axis, **more: Any) -> alt.Axis:
    import altair as alt

    return alt.Axis(**{**axis.to_dict(validate=False), **more})


def in_panels(
    layered: Any, order: Sequence[str], *, height: int, description: str, field: str = "panel"
) -> alt.FacetChart:
    """Two panels a line, each with an axis of its own."""
    import altair as alt

    header = alt.Header(labelAnchor="start", labelPadding=5, labelFontWeight="bold")
    faceted = (
        layered.properties(width=HALF_PX, height=height)
        .facet(facet=alt.Facet(f"{field}:N", title=None, sort=list(order), header=header), columns=2)
        .resolve_scale(y="independent")
        .properties(spacing={"row": 34, "column": 46}, bounds="flush", description=description)
    )
    done: alt.FacetChart = configured(faceted)
    return done


def channel_name(channel: str) -> str:
    """In words."""
    return CHANNEL_NAMES.get(channel, channel.replace("_", " "))
