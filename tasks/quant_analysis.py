"""Analyses of the quantisation study as cached tasks: products of evaluations in, rows of tests out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.records import MetricRow, Record, TestResultRow
from models.variants import CorpusSource
from stats.rows import TestRow
from tasks import quant_questions as questions
from tasks.quant_measured import PLAIN, Asked, Measured, Sentences
from tasks.quant_measuring import EVALUATION, SWEEP
from tasks.quant_nulls import judged, null_rows
from tasks.shell import product_key

KIND = "quant_analysis"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question to one replicate."""

    kind: str
    """A key of `ASK`."""
    family: str
    """Experiment that the rows belong to, or a name for several."""
    asked: Asked
    source: CorpusSource
    places: tuple[int, ...]
    """Sentences of the replicate."""
    keys: Mapping[str, str]
    """Name of each variant -> product of its evaluation."""
    sweep: str | None = None
    """Product of the sweep over blocks."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the question takes, as plain data."""


@lru_cache(maxsize=1)
def analysis_code() -> str:
    """Fingerprint of the statistics and of the questions."""
    return code(
        "stats.disparity",
        "stats.preservation",
        "stats.layer_effects",
        "stats.legacy_disparity",
        alone=("tasks.quant_questions", "tasks.quant_nulls", "tasks.quant_measured", "tasks.quant_analysis"),
    )


def analysis_key(question: Question) -> str:
    """What the analysis is filed under; the evaluations' keys stand for corpus and weights."""
    plain = asdict(question)
    plain.pop("source")
    return fingerprint([plain, analysis_code()])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse",
    task_run_name="analyse {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse(home: str, what: str, question: Question, key: str) -> str:
    """Answer the question unless it was answered; returns the key of the product."""
    if Products(Path(home), KIND).read(key) is None:
        Products(Path(home), KIND).write(key, answer(Path(home), question))
    return key


def answer(home: Path, question: Question) -> dict[str, Any]:
    """Rows of tests, and what later steps need of the answer."""
    bodies = {name: Products(home, EVALUATION).read(key) for name, key in question.keys.items()}
    at = Measured(question.asked, Sentences(corpus=question.source.load(), places=question.places), bodies)
    swept = None if question.sweep is None else Products(home, SWEEP).read(question.sweep)
    rows, further = ASK[question.kind](at, question, swept)
    if question.kind != "baseline":  # which is itself the check of the baseline
        rows = judged(rows, at)
    return {"rows": [asdict(row) for row in rows], "further": further, "metrics": _measures(at)}


Answer = tuple[Sequence[TestRow], dict[str, Any]]


def _baseline(at: Measured, question: Question, _: Any) -> Answer:
    return questions.baseline(at, question.family), {}


def _degradation(at: Measured, question: Question, _: Any) -> Answer:
    return questions.degradation(at, question.family), {}


def _disparity(at: Measured, question: Question, _: Any) -> Answer:
    rows = questions.disparity(at, question.family, question.details["others"])
    if question.details["with_nulls"]:  # a model of its own, whose nulls no other experiment shows
        rows = [*null_rows(at, question.family), *rows]
    return rows, {}


def _budgets(at: Measured, question: Question, _: Any) -> Answer:
    pairs = {name: (one[0], one[1], one[2]) for name, one in question.details["pairs"].items()}
    rows = questions.budgets(at, pairs, question.details["variants"], question.details["absent"])
    return rows, {}


def _best_budget(at: Measured, question: Question, _: Any) -> Answer:
    names = {float(percent): name for percent, name in question.details["names"]}
    return questions.best_budget(at, names, question.family), {}


def _blocks(at: Measured, question: Question, swept: Any) -> Answer:
    rows, saved = questions.critical_blocks(at, swept, question.family)
    return rows, {"saved": saved} if saved else {}


def _layer_protection(at: Measured, question: Question, swept: Any) -> Answer:
    return questions.layer_protection(at, swept, question.details["sets"], question.family), {}


ASK = {
    "baseline": _baseline,
    "degradation": _degradation,
    "disparity": _disparity,
    "budgets": _budgets,
    "best_budget": _best_budget,
    "blocks": _blocks,
    "layer_protection": _layer_protection,
}


def _measures(at: Measured) -> list[list[Any]]:
    """[variant, language, name, value, reason] of every variant: absolute costs, to be read across tables."""
    corpus, places, found = at.sentences.corpus, at.sentences.places, []
    for name, body in at.bodies.items():
        for one in at.asked.languages:
            losses = body["languages"][one.code]
            if losses["reason"] is not None:
                found.append([name, one.code, "bits_per_sentence", None, losses["reason"]])
                continue
            if losses["kl_reason"] is not None:
                gone = ("kl_bits_per_byte", "flip_rate")
                found += [[name, one.code, what, None, losses["kl_reason"]] for what in gone]
            texts = [corpus.side(one.code)[i] for i in places]
            totals = {
                what: sum(losses[what][i] for i in places)
                for what in ("bits", "tokens", "kl_bits", "flips")
                if losses[what] is not None
            }
            n_bytes = sum(len(text.encode()) for text in texts)
            values = {
                "bits_per_sentence": totals["bits"] / len(places),
                "bits_per_byte": totals["bits"] / n_bytes,
                "bits_per_character": totals["bits"] / sum(map(len, texts)),
                "nats_per_token": totals["bits"] * math.log(2) / totals["tokens"],
            }
            if name == PLAIN:
                values["byte_premium"] = corpus.byte_premium(one.code, at.asked.languages[0].code)
            if "kl_bits" in totals:
                values |= {
                    "kl_bits_per_byte": totals["kl_bits"] / n_bytes,
                    "flip_rate": totals["flips"] / totals["tokens"],
                }
            found += [[name, one.code, what, value, None] for what, value in values.items()]
    return found


def result_rows(body: Mapping[str, Any], *, key: str, study: str, model: str, look: int) -> list[Record]:
    """The answer as rows of tests and metrics."""
    rows: list[Record] = [
        TestResultRow(step_id=key, study=study, model=model, look=look, **row) for row in body["rows"]
    ]
    rows += [
        MetricRow(step_id=key, unit=f"{variant}/{language}", name=name, value=value, reason=reason)
        for variant, language, name, value, reason in body["metrics"]
    ]
    return rows
