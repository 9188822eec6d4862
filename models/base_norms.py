"""Spectral and Frobenius norm of the weights that adapters sit on, for update-to-weight ratios.

The Frobenius norm is a sum. The spectral norm of a small matrix comes from all its singular values; that of a
large one from Golub-Kahan bidiagonalisation: some dozens of products with W and its transpose. A random
4096 x 14336 matrix takes 9 s on one thread, one with a direction that stands out 0.5 s.

References
----------
Golub & Van Loan (2013), Matrix Computations, 4th ed., 10.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.adapters import linears

EXACT_UP_TO = 1024
"""Smaller side of a matrix up to which all singular values are computed."""
TOLERANCE = 1e-6
"""Relative residual at which the iteration stops."""
MOST_ITERATIONS = 300
ZERO = 1e-12
"""Length of a new direction, over the largest so far, that rounding alone leaves."""


def base_norms(model: nn.Module) -> dict[str, tuple[float, float]]:
    """(spectral, Frobenius) norm of every adaptable module's own weight, the adapter left out.

    >>> from transformers import MistralConfig, MistralForCausalLM
    >>> shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 9}
    >>> model = MistralForCausalLM(MistralConfig(**shape, num_attention_heads=2, num_key_value_heads=1))
    >>> _ = model.model.layers[0].mlp.up_proj.weight.data.zero_()
    >>> base_norms(model)["model.layers.0.mlp.up_proj"]
    (0.0, 0.0)
    """
    found = {}
    for name, linear in linears(model):
        weight = linear.weight.detach().double()
        found[name] = (spectral_norm(weight), float(torch.linalg.vector_norm(weight)))
    return found


def spectral_norm(weight: Tensor, *, exact_up_to: int = EXACT_UP_TO) -> float:
    """Largest singular value of a float64 matrix.

    Above `exact_up_to` on both sides it is that of a growing bidiagonal matrix, until its Ritz pair leaves a
    residual of at most TOLERANCE of it. A singular value lies within that residual; it is the largest unless
    the first vector, random from a fixed seed, holds nothing of its direction.

    Raises
    ------
    ValueError
        For weights that are not finite, and when MOST_ITERATIONS do not reach the tolerance.

    >>> spectral_norm(torch.diag(torch.arange(5.0, dtype=torch.float64)))
    4.0
    """
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(f"a weight of shape {tuple(weight.shape)} is not finite; the base model is damaged")
    if min(weight.shape) <= exact_up_to:
        return float(torch.linalg.svdvals(weight)[0])
    return _lanczos(weight)


def _lanczos(weight: Tensor) -> float:
    draws = torch.Generator().manual_seed(0)
    v = torch.randn(weight.shape[1], generator=draws, dtype=torch.float64).to(weight.device)
    right = [v / torch.linalg.vector_norm(v)]  # orthonormal
    left: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(MOST_ITERATIONS):
        u, alpha = _orthogonal(weight @ right[-1], left)
        if alpha <= ZERO * max(alphas, default=0.0):  # W maps no new direction: B has one column more
            return _largest(alphas, betas)[0]
        left.append(u)
        alphas.append(alpha)
        v, beta = _orthogonal(weight.T @ u, right)
        theta, last = _largest(alphas, betas)
        if beta * last <= TOLERANCE * theta:
            return theta
        right.append(v)
        betas.append(beta)
    raise ValueError(
        f"{MOST_ITERATIONS} iterations on a matrix of shape {tuple(weight.shape)} left a relative residual "
        f"of {beta * last / theta:.1e}, more than {TOLERANCE:g}; raise MOST_ITERATIONS or EXACT_UP_TO"
    )


def _orthogonal(x: Tensor, basis: list[Tensor]) -> tuple[Tensor, float]:
    """Part of x orthogonal to the basis, normalised unless it is 0, and its length."""
    if basis:
        q = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that grow
            x = x - q.T @ (q @ x)
    rest = float(torch.linalg.vector_norm(x))
    return (x / rest if rest else x), rest


def _largest(alphas: list[float], betas: list[float]) -> tuple[float, float]:
    """Largest singular value of the upper bidiagonal matrix, and |last entry| of its left vector."""
    if not alphas:
        return 0.0, 0.0
    b = torch.zeros(len(alphas), len(betas) + 1, dtype=torch.float64)
    b.diagonal().copy_(torch.tensor(alphas, dtype=torch.float64))
    b.diagonal(1).copy_(torch.tensor(betas, dtype=torch.float64))
    left, sigma, _ = torch.linalg.svd(b, full_matrices=False)
    return float(sigma[0]), abs(float(left[-1, 0]))
