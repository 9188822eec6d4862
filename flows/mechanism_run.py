"""The rank study under way: probes, ranks, arms and answers, each made when a gate needs it.

An arm that exceeds its limit or breaks is a row with the reason, and the comparison it belongs to is INVALID;
whatever was trained is kept, and the same command goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from flows import run_row
from flows.mechanism_arms import ArmWork
from flows.mechanism_protocol import BASE, RankProtocol, said
from flows.run_row import Opened, open_run
from lab.errors import UsageError
from lab.fingerprint import fingerprint
from lab.gates import NEXT_LOOK
from lab.products import Products
from lab.records import DecisionRow, TestResultRow
from models.hub_base import resolve
from tasks import rank_analysis, rank_checks, rank_export, rank_training
from tasks.deciding import Standing, decide
from tasks.rank_placing import PROBE, Placed, place
from tasks.rank_training import Base
from tasks.shell import unwalked

logger = logging.getLogger(__name__)


def begin(protocol: RankProtocol) -> RankRun:
    """Open the run's row; the first run of a profile freezes the profile's plan, as it is shipped.

    Raises
    ------
    ModelMissing
        A base by name that is not there or not allowed; asked before any work.
    UsageError
        Items that cannot be read or are too few, with file and line; a home that cannot be written.
    """
    named = None if protocol.base_spec is not None else resolve(protocol.model)
    try:
        digests = {split: rank_training.items_digest(protocol.source, split) for split in ("train", "test")}
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
    base = None if named is None else Base(where=str(named.directory), digest=named.digest)
    arms = ArmWork(protocol=protocol, opened=opened, digests=digests, base=base, recipe=protocol.recipe)
    return RankRun(protocol=protocol, opened=opened, arms=arms)


@dataclass
class RankRun:
    """A run of the study."""

    protocol: RankProtocol
    opened: Opened
    arms: ArmWork
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

    def obtain_base(self) -> None:
        """Train or find the embedded base; one given by name is on disk already."""
        self.arms.obtain_base()

    def walk(self) -> None:
        """Ask the gates in order, each when what it reads is there, until one leads out."""
        gates = {gate.name: gate for gate in self.protocol.plan.gates}
        looks, place_of_look = self.protocol.plan.looks, 0
        name = self.protocol.plan.gates[0].name
        while name in gates:
            prepare = self._prepare.get(name)
            if prepare is not None:
                prepare(self, looks[place_of_look])
            self.path.append(decide(str(self.home), gates[name], self._standing(place_of_look)))
            name = self.path[-1].next
            if name == NEXT_LOOK and place_of_look + 1 < len(looks):
                place_of_look += 1
                name = self.protocol.plan.gates[0].name

    def _probe(self, look: int) -> None:
        """Train, audit and evaluate the probes."""
        seeds, base = self.protocol.seeds(look), self.arms.base
        if base is not None:
            cells = [(seed, PROBE) for seed in seeds]
            modules = rank_training.module_names(base)
            uniform = Placed(arm=PROBE, ranks=dict.fromkeys(modules, self.protocol.probe_rank))
            self.arms.placed |= dict.fromkeys(cells, uniform)
            self.arms.train(cells)
            self.arms.audit(cells)
            self.arms.evaluate([(None, BASE), *cells])
        rows = rank_checks.probe(self.home, self.arms.exams, self.arms.failures, seeds, self.protocol.bounds)
        self._conclude("probe", look, rows)

    def _probe_again(self, look: int) -> None:
        """The same with twice the steps, which hold for every arm from here on."""
        self.arms.recipe = replace(self.protocol.recipe, steps=2 * self.protocol.recipe.steps)
        self._probe(look)

    def _controls(self, look: int) -> None:
        """Place the ranks of every arm and compare the controls with the treatment."""
        audits = self.arms.audits(look)
        for seed in self.protocol.seeds(look):
            found = place(self.protocol.names, audits, seed, policy=self.protocol.policy)
            self.arms.placed |= {(seed, name): one for name, one in found.items()}
        rows = rank_checks.controls({cell: self.arms.placed[cell] for cell in self.protocol.cells(look)})
        self._conclude("controls", look, [*rows, *rank_analysis.stability(audits)])

    def _fair(self, look: int) -> None:
        """Train and evaluate every arm, and check that they may be compared."""
        cells = self.protocol.cells(look)
        self.arms.train(cells)
        self.arms.evaluate(cells)
        known = {cell: self.arms.exams[cell] for cell in cells if cell in self.arms.exams}
        failures = {cell: why for cell, why in self.arms.failures.items() if cell in cells}
        self._conclude(
            "fair", look, rank_checks.fair(self.home, known, self.arms.placed, failures, self.protocol.bounds)
        )

    def _placement(self, look: int) -> None:
        """Compare the answers."""
        keys: dict[str, dict[int, str]] = {name: {} for name in self.protocol.names}
        for seed in self.protocol.seeds(look):
            for name in self.protocol.names:
                keys[name][seed] = self.arms.exams[seed, name].key
        plan = self.protocol.plan
        asked = rank_analysis.Asked(
            margin=plan.margin,
            non_inferiority=self.protocol.non_inferiority,
            alpha=rank_analysis.level_of(plan.looks, plan.alpha, look),
            resamples=self.protocol.resamples,
        )
        key = rank_analysis.analysis_key(keys, asked)
        rank_analysis.analyse(str(self.home), f"{look} seeds", unwalked(keys), unwalked(asked), key)
        rows = rank_analysis.rows_of(Products(self.home, rank_analysis.KIND).read(key))
        self._conclude("placement", look, rows)
        exams = {cell: self.arms.exams[cell] for cell in self.protocol.cells(look)}
        found = rank_export.aggregated(
            rank_export.outcomes_of(self.home, exams),
            rows,
            model=self.protocol.model,
            non_inferiority=self.protocol.non_inferiority,
        )
        file = rank_export.write_results(
            self.home,
            found,
            profile=plan.profile,
            plan_hash=self.opened.row.plan_hash,
            step_id=self.analysis,
        )
        self.arms.book.record("aggregated results", [file])

    _prepare: ClassVar[Mapping[str, Callable[[RankRun, int], None]]] = {
        "probe": _probe,
        "probe_again": _probe_again,
        "controls": _controls,
        "fair": _fair,
        "placement": _placement,
    }

    def _conclude(self, experiment: str, look: int, rows: Sequence[Any]) -> None:
        """Record an analysis of this look, which the next gates read."""
        config = {
            "experiment": experiment,
            "look": look,
            "steps": self.arms.recipe.steps,
            "plan": self.opened.row.plan_hash,
            "exams": sorted(exam.key for exam in self.arms.exams.values()),
            "rows": [asdict(row) for row in rows],
        }
        self.analysis = fingerprint(config)
        config.pop("rows")
        step = self.arms.book.step(self.analysis, "analyse", experiment, None, config=config)
        study, model = self.protocol.plan.study, self.protocol.model
        found = [
            TestResultRow(step_id=self.analysis, study=study, model=model, look=look, **asdict(row))
            for row in rows
        ]
        self.arms.book.record(
            f"{experiment} at {look} seeds", [step, self.arms.book.planned(self.analysis), *found]
        )

    def _standing(self, place_of_look: int) -> Standing:
        plan, row = self.protocol.plan, self.opened.row
        return Standing(
            study=plan.study,
            profile=plan.profile,
            model=self.protocol.model,
            plan_hash=row.plan_hash,
            run_id=row.run_id,
            exploratory=row.exploratory,
            analysis=self.analysis,
            look=plan.looks[place_of_look],
            look_index=place_of_look + 1,
            looks_left=len(plan.looks) - place_of_look - 1,
        )

    def summary(self) -> str:
        """The last decision in a sentence."""
        return run_row.summary(self.path)

    def result(self) -> dict[str, Any]:
        """The decisions in order, and those of the last look, as plain data."""
        told = run_row.result(self.opened.row, self.protocol.model, self.path)
        return told | {"failed": [f"{said(cell)}: {why}" for cell, why in self.arms.failures.items()]}
