"""Rounding a weight matrix to few bits: scales, zero points, codes, and the weights back.

A matrix is (out, in): groups run along the input. A code c stands for (c - zero) * scale, or with NF4 for
level[c] * scale. Asymmetric absmax is torchao's `IntxWeightOnlyConfig(ASYMMETRIC)` bit for bit; symmetric
differs from torchao's by the divisor of the largest |weight|, 7 here and 7.5 there at 4 bits. Where the group
size does not divide a row, its last group is shorter (torchao refuses).

Work goes through the matrix in pieces that stay in a core's cache: rounding 100 M weights is memory traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import BoolTensor, Tensor

from models.quant_spec import Order, QuantSpec

PIECE = 1 << 17
"""Weights worked on at once: .5 MB of float32."""

SMALLEST_SCALE = {32: torch.finfo(torch.float32).smallest_normal, 16: 2.0**-24}
"""Floor of a scale by its stored bits, so that a group of zeros divides by something."""

SHRINKS = tuple(1.0 - 0.02 * step for step in range(40))
"""Of the range, tried by `mse`: 1.00, 0.98, ... 0.22."""

HQQ_STEPS, HQQ_POWER, HQQ_BETA, HQQ_GROWTH = 20, 0.7, 10.0, 1.01
"""Half-quadratic splitting: iterations, p of the error's |e|^p, its first weight and that weight's growth."""

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip
"""NormalFloat of Dettmers et al. 2023 (QLoRA), appendix E: quantiles of a normal, scaled to [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Weights that were not rounded, beside the codes."""

    places: Tensor
    """int64, sorted: places in the flattened matrix, or input channels when `channels` is true."""
    values: Tensor
    """float32 (n,), or (rows, n) when `channels` is true."""
    channels: bool
    """Whether whole input channels are kept; each then costs one place for all its weights."""
    value_bits: int
    """Bits of a stored value: 32 or 16."""

    @property
    def weights(self) -> int:
        """Number of kept weights."""
        return self.values.numel()


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """One rounded parameter, with everything a file must hold to give it back."""

    shape: tuple[int, ...]
    """Of the parameter as (out, in), or of one dimension."""
    codes: Tensor
    """uint8 (rows, columns), 0 to 2^bits - 1; the weights themselves as bfloat16, float16 or float32 when
    `scales` is empty."""
    scales: Tensor
    """float32 (rows, groups)."""
    zeros: Tensor | None
    """float32 (rows, groups), in units of a code; None: 2^(bits-1), or the level 0 of nf4."""
    whole_zeros: bool
    """Whether zero points are whole numbers from 0 to 2^bits - 1 and so are stored in `bits` bits."""
    bits: int
    """Bits of a code."""
    group_size: int
    """Columns of a group; the last group of a row may be shorter."""
    codebook: str
    """`integer` or `nf4`."""
    scale_bits: int
    """Bits of a stored scale."""
    kept: Kept | None = None
    """Weights that were not rounded."""

    @property
    def weights(self) -> int:
        """Number of weights, kept ones included."""
        return self.codes.numel()

    def dequantized(self) -> Tensor:
        """The weights that an evaluation uses: float32, in `shape`."""
        values = self._values().view(-1, self.shape[-1])
        if self.kept is not None and self.kept.channels:
            values[:, self.kept.places] = self.kept.values
        elif self.kept is not None:
            values.view(-1)[self.kept.places] = self.kept.values
        return values.view(self.shape)

    def _values(self) -> Tensor:
        if self.scales.numel() == 0:
            return self.codes.to(torch.float32, copy=True)
        rows, columns = self.codes.shape
        out = torch.empty(rows, columns)
        for part, groups in _parts(columns, self.group_size):
            codes = self.codes[:, part].reshape(-1, min(self.group_size, part.stop - part.start))
            zeros = None if self.zeros is None else self.zeros[:, groups].reshape(-1)
            scales = self.scales[:, groups].reshape(-1)
            out[:, part] = _decoded_pieces(codes, scales, zeros, self.bits, self.codebook).view(rows, -1)
        return out


class Quantizer(Protocol):
    """What rounds one matrix."""

    @property
    def name(self) -> str:
        """Words for a table."""
        ...

    def quantize(self, weight: Tensor, kept: BoolTensor | None) -> QuantizedTensor:
        """Round `weight` (out, in), float32; where `kept` (out, in) is true the weight stays as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoundToNearest:
    """Each weight to its nearest code; nothing but the weights has a say.

    >>> weight = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    >>> rounded = RoundToNearest(spec=QuantSpec(bits=2, granularity="channel")).quantize(weight, None)
    >>> rounded.codes.tolist(), rounded.scales.tolist(), rounded.dequantized().tolist()
    ([[0, 1, 1, 3]], [[1.0]], [[-1.0, 0.0, 0.0, 2.0]])
    """

    spec: QuantSpec
    """How."""
    order: Order = "after_removal"
    """Whether kept weights have a say in the scale: not with `after_removal`, with `legacy` they do."""
    value_bits: int = 32
    """Bits of a kept weight on disk, 32 or 16; 16 rounds it to float16."""

    @property
    def name(self) -> str:
        """Words for a table."""
        return self.spec.name

    def quantize(self, weight: Tensor, kept: BoolTensor | None) -> QuantizedTensor:
        """Round `weight` (out, in) or of one dimension.

        Raises
        ------
        ValueError
            For weights that are not float32, not finite, or whose range has no scale in `scale_bits`.
        """
        matrix = _matrix(weight)
        mask = None if kept is None else kept.reshape(matrix.shape)
        held = None if mask is None or not mask.any() else keep(matrix, mask, self.value_bits)
        if self.spec.bits == 16:
            return verbatim(weight, torch.bfloat16, held)
        hidden = None if self.order == "legacy" else mask
        source = matrix if hidden is None else matrix.masked_fill(hidden, 0.0)
        rounded = round_groups(source, self.spec, hidden)
        return replace(rounded, shape=tuple(weight.shape), kept=held)


def _matrix(weight: Tensor) -> Tensor:
    if weight.dtype != torch.float32 or weight.dim() not in (1, 2) or weight.numel() == 0:
        raise ValueError(
            f"a weight is {weight.dtype} of shape {tuple(weight.shape)}; give float32 of one or two "
            "dimensions (load the model with dtype=torch.float32)"
        )
    return weight.detach().reshape(-1, weight.shape[-1]).contiguous()


def keep(matrix: Tensor, mask: Tensor, value_bits: int = 32) -> Kept:
    """Take the weights of `mask` out of `matrix`, both (rows, columns); whole columns become channels."""
    columns = mask.any(dim=0)
    if torch.equal(columns, mask.all(dim=0)):
        places = columns.nonzero().view(-1)
        values, channels = matrix[:, places], True
    else:
        places = mask.reshape(-1).nonzero().view(-1)
        values, channels = matrix.reshape(-1)[places], False
    values = values.to(torch.float16).float() if value_bits == 16 else values.clone()
    if not torch.isfinite(values).all():
        raise ValueError(
            f"a kept weight is not finite in {value_bits} bits; mend the model or use value_bits=32"
        )
    return Kept(places=places, values=values, channels=channels, value_bits=value_bits)


def verbatim(weight: Tensor, dtype: torch.dtype, kept: Kept | None = None) -> QuantizedTensor:
    """The weights cast to a floating-point type and not rounded further."""
    codes = _matrix(weight).to(dtype, copy=True)
    if not torch.isfinite(codes).all():
        raise ValueError(f"a weight is not finite as {dtype}; mend the model or keep it in float32")
    return QuantizedTensor(
        shape=tuple(weight.shape), codes=codes, scales=torch.empty(codes.shape[0], 0), zeros=None,
        whole_zeros=False, bits=codes.element_size() * 8, group_size=codes.shape[1], codebook="integer",
        scale_bits=32, kept=kept,
    )  # fmt: skip


def round_groups(matrix: Tensor, spec: QuantSpec, hidden: Tensor | None = None) -> QuantizedTensor:
    """Round every weight of `matrix` (rows, columns); `hidden` ones are 0 there and do not move a real zero.

    The result's shape is the matrix's, or (1, rows * columns) for one scale a tensor.
    """
    if spec.granularity == "tensor":
        matrix = matrix.reshape(1, -1)
        hidden = None if hidden is None else hidden.reshape(1, -1)
    rows, columns = matrix.shape
    width = min(spec.group_size, columns) if spec.granularity == "group" else columns
    codes: list[Tensor] = []
    scales: list[Tensor] = []
    zeros: list[Tensor] = []
    for part, _ in _parts(columns, width):
        size = min(width, part.stop - part.start)
        free = None if hidden is None else ~hidden[:, part].reshape(-1, size)
        found = _round_pieces(matrix[:, part].reshape(-1, size), spec, free)
        for collected, one in zip((codes, scales, zeros), found, strict=True):
            collected.append(one.view(rows, -1))
    stored = spec.codebook == "integer" and not spec.symmetric
    return QuantizedTensor(
        shape=(rows, columns), codes=_joined(codes), scales=_joined(scales),
        zeros=_joined(zeros) if stored else None, whole_zeros=stored and spec.scale_rule != "hqq",
        bits=spec.bits, group_size=width, codebook=spec.codebook, scale_bits=spec.scale_bits,
    )  # fmt: skip


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _parts(columns: int, width: int) -> list[tuple[slice, slice]]:
    """(columns, groups) of the whole groups of a row and, where there is one, of its shorter last group."""
    whole = columns // width
    split = whole * width
    parts = [(slice(0, split), slice(0, whole)), (slice(split, columns), slice(whole, whole + 1))]
    return [part for part in parts if part[0].start < part[0].stop]


def _round_pieces(groups: Tensor, spec: QuantSpec, free: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(codes, scales, zeros) of `groups` (n, size), a piece at a time."""
    n, size = groups.shape
    codes = torch.empty(n, size, dtype=torch.uint8)
    scales, zeros = torch.empty(n), torch.empty(n)
    step = max(1, PIECE // size)
    for first in range(0, n, step):
        piece = slice(first, first + step)
        mask = None if free is None else free[piece]
        scales[piece], zeros[piece] = group_parameters(groups[piece], spec, mask)
        codes[piece] = encoded(groups[piece], scales[piece], zeros[piece], spec)
    if not (torch.isfinite(scales).all() and torch.isfinite(zeros).all()):
        raise ValueError(
            f"weights have no finite scale in {spec.scale_bits} bits; find the NaN, infinity or range above "
            "the largest float in them, or use scale_bits=32"
        )
    return codes, scales, zeros


def group_parameters(groups: Tensor, spec: QuantSpec, free: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group, both float32 (n,), by the spec's rule; `groups` is (n, size)."""
    low, high = groups.amin(dim=1), groups.amax(dim=1)  # torch.aminmax takes five times as long as both
    scale, zero = _range_parameters(low, high, spec)
    if spec.scale_rule == "mse":
        return _least_squares(groups, low, high, spec)
    if spec.scale_rule == "hqq":
        return scale, _half_quadratic(groups, low, scale, spec, free)
    return scale, zero


def _range_parameters(low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Asymmetric: scale = (high - low) / (2^b - 1), zero = -low / scale rounded, the range reaching 0.

    Symmetric: scale = max |w| / (2^(b-1) - 1), zero = 2^(b-1). NF4: scale = max |w|, its level 0 is exact.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    top = 2**spec.bits - 1
    if spec.codebook == "nf4":
        scale = torch.maximum(-low, high)
    elif spec.symmetric:
        scale = torch.maximum(-low, high) / (top // 2)
    else:
        scale = (high - low) / top
    if spec.scale_bits == 16:
        scale = scale.to(torch.float16).float()
    scale = scale.clamp(min=SMALLEST_SCALE[spec.scale_bits])
    if spec.codebook == "nf4" or spec.symmetric:
        return scale, torch.full_like(scale, 2 ** (spec.bits - 1))
    return scale, torch.round(low / scale).neg_().clamp_(0, top)


def encoded(groups: Tensor, scale: Tensor, zero: Tensor, spec: QuantSpec) -> Tensor:
    """Codes of `groups` (n, size), whole float32 numbers (NF4: integers)."""
    if spec.codebook == "nf4":
        levels = torch.tensor(NF4_LEVELS)
        return torch.bucketize(
            groups * scale.reciprocal()[:, None], (levels[1:] + levels[:-1]) / 2, out_int32=True
        )
    lowest = 1 if spec.symmetric else 0
    steps = groups * scale.reciprocal()[:, None]
    if spec.scale_rule == "hqq":
        return steps.add_(zero[:, None]).round_().clamp_(lowest, 2**spec.bits - 1)
    return steps.round_().add_(zero[:, None]).clamp_(lowest, 2**spec.bits - 1)


def decoded(codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int, codebook: str) -> Tensor:
    """Weights of `codes` (n, size): (code - zero) * scale, or level * scale."""
    if codebook == "nf4":
        return torch.tensor(NF4_LEVELS)[codes.to(torch.int32)].mul_(scale[:, None])
    values = codes.to(torch.float32, copy=True)
    return values.sub_(2 ** (bits - 1) if zero is None else zero[:, None]).mul_(scale[:, None])


def _decoded_pieces(codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int, codebook: str) -> Tensor:
    n, size = codes.shape
    values = torch.empty(n, size)
    step = max(1, PIECE // size)
    for first in range(0, n, step):
        piece = slice(first, first + step)
        shift = None if zero is None else zero[piece]
        values[piece] = decoded(codes[piece], scale[piece], shift, bits, codebook)
    return values


def _least_squares(groups: Tensor, low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """The range times the one of SHRINKS with the least sum of squared errors; the first of equals."""
    best = torch.full_like(low, torch.inf)
    scale, zero = _range_parameters(low, high, spec)
    for shrink in SHRINKS:
        tried = _range_parameters(low * shrink, high * shrink, spec)
        values = decoded(encoded(groups, *tried, spec), *tried, spec.bits, spec.codebook)
        error = values.sub_(groups).square_().sum(dim=1)
        better = error < best
        best = torch.where(better, error, best)
        scale, zero = (torch.where(better, *pair) for pair in zip(tried, (scale, zero), strict=True))
    return scale, zero


def _half_quadratic(
    groups: Tensor, low: Tensor, scale: Tensor, spec: QuantSpec, free: Tensor | None
) -> Tensor:
    """A real zero point by half-quadratic splitting, the scale fixed (Badri and Shaji 2023, HQQ).

    Alternates e = shrink(w - w_q), the proximal step of |e|^p, and zero = mean(code - (w - e) / scale); keeps
    each group's zero of least mean |w - w_q|. Not equivariant to scale: beta weighs errors in units of w.
    """
    share = torch.ones_like(groups) if free is None else free.float()
    count = share.sum(dim=1).clamp_(min=1.0)
    inverse, beta = scale.reciprocal()[:, None], HQQ_BETA
    zero = -low.clamp(max=0.0) / scale
    best, least = zero, torch.full_like(scale, torch.inf)
    for _ in range(HQQ_STEPS):
        zero = zero.to(torch.float16).float() if spec.scale_bits == 16 else zero
        codes = encoded(groups, scale, zero, spec)
        error = groups - decoded(codes, scale, zero, spec.bits, spec.codebook)
        size = error.abs()
        mean = (size * share).sum(dim=1) / count
        best, least = torch.where(mean < least, zero, best), torch.minimum(mean, least)
        shrunk = error.sign() * (size - size.clamp(min=1e-12) ** (HQQ_POWER - 1) / beta).clamp_(min=0.0)
        zero = ((codes - (groups - shrunk) * inverse) * share).sum(dim=1) / count
        beta *= HQQ_GROWTH
    return best
