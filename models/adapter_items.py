"""Items as token rows for training and scoring: tokenised once, answers labelled, one order of data a seed.

Only answer tokens and the end token carry labels. A row that is longer than allowed is left out whole and
counted: a cut answer would teach to stop early. Rows are padded on the right, where causality hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.answers import Item, completion, prompt

IGNORED = -100
"""Label of a token that is not scored."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One item in tokens."""

    ids: tuple[int, ...]
    """Prompt, answer, end token."""
    asked: int
    """Tokens of the prompt."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The items of a split in tokens."""

    rows: tuple[Row, ...]
    too_long: tuple[str, ...]
    """Ids of the items that were left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows that run together."""

    ids: Tensor
    """(rows, time), padded on the right with the end token."""
    labels: Tensor
    """(rows, time): the token itself where it is scored, IGNORED elsewhere."""
    lengths: Tensor
    """(rows,) tokens before the padding."""

    @property
    def first(self) -> int:
        """The leftmost column with a label, 1 or later: logits before the one to its left are not needed."""
        return int((self.labels != IGNORED).any(0).int().argmax())

    @property
    def tokens(self) -> int:
        """Scored tokens."""
        return int((self.labels != IGNORED).sum())


def tokenised(tokenizer: Any, items: Sequence[Item], *, max_tokens: int) -> Rows:
    """Prompt and answer of each item through the tokenizer, joined first, as lm-evaluation-harness does.

    Parameters
    ----------
    tokenizer
        Of `transformers`; its begin token is kept, an end token of its own is not added twice.
    max_tokens
        Longest row that is kept.

    Raises
    ------
    ValueError
        For no items, a tokenizer without an end token, an item whose prompt's tokens change when the answer
        follows, or when every item is too long.
    """
    if not items:
        raise ValueError("no items; give at least 1")
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(f"{type(tokenizer).__name__} has no end token; set eos_token, or answers never stop")
    prompts = prompt_ids(tokenizer, items)
    wholes = _ids(tokenizer, [prompt(item.question) + completion(item.answer) for item in items])
    rows, too_long = [], []
    for item, asked, whole in zip(items, prompts, wholes, strict=True):
        if whole[: len(asked)] != asked or len(whole) == len(asked):
            raise ValueError(
                f"item {item.item_id}: its prompt has other tokens when the answer follows, so no token "
                "starts the answer; use a tokenizer that splits before a blank"
            )
        if len(whole) + 1 > max_tokens:
            too_long.append(item.item_id)
        else:
            rows.append(Row(ids=(*whole, end), asked=len(asked)))
    if not rows:
        raise ValueError(f"all {len(items)} items have more than {max_tokens} tokens; raise max_tokens")
    return Rows(rows=tuple(rows), too_long=tuple(too_long))


def prompt_ids(tokenizer: Any, items: Sequence[Item]) -> list[list[int]]:
    """Token ids of each item's prompt."""
    return _ids(tokenizer, [prompt(item.question) for item in items])


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    end = tokenizer.eos_token_id
    found = [list(map(int, ids)) for ids in tokenizer(list(texts))["input_ids"]]
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in found]


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Rows of different lengths as one batch.

    >>> batch = collate([Row(ids=(5, 6, 7, 0), asked=2), Row(ids=(5, 8, 0), asked=1)])
    >>> batch.ids.tolist(), batch.labels.tolist()
    ([[5, 6, 7, 0], [5, 8, 0, 0]], [[-100, -100, 7, 0], [-100, 8, 0, -100]])
    >>> batch.first, batch.tokens
    (1, 4)
    """
    if not rows or any(not 0 < row.asked < len(row.ids) for row in rows):
        raise ValueError(f"{len(rows)} rows; a batch needs at least 1, each with a prompt and an answer")
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[row.ids[-1]] * (width - len(row.ids))] for row in rows])
    columns = torch.arange(width)
    lengths = torch.tensor([len(row.ids) for row in rows])
    asked = torch.tensor([row.asked for row in rows])
    scored = (columns >= asked[:, None]) & (columns < lengths[:, None])
    labels = torch.where(scored, ids, IGNORED)
    return Batch(ids=ids.to(device), labels=labels.to(device), lengths=lengths.to(device))


def data_order(n: int, steps: int, batch_size: int, seed: int) -> Tensor:
    """Items of each step, (steps, batch_size): permutations of all items, one after the other.

    It hangs on the seed and on nothing of the arm: all arms of a seed see the same items in the same order.

    >>> order = data_order(5, 2, 5, seed=1)
    >>> order.sort(dim=1).values.tolist()
    [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    """
    draws = torch.Generator().manual_seed(seed)
    passes = -(-steps * batch_size // n)
    flat = torch.cat([torch.randperm(n, generator=draws) for _ in range(passes)])
    return flat[: steps * batch_size].view(steps, batch_size)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: torch says it by type on accelerators, on CPU in a RuntimeError's message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
