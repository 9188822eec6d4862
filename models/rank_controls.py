"""Controls of a rank plan: the same ranks placed by chance, in reverse, or evenly, at the same cost.

One rank of a module costs d_in + d_out parameters, so a free shuffle of the ranks changes the adapter's size.
Within modules of one projection and shape every order costs the same: `shuffled_within` and `inverse` keep
the parameters exactly. `shuffled_full` repairs its cost, `shuffled_free` only reports it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from models.rank_policies import RankPlan, Shape, nearest_uniform, parameters

DEGENERATE_SHARE = 0.8
"""A control that gives so large a share of the modules the treatment's rank says nothing about placement."""
TOLERANCE = 0.005
"""Relative difference in parameters that `shuffled_full` may leave."""
RESTARTS = 50
"""Shuffles that `shuffled_full` tries to repair before it settles for the nearest."""
MOST_DRAWS = 20_000
"""Permutations that `shuffled_within` looks at; where ranks are nearly equal few differ enough."""
PUBLISHED_OFFSET = 10_000
"""Added to the seed by the shuffle of the published study."""


def shuffled_within(ranks: Mapping[str, int], shapes: Sequence[Shape], *, seed: int, draw: int) -> RankPlan:
    """Ranks permuted among the modules of one projection and shape; parameters stay the same.

    Draws 1, 2, 3, ... of a seed differ from each other and from the treatment as long as there are other
    arrangements, and none leaves so many ranks in place that it would be degenerate, unless all do: which
    modules are exchangeable does not hang on how many a permutation moves.

    Parameters
    ----------
    ranks, shapes
        The treatment's plan, and the module of each rank.
    seed, draw
        Which permutation; draw from 1.

    Raises
    ------
    ValueError
        A draw below 1; ranks and shapes of other modules.

    Examples
    --------
    >>> shapes = [Shape(name=f"h.{i}.up", projection="up", d_out=8, d_in=4) for i in range(3)]
    >>> ranks = {"h.0.up": 1, "h.1.up": 2, "h.2.up": 4}
    >>> plans = [shuffled_within(ranks, shapes, seed=42, draw=k).ranks for k in (1, 2, 3, 4, 5)]
    >>> len({tuple(sorted(plan.items())) for plan in [ranks, *plans]})
    6
    """
    if draw < 1:
        raise ValueError(f"draw {draw}; draws count from 1")
    groups = _groups(shapes)
    total = parameters(ranks, shapes)
    others = arrangements(ranks, shapes) - 1
    notes = _within_notes(ranks, groups)
    if others == 0:
        return RankPlan(ranks=dict(ranks), parameters=total, notes=(*notes, "nothing can be permuted"))
    far, near = _draws(ranks, groups, seed, draw, others)
    pool = far or near
    if not far:
        notes.append(f"every arrangement drawn keeps {DEGENERATE_SHARE:.0%} of the ranks or more in place")
    if draw > len(pool):
        again = (draw - 1) % len(pool) + 1
        notes.append(f"draw {draw} repeats draw {again}: {len(pool)} other arrangements exist")
    found = pool[(draw - 1) % len(pool)]
    return RankPlan(ranks=_ordered(found, ranks), parameters=parameters(found, shapes), notes=tuple(notes))


def _draws(
    ranks: Mapping[str, int],
    groups: Mapping[tuple[str, int, int], list[Shape]],
    seed: int,
    wanted: int,
    others: int,
) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """Different arrangements in the order drawn: up to `wanted` that are not degenerate, and the others."""
    rng, seen = random.Random(f"within:{seed}"), {_key(ranks)}
    far: list[dict[str, int]] = []
    near: list[dict[str, int]] = []
    for _ in range(MOST_DRAWS):
        if len(far) == wanted or len(seen) > others:
            break
        found: dict[str, int] = {}
        for members in groups.values():
            values = [ranks[shape.name] for shape in members]
            rng.shuffle(values)
            found |= {shape.name: value for shape, value in zip(members, values, strict=True)}
        if _key(found) not in seen:
            seen.add(_key(found))
            (near if share_alike(ranks, found) >= DEGENERATE_SHARE else far).append(found)
    return far, near


def arrangements(ranks: Mapping[str, int], shapes: Sequence[Shape]) -> int:
    """Different ways to place the ranks within projections and shapes, the given one included.

    The product over groups of n! / (n_1! n_2! ...), n_i modules of the group having the i-th rank.

    >>> shapes = [Shape(name=name, projection="up", d_out=4, d_in=4) for name in "abc"]
    >>> arrangements({"a": 1, "b": 2, "c": 2}, shapes)
    3
    """
    found = 1
    for members in _groups(shapes).values():
        counts = Counter(ranks[shape.name] for shape in members)
        found *= math.factorial(len(members)) // math.prod(math.factorial(n) for n in counts.values())
    return found


def inverse(ranks: Mapping[str, int], shapes: Sequence[Shape]) -> RankPlan:
    """Anti-guided: within a projection and shape the largest rank goes where the smallest was, and so on.

    Modules of one rank are taken in order of layer and name. Parameters stay the same.

    >>> shapes = [Shape(name=name, projection="up", d_out=8, d_in=4) for name in "abc"]
    >>> inverse({"a": 1, "b": 2, "c": 8}, shapes).ranks
    {'a': 8, 'b': 2, 'c': 1}

    Raises
    ------
    ValueError
        Ranks and shapes of other modules.
    """
    groups = _groups(shapes)
    parameters(ranks, shapes)
    found: dict[str, int] = {}
    for members in groups.values():
        rising = sorted((shape.name for shape in members), key=lambda name: (ranks[name], _natural(name)))
        falling = sorted((ranks[name] for name in rising), reverse=True)
        found |= dict(zip(rising, falling, strict=True))
    notes = _within_notes(ranks, groups)
    if found == dict(ranks):
        notes.append("nothing can be reversed")
    return RankPlan(ranks=_ordered(found, ranks), parameters=parameters(found, shapes), notes=tuple(notes))


def shuffled_full(
    ranks: Mapping[str, int],
    shapes: Sequence[Shape],
    *,
    seed: int,
    draw: int = 1,
    tolerance: float = TOLERANCE,
) -> RankPlan:
    """Ranks permuted over all modules, then swapped between modules until the cost is near the treatment's.

    Each swap is drawn evenly from all those that end nearer to the treatment's parameters, so the ranks stay
    the treatment's. A shuffle that no swap improves is dropped for a new one, RESTARTS times; if none gets
    within `tolerance`, relative, the nearest is given and a note says so.

    >>> shapes = [Shape(name=f"h.{i}.p{i}", projection=f"p{i}", d_out=90 + i, d_in=10) for i in range(5)]
    >>> ranks = {shape.name: 2**i for i, shape in enumerate(shapes)}
    >>> plan = shuffled_full(ranks, shapes, seed=42)
    >>> list(plan.ranks.values()), plan.notes
    ([4, 2, 8, 1, 16], ("3185 parameters against the treatment's 3198 (-0.41%)",))

    Raises
    ------
    ValueError
        A draw below 1; ranks and shapes of other modules.
    """
    if draw < 1:
        raise ValueError(f"draw {draw}; draws count from 1")
    target, ordered = parameters(ranks, shapes), sorted(shapes, key=lambda shape: _natural(shape.name))
    costs = np.array([shape.unit_cost for shape in ordered], dtype=np.int64)
    rng, tried = random.Random(f"full:{seed}:{draw}"), []
    for _ in range(RESTARTS):
        values = [ranks[shape.name] for shape in ordered]
        rng.shuffle(values)
        placed = _repaired(np.array(values, dtype=np.int64), costs, target, tolerance, rng)
        tried.append((abs(int(placed @ costs) - target), placed.tolist()))
        if tried[-1][0] <= tolerance * target:
            break
    off, best = min(tried)
    plan = _against({shape.name: rank for shape, rank in zip(ordered, best, strict=True)}, ranks, shapes)
    if off <= tolerance * target:
        return plan
    note = (
        f"none of {RESTARTS} shuffles could be brought within {tolerance:.1%} of the treatment's parameters"
    )
    return RankPlan(ranks=plan.ranks, parameters=plan.parameters, notes=(*plan.notes, note))


def _repaired(
    values: np.ndarray[tuple[int], np.dtype[np.int64]],
    costs: np.ndarray[tuple[int], np.dtype[np.int64]],
    target: int,
    tolerance: float,
    rng: random.Random,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Ranks after swaps towards the target, as many as it takes or as there are."""
    placed = values.copy()
    while abs(off := int(placed @ costs) - target) > tolerance * target:
        # (n, n): what swapping modules i and j adds to the cost
        change = (placed[None, :] - placed[:, None]) * (costs[:, None] - costs[None, :])
        first, second = np.nonzero(np.triu(np.abs(off + change) < abs(off), k=1))
        if first.size == 0:
            break
        pick = rng.randrange(first.size)
        i, j = first[pick], second[pick]
        placed[[i, j]] = placed[[j, i]]
    return placed


def shuffled_free(ranks: Mapping[str, int], shapes: Sequence[Shape], *, seed: int) -> RankPlan:
    """The published control: ranks in order of module name, shuffled by `random.Random(seed + 10000)`.

    It ignores what a rank costs where; the notes give the difference in parameters.

    >>> sides = {"a": 1, "b": 6, "c": 11}
    >>> shapes = [Shape(name=name, projection=name, d_out=9, d_in=side) for name, side in sides.items()]
    >>> plan = shuffled_free({"a": 1, "b": 2, "c": 8}, shapes, seed=42)
    >>> plan.ranks, plan.notes
    ({'a': 1, 'b': 8, 'c': 2}, ("170 parameters against the treatment's 200 (-15.00%)",))
    """
    names = sorted(ranks)  # layer 10 comes before layer 2, as published
    values = [ranks[name] for name in names]
    random.Random(seed + PUBLISHED_OFFSET).shuffle(values)
    return _against(dict(zip(names, values, strict=True)), ranks, shapes)


def uniform_equal(ranks: Mapping[str, int], shapes: Sequence[Shape]) -> RankPlan:
    """Every module at the integer rank whose cost is nearest to the treatment's, be it allowed or not.

    >>> shapes = [Shape(name=name, projection="up", d_out=8, d_in=8) for name in "ab"]
    >>> uniform_equal({"a": 2, "b": 4}, shapes).ranks
    {'a': 3, 'b': 3}

    Raises
    ------
    ValueError
        Ranks and shapes of other modules.
    """
    rank = nearest_uniform(shapes, parameters(ranks, shapes), most=max(ranks.values(), default=1))
    return _against(dict.fromkeys(ranks, rank), ranks, shapes)


def share_alike(treatment: Mapping[str, int], control: Mapping[str, int]) -> float:
    """Share of the modules that have the same rank in both.

    >>> share_alike({"a": 1, "b": 2}, {"a": 1, "b": 4})
    0.5

    Raises
    ------
    ValueError
        Other modules, or none.
    """
    if not treatment or treatment.keys() != control.keys():
        other = sorted(treatment.keys() ^ control.keys())
        raise ValueError(
            f"{len(treatment)} and {len(control)} modules, not shared: {other[:3]}; give the same"
        )
    return sum(control[name] == rank for name, rank in treatment.items()) / len(treatment)


def degenerate(treatment: Mapping[str, int], control: Mapping[str, int]) -> str | None:
    """Why the control says nothing about placement; None when it can.

    >>> degenerate({"a": 1, "b": 2, "c": 4}, {"a": 2, "b": 4, "c": 1}) is None
    True
    >>> degenerate({"a": 2, "b": 2, "c": 2}, {"a": 2, "b": 2, "c": 2})
    'degenerate: the treatment gives all 3 modules rank 2, so nothing is placed'

    Raises
    ------
    ValueError
        See `share_alike`.
    """
    alike = share_alike(treatment, control)
    values = set(treatment.values())
    if len(values) == 1:
        all_of_them = f"all {len(treatment)} modules rank {values.pop()}"
        return f"degenerate: the treatment gives {all_of_them}, so nothing is placed"
    if len(treatment) <= 2:
        return f"degenerate: {len(treatment)} modules have one other order; more are needed"
    if alike >= DEGENERATE_SHARE:
        limit = f"{DEGENERATE_SHARE:.0%} or more"
        return f"degenerate: {alike:.0%} of {len(treatment)} modules keep the treatment's rank ({limit})"
    return None


def _groups(shapes: Sequence[Shape]) -> dict[tuple[str, int, int], list[Shape]]:
    """Modules of one projection and shape, in order of layer and name."""
    found: dict[tuple[str, int, int], list[Shape]] = {}
    for shape in sorted(shapes, key=lambda shape: _natural(shape.name)):
        found.setdefault((shape.projection, shape.d_out, shape.d_in), []).append(shape)
    return found


def _within_notes(ranks: Mapping[str, int], groups: Mapping[tuple[str, int, int], list[Shape]]) -> list[str]:
    """Which projections are split by shape, and which hold one rank only."""
    split = sorted(name for name, n in Counter(name for name, _, _ in groups).items() if n > 1)
    notes = [f"{name}: modules of unequal shapes, permuted within each shape" for name in split]
    for (projection, d_out, d_in), members in groups.items():
        values = {ranks[shape.name] for shape in members}
        if len(values) == 1:
            notes.append(
                f"{projection} {d_out} x {d_in}: rank {values.pop()} in all {len(members)}, unchanged"
            )
    return notes


def _against(found: Mapping[str, int], ranks: Mapping[str, int], shapes: Sequence[Shape]) -> RankPlan:
    """A plan whose note compares its parameters with the treatment's."""
    own, target = parameters(found, shapes), parameters(ranks, shapes)
    note = f"{own} parameters against the treatment's {target} ({own / target - 1:+.2%})"
    return RankPlan(ranks=_ordered(found, ranks), parameters=own, notes=(note,))


def _ordered(found: Mapping[str, int], ranks: Mapping[str, int]) -> dict[str, int]:
    return {name: found[name] for name in ranks}


def _key(ranks: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(ranks[name] for name in sorted(ranks))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which layer 2 comes before layer 10."""
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in name.split("."))
