"""Charts of the store's numbers: one function per figure, a frame in, an Altair chart out.

The frames come from `lab/report_queries.py`, the look of the charts from `lab/chart_style.py`. Altair and
vl-convert take a second to import, so they are imported when the first chart is drawn.
"""

from __future__ import annotations

import functools
import hashlib
import html
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lab.chart_style import (
    PALETTE,
    WIDTH_PX,
    configured,
    contrast_labels,
    headed,
    headed_axis,
    level,
    margin_band,
    row_axis,
    say_forest,
    status_scales,
    styled,
    zero,
)
from lab.errors import unknown
from lab.fingerprint import code

if TYPE_CHECKING:
    import altair as alt

FORMATS = ("svg", "png")


def forest(frame: pl.DataFrame) -> alt.LayerChart:
    """Forest plot: a row a contrast, its interval in within-cell SD, the margin as a band.

    Parameters
    ----------
    frame
        Columns of the view `contrast_effects`; rows without an effect are left out. `model` is optional, and
        named in the row labels when there are several.
    """
    import altair as alt

    rows = contrast_labels(frame.filter(pl.col("effect").is_not_null()))
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(domain=headed(rows)), axis=headed_axis())
    tips = [
        alt.Tooltip("metric:N"),
        alt.Tooltip("contrast:N"),
        alt.Tooltip("effect:Q", format="+.3f", title="effect, SD"),
        alt.Tooltip("low_sd:Q", format="+.3f", title="low"),
        alt.Tooltip("high_sd:Q", format="+.3f", title="high"),
        alt.Tooltip("level:N", title="interval"),
        alt.Tooltip("p_adjusted:Q", format=".3g", title="p, Tukey"),
        alt.Tooltip("tost_p:Q", format=".3g", title="p, equivalence"),
        alt.Tooltip("n:Q", title="texts"),
    ]
    colour, shape = status_scales(set(rows["status"]))
    base = alt.Chart(rows).encode(y=y)
    bar = base.mark_rule(strokeWidth=1.6).encode(
        x=alt.X("low_sd:Q", title="difference, within-cell SD", scale=alt.Scale(nice=True)),
        x2="high_sd:Q",
        color=colour,
        tooltip=tips,
    )
    dot = base.mark_point(filled=True, size=64, opacity=1).encode(
        x="effect:Q", color=colour, shape=shape, tooltip=tips
    )
    chart = alt.layer(*margin_band(rows), zero(), bar, dot)
    return styled(chart, height=19 * len(headed(rows)), description=say_forest(rows))


def looks(frame: pl.DataFrame) -> alt.LayerChart:
    """Sequential looks: a row a look, the largest primary contrast, and how large it had to be to exclude 0.

    Parameters
    ----------
    frame
        One row a look with effect, low_sd, high_sd, margin, alpha, metric, contrast, p_adjusted and n.
    """
    import altair as alt

    half = (pl.col("high_sd") - pl.col("low_sd")) / 2
    rows = frame.filter(pl.col("effect").is_not_null()).with_columns(
        label="look " + pl.col("look").cast(pl.String), bound=half, minus_bound=-half, level=level()
    )
    y = alt.Y("label:N", sort=rows["label"].to_list(), title=None, axis=row_axis())
    tips = [
        alt.Tooltip("look:Q", title="samples a cell"),
        alt.Tooltip("metric:N"),
        alt.Tooltip("contrast:N"),
        alt.Tooltip("effect:Q", format="+.3f", title="effect, SD"),
        alt.Tooltip("low_sd:Q", format="+.3f", title="low"),
        alt.Tooltip("high_sd:Q", format="+.3f", title="high"),
        alt.Tooltip("level:N", title="interval"),
        alt.Tooltip("bound:Q", format=".3f", title="needed to exclude 0"),
        alt.Tooltip("n:Q", title="texts"),
    ]
    base = alt.Chart(rows).encode(y=y)
    x = alt.X("low_sd:Q", title="largest primary contrast, within-cell SD")
    bar = base.mark_rule(color=PALETTE["ink"], strokeWidth=1.6).encode(x=x, x2="high_sd:Q", tooltip=tips)
    dot = base.mark_point(filled=True, size=64, color=PALETTE["ink"], opacity=1).encode(
        x="effect:Q", tooltip=tips
    )
    bounds = [
        base.mark_tick(color=PALETTE["invalid"], thickness=2, size=16).encode(x=f"{side}:Q", tooltip=tips)
        for side in ("bound", "minus_bound")
    ]
    told = (
        f"look {row['look']}: {row['effect']:+.2f} [{row['low_sd']:+.2f}, {row['high_sd']:+.2f}]"
        for row in rows.iter_rows(named=True)
    )
    chart = alt.layer(*margin_band(rows), zero(), bar, *bounds, dot)
    return styled(chart, height=34 * rows.height, description="Largest primary contrast. " + "; ".join(told))


def detectable(frame: pl.DataFrame) -> alt.LayerChart:
    """Smallest difference that this design finds with 80 % power, by look, beside the margin.

    Parameters
    ----------
    frame
        One row a look with look, mde, power, margin, alpha and n.
    """
    import altair as alt

    rows = frame.filter(pl.col("mde").is_not_null())
    tips = [
        alt.Tooltip("look:Q", title="samples a cell"),
        alt.Tooltip("mde:Q", format=".3f", title="detectable, SD"),
        alt.Tooltip("power:Q", format=".0%", title="power at the margin"),
        alt.Tooltip("margin:Q"),
        alt.Tooltip("alpha:Q", format=".3g"),
        alt.Tooltip("n:Q", title="texts"),
    ]
    ticks = alt.Axis(values=rows["look"].to_list(), format="d", grid=False)
    x = alt.X("look:Q", title="samples a cell", axis=ticks, scale=alt.Scale(zero=True))
    base = alt.Chart(rows).encode(x=x)
    line = base.mark_line(color=PALETTE["ink"], strokeWidth=1.6).encode(
        y=alt.Y("mde:Q", title="detectable difference, SD", scale=alt.Scale(zero=True))
    )
    dot = base.mark_point(filled=True, size=64, color=PALETTE["ink"], opacity=1).encode(
        y="mde:Q", tooltip=tips
    )
    margin = (
        alt.Chart(rows.select(pl.col("margin").max()))
        .mark_rule(color=PALETTE["equivalent"], strokeDash=[5, 3], strokeWidth=1.5)
        .encode(y="margin:Q", tooltip=alt.Tooltip("margin:Q", title="margin, SD"))
    )
    told = "; ".join(f"{r['mde']:.2f} SD at look {r['look']}" for r in rows.iter_rows(named=True))
    return styled(
        alt.layer(margin, line, dot), height=170, description=f"Detectable with 80 % power: {told}."
    )


def missingness(frame: pl.DataFrame, *, limit: float = 0.20) -> alt.LayerChart:
    """Share of texts missing (failed or too short) by arm with its Wilson interval, and the limit.

    Parameters
    ----------
    frame
        One row an arm with arm, share, low, high, missing and n.
    limit
        Share above which a model is INVALID.
    """
    import altair as alt

    y = alt.Y("arm:N", sort=frame["arm"].to_list(), title=None, axis=row_axis())
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("missing:Q", title="texts missing"),
        alt.Tooltip("n:Q", title="of"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%"),
        alt.Tooltip("high:Q", format=".1%"),
    ]
    base = alt.Chart(frame).encode(y=y)
    bar = base.mark_rule(color=PALETTE["ink"], strokeWidth=1.6).encode(
        x=alt.X("low:Q", title="share of texts missing", axis=alt.Axis(format=".0%", tickCount=5)),
        x2="high:Q",
        tooltip=tips,
    )
    dot = base.mark_point(filled=True, size=64, color=PALETTE["ink"], opacity=1).encode(
        x="share:Q", tooltip=tips
    )
    cut = (
        alt.Chart(pl.DataFrame({"limit": [limit]}))
        .mark_rule(color=PALETTE["invalid"], strokeDash=[5, 3], strokeWidth=1.5)
        .encode(x="limit:Q", tooltip=alt.Tooltip("limit:Q", format=".0%", title="INVALID above"))
    )
    told = "; ".join(f"{r['arm']}: {r['missing']} of {r['n']}" for r in frame.iter_rows(named=True))
    return styled(
        alt.layer(cut, bar, dot), height=24 * frame.height, description=f"Texts missing by arm. {told}."
    )


def seed_histogram(frame: pl.DataFrame) -> alt.FacetChart:
    """Histogram of 32-bit seeds in 16 equal bins, a panel a source, with what uniform seeds would give.

    Parameters
    ----------
    frame
        Columns source, bin (0-15), draws and n (all draws of the source).
    """
    import altair as alt

    rows = frame.with_columns(
        expected=pl.col("n") / 16,
        low=(pl.col("n") / 16 - 2.576 * (pl.col("n") * 15 / 256).sqrt()).clip(lower_bound=0),
        high=pl.col("n") / 16 + 2.576 * (pl.col("n") * 15 / 256).sqrt(),
        panel=pl.col("source") + ", " + pl.col("n").cast(pl.String) + " draws",
    )
    tips = [
        alt.Tooltip("source:N"),
        alt.Tooltip("bin:Q"),
        alt.Tooltip("draws:Q"),
        alt.Tooltip("expected:Q", format=".1f"),
    ]
    x = alt.X("bin:O", title="seed, 16 equal bins", axis=alt.Axis(labels=False, ticks=False))
    y = alt.Y("draws:Q", title=None, axis=alt.Axis(tickCount=3))
    base = alt.Chart(rows).encode(x=x)
    bars = base.mark_bar(color=PALETTE["muted"]).encode(y=y, tooltip=tips)
    mean = base.mark_line(color=PALETTE["ink"], strokeWidth=1).encode(y="expected:Q")
    band = base.mark_area(color=PALETTE["ink"], opacity=0.12).encode(y="low:Q", y2="high:Q")
    worst = rows.group_by("source", maintain_order=True).agg(
        pl.col("draws").min(), pl.col("draws").max().alias("most")
    )
    told = "; ".join(f"{r['source']}: {r['draws']} to {r['most']} a bin" for r in worst.iter_rows(named=True))
    chart = (
        alt.layer(bars, band, mean)
        .properties(width=WIDTH_PX - 60, height=54)
        .facet(
            facet=alt.Facet("panel:N", title=None, header=alt.Header(labelAnchor="start", labelPadding=2)),
            columns=1,
        )
        .resolve_scale(y="independent")
        .properties(spacing=10)
    )
    done: alt.FacetChart = configured(chart.properties(description=f"Seeds by bin. {told}."))
    return done


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The chart as Vega-Lite, data included, without the address of its schema."""
    spec: dict[str, Any] = chart.to_dict(validate=False)
    spec.pop("$schema", None)
    return spec


def draw_svg(spec: Mapping[str, Any]) -> str:
    """A specification as SVG text with its description as `<title>`, so that it is read aloud."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(dict(spec))
    head, rest = svg.split(">", 1)
    said = html.escape(str(spec.get("description", "chart")))
    return f'{head} role="img"><title>{said}</title>{rest}'


def save_figure(
    chart: alt.TopLevelMixin,
    directory: Path,
    name: str,
    *,
    query: str,
    frame: pl.DataFrame,
    commit: str | None,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write the chart in each format and `<name>.json`; each file is replaced in one step.

    A format whose file was drawn from the same specification by the same code, and is whole, stays as it is.

    Parameters
    ----------
    query, frame
        The SQL and the rows that the chart shows; they go into the `.json`, so that the figure can be made
        again or checked without the store.
    commit
        Git commit of the program that measured the rows.
    formats
        Any of svg, png and html; an html file holds Vega (0.9 MB) and needs no network.

    Returns
    -------
    list of Path
        The files, the `.json` last.

    Raises
    ------
    UsageError
        A format that is none of these; nothing is written.
    """
    spec = specification(chart)
    svg = functools.cache(functools.partial(_svg, spec))  # the PNG is made of it
    makers: dict[str, Callable[[], bytes]] = {
        "svg": svg,
        "png": lambda: _png(svg()),
        "html": lambda: _html(spec),
    }
    for kind in formats:
        if kind not in makers:
            raise unknown("format", kind, makers)
    told = json.dumps(spec, sort_keys=True, default=str) + code("lab.figures")
    drawn_from = hashlib.sha256(told.encode()).hexdigest()
    directory.mkdir(parents=True, exist_ok=True)
    files = _whole_files(directory, name, drawn_from)
    for kind in formats:
        if kind not in files:
            body = makers[kind]()
            _replace(directory / f"{name}.{kind}", body)
            files[kind] = hashlib.sha256(body).hexdigest()
    trace = {
        "figure": name,
        "commit": commit,
        "query": query,
        "rows": frame.to_dicts(),
        "drawn_from": drawn_from,
        "files": dict(sorted(files.items())),
    }
    body = json.dumps(trace, ensure_ascii=False, indent=1, default=str).encode()
    _replace(directory / f"{name}.json", body)
    return [directory / f"{name}.{kind}" for kind in (*formats, "json")]


def _whole_files(directory: Path, name: str, drawn_from: str) -> dict[str, str]:
    """Format -> SHA-256 of the files that were drawn from a specification and are whole."""
    try:
        trace = json.loads((directory / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(trace, dict) or trace.get("drawn_from") != drawn_from:
        return {}
    found = {}
    for kind, digest in trace.get("files", {}).items():
        file = directory / f"{name}.{kind}"
        if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == digest:
            found[str(kind)] = str(digest)
    return found


def _svg(spec: dict[str, Any]) -> bytes:
    return draw_svg({**spec, "background": PALETTE["paper"]}).encode()


def _png(svg: bytes) -> bytes:
    import vl_convert

    png: bytes = vl_convert.svg_to_png(svg.decode(), scale=2)
    return png


def _html(spec: dict[str, Any]) -> bytes:
    import vl_convert

    page: str = vl_convert.vegalite_to_html({**spec, "background": PALETTE["paper"]}, bundle=True)
    return page.encode()


def _replace(target: Path, body: bytes) -> Path:
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_bytes(body)
    os.replace(temporary, target)
    return target
