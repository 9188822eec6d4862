"""How dangerous a bundle is to an encoder, and the tiers that follow: hard ones are the highest percentiles.

    danger = max over negatives of cos(anchor, negative) - cos(anchor, positive)

Above 0 a negative is nearer than the positive. Of a set of bundles, tier 3 is danger at its 97th percentile
or above, tier 2 at the 85th or above, the others tier 1: 85, 12 and 3 % where no two scores are equal.

Vectors are given, `models.sense_encoder` makes them; nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.sense_items import Bundle, TextItem

Vector = NDArray[np.floating]

PERCENTS = (85, 97)
"""Percentiles from which tier 2 and tier 3 begin."""


@dataclass(frozen=True, kw_only=True)
class DangerTiers:
    """Tiers of scores."""

    tiers: tuple[int, ...]
    """1, 2 or 3 for each score, in their order."""
    p85: float
    """Smallest danger of tier 2."""
    p97: float
    """Smallest danger of tier 3."""
    shares: tuple[float, float, float]
    """Of tiers 1, 2 and 3; other than .85, .12, .03 where scores are equal."""


def danger(anchor: Vector, positive: Vector, negatives: Vector) -> float:
    """max_k cos(anchor, negatives_k) - cos(anchor, positive), from -2 to 2.

    Parameters
    ----------
    anchor, positive
        (D,)
    negatives
        (K, D), K at least 1.

    Raises
    ------
    ValueError
        For shapes that do not fit, no negatives, a vector of length 0 or one that is not finite.

    Examples
    --------
    >>> round(danger(np.array([1.0, 0.0]), np.array([0.0, 2.0]), np.array([[3.0, 3.0], [-1.0, 0.0]])), 4)
    0.7071
    """
    rows = [np.asarray(one, dtype=np.float64) for one in (anchor, positive, negatives)]
    shapes = [one.shape for one in rows]
    wide = len(shapes[0]) == 1 and shapes[0] == shapes[1] == shapes[2][1:] and shapes[0][0] > 0
    if not wide or not shapes[2][0]:
        raise ValueError(
            f"anchor, positive and negatives have shapes {shapes}; they must be (D,), (D,) and (K, D) with K "
            "at least 1"
        )
    first, right, wrong = _unit(rows[0]), _unit(rows[1]), _unit(rows[2])
    return float((wrong @ first).max() - right @ first)


def danger_scores(bundles: Sequence[Bundle], vectors: Mapping[TextItem, Vector]) -> tuple[float | None, ...]:
    """The danger of each bundle; None for one without negatives, of which it is not defined.

    Parameters
    ----------
    vectors
        A (D,) vector of every text of the bundles.

    Raises
    ------
    ValueError
        With the bundle's id: for a text without a vector, and as `danger`.
    """
    found: list[float | None] = []
    for bundle in bundles:
        missing = [one.text for one in bundle.texts() if one not in vectors]
        if missing:
            raise ValueError(
                f"bundle {bundle.id!r}: text {missing[0][:60]!r} has no vector; encode all texts"
            )
        first, right, *wrong = (vectors[one] for one in bundle.texts())
        try:
            found.append(danger(first, right, np.stack(wrong)) if wrong else None)
        except ValueError as error:
            raise ValueError(f"bundle {bundle.id!r}: {error}") from error
    return tuple(found)


def tiers(scores: Sequence[float]) -> DangerTiers:
    """Tier 3 for a score at the 97th percentile or above, tier 2 at the 85th or above, else 1.

    With x sorted ascending and h = (n - 1) p, the percentile is x[floor h] + (h - floor h) (x[floor h + 1] -
    x[floor h]): type 7 of Hyndman and Fan (1996), doi:10.2307/2684934, the default of R and NumPy.

    Equal scores are of one tier, so more than 3 % may be of tier 3.

    Raises
    ------
    ValueError
        For fewer than two different scores, which have no order, or one that is not finite.

    Examples
    --------
    >>> found = tiers([i / 100 for i in range(101)])
    >>> found.p85, found.p97, [found.tiers.count(tier) for tier in (1, 2, 3)]
    (0.85, 0.97, [85, 12, 4])
    """
    values = [float(score) for score in scores]
    bad = [place for place, value in enumerate(values) if not math.isfinite(value)]
    if bad:
        raise ValueError(f"score {bad[0]} is {values[bad[0]]}; danger scores are finite numbers")
    if len(set(values)) < 2:
        raise ValueError(
            f"{len(values)} scores with {len(set(values))} different values; tiers need at least 2 different "
            "ones: give more bundles, or an encoder that tells them apart"
        )
    middle, high = map(float, np.percentile(values, PERCENTS))
    told = tuple(3 if value >= high else 2 if value >= middle else 1 for value in values)
    one, two, three = (told.count(tier) / len(told) for tier in (1, 2, 3))
    return DangerTiers(tiers=told, p85=middle, p97=high, shares=(one, two, three))


def tiered(bundles: Sequence[Bundle], scores: Sequence[float | None]) -> tuple[Bundle, ...]:
    """The bundles with these danger scores and the tiers that follow; neither where a score is None.

    Raises
    ------
    ValueError
        For another number of scores than bundles, and as `tiers`.
    """
    if len(scores) != len(bundles):
        raise ValueError(f"{len(scores)} scores for {len(bundles)} bundles; give one each")
    known = iter(tiers([score for score in scores if score is not None]).tiers)
    return tuple(
        replace(bundle, danger_score=score, difficulty_tier=None if score is None else next(known))
        for bundle, score in zip(bundles, scores, strict=True)
    )


def _unit(rows: Vector) -> Vector:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("a vector is not finite or of length 0; a cosine needs a direction")
    found: Vector = rows / lengths
    return found
