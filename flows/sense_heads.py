"""Heads of the sense study: trained, examined, each recorded with what it reached.

A head that exceeds its limit or breaks is a row with the reason; its arm then says nothing, the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flows.run_row import Opened
from flows.sense_protocol import CONTROL, MINER_SEED, Cell, SenseProtocol, said
from flows.step_work import StepBook, each
from lab.errors import WorkError
from lab.fingerprint import fingerprint
from lab.products import Products
from lab.records import Record
from models.kept import load_kept
from models.sense_items import KILLER
from models.sense_sources import ExamItems, digest
from tasks import sense_mining, sense_rows, sense_training
from tasks.sense_training import EXAM, HeadExam, HeadJob, ItemSet, Verifier
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


def head_job(
    protocol: SenseProtocol, digests: Mapping[str, str], cell: Cell, verifier: Verifier | None
) -> HeadJob:
    """What a cell is to train; the control learns from no planted fault."""
    arm = protocol.arm(cell[0])
    return HeadJob(
        source=protocol.source,
        train_digest=digests["train"],
        dev_digest=digests["dev"],
        arm=arm.training,
        seed=cell[1],
        recipe=asdict(arm.recipe),
        encoder_digest=digests["encoder"],
        mislabelled=0.0 if cell[0] == CONTROL else protocol.mislabelled,
        verifier=verifier,
    )


def heads_here(protocol: SenseProtocol, home: Path, cells: Sequence[Cell]) -> int:
    """How many heads of cells are kept already; those of verified contexts are not looked for.

    Raises
    ------
    ValueError
        Files that are missing.
    """
    digests = {split: digest(protocol.source, split) for split in ("train", "dev")} | {"encoder": ""}
    found = 0
    for cell in cells:
        if not (protocol.arm(cell[0]).verified_by or protocol.recipe.encoder):
            found += load_kept(head_job(protocol, digests, cell, None).place(home)) is not None
    return found


@dataclass
class HeadWork:
    """The heads of a run and their answers."""

    protocol: SenseProtocol
    opened: Opened
    digests: Mapping[str, str]
    """Split -> digest of its texts; `encoder` -> of the frozen encoder, empty without one."""
    items: Mapping[str, ItemSet]
    """dev and test."""
    jobs: dict[Cell, HeadJob] = field(default_factory=dict)
    """Those that were trained."""
    exams: dict[tuple[Cell, str], HeadExam] = field(default_factory=dict)
    """Cell and split -> those that were answered."""
    failures: dict[Cell, str] = field(default_factory=dict)
    killers: ItemSet | None = None
    recorded: set[Cell] = field(default_factory=set)
    """Heads whose training is recorded."""

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.opened.home

    def job(self, cell: Cell) -> HeadJob:
        """What a cell is to train; an arm of verified contexts needs the verifier's head trained."""
        arm = self.protocol.arm(cell[0])
        verifier = None
        if arm.verified_by:
            by = self.jobs[arm.verified_by, cell[1]]
            verifier = self.verifier(by, arm.raised)
        return head_job(self.protocol, self.digests, cell, verifier)

    def verifier(self, job: HeadJob, raised: float) -> Verifier:
        """A head with its calibrated thresholds, raised by as much."""
        found = sense_mining.thresholds(self.home, job)
        return Verifier(job=job, cosine=found.cosine + raised, gap=found.gap + raised)

    def train(self, cells: Sequence[Cell]) -> None:
        """Train the heads of cells, those of one key once; verified arms after their verifiers."""
        first = [cell for cell in cells if not self.protocol.arm(cell[0]).verified_by]
        self._train(first)
        later = [cell for cell in cells if cell not in first]
        if later:
            by = {cell: (self.protocol.arm(cell[0]).verified_by, cell[1]) for cell in later}
            verifying = list(dict.fromkeys(by.values()))
            self._train([cell for cell in verifying if cell not in self.jobs])
            unfit = self.calibrate([cell for cell in verifying if cell in self.jobs])
            unfit |= {cell: "it was not trained" for cell in verifying if cell not in self.jobs}
            lost = [cell for cell in later if by[cell] in unfit]
            for cell in lost:
                self.fail(cell, f"its verifier, {said(by[cell])}: {unfit[by[cell]]}")
            self._train([cell for cell in later if cell not in lost])

    def _train(self, cells: Sequence[Cell]) -> None:
        wanted = {cell: self.job(cell) for cell in cells}
        started = {job.key: (cell, job) for cell, job in reversed(wanted.items())}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        told = self._each(
            "heads",
            {
                key: partial(sense_training.train_head.submit, home, said(cell), unwalked(job), limit, key)
                for key, (cell, job) in reversed(started.items())
            },
        )
        for cell, job in wanted.items():
            if told[job.key] is None:
                self.jobs[cell] = job
                self.failures.pop(cell, None)
            else:
                self.fail(cell, f"not trained: {told[job.key]}")

    def calibrate(self, cells: Sequence[Cell]) -> dict[Cell, str]:
        """Cosines of labelled contexts by trained heads, and the thresholds they give, recorded.

        Returns why a head gives none; as a head of its own arm it is as good as before.
        """
        unfit: dict[Cell, str] = {}
        limit, home, mix = self.protocol.timeout_seconds, str(self.home), sense_mining.MIX
        keys = {cell: sense_training.verification_key(self.jobs[cell], mix) for cell in cells}
        told = self._each(
            "verifications",
            {
                keys[cell]: partial(
                    sense_training.compare_contexts.submit,
                    home,
                    said(cell),
                    unwalked(self.jobs[cell]),
                    mix,
                    limit,
                    keys[cell],
                )
                for cell in cells
            },
        )
        for cell in cells:
            why = told[keys[cell]]
            if why is not None:
                unfit[cell] = f"its contexts were not compared: {why}"
                continue
            try:
                sense_mining.thresholds(self.home, self.jobs[cell])
            except ValueError as error:
                unfit[cell] = str(error)
            rows = sense_mining.threshold_rows(self.home, self.jobs[cell], keys[cell])
            step = self.book.step(keys[cell], "verify", *cell, config={"head": self.jobs[cell].key})
            self.book.record(f"thresholds by {said(cell)}", [step, self.book.planned(keys[cell]), *rows])
        return unfit

    def examine(self, cells: Sequence[Cell], split: str) -> None:
        """Answers of the cells that have a head to the items of a split, or the killers; recorded."""
        items = self.killers if split == "killers" else self.items[split]
        if items is None:
            return
        wanted = {cell: HeadExam(job=self.jobs[cell], items=items) for cell in cells if cell in self.jobs}
        started = {exam.key: (cell, exam) for cell, exam in reversed(wanted.items())}
        limit, home = self.protocol.timeout_seconds, str(self.home)
        told = self._each(
            f"exams on {split}",
            {
                key: partial(sense_training.examine_head.submit, home, f"{said(cell)}, {split}",
                             unwalked(exam), limit, key)
                for key, (cell, exam) in reversed(started.items())
            },
        )  # fmt: skip
        new: dict[Cell, HeadExam] = {}
        for cell, exam in wanted.items():
            why = told[exam.key]
            if why is not None:
                self.fail(cell, f"not examined on {split}: {why}")
            elif self.exams.get((cell, split)) != exam:
                self.exams[cell, split] = new[cell] = exam
        if new:
            self.book.record(
                f"answers on {split}",
                lambda: [row for cell, exam in new.items() for row in self._exam_rows(cell, split, exam)],
            )
            self.recorded |= new.keys()

    def mine(self, name: str) -> None:
        """Killers: what a head of the arm `name` and another seed fails."""
        cell = (name, MINER_SEED)
        self._train([cell])
        if cell not in self.jobs:
            return
        pool = sense_training.item_set(
            self.protocol.source, "mining", per_sense=self.protocol.per_sense, per_lemma=1
        )
        exam = HeadExam(job=self.jobs[cell], items=pool)
        limit = self.protocol.timeout_seconds
        try:
            sense_training.examine_head(str(self.home), "the miner", unwalked(exam), limit, exam.key)
            found = sense_mining.mined(self.home, exam)
        except (WorkError, ValueError) as error:  # ValueError: its scores are no measurement
            self.fail(cell, f"nothing was mined: {error}")
            return
        self.killers = replace(pool, chosen=found.ids)
        step = self.book.step(exam.key, "mine", name, MINER_SEED, config={"head": exam.job.key})
        self.book.record(
            "killers", [step, self.book.planned(exam.key), *sense_mining.killer_rows(found, exam.key)]
        )

    def take_killers(self, own: ExamItems) -> None:
        """Killers of one's own files: their items of tier 4."""
        ids = tuple(item.id for item in own.retrieval if item.tier == KILLER)
        if ids:
            self.killers = replace(self.items["test"], chosen=ids)

    def _each(self, what: str, submits: Mapping[str, Callable[[], Any]]) -> dict[str, str | None]:
        return each(what, submits, self.protocol.processes)

    def metrics(self, cell: Cell, split: str) -> list[Record]:
        """What a head reached on a split."""
        exam = self.exams[cell, split]
        body = Products(self.home, EXAM).read(exam.key)
        return sense_rows.exam_rows(body, exam.items, exam.key, every_item=False)

    def fail(self, cell: Cell, reason: str) -> None:
        """A head that says nothing, recorded with the reason."""
        self.failures[cell] = reason
        self.jobs.pop(cell, None)
        logger.warning("%s: %s", said(cell), reason)
        config = {"arm": cell[0], "seed": cell[1], "plan": self.opened.row.plan_hash}
        step = self.book.step(fingerprint(config), "head", *cell, config=config, reason=reason)
        self.book.record(said(cell), [step, self.book.planned(step.step_id)])

    def _exam_rows(self, cell: Cell, split: str, exam: HeadExam) -> list[Record]:
        """What a head answered and, the first time, how it learned."""
        body = Products(self.home, EXAM).read(exam.key)
        facts = sense_training.read_head(self.home, exam.job)
        config = {"arm": cell[0], "split": split, "head": exam.job.config, "items": exam.items.config}
        key = fingerprint(["exam", cell[0], exam.key])
        step = self.book.step(key, f"exam on {split}", *cell, config=config, seconds=facts["seconds"])
        rows = sense_rows.exam_rows(
            body, exam.items, key, every_item=split == "test", examples=cell[1] == self.protocol.seeds[0]
        )
        found: list[Record] = [step, self.book.planned(key), *rows]
        if cell not in self.recorded:
            trained = fingerprint(["head", cell[0], exam.job.key])
            step = self.book.step(trained, "train", *cell, config=exam.job.config, seconds=facts["seconds"])
            found += [step, self.book.planned(trained), *sense_rows.training_rows(facts, trained)]
        return found

    @property
    def book(self) -> StepBook:
        """Writes this run's steps."""
        return StepBook(
            opened=self.opened,
            study=self.protocol.plan.study,
            model=self.protocol.model,
            code=sense_training.study_code(),
        )
