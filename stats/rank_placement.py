"""Does placing LoRA ranks by an audit beat the same ranks placed at random? One contrast, seeds paired.

delta = mean over seeds of [mean over items of the treatment - mean over its controls of theirs]. Every seed
trains each arm once, on the same data order, and answers the same items in each, so the seed's difference is
the observation. Its sign flips decide, without normality, and Student's interval describes: six seeds reach
p = .031 at the least, eight seeds .0078, which Holm over six contrasts leaves at .047.

Sign flips are exact where a seed's difference is symmetric under the null: always against one exchangeable
control, against the mean of several where training noise is symmetric. Noise as skewed as minus a lognormal
(sigma 1) rejects .083 at .05 with four shuffles. The rank of the treatment among its shuffles, shown beside,
is exact either way.

Families, verdicts and rows are in `stats.placement_rows`, scenarios in `stats.rank_scenario`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from stats.aligned_bootstrap import Interval
from stats.equivalence import EquivalenceTest, tost
from stats.language_tests import shift_test, sign_flips
from stats.paired_seeds import (
    MOST_SEEDS,
    PairedT,
    RankTest,
    detectable,
    detectable_after_holm,
    hierarchical_bootstrap,
    least_seeds,
    paired_t,
    pooled_d,
    seeds_to_settle,
    within_seed_rank,
)
from stats.rows import FloatArray


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What makes the difference of a seed vary. None where the data do not tell."""

    difference: float | None
    """SD over seeds of the difference (n - 1): what the t test and d_z use."""
    seed: float | None
    """What of it neither shuffles nor items explain: sqrt of difference^2 - shuffle^2 (1 + 1/K) - item^2 / I,
    at least 0; the treatment is taken to vary as one shuffle does. With K = 1 shuffles are not told apart."""
    shuffle: float | None
    """SD of a shuffle's mean within a seed, items taken out: sqrt((MS_shuffle - MS_rest) / I), at least 0, of
    the two-way table shuffles x items; mean squares averaged over seeds."""
    item: float | None
    """SD over items of a seed's paired difference (n - 1); variances averaged over seeds."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What these seeds could show and how many would settle the question."""

    mde: float | None
    """Difference that a two-sided t test finds with power .8 at alpha, with these seeds and their SD."""
    mde_after_holm: float | None
    """The same for the deciding sign flips at Holm's first step, alpha / tests."""
    seeds_to_settle: int | None
    """Seeds with which the margin would be DETECTED and 0 EQUIVALENT, each with probability .8."""


@dataclass(frozen=True, kw_only=True)
class PlacementEffect:
    """One treatment against its controls, seed by seed. Undefined numbers are None; `undefined` says why."""

    student: PairedT
    """Mean of the seeds' differences with Student's interval at level 1 - alpha and test."""
    p_sign_flip: float
    """Two-sided, exact up to 17 seeds. Decides."""
    smallest_p: float
    """That sign flips of this number of seeds can reach: 2^(1 - n)."""
    method: str
    """Of `p_sign_flip`."""
    ranks: RankTest
    """The treatment among its controls within each seed."""
    boot: Interval
    """Hierarchical bootstrap over seeds and items, percentiles."""
    equivalence: EquivalenceTest | None
    """Two one-sided t tests against +-margin, with Student's interval at level 1 - 2 alpha."""
    p_not_below: float
    """One-sided sign flips against "at most -margin": small where the treatment is not inferior by it."""
    differences: tuple[float, ...]
    """(n,) of the seeds, in the order given."""
    d_pooled: float | None
    """estimate over the pooled SD over seeds of the treatment and the mean control."""
    spread: Spread
    plan: Plan
    margin: float
    """Smallest effect of interest, in the units of the outcome."""
    alpha: float
    controls: int
    """Controls (shuffles) a seed."""
    items: int
    """Items a seed."""
    undefined: Mapping[str, str]
    """Name of a number -> why it is None."""

    @property
    def estimate(self) -> float:
        """delta, in the units of the outcome (share of right answers)."""
        return self.student.estimate

    @property
    def low(self) -> float | None:
        return self.student.low

    @property
    def high(self) -> float | None:
        return self.student.high

    @property
    def n(self) -> int:
        """Seeds."""
        return self.student.n

    @property
    def d_z(self) -> float | None:
        """estimate / SD of the differences."""
        return None if self.student.statistic is None else self.student.statistic / math.sqrt(self.n)

    @property
    def p_t(self) -> float | None:
        """Two-sided p of the paired t test."""
        return self.student.p

    @property
    def p_rank(self) -> float:
        """Two-sided exact p of the within-seed ranks."""
        return self.ranks.p

    @property
    def boot_low(self) -> float | None:
        return self.boot.low

    @property
    def boot_high(self) -> float | None:
        return self.boot.high

    @property
    def tost_p(self) -> float | None:
        """Larger p of the two one-sided tests; equivalent where at most alpha."""
        return None if self.equivalence is None else self.equivalence.p

    @property
    def sd_seed(self) -> float | None:
        return self.spread.seed

    @property
    def sd_shuffle(self) -> float | None:
        return self.spread.shuffle

    @property
    def sd_item(self) -> float | None:
        return self.spread.item

    @property
    def mde(self) -> float | None:
        return self.plan.mde

    @property
    def seeds_to_settle(self) -> int | None:
        return self.plan.seeds_to_settle

    @property
    def p_not_below_t(self) -> float | None:
        """`p_not_below` by Student's t."""
        if self.equivalence is None:
            return None
        return float(special.stdtr(self.student.df, -self.equivalence.t_low))

    @property
    def reason(self) -> str | None:
        """Why numbers are None, each reason once."""
        return "; ".join(dict.fromkeys(self.undefined.values())) or None


def placement_effect(
    treatment: FloatArray,
    controls: FloatArray,
    *,
    margin: float,
    rng: np.random.Generator,
    alpha: float = 0.05,
    tests: int = 1,
    resamples: int = 2_000,
    same_items: bool = True,
) -> PlacementEffect:
    """Every number on one contrast.

    Parameters
    ----------
    treatment : (S, I) float array
        Outcome of each seed and item: 1 right, 0 wrong, or any number of which more is better (of a loss, its
        negative).
    controls : (S, K, I) or (S, I) float array
        The same of the K controls of each seed, on the same items.
    margin : float
        Smallest effect of interest, above 0.
    rng : numpy Generator
        For the bootstrap, and for sign flips beyond 17 seeds.
    tests : int
        Contrasts that Holm corrects together.
    resamples : int
        Of the bootstrap; 0 leaves it out.
    same_items : bool
        Whether item i is the same item in every seed (`stats.paired_seeds.hierarchical_bootstrap`).

    Raises
    ------
    ValueError
        Shapes that do not fit, no seed, control or item, a value that is not finite, a margin not above 0.

    References
    ----------
    Sign flips: Fisher (1935), The Design of Experiments, 21; equivalence: Schuirmann (1987). Witness:
    `tests/reference/rank_placement.R`.

    Examples
    --------
    Eight seeds, four shuffles each, 400 items; the treatment answers five in a hundred more:

    >>> rng = np.random.default_rng(0)
    >>> share = 0.7 + 0.02 * rng.normal(size=(8, 5, 1)) + np.array([0.05, 0, 0, 0, 0])[:, None]
    >>> answers = (rng.random(size=(8, 1, 400)) < share).astype(float)
    >>> found = placement_effect(answers[:, 0], answers[:, 1:], margin=0.01, rng=rng, tests=6)
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3), found.p_sign_flip
    (0.044, 0.032, 0.055, 0.0078125)
    >>> found.ranks.estimate, found.n, found.seeds_to_settle, found.reason
    (1.0, 8, 26, None)
    >>> one = placement_effect(answers[:1, 0], answers[:1, 1:], margin=0.01, rng=rng)
    >>> one.low, one.p_sign_flip, one.undefined["low"]
    (None, 1.0, '1 seed; an interval over seeds needs two or more')
    """
    y, x = checked(treatment, controls)
    if not margin > 0.0:
        raise ValueError(f"margin {margin}; the smallest effect of interest is above 0")
    own, others = y.mean(axis=1), x.mean(axis=2)  # (S,), (S, K)
    paired = y - x.mean(axis=1)  # (S, I)
    student = paired_t(own, others.mean(axis=1), alpha=alpha)
    flips = shift_test(own - others.mean(axis=1), sign_flips(student.n, rng=rng))
    boot = hierarchical_bootstrap(paired, rng=rng, alpha=alpha, resamples=resamples, same_items=same_items)
    d_pooled = pooled_d(own, others.mean(axis=1))
    spread = _spread(student, paired, x)
    plan = _planned(student, margin, alpha, tests)
    se = student.se
    return PlacementEffect(
        student=student,
        p_sign_flip=flips.p(),
        smallest_p=2.0 ** (1 - student.n),
        method=flips.method + (", exact" if flips.exact else f", {flips.total - 1} drawn"),
        ranks=within_seed_rank(own, others),
        boot=boot,
        equivalence=tost(student.estimate, se, student.df, margin, alpha) if se else None,
        p_not_below=flips.p_greater(-margin),
        differences=tuple((own - others.mean(axis=1)).tolist()),
        d_pooled=d_pooled,
        spread=spread,
        plan=plan,
        margin=margin,
        alpha=alpha,
        controls=x.shape[1],
        items=x.shape[2],
        undefined=_undefined(student, boot, d_pooled, spread, plan, alpha, tests),
    )


def checked(treatment: FloatArray, controls: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(S, I) treatment and (S, K, I) controls, or ValueError saying what does not fit."""
    y, x = np.asarray(treatment, dtype=np.float64), np.asarray(controls, dtype=np.float64)
    if x.ndim == 2:
        x = x[:, None, :]
    if y.ndim != 2 or x.ndim != 3 or y.shape != (x.shape[0], x.shape[2]) or not x.size:
        raise ValueError(
            f"treatment {np.shape(treatment)}, controls {np.shape(controls)}; pass (seeds, items) and "
            "(seeds, controls, items) with the same seeds and items, at least one of each"
        )
    for name, values in (("treatment", y), ("controls", x)):
        wrong = values.size - int(np.isfinite(values).sum())
        if wrong:
            raise ValueError(
                f"{name}: {wrong} of {values.size} outcomes are not finite; an item without an answer is "
                "wrong (0), an arm without its items is INVALID"
            )
    return y, x


def _spread(student: PairedT, paired: FloatArray, x: FloatArray) -> Spread:
    S, K, items = x.shape
    item = math.sqrt(float(paired.var(axis=1, ddof=1).mean())) if items > 1 else None
    shuffle = None
    if K > 1 and items > 1:
        rest = x - x.mean(axis=2, keepdims=True) - x.mean(axis=1, keepdims=True)
        rest = rest + x.mean(axis=(1, 2), keepdims=True)
        ms_rest = float((rest**2).sum()) / (S * (K - 1) * (items - 1))
        between = float(x.mean(axis=2).var(axis=1, ddof=1).mean())  # MS_shuffle / I
        shuffle = math.sqrt(max(0.0, between - ms_rest / items))
    seed = None
    if student.sd is not None and item is not None:
        explained = item**2 / items + (0.0 if shuffle is None else shuffle**2 * (1.0 + 1.0 / K))
        seed = math.sqrt(max(0.0, student.sd**2 - explained))
    return Spread(difference=student.sd, seed=seed, shuffle=shuffle, item=item)


def _planned(student: PairedT, margin: float, alpha: float, tests: int) -> Plan:
    if student.reason is not None or student.sd is None:
        return Plan(mde=None, mde_after_holm=None, seeds_to_settle=None)
    return Plan(
        mde=detectable(student.sd, student.n, alpha=alpha),
        mde_after_holm=detectable_after_holm(student.sd, student.n, alpha=alpha, tests=tests),
        seeds_to_settle=seeds_to_settle(student.sd, margin=margin, alpha=alpha, tests=tests),
    )


def _undefined(
    student: PairedT,
    boot: Interval,
    d_pooled: float | None,
    spread: Spread,
    plan: Plan,
    alpha: float,
    tests: int,
) -> dict[str, str]:
    """Name of a number -> why it is None."""
    found: dict[str, str] = {}
    if student.reason is not None:
        names = ("low", "high", "p_t", "d_z", "equivalence", "p_not_below_t", "mde", "mde_after_holm")
        found |= dict.fromkeys((*names, "seeds_to_settle"), student.reason)
    elif plan.mde_after_holm is None:
        found["mde_after_holm"] = (
            f"{student.n} seeds: sign flips reach p = {2.0 ** (1 - student.n):.3g} at the least, times "
            f"{tests} tests above {alpha:g}; {least_seeds(alpha=alpha, tests=tests)} seeds are the fewest"
        )
    if student.reason is None and plan.seeds_to_settle is None:
        found["seeds_to_settle"] = f"no number of seeds up to {MOST_SEEDS:,} settles it at this spread"
    if boot.reason is not None:
        found["boot"] = boot.reason
    if d_pooled is None:
        found["d_pooled"] = student.reason or "neither arm varies over seeds"
    why = "1 item a seed" if spread.item is None else "1 control a seed"
    for name in ("difference", "seed", "shuffle", "item"):
        if getattr(spread, name) is None:
            one_seed = student.n < 2 and name in ("difference", "seed")
            found[f"sd_{name}"] = "1 seed" if one_seed else why
    return found
