"""What a run of the rank study is told, and what names an arm in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.plan import Plan
from models.lora_recipe import Evaluation, LoraRecipe
from models.mistral_base import BaseSpec
from models.task_items import TaskSource
from tasks.rank_checks import Bounds
from tasks.rank_placing import arm_names

BASE = "base"
"""The arm without an adapter."""
Cell = tuple[int | None, str]
"""Seed and arm; the base has no seed."""


@dataclass(frozen=True, kw_only=True)
class RankProtocol:
    """What the run needs to know of a study."""

    plan: Plan
    default: Plan
    question: str
    text: str
    settings: Mapping[str, object]
    model: str
    base_spec: BaseSpec | None
    """Of an embedded base."""
    source: TaskSource
    evaluation: Evaluation
    recipe: LoraRecipe
    first_seed: int
    arms: tuple[str, ...]
    shuffles: int
    policy: str
    probe_rank: int
    bounds: Bounds
    non_inferiority: float
    resamples: int
    processes: int | None
    timeout_seconds: float

    @property
    def names(self) -> tuple[str, ...]:
        """Every arm, the probe first."""
        return arm_names(self.arms, self.shuffles)

    def seeds(self, look: int) -> tuple[int, ...]:
        """Training seeds of a look."""
        return tuple(range(self.first_seed, self.first_seed + look))

    def cells(self, look: int) -> list[Cell]:
        """Every seed and arm of a look."""
        return [(seed, name) for seed in self.seeds(look) for name in self.names]


def said(cell: Cell) -> str:
    """A seed and arm as people read it."""
    seed, arm = cell
    return arm if seed is None else f"{arm}, seed {seed}"
