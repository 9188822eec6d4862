"""Arms of the rank study as rows: how they were placed, how they learned, what they answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.products import Products
from lab.records import AdapterModuleRow, AnswerRow, MetricRow, Record, TrainLogRow
from models.audit_summary import MEASURES, aggregates
from models.mistral_base import TrainedBase
from models.spectra import ModuleAudit
from tasks.rank_checks import converged
from tasks.rank_placing import PROBE, Placed
from tasks.rank_training import ANSWERS, ArmJob, Exam, read_adapter

RECORDED = ("parameters", "truncated", "validation_truncated", "micro_batch")
"""Of a training: a smaller micro-batch than asked for says that memory ran out."""
RULES = ("strict", "flexible", "numeric")


def base_rows(trained: TrainedBase, key: str) -> list[Record]:
    """The log of the base's training."""
    return [TrainLogRow(step_id=key, **asdict(point)) for point in trained.log]


def arm_rows(
    home: Path, exam: Exam, placed: Placed | None, audited: Sequence[ModuleAudit], key: str
) -> tuple[list[Record], float]:
    """Rows of one arm, and the seconds of training and evaluation.

    Parameters
    ----------
    placed
        None for the base alone.
    audited
        The audit of the seed's probe: what modules there are, and of the probe itself its spectra.
    """
    body = Products(home, ANSWERS).read(exam.key)
    rows: list[Record] = [
        AnswerRow(step_id=key, item=one["item_id"], reason=None, **{name: one[name] for name in ANSWERED})
        for one in body["answers"]
    ]
    rows += [_metric(key, name, value) for name, value in measures(body).items()]
    seconds = float(body["seconds"])
    if exam.job is None or placed is None:
        return rows, seconds
    facts = read_adapter(home, exam.job)
    rows += [_metric(key, name, facts[name]) for name in RECORDED]
    rows.append(_metric(key, "late_fall", converged(home, exam)))
    rows += [
        TrainLogRow(
            step_id=key,
            iteration=point["step"],
            train_loss_nats=point["training_loss"],
            valid_loss_nats=point["validation_nll"],
            learning_rate=point["learning_rate"],
            tokens=None,
            seconds=None,
        )
        for point in facts["log"]
    ]
    rows += [_module(one, exam.job, placed, facts["realised"][one.name], key) for one in audited]
    if placed.arm == PROBE:
        rows += _summaries(audited, key)
    return rows, seconds + float(facts["seconds"])


def _module(one: ModuleAudit, job: ArmJob, placed: Placed, rank: int, key: str) -> AdapterModuleRow:
    spectrum: dict[str, Any] = dict.fromkeys(MEASURES)
    if placed.arm == PROBE:
        spectrum = {name: getattr(one, name) for name in MEASURES}
    return AdapterModuleRow(
        step_id=key,
        module=one.name,
        projection=one.projection,
        layer=one.layer,
        kind=one.kind,
        d_out=one.d_out,
        d_in=one.d_in,
        planned_rank=None if placed.initialisation == "eva" else placed.ranks[one.name],
        rank=rank,
        parameters=rank * (one.d_out + one.d_in),
        scale=job.recipe.scale(rank) if rank else None,
        sigma=json.dumps(list(one.sigma)) if placed.arm == PROBE else None,
        **spectrum,
        reason=one.reason if placed.arm == PROBE else None,
    )


def _summaries(audited: Sequence[ModuleAudit], key: str) -> list[Record]:
    return [
        MetricRow(
            step_id=key,
            unit=f"{one.by}/{one.group}",
            name=f"{one.quantity}_{one.statistic}",
            value=one.value,
            reason=one.reason,
        )
        for one in aggregates(audited)
    ]


def measures(body: Mapping[str, Any]) -> dict[str, float]:
    """Shares of right answers by rule, loss of the reference answers, share that ended by itself."""
    answers = body["answers"]
    found = {f"accuracy_{rule}": sum(one[rule] for one in answers) / len(answers) for rule in RULES}
    tokens = sum(one["tokens"] for one in answers)
    return found | {
        "nll_nats_a_token": sum(one["nll_nats"] for one in answers) / tokens,
        "stopped": sum(one["stopped"] for one in answers) / len(answers),
    }


def _metric(key: str, name: str, value: float | None) -> MetricRow:
    reason = "not measured" if value is None else None
    return MetricRow(
        step_id=key, unit="*", name=name, value=None if value is None else float(value), reason=reason
    )


ANSWERED = ("text", "strict", "flexible", "numeric", "nll_nats", "tokens", "stopped")
