"""Texts with a source acting on them, a batch a task. Each text is a product of its own, as in `generation`.

A batch holds calls of several arms one after another, since one arm's share of it takes well under a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from prefect import task

from lab.fingerprint import canonical, code
from lab.products import Products
from lab.records import GenerationRow, MetricRow
from models.backends import Job, Sampling, is_transient
from models.injection import DrawingBackend, InjectedOutput, Injection, InjectionJob, inject
from tasks import generation
from tasks.accelerator import accelerator
from tasks.generation import KIND, Model, opened
from tasks.injection_cells import InjectedSample
from tasks.shell import RETRY_DELAYS_SECONDS, can_differ, product_key

BATCH = 256
"""Texts a task: some seconds of work of an embedded model."""

NEVER_MADE = "never generated"


def injection_code() -> str:
    """Fingerprint of the code that generates."""
    return code("models.injection", "models.transformers_backend")


def batches(samples: Sequence[InjectedSample]) -> list[list[InjectedSample]]:
    """Samples in their order, a task's worth at a time."""
    return [list(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)]


def missing(home: Path, samples: Sequence[InjectedSample]) -> list[InjectedSample]:
    """Those of the samples that have no text yet."""
    texts = Products(home, KIND)
    return [found for found in samples if texts.read(found.sample.sample_id) is None]


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return not missing(home, parameters["samples"])


@task(
    name="inject",
    task_run_name="inject {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=can_differ,
)
def generate(
    home: str,
    what: str,
    model: Model,
    samples: Sequence[InjectedSample],
    tapes: Mapping[str, str | None],
    key: str,
) -> dict[str, Any]:
    """Make the missing texts of a batch; see `generate_batch`."""
    return generate_batch(Path(home), model, samples, tapes)


def generate_batch(
    home: Path, model: Model, samples: Sequence[InjectedSample], tapes: Mapping[str, str | None]
) -> dict[str, Any]:
    """Make the texts of a batch that are not there, an arm's call after another.

    Parameters
    ----------
    tapes
        Arm -> the file of its live source's words, None where it has none.

    Returns
    -------
    dict
        `failures`: the outputs without a text that another try may give, by sample id. These are not kept,
        so the next run asks again.
    """
    wanted = missing(home, samples)
    failures: dict[str, dict[str, Any]] = {}
    backend = cast(DrawingBackend, opened(model, home)) if wanted else None
    for _, found in groupby(wanted, key=lambda one: one.call):
        call, texts = list(found), Products(home, KIND)
        assert backend is not None  # there is something to make
        arm = call[0].arm
        tape = tapes[arm.name]
        jobs = [_job(one) for one in call]
        with accelerator():
            outputs = inject(backend, jobs, arm.injection, tape=None if tape is None else Path(tape))
        for one, output in zip(call, outputs, strict=True):
            body = _body(one, output)
            if body["reason"] is not None and is_transient(body["reason"]):
                failures[one.sample.sample_id] = body
            else:
                texts.write(one.sample.sample_id, body)
    return {"failures": failures}


def _job(one: InjectedSample) -> InjectionJob:
    cell = one.sample.cell
    return InjectionJob(
        job=Job(
            key=one.words_key,
            prompt=cell.prompt.text,
            seed=one.choice.seed32 if one.choice is not None else 0,  # 0: not used
            sampling=cell.sampling,
        ),
        draw=one.sample.draw.seed64 if one.arm.injection.source is not None else None,
    )


def _body(one: InjectedSample, output: InjectedOutput) -> dict[str, Any]:
    traces = asdict(output)
    made: dict[str, Any] = traces.pop("output")
    return made | traces | {"key": one.sample.sample_id, "order_index": one.sample.order_index}


def generation_rows(
    home: Path, samples: Sequence[InjectedSample], failures: Mapping[str, Any], *, digest: str
) -> list[GenerationRow]:
    """Rows of the samples that have an output; `sampling` says how the source acted."""
    arms = {found.sample.sample_id: found.arm.injection for found in samples}
    rows = generation.generation_rows(
        home, [found.sample for found in samples], failures, digest=digest, server_version=None
    )
    how = {found.sample.sample_id: found.sample.cell.sampling for found in samples}
    return [replace(row, sampling=_sampling_text(how[row.sample_id], arms[row.sample_id])) for row in rows]


@lru_cache(maxsize=256)
def _sampling_text(sampling: Sampling, injection: Injection) -> str:
    return canonical(asdict(sampling) | {"injection": asdict(injection)})


def divergence(body: Mapping[str, Any] | None) -> tuple[float | None, float | None, str | None]:
    """Mean and largest token divergence of a text in nats, or why there is none."""
    if body is None:
        return None, None, NEVER_MADE
    nats = body.get("kl_nats")
    if not nats:
        return None, None, body.get("kl_reason") or body["reason"] or "no token was chosen"
    return sum(nats) / len(nats), max(nats), None


def divergence_rows(
    home: Path, samples: Sequence[InjectedSample], failures: Mapping[str, Any]
) -> list[MetricRow]:
    """Rows `token_kl_nats` (mean over a text's tokens) and `token_kl_nats_max`, where the mode has them."""
    rows = []
    for one in samples:
        if not one.arm.changes_distribution:
            continue
        sample = one.sample
        mean, largest, reason = divergence(generation.read_output(home, sample.sample_id, failures))
        unit = f"sample/{sample.k}/0/{sample.probe}"
        for name, value in (("token_kl_nats", mean), ("token_kl_nats_max", largest)):
            rows.append(
                MetricRow(step_id=sample.cell.step_id, unit=unit, name=name, value=value, reason=reason)
            )
    return rows
