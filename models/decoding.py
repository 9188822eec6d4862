"""Networks as the sampler sees them: prompts in, next-token logits out, one token a row at a time.

A `Network` is a model, a `Decoding` a batch of it in flight: left-padded rows, key and value caches of fixed
size, logits of the next token. `open_network` picks the arithmetic: `models.plain` for GPT-2 and Llama shapes
(the embedded models are such), else the model's own forward with transformers' `StaticCache`. Batches run in
the model's precision. `Network.exact` gives float64 logits of one sequence alone, which depend on nothing but
that sequence: the sampler's guard decides by them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import StaticCache

from models.plain import PlainDecoding, Prompts, Shape, left_padded, plain_shape


class Decoding(Protocol):
    """A batch in flight."""

    @property
    def logits(self) -> Tensor:
        """Logits of each row's next token, (rows, vocabulary)."""
        ...

    def step(self, tokens: Tensor) -> None:
        """Append one token to each row and compute the next logits; `tokens` is (rows,), int64."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these; `rows` holds places in the present batch, int64."""
        ...


class Network(Protocol):
    """A causal language model."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        ...

    @property
    def window(self) -> int | None:
        """Most tokens, prompt and reply together; None when the model sets no limit."""
        ...

    def begin(self, prompts: Prompts, new_tokens: int) -> Decoding:
        """Read the prompts, with room for `new_tokens` more in every row."""
        ...

    def exact(self, tokens: Sequence[int]) -> Tensor:
        """Logits after one sequence alone, in float64, (1, vocabulary)."""
        ...


def open_network(model: Any) -> Network:
    """The network of a loaded transformers model.

    Parameters
    ----------
    model
        A causal language model in eval mode. It is read, never changed; weights changed later may not count.
    """
    shape = plain_shape(model)
    return HubNetwork(model) if shape is None else PlainNetwork(model, shape)


class PlainNetwork:
    """A model of a plain shape, and its float64 weights from the first time they are needed."""

    def __init__(self, model: Any, shape: Shape) -> None:
        self._model, self._shape = model, shape
        self._double: Shape | None = None

    @property
    def vocabulary(self) -> int:
        """See `Network`."""
        return self._shape.embedding.shape[0]

    @property
    def window(self) -> int | None:
        """See `Network`."""
        return self._shape.window

    def begin(self, prompts: Prompts, new_tokens: int) -> Decoding:
        """See `Network`."""
        return PlainDecoding(self._shape, prompts, new_tokens)

    def exact(self, tokens: Sequence[int]) -> Tensor:
        """See `Network`."""
        self._double = self._double or plain_shape(self._model, torch.float64)
        if self._double is None:
            raise ValueError("the model's configuration changed after open_network; open it again")
        return PlainDecoding(self._double, [tokens], 0).logits


class HubNetwork:
    """Any causal model of transformers, and a float64 copy of it from the first time it is needed."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._double: Any = None
        text = model.config.get_text_config(decoder=True)
        self.vocabulary: int = text.vocab_size
        self.window: int | None = getattr(text, "max_position_embeddings", None)

    def begin(self, prompts: Prompts, new_tokens: int) -> Decoding:
        """See `Network`."""
        return _HubDecoding(self._model, prompts, new_tokens)

    def exact(self, tokens: Sequence[int]) -> Tensor:
        """See `Network`. Parts that a model computes in float32 by itself stay so."""
        if self._double is None:
            self._double = copy.deepcopy(self._model).double()
        ids = torch.tensor([list(tokens)], device=self._double.device)
        logits: Tensor = self._double(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        return logits[:, -1].double()


class _HubDecoding:
    """A transformers model with a `StaticCache` as long as the longest row can get."""

    logits: Tensor

    def __init__(self, model: Any, prompts: Prompts, new_tokens: int) -> None:
        self._model = model
        padded = left_padded(prompts, model.device)
        self._zeros = padded.zeros
        room = padded.ids.shape[1] + new_tokens
        self._cache: Any = StaticCache(config=model.config, max_cache_len=room)
        # Columns still to come may be 1 from the start: causality hides them.
        self._mask = (torch.arange(room, device=model.device) >= self._zeros[:, None]).long()
        self._length = 0
        self._advance(padded.ids)

    def step(self, tokens: Tensor) -> None:
        """See `Decoding`."""
        self._advance(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """See `Decoding`."""
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        self._zeros, self._mask, self.logits = self._zeros[rows], self._mask[rows], self.logits[rows]

    def _advance(self, ids: Tensor) -> None:
        columns = torch.arange(self._length, self._length + ids.shape[1], device=ids.device)
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=(columns - self._zeros[:, None]).clamp_(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._length += ids.shape[1]
        self.logits = output.logits[:, -1]
