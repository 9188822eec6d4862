"""Thresholds for new contexts, calibrated on labelled ones, and killers mined with another seed's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lab.products import Products
from lab.records import MetricRow, Record
from models.sense_conditions import HARD_MIX
from models.sense_killers import killers
from stats.proportions import Share
from stats.verification import Judged, calibrate, judged, roc
from tasks.sense_answers import answers, asked
from tasks.sense_training import VERIFICATION, HeadExam, HeadJob, verification_key

MIX = HARD_MIX
"""Tiers of the labelled contexts: those of B, whose singletons are enriched."""
PUBLISHED = (0.5, 0.05)
"""Least cosine and gap of the earlier study, for comparison."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Calibrated thresholds."""

    cosine: float
    gap: float


@lru_cache(maxsize=64)
def _cosines(home: Path, key: str) -> Mapping[str, Mapping[str, Sequence[Any]]]:
    found: Mapping[str, Mapping[str, Sequence[Any]]] | None = Products(home, VERIFICATION).read(key)
    if found is None:
        raise ValueError("the compared contexts are gone or damaged; run the study again")
    return found


def thresholds(home: Path, job: HeadJob) -> Chosen:
    """Least cosine and gap by a head, of the largest Youden index on the labelled contexts of dev.

    Raises
    ------
    ValueError
        When no thresholds tell genuine from stray contexts.
    """
    body = _cosines(home, verification_key(job, MIX))["calibration"]
    found = calibrate(body["cosine"], body["gap"], body["genuine"])
    if found.cosine is None or found.gap is None:
        raise ValueError(f"no thresholds for new contexts: {found.reason}")
    return Chosen(cosine=found.cosine, gap=found.gap)


def threshold_rows(home: Path, job: HeadJob, key: str) -> list[Record]:
    """How well a head tells genuine from stray contexts, on others than those its thresholds come from.

    Units: `roc`, the area under the curve of either score; `calibrated` and `published`, thresholds,
    precision and recall.
    """
    body = _cosines(home, key)
    check, taught = body["check"], body["calibration"]
    found: list[Record] = []
    for name in ("cosine", "gap"):
        one = roc(check[name], check["genuine"], clusters=check["lemma"])
        found.append(_metric(key, "roc", f"auc_{name}", one.auc, one.reason))
    chosen = calibrate(taught["cosine"], taught["gap"], taught["genuine"])
    for unit, (cosine, gap) in {
        "calibrated": (chosen.cosine, chosen.gap),
        "published": PUBLISHED,
    }.items():
        found += [_metric(key, unit, "cosine", cosine, chosen.reason)]
        found += [_metric(key, unit, "gap", gap, chosen.reason)]
        if cosine is not None and gap is not None:
            told = judged(check["cosine"], check["gap"], check["genuine"], cosine_least=cosine, gap_least=gap)
            found += _judged(key, unit, told)
    return found


def _judged(key: str, unit: str, told: Judged) -> list[Record]:
    rows: list[Record] = []
    for name, share in (("precision", told.precision), ("recall", told.recall)):
        rows.append(_metric(key, unit, name, _estimate(share), told.reason))
    return rows


def _estimate(share: Share | None) -> float | None:
    return None if share is None else share.estimate


@dataclass(frozen=True, kw_only=True)
class Mined:
    """Killers by their ids."""

    ids: tuple[str, ...]
    dropped: Mapping[str, int]
    """Reason -> items left out."""


def mined(home: Path, exam: HeadExam) -> Mined:
    """What the miner fails, without repeats and doubtful labels."""
    items = asked(exam.items)
    found = answers(home, [exam.key], items).ranked
    if found is None:
        raise ValueError("there are no items to mine from")
    ranks = [int(rank) for rank in found.best_rank[0]]
    margins = [float(one) for one in np.asarray(found.margin[0])]
    told = killers(items.retrieval, ranks, margins)
    return Mined(ids=tuple(item.id for item in told.items), dropped=dict(told.dropped))


def killer_rows(found: Mined, key: str) -> list[Record]:
    """How many were mined, and why the others are none."""
    counts = {"killers": len(found.ids)} | {f"dropped: {why}": n for why, n in found.dropped.items()}
    return [_metric(key, "*", name, float(count), None) for name, count in counts.items()]


def _metric(key: str, unit: str, name: str, value: float | None, reason: str | None) -> MetricRow:
    why = None if value is not None else reason or "not measured"
    return MetricRow(step_id=key, unit=unit, name=name, value=value, reason=why)
