"""Which rank each module gets from an audit: the policies that are compared, at one budget if asked.

A policy reads a wish off each module's spectrum, a number of directions, and rounds it up to the next allowed
rank. With a budget every wish is multiplied by one common factor, the largest whose plan costs no more than
the budget. Then each module may rise by one allowed rank as long as that fits, the one whose wish exceeds its
rank by the largest ratio first, among equals the one of largest gain; and one more if that ends nearer to the
budget. `global_sigma` has its threshold in place of the factor.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from models.rank_wishes import energy_threshold, hard_threshold_rank, knee_rank
from models.spectra import FloatArray, ModuleAudit, checked_audits

ALLOWED = (1, 2, 4, 8, 16, 32, 64)
"""Ranks that a policy gives; a probe's rank between two of them stands for the upper one."""
TIE = 1e-9
"""Relative slack with which a wish counts as an allowed rank: an effective rank of 4.0000000001 is 4."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One adaptable module's place and size."""

    name: str
    """Full module name."""
    projection: str
    """Last part of the name, such as `q_proj`."""
    d_out: int
    """Rows of its weight."""
    d_in: int
    """Columns of its weight."""

    def __post_init__(self) -> None:
        if min(self.d_out, self.d_in) < 1:
            raise ValueError(f"{self.name}: {self.d_out} x {self.d_in}; give sides of 1 or more")

    @property
    def unit_cost(self) -> int:
        """Parameters of one rank: a row of A and a column of B."""
        return self.d_in + self.d_out


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """A rank for every module of an adapter."""

    ranks: Mapping[str, int]
    """Module name -> rank, 1 or more."""
    parameters: int
    """Of the whole adapter: sum of rank times unit cost."""
    notes: tuple[str, ...] = ()
    """What a reader must know of it, such as modules without energy or a budget that is missed."""


class Policy(Protocol):
    """A rule from an audit to ranks."""

    def __call__(self, audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
        """The plan; `budget` in parameters of the whole adapter, None for what the rule itself asks."""
        ...


def parameters(ranks: Mapping[str, int], shapes: Sequence[Shape]) -> int:
    """Parameters of an adapter of these ranks: sum of rank (d_in + d_out).

    >>> parameters({"q": 4, "up": 2}, [Shape(name="q", projection="q", d_out=8, d_in=8),
    ...                                Shape(name="up", projection="up", d_out=20, d_in=8)])
    120

    Raises
    ------
    ValueError
        A module without a rank, a rank without a module, a rank below 1, or two shapes of one name.
    """
    names = [shape.name for shape in shapes]
    if len(set(names)) != len(names) or set(names) != ranks.keys():
        missing, unknown = sorted(set(names) - ranks.keys()), sorted(ranks.keys() - set(names))
        raise ValueError(
            f"{len(ranks)} ranks for {len(names)} modules; without a rank: {missing[:3]}, "
            f"unknown: {unknown[:3]}; give one rank for each module"
        )
    low = {name: rank for name, rank in ranks.items() if rank < 1}
    if low:
        raise ValueError(f"ranks below 1: {dict(list(low.items())[:3])}; give 1 or more")
    return sum(ranks[shape.name] * shape.unit_cost for shape in shapes)


def shapes_of_audits(audits: Sequence[ModuleAudit]) -> tuple[Shape, ...]:
    """The audited modules' shapes, in the audits' order."""
    return tuple(
        Shape(name=one.name, projection=one.projection, d_out=one.d_out, d_in=one.d_in)
        for one in checked_audits(audits)
    )


def steps(most: int) -> tuple[int, ...]:
    """Ranks that a module may get whose probe had rank `most`.

    >>> steps(16), steps(12), steps(128)
    ((1, 2, 4, 8, 16), (1, 2, 4, 8, 12), (1, 2, 4, 8, 16, 32, 64))
    """
    top = min(most, ALLOWED[-1])
    return (*(rank for rank in ALLOWED if rank < top), top)


def next_allowed(wish: float, most: int) -> int:
    """The wish rounded up to the next allowed rank, at least 1 and at most the probe's.

    >>> [next_allowed(wish, 16) for wish in (0.0, 1.0, 2.1, 8.0, 40.0)]
    [1, 1, 4, 8, 16]
    """
    ladder = steps(most)
    return next((rank for rank in ladder if rank >= wish * (1.0 - TIE)), ladder[-1])


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    """A policy with one knob that makes its plan cheaper or dearer."""

    levels: Sequence[float]
    """Settings of the knob, from the cheapest plan, every rank 1, to the dearest."""
    at: Callable[[float], list[int]]
    """Setting -> rank of each module."""
    need: Callable[[int, int], float]
    """Module's position and rank -> how badly served it is; 0: never to be raised."""


def _by_wish(
    wish: Callable[[ModuleAudit], float], audits: Sequence[ModuleAudit], budget: int | None
) -> RankPlan:
    """Each module's own wish, times a common factor if there is a budget."""
    pool = checked_audits(audits)
    wishes = [wish(one) if one.frobenius > 0.0 else 0.0 for one in pool]

    def at(factor: float) -> list[int]:
        return [next_allowed(factor * w, one.rank) for w, one in zip(wishes, pool, strict=True)]

    served = [(w, one) for w, one in zip(wishes, pool, strict=True) if w > 0.0]
    # just where a module's rank is exactly an allowed one, the plan changes
    factors = {rank / w for w, one in served for rank in steps(one.rank)}
    sweep = _Sweep(levels=[0.0, *sorted(factors)], at=at, need=lambda i, rank: wishes[i] / rank)
    return _plan(pool, at(1.0) if budget is None else _fitted(pool, sweep, budget), budget)


def global_sigma(audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
    """One magnitude threshold over all modules: a module's rank counts its |s| sigma at or above it.

    Without a budget the threshold is the highest at which what is kept holds .90 of the energy of all modules
    together; with one it is the lowest whose plan costs no more than the budget.
    """
    pool = checked_audits(audits)
    values: list[FloatArray] = [abs(one.scale) * np.array(one.sigma) for one in pool]

    def at(threshold: float) -> list[int]:
        return [
            next_allowed(int((own >= threshold).sum()), one.rank)
            for own, one in zip(values, pool, strict=True)
        ]

    def need(position: int, rank: int) -> float:
        own = values[position]
        return float(own[rank]) if rank < own.size else 0.0  # the largest value left out

    if budget is None:
        return _plan(pool, at(energy_threshold(values, 0.90)), None)
    thresholds = sorted({float(value) for own in values for value in own if value > 0.0}, reverse=True)
    sweep = _Sweep(levels=[float("inf"), *thresholds], at=at, need=need)
    return _plan(pool, _fitted(pool, sweep, budget), budget)


def _fitted(pool: Sequence[ModuleAudit], sweep: _Sweep, budget: int) -> list[int]:
    """Ranks whose cost comes near the budget: the knob first, then single modules by one allowed rank."""
    if budget < 1:
        raise ValueError(f"a budget of {budget} parameters; give 1 or more, or None")
    costs = [one.d_in + one.d_out for one in pool]

    def cost(ranks: Sequence[int]) -> int:
        return sum(rank * unit for rank, unit in zip(ranks, costs, strict=True))

    fits = bisect_right(sweep.levels, budget, key=lambda level: cost(sweep.at(level)))
    ranks = sweep.at(sweep.levels[max(fits - 1, 0)])
    left = budget - cost(ranks)
    prices: dict[int, int] = {}  # position -> parameters of its next allowed rank, the least served first
    order = sorted(range(len(pool)), key=lambda i: (-sweep.need(i, ranks[i]), -pool[i].gain, pool[i].name))
    for i in order:
        higher = [rank for rank in steps(pool[i].rank) if rank > ranks[i]]
        if not higher or sweep.need(i, ranks[i]) <= 0.0:
            continue
        price = (higher[0] - ranks[i]) * costs[i]
        if price <= left:
            ranks[i], left = higher[0], left - price
        else:
            prices[i] = price
    last = min(prices, key=lambda i: prices[i], default=None)
    if last is not None and prices[last] - left < left:  # a little over is nearer than a little under
        ranks[last] = next(rank for rank in steps(pool[last].rank) if rank > ranks[last])
    return ranks


def uniform_quantile(audits: Sequence[ModuleAudit], *, share: float, budget: int | None = None) -> RankPlan:
    """Every module at one quantile of the modules' energy-90 ranks, rounded up to the next allowed rank.

    Its cost is its own: a budget moves nothing, and the notes say how far it is.
    """
    pool = checked_audits(audits)
    wish = float(np.quantile([max(1, one.energy_rank_90) for one in pool], share))
    rank = next_allowed(wish, min(one.rank for one in pool))
    plan = _plan(pool, [rank] * len(pool), budget)
    note = f"rank {rank} for every module: quantile {share:g} of the energy-90 ranks is {wish:g}"
    return RankPlan(ranks=plan.ranks, parameters=plan.parameters, notes=(*plan.notes, note))


def uniform_equal(audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
    """Every module at the integer rank, allowed or not, whose cost is nearest to the budget.

    Without a budget it is that of the plan of `energy_90`.
    """
    pool = checked_audits(audits)
    wanted = POLICIES["energy_90"](pool).parameters if budget is None else budget
    rank = nearest_uniform(shapes_of_audits(pool), wanted, most=min(one.rank for one in pool))
    return _plan(pool, [rank] * len(pool), wanted)


def nearest_uniform(shapes: Sequence[Shape], budget: int, *, most: int) -> int:
    """The integer rank from 1 to `most` whose cost over all modules is nearest to the budget; ties go down.

    >>> nearest_uniform([Shape(name="q", projection="q", d_out=8, d_in=8)], 70, most=16)
    4

    Raises
    ------
    ValueError
        A budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} parameters; give 1 or more")
    unit = sum(shape.unit_cost for shape in shapes)
    low = min(max(1, budget // unit), most)
    return low + 1 if low < most and (low + 1) * unit - budget < budget - low * unit else low


def _plan(pool: Sequence[ModuleAudit], ranks: Sequence[int], budget: int | None) -> RankPlan:
    given = {one.name: rank for one, rank in zip(pool, ranks, strict=True)}
    total = parameters(given, shapes_of_audits(pool))
    notes = []
    empty = [one.name for one in pool if one.frobenius == 0.0]
    if empty:
        notes.append(f"energy 0 in {len(empty)} modules, whose wish is rank 1: {', '.join(empty)}")
    if budget is not None:
        notes.append(f"{total} parameters for a budget of {budget} ({total / budget - 1:+.2%})")
    return RankPlan(ranks=given, parameters=total, notes=tuple(notes))


def energy_90(audits: Sequence[ModuleAudit], *, budget: int | None = None, margin: float = 1.0) -> RankPlan:
    """`energy_rank_90` times a margin.

    >>> from models.spectra import Factors, audit_module
    >>> factors = Factors(a=np.eye(8, 9), b=np.diag([5.0, 4.0, 3.0, 0.1, 0.1, 0.1, 0.1, 0.1]), scale=1.0)
    >>> energy_90([audit_module("h.0.up_proj", factors, None)]).ranks
    {'h.0.up_proj': 4}

    Raises
    ------
    ValueError
        A margin that is not above 0; see `checked_audits`.
    """
    if not margin > 0.0:
        raise ValueError(f"a margin of {margin}; give one above 0, 1.0 for the energy rank itself")
    return _by_wish(lambda one: margin * one.energy_rank_90, audits, budget)


def entropy(audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
    """The effective rank."""
    return _by_wish(lambda one: one.effective_rank or 0.0, audits, budget)


def stable(audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
    """The stable rank."""
    return _by_wish(lambda one: one.stable_rank or 0.0, audits, budget)


def hard_threshold(audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
    """Singular values above the optimal hard threshold; see `hard_threshold_rank`."""
    return _by_wish(
        lambda one: max(1, hard_threshold_rank(one.sigma, rank=one.rank, d_out=one.d_out, d_in=one.d_in)),
        audits,
        budget,
    )


def knee(audits: Sequence[ModuleAudit], *, budget: int | None = None) -> RankPlan:
    """Singular values up to the point farthest from the chord; see `knee_rank`."""
    return _by_wish(lambda one: knee_rank(one.sigma), audits, budget)


POLICIES: Mapping[str, Policy] = {
    "energy_90": energy_90,
    "entropy": entropy,
    "hard_threshold": hard_threshold,
    "knee": knee,
    "stable_rank": stable,
    "global_sigma": global_sigma,
    "uniform_median": partial(uniform_quantile, share=0.5),
    "uniform_p90": partial(uniform_quantile, share=0.9),
    "uniform_equal": uniform_equal,
}
"""Name -> policy; `uniform_median` and `uniform_p90` keep their own cost, all others follow a budget."""
