"""The nanodesmo study under way: nine phases in order, then the gates, then the figures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from flows import run_row
from flows.nano_gates import PHASE_OF
from flows.nano_protocol import FROZEN, MAIN, PHASES, Cell, NanoProtocol, said
from flows.nano_work import NanoWork
from flows.run_row import Opened, open_run
from lab.errors import UsageError
from lab.fingerprint import fingerprint
from lab.home import resolve_home
from lab.nano_exports import write_exports
from lab.records import DecisionRow, TestResultRow
from lab.report_figures import write_group
from lab.report_group import Group, read_groups
from lab.store import Store
from models.nano_texts import resolved
from tasks import nano_analysis, nano_rows, nano_training
from tasks.deciding import Standing, decide
from tasks.nano_analysis import Question
from tasks.shell import unwalked

logger = logging.getLogger(__name__)

COMPOSITE = "composite/"
"""Folder of the summary figures."""


def begin(protocol: NanoProtocol) -> NanoStudy:
    """Open the run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Raises
    ------
    UsageError
        A text that cannot be had or is too short for its windows; a home that cannot be written.
    """
    cache = nano_training.texts(resolve_home())
    try:
        texts = {name: resolved(source, cache) for name, source in protocol.texts.items()}
        described = {
            name: nano_rows.text_facts(source, cache, protocol.recipe.shape.block_size)
            for name, source in texts.items()
        }
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    opened = open_run(
        protocol.plan,
        protocol.default,
        question=protocol.question,
        text=protocol.text,
        model=protocol.model,
        settings=protocol.settings,
    )
    told = replace(protocol, texts=texts)
    return NanoStudy(
        protocol=told, opened=opened, work=NanoWork(protocol=told, opened=opened), described=described
    )


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


def run_phase(protocol: NanoProtocol, phase: str) -> dict[str, Any]:
    """One phase with what it needs.

    Returns
    -------
    dict
        `lines` to print, `passed`: whether nothing of it failed.
    """
    run = begin(protocol)
    with run.closing():
        run.phase(phase)
    return {"lines": run.told(phase), "passed": not run.work.failures}


@dataclass
class NanoStudy:
    """A run of the study."""

    protocol: NanoProtocol
    opened: Opened
    work: NanoWork
    described: Mapping[str, Mapping[str, Any]]
    """Text -> what it is."""
    path: list[DecisionRow] = field(default_factory=list)
    analyses: dict[str, str] = field(default_factory=dict)
    """Phase -> its analysis."""
    answers: dict[str, Sequence[Any]] = field(default_factory=dict)
    """Phase -> the rows of its analysis."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Phase -> why it was not run."""
    figures: list[Path] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.opened.home

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the run's row whatever happens."""
        last = self.protocol.plan.gates[-1].name
        with run_row.closing(self.home, self.opened.row, self.path, last):
            yield

    def walk(self) -> None:
        """All phases; the gates are asked when everything they read is there, before the figures."""
        for name in PHASES:
            if name == "collect":
                self._ask()
            self.phase(name)

    def phase(self, name: str) -> None:
        """One phase; one that cannot be run says why."""
        if name.endswith("generalization") and not self.protocol.has_second:
            self._skip(name, "there is no second text; give one with --set second_corpus=stdlib or a file")
            return
        logger.info("phase %s", name)
        self._phases[name](self)

    def _prepare(self) -> None:
        """Record what the texts are."""
        rows = nano_rows.text_rows(self.described, self.work.book)
        self.work.book.record("texts", rows)

    def _core(self) -> None:
        self.work.train(self.protocol.cells("core"))
        self.work.swaps("swap-a", "swap-b")
        self.work.sensitivities("core", MAIN)
        self.work.frozen("core", {MAIN: MAIN})
        self._conclude("core", "core", "regimes")

    def _frozen_core(self) -> None:
        if self.protocol.checkpoint:
            self._frozen_checkpoint()
            return
        self._frozen("core")

    def _generalization(self) -> None:
        self.work.train(self.protocol.cells("generalization"))
        self.work.sensitivities("generalization", MAIN)
        self.work.frozen("generalization", {MAIN: MAIN})
        self._conclude("generalization", "generalization", "regimes")

    def _frozen_generalization(self) -> None:
        self._frozen("generalization")

    def _memory(self) -> None:
        seeds = self.protocol.seeds
        self.work.train([*self.protocol.cells("memory"), *(("core", MAIN, seed) for seed in seeds)])
        self._conclude("memory", "memory", "memory")

    def _controls(self) -> None:
        self.work.train(self.protocol.cells("controls"))
        self._conclude("controls", "controls", "controls")

    def _collect(self) -> None:
        """Every figure of the phases, and the tables beside them."""
        self._draw(lambda name: not name.startswith(COMPOSITE))
        for group in self._groups():
            commit = self.opened.row.git_commit
            self.figures += write_exports(Store(self.home), group, self._folder, commit)

    def _summary(self) -> None:
        """Figures of what is composed of several measurements."""
        self._draw(lambda name: name.startswith(COMPOSITE))

    _phases: ClassVar[Mapping[str, Callable[[NanoStudy], None]]] = {
        "prepare": _prepare,
        "core": _core,
        "frozen_core": _frozen_core,
        "generalization": _generalization,
        "frozen_generalization": _frozen_generalization,
        "memory": _memory,
        "controls": _controls,
        "collect": _collect,
        "summary": _summary,
    }

    def _frozen(self, suite: str) -> None:
        seeds = self.protocol.seeds
        runs = dict.fromkeys(FROZEN.values())
        self.work.train([(suite, run, seed) for run in runs for seed in seeds])
        self.work.frozen(suite, FROZEN)
        self._conclude(f"frozen_{suite}", suite, "frozen")

    def _frozen_checkpoint(self) -> None:
        """The frozen test of one given run, without the study's own."""
        plan, told = self.protocol.plan, self.protocol
        found = nano_training.frozen_test_of(
            self.home,
            Path(told.checkpoint).expanduser().resolve(),
            told.texts["main"],
            spec={"rotations": told.rotations, "random_injection": False},
            seed=told.seeds[0],
            limit=told.timeout_seconds,
        )
        rows = nano_analysis.checkpoint_rows(found, told.seeds[0], margin=plan.margin, alpha=plan.alpha)
        self._record("frozen_core", fingerprint(["checkpoint", found]), rows)

    def _conclude(self, phase: str, suite: str, kind: nano_analysis.Kind) -> None:
        """Analyse a phase and record its rows, which the gates read."""
        question = self._question(suite, kind)
        key = nano_analysis.question_key(question)
        nano_analysis.analyse(str(self.home), phase, unwalked(question), key)
        self._record(phase, key, nano_analysis.rows_of(self.home, key))

    def _record(self, phase: str, key: str, rows: Sequence[Any]) -> None:
        self.analyses[phase], self.answers[phase] = key, rows
        step = self.work.book.step(key, "analyse", phase, None, config={"phase": phase, "key": key})
        study, model, look = self.protocol.plan.study, self.protocol.model, len(self.protocol.seeds)
        found = [
            TestResultRow(step_id=key, study=study, model=model, look=look, **asdict(row)) for row in rows
        ]
        self.work.book.record(phase, [step, self.work.book.planned(key), *found])

    def _question(self, suite: str, kind: nano_analysis.Kind) -> Question:
        """What is asked of the runs of a suite; arms with a missing run say why."""
        cells = list(self.work.jobs | dict.fromkeys(self.work.failures))
        arms = dict.fromkeys(cell[1] for cell in cells if cell[0] in (suite, "core"))
        missing: dict[str, str] = {}
        runs: dict[str, dict[int, Any]] = {}
        for arm in arms:
            where = suite if any(one.id == arm for one in self.protocol.suites[suite]) else "core"
            own = [(where, arm, seed) for seed in self.protocol.seeds]
            lost = [cell for cell in own if cell not in self.work.jobs or cell in self.work.failures]
            if lost:
                missing[arm] = f"{said(lost[0])}: {self.work.failures.get(lost[0], 'not trained')}"
            runs[arm] = {cell[2]: self.work.jobs[cell] for cell in own if cell in self.work.jobs}
        plan = self.protocol.plan
        return Question(
            kind=kind,
            runs=runs,
            measured={
                f"{what}/{cell[1]}/{cell[2]}": one
                for (what, cell), one in self.work.measured.items()
                if cell[0] == suite
            },
            missing=missing,
            margin=plan.margin,
            loss_margin=self.protocol.loss_margin,
            auc_margin=self.protocol.auc_margin,
            alpha=plan.alpha,
            before=self.protocol.before,
            permutations=self.protocol.permutations,
        )

    def _ask(self) -> None:
        """Ask the four gates, each of the analysis it reads; none leads to another."""
        for gate in self.protocol.plan.gates:
            standing = self._standing(self.analyses[PHASE_OF[gate.name]])
            self.path.append(decide(str(self.home), gate, standing))

    def _standing(self, analysis: str) -> Standing:
        plan, row = self.protocol.plan, self.opened.row
        return Standing(
            study=plan.study,
            profile=plan.profile,
            model=self.protocol.model,
            plan_hash=row.plan_hash,
            run_id=row.run_id,
            exploratory=row.exploratory,
            analysis=analysis,
            look=len(self.protocol.seeds),
            look_index=1,
            looks_left=0,
        )

    def _skip(self, phase: str, why: str) -> None:
        """A phase that was not run is a step with the reason."""
        self.skipped[phase] = why
        logger.info("phase %s is skipped: %s", phase, why)
        key = fingerprint(["skipped", phase, why, self.opened.row.plan_hash])
        step = self.work.book.step(key, phase, None, None, config={"phase": phase}, reason=why)
        self.work.book.record(phase, [step, self.work.book.planned(key)])

    @property
    def _folder(self) -> Path:
        return self.home / "figures" / self.protocol.plan.study

    def _groups(self) -> list[Group]:
        """This plan's rows, once it has any."""
        plan_hash = self.opened.row.plan_hash
        return [group for group in read_groups(Store(self.home)) if group.plan_hash == plan_hash]

    def _draw(self, wanted: Callable[[str], bool]) -> None:
        """Figures from what the store holds now."""
        for group in self._groups():
            self.figures += write_group(
                Store(self.home), group, self._folder, formats=("svg",), wanted=wanted
            )

    def told(self, phase: str) -> list[str]:
        """What a phase alone came to, line by line."""
        lines = [f"{phase}: {self.skipped.get(phase, 'done')}"]
        lines += [f"  {said(cell)}: {why}" for cell, why in self.work.failures.items()]
        lines += nano_analysis.lines(self.answers.get(phase, ()))
        return lines + [f"  {path}" for path in self.figures]

    def summary(self) -> str:
        """The last decision in a sentence."""
        return run_row.summary(self.path)

    def result(self) -> dict[str, Any]:
        """The decisions in order as plain data."""
        told = run_row.result(self.opened.row, self.protocol.model, self.path)
        return told | {"failed": [f"{said(cell)}: {why}" for cell, why in self.work.failures.items()]}
