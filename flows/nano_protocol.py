"""What a run of the nanodesmo study is told: recipe, texts, suites, windows, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lab.plan import Plan
from models.nano_recipe import NanoRecipe
from models.nano_suites import ZERO, SuiteStep, step_recipe, step_seeds
from models.nano_texts import TextSource
from models.regimes import PUBLISHED, STRONG, RegimePlan, randomised
from tasks.nano_training import NanoJob

Cell = tuple[str, str, int]
"""Suite, arm and seed."""
PHASES = (
    "prepare",
    "core",
    "frozen_core",
    "generalization",
    "frozen_generalization",
    "memory",
    "controls",
    "collect",
    "summary",
)
"""In order; `ladder run nanodesmo --only PHASE` runs one with what it needs."""
MAIN = "self-analysis"
"""Run that is tested frozen."""
RANDOM_P = "random-p"
"""Arm of the frozen test alone: P drawn at random is put into the network that was trained with P = 0."""
FROZEN = {
    MAIN: MAIN,
    "self-analysis-noself": "self-analysis-noself",
    "self-analysis-random": "self-analysis-random",
    RANDOM_P: "self-analysis-noself",
}
"""Arm of the frozen test -> run: P trained, P = 0, trained around a random P, and a random P put in."""
SHOWN = frozenset({"profile", "margin", "alpha", "timeout_minutes", "processes", "checkpoint"})
"""Fields that the plan has under another name, or that change no number of the plan's runs."""


@dataclass(frozen=True, kw_only=True)
class NanoProtocol:
    """What the run needs to know of a study."""

    plan: Plan
    default: Plan
    """Of the profile as shipped."""
    question: str
    text: str
    settings: Mapping[str, object]
    model: str
    texts: Mapping[str, TextSource]
    """`main`, and `second` where there is one."""
    recipe: NanoRecipe
    suites: Mapping[str, Sequence[SuiteStep]]
    seeds: tuple[int, ...]
    listed: RegimePlan | None
    """Windows that are the same in every seed; None: drawn by each seed."""
    placing: Mapping[str, Any]
    """Arguments of `models.regimes.randomised` where they are drawn."""
    before: int
    """Clean steps before a window that it is compared with."""
    rotations: int
    loss_margin: float
    auc_margin: float
    permutations: int
    processes: int | None
    timeout_seconds: float
    checkpoint: str

    @property
    def has_second(self) -> bool:
        """Whether there is a second text."""
        return "second" in self.texts

    def regimes(self, step: SuiteStep, seed: int) -> RegimePlan:
        """Windows that a step goes through."""
        if step.regimes == "none":
            return RegimePlan()
        if step.regimes == "published":
            return RegimePlan(regimes=PUBLISHED, contact=True)
        if self.listed is not None:
            return self.listed
        return randomised(STRONG, steps=self.recipe.steps, seed=seed, **self.placing)

    def step(self, suite: str, arm: str) -> SuiteStep:
        """A step by name."""
        [found] = [one for one in self.suites[suite] if one.id == arm]
        return found

    def job(self, cell: Cell) -> NanoJob:
        """What a cell is to train."""
        suite, arm, seed = cell
        step = self.step(suite, arm)
        recipe = step_recipe(step, self.recipe)
        job = NanoJob(
            source=self.texts["second" if suite == "generalization" else "main"],
            recipe=recipe,
            seeds=step_seeds(step, seed),
            plan=self.regimes(step, seed),
            until=recipe.steps // 2 if step.kind == "half" else None,
        )
        if step.kind != "go_on":
            return job
        placed: NanoJob | Literal["zero"] | None = None
        if step.placed:
            placed = ZERO if step.placed == ZERO else self.job((suite, step.placed, seed))
        begin = self.job((suite, step.after, seed))
        return replace(job, begin=begin, placed=placed, seeds=begin.seeds)

    def cells(self, suite: str) -> list[Cell]:
        """Every run of a suite; halves first, as others go on from them."""
        steps = sorted(self.suites[suite], key=lambda one: one.kind != "half")
        return [(suite, one.id, seed) for one in steps for seed in self.seeds]


def said(cell: Cell) -> str:
    """A suite, arm and seed as people read it."""
    suite, arm, seed = cell
    return f"{arm}, seed {seed}" if suite != "generalization" else f"{arm} on the second text, seed {seed}"
