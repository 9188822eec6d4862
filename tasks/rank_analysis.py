"""The comparison of arms as a cached task: products of evaluations in, rows of tests out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from models.audit_summary import audit_stability
from models.spectra import ModuleAudit
from stats.legacy_placement import legacy_scenario, legacy_scenario_rows
from stats.placement_rows import DECLARED, Contrast, analyse_placement
from stats.rank_scenario import WITHIN, scenario_of
from stats.rows import FloatArray, TestRow
from stats.sequential import look_levels
from tasks.rank_placing import PROBE, TREATMENT, kind_of
from tasks.rank_training import ANSWERS
from tasks.shell import product_key

KIND = "rank_analysis"
FAMILY = "mechanism"
PRIMARY = "strict"
SECONDARY = ("flexible", "numeric", "nll_nats_a_token")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is fixed before the data of a look."""

    margin: float
    non_inferiority: float
    alpha: float
    """Of this look."""
    resamples: int


@lru_cache(maxsize=1)
def analysis_code() -> str:
    """Fingerprint of the statistics and of this file."""
    return code(
        "stats.placement_rows",
        "stats.rank_scenario",
        "stats.legacy_placement",
        alone=("tasks.rank_analysis",),
    )


def level_of(looks: tuple[int, ...], alpha: float, look: int) -> float:
    """Level that a look is judged at; the errors of all looks together are alpha."""
    return look_levels(looks, alpha=alpha, groups=2)[look]


Keys = Mapping[str, Mapping[int, str]]
"""Arm -> seed -> product of its evaluation."""


def analysis_key(keys: Keys, asked: Asked) -> str:
    """What the comparison is filed under."""
    plain = {arm: sorted(found.items()) for arm, found in keys.items()}
    return fingerprint([plain, asdict(asked), analysis_code()])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="compare arms",
    task_run_name="compare arms, {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse(home: str, what: str, keys: Keys, asked: Asked, key: str) -> str:
    """Compare the arms unless that was done; returns the key of the product."""
    products = Products(Path(home), KIND)
    if products.read(key) is None:
        rows = compare(outcomes(Path(home), keys), asked)
        products.write(key, {"rows": [asdict(row) for row in rows]})
    return key


def outcomes(home: Path, keys: Keys) -> dict[str, dict[str, FloatArray]]:
    """Metric -> kind of arm -> (seeds, items), or (seeds, shuffles, items) where a kind has several arms.

    More is better in every metric: losses come with their sign turned.
    """
    products = Products(home, ANSWERS)
    stacked: dict[str, dict[str, list[Any]]] = {}
    for arm, found in keys.items():
        tables = [_columns(products.read(key)["answers"]) for _, key in sorted(found.items())]
        for metric in (PRIMARY, *SECONDARY):
            of_kind = stacked.setdefault(metric, {}).setdefault(kind_of(arm), [])
            of_kind.append(np.stack([table[metric] for table in tables]))
    return {
        metric: {
            kind: arrays[0] if kind != "shuffled_within" else np.stack(arrays, axis=1)
            for kind, arrays in kinds.items()
        }
        for metric, kinds in stacked.items()
    }


def _columns(answers: Sequence[Mapping[str, Any]]) -> dict[str, FloatArray]:
    ordered = sorted(answers, key=lambda one: str(one["item_id"]))
    found = {
        rule: np.array([float(one[rule]) for one in ordered]) for rule in (PRIMARY, "flexible", "numeric")
    }
    return found | {"nll_nats_a_token": np.array([-one["nll_nats"] / one["tokens"] for one in ordered])}


def compare(arms: Mapping[str, Mapping[str, FloatArray]], asked: Asked) -> list[TestRow]:
    """Every row: the declared contrasts in each metric, the scenario and the earlier rule."""
    margins = {PROBE: asked.non_inferiority}
    declared = [
        Contrast(control=one.control, question=one.question, margin=margins.get(one.control, asked.margin))
        for one in DECLARED
        if one.control in arms[PRIMARY]
    ]
    rng = np.random.default_rng(0)
    main = _contrasts(arms[PRIMARY], PRIMARY, declared, asked, rng)
    others = [row for metric in SECONDARY for row in _secondary(arms[metric], metric, declared, asked, rng)]
    return [*main, _scenario(main, len(arms[PRIMARY][TREATMENT])), *_earlier(arms[PRIMARY]), *others]


def _contrasts(
    arms: Mapping[str, FloatArray],
    metric: str,
    declared: Sequence[Contrast],
    asked: Asked,
    rng: np.random.Generator,
) -> list[TestRow]:
    return analyse_placement(
        arms,
        rng=rng,
        treatment=TREATMENT,
        declared=declared,
        metric=metric,
        alpha=asked.alpha,
        resamples=asked.resamples if metric == PRIMARY else 0,
        family=FAMILY if metric == PRIMARY else f"{FAMILY}, {metric}",
    )


def _secondary(
    arms: Mapping[str, FloatArray],
    metric: str,
    declared: Sequence[Contrast],
    asked: Asked,
    rng: np.random.Generator,
) -> list[TestRow]:
    """The same contrasts in another metric, which decide nothing and have no margin."""
    found = _contrasts(arms, metric, declared, asked, rng)
    return [
        replace(row, role="secondary", verdict=None, negligible=None, margin=None, n_to_settle=None)
        for row in found
        if row.role == "decides"
    ]


def _scenario(rows: Sequence[TestRow], seeds: int) -> TestRow:
    """The scenario as a row: its name as contrast, its sentence as method."""
    found = scenario_of(rows)
    verdicts = {"better": "DETECTED", "worse": "DETECTED", "invalid": "INVALID", "equivalent": "EQUIVALENT"}
    verdict = verdicts.get(found.standings[WITHIN], "INCONCLUSIVE")
    return TestRow(
        family=FAMILY,
        hypothesis="scenario",
        metric=PRIMARY,
        contrast=found.name,
        method=found.sentence.rstrip("."),
        role="verdict",
        n=seeds,
        verdict="INCONCLUSIVE" if verdict == "EQUIVALENT" and found.name == "inconclusive" else verdict,
    )


def _earlier(arms: Mapping[str, FloatArray]) -> list[TestRow]:
    """The earlier study's rule on the same answers: against its free shuffle, or ours without one."""
    control = "shuffled_free" if "shuffled_free" in arms else WITHIN
    shuffled = arms[control].mean(axis=2).mean(axis=1) if control == WITHIN else arms[control].mean(axis=1)
    found = legacy_scenario(arms[TREATMENT].mean(axis=1), arms[PROBE].mean(axis=1), shuffled)
    return legacy_scenario_rows(found, treatment=TREATMENT, shuffled=control, family=FAMILY)


def rows_of(body: Mapping[str, Any]) -> list[TestRow]:
    """The rows of a product."""
    return [TestRow(**row) for row in body["rows"]]


def stability(audits: Mapping[int, Sequence[ModuleAudit]]) -> list[TestRow]:
    """Rank correlation of the audits of each two seeds."""
    return [
        TestRow(
            family="audit",
            hypothesis="stability",
            metric=one.measure,
            contrast=f"seed {one.first}, seed {one.second}",
            method="Spearman over modules",
            role="diagnostic",
            estimate=one.spearman,
            n=one.n,
            reason=one.reason,
        )
        for one in audit_stability(audits)
    ]
