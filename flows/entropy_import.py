"""Do results of earlier scripts bear what was concluded from them?

Files of four earlier formats are read, measured again where their texts are whole, and put to the gates of
the seed study. A plan is frozen for each file, by its content, before its analysis; but the data came first,
so every decision is exploratory. Such data have no positive control and no A/A arm, which the gates say, and
no seed was generated twice, which flags their integrity: an EQUIVALENT here is weaker than one of our own.

Prediction, fixed before the first import: files whose texts are missing in one arm, repeated over seeds or
without a defined primary metric come out INVALID, whatever they were said to show. Against it counts a file
that passes and whose effect an own run under a frozen plan does not find again.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import entropy_gates
from flows.run_row import open_row, publish, told
from lab.earlier_formats import read_earlier
from lab.earlier_results import EarlierFile, Part
from lab.gates import IMPOSSIBLE, STOP, Comparison, Gate, Route, Rule
from lab.home import resolve_home
from lab.machine import environment
from lab.plan import Plan, deviations, freeze, plan_hash, plan_row, read_declared
from lab.products import Products
from lab.records import DecisionRow, Record, RunRow, StudyRow
from lab.runs import closed
from lab.store import Store
from lab.tables import utc_now
from tasks import importing
from tasks.deciding import Standing, show_path, walk
from tasks.imported_rows import (
    Place,
    generation_rows,
    metric_rows,
    result_rows,
    seed_rows,
    similarity_rows,
    step_rows,
)
from tasks.recording import record
from tasks.shell import unwalked

logger = logging.getLogger(__name__)

NAME = "entropy_import"
QUESTION = "Do results of earlier scripts bear what was concluded from them?"
PREDICTION = (
    "Files with an arm of missing texts, with texts repeated over seeds or with an undefined primary metric "
    "are INVALID. Against it counts a file that passes and whose effect an own run does not find again."
)
_NOTHING = (Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),)


def _not_asked(gate: Gate, following: str) -> Gate:
    """A gate of the seed study whose arm imported results lack: it says so and lets them pass, flagged."""
    never = Route(next=IMPOSSIBLE, sentence="imported results lack the arm this gate asks about")
    routes = {
        "INVALID": Route(next=STOP, sentence="there is no analysis to ask"),
        "DETECTED": never,
        "EQUIVALENT": never,
        "INCONCLUSIVE": Route(next=following, sentence="not asked: {findings}"),
    }
    return replace(gate, rules=_NOTHING, routes=routes, min_n=0)


def _routed(gate: Gate, **following: str) -> Gate:
    """A gate of the seed study whose verdicts lead elsewhere."""
    changed = {
        verdict: Route(next=following[verdict], sentence=route.sentence)
        for verdict, route in gate.routes.items()
    }
    return replace(gate, routes=changed)


_ASSAY = (
    _not_asked(entropy_gates.POSITIVE_CONTROL, "a_a"),
    _not_asked(entropy_gates.A_A, "integrity"),
    entropy_gates.INTEGRITY,
)
GATES = (
    *_ASSAY,
    entropy_gates.SEED_SOURCES,
    _routed(
        entropy_gates.SEED_EFFECT,
        INVALID=STOP,
        DETECTED="entropy_seeds",
        EQUIVALENT="direct_injection",
        INCONCLUSIVE="entropy_seeds",
    ),
)
"""Of seeded results. What is found or left open there is for an own run to confirm or settle."""
INJECTION_GATES = (
    *_ASSAY,
    _not_asked(entropy_gates.SEED_SOURCES, "seed_effect"),
    replace(
        _routed(
            entropy_gates.SEED_EFFECT,
            INVALID=STOP,
            DETECTED="direct_injection",
            EQUIVALENT=STOP,
            INCONCLUSIVE="direct_injection",
        ),
        question="Does the source, acting on every token, change the text?",
    ),
)
"""Of results of direct injection, mode by mode."""


def gates(file: EarlierFile) -> tuple[Gate, ...]:
    """The tree a file's parts walk."""
    return GATES if file.has_seeds else INJECTION_GATES


def profile(file: EarlierFile) -> str:
    """Format and content: what a file's plan is frozen under."""
    return f"{file.format}-{file.sha256[:8]}"


def plan(file: EarlierFile, model: str) -> Plan:
    """The plan of a file; the same content has the same plan."""
    asked = importing.question(file.parts[0])
    return Plan(
        study=NAME,
        profile=profile(file),
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=("the mean over prompts of each primary metric is the same under every source",),
        primary=asked.design.primary,
        secondary=asked.design.secondary,
        margin=asked.design.margin_sd,
        margin_unit="within-cell SD",
        alpha=asked.design.alpha,
        looks=tuple(sorted({importing.samples_a_cell(part) for part in file.parts})),
        exclusions=("error or timeout", "no words left after stripping", "under 10 words"),
        design={
            "imported": file.sha256,
            "format": file.format,
            "model": model,
            "metrics": "computed from the texts" if file.is_whole else "as stored in the file",
            "arms": {part.name: part.arms for part in file.parts},
            "prompts": {part.name: [prompt.prompt_id for prompt in part.prompts] for part in file.parts},
            "required_pairs": asked.required_pairs,
            "permutations": asked.permutations,
        },
        gates=gates(file),
    )


def model_name(home: Path, file: EarlierFile) -> str:
    """What the file calls its model, else its own name; content known under a name keeps the first one."""
    known = read_declared(home, NAME, profile(file))
    if known is not None:
        return str(json.loads(known.text)["design"]["model"])
    return file.model or file.path.stem


def part_name(model: str, part: Part) -> str:
    """Under which name the decisions about a part stand: its model's, and what is not single-turn."""
    return model if part.name == "single_turn" else f"{model} · {part.name}"


@flow(
    name="entropy-import",
    flow_run_name="entropy import",
    description=QUESTION,
    validate_parameters=True,
)
def entropy_import(files: list[str]) -> State[dict[str, Any]]:
    """Read every file, and only then record, measure, analyse and decide, part by part."""
    found = {file.sha256: file for file in [read_earlier(Path(name)) for name in files]}
    home = resolve_home()
    parts = [told for file in found.values() for told in import_file(home, file)]
    publish(home)
    last = [part["decisions"][-1] for part in parts if part["decisions"]]
    message = "; ".join(f"{row['model']}: {row['gate']} {row['verdict']}" for row in last)
    return Completed(message=message, data={"study": NAME, "parts": parts})


def import_file(home: Path, file: EarlierFile) -> list[dict[str, Any]]:
    """Freeze the file's plan and take each of its parts through; returns what became of each."""
    now, model = utc_now(), model_name(home, file)
    used = plan(file, model)
    declared = read_declared(home, used.study, used.profile) or freeze(home, used, now=now)
    here = environment(device="cpu")
    study = StudyRow(study=NAME, question=QUESTION, text=__doc__ or "")
    departs = deviations(used, declared)
    opening: list[Record] = [study, plan_row(used, declared, now=now), here, *departs]
    record(str(home), "file", unwalked(opening))
    return [
        import_part(
            home,
            used,
            Place(
                study=NAME,
                model=part_name(model, part),
                plan_hash=plan_hash(used),
                environment_id=here.environment_id,
                file=file,
                part=part,
            ),
        )
        for part in file.parts
    ]


def import_part(home: Path, used: Plan, place: Place) -> dict[str, Any]:
    """Record a part's texts; where it has two sources, analyse it and ask the gates."""
    compared = len(place.part.arms) > 1
    key = importing.analysis_key(place.file, place.part)
    run = _run_row(used, place)
    with _closing(home, run if compared else None) as path:
        what = f"{place.model}, texts"
        rows = [*step_rows(place, key if compared else None), *generation_rows(place), *seed_rows(place)]
        record(str(home), what, unwalked(rows))
        importing.analyse_imported(str(home), place.model, unwalked(place.file), unwalked(place.part), key)
        body = Products(home, importing.KIND).read(key)
        measured: list[Record] = [*metric_rows(place, body), *similarity_rows(place, body)]
        measured += result_rows(place, body, key)
        record(str(home), f"{place.model}, metrics and tests", unwalked(measured))
        if compared:
            path += walk(str(home), used.gates, _standing(used, place, run, key))
    return _told(place, path)


def _run_row(used: Plan, place: Place) -> RunRow:
    return open_row(
        used,
        model=place.model,
        settings={"file": str(place.file.path), "part": place.part.name},
        environment_id=place.environment_id,
        exploratory=True,  # the data came before the plan
        now=utc_now(),
    )


@contextmanager
def _closing(home: Path, run: RunRow | None) -> Iterator[list[DecisionRow]]:
    """Keep the run's row from its begin to its end; a part that is not compared has none."""
    path: list[DecisionRow] = []
    if run is None:
        yield path
        return
    Store(home).record([run])
    try:
        yield path
    finally:
        error = sys.exception()
        state = "stopped" if path and path[-1].next == STOP else "completed"
        if error is not None:
            state = "failed" if isinstance(error, Exception) else "cancelled"
        note = None if error is None else f"{type(error).__name__}: {error}"
        Store(home).record([closed(run, state, note)])
    show_path(home, path)


def _standing(used: Plan, place: Place, run: RunRow, analysis: str) -> Standing:
    return Standing(
        study=NAME,
        profile=used.profile,
        model=place.model,
        plan_hash=place.plan_hash,
        run_id=run.run_id,
        exploratory=True,  # the data came before the plan
        analysis=analysis,
        look=importing.samples_a_cell(place.part),
        look_index=1,
        looks_left=0,
    )


def _told(place: Place, path: Sequence[DecisionRow]) -> dict[str, Any]:
    """A part and what was decided about it, as plain data."""
    part, file = place.part, place.file
    return {
        "file": str(file.path),
        "format": file.format,
        "part": part.name,
        "model": place.model,
        "texts": len(part.texts),
        "arms": list(part.arms),
        "prompts": len(part.prompts),
        "samples": importing.samples_a_cell(part),
        "metrics": "computed from the texts" if file.is_whole else "as stored in the file",
        "not_read": list(file.unread),
        "decisions": told(path),
    }
