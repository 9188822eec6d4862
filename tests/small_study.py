"""A study recorded into a store without a model: made-up texts and metrics, the real statistics and gates.

Three looks of 12 prompts and five arms. The metrics are random with no difference between sources and a
large one for the positive control; texts, failures and seeds are there so that every section of the report
has rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from lab.fingerprint import canonical
from lab.gates import IMPOSSIBLE, NEXT_LOOK, STOP, Comparison, Gate, Route, Rule, rule_on, rule_text
from lab.plan import Plan, flatten, plan_hash, plan_text
from lab.records import (
    DecisionRow,
    DeviationRow,
    EnvironmentRow,
    GenerationRow,
    PlanRow,
    PlanStepRow,
    Record,
    RunRow,
    SeedDrawRow,
    StepRow,
    StudyRow,
    TestResultRow,
)
from lab.store import Store
from stats.integrity import Outcome, integrity_rows
from stats.legacy import legacy_view, mixed_vs_paired
from stats.permutation import sharp_null
from stats.rows import FloatArray, TestRow
from stats.seed_distribution import data_processing_rows, seed_sources_verdict
from stats.seed_effect import Design, analyse_seed_effect, compare_arms

STUDY, PROFILE, MODEL = "entropy_seeds", "smoke", "pydoc-0.4m"
LOOKS = (4, 8, 16)
SOURCES = ("HMIX", "PRNG", "TRNG")
ARMS = (*SOURCES, "TRNG_AA", "PRNG_HOT")
PRIMARY, SECONDARY = ("mtld", "distinct_2", "shannon_word"), ("length_words", "repetition_ratio")
START = datetime(2026, 11, 20, 22, 0)
TEXT = " ".join(f"word{i}" for i in range(12))


def _gate(name: str, question: str, next_gate: str, **other: Route) -> Gate:
    shown = "n = {n}, effect {effect:.2f}"
    routes = {
        "DETECTED": Route(next=next_gate, sentence=f"{question} Yes: {shown}."),
        "EQUIVALENT": Route(next=next_gate, sentence=f"{question} No more than the margin: {shown}."),
        "INCONCLUSIVE": Route(next=next_gate, sentence=f"{question} Not settled: {shown}."),
        "INVALID": Route(next=STOP, sentence=f"{question} No conclusion: {{reason}}."),
    }
    rules = tuple(
        Rule(verdict=v, when=(Comparison(left="verdict", op="==", right=v),))
        for v in ("INVALID", "DETECTED", "EQUIVALENT")
    )
    sql = (
        f"SELECT * FROM look_test WHERE family = '{name}' AND role = 'verdict' AND plan_hash = $plan_hash "
        "AND look = $look"
    )
    return Gate(name=name, question=question, sql=sql, rules=rules, routes=routes | other, min_n=10)


GATES = (
    _gate(
        "positive_control",
        "Can this assay see a known difference?",
        "a_a",
        EQUIVALENT=Route(next=IMPOSSIBLE, sentence="cannot occur"),
        INCONCLUSIVE=Route(next=NEXT_LOOK, sentence="Not seen yet (n = {n}).", at_last_look=STOP),
    ),
    _gate(
        "a_a",
        "Do two labels of one source differ?",
        "integrity",
        DETECTED=Route(next=STOP, sentence="Biased."),
    ),
    _gate("integrity", "Are the texts complete, distinct and repeatable?", "seed_sources"),
    _gate("seed_sources", "Do the sources draw different seeds?", "seed_effect"),
    _gate(
        "seed_effect",
        "Does the source of the seed change the text?",
        "entropy_control",
        EQUIVALENT=Route(next="direct_injection", sentence="No difference beyond the margin (n = {n})."),
        INCONCLUSIVE=Route(
            next=NEXT_LOOK, sentence="Not settled at n = {n}.", at_last_look="direct_injection"
        ),
    ),
)


def small_plan(**changes: object) -> Plan:
    """The plan of the recorded study; changes make a plan that deviates."""
    plan = Plan(
        study=STUDY,
        profile=PROFILE,
        question="Does the physical source of a seed change what a language model writes?",
        prediction="No: every contrast lies within 0.2 SD. A detected contrast would count against it.",
        hypotheses=("H0: means are equal",),
        primary=PRIMARY,
        secondary=SECONDARY,
        margin=0.2,
        margin_unit="within-cell SD",
        alpha=0.05,
        looks=LOOKS,
        exclusions=("under 10 words",),
        design={"temperature": 0.7, "top_k": 50},
        gates=GATES,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One row a text of a look."""

    arm: list[str]
    prompt: list[str]
    values: dict[str, FloatArray]

    def only(self, *arms: str) -> Cells:
        """The rows of some arms."""
        keep = np.isin(self.arm, arms)
        return Cells(
            arm=[a for a, k in zip(self.arm, keep, strict=True) if k],
            prompt=[p for p, k in zip(self.prompt, keep, strict=True) if k],
            values={name: column[keep] for name, column in self.values.items()},
        )


def _cells(samples: int, shift: float, prompts: int) -> Cells:
    rng = np.random.default_rng(11)
    labels = [(arm, f"p{p:02d}", i) for i in range(samples) for arm in ARMS for p in range(prompts)]
    base = dict(zip((f"p{p:02d}" for p in range(prompts)), rng.normal(size=prompts), strict=True))
    hot = np.array([1.2 * (arm == "PRNG_HOT") + shift * (arm == "TRNG") for arm, _, _ in labels])
    means = np.array([base[p] for _, p, _ in labels])
    return Cells(
        arm=[arm for arm, _, _ in labels],
        prompt=[p for _, p, _ in labels],
        values={m: 40 + 5 * (means + hot + rng.normal(size=len(labels))) for m in (*PRIMARY, *SECONDARY)},
    )


def _analyses(cells: Cells, look: int, outcomes: list[Outcome], seeds: dict[str, list[int]]) -> list[TestRow]:
    def pair(family: str, alpha: float, *arms: str) -> list[TestRow]:
        two = cells.only(*arms)
        return compare_arms(
            two.values, source=two.arm, prompt=two.prompt, stream=["1"] * len(two.arm), design_alpha=alpha,
            primary=PRIMARY, margin_sd=0.2, family=family,
        )  # fmt: skip

    three = cells.only(*SOURCES)
    rng = np.random.default_rng(1)
    draws = {name: np.array(found) for name, found in seeds.items() if name in SOURCES}
    kinds = {"HMIX": ("uniform", None), "PRNG": ("uniform", None), "TRNG": ("uniform", None)}
    return [
        *pair("positive_control", 0.05, "PRNG", "PRNG_HOT"),
        *pair("a_a", 0.001, "TRNG", "TRNG_AA"),
        *integrity_rows(outcomes, required_pairs=30, rng=rng, n_draws=199),
        *seed_sources_verdict(draws),
        *data_processing_rows(kinds, {"mtld": 100.0}),
        *analyse_seed_effect(
            three.values, source=three.arm, prompt=three.prompt, stream=["1"] * len(three.arm),
            design=Design(primary=PRIMARY, secondary=SECONDARY, looks=LOOKS, look=look),
        ),
        *sharp_null(
            three.values, source=three.arm, prompt=three.prompt, n_draws=200, rng=rng, primary=PRIMARY
        ),
        *legacy_view(three.values, source=three.arm, prompt=three.prompt),
        *mixed_vs_paired({"mtld": three.values["mtld"]}, source=three.arm, prompt=three.prompt),
    ]  # fmt: skip


def _generations(samples: int, prompts: int) -> tuple[list[Record], list[Outcome], dict[str, list[int]]]:
    """Steps, texts and seeds of a look; one text in 40 of TRNG times out, one in 60 of PRNG is short."""
    rng = np.random.default_rng(3)
    rows: list[Record] = []
    outcomes: list[Outcome] = []
    seeds: dict[str, list[int]] = {arm: [] for arm in ARMS}
    for arm in ARMS:
        for p in range(prompts):
            cell = f"cell-{arm}-{p}"
            rows.append(_step(cell, "cell", arm))
            for i in range(samples):
                seed = int(rng.integers(0, 2**32))
                seeds[arm].append(seed)
                failed = arm == "TRNG" and (i + p * samples) % 40 == 39
                text = None if failed else f"{arm} {p} {i} {TEXT}"
                if arm == "PRNG" and (i + p * samples) % 60 == 59:
                    text = "too short"
                for probe in (0, 1) if i == 0 else (0,):
                    rows.append(_generation(cell, arm, p, i, probe, seed, text))
                    outcomes.append(_outcome(arm, p, i, probe, seed, text))
    return rows, outcomes, seeds


def _step(step_id: str, experiment: str, arm: str | None) -> StepRow:
    return StepRow(
        step_id=step_id, study=STUDY, experiment=experiment, arm=arm, model=MODEL, seed=None, config="{}",
        code="c0de", seconds=1.5, device="cpu", environment_id="env", recorded_at=START, reason=None,
    )  # fmt: skip


def _generation(
    cell: str, arm: str, p: int, i: int, probe: int, seed: int, text: str | None
) -> GenerationRow:
    return GenerationRow(
        step_id=cell, sample=i, turn=0, probe=probe, sample_id=f"{cell}-{i}", arm=arm, prompt_id=f"p{p:02d}",
        stream=42, order_index=i, seed64=seed, seed32=seed, text=text,
        finish_reason="length" if text else None, tokens=60 if text else None, seconds=0.01,
        model_digest="d", server_version=None, sampling="{}", imported=False,
        reason=None if text else "timeout after 180 s",
    )  # fmt: skip


def _outcome(arm: str, p: int, i: int, probe: int, seed: int, text: str | None) -> Outcome:
    return Outcome(
        arm=arm, prompt_id=f"p{p:02d}", constraint="open", seed32=seed, sample=i, probe=probe,
        text_ok=text is not None, reason=None if text else "timeout",
        words=len(text.split()) if text else None,
        text_sha=hashlib.sha256(text.encode()).hexdigest() if text else None,
    )  # fmt: skip


def _results(step_id: str, look: int, tests: Sequence[TestRow]) -> list[TestResultRow]:
    return [
        TestResultRow(step_id=step_id, study=STUDY, model=MODEL, look=look, **asdict(test)) for test in tests
    ]


def _decisions(plan: Plan, tests: Sequence[TestRow], look: int, *, exploratory: bool) -> list[DecisionRow]:
    """The gates in order, until one does not lead to the gate after it."""
    rows = []
    for i, gate in enumerate(GATES):
        row = next(t for t in tests if t.family == gate.name and t.role == "verdict")
        keys = (
            "effect",
            "low",
            "high",
            "p_adjusted",
            "n",
            "n_to_settle",
            "mde",
            "verdict",
            "negligible",
            "reason",
        )
        evidence = {key: getattr(row, key) for key in keys}
        ruling = rule_on(gate, evidence, last_look=look == plan.looks[-1])
        rows.append(
            DecisionRow(
                decision_id=f"{plan_hash(plan)}-{gate.name}-{look}",
                study=STUDY, profile=PROFILE, model=MODEL,
                gate=gate.name, look=look, plan_hash=plan_hash(plan), run_id=f"run-{plan_hash(plan)}",
                question=gate.question, verdict=ruling.verdict, exploratory=exploratory,
                negligible=ruling.negligible, evidence=canonical(evidence), sql=gate.sql,
                parameters=canonical({"plan_hash": plan_hash(plan), "look": look}),
                rule=rule_text(gate), sentence=ruling.sentence, next=ruling.next, next_parameters="{}",
                flow_run_id=None, launched_flow_run_id=None,
                decided_at=START + timedelta(minutes=look, seconds=i),
            )
        )  # fmt: skip
        if i + 1 < len(GATES) and ruling.next != GATES[i + 1].name:
            break
    return rows


def _departures(declared: Plan, used: Plan) -> list[DeviationRow]:
    before, after = flatten(plan_text(declared)), flatten(plan_text(used))
    return [
        DeviationRow(
            plan_hash=plan_hash(used), declared_hash=plan_hash(declared), field=name, declared=before[name],
            used=after[name],
        )
        for name in before if before[name] != after[name]
    ]  # fmt: skip


def record_study(
    store: Store,
    *,
    shift: float = 0.0,
    looks: Sequence[int] = LOOKS,
    prompts: int = 12,
    question: str | None = None,
    declared: Plan | None = None,
) -> Plan:
    """Record a whole study; `shift` (SD) separates TRNG, `declared` makes this run's plan a deviating one."""
    plan = small_plan(**({"design": {"temperature": 0.9, "top_k": 50}} if declared else {}))
    key, end = plan_hash(plan), START + timedelta(minutes=12)
    texts, outcomes, seeds = _generations(max(looks, default=0), prompts)
    analyses: dict[int, list[TestRow]] = {}
    for look in looks:
        at_look = [o for o in outcomes if o.sample < look]
        analyses[look] = _analyses(_cells(look, shift, prompts), look, at_look, seeds)
    steps = [_step(f"analyse-{key}-{look}", "analyse", None) for look in looks]
    rows: list[Record] = [
        StudyRow(study=STUDY, question=question or plan.question, text="The docstring of the flow."),
        PlanRow(
            plan_hash=key, study=STUDY, profile=PROFILE, frozen=declared is None, recorded_at=START,
            text=plan_text(plan),
        ),
        EnvironmentRow(
            environment_id="env", python="3.11.9", platform="Linux", cpu="a CPU", cores=2, memory_gib=8.0,
            device="cpu", packages=json.dumps({"numpy": "2.4.0", "duckdb": "2.0.0", "prefect": "3.8.8"}),
        ),
        RunRow(
            run_id=f"run-{key}", study=STUDY, profile=PROFILE, model=MODEL, plan_hash=key, settings="{}",
            state="completed", started_at=START, ended_at=end, exploratory=declared is not None,
            environment_id="env", git_commit="0123456789abcdef0123456789abcdef01234567", git_dirty=True,
            flow_run_id=None, parent_flow_run_id=None, process="host:1:2", note=None,
        ),
        *texts,
        *steps,
        *(
            PlanStepRow(plan_hash=key, step_id=row.step_id)
            for row in (*texts, *steps) if isinstance(row, StepRow)
        ),
        *(
            SeedDrawRow(
                tape=arm, draw=i, source=arm, stream=None, purpose=f"{arm}/{i}", seed64=seed, seed32=seed
            )
            for arm, found in seeds.items() for i, seed in enumerate(found)
        ),
    ]  # fmt: skip
    if declared is not None:
        rows += _departures(declared, plan)
    for look, tests in analyses.items():
        rows += _results(f"analyse-{key}-{look}", look, tests)
        decided = _decisions(plan, tests, look, exploratory=declared is not None)
        rows += decided
        if decided[-1].next != NEXT_LOOK:
            break
    store.record(rows)
    return plan
