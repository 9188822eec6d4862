"""Simulated frozen tests of the nanodesmo study (its gate `leverage`), for `tests.truth`.

A seed has one effect and 200 effects of turned injections. All of a seed share its windows, so they share a
level; what is true is how much the trained injection moves predictions beyond the turned ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stats.frozen_effect import FrozenSeed, leverage_rows
from stats.split_looks import split_levels
from tests.truth_worlds import Judged, holds, judged

ROTATIONS, MARGIN, ALPHA = 200, 0.05, 0.05


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """One truth; nats unless said otherwise."""

    shift: float = 0.0
    """Of the trained injection beyond the turned ones, in every seed."""
    together: float = 0.0
    """SD of a level that all seeds of a study share, as of one text."""
    between: float = 0.0
    """SD of a seed's own level."""
    uneven: float = 0.0
    """SD of the logarithm of a seed's spread."""
    level: float = 0.2
    """Mean effect of a turned injection."""
    spread: float = 0.06
    """SD over those of one seed."""
    missing: float = 0.0
    """Share of the seeds in which something failed."""
    looks: tuple[int, ...] = (5, 10)


TIGHT = Frozen(spread=0.02)
"""EQUIVALENT can be reached at all."""
CLUSTERED = Frozen(together=0.1, between=0.1, uneven=0.5)


def _seed(world: Frozen, number: int, common: float, rng: np.random.Generator) -> FrozenSeed:
    level = world.level + common + world.between * float(rng.normal())
    spread = world.spread * float(np.exp(world.uneven * rng.normal()))
    drawn = np.abs(level + spread * rng.normal(size=1 + ROTATIONS))
    effect = float(drawn[0]) + world.shift
    made = FrozenSeed(
        seed=number, effect_nats=effect, effect_top1=effect, null_nats=drawn[1:], null_top1=drawn[1:],
        axis_nats=drawn[1:], sd_nats=0.1, entropy_nats={"own": 2.0}, top1={"own": 0.3},
    )  # fmt: skip
    lost = world.missing > 0.0 and rng.random() < world.missing
    return replace(made, effect_nats=float("nan")) if lost else made


def leverage(world: Frozen, rng: np.random.Generator) -> Judged:
    """Five seeds, and five more where those leave it open; each look spends half of alpha."""
    common = world.together * float(rng.normal())
    seeds = [_seed(world, number, common, rng) for number in range(world.looks[-1])]
    for look, alpha in split_levels(world.looks, alpha=ALPHA).items():
        row = leverage_rows({"self": seeds[:look]}, main="self", margin=MARGIN, alpha=alpha)[-1]
        if row.verdict != "INCONCLUSIVE":
            break
    return judged(row, holds(row, world.shift), row.estimate)
