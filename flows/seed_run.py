"""One model through its looks: what the seed studies share. A `Run` holds the state between the steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from flows import run_row
from flows.run_row import open_run
from flows.seed_protocol import Protocol, seed_design
from lab.fingerprint import canonical, fingerprint
from lab.products import Products
from lab.records import DecisionRow, PlanStepRow, Record, RunRow, StepRow
from lab.tables import utc_now
from models.backends import BackendError
from models.embedded import RUNGS, load_trained
from models.entropy import Draw
from tasks import conversations, generation, measuring, seed_analysis, training
from tasks.deciding import Standing, walk
from tasks.identifying import identify
from tasks.progress import Progress
from tasks.recording import draw, record, seed_rows
from tasks.seed_cells import Sample, SeedDesign
from tasks.shell import unwalked

logger = logging.getLogger(__name__)

CLOCK_SLACK = timedelta(seconds=2)
"""Times of files may be rounded."""
RECORD_SECONDS = 5.0
"""Texts that are made within this go into the store together."""


def begin(protocol: Protocol) -> Run:
    """Open the run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Raises
    ------
    UsageError
        For a home that cannot be written or a frozen plan that is damaged.
    """
    opened = open_run(
        protocol.plan,
        protocol.default,
        question=protocol.question,
        text=protocol.text,
        model=protocol.model,
        settings=protocol.settings,
        device="server" if protocol.backend == "ollama" else "cpu",
    )
    return Run(
        protocol=protocol,
        home=opened.home,
        row=opened.row,
        device=opened.device,
        frozen_at=opened.frozen_at,
    )


S = TypeVar("S")


@dataclass
class Run:
    """A run under way."""

    protocol: Protocol
    home: Path
    row: RunRow
    device: str
    frozen_at: datetime
    """When the declared plan was frozen, UTC."""
    previous: str = ""
    """The model before this one on a ladder, if it was measured."""
    oldest: datetime | None = None
    """When the first of the texts was made, UTC."""
    model: generation.Model | None = None
    digest: str = ""
    server_version: str | None = None
    failures: dict[str, Any] = field(default_factory=dict)
    """Outputs without a text that another run may give, by sample id."""
    samples: list[Sample] = field(default_factory=list)
    turns: dict[int, list[Sample]] = field(default_factory=dict)
    """Turns of each look's conversations: the first ones once drawn, all of them once generated."""
    measured: list[str] = field(default_factory=list)
    """Keys of the measured blocks so far."""
    analysis: str = ""
    path: list[DecisionRow] = field(default_factory=list)

    @property
    def looks(self) -> tuple[int, ...]:
        """The looks to take."""
        return self.protocol.looks

    def at(self, look: int) -> str:
        """A look as tasks and progress lines name it."""
        return f"{self.protocol.label}look {look}"

    @cached_property
    def design(self) -> SeedDesign:
        """Cells and tapes of this model."""
        return seed_design(self.protocol, self.digest)

    def record(self, what: str, rows: Sequence[Record]) -> None:
        """Hand rows to the store."""
        record(str(self.home), what, unwalked(rows))

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the run's row whatever happens; after a whole run, bring everything into the database."""
        with run_row.closing(self.home, self.row, self.path, self.protocol.plan.gates[-1].name):
            yield

    def obtain_model(self) -> None:
        """Train or find the embedded model, or ask the backend which model it has."""
        p, home = self.protocol, str(self.home)
        if p.backend == "local":
            key = training.training_key(RUNGS[p.model])
            self.digest = training.train(home, p.model, key)["digest"]
            where = training.directory(self.home, p.model, key)
            trained = load_trained(where)
            assert trained is not None  # the task has just verified it
            path = str(where)
            place = {"environment_id": self.row.environment_id, "device": self.device}
            rows = training.training_rows(trained, study=p.study, key=key, **place)
            self.record("training", [*rows, PlanStepRow(plan_hash=self.row.plan_hash, step_id=key)])
        else:
            path = p.model
        self.model = generation.Model(
            backend=p.backend, path=path, timeout_seconds=p.timeout_seconds, host=p.host
        )
        if p.backend != "local":
            try:
                found = identify(home, self.model)
            except BackendError as error:
                self.record("failure", [self.step("identify", reason=error.reason)])
                raise
            self.digest, self.server_version = found["digest"], found["server_version"]

    def step(self, experiment: str, *, reason: str | None = None, **known: Any) -> StepRow:
        """A row of the `step` table; `known` are its fields."""
        config = known.get("config", {"experiment": experiment, "model": self.protocol.name})
        return StepRow(
            step_id=known.get("step_id", fingerprint(config)),
            study=self.protocol.study,
            experiment=experiment,
            arm=known.get("arm"),
            model=known.get("model", self.protocol.name),
            seed=known.get("seed"),
            config=canonical(config),
            code=known.get("code", ""),
            seconds=None,
            device=self.device,
            environment_id=self.row.environment_id,
            recorded_at=utc_now(),
            reason=reason,
        )

    def draw(self, look: int) -> list[Sample]:
        """The samples that this look adds, with their taped seeds."""
        before = max((other for other in self.looks if other < look), default=0)
        draws = self.design.draws(self.home, look)
        block = self.design.block(draws, before, look)
        tapes = {
            (arm.name, stream): self.design.tape(self.home, arm, stream).path
            for arm in self.design.arms
            for stream in arm.streams
        }
        rows: list[Record] = [
            row
            for (arm, stream), found in draws.items()
            for row in seed_rows(tapes[arm, stream].relative_to(self.home), arm, stream, found)
        ]
        spoken = conversations.conversation_draws(self.design, self.home, look)
        for (arm, stream), tape in conversations.conversation_tapes(self.design, self.home).items():
            rows += seed_rows(tape.path.relative_to(self.home), arm, stream, spoken[arm, stream])
        self.turns[look] = conversations.first_turns(self.design, spoken, before, look)
        self.record(f"seeds of {self.at(look)}", rows)
        self.samples += block
        return block

    def generate(self, look: int, samples: Sequence[Sample]) -> None:
        """Make what is missing of a look's texts, batch by batch, recording each; then its conversations."""
        rows: list[Record] = []
        for cell in (*self.design.cells, *conversations.conversation_cells(self.design)):
            known: dict[str, Any] = {"config": cell.config, "step_id": cell.step_id, "code": self.design.code}
            rows.append(self.step("cell", arm=cell.arm.name, seed=cell.stream, **known))
            rows.append(PlanStepRow(plan_hash=self.row.plan_hash, step_id=cell.step_id))
        self.record("cells", rows)
        progress = Progress(f"{self.at(look)}, texts", len(samples))
        progress.start()
        self._generate_parts(self.at(look), samples, progress)
        if self.turns[look]:
            self._converse(look)

    def _converse(self, look: int) -> None:
        """All first turns, then all second ones; a turn after a failed one is a row with a reason."""
        stage, self.turns[look] = self.turns[look], []
        draws = conversations.conversation_draws(self.design, self.home, look)
        progress = Progress(f"{self.at(look)}, turns", sum(len(turn.cell.turns) for turn in stage))
        progress.start()
        while stage:
            shut = [turn for turn in stage if turn.closed]
            self.failures |= conversations.closed_outputs(shut)
            self.record_texts(f"{self.at(look)}, closed conversations", shut)
            what = f"{self.at(look)}, turn {stage[0].turn}"
            self._generate_parts(what, [turn for turn in stage if not turn.closed], progress)
            if shut:
                progress.advance(len(shut), made=0)
            self.turns[look] += stage
            outputs = generation.read_outputs(self.home, stage, self.failures)
            stage = conversations.next_turns(self.design, draws, stage, outputs)

    def _generate_parts(self, what: str, samples: Sequence[Sample], progress: Progress) -> None:
        batch_by_batch(
            what,
            generation.batches(samples, generation.BATCH[self.protocol.backend]),
            missing=lambda part: len(generation.missing(self.home, part)),
            make=self._generate_part,
            record=self.record_texts,
            progress=progress,
        )

    def _generate_part(self, what: str, part: Sequence[Sample]) -> None:
        """Make what is missing of a batch."""
        assert self.model is not None
        key = generation.batch_key(part)
        try:
            found = generation.generate(str(self.home), what, self.model, unwalked(part), key)
        except BackendError as error:
            self.failures |= generation.refused(part, error.reason)
            raise
        self.failures |= found["failures"]

    def record_texts(self, what: str, part: Sequence[Sample]) -> None:
        """Record what came of the samples."""
        self.note_texts(part)
        rows = generation.generation_rows(
            self.home, part, self.failures, digest=self.digest, server_version=self.server_version
        )
        self.record(what, rows)

    def measure(self, look: int, samples: Sequence[Sample]) -> None:
        """Measure a look's texts, its conversations' turns among them."""
        samples = [*samples, *self.turns.get(look, [])]
        key = measuring.measuring_key(samples, self.failures)
        measuring.measure(str(self.home), self.at(look), unwalked(samples), unwalked(self.failures), key)
        self.measured.append(key)
        body = Products(self.home, measuring.KIND).read(key)
        self.record(f"metrics of {self.at(look)}", measuring.metric_rows(samples, body))

    def analyse(self, look: int) -> None:
        """Analyse all texts so far."""
        p = self.protocol
        asked = seed_analysis.question(
            p.arms,
            primary=p.plan.primary,
            secondary=p.plan.secondary,
            margin_sd=p.plan.margin,
            alpha=p.plan.alpha,
            aa_alpha=p.aa_alpha,
            looks=p.looks_at(look),
            look=look,
            required_pairs=p.required_pairs,
            permutations=p.permutations,
            most_words=p.sampling.max_new_tokens,  # a token holds no more than one word
        )
        draws = self.diagnostic_draws
        key = seed_analysis.analysis_key(self.measured, draws, asked)
        seed_analysis.analyse(
            str(self.home),
            self.at(look),
            unwalked([*self.samples, *(turn for turns in self.turns.values() for turn in turns)]),
            unwalked(self.measured),
            unwalked(draws),
            unwalked(asked),
            key,
        )
        self.analysis = key
        body = Products(self.home, seed_analysis.KIND).read(key)
        config = {"look": look, "model_digest": self.digest, "measured": self.measured}
        step = self.step("analyse", step_id=key, config=config, code=seed_analysis.analysis_code())
        rows: list[Record] = [step, PlanStepRow(plan_hash=self.row.plan_hash, step_id=key)]
        rows += seed_analysis.result_rows(body, step_id=key, study=p.study, model=p.name, look=look)
        rows += seed_analysis.similarity_rows(body, look)
        self.record(f"tests of {self.at(look)}", rows)

    @cached_property
    def diagnostic_draws(self) -> dict[str, list[Draw]]:
        """Further draws of each treatment's first stream, to test its distribution; recorded once a run."""
        arms = [arm for arm in self.protocol.arms if arm.role == "treatment"]
        tapes = {arm.name: self.design.tape(self.home, arm, arm.streams[0], diagnostic=True) for arm in arms}
        purposes = ["diagnostic"] * self.protocol.diagnostic_draws
        found = draw("diagnostic seeds", unwalked(tapes), unwalked(purposes))
        rows = [
            row
            for arm in arms
            for row in seed_rows(
                tapes[arm.name].path.relative_to(self.home), arm.name, arm.streams[0], found[arm.name]
            )
        ]
        self.record("diagnostic seeds", rows)
        return found

    def decide(self, look: int, *, is_last: bool = False) -> str:
        """Ask the gates, as at the last look if no further one is to be taken; returns what comes next."""
        index = self.looks.index(look)
        self.path += walk(
            str(self.home),
            self.protocol.plan.gates,
            Standing(
                study=self.protocol.study,
                profile=self.protocol.profile,
                model=self.protocol.name,
                plan_hash=self.row.plan_hash,
                run_id=self.row.run_id,
                exploratory=self.is_exploratory,
                analysis=self.analysis,
                look=look,
                look_index=index + 1,
                looks_left=0 if is_last else len(self.looks) - index - 1,
                previous=self.previous,
            ),
        )
        return self.path[-1].next

    def note_texts(self, samples: Sequence[Sample]) -> None:
        """Remember when the first of the texts was made: a plan frozen after it is none."""
        made = [Products(self.home, generation.KIND).first_made(sample.sample_id) for sample in samples]
        times = [moment for moment in (*made, self.oldest) if moment is not None]
        self.oldest = min(times, default=None)

    @property
    def is_exploratory(self) -> bool:
        """Another plan or other looks than declared, or a plan frozen when its texts were there already."""
        seen = self.oldest is not None and self.oldest < self.frozen_at - CLOCK_SLACK
        return self.row.exploratory or seen or self.looks != self.protocol.plan.looks

    def summary(self) -> str:
        """The last decision in a sentence."""
        return run_row.summary(self.path)

    def result(self) -> dict[str, Any]:
        """The decisions in order, and those of the last look, as plain data."""
        return run_row.result(self.row, self.protocol.name, self.path)


def batch_by_batch(
    what: str,
    parts: Sequence[Sequence[S]],
    *,
    missing: Callable[[Sequence[S]], int],
    make: Callable[[str, Sequence[S]], None],
    record: Callable[[str, Sequence[S]], None],
    progress: Progress,
) -> None:
    """Make batches of texts one after the other and record them, short ones and those that are here together.

    A text that is made is a file of its own, so a kill before its row costs nothing.

    Parameters
    ----------
    missing
        How many texts of a batch are not here.
    make
        Makes them; a `BackendError` ends the loop when what came of the batch is recorded.
    """
    waiting: list[S] = []
    recorded = time.monotonic()
    for i, part in enumerate(parts, start=1):
        name, wanted = f"{what}, batch {i} of {len(parts)}", missing(part)
        waiting += part
        try:
            make(name, part)
        except BackendError:
            record(name, waiting)
            raise
        if time.monotonic() - recorded > RECORD_SECONDS or i == len(parts):
            record(name, waiting)
            waiting, recorded = [], time.monotonic()
        progress.advance(len(part), made=wanted)
