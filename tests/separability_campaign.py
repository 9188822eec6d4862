"""How often the separability of regimes says DETECTED, in simulated trainings of known truth.

    python -m tests.separability_campaign [studies] [seeds] [windows]

A study has 5 regimes, each with windows of 40 steps and 40 clean steps between them, beside twins that share
each step's batch. Common channels are the batch's noise (shared with the twin), noise of their own and the
regime's effect, which grows from regime to regime up to `common`; state channels are autoregressive and leave
the fork from one value, or smooth the common ones. A study counts as DETECTED when any regime is.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter

from stats.regime_series import COMMON, STATE, Occurrence, RunSeries
from stats.rows import FloatArray, TestRow
from stats.separability import separability_rows


@dataclass(frozen=True, kw_only=True)
class World:
    """One truth; effects in SDs of a channel."""

    common: float = 0.0
    """Effect on each common channel in the last regime; the first has none."""
    varying: float = 0.0
    """SD of that effect from window to window, as a share of it."""
    state: float = 0.0
    """Effect on the first state channel, in the last regime only."""
    memory: float = 0.9
    """Autocorrelation of state channels from one step to the next."""
    batch: float = 0.0
    """Share of a state channel's variance that is the batch's noise of the step, as in the loss."""
    smooths: bool = False
    """State channels are the running means of the common ones (share .2), and a tenth of noise."""
    shared: float = 0.5
    """Share of the common channels' variance that is the batch's."""
    seeds: int = 5
    windows: int = 3
    regimes: int = 5
    length: int = 40
    missing: float = 0.0
    """Share of windows without a twin, of steps on which one channel is undefined, of runs without one."""


NULLS = {
    "no effect at all": World(),
    "common 1 SD": World(common=1.0),
    "common 3 SD, varying": World(common=3.0, varying=0.5),
    "common 1 SD, state nearly a random walk": World(common=1.0, memory=0.995),
    "common 1 SD, state white": World(common=1.0, memory=0.0),
    "common 1 SD, state reads the batch": World(common=1.0, batch=0.5),
}
EFFECTS = {
    "state .5 SD": World(state=0.5),
    "state 1 SD": World(state=1.0),
    "state 2 SD": World(state=2.0),
    "state 4 SD": World(state=4.0),
    "state 2 SD, white": World(state=2.0, memory=0.0),
    "state 2 SD beside common 1 SD": World(state=2.0, common=1.0),
    "state smooths common 1 SD": World(common=1.0, smooths=True),
}


SHOWN = ("common", "common_smoothed", "state", "common_state", "beyond_common", "beyond_smoothed")


def autoregressive(noise: FloatArray, memory: float, start: FloatArray | None = None) -> FloatArray:
    """(n, F) of variance 1 from unit noise, from its mean or from the values of the step before."""
    scaled = np.sqrt(1.0 - memory**2) * noise
    if start is not None:
        scaled[0] += memory * start
    else:
        scaled[0] = noise[0]
    found: FloatArray = lfilter([1.0], [1.0, -memory], scaled, axis=0)
    return found


def branch(
    world: World,
    batch: FloatArray,
    effect: FloatArray,
    from_state: FloatArray | None,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Common channels, state channels and the bare state process of a run or twin; effect is (n, 2)."""
    n = len(batch)
    own = rng.normal(size=(n, len(COMMON)))
    common = np.sqrt(world.shared) * batch + np.sqrt(1.0 - world.shared) * own + effect[:, :1]
    if world.smooths:
        start = np.zeros(len(COMMON)) if from_state is None else from_state
        process: FloatArray = lfilter([0.2], [1.0, -0.8], common, axis=0, zi=0.8 * start[None])[0]
        state = process[:, np.arange(len(STATE)) % len(COMMON)]
        return common, state + 0.1 * rng.normal(size=state.shape), process
    process = autoregressive(rng.normal(size=(n, len(STATE))), world.memory, from_state)
    state = np.sqrt(1.0 - world.batch) * process + np.sqrt(world.batch) * batch[:, :1]
    state[:, 0] += effect[:, 1]
    return common, state, process


def training(world: World, seed: int, rng: np.random.Generator) -> RunSeries:
    """One seed with its twins; regimes take turns in an order of their own each round."""
    order = np.concatenate([rng.permutation(world.regimes) for _ in range(world.windows)])
    starts = 40 + 2 * world.length * np.arange(len(order))
    steps = int(starts[-1]) + world.length
    batch = rng.normal(size=(steps, len(COMMON)))
    effect = np.zeros((steps, 2))
    size = world.common * np.arange(world.regimes) / max(1, world.regimes - 1)
    for which, start in zip(order, starts, strict=True):
        at = slice(start, start + world.length)
        effect[at, 0] = size[which] * (1.0 + world.varying * rng.normal())
        effect[at, 1] = world.state if which == world.regimes - 1 else 0.0
    common, state, process = branch(world, batch, effect, None, rng)
    trend = 5.0 - 0.002 * np.arange(steps)[:, None]
    seen = Counter[int]()
    occurrences = []
    for which, start in zip(order, starts, strict=True):
        at = slice(start, start + world.length)
        twin = branch(world, batch[at], np.zeros((world.length, 2)), process[start - 1], rng)
        values = np.hstack([twin[0] + trend[at], twin[1]])
        occurrences.append(
            Occurrence(
                regime=f"r{which}",
                number=seen[which],
                start=int(start),
                end=int(start) + world.length,
                twin=dict(zip((*COMMON, *STATE), values.T, strict=True)),
            )
        )
        seen[which] += 1
    channels = dict(zip((*COMMON, *STATE), np.hstack([common + trend, state]).T, strict=True))
    run = RunSeries(seed=seed, channels=channels, occurrences=tuple(occurrences))
    return with_gaps(run, world.missing, rng) if world.missing > 0.0 else run


def with_gaps(run: RunSeries, share: float, rng: np.random.Generator) -> RunSeries:
    """The run without so many of its windows' twins and values, now and then without a whole channel."""
    names = list(run.channels)
    values = np.stack(list(run.channels.values()))
    steps = np.flatnonzero(rng.random(run.steps) < share)
    values[rng.integers(len(names), size=len(steps)), steps] = np.nan
    if rng.random() < share:
        values[rng.integers(len(names))] = np.nan
    kept = [one if rng.random() >= share else replace(one, twin={}) for one in run.occurrences]
    return replace(run, channels=dict(zip(names, values, strict=True)), occurrences=tuple(kept))


def study(world: World, rng: np.random.Generator, *, permutations: int = 1) -> list[TestRow]:
    """All rows of one simulated study."""
    series = [training(world, seed, rng) for seed in range(world.seeds)]
    return separability_rows(series, rng=rng, alpha=0.05, margin=0.05, permutations=permutations)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a campaign of one world said."""

    verdicts: dict[str, float]
    """Of `signatures`, share of the studies."""
    last: dict[str, float]
    """Of the last regime alone, after Holm."""
    p: dict[str, FloatArray]
    """Hypothesis -> (studies x regimes,) p values, unadjusted."""
    estimate: dict[str, float]
    """Hypothesis -> mean in the last regime."""
    t_alone: float
    """Share of studies in which the interval of what the state adds lies above 0 in some regime."""
    seconds: float


def campaign(world: World, studies: int, *, seed: int) -> Outcome:
    """Verdicts and p values of simulated studies."""
    rng, started = np.random.default_rng(seed), time.process_time()
    verdicts, last = Counter[str](), Counter[str]()
    p: dict[str, list[float]] = {}
    estimate: dict[str, list[float]] = {}
    above = 0
    for _ in range(studies):
        rows = study(world, rng)
        above += any(row.hypothesis == "beyond_common" and (row.low or -1.0) > 0.0 for row in rows)
        for row in rows:
            if row.hypothesis == "signatures":
                verdicts[row.verdict or ""] += 1
            if row.contrast == f"r{world.regimes - 1}":
                if row.hypothesis == "signature":
                    last[row.verdict or ""] += 1
                estimate.setdefault(row.hypothesis, []).append(row.estimate or 0.0)
            if row.metric == "auc" and row.p is not None:
                p.setdefault(row.hypothesis, []).append(row.p)
    return Outcome(
        verdicts={name: count / studies for name, count in verdicts.items()},
        last={name: count / studies for name, count in last.items()},
        p={name: np.array(values) for name, values in p.items()},
        estimate={name: float(np.mean(values)) for name, values in estimate.items()},
        t_alone=above / studies,
        seconds=time.process_time() - started,
    )


def main(studies: int = 1_000, seeds: int = 5, windows: int = 3) -> None:
    """Print the table that LOG.md quotes; studies with an effect are fewer by half."""
    print(f"{studies} null studies of {seeds} seeds x {windows} windows; Monte Carlo error of .05: "
          f"{(0.05 * 0.95 / studies) ** 0.5:.4f}")  # fmt: skip
    for name, world in (NULLS | EFFECTS).items():
        n = studies if name in NULLS else (studies + 1) // 2
        found = campaign(replace(world, seeds=seeds, windows=windows), n, seed=20_261_121)
        auc = found.estimate
        reached = {
            name: float(np.mean(found.p[name] <= 0.05))
            for name in ("common_state", "beyond_common", "beyond_smoothed")
        }
        print(
            f"{name}: DETECTED {found.verdicts.get('DETECTED', 0.0):.4f}; last regime "
            f"{found.last.get('DETECTED', 0.0):.4f}, EQUIVALENT {found.last.get('EQUIVALENT', 0.0):.4f}; "
            + "p <= .05: "
            + ", ".join(f"{name} {share:.4f}" for name, share in reached.items())
            + f"; t alone, any regime {found.t_alone:.3f}; last regime: "
            + ", ".join(f"{name} {auc[name]:.3f}" for name in SHOWN)
            + f"; {found.seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
