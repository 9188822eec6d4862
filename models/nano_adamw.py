"""AdamW over a few small tensors: torch's fused function, without the optimiser class around it.

Making a `torch.optim.AdamW` imports torch's compiler, 1 to 2 s of a process, and its step spends more on
hooks and bookkeeping than on 22 small tensors.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Of each parameter, as torch names them."""


class NanoAdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), as `torch.optim.AdamW`.

    Parameters
    ----------
    parameters
        Matrices decay; gains and biases, with fewer than two dimensions, do not.

    >>> weight = nn.Parameter(torch.ones(1, 2))
    >>> weight.sum().backward()
    >>> NanoAdamW([weight], beta1=0.9, beta2=0.99, weight_decay=0.1).step(0.01)
    >>> weight.tolist()  # the decay takes 0.01 * 0.1, Adam's first step 0.01
    [[0.9890000224113464, 0.9890000224113464]]
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, beta1: float, beta2: float, weight_decay: float
    ) -> None:
        self._parameters = list(parameters)
        self._betas, self._decay = (beta1, beta2), weight_decay
        self.moments: dict[nn.Parameter, dict[str, Tensor]] = {}
        """By parameter, once a gradient has reached it."""

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move what a gradient has reached, at a learning rate."""
        reached = [p for p in self._parameters if p.grad is not None]
        self._move([p for p in reached if p.dim() > 1], rate, self._decay)
        self._move([p for p in reached if p.dim() <= 1], rate, 0.0)

    def _move(self, parameters: list[nn.Parameter], rate: float, decay: float) -> None:
        held = [self._moments_of(parameter) for parameter in parameters]
        firsts, seconds, steps = ([one[name] for one in held] for name in MOMENTS)
        gradients = [p.grad for p in parameters if p.grad is not None]
        adamw(
            list[Tensor](parameters),
            gradients,
            firsts,
            seconds,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=rate,
            weight_decay=decay,
            eps=EPSILON,
            maximize=False,
        )

    def _moments_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if parameter not in self.moments:
            self.moments[parameter] = {
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
                "step": torch.zeros(()),
            }
        return self.moments[parameter]
