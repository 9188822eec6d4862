"""Small English models, really trained on first use and kept with everything needed to check them.

A rung is an `EmbeddedSpec`. All rungs share tokeniser, text, steps and tokens, so the ladder differs by
size alone; `models.pretrain` is the network and its training loop. This file needs no torch until `train`
is called, so flows can name a rung and look up a trained one cheaply.

A trained model is a directory of `models.kept`: what `transformers` loads, and a manifest with spec, hash of
the text, scores and log; `load_trained` gives None for anything damaged and the caller trains again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.english import Corpus, pydoc_english
from models.kept import alone, keep, load_kept, part_of

MAX_POSITIONS = 1024
"""Prompt and continuation together; rotary positions need no weights for them."""
_BYTE_ALPHABET = 256


@dataclass(frozen=True, kw_only=True)
class EmbeddedSpec:
    """All that can change a trained weight, apart from text, thread count and library versions."""

    name: str
    n_layer: int
    n_head: int
    n_pair: int
    """Heads of keys and values, each shared by `n_head / n_pair` heads of queries."""
    n_embd: int
    learning_rate: float
    """Peak, after warm-up; falls by a cosine to a twentieth."""
    weight_decay: float
    """Of all matrices, the embedding included; decoupled (AdamW)."""
    vocab_size: int = 512
    block_size: int = 256
    """Tokens in a training window."""
    batch: int = 4
    """Windows in a step."""
    steps: int = 1500
    warmup_steps: int = 50
    evaluations: int = 6
    """Held-out evaluations after the one at step 0, evenly spaced."""
    seed: int = 0
    corpus_seed: int = 0
    """Of the choice of held-out topics."""
    heldout_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what would fail later or silently train something else."""
        if self.n_embd % self.n_head or (self.n_embd // self.n_head) % 2:
            raise ValueError(
                f"{self.name}: n_embd {self.n_embd}, n_head {self.n_head}; each head needs an even width"
            )
        if self.n_pair < 1 or self.n_head % self.n_pair:
            raise ValueError(
                f"{self.name}: n_pair {self.n_pair}, n_head {self.n_head}; n_pair must divide n_head"
            )
        if self.vocab_size <= _BYTE_ALPHABET:
            raise ValueError(
                f"{self.name}: vocab_size {self.vocab_size}; 256 bytes and the end of text need 257"
            )
        if not 2 <= self.block_size <= MAX_POSITIONS:
            raise ValueError(f"{self.name}: block_size {self.block_size}; allowed are 2 to {MAX_POSITIONS}")
        if self.batch < 1 or not 1 <= self.evaluations <= self.steps:
            raise ValueError(
                f"{self.name}: batch {self.batch}, {self.evaluations} evaluations in {self.steps} steps; "
                "batch must be at least 1 and evaluations between 1 and steps"
            )
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"{self.name}: warmup_steps {self.warmup_steps}; allowed are 0 to {self.steps - 1}"
            )

    @property
    def n_hidden(self) -> int:
        """Width of the gated MLP: 3 times `n_embd`; the usual 8/3 and what shared keys and values save."""
        return 3 * self.n_embd

    @property
    def tokens(self) -> int:
        """Tokens trained on, repeats included."""
        return self.steps * self.batch * self.block_size


RUNGS: Mapping[str, EmbeddedSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            EmbeddedSpec(
                name="pydoc-0.1m",
                n_layer=2,
                n_head=4,
                n_pair=2,
                n_embd=64,
                learning_rate=1e-2,
                weight_decay=0.2,
            ),
            EmbeddedSpec(
                name="pydoc-0.2m",
                n_layer=3,
                n_head=4,
                n_pair=1,
                n_embd=72,
                learning_rate=6e-3,
                weight_decay=0.5,
            ),
            EmbeddedSpec(
                name="pydoc-0.4m",
                n_layer=3,
                n_head=4,
                n_pair=1,
                n_embd=96,
                learning_rate=4e-3,
                weight_decay=1.0,
            ),
            EmbeddedSpec(
                name="pydoc-1.2m",
                n_layer=6,
                n_head=4,
                n_pair=1,
                n_embd=128,
                learning_rate=3e-3,
                weight_decay=1.5,
            ),
        )
    }
)
"""The ladder, smallest first. On the text of Python 3.11.7 (250 KB to train on, 36 KB held out), one core:

    model       parameters  in layers  held-out bits per byte  CPU seconds
    trigram                            1.599
    pydoc-0.1m     131,392     98,624  1.584                    37
    pydoc-0.2m     216,216    179,352  1.557                    57
    pydoc-0.4m     367,776    318,624  1.513                    79
    pydoc-1.2m   1,197,696  1,132,160  1.503                   224

Heads of keys and values are shared because attention over heads of their own was a third to a half of the
time of a batch; the MLP takes the parameters saved. One pair serves four heads but in the smallest, whose
seeds 0, 1 and 2 then cost 1.584, 1.600 and 1.607; with two pairs they cost 1.584, 1.582 and 1.562.
The same seeds of `pydoc-0.2m` cost 1.557, 1.551 and 1.546; 2 layers of 80 cost 1.559, decay 0.7 1.569.

No rung: 4 layers of 160 with one pair (1.520), 6 of 128 at decay 2.0 (1.513), and 5 M parameters, 6 layers
of 256 without sharing (1.515 in 635 CPU seconds); 0.4 M parameters reach 1.513.

What these figures do not say: rates and decays were chosen on the held-out part. The smallest rung's lead
over the trigram is thin: on the untuned split `corpus_seed=1` (trigram 1.780) rungs of about these sizes
without sharing cost, at seed 1, 1.788, 1.738 and 1.710: the order held, the smallest lost. The vocabulary is
part of the comparison: with 1,024 tokens the trigram costs 1.509 on the first split, less than 0.1 M
parameters reached in any trial.
"""


@dataclass(frozen=True, kw_only=True)
class TrainPoint:
    """The state after `iteration` updates."""

    iteration: int
    train_loss_nats: float | None
    """Mean a token over the batches since the last point; None at iteration 0, where there were none."""
    valid_loss_nats: float
    """Mean a token over the whole held-out part; ln(512) + 0.64^2 / 2 = 6.44 before training."""
    learning_rate: float
    """Of the last update; 0.0 at iteration 0."""
    tokens: int
    """Trained on so far, repeats included."""
    seconds: float
    """Wall time since the first update."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained rung on disk."""

    name: str
    directory: Path
    spec: EmbeddedSpec
    digest: str
    """SHA-256 over weights and tokeniser."""
    parameters: int
    """All of them; the tied embedding counts once."""
    nonembedding_parameters: int
    """Without the embedding: what the layers compute with."""
    heldout_bits_per_byte: float
    """Over all held-out bytes; the spec was chosen on this same part, so new text may cost slightly more."""
    trigram_bits_per_byte: float
    """Of a Kneser-Ney trigram over the same tokens of the same two parts."""
    corpus_sha256: str
    seconds: float
    """Wall time of tokeniser, training and evaluations."""
    cpu_seconds: float
    """CPU time of the process over the same span."""
    log: tuple[TrainPoint, ...]


def obtain(
    spec: EmbeddedSpec, directory: Path, *, report: Callable[[TrainPoint], None] | None = None
) -> TrainedModel:
    """The model of `spec` at `directory`, trained unless an intact one of this spec and text is there.

    Where another process trains it just now, that is waited for.
    """
    corpus = pydoc_english(seed=spec.corpus_seed, heldout_share=spec.heldout_share)
    with alone(directory):
        found = load_trained(directory)
        if found is not None and found.spec == spec and found.corpus_sha256 == corpus.sha256:
            return found
        return train(spec, directory, report=report, corpus=corpus)


def obtain_rung(*, name: str, directory: str, report: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """`obtain` with plain data, for a worker process."""
    found = obtain(RUNGS[name], Path(directory), report=lambda point: report(dataclasses.asdict(point)))
    return {"digest": found.digest}


def train(
    spec: EmbeddedSpec,
    directory: Path,
    *,
    report: Callable[[TrainPoint], None] | None = None,
    corpus: Corpus | None = None,
) -> TrainedModel:
    """Train a model and put it at `directory`, replacing what is there.

    Parameters
    ----------
    report
        Called with each evaluated point as it comes.
    corpus
        Text to use instead of `pydoc_english` with the spec's seed and share.

    Raises
    ------
    ValueError
        When the loss stops being a number (nothing is saved), or the text is too short for the vocabulary or
        the window.
    """
    from models.pretrain import pretrain  # here: the rest of this file needs no torch
    from models.pretrain_state import forget

    if corpus is None:
        corpus = pydoc_english(seed=spec.corpus_seed, heldout_share=spec.heldout_share)
    wall, cpu = time.perf_counter(), time.process_time()
    pretrained = pretrain(spec, corpus, report, part_of(directory))
    body: dict[str, object] = {
        "name": spec.name,
        "spec": dataclasses.asdict(spec),
        "parameters": pretrained.parameters,
        "nonembedding_parameters": pretrained.parameters - spec.vocab_size * spec.n_embd,
        "heldout_bits_per_byte": pretrained.heldout_bits_per_byte,
        "trigram_bits_per_byte": pretrained.trigram_bits_per_byte,
        "corpus_sha256": corpus.sha256,
        "seconds": max(time.perf_counter() - wall, pretrained.log[-1].seconds),
        "cpu_seconds": time.process_time() - cpu,
        "log": [dataclasses.asdict(point) for point in pretrained.log],
    }
    keep(directory, pretrained.save, body)
    forget(directory)
    trained = load_trained(directory)
    if trained is None:
        raise OSError(f"{directory} does not read back as it was written; check the disk and train again")
    return trained


def load_trained(directory: Path) -> TrainedModel | None:
    """The model at `directory`, or None when it is absent, incomplete or not what was written.

    Every file named in the manifest is hashed, and so is the manifest.
    """
    body = load_kept(directory)
    if body is None:
        return None
    try:
        fields = {field.name for field in dataclasses.fields(TrainedModel)} - {"directory", "spec", "log"}
        return TrainedModel(
            **{name: body[name] for name in fields},
            directory=directory,
            spec=EmbeddedSpec(**body["spec"]),
            log=tuple(TrainPoint(**point) for point in body["log"]),
        )
    except (ValueError, KeyError, TypeError):
        return None  # written by a version with other fields: train again
