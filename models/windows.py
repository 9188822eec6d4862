"""Texts as windows of tokens and windows as batches: what a causal language model reads to score sentences.

A sentence longer than `block_size` is scored in windows as lm-evaluation-harness does with context length 1:
each token once, the first windows disjoint, the last one filled up to `block_size` with tokens before it.

Rows are padded on the right. Under a causal mask no scored position sees what follows it, so padding needs no
mask of its own, positions count from 0, and attention keeps its fast causal path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TOKENS_A_BATCH = 512
"""Positions of a batch with its padding. On one CPU thread 400 texts of 58 tokens took 4 blocks of width 128
0.75 s, with 1,024 positions 1.06 s and with 4,096 1.26 s: activations leave the cache, padding grows.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """One language's texts, tokenised once and cut into windows; entries of a text are in its order."""

    inputs: tuple[IntArray, ...]
    """Token ids that a window's forward pass reads, at most `block_size`."""
    targets: tuple[IntArray, ...]
    """The tokens it predicts: one for each of its last `len(targets)` positions."""
    owner: IntArray
    """Index of each window's sentence."""
    tokens: IntArray
    """Scored tokens of each sentence."""
    n_bytes: IntArray
    """UTF-8 bytes of each sentence."""
    characters: IntArray
    """Code points of each sentence."""
    block_size: int
    """Largest number of predictions of a window."""
    prefix_id: int
    """Token before the first."""

    def __len__(self) -> int:
        """Number of sentences."""
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Windows of similar length that run together."""

    ids: torch.Tensor
    """(windows, longest window) token ids; padded on the right with the prefix token."""
    scored: torch.Tensor
    """(scored positions,) their places in the flattened ids: those that predict a token that counts."""
    real: torch.Tensor
    """(unpadded positions,) their places in the flattened ids."""
    targets: torch.Tensor
    """(scored positions,) the tokens predicted."""
    owner: IntArray
    """(scored positions,) their sentences."""


def prefix_id_of(tokenizer: Any) -> int:
    """The token to put before a text: begin-of-text, else end-of-text.

    Raises
    ------
    ValueError
        When the tokenizer names neither.
    """
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ValueError(
        f"{type(tokenizer).__name__} names neither a begin- nor an end-of-text token; give prefix_id yourself"
    )


def encode(tokenizer: Any, texts: Sequence[str], *, block_size: int, prefix_id: int) -> Encoded:
    """Tokenise texts without special tokens and cut them into windows.

    Parameters
    ----------
    tokenizer
        A `tokenizers.Tokenizer` or a tokenizer of `transformers`.
    block_size
        Positions of a window, at most the model's; 2 or more lets a window see more than one token.

    Raises
    ------
    ValueError
        For a block size below 1, no text, or a text without a token, named by its index from 0.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> words = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<s>"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> encoded = encode(words, ["a b c"], block_size=2, prefix_id=0)
    >>> [(i.tolist(), t.tolist()) for i, t in zip(encoded.inputs, encoded.targets)]
    [([0, 1], [1, 2]), ([1, 2], [3])]
    """
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; a window has at least 1 position")
    if not texts:
        raise ValueError("no texts to encode; give at least 1")
    ids = _token_ids(tokenizer, texts)
    empty = [i for i, row in enumerate(ids) if not row]
    if empty:
        raise ValueError(
            f"text {empty[0]} ({len(empty)} in all) has no token: {texts[empty[0]]!r}; drop empty sentences "
            "from every language before scoring"
        )
    windows = [(i, *window) for i, row in enumerate(ids) for window in _windows(row, block_size, prefix_id)]
    return Encoded(
        inputs=tuple(np.array(inputs, dtype=np.int64) for _, inputs, _ in windows),
        targets=tuple(np.array(targets, dtype=np.int64) for _, _, targets in windows),
        owner=np.array([i for i, _, _ in windows], dtype=np.int64),
        tokens=np.array([len(row) for row in ids], dtype=np.int64),
        n_bytes=np.array([len(text.encode()) for text in texts], dtype=np.int64),
        characters=np.array([len(text) for text in texts], dtype=np.int64),
        block_size=block_size,
        prefix_id=prefix_id,
    )


def batches_of(encoded: Encoded, tokens_a_batch: int) -> tuple[Batch, ...]:
    """Windows sorted by length, longest first, as many a batch as fit with padding; at least one.

    Raises
    ------
    ValueError
        For less than 1 token a batch.
    """
    if tokens_a_batch < 1:
        raise ValueError(f"tokens_a_batch is {tokens_a_batch}; allowed are 1 and more")
    lengths = [len(row) for row in encoded.inputs]
    order = sorted(range(len(lengths)), key=lambda w: -lengths[w])
    batches, first = [], 0
    while first < len(order):
        rows = max(1, tokens_a_batch // lengths[order[first]])
        batches.append(_batch(encoded, order[first : first + rows]))
        first += rows
    return tuple(batches)


def _batch(encoded: Encoded, windows: Sequence[int]) -> Batch:
    width = len(encoded.inputs[windows[0]])
    ids = np.full((len(windows), width), encoded.prefix_id, dtype=np.int64)
    scored = np.zeros((2, len(windows), width), dtype=np.bool_)
    for row, w in enumerate(windows):
        length, n = len(encoded.inputs[w]), len(encoded.targets[w])
        ids[row, :length] = encoded.inputs[w]
        scored[0, row, length - n : length] = True
        scored[1, row, :length] = True
    targets = [encoded.targets[w] for w in windows]
    return Batch(
        ids=torch.from_numpy(ids),
        scored=torch.from_numpy(np.flatnonzero(scored[0])),
        real=torch.from_numpy(np.flatnonzero(scored[1])),
        targets=torch.from_numpy(np.concatenate(targets)),
        owner=np.repeat(encoded.owner[list(windows)], [len(row) for row in targets]),
    )


def _token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if isinstance(tokenizer, Tokenizer):
        return [row.ids for row in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    found = tokenizer(list(texts), add_special_tokens=False, verbose=False, return_attention_mask=False)
    return found["input_ids"]  # type: ignore[no-any-return]


def _windows(ids: list[int], block_size: int, prefix_id: int) -> list[tuple[list[int], list[int]]]:
    """(inputs, targets): the first window starts with the prefix, the last reaches back to be full."""
    row = [prefix_id, *ids]
    found = [(row[: min(block_size, len(ids))], ids[:block_size])]
    for first in range(block_size, len(ids), block_size):
        last = min(first + block_size, len(ids))
        found.append((row[last - block_size : last], ids[first:last]))
    return found
