"""The quantisation study recorded into a store without a model: made-up bits, the real questions and gates.

Low-resource languages lose 3 bits a sentence more in the first model and nothing more in the others; some of
the legacy ratios are undefined. One look, two replicates a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from flows.int4_disparity import SMOKE, plan
from flows.quant_gates import GATES
from lab.fingerprint import canonical
from lab.gates import STOP, rule_on, rule_text
from lab.plan import plan_hash, plan_text
from lab.records import (
    DecisionRow,
    EnvironmentRow,
    MetricRow,
    PlanRow,
    PlanStepRow,
    Record,
    RunRow,
    StepRow,
    StudyRow,
    TestResultRow,
)
from lab.store import Store
from models.languages import LANGUAGES
from stats.rows import TestRow
from tasks import quant_questions as questions
from tasks.quant_nulls import null_rows
from tests.test_quant_questions import CORPUS, body, measured, planted, same

STUDY, MODEL, LOOK = "int4_disparity", "cldr-gpt2", 96
START = datetime(2026, 11, 21, 22, 0)
PLAN = plan(replace(SMOKE, looks=(LOOK,)))
KEY = plan_hash(PLAN)
SELECTORS = {"activation": 0.6, "magnitude": 0.9, "hessian": 0.8, "random": 1.0}
"""Share of the damage that is left where 20 % of the weights are kept."""
SIZES = {"int4": 4.34, "int8": 8.38, "int2": 2.32, "legacy": 4.0, "5": 6.72, "10": 8.54, "20": 11.74}
OTHERS = ("bf16", "int8", "int2", "legacy")
BLOCKS = 3


def _sweep(seed: int) -> dict[str, Any]:
    """What rounding every block but one leaves: keeping block 0 saves most."""
    rng = np.random.default_rng(seed)
    found = {}
    for one in LANGUAGES:
        plain = 2.5 * np.array(CORPUS.n_bytes(one.code), float)
        cost = [4.0 - saved + rng.normal(0.0, 0.2, len(plain)) for saved in (2.5, 0.2, 0.1)]
        found[one.code] = {
            "plain": plain.tolist(),
            "quantised": (plain + 4.0).tolist(),
            "protected": [(plain + c).tolist() for c in cost],
            "only": [(plain + 4.0 - c).tolist() for c in cost],
            "kept_sets": [(plain + c).tolist() for c in cost],
            "diagnostics": [
                {"weight_kurtosis": 3.0 - b, "activation_outliers": 1.0 * b, "mean_activation": 0.5 * b}
                for b in range(BLOCKS)
            ],
            "reason": None,
        }
    return {"languages": found}


@lru_cache(maxsize=1)
def analyses() -> list[tuple[str, str, list[TestRow]]]:
    """(family, replicate, rows) of every question."""
    return list(_main()) + list(_transfer())


def _main() -> Iterator[tuple[str, str, list[TestRow]]]:
    for number in (0, 1):
        name = f"{MODEL} seed {number}"
        cost = planted(4.0, 1.0)
        kept = {
            f"{selector} {percent} %": body(
                {code: c * (1.0 - (1.0 - left) * percent / 20) for code, c in cost.items()}, 1.5, 10 + place
            )
            for place, (selector, left) in enumerate(SELECTORS.items())
            for percent in (5, 10, 20)
        }
        legacy = body(same(5.0), 9.0, 30 + number)
        at = measured(cost, legacy=legacy, **kept)
        pairs = {
            f"B-00{place}": (f"keep {percent} %", f"random {percent} %", f"activation {percent} %")
            for place, percent in enumerate((5, 10, 20), start=1)
        }
        sweep = _sweep(number)
        yield "A-001", name, questions.baseline(at, "A-001")
        yield "A-002", name, questions.degradation(at, "A-002")
        yield "A-003", name, questions.disparity(at, "A-003", OTHERS)
        yield "B", name, questions.budgets(at, pairs, sorted(kept), {})
        names = {float(percent): f"activation {percent} %" for percent in (5, 10, 20)}
        yield "B-004", name, questions.best_budget(at, names, "B-004")
        yield "C-001", name, questions.critical_blocks(at, sweep, "C-001")[0]
        yield "C-002", name, questions.layer_protection(at, sweep, [(0,), (1,), (2,)], "C-002")


def _transfer() -> Iterator[tuple[str, str, list[TestRow]]]:
    for experiment, model in zip(("D-001", "D-002"), SMOKE.transfer, strict=True):
        for number in (0, 1):
            at = measured(same(4.0), legacy=body(same(5.0), 9.0, 40 + number))
            rows = questions.disparity(at, experiment, OTHERS)
            rows = [*rows[:-1], *null_rows(at, experiment), rows[-1]]
            yield experiment, f"{model} seed {number}", rows


def _step(step_id: str, experiment: str, arm: str | None, model: str, seconds: float | None) -> StepRow:
    return StepRow(
        step_id=step_id, study=STUDY, experiment=experiment, arm=arm, model=model, seed=None, config="{}",
        code="c0de", seconds=seconds, device="cpu", environment_id="env q", recorded_at=START, reason=None,
    )  # fmt: skip


def _evaluations() -> Iterator[Record]:
    """A step a variant and replicate of the first model, with its size."""
    kept = [f"{selector} {percent} %" for selector in SELECTORS for percent in (5, 10, 20)]
    for number in (0, 1):
        for variant in ("int4", *OTHERS[1:], *kept):
            words = variant.split()
            place = {"5": "B-001", "10": "B-002", "20": "B-003"}.get(words[1]) if len(words) > 1 else "A-002"
            key = f"evaluate-{variant}-{number}"
            yield _step(key, str(place), variant, f"{MODEL} seed {number}", 2.0)
            yield PlanStepRow(plan_hash=KEY, step_id=key)
            size = SIZES[words[1] if len(words) > 1 else variant]
            yield MetricRow(step_id=key, unit="*", name="bits_per_weight", value=size, reason=None)


def _answers(found: Sequence[tuple[str, str, list[TestRow]]]) -> Iterator[Record]:
    for family, name, rows in found:
        key = f"analyse-{family}-{name}"
        yield _step(key, "analyse", family, name, None)
        yield PlanStepRow(plan_hash=KEY, step_id=key)
        for row in rows:
            yield TestResultRow(step_id=key, study=STUDY, model=name, look=LOOK, **asdict(row))


def _about() -> list[Record]:
    return [
        StudyRow(study=STUDY, question=PLAN.question, text="The docstring of the flow."),
        PlanRow(
            plan_hash=KEY, study=STUDY, profile="smoke", frozen=True, recorded_at=START, text=plan_text(PLAN)
        ),
        EnvironmentRow(
            environment_id="env q", python="3.11.9", platform="Linux", cpu="a CPU", cores=2, memory_gib=8.0,
            device="cpu", packages="{}",
        ),
        RunRow(
            run_id="run", study=STUDY, profile="smoke", model=MODEL, plan_hash=KEY, settings="{}",
            state="completed", started_at=START, ended_at=START + timedelta(minutes=4), exploratory=False,
            environment_id="env q", git_commit="0123456789abcdef", git_dirty=False, flow_run_id=None,
            parent_flow_run_id=None, process="host:1:2", note=None,
        ),
    ]  # fmt: skip


def _decisions(store: Store) -> list[DecisionRow]:
    """The gates asked of the recorded rows, along their routes."""
    by_name, name, rows = {gate.name: gate for gate in GATES}, GATES[0].name, []
    while name in by_name:
        gate = by_name[name]
        parameters: Mapping[str, object] = {"plan_hash": KEY, "look": LOOK}
        [evidence] = store.read(gate.sql, parameters).to_dicts()
        ruling = rule_on(gate, evidence, last_look=True)
        rows.append(
            DecisionRow(
                decision_id=f"decide-{name}", study=STUDY, profile="smoke", model=MODEL, gate=name, look=LOOK,
                plan_hash=KEY, run_id="run", question=gate.question, verdict=ruling.verdict,
                exploratory=False, negligible=ruling.negligible, evidence=canonical(evidence), sql=gate.sql,
                parameters=canonical(dict(parameters)), rule=rule_text(gate), sentence=ruling.sentence,
                next=ruling.next, next_parameters="{}", flow_run_id=None, launched_flow_run_id=None,
                decided_at=START + timedelta(seconds=len(rows)),
            )
        )  # fmt: skip
        name = STOP if ruling.next == STOP else ruling.next
    return rows


def record_quantisation(store: Store, *, families: Sequence[str] | None = None) -> None:
    """Record the study; `families` keeps the answers of some experiments only, as after a broken run."""
    found = [one for one in analyses() if families is None or one[0] in families]
    store.record([*_about(), *_evaluations(), *_answers(found)])
    store.record(_decisions(store))
