"""Fisher's linear discriminant from class means and one scatter matrix, and the area under a ROC curve.

A label permutation changes class means and no observation, so the discriminant is fitted from moments, many
labellings at once: leading axes of every array are labellings. Shrinkage is towards the diagonal, which
makes the classifier the same in any unit of any feature; towards the identity it would not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stats.rows import FloatArray, IntArray

SHRINKAGE = 0.5
"""Share of each within-class covariance that is taken away; variances stay. A few windows of steps that
depend on each other tell covariances badly: of 60 simulated studies each with a state effect of 2 SD beside
one of 1 SD on the common channels, .17 found it with .1, .38 with .5, .52 with 1. Channels of the simulation
are independent, which favours 1; those of a training are not."""
LEAST_VARIANCE = 1e-12
"""Share of a feature's total variance that its classes have at least: a perfect feature stays finite."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Discriminant:
    """Linear scores of classes: log posterior up to a constant, at equal priors."""

    weights: FloatArray
    """(..., C, F)"""
    offsets: FloatArray
    """(..., C)"""

    def scores(self, x: FloatArray) -> FloatArray:
        """(n, F) observations -> (..., n, C) scores."""
        found: FloatArray = x @ np.swapaxes(self.weights, -1, -2) + self.offsets[..., None, :]
        return found

    def posterior(self, x: FloatArray) -> FloatArray:
        """(n, F) observations -> (..., n, C) probabilities of the classes."""
        scores = self.scores(x)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        found: FloatArray = shares / shares.sum(axis=-1, keepdims=True)
        return found


def from_moments(
    means: FloatArray,
    counts: FloatArray,
    scatter: FloatArray,
    *,
    shrinkage: float = SHRINKAGE,
) -> Discriminant:
    """Discriminant of classes with these means and this total scatter.

    With m = sum n_c m_c / n, W = scatter - sum n_c (m_c - m)(m_c - m)' and
    S = [(1 - shrinkage) W + shrinkage diag W] / (n - C), the score of class c is
    m_c' S^-1 x - m_c' S^-1 m_c / 2. Inside, features are divided by their total SD; one without spread has
    weight 0.

    Parameters
    ----------
    means : (..., C, F) array
    counts : (..., C) array
        Observations of each class, n in all, more than C.
    scatter : (..., F, F) array
        Sum over all observations of (x - m)(x - m)'.
    shrinkage : float
        From 0 (Fisher's discriminant) to 1 (features taken as independent).

    Raises
    ------
    ValueError
        An empty class, no more observations than classes, a shrinkage outside [0, 1].

    References
    ----------
    Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, 4.3 and 18.3.1; shrinkage to
    the diagonal: Schaefer & Strimmer (2005), Stat. Appl. Genet. Mol. Biol. 4, 32, target D. Witness of the
    case without shrinkage: R's `MASS::lda` (`tests/reference/separability.R`).

    Examples
    --------
    >>> x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [3.0, 1.0], [5.0, 1.0], [3.0, 3.0]])
    >>> halves = x.reshape(2, 3, 2)
    >>> centred = x - x.mean(axis=0)
    >>> found = from_moments(halves.mean(axis=1), np.array([3.0, 3.0]), centred.T @ centred, shrinkage=0.0)
    >>> (found.weights[1] - found.weights[0]).round(6).tolist()
    [3.5, 2.5]
    """
    classes = means.shape[-2]
    total = counts.sum(axis=-1)
    if not 0.0 <= shrinkage <= 1.0:
        raise ValueError(f"shrinkage {shrinkage}; allowed: 0 to 1")
    if not (counts > 0.0).all() or not (total > classes).all():
        raise ValueError(
            f"counts {np.unique(counts).tolist()} in {classes} classes; give each class an observation, and "
            "more observations than classes"
        )
    sd = np.sqrt(np.maximum(np.diagonal(scatter, axis1=-2, axis2=-1), 0.0) / total[..., None])  # (..., F)
    scale = np.where(sd > 0.0, 1.0 / np.where(sd > 0.0, sd, 1.0), 0.0)
    centre = (counts[..., None] * means).sum(axis=-2) / total[..., None]
    away = (means - centre[..., None, :]) * scale[..., None, :]  # (..., C, F)
    between = np.einsum("...c,...cf,...cg->...fg", counts, away, away)
    within = scatter * scale[..., :, None] * scale[..., None, :] - between
    own = np.maximum(np.diagonal(within, axis1=-2, axis2=-1), 0.0)
    eye = np.eye(means.shape[-1])
    own = np.where(sd > 0.0, own + LEAST_VARIANCE * total[..., None], 1.0)
    pooled = (1.0 - shrinkage) * within * (1.0 - eye) + own[..., None, :] * eye
    solved = np.linalg.solve(pooled / (total - classes)[..., None, None], np.swapaxes(away, -1, -2))
    weights = np.swapaxes(solved, -1, -2)  # (..., C, F) in SDs, about the centre
    offsets = -0.5 * (weights * away).sum(axis=-1)
    weights = weights * scale[..., None, :]
    return Discriminant(weights=weights, offsets=offsets - (weights * centre[..., None, :]).sum(axis=-1))


def discriminant(x: FloatArray, labels: IntArray, *, shrinkage: float = SHRINKAGE) -> Discriminant:
    """Discriminant of observations (n, F) with labels 0, 1, ... (n,); see `from_moments`.

    Examples
    --------
    >>> x = np.array([[0.0], [2.0], [4.0], [6.0]])
    >>> found = discriminant(x, np.array([0, 0, 1, 1]), shrinkage=0.0)
    >>> found.posterior(np.array([[3.0]])).tolist()
    [[0.5, 0.5]]
    """
    if x.ndim != 2 or labels.shape != (len(x),) or not np.isfinite(x).all():
        raise ValueError(f"shapes {x.shape} and {labels.shape}; pass finite (n, F) values and (n,) labels")
    ids = np.arange(int(labels.max()) + 1)
    members = (labels == ids[:, None]).astype(np.float64)  # (C, n)
    counts = members.sum(axis=1)
    means = members @ x / np.maximum(counts, 1.0)[:, None]
    centred = x - x.mean(axis=0)
    return from_moments(means, counts, centred.T @ centred, shrinkage=shrinkage)


def auc(positive: FloatArray, negative: FloatArray) -> FloatArray:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2 over all pairs.

    Parameters
    ----------
    positive : (..., n1) array
    negative : (..., n0) array
        Scores; leading axes alike.

    Returns
    -------
    (...) array
        From 0 to 1; 1/2 where the scores say nothing.

    References
    ----------
    Hanley & McNeil (1982), Radiology 143, 29; equal to U / (n1 n0) of Mann and Whitney. Witness: R's
    `wilcox.test` (`tests/reference/separability.R`).

    Examples
    --------
    >>> float(auc(np.array([3.0, 2.0, 2.0]), np.array([1.0, 2.0])))
    0.8333333333333333
    """
    if not positive.shape[-1] or not negative.shape[-1]:
        raise ValueError(f"shapes {positive.shape} and {negative.shape}; give each class a score or more")
    signs = np.sign(positive[..., :, None] - negative[..., None, :])
    found: FloatArray = np.asarray(0.5 + 0.5 * signs.mean(axis=(-2, -1)), dtype=np.float64)
    return found
