"""Simulated ladders, climbed as the flow climbs: look by look, each rung by `analyse_seed_effect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stats.across_models import Rung
from stats.crossover import LADDER_ENDED, ladder_has_ended
from stats.rows import FloatArray
from stats.seed_effect import Design, analyse_seed_effect

SOURCES = ("HMIX", "PRNG", "TRNG")


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a ladder; shifts and spreads in within-cell SD."""

    shifts: tuple[float, ...]
    """Of the first source against the others, one a size, the smallest first."""
    moved: int | None = None
    """Metrics that shift; None for all."""
    prompt_source_sd: float = 0.0
    prompts: int = 30
    looks: tuple[int, ...] = (10, 20, 40)
    metrics: tuple[str, ...] = ("mtld", "distinct_2", "shannon_word")
    missing: float = 0.0
    """Share of the texts."""
    unmeasured: tuple[int, ...] = ()
    """Sizes that the machine did not measure, from 0."""


def _labels(prompts: int, samples: int) -> tuple[list[str], list[str]]:
    p, s, _ = (index.ravel() for index in np.indices((prompts, len(SOURCES), samples)))
    return [SOURCES[i] for i in s], [f"p{i:02d}" for i in p]


def _draw(truth: Truth, shift: float, rng: np.random.Generator) -> FloatArray:
    """(metrics, prompts, sources, last look); metrics correlate at .5."""
    M, P, S, k = len(truth.metrics), truth.prompts, len(SOURCES), truth.looks[-1]
    y = np.sqrt(0.5) * (rng.normal(size=(M, P, S, k)) + rng.normal(size=(1, P, S, k)))
    y += rng.normal(size=(M, P, 1, 1)) + truth.prompt_source_sd * rng.normal(size=(M, P, S, 1))
    y[: truth.moved, :, 0] += shift
    if truth.missing > 0.0:
        y[:, rng.random(size=(P, S, k)) < truth.missing] = np.nan
    return y


def climb_rung(truth: Truth, size: int, rng: np.random.Generator, *, tape: str = "screen") -> Rung:
    """One rung, stopped at the first look that is neither INCONCLUSIVE nor the last."""
    y = _draw(truth, truth.shifts[size], rng)
    for look in truth.looks:
        source, prompt = _labels(truth.prompts, look)
        rows = analyse_seed_effect(
            {name: y[i, ..., :look].ravel() for i, name in enumerate(truth.metrics)},
            source=source,
            prompt=prompt,
            stream=["s"] * len(source),
            design=Design(primary=truth.metrics, looks=truth.looks, look=look, sources=SOURCES),
        )
        if rows[-1].verdict != "INCONCLUSIVE":
            break
    return Rung(
        model=f"size {size + 1}",
        parameters=10 ** (5 + size),
        rows=rows,
        look=look,
        looks=truth.looks,
        tapes=frozenset({f"{tape} {size + 1}"}),
    )


def climb(truth: Truth, rng: np.random.Generator) -> list[Rung]:
    """All rungs in order; those above two equivalent ones in a row are left out."""
    rungs: list[Rung] = []
    for size in range(len(truth.shifts)):
        left = Rung(model=f"size {size + 1}", parameters=10 ** (5 + size), skipped=LADDER_ENDED)
        if ladder_has_ended([rung for rung in rungs if rung.rows]):
            rungs.append(left)
        elif size in truth.unmeasured:
            rungs.append(replace(left, skipped="no such model here"))
        else:
            rungs.append(climb_rung(truth, size, rng))
    return rungs


def climb_many(truth: Truth, ladders: int, seed: int) -> list[Sequence[Rung]]:
    """Independent ladders of one truth."""
    rng = np.random.default_rng(seed)
    return [climb(truth, rng) for _ in range(ladders)]
