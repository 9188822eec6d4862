"""The report's figures by name: which query feeds which chart, and what it shows.

The page draws them from here, and so does `write_figures`: a figure on disk is the figure in the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import figures, figures_distribution, figures_scale
from lab import report_queries as queries
from lab.chart_style import PALETTE
from lab.errors import unknown
from lab.report_group import Asked, ask, read_groups
from lab.report_markup import sql
from lab.store import Store

if TYPE_CHECKING:
    import altair as alt
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart of the report."""

    title: str
    caption: str
    query: str
    draw: Callable[[pl.DataFrame], alt.TopLevelMixin]


FIGURES: Mapping[str, Figure] = {
    "contrasts": Figure(
        title="Contrasts at the last look",
        caption="Every primary and secondary contrast with its Tukey interval at the look's level; the band "
        "is the margin. Inside margin: the equivalence test rejects at the same level.",
        query=queries.EFFECTS,
        draw=figures.forest,
    ),
    "looks": Figure(
        title="Look by look",
        caption="The largest primary contrast at each look. Red ticks: how far from 0 it had to be for its "
        "interval to exclude 0 at that look.",
        query=queries.LOOKS,
        draw=figures.looks,
    ),
    "controls": Figure(
        title="Positive control and A/A",
        caption="The positive control must differ, or a null means nothing; two labels of one source must "
        "not.",
        query=queries.ASSAY,
        draw=figures.forest,
    ),
    "detectable": Figure(
        title="Detectable difference",
        caption="The smallest difference found with 80 % power, from the variances estimated at that look, "
        "for the least favourable primary metric. Dashed: the margin.",
        query=queries.DETECTABLE,
        draw=figures.detectable,
    ),
    "missingness": Figure(
        title="Missing by arm",
        caption="Failed or under 10 words, with 95 % Wilson intervals. Above the dashed line the model is "
        "INVALID.",
        query=queries.MISSING_SHARES,
        draw=figures.missingness,
    ),
    "doses": Figure(
        title="Dose-response",
        caption="Noise on the logits against none: difference of each metric by dose, with its interval. It "
        "says how far noise moves texts, nothing about its source.",
        query=queries.DOSES,
        draw=figures_scale.doses,
    ),
    "permutations": Figure(
        title="Sharp null",
        caption="Observed omnibus statistic of each metric; bar: the middle 95 % of what permuting the "
        "sources' labels within prompts gives.",
        query=queries.PERMUTATIONS,
        draw=figures_distribution.permutation_null,
    ),
    "scale": Figure(
        title="Effect against scale",
        caption="Largest primary effect of each rung with its interval, at its last look; the band "
        "is the margin. Dashed: EQUIVALENT from here on. Verdicts after correction over rungs.",
        query=queries.SCALE,
        draw=figures_scale.scale,
    ),
}
"""Name -> figure of one study, profile, model and plan; a figure without rows is not shown."""

SEEDS = Figure(
    title="Seeds by source",
    caption="All draws on tape, each once, choices of tokens left out. Line: what uniform seeds give on "
    "average; shade: where a bin of theirs lies 99 times of 100.",
    query=queries.SEEDS,
    draw=figures.seed_histogram,
)
SEED_QUANTILES = Figure(
    title="Seeds against uniform ones",
    caption="Quantiles of each source's seeds minus those of uniform ones. Shade: where one quantile lies 99 "
    "times of 100.",
    query=queries.SEED_QUANTILES,
    draw=figures_distribution.seed_quantiles,
)
WHOLE_STORE: Mapping[str, Figure] = {"seeds": SEEDS, "seed-quantiles": SEED_QUANTILES}
"""Figures of the whole store."""


def figure(shown: Figure, asked: Asked) -> str:
    """A chart as a still, its specification for the script, what it shows, its query; empty without rows."""
    if asked.frame.is_empty():
        return ""
    head = f"<h4>{shown.title}</h4>"
    spec = figures.specification(shown.draw(asked.frame))
    data = themed(json.dumps(spec, ensure_ascii=False, default=str)).replace("<", "\\u003c")
    return (
        f'<figure data-chart="still">{head}<div class="still">{themed(figures.draw_svg(spec))}</div>'
        f'<script type="application/json">{data}</script><figcaption>{shown.caption}</figcaption>'
        f"{sql(asked.sql)}</figure>"
    )


def themed(drawing: str) -> str:
    """SVG or JSON of a chart with its colours as variables of the style sheet.

    >>> themed('fill="#1d2329"')
    'fill="var(--ink)"'
    """
    for name, colour in PALETTE.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing


def write_figures(
    store: Store, directory: Path, *, study: str | None = None, formats: Sequence[str] = figures.FORMATS
) -> list[Path]:
    """Write every figure that has rows as `<directory>/<study>-<model>-<plan>/<name>.*`, seeds beside them.

    Parameters
    ----------
    study
        Only this one; None for all.
    formats
        See `lab.figures.save_figure`.

    Returns
    -------
    list of Path
        The files written; none from an empty store.

    Raises
    ------
    UsageError
        A study that the store does not have.
    """
    groups = read_groups(store)
    names = {group.study for group in groups}
    if study is not None and study not in names:
        raise unknown("study", study, names)
    written: list[Path] = []
    for group in groups:
        if study not in (None, group.study):
            continue
        runs = ask(store, queries.RUNS, group.parameters).rows
        commit = str(runs[-1]["git_commit"]) if runs and runs[-1]["git_commit"] else None
        for name, shown in FIGURES.items():
            asked = ask(store, shown.query, group.parameters)
            written += _save(shown, asked, directory / group.name, name, commit, formats)
    for name, shown in WHOLE_STORE.items():
        written += _save(shown, ask(store, shown.query), directory, name, None, formats)
    return written


def _save(
    shown: Figure, asked: Asked, directory: Path, name: str, commit: str | None, formats: Sequence[str]
) -> list[Path]:
    if asked.frame.is_empty():
        return []
    return figures.save_figure(
        shown.draw(asked.frame),
        directory,
        name,
        query=asked.sql,
        frame=asked.frame,
        commit=commit,
        formats=formats,
    )
