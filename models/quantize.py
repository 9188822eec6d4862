"""A model with rounded weights for as long as a `with` block lasts, and what that covered.

Weights are rounded, stored as codes, and put back into the model as the float32 numbers those codes stand
for, so an evaluation is of exactly what a packed file holds. On the way out every weight is restored, and a
SHA-256 over the touched parameters, read again from the model, must be the one taken before. A rounding that
reaches no weight is an error: a quantiser that skipped GPT-2's `Conv1D` would report no damage.

`Conv1D` holds (in, out); it is rounded as (out, in), so groups run along the input in all cases. Parameters
that share storage (tied embeddings) are rounded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.blocks import block_prefixes
from models.packing import payload_bytes
from models.preservation import Statistics, kept_mask
from models.quant_spec import LEGACY, CalibrationMix, Preservation, QuantSpec
from models.rounding import QuantizedTensor, Quantizer, RoundToNearest, verbatim

__all__ = [
    "LEGACY", "CalibrationMix", "Coverage", "Preservation", "QuantSpec", "QuantizedTensor", "Quantizer",
    "RoundToNearest", "Statistics", "Target", "checksum", "quantized", "quantized_tensors", "targets",
]  # fmt: skip

QuantizerOf = Callable[["Target"], Quantizer]
"""A quantiser for each parameter, as GPTQ needs: its Hessian is the layer's own."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parameter to round."""

    name: str
    """In the model; of tied parameters the first."""
    parameter: nn.Parameter
    """The weights."""
    transposed: bool
    """Whether it holds (in, out), as `Conv1D` does."""
    block: int | None
    """Index of its block; None outside the blocks."""

    def matrix(self) -> Tensor:
        """The weights as (out, in), contiguous, in main memory: rounding runs there."""
        weight = self.parameter.detach().cpu()
        return weight.t().contiguous() if self.transposed else weight.contiguous()


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a rounding reached and what it would weigh on disk."""

    modules: tuple[str, ...]
    """Parameters that were rounded."""
    protected: tuple[str, ...]
    """Parameters of the targets that stay whole: those of protected blocks."""
    weights: int
    """Weights of both, kept ones included."""
    kept: int
    """Weights among them that were not rounded."""
    model_weights: int
    """Weights of the model, tied ones once."""
    payload_bytes: int
    """Bytes of codes, scales, zero points, kept weights and their places."""
    before: str
    """SHA-256 of the touched parameters before rounding, which restoring must give again."""

    @property
    def rounded(self) -> int:
        """Weights that were rounded."""
        return self.weights - self.kept

    @property
    def share(self) -> float:
        """Rounded weights as a share of the model's."""
        return self.rounded / self.model_weights

    @property
    def bits_per_weight(self) -> float:
        """8 * payload_bytes / weights, over rounded, kept and protected weights together."""
        return 8 * self.payload_bytes / self.weights


def targets(model: nn.Module, spec: QuantSpec) -> list[Target]:
    """The parameters that `spec` rounds, each storage once, in the model's order.

    Raises
    ------
    ValueError
        When there is none, when `spec.blocks` names a block the model does not have, or for weights that are
        not float32.
    """
    prefixes = block_prefixes(model)
    missing = [index for index in spec.blocks or () if index >= len(prefixes)]
    if missing:
        raise ValueError(f"blocks {missing} are not in the model; allowed: 0 to {len(prefixes) - 1}")
    found: list[Target] = []
    seen: set[int] = set()
    for name, parameter, transposed in _candidates(model, spec):
        block = next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), None)
        wanted = spec.blocks is None or block in spec.blocks
        if not wanted or (spec.targets == "blocks" and block is None):
            continue
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}; load the model with dtype=torch.float32")
        if parameter.data_ptr() not in seen:
            seen.add(parameter.data_ptr())
            found.append(Target(name=name, parameter=parameter, transposed=transposed, block=block))
    if not found:
        raise ValueError(
            f"nothing to quantise: {type(model).__name__} has no Linear or Conv1D weight among the targets "
            f"of {spec.name!r}; give a model with such blocks or other targets"
        )
    return found


def _candidates(model: nn.Module, spec: QuantSpec) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """(name, parameter, whether it is stored (in, out)) of every parameter that may be a target."""
    from transformers.pytorch_utils import Conv1D

    for prefix, module in model.named_modules():
        conv = isinstance(module, Conv1D)
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            linear = name == "weight" and (conv or isinstance(module, nn.Linear))
            if linear if spec.targets == "blocks" else "weight" in full:
                yield full, parameter, conv and parameter.dim() == 2


def checksum(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, shapes and bytes of float32 tensors.

    >>> checksum([("w", torch.zeros(2))]) == checksum([("w", -torch.zeros(2))])
    False
    """
    digest = hashlib.sha256()
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{values.dtype}{tuple(values.shape)}".encode())
        digest.update(values.view(-1).numpy().data)
    return digest.hexdigest()


def quantized_tensors(
    model: nn.Module,
    spec: QuantSpec,
    preservation: Preservation | None = None,
    statistics: Statistics | None = None,
    *,
    quantizer: QuantizerOf | None = None,
) -> Iterator[tuple[Target, QuantizedTensor]]:
    """Round the targets one after another, the model untouched: what a packed file holds.

    Parameters
    ----------
    quantizer
        Gives the quantiser of a parameter; rounding to nearest by `spec` when left out. It then decides what
        becomes of kept weights; `Preservation.order` and `value_bits` are for rounding to nearest.
    """
    found = targets(model, spec)
    blocks = () if preservation is None else preservation.blocks
    held = {target.block for target in found} & set(blocks)
    if len(held) < len(blocks):
        there = sorted({target.block for target in found if target.block is not None})
        raise ValueError(f"protected blocks {blocks} are not all quantised; allowed: among {there}")
    nearest = RoundToNearest(spec=spec)
    if preservation is not None:
        nearest = RoundToNearest(spec=spec, order=preservation.order, value_bits=preservation.value_bits)
    for target in found:
        weight = target.matrix()
        if preservation is not None and target.block is not None and target.block in blocks:
            whole = torch.float16 if preservation.value_bits == 16 else torch.float32
            yield target, verbatim(weight, whole)
            continue
        mask = None
        if preservation is not None and preservation.structure != "block":
            mask = kept_mask(weight, preservation, parameter=target.name, statistics=statistics)
        yield target, (nearest if quantizer is None else quantizer(target)).quantize(weight, mask)


@contextmanager
def quantized(
    model: nn.Module,
    spec: QuantSpec,
    preservation: Preservation | None = None,
    statistics: Statistics | None = None,
    *,
    quantizer: QuantizerOf | None = None,
) -> Iterator[Coverage]:
    """The model with dequantised float32 weights inside the `with` block, and its own weights after it.

    Raises
    ------
    ValueError
        When no weight is rounded, or the spec, the preservation or the statistics do not fit the model.
    RuntimeError
        When the weights after restoring are not those before, for instance because a parameter was replaced
        inside the block.
    """
    found = targets(model, spec)
    originals = [target.parameter.detach().clone() for target in found]
    before = checksum([(target.name, target.parameter) for target in found])
    try:
        yield _replaced(
            model, quantized_tensors(model, spec, preservation, statistics, quantizer=quantizer), before
        )
    finally:
        with torch.no_grad():
            for target, original in zip(found, originals, strict=True):
                target.parameter.copy_(original)
        after = checksum([(target.name, model.get_parameter(target.name)) for target in found])
        if after != before:
            raise RuntimeError(
                f"weights were not restored: SHA-256 {before[:16]} before, {after[:16]} after; leave "
                "parameters in place inside the block, and load the model again"
            )


def _replaced(model: nn.Module, rounded: Iterator[tuple[Target, QuantizedTensor]], before: str) -> Coverage:
    """Put dequantised weights into the model and add up what they cover."""
    modules: list[str] = []
    protected: list[str] = []
    weights = kept = size = 0
    for target, tensor in rounded:
        values = tensor.dequantized()
        with torch.no_grad():
            target.parameter.copy_(values.t() if target.transposed else values)
        whole = tensor.codes.dtype in (torch.float32, torch.float16)
        (protected if whole else modules).append(target.name)
        weights += tensor.weights
        kept += tensor.weights if whole else 0 if tensor.kept is None else tensor.kept.weights
        size += payload_bytes(tensor)
    if kept == weights:
        raise ValueError(f"all {weights} weights are kept and none is rounded; keep fewer")
    own = {parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}
    return Coverage(
        modules=tuple(modules), protected=tuple(protected), weights=weights, kept=kept,
        model_weights=sum(own.values()), payload_bytes=size, before=before,
    )  # fmt: skip
