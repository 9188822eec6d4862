"""A GPT in one file: token and learned position embeddings, pre-norm blocks, a head tied to the tokens.

No biases anywhere. What is added to the embeddings (a self-state's P s) and which tokens are hidden is given
with the call, so the network knows nothing of states or regimes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from models.nano_recipe import GptShape

INIT_STD = 0.02
"""Of every matrix; the two projections into the residual stream of a block have it / sqrt(2 n_layer)."""


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__()
        c = shape.n_embd
        self.heads, self.dropout = shape.n_head, shape.dropout
        self.norm_1 = nn.LayerNorm(c, bias=False)
        self.qkv = nn.Linear(c, 3 * c, bias=False)
        self.mixed = nn.Linear(c, c, bias=False)
        self.norm_2 = nn.LayerNorm(c, bias=False)
        self.up = nn.Linear(c, 4 * c, bias=False)
        self.down = nn.Linear(4 * c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(b, t, 3, self.heads, c // self.heads).unbind(2)
        y = F.scaled_dot_product_attention(  # (B, heads, T, C / heads)
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
        )
        x = x + self._dropped(self.mixed(y.transpose(1, 2).reshape(b, t, c)))
        return x + self._dropped(self.down(F.gelu(self.up(self.norm_2(x)))))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class GPT(nn.Module):
    """Next-token logits.

    Parameters
    ----------
    generator
        Of the initial weights; torch's own generator is not touched.

    >>> shape = GptShape(n_layer=1, n_head=2, n_embd=8, block_size=4)
    >>> gpt = GPT(shape, 5, torch.Generator().manual_seed(0))
    >>> gpt(torch.tensor([[1, 2, 3]])).shape, sum(p.numel() for p in gpt.parameters())
    (torch.Size([1, 3, 5]), 864)
    """

    def __init__(self, shape: GptShape, vocab_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng(devices=[]):  # torch's layers draw initial weights of their own
            self.tokens = nn.Embedding(vocab_size, shape.n_embd)
            self.positions = nn.Embedding(shape.block_size, shape.n_embd)
            self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
            self.norm = nn.LayerNorm(shape.n_embd, bias=False)
        self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        into_residual = INIT_STD / math.sqrt(2 * self.shape.n_layer)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                std = into_residual if name.endswith(("mixed.weight", "down.weight")) else INIT_STD
                weight.normal_(0.0, std, generator=generator)

    def forward(self, ids: Tensor, *, added: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of tokens (B, T).

        Parameters
        ----------
        added
            (C,) or (B, 1, C), added to every position after dropout: P s.
        hidden
            (B, T) bool; there the token's embedding is 0 and the position's stays.
        """
        token = self.tokens(ids)
        if hidden is not None:
            token = token.masked_fill(hidden.unsqueeze(-1), 0.0)
        x = token + self.positions.weight[: ids.shape[1]]
        if self.shape.dropout:
            x = F.dropout(x, self.shape.dropout, self.training)
        if added is not None:
            x = x + added
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)
