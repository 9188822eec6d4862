"""Charts that let a reader doubt a disparity: where in the model it arises, which metric says so, and nulls.

Every row of a frame is drawn or says in words why it has no number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_style import PALETTE, configured, headed, headed_axis, level, row_axis, styled, zero
from lab.figures_quantisation import TIERS, in_words, scales, why_not

if TYPE_CHECKING:
    import altair as alt

HALF_PX = 112
"""Plotting width of each of two panels beside each other."""
MOST_NUMBERS = 10
"""Columns of a heat map that still have room for numbers."""


def blocks(frame: pl.DataFrame) -> alt.LayerChart:
    """Heat map: what keeping a block saves in each language, a row a block, a column a language.

    Parameters
    ----------
    frame
        One row a replicate, block and language: replicate, block, code, name, tier, saved, low, high,
        excludes_zero, alpha, reason.
    """
    import altair as alt

    largest = frame["saved"].abs().max()
    saved, block = pl.col("saved"), pl.format("block {}", "block")
    rows = frame.with_columns(
        head=pl.col("replicate"),
        row=pl.col("replicate") + "|" + block,
        label=pl.format("{} {} {}", "replicate", block, "code"),
        strength=saved.abs() / largest if largest else pl.lit(0.0),
        sign=pl.when(saved.is_null()).then(pl.lit("no number")).when(saved >= 0).then(pl.lit("saves bits"))
        .otherwise(pl.lit("costs bits")),
        shown=pl.when(saved.is_null()).then(pl.lit("?")).otherwise(_short(saved)),
        level=level(),
    )  # fmt: skip
    names = headed(rows)
    tiers = {tier: place for place, (tier, _, _, _) in enumerate(reversed(TIERS))}
    columns = rows.select("code", "tier").unique(maintain_order=True).sort(
        pl.col("tier").replace_strict(tiers, default=9), maintain_order=True
    )  # fmt: skip
    signs = [("saves bits", "detected"), ("costs bits", "invalid"), ("no number", "muted")]
    present = [(name, colour) for name, colour in signs if name in set(rows["sign"])]
    colours = alt.Scale(domain=[n for n, _ in present], range=[PALETTE[c] for _, c in present])
    tips = [
        alt.Tooltip("row:N", title="kept"),
        alt.Tooltip("name:N", title="language"),
        alt.Tooltip("tier:N", title="resources"),
        alt.Tooltip("saved:Q", format="+.3f", title="saved, bits a sentence"),
        alt.Tooltip("low:Q", format="+.3f"),
        alt.Tooltip("high:Q", format="+.3f"),
        alt.Tooltip("level:N", title="interval"),
        alt.Tooltip("reason:N", title="no number"),
    ]
    base = alt.Chart(rows).encode(
        y=alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis()),
        x=alt.X(
            "code:N",
            title="language: low-resource left, high-resource right",
            scale=alt.Scale(domain=columns["code"].to_list()),
            axis=alt.Axis(labelAngle=0, ticks=False, domain=False, orient="top"),
        ),
        tooltip=tips,
    )
    cell = base.mark_rect(stroke=PALETTE["line"], strokeWidth=0.5).encode(
        color=alt.Color(
            "sign:N", scale=colours, legend=alt.Legend(orient="bottom", title=None, symbolType="square")
        ),
        opacity=alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.6]), legend=None),
    )
    sure = alt.condition("datum.excludes_zero", alt.value(PALETTE["ink"]), alt.value(PALETTE["muted"]))
    value = base.mark_text(fontSize=11).encode(text="shown:N", color=sure)
    told = in_words(rows, "saved", "low", "high", "label")
    layers = [cell, value] if columns.height <= MOST_NUMBERS else [cell]
    chart = alt.layer(*layers)
    return styled(chart, height=21 * len(names), description=f"Saved by keeping one block. {told}.")


def _short(value: pl.Expr) -> pl.Expr:
    """A signed number in four letters, `+.31`, `-1.2`, `+12`."""
    size = value.abs()
    digits = (
        pl.when(size < 0.995)
        .then(size.round(2).map_elements(lambda v: f"{v:.2f}"[1:], return_dtype=pl.String))
        .otherwise(size.map_elements(lambda v: f"{v:.2g}" if v < 10 else f"{v:.0f}", return_dtype=pl.String))
    )
    sign = pl.when(value < 0).then(pl.lit("\u2212")).otherwise(pl.lit("+"))
    return sign + digits


def metrics(frame: pl.DataFrame) -> alt.HConcatChart:
    """The legacy ratio beside the gap of the same models: what the choice of metric does to the answer.

    Parameters
    ----------
    frame
        One row an experiment, replicate and variant: experiment, replicate, variant, gap, low, high, alpha,
        reason, legacy_ratio, legacy_word, legacy_reason. Drawn is the first experiment.
    """
    import altair as alt

    word = pl.coalesce("legacy_word", pl.lit("undefined"))
    rows = frame.filter(pl.col("experiment") == pl.col("experiment").min()).with_columns(
        head=pl.col("replicate"),
        row=pl.format("{}|{}: {}", "replicate", "variant", word),
        label=pl.col("replicate") + " " + pl.col("variant"),
        level=level(),
    )
    names = headed(rows)
    ratio = in_words(
        rows.with_columns(reason="legacy_reason", none=None), "legacy_ratio", "none", "none", "label"
    )
    gap = in_words(rows, "gap", "low", "high", "label")
    said = f"Legacy ratio, then gap. Ratios: {ratio}. Gaps: {gap}."
    panels = alt.hconcat(_ratios(rows, names), _gaps(rows, names), spacing=10).properties(description=said)
    done: alt.HConcatChart = configured(panels)
    return done


def _rows_axis(names: list[str], axis: alt.Axis | None) -> alt.Y:
    import altair as alt

    return alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=axis)


def _bent(title: str, *fields: pl.Series) -> dict[str, Any]:
    """An axis that is linear within 1 of zero and logarithmic beyond, with ticks at powers of ten."""
    import altair as alt

    largest = max((float(str(one.abs().max())) for one in fields if one.abs().max() is not None), default=1.0)
    powers = [10**k for k in range(9) if 10**k <= max(1.0, largest)]
    return {
        "title": title,
        "scale": alt.Scale(type="symlog", constant=1, nice=False, padding=8),
        "axis": alt.Axis(
            values=[*(-p for p in reversed(powers)), 0, *powers], format="~g", labelOverlap=True
        ),
    }


def _half(chart: Any, names: list[str]) -> alt.LayerChart:
    sized: alt.LayerChart = chart.properties(width=HALF_PX, height=19 * len(names))
    return sized


def _ratios(rows: pl.DataFrame, names: list[str]) -> alt.LayerChart:
    import altair as alt

    y = _rows_axis(names, headed_axis())
    tips = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("legacy_ratio:Q", format=".3g", title="ratio"),
        alt.Tooltip("legacy_word:N", title="called"),
        alt.Tooltip("legacy_reason:N", title="undefined"),
    ]
    bent = _bent("legacy ratio", rows["legacy_ratio"])
    x = alt.X("legacy_ratio:Q", **bent)
    there = rows.filter(pl.col("legacy_ratio").is_not_null())
    one = alt.Chart(pl.DataFrame({"one": [1.0]})).mark_rule(color=PALETTE["muted"], strokeDash=[4, 3])
    dot = alt.Chart(there).mark_point(filled=True, size=52, opacity=1, shape="square", color=PALETTE["ink"])
    gone = rows.filter(pl.col("legacy_ratio").is_null())
    word = alt.Chart(gone).mark_text(align="left", color=PALETTE["invalid"], fontSize=11)
    layers = [one.encode(x=alt.X("one:Q", **bent)), dot.encode(x=x, y=y, tooltip=tips)]
    if gone.height:
        layers.append(word.encode(x=alt.value(4), y=y, text=alt.value("undefined"), tooltip=tips))
    return _half(alt.layer(*layers), names)


def _gaps(rows: pl.DataFrame, names: list[str]) -> alt.LayerChart:
    import altair as alt

    y = _rows_axis(names, None)
    outside, covers = "interval excludes 0", "interval covers 0"
    there = rows.filter(pl.col("gap").is_not_null()).with_columns(
        status=pl.when((pl.col("low") > 0) | (pl.col("high") < 0))
        .then(pl.lit(outside))
        .otherwise(pl.lit(covers))
    )
    known = [(outside, "detected", "diamond"), (covers, "equivalent", "circle")]
    there_are = [one for one in known if one[0] in set(there["status"])]
    colour, shape = scales("status:N", there_are, columns=1)  # below the panels alone, a row is too wide
    tips = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("gap:Q", format="+.3f", title="gap, bits a sentence"),
        alt.Tooltip("low:Q", format="+.3f"),
        alt.Tooltip("high:Q", format="+.3f"),
        alt.Tooltip("level:N", title="interval"),
    ]
    x = alt.X("low:Q", **_bent("gap, bits", there["low"], there["high"]))
    base = alt.Chart(there).encode(y=y, color=colour, tooltip=tips)
    bar = base.mark_rule(strokeWidth=1.6).encode(x=x, x2="high:Q")
    dot = base.mark_point(filled=True, size=52, opacity=1).encode(x="gap:Q", shape=shape)
    layers = [zero(), bar, dot, *why_not(rows, y, "gap")]
    return _half(alt.layer(*layers), names)


def nulls(frame: pl.DataFrame) -> alt.LayerChart:
    """What must be nearly nothing, over the most that is allowed; all replicates of a check in one row.

    Parameters
    ----------
    frame
        One row a check and replicate: checked, replicate, value, bound, share, share_low, share_high (over
        bound; share null where the bound is 0 and the value is not), holds, reason.
    """
    import altair as alt

    rows = frame.with_columns(
        row=pl.col("checked"),
        status=pl.when(pl.col("holds")).then(pl.lit("holds")).otherwise(pl.lit("does not hold")),
        label=pl.col("replicate") + " " + pl.col("checked"),
    )
    names = list(dict.fromkeys(rows["row"]))
    step = max(24, 7 * rows["replicate"].n_unique())
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=row_axis())
    known = [("holds", "equivalent", "circle"), ("does not hold", "invalid", "cross")]
    colour, shape = scales("status:N", [one for one in known if one[0] in set(rows["status"])])
    tips = [
        alt.Tooltip("checked:N"),
        alt.Tooltip("replicate:N"),
        alt.Tooltip("value:Q", format="+.4g"),
        alt.Tooltip("bound:Q", format=".3g", title="allowed"),
        alt.Tooltip("low:Q", format="+.4g"),
        alt.Tooltip("high:Q", format="+.4g"),
        alt.Tooltip("reason:N", title="why not"),
    ]
    offset = alt.YOffset("replicate:N", scale=alt.Scale(paddingOuter=0.5))
    base = alt.Chart(rows.filter(pl.col("share").is_not_null())).encode(
        y=y, yOffset=offset, color=colour, tooltip=tips
    )
    x = alt.X("share_low:Q", title="value over what is allowed", axis=alt.Axis(tickCount=5))
    bar = base.mark_rule(strokeWidth=1.4).encode(x=x, x2="share_high:Q")
    dot = base.mark_point(filled=True, size=40, opacity=1).encode(x="share:Q", shape=shape)
    allowed = pl.DataFrame({"low": [-1.0], "high": [1.0]})
    band = alt.Chart(allowed).mark_rect(color=PALETTE["band"]).encode(x="low:Q", x2="high:Q")
    told = in_words(rows, "share", "share_low", "share_high", "label")
    chart = alt.layer(band, zero(), bar, dot, *why_not(rows, y, "share"))
    return styled(chart, height=step * len(names), description=f"Nulls over what is allowed. {told}.")
