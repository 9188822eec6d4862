"""Heads of the sense study as cached tasks: training, exams, baselines and verification, each in a process.

What a head is filed under holds everything that can change its numbers and nothing else. An arm's name does
not enter (for bundles of one's own its condition does, which names the file), so two arms of the same data
are trained once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from models.kept import load_kept
from models.sense_conditions import TrainingArm
from models.sense_sources import ExamItems, SenseSource, digest, exam_items, refuse_leaks
from tasks.killable import worker
from tasks.shell import product_key
from tasks.training import directory

EXAM = "sense_exam"
BASELINES = "sense_baselines"
VERIFICATION = "sense_verification"
ExamSplit = Literal["dev", "test", "mining"]


@lru_cache(maxsize=1)
def training_code() -> str:
    """Fingerprint of everything that turns bundles into a head."""
    return code("models.sense_training", "models.sense_sources", "models.sense_encoder",
                alone=("models.sense_jobs",))  # fmt: skip


@lru_cache(maxsize=1)
def exam_code() -> str:
    """Fingerprint of everything that turns a head and items into answers."""
    return code("models.sense_exam", "models.sense_sources", "models.sense_encoder",
                alone=("models.sense_jobs",))  # fmt: skip


@lru_cache(maxsize=1)
def baseline_code() -> str:
    """Fingerprint of everything that scores without learning."""
    return code("models.sense_baselines", "models.sense_shortcuts", "models.sense_steps",
                "models.sense_training", "models.sense_sources", alone=("models.sense_jobs",))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Which new contexts are taken: those near the original by a head's cosines."""

    job: HeadJob
    cosine: float
    """Least cosine to the original."""
    gap: float
    """Least cosine to the original beyond the nearest sibling's."""


@dataclass(frozen=True, kw_only=True)
class HeadJob:
    """One head to train: all that can change it, and nothing else."""

    source: SenseSource
    train_digest: str
    dev_digest: str
    arm: TrainingArm
    seed: int
    recipe: Mapping[str, Any]
    """Plain fields of `models.sense_training.HeadRecipe`."""
    encoder_digest: str = ""
    """Of a frozen encoder's weights."""
    mislabelled: float = 0.0
    """Share of bundles with a wrong positive; a planted fault."""
    verifier: Verifier | None = None

    @property
    def config(self) -> dict[str, Any]:
        """All that can change its weights."""
        arm = asdict(self.arm)
        name = arm.pop("name")
        told = None
        if self.verifier is not None:
            told = [self.verifier.job.key, self.verifier.cosine, self.verifier.gap]
        return {
            "train": self.train_digest,
            "dev": self.dev_digest,
            "condition": name.split("-")[0] if self.source.bundles else None,
            "arm": arm,
            "seed": self.seed,
            "recipe": {**self.recipe, "encoder": self.encoder_digest},
            "mislabelled": self.mislabelled,
            "verifier": told,
            "code": training_code(),
        }

    @property
    def key(self) -> str:
        """What the head is filed under."""
        return fingerprint(self.config)

    def place(self, home: Path) -> Path:
        """Where the head is kept."""
        return directory(home, "sense_head", self.key)


@dataclass(frozen=True, kw_only=True)
class ItemSet:
    """The items of a split."""

    source: SenseSource
    split: ExamSplit
    digest: str
    per_sense: int
    per_lemma: int
    chosen: tuple[str, ...] | None = None
    """Ids of the retrieval items asked; None for all, and coherence items."""

    @property
    def config(self) -> dict[str, Any]:
        """All that can change the items."""
        return {
            "digest": self.digest,
            "split": self.split,
            "per_sense": self.per_sense,
            "per_lemma": self.per_lemma,
            "chosen": None if self.chosen is None else sorted(self.chosen),
        }

    @property
    def arguments(self) -> dict[str, Any]:
        """As a worker takes them."""
        return {
            "source": asdict(self.source),
            "split": self.split,
            "per_sense": self.per_sense,
            "per_lemma": self.per_lemma,
        }


@dataclass(frozen=True, kw_only=True)
class HeadExam:
    """A head on the items of a split."""

    job: HeadJob
    items: ItemSet

    @property
    def key(self) -> str:
        """What the answers are filed under."""
        return fingerprint([self.job.key, self.items.config, exam_code()])


def item_set(source: SenseSource, split: ExamSplit, *, per_sense: int, per_lemma: int) -> ItemSet:
    """The items of a split, with the digest of what they are read from."""
    known = digest(source, "test" if split == "mining" else split)
    return ItemSet(source=source, split=split, digest=known, per_sense=per_sense, per_lemma=per_lemma)


@lru_cache(maxsize=8)
def items_of(items: ItemSet) -> ExamItems:
    """The items themselves."""
    return exam_items(items.source, _asked(items.split), per_sense=items.per_sense, per_lemma=items.per_lemma)


@task(
    name="audit",
    task_run_name="audit the splits for what they share",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(lambda *_: True),
)
def audit(home: str, source: SenseSource, key: str) -> str:
    """`models.sense_sources.refuse_leaks`, once for what is read and the code that reads it; returns the key.

    Raises
    ------
    ValueError
        As that.
    """
    refuse_leaks(source)
    return key


def audit_key(digests: Mapping[str, str]) -> str:
    """What an audit is filed under, given the digest of each split."""
    return fingerprint([dict(digests), code("models.sense_sources")])


def _asked(split: ExamSplit) -> Literal["dev", "test"]:
    if split == "mining":
        raise ValueError("the items that killers are mined from are read by `models.sense_probes`")
    return split


def _has_head(home: Path, parameters: Mapping[str, Any]) -> bool:
    return load_kept(parameters["job"].place(home)) is not None


@task(
    name="train head",
    task_run_name="train {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_head),
)
def train_head(home: str, what: str, job: HeadJob, seconds: float, key: str) -> str:
    """Train the head unless it is there; returns its key.

    Raises
    ------
    TimeLimitError, WorkError
        The limit was exceeded, or the work failed; the message says how.
    """
    place = job.place(Path(home))
    if load_kept(place) is None:
        told = job.verifier
        arguments = {
            "source": asdict(job.source),
            "arm": asdict(job.arm),
            "seed": job.seed,
            "recipe": dict(job.recipe),
            "directory": str(place),
            "mislabelled": job.mislabelled,
            "verifier": None
            if told is None
            else {"directory": str(told.job.place(Path(home))), "cosine": told.cosine, "gap": told.gap},
        }
        with worker() as process:
            process.call("models.sense_jobs:train_head", arguments, seconds=seconds, report=_unheard)
    return key


def _has_answers(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, EXAM).read(parameters["key"]) is not None


@task(
    name="examine head",
    task_run_name="examine {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_answers),
)
def examine_head(home: str, what: str, exam: HeadExam, seconds: float, key: str) -> str:
    """What the head answers to the items; returns the key of the product.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_head`.
    """
    products = Products(Path(home), EXAM)
    if products.read(key) is None:
        chosen = exam.items.chosen
        arguments = {
            **exam.items.arguments,
            "directory": str(exam.job.place(Path(home))),
            "chosen": None if chosen is None else list(chosen),
        }
        with worker() as process:
            told = process.call("models.sense_jobs:examine_head", arguments, seconds=seconds, report=_unheard)
        products.write(key, told)
    return key


def baselines_key(items: ItemSet, job: HeadJob) -> str:
    """What the scores of all that has not learned are filed under; `job` gives the untrained head."""
    return fingerprint([items.config, bool(items.source.data), job.config, baseline_code()])


def _has_scores(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, BASELINES).read(parameters["key"]) is not None


@task(
    name="score baselines",
    task_run_name="score baselines on {items.split}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_scores),
)
def score_baselines(home: str, items: ItemSet, job: HeadJob, seconds: float, key: str) -> str:
    """Scores of all that has not learned; returns the key of the product.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_head`.
    """
    products = Products(Path(home), BASELINES)
    if products.read(key) is None:
        arguments = {
            **items.arguments,
            "arm": asdict(job.arm),
            "seed": job.seed,
            "recipe": dict(job.recipe),
        }
        with worker() as process:
            told = process.call("models.sense_jobs:score_baselines", arguments, seconds=seconds,
                                report=_unheard)  # fmt: skip
        products.write(key, told)
    return key


def verification_key(job: HeadJob, mix: Sequence[float]) -> str:
    """What a head's cosines of labelled contexts of a mix of tiers are filed under."""
    return fingerprint(["verification", job.key, list(mix), exam_code()])


def _has_cosines(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, VERIFICATION).read(parameters["key"]) is not None


@task(
    name="compare contexts",
    task_run_name="compare contexts by {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_cosines),
)
def compare_contexts(
    home: str, what: str, job: HeadJob, mix: Sequence[float], seconds: float, key: str
) -> str:
    """A head's cosines of labelled contexts, on which thresholds are calibrated; returns the product's key.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_head`.
    """
    products = Products(Path(home), VERIFICATION)
    if products.read(key) is None:
        arguments = {
            "source": asdict(job.source),
            "directory": str(job.place(Path(home))),
            "mix": list(mix),
        }
        with worker() as process:
            told = process.call("models.sense_jobs:verification", arguments, seconds=seconds, report=_unheard)
        products.write(key, told)
    return key


def read_head(home: Path, job: HeadJob) -> dict[str, Any]:
    """What is known of a trained head: see `models.sense_jobs.train_head`.

    Raises
    ------
    OSError
        It is gone or damaged.
    """
    found = load_kept(job.place(home))
    if found is None:
        raise OSError(f"the head at {job.place(home)} is gone or damaged; run the study again")
    facts: dict[str, Any] = found["facts"]
    return facts


@lru_cache(maxsize=1)
def study_code() -> str:
    """Fingerprint of all code of the study's measurements."""
    return fingerprint([training_code(), exam_code(), baseline_code()])


def _unheard(said: object) -> None:
    """What is done in one piece reports nothing."""
