"""The analysis of one look as a cached task: measured texts and seeds in, rows of the `test` table out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.records import MetricRow, TestResultRow
from models.entropy import Draw
from stats.conversations import as_unit
from stats.diversity import pairwise_jaccard
from stats.seed_effect import Design
from stats.seed_study import Question, Text, analyse_look
from tasks import measuring
from tasks.generation import read_outputs
from tasks.seed_cells import Arm, Sample
from tasks.shell import product_key

KIND = "analysis"


def question(
    arms: Sequence[Arm],
    *,
    primary: tuple[str, ...],
    secondary: tuple[str, ...],
    margin_sd: float,
    alpha: float,
    aa_alpha: float,
    looks: tuple[int, ...],
    look: int,
    required_pairs: int,
    permutations: int,
    most_words: int | None = None,
) -> Question:
    """The analysis of one look of these arms."""
    treatments = [arm for arm in arms if arm.role == "treatment"]
    controls = [arm for arm in arms if arm.base is not None]
    return Question(
        treatments=tuple(arm.name for arm in treatments),
        controls={arm.role: (str(arm.base), arm.name) for arm in controls},
        control_alpha={arm.role: aa_alpha if arm.role == "a_a" else alpha for arm in controls},
        kinds={arm.name: (arm.kind, None) for arm in treatments},
        design=Design(
            primary=primary,
            secondary=secondary,
            margin_sd=margin_sd,
            alpha=alpha,
            looks=looks,
            look=look,
            sources=tuple(sorted(arm.name for arm in treatments)),
        ),
        required_pairs=required_pairs,
        permutations=permutations,
        seed=look,
        most_words=most_words,
    )


def analysis_code() -> str:
    """Fingerprint of every formula between texts and rows, and of the prompts' levels and domains."""
    return code("stats.conversations", "stats.seed_study", "models.prompts", alone=("tasks.seed_analysis",))


def analysis_key(measured: Sequence[str], draws: Mapping[str, Sequence[Draw]], question: Question) -> str:
    """Fingerprint of the measured blocks, the diagnostic seeds, the question and the formulas."""
    seeds = {name: [draw.seed32 for draw in found] for name, found in draws.items()}
    return fingerprint([list(measured), seeds, asdict(question), analysis_code()])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse",
    task_run_name="analyse {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse(
    home: str,
    what: str,
    samples: Sequence[Sample],
    measured: Sequence[str],
    draws: Mapping[str, Sequence[Draw]],
    question: Question,
    key: str,
) -> dict[str, Any]:
    """Analyse all texts and turns up to a look; the product holds test rows and the cells' similarity."""
    found: dict[str, Any] = {}
    for block in measured:
        found |= Products(Path(home), measuring.KIND).read(block)
    texts = [_text(sample, found[sample.sample_id]) for sample in samples if sample.turn == 0]
    talks = [_text(turns[0], as_unit([found[turn.sample_id] for turn in turns])) for turns in whole(samples)]
    seeds = {name: np.array([draw.seed32 for draw in taken], dtype=np.int64) for name, taken in draws.items()}
    rows = analyse_look(texts, seeds, question, conversations=talks)
    body = {"tests": [asdict(row) for row in rows], "similarity": similarity(Path(home), samples)}
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(rows)}


def whole(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The conversations among the samples, each as its turns in order."""
    turns: dict[tuple[str, int, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.turn:
            turns[sample.cell.step_id, sample.k, sample.probe].append(sample)
    return [sorted(found, key=lambda turn: turn.turn) for found in turns.values()]


def _text(sample: Sample, found: Mapping[str, Any]) -> Text:
    return Text(
        arm=sample.cell.arm.name,
        stream=sample.cell.stream,
        prompt=sample.cell.prompt.prompt_id,
        domain=sample.cell.prompt.domain,
        constraint=sample.cell.prompt.constraint,
        k=sample.k,
        probe=sample.probe,
        seed32=sample.draw.seed32,
        **found,
    )


def similarity(home: Path, samples: Sequence[Sample]) -> dict[str, tuple[float | None, str | None]]:
    """Mean pairwise Jaccard similarity of the texts of each cell, by step id.

    A conversation counts as one text, its replies joined; one with a failed turn is in no pair.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    units = [[sample] for sample in samples if sample.turn == 0] + whole(samples)
    for unit in units:
        said = [read_outputs(home, [turn], {})[turn.sample_id]["text"] for turn in unit if turn.probe == 0]
        if said and None not in said:
            texts[unit[0].cell.step_id].append("\n\n".join(said))
    return {step_id: pairwise_jaccard(found) for step_id, found in texts.items()}


def result_rows(
    body: Mapping[str, Any], *, step_id: str, study: str, model: str, look: int
) -> list[TestResultRow]:
    """Rows of the `test` table from an analysis product."""
    return [
        TestResultRow(step_id=step_id, study=study, model=model, look=look, **row) for row in body["tests"]
    ]


def similarity_rows(body: Mapping[str, Any], look: int) -> list[MetricRow]:
    """Rows of the `metric` table: one a cell; the unit is `look/<k>`."""
    return [
        MetricRow(step_id=step_id, unit=f"look/{look}", name="pairwise_jaccard", value=value, reason=reason)
        for step_id, (value, reason) in body["similarity"].items()
    ]
