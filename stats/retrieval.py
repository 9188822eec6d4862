"""How well scores find a candidate with the query's sense: ranks, top k, margins, chance and collapse.

Candidates are ranked by score, highest first, ties in file order, so a scorer that ties everything would be
judged by how the file was written. One that does so in every item, has no number for a candidate, or repeats
the answer key, is an error and never a result. `Ranked.tied` says how often file order decided the rank;
`Ranked.top_expected` is top k with those ties broken by chance.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.proportions import Share, wilson
from stats.rows import FloatArray, IntArray

COLLAPSED = 0.01
"""Margins of cosine scores that spread less than this (SD over items) tell the items apart no more."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Key:
    """Which candidates are right, items padded to the longest list."""

    sizes: IntArray
    """(I,) candidates of each item."""
    correct: BoolArray
    """(I, C); False in the padding."""

    @property
    def present(self) -> BoolArray:
        """(I, C) candidates that exist."""
        return np.arange(self.correct.shape[1]) < self.sizes[:, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """One scorer's answers; (..., I) arrays, where leading axes are seeds."""

    best_rank: IntArray
    """(..., I) place of the best correct candidate, 1 the first, ties in file order."""
    margin: FloatArray
    """(..., I) best correct score minus best wrong score, in units of the scores."""
    above: IntArray
    """(..., I) candidates that score strictly above the best correct one."""
    level: IntArray
    """(..., I) candidates at its score, itself included."""
    level_correct: IntArray
    """(..., I) how many of those are correct."""

    def top(self, k: int) -> FloatArray:
        """(..., I) 1 where a correct candidate is among the first k, else 0."""
        return (self.best_rank <= k).astype(np.float64)

    @property
    def reciprocal_rank(self) -> FloatArray:
        """(..., I) 1 / best_rank; its mean is the MRR."""
        return 1.0 / self.best_rank

    @property
    def tied(self) -> FloatArray:
        """(..., I) 1 where a wrong candidate scores as high as the best correct one, else 0."""
        return (self.level > self.level_correct).astype(np.float64)

    def top_expected(self, k: int) -> FloatArray:
        """(..., I) probability of a hit in the first k when ties are broken by chance."""
        return np.where(self.above >= k, 0.0, chance_top(self.level, self.level_correct, k - self.above))


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Spread of the margins over items (and seeds, if several were given)."""

    mean: float
    sd: float | None
    """n - 1; None with one item."""
    p5: float
    p50: float
    p95: float
    n: int

    @property
    def collapsed(self) -> bool | None:
        """The alarm: sd below COLLAPSED. None where there is no sd."""
        return None if self.sd is None else self.sd < COLLAPSED


def answer_key(correct: Sequence[Collection[int]], sizes: Sequence[int]) -> Key:
    """Check and pad the right answers.

    Parameters
    ----------
    correct : sequence of collections of int
        Indices of the candidates with the query's sense; one or more of each item, and never all.
    sizes : sequence of int
        Candidates of each item.

    Raises
    ------
    ValueError
        No items, an index out of range or twice, an item in which all or none are right.

    Examples
    --------
    >>> key = answer_key([(1,), (0, 2)], [2, 4])
    >>> key.correct.astype(int).tolist()
    [[0, 1, 0, 0], [1, 0, 1, 0]]
    """
    if not len(sizes) or len(sizes) != len(correct):
        raise ValueError(f"{len(correct)} answers for {len(sizes)} items; pass one each, at least one")
    table = np.zeros((len(sizes), max(sizes)), dtype=np.bool_)
    for item, (right, size) in enumerate(zip(correct, sizes, strict=True)):
        if len(set(right)) < len(right) or not all(0 <= place < size for place in right):
            raise ValueError(
                f"item {item}: correct {sorted(right)} of {size} candidates; indices from 0, once"
            )
        if not 0 < len(right) < size:
            raise ValueError(f"item {item}: {len(right)} of {size} candidates are correct; some, never all")
        table[item, list(right)] = True
    return Key(sizes=np.array(sizes, dtype=np.int64), correct=table)


def ranked(scores: FloatArray | Sequence[npt.ArrayLike] | None, key: Key) -> Ranked:
    """Rank each item's candidates by score, highest first, ties in file order.

    Parameters
    ----------
    scores : (..., I, C) array, or I sequences of each item's scores
        Higher is more alike. In an array the padding may hold anything.
    key : Key

    Raises
    ------
    ValueError
        No scores, or not of these items; a score that is not finite; candidates tied in every item; scores
        that only say which candidates are right.

    References
    ----------
    Voorhees (1999), TREC-8 question answering track (reciprocal rank). Witness: R's `order`, which is stable
    (`tests/reference/retrieval.R`).

    Examples
    --------
    >>> key = answer_key([(1,), (0, 2)], [2, 4])
    >>> found = ranked([[0.9, 0.4], [0.1, 0.8, 0.7, 0.8]], key)
    >>> found.best_rank.tolist(), found.margin.round(2).tolist(), float(found.reciprocal_rank.mean())
    ([2, 3], [-0.5, -0.1], 0.41666666666666663)
    >>> ranked([[0.5, 0.5], [1.0, 1.0, 1.0, 1.0]], key)
    Traceback (most recent call last):
    ValueError: all candidates tie in each of 2 items; a constant scorer ranks by file order alone
    """
    s, there = _padded(scores, key), key.present
    _refuse_constant(s, key)
    _refuse_echo(s, key)
    right = np.where(key.correct, s, -np.inf)
    wrong = np.where(there & ~key.correct, s, -np.inf)
    best = right.max(axis=-1)
    first = right.argmax(axis=-1)  # the earliest of tied correct ones
    tie = there & (s == best[..., None])
    before = np.arange(s.shape[-1]) < first[..., None]
    above = (there & (s > best[..., None])).sum(axis=-1)
    return Ranked(
        best_rank=1 + above + (tie & before).sum(axis=-1),
        margin=best - wrong.max(axis=-1),
        above=above,
        level=tie.sum(axis=-1),
        level_correct=(tie & key.correct).sum(axis=-1),
    )


def _padded(scores: FloatArray | Sequence[npt.ArrayLike] | None, key: Key) -> FloatArray:
    """(..., I, C) finite scores, 0 in the padding."""
    items, width = key.correct.shape
    if scores is None or not len(scores):
        raise ValueError(f"no scores for {items} items; a missing scorer has no result")
    if isinstance(scores, np.ndarray) and scores.ndim >= 2:
        if scores.shape[-2:] != (items, width):
            raise ValueError(
                f"scores {scores.shape}; the last axes must be {(items, width)}, items x candidates"
            )
        s = np.where(key.present, np.asarray(scores, dtype=np.float64), 0.0)
    else:
        lists = [np.asarray(own, dtype=np.float64) for own in scores]
        if [own.shape for own in lists] != [(int(size),) for size in key.sizes]:
            found = [own.shape for own in lists][:5]
            raise ValueError(f"{len(lists)} items of shapes {found}...; pass one score a candidate and item")
        s = np.zeros((items, width))
        s[key.present] = np.concatenate(lists)
    wrong = ~np.isfinite(s)
    if wrong.any():
        place = int(np.argwhere(wrong)[0][-2])
        raise ValueError(
            f"{int(wrong.sum())} scores are not finite, the first in item {place}; mend the scorer"
        )
    return s


def _refuse_constant(s: FloatArray, key: Key) -> None:
    span = np.where(key.present, s, -np.inf).max(axis=-1) - np.where(key.present, s, np.inf).min(axis=-1)
    constant = (span == 0.0).all(axis=-1)
    if constant.any():
        which = f" of seed {np.argwhere(constant)[0].tolist()}" if constant.ndim else ""
        raise ValueError(
            f"all candidates tie in each of {len(key.sizes)} items{which}; a constant scorer ranks by file "
            "order alone"
        )


def _refuse_echo(s: FloatArray, key: Key) -> None:
    """Right candidates alike and wrong ones alike, in every item: the key and not a measurement.

    With two candidates an item this holds of any scorer that is right, so there the two values must also be
    the same in all items.
    """
    wrong = key.present & ~key.correct
    ends = []
    for mask in (key.correct, wrong):
        low, high = np.where(mask, s, np.inf).min(axis=-1), np.where(mask, s, -np.inf).max(axis=-1)
        ends.append((low, high))
    (right_low, right_high), (wrong_low, wrong_high) = ends
    echo = ((right_low == right_high) & (wrong_low == wrong_high) & (right_low > wrong_high)).all(axis=-1)
    if not (key.sizes > 2).any():
        echo &= (np.ptp(right_low, axis=-1) == 0.0) & (np.ptp(wrong_low, axis=-1) == 0.0)
        echo &= len(key.sizes) > 1
    if np.any(echo):
        raise ValueError(
            f"in each of {len(key.sizes)} items the right candidates score alike and so do the others: these "
            "are the answers, not scores; the scorer must not see which candidate is right"
        )


def chance_top(sizes: npt.ArrayLike, correct: npt.ArrayLike, k: npt.ArrayLike) -> FloatArray:
    """Probability that a random order puts a correct candidate among the first k: 1 - C(n - c, k) / C(n, k).

    Parameters
    ----------
    sizes, correct, k : arrays of int that broadcast
        n >= 1 candidates, of which 0 <= c <= n are correct; k >= 0, more than n counts as n.

    References
    ----------
    Hypergeometric distribution. Witness: R's `dhyper` (`tests/reference/retrieval.R`).

    Examples
    --------
    >>> chance_top(10, 1, [1, 3]).round(4).tolist(), chance_top(7, 2, 3).round(4).tolist()
    ([0.1, 0.3], 0.7143)
    """
    n, c, k = np.broadcast_arrays(*(np.asarray(x, dtype=np.int64) for x in (sizes, correct, k)))
    if (n < 1).any() or (c < 0).any() or (c > n).any():
        raise ValueError("sizes must be 1 or more and correct between 0 and the size")
    miss = np.ones(n.shape)
    for j in range(int(np.clip(k, 0, n).max(initial=0))):  # the j-th draw misses too
        miss = np.where(j < k, miss * np.maximum(0, n - c - j) / np.maximum(1, n - j), miss)
    return 1.0 - miss


def chance_reciprocal_rank(size: int, correct: int) -> float:
    """Expected 1 / rank of the best correct candidate in random order.

    sum_r P(best = r) / r with P(best = r) = C(n - r, c - 1) / C(n, c).

    Examples
    --------
    >>> round(chance_reciprocal_rank(10, 1), 4)  # (1 + 1/2 + ... + 1/10) / 10
    0.2929
    """
    if not 0 < correct <= size:
        raise ValueError(f"{correct} correct of {size}; allowed: 1 to the size")
    places = range(1, size - correct + 2)
    return sum(math.comb(size - r, correct - 1) / r for r in places) / math.comb(size, correct)


def margins(margin: FloatArray) -> Margins:
    """Mean, SD and percentiles of margins, with the collapse alarm.

    Percentiles interpolate between order statistics (R's type 7).

    Examples
    --------
    >>> found = margins(np.array([0.001, 0.002, 0.003, 0.004]))
    >>> round(found.mean, 4), found.p50, found.collapsed
    (0.0025, 0.0025, True)
    """
    x = np.asarray(margin, dtype=np.float64).ravel()
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"{x.size} margins, {int(np.isfinite(x).sum())} finite; pass finite ones")
    p5, p50, p95 = np.quantile(x, [0.05, 0.5, 0.95])
    return Margins(
        mean=float(x.mean()),
        sd=float(x.std(ddof=1)) if x.size > 1 else None,
        p5=float(p5),
        p50=float(p50),
        p95=float(p95),
        n=int(x.size),
    )


def killer_share(hits: npt.ArrayLike, *, alpha: float = 0.05) -> Share:
    """Share of killer items that one network answers rightly, with Wilson's interval.

    Killers are few, one or two a lemma, and are taken as independent; with many a lemma use `two_way`.

    Examples
    --------
    >>> share = killer_share([1, 0, 0, 0, 1, 0, 0, 0])
    >>> share.estimate, round(share.low, 3), round(share.high, 3)
    (0.25, 0.071, 0.591)
    """
    x = np.asarray(hits, dtype=np.float64)
    if x.ndim != 1 or not x.size or not np.isin(x, (0.0, 1.0)).all():
        raise ValueError(f"hits of shape {x.shape}; pass 0 or 1 for each of one or more items of one network")
    return wilson(int(x.sum()), int(x.size), alpha=alpha)


def by_tier(values: FloatArray, tiers: Sequence[int]) -> Mapping[int, FloatArray]:
    """(..., I_tier) values of each tier, tiers in ascending order.

    Examples
    --------
    >>> {tier: float(own.mean()) for tier, own in by_tier(np.array([1.0, 0.0, 1.0]), [1, 2, 1]).items()}
    {1: 1.0, 2: 0.0}
    """
    code = np.asarray(tiers, dtype=np.int64)
    if code.shape != values.shape[-1:]:
        raise ValueError(f"{code.shape} tiers for {values.shape} values; pass one an item")
    return {int(tier): values[..., code == tier] for tier in np.unique(code)}
