"""Runs of the nanodesmo study: trained, measured with weights fixed, each recorded with what it came to.

A run that exceeds its limit or whose loss stops being a number is a row with the reason, and what it logged
until then is kept; comparisons that need it say so, the rest goes on. A run that was trained stays trained
when a measurement of it fails: losses do not hang on what was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from flows.nano_protocol import PHASES, RANDOM_P, Cell, NanoProtocol, said
from flows.run_row import Opened
from flows.step_work import StepBook, each
from lab.errors import UsageError, WorkError
from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.records import ArtifactRow, Record
from lab.study import PlannedStep
from models.nano_texts import digest_fields, resolved
from tasks import nano_rows, nano_training
from tasks.nano_training import MEASURED, Measure, Measurement, NanoJob
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


class RunFailedError(WorkError):
    """Some work of a run gave no result; what the rest came to is kept in `result`."""

    def __init__(self, failed: Sequence[str], result: Mapping[str, Any]) -> None:
        self.result = dict(result)
        more = f"; and {len(failed) - 1} more" if len(failed) > 1 else ""
        super().__init__(f"{len(failed)} without a result: {failed[0]}{more}")


@lru_cache(maxsize=1)
def text_code() -> str:
    """Fingerprint of everything that makes tokens of a text."""
    return code("models.nano_texts")


def planned_steps(protocol: NanoProtocol, home: Path) -> list[PlannedStep]:
    """The dry run: what there is to train.

    Raises
    ------
    UsageError
        A text file that is not there, or a given run, which no phase but one asks about.
    """
    protocol.refuse_checkpoint(PHASES)
    found = [PlannedStep(name="prepare texts", units=len(protocol.texts), cached=0)]
    for suite in protocol.suites:
        cells = protocol.cells(suite) if suite != "generalization" or protocol.has_second else []
        try:
            here = runs_here(protocol, home, cells)
        except ValueError as error:
            raise UsageError(str(error)) from error
        found.append(PlannedStep(name=f"train {suite}", units=len(cells), cached=here))
    return found


def runs_here(protocol: NanoProtocol, home: Path, cells: Sequence[Cell]) -> int:
    """How many runs of cells are kept already; none of a hub dataset of unknown hash.

    Raises
    ------
    ValueError
        A text file that is not there.
    """
    if any(source.kind == "hub" and not source.sha256 for source in protocol.texts.values()):
        return 0  # what it holds is not known without asking the hub
    cache = nano_training.texts(home)
    texts = {name: resolved(source, cache) for name, source in protocol.texts.items()}
    told = replace(protocol, texts=texts)
    return sum(nano_training.run_facts(told.job(cell).place(home)) is not None for cell in cells)


def product_file(home: Path, kind: str, key: str, step_id: str) -> list[Record]:
    """The file of a product as an artifact of a step; none when it is gone."""
    path = Products(home, kind).path(key)
    if not path.is_file():
        return []
    body, where = path.read_bytes(), path.relative_to(home).as_posix()
    return [
        ArtifactRow(step_id=step_id, path=where, kind=kind, sha256=sha256(body).hexdigest(), bytes=len(body))
    ]


@dataclass
class NanoWork:
    """The runs of a study and what was measured on them."""

    protocol: NanoProtocol
    opened: Opened
    jobs: dict[Cell, NanoJob] = field(default_factory=dict)
    """Those that were trained."""
    measured: dict[tuple[Measure, Cell], Measurement] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)
    """Why a run was not trained."""
    unmeasured: dict[tuple[Measure, Cell], str] = field(default_factory=dict)
    """Why a run that was trained was not measured; gone once it was."""

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.opened.home

    @property
    def book(self) -> StepBook:
        """Writes steps of training."""
        return self.book_of(nano_training.training_code())

    def book_of(self, code: str) -> StepBook:
        """Writes steps whose numbers depend on the code of a fingerprint."""
        return StepBook(
            opened=self.opened, study=self.protocol.plan.study, model=self.protocol.model, code=code
        )

    def failed(self) -> list[str]:
        """What gave no result and why, a line each."""
        found = [f"{said(cell)}: {why}" for cell, why in self.failures.items()]
        return found + [f"{said(cell)}: {why}" for (_, cell), why in self.unmeasured.items()]

    def _each(self, what: str, submits: Mapping[str, Callable[[], Any]]) -> dict[str, str | None]:
        return each(what, submits, self.protocol.processes)

    def train(self, cells: Sequence[Cell]) -> None:
        """Train the runs of cells, those of one key once, halves before what goes on from them; recorded."""
        new = [cell for cell in cells if cell not in self.jobs and cell not in self.failures]
        firsts = list(dict.fromkeys(first for cell in new for first in self._firsts(cell, new)))
        self._train([cell for cell in firsts if cell not in self.jobs and cell not in self.failures])
        self._train([cell for cell in new if cell not in firsts])

    def _firsts(self, cell: Cell, new: Sequence[Cell]) -> list[Cell]:
        """The halves that a cell needs, or the new one that it begins with, or the cell itself."""
        half = self.protocol.own_half(cell)
        return self.protocol.halves(cell) or [half if half is not None and half in new else cell]

    def _train(self, cells: Sequence[Cell]) -> None:
        wanted: dict[Cell, NanoJob] = {}
        for cell in cells:
            lost = [one for one in self.protocol.halves(cell) if one in self.failures]
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
        """Measure kept runs, recorded as steps; one that failed before is tried again."""
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
            why = told[one.key]
            rows += self._measured(name, one, why)
            if why is None:
                self.measured[name] = one
                self.unmeasured.pop(name, None)
            else:
                self.unmeasured[name] = f"{name[0]} not measured: {why}"
                logger.warning("%s: %s", said(name[1]), self.unmeasured[name])
        if rows:
            self.book.record(f"{len(new)} measurements", rows)

    def _measured(self, name: tuple[Measure, Cell], one: Measurement, why: str | None) -> list[Record]:
        """The step of a measurement, with its file where it was made."""
        kind, (suite, arm, seed) = name
        text = digest_fields(one.job.source)
        config = {"suite": suite, "arm": arm, "measured": one.key, "text": text, **one.config}
        key, book = fingerprint(config), self.book_of(nano_training.measuring_code())
        experiment = f"frozen_{suite}" if kind == "frozen" else kind
        step = book.step(key, experiment, arm, seed, config=config, reason=why)
        files = product_file(self.home, MEASURED, one.key, key) if why is None else []
        return [step, book.planned(key), *files]

    def frozen(self, suite: str, arms: Mapping[str, str]) -> None:
        """The frozen test of arms, given arm -> run."""
        wanted: dict[tuple[Measure, Cell], Measurement] = {}
        for arm, run in arms.items():
            spec = {**self.protocol.frozen_spec, "random_injection": arm == RANDOM_P}
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
        for seed in seeds:
            other = self.protocol.next_seed(seed)
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
