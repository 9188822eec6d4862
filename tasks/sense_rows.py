"""Heads and baselines of the sense study as rows: how they learned, what they reached, item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lab.records import MetricRow, Record, RetrievalRow, TrainLogRow
from stats.coherence import Coherence
from stats.retrieval import Ranked, by_tier, margins
from stats.rows import FloatArray
from tasks.sense_answers import Asked, answers_of, asked, unlearned
from tasks.sense_training import ItemSet

RECORDED = ("best_step", "steps_to_threshold", "texts", "bundles", "proposed", "accepted", "parameters")
"""Of a training."""


def training_rows(facts: Mapping[str, Any], key: str) -> list[Record]:
    """The log of a training; `top1` and the attention's entropy on dev stand beside it, unit `step/N`."""
    rows: list[Record] = [
        TrainLogRow(
            step_id=key,
            iteration=one["step"],
            train_loss_nats=one["loss_nats"],
            valid_loss_nats=one["dev_loss_nats"],
            learning_rate=one["learning_rate"],
            tokens=None,
            seconds=None,
        )
        for one in facts["looks"]
    ]
    for one in facts["looks"]:
        rows += [
            _metric(key, f"step/{one['step']}", name, one[name]) for name in ("dev_top1", "attention_entropy")
        ]
    [kept] = [one for one in facts["looks"] if one["step"] == facts["best_step"]]
    rows += [_metric(key, "*", name, kept[name]) for name in ("loss_nats", "dev_loss_nats")]
    reasons = {"steps_to_threshold": "never reached"}
    return rows + [_metric(key, "*", name, facts[name], reasons.get(name)) for name in RECORDED]


def exam_rows(
    body: Mapping[str, Any], items: ItemSet, key: str, *, every_item: bool, examples: bool = False
) -> list[Record]:
    """What a head reached on a split, over all items (`*`) and by tier (`tier/1`); and each item's rank.

    With `examples`, attention on some queries, word by word. A head whose scores are no measurement has one
    row with the reason.
    """
    who = asked(items)
    try:
        found = answers_of([body], who)
    except ValueError as error:
        return [_metric(key, "*", "top1", None, str(error))]
    rows: list[Record] = []
    if found.ranked is not None:
        rows += _reached(found.ranked, who, key)
        rows += _attention(body["attention"], who, key)
        for name, value in (body["spread"] or {}).items():
            rows.append(_metric(key, "*", name, value))
        rows.append(_metric(key, "*", "known_words", body["known"]))
        if every_item:
            rows += _items(found.ranked, who, key)
    for one in found.coherences:
        rows += _coherence(one, who, key)
    return rows + (_examples(body["shown"], key) if examples else [])


def _examples(told: Sequence[Mapping[str, Any]], key: str) -> list[Record]:
    """One row a word: unit `shown/tier N/ITEM/PLACE/WORD`, name `attention_` cue, lemma or other."""
    rows: list[Record] = []
    for one in told:
        kinds = zip(one["words"], one["target"], one["cues"], one["weights"], strict=True)
        for place, (word, is_lemma, is_cue, weight) in enumerate(kinds):
            kind = "lemma" if is_lemma else "cue" if is_cue else "other"
            unit = f"shown/tier {one['tier']}/{one['item']}/{place:02d}/{word}"
            rows.append(_metric(key, unit, f"attention_{kind}", weight))
    return rows


def _reached(found: Ranked, who: Asked, key: str) -> list[Record]:
    rows: list[Record] = []
    whole = {
        "top1": found.top(1)[0],
        "top3": found.top(3)[0],
        "mrr": found.reciprocal_rank[0],
        "best_rank": found.best_rank[0].astype(np.float64),
        "tied": found.tied[0],
    }
    for name, values in whole.items():
        rows += _by_unit(key, name, values, who.tiers)
    for unit, own in _units(found.margin[0], who.tiers).items():
        told = margins(own)
        for name in ("mean", "sd", "p5", "p50", "p95"):
            value = getattr(told, name)
            rows.append(_metric(key, unit, f"margin_{name}", value, "one item has no spread"))
    return rows


def _units(values: FloatArray, tiers: Sequence[int]) -> dict[str, FloatArray]:
    return {"*": values} | {f"tier/{tier}": own for tier, own in by_tier(values, tiers).items()}


def _by_unit(key: str, name: str, values: FloatArray, tiers: Sequence[int]) -> list[Record]:
    return [_metric(key, unit, name, float(own.mean())) for unit, own in _units(values, tiers).items()]


def _attention(told: Sequence[Mapping[str, Any]], who: Asked, key: str) -> list[Record]:
    """Means over queries; queries without cues have no cue mass."""
    names = {"attention_entropy": "entropy", "cue_mass": "cue_mass", "lemma_mass": "lemma_mass"}
    rows: list[Record] = []
    for name, kept in names.items():
        values = np.array([np.nan if one[kept] is None else one[kept] for one in told], dtype=np.float64)
        for unit, own in _units(values, who.tiers).items():
            defined = own[np.isfinite(own)]
            value = float(defined.mean()) if len(defined) else None
            rows.append(_metric(key, unit, name, value, "no query has one"))
    return rows


def _items(found: Ranked, who: Asked, key: str) -> list[Record]:
    return [
        RetrievalRow(
            step_id=key,
            item=item.id,
            lemma=item.lemma,
            tier=item.tier,
            rank=int(found.best_rank[0, place]),
            margin=float(found.margin[0, place]),
            reason=None,
        )
        for place, item in enumerate(who.retrieval)
    ]


def _coherence(found: Coherence, who: Asked, key: str) -> list[Record]:
    tiers = [item.contexts[0].difficulty_tier or 1 for item in who.coherence]
    right, steps = found.right.astype(np.float64), found.steps.astype(np.float64)
    rows: list[Record] = [
        _metric(key, unit, "coherence_step", float(own.sum() / total.sum()))
        for (unit, own), total in zip(
            _units(right, tiers).items(), _units(steps, tiers).values(), strict=True
        )
    ]
    told = {
        "coherence_final": found.final,
        "transition_precision": found.transition_precision,
        "transition_recall": found.transition_recall,
        "transition_f1": found.transition_f1,
    }
    reason = "no move was decided, or there is none"
    return rows + [_metric(key, "*", name, value, reason) for name, value in told.items()]


def baseline_rows(home: Path, product: str, items: ItemSet) -> Mapping[str, Callable[[str], list[Record]]]:
    """Name of a scorer -> rows of what it reaches, ties broken by chance, given its step."""
    who = asked(items)
    known = unlearned(home, product, who)
    scorers = dict(known.baselines)
    if known.ceiling is not None:
        scorers["topics_known"] = known.ceiling
    found: dict[str, Callable[[str], list[Record]]] = {}
    steps = float(sum(who.steps))
    for name, one in scorers.items():
        values: dict[str, FloatArray] = {}
        if one.top1 is not None and one.top3 is not None:
            values = {"top1": one.top1[0], "top3": one.top3[0]}
        share = None if one.coherence is None else float(np.sum(one.coherence)) / steps
        found[name] = partial(_scored, values=values, coherence=share, tiers=who.tiers)
    for name, shortcut in known.shortcuts.items():
        if name not in found:
            values = {"top1": np.asarray(shortcut.hits)}
            found[name] = partial(_scored, values=values, coherence=None, tiers=who.tiers)
    return found


def _scored(
    key: str, *, values: Mapping[str, FloatArray], coherence: float | None, tiers: Sequence[int]
) -> list[Record]:
    rows = [row for name, own in values.items() for row in _by_unit(key, name, own, tiers)]
    if coherence is not None:
        rows.append(_metric(key, "*", "coherence_step", coherence))
    return rows


def _metric(key: str, unit: str, name: str, value: float | None, reason: str | None = None) -> MetricRow:
    why = None if value is not None else reason or "not measured"
    return MetricRow(
        step_id=key, unit=unit, name=name, value=None if value is None else float(value), reason=why
    )
