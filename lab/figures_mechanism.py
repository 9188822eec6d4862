"""Charts of what arms of placed ranks answer: by arm, among shuffles, and for what budget.

Answers are shares of the test items that the strict rule reads right; intervals are 95 % over seeds. A panel
is as wide as its seeds ask for: an interval of two or three seeds runs off it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_style import PALETTE, row_axis, styled
from lab.figures_quantisation import scales, why_not

if TYPE_CHECKING:
    import altair as alt

ARMS = (
    ("probe", "ink", "cross"),
    ("per_layer", "detected", "diamond"),
    ("shuffled_within", "inconclusive", "triangle-up"),
    ("shuffled_full", "inconclusive", "triangle-down"),
    ("shuffled_free", "inconclusive", "triangle-right"),
    ("inverse", "equivalent", "triangle-down"),
    ("cross_seed", "equivalent", "diamond"),
    ("eva", "equivalent", "circle"),
    ("uniform_equal", "muted", "square"),
    ("uniform_median", "muted", "circle"),
    ("uniform_p90", "muted", "triangle-up"),
)
"""An arm, its colour and shape: placed by the audit, shuffled, placed otherwise, one rank everywhere."""
ITEMS_ALONE = "items alone"
"""The row of the interval that one adapter's items would give."""
ACCURACY = "accuracy, share of items (strict)"
BESIDE_PX = 7
"""Between arms of one budget."""


def _scales(arms: pl.Series) -> tuple[alt.Color, alt.Shape]:
    there = list(dict.fromkeys(arms))
    known = [one for one in ARMS if one[0] in there]
    named = {name for name, _, _ in known}
    return scales("arm:N", [*known, *((name, "muted", "circle") for name in there if name not in named)])


def _reach(rows: pl.DataFrame, dots: str, *, widths: float = 0.5) -> tuple[float, float]:
    """Ends of an axis that shows all dots, and of the intervals so many widths of the dots' range beyond."""
    known = [float(value) for value in rows[dots].drop_nulls()]
    if not known:
        return 0.0, 1.0
    least, most = min(known), max(known)
    room, rim = widths * max(most - least, 0.01), 0.05 * max(most - least, 0.01)
    ends = [float(value) for end in ("low", "high") for value in rows[end].drop_nulls()]
    low = max(min([least, *ends]) - rim, least - room, 0.0)
    return low, min(max([most, *ends]) + rim, most + room, 1.0)


def _cut(rows: pl.DataFrame, reach: tuple[float, float]) -> pl.DataFrame:
    """Adds `from` and `to`: the interval as far as the axis shows it."""
    low, high = reach
    return rows.with_columns(
        pl.col("low").clip(low, high).alias("from"), pl.col("high").clip(low, high).alias("to")
    )


def _scale(reach: tuple[float, float]) -> alt.Scale:
    import altair as alt

    return alt.Scale(domain=list(reach), nice=False, zero=False)


def _interval(row: dict[str, Any]) -> str:
    return f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else ""


def _said(rows: pl.DataFrame) -> str:
    """Mean and interval of each arm in words; of a missing one the reason."""
    told = rows.unique(subset=["arm"], maintain_order=True)
    return "; ".join(
        f"{r['arm']}: no number, {r['reason']}"
        if r["mean"] is None
        else f"{r['arm']}: {r['mean']:.3f}{_interval(r)}, {r['n']} seeds"
        for r in told.iter_rows(named=True)
    )


def accuracy(frame: pl.DataFrame) -> alt.LayerChart:
    """Accuracy of each arm: seeds as dots, their mean with its interval, and what items alone would allow.

    Parameters
    ----------
    frame
        One row an arm and seed: arm, seed, accuracy, item_error, items, adapters; of the arm mean, low, high,
        sd and n; reason. Shuffles of one kind are one arm, their mean is the seed's number.
    """
    import altair as alt

    most = frame["n"].max()
    short = pl.when((pl.col("n") > 0) & (pl.col("n") < most)).then(pl.format(" ({} seeds)", "n"))
    rows = frame.with_columns(row=pl.col("arm") + short.otherwise(pl.lit("")), value=pl.col("mean"))
    names = list(dict.fromkeys(rows["row"]))
    alone = _alone(rows)
    shown = [*names, ITEMS_ALONE] if alone is not None else names
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=shown), axis=row_axis())
    reach = _reach(rows, "accuracy")
    x = alt.X("from:Q", title=ACCURACY, scale=_scale(reach), axis=alt.Axis(tickCount=5))
    colour, shape = _scales(rows["arm"])
    colour, shape = colour.legend(None), shape.legend(None)
    of_arms = rows.unique(subset=["arm"], maintain_order=True).filter(pl.col("mean").is_not_null())
    means = alt.Chart(_cut(of_arms, reach))
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("mean:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
        alt.Tooltip("sd:Q", format=".4f", title="SD over seeds"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    rule = means.mark_rule(strokeWidth=1.6)
    bar = rule.encode(x=x, x2="to:Q", y=y, color=colour, tooltip=tips)
    dot = means.mark_point(filled=True, size=60, opacity=1).encode(
        x="mean:Q", y=y, color=colour, shape=shape, tooltip=tips
    )
    layers = [bar, _seeds(rows, y, colour), dot, *why_not(rows, y, "value")]
    if alone is not None:
        layers.append(_one_adapter(_cut(alone, reach), y))
    told = f"{_said(rows)}. {_said_alone(alone)}"
    return styled(alt.layer(*layers), height=27 * len(shown), description=f"Accuracy by arm. {told}")


def _seeds(rows: pl.DataFrame, y: alt.Y, colour: alt.Color) -> alt.Chart:
    import altair as alt

    mark = alt.Chart(rows.filter(pl.col("accuracy").is_not_null())).mark_point(
        filled=True, size=22, opacity=0.55, yOffset=8
    )
    dots: alt.Chart = mark.encode(
        x="accuracy:Q",
        y=y,
        color=colour,
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("seed:N"),
            alt.Tooltip("accuracy:Q", format=".4f"),
            alt.Tooltip("item_error:Q", format=".4f", title="SE of one adapter's items"),
            alt.Tooltip("items:Q"),
            alt.Tooltip("adapters:Q", title="mean of adapters"),
        ],
    )
    return dots


def _alone(rows: pl.DataFrame) -> pl.DataFrame | None:
    """The 95 % binomial interval of one adapter of the placement, else of the first arm that has a mean."""
    known = rows.filter(pl.col("mean").is_not_null() & pl.col("items").is_not_null())
    if known.is_empty():
        return None
    placed = known.filter(pl.col("arm") == "per_layer")
    half = 1.96 * (pl.col("mean") * (1 - pl.col("mean")) / pl.col("items")).sqrt()
    first = (known if placed.is_empty() else placed).head(1)
    return first.select(
        "arm", "items", row=pl.lit(ITEMS_ALONE), mean="mean", low=pl.col("mean") - half,
        high=pl.col("mean") + half,
    )  # fmt: skip


def _one_adapter(alone: pl.DataFrame, y: alt.Y) -> alt.Chart:
    import altair as alt

    bar: alt.Chart = (
        alt.Chart(alone)
        .mark_rule(color=PALETTE["muted"], strokeWidth=7, opacity=0.35)
        .encode(
            x="from:Q",
            x2="to:Q",
            y=y,
            tooltip=[
                alt.Tooltip("arm:N", title="around the mean of"),
                alt.Tooltip("items:Q"),
                alt.Tooltip("low:Q", format=".4f"),
                alt.Tooltip("high:Q", format=".4f"),
            ],
        )
    )
    return bar


def _said_alone(alone: pl.DataFrame | None) -> str:
    if alone is None:
        return ""
    [row] = alone.to_dicts()
    return (
        f"One adapter of {row['arm']} on {row['items']} items, by binomial error alone: "
        f"[{row['low']:.3f}, {row['high']:.3f}]."
    )


def shuffles(frame: pl.DataFrame) -> alt.LayerChart:
    """The placement among the shuffles of its own ranks, a row a seed.

    Parameters
    ----------
    frame
        One row a seed and arm: seed, arm, arm_kind (per_layer or shuffled_within), accuracy, low and high by
        binomial error of the items, place of the placement among `of` adapters (1: best), reason.
    """
    import altair as alt

    place = pl.format("seed {}, {} of {}", "seed", _plain(pl.col("place")), "of")
    rows = frame.with_columns(row=pl.coalesce(place, pl.format("seed {}", "seed")))
    names = list(dict.fromkeys(rows["row"]))
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=row_axis())
    placed = rows.filter(pl.col("arm_kind") == "per_layer")
    reach = _reach(rows.with_columns(low=_of_placed("low"), high=_of_placed("high")), "accuracy")
    there = _cut(placed.filter(pl.col("accuracy").is_not_null()), reach)
    x = alt.X("accuracy:Q", title=ACCURACY, scale=_scale(reach), axis=alt.Axis(tickCount=5))
    tips = [
        alt.Tooltip("seed:N"),
        alt.Tooltip("arm:N"),
        alt.Tooltip("accuracy:Q", format=".4f"),
        alt.Tooltip("low:Q", format=".4f", title="low, items alone"),
        alt.Tooltip("high:Q", format=".4f", title="high, items alone"),
        alt.Tooltip("items:Q"),
    ]
    controls = rows.filter((pl.col("arm_kind") != "per_layer") & pl.col("accuracy").is_not_null())
    colour, shape = scales("arm_kind:N", [one for one in ARMS if one[0] in set(rows["arm_kind"])])
    rule = alt.Chart(there).mark_rule(strokeWidth=1.4)
    bar = rule.encode(x=alt.X("from:Q", title=ACCURACY), x2="to:Q", y=y, color=colour, tooltip=tips)
    tick = alt.Chart(controls).mark_point(filled=True, size=52, opacity=0.75).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tips
    )  # fmt: skip
    dot = alt.Chart(there).mark_point(filled=True, size=72, opacity=1).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tips
    )  # fmt: skip
    missing = placed.with_columns(value=pl.col("accuracy"))
    chart = alt.layer(bar, tick, dot, *why_not(missing, y, "value"))
    return styled(chart, height=24 * len(names), description=f"Placement among shuffles. {_places(rows)}.")


def _of_placed(name: str) -> pl.Expr:
    return pl.when(pl.col("arm_kind") == "per_layer").then(pl.col(name))


def _plain(value: pl.Expr) -> pl.Expr:
    """`3` and `2.5`."""
    return pl.when(value == value.floor()).then(value.cast(pl.Int64).cast(pl.String)).otherwise(
        value.cast(pl.String)
    )  # fmt: skip


def _places(rows: pl.DataFrame) -> str:
    told = []
    for (seed,), own in rows.group_by(["seed"], maintain_order=True):
        [placed] = own.filter(pl.col("arm_kind") == "per_layer").to_dicts() or [{"accuracy": None}]
        if placed["accuracy"] is None:
            told.append(f"seed {seed}: no number, {placed.get('reason') or 'not placed'}")
            continue
        others = own.filter(pl.col("arm_kind") != "per_layer")["accuracy"].drop_nulls().to_list()
        among = f", shuffles {min(others):.3f} to {max(others):.3f}" if others else ", no shuffles"
        place = f", place {placed['place']:g} of {placed['of']}" if placed["place"] is not None else ""
        told.append(f"seed {seed}: {placed['accuracy']:.3f}{among}{place}")
    return "; ".join(told)


def cost(frame: pl.DataFrame) -> alt.LayerChart:
    """Mean accuracy of each arm against its trained parameters, with the interval over seeds.

    Parameters
    ----------
    frame
        One row an arm: arm, parameters (mean over seeds), strict, low, high, seeds, reason. The base has no
        parameters and is left out.
    """
    import altair as alt

    rows = _beside(frame.filter(pl.col("strict").is_not_null() & pl.col("parameters").is_not_null()))
    colour, shape = _scales(rows["arm"])
    x = alt.X(
        "parameters:Q",
        title="trained parameters",
        scale=alt.Scale(zero=False, padding=22, nice=False),
        axis=alt.Axis(format="~s", tickCount=5),
    )
    reach = _reach(rows, "strict", widths=1.5)
    y = alt.Y("from:Q", title=ACCURACY, scale=_scale(reach), axis=alt.Axis(tickCount=5, grid=True))
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("parameters:Q", format=",.0f"),
        alt.Tooltip("strict:Q", format=".4f", title="accuracy"),
        alt.Tooltip("low:Q", format=".4f"),
        alt.Tooltip("high:Q", format=".4f"),
        alt.Tooltip("seeds:Q"),
    ]
    layers: list[alt.Chart] = []
    for aside, own in _cut(rows, reach).group_by("aside", maintain_order=True):
        base = alt.Chart(own).encode(x=x, color=colour, tooltip=tips)
        layers.append(base.mark_rule(strokeWidth=1.6, xOffset=aside[0]).encode(y=y, y2="to:Q"))
        point = base.mark_point(filled=True, size=64, opacity=1, xOffset=aside[0])
        layers.append(point.encode(y=alt.Y("strict:Q", title=ACCURACY), shape=shape))
    told = "; ".join(
        f"{r['arm']}: {r['strict']:.3f}{_interval(r)} with {r['parameters']:,.0f} parameters"
        for r in rows.iter_rows(named=True)
    )
    chart = alt.layer(*layers)
    return styled(chart, height=190, description=f"Accuracy against trained parameters. {told}.")


def _beside(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `aside`, in pixels: arms whose budgets lie within 4 % of the range stand beside each other."""
    rows = frame.sort("parameters", maintain_order=True)
    reach = 0.04 * float(str(rows["parameters"].max() or 0.0)) if rows.height else 0.0
    groups: list[list[int]] = []
    values = rows["parameters"].to_list()
    for place, value in enumerate(values):
        if groups and value - values[groups[-1][0]] <= reach:
            groups[-1].append(place)
        else:
            groups.append([place])
    aside = {
        place: BESIDE_PX * (at - (len(group) - 1) / 2) for group in groups for at, place in enumerate(group)
    }
    return rows.with_columns(
        aside=pl.Series([aside[place] for place in range(rows.height)], dtype=pl.Float64)
    )
