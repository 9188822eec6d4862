"""The retrieval head: token states, attention over them, one vector a text.

    score = Linear(H/4 -> 1)(tanh(Linear(H -> H/4)(h))), padding excluded
    w = softmax(score), pooled = sum_t w_t h_t
    z = L2norm(LayerNorm(Linear(H -> D)(dropout(GELU(Linear(H -> H)(pooled))))))

Options: mean pooling instead of attention; a penalty taken from the target's score; a floor for the entropy
of the attention (`entropy_floor`); and the phase.

The phase takes a state as H/2 complex numbers and turns each by an angle that the mean of the text's states
gives: h_k exp(i theta_k). What is read out are real and imaginary parts, never the magnitude, which no
rotation changes: with that readout the phase would do nothing at all (`magnitude` is kept for the test that
shows it). "unrotated" has the same parameters and adds the angles to the real parts instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sense_recipe import HeadShape

LEAST_WEIGHT = 1e-12
"""Under the logarithm of the entropy."""
INIT_SD = 0.02
"""Of embeddings. Chosen on dev: with .1 the words keep their random vectors and B stays near .30."""


class TokenTable(nn.Module):
    """States of words: the mean of the rows they are looked up by."""

    def __init__(self, size: int, hidden: int) -> None:
        """A table of `size` rows, row 0 the padding."""
        super().__init__()
        self.rows = nn.Embedding(size, hidden, padding_idx=0)
        with torch.no_grad():
            self.rows.weight.normal_(std=INIT_SD)
            self.rows.weight[0] = 0.0

    def forward(self, rows: Tensor) -> Tensor:
        """(..., T, G) rows -> (..., T, H) states; zeros for padding."""
        if rows.shape[-1] == 1:
            found: Tensor = self.rows(rows[..., 0])
            return found
        counts = (rows > 0).sum(-1, keepdim=True).clamp(min=1)
        mean: Tensor = self.rows(rows).sum(-2) / counts
        return mean


class SenseHead(nn.Module):
    """Token states -> (z, w)."""

    def __init__(self, shape: HeadShape) -> None:
        """Parameters of a shape, by torch's own initialisation."""
        super().__init__()
        self.shape = shape
        hidden = shape.hidden
        self.key = nn.Linear(hidden, hidden // 4)
        self.score = nn.Linear(hidden // 4, 1)
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, shape.out)
        self.norm = nn.LayerNorm(shape.out)
        self.drop = nn.Dropout(shape.dropout)
        self.angle = None if shape.phase == "none" else nn.Linear(hidden, hidden // 2)

    def forward(self, states: Tensor, mask: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and attention of texts.

        Parameters
        ----------
        states : (..., T, H) float
        mask, target : (..., T) bool
            Tokens that exist, at least one a text; tokens of the lemma.

        Returns
        -------
        z : (..., D) of length 1
        w : (..., T) that sum to 1, 0 in the padding
        """
        h = states if self.angle is None else self.phased(states, mask)
        w = self.attention(h, mask, target)
        pooled = (w.unsqueeze(-1) * h).sum(-2)
        z = self.norm(self.outer(self.drop(functional.gelu(self.inner(pooled)))))
        return functional.normalize(z, dim=-1), w

    def attention(self, h: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """(..., T) weights."""
        if self.shape.pooling == "mean":
            return mask / mask.sum(-1, keepdim=True)
        score: Tensor = self.score(torch.tanh(self.key(h))).squeeze(-1)
        if self.shape.target_penalty:
            score = score - self.shape.target_penalty * target
        return score.masked_fill(~mask, -torch.inf).softmax(-1)

    def phased(self, states: Tensor, mask: Tensor) -> Tensor:
        """(..., T, H) states, turned by the text's angles or, unrotated, moved by them."""
        if self.angle is None:
            raise ValueError("this head has no phase; build it with phase='rotated' or 'unrotated'")
        present = mask.unsqueeze(-1)
        mean = (states * present).sum(-2) / present.sum(-2)
        theta = self.angle(mean).unsqueeze(-2)  # (..., 1, H/2)
        real, imaginary = states.chunk(2, dim=-1)
        if self.shape.phase == "unrotated":
            return torch.cat([real + theta, imaginary], dim=-1)
        return rotated(real, imaginary, theta)


def rotated(real: Tensor, imaginary: Tensor, theta: Tensor) -> Tensor:
    """(..., 2K): real, then imaginary parts of (real + i imaginary) exp(i theta), all (..., K).

    >>> turned = rotated(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([torch.pi / 2]))
    >>> [round(abs(x), 6) for x in turned.tolist()]
    [0.0, 1.0]
    """
    cos, sin = theta.cos(), theta.sin()
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)


def magnitude(states: Tensor) -> Tensor:
    """(..., H/2) absolute values of states taken as complex numbers; blind to any rotation."""
    real, imaginary = states.chunk(2, dim=-1)
    return torch.hypot(real, imaginary)


def attention_entropy(w: Tensor) -> Tensor:
    """(...) entropy of attention in nats: -sum w ln w.

    >>> round(float(attention_entropy(torch.tensor([0.5, 0.5, 0.0]))), 4)
    0.6931
    """
    each: Tensor = -w * w.clamp(min=LEAST_WEIGHT).log()  # entr has an infinite slope at the padding's 0
    return each.sum(-1)


def entropy_floor(w: Tensor, *, least: float = 1.0) -> Tensor:
    """Mean of relu(least - H(w)), in nats: what attention falls short of the least entropy.

    >>> float(entropy_floor(torch.tensor([[1.0, 0.0], [0.0, 1.0]])))
    1.0
    """
    short: Tensor = functional.relu(least - attention_entropy(w))
    return short.mean()
