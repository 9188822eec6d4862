"""What the regimes of a step do: to the batch, to what the update sees, to the state. One channel each.

Every draw is from the stream of its seed, regime and step (`models.nano_streams`), so a regime does the same
whatever else acts, in a resumed run and in a twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.nano_streams import stream
from models.regimes import Regime


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Windows of one step."""

    x: Tensor
    """(B, T) ids."""
    y: Tensor
    """(B, T) ids, each the one after."""
    hidden: Tensor | None = None
    """(B, T) bool: tokens that the network does not see."""


def _draws(regime: Regime, seed: int, step: int) -> torch.Generator:
    return stream(seed, "intervention", regime.id, step)


def disturbed_batch(
    batch: Batch, acting: Sequence[Regime], vocab_size: int, *, seed: int, step: int
) -> Batch:
    """The batch that is trained on: channels `input` and `target`."""
    for regime in acting:
        if regime.channel not in ("input", "target"):
            continue
        draws = _draws(regime, seed, step)
        chosen = torch.rand(batch.x.shape, generator=draws) < regime.strength
        if regime.mode == "mask_tokens":
            batch = replace(batch, hidden=chosen if batch.hidden is None else chosen | batch.hidden)
            continue
        other = torch.randint(vocab_size, batch.x.shape, generator=draws)
        if regime.mode == "random_tokens":
            batch = replace(batch, x=torch.where(chosen, other, batch.x))
        else:
            batch = replace(batch, y=torch.where(chosen, other, batch.y))
    return batch


def seen_statistics(
    statistics: Mapping[str, float], acting: Sequence[Regime], *, seed: int, step: int
) -> dict[str, float]:
    """The copy of the statistics that the update sees: channel `stats`."""
    seen = dict(statistics)
    for regime in acting:
        if regime.channel == "stats":
            by = regime.strength
            if regime.mode == "noise":
                by *= float(torch.randn((), generator=_draws(regime, seed, step)))
            seen[regime.statistic] += by
    return seen


def disturbed_state(s: Tensor, before: Tensor, acting: Sequence[Regime], *, seed: int, step: int) -> Tensor:
    """The state that is used and carried on: channel `self`.

    Parameters
    ----------
    s
        (d,) as updated.
    before
        (d,) of the step before.
    """
    for regime in acting:
        if regime.channel != "self":
            continue
        by = regime.strength
        if regime.mode == "freeze":
            s = before
        elif regime.mode == "scale":
            s = by * s
        elif regime.mode == "noise":
            s = s + by * torch.randn(s.shape, generator=_draws(regime, seed, step))
        else:
            box = by * float(s.detach().square().mean().sqrt()) if regime.mode == "clamp_relative" else by
            s = s.clamp(-box, box)
    return s
