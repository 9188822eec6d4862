"""Simulated rank studies of known truth: do the scenarios say what is so, and how often?

A world has 28 modules of the embedded model's shapes (q, k, v, o, gate, up, down in four layers), an
importance for each, and a share of the accuracy that a module's rank yields. Each seed audits them with
noise, places ranks, draws the controls of `models.rank_controls`, trains (a logit with noise of its own an
arm) and answers items of unequal difficulty. The whole analysis then runs on right and wrong answers.

    python -m tests.rank_campaign --datasets 1000
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import optimize, special

from models.rank_controls import inverse, shuffled_full, shuffled_within, uniform_equal
from models.rank_policies import Shape, next_allowed
from stats.placement_rows import DECLARED, analyse_placement
from stats.rank_placement import placement_effect
from stats.rank_scenario import scenario_of
from stats.rows import FloatArray, TestRow

SIDES = {
    "q": (64, 64),
    "k": (32, 64),
    "v": (32, 64),
    "o": (64, 64),
    "gate": (176, 64),
    "up": (176, 64),
    "down": (64, 176),
}
SHAPES = tuple(
    Shape(name=f"layers.{layer}.{projection}_proj", projection=projection, d_out=d_out, d_in=d_in)
    for layer in range(4)
    for projection, (d_out, d_in) in SIDES.items()
)
PROBE_RANK, DIFFICULTY_SD = 16, 1.5


@dataclass(frozen=True, kw_only=True)
class World:
    """One truth. Logits unless said otherwise."""

    name: str
    important: tuple[str, ...] = ()
    """Endings of the module names that matter, the others not at all; empty where all matter alike."""
    audit_noise: float = 0.4
    """SD of the log of what the audit sees of a module."""
    arm_sd: float = 0.08
    """SD of training noise, of each arm and seed by itself; .08 is about .015 of accuracy."""
    reach: float = 2.5
    """From no rank at all to every module saturated."""
    half: float = 3.0
    """Rank at which a module yields 1 - 1/e of its share; 0 where it yields rank^2 (unevenness helps)."""
    gain: float = 0.0
    """Share of the items that the placement answers more than its ranks give."""
    seeds: int = 8
    shuffles: int = 4
    items: int = 4_000

    @property
    def importance(self) -> FloatArray:
        """(28,) shares that sum to 1."""
        chosen = [not self.important or shape.name.endswith(self.important) for shape in SHAPES]
        return np.array(chosen, dtype=np.float64) / sum(chosen)


THREE = World(name="three modules matter", important=("0.v_proj", "1.gate_proj", "3.q_proj"))
ALIKE = World(name="modules alike")
TYPES = World(name="two types matter", important=("v_proj", "q_proj"), arm_sd=0.03, items=16_000)
UNEVEN = World(name="unevenness helps", half=0.0, reach=6.0, audit_noise=0.8, arm_sd=0.03, items=16_000)


def placed(world: World, rng: np.random.Generator) -> dict[str, int]:
    """Ranks by one seed's audit: what it sees of a module, rounded up to an allowed rank."""
    share = world.importance / world.importance.max()
    level = 0.1 + 0.9 * share if world.important else np.full(len(SHAPES), 0.35)
    seen = PROBE_RANK * level * np.exp(world.audit_noise * rng.normal(size=len(SHAPES)))
    wishes = zip(SHAPES, seen, strict=True)
    return {shape.name: next_allowed(float(wish), PROBE_RANK) for shape, wish in wishes}


def logit(world: World, ranks: Mapping[str, int]) -> float:
    """Of the mean item, before training noise."""
    rank = np.array([ranks[shape.name] for shape in SHAPES], dtype=np.float64)
    yields = 1.0 - np.exp(-rank / world.half) if world.half else (rank / PROBE_RANK) ** 2
    return -0.5 + world.reach * float(world.importance @ yields)


def raised(logit: float, *, gain: float) -> float:
    """The logit at which so much more of the items is answered, whose difficulties have an SD of 1.5."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def share(at: float) -> float:
        return float(weights @ special.expit(at - DIFFICULTY_SD * nodes) / weights.sum())

    return float(optimize.brentq(lambda at: share(at) - share(logit) - gain, logit - 9.0, logit + 9.0))


def answers(world: World, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Arm -> (seeds, controls, items) of right (1) and wrong (0) answers."""
    audits = [placed(world, rng) for _ in range(world.seeds)]
    difficulty = DIFFICULTY_SD * rng.normal(size=world.items)
    base = int(rng.integers(1 << 30))
    rows: dict[str, list[list[float]]] = {}
    for s, ranks in enumerate(audits):
        draws = range(1, world.shuffles + 1)
        plans: dict[str, list[Mapping[str, int]]] = {
            "per_layer": [ranks],
            "shuffled_within": [shuffled_within(ranks, SHAPES, seed=base + s, draw=k).ranks for k in draws],
            "shuffled_full": [shuffled_full(ranks, SHAPES, seed=base + s).ranks],
            "uniform_equal": [uniform_equal(ranks, SHAPES).ranks],
            "inverse": [inverse(ranks, SHAPES).ranks],
            "cross_seed": [audits[(s + 1) % world.seeds]],
            "probe": [{shape.name: PROBE_RANK for shape in SHAPES}],
        }
        for arm, of_arm in plans.items():
            rows.setdefault(arm, []).append([logit(world, plan) for plan in of_arm])
    found = {}
    for arm, values in rows.items():
        mean = np.array(values)  # (S, K)
        if world.gain and arm == "per_layer":
            mean = np.vectorize(partial(raised, gain=world.gain))(mean)
        mean = mean + world.arm_sd * rng.normal(size=mean.shape)
        right = special.expit(mean[:, :, None] - difficulty)
        found[arm] = (rng.random(size=right.shape) < right).astype(np.float64)
    return {arm: y if y.shape[1] > 1 else y[:, 0] for arm, y in found.items()}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a campaign of one world said."""

    names: Mapping[str, float]
    """Scenario -> share of the data sets."""
    estimates: FloatArray
    """(datasets,) of the deciding contrast."""
    lows: FloatArray
    highs: FloatArray
    p: FloatArray
    """Of its sign flips, uncorrected."""
    p_rank: FloatArray
    p_t: FloatArray

    def covered(self, truth: float) -> float:
        return float(np.mean((self.lows <= truth) & (truth <= self.highs)))


def campaign(world: World, datasets: int, *, seed: int) -> Outcome:
    """Scenario and deciding contrast of each data set."""
    rng, names, deciding = np.random.default_rng(seed), Counter[str](), []
    for _ in range(datasets):
        rows = analyse_placement(answers(world, rng), rng=rng, resamples=0)
        names[scenario_of(rows).name] += 1
        deciding.append({row.hypothesis: row for row in rows if row.contrast == _DECIDES})
    return Outcome(
        names={name: count / datasets for name, count in names.most_common()},
        estimates=_column(deciding, "difference", "estimate"),
        lows=_column(deciding, "difference", "low"),
        highs=_column(deciding, "difference", "high"),
        p=_column(deciding, "difference", "p"),
        p_rank=_column(deciding, "within_seed_rank", "p"),
        p_t=_column(deciding, "paired_t", "p"),
    )


_DECIDES = f"per_layer-{DECLARED[0].control}"


def _column(rows: Sequence[Mapping[str, TestRow]], hypothesis: str, field: str) -> FloatArray:
    return np.array([getattr(of[hypothesis], field) for of in rows], dtype=np.float64)


def bootstrap_coverage(seeds: int, datasets: int, *, seed: int, same_items: bool) -> float:
    """Of the nominal .95 hierarchical bootstrap for a difference of 0 in the world of like modules."""
    rng = np.random.default_rng(seed)
    world = World(name="few items", seeds=seeds, items=1_000, arm_sd=ALIKE.arm_sd)
    inside = 0
    for _ in range(datasets):
        noise = world.arm_sd * rng.normal(size=(seeds, 1 + world.shuffles, 1))
        difficulty = 1.5 * rng.normal(size=(1 if same_items else seeds, 1, world.items))
        right = rng.random(size=(seeds, 1 + world.shuffles, world.items))
        y = (right < special.expit(1.0 + noise - difficulty)).astype(np.float64)
        found = placement_effect(
            y[:, 0], y[:, 1:], margin=0.01, rng=rng, resamples=400, same_items=same_items
        )
        inside += (found.boot_low or 0.0) <= 0.0 <= (found.boot_high or 0.0)
    return inside / datasets


def main() -> None:
    """Print the figures that LOG.md quotes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--datasets", type=int, default=1_000)
    n = parser.parse_args().datasets
    for world in (THREE, ALIKE, TYPES, UNEVEN):
        started = time.perf_counter()
        found = campaign(world, n, seed=1)
        shares = ", ".join(
            f"{name} {share:.3f} +- {math.sqrt(share * (1 - share) / n):.3f}"
            for name, share in found.names.items()
        )
        truth = float(found.estimates.mean())
        print(
            f"{world.name}: {shares}; delta {truth:.4f} (SD {found.estimates.std(ddof=1):.4f}), t interval "
            f"covers {found.covered(0.0 if world is ALIKE else truth):.3f}; p <= .05: sign flips "
            f"{np.mean(found.p <= 0.05):.3f}, t {np.mean(found.p_t <= 0.05):.3f}, ranks "
            f"{np.mean(found.p_rank <= 0.05):.3f}; {time.perf_counter() - started:.0f} s"
        )
    for seeds in (3, 8):
        for same in (True, False):
            share = bootstrap_coverage(seeds, n, seed=2, same_items=same)
            print(f"bootstrap, {seeds} seeds, items {'shared' if same else 'own'}: covers {share:.3f}")


if __name__ == "__main__":
    main()
