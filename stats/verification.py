"""Does an encoder tell a genuine new context from one that strays to another sense, and at what thresholds?

A new context c of a sense is accepted iff cos(c, original) >= one threshold and the gap, cos(c, original)
less the largest cos(c, sibling), >= another. What a cosine of .5 means differs between encoders, so both are
chosen on contexts whose sense is known, and precision and recall are reported with their intervals. Counted
on the contexts they were chosen on, both come out too high: `judged` on other contexts says what is left.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy
from scipy import special

from stats.proportions import Share, wilson
from stats.rows import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

DELONG = "DeLong variance, interval on the logit scale"
CLUSTERED = "DeLong variance over clusters (Obuchowski), interval on the logit scale"


@dataclass(frozen=True, kw_only=True)
class Roc:
    """How well one score tells genuine from stray contexts."""

    auc: float | None
    """P(genuine scores above stray) + P(equal) / 2; None with a reason."""
    se: float | None
    """Standard error of `auc`; None with a reason."""
    low: float | None
    high: float | None
    n_genuine: int
    n_stray: int
    method: str
    reason: str | None = None
    """Why there is no number or no interval."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What given thresholds accept."""

    precision: Share | None
    """Genuine among the accepted; None where none was accepted."""
    recall: Share | None
    """Accepted among the genuine; None where there is none."""
    cosine_least: float
    gap_least: float
    accepted: int
    """Contexts at or above both thresholds."""
    n: int
    reason: str | None = None
    """Why precision or recall is None."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds chosen on labelled contexts, and what they accept of those."""

    cosine: float | None
    """Least cosine with the original; None with a reason."""
    gap: float | None
    """Least excess of that cosine over the largest with a sibling; None with a reason."""
    precision: Share | None
    recall: Share | None
    youden: float | None
    """Share of the genuine accepted less share of the strays accepted, above 0 to 1."""
    n: int
    reason: str | None = None


def roc(
    scores: npt.ArrayLike,
    genuine: npt.ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    alpha: float = 0.05,
) -> Roc:
    """Area under the ROC curve of one score, with its interval.

    A = mean over pairs of [genuine > stray] + [equal] / 2. With V_i a genuine score's mean over the strays,
    U_j a stray's over the genuine, a_k = sum (V - A) / n_genuine and b_k = sum (U - A) / n_stray over
    cluster k, the variance is I/(I-1) sum a^2 + J/(J-1) sum b^2 + 2 K/(K-1) sum a b, where I, J, K clusters
    have genuine contexts, strays, either. Each context its own cluster gives DeLong's. Ends are taken on the
    logit scale, where they stay inside (0, 1): logit A -+ z se / (A (1 - A)).

    Parameters
    ----------
    scores : (n,) array
        Higher is more likely genuine, e.g. the cosine or the gap.
    genuine : (n,) array of bool or 0 / 1
    clusters : (n,) sequence, optional
        What contexts share, e.g. their lemma. Without it they count as independent, which contexts of one
        original are not.

    Returns
    -------
    Roc
        Without an area where one class is missing; without an interval where a class is in one cluster or the
        classes do not overlap, so that the variance is 0 and says nothing.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, 837; Obuchowski (1997), Biometrics 53, 567; Pepe
    (2003), Statistical Evaluation of Medical Tests, 5.2. Witness: R's pROC and pairs counted one by one
    (`tests/reference/verification.R`).

    Examples
    --------
    >>> found = roc([0.9, 0.8, 0.4, 0.7, 0.3, 0.2], [1, 1, 1, 0, 0, 0])
    >>> round(found.auc, 4), round(found.low, 3), round(found.high, 3)
    (0.8889, 0.261, 0.995)
    >>> roc([0.9, 0.8], [1, 1]).reason
    '2 genuine and 0 stray contexts; the area needs one of each'
    """
    [x], right = _checked([scores], genuine)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha = {alpha}; must lie between 0 and 1")
    if clusters is not None and len(clusters) != len(x):
        raise ValueError(f"{len(clusters)} clusters for {len(x)} contexts; pass one a context")
    G, S = int(right.sum()), int((~right).sum())
    method = DELONG if clusters is None else CLUSTERED
    if not G or not S:
        why = f"{G} genuine and {S} stray contexts; the area needs one of each"
        return Roc(auc=None, se=None, low=None, high=None, n_genuine=G, n_stray=S, method=method, reason=why)
    below = scipy.stats.rankdata(x)
    V = (below[right] - scipy.stats.rankdata(x[right])) / S
    U = 1.0 - (below[~right] - scipy.stats.rankdata(x[~right])) / G
    A = float(V.mean())
    place = _codes(clusters, len(x))
    variance, why_not = _variance(A, V, U, place[right], place[~right])
    if variance is None:
        return Roc(auc=A, se=None, low=None, high=None, n_genuine=G, n_stray=S, method=method, reason=why_not)
    se = math.sqrt(variance)
    middle, reach = float(special.logit(A)), -float(special.ndtri(alpha / 2)) * se / (A * (1.0 - A))
    low, high = float(special.expit(middle - reach)), float(special.expit(middle + reach))
    return Roc(auc=A, se=se, low=low, high=high, n_genuine=G, n_stray=S, method=method)


def _variance(
    A: float, V: FloatArray, U: FloatArray, of_v: IntArray, of_u: IntArray
) -> tuple[float, None] | tuple[None, str]:
    """Of the area, from its components and the clusters of the genuine and of the strays; or why not."""
    I, J, K = len(np.unique(of_v)), len(np.unique(of_u)), len(np.union1d(of_v, of_u))  # noqa: E741
    if min(I, J) < 2:
        return None, f"genuine contexts in {I} clusters, strays in {J}; an interval needs two of each"
    size = int(max(of_v.max(), of_u.max())) + 1
    a = np.bincount(of_v, V - A, minlength=size) / len(V)
    b = np.bincount(of_u, U - A, minlength=size) / len(U)
    found = float(I / (I - 1) * a @ a + J / (J - 1) * b @ b + 2.0 * K / (K - 1) * a @ b)
    if found <= 1e-24 or not 0.0 < A < 1.0:
        return None, f"area {A:g} with a variance of 0, which says nothing of other contexts"
    return found, None


def judged(
    cosine: npt.ArrayLike,
    gap: npt.ArrayLike,
    genuine: npt.ArrayLike,
    *,
    cosine_least: float = 0.5,
    gap_least: float = 0.05,
    alpha: float = 0.05,
) -> Judged:
    """Precision and recall of given thresholds, with Wilson's intervals, which take contexts as independent.

    Parameters
    ----------
    cosine, gap : (n,) arrays
        cos(c, original), and that less the largest cos(c, sibling).
    genuine : (n,) array of bool or 0 / 1
    cosine_least, gap_least : float
        A context is accepted at or above both.

    Examples
    --------
    >>> found = judged([0.9, 0.6, 0.7, 0.2], [0.3, 0.1, 0.0, 0.2], [1, 0, 1, 1])
    >>> found.precision.estimate, round(found.recall.estimate, 3), found.accepted
    (0.5, 0.333, 2)
    >>> judged([0.3, 0.4], [0.2, 0.1], [1, 0]).reason
    'none of 2 contexts was accepted, so there is no precision'
    """
    (c, g), right = _checked([cosine, gap], genuine)
    if not (math.isfinite(cosine_least) and math.isfinite(gap_least)):
        raise ValueError(f"thresholds {cosine_least}, {gap_least}; both must be finite")
    taken = (c >= cosine_least) & (g >= gap_least)
    both, accepted, G = int((taken & right).sum()), int(taken.sum()), int(right.sum())
    why = [] if accepted else [f"none of {len(c)} contexts was accepted, so there is no precision"]
    why += [] if G else [f"none of {len(c)} contexts is genuine, so there is no recall"]
    return Judged(
        precision=wilson(both, accepted, alpha=alpha) if accepted else None,
        recall=wilson(both, G, alpha=alpha) if G else None,
        cosine_least=cosine_least,
        gap_least=gap_least,
        accepted=accepted,
        n=len(c),
        reason="; ".join(why) or None,
    )


def calibrate(
    cosine: npt.ArrayLike, gap: npt.ArrayLike, genuine: npt.ArrayLike, *, alpha: float = 0.05
) -> Thresholds:
    """Both thresholds with the largest Youden J among all pairs of observed values.

    J = share of the genuine accepted - share of the strays accepted. Of equal J the higher cosine is taken,
    then the higher gap. J, precision and recall are those of the contexts given and so too high; ask `judged`
    about others.

    Returns
    -------
    Thresholds
        None with a reason where a class is missing or no pair accepts more of the genuine than of the strays.

    References
    ----------
    Youden (1950), Cancer 3, 32. Witness: every pair tried, and pROC's `coords` for one threshold
    (`tests/reference/verification.R`).

    Examples
    --------
    >>> found = calibrate([0.9, 0.8, 0.7, 0.6, 0.3], [0.3, 0.2, 0.0, 0.1, 0.2], [1, 1, 0, 1, 0])
    >>> found.cosine, found.gap, found.youden, found.precision.estimate, found.recall.estimate
    (0.6, 0.1, 1.0, 1.0, 1.0)
    """
    (c, g), right = _checked([cosine, gap], genuine)
    G, S = int(right.sum()), int((~right).sum())
    if G and S:
        J, cosine_least, gap_least = _largest_youden(c, g, right)
        if J > 0.0:
            told = judged(c, g, right, cosine_least=cosine_least, gap_least=gap_least, alpha=alpha)
            return Thresholds(
                cosine=cosine_least,
                gap=gap_least,
                precision=told.precision,
                recall=told.recall,
                youden=J,
                n=len(c),
            )
        why = f"no thresholds accept more of the {G} genuine than of the {S} stray contexts"
    else:
        why = f"{G} genuine and {S} stray contexts; thresholds need one of each"
    return Thresholds(cosine=None, gap=None, precision=None, recall=None, youden=None, n=len(c), reason=why)


def _largest_youden(c: FloatArray, g: FloatArray, right: BoolArray) -> tuple[float, float, float]:
    """J and its thresholds: contexts enter by falling cosine, sums over gaps are kept as whole numbers."""
    G, S = int(right.sum()), int((~right).sum())
    weight = np.where(right, S, -G)  # J G S of one context
    gaps, place = np.unique(g, return_inverse=True)
    at = np.zeros(len(gaps), dtype=np.int64)
    best = (-G * S - 1, 0.0, 0.0)
    for level in np.unique(c)[::-1]:
        entering = c == level
        np.add.at(at, place[entering], weight[entering])
        reached = at[::-1].cumsum()  # by falling gap
        k = int(reached.argmax())  # the first, so the highest gap
        if reached[k] > best[0]:
            best = (int(reached[k]), float(level), float(gaps[len(gaps) - 1 - k]))
    return best[0] / (G * S), best[1], best[2]


def _checked(scores: Sequence[npt.ArrayLike], genuine: npt.ArrayLike) -> tuple[list[FloatArray], BoolArray]:
    """Finite (n,) scores and as many labels."""
    found, labels = [np.asarray(x, dtype=np.float64) for x in scores], np.asarray(genuine)
    if labels.ndim != 1 or not labels.size or any(x.shape != labels.shape for x in found):
        shapes = ", ".join(str(x.shape) for x in found)
        raise ValueError(f"scores {shapes} and {labels.shape} labels; pass (n,) of each, at least one")
    wrong = sum(x.size - int(np.isfinite(x).sum()) for x in found)
    if wrong:
        raise ValueError(f"{wrong} scores of {len(labels)} contexts are not finite; score every context")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels {sorted(set(labels.tolist()))[:5]}; allowed: True and False, or 1 and 0")
    return found, labels.astype(np.bool_)


def _codes(clusters: Sequence[Hashable] | None, n: int) -> IntArray:
    """(n,) number of each context's cluster; its own place without clusters."""
    numbers: dict[Hashable, int] = {}
    names = range(n) if clusters is None else clusters
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
