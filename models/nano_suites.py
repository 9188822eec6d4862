"""Suites of trainings as data: what each step changes against the recipe, and what it goes on from.

This file needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from models.nano_recipe import NanoRecipe, Seeds, StateSpec

Kind = Literal["train", "half", "go_on"]
RegimeSet = Literal["none", "windows", "published"]
ZERO: Literal["zero"] = "zero"
RANDOM: Literal["random"] = "random"
OTHER_ORDER = 50_000
"""Added to a seed for data in another order."""


@dataclass(frozen=True, kw_only=True)
class SuiteStep:
    """One training of a suite.

    >>> SuiteStep(id="swap-a", kind="go_on")
    Traceback (most recent call last):
        ...
    ValueError: step swap-a goes on from nothing; name a step of kind 'half' in `after`
    """

    id: str
    """Name of the run, an arm of the study."""
    kind: Kind = "train"
    """Whole; up to half of the steps; or from there to the end."""
    state: Mapping[str, Any] | None = None
    """Fields of the self-state that differ from the study's; None: a plain GPT without one."""
    regimes: RegimeSet = "none"
    twins: bool = False
    """Whether each window has a twin that goes without it."""
    other_order: bool = False
    """Same initial weights, data in another order."""
    after: str = ""
    """Half that it goes on from."""
    placed: str = ""
    """What is put in the place of its state then: `zero`, `random` of the same norm, or the half whose
    state it is; empty: its own."""
    other_init: bool = False
    """Whether the half is that of the next seed, which shares neither initial weights nor a basis."""

    def __post_init__(self) -> None:
        """Refuse a step that could not run."""
        if (self.kind == "go_on") != bool(self.after):
            said = "goes on from nothing" if self.kind == "go_on" else f"of kind {self.kind!r} goes on"
            raise ValueError(f"step {self.id} {said}; name a step of kind 'half' in `after`")
        if self.twins and self.regimes == "none":
            raise ValueError(f"step {self.id} has twins of no window; give it regimes")
        if self.other_init and self.placed in ("", ZERO, RANDOM):
            raise ValueError(f"step {self.id} asks for another init of no half; name the half in `placed`")


def checked(suites: Mapping[str, Sequence[SuiteStep]]) -> None:
    """Nothing, if every suite names each step once and only halves that stand before it.

    Raises
    ------
    ValueError
        Else; with the step.
    """
    for name, steps in suites.items():
        halves: set[str] = set()
        seen: set[str] = set()
        for step in steps:
            if step.id in seen:
                raise ValueError(f"suite {name} names {step.id} twice")
            for other in (step.after, step.placed):
                if other not in ("", ZERO, RANDOM) and other not in halves:
                    raise ValueError(
                        f"step {step.id} of suite {name} needs {other}, which is no half before it; halves "
                        f"so far: {', '.join(sorted(halves)) or 'none'}"
                    )
            seen.add(step.id)
            if step.kind == "half":
                halves.add(step.id)


def step_recipe(step: SuiteStep, recipe: NanoRecipe) -> NanoRecipe:
    """The recipe of a step.

    >>> from models.nano_recipe import PROFILES
    >>> one = SuiteStep(id="self-dim1", state={"dim": 1})
    >>> step_recipe(one, PROFILES["smoke"]).state.dim
    1
    """
    state = None
    if step.state is not None:
        state = StateSpec(**{**asdict(recipe.state or StateSpec()), **step.state})
    return replace(recipe, state=state, twin_tail=(recipe.twin_tail or 0) if step.twins else None)


def step_seeds(step: SuiteStep, seed: int) -> Seeds:
    """What chance decides in a step of a study's seed."""
    found = Seeds.of(seed)
    return replace(found, order=seed + OTHER_ORDER) if step.other_order else found
