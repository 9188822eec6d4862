"""Adapters of the rank study: trained, audited and answering, each recorded with what it realised.

An arm that exceeds its limit or breaks is a row with the reason; the checks say what that makes of the study.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flows.mechanism_protocol import BASE, Cell, RankProtocol, said
from flows.run_row import Opened
from flows.step_work import StepBook, each
from lab.errors import WorkError
from lab.fingerprint import fingerprint
from models.lora_recipe import LoraRecipe
from models.mistral_base import load_trained
from tasks import rank_rows, rank_training
from tasks.rank_placing import PROBE, Placed
from tasks.rank_training import ArmJob, Base, Exam
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


@dataclass
class ArmWork:
    """The adapters of a run and their answers."""

    protocol: RankProtocol
    opened: Opened
    digests: Mapping[str, str]
    """Split -> digest of its items."""
    base: Base | None
    recipe: LoraRecipe
    """As in the plan, or with twice the steps."""
    jobs: dict[Cell, ArmJob] = field(default_factory=dict)
    """Those that were trained."""
    exams: dict[Cell, Exam] = field(default_factory=dict)
    """Those that were answered."""
    placed: dict[Cell, Placed] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.opened.home

    def obtain_base(self) -> None:
        """Train or find the embedded base; one given by name is on disk already."""
        spec = self.protocol.base_spec
        if spec is None:
            return
        key = rank_training.base_key(spec)
        limit = rank_training.BASE_SECONDS
        try:
            digest = rank_training.train_base(str(self.home), unwalked(spec), limit, key)
        except WorkError as error:
            self.fail((None, BASE), f"not trained: {error}")
            return
        where = rank_training.base_place(self.home, spec)
        self.base = Base(where=str(where), digest=digest)
        found = load_trained(where)
        assert found is not None  # the task has just verified it
        config = {"base": digest, "key": key}
        step = self.book.step(key, "train", BASE, None, config=config, seconds=found.seconds)
        self.book.record(
            "training of the base", [step, self.book.planned(key), *rank_rows.base_rows(found, key)]
        )

    def _job(self, cell: Cell) -> ArmJob:
        assert self.base is not None  # obtained before the walk
        assert cell[0] is not None
        placed = self.placed[cell]
        return ArmJob(
            base=self.base,
            source=self.protocol.source,
            items=self.digests["train"],
            ranks=placed.ranks,
            initialisation=placed.initialisation,
            recipe=self.recipe,
            seed=cell[0],
        )

    def train(self, cells: Sequence[Cell]) -> None:
        """Train the adapters of cells, those of one key once."""
        wanted = {cell: self._job(cell) for cell in cells}
        started = {job.key: (cell, job) for cell, job in reversed(wanted.items())}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        told = self._each(
            "adapters",
            {
                key: partial(rank_training.train_arm.submit, home, said(cell), unwalked(job), limit, key)
                for key, (cell, job) in reversed(started.items())
            },
        )
        for cell, job in wanted.items():
            if told[job.key] is None:
                self.jobs[cell] = job
                self.failures.pop(cell, None)
            else:
                self.fail(cell, f"not trained: {told[job.key]}")

    def evaluate(self, cells: Sequence[Cell]) -> None:
        """Answers of the cells that have an adapter, and of the base; each cell's rows are recorded."""
        assert self.base is not None
        wanted = {
            cell: Exam(
                base=self.base,
                job=self.jobs.get(cell),
                source=self.protocol.source,
                items=self.digests["test"],
                evaluation=self.protocol.evaluation,
            )
            for cell in cells
            if cell in self.jobs or cell[0] is None
        }
        started = {exam.key: (cell, exam) for cell, exam in reversed(wanted.items())}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        told = self._each(
            "evaluations",
            {
                key: partial(rank_training.evaluate.submit, home, said(cell), unwalked(exam), limit, key)
                for key, (cell, exam) in reversed(started.items())
            },
        )
        for cell, exam in wanted.items():
            if told[exam.key] is not None:
                self.fail(cell, f"not evaluated: {told[exam.key]}")
            elif self.exams.get(cell) != exam:
                self.exams[cell] = exam
                self._record_arm(cell, exam)

    def _each(self, what: str, submits: Mapping[str, Callable[[], Any]]) -> dict[str, str | None]:
        return each(what, submits, self.protocol.processes)

    def audit(self, cells: Sequence[Cell]) -> None:
        """Audit trained probes and record their spectra."""
        jobs = {cell: self.jobs[cell] for cell in cells if cell in self.jobs}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        told = self._each(
            "audits",
            {
                job.audit_key: partial(
                    rank_training.audit.submit, home, said(cell), unwalked(job), limit, job.audit_key
                )
                for cell, job in jobs.items()
            },
        )
        for cell, job in jobs.items():
            if told[job.audit_key] is not None:
                self.fail(cell, f"not audited: {told[job.audit_key]}")

    def audits(self, look: int) -> dict[int, Any]:
        """Seed -> audit of its probe."""
        return {
            seed: rank_training.read_audit(self.home, self.jobs[seed, PROBE])
            for seed in self.protocol.seeds(look)
        }

    def fail(self, cell: Cell, reason: str) -> None:
        self.failures[cell] = reason
        self.jobs.pop(cell, None)
        self.exams.pop(cell, None)
        logger.warning("%s: %s", said(cell), reason)
        config = {"arm": cell[1], "seed": cell[0], "plan": self.opened.row.plan_hash}
        step = self.book.step(fingerprint(config), "arm", cell[1], cell[0], config=config, reason=reason)
        self.book.record(said(cell), [step, self.book.planned(step.step_id)])

    def _record_arm(self, cell: Cell, exam: Exam) -> None:
        """What an arm was given, what it realised, how it learned and what it answered."""
        placed = self.placed.get(cell)
        config = {"arm": cell[1], "exam": exam.config, "notes": list(placed.notes) if placed else []}
        key = fingerprint(config)
        probe = None if cell[0] is None else self.jobs[cell[0], PROBE]
        audited = () if probe is None else rank_training.read_audit(self.home, probe)
        rows, seconds = rank_rows.arm_rows(self.home, exam, placed, audited, key)
        step = self.book.step(key, "arm", cell[1], cell[0], config=config, seconds=seconds)
        self.book.record(f"answers of {said(cell)}", [step, self.book.planned(key), *rows])

    @property
    def book(self) -> StepBook:
        """Writes this run's steps."""
        return StepBook(
            opened=self.opened,
            study=self.protocol.plan.study,
            model=self.protocol.model,
            code=rank_training.study_code(),
        )
