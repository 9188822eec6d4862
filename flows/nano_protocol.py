"""What a run of the nanodesmo study is told: recipe, texts, suites, windows, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from flows.nano_arms import PUBLISHED_PLAN
from lab.errors import UsageError
from lab.plan import Plan
from models.nano_recipe import NanoRecipe, StateSpec
from models.nano_suites import RANDOM, ZERO, SuiteStep, step_recipe, step_seeds
from models.nano_texts import TextSource, resolved
from models.regimes import STRONG, RegimePlan, randomised
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
WINDOWS = {"discovery_windows": 64, "fresh_windows": 32}
"""Held-out windows of the frozen test: to discover directions on, and others to measure on."""
TESTED = {"main": ("core", "frozen_core"), "second": ("generalization", "frozen_generalization")}
"""Text -> phases that test it frozen."""
CORPUS = {"main": ("corpus", "corpus_sha256"), "second": ("second_corpus", "second_sha256")}
"""Text -> fields that name it and its hash."""
SHOWN = frozenset({"profile", "margin", "alpha", "timeout_minutes", "processes", "checkpoint", "look"})
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
    """Of every arm at this look."""
    look: int
    """Which of the plan's looks is taken, from 1."""
    level: float
    """Error that this look may spend, of the plan's alpha."""
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
    def frozen_spec(self) -> dict[str, Any]:
        """What the frozen test tries, on how much text."""
        return {"rotations": self.rotations, **WINDOWS}

    def refuse_few_windows(self, name: str, heldout_tokens: int) -> None:
        """Check that a held-out text has the windows of the frozen test.

        Raises
        ------
        UsageError
            When it has fewer; with the fields to change.
        """
        t, b = self.recipe.shape.block_size, self.recipe.batch
        n, needed = heldout_tokens // t, WINDOWS["discovery_windows"] + max(WINDOWS["fresh_windows"], 2 * b)
        if n < needed:
            raise UsageError(
                f"the held-out part of {self.texts[name].name} has {n} windows of {t} tokens; the frozen "
                f"test needs {needed}: give a longer text with --set {CORPUS[name][0]}=FILE, or lower block "
                "or batch"
            )

    def refuse_checkpoint(self, phases: Sequence[str]) -> None:
        """Check that a run that was given is all that is asked about.

        Raises
        ------
        UsageError
            When other phases are to be run.
        """
        if self.checkpoint and tuple(phases) != ("frozen_core",):
            raise UsageError(
                "checkpoint names a run that is tested by itself: ladder run nanodesmo --only frozen_core "
                "--set checkpoint=PATH; leave it out of anything else"
            )

    @property
    def has_second(self) -> bool:
        """Whether there is a second text."""
        return "second" in self.texts

    def regimes(self, step: SuiteStep, seed: int) -> RegimePlan:
        """Windows that a step goes through."""
        if step.regimes == "none":
            return RegimePlan()
        if step.regimes == "published":
            return PUBLISHED_PLAN
        if self.listed is not None:
            return self.listed
        return randomised(STRONG, steps=self.recipe.steps, seed=seed, **self.placing)

    def in_contact(self) -> list[str]:
        """Published windows that abut, in words, where they are asked for."""
        if all(step.regimes != "published" for steps in self.suites.values() for step in steps):
            return []
        pairs = pairwise(PUBLISHED_PLAN.occurrences())
        return [
            f"{one.name} ends at step {one.end}, where {other.name} begins"
            for one, other in pairs
            if other.start <= one.end
        ]

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
        half = self.own_half(cell)
        if half is not None:
            return replace(job, first=self.job(half))
        if step.kind != "go_on":
            return job
        placed: NanoJob | Literal["zero", "random"] | None = None
        if step.placed == ZERO or step.placed == RANDOM:
            placed = step.placed
        elif step.placed:
            placed = self.job(self._placed(step, cell))
        begin = self.job((suite, step.after, seed))
        return replace(job, begin=begin, placed=placed, seeds=begin.seeds)

    def _placed(self, step: SuiteStep, cell: Cell) -> Cell:
        """The half whose state is put into a run: of its own seed, or of the next one."""
        suite, _, seed = cell
        return (suite, step.placed, self.next_seed(seed) if step.other_init else seed)

    def next_seed(self, seed: int) -> int:
        """The seed after one, the first after the last."""
        return self.seeds[(self.seeds.index(seed) + 1) % len(self.seeds)]

    def own_half(self, cell: Cell) -> Cell | None:
        """The half of the same suite that a whole run begins with, if there is one."""
        suite, arm, seed = cell
        step = self.step(suite, arm)
        if step.kind != "train":
            return None
        for one in self.suites[suite]:
            if one.kind == "half" and replace(one, id=arm, kind="train") == step:
                return suite, one.id, seed
        return None

    def halves(self, cell: Cell) -> list[Cell]:
        """Runs that have to be there before a cell's."""
        step = self.step(cell[0], cell[1])
        found = [(cell[0], step.after, cell[2])] if step.after else []
        return found + ([self._placed(step, cell)] if step.placed not in ("", ZERO, RANDOM) else [])

    def cells(self, suite: str) -> list[Cell]:
        """Every run of a suite; halves first, as others go on from them. One seed has no other init."""
        steps = sorted(self.suites[suite], key=lambda one: one.kind != "half")
        there = [one for one in steps if not one.other_init or len(self.seeds) > 1]
        return [(suite, one.id, seed) for one in there for seed in self.seeds]


def refuse_steps(suites: Mapping[str, Sequence[SuiteStep]], recipe: NanoRecipe) -> None:
    """Make every step's recipe, so that none turns out impossible after hours.

    Raises
    ------
    ValueError
        For a recipe that cannot be; with the step.
    """
    for suite, steps in suites.items():
        for step in steps:
            try:
                step_recipe(step, recipe)
            except ValueError as error:
                state = recipe.state or StateSpec()
                raise ValueError(
                    f"step {step.id} of suite {suite} cannot be with update {state.update!r} and memory "
                    f"{state.memory!r}: {error}; change one of them"
                ) from error


def planned_texts(texts: Mapping[str, TextSource]) -> dict[str, str]:
    """Fields of the plan that say what the texts are."""
    found: dict[str, str] = {}
    for name, source in texts.items():
        found |= zip(CORPUS[name], planned_text(source), strict=True)
    return found


def planned_text(source: TextSource) -> tuple[str, str]:
    """What the plan says of a text: of a file or an address its content's hash, and not where it lies.

    A file that is not there, or is not what its hash says, is named as it was told: a run refuses it. What
    Python carries and hub datasets go by their names; the hash of what was read is in every step.

    >>> planned_text(TextSource(source="https://a.b/c", sha256="0" * 64)) == ("text", "0" * 64)
    True
    """
    if source.kind == "url" and source.sha256:
        return "text", source.sha256
    if source.kind == "file":
        try:
            found = Path(source.source).expanduser().stat()
            return "text", _hash_of_file(source, found.st_mtime_ns, found.st_size)
        except (OSError, ValueError):
            pass
    return source.source, source.sha256


@lru_cache(maxsize=8)
def _hash_of_file(source: TextSource, _changed: int, _size: int) -> str:
    """SHA-256 of a text file, read once while it stays as it is."""
    return resolved(source, Path()).sha256


def said(cell: Cell) -> str:
    """A suite, arm and seed as people read it."""
    suite, arm, seed = cell
    return f"{arm}, seed {seed}" if suite != "generalization" else f"{arm} on the second text, seed {seed}"
