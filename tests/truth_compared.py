"""Simulated losses of nanodesmo's runs (its gates `memory_matters`, `beats_controls`), for `tests.truth`.

A seed trains every run on the same batches, so its runs share a level; what is true is how far a run's mean
loss lies from that of the run it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flows import nano_arms
from stats.memory_comparisons import LOSS, memory_rows
from stats.rows import TestRow
from stats.run_comparisons import comparison_rows, lowest_of_all_row
from stats.split_looks import split_levels
from tests.truth_worlds import Judged, holds, judged

MARGIN, ALPHA = 0.02, 0.05
REFERENCE = "self"
MEMORIES = tuple(step.id for step in nano_arms.MEMORY)
CONTROLS = tuple(step.id for step in nano_arms.CONTROLS if step.id != "self-regimes")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One truth; nats unless said otherwise."""

    shifts: tuple[float, ...] = (0.0,)
    """Of each arm's mean loss from that of the state without a memory; the last holds for those after it."""
    level: float = 0.03
    """SD of what all runs of a seed share."""
    together: float = 0.0
    """SD of what a seed's arms share and the run they are compared with does not."""
    spread: float = 0.006
    """SD of a run of a seed."""
    missing: float = 0.0
    """Chance that a run of a seed has no loss."""
    looks: tuple[int, ...] = (5, 10)


TIGHT = Compared(spread=0.002)
"""Both verdicts can be reached."""

Losses = dict[str, dict[int, float | None]]


def _losses(world: Compared, arms: Sequence[str], rng: np.random.Generator) -> Losses:
    seeds = world.looks[-1]
    shared = 1.9 + world.level * rng.normal(size=seeds)
    of_arms = shared + world.together * rng.normal(size=seeds)
    shifts = [world.shifts[min(i, len(world.shifts) - 1)] for i in range(len(arms))]
    means = {REFERENCE: shared, **{arm: of_arms + shift for arm, shift in zip(arms, shifts, strict=True)}}
    return {
        run: {
            seed: None if lost else float(value)
            for seed, (value, lost) in enumerate(
                zip(
                    mean + world.spread * rng.normal(size=seeds),
                    rng.random(seeds) < world.missing,
                    strict=True,
                )
            )
        }
        for run, mean in means.items()
    }


def _memory(losses: Losses, alpha: float) -> list[TestRow]:
    return memory_rows(
        MEMORIES, {LOSS: losses}, {}, without=REFERENCE, unused={}, reasons={}, margin=MARGIN, alpha=alpha
    )


def _controls(losses: Losses, alpha: float) -> list[TestRow]:
    rows = comparison_rows(
        losses, [(REFERENCE, arm) for arm in CONTROLS], family="controls", metric=LOSS, margin=MARGIN,
        alpha=alpha,
    )  # fmt: skip
    return [*rows, lowest_of_all_row(rows, hypothesis="beats_controls", family="controls")]


def _looked(
    world: Compared,
    arms: Sequence[str],
    asked: Callable[[Losses, float], list[TestRow]],
    sign: float,
    rng: np.random.Generator,
) -> Judged:
    """Both looks: other gates decide on the second; the interval is that of its first comparison."""
    losses, told = _losses(world, arms, rng), None
    for look, alpha in split_levels(world.looks, alpha=ALPHA).items():
        seen = {run: {seed: x for seed, x in own.items() if seed < look} for run, own in losses.items()}
        rows = asked(seen, alpha)
        first = next(row for row in rows if (row.hypothesis, row.metric) == ("difference", LOSS))
        now = judged(rows[-1], holds(first, sign * world.shifts[0]), first.estimate)
        told = replace(now, before=told)
    assert told is not None
    return told


def memory(world: Compared, rng: np.random.Generator) -> Judged:
    """Does any memory change loss? Estimates are of a memory less none."""
    return _looked(world, MEMORIES, _memory, 1.0, rng)


def controls(world: Compared, rng: np.random.Generator) -> Judged:
    """Is the state below every control? Estimates are of the state less a control."""
    return _looked(world, CONTROLS, _controls, -1.0, rng)
