"""The sharp null: source labels permuted within prompt, statistics studentised, all metrics drawn together.

It asks "no effect in any prompt or stream", which is more than "no mean effect": it rejects where only the
prompts or the streams differ in their response while the mean effect is zero. So its rows carry the role
`sharp_null` and never decide. Under that null every outcome, missing ones included, would have been the same
under any other assignment of labels within the prompt; the p value (b + 1) / (m + 1) is therefore exact for
any statistic, in any sample, with any pattern of missing values. The draws are made in `stats.arrangements`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.arrangements import SMALLEST_VARIANCE, Comparison, Drawn, compare, draw, within_cell_sd
from stats.rows import FloatArray, IntArray, TestRow

METHOD = "studentised label permutation within prompt"


def draws_for(alpha: float, *, minimum: int = 10_000) -> int:
    """Number of draws for a test at level `alpha`: at least 20 / alpha, so that p can fall well below it.

    >>> draws_for(0.0016), draws_for(0.05)
    (12500, 10000)
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha {alpha} of a permutation test; allowed: between 0 and 1, e.g. 0.05")
    return max(minimum, math.ceil(20 / alpha))


def sharp_null(
    values: Mapping[str, FloatArray],
    *,
    source: Sequence[str] | npt.NDArray[Any],
    prompt: Sequence[str] | npt.NDArray[Any],
    n_draws: int,
    rng: np.random.Generator,
    primary: Sequence[str],
    family: str = "sharp_null",
) -> list[TestRow]:
    """Permutation test of no effect of the source on any text, omnibus and for each pair of sources.

    With m_a the mean over prompts of the cell means of source a, and v_a = sum_p (s_pa^2 / n_pa) / P^2 its
    squared standard error, the omnibus statistic is sum_a (m_a - m)^2 / v_a / (S - 1), m weighted by 1 / v_a.
    For a pair it is the square of (m_a - m_b) / sqrt(v_a + v_b), reported as that signed ratio. A prompt
    enters a metric when each compared cell holds two values. A pair is permuted among its own rows alone,
    since the third source may differ. `p_adjusted` is step-down max-T (Westfall and Young 1993) over the
    primary metrics, or over the others, times the number of pairs.

    Parameters
    ----------
    values : mapping of str to (rows,) float array
        One array a metric, NaN where the text has no value. Any other non-number is refused.
    source, prompt : (rows,) sequence of str
        The permuted label and the block it is permuted within.
    n_draws : int
        Random arrangements; see `draws_for`.
    rng : numpy Generator
        Two calls with equal generators give equal rows, whatever the number of threads.
    primary : sequence of str
        Metrics corrected together; the rest form a second group.
    family : str
        Written into the rows.

    Returns
    -------
    list of TestRow
        `omnibus` a metric (`low` to `high`: the middle 95 % of the permutations' statistics), `max_t` for the
        primary metrics together, `pairwise` a metric and pair (estimate: mean of the first minus mean of the
        second, in the metric's units; effect: in within-cell SD).

    Raises
    ------
    ValueError
        Unequal lengths, infinite values, fewer than two sources, no draws, unknown primary metric.

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0, 14.0])
    >>> rows = sharp_null({"m": y}, source=list("aaaabbbb"), prompt=["p"] * 8, n_draws=9999,
    ...                   rng=np.random.default_rng(0), primary=("m",))
    >>> [(row.hypothesis, row.contrast) for row in rows]
    [('omnibus', '*'), ('max_t', '*'), ('pairwise', 'a-b')]
    >>> rows[2].estimate, round(rows[2].statistic, 3), round(rows[2].p, 3)  # 2 of 70 arrangements: p = .029
    (-10.0, -10.954, 0.029)
    """
    y, source_code, names, prompt_code = _checked(values, source, prompt, n_draws, primary)
    metrics = list(values)
    tiers = [[metrics.index(m) for m in primary], [i for i, m in enumerate(metrics) if m not in primary]]
    within_sd = within_cell_sd(y, source_code, prompt_code, len(names))
    everything = compare(y, source_code, prompt_code, tuple(range(len(names))), names)
    omnibus = draw(everything, n_draws, rng)
    rows = [_omnibus_row(i, name, omnibus, tiers, family) for i, name in enumerate(metrics)]
    rows.append(_max_t_row(metrics, omnibus, tiers[0], family))
    pairs = list(combinations(range(len(names)), 2))
    for pair in pairs:
        comparison = compare(y, source_code, prompt_code, pair, names)
        drawn = draw(comparison, n_draws, rng)
        rows += [
            _pairwise_row(i, name, comparison, drawn, tiers, len(pairs), within_sd[i], family)
            for i, name in enumerate(metrics)
        ]
    return rows


def _checked(
    values: Mapping[str, FloatArray],
    source: Sequence[str] | npt.NDArray[Any],
    prompt: Sequence[str] | npt.NDArray[Any],
    n_draws: int,
    primary: Sequence[str],
) -> tuple[FloatArray, IntArray, tuple[str, ...], IntArray]:
    """(rows, metrics) values, coded sources with their names, coded prompts."""
    lengths = {"source": len(source), "prompt": len(prompt)} | {k: len(v) for k, v in values.items()}
    if not values or len(set(lengths.values())) != 1:
        raise ValueError(f"found lengths {lengths}; pass one value a row for each metric, source and prompt")
    unknown = [name for name in primary if name not in values]
    if unknown:
        raise ValueError(f"primary metrics {unknown} have no values; found {list(values)}")
    if n_draws < 1:
        raise ValueError(f"{n_draws} draws; pass at least 20 / alpha, see draws_for")
    y = np.column_stack([np.asarray(column, dtype=np.float64) for column in values.values()])
    if np.isinf(y).any():
        raise ValueError("infinite values; pass NaN for a text that has no value, finite numbers otherwise")
    names, source_code = np.unique(np.asarray(source), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} source found; a comparison needs two or more")
    prompt_code = np.unique(np.asarray(prompt), return_inverse=True)[1]
    return y, source_code.astype(np.int64), tuple(str(name) for name in names), prompt_code.astype(np.int64)


def _adjusted(i: int, drawn: Drawn, tiers: Sequence[Sequence[int]]) -> float:
    """Max-T p value of metric i among the defined metrics of its tier."""
    tier = next(tier for tier in tiers if i in tier)
    defined = [j for j in tier if not math.isnan(drawn.statistic[j])]
    return float(drawn.p_max_t(defined)[defined.index(i)])


def _undefined(hypothesis: str, metric: str, contrast: str, n: int, family: str) -> TestRow:
    reason = "no prompt with two values in each compared cell, or no variation within any prompt"
    return TestRow(
        family=family,
        hypothesis=hypothesis,
        metric=metric,
        contrast=contrast,
        method=METHOD,
        role="sharp_null",
        n=n,
        reason=reason,
    )


def _omnibus_row(i: int, metric: str, drawn: Drawn, tiers: Sequence[Sequence[int]], family: str) -> TestRow:
    if math.isnan(drawn.statistic[i]):
        return _undefined("omnibus", metric, "*", int(drawn.n_rows[i]), family)
    return TestRow(
        family=family,
        hypothesis="omnibus",
        metric=metric,
        method=METHOD,
        role="sharp_null",
        low=float(drawn.null[0, i]),
        high=float(drawn.null[1, i]),
        statistic=float(drawn.statistic[i]),
        df1=float(drawn.n_labels - 1),
        p=float(drawn.p[i]),
        p_adjusted=_adjusted(i, drawn, tiers),
        n=int(drawn.n_rows[i]),
    )


def _max_t_row(metrics: Sequence[str], drawn: Drawn, primary: Sequence[int], family: str) -> TestRow:
    """One answer for the primary metrics together; undefined as soon as one of them is."""
    missing = [metrics[i] for i in primary if math.isnan(drawn.statistic[i])]
    broken = bool(missing) or not primary
    reason = f"primary metrics undefined: {', '.join(missing) or 'none was named'}"
    return TestRow(
        family=family,
        hypothesis="max_t",
        method=f"{METHOD}, maximum over primary metrics",
        role="sharp_null",
        statistic=None if broken else float(max(drawn.statistic[i] for i in primary)),
        p=None if broken else float(drawn.p_max_t(primary).min()),
        n=len(primary),
        reason=reason if broken else None,
    )


def _pairwise_row(
    i: int,
    metric: str,
    comparison: Comparison,
    drawn: Drawn,
    tiers: Sequence[Sequence[int]],
    n_pairs: int,
    within_sd: float,
    family: str,
) -> TestRow:
    contrast = "-".join(comparison.names)
    if math.isnan(drawn.statistic[i]):
        return _undefined("pairwise", metric, contrast, int(drawn.n_rows[i]), family)
    difference = float(drawn.means[0, i] - drawn.means[1, i])
    standard_error = math.sqrt(max(float(drawn.variances[:, i].sum()), SMALLEST_VARIANCE))
    estimate = difference * float(comparison.scale[i])
    return TestRow(
        family=family,
        hypothesis="pairwise",
        metric=metric,
        contrast=contrast,
        method=METHOD,
        role="sharp_null",
        estimate=estimate,
        effect=estimate / float(within_sd) if within_sd > 0 else None,
        statistic=difference / standard_error,
        p=float(drawn.p[i]),
        p_adjusted=min(1.0, n_pairs * _adjusted(i, drawn, tiers)),
        n=int(drawn.n_rows[i]),
    )
