"""How every LoRA arm of a study is trained and evaluated: all that can change a number, apart from its ranks.

One recipe holds for the probe and all arms, so they differ in placement only. This file needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

ScaleRule = Literal["alpha_is_rank", "rslora", "fixed"]
Precision = Literal["float32", "bfloat16"]
Initialisation = Literal["nested", "eva"]

MAX_RANK = 64
"""Rows that are drawn for each module's A; a module of rank r starts from the first r of them."""


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Training of one adapter.

    >>> LoraRecipe().scale(8), LoraRecipe(scale_rule="fixed", alpha=16.0).scale(8)
    (1.0, 2.0)
    >>> LoraRecipe(scale_rule="rslora", alpha=16.0).scale(4)
    8.0
    """

    steps: int = 400
    """Optimiser steps."""
    batch_size: int = 32
    """Items of a step."""
    micro_batch: int | None = None
    """Most items of one forward pass; gradients of a step are summed over them. None: the whole batch."""
    learning_rate: float = 5e-3
    """Peak, after warm-up; falls by half a cosine to 0."""
    warmup_share: float = 0.05
    """Of the steps, with a linearly rising rate; at least one step."""
    weight_decay: float = 0.0
    """AdamW's, on A and B alike."""
    clip_norm: float = 1.0
    """Largest norm of the gradient over all adapters."""
    scale_rule: ScaleRule = "alpha_is_rank"
    """s of W + s B A: 1 for every rank; alpha / sqrt(r); alpha / r."""
    alpha: float | None = None
    """Of `rslora` and `fixed`; None with `alpha_is_rank`."""
    max_tokens: int = 512
    """Longest item: prompt, answer and end token. A longer one is left out of training and counted."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    precision: Precision = "float32"
    """Of the frozen base; adapters are float32 always."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; None keeps none."""
    stages: int = 5
    """Parts of the training, after each of which the validation items are scored."""
    eva_rho: float = 2.0
    """With `eva`: largest rank of a module over the mean rank."""

    def __post_init__(self) -> None:
        """Refuse what would fail later or silently train something else."""
        for name in ("steps", "batch_size", "max_tokens", "stages"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        for name in ("micro_batch", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; allowed: None, 1 or more")
        for name in ("learning_rate", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share is {self.warmup_share}; allowed: 0 up to, not including, 1")
        if self.stages > self.steps:
            raise ValueError(f"{self.stages} stages in {self.steps} steps; allowed: at most one a step")
        if self.weight_decay < 0 or self.eva_rho < 1:
            raise ValueError(
                f"weight_decay is {self.weight_decay}, eva_rho {self.eva_rho}; allowed: 0 or more, 1 or more"
            )
        for name, kind in (("scale_rule", ScaleRule), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(get_args(kind))}")
        if (self.alpha is None) != (self.scale_rule == "alpha_is_rank") or (self.alpha or 1.0) <= 0:
            raise ValueError(
                f"alpha is {self.alpha} with scale_rule {self.scale_rule!r}; allowed: None with "
                "alpha_is_rank, a number above 0 with rslora and fixed"
            )

    def lora_alpha(self, rank: int) -> float:
        """PEFT's `lora_alpha` of a module."""
        return float(rank) if self.alpha is None else self.alpha

    def scale(self, rank: int) -> float:
        """The factor s of W + s B A."""
        divisor = math.sqrt(rank) if self.scale_rule == "rslora" else rank
        return self.lora_alpha(rank) / divisor

    @property
    def warmup_steps(self) -> int:
        """Steps with a rising rate."""
        return max(1, round(self.warmup_share * self.steps))

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0.

        >>> recipe = LoraRecipe(steps=100, learning_rate=1.0, warmup_share=0.1)
        >>> [round(recipe.rate(step), 3) for step in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
        """
        warm = self.warmup_steps
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def stage_ends(self) -> tuple[int, ...]:
        """Steps done at the start and after each stage.

        >>> LoraRecipe(steps=400).stage_ends()
        (0, 80, 160, 240, 320, 400)
        """
        return tuple(self.steps * i // self.stages for i in range(self.stages + 1))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How answers are generated and scored."""

    max_new_tokens: int = 256
    """Tokens of a generated answer, the end token included; one that does not stop by then is flagged."""
    batch_size: int = 256
    """Prompts that are generated together."""
    precision: Precision = "float32"
    """Of the base; texts are independent of their batch in float32 only."""

    def __post_init__(self) -> None:
        """Refuse what would generate nothing."""
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, batch_size {self.batch_size}; allowed: 1 or more"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is {self.precision!r}; allowed: {', '.join(get_args(Precision))}")
