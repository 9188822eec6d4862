"""LoRA layers of a small float32 model on a CPU, computed in one step forward and one step back.

PEFT's layer is W x, then B A x, a product with s and a sum, each a tensor with a node of its own in autograd.
Here y = W x + s B (A x) is accumulated in place, and the frozen W, which gets no gradient, is multiplied by
oneDNN in oneDNN's layout: at 2,600 rows 245 GFLOP/s on one thread of an AMD processor where MKL, which
`torch.nn.Linear` calls, has 106. A training step of the embedded base takes a quarter less time.

The formula is PEFT's; sums are rounded in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.adapters import ADAPTER, lora_layers
from models.plain import HAS_ONEDNN, onednn_linear

ROWS = 2048
"""Rows of a product for which the layout is chosen."""


class _Adapted(torch.autograd.Function):
    """Y = W x + c + s B (A x); x is (rows, d_in)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, weight: Tensor, turned: Tensor, c: Tensor | None, s: float
    ) -> Tensor:
        hidden = onednn_linear(x, a, None)  # (rows, r)
        y = onednn_linear(x, weight, c)
        y.addmm_(hidden, b.t(), alpha=s)
        ctx.save_for_backward(x, a, b, hidden, turned)
        ctx.scale = s
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, hidden, turned = ctx.saved_tensors
        dy = dy.contiguous()
        dhidden = dy @ b  # (rows, r)
        if ctx.scale != 1.0:
            dhidden *= ctx.scale
        da = dhidden.t() @ x
        db = dy.t() @ hidden
        if ctx.scale != 1.0:
            db *= ctx.scale
        dx = None
        if ctx.needs_input_grad[0]:
            dx = onednn_linear(dy, turned, None)
            dx.addmm_(dhidden, a)
        return dx, da, db, None, None, None, None


@contextmanager
def fast_layers(adapted: Any) -> Iterator[int]:
    """Run the adapter's layers that can be this way as long as the block lasts; yields their number.

    Weights of the base must not change meanwhile.
    """
    layers = [layer for _, layer in lora_layers(adapted) if _fits(layer)]
    for layer in layers:
        layer.forward = _forward(layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward


def _fits(layer: Any) -> bool:
    weights = (layer.base_layer.weight, layer.lora_A[ADAPTER].weight)
    plain = type(layer.base_layer) is torch.nn.Linear and not layer.lora_variant
    return plain and HAS_ONEDNN and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)


def _forward(layer: Any) -> Callable[[Tensor], Tensor]:
    base, a, b = layer.base_layer, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    weight = torch.ops.mkldnn._reorder_linear_weight(base.weight.detach().contiguous(), ROWS)
    turned = torch.ops.mkldnn._reorder_linear_weight(base.weight.detach().t().contiguous(), ROWS)
    scale = float(layer.scaling[ADAPTER])

    apply: Any = _Adapted.apply  # untyped in torch

    def forward(x: Tensor) -> Tensor:
        y: Tensor = apply(x.flatten(0, -2), a, b, weight, turned, base.bias, scale)
        return y.view(*x.shape[:-1], y.shape[1])

    return forward
