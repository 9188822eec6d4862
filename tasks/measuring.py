"""Text metrics of one look's texts, as a cached task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.records import MetricRow
from stats.diversity import describe
from stats.thinking import PREFIX, measure_with_thinking
from tasks.generation import read_outputs
from tasks.seed_cells import Sample
from tasks.shell import product_key

KIND = "measure"


def measuring_key(samples: Sequence[Sample], failures: Mapping[str, Any]) -> str:
    """Fingerprint of the samples, of which of them failed this time, and of the metrics' code."""
    ids = [sample.sample_id for sample in samples]
    reasons = {name: failures[name]["reason"] for name in ids if name in failures}
    return fingerprint([ids, reasons, code("stats.thinking", alone=("tasks.measuring",))])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="measure",
    task_run_name="measure {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def measure(
    home: str, what: str, samples: Sequence[Sample], failures: Mapping[str, Any], key: str
) -> dict[str, Any]:
    """Measure every text of a look's block; the product maps sample ids to what `measured` returns."""
    body = {name: measured(output) for name, output in read_outputs(Path(home), samples, failures).items()}
    return {"sha256": Products(Path(home), KIND).write(key, body)}


def measured(output: Mapping[str, Any]) -> dict[str, Any]:
    """What `describe` says of an output; `with_thinking` has the metrics of a text with its reasoning."""
    found = describe(output["text"], output["reason"])
    whole = measure_with_thinking(output["text"])
    if whole is not None:
        found["with_thinking"] = {name: list(value) for name, value in whole.items()}
    return found


def metric_rows(samples: Sequence[Sample], body: Mapping[str, Any]) -> list[MetricRow]:
    """One row a sample and metric; the unit is `sample/<k>/<turn>/<probe>`.

    A text with a reasoning part has every metric a second time, of the whole, as `with_thinking.<metric>`.
    """
    return [
        MetricRow(
            step_id=sample.cell.step_id,
            unit=f"sample/{sample.k}/{sample.turn}/{sample.probe}",
            name=prefix + name,
            value=value,
            reason=reason,
        )
        for sample in samples
        for prefix, kind in (("", "metrics"), (PREFIX, "with_thinking"))
        for name, (value, reason) in body[sample.sample_id].get(kind, {}).items()
    ]
