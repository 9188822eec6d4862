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
from flows.nano_protocol import FROZEN, MAIN, PHASES, TESTED, NanoProtocol, said
from flows.nano_work import NanoWork, RunFailedError, product_file, text_code
from flows.run_row import Opened, open_run
from lab.errors import UsageError
from lab.fingerprint import fingerprint
from lab.home import resolve_home
from lab.records import DecisionRow, TestResultRow
from models.nano_texts import digest_fields, resolved
from tasks import nano_analysis, nano_drawing, nano_frozen_rows, nano_rows, nano_training
from tasks.deciding import Standing, decide, show_path
from tasks.nano_analysis import Question
from tasks.shell import unwalked

logger = logging.getLogger(__name__)

GIVEN = "checkpoint"
"""Experiment and arm of a run that was given with --set checkpoint: neither a phase's nor the plan's."""


def begin(protocol: NanoProtocol, phases: Sequence[str] = PHASES) -> NanoStudy:
    """Open the run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Raises
    ------
    UsageError
        A text that cannot be had, is too short for its windows, or has too few of them held out for the
        frozen test, where a phase makes it; a given run with other phases; a home that cannot be written.
    """
    protocol.refuse_checkpoint(phases)
    cache = nano_training.texts(resolve_home())
    try:
        texts = {name: resolved(source, cache) for name, source in protocol.texts.items()}
        described = {
            name: nano_rows.text_facts(source, cache, protocol.recipe.shape.block_size)
            | {"text": digest_fields(source)}
            for name, source in texts.items()
        }
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    for name, facts in described.items():
        if not set(TESTED[name]).isdisjoint(phases):
            protocol.refuse_few_windows(name, facts["heldout_tokens"])
    opened = open_run(
        protocol.plan,
        protocol.default,
        question=protocol.question,
        text=protocol.text,
        model=protocol.model,
        settings=protocol.settings,
    )
    if protocol.checkpoint:
        opened = replace(opened, row=replace(opened.row, exploratory=True))
    told = replace(protocol, texts=texts)
    return NanoStudy(
        protocol=told, opened=opened, work=NanoWork(protocol=told, opened=opened), described=described
    )


def run_phase(protocol: NanoProtocol, phase: str) -> dict[str, Any]:
    """One phase with what it needs.

    Returns
    -------
    dict
        `lines` to print, `passed`, and `failed`, which has no line then.

    Raises
    ------
    RunFailedError
        Some of its work gave no result; the same is in the error's `result`.
    """
    run = begin(protocol, [phase])
    with run.closing(lambda: run.phase_result(phase)):
        run.phase(phase)
    return run.phase_result(phase)


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
    figures: list[str] = field(default_factory=list)
    """Paths of what was drawn."""

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.opened.home

    @contextmanager
    def closing(self, result: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """Close the run's row whatever happens; it says `failed` when a part of the work failed.

        Raises
        ------
        RunFailedError
            At the end, when all that does not need the failed part is done; with the result.
        """
        last = self.protocol.plan.gates[-1].name
        try:
            with run_row.closing(self.home, self.opened.row, self.path, last):
                yield
                if failed := self.work.failed():
                    raise RunFailedError(failed, result())
        except RunFailedError:  # what was found stands and is shown, as after a run without a failure
            if self.path:
                show_path(self.home, self.path)
            run_row.publish(self.home)
            raise

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
        if name in ("memory", "controls") and name not in self.protocol.suites:
            self._skip(name, f"left out; --set {name}_suite=true asks it")
            return
        logger.info("phase %s", name)
        self._phases[name](self)

    def _prepare(self) -> None:
        """Record what the texts are."""
        for one in self.protocol.in_contact():
            logger.info("%s, as the plan asks: the first spoils what the second is compared with", one)
        book = self.work.book_of(text_code())
        book.record("texts", nano_rows.text_rows(self.described, book))

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
        self._draw("collect")

    def _summary(self) -> None:
        """Figures of what is composed of several measurements."""
        self._draw("summary")

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
        """The frozen test of one given run, without the study's own; its rows are no step of the plan."""
        plan, told = self.protocol.plan, self.protocol
        place, seed, text = Path(told.checkpoint).expanduser().resolve(), told.seeds[0], told.texts["main"]
        spec = {**told.frozen_spec, "random_injection": False}
        found = nano_training.frozen_test_of(
            self.home, place, text, spec=spec, seed=seed, limit=told.timeout_seconds
        )
        rows = nano_frozen_rows.checkpoint_rows(found, seed, margin=plan.margin, alpha=plan.alpha)
        config = {
            "checkpoint": place.name,
            "found": fingerprint(found),
            "text": digest_fields(text),
            "seed": seed,
            "spec": spec,
            "margin": plan.margin,
            "alpha": plan.alpha,
            "analysis": nano_analysis.analysis_code(),
        }
        key, book = fingerprint(config), self.work.book_of(nano_training.measuring_code())
        self.answers["frozen_core"] = rows
        step = book.step(key, GIVEN, GIVEN, seed, config=config)
        book.record(GIVEN, [self.opened.row, step, *self._tests(key, rows)])

    def _conclude(self, phase: str, suite: str, kind: nano_analysis.Kind) -> None:
        """Analyse a phase and record its rows, which the gates read."""
        question = self._question(suite, kind)
        key = nano_analysis.question_key(question)
        nano_analysis.analyse(str(self.home), phase, unwalked(question), key)
        rows = nano_analysis.rows_of(self.home, key)
        self.analyses[phase], self.answers[phase] = key, rows
        text = self.protocol.texts["second" if suite == "generalization" else "main"]
        config = {"phase": phase, "key": key, "text": digest_fields(text)}
        book = self.work.book_of(nano_analysis.analysis_code())
        step = book.step(key, "analyse", phase, None, config=config)
        files = product_file(self.home, nano_analysis.KIND, key, key)
        book.record(phase, [step, book.planned(key), *self._tests(key, rows), *files])

    def _tests(self, key: str, rows: Sequence[Any]) -> list[TestResultRow]:
        study, model, look = self.protocol.plan.study, self.protocol.model, len(self.protocol.seeds)
        return [
            TestResultRow(step_id=key, study=study, model=model, look=look, **asdict(row)) for row in rows
        ]

    def _question(self, suite: str, kind: nano_analysis.Kind) -> Question:
        """What is asked of the runs of a suite; arms with a missing run say why."""
        cells = list(self.work.jobs | dict.fromkeys(self.work.failures))
        arms = dict.fromkeys(cell[1] for cell in cells if cell[0] in (suite, "core"))
        missing = self._unmeasured(suite, kind)
        runs: dict[str, dict[int, Any]] = {}
        for arm in arms:
            where = suite if any(one.id == arm for one in self.protocol.suites[suite]) else "core"
            own = [(where, arm, seed) for seed in self.protocol.seeds]
            lost = [cell for cell in own if cell not in self.work.jobs]
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
            alpha=self.protocol.level,
            before=self.protocol.before,
            permutations=self.protocol.permutations,
        )

    def _unmeasured(self, suite: str, kind: nano_analysis.Kind) -> dict[str, str]:
        """Why an analysis has no measurement of a run: of the arm for the frozen test, which needs each.

        What regimes are asked goes on with the runs themselves; there the name is `KIND/ARM`. Losses of
        memories and controls need none.
        """
        if kind not in ("frozen", "regimes"):
            return {}
        return {
            cell[1] if kind == "frozen" else f"{what}/{cell[1]}": f"{said(cell)}: {why}"
            for (what, cell), why in reversed(self.work.unmeasured.items())
            if cell[0] == suite and (what == "frozen" or kind == "regimes")
        }

    def _ask(self) -> None:
        """Ask the gates, each of the analysis it reads; none leads to another."""
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
            look_index=self.protocol.look,
            looks_left=len(plan.looks) - self.protocol.look,
        )

    def _skip(self, phase: str, why: str) -> None:
        """A phase that was not run is a step with the reason."""
        self.skipped[phase] = why
        logger.info("phase %s is skipped: %s", phase, why)
        key = fingerprint(["skipped", phase, why, self.opened.row.plan_hash])
        step = self.work.book.step(key, phase, None, None, config={"phase": phase}, reason=why)
        self.work.book.record(phase, [step, self.work.book.planned(key)])

    def _draw(self, phase: str) -> None:
        """Figures from what the store holds now."""
        folder = self.home / "figures" / self.protocol.plan.study
        run = self.opened.row
        self.figures += nano_drawing.draw(phase, str(self.home), run.plan_hash, str(folder), run.git_commit)

    def told(self, phase: str) -> list[str]:
        """What a phase alone came to, line by line."""
        failed = self.work.failed()
        lines = [f"{phase}: {self.skipped.get(phase) or ('failed in part' if failed else 'done')}"]
        lines += [f"  {line}" for line in failed]
        lines += nano_analysis.lines(self.answers.get(phase, ()))
        return lines + [f"  {path}" for path in self.figures]

    def phase_result(self, phase: str) -> dict[str, Any]:
        """What a phase alone came to, as plain data."""
        failed = self.work.failed()
        return {"lines": self.told(phase), "passed": not failed, "failed": failed}

    def summary(self) -> str:
        """The last decision in a sentence."""
        return run_row.summary(self.path)

    def result(self) -> dict[str, Any]:
        """The decisions in order as plain data."""
        told = run_row.result(self.opened.row, self.protocol.model, self.path)
        return told | {"failed": self.work.failed()}
