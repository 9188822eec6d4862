"""What a linear reader finds in a state's path: ridge regression on held-out blocks, and its two nulls.

Steps beside each other are nearly copies, so whole blocks are held out, with a gap on both sides. One null
reads the target from random places of a circle made of it and its reverse (`stats.lead_lag`), which keeps how
smooth it is, makes no jump, and breaks which state it belongs to.

A state drifts with training and so do loss and entropy, and any two trends predict each other. So a cubic in
the step is taken out of state and target first (`trend`). That does not fully excuse series that both move
slowly: where five seeds' states (32 dimensions) and targets are independent autoregressions with phi .9 to
.99, the mean over seeds falls above .95 of the shifted in .07 to .19 of cases with 180 steps and .04 to .10
with 900 (.03 and .08 where the target has phi .5; 50 to 150 data sets a case). The other null therefore lets
the state of one seed read the targets of the others: seeds are independent, and trends that all runs share
are shared with the others too, so permuting targets over seeds is exact. Rows carry the larger p of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np

from stats.lead_lag import mirrored
from stats.rows import FloatArray, IntArray

BLOCKS = 5
"""Held out in turn."""
RIDGE = 1e-3
"""Penalty a step, in units of the features' variance: small beside 1, so that R2 is hardly shrunk."""
TREND = 3
"""Degree taken out where something other than the step is read."""
MOST_EXACT = 7
"""Seeds whose permutations are all taken (5,040)."""
FLAT = 1e-10
"""Relative size below which a singular value or an SD is rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Of one run."""

    r2: float
    """1 - held-out squares / squares around the training mean; negative where the mean reads better."""
    null: FloatArray
    """(m,) the same for targets mirrored and shifted."""
    p: float
    """(b + 1) / (m + 1), b of the shifts that read at least as well."""
    n: int
    """Steps."""


def linear_probe(
    state: FloatArray,
    target: FloatArray,
    *,
    rng: np.random.Generator,
    trend: int = TREND,
    blocks: int = BLOCKS,
    gap: int = 0,
    ridge: float = RIDGE,
    shifts: int = 199,
) -> Reading:
    """How much of a target a linear reader finds in the state, on held-out contiguous blocks.

    b = (X'X + n ridge I)^-1 X'y with X, y centred and X scaled by the training steps of each fold;
    R2 = 1 - sum over folds |y - Xb|^2 / sum over folds |y - mean of training y|^2.

    Parameters
    ----------
    state : (n, d) float array
        In order of the steps.
    target : (n,) float array
    trend : int
        Degree of the polynomial in the step taken out of both first; 0 their means alone.
    gap : int
        Steps on either side of a held-out block that are not trained on.
    ridge : float
        Above 0.

    Raises
    ------
    ValueError
        Shapes that do not fit, values that are not finite, too few steps, a target without variation.

    References
    ----------
    Hoerl & Kennard (1970), Technometrics 12, 55. Witness: R's `solve` on the normal equations
    (`tests/reference/state_probes.R`).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> state = np.cumsum(rng.normal(size=(400, 3)), axis=0)
    >>> found = linear_probe(state, state @ [1.0, -1.0, 0.5] + rng.normal(size=400), rng=rng)
    >>> round(found.r2, 2), found.p
    (0.93, 0.005)
    """
    s, y = _checked(state, target)
    rest_s, rest, base = _without_trend(s, y, trend)
    folds = _usable_folds(len(s), blocks, gap, trend, ridge)
    moved = mirrored(rest, shifts, rng).T  # (n, m)
    score = _held_out_r2(rest_s, np.column_stack([rest, moved - base @ (base.T @ moved)]), folds, ridge)
    reached = int((score[1:] >= score[0] - 1e-12).sum())
    return Reading(r2=float(score[0]), null=score[1:], p=(reached + 1.0) / (shifts + 1.0), n=len(s))


def readings_across(
    states: Sequence[FloatArray],
    targets: Sequence[FloatArray],
    *,
    trend: int = TREND,
    blocks: int = BLOCKS,
    gap: int = 0,
    ridge: float = RIDGE,
) -> FloatArray:
    """(S, S) R2 of reading the target of seed j from the state of seed i; the diagonal is `linear_probe`'s.

    Parameters
    ----------
    states : S arrays of (n, d) floats
    targets : S arrays of (n,) floats
        At the same steps in every seed.

    Raises
    ------
    ValueError
        As `linear_probe`, and for seeds of unequal numbers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> states = [np.cumsum(rng.normal(size=(200, 2)), axis=0) for _ in range(2)]
    >>> found = readings_across(states, [s[:, 0] + 0.1 * rng.normal(size=200) for s in states])
    >>> (found.diagonal() > 0.9).all(), bool(found[0, 1] < 0.5)
    (np.True_, True)
    """
    if len(states) != len(targets) or len({np.shape(target) for target in targets}) != 1:
        raise ValueError(
            f"{len(states)} states, {len(targets)} targets; pass one each a seed, of equal length"
        )
    pairs = [_checked(state, target) for state, target in zip(states, targets, strict=True)]
    rest = [_without_trend(s, y, trend) for s, y in pairs]
    folds = _usable_folds(len(targets[0]), blocks, gap, trend, ridge)
    every = np.column_stack([y for _, y, _ in rest])
    return np.array([_held_out_r2(s, every, folds, ridge) for s, _, _ in rest])


def own_seed_p(across: FloatArray, *, rng: np.random.Generator, draws: int = 999) -> float:
    """Share of the permutations of targets over seeds whose mean R2 is at least the seeds' own.

    Exact, the identity counted, up to MOST_EXACT seeds (1 / S! at the least); (b + 1) / (draws + 1) beyond.

    Parameters
    ----------
    across : (S, S) float array
        Of `readings_across`.

    References
    ----------
    Mantel (1967), Cancer Res. 27, 209, for the permuted pairing. Witness: R, all permutations
    (`tests/reference/state_probes.R`).

    Examples
    --------
    >>> across = np.array([[0.9, 0.1, 0.2], [0.0, 0.8, 0.1], [0.2, 0.1, 0.7]])
    >>> own_seed_p(across, rng=np.random.default_rng(0))  # the best of 3!
    0.16666666666666666
    """
    table = np.asarray(across, dtype=np.float64)
    S = len(table)
    if table.shape != (S, S) or not S or not np.isfinite(table).all():
        raise ValueError(f"readings of shape {table.shape}; pass finite ones, (seeds, seeds)")
    own = float(table.trace()) - 1e-12 * S
    if S <= MOST_EXACT:
        sums = [float(table[range(S), order].sum()) for order in permutations(range(S))]
        return sum(total >= own for total in sums) / math.factorial(S)
    sums = [float(table[range(S), rng.permutation(S)].sum()) for _ in range(draws)]
    return (sum(total >= own for total in sums) + 1.0) / (draws + 1.0)


def _checked(state: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
    s, y = np.asarray(state, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if s.ndim != 2 or y.shape != (len(s),) or not (np.isfinite(s).all() and np.isfinite(y).all()):
        raise ValueError(f"state {s.shape}, target {y.shape}; pass finite (n, d) and (n,)")
    return s, y


def _without_trend(s: FloatArray, y: FloatArray, trend: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """State and target without the polynomial, and its orthonormal basis (n, trend + 1)."""
    if trend < 0:
        raise ValueError(f"trend {trend}; a degree is 0 or more")
    base = np.linalg.qr(np.vander(np.linspace(-1.0, 1.0, len(s)), trend + 1))[0]
    rest = y - base @ (base.T @ y)
    if float(rest.std()) <= FLAT * float(np.abs(y).max()):
        raise ValueError("the target does not vary beyond its trend; there is nothing to read")
    rest_s = s - base @ (base.T @ s)
    fixed = rest_s.std(axis=0) <= FLAT * np.abs(s).max(axis=0)
    return np.where(fixed, 0.0, rest_s), rest, base


def _usable_folds(n: int, blocks: int, gap: int, trend: int, ridge: float) -> list[tuple[IntArray, IntArray]]:
    folds = contiguous_folds(n, blocks, gap)
    if not ridge > 0.0 or min(len(train) for train, _ in folds) < trend + 3:
        raise ValueError(
            f"{n} steps in {blocks} blocks with gap {gap}, trend {trend}, ridge {ridge}; each fold needs "
            f"{trend + 3} training steps, and ridge is above 0"
        )
    return folds


def contiguous_folds(n: int, blocks: int, gap: int) -> list[tuple[IntArray, IntArray]]:
    """(training, held-out) steps of each contiguous block; `gap` steps on either side train nothing.

    >>> [(train.tolist(), held.tolist()) for train, held in contiguous_folds(6, 3, 1)]
    [([3, 4, 5], [0, 1]), ([0, 5], [2, 3]), ([0, 1, 2], [4, 5])]
    """
    if blocks < 2 or gap < 0 or n < 2 * blocks:
        raise ValueError(f"{n} steps, {blocks} blocks, gap {gap}; give 2 blocks or more of 2 steps or more")
    edges = np.linspace(0, n, blocks + 1).astype(np.int64)
    every = np.arange(n)
    return [
        (every[(every < low - gap) | (every >= high + gap)], every[low:high]) for low, high in pairwise(edges)
    ]


def _held_out_r2(
    s: FloatArray, y: FloatArray, folds: Sequence[tuple[IntArray, IntArray]], ridge: float
) -> FloatArray:
    """(targets,) R2 of every column of y, (n, targets); one decomposition a fold serves them all."""
    left, whole = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for train, held in folds:
        centre, sd = s[train].mean(axis=0), s[train].std(axis=0)
        scale = np.where(sd > FLAT * np.abs(s[train]).max(axis=0), sd, np.inf)  # a fixed dimension drops out
        X, mean = (s[train] - centre) / scale, y[train].mean(axis=0)
        gram = X.T @ X + len(train) * ridge * np.eye(s.shape[1])
        b = np.linalg.solve(gram, X.T @ (y[train] - mean))
        off = y[held] - mean
        left += ((off - (s[held] - centre) / scale @ b) ** 2).sum(axis=0)
        whole += (off**2).sum(axis=0)
    return np.asarray(1.0 - left / whole, dtype=np.float64)
