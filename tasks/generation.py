"""Texts from a model, a batch a task. Each text is a product of its own, so only missing ones are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import canonical, code, fingerprint
from lab.products import Products
from lab.records import GenerationRow
from models.backends import Backend, Job, Output, Sampling, is_transient
from models.opening import open_backend
from tasks.accelerator import accelerator
from tasks.seed_cells import Sample
from tasks.shell import RETRY_DELAYS_SECONDS, can_differ, product_key

KIND = "generation"

CODE = {
    "local": ("models.transformers_backend",),
    "transformers": ("models.transformers_backend",),
    "ollama": ("models.ollama_backend",),
    "replay": ("models.replay_backend",),
}
"""What a text depends on, by backend."""

BATCH = {"local": 64, "transformers": 64, "ollama": 8, "replay": 64}
"""Texts a task: some seconds of work."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """How to reach the model; circumstance, apart from what its digest says."""

    backend: str
    path: str
    """What `models.opening.open_backend` takes: a directory, a hub id, a name or a file."""
    timeout_seconds: float
    host: str | None = None


def generation_code(backend: str) -> str:
    """Fingerprint of the code that generates with this backend."""
    return code(*CODE[backend])


@lru_cache(maxsize=2)
def opened(model: Model, home: Path) -> Backend:
    """The backend, kept for the process."""
    return open_backend(
        model.backend, model.path, home=home, timeout_seconds=model.timeout_seconds, host=model.host
    )


def batches(samples: Sequence[Sample], rows: int) -> list[list[Sample]]:
    """Samples in their order, `rows` at a time."""
    return [list(samples[i : i + rows]) for i in range(0, len(samples), rows)]


def batch_key(samples: Sequence[Sample]) -> str:
    """Fingerprint of the batch: of its samples' ids."""
    return fingerprint([sample.sample_id for sample in samples])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return not missing(home, parameters["samples"])


@task(
    name="generate",
    task_run_name="generate {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=can_differ,
)
def generate(home: str, what: str, model: Model, samples: Sequence[Sample], key: str) -> dict[str, Any]:
    """Make the missing texts of a batch; see `generate_batch`."""
    return generate_batch(Path(home), model, samples)


def generate_batch(home: Path, model: Model, samples: Sequence[Sample]) -> dict[str, Any]:
    """Make the texts of a batch that are not there.

    Returns
    -------
    dict
        `failures`: the outputs without a text that another try may give, by sample id. These are not kept,
        so the next run asks again.
    """
    texts = Products(home, KIND)
    wanted = missing(home, samples)
    jobs = [_job(sample) for sample in wanted]
    outputs: Sequence[Output] = []
    if jobs:
        with accelerator():
            outputs = opened(model, home).generate(jobs)
    failures: dict[str, dict[str, Any]] = {}
    for sample, output in zip(wanted, outputs, strict=True):
        body = asdict(output) | {"order_index": sample.order_index}
        if output.reason is not None and is_transient(output.reason):
            failures[sample.sample_id] = body
        else:
            texts.write(sample.sample_id, body)
    return {"failures": failures}


def missing(home: Path, samples: Sequence[Sample]) -> list[Sample]:
    """Those of the samples that have no text yet."""
    texts = Products(home, KIND)
    return [sample for sample in samples if texts.read(sample.sample_id) is None]


def _job(sample: Sample) -> Job:
    return Job(
        key=sample.sample_id,
        prompt=sample.says,
        seed=sample.draw.seed32,
        sampling=sample.cell.sampling,
        history=sample.history,
        chat=sample.turn > 0,
    )


NEVER: Mapping[str, Any] = {"text": None, "reason": "never generated"}
"""What is known of a sample that has neither a product nor a failure."""


def refused(samples: Sequence[Sample], reason: str) -> dict[str, dict[str, Any]]:
    """Outputs without a text for a batch whose backend is gone."""
    empty = Output(key="*", text=None, finish_reason=None, tokens=None, seconds=None, reason=reason)
    return {
        sample.sample_id: asdict(empty) | {"key": sample.sample_id, "order_index": sample.order_index}
        for sample in samples
    }


def read_output(home: Path, sample_id: str, failures: Mapping[str, Any]) -> dict[str, Any] | None:
    """What came of a sample: its product, or its failure of this run; None when there is neither yet."""
    found: dict[str, Any] | None = Products(home, KIND).read(sample_id)
    return failures.get(sample_id) if found is None else found


def read_outputs(
    home: Path, samples: Sequence[Sample], failures: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """What came of every sample, by sample id."""
    return {sample.sample_id: read_output(home, sample.sample_id, failures) or NEVER for sample in samples}


def generation_rows(
    home: Path,
    samples: Sequence[Sample],
    failures: Mapping[str, Any],
    *,
    digest: str,
    server_version: str | None,
) -> list[GenerationRow]:
    """Rows of the samples that have an output."""
    rows = []
    for sample in samples:
        output = read_output(home, sample.sample_id, failures)
        if output is None:
            continue
        rows.append(
            GenerationRow(
                step_id=sample.cell.step_id,
                sample=sample.k,
                turn=sample.turn,
                probe=sample.probe,
                sample_id=sample.sample_id,
                arm=sample.cell.arm.name,
                prompt_id=sample.cell.prompt.prompt_id,
                stream=sample.cell.stream,
                order_index=output["order_index"],
                seed64=sample.draw.seed64,
                seed32=sample.draw.seed32,
                text=output["text"],
                finish_reason=output["finish_reason"],
                tokens=output["tokens"],
                seconds=output["seconds"],
                model_digest=digest,
                server_version=server_version,
                sampling=_sampling_text(sample.cell.sampling),
                imported=False,
                reason=output["reason"],
            )
        )
    return rows


@lru_cache(maxsize=64)
def _sampling_text(sampling: Sampling) -> str:
    return canonical(asdict(sampling))
