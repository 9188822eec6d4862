"""How many directions of a spectrum count: optimal hard threshold, knee, pooled energy threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from models.spectra import FloatArray, energy_rank

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FLAT = 1e-9
"""Distance from the chord, in units of sigma_1, below which a spectrum is straight and has no knee."""


def known_noise_coefficient(beta: float) -> float:
    """lambda(beta): optimal hard threshold in units of sqrt(n) times the noise's standard deviation.

    sqrt(2 (beta + 1) + 8 beta / (beta + 1 + sqrt(beta^2 + 14 beta + 1))) for an m by n matrix of independent
    noise on a low-rank signal, beta = m / n <= 1, m and n large.

    >>> math.isclose(known_noise_coefficient(1.0), 4 / math.sqrt(3), rel_tol=1e-15)
    True

    Raises
    ------
    ValueError
        beta outside (0, 1].

    References
    ----------
    Gavish & Donoho (2014), The optimal hard threshold for singular values is 4/sqrt(3), IEEE Trans. Inf.
    Theory 60(8), eq. 11.
    """
    if not 0.0 < beta <= 1.0:
        raise ValueError(f"aspect ratio beta = {beta}; give the shorter side over the longer one, in (0, 1]")
    root = math.sqrt(beta * beta + 14.0 * beta + 1.0)
    return math.sqrt(2.0 * (beta + 1.0) + 8.0 * beta / (beta + 1.0 + root))


@lru_cache(maxsize=256)
def unknown_noise_coefficient(beta: float) -> float:
    """omega(beta) = lambda(beta) / sqrt(mu): optimal hard threshold in units of the median singular value.

    mu is the median of the Marchenko-Pastur law. With x = 1 + beta + 2 sqrt(beta) cos t its mass above x is
    the integral of (2 / pi) sin(u)^2 / (1 + beta + 2 sqrt(beta) cos u) over u from 0 to t, smooth up to the
    median (64 Gauss nodes); t is found by bisection.

    >>> round(unknown_noise_coefficient(1.0), 3)
    2.858
    """
    lam = known_noise_coefficient(beta)

    def x(t: FloatArray | float) -> FloatArray:
        return np.asarray(1.0 + beta + 2.0 * math.sqrt(beta) * np.cos(t))

    low, high = 0.0, math.pi
    for _ in range(60):  # pi / 2^60 is below the spacing of floats
        middle = (low + high) / 2.0
        u = middle / 2.0 * (NODES + 1.0)
        above = middle / 2.0 * float(WEIGHTS @ (2.0 / math.pi * np.sin(u) ** 2 / x(u)))
        low, high = (middle, high) if above < 0.5 else (low, middle)
    return lam / math.sqrt(float(x(low)))


def hard_threshold_rank(sigma: ArrayLike, *, rank: int, d_out: int, d_in: int) -> int:
    """Number of singular values above omega(beta) times their median.

    BA has at most r singular values that training can move; all others are 0 by construction, not by noise,
    and with r below half of a side the median over all would be 0. So the matrix that is taken as signal and
    noise is the core R_b R_a^T, min(d_out, r) by min(d_in, r): beta is its aspect ratio, 1 unless r exceeds a
    side, and the median is that of its values. Assumed: the core is a signal of rank below half its size plus
    independent noise of one unknown variance, and large enough for the limit law. A product of trained
    factors need be neither, so this is a rule of thumb here and not an optimum.

    >>> hard_threshold_rank([9.0, 8.0, 1.1, 1.0, 0.9], rank=5, d_out=20, d_in=30)
    2

    Raises
    ------
    ValueError
        Not the min(r, d_out, d_in) values of such a module.
    """
    values = np.asarray(sigma, dtype=np.float64)
    sides = sorted((min(d_out, rank), min(d_in, rank)))
    if values.shape != (sides[0],):
        raise ValueError(f"{values.size} singular values of a core of {sides[0]} x {sides[1]}")
    beta = sides[0] / sides[1]
    return int((values > unknown_noise_coefficient(beta) * np.median(values)).sum())


def knee_rank(sigma: ArrayLike) -> int:
    """Number of singular values up to and with the one farthest from the chord of first and last.

    The distance is taken on either side of the chord; scaling an axis does not move its maximum. A spectrum
    on its chord, of one or two values or falling evenly, has no knee and keeps all of them. The first of
    equally far points counts.

    >>> knee_rank([10.0, 9.0, 2.0, 1.0, 0.5]), knee_rank([3.0, 2.0, 1.0])
    (3, 3)

    Raises
    ------
    ValueError
        Values that are not falling from above 0.
    """
    values = np.asarray(sigma, dtype=np.float64)
    if values.size == 0 or values[0] <= 0.0 or (np.diff(values) > 0.0).any():
        raise ValueError(f"singular values {values.tolist()}; give falling ones, the first above 0")
    chord = np.linspace(values[0], values[-1], values.size)
    distance = np.abs(chord - values) / values[0]
    if distance.max() <= FLAT:
        return int(values.size)
    return int(np.argmax(distance >= distance.max() * (1.0 - FLAT))) + 1


def energy_threshold(values: Sequence[FloatArray], share: float) -> float:
    """The highest threshold at which the values at or above it hold a share of the pooled sum of squares.

    Infinite when every value is 0.

    >>> energy_threshold([np.array([3.0, 0.5]), np.array([2.0])], 0.9)
    2.0
    """
    pooled = np.sort(np.concatenate(values))[::-1]
    kept = energy_rank(pooled, share)
    return float(pooled[kept - 1]) if kept else math.inf
