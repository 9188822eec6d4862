"""A small Mistral that can do arithmetic in words: the frozen base of the adapter study, trained once.

It has every kind of module that Mistral-7B has, in four layers: q, k, v and o with shared heads of keys and
values, gate, up and down, 28 linear modules to adapt. It learns the chains of `models.word_problems` in
wording "base" until it makes no mistake. In wording "downstream" many of the same verbs say something else,
which adapters then teach it; its other words it has copied but seen in no problem.

This file needs no torch until `obtain` trains; `models.mistral_pretrain` is the network and its text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.embedded import TrainPoint
from models.kept import alone, keep, load_kept, part_of
from models.word_problems import problems_sha256

MAX_POSITIONS = 512
"""Prompt and answer together; the longest problem has about 110 tokens."""


@dataclass(frozen=True, kw_only=True)
class BaseSpec:
    """All that can change a trained weight, apart from the problems, thread count and library versions."""

    name: str
    n_layer: int = 4
    n_head: int = 4
    n_pair: int = 2
    """Heads of keys and values, each shared by `n_head / n_pair` heads of queries."""
    n_embd: int = 64
    n_hidden: int = 176
    """Width of the gated MLP: 11/4 of `n_embd`, where Mistral-7B has 3.5."""
    sets: int = 6
    """Draws of training problems. A draw has other chains throughout, of one step only 520, so one large draw
    would hold few short problems."""
    problems: int = 6_000
    """Problems of a draw in wording "base"."""
    drills: int = 1_000
    """Problems of a draw without words."""
    copies: int = 4_000
    """Lists of words that are copied; see `models.word_problems.copies`."""
    block_size: int = 128
    """Tokens in a training window: 2 to 3 problems."""
    batch: int = 16
    """Windows in a step."""
    steps: int = 2400
    warmup_steps: int = 100
    evaluations: int = 6
    """Held-out evaluations after the one at step 0, evenly spaced."""
    learning_rate: float = 6e-3
    """Peak, after warm-up; falls by a cosine to a twentieth."""
    weight_decay: float = 0.05
    scored: int = 500
    """Validation problems of each wording that the trained network answers."""
    seed: int = 0

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
        if not 2 <= self.block_size <= MAX_POSITIONS:
            raise ValueError(f"{self.name}: block_size {self.block_size}; allowed are 2 to {MAX_POSITIONS}")
        for field in ("n_layer", "n_hidden", "sets", "problems", "drills", "copies", "batch", "scored"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field} {getattr(self, field)}; it must be at least 1")
        if not 0 <= self.warmup_steps < self.steps or not 1 <= self.evaluations <= self.steps:
            raise ValueError(
                f"{self.name}: {self.steps} steps, {self.warmup_steps} of warm-up, {self.evaluations} "
                "evaluations; both must be fewer than the steps"
            )


BASES: Mapping[str, BaseSpec] = MappingProxyType(
    {spec.name: spec for spec in (BaseSpec(name="arith-mistral"),)}
)
"""209,664 parameters, trained in 155 CPU seconds. Of 500 problems it solves 1.000 in wording "base" and 0.076
in "downstream".

Share of 1,000 downstream problems solved after LoRA on all 28 modules (12,800 problems, 400 steps of 32, rate
5e-3, alpha = r, one seed, 30 CPU seconds each), by what the verbs of "downstream" say:

    verbs                                           r 2    r 4    r 8    r 16
    as now: half the contrary, a third count aside  0.49   0.68   0.80   0.97
    two in three count aside                        0.25   0.37   0.34   0.77
    none counts aside                               0.90   0.99   1.00   1.00
    36 verbs that "base" never had in a problem     0.23   0.96   1.00   1.00
"""


def spec_of(name: str, seed: int = 0) -> BaseSpec:
    """The spec of a base by name.

    Raises
    ------
    ValueError
        For a name that is not in `BASES`.
    """
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}; allowed are {', '.join(BASES)}")
    return dataclasses.replace(BASES[name], seed=seed)


@dataclass(frozen=True, kw_only=True)
class TrainedBase:
    """A trained base on disk."""

    name: str
    directory: Path
    spec: BaseSpec
    digest: str
    """SHA-256 over weights and tokeniser."""
    parameters: int
    """All of them; the tied embedding counts once."""
    modules: tuple[str, ...]
    """Names of those that take an adapter, as `models.adapters.adaptable` gives them."""
    base_accuracy: float
    """Share of `spec.scored` validation problems in wording "base" solved greedily, by the strict rule."""
    downstream_accuracy: float
    """The same in wording "downstream", in which it was trained on no problem."""
    problems_sha256: str
    """Of the wordings it was trained on; see `models.word_problems.problems_sha256`."""
    seconds: float
    """Wall time of problems, training and evaluations."""
    cpu_seconds: float
    log: tuple[TrainPoint, ...]


def obtain(
    spec: BaseSpec, directory: Path, *, report: Callable[[TrainPoint], None] | None = None
) -> TrainedBase:
    """The model of `spec` at `directory`, trained unless an intact one of this spec and wordings is there.

    Where another process trains it just now, that is waited for.

    Parameters
    ----------
    report
        Called with each evaluated point as it comes.

    Raises
    ------
    ValueError
        When the loss stops being a number; nothing is saved.
    OSError
        When it cannot be written.
    """
    with alone(directory):
        found = load_trained(directory)
        if found is not None and found.spec == spec and found.problems_sha256 == problems_sha256():
            return found
        return _train(spec, directory, report)


def _train(spec: BaseSpec, directory: Path, report: Callable[[TrainPoint], None] | None) -> TrainedBase:
    from models.mistral_pretrain import pretrain  # here: the rest of this file needs no torch
    from models.pretrain_state import forget

    trained = pretrain(spec, report, part_of(directory))
    body = {
        "name": spec.name,
        "spec": dataclasses.asdict(spec),
        "problems_sha256": problems_sha256(),
        **trained.facts,
    }
    keep(directory, trained.save, body)
    forget(directory)
    found = load_trained(directory)
    if found is None:
        raise OSError(f"{directory} does not read back as it was written; check the disk and train again")
    return found


def load_trained(directory: Path) -> TrainedBase | None:
    """The model at `directory`, or None when it is absent, incomplete or not what was written."""
    body = load_kept(directory)
    if body is None:
        return None
    try:
        names = {field.name for field in dataclasses.fields(TrainedBase)}
        plain = names - {"directory", "spec", "log", "modules"}
        known: dict[str, Any] = {name: body[name] for name in plain}
        return TrainedBase(
            **known,
            directory=directory,
            spec=BaseSpec(**body["spec"]),
            log=tuple(TrainPoint(**point) for point in body["log"]),
            modules=tuple(body["modules"]),
        )
    except (KeyError, TypeError, ValueError):
        return None  # written by a version with other fields: train again
