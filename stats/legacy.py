"""The earlier work's view of the same data, beside ours and never instead of it.

Earlier scripts averaged each prompt's texts and compared sources by paired tests on those means; others
fitted a mixed model with a random prompt alone. `legacy_view` gives the former with their effect sizes,
`mixed_vs_paired` shows when the two part: (1|prompt) takes the scatter of the source effect over prompts
for scatter of texts, so it can reject where the prompts disagree. In a balanced two-source design the model
with (1|prompt) + (1|prompt:source) *is* the paired t test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from stats.arrangements import within_cell_sd
from stats.contrasts import omnibus
from stats.layout import Undefined, arrange
from stats.mixed import deciding_fit, fit_mixed
from stats.multiplicity import correct_rows
from stats.power import minimum_detectable_effect, observed_power
from stats.rows import FloatArray, TestRow

FAMILY = "legacy"
PROMPT_ONLY = "(1|prompt)"
MAXIMAL = "(1|prompt) + (1|prompt:source)"
PAIRED = "paired t on prompt means"
IGNORED = "prompt heterogeneity ignored"
"""Label of a hit under (1|prompt) alone."""

Labels = Sequence[str] | npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One metric and contrast: the texts of two sources, and the means of the prompts both have."""

    metric: str
    contrast: str
    y: FloatArray
    source: tuple[str, ...]
    prompt: tuple[str, ...]
    means: FloatArray
    """(prompts, 2) mean of the first and second source."""
    within_sd: float
    """Pooled SD within source and prompt, all sources."""


def legacy_view(
    values: Mapping[str, FloatArray],
    *,
    source: Labels,
    prompt: Labels,
    stream: Labels | None = None,
    alpha: float = 0.05,
) -> list[TestRow]:
    """Prompt-mean tests of every metric and pair of sources, with the effect sizes reported at the time.

    With d the differences of two sources' prompt means over n prompts: paired t = mean(d) / (sd(d) / sqrt n);
    Wilcoxon's signed ranks of d; d_z = mean(d) / sd(d); power of the paired t test at the observed d_z
    (a function of p alone: it decides nothing); the d_z found with 80 % power; 100 (mean A / mean B - 1).

    Parameters
    ----------
    values : mapping of str to (rows,) float array
        NaN where a text has no value.
    source, prompt : (rows,) labels
    stream : (rows,) labels, optional
        A prompt's mean is then the mean over streams of stream means.
    alpha : float
        Level of the intervals and of the power.

    Returns
    -------
    list of TestRow
        Role `legacy`; hypotheses `paired_t` and `wilcoxon` (p_adjusted: Benjamini-Hochberg over metric x
        contrast), `d_z`, `observed_power`, `detectable_d_z`, `percent_difference` (in `estimate`).

    Examples
    --------
    >>> y = np.array([1.0, 3.0, 2.0, 6.0, 3.0, 4.0, 4.0, 9.0])
    >>> rows = legacy_view({"m": y}, source=list("abababab"), prompt=list("11223344"))
    >>> [(row.hypothesis, round(row.estimate, 3)) for row in rows[:3]]
    [('paired_t', -3.0), ('wilcoxon', 0.0), ('d_z', -1.643)]
    """
    pairs = _pairs(values, source, prompt, stream)
    t_rows = correct_rows([_paired_t_row(pair, alpha) for pair in pairs], "benjamini-hochberg").rows
    w_rows = correct_rows([_wilcoxon_row(pair) for pair in pairs], "benjamini-hochberg").rows
    rows: list[TestRow] = []
    for pair, t_row, w_row in zip(pairs, t_rows, w_rows, strict=True):
        rows += [t_row, w_row, *_size_rows(pair, t_row, alpha)]
    return rows


def mixed_vs_paired(
    values: Mapping[str, FloatArray], *, source: Labels, prompt: Labels, alpha: float = 0.05
) -> list[TestRow]:
    """Which of (1|prompt), (1|prompt) + (1|prompt:source) and the paired t test reject at alpha.

    F tests have Satterthwaite's degrees of freedom. The maximal model is fitted unpooled where lme4 would put
    prompt:source at zero, so in balanced data it equals the paired t test always, not only inside.

    Returns
    -------
    list of TestRow
        Role `legacy`, hypothesis `mixed_vs_paired`: a row for each method and, as `reason` of a fourth row
        with method `label`, what the three say together. A hit under (1|prompt) alone is "prompt
        heterogeneity ignored": it says nothing about the size of the effect.

    Examples
    --------
    Four prompts that disagree: three texts of each source each.

    >>> prompt = [p for p in "1234" for _ in range(6)]
    >>> y = np.array([p + q for p in (9, 2, 4, 1, 8, 9, 0, 0) for q in (-0.1, 0.0, 0.1)])
    >>> rows = mixed_vs_paired({"m": y}, source=list("aaabbb") * 4, prompt=prompt)
    >>> [round(row.p, 3) for row in rows[:3]], rows[3].reason
    ([0.005, 0.299, 0.299], 'prompt heterogeneity ignored')
    """
    rows: list[TestRow] = []
    for pair in _pairs(values, source, prompt, None):
        tested = [
            _mixed_row(pair, PROMPT_ONLY),
            _mixed_row(pair, MAXIMAL),
            replace(_paired_t_row(pair, alpha), hypothesis="mixed_vs_paired", method=PAIRED),
        ]
        label = replace(_empty(pair, "mixed_vs_paired", "label"), reason=_label(tested, alpha))
        rows += [replace(row, alpha=alpha) for row in (*tested, label)]
    return rows


def _label(rows: Sequence[TestRow], alpha: float) -> str:
    undefined = [row.method for row in rows if row.p is None]
    if undefined:
        return f"undefined: {', '.join(undefined)}"
    hits = [row.method for row in rows if row.p is not None and row.p <= alpha]
    if hits == [PROMPT_ONLY]:
        return IGNORED
    if len(hits) in (0, len(rows)):
        return "all three reject" if hits else "none rejects"
    return f"rejected by {', '.join(hits)} only"


def _pairs(
    values: Mapping[str, FloatArray], source: Labels, prompt: Labels, stream: Labels | None
) -> list[Pair]:
    """Every metric with every pair of sources, missing values dropped."""
    names = sorted({str(name) for name in source})
    lengths = {"source": len(source), "prompt": len(prompt)} | {k: len(v) for k, v in values.items()}
    if stream is not None:
        lengths["stream"] = len(stream)
    if len(set(lengths.values())) != 1 or len(names) < 2:
        raise ValueError(
            f"found lengths {lengths} and sources {names}; pass equal lengths, two sources or more"
        )
    s, p = (np.asarray(labels, dtype=np.str_) for labels in (source, prompt))
    t = np.asarray(stream if stream is not None else [""] * len(s), dtype=np.str_)
    s_code, p_code = (np.unique(labels, return_inverse=True)[1].astype(np.int64) for labels in (s, p))
    pairs = []
    for metric, column in values.items():
        y = np.asarray(column, dtype=np.float64)
        if np.isinf(y).any():
            raise ValueError(f"{metric} has infinite values; a text without a value is NaN")
        sd = float(within_cell_sd(y[:, None], s_code, p_code, len(names))[0])
        for a, b in combinations(names, 2):
            rows = ~np.isnan(y) & ((s == a) | (s == b))
            pairs.append(
                Pair(
                    metric=metric,
                    contrast=f"{a}-{b}",
                    y=y[rows],
                    source=tuple(s[rows].tolist()),
                    prompt=tuple(p[rows].tolist()),
                    means=_prompt_means(y[rows], s[rows] == b, p[rows], t[rows]),
                    within_sd=sd,
                )
            )
    return pairs


def _prompt_means(
    y: FloatArray, second: npt.NDArray[np.bool_], prompt: npt.NDArray[np.str_], stream: npt.NDArray[np.str_]
) -> FloatArray:
    """(prompts, 2) means over streams of stream means, of the prompts where both sources have texts."""
    p = np.unique(prompt, return_inverse=True)[1]
    t = np.unique(stream, return_inverse=True)[1]
    if not len(y):
        return np.empty((0, 2))
    shape = (int(p.max()) + 1, 2, int(t.max()) + 1)
    cell = np.ravel_multi_index((p, second.astype(np.int64), t), shape)
    count = np.bincount(cell, minlength=math.prod(shape)).reshape(shape)
    total = np.bincount(cell, y, math.prod(shape)).reshape(shape)
    by_stream = total / np.maximum(count, 1)
    streams = (count > 0).sum(axis=2)
    means = by_stream.sum(axis=2) / np.maximum(streams, 1)
    both: FloatArray = means[(streams > 0).all(axis=1)]
    return both


def _empty(pair: Pair, hypothesis: str, method: str, reason: str = "undefined") -> TestRow:
    return TestRow(
        family=FAMILY,
        hypothesis=hypothesis,
        metric=pair.metric,
        contrast=pair.contrast,
        method=method,
        role="legacy",
        n=len(pair.means),
        reason=reason,
    )


def _paired_t_row(pair: Pair, alpha: float) -> TestRow:
    row = _empty(pair, "paired_t", PAIRED)
    d = pair.means[:, 0] - pair.means[:, 1]
    if len(d) < 2:
        return replace(row, reason=f"{len(d)} prompts with texts of both sources; a paired t test needs 2")
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    if error <= 1e-12 * float(np.abs(pair.means).max()):
        return replace(row, reason="the prompts' differences do not vary")
    mean, df = float(d.mean()), len(d) - 1
    half = float(scipy.stats.t.isf(alpha / 2, df)) * error
    return replace(
        row,
        estimate=mean,
        low=mean - half,
        high=mean + half,
        effect=mean / pair.within_sd if pair.within_sd > 0 else None,
        statistic=mean / error,
        df1=1.0,
        df2=float(df),
        p=float(2 * scipy.stats.t.sf(abs(mean) / error, df)),
        alpha=alpha,
        reason=None,
    )


def _wilcoxon_row(pair: Pair) -> TestRow:
    """Signed ranks, p as `scipy.stats.wilcoxon` gives it by default: what earlier work reported."""
    row = _empty(pair, "wilcoxon", "Wilcoxon signed rank on prompt means")
    d = pair.means[:, 0] - pair.means[:, 1]
    moved = d[d != 0]
    if not len(moved):
        return replace(row, reason="no prompt whose two means differ")
    ranks = scipy.stats.rankdata(np.abs(moved))
    found = scipy.stats.wilcoxon(d)
    positive = float(ranks[moved > 0].sum())
    return replace(row, estimate=positive, statistic=positive, p=float(found.pvalue), reason=None)


def _size_rows(pair: Pair, t_row: TestRow, alpha: float) -> list[TestRow]:
    """d_z, its observed power, the d_z that 80 % power would find, and the percent difference."""
    n = len(pair.means)
    first, second = pair.means.mean(axis=0) if n else (math.nan, math.nan)
    rows = [
        _empty(pair, "d_z", "mean over SD of the prompts' differences", t_row.reason or "undefined"),
        _empty(pair, "observed_power", "paired t at the observed d_z", t_row.reason or "undefined"),
        _empty(pair, "detectable_d_z", "paired t, 80 % power", t_row.reason or "undefined"),
        _empty(pair, "percent_difference", "100 (mean A / mean B - 1)", "the second mean is zero or missing"),
    ]
    if t_row.statistic is not None:
        d_z, error, df = t_row.statistic / math.sqrt(n), 1 / math.sqrt(n), n - 1
        sizes = (
            d_z,
            observed_power(d_z, error, df, alpha),
            minimum_detectable_effect(error, df, alpha),
        )
        rows[:3] = [
            replace(row, estimate=x, alpha=alpha, reason=None) for row, x in zip(rows, sizes, strict=False)
        ]
    if n and second != 0:
        rows[3] = replace(rows[3], estimate=float(100 * (first / second - 1)), reason=None)
    return rows


def _mixed_row(pair: Pair, method: str) -> TestRow:
    row = replace(_empty(pair, "mixed_vs_paired", method), n=len(pair.y))
    try:
        layout = arrange(pair.source, pair.prompt, ["one stream"] * len(pair.y))
        if method == PROMPT_ONLY:
            fit = fit_mixed(pair.y, replace(layout, factors=layout.factors[:1], V=layout.V[:1]))
        else:
            fit = deciding_fit(pair.y, layout)
        test = omnibus(fit)
    except Undefined as error:
        return replace(row, reason=str(error))
    difference = float(fit.means[0] - fit.means[1])
    return replace(
        row,
        estimate=difference,
        effect=difference / pair.within_sd if pair.within_sd > 0 else None,
        statistic=math.copysign(math.sqrt(test.statistic), difference),
        df1=1.0,
        df2=test.df2,
        p=test.p,
        reason=None,
    )
