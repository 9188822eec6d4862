"""Charts of how the sense study's heads learn: from how much data, over steps, and what they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lab.chart_style import PALETTE, WIDTH_PX, configured, level, styled
from lab.figures_sense import arm_scales

if TYPE_CHECKING:
    import altair as alt

CURVE_POINTS = 60
PANEL_PX = WIDTH_PX - 66
"""Plotting width of a panel that does not stretch."""
LETTER_PX, PAD_PX, LINE_PX = 6.8, 6, 19
"""Of attention: room for a letter of 11 px monospace, around a word, and between lines."""
WORDS_PX = WIDTH_PX - 30
"""Right end of a line of words; the condition stands left of it."""
MEASURES = (("dev_top1", "top1 on dev, share of items"), ("attention_entropy", "attention entropy / ln T"))


def sizes(frame: pl.DataFrame) -> alt.LayerChart:
    """top1 against the number of bundles with intervals, the fitted law, and what it says of twice the data.

    Parameters
    ----------
    frame
        One row a size: arm, bundles, estimate, low, high, n, alpha, reason; of the law exponent, asymptote,
        scale, by_law, missed, doubling, doubling_low, doubling_high and law_reason. A curve that could not
        be made is one row without bundles.
    """
    import altair as alt

    rows = frame.with_columns(level=level())
    there = rows.filter(pl.col("estimate").is_not_null() & pl.col("bundles").is_not_null())
    law = _law(there)
    scale = alt.Scale(type="log", padding=14, nice=False)
    ticks = [round(one) for one in there["bundles"]]
    x = alt.X("bundles:Q", title="bundles, logarithmic", scale=scale,
              axis=alt.Axis(values=ticks, format=".2~s"))  # fmt: skip
    y = alt.Y("low:Q", title="top1, share of items", axis=alt.Axis(tickCount=5, grid=True))
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("bundles:Q", format=",.0f"),
        alt.Tooltip("estimate:Q", format=".3f", title="top1"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("level:N", title="interval"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    base = alt.Chart(there).encode(x=x, tooltip=tips)
    bar = base.mark_rule(color=PALETTE["ink"], strokeWidth=1.6).encode(y=y, y2="high:Q")
    dot = base.mark_point(filled=True, size=54, opacity=1, color=PALETTE["ink"]).encode(y="estimate:Q")
    layers = [*_law_layers(law), bar, dot, *_no_law(rows, law)]
    told = "; ".join(
        f"{r['bundles']:,.0f} bundles: {r['estimate']:.3f}"
        + (f" [{r['low']:.3f}, {r['high']:.3f}]" if r["low"] is not None else "")
        for r in there.iter_rows(named=True)
    )
    said = f"top1 against bundles. {told or 'No size was measured'}. {_said_law(rows, law)}"
    return styled(alt.layer(*layers), height=200, description=said)


def _law(there: pl.DataFrame) -> pl.DataFrame:
    """The law from the smallest size to twice the largest."""
    first = there.head(1).to_dicts()
    empty = pl.DataFrame(schema={"bundles": pl.Float64, "law": pl.Float64, "beyond": pl.Boolean})
    if not first or first[0]["exponent"] is None or first[0]["asymptote"] is None:
        return empty
    exponent, asymptote, scale = (float(first[0][name]) for name in ("exponent", "asymptote", "scale"))
    least, most = first[0]["bundles"], float(there["bundles"].to_list()[-1])
    steps = [least * (most / least) ** (k / (CURVE_POINTS - 1)) for k in range(CURVE_POINTS)]
    points = [(one, False) for one in steps] + [(most * 2 ** (k / 8), True) for k in range(9)]
    return pl.DataFrame(
        [
            {"bundles": n, "law": asymptote - scale * (n / least) ** -exponent, "beyond": beyond}
            for n, beyond in points
        ],
        schema=empty.schema,
    ).with_columns(
        low=pl.lit(first[0]["doubling_low"], pl.Float64), high=pl.lit(first[0]["doubling_high"], pl.Float64)
    )


def _law_layers(law: pl.DataFrame) -> list[alt.Chart]:
    import altair as alt

    if law.is_empty():
        return []
    tip = [alt.Tooltip("bundles:Q", format=",.0f"), alt.Tooltip("law:Q", format=".3f", title="by the law")]
    inside, beyond = law.filter(~pl.col("beyond")), law.filter(pl.col("beyond"))
    line = alt.Chart(inside).mark_line(color=PALETTE["detected"], strokeWidth=1.6)
    further = alt.Chart(beyond).mark_line(color=PALETTE["detected"], strokeWidth=1.6, strokeDash=[4, 3])
    found = [one.encode(x="bundles:Q", y="law:Q", tooltip=tip) for one in (line, further)]
    at, twice = beyond.head(1).to_dicts()[0], beyond.tail(1).to_dicts()[0]
    if twice["low"] is None or twice["high"] is None:
        return found
    ends = pl.DataFrame(
        {"bundles": [twice["bundles"]], "law": [twice["law"]], "low": [at["law"] + twice["low"]],
         "high": [at["law"] + twice["high"]]}
    )  # fmt: skip
    base = alt.Chart(ends).encode(
        x="bundles:Q", tooltip=[*tip, alt.Tooltip("low:Q", format=".3f"), alt.Tooltip("high:Q", format=".3f")]
    )
    rule = base.mark_rule(color=PALETTE["detected"], strokeWidth=1.6).encode(y="low:Q", y2="high:Q")
    mark = base.mark_point(color=PALETTE["detected"], size=50, shape="diamond", strokeWidth=1.6)
    return [*found, rule, mark.encode(y="law:Q")]


def _no_law(rows: pl.DataFrame, law: pl.DataFrame) -> list[alt.Chart]:
    """Why there is no law, or no curve at all."""
    import altair as alt

    if law.height:
        return []
    told = pl.DataFrame({"why": [f"no law: {_why(rows)}"]})
    mark = alt.Chart(told).mark_text(align="left", baseline="top", color=PALETTE["invalid"], fontSize=11)
    note: alt.Chart = mark.encode(x=alt.value(6), y=alt.value(4), text="why:N")
    return [note]


def _why(rows: pl.DataFrame) -> str:
    known = [str(one) for one in (*rows["law_reason"].drop_nulls(), *rows["reason"].drop_nulls())]
    return known[0] if known else "no exponent is stored"


def _said_law(rows: pl.DataFrame, law: pl.DataFrame) -> str:
    if law.is_empty():
        return f"No law: {_why(rows)}."
    [first] = rows.head(1).to_dicts()
    gain = first["doubling"]
    ends = (
        f" [{first['doubling_low']:+.3f}, {first['doubling_high']:+.3f}]" if law["low"][0] is not None else ""
    )
    twice = f" Twice the data would add {gain:+.3f}{ends}." if gain is not None else ""
    missed = int(rows["missed"].fill_null(False).sum())
    outside = f" It lies outside the interval at {missed} of {rows.height} sizes." if missed else ""
    return f"Law: exponent {first['exponent']:.2f}, ends at {first['asymptote']:.2f}.{outside}{twice}"


def attention(frame: pl.DataFrame) -> alt.LayerChart:
    """Words of a query of each tier, shaded by attention, a line a condition; cues and lemma marked.

    Parameters
    ----------
    frame
        One row a word: tier, item, arm, seed, place, word, kind (cue, lemma, other), weight.
    """
    import altair as alt

    rows, heads, height = _laid_out(frame)
    across = alt.Scale(domain=[0, WIDTH_PX], range=[0, WIDTH_PX], nice=False)
    down = alt.Scale(domain=[0, height], range=[0, height], nice=False)
    x, y = alt.X("left:Q", scale=across, axis=None), alt.Y("top:Q", scale=down, axis=None)
    tips = [
        alt.Tooltip("arm:N", title="condition"),
        alt.Tooltip("word:N"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("weight:Q", format=".3f", title="attention"),
        alt.Tooltip("item:N"),
    ]
    most = float(str(rows["weight"].max()))
    shade = alt.Opacity("weight:Q", scale=alt.Scale(domain=[0, most], range=[0, 0.6]), legend=None)
    base = alt.Chart(rows).encode(x=x, y=y, tooltip=tips)
    box = base.mark_rect(color=PALETTE["detected"]).encode(x2="right:Q", y2="bottom:Q", opacity=shade)
    lemma = alt.Chart(rows.filter(pl.col("kind") == "lemma"))
    frames = lemma.mark_rect(filled=False, stroke=PALETTE["ink"], strokeWidth=1).encode(
        x=x, x2="right:Q", y=y, y2="bottom:Q", tooltip=tips
    )
    cue = alt.Chart(rows.filter(pl.col("kind") == "cue")).mark_rule(
        color=PALETTE["inconclusive"], strokeWidth=2.5
    )
    under = cue.encode(x=x, x2="right:Q", y=alt.Y("bottom:Q", scale=down, axis=None), tooltip=tips)
    word = base.mark_text(
        font="monospace", fontSize=11, align="left", baseline="middle", color=PALETTE["ink"]
    ).encode(
        x=alt.X("text_left:Q", scale=across, axis=None),
        y=alt.Y("middle:Q", scale=down, axis=None),
        text="word:N",
    )
    head = alt.Chart(heads).mark_text(
        fontSize=12, align="left", baseline="middle", color=PALETTE["ink"], fontWeight="bold"
    )
    named = head.encode(x=x, y=y, text="head:N")
    chart = alt.layer(box, frames, under, word, named)
    return styled(chart, height=round(height), description=_said_attention(frame))


def _laid_out(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, float]:
    """Words with their boxes in pixels, headings, and the height of it all."""
    placed: list[dict[str, object]] = []
    heads: list[dict[str, object]] = []
    top = 0.0
    for (tier, item), own in frame.group_by(["tier", "item"], maintain_order=True):
        heads.append({"head": f"tier {tier}, query of {item}", "left": 0.0, "top": top + LINE_PX / 2})
        top += LINE_PX
        for (arm,), words in own.group_by(["arm"], maintain_order=True):
            heads.append({"head": str(arm), "left": 0.0, "top": top + LINE_PX / 2})
            left = 20.0
            for one in words.sort("place").iter_rows(named=True):
                wide = LETTER_PX * len(one["word"]) + PAD_PX
                if left > 20.0 and left + wide > WORDS_PX + 20:
                    left, top = 20.0, top + LINE_PX
                placed.append(one | _box(left, top, wide))
                left += wide + 2
            top += LINE_PX + 3
        top += 8
    return pl.DataFrame(placed), pl.DataFrame(heads), top


def _box(left: float, top: float, wide: float) -> dict[str, float]:
    return {
        "left": left,
        "right": left + wide,
        "top": top + 1,
        "bottom": top + LINE_PX - 2,
        "middle": top + LINE_PX / 2,
        "text_left": left + PAD_PX / 2,
    }


def _said_attention(frame: pl.DataFrame) -> str:
    told = []
    for (tier, item, arm), own in frame.group_by(["tier", "item", "arm"], maintain_order=True):
        mass = dict(own.group_by("kind", maintain_order=True).agg(pl.col("weight").sum()).iter_rows())
        strongest = own.sort("weight", descending=True).head(1)["word"].item()
        told.append(
            f"tier {tier}, {item}, {arm}: most on {strongest}, {mass.get('cue', 0.0):.2f} on cues, "
            f"{mass.get('lemma', 0.0):.2f} on the lemma"
        )
    return f"Attention of the first seed on one query a tier. {'; '.join(told)}."


def learning(frame: pl.DataFrame) -> alt.FacetChart:
    """top1 on dev and attention entropy over training steps: seeds thin, means thick, intervals shaded.

    Parameters
    ----------
    frame
        One row a metric, condition, seed and step: metric, arm, seed, step, value, mean, low, high, n,
        reason. Means are drawn as far as every seed is still trained.
    """
    import altair as alt

    titles = dict(MEASURES)
    rows = frame.filter(pl.col("value").is_not_null()).with_columns(
        panel=pl.col("metric").replace_strict(titles, default=pl.col("metric")),
        whole=pl.col("n") == pl.col("n").max().over("metric", "arm"),
    )
    means = rows.filter("whole").unique(subset=["panel", "arm", "step"], maintain_order=True)
    shown = pl.concat(
        [
            rows.select("panel", "arm", "seed", "step", "value", "n", low=None, high=None, is_mean=False),
            means.select(
                "panel", "arm", "step", "n", "low", "high", seed=None, value="mean", is_mean=True
            ).select("panel", "arm", "seed", "step", "value", "n", "low", "high", "is_mean"),
        ],
        how="vertical_relaxed",
    )
    colour, shape = arm_scales(rows["arm"])
    ticks = sorted(set(rows["step"]))
    x = alt.X("step:Q", title="training step", axis=alt.Axis(values=ticks, grid=False))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4, grid=True))
    tips = [
        alt.Tooltip("arm:N", title="condition"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("value:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    one = alt.Chart().transform_filter("!datum.is_mean")
    seeds = one.mark_line(strokeWidth=0.8, opacity=0.3).encode(x=x, y=y, color=colour, detail="seed:N")
    mean = alt.Chart().transform_filter("datum.is_mean")
    band = mean.mark_area(opacity=0.2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    line = mean.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour)
    dot = mean.mark_point(filled=True, size=40, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tips
    )
    header = alt.Header(labelAnchor="start", labelPadding=2, labelFontWeight="bold")
    faceted = (
        alt.layer(seeds, band, line, dot, data=shown)
        .properties(width=PANEL_PX, height=120)
        .facet(facet=alt.Facet("panel:N", title=None, sort=list(titles.values()), header=header), columns=1)
        .resolve_scale(y="independent")
        .properties(spacing=12, description=_said_learning(frame))
    )
    done: alt.FacetChart = configured(faceted)
    return done


def _said_learning(frame: pl.DataFrame) -> str:
    last = frame.filter(pl.col("value").is_not_null())
    told = []
    for (metric, arm), own in last.group_by(["metric", "arm"], maintain_order=True):
        ends = own.sort("step")
        first, final = ends.head(1).to_dicts()[0], ends.tail(1).to_dicts()[0]
        told.append(
            f"{metric} of {arm}: {first['mean']:.3f} at step {first['step']}, {final['mean']:.3f} at "
            f"{final['step']}"
        )
    return f"Over training steps, means over seeds. {'; '.join(told)}."
