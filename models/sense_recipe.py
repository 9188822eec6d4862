"""How a retrieval head is built and trained: all that can change it, apart from what it is trained on.

One recipe holds for every condition, so they differ in their data only. This file needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from models.sense_tokens import Lookup

Loss = Literal["infonce", "triplet", "hinge"]
Phase = Literal["none", "rotated", "unrotated"]
Pooling = Literal["attention", "mean"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
PHASES: tuple[Phase, ...] = get_args(Phase)
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """What a head is made of."""

    hidden: int = 64
    """H, width of token states; a multiple of 4."""
    out: int = 256
    """D, width of z."""
    dropout: float = 0.1
    phase: Phase = "none"
    pooling: Pooling = "attention"
    target_penalty: float = 0.0
    """Taken from the score of target tokens."""

    def __post_init__(self) -> None:
        """Refuse what makes no head."""
        if self.hidden < 4 or self.hidden % 4 or self.out < 2:
            raise ValueError(
                f"hidden {self.hidden}, out {self.out}; hidden is a multiple of 4, out at least 2"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.phase not in PHASES or self.pooling not in POOLINGS:
            raise ValueError(
                f"phase {self.phase!r}, pooling {self.pooling!r}; allowed are {', '.join(PHASES)} and "
                f"{', '.join(POOLINGS)}"
            )
        if not (math.isfinite(self.target_penalty) and self.target_penalty >= 0.0):
            raise ValueError(f"target_penalty is {self.target_penalty}; it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """All that can change a head, apart from what it is trained on."""

    steps: int = 300
    batch: int = 64
    """Bundles a step; `steps` x `batch` is the update budget, equal for every arm."""
    learning_rate: float = 2e-3
    """Peak; falls by half a cosine to 0."""
    weight_decay: float = 0.01
    temperature: float = 0.07
    loss: Loss = "infonce"
    entropy_weight: float = 0.0
    """Of what attention falls short of an entropy of 1 nat."""
    shape: HeadShape = field(default_factory=HeadShape)
    lookup: Lookup = "learned"
    buckets: int = 4096
    """Of hashed words."""
    encoder: str = ""
    """Directory or hub id of a frozen encoder; empty: words are looked up."""
    max_tokens: int = 64
    """Of a text that an encoder reads; longer ones are cut, a target beyond is refused."""
    dev_every: int = 50
    """Steps between looks at dev."""
    patience: int = 4
    """Looks without a better state after which training ends."""
    threshold: float = 0.30
    """Of top1 on dev: the step that first reaches it is recorded."""

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        for name in ("steps", "batch", "dev_every", "patience", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "temperature"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0.0):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}; allowed are {', '.join(LOSSES)}")
        for name in ("weight_decay", "entropy_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0.0):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")


def recipe_of(fields: Mapping[str, Any]) -> HeadRecipe:
    """A recipe from its plain fields.

    >>> from dataclasses import asdict
    >>> recipe_of(asdict(HeadRecipe())) == HeadRecipe()
    True
    """
    return HeadRecipe(**{**fields, "shape": HeadShape(**fields["shape"])})
