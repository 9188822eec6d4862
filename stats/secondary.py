"""What is asked beside the primary question, each in a family of its own; nothing here decides.

Does the source matter in some domains only, beyond the text's length, with the reasoning kept, in one stream
of seeds, in conversations otherwise than in single answers; how much do the sources' means scatter; which
texts are missing in which arm; and what could the seeds' distribution do at most? `stats.interactions` has
the first two. A question that the rows cannot answer keeps a row with the reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from stats.across_models import Rung, model_contrast_rows
from stats.diversity import MIN_WORDS, MTLD_THRESHOLD, RANGES
from stats.interactions import covariate_rows, domain_rows
from stats.metric_tests import FamilyPlan, LabelledRows, answer_metric, contrast_rows, label_rows, omnibus_row
from stats.multiplicity import correct_rows
from stats.proportions import equal_shares
from stats.rows import FloatArray, TestRow
from stats.seed_distribution import data_processing_rows
from stats.seed_effect import Design, analyse_seed_effect


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Columns of the texts that are not excluded, one entry a text."""

    values: Mapping[str, FloatArray]
    """Metric -> values, NaN where the text has none; `length_words` among them."""
    source: Sequence[str]
    prompt: Sequence[str]
    """Of a conversation: its id."""
    stream: Sequence[str]
    domain: Sequence[str]
    kept: Mapping[str, FloatArray] | None = None
    """The same metrics with the reasoning left in; None where no text has any."""


def analyse_secondary(
    single: Texts, design: Design, *, multi: Texts | None = None, alpha: float = 0.05
) -> list[TestRow]:
    """Families `domain_interaction`, `length_covariate`, `cot_sensitivity`, `per_stream`, `turns` and
    `cross_source_cv` over the primary metrics, each with Holm.

    Parameters
    ----------
    single
        Single answers.
    design
        Primary metrics, margin and the names of the sources.
    multi
        One entry a conversation, the mean of its turns (`stats.conversations`); None when there were none.
    alpha
        Level of each family.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> labels = [(s, p) for p in "12345678" for s in ("prng", "trng") for _ in range(5)]
    >>> texts = Texts(
    ...     values={"mtld": rng.normal(size=80), "length_words": rng.normal(50, 9, size=80)},
    ...     source=[s for s, _ in labels], prompt=[p for _, p in labels], stream=["42"] * 80,
    ...     domain=["code" if p < "5" else "naming" for _, p in labels])
    >>> rows = analyse_secondary(texts, Design(primary=("mtld",), looks=(5,), look=5))
    >>> list(dict.fromkeys(row.family for row in rows))
    ['domain_interaction', 'length_covariate', 'cot_sensitivity', 'per_stream', 'turns', 'cross_source_cv']
    """
    names = design.sources or tuple(sorted(set(single.source)))
    labelled = label_rows(names, single.source, single.prompt, single.stream)
    metrics = design.primary
    return [
        *domain_rows(single.values, metrics, labelled, single.domain, alpha=alpha),
        *covariate_rows(single.values, metrics, labelled, margin=design.margin_sd, alpha=alpha),
        *reasoning_rows(single, labelled, design, alpha=alpha),
        *stream_rows(single, names, design, alpha=alpha),
        *turn_rows(single, multi, replace(design, sources=names), alpha=alpha),
        *scatter_rows(single.values, metrics, labelled),
    ]


def _tested(
    values: Mapping[str, FloatArray],
    labelled: LabelledRows,
    design: Design,
    *,
    family: str,
    hypothesis: str,
    alpha: float,
) -> tuple[list[TestRow], list[TestRow]]:
    """Omnibus rows, not yet corrected and named by `hypothesis`, and the pairwise rows; all secondary."""
    plan = FamilyPlan(
        family=family,
        primary=(),
        secondary=design.primary,
        margin=design.margin_sd,
        alpha=alpha,
        last_alpha=alpha,
    )
    tests, pairs = [], []
    for metric in design.primary:
        answer = answer_metric(values, metric, labelled, plan)
        tests.append(replace(omnibus_row(answer, family, "secondary", plan), hypothesis=hypothesis))
        found = contrast_rows(answer, labelled.names, family, "secondary", plan)
        pairs += [
            replace(row, hypothesis=f"{hypothesis}_pairwise") for row in found if row.hypothesis == "pairwise"
        ]
    return tests, pairs


def reasoning_rows(
    texts: Texts, labelled: LabelledRows, design: Design, *, alpha: float = 0.05
) -> list[TestRow]:
    """Family `cot_sensitivity`: sources compared on texts with their reasoning, and on what it adds.

    `reasoning_kept` is the primary test on metrics of the whole text; `kept_minus_stripped` that test on the
    difference of the two metrics of a text: whether leaving the reasoning in changes what the sources do.
    """
    if texts.kept is None:
        return [_without("cot_sensitivity", "reasoning_kept", "no text holds reasoning")]
    kept = {name: np.asarray(texts.kept[name], dtype=np.float64) for name in design.primary}
    added = {name: kept[name] - texts.values[name] for name in design.primary}
    tests, pairs = _tested(
        kept, labelled, design, family="cot_sensitivity", hypothesis="reasoning_kept", alpha=alpha
    )
    more, others = _tested(
        added, labelled, design, family="cot_sensitivity", hypothesis="kept_minus_stripped", alpha=alpha
    )
    return [*correct_rows([*tests, *more]).rows, *pairs, *others]


def _without(family: str, hypothesis: str, reason: str) -> TestRow:
    return TestRow(family=family, hypothesis=hypothesis, method="not tested", role="secondary", reason=reason)


def stream_rows(
    texts: Texts, names: tuple[str, ...], design: Design, *, alpha: float = 0.05
) -> list[TestRow]:
    """Family `per_stream`: the sources compared within each stream, Holm over streams and metrics.

    A stream's label joins one replicate of each source; for a live source it is a label and no more.
    """
    found = sorted(set(texts.stream))
    if len(found) < 2:
        return [_without("per_stream", "stream", f"{len(found)} stream; needs two")]
    tests: list[TestRow] = []
    details: list[TestRow] = []
    stream = np.asarray(texts.stream, dtype=np.str_)
    for name in found:
        there = [int(i) for i in np.flatnonzero(stream == name)]
        labelled = label_rows(
            names, [texts.source[i] for i in there], [texts.prompt[i] for i in there], ["one"] * len(there)
        )
        values = {metric: np.asarray(texts.values[metric])[there] for metric in design.primary}
        rows, pairs = _tested(values, labelled, design, family="per_stream", hypothesis="stream", alpha=alpha)
        tests += [replace(row, contrast=name) for row in rows]
        details += [replace(row, contrast=f"{name}: {row.contrast}") for row in pairs]
    return [*correct_rows(tests).rows, *details]


def turn_rows(single: Texts, multi: Texts | None, design: Design, *, alpha: float = 0.05) -> list[TestRow]:
    """Family `turns`: do the sources differ in conversations otherwise than in single answers? Holm.

    Welch's t on the effect of each in its own within-cell SD, a row a metric and pair of sources. A
    conversation is one unit, and `prompt` its id.
    """
    if multi is None:
        return [_without("turns", "single_minus_multi", "no conversations")]
    plain = replace(design, secondary=(), alpha=alpha, looks=(1,), look=1)
    rungs = []
    for name, texts in (("single", single), ("multi", multi)):
        values = {metric: texts.values[metric] for metric in design.primary}
        rows = analyse_seed_effect(
            values, source=texts.source, prompt=texts.prompt, stream=texts.stream, design=plain
        )
        rungs.append(Rung(model=name, parameters=1, rows=rows))
    contrasts = [(m, f"{a}-{b}") for m in design.primary for a, b in combinations(design.sources, 2)]
    compared = model_contrast_rows(rungs, ("single", "multi"), contrasts, alpha=alpha)
    return [replace(row, family="turns", hypothesis="single_minus_multi") for row in compared]


def scatter_rows(
    values: Mapping[str, FloatArray], metrics: Sequence[str], labelled: LabelledRows
) -> list[TestRow]:
    """Family `cross_source_cv`: SD of the sources' means over their mean, and what noise alone makes of it.

    Means are over prompts, of cell means. `expected_from_noise` is the root of the mean squared standard
    error of a source's mean, from the scatter within cells, over the same mean: without any effect the two
    are alike. Both are shares of the metric's mean, undefined where that is not above zero; no test, for the
    primary one asks the same.

    Examples
    --------
    >>> labelled = label_rows(("a", "b"), list("aabb" * 2), list("11112222"), ["s"] * 8)
    >>> y = np.array([9.0, 11.0, 10.0, 12.0, 9.0, 11.0, 10.0, 12.0])
    >>> [round(row.estimate, 4) for row in scatter_rows({"m": y}, ("m",), labelled)]
    [0.0673, 0.0673]
    """
    rows = []
    for metric in metrics:
        found = _scatter(values[metric], labelled)
        for hypothesis, place in (("observed", 0), ("expected_from_noise", 1)):
            row = _without("cross_source_cv", hypothesis, found if isinstance(found, str) else "")
            row = replace(row, metric=metric, method="coefficient of variation of source means")
            if not isinstance(found, str):
                n = int((~np.isnan(values[metric])).sum())
                row = replace(row, estimate=found[place], n=n, reason=None)
            rows.append(row)
    return rows


def _scatter(y: FloatArray, labelled: LabelledRows) -> tuple[float, float] | str:
    there = ~np.isnan(y)
    S, P = len(labelled.names), int(labelled.prompt.max()) + 1
    cell = (labelled.prompt * S + labelled.source)[there]
    rows = np.bincount(cell, minlength=P * S)
    used = (rows.reshape(P, S) > 0).all(axis=1)
    if not used.any():
        return "no prompt has a text of every source"
    means = np.bincount(cell, y[there], minlength=P * S) / np.maximum(rows, 1)
    inside = y[there] - means[cell]
    df = int(there.sum()) - int((rows > 0).sum())
    if df < 1:
        return "no cell has two texts"
    variance = float(inside @ inside) / df
    of_source = means.reshape(P, S)[used].mean(axis=0)
    overall = float(of_source.mean())
    if overall <= 0.0:
        return f"the mean is {overall:.3g}; a coefficient of variation needs one above zero"
    noise = variance * float(np.mean(1.0 / rows.reshape(P, S)[used])) / int(used.sum())
    return float(of_source.std(ddof=1)) / overall, math.sqrt(noise) / overall


def missingness_rows(
    arm: Sequence[str], reason: Sequence[str | None], *, rng: np.random.Generator, alpha: float = 0.05
) -> list[TestRow]:
    """Family `missingness_by_arm`: does each reason for a missing text depend on the arm? Holm over reasons.

    Pearson's chi-square where every expected count reaches 5, random tables with the same margins elsewhere
    (`stats.proportions.equal_shares`; with two arms that is Fisher's test, ordered by the statistic).

    Parameters
    ----------
    arm
        Of every sample, missing ones included.
    reason
        Why it is missing, in words that equal causes share; None where it is not.

    Examples
    --------
    >>> arm = ["A"] * 100 + ["B"] * 100
    >>> reason = ["timeout"] * 20 + [None] * 80 + ["timeout"] * 2 + [None] * 98
    >>> (row,) = missingness_rows(arm, reason, rng=np.random.default_rng(0))
    >>> row.metric, round(row.statistic, 3), row.p < 0.001
    ('timeout', 16.547, True)
    """
    if len(arm) != len(reason):
        raise ValueError(f"{len(arm)} arms and {len(reason)} reasons; give one of each a sample")
    sizes = Counter(arm)
    found = sorted({why for why in reason if why is not None})
    if not found:
        return [replace(_without("missingness_by_arm", "depends_on_arm", "no text is missing"), n=len(arm))]
    rows = []
    for why in found:
        counts = Counter(name for name, text in zip(arm, reason, strict=True) if text == why)
        row = TestRow(
            family="missingness_by_arm",
            hypothesis="depends_on_arm",
            metric=why,
            method="chi-square",
            role="secondary",
            estimate=sum(counts.values()) / len(arm),
            alpha=alpha,
            n=len(arm),
        )
        try:
            test = equal_shares([counts[name] for name in sizes], list(sizes.values()), rng=rng)
        except ValueError as error:
            rows.append(replace(row, reason=str(error)))
            continue
        rows.append(replace(row, method=test.method, statistic=test.statistic, df1=test.df, p=test.p))
    return correct_rows(rows).rows


def metric_ranges(most_words: int) -> dict[str, float]:
    """Largest minus smallest value a metric can take on texts of `MIN_WORDS` to `most_words` words.

    Shares have range 1. `shannon_word` is largest where all N words differ: log2 N + (N - 1) / (2 N ln 2).
    `mtld`, read either way, is at most what a last word that alone repeats gives: (1 / N) / .28 of a factor,
    so .28 N^2.
    `shannon_char` has no such limit, for an alphabet has none.

    Examples
    --------
    >>> {name: round(size, 2) for name, size in metric_ranges(60).items()}["shannon_word"]
    6.62
    """
    if most_words < MIN_WORDS:
        raise ValueError(f"{most_words} words at most; texts under {MIN_WORDS} words are excluded")
    N = float(most_words)
    return {
        **RANGES,
        "length_words": N - MIN_WORDS,
        "shannon_word": math.log2(N) + (N - 1.0) / (2.0 * N * math.log(2.0)),
        "mtld": (1.0 - MTLD_THRESHOLD) * N * N,
    }


def bound_rows(
    kinds: Mapping[str, tuple[str, float | None]], most_words: int, rows: Sequence[TestRow] = ()
) -> list[TestRow]:
    """Family `data_processing_bound`, beside each seed-arm result: range times total variation.

    Parameters
    ----------
    kinds
        Source -> (kind, dose), as `data_processing_rows`.
    most_words
        Words a text has at most; tokens generated is a safe number.
    rows
        `pairwise` rows of the seed arms: their interval stands in `low` and `high` beside the bound. An
        interval outside [-bound, bound] speaks of chance or of sources not as declared; `reason` says so.

    Examples
    --------
    >>> kinds = {"PRNG": ("prng", None), "BIASED": ("biased_bits", 0.05)}
    >>> row = bound_rows(kinds, 60)[0]
    >>> row.metric, round(row.estimate, 4)
    ('distinct_2', 0.2236)
    """
    seen = {(row.metric, row.contrast): row for row in rows if row.hypothesis == "pairwise"}
    turns = {f"{a}-{b}": f"{b}-{a}" for a, b in combinations(kinds, 2)}
    out = []
    for row in data_processing_rows(kinds, metric_ranges(most_words)):
        pair = seen.get((row.metric, row.contrast))
        turned = seen.get((row.metric, turns[row.contrast]))
        low = pair.low if pair else -turned.high if turned and turned.high is not None else None
        high = pair.high if pair else -turned.low if turned and turned.low is not None else None
        if row.estimate is not None and low is not None and high is not None:
            outside = low > row.estimate or high < -row.estimate
            why = (
                "the interval lies outside the bound: chance, or sources that are not what they are declared"
            )
            row = replace(row, low=low, high=high, reason=why if outside else None)
        out.append(row)
    return out
