"""The earlier work's view: percentages of perplexity, their ratio between tiers, and a word for it.

Kept beside the corrected gap to show what the choice of metric does. 100 (PPL_q - PPL_0) / PPL_0 is convex in
the loss, so one bad language makes the mean, and a ratio of means explodes as its denominator goes to zero;
per-token perplexities of different tokenizers are not comparable either. The corrected gap in nats, the
difference of mean ln(PPL_q / PPL_0), needs the same numbers and has neither fault but the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stats.aligned_bootstrap import Interval, Resampled, ratio_interval
from stats.rows import FloatArray, TestRow

WORDS = ((50.0, "massive"), (10.0, "significant"), (2.0, "moderate"), (1.0, "mild"))
"""The earlier work's words for the ratio, each above its bound."""
NO_WORD = "none"
"""At a ratio of 1 or less: low-resource languages lose no larger share. The earlier work had no word."""


@dataclass(frozen=True, kw_only=True)
class LegacyDisparity:
    """Legacy columns of one model, and the gap in nats beside them."""

    degradation_percent: Mapping[str, float]
    """Language -> 100 (PPL_q - PPL_0) / PPL_0."""
    mean_low_percent: float
    mean_high_percent: float
    ratio: float | None
    """mean_low_percent / mean_high_percent; None where the latter or its interval is not above zero."""
    word: str | None
    """One of WORDS or NO_WORD; None where the ratio is undefined."""
    reason: str | None
    """Why the ratio is undefined."""
    variance_before: float
    """Variance over languages (n - 1) of PPL_0."""
    variance_after: float
    """The same of PPL_q."""
    change_nats: Mapping[str, float]
    """Language -> ln(PPL_q / PPL_0)."""
    gap_nats: float
    """Mean of change_nats over low- minus mean over high-resource languages."""
    n_low: int
    n_high: int


def word_for(ratio: float) -> str:
    """The earlier work's word for a ratio of mean degradations.

    >>> [word_for(ratio) for ratio in (52.47, 50.0, 2.5, 1.5, 1.0, -3.0)]
    ['massive', 'significant', 'moderate', 'mild', 'none', 'none']
    """
    if not math.isfinite(ratio):
        raise ValueError(f"ratio {ratio}; an undefined ratio has no word")
    return next((word for bound, word in WORDS if ratio > bound), NO_WORD)


def legacy_disparity(
    perplexities: Mapping[str, tuple[float, float]],
    is_low: Mapping[str, bool],
    *,
    high_touches_zero: bool = False,
) -> LegacyDisparity:
    """Degradation percentages, LR/HR ratio with its word, variances; and the corrected gap in nats.

    Parameters
    ----------
    perplexities : mapping of str to (float, float)
        Language -> perplexity before, after quantising.
    is_low : mapping of str to bool
        Every one of these languages -> True for low-resource.
    high_touches_zero : bool
        True where the interval of the high-resource mean (`legacy_ratio_interval`) reaches zero.

    Raises
    ------
    ValueError
        A perplexity that is NaN, infinite or not above zero, a language without a tier, a tier without a
        language.

    Examples
    --------
    A ratio of 20 from one language, where the change in nats differs by half a nat:

    >>> given = {"en": (20.0, 21.0), "de": (25.0, 25.5), "sw": (30.0, 60.0), "yo": (40.0, 56.0)}
    >>> found = legacy_disparity(given, {"en": False, "de": False, "sw": True, "yo": True})
    >>> found.ratio, found.word, round(found.gap_nats, 3)
    (20.0, 'significant', 0.481)
    >>> legacy_disparity({"en": (20.0, 19.0), "sw": (30.0, 60.0)}, {"en": False, "sw": True}).reason
    'undefined: the high-resource languages degrade by -5 % on average, not above zero'
    """
    _check(perplexities, is_low)
    codes = tuple(perplexities)
    before = np.array([perplexities[code][0] for code in codes], dtype=np.float64)
    after = np.array([perplexities[code][1] for code in codes], dtype=np.float64)
    low = np.array([is_low[code] for code in codes])
    percent, nats = 100.0 * (after - before) / before, np.log(after) - np.log(before)
    mean_low, mean_high = float(percent[low].mean()), float(percent[~low].mean())
    reason = None
    if mean_high <= 0.0:
        reason = (
            f"undefined: the high-resource languages degrade by {mean_high:.3g} % on average, not above zero"
        )
    elif high_touches_zero:
        reason = f"undefined: the interval of the high-resource mean, {mean_high:.3g} %, touches zero"
    ratio = None if reason else mean_low / mean_high
    if ratio is not None and not math.isfinite(ratio):
        ratio, reason = None, f"undefined: {mean_low:.3g} % over {mean_high:.3g} % is too large a number"
    return LegacyDisparity(
        degradation_percent=dict(zip(codes, percent.tolist(), strict=True)),
        mean_low_percent=mean_low,
        mean_high_percent=mean_high,
        ratio=ratio,
        word=None if ratio is None else word_for(ratio),
        reason=reason,
        variance_before=float(np.var(before, ddof=1)),
        variance_after=float(np.var(after, ddof=1)),
        change_nats=dict(zip(codes, nats.tolist(), strict=True)),
        gap_nats=float(nats[low].mean() - nats[~low].mean()),
        n_low=int(low.sum()),
        n_high=int((~low).sum()),
    )


def legacy_rows(found: LegacyDisparity, contrast: str, *, family: str = "legacy_disparity") -> list[TestRow]:
    """The legacy columns as rows of role `legacy`; the word of the ratio is part of its method.

    `degradation_percent` and `change_nats` (contrast `CONTRAST:code`), `degradation_ratio`,
    `perplexity_variance_before`, `perplexity_variance_after`, `gap_nats`, and
    `mean_degradation_percent` of the tiers (contrast `CONTRAST:low`, `CONTRAST:high`).

    Examples
    --------
    >>> given = {"en": (20.0, 21.0), "sw": (30.0, 60.0)}
    >>> rows = legacy_rows(legacy_disparity(given, {"en": False, "sw": True}), "int4")
    >>> [(row.hypothesis, round(row.estimate, 3)) for row in rows[4:]]  # doctest: +NORMALIZE_WHITESPACE
    [('degradation_ratio', 20.0), ('perplexity_variance_before', 50.0), ('perplexity_variance_after', 760.5),
     ('gap_nats', 0.644), ('mean_degradation_percent', 100.0), ('mean_degradation_percent', 5.0)]
    >>> rows[4].method
    'ratio of mean degradation %, low over high: significant'
    """
    bare = TestRow(
        family=family,
        hypothesis="degradation_ratio",
        metric="perplexity",
        contrast=contrast,
        method="ratio of mean degradation %, low over high",
        role="legacy",
        n=found.n_low + found.n_high,
        reason=found.reason or "undefined",
    )
    ratio = bare
    if found.ratio is not None:
        ratio = replace(bare, estimate=found.ratio, reason=None, method=f"{bare.method}: {found.word}")

    def row(hypothesis: str, method: str, estimate: float, code: str | None = None) -> TestRow:
        name = contrast if code is None else f"{contrast}:{code}"
        return replace(
            bare, hypothesis=hypothesis, contrast=name, method=method, estimate=estimate, reason=None
        )

    variance, nats = "variance of perplexity over languages", "ln(PPL_q / PPL_0)"
    mean = "mean_degradation_percent"
    return [
        *(
            row("degradation_percent", "100 (PPL_q - PPL_0) / PPL_0", x, code)
            for code, x in found.degradation_percent.items()
        ),
        *(row("change_nats", nats, x, code) for code, x in found.change_nats.items()),
        ratio,
        row("perplexity_variance_before", variance, found.variance_before),
        row("perplexity_variance_after", variance, found.variance_after),
        row("gap_nats", f"mean {nats} of low minus high", found.gap_nats),
        replace(row(mean, "mean over the tier", found.mean_low_percent, "low"), n=found.n_low),
        replace(row(mean, "mean over the tier", found.mean_high_percent, "high"), n=found.n_high),
    ]


def legacy_ratio_interval(
    bits_0: FloatArray,
    bits_q: FloatArray,
    tokens: FloatArray,
    is_low: Sequence[bool],
    drawn: Resampled,
    *,
    alpha: float = 0.05,
) -> Interval:
    """The legacy ratio with a bootstrap interval over documents, from total bits and tokens a sentence.

    PPL = 2^(total bits / total tokens) of each language in each resample.

    Parameters
    ----------
    bits_0, bits_q, tokens : (L, S) arrays
    is_low : (L,) bool

    Examples
    --------
    >>> from stats.aligned_bootstrap import resample_documents
    >>> drawn = resample_documents(range(6), rng=np.random.default_rng(0))
    >>> bits = np.array([[30.0, 40.0, 50.0, 30.0, 40.0, 50.0]] * 2)
    >>> cost = np.array([[2.0], [1.0]])
    >>> found = legacy_ratio_interval(bits, bits + cost, np.full((2, 6), 10), [True, False], drawn)
    >>> round(found.estimate, 3)  # (2^0.2 - 1) / (2^0.1 - 1)
    2.072
    """
    low = np.asarray(is_low, dtype=bool)
    before, after, count = (drawn.totals(array) for array in (bits_0, bits_q, tokens))
    if not (count > 0.0).all():
        raise ValueError("a language without tokens in some resample; its perplexity is not defined")
    with np.errstate(over="ignore"):
        percent = np.minimum(100.0 * np.expm1(math.log(2.0) * (after - before) / count), 1e300)
    return ratio_interval(percent[:, low].mean(axis=1), percent[:, ~low].mean(axis=1), drawn, alpha)


def _check(perplexities: Mapping[str, tuple[float, float]], is_low: Mapping[str, bool]) -> None:
    unknown = sorted(code for code in perplexities if code not in is_low)
    if unknown:
        raise ValueError(f"languages {unknown} have no tier; known are {sorted(is_low)}")
    tiers = [is_low[code] for code in perplexities]
    if not any(tiers) or all(tiers):
        raise ValueError(f"{sum(tiers)} low of {len(tiers)} languages; a ratio needs both tiers")
    for code, pair in perplexities.items():
        for side, value in zip(("baseline", "quantised"), pair, strict=True):
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"perplexity of {code}, {side}, is {value}; it must be finite and above 0")
