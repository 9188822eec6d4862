"""GPT-2 and Llama shapes by their own few lines of arithmetic, for batches of many rows and one token.

At 64 rows of a model under 5 M parameters most of a transformers forward is Python around small matrix
products: masks built anew, wrappers a module, caches that copy. Here a step of a layer is some 20 tensor
operations. The two shapes differ in how a layer makes queries, keys and values and in what follows attention,
so those are `Gpt2` and `Llama`; caches, padding and attention are the same and are `PlainDecoding`.

`plain_shape` says whether a model is one of these; any other runs by its own forward (`models.decoding`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 -- the name the whole field uses
from torch import Tensor
from transformers import GPT2LMHeadModel, LlamaForCausalLM

Prompts = Sequence[Sequence[int]]

PREFILL_POSITIONS = 4096
"""Positions of prompts taken at once, all rows together; bounds the matrix of scores."""


Angles = tuple[Tensor, ...]
"""What a shape computes once from positions and uses in every layer."""


class Shape(Protocol):
    """A model's arithmetic outside attention; x is (rows * n, width)."""

    layers: int
    heads: int
    """Of queries; a multiple of `pairs`."""
    pairs: int
    """Heads of keys and values."""
    size: int
    """Width of a head."""
    embedding: Tensor
    """(vocabulary, width)."""
    head: Tensor
    """(vocabulary, width), packed."""
    window: int

    def embed(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Angles]:
        """Ids (rows, n) at positions (rows, n) as x."""
        ...

    def project(self, layer: int, x: Tensor, angles: Angles, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (rows, n, heads, size), keys and values (rows, n, pairs, size)."""
        ...

    def follow(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """X after the layer, given what attention mixed, (rows * n, width)."""
        ...

    def finish(self, x: Tensor) -> Tensor:
        """The last norm."""
        ...


def plain_shape(model: Any, dtype: torch.dtype | None = None) -> Shape | None:
    """The arithmetic of a loaded model, in `dtype` (None: as loaded); None when it is not one of ours."""
    config = model.config
    if type(model) is GPT2LMHeadModel:
        usual = (
            config.activation_function in _ACTIVATIONS
            and config.scale_attn_weights
            and not config.scale_attn_by_inverse_layer_idx
            and not config.add_cross_attention
            and not config.reorder_and_upcast_attn
        )
        return Gpt2(model, dtype) if usual else None
    if type(model) is LlamaForCausalLM:
        usual = (
            config.rope_parameters["rope_type"] == "default"
            and config.hidden_act == "silu"
            and not config.attention_bias
            and not config.mlp_bias
        )
        return Llama(model, dtype) if usual else None
    return None


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


def _has_onednn() -> bool:
    """Whether this torch has oneDNN's float32 matrix product over packed weights, and it is right."""
    x, weight, bias = torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)
    try:
        return torch.equal(onednn_linear(x, _reordered(weight), bias), F.linear(x, weight, bias))
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _reordered(weight: Tensor) -> Tensor:
    other: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 64)  # best at 64 rows
    return other


HAS_ONEDNN = _has_onednn()

PACKED_FROM = 12_000
"""Elements from which packing pays: a call of oneDNN takes 8 us more than one of MKL. At 64 rows both took
17 us for a (192, 64) matrix; for a (96, 96) one oneDNN took 15 us, MKL 13; for (960, 160) 95 and 191."""


def packed(weight: Tensor) -> Tensor:
    """A weight (out, in) as `linear` takes it fastest: in oneDNN's own layout for CPU float32.

    `F.linear` goes through MKL, which on AMD processors runs its 256-bit code: at 64 rows oneDNN took half
    the time. Its operators are those that torch's compiler emits; they have no public names, so they are
    tried out first.
    """
    plain = weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.numel() < PACKED_FROM
    return weight.contiguous() if plain or not HAS_ONEDNN else _reordered(weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`; x (n, in), weight from `packed`."""
    return onednn_linear(x, weight, bias) if weight.is_mkldnn else F.linear(x, weight, bias)


class Gpt2:
    """Learned positions, layer norm, biases, an MLP of four times the width."""

    def __init__(self, model: Any, dtype: torch.dtype | None) -> None:
        body, config = model.transformer, model.config
        self.layers, self.heads, self.pairs = config.n_layer, config.n_head, config.n_head
        self.size, self.window = config.n_embd // config.n_head, config.n_positions
        self.embedding = body.wte.weight.detach().to(dtype)
        self.head = packed(model.lm_head.weight.detach().to(dtype))
        self._positions = body.wpe.weight.detach().to(dtype)
        self._epsilon = config.layer_norm_epsilon
        self._activation = _ACTIVATIONS[config.activation_function]
        self._final = _pair(body.ln_f, dtype)
        self._attention = [_pair(b.ln_1, dtype) + _turned(b.attn.c_attn, dtype) for b in body.h]
        self._rest = [
            (
                _turned(b.attn.c_proj, dtype),
                _pair(b.ln_2, dtype),
                _turned(b.mlp.c_fc, dtype),
                _turned(b.mlp.c_proj, dtype),
            )
            for b in body.h
        ]

    def embed(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Angles]:
        """See `Shape`."""
        return (F.embedding(ids, self.embedding) + F.embedding(places, self._positions)).flatten(0, 1), ()

    def project(self, layer: int, x: Tensor, angles: Angles, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `Shape`."""
        gain, shift, weight, bias = self._attention[layer]
        qkv = linear(self._norm(x, gain, shift), weight, bias)
        q, k, v = qkv.view(rows, -1, 3, self.heads, self.size).unbind(2)
        return q, k, v

    def follow(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """See `Shape`."""
        out, norm, widen, narrow = self._rest[layer]
        x = x + linear(mixed, *out)
        return x + linear(self._activation(linear(self._norm(x, *norm), *widen)), *narrow)

    def finish(self, x: Tensor) -> Tensor:
        """See `Shape`."""
        return self._norm(x, *self._final)

    def _norm(self, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[1],), gain, shift, self._epsilon)


def _pair(module: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    return module.weight.detach().to(dtype), module.bias.detach().to(dtype)


def _turned(module: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of GPT-2's Conv1D, which stores (in, out), as (out, in), packed."""
    weight, bias = _pair(module, dtype)
    return packed(weight.t()), bias


class Llama:
    """Rotary positions, RMS norm, no biases, a gated MLP.

    x / sqrt(mean(x^2) + epsilon) * gain is x / sqrt(sum(x^2) + n epsilon), n the width, with gain sqrt(n)
    moved into the matrix that follows: three operations of half the time of `F.rms_norm`.
    """

    def __init__(self, model: Any, dtype: torch.dtype | None) -> None:
        body, config = model.model, model.config
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.pairs = config.num_key_value_heads
        self.size, self.window = config.head_dim, config.max_position_embeddings
        self.embedding = body.embed_tokens.weight.detach().to(dtype)
        self.head = _scaled(body.norm, dtype, model.lm_head)
        self._wide = torch.promote_types(self.embedding.dtype, torch.float32)
        floor = math.sqrt(config.hidden_size * config.rms_norm_eps)
        self._floor = torch.tensor(floor, dtype=self._wide, device=self.embedding.device)
        self._cos, self._sin = self._rotation(body, self.embedding)
        self._blocks = [self._block(b, dtype) for b in body.layers]

    def _rotation(self, body: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every position, (window, size), the first half of the sine negated.

        From the model's own module in its own precision, also for float64: angles rounded otherwise would
        move logits further than the guard allows for.
        """
        cos, sin = body.rotary_emb(like, torch.arange(self.window, device=like.device)[None])
        cos, sin = cos.to(torch.float32), sin.to(torch.float32)
        sign = torch.ones(self.size, device=like.device)
        sign[: self.size // 2] = -1
        return cos[0].to(like.dtype), (sin[0] * sign).to(like.dtype)

    def _block(self, block: Any, dtype: torch.dtype | None) -> tuple[Tensor, ...]:
        attention, mlp = block.self_attn, block.mlp
        return (
            _scaled(block.input_layernorm, dtype, attention.q_proj, attention.k_proj, attention.v_proj),
            packed(attention.o_proj.weight.detach().to(dtype)),
            _scaled(block.post_attention_layernorm, dtype, mlp.gate_proj, mlp.up_proj),
            packed(mlp.down_proj.weight.detach().to(dtype)),
        )

    def embed(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Angles]:
        """See `Shape`."""
        # F.embedding takes half the time of indexing.
        angles = (F.embedding(places, self._cos)[:, :, None], F.embedding(places, self._sin)[:, :, None])
        return F.embedding(ids, self.embedding).flatten(0, 1), angles

    def project(self, layer: int, x: Tensor, angles: Angles, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """See `Shape`."""
        turning = self.heads + self.pairs
        qkv = linear(self._norm(x), self._blocks[layer][0]).view(rows, -1, turning + self.pairs, self.size)
        both = qkv[:, :, :turning]
        # (a, b) turns into (a cos - b sin, b cos + a sin): roll swaps the halves, the sine carries the sign.
        cos, sin = angles
        turned = torch.addcmul(both * cos, torch.roll(both, self.size // 2, -1), sin)
        return turned[:, :, : self.heads], turned[:, :, self.heads :], qkv[:, :, turning:]

    def follow(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """See `Shape`."""
        out, gate_up, down = self._blocks[layer][1:]
        x = x + linear(mixed, out)
        gate, up = linear(self._norm(x), gate_up).chunk(2, 1)
        return x + linear(F.silu(gate) * up, down)

    def finish(self, x: Tensor) -> Tensor:
        """See `Shape`."""
        return self._norm(x)

    def _norm(self, x: Tensor) -> Tensor:
        root = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=self._wide)
        return (x / torch.hypot(root, self._floor)).to(x.dtype)


def _scaled(norm: Any, dtype: torch.dtype | None, *modules: Any) -> Tensor:
    """Matrices over one another, (sum of outs, in), times a norm's gain and the root of the width, packed."""
    gain = norm.weight.detach().double() * math.sqrt(len(norm.weight))
    weight = torch.cat([m.weight.detach() for m in modules])
    return packed((weight * gain).to(dtype or weight.dtype))


@dataclass(frozen=True)
class Padded:
    """Prompts as one matrix."""

    ids: Tensor
    """(rows, width), zeros on the left."""
    zeros: Tensor
    """(rows,) number of zeros."""


def left_padded(prompts: Prompts, device: torch.device) -> Padded:
    """Prompts of different lengths, ending in the same column.

    >>> left_padded([[5], [6, 7]], torch.device("cpu")).ids.tolist()
    [[0, 5], [6, 7]]
    """
    if not prompts or not all(prompts):
        raise ValueError("found an empty prompt; every row needs one token or more to start from")
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in prompts], device=device)
    return Padded(ids, torch.tensor([width - len(row) for row in prompts], device=device))


class PlainDecoding:
    """A `models.decoding.Decoding` of one of the shapes above.

    Keys are (layers, rows, pairs, size, room), values (layers, rows, pairs, room, size). Keys lie transposed
    so that a step's scores are products of a (1, size) with a (size, length) matrix: a third of the time of
    the other layout at 64 rows.
    """

    def __init__(self, shape: Shape, prompts: Prompts, new_tokens: int) -> None:
        self._shape = shape
        padded = left_padded(prompts, shape.embedding.device)
        self._zeros = padded.zeros
        rows, width = padded.ids.shape
        room = width + new_tokens
        self._keys = shape.embedding.new_empty((shape.layers, rows, shape.pairs, shape.size, room))
        self._values = shape.embedding.new_empty((shape.layers, rows, shape.pairs, room, shape.size))
        self._columns = torch.arange(room, device=shape.embedding.device)
        self._length = 0
        self.logits = shape.embedding.new_empty(0)
        self._hidden = self._hide_padding()
        n = max(PREFILL_POSITIONS // rows, 1)
        for start in range(0, width, n):
            self._advance(padded.ids[:, start : start + n])

    def _hide_padding(self) -> Tensor | None:
        """(rows, 1, 1, room): -inf over padding, 0 elsewhere; None when no row is padded."""
        if not bool(self._zeros.any()):
            return None
        hidden = (self._columns < self._zeros[:, None])[:, None, None]
        return torch.zeros(hidden.shape, dtype=self._keys.dtype, device=hidden.device).masked_fill_(
            hidden, -torch.inf
        )

    def step(self, tokens: Tensor) -> None:
        """See `models.decoding.Decoding`."""
        self._advance(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """See `models.decoding.Decoding`."""
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]
        self._zeros = self._zeros[rows]
        self.logits = self.logits[rows]
        self._hidden = self._hide_padding()

    def _mask(self, first: int, last: int) -> Tensor | None:
        """What to add to the scores of queries at columns first..last-1 over keys at columns 0..last-1.

        A padding column sees itself: a row of -inf alone would turn into NaN and spread.
        """
        hidden = None if self._hidden is None else self._hidden[..., :last]
        if last - first == 1 and first > 0:  # one token a row: nothing lies later
            return hidden
        keys, queries = self._columns[None, :last], self._columns[first:last, None]
        mask = torch.zeros((last - first, last), dtype=self._keys.dtype, device=keys.device)
        mask.masked_fill_(keys > queries, -torch.inf)
        return mask if hidden is None else (mask + hidden).masked_fill_(keys == queries, 0.0)

    def _advance(self, ids: Tensor) -> None:
        """Run ids (rows, n) through the layers: extends the caches, renews the logits."""
        shape, (rows, n) = self._shape, ids.shape
        first, last = self._length, self._length + n
        places = (self._columns[first:last] - self._zeros[:, None]).clamp_(min=0)
        mask = self._mask(first, last)
        x, angles = shape.embed(ids, places)
        for layer in range(shape.layers):
            q, k, v = shape.project(layer, x, angles, rows)
            self._keys[layer, ..., first:last] = k.permute(0, 2, 3, 1)
            self._values[layer, :, :, first:last] = v.transpose(1, 2)
            if n > 1 and layer + 1 == shape.layers:  # from here on only the last column counts
                x, q, n = x.view(rows, n, -1)[:, -1], q[:, -1:], 1
                mask = None if mask is None else mask[..., -1:, :]
            x = shape.follow(layer, x, self._attend(layer, q, mask, last))
        self._length = last
        self.logits = linear(shape.finish(x), shape.head)

    def _attend(self, layer: int, q: Tensor, mask: Tensor | None, last: int) -> Tensor:
        """Values mixed by queries (rows, n, heads, size) over the first `last` columns, (rows * n, width)."""
        rows, n, heads, size = q.shape
        keys = self._keys[layer].flatten(0, 1)[..., :last]  # (rows * pairs, size, last)
        values = self._values[layer].flatten(0, 1)[:, :last]  # (rows * pairs, last, size)
        # Query heads that share a pair lie side by side: (rows * pairs, heads / pairs * n, size).
        q = (q * size**-0.5).transpose(1, 2).reshape(len(keys), -1, size)
        scores = torch.bmm(q, keys)
        if mask is not None:
            scores.view(rows, heads, n, last).add_(mask)
        mixed = torch.bmm(torch.softmax(scores, -1), values)
        return mixed.view(rows, heads, n, size).transpose(1, 2).reshape(rows * n, heads * size)
