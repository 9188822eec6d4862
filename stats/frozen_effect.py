"""Does what a network learnt to read from its state move its predictions more than any injection would?

With the weights fixed, two states are sought that make the predictions most and least sure, and on fresh
batches |H(confident) - H(uncertain)| is measured in nats. The search alone makes this large, so it is
repeated with the injection P turned by random orthogonal matrices Q of the embedding space: the same reach,
searched as hard, but pointing anywhere. A seed's p is (b + 1) / (m + 1) with b rotations at least as large,
ties counted among them, so with 200 rotations it never falls below 1 / 201. Such p values are discrete and
no smaller than uniform ones would be, and Fisher's sum of their logarithms is conservative.

Fisher's test asks whether any seed's P is special; whether P is so on average is the excess over the mean of
the seed's own rotations, with Student's interval over seeds. DETECTED needs both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from stats.over_seeds import mean_over_seeds, seeds_by_t
from stats.paired_seeds import PairedT, detectable, paired_t
from stats.rows import FloatArray, TestRow
from stats.run_comparisons import tost_row

FEWEST_ROTATIONS = 199
"""p of a seed then reaches .005."""
FEWEST_SEEDS = 5
"""Under these an arm is not concluded about: the study promises an interval over at least as many."""
PUBLISHED_NATS = 0.3
"""An earlier version of the study called an effect above this a success."""
EXCESS = "effect minus the mean of its rotations, t over seeds"
TIE = 1e-12
"""Relative: a rotation this close to the effect counts as at least as large."""
NATS, TOP1 = "entropy_nats", "top1"


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenSeed:
    """What one training seed's network did with weights fixed. NaN where something failed; never left out."""

    seed: int
    effect_nats: float
    """|H(confident) - H(uncertain)| on fresh batches, from 0."""
    effect_top1: float
    """The same of the mean largest probability."""
    null_nats: FloatArray
    """(m,) effects after P -> QP, each with its own search."""
    null_top1: FloatArray
    """(m,) of the largest probability."""
    axis_nats: FloatArray
    """(m,) effects after P -> PR, R of the state space: tells whether single dimensions are special."""
    sd_nats: float
    """SD of the entropy over fresh batches, with the own state."""
    entropy_nats: Mapping[str, float]
    """State (zero, own, confident, uncertain, random) -> mean entropy on fresh batches."""
    top1: Mapping[str, float]
    """State -> mean largest probability."""


def rotation_p(effect: float, null: FloatArray) -> float:
    """(b + 1) / (m + 1), b of the m rotations at least as large as the effect.

    Parameters
    ----------
    effect : float
    null : (m,) float array

    Raises
    ------
    ValueError
        No rotation, or a number that is not finite.

    References
    ----------
    Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9, 39. Witness: R
    (`tests/reference/frozen_effect.R`).

    Examples
    --------
    >>> rotation_p(0.30, np.array([0.10, 0.30, 0.20, 0.05])), rotation_p(0.0, np.zeros(4))
    (0.4, 1.0)
    """
    drawn = np.asarray(null, dtype=np.float64)
    if drawn.ndim != 1 or not len(drawn) or not (math.isfinite(effect) and np.isfinite(drawn).all()):
        raise ValueError(
            f"effect {effect} and rotations of shape {drawn.shape}; pass finite ones, one or more"
        )
    return (1.0 + float((drawn >= effect * (1.0 - TIE)).sum())) / (len(drawn) + 1.0)


def leverage_rows(
    arms: Mapping[str, Sequence[FrozenSeed]], *, main: str, margin: float = 0.05, alpha: float = 0.05
) -> list[TestRow]:
    """Rows of the family `leverage`, for each arm and in the end for `main` alone.

    Parameters
    ----------
    arms : mapping of str to sequence of FrozenSeed
        Arm -> its seeds.
    main : str
        The arm that the verdict is about; if it is not there, the verdict is INVALID.
    margin : float
        Smallest excess of interest, in nats, above 0.

    Returns
    -------
    list of TestRow
        By arm, metric `entropy_nats` in nats: `rotation` (secondary; a seed each, contrast "ARM:seed N"),
        `combined` (decides; Fisher: statistic chi^2, df1 = 2 seeds, p), `excess` (decides; effect minus mean
        of the seed's rotations, t interval, p two-sided, mde and n_to_settle in seeds, verdict), `tost`
        (equivalence; interval at 1 - 2 alpha), `axis_alignment` (diagnostic; Fisher), `published` (legacy;
        mean effect, statistic: seeds above .3), `standardised` (secondary; effect over sd_nats). Metric
        `top1`: rotation, combined, excess, all secondary. `state` (diagnostic; contrast "ARM:zero" and so
        on). Last `leverage` (verdict, contrast "*"): p is Fisher's, estimate and interval the excess's.

        Verdicts: INVALID when a number is not finite or a seed has fewer than 199 rotations; DETECTED when
        Fisher's p is below alpha and the interval of the excess lies above 0; EQUIVALENT when two one-sided
        tests put the excess inside the margin; else INCONCLUSIVE, always so under 5 seeds. An arm whose
        effects and rotations are all exactly 0 (P = 0) has an excess of exactly 0 in every seed and no spread
        to test: p = 1, interval [0, 0], EQUIVALENT.

    Raises
    ------
    ValueError
        margin or alpha out of range, a seed twice in an arm, effects below 0, arrays that are not (m,).

    References
    ----------
    Fisher (1932), Statistical Methods for Research Workers, 21.1; conservative for discrete p values:
    Lancaster (1949), Biometrika 36, 370. Witnesses: R's `pchisq`, `t.test`
    (`tests/reference/frozen_effect.R`).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def seed(n, effect):
    ...     null = np.abs(rng.normal(0.1, 0.03, 200))
    ...     return FrozenSeed(seed=n, effect_nats=effect, effect_top1=effect / 4, null_nats=null,
    ...         null_top1=null / 4, axis_nats=null, sd_nats=0.2, entropy_nats={"own": 2.0}, top1={"own": 0.4})
    >>> rows = leverage_rows({"self": [seed(i, 0.3 + 0.02 * i) for i in range(5)]}, main="self")
    >>> last = rows[-1]
    >>> round(last.estimate, 3), round(last.low, 3), round(last.high, 3), round(last.p, 8), last.verdict
    (0.241, 0.201, 0.282, 7e-08, 'DETECTED')
    """
    if not (margin > 0.0 and 0.0 < alpha < 0.5):
        raise ValueError(f"margin {margin}, alpha {alpha}; margin is above 0, alpha between 0 and 0.5")
    rows: list[TestRow] = []
    for arm, seeds in arms.items():
        _refuse(arm, seeds)
        bare = TestRow(family="leverage", hypothesis="excess", metric=NATS, contrast=arm, method="",
                       role="decides", alpha=alpha, n=len(seeds), reason="undefined")  # fmt: skip
        rows += _arm_rows(seeds, bare, margin)
    return [*rows, _verdict(rows, main, margin, alpha)]


def _refuse(arm: str, seeds: Sequence[FrozenSeed]) -> None:
    numbers = [one.seed for one in seeds]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{arm} has seeds {numbers}; each counts once")
    for one in seeds:
        for name in ("null_nats", "null_top1", "axis_nats"):
            values = np.asarray(getattr(one, name))
            if values.ndim != 1:
                raise ValueError(f"{name} of {arm}, seed {one.seed}, has shape {values.shape}; pass (m,)")
            if (values < 0.0).any():
                raise ValueError(f"{name} of {arm}, seed {one.seed}, has values below 0; pass absolute ones")
        if min(one.effect_nats, one.effect_top1) < 0.0:
            raise ValueError(
                f"effects {one.effect_nats} nats, {one.effect_top1} top1 of {arm}, seed {one.seed}; pass "
                "absolute differences"
            )


def _problem(one: FrozenSeed) -> str | None:
    """What forbids any conclusion from a seed."""
    nulls = {name: getattr(one, name) for name in ("null_nats", "null_top1", "axis_nats")}
    few = [f"{len(null)} rotations in {name}" for name, null in nulls.items() if len(null) < FEWEST_ROTATIONS]
    numbers: dict[str, float | FloatArray] = {**nulls, "sd_nats": one.sd_nats}
    numbers |= {"effect_nats": one.effect_nats, "effect_top1": one.effect_top1}
    numbers |= {f"entropy_nats of {state}": value for state, value in one.entropy_nats.items()}
    numbers |= {f"top1 of {state}": value for state, value in one.top1.items()}
    wrong = [name for name, value in numbers.items() if not np.isfinite(value).all()]
    found = [f"{', '.join(few)}, {FEWEST_ROTATIONS} are the fewest"] if few else []
    return "; ".join([*found, *([f"{', '.join(wrong)} not finite"] if wrong else [])]) or None


def _arm_rows(seeds: Sequence[FrozenSeed], bare: TestRow, margin: float) -> list[TestRow]:
    problems = {one.seed: _problem(one) for one in seeds}
    why = "; ".join(f"seed {seed}: {found}" for seed, found in problems.items() if found)
    nats = [(one.seed, one.effect_nats, one.null_nats) for one in seeds]
    rotations = _rotations(nats, bare, problems)
    if why or not seeds:
        row = replace(
            bare, method=EXCESS, margin=margin, verdict="INVALID", reason=why or "no seed was tested"
        )
        return [*rotations, row]
    aside = replace(bare, metric=TOP1, role="secondary")
    top1 = [(one.seed, one.effect_top1, one.null_top1) for one in seeds]
    axis = [rotation_p(one.effect_nats, one.axis_nats) for one in seeds]
    fisher = _fisher([rotation_p(effect, null) for _, effect, null in nats], bare)
    aligned = replace(bare, role="diagnostic")
    return [
        *rotations,
        fisher,
        *(_enough(row) for row in _excess_rows(nats, replace(bare, margin=margin), fisher.p or 0.0)),
        _fisher(axis, aligned, hypothesis="axis_alignment", of="the state's own basis"),
        *_described(seeds, bare),
        *_rotations(top1, aside, problems),
        _fisher([rotation_p(effect, null) for _, effect, null in top1], aside),
        *(replace(row, verdict=None) for row in _excess_rows(top1, aside, 1.0)),
        *_states(seeds, bare),
    ]


def _rotations(
    found: Sequence[tuple[int, float, FloatArray]], bare: TestRow, problems: Mapping[int, str | None]
) -> list[TestRow]:
    """One row a seed; a seed that says nothing keeps it, with the reason."""
    rows = []
    for seed, effect, null in found:
        row = replace(
            bare,
            hypothesis="rotation",
            contrast=f"{bare.contrast}:seed {seed}",
            method="random rotations of the injection, discovery repeated",
            role="secondary",
            n=len(null),
            reason=problems[seed] or "undefined",
        )
        if problems[seed] is None:
            row = replace(row, estimate=effect, p=rotation_p(effect, null), reason=None)
        rows.append(row)
    return rows


def _fisher(
    p: Sequence[float], bare: TestRow, *, hypothesis: str = "combined", of: str = "the injection"
) -> TestRow:
    """chi^2 = -2 sum ln p on 2 S degrees of freedom."""
    statistic, combined = scipy.stats.combine_pvalues(p, method="fisher")
    return replace(
        bare,
        hypothesis=hypothesis,
        method=f"Fisher over seeds, rotations of {of}",
        statistic=abs(float(statistic)),  # -2 ln 1 is -0.0
        df1=2.0 * len(p),
        p=min(1.0, float(combined)),
        n=len(p),
        reason=None,
    )


def _excess_rows(
    found: Sequence[tuple[int, float, FloatArray]], bare: TestRow, fisher_p: float
) -> list[TestRow]:
    """The `excess` row and, with a margin and a spread, its `tost` row."""
    own = np.array([effect for _, effect, _ in found])
    null = np.array([float(null.mean()) for _, _, null in found])
    student = paired_t(own, null, alpha=bare.alpha or 0.05)
    row = replace(
        bare,
        method=EXCESS,
        estimate=student.estimate,
        low=student.low,
        high=student.high,
        statistic=student.statistic,
        df2=float(student.df) if student.statistic is not None else None,
        p=student.p,
        reason=student.reason,
    )
    if student.n > 1 and not own.any() and not null.any():
        why = "effects and rotations are exactly 0 in every seed"
        return [replace(row, low=0.0, high=0.0, p=1.0, verdict="EQUIVALENT", reason=why)]
    if student.sd is None or student.se is None:
        return [replace(row, verdict="INCONCLUSIVE")]
    row = replace(row, mde=detectable(student.sd, student.n, alpha=row.alpha or 0.05))
    return [row] if row.margin is None else _concluded(row, student, fisher_p)


def _enough(row: TestRow) -> TestRow:
    """Nothing is concluded from fewer seeds than promised; the numbers stay."""
    if row.verdict is None or (row.n or 0) >= FEWEST_SEEDS:
        return row
    few = f"{row.n} seed{'' if row.n == 1 else 's'}, a verdict needs {FEWEST_SEEDS} or more"
    why = "; ".join(filter(None, (few, row.reason)))
    return replace(row, verdict="INCONCLUSIVE", negligible=None, reason=why)


def _concluded(row: TestRow, student: PairedT, fisher_p: float) -> list[TestRow]:
    alpha, margin = row.alpha or 0.05, row.margin or 0.0
    equal = replace(tost_row(row, student), hypothesis="tost")
    settle = seeds_by_t(student.sd or 0.0, margin=margin, alpha=alpha)
    row = replace(row, n_to_settle=settle if settle is None else max(settle, FEWEST_SEEDS))
    if fisher_p < alpha and row.low is not None and row.low > 0.0:
        return [replace(row, verdict="DETECTED", negligible=(row.high or 0.0) < margin), equal]
    equivalent = equal.p is not None and equal.p < alpha
    return [replace(row, verdict="EQUIVALENT" if equivalent else "INCONCLUSIVE"), equal]


def _described(seeds: Sequence[FrozenSeed], bare: TestRow) -> list[TestRow]:
    """The published criterion, and the effect in SDs of a batch."""
    own = np.array([one.effect_nats for one in seeds])
    sd = np.array([one.sd_nats for one in seeds])
    ratio = np.divide(own, sd, out=np.full(len(own), np.nan), where=sd > 0.0)
    above = int((own > PUBLISHED_NATS).sum())
    return [
        replace(
            bare,
            hypothesis="published",
            method=f"earlier criterion: effect above {PUBLISHED_NATS} nats",
            role="legacy",
            estimate=float(own.mean()),
            statistic=float(above),
            reason=None,
        ),
        mean_over_seeds(
            ratio,
            replace(
                bare,
                hypothesis="standardised",
                method="effect over the SD of fresh batches, t over seeds",
                role="secondary",
            ),
            tested=False,
        ),
    ]


def _states(seeds: Sequence[FrozenSeed], bare: TestRow) -> list[TestRow]:
    rows = []
    for metric in (NATS, TOP1):
        by_seed: list[Mapping[str, float]] = [getattr(one, metric) for one in seeds]
        for state in dict.fromkeys(name for known in by_seed for name in known):
            row = replace(bare, hypothesis="state", metric=metric, contrast=f"{bare.contrast}:{state}",
                          method="t over seeds", role="diagnostic")  # fmt: skip
            values = [known.get(state, math.nan) for known in by_seed]
            rows.append(mean_over_seeds(values, row, tested=False))
    return rows


def _verdict(rows: Sequence[TestRow], main: str, margin: float, alpha: float) -> TestRow:
    """The row of `main`'s excess, under the name of the question."""
    own = [row for row in rows if row.contrast == main and row.metric == NATS]
    excess = [row for row in own if row.hypothesis == "excess"]
    bare = TestRow(family="leverage", hypothesis="leverage", metric=NATS, contrast="*", role="verdict",
                   method="Fisher over seeds, and t over seeds of the excess over rotations", alpha=alpha,
                   margin=margin, verdict="INVALID", reason=f"no frozen test of {main}")  # fmt: skip
    if not excess:
        return bare
    fisher = [row.p for row in own if row.hypothesis == "combined"]
    found = excess[0]
    return replace(
        found,
        hypothesis=bare.hypothesis,
        contrast="*",
        role="verdict",
        method=bare.method,
        statistic=None,
        df2=None,
        p=fisher[0] if fisher else None,
    )
