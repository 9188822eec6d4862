"""What is measured of a small GPT: a batch's loss and statistics, held-out loss, and the state's effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)

from models.nano_interventions import Batch
from models.nano_recipe import Positions
from models.nanogpt import GPT


class Windows:
    """Windows of a stream of tokens.

    >>> import numpy as np
    >>> batch = Windows(np.arange(9), 4).drawn(2, torch.Generator().manual_seed(0))
    >>> batch.x.shape, bool((batch.y == batch.x + 1).all())
    (torch.Size([2, 4]), True)
    """

    def __init__(self, tokens: NDArray, block_size: int) -> None:  # type: ignore[type-arg]
        self._tokens = torch.from_numpy(tokens).long()
        self._reach = torch.arange(block_size + 1)

    def drawn(self, n: int, generator: torch.Generator) -> Batch:
        """`n` windows, their first tokens uniform over the stream."""
        first = torch.randint(len(self._tokens) - len(self._reach) + 1, (n, 1), generator=generator)
        held = self._tokens[first + self._reach]  # (n, T + 1)
        return Batch(x=held[:, :-1], y=held[:, 1:])

    def whole(self, n: int) -> Iterator[Batch]:
        """Every token but the first as a target once: disjoint windows, `n` at a time, the rest last."""
        t = len(self._reach) - 1
        full = (len(self._tokens) - 1) // t
        x, y = self._tokens[: full * t].view(full, t), self._tokens[1 : full * t + 1].view(full, t)
        for start in range(0, full, n):
            yield Batch(x=x[start : start + n], y=y[start : start + n])
        if (len(self._tokens) - 1) % t:
            rest = self._tokens[full * t :]
            yield Batch(x=rest[None, :-1], y=rest[None, 1:])


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Of one state against another, on one batch."""

    kl_nats: float
    """Mean KL(p with the first || p with the second) over positions."""
    logits: float
    """Mean |difference| over positions and symbols."""


def loss_and_statistics(logits: Tensor, y: Tensor, positions: Positions) -> tuple[Tensor, float, float]:
    """Mean loss in nats with its gradient; mean entropy in nats and mean largest probability.

    >>> loss, entropy, top1 = loss_and_statistics(torch.zeros(1, 3, 4), torch.zeros(1, 3).long(), "all")
    >>> round(loss.item(), 4), round(entropy, 4), top1
    (1.3863, 1.3863, 0.25)
    """
    logs = F.log_softmax(logits, dim=-1)  # (B, T, V)
    loss = F.nll_loss(logs.flatten(0, 1), y.flatten())
    with torch.no_grad():
        told = logs.detach() if positions == "all" else logs.detach()[:, -1:]
        p = told.exp()
        return loss, float(-(p * told).sum(-1).mean()), float(p.amax(-1).mean())


@contextmanager
def evaluating(gpt: GPT) -> Iterator[None]:
    """Eval mode without gradients; the mode before comes back."""
    was_training = gpt.training
    gpt.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        gpt.train(was_training)


def state_effect(gpt: GPT, x: Tensor, own: Tensor, zero: Tensor) -> Effect:
    """What one injected vector changes against another, in eval mode over all positions.

    Parameters
    ----------
    x
        (B, T) ids of a real batch.
    own, zero
        (C,) what is added to the embeddings: P s and P 0. Equal ones give exactly 0.
    """
    with evaluating(gpt):
        one, other = gpt(x, added=own), gpt(x, added=zero)
        p, q = F.log_softmax(one, dim=-1), F.log_softmax(other, dim=-1)
        return Effect(
            kl_nats=float((p.exp() * (p - q)).sum(-1).mean()), logits=float((one - other).abs().mean())
        )


def mean_nats(gpt: GPT, batches: Iterator[Batch], added: Tensor | None) -> float:
    """Mean loss over all targets of some batches, in eval mode."""
    nats, n = 0.0, 0
    with evaluating(gpt):
        for batch in batches:
            logits = gpt(batch.x, added=added)
            each = F.cross_entropy(logits.flatten(0, 1), batch.y.flatten(), reduction="none")
            nats += float(each.double().sum())
            n += batch.y.numel()
    return nats / n
