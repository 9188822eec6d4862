"""Charts of the nanodesmo study's answers: frozen test, signatures, deltas, composite metrics, sensitivity.

Intervals are over seeds, from the stored tests; two seeds make them wide, so they may run off a panel, which
shows every estimate. Every row of a frame is drawn or says in words why it has no number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lab.chart_nano import (
    BARS,
    bars,
    channel_name,
    cut,
    drawn_of,
    gutter,
    looks_of,
    numbers,
    panel,
    reach,
    regime_forest,
    regime_scales,
    signed_log,
    stacked,
    tips,
    told,
    wide_heads,
    within,
)
from lab.chart_style import PALETTE, headed, headed_axis, level, row_axis, styled
from lab.figures_quantisation import scales, why_not
from lab.report_queries_nano import SETS, STATES

if TYPE_CHECKING:
    import altair as alt

ARMS = (
    ("self-analysis", "detected", "diamond"),
    ("self-analysis-noself", "muted", "circle"),
    ("self-analysis-random", "inconclusive", "triangle-up"),
    ("random-p", "ink", "square"),
)
"""Arms of the frozen test: trained, no and random injection."""
SET_NAMES = dict(
    zip(
        SETS,
        ("common", "common, smoothed", "state", "common and state", "step", "step, against before"),
        strict=True,
    )
)
REFERENCES = (("against_twin", "its twin", "detected"), ("against_before", "the steps before", "muted"))
PUBLISHED_NATS = 0.3


def frozen(frame: pl.DataFrame) -> alt.VConcatChart:
    """The frozen test: effects by seed beside the published criterion, what is beyond rotations, and states.

    Parameters
    ----------
    frame
        Rows of the query `frozen`: hypothesis, metric, arm, part (seed or state), estimate, low, high, p,
        margin, alpha, n, verdict, reason.
    """
    rows = frame.filter(pl.col("metric") == "entropy_nats").with_columns(level=level())
    there = list(dict.fromkeys(rows.filter(pl.col("arm") != "*")["arm"]))
    known = [one for one in ARMS if one[0] in there]
    known += [(name, "ink", "square") for name in there if name not in {arm for arm, _, _ in ARMS}]
    panels = [
        made
        for made in (_effects(rows, known), _excess(rows, known), _states(rows, known))
        if made is not None
    ]
    seeds = rows.filter(pl.col("hypothesis") == "rotation").with_columns(
        label=pl.format("{}, {}", "arm", "part")
    )
    p = "; ".join(f"{r['label']}: p {r['p']:.3g}" for r in seeds.iter_rows(named=True) if r["p"] is not None)
    excess = rows.filter(pl.col("hypothesis") == "excess")
    said = (
        f"Frozen test, nats. Effects by seed: {told(seeds, 'label', '.3f')}. Rotations: {p or 'none'}. "
        f"Beyond rotations: {told(excess, 'arm')}."
    )
    return stacked(panels, description=said)


def _effects(rows: pl.DataFrame, known: list[tuple[str, str, str]]) -> alt.LayerChart | None:
    """Seeds' effects, the mean of their rotations, and the published criterion."""
    import altair as alt

    of = rows.filter(pl.col("hypothesis") == "rotation").with_columns(row="arm")
    if of.is_empty():
        return None
    names = [name for name, _, _ in known]
    mean = rows.filter(pl.col("hypothesis") == "published").select("arm", whole="estimate")
    beyond = rows.filter(pl.col("hypothesis") == "excess").select("arm", excess="estimate")
    null = mean.join(beyond, on="arm").with_columns(row="arm", null=pl.col("whole") - pl.col("excess"))
    null = null.filter(pl.col("null").is_not_null())
    y, (colour, shape) = gutter(names), scales("arm:N", known)
    most = max([PUBLISHED_NATS * 1.1, *(1.08 * float(v) for v in of["estimate"].drop_nulls())])
    x = alt.X(
        "estimate:Q",
        title="effect on entropy, nats, by seed",
        scale=alt.Scale(domain=[0, most], nice=False),
        axis=alt.Axis(tickCount=5),
    )
    shown = tips(("arm:N", "arm", ""), ("part:N", "seed", ""), ("estimate:Q", "effect", ".4f"),
                 ("p:Q", "p against rotations", ".3g"), ("n:Q", "rotations", ""))  # fmt: skip
    dots = (
        alt.Chart(of.filter(pl.col("estimate").is_not_null()))
        .mark_point(filled=True, size=44, opacity=0.8)
        .encode(x=x, y=y, color=colour.legend(None), shape=shape.legend(None), tooltip=shown)
    )
    tick = (
        alt.Chart(null)
        .mark_tick(color=PALETTE["ink"], thickness=2, size=16)
        .encode(x="null:Q", y=y, tooltip=tips(("null:Q", "mean of rotations", ".4f")))
    )
    criterion = (
        alt.Chart(pl.DataFrame({"published": [PUBLISHED_NATS]}))
        .mark_rule(color=PALETTE["muted"], strokeDash=[5, 3], strokeWidth=1.5)
        .encode(x="published:Q", tooltip=tips(("published:Q", "earlier criterion: above", ".2f")))
    )
    layers = [criterion, *([tick] if null.height else []), dots, *why_not(of, y, "estimate")]
    return panel(layers, len(names))


def _excess(rows: pl.DataFrame, known: list[tuple[str, str, str]]) -> alt.LayerChart | None:
    """What an arm's effect is beyond its rotations', with the margin."""
    import altair as alt

    of = rows.filter(pl.col("hypothesis") == "excess").with_columns(row="arm")
    if of.is_empty():
        return None
    margin = of.select(low=-pl.col("margin").max(), high=pl.col("margin").max()).drop_nulls()
    ends = [float(v) for name in ("low", "high") for v in margin[name]]
    lowest, highest = reach(of, around=0.0, widths=3.0)
    ends = [min([lowest, *ends]), max([highest, *ends])]
    y, (colour, shape) = gutter([name for name, _, _ in known]), scales("arm:N", known)
    x = alt.X(
        "low:Q",
        title="effect − mean of rotations, nats",
        scale=alt.Scale(domain=ends),
        axis=alt.Axis(tickCount=5),
    )
    shown = tips(
        ("arm:N", "arm", ""), *numbers("+.4f"), ("margin:Q", "margin", ""), ("verdict:N", "says", "")
    )
    band = alt.Chart(margin).mark_rect(color=PALETTE["band"]).encode(x="low:Q", x2="high:Q")
    zero = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=PALETTE["muted"]).encode(x="zero:Q")
    drawn = bars(cut(of, ends), x, y, shown, color=colour.legend(None), shape=shape.legend(None))
    return panel([*([band] if margin.height else []), zero, *drawn, *why_not(of, y, "estimate")], len(known))


def _states(rows: pl.DataFrame, known: list[tuple[str, str, str]]) -> alt.LayerChart | None:
    """Entropy by the state that is put in, of the first arm."""
    import altair as alt

    arm = known[0][0] if known else ""
    of = rows.filter((pl.col("hypothesis") == "state") & (pl.col("arm") == arm)).with_columns(row="part")
    if of.is_empty():
        return None
    names = [name for name in STATES if name in set(of["part"])]
    y, ends = gutter(names), within(reach(of), 0.0)
    x = alt.X(
        "low:Q",
        title=f"entropy, nats, {arm} with state",
        scale=alt.Scale(domain=ends, nice=False, zero=False),
        axis=alt.Axis(tickCount=5),
    )
    drawn = bars(
        cut(of, ends),
        x,
        y,
        tips(("part:N", "state", ""), *numbers(".3f")),
        colour="ink",
        shape=alt.value("circle"),
    )
    return panel([*drawn, *why_not(of, y, "estimate")], len(names), step=16)


def separability(frame: pl.DataFrame) -> alt.LayerChart:
    """AUC of each regime by channel set, its shuffled null as a bar, and the verdict.

    Parameters
    ----------
    frame
        Rows of the query `separable`: regime, channels, estimate, low, high, p, n, alpha, shuffled_low,
        shuffled_high, verdict, reason (with an estimate: why it has no interval).
    """
    import altair as alt

    word = pl.col("channels").replace_strict(SET_NAMES, default=pl.col("channels"))
    head = pl.col("regime") + ": " + pl.col("verdict").fill_null("no verdict")
    rows = frame.with_columns(head=head, row=head + "|" + word, level=level()).with_columns(
        label=pl.format("{}, {}", "regime", word)
    )
    names = headed(rows)
    y = wide_heads(names)
    x = alt.X(
        "low:Q",
        title="AUC on held-out windows",
        scale=alt.Scale(domain=[-0.02, 1.02]),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f"),
    )
    colour, shape = regime_scales(sorted(set(rows["regime"])))
    null = rows.filter((pl.col("channels") == "common_state") & pl.col("shuffled_low").is_not_null())
    bar = (
        alt.Chart(null)
        .mark_rule(color=PALETTE["muted"], strokeWidth=9, opacity=0.35)
        .encode(
            x="shuffled_low:Q",
            x2="shuffled_high:Q",
            y=y,
            tooltip=tips(("shuffled_low:Q", "shuffled, 2.5 %", ".3f"), ("shuffled_high:Q", "97.5 %", ".3f")),
        )
    )
    chance = alt.Chart(pl.DataFrame({"half": [0.5]})).mark_rule(color=PALETTE["muted"]).encode(x="half:Q")
    shown = tips(("label:N", "of", ""), *numbers(".3f"), ("p:Q", "p, labels exchanged", ".3g"))
    drawn = bars(cut(rows, [0.0, 1.0]), x, y, shown, color=colour.legend(None), shape=shape.legend(None))
    layers = [
        *([bar] if null.height else []),
        chance,
        *drawn,
        *_alike(rows, y),
        *why_not(rows, y, "estimate"),
    ]
    return styled(
        alt.layer(*layers),
        height=16 * len(names),
        description=f"AUC by regime and channels. {told(rows, 'label', '.3f')}.",
    )


def _alike(rows: pl.DataFrame, y: alt.Y) -> list[alt.Chart]:
    """Beside an AUC without an interval, why it has none; to the left of high ones."""
    import altair as alt

    there = rows.filter(
        pl.col("estimate").is_not_null() & pl.col("low").is_null() & pl.col("reason").is_not_null()
    ).with_columns(
        why=pl.when(pl.col("n") > 1).then(pl.format("{} seeds alike", "n")).otherwise(pl.lit("one seed"))
    )
    made = []
    for high in (True, False):
        some = there.filter((pl.col("estimate") > 0.5) == high)
        if some.height:
            words = alt.Chart(some).mark_text(
                align="right" if high else "left", dx=-8 if high else 8, color=PALETTE["muted"], fontSize=11
            )
            shown = tips(("label:N", "of", ""), ("reason:N", "no interval", ""))
            made.append(words.encode(x="estimate:Q", y=y, text="why:N", tooltip=shown))
    return made


def deltas(frame: pl.DataFrame) -> alt.LayerChart:
    """How far each regime moves each channel, in SD: against its twin, and against the clean steps before.

    Parameters
    ----------
    frame
        Rows of the query `deltas`: regime, channel, hypothesis, effect, low_sd, high_sd, p_adjusted, n,
        alpha, reason.
    """
    import altair as alt

    names_of = {name: channel_name(name) for name in set(frame["channel"])}
    there = pl.col("effect").fill_null(pl.when(pl.col("estimate") == 0).then(0.0))
    rows = frame.with_columns(
        head=pl.col("channel").replace_strict(names_of, default=pl.col("channel")),
        against=pl.col("hypothesis").replace_strict({name: word for name, word, _ in REFERENCES}),
        level=level(),
        value="estimate",
        reason=pl.col("reason").fill_null("no spread to measure it by"),
    ).with_columns(
        row=pl.col("head") + "|" + pl.col("regime"),
        label=pl.format("{}, {}, against {}", "head", "regime", "against"),
        estimate=there,
        low="low_sd",
        high="high_sd",
    )  # fmt: skip
    names = headed(rows)
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=headed_axis())
    ends = reach(rows, around=0.0, widths=0.5)
    x = alt.X("low:Q", title="difference, SD of the reference", **signed_log(ends))
    colour, shape = regime_scales(sorted(set(rows["regime"])))
    shown = tips(("label:N", "what", ""), ("value:Q", "in its unit", "+.4~g"), *numbers("+.2f"),
                 ("p_adjusted:Q", "p, Holm", ".3g"))  # fmt: skip
    near = cut(rows, ends)
    before = near.filter((pl.col("hypothesis") == "against_before") & pl.col("estimate").is_not_null())
    hollow = (
        alt.Chart(drawn_of(before, *BARS))
        .mark_point(filled=False, size=44, strokeWidth=1.3, opacity=0.9)
        .encode(x="estimate:Q", y=y, color=colour, shape=shape, tooltip=shown)
    )
    origin = alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=PALETTE["muted"]).encode(x="zero:Q")
    twin = near.filter(pl.col("hypothesis") == "against_twin")
    drawn = bars(twin, x, y, shown, color=colour, shape=shape)
    layers = [origin, *([hollow] if before.height else []), *drawn, *why_not(twin, y, "estimate")]
    return styled(
        alt.layer(*layers),
        height=15 * len(names),
        description=f"Differences in SD by channel and regime. {told(rows, 'label', '+.2f')}.",
    )


VALENCES = {"valence": "valence, SD", "intensity": "intensity, 0 to 1"}
COMPONENTS = {
    "D_z": "D, distance to the attractor",
    "S_z": "S, speed",
    "U_z": "U, entropy",
    "C_z": "C, loss of state effect",
    "R_z": "R, change of valence",
    "kappa_z": "κ, curvature",
    "distance": "distance, raw",
    "velocity": "velocity, raw",
    "R": "change of valence, raw",
    "curvature": "curvature, raw",
}


def valence(frame: pl.DataFrame) -> alt.LayerChart:
    """Valence and intensity inside windows minus the clean steps right before.

    Parameters
    ----------
    frame
        Rows of the query `COMPOSITE`: regime, part, estimate, low, high, p, n, alpha, reason.
    """
    rows = _parts(frame, VALENCES)
    return regime_forest(
        rows,
        title="inside − before",
        form="+.3f",
        said="Composite metrics, inside minus before.",
        symlog=True,
    )


def components(frame: pl.DataFrame) -> alt.LayerChart:
    """What valence and intensity are made of, and the raw measures; the frame is that of `valence`."""
    rows = _parts(frame, COMPONENTS)
    return regime_forest(
        rows,
        title="inside − before; D, S, U, C, R, κ in SD",
        form="+.3f",
        said="Components of valence and intensity, inside minus before.",
        symlog=True,
        step=15,
    )


def _parts(frame: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    return frame.filter(pl.col("part").is_in(list(names))).with_columns(
        head=pl.col("part").replace_strict(names)
    )


def sensitivity(frame: pl.DataFrame) -> alt.LayerChart:
    """How much one typical movement of each feature moves the state, the strongest first.

    Parameters
    ----------
    frame
        Rows of the query `SENSITIVITY`: feature, estimate, low, high, n, alpha, reason.
    """
    import altair as alt

    rows = frame.with_columns(row=pl.col("feature").str.replace_all("_", " "), level=level())
    names = list(rows["row"])
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=names), axis=row_axis())
    ends = within(reach(rows, around=0.0), 0.0)
    x = alt.X(
        "low:Q",
        title="mean |d s / d feature| × SD(feature)",
        scale=alt.Scale(domain=ends, nice=False),
        axis=alt.Axis(tickCount=5),
    )
    shown = tips(("row:N", "feature", ""), *numbers(".4f"))
    drawn = bars(cut(rows, ends), x, y, shown, colour="ink", shape=alt.value("circle"))
    return styled(
        alt.layer(*drawn, *why_not(rows, y, "estimate")),
        height=22 * len(names),
        description=f"What moves the state. {told(rows, 'row', '.4f')}.",
    )


def colour_of(regime: str) -> str:
    """Of the palette.

    >>> colour_of("bewilderment") == PALETTE["invalid"]
    True
    """
    return PALETTE[looks_of(regime)[1]]
