"""Embedded multilingual models as a cached task, trained in a process that is killed at its time limit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import canonical, code, fingerprint
from lab.records import Record, StepRow, TrainLogRow
from lab.study import Call
from lab.tables import utc_now
from models.multilingual import MultilingualSpec, TrainedMultilingual, load_trained
from tasks.killable import worker
from tasks.progress import Progress
from tasks.shell import product_key
from tasks.training import directory, shown

logger = logging.getLogger(__name__)

TRAINING_CODE = ("models.multilingual", "models.multilingual_pretrain")


def training_key(spec: MultilingualSpec) -> str:
    """Fingerprint of the spec and of the code that trains."""
    return fingerprint([asdict(spec), code(*TRAINING_CODE)])


def place(home: Path, spec: MultilingualSpec) -> Path:
    """Where the model of a spec is kept."""
    return directory(home, f"{spec.name}-{spec.seed}", training_key(spec))


def training_call(home: Path, spec: MultilingualSpec) -> Call:
    """What trains the model of a spec, in a worker process."""
    arguments = {"name": spec.name, "seed": spec.seed, "directory": str(place(home, spec))}
    return Call(function="models.quant_jobs:train", arguments=arguments)


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return load_trained(place(home, parameters["spec"])) is not None


@task(
    name="train multilingual",
    task_run_name="train {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def train(home: str, what: str, spec: MultilingualSpec, seconds: float, key: str) -> str:
    """Train the model unless it is there; returns its digest.

    Raises
    ------
    TimeLimitError, WorkError
        The limit was exceeded, or the work failed; the message says how.
    """
    progress = Progress(f"train {what}, steps", spec.steps)
    progress.start()

    def tell(point: Mapping[str, Any]) -> None:
        logger.info("train %s: held out %.3f nats a token", what, point["valid_loss_nats"])
        progress.reach(point["iteration"])

    target = place(Path(home), spec)
    found = load_trained(target)
    if found is not None and found.spec == spec:
        return found.digest
    call = training_call(Path(home), spec)
    with shown(what, target, progress), worker() as process:
        told = process.call(call.function, call.arguments, seconds=seconds, report=tell)
    digest: str = told["digest"]
    return digest


def training_rows(
    trained: TrainedMultilingual, *, study: str, model: str, environment_id: str, device: str
) -> list[Record]:
    """The training as a step and its log."""
    key = training_key(trained.spec)
    rows: list[Record] = [
        StepRow(
            step_id=key,
            study=study,
            experiment="train",
            arm=None,
            model=model,
            seed=trained.spec.seed,
            config=canonical(asdict(trained.spec)),
            code=code(*TRAINING_CODE),
            seconds=trained.seconds,
            device=device,
            environment_id=environment_id,
            recorded_at=utc_now(),
            reason=None,
        )
    ]
    rows += [TrainLogRow(step_id=key, **asdict(point)) for point in trained.log]
    return rows
