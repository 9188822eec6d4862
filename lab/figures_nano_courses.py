"""Charts of the nanodesmo study over steps: around windows and over whole runs; state effect by lag.

Lines are means over seeds of means over windows, thinned to bins; the shade goes from the least seed to the
most.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_nano import (
    channel_name,
    drawn_of,
    in_panels,
    legend,
    regime_dashes,
    regime_scales,
    tips,
)
from lab.chart_style import PALETTE, level, styled
from lab.figures_nano import colour_of

if TYPE_CHECKING:
    import altair as alt

RUN, TWIN = "with the regime", "its twin, without"
MEMORIES = (
    ("self-analysis", "ink", "circle", (1, 0)),
    ("mem-ema-decay-0.1", "inconclusive", "triangle-up", (6, 2)),
    ("mem-buf-l32", "detected", "square", (2, 2)),
    ("mem-buf-l64", "detected", "diamond", (1, 0)),
    ("mem-buf-l128", "detected", "cross", (8, 2)),
    ("mem-buf-l64-s5", "equivalent", "triangle-down", (2, 2)),
    ("mem-buf-l64-s20", "equivalent", "triangle-right", (8, 2)),
)
"""A run of the memory suite, its colour, shape and dash."""


def _line_tips(mean: str, form: str) -> tuple[tuple[str, str, str], ...]:
    """What a tooltip says of a point of a line."""
    return (
        ("step:Q", "step", ""),
        ("mean:Q", mean, form),
        ("least:Q", "least seed", form),
        ("most:Q", "most", form),
        ("seeds:Q", "seeds", ""),
    )


THOUSANDTHS = "learning_rate"
"""Channel that is drawn in thousandths: its labels would reach into the panel beside it."""


def _panelled(frame: pl.DataFrame, *, in_sd: bool = False) -> tuple[pl.DataFrame, list[str]]:
    """With `panel`, the channel in words with the unit that is drawn, and the panels in order."""
    names = {name: channel_name(name) for name in dict.fromkeys(frame["channel"])}
    if in_sd:
        names = {name: f"{said.removesuffix(', nats')}, SD" for name, said in names.items()}
    elif THOUSANDTHS in names:
        names[THOUSANDTHS] += " × 1000"
        times = pl.when(pl.col("channel") == THOUSANDTHS).then(1e3).otherwise(1.0)
        frame = frame.with_columns(pl.col("mean", "least", "most") * times)
    return frame.with_columns(panel=pl.col("channel").replace_strict(names)), list(names.values())


def _window(*, filled: bool = True) -> alt.Chart:
    """The window as a band, or its first step; layers of a panel share their data, else it would not be "
    "split."""
    import altair as alt

    once = alt.Chart().transform_aggregate(length="max(length)", groupby=["panel"])
    base = once.transform_calculate(first="0").encode(x=alt.X("first:Q"))
    if not filled:
        line: alt.Chart = base.mark_rule(color=PALETTE["muted"])
        return line
    band: alt.Chart = base.mark_rect(color=PALETTE["band"]).encode(x2="length:Q")
    return band


def _said_ends(frame: pl.DataFrame, keys: Sequence[str], form: str) -> str:
    """Of each line its mean inside the window beside that before."""
    inside = (pl.col("step") >= 0) & (pl.col("step") < pl.col("length"))
    means = frame.group_by(list(keys), maintain_order=True).agg(
        before=pl.col("mean").filter(pl.col("step") < 0).mean(), inside=pl.col("mean").filter(inside).mean()
    )
    return "; ".join(
        f"{', '.join(str(r[key]) for key in keys)}: "
        + (f"{r['before']:{form}} before, " if r["before"] is not None else "")
        + (f"{r['inside']:{form}} inside" if r["inside"] is not None else "nothing inside")
        for r in means.iter_rows(named=True)
    )


def reactions(frame: pl.DataFrame) -> alt.FacetChart:
    """Every regime's reaction in SD of the clean steps before, a panel a channel.

    Parameters
    ----------
    frame
        Rows of the query `reactions`: regime, channel, step (from the window's first), mean, least, most,
        seeds, length.
    """
    import altair as alt

    rows, order = _panelled(frame, in_sd=True)
    colour, dash = regime_dashes(sorted(set(rows["regime"])))
    largest = max(abs(float(v)) for v in (*rows["mean"], 1.0))
    ticks = [t for k in range(6) for t in (-(10**k), 10**k) if 10**k <= max(largest, 1.0)]
    scale = alt.Scale(type="symlog", constant=1)
    y = alt.Y("mean:Q", title=None, scale=scale,
              axis=alt.Axis(values=sorted([0, *ticks]), format=",d", grid=True, labelFlush=True))  # fmt: skip
    x = alt.X(
        "step:Q",
        title="steps from start",
        axis=alt.Axis(tickCount=4, grid=False),
        scale=alt.Scale(nice=False),
    )
    shown = tips(("regime:N", "regime", ""), *_line_tips("SD", "+.2f"))
    base = alt.Chart().encode(x=x, color=colour)
    shade = base.mark_area(opacity=0.13).encode(y=alt.Y("least:Q", scale=scale), y2="most:Q")
    line = base.mark_line(strokeWidth=1.5).encode(y=y, strokeDash=dash, tooltip=shown)
    return in_panels(
        alt.layer(_window(filled=False), shade, line, data=_slim(rows, "regime")),
        order,
        height=74,
        description=f"Reactions in SD of the steps before. {_said_ends(rows, ('panel', 'regime'), '+.1f')}.",
    )


def _slim(rows: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """What is drawn, numbers with five digits: a page holds them twice."""
    return drawn_of(rows, "panel", *keys, "step", "mean", "least", "most", "seeds", "length", digits=5)


def course(regime: str) -> Callable[[pl.DataFrame], alt.FacetChart]:
    """A chart of one regime's channels around its windows, the twin dashed.

    Its frame has rows of the query `course` or `update`: channel, is_run, step, mean, least, most, seeds,
    windows, length.
    """

    def drawn(frame: pl.DataFrame) -> alt.FacetChart:
        return _course(frame, regime)

    return drawn


def _course(frame: pl.DataFrame, regime: str) -> alt.FacetChart:
    import altair as alt

    rows, order = _panelled(frame)
    rows = rows.with_columns(run=pl.when("is_run").then(pl.lit(RUN)).otherwise(pl.lit(TWIN)))
    told = legend(2, symbolType="stroke", symbolStrokeWidth=2)
    colour = alt.Color(
        "run:N", scale=alt.Scale(domain=[RUN, TWIN], range=[colour_of(regime), PALETTE["muted"]]), legend=told
    )
    dash = alt.StrokeDash("run:N", scale=alt.Scale(domain=[RUN, TWIN], range=[[1, 0], [4, 3]]), legend=told)
    x = alt.X(
        "step:Q",
        title="steps from start",
        axis=alt.Axis(tickCount=4, grid=False),
        scale=alt.Scale(nice=False),
    )
    y = alt.Y("mean:Q", title=None, scale=alt.Scale(zero=False),
              axis=alt.Axis(tickCount=3, format=".3~g", grid=True, labelFlush=True))  # fmt: skip
    shown = tips(("run:N", "run", ""), *_line_tips("mean", ".4~g"))
    base = alt.Chart().encode(x=x, color=colour)
    shade = base.mark_area(opacity=0.15).encode(y=alt.Y("least:Q"), y2="most:Q")
    line = base.mark_line(strokeWidth=1.5).encode(y=y, strokeDash=dash, tooltip=shown)
    return in_panels(
        alt.layer(_window(), shade, line, data=_slim(rows, "run")),
        order,
        height=74,
        description=f"Around windows of {regime}. {_said_ends(rows, ('panel', 'run'), '.3g')}.",
    )


def memory_line(channel: str) -> Callable[[pl.DataFrame], alt.LayerChart]:
    """A chart of a channel over the steps of every memory's run.

    Its frame has rows of the query `memory_line`: arm, step, mean, least, most, seeds.
    """

    def drawn(frame: pl.DataFrame) -> alt.LayerChart:
        return _memory_line(frame, channel)

    return drawn


def _memory_line(frame: pl.DataFrame, channel: str) -> alt.LayerChart:
    import altair as alt

    frame = drawn_of(frame, "arm", "step", "mean", "least", "most", "seeds", digits=5)
    there = list(dict.fromkeys(frame["arm"]))
    known = [one for one in MEMORIES if one[0] in there]
    known += [(name, "muted", "cross", (1, 0)) for name in there if name not in {one[0] for one in MEMORIES}]
    names = [one[0] for one in known]
    colours = alt.Scale(domain=names, range=[PALETTE[colour] for _, colour, _, _ in known])
    shapes = alt.Scale(domain=names, range=[shape for _, _, shape, _ in known])
    dashes = alt.Scale(domain=names, range=[list(dash) for _, _, _, dash in known])
    told = legend(2, symbolStrokeWidth=0)
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6, grid=False))
    y = alt.Y("mean:Q", title=channel_name(channel), axis=alt.Axis(tickCount=5, grid=True),
              scale=alt.Scale(zero=False))  # fmt: skip
    shown = tips(("arm:N", "run", ""), *_line_tips("mean", ".4~g"))
    line = (
        alt.Chart(frame)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=x,
            y=y,
            color=alt.Color("arm:N", scale=colours, legend=told),
            strokeDash=alt.StrokeDash("arm:N", scale=dashes, legend=told),
            tooltip=shown,
        )
    )
    few = _few_points(frame)
    base = alt.Chart(few).encode(
        x="step:Q", color=alt.Color("arm:N", scale=colours, legend=told), tooltip=shown
    )
    dot = base.mark_point(filled=True, size=44, opacity=1).encode(
        y="mean:Q", shape=alt.Shape("arm:N", scale=shapes, legend=told)
    )
    span = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("least:Q"), y2="most:Q")
    ends = frame.group_by("arm", maintain_order=True).agg(pl.col("mean").last(), pl.col("step").last())
    said = "; ".join(
        f"{r['arm']}: {r['mean']:.4g} at step {r['step']:.0f}" for r in ends.iter_rows(named=True)
    )
    return styled(
        alt.layer(line, span, dot),
        height=200,
        description=f"{channel_name(channel)} over steps, means over seeds. {said}.",
    )


def _few_points(frame: pl.DataFrame, most: int = 6) -> pl.DataFrame:
    """Some points of every line, at other steps for each, so that marks and spans stay apart."""
    arms = {name: place for place, name in enumerate(dict.fromkeys(frame["arm"]))}
    at = pl.int_range(pl.len()).over("arm")
    every = (pl.len().over("arm") // most).clip(lower_bound=1)
    shift = pl.col("arm").replace_strict(arms, return_dtype=pl.Int64) * every // max(1, len(arms))
    return frame.filter((at + shift) % every == every - 1)


def _no_number(rows: pl.DataFrame, what: str) -> alt.LayerChart:
    """In place of a chart without any number, the reasons."""
    import altair as alt

    whys = [
        f"{panel}: {why}" for panel, why in rows.select("panel", "reason").unique(maintain_order=True).rows()
    ]
    lines = [line for why in whys for line in textwrap.wrap(why, 52)]
    told = pl.DataFrame({"why": lines, "place": list(range(len(lines)))})
    mark = alt.Chart(told).mark_text(align="left", color=PALETTE["invalid"], fontSize=12)
    note = mark.encode(x=alt.value(4), y=alt.Y("place:O", axis=None), text="why:N")
    return styled(alt.layer(note), height=16 * len(lines), description=f"{what}: {'; '.join(whys)}.")


def lead_lag(frame: pl.DataFrame) -> alt.TopLevelMixin:
    """Cross-correlation of state effect with loss and entropy by lag, with the band of independence.

    Parameters
    ----------
    frame
        Rows of the query `LEAD_LAG`: channel, lag (in probes, positive: the effect comes first), estimate,
        low, high, p_adjusted, n, alpha, reason.
    """
    import altair as alt

    rows, order = _panelled(frame.with_columns(level=level()))
    sure = (pl.col("p_adjusted") <= pl.col("alpha")).fill_null(False)
    there = rows.filter(pl.col("estimate").is_not_null()).with_columns(sure=sure)
    x = alt.X("lag:Q", title="lag, probes", axis=alt.Axis(tickCount=5, format="d", grid=False))
    y = alt.Y("estimate:Q", title=None, axis=alt.Axis(tickCount=5, grid=True))
    shown = tips(
        ("panel:N", "with", ""),
        ("lag:Q", "lag, probes", "+d"),
        ("estimate:Q", "correlation", "+.3f"),
        ("low:Q", "band, low", "+.3f"),
        ("high:Q", "band, high", "+.3f"),
        ("level:N", "band", ""),
        ("p_adjusted:Q", "p, Holm", ".3g"),
        ("n:Q", "seeds", ""),
    )
    base = alt.Chart().encode(x=x)
    band = base.mark_area(color=PALETTE["band"], opacity=1).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = base.mark_line(color=PALETTE["detected"], strokeWidth=1.5).encode(y=y)
    dots = [
        base.transform_filter(which)
        .mark_point(filled=filled, size=30, color=PALETTE["detected"], opacity=1)
        .encode(y=y, tooltip=shown)
        for filled, which in ((True, "datum.sure"), (False, "!datum.sure"))
    ]
    found = "; ".join(
        f"{r['panel']} at lag {r['lag']:+d}: {r['estimate']:+.3f}"
        for r in there.filter("sure").iter_rows(named=True)
    )
    if there.is_empty():
        return _no_number(rows, "no correlation")
    return in_panels(
        alt.layer(band, line, *dots, data=there),
        order,
        height=130,
        description=f"State effect against loss and entropy by lag. Not 0 after Holm: {found or 'none'}.",
    )


def trajectory(frame: pl.DataFrame) -> alt.LayerChart:
    """The path of the first seed's state: its size against how far it is from its slow reference.

    Parameters
    ----------
    frame
        Rows of the query `TRAJECTORY`: seed, regime (`clean` outside windows), step, self_norm,
        relative_drift.
    """
    import altair as alt

    regimes = sorted(set(frame["regime"]) - {"clean"})
    colour, shape = regime_scales(regimes)
    x = alt.X(
        "self_norm:Q", title="norm of s", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6, grid=False)
    )
    y = alt.Y("relative_drift:Q", title="distance of s from r, share of |r|", scale=alt.Scale(zero=False),
              axis=alt.Axis(tickCount=4, format=".3~g", grid=True))  # fmt: skip
    shown = tips(("step:Q", "step", ".0f"), ("regime:N", "regime", ""), ("self_norm:Q", "norm of s", ".4~g"),
                 ("relative_drift:Q", "distance from r", ".4~g"))  # fmt: skip
    there = drawn_of(frame, *frame.columns).filter(pl.col("relative_drift") > 0)
    path = alt.Chart(there).mark_line(color=PALETTE["muted"], strokeWidth=1, opacity=0.6).encode(
        x=x, y=y, order="step:Q"
    )  # fmt: skip
    dots = alt.Chart(there.filter(pl.col("regime") != "clean")).mark_point(filled=True, size=34, opacity=0.9)
    marked = dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=shown)
    ends = pl.concat([there.head(1), there.tail(1)]).with_columns(
        word=pl.Series(["start", "end"][: min(2, 2 * there.height)])
    )
    names = alt.Chart(ends).mark_text(dx=6, dy=-7, align="left", color=PALETTE["ink"], fontSize=11).encode(
        x=x, y=y, text="word:N"
    )  # fmt: skip
    told = there.group_by("regime", maintain_order=True).agg(
        pl.col("self_norm").mean(), pl.col("relative_drift").mean()
    )
    said = "; ".join(
        f"{r['regime']}: norm {r['self_norm']:.3g}, drift {r['relative_drift']:.3g}"
        for r in told.iter_rows(named=True)
    )
    layers: list[Any] = [path, *([marked] if regimes else []), names]
    return styled(
        alt.layer(*layers), height=240, description=f"Path of the state, first seed. Means: {said}."
    )
