"""Does keeping some weights help, for whom, and how many should be kept?

Each question compares two variants on the same aligned sentences: a control (no preservation, or a random
mask of equal bits) and the treated one. d_l = mean over sentences of control minus treated bits in language
l: above zero where the treated model is better. Over languages the unit is the language and its signs are
flipped; for blocks, where the languages are fixed, the unit is the document. Holm over the questions given
together, e.g. budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stats.aligned_bootstrap import Resampled, cluster_se, intervals
from stats.disparity import PRIMARY, Aligned
from stats.language_power import sized
from stats.language_tests import Arrangements, label_permutations, shift_test, sign_flips
from stats.language_verdicts import concluded, shift_rows
from stats.rows import FloatArray, TestRow


def analyse_preservation(
    aligned: Aligned,
    pairs: Mapping[str, tuple[FloatArray, FloatArray]],
    *,
    margin: float,
    drawn: Resampled,
    alpha: float = 0.05,
    unit: Literal["language", "document"] = "language",
    unusable: Mapping[str, Mapping[str, str]] | None = None,
    family: str = "preservation",
    rng: np.random.Generator | None = None,
) -> list[TestRow]:
    """All rows on what the treated variant of each pair saves against its control.

    Parameters
    ----------
    aligned : Aligned
        Its baseline bits are used only to find losses that are no numbers.
    pairs : mapping of str to two (L, S) float arrays
        Question (`magnitude 5 %`) -> bits of the control, bits of the treated variant; one family.
    margin : float
        Smallest saving of interest, bits per aligned sentence; also for the effect on the gap.
    unit : "language" or "document"
        What `benefit` flips the signs of. "document" speaks of these languages only.
    unusable : mapping, optional
        Question -> language -> reason; such a question is INVALID.
    rng : numpy Generator, optional
        Needed beyond 17 languages or documents.

    Returns
    -------
    list of TestRow
        Of each question Q, in bits per sentence: `benefit` (contrast `Q`, role `decides`, verdict) and
        `benefit_tost`; `benefit_fixed_languages` with the bootstrap interval; `benefit_of_language` (contrast
        `Q:code`); `benefit_on_gap` (low minus high mean of d_l; label permutation, secondary).

    Examples
    --------
    >>> from stats.aligned_bootstrap import resample_documents
    >>> rng = np.random.default_rng(0)
    >>> documents = tuple(str(i // 4) for i in range(80))
    >>> before = rng.gamma(9.0, 10.0, size=(10, 80))
    >>> aligned = Aligned(languages=tuple("abcdefghij"), is_low=(True,) * 5 + (False,) * 5,
    ...                   documents=documents, bits=before)
    >>> plain = before + 4.0 + rng.normal(size=(10, 80))
    >>> kept = before + 3.0 + rng.normal(size=(10, 80))
    >>> rows = analyse_preservation(aligned, {"5 %": (plain, kept), "none": (plain, plain)}, margin=0.3,
    ...                             drawn=resample_documents(documents, rng=rng))
    >>> [(r.contrast, round(r.estimate, 1), round(r.p, 4), r.verdict) for r in rows if r.role == "decides"]
    [('5 %', 1.0, 0.002, 'DETECTED'), ('none', 0.0, 1.0, 'EQUIVALENT')]
    """
    if unit not in ("language", "document"):
        raise ValueError(f"unit {unit!r}; allowed: language, document")
    labels = label_permutations(aligned.is_low, rng=rng)
    size = np.bincount(drawn.code).astype(np.float64)
    by_language = unit == "language"
    flips = sign_flips(
        len(aligned.languages) if by_language else drawn.documents,
        sizes=None if by_language else size,
        rng=rng,
    )
    rows: list[TestRow] = []
    for name, (control, treated) in pairs.items():
        bare = TestRow(
            family=family,
            hypothesis="benefit",
            metric=PRIMARY,
            contrast=name,
            method=flips.method,
            role="decides",
            alpha=alpha,
            margin=margin,
            n=len(aligned.languages) if by_language else drawn.documents,
            reason="undefined",
        )
        broken = _unusable(aligned, control, treated) | dict((unusable or {}).get(name, {}))
        if broken:
            rows += _invalid(bare, broken)
        else:
            rows += _pair_rows(aligned, control - treated, bare, drawn, flips, labels, by_language)
    return concluded(rows, alpha=alpha)


def _unusable(aligned: Aligned, control: FloatArray, treated: FloatArray) -> dict[str, str]:
    for side in (control, treated):
        if np.shape(side) != aligned.bits.shape:
            raise ValueError(f"{np.shape(side)} losses for a baseline of {aligned.bits.shape}")
    return aligned.unusable(treated) | aligned.unusable(control)


def _invalid(bare: TestRow, broken: Mapping[str, str]) -> list[TestRow]:
    reason = "; ".join(
        why if why.startswith(f"{code}: ") else f"{code}: {why}" for code, why in broken.items()
    )
    tost = replace(bare, hypothesis="benefit_tost", role="equivalence", reason=reason)
    others = ("benefit_fixed_languages", "benefit_on_gap")
    secondary = [replace(bare, hypothesis=h, role="secondary", reason=reason) for h in others]
    return [replace(bare, reason=reason), tost, *secondary]


def _pair_rows(
    aligned: Aligned,
    saved: FloatArray,
    bare: TestRow,
    drawn: Resampled,
    flips: Arrangements,
    labels: Arrangements,
    by_language: bool,
) -> list[TestRow]:
    alpha, margin = bare.alpha or 0.05, bare.margin
    means = drawn.means(saved)  # (1 + R, L)
    values = means[0] if by_language else drawn.by_document(saved.mean(axis=0))
    rows = shift_rows(shift_test(values, flips), bare, margin=margin, alpha=alpha)
    if by_language:
        rows[0] = sized(rows[0], means[0], None)
    secondary = replace(bare, role="secondary", margin=None)
    on_gap = replace(secondary, hypothesis="benefit_on_gap", n=len(aligned.languages))
    rows += shift_rows(shift_test(means[0], labels), on_gap, margin=None, alpha=alpha)
    columns = np.column_stack([means.mean(axis=1), means])
    names = [bare.contrast, *(f"{bare.contrast}:{code}" for code in aligned.languages)]
    for place, (name, found) in enumerate(zip(names, intervals(columns, drawn, alpha), strict=True)):
        rows.append(
            replace(
                secondary,
                hypothesis="benefit_of_language" if place else "benefit_fixed_languages",
                contrast=name,
                estimate=found.estimate,
                low=found.low,
                high=found.high,
                n=found.n,
                method=found.method,
                reason=found.reason,
            )
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class BudgetChoice:
    """A budget chosen by the one-standard-error rule, on the split that is not reported."""

    percent: float
    """Chosen share of weights kept."""
    best: float
    """Budget with the smallest mean change."""
    means: tuple[float, ...]
    """Mean change of each budget over languages and sentences, bits per sentence, in the order given."""
    se: float
    """Standard error over documents of the best budget's mean."""
    n: int
    """Documents."""
    method: str = "one-standard-error rule, error over documents"


def choose_budget(percents: Sequence[float], changes: Sequence[FloatArray], drawn: Resampled) -> BudgetChoice:
    """Smallest budget whose mean change is within one standard error of the best budget's.

    Choose on one split and report on another: the best of several is better than itself by luck.

    Parameters
    ----------
    percents : sequence of float
        Budgets in any order, all different.
    changes : sequence of (L, S) float arrays
        Bits of the variant minus bits of the baseline, one array a budget.
    drawn : Resampled
        Of the documents of this split.

    Raises
    ------
    ValueError
        Unequal numbers, equal budgets, values that are not finite, one document.

    References
    ----------
    Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees, 3.4.3; Hastie, Tibshirani &
    Friedman (2009), The Elements of Statistical Learning, 7.10.

    Examples
    --------
    >>> from stats.aligned_bootstrap import resample_documents
    >>> drawn = resample_documents(range(6), rng=np.random.default_rng(0))
    >>> noise = np.array([[0.5, -0.5, 0.3, -0.3, 0.1, -0.1]])
    >>> chosen = choose_budget([5.0, 10.0, 20.0], [2.0 + noise, 1.1 + noise, 1.0 + noise], drawn)
    >>> chosen.percent, chosen.best, round(chosen.se, 3)
    (10.0, 20.0, 0.153)
    """
    if len(percents) != len(changes) or len(set(percents)) != len(percents) or not percents:
        raise ValueError(
            f"budgets {list(percents)} with {len(changes)} changes; pass one array a different budget"
        )
    if drawn.documents < 2:
        raise ValueError("1 document; a standard error needs two or more")
    stacked = np.stack([np.asarray(change, dtype=np.float64).mean(axis=0) for change in changes])
    if not np.isfinite(stacked).all():
        bad = [p for p, row in zip(percents, stacked, strict=True) if not np.isfinite(row).all()]
        raise ValueError(f"budgets {bad} hold losses that are not finite; leave them out, they are INVALID")
    means = drawn.means(stacked)
    best = min(range(len(percents)), key=lambda i: (means[0, i], percents[i]))
    se = float(cluster_se(stacked[best], drawn))
    within = [p for p, mean in zip(percents, means[0], strict=True) if mean <= means[0, best] + se]
    return BudgetChoice(
        percent=min(within),
        best=percents[best],
        means=tuple(float(mean) for mean in means[0]),
        se=se,
        n=drawn.documents,
    )
