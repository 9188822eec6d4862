"""What accuracies of a rank study say: the contrasts of our own, and beside them the rule of the earlier one.

A file has one number a seed and variant, so seeds can be compared and items cannot. Shuffles within
projections cost what the placement costs; where a file has none, its shuffle over all modules stands in for
them, at another budget, and can tell no scenario.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.earlier_placements import SHUFFLED, TREATMENT, EarlierPlacements, Variant
from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.records import MetricRow, Record
from stats.legacy_placement import LegacyScenario, legacy_scenario, legacy_scenario_rows
from stats.placement_rows import DECLARED, Contrast, analyse_placement
from stats.rank_scenario import WITHIN, scenario_of
from stats.rows import FloatArray, TestRow
from tasks.imported_steps import Owner, step
from tasks.shell import product_key

KIND = "placements"
FAMILY = "mechanism_import"
"""Family of the row that concludes and name of the gate, so that the report finds one by the other."""
CONTRASTS = "mechanism"
"""Family of the contrasts, as in our own study."""
PROBE, FREE = "probe", "shuffled_free"
MARGIN, ALPHA = 0.01, 0.05
NO_SHUFFLE = "the file has no shuffle; the probe and equal ranks cannot tell placement from unevenness"
_ITEMS_ONLY = ("mcnemar", "hierarchical_bootstrap", "sd_seed", "sd_shuffle", "sd_item")
"""Rows that need the answers to items."""
_IS_WITHIN = re.compile(rf"{WITHIN}( \d+)?\Z")


def arms_of(file: EarlierPlacements) -> dict[str, FloatArray]:
    """Kind of arm -> (seeds, 1), of shuffles within projections (seeds, shuffles, 1).

    `per_layer_shuffled` is the earlier study's `shuffled_free`, unless the file has that or the shuffles that
    it is the mean of.
    """
    known = {one.control for one in DECLARED} | {TREATMENT, FREE}
    values = {name: np.array(one.values)[:, None] for name, one in file.compressed.items()}
    arms = {name: array for name, array in values.items() if name in known - {WITHIN}}
    within = [array for name, array in values.items() if _IS_WITHIN.match(name)]
    if within:
        arms[WITHIN] = np.stack(within, axis=1)
    elif SHUFFLED in values and FREE not in arms:
        arms[FREE] = values[SHUFFLED]
    return arms | {PROBE: np.array(file.probe.values)[:, None]}


def analyse_file(file: EarlierPlacements) -> dict[str, Any]:
    """Compute every answer.

    Returns
    -------
    dict
        `tests`: rows of the analysis; `shown`: what the terminal shows, numbers and sentences.
    """
    arms = arms_of(file)
    declared = [one for one in DECLARED if one.control in arms]
    if WITHIN not in arms and FREE in arms:
        declared = [Contrast(control=FREE), *declared]
    rows = analyse_placement(
        arms,
        rng=np.random.default_rng(0),
        treatment=TREATMENT,
        declared=declared,
        alpha=ALPHA,
        resamples=0,
        family=CONTRASTS,
    )
    rows = [row for row in rows if row.hypothesis not in _ITEMS_ONLY]
    budgets = _budgets(file)
    told = _scenario(rows, arms, budgets)
    earlier, legacy = _earlier(arms)
    verdict = _verdict(rows)
    found = [*rows, *budgets, told, *legacy, verdict]
    return {
        "tests": [asdict(row) for row in found],
        "shown": _shown(rows, verdict, told, earlier, legacy[-1]),
    }


def _main(rows: Sequence[TestRow]) -> TestRow | None:
    """The contrast with a shuffle that decides."""
    contrasts = (f"{TREATMENT}-{WITHIN}", f"{TREATMENT}-{FREE}")
    found = [row for row in rows if row.role == "decides" and row.contrast in contrasts]
    return found[0] if found else None


def _verdict(rows: Sequence[TestRow]) -> TestRow:
    main = _main(rows)
    if main is not None:
        return replace(main, family=FAMILY, hypothesis="verdict", role="verdict")
    return TestRow(
        family=FAMILY,
        hypothesis="verdict",
        metric="accuracy",
        contrast=TREATMENT,
        method="none",
        role="verdict",
        verdict="INCONCLUSIVE",
        reason=NO_SHUFFLE,
    )


def _budgets(file: EarlierPlacements) -> list[TestRow]:
    """Parameters of each variant beyond the placement's, from the shares that the file says were saved."""
    placed = file.compressed[TREATMENT].param_reduction
    rows = []
    for name, one in file.compressed.items():
        if name == TREATMENT:
            continue
        off = None
        if placed is not None and one.param_reduction is not None and placed < 1.0:
            off = (1.0 - one.param_reduction) / (1.0 - placed) - 1.0
        rows.append(
            TestRow(
                family="fair",
                hypothesis="parameters beyond the treatment's",
                metric="parameters",
                contrast=name,
                method="relative, from param_reduction",
                role="diagnostic",
                estimate=off,
                reason="the file does not say" if off is None else None,
            )
        )
    return rows


def _scenario(rows: Sequence[TestRow], arms: Mapping[str, FloatArray], budgets: Sequence[TestRow]) -> TestRow:
    """The scenario, which only shuffles at the placement's own cost can tell; role `secondary`."""
    if WITHIN in arms:
        found = scenario_of(rows)
        name, said = str(found.name), found.sentence
    elif FREE in arms:
        off = [row.estimate for row in budgets if row.contrast in (FREE, SHUFFLED)][-1]
        cost = "at a cost that it does not tell" if off is None else f"at {1 + off:.1%} of the cost"
        name = "inconclusive"
        said = f"The file's shuffle is over all modules, {cost}, so more than the placement differs"
    else:
        name, said = "inconclusive", f"{NO_SHUFFLE[0].upper()}{NO_SHUFFLE[1:]}."
    return TestRow(
        family=CONTRASTS,
        hypothesis="scenario",
        metric="accuracy",
        contrast=name,
        method="rule over the standings against controls",
        role="secondary",
        n=len(arms[TREATMENT]),
        reason=said.rstrip("."),
    )


def _earlier(arms: Mapping[str, FloatArray]) -> tuple[LegacyScenario | None, list[TestRow]]:
    """The earlier study's rule: against its free shuffle, or the mean of ours without one."""
    if FREE not in arms and WITHIN not in arms:
        row = TestRow(
            family=CONTRASTS,
            hypothesis="legacy_scenario",
            metric="accuracy",
            contrast=TREATMENT,
            method="S1, S2 or S3 by two published criteria",
            role="legacy",
            n=len(arms[TREATMENT]),
            reason=f"undefined; {NO_SHUFFLE}",
        )
        return None, [row]
    control = FREE if FREE in arms else WITHIN
    shuffled = arms[FREE][:, 0] if FREE in arms else arms[WITHIN].mean(axis=1)[:, 0]
    found = legacy_scenario(arms[TREATMENT][:, 0], arms[PROBE][:, 0], shuffled)
    return found, legacy_scenario_rows(found, treatment=TREATMENT, shuffled=control, family=CONTRASTS)


def _shown(
    rows: Sequence[TestRow], verdict: TestRow, told: TestRow, earlier: LegacyScenario | None, answer: TestRow
) -> dict[str, Any]:
    criteria = []
    if earlier is not None:
        for name, one in (("superiority", earlier.superiority), ("mechanism", earlier.mechanism)):
            found = {
                "name": name,
                "estimate": one.student.estimate,
                "more_than": one.more_than,
                "t": one.student.statistic,
                "p": one.student.p,
                "d_pooled": one.d_pooled,
                "d_z": one.d_z,
                "holds": one.holds,
                "reason": one.reason,
            }
            criteria.append(found)
    return {
        "contrast": verdict.contrast,
        "contrasts": [_contrast(row) for row in rows if row.role == "decides"],
        "mde": verdict.mde,
        "seeds_to_settle": verdict.n_to_settle,
        "scenario": told.contrast,
        "scenario_says": told.reason,
        "criteria": criteria,
        "earlier_rule": answer.reason,
    }


def _contrast(row: TestRow) -> dict[str, Any]:
    wanted = ("contrast", "hypothesis", "estimate", "low", "high", "p", "p_adjusted", "alpha", "verdict")
    return {name: getattr(row, name) for name in wanted} | {"reason": row.reason}


def analysis_key(file: EarlierPlacements) -> str:
    """Fingerprint of the file's content and the code."""
    return fingerprint([file.sha256, code("tasks.importing_placements")])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse placements",
    task_run_name="analyse placements, {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse_placements(home: str, what: str, file: EarlierPlacements, key: str) -> dict[str, Any]:
    """Analyse a file; the product is what `analyse_file` returns."""
    body = analyse_file(file)
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(body["tests"])}


def given_rows(owner: Owner, file: EarlierPlacements, key: str) -> list[Record]:
    """Step of the file with its numbers, step of the analysis, and that they belong to the plan.

    Accuracies are under their name; what else the file says of a variant is under `stored.<name>`.
    """
    variants = {PROBE: file.probe, **file.compressed}
    said = {name: one.verdict for name, one in file.compressed.items()}
    config = {"imported": file.sha256, "seeds": list(file.seeds), "verdicts": said}
    given = fingerprint(config)
    rows: list[Record] = [
        *step(owner, given, "placements", config, code("lab.earlier_placements")),
        *step(owner, key, "analyse", config, code("tasks.importing_placements")),
    ]
    for name, one in variants.items():
        for seed, value in zip(file.seeds, one.values, strict=True):
            unit = f"{name}/seed {seed}"
            rows.append(MetricRow(step_id=given, unit=unit, name="accuracy", value=value, reason=None))
        rows += [
            MetricRow(step_id=given, unit=name, name=f"stored.{quantity}", value=value, reason=None)
            for quantity, value in _stored(one).items()
            if value is not None
        ]
    return rows


def _stored(one: Variant) -> dict[str, float | None]:
    names = ("mean", "std", "delta_vs_probe", "param_reduction", "pass_rate")
    return {name: getattr(one, name) for name in names}


def variants_shown(file: EarlierPlacements) -> list[dict[str, Any]]:
    """Each variant, the probe first, as the terminal shows it; the difference is that of the values."""
    probe = statistics.fmean(file.probe.values)
    return [
        {
            "variant": name,
            "mean": statistics.fmean(one.values),
            "std": one.std,
            "delta_vs_probe": statistics.fmean(one.values) - probe,
            "param_reduction": one.param_reduction,
            "pass_rate": one.pass_rate,
            "verdict_in_file": one.verdict,
        }
        for name, one in {PROBE: file.probe, **file.compressed}.items()
    ]
