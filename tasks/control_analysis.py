"""The analysis of the control experiment as a cached task: measured texts in, rows of table `test` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from stats.control import ControlRun, Transfer, analyse_control
from tasks import measuring
from tasks.control_cells import Condition
from tasks.seed_cells import Sample
from tasks.shell import product_key

KIND = "control"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the plan fixes about the analysis."""

    conditions: Mapping[str, Condition]
    """Name of an arm -> what its texts stand for; other arms are ranges of the distribution transfer."""
    primary: tuple[str, ...]
    margin_sd: float
    alpha: float
    required_pairs: int
    seed: int
    """Of the random draws of tests."""


def analysis_code() -> str:
    """Fingerprint of every formula between measured texts and rows."""
    return code("stats.control", alone=("tasks.control_analysis",))


def analysis_key(measured: Sequence[str], question: Question) -> str:
    """Fingerprint of the measured blocks, the question and the formulas."""
    return fingerprint([list(measured), asdict(question), analysis_code()])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse control",
    task_run_name="analyse control {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse(
    home: str, what: str, samples: Sequence[Sample], measured: Sequence[str], question: Question, key: str
) -> dict[str, Any]:
    """Analyse all texts up to a look; the product holds the test rows."""
    found: dict[str, Any] = {}
    for block in measured:
        found |= Products(Path(home), measuring.KIND).read(block)
    rows = analyse_control(
        control_runs(samples, found, question.conditions),
        transfer(samples, found, question),
        required_pairs=question.required_pairs,
        rng=np.random.default_rng(question.seed),
    )
    body = {"tests": [asdict(row) for row in rows]}
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(rows)}


def control_runs(
    samples: Sequence[Sample], found: Mapping[str, Any], conditions: Mapping[str, Condition]
) -> list[ControlRun]:
    """The texts of the conditions, each value's sample first; an excluded text agrees with nothing."""
    runs = [
        _control_run(sample, conditions[sample.cell.arm.name], found[sample.sample_id])
        for sample in samples
        if sample.cell.arm.name in conditions
    ]
    return sorted(runs, key=lambda run: run.part != "sample")


def _control_run(sample: Sample, condition: Condition, measured: Mapping[str, Any]) -> ControlRun:
    excluded = measured["excluded"]
    return ControlRun(
        part=_part(condition, sample.probe),
        label=condition.label,
        drawn_by=condition.source,
        prompt=sample.cell.prompt.prompt_id,
        k=sample.k,
        seed32=sample.draw.seed32,
        condition="cold" if condition.state == "cold" else "warm",
        sha256=None if excluded else measured["sha256"],
        failure=excluded,
    )


def _part(condition: Condition, probe: int) -> str:
    if condition.label != condition.source:
        return "swap"
    if condition.state == "replay":
        return "replay"
    return "sample" if condition.state == "warm" and probe == 0 else "repeat"


def transfer(samples: Sequence[Sample], found: Mapping[str, Any], question: Question) -> Transfer:
    """The texts of both ranges of seeds, excluded ones left out."""
    kept = [
        sample
        for sample in samples
        if sample.cell.arm.name not in question.conditions and found[sample.sample_id]["excluded"] is None
    ]
    values = {
        metric: np.array(
            [
                np.nan if value is None else value
                for sample in kept
                for value, _ in [found[sample.sample_id]["metrics"][metric]]
            ],
            dtype=np.float64,
        )
        for metric in question.primary
    }
    return Transfer(
        values=values,
        arm=[sample.cell.arm.name for sample in kept],
        prompt=[sample.cell.prompt.prompt_id for sample in kept],
        primary=question.primary,
        margin_sd=question.margin_sd,
        alpha=question.alpha,
    )
