"""The self-state: one vector that a training carries from step to step and feeds back into its network.

With f the statistics of the step before (and what the memory says):

    h = tanh(W1 f + b1)    raw = W2 h + b2    g = sigmoid(w3 . h + b3)       (`mlp`; `linear` has h = f)
    new = (1 - g) raw + g mem       s <- (1 - a) s + a new       x0 = drop(tok + pos) + P s

`gru` makes raw = GRU(f, s) and g from raw. Without memory mem = 0. s is a buffer, no parameter: it is
detached before each update, so the gradient of a step reaches W1, W2, w3, Q and P of that step only. The
memory's part is mem = scale m, its norm at most k |raw|, with m = M - s for a running mean M of s (`ema`) or
m = softmax(B s / sqrt(d)) B - s for a ring B of former states (`buffer`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.nano_recipe import READ_OUT, StateSpec
from models.nanogpt import INIT_STD


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """What one update came to; nothing of it is carried on before `SelfState.carry`."""

    s: Tensor
    """(d,) with its gradient."""
    features: Tensor
    """(features,) f, as the update saw it."""
    raw_norm: float
    memory_norm: float | None
    """Of scale m; None without memory."""
    clamped_norm: float | None
    """Of mem, after the clamp; None without memory."""
    gate: float
    """g, the memory's share of new."""
    cosine: float | None
    """cos(s, s + m) before the update; None without memory and where a norm is 0."""


class SelfState(nn.Module):
    """State, injection, update and memory; all that lasts is in `state_dict`.

    Parameters
    ----------
    width
        C of the network.
    generator
        Of the initial weights: P normal with deviation .02, the update's uniform in ±1/sqrt(inputs).

    >>> state = SelfState(StateSpec(dim=4), 8, torch.Generator().manual_seed(0))
    >>> change = state.update({"loss": 4.0, "grad_norm": 1.0, "step_frac": 0.0, "entropy": 4.0, "top1": 0.1})
    >>> state.carry(change.s)
    >>> state.injected(state.s).shape, bool(state.s.abs().sum() > 0)
    (torch.Size([8]), True)
    """

    s: Tensor
    slow: Tensor
    ema: Tensor
    ring: Tensor
    pushed: Tensor
    carried: Tensor

    def __init__(self, spec: StateSpec, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        d, n = spec.dim, spec.features
        h = {"mlp": spec.hidden, "linear": n, "gru": d, "fixed": 0}[spec.update]
        self.injection = nn.Parameter(torch.empty(width, d))  # P
        with torch.random.fork_rng(devices=[]):  # torch's layers draw initial weights of their own
            self.inner: nn.Module | None = None
            if spec.update in ("mlp", "gru"):
                self.inner = nn.Linear(n, h) if spec.update == "mlp" else nn.GRUCell(n, d)  # W1
            self.outer = nn.Linear(h, d) if spec.update in ("mlp", "linear") else None  # W2
            self.gate = nn.Linear(h, 1) if h else None  # w3
            self.read_out = None if spec.memory == "none" else nn.Linear(d, READ_OUT, bias=False)  # Q
        for name in ("s", "slow", "ema"):
            self.register_buffer(name, torch.zeros(d))
        self.register_buffer("ring", torch.zeros(spec.length if spec.memory == "buffer" else 0, d))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("carried", torch.zeros((), dtype=torch.int64))
        self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        self.injection.normal_(0.0, INIT_STD, generator=generator)
        for module in self.children():
            most = 1.0 / math.sqrt(next(module.parameters()).shape[-1])
            for weight in module.parameters():
                weight.uniform_(-most, most, generator=generator)
        if self.spec.update == "fixed":
            way = torch.randn(self.spec.dim, generator=generator)
            self.s.copy_(self.spec.fixed_norm * way / way.norm())
        if self.spec.injection == "zero":
            self.injection.zero_()
            self.requires_grad_(False)  # no gradient would reach it
        self.injection.requires_grad_(self.spec.injection == "trained")

    def injected(self, s: Tensor) -> Tensor:
        """P s, (C,); of several states (N, d) it is (N, C)."""
        return s @ self.injection.T

    def update(self, statistics: Mapping[str, float]) -> Update | None:
        """The next state from the statistics of the step before, by name; None for a fixed state."""
        if self.gate is None:
            return None
        spec, s = self.spec, self.s.clone()  # the graph keeps it while the buffer goes on
        m = self._recalled(s)
        f = torch.tensor([statistics[name] for name in spec.statistics])
        norms = None if m is None else (float(s.norm()), float((s + m).norm()))
        cosine = None
        if m is not None and self.read_out is not None:
            if norms is not None and min(norms) > 0:
                cosine = float(s @ (s + m)) / math.prod(norms)
            says = torch.stack([m.norm(), torch.tensor(cosine or 0.0)])
            f = torch.cat([f, says, self.read_out(m)])
        raw, h = self._raw(f, s)
        g = torch.sigmoid(self.gate(h))  # (1,)
        new, memory_norm, clamped_norm = (1 - g) * raw, None, None
        if m is not None:
            mem, memory_norm = self._bounded(spec.memory_scale * m, float(raw.detach().norm()))
            new, clamped_norm = new + g * mem, float(mem.norm())
        return Update(
            s=(1 - spec.rate) * s + spec.rate * new,
            features=f.detach(),
            raw_norm=float(raw.detach().norm()),
            memory_norm=memory_norm,
            clamped_norm=clamped_norm,
            gate=float(g.detach()),
            cosine=cosine,
        )

    def _raw(self, f: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """raw, (d,), and what the gate sees."""
        if isinstance(self.inner, nn.GRUCell):
            raw = self.inner(f, s)
            return raw, raw
        h = f if self.inner is None else torch.tanh(self.inner(f))
        return (h if self.outer is None else self.outer(h)), h

    def _recalled(self, s: Tensor) -> Tensor | None:
        """m, (d,)."""
        if self.spec.memory == "none":
            return None
        if self.spec.memory == "ema":
            return self.ema - s
        held = self.ring[: self.filled]
        if not len(held):
            return torch.zeros_like(s)
        return torch.softmax(held @ s / math.sqrt(self.spec.dim), dim=0) @ held - s

    def _bounded(self, mem: Tensor, raw_norm: float) -> tuple[Tensor, float]:
        """The memory's part with a norm of at most k |raw|, and its norm before."""
        norm, most = float(mem.norm()), self.spec.memory_clamp * raw_norm
        return (mem * (most / norm) if norm > most else mem), norm

    @property
    def filled(self) -> int:
        """States in the ring."""
        return min(int(self.pushed), self.spec.length)

    @torch.no_grad()
    def carry(self, s: Tensor) -> None:
        """Make `s` the state; slow reference, memory and counters go on by one step.

        A fixed state stays what it is: what a regime did to it lasts as long as the regime.
        """
        spec = self.spec
        if spec.update != "fixed":
            self.s.copy_(s)
        self.slow.mul_(1 - spec.slow).add_(s, alpha=spec.slow)
        self.carried += 1
        if spec.memory == "ema":
            self.ema.mul_(1 - spec.delta).add_(s, alpha=spec.delta)
        if spec.memory == "buffer" and int(self.carried) % spec.stride == 0:
            self.ring[int(self.pushed) % spec.length] = s
            self.pushed += 1

    @torch.no_grad()
    def place(self, s: Tensor) -> None:
        """Put another state in; reference, memory and counters stay.

        Raises
        ------
        ValueError
            For a vector of another width.
        """
        if s.shape != self.s.shape:
            raise ValueError(f"the state has shape {tuple(self.s.shape)}, what was given {tuple(s.shape)}")
        self.s.copy_(s)

    def drift(self) -> float | None:
        """1 - cos(s, r), r the slow reference; None for d = 1 and where a norm is 0."""
        s, r = self.s.double(), self.slow.double()
        norms = float(s.norm()) * float(r.norm())
        return 1.0 - float(s @ r) / norms if self.spec.dim > 1 and norms > 0 else None

    def relative_drift(self) -> float | None:
        """|s - r| / |r|; None where r = 0."""
        size = float(self.slow.norm())
        return float((self.s - self.slow).norm()) / size if size > 0 else None
