"""Charts of what the sense study's conditions reach: against blockers, by tier, against what has not learned.

Numbers are shares of the test items unless an axis says otherwise; intervals are over seeds and lemmas, from
the stored tests. A number that is missing has its reason in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from lab.chart_style import PALETTE, headed, headed_axis, level, row_axis, styled, zero
from lab.figures_quantisation import scales, why_not

if TYPE_CHECKING:
    import altair as alt

ARMS = (("A", "muted", "circle"), ("B", "detected", "diamond"), ("C", "equivalent", "square"))
"""A condition, its colour and shape."""
KINDS = (
    ("chance or query-blind", "muted", "circle"),
    ("lemma or words", "inconclusive", "triangle-up"),
    ("not trained", "ink", "cross"),
    ("trained", "detected", "diamond"),
    ("knows the topics", "equivalent", "square"),
    ("other", "muted", "triangle-down"),
)
"""Of a scorer."""
METRICS = (
    ("top1", "detected", "diamond"),
    ("top3", "muted", "circle"),
    ("coherence", "inconclusive", "square"),
)
"""What blockers ask about."""
QUANTILES = (
    ("5 %", "inconclusive", "triangle-up"),
    ("median", "detected", "diamond"),
    ("95 %", "equivalent", "square"),
)
"""Of a seed's margins."""
SEED_PX = 7
"""How far below its mean a seed's dot lies."""


def arm_scales(arms: pl.Series) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of the conditions that occur."""
    return _scales("arm:N", [one for one in ARMS if one[0] in set(arms)])


def _scales(
    field: str, known: Sequence[tuple[str, str, str]], *, columns: int = 3
) -> tuple[alt.Color, alt.Shape]:
    """As `scales`, with a legend of full colours also where a layer is faint."""
    import altair as alt

    legend = alt.Legend(
        orient="bottom", title=None, columns=columns, symbolStrokeWidth=0, symbolSize=64, labelLimit=0,
        symbolOpacity=1,
    )  # fmt: skip
    colour, shape = scales(field, known)
    return colour.legend(legend), shape.legend(legend)


def _tips(*shown: tuple[str, str, str]) -> list[alt.Tooltip]:
    """Field, heading, format."""
    import altair as alt

    return [
        alt.Tooltip(field, title=head, format=form) if form else alt.Tooltip(field, title=head)
        for field, head, form in shown
    ]


_TIPS = (
    ("estimate:Q", "mean", ".3f"),
    ("low:Q", "low", ".3f"),
    ("high:Q", "high", ".3f"),
    ("level:N", "interval", ""),
    ("n:Q", "seeds", ""),
)


def _bars(
    rows: pl.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color, shape: alt.Shape, tips: list[alt.Tooltip]
) -> list[alt.Chart]:
    """Means as marks with their intervals as rules, of the rows that have them."""
    import altair as alt

    there = rows.filter(pl.col("estimate").is_not_null())
    bar = alt.Chart(there.filter(pl.col("low").is_not_null())).mark_rule(strokeWidth=1.6, clip=True)
    dot = alt.Chart(there).mark_point(filled=True, size=60, opacity=1)
    return [
        bar.encode(x=x, x2="high:Q", y=y, color=colour, tooltip=tips),
        dot.encode(x="estimate:Q", y=y, color=colour, shape=shape, tooltip=tips),
    ]


def _few(seeds: pl.Expr) -> pl.Expr:
    """What a condition's name is followed by where other conditions have more seeds."""
    short = (seeds > 0) & (seeds < seeds.max())
    return pl.when(short).then(pl.format(" ({} seeds)", seeds)).otherwise(pl.lit(""))


def _said(rows: pl.DataFrame, label: str) -> str:
    """Each mean with its interval in words; of a missing one the reason."""
    return "; ".join(
        f"{r[label]}: no number, {r['reason'] or 'unknown why'}"
        if r["estimate"] is None
        else f"{r[label]}: {r['estimate']:.3f}"
        + (f" [{r['low']:.3f}, {r['high']:.3f}]" if r["low"] is not None else "")
        for r in rows.iter_rows(named=True)
    )


def _share(title: str, ends: Sequence[float | None]) -> alt.X:
    """An axis of shares from 0 to a little beyond the largest end."""
    import altair as alt

    most = max((one for one in ends if one is not None), default=1.0)
    scale = alt.Scale(domain=[0.0, min(1.0, 1.04 * most)], nice=False)
    return alt.X("low:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5))


def retrieved(frame: pl.DataFrame) -> alt.LayerChart:
    """top1, top3 and coherence of each condition: seeds, their mean with its interval, and the blocker.

    Parameters
    ----------
    frame
        One row a metric, condition and seed: metric, arm, seed, value; of the condition estimate, low, high,
        threshold, seeds, verdict, reason.
    """
    import altair as alt

    rows = frame.with_columns(
        head=pl.col("metric"),
        row=pl.col("metric") + "|" + pl.col("arm") + _few(pl.col("seeds")),
        label=pl.col("metric") + " of " + pl.col("arm"),
        n="seeds",
        level=pl.lit("95 %"),
    )
    each = rows.unique(subset=["row"], maintain_order=True)
    names = headed(rows)
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis())
    x = _share("share of items; of steps for coherence", [*rows["value"], *rows["high"], *rows["threshold"]])
    colour, shape = arm_scales(rows["arm"])
    seeds = (
        alt.Chart(rows.filter(pl.col("value").is_not_null()))
        .mark_point(filled=True, size=20, opacity=0.5, yOffset=SEED_PX)
        .encode(
            x="value:Q",
            y=y,
            color=colour,
            tooltip=_tips(("arm:N", "condition", ""), ("seed:N", "seed", ""), ("value:Q", "reached", ".3f")),
        )
    )
    tips = _tips(("label:N", "what", ""), *_TIPS, ("verdict:N", "blocker", ""))
    asked = each.filter(pl.col("threshold").is_not_null())
    blocker = (
        alt.Chart(asked)
        .mark_tick(color=PALETTE["invalid"], thickness=2, size=22, opacity=1)
        .encode(x="threshold:Q", y=y, tooltip=alt.Tooltip("threshold:Q", title="blocker: at least"))
    )
    layers = [*([blocker] if asked.height else []), seeds, *_bars(each, x, y, colour, shape, tips)]
    told = "; ".join(
        f"{metric} at least {threshold:g}"
        for metric, threshold in asked.select("metric", "threshold").unique(maintain_order=True).iter_rows()
    )
    said = f"Reached by condition. {_said(each, 'label')}. Blockers: {told or 'not judged'}."
    return styled(alt.layer(*layers, *why_not(each, y, "estimate")), height=22 * len(names), description=said)


def tiers(frame: pl.DataFrame) -> alt.LayerChart:
    """top1 of each condition on each tier with its interval; dashed: chance.

    Parameters
    ----------
    frame
        One row a tier and condition: tier, arm, estimate, low, high, n, alpha, chance, reason.
    """
    import altair as alt

    rows = frame.with_columns(
        head="tier " + pl.col("tier"),
        row=pl.format("tier {}|{}", "tier", "arm"),
        label=pl.format("tier {}, {}", "tier", "arm"),
        level=level(),
    )
    names = headed(rows)
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis())
    x = _share("top1, share of items", [*rows["high"], *rows["estimate"]])
    colour, shape = arm_scales(rows["arm"])
    tips = _tips(("label:N", "where", ""), *_TIPS)
    chance = rows.filter(pl.col("chance").is_not_null() & pl.col("estimate").is_not_null())
    by_chance = (
        alt.Chart(chance)
        .mark_tick(color=PALETTE["muted"], thickness=1.5, size=16)
        .encode(x="chance:Q", y=y, tooltip=alt.Tooltip("chance:Q", format=".3f", title="by chance"))
    )
    layers = [*([by_chance] if chance.height else []), *_bars(rows, x, y, colour, shape, tips)]
    return styled(
        alt.layer(*layers, *why_not(rows, y, "estimate")),
        height=19 * len(names),
        description=f"top1 by tier and condition. {_said(rows, 'label')}.",
    )


def margins(frame: pl.DataFrame) -> alt.LayerChart:
    """Each seed's 5 %, 50 % and 95 % quantile of margins, by condition, with the means over seeds.

    Parameters
    ----------
    frame
        One row a condition and seed: arm, seed, p5, p50, p95, sd, reason.
    """
    import altair as alt

    shown = {"p5": "5 %", "p50": "median", "p95": "95 %"}
    rows = frame.rename(shown).unpivot(
        list(shown.values()), index=["arm", "seed", "reason"], variable_name="quantile", value_name="margin"
    )
    seeds = pl.col("margin").count().over("arm", "quantile")
    rows = rows.with_columns(
        row=pl.col("arm") + _few(seeds), mean=pl.col("margin").mean().over("arm", "quantile")
    )
    names = list(dict.fromkeys(rows["row"]))
    y = alt.Y("row:N", title="condition", sort=None, scale=alt.Scale(domain=names), axis=row_axis())
    there = rows.filter(pl.col("margin").is_not_null())
    colour, shape = _scales("quantile:N", QUANTILES)
    x = alt.X("margin:Q", title="margin, cosine: best correct − best wrong", axis=alt.Axis(tickCount=5))
    dots = (
        alt.Chart(there)
        .mark_point(filled=True, size=20, opacity=0.5, yOffset=SEED_PX)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=_tips(
                ("arm:N", "condition", ""), ("seed:N", "seed", ""), ("quantile:N", "quantile", ""),
                ("margin:Q", "margin", "+.3f"),
            ),
        )
    )  # fmt: skip
    means = there.unique(subset=["row", "quantile"], maintain_order=True)
    ends = means.group_by("row", maintain_order=True).agg(
        least=pl.col("mean").min(), most=pl.col("mean").max()
    )
    bar = (
        alt.Chart(ends).mark_rule(color=PALETTE["line"], strokeWidth=5).encode(x="least:Q", x2="most:Q", y=y)
    )
    tips = _tips(("arm:N", "condition", ""), ("quantile:N", "quantile", ""), ("mean:Q", "mean", "+.3f"))
    mean = alt.Chart(means).mark_point(filled=True, size=60, opacity=1)
    middle = mean.encode(x="mean:Q", y=y, color=colour, shape=shape, tooltip=tips)
    told = "; ".join(
        f"{r['arm']}, {r['quantile']}: no number, {r['reason'] or 'unknown why'}"
        if r["mean"] is None
        else f"{r['arm']}, {r['quantile']}: {r['mean']:+.2f}"
        for r in rows.unique(subset=["row", "quantile"], maintain_order=True).iter_rows(named=True)
    )
    missing = rows.with_columns(value=pl.col("mean"))
    layers = [bar, zero(), dots, middle, *why_not(missing, y, "value")]
    return styled(
        alt.layer(*layers),
        height=40 * len(names),
        description=f"Margins over test items, means over seeds. {told}.",
    )


def baselines(frame: pl.DataFrame) -> alt.LayerChart:
    """top1 of everything on the same items: what has not learned, the conditions, and the ceiling.

    Parameters
    ----------
    frame
        One row a scorer, in the order of the ladder: scorer, kind, top1, low, high, seeds, threshold, reason.
    """
    import altair as alt

    rows = frame.with_columns(
        row=pl.col("scorer").str.replace_all("_", " "), estimate="top1", n="seeds", level=pl.lit("95 %")
    )
    names = list(dict.fromkeys(rows["row"]))
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=row_axis())
    x = _share("top1, share of items", [*rows["high"], *rows["top1"], *rows["threshold"]])
    there = [one for one in KINDS if one[0] in set(rows["kind"])]
    colour, shape = _scales("kind:N", there, columns=2)
    tips = _tips(("row:N", "scorer", ""), ("kind:N", "kind", ""), *_TIPS)
    limit = rows.select(pl.col("threshold").max()).drop_nulls()
    blocker = (
        alt.Chart(limit)
        .mark_rule(color=PALETTE["invalid"], strokeDash=[5, 3], strokeWidth=1.5)
        .encode(x="threshold:Q", tooltip=alt.Tooltip("threshold:Q", title="blocker: at least"))
    )
    layers = [*([blocker] if limit.height else []), *_bars(rows, x, y, colour, shape, tips)]
    return styled(
        alt.layer(*layers, *why_not(rows, y, "estimate")),
        height=17 * len(names),
        description=f"top1 of every scorer on the same test items. {_said(rows, 'row')}.",
    )


def contingency(frame: pl.DataFrame) -> alt.LayerChart:
    """What was judged, in order: how far each metric lies from its blocker, and the verdict.

    Parameters
    ----------
    frame
        One row a step and metric: position, gate, condition, split, metric, estimate, threshold, beyond,
        beyond_low, beyond_high (estimate and interval minus the blocker), n, alpha, gate_verdict, reason.
    """
    import altair as alt

    words = {"DETECTED": "passes", "INCONCLUSIVE": "fails", "INVALID": "INVALID"}
    said = pl.col("gate_verdict").replace_strict(words, default=pl.col("gate_verdict"))
    step = pl.when(pl.col("gate") == "fallback").then(pl.lit("fallback, ")).otherwise(pl.lit(""))
    rows = frame.with_columns(
        head=pl.concat_str(step, "condition", pl.lit(" on "), "split", pl.lit(": "), said),
        level=level(),
    ).with_columns(
        row=pl.col("head") + "|" + pl.col("metric"),
        label=pl.col("head") + ", " + pl.col("metric"),
        shown=pl.col("estimate"),
        estimate="beyond",
        low="beyond_low",
        high="beyond_high",
    )
    names = headed(rows)
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis())
    signs = alt.Axis(tickCount=5, labelExpr="datum.value == 0 ? '0' : format(datum.value, '+')")
    x = alt.X("low:Q", title="reached − blocker, share", axis=signs)
    colour, shape = scales("metric:N", [one for one in METRICS if one[0] in set(rows["metric"])])
    colour, shape = colour.legend(None), shape.legend(None)
    tips = _tips(
        ("label:N", "what", ""), ("shown:Q", "reached", ".3f"), ("threshold:Q", "blocker", ""),
        ("estimate:Q", "reached − blocker", "+.3f"), ("low:Q", "low", "+.3f"), ("high:Q", "high", "+.3f"),
        ("level:N", "interval", ""), ("n:Q", "seeds", ""), ("blocker:N", "blocker says", ""),
    )  # fmt: skip
    origin = zero().mark_rule(color=PALETTE["invalid"], strokeDash=[5, 3], strokeWidth=1.5)
    layers = [origin, *_bars(rows, x, y, colour, shape, tips), *why_not(rows, y, "estimate")]
    told = "; ".join(
        f"{r['label']}: no number, {r['reason'] or 'unknown why'}"
        if r["shown"] is None
        else f"{r['label']}: {r['shown']:.3f} of {r['threshold']:g}"
        for r in rows.iter_rows(named=True)
    )
    return styled(
        alt.layer(*layers),
        height=18 * len(names),
        description=f"What was judged, in order, against its blockers. {told}.",
    )
