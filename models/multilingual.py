"""Small multilingual models trained on unequal shares of CLDR sentences, in three architectures.

Each language is given its share of one budget of sentences, so a low-resource language really is one for the
model: it sees a tenth of the text, and fewer tokens are made for its words. All architectures share
vocabulary, text, width and depth; the network differs. The replicates of a study differ by seed, which
sets weights, batches and which sentences are drawn.

This file needs no torch until `obtain` trains; `models.multilingual_pretrain` is the network and its loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.cldr import LANGUAGES, cldr_texts
from models.embedded import TrainPoint
from models.kept import alone, keep, load_kept, part_of

ARCHITECTURES = ("gpt2", "opt", "gpt_neox")
MAX_POSITIONS = 256
"""The longest CLDR sentence has under 200 tokens; training windows are shorter still."""
SENTENCES_A_DOCUMENT = 4
TRAIN_FIRST = 1_000_000
"""First document that training may use; studies evaluate on those from 0."""
HELDOUT_FIRST = 900_000
HELDOUT_DOCUMENTS = 10
"""Of each language, for the training log."""


@dataclass(frozen=True, kw_only=True)
class MultilingualSpec:
    """All that can change a trained weight, apart from CLDR, thread count and library versions."""

    name: str
    architecture: str
    """One of `ARCHITECTURES`."""
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 96
    vocab_size: int = 1024
    block_size: int = 128
    """Tokens in a training window."""
    batch: int = 8
    """Windows in a step."""
    steps: int = 400
    warmup_steps: int = 40
    evaluations: int = 2
    """Held-out evaluations after the one at step 0, evenly spaced."""
    learning_rate: float = 6e-3
    """Peak, after warm-up; falls by a cosine to a twentieth."""
    weight_decay: float = 0.1
    sentences: int = 12_000
    """Training sentences of all languages together; a language's share of them is in `LANGUAGES`."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what would fail later or silently train something else."""
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"{self.name}: architecture {self.architecture!r}; allowed are {', '.join(ARCHITECTURES)}"
            )
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 8:
            raise ValueError(
                f"{self.name}: n_embd {self.n_embd}, n_head {self.n_head}; a head's width must be a multiple "
                "of 8, of which a quarter is rotated in GPT-NeoX"
            )
        if not 2 <= self.block_size <= MAX_POSITIONS:
            raise ValueError(f"{self.name}: block_size {self.block_size}; allowed are 2 to {MAX_POSITIONS}")
        if not 0 <= self.warmup_steps < self.steps or not 1 <= self.evaluations <= self.steps:
            raise ValueError(
                f"{self.name}: {self.steps} steps, {self.warmup_steps} of warm-up, {self.evaluations} "
                "evaluations; both must be fewer than the steps"
            )

    @property
    def tokens(self) -> int:
        """Tokens trained on, repeats included."""
        return self.steps * self.batch * self.block_size


MODELS: Mapping[str, MultilingualSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            MultilingualSpec(name="cldr-gpt2", architecture="gpt2"),
            MultilingualSpec(name="cldr-opt", architecture="opt", learning_rate=3e-3, steps=500),
            MultilingualSpec(name="cldr-gpt_neox", architecture="gpt_neox"),
        )
    }
)
"""The embedded models of the quantisation study, 0.45 M parameters in the blocks; held-out bits per byte:

    model          en    de    ru    ar    hi    sw    kk    ne    cy    ur   CPU seconds
    cldr-gpt2      2.08  2.08  1.48  1.41  1.29  3.15  2.07  1.55  3.81  2.54     27
    cldr-opt       2.47  2.43  1.67  1.62  1.38  3.57  2.28  1.59  4.19  2.87     24
    cldr-gpt_neox  1.73  1.74  1.26  1.22  1.10  2.73  1.82  1.43  3.42  2.26     25

OPT learns slowest; at twice the rate it cost 2.67 in English, and with the usual initial spread of 0.02 the
low-resource languages cost more than their own unigram model. Scripts differ in bytes a letter: compare a
language with itself only.
"""


def spec_of(name: str, seed: int) -> MultilingualSpec:
    """The spec of an embedded model in one replicate.

    Raises
    ------
    ValueError
        For a name that is not in `MODELS`.
    """
    if name not in MODELS:
        raise ValueError(f"unknown embedded model {name!r}; allowed are {', '.join(MODELS)}")
    return dataclasses.replace(MODELS[name], seed=seed)


def training_texts(spec: MultilingualSpec) -> dict[str, list[str]]:
    """Training sentences of each language, by its share of the budget; other documents in each language."""
    texts = {}
    for place, language in enumerate(LANGUAGES):
        assert language.share is not None  # the table says all
        documents = max(1, round(spec.sentences * language.share / SENTENCES_A_DOCUMENT))
        first = TRAIN_FIRST + 100_000 * place
        texts[language.code] = cldr_texts(language.code, first=first, documents=documents, seed=1 + spec.seed)
    return texts


def heldout_texts() -> dict[str, list[str]]:
    """The same held-out documents of each language."""
    return {
        language.code: cldr_texts(language.code, first=HELDOUT_FIRST, documents=HELDOUT_DOCUMENTS, seed=0)
        for language in LANGUAGES
    }


@dataclass(frozen=True, kw_only=True)
class TrainedMultilingual:
    """A trained model on disk."""

    name: str
    directory: Path
    spec: MultilingualSpec
    digest: str
    """SHA-256 over weights and tokeniser."""
    parameters: int
    sentences: Mapping[str, int]
    """Training sentences by language."""
    heldout_bits_per_byte: Mapping[str, float]
    """By language, after the last step."""
    seconds: float
    """Wall time of text, tokeniser, training and evaluations."""
    cpu_seconds: float
    log: tuple[TrainPoint, ...]


def obtain(
    spec: MultilingualSpec, directory: Path, *, report: Callable[[TrainPoint], None] | None = None
) -> TrainedMultilingual:
    """The model of `spec` at `directory`, trained unless an intact one is there.

    Where another process trains it just now, that is waited for.

    Raises
    ------
    ValueError
        When the loss stops being a number; nothing is saved.
    OSError
        When it cannot be written.
    """
    with alone(directory):
        found = load_trained(directory)
        if found is not None and found.spec == spec:
            return found
        return _train(spec, directory, report)


def _train(
    spec: MultilingualSpec, directory: Path, report: Callable[[TrainPoint], None] | None
) -> TrainedMultilingual:
    from models.multilingual_pretrain import pretrain  # here: the rest of this file needs no torch
    from models.pretrain_state import forget

    trained = pretrain(spec, report, part_of(directory))
    body = {"name": spec.name, "spec": dataclasses.asdict(spec), **trained.facts}
    keep(directory, trained.save, body)
    forget(directory)
    found = load_trained(directory)
    if found is None:
        raise OSError(f"{directory} does not read back as it was written; check the disk and train again")
    return found


def load_trained(directory: Path) -> TrainedMultilingual | None:
    """The model at `directory`, or None when it is absent, incomplete or not what was written."""
    body = load_kept(directory)
    if body is None:
        return None
    try:
        names = {field.name for field in dataclasses.fields(TrainedMultilingual)}
        known: dict[str, Any] = {name: body[name] for name in names - {"directory", "spec", "log"}}
        log = tuple(TrainPoint(**point) for point in body["log"])
        return TrainedMultilingual(
            **known, directory=directory, spec=MultilingualSpec(**body["spec"]), log=log
        )
    except (KeyError, TypeError, ValueError):
        return None  # written by a version with other fields: train again
