"""What a quantised model is, as frozen values: rounding, what is preserved, what it was calibrated on.

Asking for a configuration needs no torch; `models.quantize` does what these say. Everything here can change a
number, so everything is a field and part of a fingerprint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

Bits = Literal[2, 3, 4, 8, 16]
Granularity = Literal["tensor", "channel", "group"]
ScaleRule = Literal["absmax", "mse", "hqq"]
Codebook = Literal["integer", "nf4"]
Targets = Literal["blocks", "weights"]
Selector = Literal["magnitude", "activation", "hessian", "random"]
Structure = Literal["weight", "channel", "block"]
Order = Literal["after_removal", "legacy"]

BITS: tuple[Bits, ...] = (2, 3, 4, 8, 16)
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "channel", "group")
SCALE_RULES: tuple[ScaleRule, ...] = ("absmax", "mse", "hqq")
CODEBOOKS: tuple[Codebook, ...] = ("integer", "nf4")
TARGETS: tuple[Targets, ...] = ("blocks", "weights")
SELECTORS: tuple[Selector, ...] = ("magnitude", "activation", "hessian", "random")
STRUCTURES: tuple[Structure, ...] = ("weight", "channel", "block")
ORDERS: tuple[Order, ...] = ("after_removal", "legacy")

T = TypeVar("T")


def _one_of(field: str, value: T, allowed: tuple[T, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; allowed: {', '.join(str(name) for name in allowed)}")


def _block_indices(field: str, blocks: tuple[int, ...]) -> None:
    if any(index < 0 for index in blocks) or len(set(blocks)) < len(blocks):
        raise ValueError(f"{field} is {blocks}; give each block's index once, counted from 0")


@dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """How weights are rounded; the default is 4 bits, asymmetric, one scale and zero point for 128 inputs.

    >>> QuantSpec().name
    'int4 group 128 asymmetric absmax'
    >>> QuantSpec(bits=5)
    Traceback (most recent call last):
    ValueError: bits is 5; allowed: 2, 3, 4, 8, 16
    """

    bits: int = 4
    """Bits of a code: 2, 3, 4 or 8; 16 is a cast to bfloat16, the null of every comparison."""
    granularity: Granularity = "group"
    """What shares a scale: the tensor, an output channel, or `group_size` inputs of an output channel."""
    group_size: int = 128
    """Weights of a group along the input; the last group of a row is shorter when it does not divide."""
    symmetric: bool = False
    """True: no zero point, scale = largest |weight| / (2^(bits-1) - 1). nf4 has its own zero."""
    scale_rule: ScaleRule = "absmax"
    """`absmax`: the range. `mse`: the range shrunk to the least squared error. `hqq`: a real zero point that
    is fitted to a heavy-tailed error (asymmetric only)."""
    codebook: Codebook = "integer"
    """`integer`: evenly spaced. `nf4`: the 16 levels of QLoRA's NormalFloat (4 bits)."""
    scale_bits: Literal[16, 32] = 32
    """Bits of a stored scale and of a real zero point: float16 or float32. torchao keeps float32."""
    targets: Targets = "blocks"
    """`blocks`: weights of Linear and Conv1D in the blocks. `weights`: every parameter that has "weight" in
    its name, embeddings and norms too."""
    blocks: tuple[int, ...] | None = None
    """Indices of the blocks to quantise, from 0; None for all."""

    def __post_init__(self) -> None:
        _one_of("bits", self.bits, BITS)
        _one_of("granularity", self.granularity, GRANULARITIES)
        _one_of("scale_rule", self.scale_rule, SCALE_RULES)
        _one_of("codebook", self.codebook, CODEBOOKS)
        _one_of("scale_bits", self.scale_bits, (16, 32))
        _one_of("targets", self.targets, TARGETS)
        if self.group_size < 1:
            raise ValueError(f"group_size is {self.group_size}; allowed: 1 or more")
        if self.codebook == "nf4" and (self.bits != 4 or self.symmetric or self.scale_rule == "hqq"):
            raise ValueError(
                f"codebook 'nf4' has bits {self.bits}, symmetric {self.symmetric}, scale_rule "
                f"{self.scale_rule!r}; it takes 4 bits, symmetric False, 'absmax' or 'mse'"
            )
        if self.scale_rule == "hqq" and self.symmetric:
            raise ValueError("scale_rule 'hqq' fits a zero point and symmetric has none; set symmetric=False")
        if self.blocks is not None:
            _block_indices("blocks", self.blocks)
            if not self.blocks:
                raise ValueError("blocks is empty; name the blocks to quantise, or None for all")

    @property
    def name(self) -> str:
        """Words for a table."""
        if self.bits == 16:
            where = "bfloat16"
        else:
            size = f"group {self.group_size}" if self.granularity == "group" else self.granularity
            kind = "symmetric " if self.symmetric else "asymmetric "
            head = "nf4" if self.codebook == "nf4" else f"int{self.bits}"
            where = f"{head} {size} {'' if self.codebook == 'nf4' else kind}{self.scale_rule}"
        scope = "" if self.targets == "blocks" else " every weight"
        return where + scope + ("" if self.blocks is None else f" blocks {','.join(map(str, self.blocks))}")


LEGACY = QuantSpec(bits=4, granularity="tensor", symmetric=True, targets="weights")
"""The earlier study's rounding: one absmax / 7 for each parameter, embeddings and norms included."""


@dataclass(frozen=True, kw_only=True)
class Preservation:
    """Which weights stay as they are, and whether they have a say in the scale of the others.

    Every selector keeps the same number of weights in a tensor, so `random` is the control at equal bits.

    >>> Preservation(selector="magnitude", percent=5.0).name
    '5 % magnitude'
    >>> Preservation(selector="random", percent=120.0)
    Traceback (most recent call last):
    ValueError: percent is 120.0; allowed: above 0, below 100
    """

    selector: Selector = "magnitude"
    """`magnitude` |w|; `activation` |w| ||x||; `hessian` w^2 F, F the diagonal of the Fisher information;
    `random` a draw from `seed` and the parameter's name. Structure `block` takes none: leave the default."""
    percent: float = 0.0
    """Weights (structure `weight`) or input channels (`channel`) kept, in percent of each tensor's; 0 with
    structure `block`, where `blocks` says it."""
    structure: Structure = "weight"
    """What is kept: single weights, whole input channels, or whole blocks."""
    order: Order = "after_removal"
    """`after_removal`: scales see only the weights that will be rounded. `legacy`: scales see all of them."""
    seed: int = 0
    """Of `random`."""
    blocks: tuple[int, ...] = ()
    """Structure `block`: indices of the blocks kept, from 0."""
    value_bits: Literal[16, 32] = 32
    """Bits of a kept weight on disk: float32, which is the weight itself, or float16."""

    def __post_init__(self) -> None:
        _one_of("selector", self.selector, SELECTORS)
        _one_of("structure", self.structure, STRUCTURES)
        _one_of("order", self.order, ORDERS)
        _one_of("value_bits", self.value_bits, (16, 32))
        _block_indices("blocks", self.blocks)
        if (self.structure == "block") != bool(self.blocks):
            raise ValueError(
                f"structure {self.structure!r} has blocks {self.blocks}; only structure 'block' names any"
            )
        if self.structure == "block":
            if self.percent != 0.0:
                raise ValueError(f"structure 'block' has percent {self.percent}; leave it 0, blocks say it")
        elif not (math.isfinite(self.percent) and 0.0 < self.percent < 100.0):
            raise ValueError(f"percent is {self.percent}; allowed: above 0, below 100")

    @property
    def name(self) -> str:
        """Words for a table."""
        order = "" if self.order == "after_removal" else " legacy order"
        if self.structure == "block":
            return f"blocks {','.join(map(str, self.blocks))}"
        unit = " channels" if self.structure == "channel" else ""
        return f"{self.percent:g} % {self.selector}{unit}{order}"


@dataclass(frozen=True, kw_only=True)
class CalibrationMix:
    """The texts that activations, Fisher information and GPTQ's Hessians are gathered on.

    >>> CalibrationMix(texts=(("en", 64), ("sw", 64))).name
    'en 64, sw 64; windows of 128'
    """

    texts: tuple[tuple[str, int], ...]
    """(language code, number of texts) in order; the first that many of the language's texts are read."""
    block_size: int = 128
    """Positions of a window; a longer text is read in several."""

    def __post_init__(self) -> None:
        codes = [code for code, _ in self.texts]
        if not codes or len(set(codes)) < len(codes) or any(count < 1 for _, count in self.texts):
            raise ValueError(f"texts is {self.texts}; give each language once, with 1 text or more")
        if self.block_size < 2:
            raise ValueError(f"block_size is {self.block_size}; allowed: 2 or more")

    @property
    def name(self) -> str:
        """Words for a table."""
        mix = ", ".join(f"{code} {count}" for code, count in self.texts)
        return f"{mix}; windows of {self.block_size}"
