"""The quantisation study under way: experiments run when a gate needs them, each replicate on its own.

An experiment that exceeds its limit or breaks is a row with the reason; what it measured until then is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flows import run_row
from flows.int4_experiments import EXPERIMENTS, in_order
from flows.quant_asking import SWEEPS, question_of, start_sweeps
from flows.quant_corpora import refuse
from flows.quant_gates import DISPARITY, NEEDS
from flows.quant_protocol import QuantProtocol, Replicate, replicates
from flows.run_row import Opened, open_run
from lab.errors import WorkError
from lab.fingerprint import canonical, fingerprint
from lab.gates import NEXT_LOOK
from lab.products import Products
from lab.records import DecisionRow, PlanStepRow, Record, StepRow
from lab.tables import utc_now
from models.multilingual import load_trained, spec_of
from models.variants import Variant
from tasks import quant_analysis, quant_measuring, quant_training
from tasks.deciding import Standing, decide
from tasks.generation import Model
from tasks.identifying import identify
from tasks.quant_analysis import Question
from tasks.quant_measuring import Subject
from tasks.recording import record
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


def begin(protocol: QuantProtocol) -> QuantRun:
    """Open the run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Raises
    ------
    UsageError
        For a model of a kind whose blocks are not known, a home that cannot be written, a frozen plan that is
        damaged, or a corpus that is not aligned or too small, with the place.
    """
    refuse(protocol)
    opened = open_run(
        protocol.plan,
        protocol.default,
        question=protocol.question,
        text=protocol.text,
        model=protocol.model,
        settings=protocol.settings,
    )
    return QuantRun(protocol=protocol, opened=opened)


@dataclass
class QuantRun:
    """A run of the study; experiments are run once a look, gates read what they recorded."""

    protocol: QuantProtocol
    opened: Opened
    models: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Replicate's name -> where its model is, and its digest."""
    absent: dict[str, str] = field(default_factory=dict)
    """Replicate's name -> why it has no model."""
    done: set[tuple[str, int]] = field(default_factory=set)
    """Experiments run, by look."""
    keys: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    """(replicate, look) -> name of each variant -> product of its evaluation."""
    failures: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """(experiment, replicate, look) -> why it has no result."""
    saved: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    """(replicate, look) -> what keeping each block alone saves."""
    sweeps: dict[tuple[str, str, int], Any] = field(default_factory=dict)
    """(experiment, replicate, look) -> future of the product of its sweep over blocks."""
    path: list[DecisionRow] = field(default_factory=list)
    analysis: str = ""

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

    @cached_property
    def all_replicates(self) -> dict[str, tuple[Replicate, ...]]:
        """Model -> its replicates."""
        names = dict.fromkeys((self.protocol.model, *self.protocol.transfer.values()))
        return {name: replicates(name, self.protocol.replicates) for name in names}

    def record(self, what: str, rows: Sequence[Record]) -> None:
        """Hand rows to the store."""
        record(str(self.home), what, unwalked(rows))

    def obtain_models(self) -> None:
        """Train or find every model, as many at a time as there are processes."""
        trained = []
        for one in (one for found in self.all_replicates.values() for one in found):
            if one.folds is not None:
                self.models[one.name] = (one.model, self._digest(one.model))
                continue
            spec = spec_of(one.model, one.number)
            key = quant_training.training_key(spec)
            limit = self.protocol.timeout_seconds
            future = quant_training.train.submit(str(self.home), one.name, unwalked(spec), limit, key)
            trained.append((one, spec, future))
        for one, spec, future in trained:
            where = quant_training.place(self.home, spec)
            try:
                self.models[one.name] = (str(where), future.result())
            except WorkError as error:
                self.absent[one.name] = f"{one.name} was not trained: {error}"
                logger.warning("%s", self.absent[one.name])
                continue
            found = load_trained(where)
            assert found is not None  # the task has just verified it
            rows = quant_training.training_rows(
                found, study=self.protocol.plan.study, model=one.name, **self._place()
            )
            self.record(f"training of {one.name}", [*rows, self.planned(quant_training.training_key(spec))])

    def _digest(self, model: str) -> str:
        found = Model(
            backend="transformers", path=model, timeout_seconds=self.protocol.timeout_seconds, host=None
        )
        digest: str = identify(str(self.home), found)["digest"]
        return digest

    def _place(self) -> dict[str, str]:
        return {"environment_id": self.opened.row.environment_id, "device": self.opened.device}

    def step(
        self,
        step_id: str,
        experiment: str,
        one: Replicate,
        *,
        config: object,
        arm: str | None = None,
        code: str = "",
        seconds: float | None = None,
        reason: str | None = None,
    ) -> StepRow:
        """A row of the `step` table about a replicate."""
        return StepRow(
            step_id=step_id,
            study=self.protocol.plan.study,
            experiment=experiment,
            arm=arm,
            model=one.name,
            seed=one.number if one.folds is None else None,
            config=canonical(config),
            code=code,
            seconds=seconds,
            recorded_at=utc_now(),
            reason=reason,
            **self._place(),
        )

    def planned(self, step_id: str) -> PlanStepRow:
        """That the plan has this step."""
        return PlanStepRow(plan_hash=self.opened.row.plan_hash, step_id=step_id)

    def walk(self) -> None:
        """Ask the gates in order, each when the experiments it needs have run, until one leads out.

        With more sentences the disparity is asked again from the check of the models on, the transfer alone:
        what was decided before it stands.
        """
        gates = {gate.name: gate for gate in self.protocol.plan.gates}
        looks, place, decided_at = self.protocol.plan.looks, 0, 0
        name = self.protocol.plan.gates[0].name
        while name in gates:
            self._run(NEEDS[name], looks[place])
            self.path.append(decide(str(self.home), gates[name], self._standing(place)))
            asked, name = name, self.path[-1].next
            if asked == DISPARITY.name:
                decided_at = place
            if name == NEXT_LOOK and place + 1 < len(looks):
                place += 1
                name = self.protocol.plan.gates[0].name if asked == DISPARITY.name else asked
        if self.protocol.every_experiment:
            rest = (one.id for one in EXPERIMENTS if not self._has_run(one.id))
            self._run(tuple(rest), looks[decided_at])

    def _has_run(self, experiment: str) -> bool:
        return any(name == experiment for name, _ in self.done)

    def _standing(self, place: int) -> Standing:
        plan, row = self.protocol.plan, self.opened.row
        return Standing(
            study=plan.study,
            profile=plan.profile,
            model=self.protocol.model,
            plan_hash=row.plan_hash,
            run_id=row.run_id,
            exploratory=row.exploratory,
            analysis=self.analysis,
            look=plan.looks[place],
            look_index=place + 1,
            looks_left=len(plan.looks) - place - 1,
        )

    def _run(self, wanted: tuple[str, ...], look: int) -> None:
        """Run experiments, and what they wait for unless it has run at some look.

        The three budgets are analysed together.
        """
        for experiment in in_order(wanted):
            if (experiment, look) in self.done or (experiment not in wanted and self._has_run(experiment)):
                continue
            self.done.add((experiment, look))
            logger.info("%s at %d sentences", experiment, look)
            self._measure(experiment, look)
            if experiment in self.protocol.pairs:
                if all((one, look) in self.done for one in self.protocol.pairs):
                    self._answer(tuple(self.protocol.pairs), look)
                continue
            self._answer((experiment,), look)

    def subject(self, one: Replicate, look: int) -> Subject:
        """The replicate's model on a look's sentences."""
        where, digest = self.models[one.name]
        return Subject(
            where=where, digest=digest, source=self.protocol.source_at(look), mix=self.protocol.mix
        )

    def _live(self, experiment: str, look: int) -> list[Replicate]:
        """Replicates that have a model and have not failed here or in what this experiment waits for."""
        before = in_order((experiment,))
        return [
            one
            for one in self.all_replicates[self.protocol.model_of(experiment)]
            if one.name not in self.absent
            and not any((name, one.name, look) in self.failures for name in before)
        ]

    def _measure(self, experiment: str, look: int) -> None:
        """Evaluate an experiment's variants on every replicate, those of one model once."""
        wanted = self.protocol.variants.get(experiment, {})
        started: dict[str, Any] = {}
        for one in self._live(experiment, look):
            subject = self.subject(one, look)
            named = {subject.key(variant): variant for variant in wanted.values()}
            if subject.where in started or not named:
                continue
            started[subject.where] = quant_measuring.evaluate.submit(
                str(self.home),
                f"{experiment}, {one.name if one.folds is None else one.model}, {look} sentences",
                unwalked(subject),
                unwalked(named),
                self.protocol.timeout_seconds,
                quant_measuring.batch_key(list(named)),
            )
        told = {where: _outcome(future) for where, future in started.items()}
        if experiment in SWEEPS:
            start_sweeps(self, experiment, self._live(experiment, look), look)
        for one in self._live(experiment, look) if wanted else ():
            subject = self.subject(one, look)
            if (reason := told[subject.where]) is not None:
                self._fail(experiment, one, look, reason)
                continue
            keys = self.keys.setdefault((one.name, look), {})
            keys |= {name: subject.key(variant) for name, variant in wanted.items()}
            if one.folds is None or one.number == 0:
                self._record_losses(experiment, one, subject, wanted)

    def _record_losses(
        self, experiment: str, one: Replicate, subject: Subject, wanted: Mapping[str, Variant]
    ) -> None:
        rows: list[Record] = []
        for name, variant in wanted.items():
            key = subject.key(variant)
            body = Products(self.home, quant_measuring.EVALUATION).read(key)
            config, code = subject.config(variant), quant_measuring.measuring_code()
            rows.append(
                self.step(key, experiment, one, arm=name, config=config, code=code, seconds=body["seconds"])
            )
            rows += [self.planned(key), *quant_measuring.coverage_rows(body, key)]
            rows += quant_measuring.loss_rows(subject.corpus, body, key)
        self.record(f"losses of {experiment}, {one.name}", rows)

    def _fail(self, experiment: str, one: Replicate, look: int, reason: str) -> None:
        self.failures[experiment, one.name, look] = reason
        logger.warning("%s, %s: %s", experiment, one.name, reason)
        self._mark(experiment, one, look, reason)

    def _mark(self, experiment: str, one: Replicate, look: int, reason: str | None) -> None:
        """The experiment on this replicate as a step: with the reason when it has no result."""
        config = {
            "experiment": experiment,
            "replicate": one.name,
            "plan": self.opened.row.plan_hash,
            "look": look,
        }
        step = self.step(fingerprint(config), experiment, one, config=config, reason=reason)
        self.record(f"{experiment}, {one.name}", [step, self.planned(step.step_id)])

    def _answer(self, experiments: tuple[str, ...], look: int) -> None:
        """Analyse every replicate, record the rows, and say of each replicate that it is done or why not."""
        first = experiments[0]
        for one in self.all_replicates[self.protocol.model_of(first)]:
            reason = self.absent.get(one.name) or self._blocked(experiments, one, look)
            try:
                question = None if reason else question_of(self, experiments, one, look)
            except WorkError as error:
                question, reason = None, str(error)
            if question is None:
                for experiment in experiments:
                    if (experiment, one.name, look) not in self.failures:
                        self._fail(experiment, one, look, str(reason))
                continue
            key = quant_analysis.analysis_key(question)
            what = f"{question.family}, {one.name}, {look} sentences"
            quant_analysis.analyse(str(self.home), what, unwalked(question), key)
            body = Products(self.home, quant_analysis.KIND).read(key)
            if "saved" in body["further"]:
                self.saved[one.name, look] = body["further"]["saved"]
            self._record_answer(question, one, look, key, body)
            for experiment in experiments:
                if (experiment, one.name, look) not in self.failures:
                    self._mark(experiment, one, look, None)

    def _blocked(self, experiments: tuple[str, ...], one: Replicate, look: int) -> str | None:
        """Why a replicate cannot answer: something it waits for failed; of several budgets all must have."""
        before = [name for name in in_order(experiments[:1]) if name not in experiments]
        for name in before:
            if (name, one.name, look) in self.failures:
                return f"{name} has no result: {self.failures[name, one.name, look]}"
        own = [self.failures.get((name, one.name, look)) for name in experiments]
        return own[0] if all(own) else None

    def _record_answer(
        self, question: Question, one: Replicate, look: int, key: str, body: Mapping[str, Any]
    ) -> None:
        self.analysis = key
        config = {"keys": question.keys, "sweep": question.sweep, "look": look}
        code = quant_analysis.analysis_code()
        step = self.step(key, "analyse", one, arm=question.family, config=config, code=code)
        rows: list[Record] = [step, self.planned(key)]
        rows += quant_analysis.result_rows(
            body, key=key, study=self.protocol.plan.study, model=one.name, look=look
        )
        self.record(f"tests of {question.family}, {one.name}", rows)

    def summary(self) -> str:
        """The last decision in a sentence."""
        return run_row.summary(self.path)

    def result(self) -> dict[str, Any]:
        """The decisions in order, and those of the last look, as plain data."""
        told = run_row.result(self.opened.row, self.protocol.model, self.path)
        failed = [f"{a}, {b}, look {c}: {why}" for (a, b, c), why in self.failures.items()]
        last = {row["gate"]: row for row in told["decisions"]}  # each gate's last word, in the tree's order
        return told | {"concluding": list(last.values()), "failed": [*self.absent.values(), *failed]}


def _outcome(future: Any) -> str | None:
    """None when the work was done, else why not."""
    try:
        future.result()
    except WorkError as error:
        return str(error)
    return None
