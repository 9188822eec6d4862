"""Runs of the nanodesmo study: trained, measured with weights fixed, each recorded with what it came to.

A run that exceeds its limit or whose loss stops being a number is a row with the reason, and what it logged
until then is kept; comparisons that need it say so, the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flows.nano_protocol import RANDOM_P, Cell, NanoProtocol, said
from flows.run_row import Opened
from flows.step_work import StepBook, each
from lab.fingerprint import fingerprint
from lab.records import Record
from tasks import nano_rows, nano_training
from tasks.nano_training import Measure, Measurement, NanoJob
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


@dataclass
class NanoWork:
    """The runs of a study and what was measured on them."""

    protocol: NanoProtocol
    opened: Opened
    jobs: dict[Cell, NanoJob] = field(default_factory=dict)
    """Those that were trained."""
    measured: dict[tuple[Measure, Cell], Measurement] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.opened.home

    @property
    def book(self) -> StepBook:
        """Writes this run's steps."""
        return StepBook(
            opened=self.opened,
            study=self.protocol.plan.study,
            model=self.protocol.model,
            code=nano_training.training_code(),
        )

    def _each(self, what: str, submits: Mapping[str, Callable[[], Any]]) -> dict[str, str | None]:
        return each(what, submits, self.protocol.processes)

    def train(self, cells: Sequence[Cell]) -> None:
        """Train the runs of cells, those of one key once, halves before what goes on from them; recorded."""
        new = [cell for cell in cells if cell not in self.jobs and cell not in self.failures]
        firsts = list(dict.fromkeys(first for cell in new for first in self._firsts(cell)))
        self._train([cell for cell in firsts if cell not in self.jobs and cell not in self.failures])
        self._train([cell for cell in new if cell not in firsts])

    def _firsts(self, cell: Cell) -> list[Cell]:
        """The cell itself when it goes on from nothing, else the halves that it needs."""
        step = self.protocol.step(cell[0], cell[1])
        halves = [one for one in (step.after, step.placed) if one and one != "zero"]
        return [(cell[0], one, cell[2]) for one in halves] or [cell]

    def _train(self, cells: Sequence[Cell]) -> None:
        wanted: dict[Cell, NanoJob] = {}
        for cell in cells:
            lost = [one for one in self._firsts(cell) if one != cell and one in self.failures]
            if lost:
                self.fail(cell, f"{said(lost[0])}: {self.failures[lost[0]]}")
            else:
                wanted[cell] = self.protocol.job(cell)
        started = {job.key: (cell, job) for cell, job in reversed(wanted.items())}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        told = self._each(
            "runs",
            {
                key: partial(nano_training.train_run.submit, home, said(cell), unwalked(job), limit, key)
                for key, (cell, job) in reversed(started.items())
            },
        )
        rows: list[Record] = []
        for cell, job in wanted.items():
            why = told[job.key]
            if why is None:
                self.jobs[cell] = job
                rows += self._trained(cell, job)
            else:
                self.fail(cell, f"not trained: {why}", job)
        if rows:
            self.book.record(f"{len(wanted)} runs", rows)

    def _trained(self, cell: Cell, job: NanoJob) -> list[Record]:
        suite, arm, seed = cell
        config = {"suite": suite, "arm": arm, "run": job.key, **job.config}
        key = fingerprint(config)
        rows = nano_rows.run_rows(self.home, job, key)
        step = self.book.step(key, suite, arm, seed, config=config, seconds=nano_rows.seconds(self.home, job))
        return [step, self.book.planned(key), *rows]

    def fail(self, cell: Cell, reason: str, job: NanoJob | None = None) -> None:
        """A run that says nothing, recorded with the reason and what it logged until then."""
        self.failures[cell] = reason
        self.jobs.pop(cell, None)
        logger.warning("%s: %s", said(cell), reason)
        config = {"suite": cell[0], "arm": cell[1], "seed": cell[2], "plan": self.opened.row.plan_hash}
        key = fingerprint(config)
        logged = [] if job is None else nano_rows.logged_rows(job.place(self.home), key)
        step = self.book.step(key, *cell, config=config, reason=reason)
        self.book.record(said(cell), [step, self.book.planned(key), *logged])

    def measure(self, wanted: Mapping[tuple[Measure, Cell], Measurement]) -> None:
        """Measure kept runs, recorded as steps; a failure leaves its reason with the run."""
        new = {name: one for name, one in wanted.items() if name not in self.measured}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        started = {one.key: (name, one) for name, one in reversed(new.items())}
        told = self._each(
            "measurements",
            {
                key: partial(nano_training.measure_run.submit, home, said(name[1]), unwalked(one), limit, key)
                for key, (name, one) in reversed(started.items())
            },
        )
        rows: list[Record] = []
        for name, one in new.items():
            kind, cell = name
            suite, arm, seed = cell
            why = told[one.key]
            config = {"suite": suite, "arm": arm, "measured": one.key, **one.config}
            key = fingerprint(config)
            experiment = f"frozen_{suite}" if kind == "frozen" else kind
            rows += [
                self.book.step(key, experiment, arm, seed, config=config, reason=why),
                self.book.planned(key),
            ]
            if why is None:
                self.measured[name] = one
            else:
                self.failures[cell] = f"{kind} not measured: {why}"
                logger.warning("%s: %s", said(cell), self.failures[cell])
        if rows:
            self.book.record(f"{len(new)} measurements", rows)

    def frozen(self, suite: str, arms: Mapping[str, str]) -> None:
        """The frozen test of arms, given arm -> run."""
        wanted: dict[tuple[Measure, Cell], Measurement] = {}
        for arm, run in arms.items():
            spec = {"rotations": self.protocol.rotations, "random_injection": arm == RANDOM_P}
            for seed in self.protocol.seeds:
                job = self.jobs.get((suite, run, seed))
                if job is not None:
                    wanted["frozen", (suite, arm, seed)] = Measurement(
                        kind="frozen", job=job, seed=seed, spec=spec
                    )
        self.measure(wanted)

    def swaps(self, arm: str, partner: str) -> None:
        """Losses of an arm with the states of its partner, and of the next seed's run."""
        seeds = self.protocol.seeds
        wanted: dict[tuple[Measure, Cell], Measurement] = {}
        for place, seed in enumerate(seeds):
            other = seeds[(place + 1) % len(seeds)]
            cells = [("core", arm, seed), ("core", partner, seed), ("core", arm, other)]
            if other != seed and all(cell in self.jobs for cell in cells):
                own, foreign, stranger = (self.jobs[cell] for cell in cells)
                wanted["swap", cells[0]] = Measurement(
                    kind="swap", job=own, seed=seed, spec={}, foreign=foreign, other_init=stranger
                )
        self.measure(wanted)

    def sensitivities(self, suite: str, arm: str) -> None:
        """What each feature moves, in every seed of an arm."""
        cells = [(suite, arm, seed) for seed in self.protocol.seeds]
        self.measure(
            {
                ("sensitivity", cell): Measurement(
                    kind="sensitivity", job=self.jobs[cell], seed=cell[2], spec={}
                )
                for cell in cells
                if cell in self.jobs
            }
        )
