"""Trainings of the nanodesmo study as cached tasks, and what is measured on them with weights fixed.

What a run is filed under holds everything that can change its numbers and nothing else: its arm's name does
not enter, so two arms of one recipe are trained once. A run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from models.kept import load_kept
from models.nano_log import CHECKPOINT
from models.nano_recipe import NanoRecipe, Seeds
from models.nano_texts import TextSource, digest_fields
from models.regimes import RegimePlan
from tasks.killable import worker
from tasks.progress import Progress
from tasks.shell import product_key
from tasks.training import directory

MEASURED = "nano_measured"
Measure = Literal["frozen", "swap", "sensitivity"]


@lru_cache(maxsize=1)
def training_code() -> str:
    """Fingerprint of everything that turns a text into a run."""
    return code("models.nano_training", "models.nano_texts", alone=("models.nano_jobs",))


@lru_cache(maxsize=1)
def measuring_code() -> str:
    """Fingerprint of everything that measures a kept run."""
    names = ("models.nano_frozen", "models.nano_swap", "models.nano_sensitivity", "models.nano_texts")
    return code(*names, alone=("models.nano_exam_jobs",))


@lru_cache(maxsize=1)
def random_code() -> str:
    """Fingerprint of what puts a random state into a run."""
    return code(alone=("models.nano_random_jobs",))


@dataclass(frozen=True, kw_only=True)
class NanoJob:
    """One run to train: all that can change it, and nothing else."""

    source: TextSource
    """Resolved: with the hash of its content."""
    recipe: NanoRecipe
    seeds: Seeds
    plan: RegimePlan
    until: int | None = None
    begin: NanoJob | None = None
    """Run that it goes on from."""
    placed: NanoJob | Literal["zero", "random"] | None = None
    """Run whose state is put in the place of its own then, 0, or a random one of the same norm."""
    first: NanoJob | None = None
    """Its own first part, where that is a run too: gone on with, which changes no number."""

    @property
    def config(self) -> dict[str, Any]:
        """All that can change its numbers; how often it is checkpointed cannot."""
        placed = self.placed.key if isinstance(self.placed, NanoJob) else self.placed
        drawn = {"random_code": random_code()} if placed == "random" else {}
        return {
            "text": digest_fields(self.source),
            "recipe": {**asdict(self.recipe), "checkpoint_every": None},
            "seeds": asdict(self.seeds),
            "plan": asdict(self.plan),
            "until": self.until,
            "begin": None if self.begin is None else self.begin.key,
            "placed": placed,
            "code": training_code(),
            **drawn,
        }

    @property
    def key(self) -> str:
        """What the run is filed under."""
        return fingerprint(self.config)

    def place(self, home: Path) -> Path:
        """Where the run is kept."""
        return directory(home, "nano_run", self.key)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Something measured on a run with its weights fixed."""

    kind: Measure
    job: NanoJob
    seed: int
    spec: Mapping[str, Any]
    """Of the frozen test; empty for the others."""
    foreign: NanoJob | None = None
    """Of a swap: run of the same initial weights, other data."""
    other_init: NanoJob | None = None
    """Of a swap: run of other initial weights."""

    @property
    def config(self) -> dict[str, Any]:
        """All that can change its numbers."""
        return {
            "kind": self.kind,
            "run": self.job.key,
            "seed": self.seed,
            "spec": dict(self.spec),
            "foreign": None if self.foreign is None else self.foreign.key,
            "other_init": None if self.other_init is None else self.other_init.key,
            "code": measuring_code(),
        }

    @property
    def key(self) -> str:
        """What it is filed under."""
        return fingerprint(self.config)


def run_facts(place: Path) -> dict[str, Any] | None:
    """What the manifest says of a run that was trained to its end; None when there is none."""
    found = load_kept(place / CHECKPOINT)
    return found if found is not None and found.get("valid_loss_nats") is not None else None


def texts(home: Path) -> Path:
    """Where texts that were fetched are kept."""
    return home / "cache" / "texts"


def _has_run(home: Path, parameters: Mapping[str, Any]) -> bool:
    return run_facts(parameters["job"].place(home)) is not None


@task(
    name="train run",
    task_run_name="train {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_run),
)
def train_run(home: str, what: str, job: NanoJob, seconds: float, key: str) -> str:
    """Train the run unless it is there, from its checkpoint if it was stopped; returns its digest.

    Raises
    ------
    TimeLimitError, WorkError
        The limit was exceeded, or the work failed; the message says how.
    """
    place = job.place(Path(home))
    found = run_facts(place)
    if found is not None:
        return str(found["digest"])
    placed = job.placed
    arguments = {
        "source": asdict(job.source),
        "cache": str(texts(Path(home))),
        "recipe": asdict(job.recipe),
        "seeds": asdict(job.seeds),
        "plan": asdict(job.plan),
        "directory": str(place),
        "until": job.until,
        "begin": None if job.begin is None else str(job.begin.place(Path(home))),
    }
    called = "models.nano_random_jobs:go_on_random"
    if placed != "random":
        called = "models.nano_jobs:train_run"
        arguments["placed"] = str(placed.place(Path(home))) if isinstance(placed, NanoJob) else placed
        arguments["first"] = None if job.first is None else str(job.first.place(Path(home)))
    with worker(near=job.source.source) as process:
        progress = Progress(f"train {what}, steps", job.until or job.recipe.steps, every_seconds=20.0)
        progress.start()
        told = process.call(
            called,
            arguments,
            seconds=seconds,
            report=lambda point: progress.reach(int(point["step"])),
        )
    digest: str = told["digest"]
    return digest


def _has_measured(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, MEASURED).read(parameters["key"]) is not None


@task(
    name="measure run",
    task_run_name="{measurement.kind} of {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_measured),
)
def measure_run(home: str, what: str, measurement: Measurement, seconds: float, key: str) -> str:
    """Measure a kept run unless that was done; returns the key of the product.

    Raises
    ------
    TimeLimitError, WorkError
        As `train_run`.
    """
    products = Products(Path(home), MEASURED)
    if products.read(key) is not None:
        return key
    job = measurement.job
    arguments: dict[str, Any] = {
        "source": asdict(job.source),
        "cache": str(texts(Path(home))),
        "directory": str(job.place(Path(home))),
    }
    if measurement.kind != "sensitivity":
        arguments["seed"] = measurement.seed
    if measurement.kind == "frozen":
        arguments["spec"] = dict(measurement.spec)
    for name in ("foreign", "other_init"):
        other: NanoJob | None = getattr(measurement, name)
        if other is not None:
            arguments[name] = str(other.place(Path(home)))
    with worker(near=job.source.source) as process:
        called = f"models.nano_exam_jobs:{measurement.kind}"
        found = process.call(called, arguments, seconds=seconds, report=lambda _: None)
    products.write(key, found)
    return key


def read_measured(home: Path, measurement: Measurement) -> Any:
    """What was measured.

    Raises
    ------
    FileNotFoundError
        It is gone; measure again.
    """
    found = Products(home, MEASURED).read(measurement.key)
    if found is None:
        raise FileNotFoundError(f"the {measurement.kind} of run {measurement.job.key} is gone; run it again")
    return found


def frozen_test_of(
    home: Path, place: Path, source: TextSource, *, spec: Mapping[str, Any], seed: int, limit: float
) -> dict[str, Any]:
    """The frozen test of a run kept anywhere.

    Raises
    ------
    WorkError
        There is no run, or it was trained on another text; the message says which.
    """
    arguments = {
        "source": asdict(source),
        "cache": str(texts(home)),
        "directory": str(place),
        "spec": dict(spec),
        "seed": seed,
    }
    with worker(near=source.source) as process:
        found: dict[str, Any] = process.call(
            "models.nano_exam_jobs:frozen", arguments, seconds=limit, report=lambda _: None
        )
    return found
