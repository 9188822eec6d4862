"""GPTQ: columns rounded in turn, each one's error passed on to the columns that are still to come.

Frantar, Ashkboos, Hoefler and Alistarh 2022 (arXiv 2210.17323), algorithm 1. With H = E[x x^T] + damping and
U the upper Cholesky factor of H^-1, column j leaves e = (w_j - q_j) / U_jj and every later column k becomes
w_k - e U_jk, which is what minimises the layer's squared output error given the columns already rounded.

Scales of a group are chosen when its first column is reached, from the weights as they are then. Columns keep
their order. Hessians are of the unrounded network: layers do not see what rounding did to those before them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import BoolTensor, Tensor

from models.preservation import Statistics
from models.quant_spec import Order, Preservation, QuantSpec
from models.quantize import Target
from models.rounding import QuantizedTensor, decoded, encoded, group_parameters, keep

LAZY_COLUMNS = 128
"""Columns between two updates of the rest of the matrix, where a group does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gptq:
    """Rounds the matrix of one layer by its own Gram matrix; an input that never moved has no say in others.

    A kept weight takes the corrections of the columns before it and is then stored, not rounded.

    >>> weight = torch.tensor([[0.4, 0.4], [1.0, -1.0]])
    >>> alike = torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=torch.float64)  # both inputs nearly the same
    >>> spec = QuantSpec(bits=2, granularity="tensor", symmetric=True)
    >>> Gptq(spec=spec, gram=alike).quantize(weight, None).dequantized().tolist()
    [[0.0, 1.0], [1.0, -1.0]]
    """

    spec: QuantSpec
    """How a weight is rounded."""
    gram: Tensor
    """float64 (in, in): E[x x^T] of the layer's input."""
    damping: float = 0.01
    """Added to the diagonal, as a share of its mean."""
    order: Order = "after_removal"
    """Whether kept weights have a say in the scale."""
    value_bits: int = 32
    """Bits of a kept weight on disk."""

    def __post_init__(self) -> None:
        if self.spec.bits == 16:
            raise ValueError("GPTQ has no bfloat16; allowed: 2, 3, 4 or 8 bits, or round to nearest")
        if not self.damping > 0.0:
            raise ValueError(f"damping is {self.damping}; allowed: above 0, for instance 0.01")

    @property
    def name(self) -> str:
        """Words for a table."""
        return f"GPTQ {self.spec.name}"

    def quantize(self, weight: Tensor, kept: BoolTensor | None) -> QuantizedTensor:
        """Round `weight` (out, in), float32.

        Raises
        ------
        ValueError
            When the Gram matrix is not (in, in) or not finite.
        """
        rows, columns = weight.shape
        factor = _inverse_factor(self.gram, columns, self.damping)
        left = weight.detach().clone()
        mask = torch.zeros(rows, columns, dtype=torch.bool) if kept is None else kept
        codes = torch.empty(rows, columns, dtype=torch.uint8)
        width = self._width(columns)
        scales, zeros = self._whole_parameters(left, mask)
        for first in range(0, columns, width):
            last = min(first + width, columns)
            if self.spec.granularity == "group":
                scale, zero = self._parameters(left[:, first:last], mask[:, first:last])
                scales, zeros = [*scales, scale], [*zeros, zero]
            part = slice(first, last)
            errors, codes[:, part] = self._columns(left, mask, part, factor, scales[-1], zeros[-1])
            left[:, last:] -= errors @ factor[part, last:]
        return self._stored(left, mask, codes, scales, zeros)

    def _width(self, columns: int) -> int:
        return min(columns, self.spec.group_size if self.spec.granularity == "group" else LAZY_COLUMNS)

    def _parameters(self, groups: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.order == "legacy":
            return group_parameters(groups.contiguous(), self.spec)
        return group_parameters(groups.masked_fill(mask, 0.0), self.spec, ~mask)

    def _whole_parameters(self, weight: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Scales and zero points known before the first column: a row's, or the tensor's for each row."""
        if self.spec.granularity == "group":
            return [], []
        one = self.spec.granularity == "tensor"
        groups, hidden = (weight.reshape(1, -1), mask.reshape(1, -1)) if one else (weight, mask)
        scale, zero = self._parameters(groups, hidden)
        return [scale.expand(len(weight))], [zero.expand(len(weight))]

    def _columns(
        self, left: Tensor, mask: Tensor, part: slice, factor: Tensor, scale: Tensor, zero: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(errors, codes) of the columns of `part`, which are corrected in place as it goes."""
        block, local = left[:, part], factor[part, part]
        errors, codes = torch.zeros_like(block), torch.empty(block.shape, dtype=torch.uint8)
        for j in range(block.shape[1]):
            column = block[:, j : j + 1]
            code = encoded(column, scale, zero, self.spec)
            values = decoded(code, scale, zero, self.spec.bits, self.spec.codebook)
            error = ((column - values) / local[j, j]).masked_fill_(mask[:, part][:, j : j + 1], 0.0)
            codes[:, j : j + 1], errors[:, j : j + 1] = code, error
            block[:, j + 1 :] -= error * local[j, j + 1 :]
        return errors, codes

    def _stored(
        self, left: Tensor, mask: Tensor, codes: Tensor, scales: list[Tensor], zeros: list[Tensor]
    ) -> QuantizedTensor:
        spec, one = self.spec, self.spec.granularity == "tensor"
        stored = spec.codebook == "integer" and not spec.symmetric
        scale, zero = torch.stack(scales, dim=1), torch.stack(zeros, dim=1)
        if not torch.isfinite(scale).all():
            raise ValueError(
                "weights have no finite scale; find the NaN or infinity in them or in the Gram matrix"
            )
        rounded = QuantizedTensor(
            shape=tuple(codes.shape), codes=codes, scales=scale, zeros=zero if stored else None,
            whole_zeros=stored and spec.scale_rule != "hqq", bits=spec.bits,
            group_size=spec.group_size if spec.granularity == "group" else codes.shape[1],
            codebook=spec.codebook, scale_bits=spec.scale_bits,
            kept=keep(left, mask, self.value_bits) if mask.any() else None,
        )  # fmt: skip
        if not one:
            return rounded
        return replace(
            rounded, codes=codes.view(1, -1), scales=scale[:1],
            zeros=None if rounded.zeros is None else zero[:1], group_size=codes.numel(),
        )  # fmt: skip


def _inverse_factor(gram: Tensor, columns: int, damping: float) -> Tensor:
    """Upper Cholesky factor of (H + damping mean(diag H))^-1, float32 (in, in)."""
    if gram.shape != (columns, columns) or not torch.isfinite(gram).all():
        raise ValueError(
            f"the Gram matrix has shape {tuple(gram.shape)} or is not finite, the weight has {columns} "
            "inputs; calibrate this model with grams=True"
        )
    damped = gram.double().clone()
    diagonal = damped.diagonal()
    level = float(diagonal.mean())
    diagonal[diagonal == 0.0] = level if level > 0.0 else 1.0
    diagonal += damping * (level if level > 0.0 else 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def gptq_by_layer(
    spec: QuantSpec, statistics: Statistics, preservation: Preservation | None = None
) -> Callable[[Target], Gptq]:
    """For `models.quantize.quantized(quantizer=...)`: each layer's GPTQ with its own Gram matrix.

    Raises
    ------
    ValueError
        At a layer for which no Gram matrix was gathered.
    """

    def of(target: Target) -> Gptq:
        gram = statistics.grams.get(target.name)
        if gram is None:
            raise ValueError(f"no Gram matrix for {target.name!r}; calibrate this model with grams=True")
        if preservation is None:
            return Gptq(spec=spec, gram=gram)
        return Gptq(spec=spec, gram=gram, order=preservation.order, value_bits=preservation.value_bits)

    return of
