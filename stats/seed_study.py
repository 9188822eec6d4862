"""Everything the seed study asks of one model at one look, from a table of measured texts to rows.

A pure function of plain data: the caller names arms and roles, this module calls each analysis on the rows it
concerns. Families that decide: `positive_control` and `a_a` (two arms each), `integrity`, `seed_sources`,
`seed_effect`. Beside them the sharp null, the legacy view, the data-processing bound, the questions of
`stats.secondary` and the conversations, each one unit (`stats.conversations`), decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stats.diversity import METRICS, MIN_WORDS, RANGES
from stats.integrity import Outcome, integrity_rows
from stats.legacy import legacy_view, mixed_vs_paired
from stats.permutation import draws_for, sharp_null
from stats.rows import FloatArray, IntArray, TestRow
from stats.secondary import Texts, analyse_secondary, bound_rows, missingness_rows
from stats.seed_distribution import data_processing_rows, seed_sources_verdict
from stats.seed_effect import Design, analyse_seed_effect, compare_arms
from stats.sequential import look_levels

SAMPLE_LIMIT = 1_000_000
"""Samples a cell stay under this; a sample's number within arm and prompt is replicate * limit + k."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One generated text as the analysis sees it."""

    arm: str
    stream: int
    prompt: str
    constraint: str
    k: int
    probe: int
    seed32: int
    failure: str | None
    excluded: str | None
    words: int | None
    sha256: str | None
    metrics: Mapping[str, Sequence[float | str | None]]
    """Name -> (value, reason)."""
    with_thinking: Mapping[str, Sequence[float | str | None]] = field(default_factory=dict)
    """The same of a text together with its reasoning; empty where it has none."""
    domain: str = ""
    """Of the prompt; empty where unknown."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the plan fixes about the analysis of one look."""

    treatments: tuple[str, ...]
    controls: Mapping[str, tuple[str, str]]
    """Family (`positive_control`, `a_a`) -> the two arms it compares."""
    control_alpha: Mapping[str, float]
    """Family -> its fixed level."""
    kinds: Mapping[str, tuple[str, float | None]]
    """Treatment -> kind and dose of its entropy source."""
    design: Design
    required_pairs: int
    permutations: int
    """Least number of draws of the sharp null."""
    seed: int
    """Of the random draws of tests."""
    most_words: int | None = None
    """Words a text has at most, for the bound on metrics that grow with length; None where unknown."""


def analyse_look(
    texts: Sequence[Text],
    draws: Mapping[str, IntArray],
    question: Question,
    *,
    conversations: Sequence[Text] = (),
) -> list[TestRow]:
    """All rows of one look.

    Parameters
    ----------
    texts
        Every sample and same-seed repeat up to this look, failed ones included.
    draws
        Treatment -> (draws,) 32-bit values taken for diagnosis.
    conversations
        One unit a conversation, as `stats.conversations.as_unit` makes it; empty where none were held.

    Returns
    -------
    list of TestRow
        Each deciding family ends in one row of role `verdict`.
    """
    rng = np.random.default_rng(question.seed)
    main = _kept(texts, set(question.treatments))
    rows: list[TestRow] = []
    for family, arms in question.controls.items():
        rows += _compare(texts, family, arms, question)
    checked = set(question.treatments) | set(question.controls.get("a_a", ()))
    outcomes = [_outcome(text, question.design.primary) for text in texts if text.arm in checked]
    rows += integrity_rows(outcomes, required_pairs=question.required_pairs, rng=rng)
    rows += seed_sources_verdict(draws, alpha=question.design.alpha)
    effects = _effects(main, question, rng)
    rows += _bounds(effects, question)
    rows += effects
    if len({text.arm for text in main}) > 1:  # otherwise nothing is left to compare
        multi = _columns(_kept(conversations, set(question.treatments)), question)
        rows += analyse_secondary(
            _columns(main, question),
            question.design,
            multi=multi if conversations else None,
            alpha=question.design.alpha,
        )
    rows += _missingness([text for text in texts if text.arm in checked], rng)
    if conversations:
        rows += _multi_turn(conversations, question)
        lost = _missingness(conversations, rng)
        rows += [replace(row, family="multi_turn_missingness") for row in lost]
    return rows


def _bounds(effects: Sequence[TestRow], question: Question) -> list[TestRow]:
    """The most that the seeds' declared distributions allow; with bounded length, beside what was seen."""
    if question.most_words is None:
        return data_processing_rows(question.kinds, RANGES)
    seen = [row for row in effects if row.family.startswith("seed_effect")]
    return bound_rows(question.kinds, max(question.most_words, MIN_WORDS), seen)


def _columns(texts: Sequence[Text], question: Question) -> Texts:
    """The texts as `stats.secondary` takes them; one without reasoning is the same with it left in."""
    metrics = (*question.design.primary, "length_words")
    reasoned = [replace(text, metrics=text.with_thinking or text.metrics) for text in texts]
    return Texts(
        values=_values(texts, metrics),
        source=[text.arm for text in texts],
        prompt=[text.prompt for text in texts],
        stream=[str(text.stream) for text in texts],
        domain=[text.domain for text in texts],
        kept=_values(reasoned, metrics) if any(text.with_thinking for text in texts) else None,
    )


def _missingness(texts: Sequence[Text], rng: np.random.Generator) -> list[TestRow]:
    """Whether what loses texts depends on the arm, cause by cause."""
    samples = [text for text in texts if text.probe == 0]
    return missingness_rows([text.arm for text in samples], [_cause(text) for text in samples], rng=rng)


def _cause(text: Text) -> str | None:
    """Why a text is excluded, in words that equal causes share: neither turn nor counts."""
    if text.failure is not None:
        return re.sub(r"^turn \d+: ", "", text.failure).partition(":")[0]
    return None if text.excluded is None else f"under {MIN_WORDS} words"


def _effects(main: Sequence[Text], question: Question, rng: np.random.Generator) -> list[TestRow]:
    """The primary analysis, then what is shown beside it."""
    design = question.design
    values = _values(main, (*design.primary, *design.secondary))
    source, prompt = [t.arm for t in main], [t.prompt for t in main]
    stream = [str(t.stream) for t in main]
    rows = analyse_seed_effect(values, source=source, prompt=prompt, stream=stream, design=design)
    if len(set(source)) < 2:
        return rows  # the verdict row says what is missing; nothing is left to compare
    level = look_levels(design.looks, alpha=design.alpha, gamma=design.gamma, groups=len(design.sources))
    n_draws = draws_for(level[design.look], minimum=question.permutations)
    rows += sharp_null(values, source=source, prompt=prompt, n_draws=n_draws, rng=rng, primary=design.primary)
    every = _values(main, METRICS)
    rows += legacy_view(every, source=source, prompt=prompt, stream=stream)
    rows += mixed_vs_paired(every, source=source, prompt=prompt)
    return rows


def _multi_turn(conversations: Sequence[Text], question: Question) -> list[TestRow]:
    """The sources compared on conversations, by the primary analysis, in a family that decides nothing."""
    design = question.design
    kept = _kept(conversations, set(question.treatments))
    if len({text.prompt for text in conversations}) < 2:
        return [
            TestRow(
                family="multi_turn",
                hypothesis="omnibus",
                method="mixed model",
                role="secondary",
                n=len(kept),
                reason="one conversation; a mean over conversations needs two",
            )
        ]
    rows = analyse_seed_effect(
        _values(kept, (*design.primary, *design.secondary)),
        source=[text.arm for text in kept],
        prompt=[text.prompt for text in kept],
        stream=[str(text.stream) for text in kept],
        design=design,
        family="multi_turn",
    )
    return [replace(row, role="secondary") if row.role in ("decides", "verdict") else row for row in rows]


def _compare(texts: Sequence[Text], family: str, arms: tuple[str, str], question: Question) -> list[TestRow]:
    """Two arms, the second given only the streams' share that the smaller one has: its first stream."""
    kept = _kept(texts, set(arms))
    first = {arm: min((t.stream for t in kept if t.arm == arm), default=0) for arm in arms}
    single = any(len({t.stream for t in kept if t.arm == arm}) == 1 for arm in arms)
    rows = [t for t in kept if not single or t.stream == first[t.arm]]
    return compare_arms(
        _values(rows, question.design.primary),
        source=[t.arm for t in rows],
        prompt=[t.prompt for t in rows],
        stream=["one" if single else str(t.stream) for t in rows],
        design_alpha=question.control_alpha[family],
        primary=question.design.primary,
        margin_sd=question.design.margin_sd,
        family=family,
    )


def _kept(texts: Sequence[Text], arms: set[str]) -> list[Text]:
    return [t for t in texts if t.arm in arms and t.probe == 0 and t.excluded is None]


def _values(texts: Sequence[Text], metrics: Sequence[str]) -> dict[str, FloatArray]:
    """Metric -> (texts,) values; NaN marks a text without one, which that metric's tests leave out."""
    columns = {name: [text.metrics[name][0] for text in texts] for name in metrics}
    return {
        name: np.array([np.nan if value is None else float(value) for value in found], dtype=np.float64)
        for name, found in columns.items()
    }


def _outcome(text: Text, primary: Sequence[str]) -> Outcome:
    return Outcome(
        arm=text.arm,
        prompt_id=text.prompt,
        constraint=text.constraint,
        seed32=text.seed32,
        sample=text.stream * SAMPLE_LIMIT + text.k,
        probe=text.probe,
        text_ok=text.failure is None,
        reason=text.failure,
        words=text.words,
        text_sha=text.sha256,
        undefined=frozenset(
            name for name in primary if text.excluded is None and text.metrics[name][0] is None
        ),
    )
