"""The frozen test: what a state can do to a trained network's predictions, and what any injection could.

Weights fixed, held-out text. Among states of one norm the most confident and the most uncertain one are
discovered on some windows, and their difference in entropy is measured on others. The null is that P is
nothing special: its columns are turned in the embedding space, P -> QP, and all of it is done again. Turning
the state's own basis, P -> PR, tests something else: whether single dimensions matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.nano_directions import Direction, Found, Report, direction, discovered, haar, told
from models.nano_measures import evaluating
from models.nano_run import NanoRun
from models.nano_streams import stream
from models.nano_training import one_thread
from models.self_state import SelfState

COUNTS = ("rotations", "discovery_windows", "shortlist", "compared_windows", "fresh_windows", "random_states")


@dataclass(frozen=True, kw_only=True)
class FrozenSpec:
    """What is tried, on how much text."""

    rotations: int = 200
    """m, of P -> QP, and as many of P -> PR."""
    discovery_windows: int = 64
    """Held-out windows of T tokens for the gradient, and for choosing among states of the run."""
    shortlist: int = 2
    """Single dimensions of lowest predicted entropy, and as many of highest, that are tried."""
    compared_windows: int = 8
    """Of the discovery windows, how many decide among those."""
    fresh_windows: int = 32
    """Others, on which everything is measured."""
    fresh_batches: int = 20
    """Batches of the recipe's size, at most, without windows of discovery: for the spread of the entropy."""
    random_states: int = 8
    """Of the candidates' norm; their mean is told."""
    preset_states: int = 64
    """States of the run's last half, at most, of which presets are made."""
    least_norm: float = 0.01
    """Floor of the norm of candidates: below it rounding would decide."""

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        for name in ("fresh_batches", "preset_states"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 2 or more")
        if self.compared_windows > self.discovery_windows:
            raise ValueError(
                f"compared_windows is {self.compared_windows}; allowed: at most the "
                f"{self.discovery_windows} discovery_windows that they are taken from"
            )
        if not self.least_norm > 0:
            raise ValueError(f"least_norm is {self.least_norm}; allowed: above 0")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A state made from the run's own."""

    state: tuple[float, ...]
    """(d,) mean of its states."""
    entropy_nats: float
    """On fresh windows."""
    expected_sign: Literal[1, -1]
    """Of what is measured: -1 for calm, +1 for alarmed."""
    measured_nats: float
    """Entropy less that of the other preset, on fresh windows."""
    holds: bool
    """Whether the sign is the expected one; an exact 0 has none."""


@dataclass(frozen=True, kw_only=True)
class FrozenResult:
    """Of one run; plain data."""

    effect_nats: float
    """|H(confident) - H(uncertain)| on fresh windows, to 1e-5 as are all effects."""
    effect_top1: float
    """|difference| of the mean largest probability of the same two states."""
    null_nats: tuple[float, ...]
    """(m,) the effect with QP in P's place, discovery repeated."""
    null_top1: tuple[float, ...]
    """(m,)."""
    axis_nats: tuple[float, ...]
    """(m,) the effect with PR in P's place, discovery repeated."""
    entropy_nats: dict[str, float]
    """On fresh windows, of `zero`, `own`, `confident`, `uncertain` and `random`."""
    top1: dict[str, float]
    """The same of the mean largest probability."""
    sd_nats: float
    """SD over held-out batches of the recipe's size of the mean entropy with the own state."""
    confident: Direction
    uncertain: Direction
    dimensions: tuple[float, ...]
    """(d,) H(+rho e_k) - H(-rho e_k) in nats, on fresh windows."""
    rho: float
    """Norm of the candidates."""
    presets: dict[str, Preset]
    """`calm` and `alarmed`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """First tokens of windows of T tokens of the held-out text; no token is in two of them."""

    discovery: Tensor
    """(discovery_windows,)."""
    fresh: Tensor
    """(fresh_windows,)."""
    batches: Tensor
    """(batches, B), fresh ones among them and none of discovery."""


def held_out_windows(run: NanoRun, spec: FrozenSpec, seed: int) -> HeldOut:
    """Cut the held-out text into windows and deal them out by a seed.

    Raises
    ------
    ValueError
        When the text has too few.
    """
    t, b = run.recipe.shape.block_size, run.recipe.batch
    n, others = len(run.corpus.heldout) // t, max(spec.fresh_windows, 2 * b)
    if n < spec.discovery_windows + others:
        raise ValueError(
            f"the held-out text has {n} windows of {t} tokens; {spec.discovery_windows} for discovery and "
            f"{others} others are needed: use a longer text, or fewer discovery_windows or fresh_windows"
        )
    starts = t * torch.randperm(n, generator=stream(seed, "frozen", "windows"))
    rest = starts[spec.discovery_windows :]
    batches = min(spec.fresh_batches, len(rest) // b)
    return HeldOut(
        discovery=starts[: spec.discovery_windows],
        fresh=rest[: spec.fresh_windows],
        batches=rest[: batches * b].view(batches, b),
    )


def frozen_test(run: NanoRun, spec: FrozenSpec, *, seed: int, report: Report | None = None) -> FrozenResult:
    """Discover, measure, and do the same with turned injections.

    With H(s) the mean entropy in nats of the next token over windows and positions with P s injected, and
    rho = |own s|, candidates are ±rho e_k and ±rho g/|g|, g = P' dH/d(P s) at s = 0. Confident is the one of
    lowest, uncertain the one of highest H on discovery windows (`models.nano_directions` says how it is
    found). Q is uniform on O(C), R on O(d). Windows are the same for all P: under the null that any rotation
    of P is as likely as P, effect and null values are exchangeable and p = (b + 1)/(m + 1) is exact.

    Parameters
    ----------
    seed
        Of windows, rotations and random states; nothing of the run is changed.
    report
        Called as rotations are gone through.

    Notes
    -----
    With P = 0 nothing acts: effect, nulls, dimensions and presets are exactly 0, and the first dimension
    stands for both directions.

    Raises
    ------
    ValueError
        A run without a self-state, without steps, or with own state 0 and P not 0; a held-out text too
        short.
    """
    state, rho = _checked(run, spec)
    held = held_out_windows(run, spec, seed)
    with one_thread(), evaluating(run.gpt):
        bench = _Bench(run, state, spec, held, rho)
        found = bench.effects(seed, report) if bench.acts else bench.nothing()
        return bench.result(found, seed)


def _checked(run: NanoRun, spec: FrozenSpec) -> tuple[SelfState, float]:
    """The state, and the norm of candidates."""
    if run.state is None:
        raise ValueError("the run has no self-state, so nothing is injected; give a run with one")
    if len(run.trajectory) < 2:
        raise ValueError(
            f"the run has {len(run.trajectory)} states of its own; train it for 2 steps or more first"
        )
    norm = float(run.state.s.norm())
    if norm == 0 and bool(run.state.injection.detach().any()):
        raise ValueError(
            "the own state is 0, so candidates have no norm; give a run whose state was not set to 0 at "
            "its end"
        )
    return run.state, max(norm, spec.least_norm)


class _Bench:
    """A network, its injection and the windows that it is tried on."""

    def __init__(self, run: NanoRun, state: SelfState, spec: FrozenSpec, held: HeldOut, rho: float) -> None:
        self._run, self._spec, self._rho = run, spec, rho
        self._own, self._P = state.s.detach().clone(), state.injection.detach().clone()
        self.acts = bool(self._P.any())
        reach = torch.arange(run.recipe.shape.block_size)
        tokens = torch.from_numpy(run.corpus.heldout).long()
        self._discovery = tokens[held.discovery.unsqueeze(-1) + reach]  # (D, T)
        self._fresh = tokens[held.fresh.unsqueeze(-1) + reach]  # (F, T)
        self._batches = tokens[held.batches.unsqueeze(-1) + reach]  # (batches, B, T)

    def effects(self, seed: int, report: Report | None) -> Found:
        """Of P, of P turned in the embedding space m times, and in the state's m times."""
        P, m = self._P, range(self._spec.rotations)
        turned = [haar(P.shape[0], stream(seed, "frozen", "rotation", i)) @ P for i in m]
        mixed = [P @ haar(P.shape[1], stream(seed, "frozen", "axis", i)) for i in m]
        return discovered(
            self._run.gpt,
            torch.stack([P, *turned, *mixed]),
            self._rho,
            discovery=self._discovery,
            compared=self._spec.compared_windows,
            shortlist=self._spec.shortlist,
            fresh=self._fresh,
            report=report,
        )

    def nothing(self) -> Found:
        """The same for P = 0, where every state is the zero state; batches could differ in a last bit."""
        m = 1 + 2 * self._spec.rotations
        entropy, top1 = self._told(self._fresh, torch.zeros(1, len(self._own)))
        numbers = torch.zeros(m, 2, dtype=torch.int64)
        return Found(numbers=numbers, entropy=entropy.expand(m, 2), top1=top1.expand(m, 2))

    def result(self, found: Found, seed: int) -> FrozenResult:
        """All that is told of a run."""
        m, d = self._spec.rotations, len(self._own)
        nats, top1 = found.effect_nats.tolist(), found.effect_top1.tolist()
        entropy_by_state, top1_by_state = self._states(found, seed)
        confident, uncertain = (direction(int(number), d) for number in found.numbers[0])
        return FrozenResult(
            effect_nats=nats[0],
            effect_top1=top1[0],
            null_nats=tuple(nats[1 : m + 1]),
            null_top1=tuple(top1[1 : m + 1]),
            axis_nats=tuple(nats[m + 1 :]),
            entropy_nats=entropy_by_state,
            top1=top1_by_state,
            sd_nats=self._spread(),
            confident=confident,
            uncertain=uncertain,
            dimensions=self._dimensions(),
            rho=self._rho,
            presets=self._presets(),
        )

    def _told(self, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy and top1 of (N, d) states, (N,) each; with P = 0 one forward stands for all."""
        n = len(states)
        entropy, top1 = told(self._run.gpt, x, (states if self.acts else states[:1]) @ self._P.T)
        return entropy.expand(n), top1.expand(n)

    def _states(self, found: Found, seed: int) -> tuple[dict[str, float], dict[str, float]]:
        ways = torch.stack(
            [
                torch.randn(len(self._own), generator=stream(seed, "frozen", "state", i))
                for i in range(self._spec.random_states)
            ]
        )
        random = self._rho * ways / ways.norm(dim=1, keepdim=True)
        both = self._told(self._fresh, torch.cat([torch.zeros_like(random[:1]), self._own[None], random]))
        told_of = []
        for values, two in zip(both, (found.entropy[0], found.top1[0]), strict=True):
            named = {"zero": values[0], "own": values[1], "confident": two[0], "uncertain": two[1]}
            told_of.append(
                {name: float(v) for name, v in named.items()} | {"random": float(values[2:].mean())}
            )
        return told_of[0], told_of[1]

    def _spread(self) -> float:
        means = torch.stack([self._told(x, self._own[None])[0][0] for x in self._batches])
        return float(means.std())

    def _dimensions(self) -> tuple[float, ...]:
        axes = self._rho * torch.eye(len(self._own))
        entropy = self._told(self._fresh, torch.cat([axes, -axes]))[0].view(2, -1)
        return tuple((entropy[0] - entropy[1]).tolist())

    def _presets(self) -> dict[str, Preset]:
        """Means of the tenth of the last half's states of lowest and of highest entropy."""
        half = torch.stack(self._run.trajectory[len(self._run.trajectory) // 2 :])
        n = min(len(half), self._spec.preset_states)
        states = half[torch.linspace(0, len(half) - 1, n).round().long()]
        entropy, _ = self._told(self._discovery, states)
        order, tenth = entropy.argsort(stable=True), max(1, round(n / 10))
        calm, alarmed = states[order[:tenth]].mean(0), states[order[-tenth:]].mean(0)
        told_of = self._told(self._fresh, torch.stack([calm, alarmed]))[0].tolist()
        return {
            "calm": _preset(calm, -1, told_of[0], told_of[1]),
            "alarmed": _preset(alarmed, 1, told_of[1], told_of[0]),
        }


def _preset(state: Tensor, expected: Literal[1, -1], entropy: float, other: float) -> Preset:
    measured = entropy - other
    return Preset(
        state=tuple(state.tolist()),
        entropy_nats=entropy,
        expected_sign=expected,
        measured_nats=measured,
        holds=measured * expected > 0,
    )
