"""The sense study under way: items audited, heads trained and examined, each when a gate needs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from flows import run_row
from flows.run_row import Opened, open_run
from flows.sense_heads import HeadWork
from flows.sense_protocol import CONTROL, Cell, SenseProtocol, said
from lab.errors import UsageError, WorkError
from lab.home import resolve_home
from lab.records import DecisionRow, TestResultRow
from models.hub_base import resolve
from models.sense_conditions import factorial, sizes
from models.sense_items import KILLER
from models.sense_killers import refuse_conflicts
from models.sense_sources import ExamItems, bundle_counts, digest, own_items
from models.sense_steps import refuse_undecidable
from tasks import sense_analysis, sense_rows, sense_training
from tasks.deciding import Standing, decide
from tasks.sense_analysis import Exams, Question
from tasks.shell import unwalked

TEST, DEV, KILLERS = "test", "dev", "killers"
BASELINE_SECONDS = 1800.0
"""For scoring everything that has not learned, which takes some seconds on the world's items."""
FEWEST_LEMMAS = 5
"""Of own items, as `stats.two_way_bootstrap` has it."""
PUBLISHED_BUNDLES = {"A": 15_966, "B": 15_113 + 598, "C": 40_000}
"""Of the earlier study; C's is a round number there."""

logger = logging.getLogger(__name__)


def begin(protocol: SenseProtocol) -> SenseRun:
    """Open the run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Raises
    ------
    ModelMissing
        A frozen encoder that is not there or not allowed; asked before any work.
    UsageError
        Files that cannot be read or contradict themselves, splits that share a lemma or a text, with file
        and line; a home that cannot be written.
    """
    encoder = _encoder_digest(protocol) if protocol.recipe.encoder else ""
    source = protocol.source
    try:
        own = own_items(source)
        refuse_conflicts([one for one in own.retrieval if one.tier == KILLER])
        refuse_undecidable(own.coherence)
        refuse_few(own, source.data)
        digests = {split: digest(source, split) for split in ("train", "dev", "test")}
        sense_training.audit(str(resolve_home()), unwalked(source), sense_training.audit_key(digests))
        items = {
            TEST: sense_training.item_set(
                source, "test", per_sense=protocol.per_sense, per_lemma=protocol.per_lemma
            ),
            DEV: sense_training.item_set(
                source, "dev", per_sense=protocol.dev_per_sense, per_lemma=protocol.dev_per_sense
            ),
        }
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    for name, found in bundle_counts(source).items():
        if found != PUBLISHED_BUNDLES[name]:
            logger.warning("%s has %d bundles, the published one %d", name, found, PUBLISHED_BUNDLES[name])
    opened = open_run(
        protocol.plan,
        protocol.default,
        question=protocol.question,
        text=protocol.text,
        model=protocol.model,
        settings=protocol.settings,
    )
    heads = HeadWork(protocol=protocol, opened=opened, digests={**digests, "encoder": encoder}, items=items)
    return SenseRun(protocol=protocol, opened=opened, heads=heads)


def _encoder_digest(protocol: SenseProtocol) -> str:
    """Of a frozen encoder whose states are as wide as the head takes them."""
    found = resolve(protocol.recipe.encoder)
    file = found.directory / "config.json"
    width = json.loads(file.read_text(encoding="utf-8")).get("hidden_size") if file.is_file() else None
    if width is not None and width != protocol.recipe.shape.hidden:
        raise UsageError(
            f"{protocol.model} has states of {width} numbers, hidden is {protocol.recipe.shape.hidden}; "
            f"add --set hidden={width}"
        )
    return found.digest


def refuse_few(items: ExamItems, place: str) -> None:
    """Nothing, if own items are of enough lemmas to say something of others.

    Raises
    ------
    ValueError
        For retrieval or coherence items of fewer lemmas than an interval needs.
    """
    for name, found in (("retrieval", items.retrieval), ("coherence", items.coherence)):
        lemmas = {one.lemma for one in found}
        if found and len(lemmas) < FEWEST_LEMMAS:
            raise ValueError(
                f"the {name} items in {place} are of {len(lemmas)} lemmas; intervals are over lemmas: give "
                f"at least {FEWEST_LEMMAS}"
            )


@dataclass
class SenseRun:
    """A run of the study."""

    protocol: SenseProtocol
    opened: Opened
    heads: HeadWork
    path: list[DecisionRow] = field(default_factory=list)
    analysis: str = ""
    baselines: dict[str, str] = field(default_factory=dict)
    """Split -> product."""
    shipping: str = ""
    """Analysis of the blockers."""

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
        """Ask the gates in order, each when what it reads is there, until one leads out."""
        gates = {gate.name: gate for gate in self.protocol.plan.gates}
        name = self.protocol.plan.gates[0].name
        while name in gates:
            prepare = self._prepare.get(name)
            if prepare is not None:
                prepare(self)
            self.path.append(decide(str(self.home), gates[name], self._standing()))
            name = self.path[-1].next

    def _sound(self) -> None:
        """Audit the items."""
        self.score_baselines()
        self._conclude(self._question("sound", TEST, ()))

    def score_baselines(self) -> None:
        """Score everything that has not learned, on dev and test."""
        job = self.heads.job((CONTROL, self.protocol.seeds[0]))
        limit = BASELINE_SECONDS
        scored = {}
        for split in (TEST, DEV):  # both at once, one a core
            items = self.heads.items[split]
            key = self.baselines[split] = sense_training.baselines_key(items, job)
            scored[split] = sense_training.score_baselines.submit(
                str(self.home), unwalked(items), unwalked(job), limit, key
            )
        for split, future in scored.items():
            future.result()
            self._record_baselines(split, self.baselines[split])

    def _record_baselines(self, split: str, key: str) -> None:
        rows = sense_rows.baseline_rows(self.home, key, self.heads.items[split])
        for name, found in rows.items():
            step_id = f"{key}-{name}"
            step = self.heads.book.step(step_id, f"baseline on {split}", name, None, config={"scores": key})
            self.heads.book.record(
                f"{name} on {split}", [step, self.heads.book.planned(step_id), *found(step_id)]
            )

    def _more_data(self) -> None:
        """Train and examine every arm of the comparisons."""
        names, conditions = self.protocol.trained(), self.protocol.conditions
        cells = self.protocol.cells(names)
        self.heads.train(cells)
        self.heads.examine(self.protocol.cells(conditions), DEV)
        self.heads.examine(cells, TEST)
        if self.protocol.source.data:
            self.heads.take_killers(own_items(self.protocol.source))
        else:
            self.heads.mine("B")
        self.heads.examine(self.protocol.cells(conditions), KILLERS)
        arms = tuple(arm.name for arm in factorial().values()) if "factorial" in self.protocol.groups else ()
        self._conclude(
            self._question(
                "compare",
                TEST,
                names,
                contrasts=self.protocol.contrasts,
                factorial=arms,
                killers=self._exams(conditions, KILLERS),
                killer_items=self.heads.killers,
            )
        )

    def _ship(self) -> None:
        """Judge what may ship, on the test items."""
        conditions = self.protocol.conditions
        self._conclude(self._question("ship", TEST, conditions, judged=conditions))
        self.shipping = self.analysis

    def judge_one(self, arm: str, seed: int) -> list[Any]:
        """Every blocker of one head alone; A of the same seed is what tier 1 is compared with.

        Raises
        ------
        WorkError
            The head was not trained or examined.
        """
        lost = [cell for cell in ((arm, seed), (CONTROL, seed)) if cell in self.heads.failures]
        if lost:
            raise WorkError(f"{said(lost[0])}: {self.heads.failures[lost[0]]}")
        names = tuple(dict.fromkeys((CONTROL, arm)))
        question = self._question("one_head", TEST, names, judged=(arm,))
        self._conclude(question)
        return sense_analysis.rows_of(self.home, self.analysis)

    def _contingency(self, suffix: str) -> None:
        """Retrain C, the last that failed, by the step's rule, and judge it on dev alone."""
        name = f"C-{suffix}"
        cells = self.protocol.cells((name,))
        if self.protocol.source.bundles and self.protocol.arm(name).verified_by:
            for cell in cells:
                self.heads.failures[cell] = "bundles of files are taken as they are: no contexts to verify"
        else:
            self.heads.train(cells)
            self.heads.examine(cells, DEV)
        self._conclude(self._question("ship", DEV, (CONTROL, name), judged=(name,)))

    def _halved(self) -> None:
        self._contingency("halved")

    def _raised(self) -> None:
        self._contingency("raised")

    def _fallback(self) -> None:
        self.analysis = self.shipping

    def _curve(self) -> None:
        """Train the sizes of the curve and fit its law."""
        names = tuple(arm.name for arm in sizes())
        if self.protocol.source.bundles:
            self._conclude(self._question("curve", TEST, names))
            return
        cells = self.protocol.cells(names, self.protocol.curve_seeds)
        self.heads.train(cells)
        self.heads.examine(cells, TEST)
        counts = {
            name: mean(
                sense_training.read_head(self.home, self.heads.jobs[cell])["bundles"]
                for cell in cells
                if cell[0] == name and cell in self.heads.jobs
            )
            for name in names
            if any(cell[0] == name and cell in self.heads.jobs for cell in cells)
        }
        self._conclude(self._question("curve", TEST, names, seeds=self.protocol.curve_seeds, sizes=counts))

    _prepare: ClassVar[Mapping[str, Callable[[SenseRun], None]]] = {
        "sound": _sound,
        "more_data": _more_data,
        "ship_b": _ship,
        "halved": _halved,
        "raised": _raised,
        "fallback": _fallback,
        "curve": _curve,
    }

    def _exams(self, names: Sequence[str], split: str, seeds: int | None = None) -> Exams:
        """Arm -> seed -> product, of the arms all of whose seeds were examined."""
        whole = [name for name in names if not self._missing(name, split, seeds)]
        return {
            name: {seed: self.heads.exams[(name, seed), split].key for seed in self.protocol.seeds[:seeds]}
            for name in whole
        }

    def _missing(self, name: str, split: str, seeds: int | None) -> list[Cell]:
        cells = self.protocol.cells((name,), seeds)
        return [cell for cell in cells if (cell, split) not in self.heads.exams]

    def _question(
        self, kind: str, split: str, names: Sequence[str], *, seeds: int | None = None, **more: Any
    ) -> Question:
        """An analysis of the answers of arms on a split; arms with a missing head say why."""
        failed = {}
        for name in names:
            lost = self._missing(name, split, seeds)
            if lost:
                why = self.heads.failures.get(lost[0], f"not examined on {split}")
                failed[name] = f"{said(lost[0])}: {why}"
        plan = self.protocol.plan
        return Question(
            kind=kind,
            items=self.heads.items[split],
            exams=self._exams(names, split, seeds),
            baselines=self.baselines[split],
            margin=plan.margin,
            alpha=plan.alpha,
            limits=self.protocol.limits,
            failed=failed,
            **more,
        )

    def _conclude(self, question: Question) -> None:
        """Analyse and record the rows, which the next gates read."""
        key = sense_analysis.question_key(question)
        what = f"{question.kind} on {question.items.split}"
        sense_analysis.analyse(str(self.home), what, unwalked(question), key)
        rows = sense_analysis.rows_of(self.home, key)
        self.analysis = key
        step = self.heads.book.step(key, "analyse", what, None, config={"kind": question.kind, "key": key})
        study, model, look = self.protocol.plan.study, self.protocol.model, len(self.protocol.seeds)
        found = [
            TestResultRow(step_id=key, study=study, model=model, look=look, **asdict(row)) for row in rows
        ]
        self.heads.book.record(what, [step, self.heads.book.planned(key), *found])

    def _standing(self) -> Standing:
        plan, row = self.protocol.plan, self.opened.row
        return Standing(
            study=plan.study,
            profile=plan.profile,
            model=self.protocol.model,
            plan_hash=row.plan_hash,
            run_id=row.run_id,
            exploratory=row.exploratory,
            analysis=self.analysis,
            look=len(self.protocol.seeds),
            look_index=1,
            looks_left=0,
        )

    def summary(self) -> str:
        """The last decision in a sentence."""
        return run_row.summary(self.path)

    def result(self) -> dict[str, Any]:
        """The decisions in order as plain data."""
        told = run_row.result(self.opened.row, self.protocol.model, self.path)
        return told | {"failed": [f"{said(cell)}: {why}" for cell, why in self.heads.failures.items()]}
