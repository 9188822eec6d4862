"""A ladder under way: rungs climbed one by one, confirmed where DETECTED, compared, decided."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import psutil

from flows import ladder_gates, seed_run
from flows.seed_protocol import Protocol as SeedProtocol
from lab.fingerprint import fingerprint
from lab.gates import NEXT_LOOK, STOP, Gate
from lab.plan import Plan
from lab.products import Products
from lab.records import PlanStepRow, Record
from models.backends import BackendError
from tasks import across_rungs, seed_analysis
from tasks.across_rungs import Across, Climbed
from tasks.deciding import Standing, walk
from tasks.shell import unwalked

logger = logging.getLogger(__name__)

ALL_RUNGS = "all rungs"
CONFIRMATION = "confirmation"
STREAM_SHIFT = 5_000_011
"""Added to the streams of a confirmation, so that a deterministic source draws other seeds."""

BYTES_A_PARAMETER = {"local": 4.0, "transformers": 4.0, "ollama": 0.75, "replay": 0.0}
"""Memory while generating: float32, or 4-bit weights with their scales and cache."""


class Rung(Protocol):
    """What a ladder needs to know of a rung."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def parameters(self) -> int:
        """Its size."""

    @property
    def line(self) -> str:
        """Whose models it belongs to."""


def begin(plan: Plan, protocols: Mapping[str, SeedProtocol], settings: Any) -> Ladder:
    """Freeze the ladder's plan if it is the first, and open its run's row.

    Raises
    ------
    UsageError
        For a home that cannot be written or a frozen plan that is damaged.
    """
    first = next(iter(protocols.values()))
    top = seed_run.begin(replace(first, plan=plan, model=ALL_RUNGS))
    return Ladder(top=top, protocols=protocols, settings=settings)


@dataclass
class Ladder:
    """The run of all rungs; `top` keeps its row and its path."""

    top: seed_run.Run
    protocols: Mapping[str, SeedProtocol]
    settings: Any
    climbed: list[Climbed] = field(default_factory=list)
    fresh: list[Climbed] = field(default_factory=list)
    concluding: list[str] = field(default_factory=list)
    """Ids of the decisions that say the last word on a rung, a confirmation or the ladder."""
    analysis: str = ""
    """Key of the last comparison of the rungs."""

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close the run's row whatever happens."""
        with self.top.closing():
            yield

    def run(self) -> None:
        """Climb the rungs, confirm what is DETECTED, then say what they show together."""
        rungs, most = self.settings.rungs, self.settings.climb_to
        for count, rung in enumerate(rungs):
            if most is not None and count >= most and self.top.path and self._ended() is None:
                # with nothing decided yet, every rung so far was skipped: the next one is taken
                logger.info("%d of %d rungs are climbed; the next run goes on from there", count, len(rungs))
                return
            self.climb(rung)
        self.compare("screen")
        for model in self.to_confirm():
            self.confirm(model)
        if self.fresh:
            self.compare("with confirmations")
        self.decide()

    def climb(self, rung: Rung) -> None:
        """Take one rung through its looks, or say why not."""
        lacks = self._ended() or _lacks(rung, self.protocols[rung.model])
        if lacks is not None:
            self._skip(rung, lacks)
            return
        logger.info("rung %s: %s parameters", rung.model, f"{rung.parameters:,}")
        run = self._run(self.protocols[rung.model])
        below = self.climbed[-1] if self.climbed else None
        run.previous = below.model if below is not None and below.analysis else ""
        try:
            run.obtain_model()
            look = self._looks(run)
        except BackendError as error:
            self._skip(rung, error.reason)
            return
        finally:
            self._take_over(run)
        last = [row for row in run.path if row.gate != ladder_gates.CLIMB][-1]
        self.concluding.append(last.decision_id)
        unfit = None if last.gate == ladder_gates.RUNG_EFFECT.name else f"{last.gate} {last.verdict}"
        self.climbed.append(_climbed(rung, run, look, unfit and f"{unfit}: {last.sentence}"))

    def _ended(self) -> str | None:
        """Why no further rung is climbed, by what the gates said of the last one."""
        if not self.top.path:
            return None
        last = self.top.path[-1]
        if last.next == ladder_gates.LADDER_END:
            return across_rungs.ENDED
        return f"the ladder stopped at {last.model}: {last.sentence}" if last.next == STOP else None

    def _run(self, protocol: SeedProtocol) -> seed_run.Run:
        top = self.top
        return seed_run.Run(
            protocol=protocol, home=top.home, row=top.row, device=top.device, frozen_at=top.frozen_at
        )

    def _take_over(self, run: seed_run.Run) -> None:
        """What a rung's run decided, and when its texts were made."""
        self.top.path += run.path
        self.top.oldest = min((t for t in (self.top.oldest, run.oldest) if t is not None), default=None)

    def _looks(self, run: seed_run.Run) -> int:
        """Look by look until a gate leads on; returns the last one taken."""
        began, taken = time.monotonic(), 0
        for taken in run.looks:
            samples = run.draw(taken)
            run.generate(taken, samples)
            run.measure(taken, samples)
            run.analyse(taken)
            left = [look for look in run.looks if look > taken]
            hours = (time.monotonic() - began) / 3600.0
            dear = bool(left) and hours * left[0] / taken > self.settings.rung_hours
            if dear:
                logger.info("a look at %d samples would take over %g h", left[0], self.settings.rung_hours)
            if run.decide(taken, is_last=dear) != NEXT_LOOK:
                break
        return taken

    def _skip(self, rung: Rung, why: str) -> None:
        """A rung without an answer: a row with the reason, and on to the next."""
        logger.warning("rung %s is skipped: %s", rung.model, why)
        self.climbed.append(
            Climbed(
                model=rung.model,
                parameters=rung.parameters,
                line=rung.line,
                analysis="",
                look=1,
                looks=(1,),
                skipped=why,
            )
        )
        config = {"rung": rung.model, "plan": self.top.row.plan_hash, "skipped": why}
        self._record_step(fingerprint(config), "rung", config, model=rung.model, reason=why)

    def to_confirm(self) -> list[str]:
        """Models DETECTED after correction over the rungs."""
        body = Products(self.top.home, across_rungs.KIND).read(self.analysis)
        return across_rungs.detected(body or {"tests": []})

    def confirm(self, model: str) -> None:
        """Generate a rung again, from tapes of its own, and put the texts to the gates of the assay."""
        samples = self.settings.confirmation_samples
        known = self.protocols[model]
        run = self._run(
            replace(
                known,
                plan=replace(known.plan, looks=(samples,), gates=ladder_gates.CONFIRMATION_GATES),
                samples=None,
                series=CONFIRMATION,
                recorded_as=f"{model} · {CONFIRMATION}",
                label=f"{model}, confirmation, ",
                arms=tuple(
                    replace(arm, streams=tuple(stream + STREAM_SHIFT for stream in arm.streams))
                    for arm in known.arms
                ),
            )
        )
        run.row = replace(run.row, exploratory=self.top.is_exploratory)
        logger.info("rung %s is DETECTED: %d fresh samples a cell to confirm it", model, samples)
        rung = next(found for found in self.settings.rungs if found.model == model)
        unfit = None
        try:
            run.obtain_model()
            self._looks(run)
            if run.path[-1].next != ladder_gates.SCALE_UP:
                unfit = f"{run.path[-1].gate} {run.path[-1].verdict}: {run.path[-1].sentence}"
        except BackendError as error:
            unfit = error.reason
        finally:
            self._take_over(run)
        self.fresh.append(_climbed(rung, run, samples, unfit))

    def compare(self, what: str) -> None:
        """Analyse the rungs together."""
        plan = self.top.protocol.plan
        asked = Across(
            primary=plan.primary,
            sources=tuple(sorted(arm.name for arm in self.top.protocol.arms if arm.role == "treatment")),
            model_contrast=self.settings.model_contrast,
            alpha=plan.alpha,
            confirmation_samples=self.settings.confirmation_samples,
        )
        key = across_rungs.across_key(self.climbed, self.fresh, asked)
        across_rungs.compare_models(
            str(self.top.home), what, unwalked(self.climbed), unwalked(self.fresh), unwalked(asked), key
        )
        self.analysis = key
        body = Products(self.top.home, across_rungs.KIND).read(key)
        config = {"rungs": [rung.model for rung in self.climbed], "fresh": [r.model for r in self.fresh]}
        code = across_rungs.across_code()
        self._record_step(key, "compare models", config, model=ALL_RUNGS, code=code)
        rows = seed_analysis.result_rows(
            body or {"tests": []}, step_id=key, study=plan.study, model=ALL_RUNGS, look=self.look
        )
        self.top.record("tests over all rungs", rows)

    @property
    def look(self) -> int:
        """The largest look that any rung took; 0 when none was measured."""
        return max(rung.look if rung.analysis else 0 for rung in self.climbed)

    def _record_step(
        self, step_id: str, experiment: str, config: Mapping[str, object], *, model: str, **known: Any
    ) -> None:
        step = self.top.step(experiment, step_id=step_id, config=config, model=model, **known)
        rows: Sequence[Record] = [step, PlanStepRow(plan_hash=self.top.row.plan_hash, step_id=step_id)]
        self.top.record(f"{experiment} {model}", rows)

    def decide(self) -> None:
        """Ask the gates about the confirmations, then about the whole ladder."""
        for rung in self.fresh:
            self._ask(ladder_gates.SCALE_UP_GATE, rung.model, rung.look)
        self._ask(ladder_gates.LADDER_END_GATE, ALL_RUNGS, self.look)

    def _ask(self, gate: Gate, model: str, look: int) -> None:
        row = self.top.row
        standing = Standing(
            study=row.study,
            profile=row.profile,
            model=model,
            plan_hash=row.plan_hash,
            run_id=row.run_id,
            exploratory=self.top.is_exploratory,
            analysis=self.analysis,
            look=look,
            look_index=1,
            looks_left=0,
        )
        self.top.path += walk(str(self.top.home), (gate,), standing)
        self.concluding.append(self.top.path[-1].decision_id)

    def summary(self) -> str:
        """The last decision in a sentence."""
        return self.top.summary()

    def result(self) -> dict[str, Any]:
        """All decisions in order, and those that conclude a rung or the ladder, as plain data."""
        found = self.top.result()
        concluding = [row for row in found["decisions"] if row["decision_id"] in self.concluding]
        return found | {"concluding": concluding}


def _lacks(rung: Rung, protocol: SeedProtocol) -> str | None:
    """What this machine lacks for a rung; None when nothing is known to be missing."""
    if protocol.backend == "ollama" and protocol.host is not None:
        return None  # another machine's memory
    needed = rung.parameters * BYTES_A_PARAMETER[protocol.backend] / 2**30 + 0.5
    there = psutil.virtual_memory().total / 2**30
    if needed <= there:
        return None
    return f"{rung.model} needs about {needed:.1f} GiB of memory, this machine has {there:.1f}"


def _climbed(rung: Rung, run: seed_run.Run, look: int, unfit: str | None) -> Climbed:
    design, home = run.design, run.home
    tapes = [design.tape(home, arm, stream).path for arm in design.arms for stream in arm.streams]
    return Climbed(
        model=rung.model,
        parameters=rung.parameters,
        line=rung.line,
        analysis=run.analysis if unfit is None else "",
        look=look,
        looks=run.protocol.looks_at(look) if look else (1,),
        skipped=unfit,
        tapes=tuple(str(path.relative_to(home)) for path in tapes),
    )
