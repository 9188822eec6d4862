"""What a run of the quantisation study is told, and its replicates.

A replicate is a training seed of an embedded model, or a fold of the sentences of any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.plan import Plan
from models.corpus import Language
from models.multilingual import MODELS
from models.quant_spec import CalibrationMix, QuantSpec
from models.variants import CorpusSource, Variant
from tasks.quant_measured import Asked, levels_of

FOLD = 4
"""Documents are dealt to folds in runs of this many over the number of folds."""


@dataclass(frozen=True, kw_only=True)
class QuantProtocol:
    """What the run needs to know of a study."""

    plan: Plan
    default: Plan
    question: str
    text: str
    settings: Mapping[str, object]
    model: str
    transfer: Mapping[str, str]
    """Experiment -> model."""
    replicates: int
    languages: tuple[Language, ...]
    source: CorpusSource
    """Without its number of sentences."""
    mix: CalibrationMix
    main: QuantSpec
    variants: Mapping[str, Mapping[str, Variant]]
    """Experiment -> name -> what is evaluated for it."""
    pairs: Mapping[str, tuple[str, str, str]]
    """Budget experiment -> its question, the random variant and the selector's."""
    kept: tuple[tuple[float, str], ...]
    """Percent and name of the selector's variants."""
    keep_blocks: int
    resamples: int
    timeout_seconds: float
    every_experiment: bool

    def source_at(self, look: int) -> CorpusSource:
        """The sentences of a look."""
        return replace(self.source, sentences=look)

    def model_of(self, experiment: str) -> str:
        """The model that an experiment is about."""
        return self.transfer.get(experiment, self.model)

    def asked(self, look: int) -> Asked:
        """What is fixed before the data of a look."""
        levels = levels_of(self.plan.looks, self.plan.alpha)
        return Asked(
            languages=self.languages,
            margin=self.plan.margin,
            alpha=levels[look],
            resamples=self.resamples,
        )


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One repetition of every experiment on one model."""

    model: str
    number: int
    folds: int | None
    """Number of folds; None where the repetition is a training seed."""

    @property
    def name(self) -> str:
        """As rows and pages name it."""
        return f"{self.model} {'seed' if self.folds is None else 'fold'} {self.number}"

    def places(self, documents: Sequence[str]) -> tuple[int, ...]:
        """Its sentences."""
        if self.folds is None:
            return tuple(range(len(documents)))
        order = {name: i for i, name in enumerate(dict.fromkeys(documents))}
        return tuple(i for i, name in enumerate(documents) if order[name] // FOLD % self.folds == self.number)


def replicates(model: str, number: int) -> tuple[Replicate, ...]:
    """Training seeds of an embedded model, folds of sentences of any other."""
    folds = None if model in MODELS else number
    return tuple(Replicate(model=model, number=i, folds=folds) for i in range(number))
