"""Which injected vectors make a network confident or uncertain: measured, and discovered for any injection.

A state acts through P s alone, so states, rotations and windows are rows of one batch. Discovery goes in two
stages, the same for every P: the gradient of the entropy where nothing is injected, taken once on all
discovery windows, ranks the single dimensions by what it predicts of them; the first of these, and both signs
of the gradient's own direction, then go through the network on some of the same windows.

The first stage costs a product of matrices. With 8 windows in the second, effects of `fast` runs (.2 to .5
nats) are within .005 nats, root mean square, of those of trying all 66 candidates of d = 32 on 64 windows;
ranking all candidates on one window first misses by .008 to .016 and costs 3 times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.nanogpt import GPT

_CHUNK = 32
"""Windows of one forward: the fastest of 32, 64, 132, 264 and 528 at all three profiles."""

Report = Callable[[int, int], None]
"""Called with windows that went through the network, and how many will."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Which candidate was found."""

    kind: Literal["dimension", "gradient"]
    dimension: int | None
    """k of ±rho e_k; None for the gradient."""
    sign: Literal[1, -1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Confident and uncertain states of M injections."""

    numbers: Tensor
    """(M, 2) of the confident and of the uncertain candidate; `direction` reads them."""
    entropy: Tensor
    """(M, 2) nats of the two on fresh windows."""
    top1: Tensor
    """(M, 2) mean largest probability of the two on fresh windows."""

    @property
    def effect_nats(self) -> Tensor:
        """(M,) |H(confident) - H(uncertain)|, to 1e-5 nats: equal states are ties in any batch."""
        return _apart(self.entropy)

    @property
    def effect_top1(self) -> Tensor:
        """(M,) the same of top1."""
        return _apart(self.top1)


def _apart(two: Tensor) -> Tensor:
    return (two[:, 0] - two[:, 1]).abs().round(decimals=5)


def haar(n: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix, (n, n), uniform on O(n): Q of a normal matrix's QR, R's diagonal made positive.

    References
    ----------
    Mezzadri, F. (2007). How to generate random matrices from the classical compact groups. Notices of the
    AMS 54, 592-604.

    >>> q = haar(3, torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(q @ q.T, torch.eye(3), atol=1e-6))
    True
    """
    q: Tensor
    r: Tensor
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


@torch.no_grad()
def told(
    gpt: GPT, x: Tensor, added: Tensor, report: Callable[[int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean entropy in nats and mean largest probability of the next token, for each injected vector.

    Parameters
    ----------
    gpt
        In eval mode.
    x
        (W, T) ids; means are over all W T positions.
    added
        (N, C).
    report
        Called with windows that went through since the last call.

    Returns
    -------
    tuple
        Both (N,), in double precision.
    """
    w = len(x)
    entropy, top1 = torch.empty(2, len(added) * w, dtype=torch.float64)
    for start in range(0, len(entropy), _CHUNK):  # vector by vector, each with all windows
        pairs = torch.arange(start, min(start + _CHUNK, len(entropy)))
        z = gpt(x[pairs % w], added=added[pairs // w].unsqueeze(1))  # (b, T, V)
        z -= z.amax(-1, keepdim=True)
        e = z.exp()
        total = e.sum(-1)
        entropy[pairs] = (total.log() - z.mul_(e).sum(-1) / total).mean(-1).double()  # log Z - sum p z
        top1[pairs] = total.reciprocal().mean(-1).double()
        if report is not None:
            report(len(pairs))
    return entropy.view(-1, w).mean(1), top1.view(-1, w).mean(1)


def entropy_gradient(gpt: GPT, x: Tensor) -> Tensor:
    """d H / d added at added = 0, (C,): H the mean entropy in nats over the positions of (W, T) ids."""
    total = torch.zeros_like(gpt.positions.weight[0])
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK]
        with torch.enable_grad():
            added = torch.zeros_like(total, requires_grad=True)
            logs = gpt(part, added=added).log_softmax(-1)
            entropy = -(logs.exp() * logs).sum(-1).mean()
        total += torch.autograd.grad(entropy, added)[0] * (len(part) / len(x))
    return total


def candidates(injections: Tensor, g: Tensor, rho: float) -> Tensor:
    """Injected vectors of the states that are tried, of norm rho each.

    Parameters
    ----------
    injections
        (M, C, d) P of each.
    g
        (C,) gradient of the entropy.

    Returns
    -------
    Tensor
        (M, 2 d + 2, C): P of rho e_k, of -rho e_k, and of ±rho P'g/|P'g|; where P'g = 0 the last are 0.
    """
    columns = rho * injections.mT  # (M, d, C)
    way = g @ injections  # (M, d)
    way = way / way.norm(dim=1, keepdim=True).clamp_min(torch.finfo(way.dtype).tiny)
    along = way.unsqueeze(1) @ columns  # (M, 1, C)
    return torch.cat([columns, -columns, along, -along], dim=1)


def direction(number: int, d: int) -> Direction:
    """What a candidate's number stands for.

    >>> direction(5, 3).dimension, direction(5, 3).sign, direction(6, 3).kind
    (2, -1, 'gradient')
    """
    if number >= 2 * d:
        return Direction(kind="gradient", dimension=None, sign=1 if number == 2 * d else -1)
    return Direction(kind="dimension", dimension=number % d, sign=1 if number < d else -1)


def discovered(
    gpt: GPT,
    injections: Tensor,
    rho: float,
    *,
    discovery: Tensor,
    compared: int,
    shortlist: int,
    fresh: Tensor,
    report: Report | None = None,
) -> Found:
    """For each injection, find the states of lowest and highest entropy, and measure both elsewhere.

    Parameters
    ----------
    gpt
        In eval mode.
    injections
        (M, C, d).
    discovery
        (D, T) ids of the gradient; the first `compared` of them decide.
    shortlist
        Dimensions, signs apart, of lowest predicted entropy, and as many of highest.
    fresh
        (F, T) ids to measure on.
    """
    m, d = len(injections), injections.shape[2]
    g = entropy_gradient(gpt, discovery)
    tried = candidates(injections, g, rho)  # (M, 2 d + 2, C)
    numbers = _shortlisted((tried @ g)[:, : 2 * d], min(shortlist, 2 * d))  # (M, n)
    n, done = numbers.shape[1], 0
    all_windows = m * (n * compared + 2 * len(fresh))

    def progress(windows: int) -> None:
        nonlocal done
        done += windows
        if report is not None:
            report(done, all_windows)

    entropy, _ = told(gpt, discovery[:compared], _taken(tried, numbers), progress)
    entropy = entropy.view(m, n)
    chosen = numbers.gather(1, torch.stack([entropy.argmin(1), entropy.argmax(1)], dim=1))  # (M, 2)
    measured = told(gpt, fresh, _taken(tried, chosen), progress)
    return Found(numbers=chosen, entropy=measured[0].view(m, 2), top1=measured[1].view(m, 2))


def _shortlisted(predicted: Tensor, k: int) -> Tensor:
    """Of (M, 2 d) predictions the k lowest, the k highest, and the gradient's two: (M, 2 k + 2) numbers."""
    lowest, highest = (predicted.topk(k, dim=1, largest=largest).indices for largest in (False, True))
    both = predicted.shape[1] + torch.arange(2).expand(len(predicted), 2)
    return torch.cat([lowest, highest, both], dim=1)


def _taken(tried: Tensor, numbers: Tensor) -> Tensor:
    """(M n, C) vectors of (M, n) numbers."""
    return tried.gather(1, numbers.unsqueeze(-1).expand(-1, -1, tried.shape[2])).flatten(0, 1)
