"""AUC on held-out windows under labellings of whole windows, and what chance makes of its mean over seeds.

Steps of one window depend on each other, so the unit that is relabelled is the window: under no effect a
window and its twin are exchangeable as wholes, whatever goes on inside them. Seeds are trained apart, so one
table of AUCs a seed, one entry a labelling, holds all that any joint relabelling can give: with 3 windows a
seed that is 8 entries, and the 8^5 labellings of 5 seeds are all looked up instead of drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from stats.discriminant import SHRINKAGE, auc, from_moments
from stats.rows import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

MOST_WINDOWS = 6
"""Windows of a seed up to which all 2^K labellings are trained."""
MOST_COMBINED = 65_536
"""Joint labellings of all seeds that are looked up; beyond, DRAWS random ones."""
DRAWS = 9_999
TIE = 1e-9
"""Statistics closer than this are equal (rounding of means over seeds)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Null:
    """A statistic, the mean over seeds, and its values under joint labellings."""

    observed: float
    values: FloatArray
    """(m,) of the other labellings."""
    p: float
    """(b + 1) / (m + 1), one-sided: large values count against the null."""
    exact: bool
    """All joint labellings of the tables, or random ones."""

    @property
    def centre(self) -> float:
        """Mean under the labellings."""
        return float(self.values.mean()) if len(self.values) else self.observed

    def quantiles(self, alpha: float) -> tuple[float, float]:
        """Of the null at alpha / 2 and 1 - alpha / 2."""
        values = self.values if len(self.values) else np.array([self.observed])
        low, high = np.quantile(values, [alpha / 2.0, 1.0 - alpha / 2.0])
        return float(low), float(high)


def labellings(windows: int, *, rng: np.random.Generator, permutations: int) -> BoolArray:
    """Which of K windows are exchanged with their twins: (B, K), the first row none.

    All 2^K up to MOST_WINDOWS windows, else the first and `permutations` random ones.

    Examples
    --------
    >>> labellings(2, rng=np.random.default_rng(0), permutations=200).astype(int).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    if windows < 1 or permutations < 1:
        raise ValueError(f"{windows} windows, {permutations} permutations; allowed: 1 or more of each")
    if windows <= MOST_WINDOWS:
        return np.array(list(product((False, True), repeat=windows)), dtype=np.bool_)
    drawn = rng.random((permutations + 1, windows)) < 0.5
    drawn[0] = False
    return drawn


def held_out_aucs(
    positives: Sequence[FloatArray],
    negatives: Sequence[FloatArray],
    exchanged: BoolArray,
    *,
    moved: BoolArray | None = None,
    shrinkage: float = SHRINKAGE,
) -> FloatArray:
    """Mean over held-out windows of the AUC, under each labelling, in training and test alike.

    For every window k a discriminant is trained on the other windows and their negatives; the AUC is that of
    its scores on window k against its negatives.

    Parameters
    ----------
    positives, negatives : K arrays of shape (n, F)
        Features of each window's steps, and of its twin's.
    exchanged : (B, K) bool array
        Of each labelling, the windows that are exchanged with their negatives.
    moved : (F,) bool array, optional
        Features that are exchanged, all unless given; where some stay, both sides need the same steps.

    Returns
    -------
    (B,) array

    Raises
    ------
    ValueError
        Fewer than two windows.

    Examples
    --------
    Three windows above their twins: exchanging one turns its AUC to 0 and misleads the other two by half.

    >>> high, low = [np.array([[2.0], [3.0]])] * 3, [np.array([[0.0], [1.0]])] * 3
    >>> all_labellings = labellings(3, rng=np.random.default_rng(0), permutations=1)
    >>> held_out_aucs(high, low, all_labellings)[[0, 1, 7]].round(3).tolist()
    [1.0, 0.333, 1.0]
    """
    K = len(positives)
    if K < 2 or len(negatives) != K or exchanged.shape[1] != K:
        raise ValueError(
            f"{K} windows, {len(negatives)} twins, labellings of {exchanged.shape[1]}; leaving one window "
            "out takes two or more, each with its negatives"
        )
    centre = np.concatenate([*positives, *negatives]).mean(axis=0)
    sides = [_both(p - centre, n - centre, moved) for p, n in zip(positives, negatives, strict=True)]
    version = exchanged.astype(np.int64)
    weights = _trained(sides, version, shrinkage)  # (K, B, F)
    total = np.zeros(len(exchanged))
    for k, (plain, other) in enumerate(sides):
        if moved is None:  # both versions have the same scores, with labels exchanged
            found = auc((plain[1] @ weights[k].T).T, (plain[0] @ weights[k].T).T)
            total += np.where(exchanged[:, k], 1.0 - found, found)
        else:
            x = np.array([plain, other])[version[:, k]]  # (B, 2, n, F)
            scores = (x @ weights[k][:, None, :, None])[..., 0]
            total += auc(scores[:, 1], scores[:, 0])
    return total / K


def combined(tables: Sequence[FloatArray], *, rng: np.random.Generator) -> Null:
    """Mean over seeds of the first entries, against that of every other choice of one entry a seed.

    p = (b + 1) / (m + 1), b of the m other joint labellings reaching the observed mean; all of them up to
    MOST_COMBINED, else DRAWS random ones. Each table's first entry is one of its labellings drawn alike under
    the null, so p is valid either way (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39).

    Parameters
    ----------
    tables : S arrays of shape (B,)
        Of each seed, the statistic under each of its labellings, the observed one first.

    Examples
    --------
    >>> found = combined([np.array([1.0, 0.0])] * 5, rng=np.random.default_rng(0))
    >>> found.observed, found.p
    (1.0, 0.03125)
    """
    if not tables or not all(len(table) and np.isfinite(table).all() for table in tables):
        raise ValueError(f"{len(tables)} seeds; pass one finite statistic or more for each")
    observed = float(np.mean([table[0] for table in tables]))
    ways = float(np.prod([float(len(table)) for table in tables]))
    exact = ways <= MOST_COMBINED
    values = np.zeros(1) if exact else np.zeros(DRAWS)
    for table in tables:
        values = np.add.outer(values, table).ravel() if exact else values + rng.choice(table, DRAWS)
    values = values / len(tables)
    if exact:
        values = values[1:]  # the first is the observed one
    p = (float((values >= observed - TIE).sum()) + 1.0) / (len(values) + 1.0)
    return Null(observed=observed, values=values, p=p, exact=exact)


Side = tuple[FloatArray, FloatArray]
"""Features of a window's negatives and of its positives."""


def _trained(sides: Sequence[tuple[Side, Side]], version: IntArray, shrinkage: float) -> FloatArray:
    """(K, B, F) weights of positives over negatives, trained on the windows other than each, by labelling."""
    sums = np.array([[[x.sum(axis=0) for x in side] for side in both] for both in sides])  # (K, 2, 2, F)
    counts = np.array([[[float(len(x)) for x in side] for side in both] for both in sides])  # (K, 2, 2)
    squares = np.array([[side[0].T @ side[0] + side[1].T @ side[1] for side in both] for both in sides])
    K = len(sides)
    others = np.array([[place for place in range(K) if place != k] for k in range(K)])  # (K, K - 1)
    at = (others[:, None, :], version.T[others].transpose(0, 2, 1))  # (K, B, K - 1)
    n = counts[at].sum(axis=2)  # (K, B, 2)
    totals = sums[at].sum(axis=2)  # (K, B, 2, F)
    middle = totals.sum(axis=2) / n.sum(axis=2)[..., None]
    outer = n.sum(axis=2)[..., None, None] * middle[..., :, None] * middle[..., None, :]
    scatter = squares[at].sum(axis=2) - outer
    found = from_moments(totals / n[..., None], n, scatter, shrinkage=shrinkage).weights
    weights: FloatArray = found[:, :, 1] - found[:, :, 0]
    return weights


def _both(positive: FloatArray, negative: FloatArray, moved: BoolArray | None) -> tuple[Side, Side]:
    """(negative, positive) as they are, and with the moved features exchanged."""
    if moved is None:
        return (negative, positive), (positive, negative)
    if len(positive) != len(negative):
        raise ValueError(f"{len(positive)} and {len(negative)} steps; some features move only between equals")
    return (negative, positive), (np.where(moved, positive, negative), np.where(moved, negative, positive))
