"""All tests of one metric at one look, and the rows they become. `stats.seed_effect` combines metrics.

Metrics observed on the same rows share one `Layout`; a metric whose tests are undefined becomes a `Gap`,
whose rows carry the reason instead of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from stats.contrasts import Contrast, FTest, balanced_anova, omnibus, tukey_contrasts
from stats.equivalence import EquivalenceTest, tost
from stats.layout import Layout, Undefined, arrange_codes, within_cell_sd
from stats.mixed import METHOD_UNPOOLED, MixedFit, deciding_fit, fit_mixed
from stats.power import minimum_detectable_effect, two_sided_power
from stats.rows import FloatArray, IntArray, TestRow
from stats.studentized_range import studentized_range_isf

F_NAME = "F (Satterthwaite)"
TUKEY_NAME = "Tukey contrast (Satterthwaite)"
TOST_NAME = "two one-sided t tests, interval at 1 - 2 alpha"


@dataclass(frozen=True, kw_only=True)
class FamilyPlan:
    """A family at one look."""

    family: str
    primary: tuple[str, ...]
    secondary: tuple[str, ...]
    margin: float
    alpha: float
    """This look's level."""
    last_alpha: float
    """The last look's level, at which the question must be settled."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledRows:
    """Labels as codes, and the layouts already made: metrics observed on the same rows share one."""

    names: tuple[str, ...]
    source: IntArray
    prompt: IntArray
    stream: IntArray
    layouts: dict[bytes, Layout]


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricTests:
    """Everything asked about one metric."""

    metric: str
    n: int
    fit: MixedFit
    test: FTest
    contrasts: list[Contrast]
    equivalence: list[EquivalenceTest]
    checks: list[FTest]
    sd: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A metric whose tests are undefined."""

    metric: str
    n: int
    reason: str


def label_rows(
    names: tuple[str, ...], source: Sequence[str], prompt: Sequence[str], stream: Sequence[str]
) -> LabelledRows:
    """Code the labels once for all metrics. ValueError on unequal lengths or a source not in `names`.

    Examples
    --------
    A stream is one of its source: equal names in two sources are two streams.

    >>> rows = label_rows(("b", "a"), list("aabb"), list("1212"), ["s"] * 4)
    >>> rows.source.tolist(), rows.prompt.tolist(), rows.stream.tolist()
    ([1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1])
    """
    if not len(source) == len(prompt) == len(stream):
        raise ValueError(
            f"{len(source)} sources, {len(prompt)} prompts and {len(stream)} streams; give one of each a row"
        )
    place = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(source) - set(names))
    if unknown:
        raise ValueError(f"rows of {', '.join(unknown)}, but the design names {', '.join(names)}")
    pairs = [f"{a}\0{b}" for a, b in zip(source, stream, strict=True)]
    return LabelledRows(
        names=names,
        source=np.array([place[name] for name in source], dtype=np.int64),
        prompt=np.unique(np.asarray(prompt, dtype=np.str_), return_inverse=True)[1].astype(np.int64),
        stream=np.unique(np.asarray(pairs, dtype=np.str_), return_inverse=True)[1].astype(np.int64),
        layouts={},
    )


def answer_metric(
    values: Mapping[str, FloatArray], metric: str, rows: LabelledRows, plan: FamilyPlan
) -> MetricTests | Gap:
    """All tests of one metric; a `Gap` where they are undefined.

    Raises
    ------
    ValueError
        When the metric is missing from `values`, has the wrong shape or holds an infinite value.

    Examples
    --------
    >>> rows = label_rows(("a", "b"), list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> plan = FamilyPlan(
    ...     family="f", primary=("m",), secondary=(), margin=0.2, alpha=0.05, last_alpha=0.05
    ... )
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> answer = answer_metric({"m": y}, "m", rows, plan)
    >>> answer.n, round(answer.test.p, 4), round(answer.sd, 4)
    (16, 0.3189, 0.7071)
    >>> answer_metric({"m": np.full(16, 2.0)}, "m", rows, plan)
    Gap(metric='m', n=16, reason='no variation within cells')
    """
    if metric not in values:
        raise ValueError(f"no values for {metric}; given are {', '.join(sorted(values))}")
    y = np.asarray(values[metric], dtype=np.float64)
    if y.shape != rows.source.shape:
        raise ValueError(f"{metric} has shape {y.shape} for {len(rows.source)} rows; give one value a row")
    if np.isinf(y).any():
        raise ValueError(f"{metric} has infinite values; a text without a value is NaN")
    there = ~np.isnan(y)
    n = int(there.sum())
    if n == 0:
        return Gap(metric=metric, n=0, reason="no text has a value")
    try:
        layout = _layout(rows, there)
        return _tests(metric, y[there], layout, plan)
    except Undefined as missing:
        return Gap(metric=metric, n=n, reason=str(missing))


def _layout(rows: LabelledRows, there: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Layout:
    key = np.packbits(there).tobytes()
    if key not in rows.layouts:
        rows.layouts[key] = arrange_codes(
            rows.source[there], rows.prompt[there], rows.stream[there], rows.names
        )
    return rows.layouts[key]


def _tests(metric: str, y: FloatArray, layout: Layout, plan: FamilyPlan) -> MetricTests:
    fit = deciding_fit(y, layout)
    sd = _unit(y, layout, fit)
    contrasts = tukey_contrasts(fit, plan.alpha)
    anova = balanced_anova(y, layout)
    checks = [] if anova is None else [anova]
    if fit.method == METHOD_UNPOOLED:
        with suppress(Undefined):  # shown beside the deciding test, which does not need it
            checks.append(omnibus(fit_mixed(y, layout)))
    return MetricTests(
        metric=metric,
        n=layout.n,
        fit=fit,
        test=omnibus(fit),
        contrasts=contrasts,
        equivalence=[tost(c.estimate, c.se, c.df, plan.margin * sd, plan.alpha) for c in contrasts],
        checks=checks,
        sd=sd,
    )


def _unit(y: FloatArray, layout: Layout, fit: MixedFit) -> float:
    """Within-cell SD; the model's residual SD where no prompt x source x stream cell has two texts."""
    sd = within_cell_sd(y, layout)
    if sd is None:
        return math.sqrt(fit.residual)
    if sd**2 <= 1e-12 * fit.residual:  # streams differ, but every text of a cell has the same value
        raise Undefined("no variation within cells")
    return sd


def omnibus_row(answer: MetricTests | Gap, family: str, role: str, plan: FamilyPlan) -> TestRow:
    """The omnibus test of a metric as a row, not yet corrected for its family.

    Examples
    --------
    >>> plan = FamilyPlan(
    ...     family="f", primary=("m",), secondary=(), margin=0.2, alpha=0.05, last_alpha=0.05
    ... )
    >>> row = omnibus_row(Gap(metric="m", n=0, reason="no text has a value"), "f", "decides", plan)
    >>> row.hypothesis, row.p, row.reason
    ('omnibus', None, 'no text has a value')
    """
    empty = TestRow(
        family=family,
        hypothesis="omnibus",
        metric=answer.metric,
        method=F_NAME,
        role=role,
        alpha=plan.alpha,
        margin=plan.margin,
        n=answer.n,
        reason="undefined",
    )
    if isinstance(answer, Gap):
        return replace(empty, reason=answer.reason)
    return _with_f(empty, answer.test)


def _with_f(row: TestRow, test: FTest) -> TestRow:
    return replace(
        row,
        method=f"{test.method}, {F_NAME}",
        statistic=test.statistic,
        df1=test.df1,
        df2=test.df2,
        p=test.p,
        reason=None,
    )


def contrast_rows(
    answer: MetricTests | Gap, names: tuple[str, ...], family: str, role: str, plan: FamilyPlan
) -> list[TestRow]:
    """Pairwise rows, equivalence rows, then the checks on the omnibus test as diagnostic rows.

    Examples
    --------
    >>> rows = label_rows(("a", "b"), list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> plan = FamilyPlan(
    ...     family="f", primary=("m",), secondary=(), margin=0.2, alpha=0.05, last_alpha=0.05
    ... )
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> out = contrast_rows(answer_metric({"m": y}, "m", rows, plan), ("a", "b"), "f", "decides", plan)
    >>> [(row.hypothesis, row.contrast, row.role) for row in out]
    [('pairwise', 'a-b', 'decides'), ('tost', 'a-b', 'equivalence'), ('omnibus', '*', 'diagnostic')]
    """
    base = omnibus_row(answer, family, role, plan)
    if isinstance(answer, Gap):
        return [
            replace(base, hypothesis=hypothesis, contrast=f"{a}-{b}", method=method, role=as_role)
            for hypothesis, method, as_role in (
                ("pairwise", TUKEY_NAME, role),
                ("tost", TOST_NAME, "equivalence"),
            )
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        ]
    bare = replace(base, statistic=None, df1=None, df2=None, p=None, reason="undefined")
    pairs = [_pairwise_row(bare, c, answer, plan) for c in answer.contrasts]
    tosts = [
        _tost_row(bare, c, test, answer) for c, test in zip(answer.contrasts, answer.equivalence, strict=True)
    ]
    return [*pairs, *tosts, *(_with_f(replace(bare, role="diagnostic"), check) for check in answer.checks)]


def _pairwise_row(bare: TestRow, c: Contrast, answer: MetricTests, plan: FamilyPlan) -> TestRow:
    groups = len(answer.fit.means)
    q = studentized_range_isf(plan.alpha, groups, c.df)
    level = 2.0 * float(special.stdtr(c.df, -q / math.sqrt(2.0)))  # level of one t test with Tukey's bound
    se = c.se / answer.sd
    return replace(
        bare,
        hypothesis="pairwise",
        contrast=c.name,
        method=f"{answer.fit.method}, {TUKEY_NAME}",
        estimate=c.estimate,
        low=c.low_tukey,
        high=c.high_tukey,
        effect=c.estimate / answer.sd,
        statistic=c.t,
        df1=1.0,
        df2=c.df,
        p=c.p,
        p_adjusted=c.p_tukey,
        power=two_sided_power(plan.margin, se, c.df, level),
        mde=minimum_detectable_effect(se, c.df, level),
        reason=None,
    )


def _tost_row(bare: TestRow, c: Contrast, test: EquivalenceTest, answer: MetricTests) -> TestRow:
    return replace(
        bare,
        hypothesis="tost",
        contrast=c.name,
        method=TOST_NAME,
        role="equivalence",
        estimate=test.estimate,
        low=test.low,
        high=test.high,
        effect=test.estimate / answer.sd,
        statistic=min(test.t_low, -test.t_high),
        df1=1.0,
        df2=c.df,
        p=test.p,
        reason=None,
    )
