"""Does the source matter in some domains only, or only through the length of the text? Two secondary tests.

The domain test compares prompt x source cell means. Taking each prompt's mean out leaves what the sources do
in that prompt; domains are compared on it, prompts within a domain being the error:

    F = MS_source:domain / MS_prompt:source on ((S - 1)(D - 1), (S - 1)(P - D))

In data with equal cells this is the mixed model's test of source x domain; a stream's effect is the same in
every prompt of its source and cancels. The covariate is taken out at the slope found within cells (same
prompt, source and stream), where no source differs from another, and the primary test runs on the rest. If
the source moves the length, that adjusts away a part of its own effect: another question, not a better one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import special

from stats.layout import Undefined
from stats.metric_tests import FamilyPlan, LabelledRows, answer_metric, contrast_rows, omnibus_row
from stats.multiplicity import correct_rows
from stats.rows import FloatArray, IntArray, TestRow


@dataclass(frozen=True, kw_only=True)
class DomainTest:
    """Source x domain interaction of one metric."""

    statistic: float
    df1: float
    df2: float
    p: float
    error: float
    """MS_prompt:source of cell means, in the metric's units squared."""
    effects: FloatArray
    """(D, S) source means within each domain, the mean of the domain taken out."""
    domains: IntArray
    """(D,) codes of the domains that entered."""
    prompts: IntArray
    """(D,) prompts of each."""


def domain_test(y: FloatArray, source: IntArray, prompt: IntArray, domain: IntArray) -> DomainTest:
    """F test that the sources differ alike in every domain.

    Parameters
    ----------
    y
        (n,) finite values.
    source, prompt, domain
        (n,) codes from 0; a prompt belongs to one domain. A prompt that lacks a source is left out.

    Raises
    ------
    Undefined
        With under two domains, no domain of two prompts, or no variation of the sources between prompts.

    References
    ----------
    Winer (1971), Statistical Principles in Experimental Design, ch. 7. Witnesses: lmerTest, R's `aov`.

    Examples
    --------
    >>> prompt = np.repeat(np.arange(4), 4)
    >>> source, domain = np.tile([0, 0, 1, 1], 4), prompt // 2
    >>> y = np.array([1, 2, 3, 4, 2, 3, 5, 6, 3, 4, 3, 4, 5, 6, 4, 5], dtype=float)
    >>> test = domain_test(y, source, prompt, domain)
    >>> round(test.statistic, 4), test.df1, test.df2, round(test.p, 4)
    (18.0, 1.0, 2.0, 0.0513)
    """
    S, P = int(source.max()) + 1, int(prompt.max()) + 1
    rows = np.bincount(prompt * S + source, minlength=P * S).reshape(P, S)
    sums = np.bincount(prompt * S + source, y, minlength=P * S).reshape(P, S)
    whole = (rows > 0).all(axis=1)
    if not whole.any():
        raise Undefined("no prompt has a text of every source")
    of_prompt = np.zeros(P, dtype=np.int64)
    of_prompt[prompt] = domain
    cells, (domains, place) = sums[whole] / rows[whole], np.unique(of_prompt[whole], return_inverse=True)
    left = cells - cells.mean(axis=1, keepdims=True)
    prompts = np.bincount(place)
    D, P = len(prompts), len(cells)
    if D < 2 or P <= D:
        raise Undefined(f"{P} whole prompts in {D} domains; needs two domains, and one of two prompts")
    by_domain = np.stack([np.bincount(place, left[:, s]) for s in range(S)], axis=1) / prompts[:, None]
    df1, df2 = float((S - 1) * (D - 1)), float((S - 1) * (P - D))
    error = float(np.sum((left - by_domain[place]) ** 2)) / df2
    if error <= 1e-24 * float(np.sum(cells**2)):
        raise Undefined("the sources differ alike in all prompts of a domain, so there is no error")
    between = float(prompts @ np.sum((by_domain - left.mean(axis=0)) ** 2, axis=1)) / df1
    return DomainTest(
        statistic=between / error,
        df1=df1,
        df2=df2,
        p=float(special.fdtrc(df1, df2, between / error)),
        error=error,
        effects=by_domain,
        domains=domains,
        prompts=prompts.astype(np.int64),
    )


def domain_rows(
    values: Mapping[str, FloatArray],
    metrics: Sequence[str],
    labelled: LabelledRows,
    domain: Sequence[str],
    *,
    alpha: float = 0.05,
) -> list[TestRow]:
    """Family `domain_interaction`: the F test a metric, Holm over metrics, and each domain's differences.

    Rows `source_by_domain` are secondary. Rows `difference_in_domain` are diagnostic: estimate and interval
    at the pooled error, `contrast` `DOMAIN: A-B`, without a p value of their own.

    Examples
    --------
    >>> from stats.metric_tests import label_rows
    >>> prompt = [p for p in "1234" for _ in range(4)]
    >>> labelled = label_rows(("a", "b"), list("aabb" * 4), prompt, ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 5, 6, 3, 4, 3, 4, 5, 6, 4, 5], dtype=float)
    >>> rows = domain_rows({"m": y}, ("m",), labelled, ["code"] * 8 + ["naming"] * 8)
    >>> [(row.contrast, row.p_adjusted and round(row.p_adjusted, 4), row.estimate) for row in rows]
    [('*', 0.0513, None), ('code: a-b', None, -2.5), ('naming: a-b', None, 0.5)]
    """
    tests, details = [], []
    names, code = np.unique(np.asarray(domain, dtype=np.str_), return_inverse=True)
    for metric in metrics:
        there = ~np.isnan(values[metric])
        row = TestRow(
            family="domain_interaction",
            hypothesis="source_by_domain",
            metric=metric,
            method="F, MS_source:domain / MS_prompt:source of cell means",
            role="secondary",
            alpha=alpha,
            n=int(there.sum()),
            reason="no text has a value",
        )
        try:
            if not there.any():
                raise Undefined("no text has a value")
            if len(np.unique(labelled.source[there])) < len(labelled.names):
                raise Undefined("a source has no values")
            test = domain_test(
                values[metric][there],
                labelled.source[there],
                labelled.prompt[there],
                code.astype(np.int64)[there],
            )
        except Undefined as missing:
            tests.append(replace(row, reason=str(missing)))
            continue
        tests.append(
            replace(row, statistic=test.statistic, df1=test.df1, df2=test.df2, p=test.p, reason=None)
        )
        entered = [str(name) for name in names[test.domains]]
        details += _domain_differences(row, test, entered, labelled.names, alpha)
    return [*correct_rows(tests).rows, *details]


def _domain_differences(
    row: TestRow, test: DomainTest, domains: Sequence[str], names: Sequence[str], alpha: float
) -> list[TestRow]:
    t = -float(special.stdtrit(test.df2, alpha / 2.0))
    rows = []
    for d, domain in enumerate(domains):
        reach = t * math.sqrt(2.0 * test.error / float(test.prompts[d]))
        for i, j in combinations(range(len(names)), 2):
            estimate = float(test.effects[d, i] - test.effects[d, j])
            rows.append(
                replace(
                    row,
                    hypothesis="difference_in_domain",
                    contrast=f"{domain}: {names[i]}-{names[j]}",
                    method="difference of cell means over the domain's prompts, pooled error",
                    role="diagnostic",
                    estimate=estimate,
                    low=estimate - reach,
                    high=estimate + reach,
                    df2=test.df2,
                    n=int(test.prompts[d]),
                    reason=None,
                )
            )
    return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Adjusted:
    """Values with a covariate taken out, and the slope it was taken out at."""

    values: FloatArray
    slope: float
    se: float
    df: float


def adjust_within_cells(y: FloatArray, covariate: FloatArray, cell: IntArray) -> Adjusted:
    """y - b (x - mean x), b the least-squares slope within cells: sum dx dy / sum dx^2.

    Parameters
    ----------
    y, covariate
        (n,) finite values.
    cell
        (n,) codes of prompt x source x stream cells.

    Raises
    ------
    Undefined
        When the covariate does not vary within any cell, or too few texts are left for an error.

    References
    ----------
    Analysis of covariance; witness: R's `lm(y ~ cell + x)`.

    Examples
    --------
    >>> y, x = np.array([1.0, 3.0, 5.0, 4.0, 6.0, 9.0]), np.array([0.0, 1.0, 2.0, 1.0, 2.0, 3.0])
    >>> found = adjust_within_cells(y, x, np.array([0, 0, 0, 1, 1, 1]))
    >>> found.slope, round(found.se, 4), found.df, found.values.round(3).tolist()
    (2.25, 0.1863, 3.0, [4.375, 4.125, 3.875, 5.125, 4.875, 5.625])
    """
    rows = np.bincount(cell)
    there = rows > 0
    size = np.where(there, rows, 1)
    dx = covariate - (np.bincount(cell, covariate) / size)[cell]
    dy = y - (np.bincount(cell, y) / size)[cell]
    spread = float(dx @ dx)
    if spread <= 1e-20 * max(1.0, float(covariate @ covariate)):
        raise Undefined("the covariate does not vary within cells")
    df = float(len(y) - int(there.sum()) - 1)
    if df < 1.0:
        raise Undefined("too few texts within cells for a slope")
    slope = float(dx @ dy) / spread
    left = dy - slope * dx
    return Adjusted(
        values=y - slope * (covariate - covariate.mean()),
        slope=slope,
        se=math.sqrt(float(left @ left) / df / spread),
        df=df,
    )


def covariate_rows(
    values: Mapping[str, FloatArray],
    metrics: Sequence[str],
    labelled: LabelledRows,
    *,
    covariate: str = "length_words",
    margin: float = 0.2,
    alpha: float = 0.05,
) -> list[TestRow]:
    """Family `length_covariate`: the primary test on values adjusted within cells, Holm over metrics.

    Rows `omnibus` and `pairwise` are secondary; `slope` rows, diagnostic, give the slope on the covariate.

    Examples
    --------
    >>> from stats.metric_tests import label_rows
    >>> rng = np.random.default_rng(1)
    >>> prompt = [p for p in "123456" for _ in range(8)]
    >>> labelled = label_rows(("a", "b"), list("aaaabbbb" * 6), prompt, ["s"] * 48)
    >>> x = rng.normal(size=48)
    >>> rows = covariate_rows({"m": 2 * x + rng.normal(size=48), "length_words": x}, ("m",), labelled)
    >>> [(row.hypothesis, row.estimate and round(row.estimate, 2)) for row in rows]
    [('omnibus', None), ('slope', 2.21), ('pairwise', 0.37)]
    """
    family = "length_covariate"
    plan = FamilyPlan(
        family=family, primary=(), secondary=tuple(metrics), margin=margin, alpha=alpha, last_alpha=alpha
    )
    cell = np.unique(labelled.prompt * (labelled.stream.max() + 1) + labelled.stream, return_inverse=True)[1]
    tests, details = [], []
    for metric in metrics:
        there = ~np.isnan(values[metric]) & ~np.isnan(values[covariate])
        slope = TestRow(
            family=family,
            hypothesis="slope",
            metric=metric,
            contrast=covariate,
            method="least-squares slope within cells",
            role="diagnostic",
            alpha=alpha,
            n=int(there.sum()),
            reason="no text has both values",
        )
        adjusted = np.full(len(there), np.nan)
        if there.any():
            try:
                found = adjust_within_cells(values[metric][there], values[covariate][there], cell[there])
                adjusted[there] = found.values
                slope = _slope_row(slope, found, alpha)
            except Undefined as missing:
                slope = replace(slope, reason=str(missing))
        answer = answer_metric({metric: adjusted}, metric, labelled, plan)
        test = omnibus_row(answer, family, "secondary", plan)
        tests.append(test if slope.estimate is not None else replace(test, reason=slope.reason))
        pairs = contrast_rows(answer, labelled.names, family, "secondary", plan)
        details += [slope, *(row for row in pairs if row.hypothesis == "pairwise")]
    return [*correct_rows(tests).rows, *details]


def _slope_row(row: TestRow, found: Adjusted, alpha: float) -> TestRow:
    reach = -float(special.stdtrit(found.df, alpha / 2.0)) * found.se
    return replace(
        row,
        estimate=found.slope,
        low=found.slope - reach,
        high=found.slope + reach,
        statistic=found.slope / found.se if found.se > 0.0 else None,
        df1=1.0,
        df2=found.df,
        p=2.0 * float(special.stdtr(found.df, -abs(found.slope / found.se))) if found.se > 0.0 else None,
        reason=None,
    )
