"""The declared contrasts of the rank study as rows: at most six, corrected together, each with its verdict.

Five ask for a difference (two-sided sign flips decide). The probe spends more parameters, so it is asked
only whether placement loses by no more than its margin: one-sided sign flips against -margin, DETECTED where
that is shown. The published criteria stand beside it in `stats.legacy_placement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stats.language_verdicts import concluded
from stats.paired_seeds import mcnemar
from stats.rank_placement import PlacementEffect, checked, placement_effect
from stats.rows import FloatArray, TestRow

MOST_CONTRASTS = 6
"""Sign flips of eight seeds reach .0078; times six that is .047, times seven it could not reject at .05."""
DIFFERENCE, NON_INFERIORITY = "difference", "non_inferiority"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One declared question: the treatment against a control arm."""

    control: str
    question: Literal["difference", "non_inferiority"] = "difference"
    margin: float = 0.01
    """Smallest effect of interest, or the loss that non-inferiority allows, in the units of the outcome."""


DECLARED = (
    Contrast(control="shuffled_within"),
    Contrast(control="shuffled_full"),
    Contrast(control="uniform_equal"),
    Contrast(control="inverse"),
    Contrast(control="cross_seed"),
    Contrast(control="probe", question="non_inferiority", margin=0.025),
)
"""The first decides the scenario."""


def analyse_placement(
    arms: Mapping[str, FloatArray],
    *,
    rng: np.random.Generator,
    treatment: str = "per_layer",
    declared: Sequence[Contrast] = DECLARED,
    metric: str = "accuracy",
    alpha: float = 0.05,
    unusable: Mapping[str, str] | None = None,
    resamples: int = 2_000,
    same_items: bool = True,
    family: str = "mechanism",
) -> list[TestRow]:
    """All rows of a family of contrasts with one treatment.

    Parameters
    ----------
    arms : mapping of str to (S, I) or (S, K, I) float array
        Arm -> outcome of each seed, (shuffle) and item; seeds and items in the same order in every arm.
    declared : sequence of Contrast
        At most six; Holm over all of them.
    unusable : mapping, optional
        Arm -> why it says nothing (degenerate, undertrained). Its contrast is INVALID and keeps its place in
        the family; an unusable treatment makes all of them so.
    resamples : int
        Of the bootstrap; 0 leaves its row without an interval.

    Returns
    -------
    list of TestRow
        Of each contrast `T-C`, in the units of the outcome: `difference` or `non_inferiority` (role
        `decides`, verdict; t interval, at 1 - 2 alpha for non-inferiority; sign-flip p; `mde` of a t test at
        alpha, `n_to_settle` in seeds) and `difference_tost`. Secondary: `paired_t`, `within_seed_rank`
        (estimate: rank as a share), `hierarchical_bootstrap`, `d_z`, `d_pooled`. Diagnostic: `sd_difference`,
        `sd_seed`, `sd_shuffle`, `sd_item`, `mde_after_holm`, and for outcomes 0 and 1 `mcnemar` of each seed
        and shuffle (contrast `T-C:s.k`, numbered from 1; statistic: items right under T only, df1: under C
        only).

    Raises
    ------
    ValueError
        More than six contrasts, one twice, an arm that is not there, shapes or values that
        `placement_effect` refuses.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def arm(share, *shape):
    ...     return (rng.random((8, *shape, 900)) < share).astype(float)
    >>> arms = {"per_layer": arm(0.8), "shuffled_within": arm(0.7, 4), "probe": arm(0.8)}
    >>> two = (DECLARED[0], DECLARED[-1])
    >>> rows = analyse_placement(arms, declared=two, rng=rng, resamples=0)
    >>> for row in rows:
    ...     if row.role == "decides":
    ...         print(row.contrast, round(row.estimate, 3), row.p, row.p_adjusted, row.verdict)
    per_layer-shuffled_within 0.098 0.0078125 0.015625 DETECTED
    per_layer-probe 0.0 0.0078125 0.015625 DETECTED
    """
    names = [contrast.control for contrast in declared]
    if len(set(names)) < len(names) or not 0 < len(names) <= MOST_CONTRASTS:
        raise ValueError(f"contrasts {names}; declare 1 to {MOST_CONTRASTS}, each control once")
    broken = dict(unusable or {})
    absent = [name for name in (treatment, *names) if name not in arms and name not in broken]
    if absent:
        raise ValueError(f"no outcomes of {absent}; there are {sorted(arms)}, unusable are {sorted(broken)}")
    rows: list[TestRow] = []
    for contrast in declared:
        bare = TestRow(
            family=family,
            hypothesis=contrast.question,
            metric=metric,
            contrast=f"{treatment}-{contrast.control}",
            method="sign flips of paired differences",
            role="decides",
            alpha=alpha,
            margin=contrast.margin,
            reason="undefined",
        )
        why = [f"{arm}: {broken[arm]}" for arm in (treatment, contrast.control) if arm in broken]
        if why:
            rows.append(replace(bare, reason="; ".join(why)))
            continue
        effect = placement_effect(
            arms[treatment],
            arms[contrast.control],
            margin=contrast.margin,
            rng=rng,
            alpha=alpha,
            tests=len(names),
            resamples=resamples,
            same_items=same_items,
        )
        rows += effect_rows(effect, bare)
        rows += _mcnemar_rows(arms[treatment], arms[contrast.control], bare)
    return [_non_inferior(row) for row in concluded(rows, alpha=alpha)]


def effect_rows(effect: PlacementEffect, bare: TestRow) -> list[TestRow]:
    """Rows of one contrast, without Holm's p and verdict; `bare` names it and its question.

    Examples
    --------
    >>> bare = TestRow(family="f", hypothesis="difference", method="", role="decides", reason="undefined")
    >>> y = np.zeros((1, 3))
    >>> found = placement_effect(y, y, margin=0.01, rng=np.random.default_rng(0))
    >>> [(row.hypothesis, row.reason) for row in effect_rows(found, bare)[:2]]  # doctest: +ELLIPSIS
    [('difference', '1 seed; an interval ...'), ('difference_tost', '1 seed; an interval ...')]
    """
    gone = effect.undefined
    bare = replace(bare, n=effect.n, estimate=effect.estimate, reason=None)
    equal = effect.equivalence
    shown = [gone[name] for name in ("low", "mde_after_holm", "seeds_to_settle") if name in gone]
    decides = replace(
        bare,
        method=f"{effect.method}; t interval",
        low=effect.low,
        high=effect.high,
        p=effect.p_sign_flip,
        mde=effect.mde,
        n_to_settle=effect.seeds_to_settle,
        reason="; ".join(dict.fromkeys(shown)) or None,
    )
    rows = [decides]
    if bare.hypothesis == NON_INFERIORITY:
        ends = (equal.low, equal.high) if equal else (None, None)
        rows = [replace(decides, low=ends[0], high=ends[1], p=effect.p_not_below)]
    else:
        rows.append(
            replace(
                bare,
                hypothesis=f"{DIFFERENCE}_tost",
                role="equivalence",
                method="two one-sided t tests over seeds",
                low=equal.low if equal else None,
                high=equal.high if equal else None,
                p=effect.tost_p,
                reason=gone.get("equivalence"),
            )
        )
    return rows + _secondary_rows(effect, replace(bare, role="secondary", margin=None))


def _secondary_rows(effect: PlacementEffect, bare: TestRow) -> list[TestRow]:
    gone, student = effect.undefined, effect.student
    rows = [
        replace(
            bare,
            hypothesis="paired_t",
            method=student.method,
            low=student.low,
            high=student.high,
            statistic=student.statistic,
            df2=float(student.df) if student.df else None,
            p=student.p,
            reason=student.reason,
        ),
        replace(
            bare,
            hypothesis="within_seed_rank",
            method=effect.ranks.method,
            estimate=effect.ranks.estimate,
            p=effect.ranks.p,
        ),
        replace(
            bare,
            hypothesis="hierarchical_bootstrap",
            method=effect.boot.method,
            low=effect.boot_low,
            high=effect.boot_high,
            reason=effect.boot.reason,
        ),
    ]
    sizes = {
        "d_z": (effect.d_z, "mean over SD of the seeds' differences"),
        "d_pooled": (effect.d_pooled, "difference over the pooled SD of seeds"),
    }
    planned = {
        "sd_difference": (effect.spread.difference, "SD of the seeds' differences"),
        "sd_seed": (effect.sd_seed, "SD over seeds beyond shuffles and items"),
        "sd_shuffle": (effect.sd_shuffle, "SD of shuffles within a seed, items taken out"),
        "sd_item": (effect.sd_item, "SD of paired differences over items"),
        "mde_after_holm": (effect.plan.mde_after_holm, "80 % power of sign flips at Holm's first step"),
    }
    for role, numbers in (("secondary", sizes), ("diagnostic", planned)):
        for name, (value, method) in numbers.items():
            rows.append(
                replace(
                    bare, role=role, hypothesis=name, method=method, estimate=value, reason=gone.get(name)
                )
            )
    return rows


def _mcnemar_rows(treatment: FloatArray, controls: FloatArray, bare: TestRow) -> list[TestRow]:
    """One row a seed and shuffle; none where outcomes are other than 0 and 1."""
    y, x = checked(treatment, controls)
    if not (np.isin(y, (0.0, 1.0)).all() and np.isin(x, (0.0, 1.0)).all()):
        return []
    rows = []
    for s, k in np.ndindex(x.shape[0], x.shape[1]):
        found = mcnemar(y[s], x[s, k])
        rows.append(
            replace(
                bare,
                hypothesis="mcnemar",
                contrast=f"{bare.contrast}:{s + 1}.{k + 1}",
                role="diagnostic",
                method=found.method,
                estimate=(found.only_first - found.only_second) / found.n,
                statistic=float(found.only_first),
                df1=float(found.only_second),
                p=found.p,
                n=found.n,
                margin=None,
                reason=None,
            )
        )
    return rows


def _non_inferior(row: TestRow) -> TestRow:
    """The verdict of a non-inferiority row: its null is -margin, which `concluded` does not know."""
    if row.hypothesis != NON_INFERIORITY or row.role != "decides" or row.p_adjusted is None:
        return row
    alpha, margin = row.alpha or 0.0, row.margin or 0.0
    shown = row.low is not None and row.low > -margin and row.p_adjusted <= alpha
    worse = row.high is not None and row.high < -margin
    return replace(
        row,
        verdict="DETECTED" if shown else "INCONCLUSIVE",
        negligible=None,
        method=f"non-inferiority by {row.method} at level {1 - 2 * alpha:g}",
        reason="worse by more than the margin" if worse else row.reason,
    )
