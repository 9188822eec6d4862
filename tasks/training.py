"""Embedded models as a cached task: trained on first use, then found by their checksum."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import canonical, code, fingerprint
from lab.fresh import drop_stale
from lab.records import Record, StepRow, TrainLogRow
from lab.study import Call, PlannedStep
from lab.tables import utc_now
from models.embedded import RUNGS, EmbeddedSpec, TrainedModel, TrainPoint, load_trained, obtain
from models.kept import is_being_made, steps_kept
from tasks.progress import Progress
from tasks.shell import product_key

logger = logging.getLogger(__name__)

TRAINING_CODE = ("models.embedded", "models.pretrain")
LOOK_EVERY_SECONDS = 2.0
"""Between two looks at how far another process is."""


def training_key(spec: EmbeddedSpec) -> str:
    """Fingerprint of the spec and of the code that trains."""
    return fingerprint([asdict(spec), code(*TRAINING_CODE)])


def directory(home: Path, name: str, key: str) -> Path:
    """Where what was trained under a key is kept; an older one goes in a run that does everything again.

    The rungs stay: several studies use them, and they are the same in every training.
    """
    place = home / "models" / f"{name}-{key}"
    return place if name in RUNGS else drop_stale(place)


def planned(home: Path, name: str) -> tuple[PlannedStep, str]:
    """The training of a rung in a dry run, and its digest; empty when it is not there."""
    place = directory(home, name, training_key(RUNGS[name]))
    found = load_trained(place)
    call = Call(function="models.embedded:obtain_rung", arguments={"name": name, "directory": str(place)})
    step = PlannedStep(
        name=f"train {name}", units=1, cached=int(found is not None), ahead=() if found else (call,)
    )
    return step, found.digest if found else ""


@contextmanager
def shown(what: str, place: Path, progress: Progress) -> Iterator[None]:
    """Show how far another process is that trains it just now, if one does, while the caller waits for it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_SECONDS):
            new = steps_kept(place) - progress.done
            if new > 0:  # what was done before it was looked at says nothing of its speed
                progress.advance(new, made=new if progress.done else 0)

    if not is_being_made(place):
        yield
        return
    logger.info("%s is being trained by another process: waiting for it", what)
    watcher = threading.Thread(target=copy_context().run, args=(watch,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    progress.advance(progress.total - progress.done, made=0)


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return load_trained(directory(home, parameters["name"], parameters["key"])) is not None


@task(
    name="train",
    task_run_name="train {name}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def train(home: str, name: str, key: str) -> dict[str, Any]:
    """Train the rung unless it is there; returns its digest and held-out loss."""
    spec = RUNGS[name]
    progress = Progress(f"train {name}, steps", spec.steps)
    progress.start()

    def report(point: TrainPoint) -> None:
        logger.info("train %s: held out %.3f nats a token", name, point.valid_loss_nats)
        progress.reach(point.iteration)

    place = directory(Path(home), name, key)
    with shown(name, place, progress):
        trained = obtain(spec, place, report=report)
    return {"digest": trained.digest, "heldout_bits_per_byte": trained.heldout_bits_per_byte}


def training_rows(
    trained: TrainedModel, *, study: str, key: str, environment_id: str, device: str
) -> list[Record]:
    """The training as a step and its log."""
    rows: list[Record] = [
        StepRow(
            step_id=key,
            study=study,
            experiment="train",
            arm=None,
            model=trained.name,
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
