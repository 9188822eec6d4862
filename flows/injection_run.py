"""One model of the injection study through its looks, on top of what `seed_run.Run` does for every study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.seed_run import Run, batch_by_batch
from lab.products import Products
from lab.records import PlanStepRow, Record
from models.backends import BackendError
from tasks import generation, injection_analysis, injection_generation, measuring
from tasks.injection_cells import InjectedSample, InjectionDesign
from tasks.progress import Progress
from tasks.recording import seed_rows
from tasks.seed_analysis import KIND, result_rows, similarity_rows
from tasks.shell import unwalked


@dataclass
class InjectionRun:
    """A run under way; `run` holds the home, the model and the path through the gates."""

    run: Run
    design: InjectionDesign
    question: injection_analysis.Question
    """Of the first look; its `look` is set for each."""
    failures: dict[str, Any] = field(default_factory=dict)
    """Outputs without a text that another run may give, by sample id."""
    samples: list[InjectedSample] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    """Keys of the measured blocks so far."""

    @property
    def home(self) -> Path:
        """The lab's home."""
        return self.run.home

    def draw(self, look: int) -> list[InjectedSample]:
        """The samples that this look adds, with their taped draws."""
        before = max((other for other in self.run.looks if other < look), default=0)
        taped = self.design.draws(self.home, look)
        rows: list[Record] = []
        for arm in self.design.arms:
            for tape, draws, suffix in (
                (self.design.source_tape(self.home, arm), taped.source, ""),
                (self.design.choice_tape(self.home, arm), taped.choice, "/choice"),
            ):
                if tape is not None:
                    stream = self.design.stream_of(arm) if suffix == "" else tape.spec.stream or 0
                    name, path = arm.name + suffix, tape.path.relative_to(self.home)
                    rows += seed_rows(path, name, stream, draws[arm.name])
        self.run.record(f"draws of look {look}", rows)
        block = self.design.block(taped, before, look)
        self.samples += block
        return block

    def generate(self, look: int, samples: Sequence[InjectedSample]) -> None:
        """Make what is missing of a look's texts, batch by batch, recording each."""
        rows: list[Record] = []
        for cell in self.design.cells:
            known: dict[str, Any] = {"config": cell.config, "step_id": cell.step_id, "code": self.design.code}
            rows.append(self.run.step("cell", arm=cell.arm.name, seed=cell.stream, **known))
            rows.append(PlanStepRow(plan_hash=self.run.row.plan_hash, step_id=cell.step_id))
        self.run.record("cells", rows)
        progress = Progress(f"look {look}, texts", len(samples))
        progress.start()
        batch_by_batch(
            f"look {look}",
            injection_generation.batches(samples),
            missing=lambda part: len(injection_generation.missing(self.home, part)),
            make=self._generate_part,
            record=self._record_texts,
            progress=progress,
        )

    def _generate_part(self, what: str, part: Sequence[InjectedSample]) -> None:
        """Make what is missing of a batch."""
        plain = [one.sample for one in part]
        assert self.run.model is not None  # obtained before the first look
        try:
            found = injection_generation.generate(
                str(self.home),
                what,
                self.run.model,
                unwalked(part),
                unwalked(self._words_tapes()),
                generation.batch_key(plain),
            )
        except BackendError as error:
            self.failures |= generation.refused(plain, error.reason)
            raise
        self.failures |= found["failures"]

    def _words_tapes(self) -> Mapping[str, str | None]:
        tapes = {arm.name: self.design.words_tape(self.home, arm) for arm in self.design.arms}
        return {name: None if tape is None else str(tape) for name, tape in tapes.items()}

    def _record_texts(self, what: str, part: Sequence[InjectedSample]) -> None:
        self.run.note_texts([one.sample for one in part])
        rows: list[Record] = [
            *injection_generation.generation_rows(self.home, part, self.failures, digest=self.design.digest)
        ]
        rows += injection_generation.divergence_rows(self.home, part, self.failures)
        self.run.record(what, rows)

    def measure(self, look: int, samples: Sequence[InjectedSample]) -> None:
        """Measure a look's texts."""
        plain = [one.sample for one in samples]
        key = measuring.measuring_key(plain, self.failures)
        measuring.measure(str(self.home), f"look {look}", unwalked(plain), unwalked(self.failures), key)
        self.measured.append(key)
        body = Products(self.home, measuring.KIND).read(key)
        self.run.record(f"metrics of look {look}", measuring.metric_rows(plain, body))

    def analyse(self, look: int) -> None:
        """Analyse all texts so far."""
        run, asked = self.run, self.question.at(look, self.run.protocol.looks_at(look))
        key = injection_analysis.analysis_key(self.measured, asked)
        injection_analysis.analyse(
            str(self.home),
            f"look {look}",
            unwalked(self.samples),
            unwalked(self.measured),
            unwalked(asked),
            key,
        )
        run.analysis = key
        body = Products(self.home, KIND).read(key)
        config = {"look": look, "model_digest": self.design.digest, "measured": self.measured}
        step = run.step("analyse", step_id=key, config=config, code=injection_analysis.analysis_code())
        rows: list[Record] = [step, PlanStepRow(plan_hash=run.row.plan_hash, step_id=key)]
        rows += result_rows(body, step_id=key, study=run.protocol.study, model=run.protocol.model, look=look)
        rows += similarity_rows(body, look)
        run.record(f"tests of look {look}", rows)
