"""How much each thing that the update sees moves the state: its slope times how much the thing moves.

The state's part of the update is followed with the weights as they ended, at the states and features that
the run went through; a memory is filled again from the states, as the run filled it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.nano_recipe import READ_OUT, StateSpec
from models.nano_run import NanoRun
from models.nano_training import one_thread
from models.self_state import SelfState


@dataclass(frozen=True, kw_only=True, eq=False)
class _Updates:
    """Updates of the last half of a run, N of them."""

    s: Tensor
    """(N, d) state before each."""
    f: Tensor
    """(N, features) what each saw."""
    mem: Tensor | None
    """(N, d) scale m before the clamp; None without memory."""


def feature_names(spec: StateSpec) -> tuple[str, ...]:
    """Names of the numbers that an update sees, in their order.

    >>> feature_names(StateSpec(step_frac=False, memory="ema"))[:7]
    ('loss', 'grad_norm', 'entropy', 'top1', '|m|', 'cos', 'Q m 0')
    """
    memory = () if spec.memory == "none" else ("|m|", "cos", *(f"Q m {i}" for i in range(READ_OUT)))
    return spec.statistics + memory


def input_sensitivity(run: NanoRun) -> dict[str, float]:
    """Mean |d s_new / d f_j| times the SD of f_j, for each feature j by name.

    With s_new(f) the update at a step, its own state and memory held,

        mean over steps of the last half of |(d s_new / d f_j)|  x  SD(f_j) over the same steps

    in units of the state: what one typical movement of the feature does to s in one step. The derivative is
    exact, by autograd, with the weights as the run ended; the clamp of the memory's part moves with |raw|.

    Raises
    ------
    ValueError
        A run without a self-state or with a fixed one, with fewer than two updates in its last half, or one
        with a memory that began from another run, whose memory before is not known.
    """
    state = run.state
    if state is None or state.gate is None:
        held = "no self-state" if state is None else "a fixed state"
        raise ValueError(f"the run has {held}, so nothing is updated; give one of mlp, linear or gru")
    with one_thread():
        updates = _last_half(run, state)
        f = updates.f.clone().requires_grad_()
        new = _updated(state, updates, f)  # (N, d)
        slopes = [torch.autograd.grad(new[:, i].sum(), f, retain_graph=True)[0] for i in range(new.shape[1])]
        size = torch.stack(slopes).double().square().sum(0).sqrt().mean(0)  # (features,)
        found = size * updates.f.double().std(0)
    return dict(zip(feature_names(state.spec), found.tolist(), strict=True))


def _last_half(run: NanoRun, state: SelfState) -> _Updates:
    states, memory = run.trajectory, state.spec.memory != "none"
    if memory and len(states) < run.step:
        raise ValueError(
            f"the run began at step {run.step - len(states)} from another and has a memory, which is not "
            "known before that; give a run that was trained from its start"
        )
    first = len(states) - len(run.seen)  # step of the first update: 1, or 0 in a run that began from another
    steps = range(max(len(states) // 2, first, 1), len(states))
    if len(steps) < 2:
        raise ValueError(
            f"the run has {len(steps)} updates in the last half of {len(states)} steps; needed: 2 or more"
        )
    recalled = _recalled(state.spec, torch.stack(states)) if memory else None
    return _Updates(
        s=torch.stack([states[step - 1] for step in steps]),
        f=torch.stack([run.seen[step - first] for step in steps]),
        mem=None if recalled is None else state.spec.memory_scale * recalled[[step - 1 for step in steps]],
    )


def _recalled(spec: StateSpec, states: Tensor) -> Tensor:
    """m after each step, (steps, d), of a memory that was empty before the first."""
    again = SelfState(spec, 1, torch.Generator())
    found = []
    for s in states:
        again.carry(s)
        if spec.memory == "ema":
            found.append(again.ema - s)
            continue
        held = again.ring[: again.filled]
        weights = torch.softmax(held @ s / spec.dim**0.5, dim=0)
        found.append(weights @ held - s if len(held) else torch.zeros_like(s))
    return torch.stack(found)


def _updated(state: SelfState, at: _Updates, f: Tensor) -> Tensor:
    """(N, d) next states of features (N, features): the formulas of `models.self_state`, a row a step."""
    if state.gate is None:
        raise ValueError("a fixed state has no update")
    if isinstance(state.inner, nn.GRUCell):
        raw = h = state.inner(f, at.s)
    else:
        h = f if state.inner is None else torch.tanh(state.inner(f))
        raw = h if state.outer is None else state.outer(h)
    g = torch.sigmoid(state.gate(h))  # (N, 1)
    new = (1 - g) * raw
    if at.mem is not None:
        norm = at.mem.norm(dim=1, keepdim=True)
        most = state.spec.memory_clamp * raw.norm(dim=1, keepdim=True)
        new = new + g * torch.where(norm > most, at.mem * (most / norm.clamp_min(1e-30)), at.mem)
    following: Tensor = (1 - state.spec.rate) * at.s + state.spec.rate * new
    return following
