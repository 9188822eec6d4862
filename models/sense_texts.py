"""Texts ready for a head: what each is looked up by, or a frozen encoder's states of it.

A text is read once, however many items hold it; items are rows of numbers into the table of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.sense_head import SenseHead, TokenTable
from models.sense_recipe import HeadShape
from models.sense_tokens import Marked, Vocabulary, encode, words_of

TEXTS_AT_ONCE = 2048
"""Of a forward pass without gradient."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """N different texts of one width."""

    states: Tensor
    """(N, T, G) rows to look up, or (N, T, H) states of a frozen encoder in float16."""
    mask: Tensor
    """(N, T) tokens that exist."""
    target: Tensor
    """(N, T) tokens of the lemma."""
    known: float
    """Share of words that the training texts hold; 1 for an encoder's."""

    def __len__(self) -> int:
        return len(self.mask)


@dataclass(frozen=True, kw_only=True)
class Read:
    """How texts become states: by a vocabulary, or by a function that asks a frozen encoder."""

    vocabulary: Vocabulary | None
    encoder: Callable[[Sequence[Marked]], Texts] | None = None

    def __call__(self, texts: Sequence[Marked]) -> Texts:
        """Texts in their order."""
        if self.encoder is not None:
            return self.encoder(texts)
        if self.vocabulary is None:
            raise ValueError("neither a vocabulary nor an encoder; give one of them")
        found = encode([words_of(one) for one in texts], self.vocabulary)
        rows = torch.from_numpy(found.rows)
        return Texts(
            states=rows, mask=rows[..., 0] > 0, target=torch.from_numpy(found.target), known=found.known
        )


class Network(nn.Module):
    """A head on a table of words, or on states as they come."""

    def __init__(self, shape: HeadShape, rows: int | None) -> None:
        """`rows` of the table; None for a frozen encoder's states."""
        super().__init__()
        self.table = None if rows is None else TokenTable(rows, shape.hidden)
        self.head = SenseHead(shape)

    def forward(self, texts: Texts, which: Tensor) -> tuple[Tensor, Tensor]:
        """(z (..., D), w (..., T)) of texts by their numbers, (...)."""
        states = texts.states[which]
        h = states.float() if self.table is None else self.table(states)
        z, w = self.head(h, texts.mask[which], texts.target[which])
        return z, w

    @torch.no_grad()
    def vectors(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """(N, D) vectors and (N, T) attention of all texts, in evaluation mode."""
        was_training = self.training
        self.eval()
        parts = [self(texts, which) for which in torch.split(torch.arange(len(texts)), TEXTS_AT_ONCE)]
        self.train(was_training)
        return torch.cat([z for z, _ in parts]), torch.cat([w for _, w in parts])

    @torch.no_grad()
    def mean_states(self, texts: Texts) -> Tensor:
        """(N, H) mean of each text's token states, of length 1."""
        states = texts.states.float() if self.table is None else self.table(texts.states)
        present = texts.mask.unsqueeze(-1)
        return functional.normalize((states * present).sum(1) / present.sum(1), dim=-1)


class Numbering:
    """Different texts in order of first use."""

    def __init__(self) -> None:
        """No text yet."""
        self._numbers: dict[Marked, int] = {}

    def number(self, text: Marked) -> int:
        """Its place; a new text is put last."""
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[Marked]:
        """In order."""
        return list(self._numbers)
