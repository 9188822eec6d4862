"""Steps and answers of an imported file as rows, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.fingerprint import canonical
from lab.records import PlanStepRow, StepRow, TestResultRow
from lab.tables import utc_now


@dataclass(frozen=True, kw_only=True)
class Owner:
    """What the rows of an imported file belong to."""

    study: str
    model: str
    plan_hash: str
    environment_id: str


def step(
    owner: Owner,
    step_id: str,
    experiment: str,
    config: Mapping[str, object],
    made_by: str,
    *,
    arm: str | None = None,
    seed: int | None = None,
) -> tuple[StepRow, PlanStepRow]:
    """A step, and that it belongs to the plan.

    Parameters
    ----------
    config
        What the step id, or the content behind it, was made of.
    made_by
        Fingerprint of the code that read or computed it.
    """
    row = StepRow(
        step_id=step_id,
        study=owner.study,
        experiment=experiment,
        arm=arm,
        model=owner.model,
        seed=seed,
        config=canonical(config),
        code=made_by,
        seconds=None,
        device=None,
        environment_id=owner.environment_id,
        recorded_at=utc_now(),
        reason=None,
    )
    return row, PlanStepRow(plan_hash=owner.plan_hash, step_id=step_id)


def answers(owner: Owner, tests: Sequence[Mapping[str, Any]], step_id: str, look: int) -> list[TestResultRow]:
    """Rows of the `test` table from those of an analysis."""
    return [
        TestResultRow(step_id=step_id, study=owner.study, model=owner.model, look=look, **row)
        for row in tests
    ]
