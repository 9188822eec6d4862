"""LoRA arms as cached tasks: base, training, audit and evaluation, each in a process that can be stopped.

What a training or an evaluation is filed under holds everything that can change its numbers and nothing else:
an arm's name does not enter, so two arms that place the same ranks are trained once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.study import Call
from models.kept import load_kept
from models.lora_recipe import Evaluation, LoraRecipe
from models.mistral_base import BaseSpec, load_trained
from models.spectra import ModuleAudit, audit_from
from models.task_items import TaskSource
from tasks.accelerator import accelerator
from tasks.killable import worker
from tasks.progress import Progress
from tasks.shell import product_key
from tasks.training import directory, shown

logger = logging.getLogger(__name__)

AUDIT = "adapter_audit"
ANSWERS = "answers"
BASE_SECONDS = 3600.0
"""For training the embedded base, which takes three minutes."""
MODULES_SECONDS = 300.0
"""For naming the modules of a base, which loads no weights."""
BASE_CODE = ("models.mistral_base", "models.mistral_pretrain")


@lru_cache(maxsize=1)
def training_code() -> str:
    """Fingerprint of everything that turns ranks and items into an adapter."""
    return code("models.adapter_training", "models.eva", alone=("models.rank_jobs",))


@lru_cache(maxsize=1)
def audit_code() -> str:
    """Fingerprint of everything that turns an adapter into a spectrum."""
    return code("models.spectra", "models.adapters", "models.base_norms", alone=("models.rank_jobs",))


@lru_cache(maxsize=1)
def evaluation_code() -> str:
    """Fingerprint of everything that turns an adapter and items into answers."""
    return code("models.greedy", "models.answers", "models.adapters", alone=("models.rank_jobs",))


@dataclass(frozen=True, kw_only=True)
class Base:
    """The frozen network that adapters are trained on."""

    where: str
    """Directory or hub id."""
    digest: str
    """Of its weights and tokeniser."""


@dataclass(frozen=True, kw_only=True)
class ArmJob:
    """One adapter to train: all that can change it, and nothing else."""

    base: Base
    source: TaskSource
    items: str
    """Digest of the items it is trained and validated on."""
    ranks: Mapping[str, int]
    """Module -> rank."""
    initialisation: Literal["nested", "eva"]
    recipe: LoraRecipe
    seed: int

    @property
    def config(self) -> dict[str, Any]:
        """All that can change its weights."""
        return {
            "base": self.base.digest,
            "items": self.items,
            "ranks": dict(sorted(self.ranks.items())),
            "initialisation": self.initialisation,
            "recipe": {**asdict(self.recipe), "checkpoint_every": None},  # which changes no bit
            "seed": self.seed,
            "code": training_code(),
        }

    @property
    def key(self) -> str:
        """What the adapter is filed under."""
        return fingerprint(self.config)

    def place(self, home: Path) -> Path:
        """Where the adapter is kept."""
        return directory(home, "adapter", self.key)

    @property
    def audit_key(self) -> str:
        """What its spectra are filed under."""
        return fingerprint(["audit", self.key, audit_code()])


@dataclass(frozen=True, kw_only=True)
class Exam:
    """An adapter, or the base alone, on the test items."""

    base: Base
    job: ArmJob | None
    source: TaskSource
    items: str
    """Digest of the test items."""
    evaluation: Evaluation

    @property
    def config(self) -> dict[str, Any]:
        """All that can change its answers; the size of a batch cannot in float32."""
        evaluation = asdict(self.evaluation)
        if self.evaluation.precision == "float32":
            evaluation.pop("batch_size")
        return {
            "base": self.base.digest,
            "adapter": None if self.job is None else self.job.key,
            "items": self.items,
            "evaluation": evaluation,
            "code": evaluation_code(),
        }

    @property
    def key(self) -> str:
        """What the answers are filed under."""
        return fingerprint(self.config)


def base_key(spec: BaseSpec) -> str:
    """Fingerprint of the spec and of the code that trains."""
    return fingerprint([asdict(spec), code(*BASE_CODE)])


def base_place(home: Path, spec: BaseSpec) -> Path:
    """Where the embedded base of a spec is kept."""
    return directory(home, spec.name, base_key(spec))


def base_call(home: Path, spec: BaseSpec) -> Call:
    """What trains the embedded base, in a worker process."""
    arguments = {"name": spec.name, "seed": spec.seed, "directory": str(base_place(home, spec))}
    return Call(function="models.rank_jobs:train_base", arguments=arguments)


def _base_is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return load_trained(base_place(home, parameters["spec"])) is not None


@task(
    name="train base",
    task_run_name="train {spec.name}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_base_is_complete),
)
def train_base(home: str, spec: BaseSpec, seconds: float, key: str) -> str:
    """Train the embedded base unless it is there; returns its digest.

    Raises
    ------
    TimeLimitError, WorkError
        The limit was exceeded, or the work failed; the message says how.
    """
    progress = Progress(f"train {spec.name}, steps", spec.steps)
    progress.start()

    def tell(point: Mapping[str, Any]) -> None:
        logger.info("train %s: held out %.3f nats a token", spec.name, point["valid_loss_nats"])
        progress.reach(point["iteration"])

    found = load_trained(base_place(Path(home), spec))
    if found is not None:
        return found.digest
    call = base_call(Path(home), spec)
    with shown(spec.name, base_place(Path(home), spec), progress), worker() as process:
        told = process.call(call.function, call.arguments, seconds=seconds, report=tell)
    digest: str = told["digest"]
    return digest


def _has_adapter(home: Path, parameters: Mapping[str, Any]) -> bool:
    return load_kept(parameters["job"].place(home)) is not None


@task(
    name="train arm",
    task_run_name="train {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_adapter),
)
def train_arm(home: str, what: str, job: ArmJob, seconds: float, key: str) -> str:
    """Train the adapter unless it is there, from its checkpoint if it was stopped; returns its digest.

    Raises
    ------
    TimeLimitError, WorkError
        The limit was exceeded, or the work failed; the message says how.
    """
    place = job.place(Path(home))
    found = load_kept(place)
    if found is not None:
        return str(found["facts"]["digest"])
    arguments = {
        "base": job.base.where,
        "source": asdict(job.source),
        "ranks": dict(job.ranks),
        "recipe": asdict(job.recipe),
        "seed": job.seed,
        "initialisation": job.initialisation,
        "directory": str(place),
        "base_digest": job.base.digest,
    }
    with accelerator(), worker(near=job.base.where) as process:
        progress = Progress(f"train {what}, steps", job.recipe.steps, every_seconds=20.0)
        progress.start()
        told = process.call(
            "models.rank_jobs:train_arm",
            arguments,
            seconds=seconds,
            report=lambda point: progress.reach(int(point["step"])),
        )
    digest: str = told["digest"]
    return digest


def _has_audit(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, AUDIT).read(parameters["key"]) is not None


@task(
    name="audit",
    task_run_name="audit {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_audit),
)
def audit(home: str, what: str, job: ArmJob, seconds: float, key: str) -> str:
    """Spectra of every module of a trained adapter; returns the key of the product.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_arm`.
    """
    products = Products(Path(home), AUDIT)
    if products.read(key) is None:
        with accelerator(), worker(near=job.base.where) as process:
            arguments = {
                "base": job.base.where,
                "adapter": str(job.place(Path(home))),
                "base_digest": job.base.digest,
            }
            told = process.call("models.rank_jobs:audit", arguments, seconds=seconds, report=_unheard)
        products.write(key, told)
    return key


def _has_answers(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, ANSWERS).read(parameters["key"]) is not None


@task(
    name="evaluate arm",
    task_run_name="evaluate {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_answers),
)
def evaluate(home: str, what: str, exam: Exam, seconds: float, key: str) -> str:
    """Answers to every test item; returns the key of the product.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_arm`.
    """
    products = Products(Path(home), ANSWERS)
    if products.read(key) is None:
        arguments = {
            "base": exam.base.where,
            "adapter": None if exam.job is None else str(exam.job.place(Path(home))),
            "source": asdict(exam.source),
            "split": "test",
            "evaluation": asdict(exam.evaluation),
            "base_digest": exam.base.digest,
        }
        with accelerator(), worker(near=exam.base.where) as process:
            started = time.perf_counter()
            told = process.call("models.rank_jobs:evaluate", arguments, seconds=seconds, report=_unheard)
        products.write(key, {**told, "seconds": time.perf_counter() - started})
    return key


def _unheard(said: object) -> None:
    """What is done in one piece reports nothing."""


def items_digest(source: TaskSource, split: Literal["train", "test"]) -> str:
    """SHA-256 of the items of a split; of those trained on, with the ones validated on.

    Raises
    ------
    ValueError, OSError
        Items that cannot be read or are too few.
    """
    splits: tuple[Literal["train", "validation", "test"], ...] = ("test",)
    if split == "train":
        splits = ("train", "validation")
    return fingerprint([[asdict(item) for item in source.load(one)] for one in splits])


def read_adapter(home: Path, job: ArmJob) -> dict[str, Any]:
    """What is known of a trained adapter: see `models.rank_jobs.train_arm`.

    Raises
    ------
    OSError
        It is gone or damaged.
    """
    found = load_kept(job.place(home))
    if found is None:
        raise OSError(f"the adapter at {job.place(home)} is gone or damaged; run the study again")
    facts: dict[str, Any] = found["facts"]
    return facts


def module_names(base: Base) -> tuple[str, ...]:
    """Names of the modules of the base that can be adapted; an embedded one was kept with them.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_arm`.
    """
    kept = load_trained(Path(base.where))
    if kept is not None:
        return kept.modules
    with accelerator(), worker(near=base.where) as process:
        arguments, limit = {"base": base.where}, MODULES_SECONDS
        told = process.call("models.rank_jobs:modules", arguments, seconds=limit, report=_unheard)
    return tuple(told["modules"])


def read_audit(home: Path, job: ArmJob) -> tuple[ModuleAudit, ...]:
    """The audit of a trained adapter."""
    body = Products(home, AUDIT).read(job.audit_key)
    return tuple(audit_from(one) for one in body["modules"])


@lru_cache(maxsize=1)
def study_code() -> str:
    """Fingerprint of all code of the study's measurements."""
    return fingerprint([training_code(), audit_code(), evaluation_code()])
