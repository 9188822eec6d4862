"""Held-out loss of a trained network with its own state and with others in its place, weights fixed.

A state of another run means something only where both runs share a basis, that is an init; a state of another
init is the control, a random one of the same norm the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nano_measures import mean_nats
from models.nano_run import HELD_OUT_BATCH, NanoRun
from models.nano_streams import stream
from models.nano_training import one_thread
from models.self_state import SelfState


def swap_losses(
    run: NanoRun, *, foreign: Tensor, other_init: Tensor, seed: int, draws: int = 8
) -> dict[str, float]:
    """Mean loss in nats over the whole held-out text, by whose state is injected.

    Every token but the first is a target once, as in `NanoRun.valid_loss_nats`, so equal states give losses
    equal to the bit. With u uniform on the sphere and s the own state, `random` is the mean over draws of the
    loss with |s| u.

    Parameters
    ----------
    foreign
        (d,) state of a run of the same init, trained on other data.
    other_init
        (d,) state of a run of another init.
    seed
        Of the random states.
    draws
        Random states.

    Returns
    -------
    dict
        `own`, `zero`, `random`; `foreign` and `other_init_given` as they were given; `foreign_matched` and
        `other_init` stretched to the norm of the own state.

    Raises
    ------
    ValueError
        A run without a state, a state of another width or not finite, one of norm 0 that cannot be
        stretched, or no draws.
    """
    state = run.state
    if state is None:
        raise ValueError("the run has no self-state, so none can be swapped; give a run with one")
    if draws < 1:
        raise ValueError(f"draws is {draws}; allowed: 1 or more")
    given = {"foreign": foreign, "other_init": other_init}
    for name, s in given.items():
        _refuse(name, s, state)
    own = state.s.detach().clone()
    with one_thread(), torch.no_grad():
        random = torch.stack([_random(own, stream(seed, "swap", i)) for i in range(draws)])
        return {
            "own": _nats(run, state, own),
            "zero": _nats(run, state, torch.zeros_like(own)),
            "random": sum(_nats(run, state, s) for s in random) / draws,
            "foreign": _nats(run, state, foreign),
            "foreign_matched": _nats(run, state, _matched("foreign", foreign, own)),
            "other_init_given": _nats(run, state, other_init),
            "other_init": _nats(run, state, _matched("other_init", other_init, own)),
        }


def _refuse(name: str, s: Tensor, state: SelfState) -> None:
    if s.shape != state.s.shape:
        raise ValueError(
            f"{name} has shape {tuple(s.shape)}, the run's state {tuple(state.s.shape)}; give the state of a "
            "run of the same width"
        )
    if not bool(torch.isfinite(s).all()):
        raise ValueError(f"{name} holds a number that is not finite; give the state of a run that ended well")


def _nats(run: NanoRun, state: SelfState, s: Tensor) -> float:
    return mean_nats(run.gpt, run.heldout.whole(HELD_OUT_BATCH), state.injected(s))


def _matched(name: str, s: Tensor, own: Tensor) -> Tensor:
    """s with the norm of the own state; to the bit itself where it has it."""
    norm, wanted = float(s.norm()), float(own.norm())
    if norm == 0 and wanted > 0:
        raise ValueError(
            f"{name} is 0 and cannot be stretched to the own norm {wanted:g}; give the state of a run that "
            "took a step"
        )
    return s if norm == wanted else s * (wanted / norm)


def _random(own: Tensor, draws: torch.Generator) -> Tensor:
    way = torch.randn(own.shape, generator=draws)
    norm: Tensor = own.norm() / way.norm()
    return norm * way
