"""Charts of the nanodesmo study's runs beside each other: controls, memories, and how alike they react.

Intervals are over seeds; two seeds make them wide, so they may run off a panel, which shows every mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_nano import (
    HALF_PX,
    bars,
    channel_name,
    cut,
    gutter,
    in_panels,
    legend,
    numbers,
    panel,
    reach,
    regime_scales,
    signed_log,
    stacked,
    tips,
    told,
    within,
)
from lab.chart_style import PALETTE, level
from lab.figures_nano_courses import MEMORIES
from lab.figures_quantisation import scales, why_not

if TYPE_CHECKING:
    import altair as alt

VERDICTS = (
    ("DETECTED", "detected", "diamond"),
    ("EQUIVALENT", "equivalent", "square"),
    ("INCONCLUSIVE", "inconclusive", "circle"),
    ("INVALID", "invalid", "cross"),
)
MEASURES = {
    "valid_loss_nats": "held-out loss, nats",
    "self_drift_mean": "drift, 1 − cos(s, r)",
    "effect_kl_mean": "state effect, nats",
    "memory_share": "share of memory",
    "memory_filled": "states held at the end",
}
"""A metric of a memory's run in words."""
STRIDES = (
    ("stride 5", "equivalent", "square"),
    ("stride 10", "detected", "diamond"),
    ("stride 20", "inconclusive", "triangle-up"),
)
SELF = "self-regimes"


def controls(frame: pl.DataFrame) -> alt.VConcatChart:
    """Held-out loss of every control by seed, and the state's run minus each with interval and margin.

    Parameters
    ----------
    frame
        One row a seed (`value`) and, in every row of an arm, its comparison: arm, seed, value, estimate, low,
        high, p_adjusted, margin, n, alpha, verdict, reason.
    """
    rows = frame.with_columns(row="arm", level=level())
    each = rows.unique(subset=["arm"], maintain_order=True)
    compared = each.filter(pl.col("arm") != SELF)
    panels = [_losses(rows), _differences(compared)]
    means = rows.group_by("arm", maintain_order=True).agg(pl.col("value").mean())
    said = "; ".join(
        f"{r['arm']}: {r['value']:.3f}" for r in means.iter_rows(named=True) if r["value"] is not None
    )
    return stacked(
        panels,
        description=(
            f"Held-out loss in nats, means over seeds. {said or 'none'}. {SELF} minus control: "
            f"{told(compared, 'arm', '+.4f')}."
        ),
    )


def _losses(rows: pl.DataFrame) -> alt.LayerChart:
    import altair as alt

    names = list(dict.fromkeys(rows["arm"]))
    y = gutter(names)
    there = rows.filter(pl.col("value").is_not_null())
    means = there.group_by("row", maintain_order=True).agg(pl.col("value").mean())
    x = alt.X("value:Q", title="held-out loss, nats", scale=alt.Scale(zero=False, padding=6),
              axis=alt.Axis(tickCount=5))  # fmt: skip
    shown = tips(("arm:N", "run", ""), ("seed:N", "seed", ""), ("value:Q", "loss, nats", ".4f"))
    dots = alt.Chart(there).mark_point(filled=True, size=26, opacity=0.5, color=PALETTE["muted"])
    tick = alt.Chart(means).mark_tick(color=PALETTE["ink"], thickness=2, size=13)
    return panel(
        [
            dots.encode(x=x, y=y, tooltip=shown),
            tick.encode(x="value:Q", y=y, tooltip=tips(("value:Q", "mean over seeds", ".4f"))),
        ],
        len(names),
        step=16,
    )


def _differences(compared: pl.DataFrame) -> alt.LayerChart:
    import altair as alt

    names = list(compared["arm"])
    y = gutter(names)
    margin = compared.select(low=-pl.col("margin").max(), high=pl.col("margin").max()).drop_nulls()
    lowest, highest = reach(compared, around=0.0)
    band_ends = [float(v) for name in ("low", "high") for v in margin[name]]
    ends = [min([lowest, *band_ends]), max([highest, *band_ends])]
    x = alt.X(
        "low:Q",
        title=f"{SELF} − control, nats",
        scale=alt.Scale(domain=ends),
        axis=alt.Axis(tickCount=5),
    )
    known = [one for one in VERDICTS if one[0] in set(compared["verdict"])]
    colour, shape = scales("verdict:N", known)
    shown = tips(("arm:N", "control", ""), *numbers("+.4f"), ("p_adjusted:Q", "p, Holm", ".3g"),
                 ("verdict:N", "says", ""))  # fmt: skip
    band = alt.Chart(margin).mark_rect(color=PALETTE["band"]).encode(x="low:Q", x2="high:Q")
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=PALETTE["muted"]).encode(x="zero:Q")
    told_in = legend(2, symbolStrokeWidth=0)
    near = cut(compared, ends)
    drawn = bars(near, x, y, shown, color=colour.legend(told_in), shape=shape.legend(told_in))
    layers = [*([band] if margin.height else []), zero, *drawn, *why_not(compared, y, "estimate")]
    return panel(layers, len(names), step=16)


def memory_summary(frame: pl.DataFrame) -> alt.VConcatChart:
    """Loss, drift, state effect and share of every memory, beside the run without one.

    Parameters
    ----------
    frame
        Rows of the query `MEMORY_SUMMARY`: metric, arm, kind, length, stride, estimate, low, high, n, reason.
    """
    shown = [name for name in MEASURES if name != "memory_filled" and name in set(frame["metric"])]
    rows = frame.with_columns(level=pl.lit("95 %"), row="arm")
    parts = [_measure(rows.filter(pl.col("metric") == name), MEASURES[name]) for name in shown]
    said = "; ".join(
        f"{MEASURES[name]}: {told(rows.filter(pl.col('metric') == name), 'arm', '.4g')}" for name in shown
    )
    return stacked(parts, description=f"Memories beside each other, means over seeds. {said}.")


def _measure(rows: pl.DataFrame, title: str) -> alt.LayerChart:
    import altair as alt

    names = list(rows["arm"])
    known = [one[:3] for one in MEMORIES if one[0] in names]
    known += [(name, "muted", "cross") for name in names if name not in {one[0] for one in MEMORIES}]
    colour, shape = scales("arm:N", known)
    y, ends = gutter(names), within(reach(rows), 0.0)
    x = alt.X("low:Q", title=title, axis=alt.Axis(tickCount=4, format=".3~g"),
              scale=alt.Scale(domain=ends, nice=False, zero=False))  # fmt: skip
    shown = tips(("arm:N", "run", ""), *numbers(".4g"))
    drawn = bars(cut(rows, ends), x, y, shown, size=44, color=colour.legend(None), shape=shape.legend(None))
    return panel([*drawn, *why_not(rows, y, "estimate")], len(names), step=15)


def buffers(frame: pl.DataFrame) -> alt.FacetChart:
    """What length and stride of a buffer change, a panel a metric; hollow: the buffer was never full.

    Parameters
    ----------
    frame
        As of `memory_summary`; rows that are not of buffers are left out.
    """
    import altair as alt

    rows = _of_buffers(frame)
    there = rows.filter(pl.col("estimate").is_not_null())
    known = [one for one in STRIDES if one[0] in set(there["stride"])]
    known += [
        (name, "muted", "circle") for name in sorted(set(there["stride"]) - {one[0] for one in STRIDES})
    ]
    colour, shape = scales("stride:N", known)
    told_in = legend(3, symbolStrokeWidth=0)
    colour, shape = colour.legend(told_in), shape.legend(told_in)
    lengths = sorted({int(v) for v in there["length"]})
    x = alt.X("place:Q", title="length, states", scale=alt.Scale(type="log", base=2, nice=False, padding=16),
              axis=alt.Axis(values=lengths, format="d", grid=False))  # fmt: skip
    y = alt.Y("estimate:Q", title=None, scale=alt.Scale(zero=False, padding=6),
              axis=alt.Axis(tickCount=4, format=".3~g", grid=True, labelFlush=True))  # fmt: skip
    shown = tips(("arm:N", "run", ""), *numbers(".4g"), ("filled:Q", "states held", ".0f"))
    base = alt.Chart().encode(x=x, color=colour, tooltip=shown)
    bar = base.mark_rule(strokeWidth=1.4).encode(y=alt.Y("bar_low:Q"), y2="bar_high:Q")
    line = base.transform_filter("datum.stride === 'stride 10'").mark_line(strokeWidth=1).encode(y=y)
    full = (
        base.transform_filter("datum.in_use")
        .mark_point(filled=True, size=54, opacity=1)
        .encode(y=y, shape=shape)
    )
    never = base.transform_filter("!datum.in_use").mark_point(filled=False, size=54, strokeWidth=1.5)
    layers = [bar, line, full, never.encode(y=y, shape=shape)]
    return in_panels(
        alt.layer(*layers, data=there),
        [name for name in MEASURES.values() if name in set(there["panel"])],
        height=96,
        description=f"Buffers by length and stride, means over seeds. {told(rows, 'label', '.4g')}.",
    )


def _of_buffers(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of buffers with where they stand, whether they were full, and intervals cut to near the means."""
    held = frame.filter(pl.col("metric") == "memory_filled").select("arm", filled="estimate")
    names = dict(MEASURES)
    rows = frame.filter(pl.col("kind") == "buffer").join(held, on="arm", how="left", maintain_order="left")
    least, most = pl.col("estimate").min().over("metric"), pl.col("estimate").max().over("metric")
    room = 1.5 * (most - least).clip(lower_bound=0.01 * most.abs())
    beside = pl.col("stride").replace_strict({5: 0.94, 20: 1.06}, default=1.0, return_dtype=pl.Float64)
    return rows.with_columns(
        panel=pl.col("metric").replace_strict(names, default=pl.col("metric")),
        label=pl.format("{}, {}", "metric", "arm"),
        level=pl.lit("95 %"),
        place=pl.col("length") * beside,
        in_use=(pl.col("filled") >= pl.col("length")).fill_null(False),
        whole_low="low",
        whole_high="high",
        bar_low=pl.max_horizontal(pl.col("low"), least - room),
        bar_high=pl.min_horizontal(pl.col("high"), most + room),
        stride="stride " + pl.col("stride").cast(pl.String),
    )


def scatter(frame: pl.DataFrame) -> Any:
    """Reactions of a control against those of the state's run, in SD, a panel a channel; on the line: alike.

    Parameters
    ----------
    frame
        Rows of the query `scatter`: arm, regime, channel, own, own_low, own_high, other, other_low,
        other_high, n, alpha, reason.
    """
    import altair as alt

    names = {name: channel_name(name).removesuffix(", nats") for name in dict.fromkeys(frame["channel"])}
    rows = frame.with_columns(panel=pl.col("channel").replace_strict(names), level=level())
    there = rows.filter(pl.col("own").is_not_null() & pl.col("other").is_not_null())
    arm = str(rows["arm"][0])
    ends = _square(there)
    cut = {name: pl.col(name).clip(*ends) for name in ("own_low", "own_high", "other_low", "other_high")}
    there = there.with_columns(**cut).with_columns(first=pl.lit(ends[0]), last=pl.lit(ends[1]))
    x = alt.X("own:Q", title=f"{SELF}, SD", **signed_log(ends))
    y = alt.Y("other:Q", title=f"{arm}, SD", **signed_log(ends))
    colour, shape = regime_scales(sorted(set(there["regime"])))
    shown = tips(("regime:N", "regime", ""), ("panel:N", "channel", ""), ("own:Q", SELF, "+.2f"),
                 ("other:Q", arm, "+.2f"), ("level:N", "intervals", ""), ("n:Q", "seeds", ""))  # fmt: skip
    same = (
        alt.Chart()
        .transform_aggregate(first="min(first)", last="max(last)", groupby=["panel"])
        .mark_rule(color=PALETTE["muted"], strokeDash=[4, 3])
        .encode(x=alt.X("first:Q"), y=alt.Y("first:Q"), x2="last:Q", y2="last:Q")
    )
    base = alt.Chart().encode(color=colour, tooltip=shown)
    across = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("own_low:Q"), x2="own_high:Q", y=alt.Y("other:Q"))
    up = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("own:Q"), y=alt.Y("other_low:Q"), y2="other_high:Q")
    dot = base.mark_point(filled=True, size=48, opacity=1).encode(x=x, y=y, shape=shape)
    said = "; ".join(
        f"{r['panel']}, {r['regime']}: {r['own']:+.1f} and {r['other']:+.1f}"
        for r in there.iter_rows(named=True)
    )
    return in_panels(
        alt.layer(same, across, up, dot, data=there),
        list(names.values()),
        height=HALF_PX,
        description=f"Differences against the steps before in SD, {SELF} and {arm}. {said or 'none'}.",
    )


def _square(rows: pl.DataFrame) -> tuple[float, float]:
    """Ends of both axes: every point, and a bit of the intervals."""
    known = [float(v) for name in ("own", "other") for v in rows[name].drop_nulls()] or [0.0]
    least, most = min([*known, 0.0]), max([*known, 0.0])
    room = 0.25 * max(most - least, 1.0)
    return least - room, most + room
