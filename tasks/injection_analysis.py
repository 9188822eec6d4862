"""The analysis of one look of injection as a cached task: measured texts in, rows of the `test` table out.

Families that decide: `positive_control_<source>`, each control against its base, in the mean and in any
prompt, at half the level each; `a_a`; `integrity`, of working sources alone, since a faulty one may well
repeat its texts; `injection_effect`, sources within modes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from stats.injection_effect import InjectedText, analyse_injection
from stats.integrity import Outcome, integrity_rows
from stats.permutation import draws_for, sharp_null
from stats.rows import FloatArray, TestRow
from stats.seed_effect import Design, compare_arms
from tasks import measuring
from tasks.generation import read_output
from tasks.injection_cells import InjectedSample, InjectionArm
from tasks.injection_generation import divergence
from tasks.seed_analysis import KIND, similarity
from tasks.shell import product_key

WORKING = ("treatment", "baseline", "a_a")
"""Roles whose texts must be whole and distinct."""

COMPARED = ("treatment", "baseline")
"""Roles that the question is about."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the plan fixes about the analysis of one look."""

    arms: tuple[InjectionArm, ...]
    primary: tuple[str, ...]
    secondary: tuple[str, ...]
    margin_sd: float
    alpha: float
    aa_alpha: float
    looks: tuple[int, ...]
    look: int
    required_pairs: int

    def at(self, look: int, looks: tuple[int, ...]) -> Question:
        """The same question at another look."""
        return replace(self, look=look, looks=looks)


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text as the analysis sees it."""

    arm: InjectionArm
    prompt: str
    constraint: str
    k: int
    probe: int
    seed32: int
    kl_nats: float | None
    """Mean over the text's tokens."""
    failure: str | None
    excluded: str | None
    words: int | None
    sha256: str | None
    metrics: Mapping[str, Sequence[float | str | None]]
    """Name -> (value, reason)."""


def analysis_code() -> str:
    """Fingerprint of every formula between measured texts and rows."""
    formulas = ("stats.injection_effect", "stats.integrity", "stats.permutation")
    return code(*formulas, "models.prompts", alone=("tasks.injection_analysis",))


def analysis_key(measured: Sequence[str], question: Question) -> str:
    """Fingerprint of the measured blocks, the question and the formulas."""
    return fingerprint([list(measured), asdict(question), analysis_code()])


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
    samples: Sequence[InjectedSample],
    measured: Sequence[str],
    question: Question,
    key: str,
) -> dict[str, Any]:
    """Analyse all samples up to a look; the product holds the test rows and the cells' similarity."""
    found: dict[str, Any] = {}
    for block in measured:
        found |= Products(Path(home), measuring.KIND).read(block)
    texts = [_text(Path(home), one, found[one.sample.sample_id]) for one in samples]
    rows = analyse_look(texts, question)
    body = {
        "tests": [asdict(row) for row in rows],
        "similarity": similarity(Path(home), [one.sample for one in samples]),
    }
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(rows)}


def _text(home: Path, one: InjectedSample, found: Mapping[str, Any]) -> Text:
    sample = one.sample
    nats = divergence(read_output(home, sample.sample_id, {}))[0] if one.arm.changes_distribution else None
    known = ("failure", "excluded", "words", "sha256", "metrics")
    return Text(
        arm=one.arm,
        prompt=sample.cell.prompt.prompt_id,
        constraint=sample.cell.prompt.constraint,
        k=sample.k,
        probe=sample.probe,
        seed32=sample.draw.seed32,
        kl_nats=nats,
        **{name: found[name] for name in known},
    )


def analyse_look(texts: Sequence[Text], question: Question) -> list[TestRow]:
    """All rows of one look; each deciding family ends in one row of role `verdict`."""
    rng = np.random.default_rng(question.look)
    rows: list[TestRow] = []
    for arm in question.arms:
        if arm.role == "a_a":
            rows += _compare(texts, arm, question, "a_a", question.aa_alpha)
        elif arm.role == "positive_control":
            family = f"positive_control_{arm.label.lower()}"
            rows += _compare(texts, arm, question, family, question.alpha / 2)
            rows += _any_effect(texts, arm, question, family, rng)
    outcomes = [_outcome(text) for text in texts if text.arm.role in WORKING]
    conditions = {arm.name: arm.condition for arm in question.arms}  # sources are compared within one
    rows += integrity_rows(
        outcomes, required_pairs=question.required_pairs, rng=rng, group_of=conditions.__getitem__
    )
    injected = [
        _injected(text, question)
        for text in _kept(texts)
        if text.arm.role in COMPARED and text.k < question.look  # a control's base has more
    ]
    if any(text.decides for text in injected):  # else there is no verdict, which the gate calls INVALID
        rows += analyse_injection(injected, _design(question))
    return rows


def _design(question: Question) -> Design:
    return Design(
        primary=question.primary,
        secondary=question.secondary,
        margin_sd=question.margin_sd,
        alpha=question.alpha,
        looks=question.looks,
        look=question.look,
        sources=tuple(sorted({arm.label for arm in question.arms if arm.role == "treatment"})),
    )


def _injected(text: Text, question: Question) -> InjectedText:
    how = text.arm.injection
    return InjectedText(
        mode=how.mode,
        source=text.arm.label,
        prompt=text.prompt,
        values={name: _number(text, name) for name in (*question.primary, *question.secondary)},
        dose=how.dose,
        law=how.law,
        control=how.control,
        kl_nats=text.kl_nats,
    )


def _compare(
    texts: Sequence[Text], arm: InjectionArm, question: Question, family: str, alpha: float
) -> list[TestRow]:
    """Whether an arm's mean differs from its base's, at a fixed level."""
    kept = [text for text in _kept(texts) if text.arm.name in (arm.name, arm.base)]
    return compare_arms(
        _values(kept, question.primary),
        source=[text.arm.name for text in kept],
        prompt=[text.prompt for text in kept],
        stream=["one"] * len(kept),
        design_alpha=alpha,
        primary=question.primary,
        margin_sd=question.margin_sd,
        family=family,
    )


def _any_effect(
    texts: Sequence[Text], arm: InjectionArm, question: Question, family: str, rng: np.random.Generator
) -> list[TestRow]:
    """Whether a faulty source differs from its base in any prompt.

    One that gives every text of a prompt the same number shifts each prompt its own way, so that its mean
    over prompts may stay where it was.
    """
    kept = [text for text in _kept(texts) if text.arm.name in (arm.name, arm.base)]
    if len({text.arm.name for text in kept}) < 2:
        return []
    return sharp_null(
        _values(kept, question.primary),
        source=[text.arm.name for text in kept],
        prompt=[text.prompt for text in kept],
        n_draws=draws_for(question.alpha / 2),
        rng=rng,
        primary=question.primary,
        family=family,
    )


def _kept(texts: Sequence[Text]) -> list[Text]:
    return [text for text in texts if text.probe == 0 and text.excluded is None]


def _values(texts: Sequence[Text], metrics: Sequence[str]) -> dict[str, FloatArray]:
    """Metric -> (texts,) values; NaN marks a text without one, which that metric's tests leave out."""
    columns = {name: [_number(text, name) for text in texts] for name in metrics}
    return {
        name: np.array([np.nan if value is None else value for value in found], dtype=np.float64)
        for name, found in columns.items()
    }


def _number(text: Text, metric: str) -> float | None:
    value = text.metrics[metric][0]
    return None if value is None else float(value)


def _outcome(text: Text) -> Outcome:
    return Outcome(
        arm=text.arm.name,
        prompt_id=text.prompt,
        constraint=text.constraint,
        seed32=text.seed32,
        sample=text.k,
        probe=text.probe,
        text_ok=text.failure is None,
        reason=text.failure,
        words=text.words,
        text_sha=text.sha256,
    )
