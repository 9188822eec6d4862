"""What a run of the sense study is told, its arms, and what names a head in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.plan import Plan
from models.sense_conditions import (
    CONDITIONS,
    ENRICHMENT_ARMS,
    TrainingArm,
    factorial,
    halved,
    sizes,
)
from models.sense_recipe import HeadRecipe
from models.sense_sources import SenseSource

Cell = tuple[str, int]
"""Arm and seed."""
CONTROL, ORDER = "A", ("A", "B", "C")
FLAT = "B-flat"
"""B with every bundle drawn once: what oversampling adds is B - B-flat."""
MINER_SEED = 100_003
"""Beyond every seed of a study: the head that killers are mined with is none of those they test."""


@dataclass(frozen=True, kw_only=True)
class SenseArm:
    """A training set and a recipe."""

    training: TrainingArm
    recipe: HeadRecipe
    verified_by: str = ""
    """Arm whose heads verify new contexts."""
    raised: float = 0.0
    """Added to both calibrated thresholds."""

    @property
    def name(self) -> str:
        """As in the training set."""
        return self.training.name


@dataclass(frozen=True, kw_only=True)
class SenseProtocol:
    """What the run needs to know of a study."""

    plan: Plan
    default: Plan
    question: str
    text: str
    settings: Mapping[str, object]
    model: str
    source: SenseSource
    recipe: HeadRecipe
    seeds: tuple[int, ...]
    curve_seeds: int
    groups: tuple[str, ...]
    """Of arms beyond the conditions: factorial, enrichment, losses, phase, attention."""
    per_sense: int
    per_lemma: int
    dev_per_sense: int
    limits: Mapping[str, float]
    raised: float
    mislabelled: float
    processes: int | None
    timeout_seconds: float

    @property
    def conditions(self) -> tuple[str, ...]:
        """A, B, C; those of the files where there are files of bundles."""
        given = tuple(name for name, _ in self.source.bundles)
        return given or ORDER

    def arm(self, name: str) -> SenseArm:
        """An arm by its name.

        Raises
        ------
        KeyError
            There is none of the name.
        """
        return self.arms[name]

    @property
    def arms(self) -> Mapping[str, SenseArm]:
        """Every arm that this study may train, by name."""
        found = {name: self._plain(arm) for name, arm in CONDITIONS.items()}
        flat = replace(CONDITIONS["B"], name=FLAT, curriculum=(1, 1, 1))
        found[FLAT] = self._plain(flat)
        found |= {arm.name: self._plain(arm) for arm in (*sizes(), *factorial().values())}
        found |= {one.name: one for one in self._enriched()}
        found |= {one.name: one for one in self._other_recipes()}
        half = halved(CONDITIONS["C"])
        found[half.name] = self._plain(half)
        tight = replace(half, name="C-raised", enrichment="verified")
        found[tight.name] = SenseArm(training=tight, recipe=self.recipe, verified_by="B", raised=self.raised)
        return found

    def _plain(self, arm: TrainingArm) -> SenseArm:
        return SenseArm(training=arm, recipe=self.recipe)

    def _enriched(self) -> list[SenseArm]:
        return [
            SenseArm(
                training=replace(CONDITIONS["C"], name=f"B-{kind}", enrichment=kind),
                recipe=self.recipe,
                verified_by="B" if kind == "verified" else "",
            )
            for kind in ENRICHMENT_ARMS
            if kind not in ("none", "genuine")
        ]

    def _other_recipes(self) -> list[SenseArm]:
        recipe, shape = self.recipe, self.recipe.shape
        changed = {
            "triplet": replace(recipe, loss="triplet"),
            "hinge": replace(recipe, loss="hinge"),
            "rotated": replace(recipe, shape=replace(shape, phase="rotated")),
            "unrotated": replace(recipe, shape=replace(shape, phase="unrotated")),
            "mean": replace(recipe, shape=replace(shape, pooling="mean")),
            "floor": replace(recipe, entropy_weight=0.1),
        }
        return [
            SenseArm(training=replace(CONDITIONS["B"], name=f"B-{name}"), recipe=one)
            for name, one in changed.items()
        ]

    @property
    def contrasts(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Family of extra contrasts -> (X, Y) pairs, X minus Y."""
        known: dict[str, tuple[tuple[str, str], ...]] = {
            "oversampling": (("B", FLAT),),
            "enrichment": tuple((f"B-{kind}", "B") for kind in ("template", "noisy", "verified")),
            "losses": (("B", "B-triplet"), ("B", "B-hinge")),
            "phase": (("B-rotated", "B-unrotated"), ("B-rotated", "B")),
            "attention": (("B", "B-mean"), ("B-floor", "B")),
        }
        return {name: pairs for name, pairs in known.items() if name in self.groups}

    def trained(self) -> tuple[str, ...]:
        """Arms of the comparisons, the conditions first, each once."""
        names = [
            *self.conditions,
            *(name for pairs in self.contrasts.values() for pair in pairs for name in pair),
        ]
        if "factorial" in self.groups:
            names += [arm.name for arm in factorial().values()]
        return tuple(dict.fromkeys(names))

    def cells(self, names: Sequence[str], seeds: int | None = None) -> list[Cell]:
        """Every arm and seed."""
        return [(name, seed) for name in names for seed in self.seeds[:seeds]]


def said(cell: Cell) -> str:
    """An arm and seed as people read it."""
    return f"{cell[0]}, seed {cell[1]}"
