"""What every study's work shares: steps run some at a time, and the rows that say what each came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.futures import as_completed

from flows.run_row import Opened
from lab.errors import WorkError
from lab.fingerprint import canonical
from lab.records import PlanStepRow, StepRow
from lab.tables import utc_now
from tasks.progress import Progress
from tasks.recording import Rows, record
from tasks.shell import unwalked


def each(what: str, submits: Mapping[str, Callable[[], Any]], most: int | None) -> dict[str, str | None]:
    """Run tasks, at most so many at a time; name -> None, or why it gave no result.

    Parameters
    ----------
    submits
        Name -> what submits the task and returns its future.
    most
        None for all at once.
    """
    most = most or max(1, len(submits))
    progress = Progress(what, len(submits))
    progress.start()
    running: dict[Any, str] = {}
    told: dict[str, str | None] = {}

    def settle() -> None:
        done = next(as_completed(list(running)))
        told[running.pop(done)] = _outcome(done)
        progress.advance(1, made=0 if done.state.name == "Cached" else 1)

    for name, submit in submits.items():
        if len(running) == most:
            settle()
        running[submit()] = name
    while running:
        settle()
    return told


def _outcome(future: Any) -> str | None:
    """None when the work was done, else why not."""
    try:
        future.result()
    except WorkError as error:
        return str(error)
    return None


@dataclass(frozen=True, kw_only=True)
class StepBook:
    """Writes the steps of one run of a study."""

    opened: Opened
    study: str
    model: str
    code: str
    """Fingerprint of the code that the study's numbers depend on."""

    def step(
        self,
        step_id: str,
        experiment: str,
        arm: str | None,
        seed: int | None,
        *,
        config: object,
        seconds: float | None = None,
        reason: str | None = None,
    ) -> StepRow:
        """A step of this study."""
        return StepRow(
            step_id=step_id,
            study=self.study,
            experiment=experiment,
            arm=arm,
            model=self.model,
            seed=seed,
            config=canonical(config),
            code=self.code,
            seconds=seconds,
            device=self.opened.device,
            environment_id=self.opened.row.environment_id,
            recorded_at=utc_now(),
            reason=reason,
        )

    def planned(self, step_id: str) -> PlanStepRow:
        """That the run's plan has the step."""
        return PlanStepRow(plan_hash=self.opened.row.plan_hash, step_id=step_id)

    def record(self, what: str, rows: Rows) -> None:
        """Into the store."""
        record(str(self.opened.home), what, unwalked(rows))
