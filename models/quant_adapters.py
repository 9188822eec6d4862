"""Other libraries' quantisers behind the same Protocol, so that one table compares them with ours.

torchao, bitsandbytes, HQQ and quanto are optional. Each rounds the matrix with its own code; what it stored
(codes, scales, zero points) is then read into a `QuantizedTensor`, so sizes are counted and weights restored
in one way, and a test holds our weights against those that the library itself gives back. They see matrices
(out, in), so GPT-2's `Conv1D`, which all four skip in a whole model, is covered.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import BoolTensor, Tensor

from models.packing import payload_bytes
from models.rounding import QuantizedTensor, Quantizer, keep

Library = Literal["torchao", "bitsandbytes", "hqq", "quanto"]
MODULES: Mapping[Library, str] = {
    "torchao": "torchao.quantization",
    "bitsandbytes": "bitsandbytes.functional",
    "hqq": "hqq.core.quantize",
    "quanto": "optimum.quanto",
}
PACKAGES: Mapping[Library, str] = {
    "torchao": "torchao", "bitsandbytes": "bitsandbytes", "hqq": "hqq", "quanto": "optimum-quanto"
}  # fmt: skip
BITS: Mapping[Library, tuple[int, ...]] = {
    "torchao": (2, 3, 4, 8), "bitsandbytes": (4,), "hqq": (2, 3, 4, 8), "quanto": (2, 4)
}  # fmt: skip
CODEBOOKS: Mapping[Library, str] = {
    "torchao": "int", "bitsandbytes": "nf", "hqq": "int", "quanto": "int"
}  # fmt: skip


def why_not(library: Library) -> str | None:
    """Why a library cannot be used here; None when it can.

    >>> reason = why_not("hqq")
    >>> reason is None or reason.startswith("hqq cannot be imported")
    True
    """
    try:
        importlib.import_module(MODULES[library])
    except ImportError as error:
        return f"{library} cannot be imported ({error}); pip install {PACKAGES[library]}"
    return None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A library's rounding to nearest, asymmetric with absmax range (bitsandbytes: NF4; HQQ: its own fit).

    >>> Adapter(library="torchao", bits=4, group_size=64).name
    'torchao int4 group 64'
    """

    library: Library
    """Whose code rounds."""
    bits: int = 4
    """Bits of a code; BITS says which the library has."""
    group_size: int = 128
    """Inputs that share a scale; must divide a row, as the libraries demand it."""
    value_bits: int = 32
    """Bits of a kept weight on disk."""

    def __post_init__(self) -> None:
        if self.library not in MODULES:
            raise ValueError(f"library is {self.library!r}; allowed: {', '.join(MODULES)}")
        if self.bits not in BITS[self.library]:
            raise ValueError(f"{self.library} has {self.bits} bits; allowed: {BITS[self.library]}")

    @property
    def name(self) -> str:
        """Words for a table."""
        return f"{self.library} {CODEBOOKS[self.library]}{self.bits} group {self.group_size}"

    def quantize(self, weight: Tensor, kept: BoolTensor | None) -> QuantizedTensor:
        """Round `weight` (out, in); kept weights are taken out first and have no say in a scale.

        Raises
        ------
        ValueError
            When the library is missing, with the reason, or the group size does not divide a row.
        """
        reason = why_not(self.library)
        if reason is not None:
            raise ValueError(reason)
        if weight.dim() != 2 or weight.shape[1] % self.group_size:
            raise ValueError(
                f"{self.library} needs groups of {self.group_size} to fill a row; the weight is "
                f"{tuple(weight.shape)}: choose a group size that divides {weight.shape[-1]}"
            )
        held = None if kept is None or not kept.any() else keep(weight, kept, self.value_bits)
        source = weight if held is None or kept is None else weight.masked_fill(kept, 0.0)
        round_matrix = {
            "torchao": _torchao, "bitsandbytes": _bitsandbytes, "hqq": _hqq, "quanto": _quanto
        }[self.library]  # fmt: skip
        return replace(round_matrix(source.detach().contiguous(), self.bits, self.group_size), kept=held)


def _stored(
    weight: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, *, whole_zeros: bool
) -> QuantizedTensor:
    rows, columns = weight.shape
    grid = scales.float().reshape(rows, -1)
    return QuantizedTensor(
        shape=(rows, columns), codes=codes.reshape(rows, columns).to(torch.uint8), scales=grid,
        zeros=None if zeros is None else zeros.float().reshape(rows, -1), whole_zeros=whole_zeros, bits=bits,
        group_size=columns // grid.shape[1], codebook="nf4" if zeros is None else "integer", scale_bits=32,
    )  # fmt: skip


def _torchao(weight: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    library = importlib.import_module(MODULES["torchao"])
    mapping = importlib.import_module("torchao.quantization.quant_primitives").MappingType.ASYMMETRIC
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    dtype = getattr(torch, f"int{bits}")
    groups = library.PerGroup(group_size)
    library.quantize_(
        layer, library.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=groups, mapping_type=mapping)
    )
    found: Any = layer.weight
    half = 2 ** (bits - 1)  # torchao's codes and zero points are signed
    codes, zeros = found.qdata.to(torch.int16) + half, found.zero_point.to(torch.int16) + half
    return _stored(weight, codes, found.scale, zeros, bits, whole_zeros=True)


def _bitsandbytes(weight: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    functional = importlib.import_module(MODULES["bitsandbytes"])
    packed, state = functional.quantize_4bit(weight, blocksize=group_size, quant_type="nf4")
    pairs = packed.view(torch.uint8).reshape(-1)
    codes = torch.stack([pairs >> 4, pairs & 15], dim=1)
    return _stored(weight, codes, state.absmax, None, bits, whole_zeros=False)


def _hqq(weight: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    quantizer = importlib.import_module(MODULES["hqq"]).Quantizer
    codes, meta = quantizer.quantize(
        weight, nbits=bits, group_size=group_size, axis=1, device="cpu", compute_dtype=torch.float32,
        bitpack=False,
    )  # fmt: skip
    return _stored(weight, codes, meta["scale"], meta["zero"], bits, whole_zeros=False)


def _quanto(weight: Tensor, bits: int, group_size: int) -> QuantizedTensor:
    quanto = importlib.import_module(MODULES["quanto"])
    qtype = {2: quanto.qint2, 4: quanto.qint4}[bits]
    scale, shift = quanto.MaxOptimizer()(weight, qtype, 0, group_size, zeropoint=True)
    found = quanto.quantize_weight(weight, qtype, 0, scale, shift, group_size, optimized=False)
    codes, zeros = found._data.unpack(), found._shift
    inside = bool(((zeros >= 0) & (zeros < 2**bits)).all())
    return _stored(weight, codes, found._scale, zeros, bits, whole_zeros=inside)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One row of the table."""

    name: str
    """Of the quantiser."""
    bits_per_weight: float | None
    """With scales, zero points and kept weights; None with a reason."""
    sqnr_db: float | None
    """10 log10(sum w^2 / sum (w - q)^2) in dB; None with a reason (also when the error is 0)."""
    seconds: float | None
    """Wall time of rounding, of one run; None with a reason."""
    reason: str | None
    """Why a number is missing."""


def sqnr_db(weight: Tensor, values: Tensor) -> float | None:
    """Signal to quantisation noise, 10 log10(sum w^2 / sum (w - q)^2), in dB; None when either sum is 0.

    >>> sqnr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    20.0
    """
    signal = float(weight.double().square().sum())
    noise = float((weight.double() - values.double()).square().sum())
    return 10.0 * math.log10(signal / noise) if signal > 0.0 and noise > 0.0 else None


def compare(weights: Mapping[str, Tensor], quantizers: Sequence[Quantizer]) -> tuple[Compared, ...]:
    """Round the same matrices (out, in) with each quantiser; one that cannot gives its reason."""
    rows = []
    whole = torch.cat([weight.reshape(-1) for weight in weights.values()])
    for quantizer in quantizers:
        start = time.perf_counter()
        try:
            rounded = [quantizer.quantize(weight, None) for weight in weights.values()]
        except ValueError as error:
            rows.append(
                Compared(
                    name=quantizer.name, bits_per_weight=None, sqnr_db=None, seconds=None, reason=str(error)
                )
            )
            continue
        seconds = time.perf_counter() - start
        noise = sqnr_db(whole, torch.cat([one.dequantized().reshape(-1) for one in rounded]))
        rows.append(
            Compared(
                name=quantizer.name,
                bits_per_weight=8 * sum(map(payload_bytes, rounded)) / whole.numel(),
                sqnr_db=noise,
                seconds=seconds,
                reason=None if noise is not None else "the error or the signal is 0",
            )
        )
    return tuple(rows)


def comparison_table(rows: Sequence[Compared]) -> str:
    """The rows as lines of text.

    >>> row = Compared(name="a", bits_per_weight=4.25, sqnr_db=20.0, seconds=0.5, reason=None)
    >>> print(comparison_table([row]))
    quantiser                                 bits/weight  SQNR dB  seconds
    a                                               4.250    20.00    0.500
    """
    lines = [f"{'quantiser':<41} {'bits/weight':>11} {'SQNR dB':>8} {'seconds':>8}"]
    for row in rows:
        if row.bits_per_weight is None or row.seconds is None:
            lines.append(f"{row.name:<41} {row.reason}")
            continue
        noise = "none" if row.sqnr_db is None else f"{row.sqnr_db:.2f}"
        lines.append(f"{row.name:<41} {row.bits_per_weight:11.3f} {noise:>8} {row.seconds:8.3f}")
    return "\n".join(lines)
