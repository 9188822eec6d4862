"""The rank study recorded into a store without a model: made-up adapters and answers, real rules and gates.

Modules differ in how fast their singular values fall, alike in every seed. In the first seed one has no
update at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from flows.mechanism import FAST, plan
from flows.mechanism_gates import GATES
from lab.fingerprint import canonical
from lab.gates import STOP, rule_on, rule_text
from lab.plan import Plan, plan_hash, plan_text
from lab.records import (
    AdapterModuleRow,
    AnswerRow,
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
from models.audit_summary import MEASURES, aggregates
from models.spectra import Factors, ModuleAudit, audit_module
from stats.rows import FloatArray, TestRow
from tasks import rank_analysis, rank_checks
from tasks.rank_placing import PROBE, Placed, arm_names, kind_of, place

STUDY, MODEL = "mechanism", "arith-mistral"
START = datetime(2026, 11, 21, 22, 0)
PROJECTIONS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
SIZES = {"q_proj": (6, 6), "v_proj": (4, 6), "up_proj": (12, 6)}
RANK = 8
GAINS = {PROBE: 0.06, "inverse": -0.05, "uniform_median": -0.02, "base": -0.5}
"""Accuracy beyond that of the other arms."""


@dataclass(frozen=True, kw_only=True)
class Invented:
    """What is made up."""

    seeds: tuple[int, ...] = (42, 43, 44)
    kinds: tuple[str, ...] = FAST.arms
    shuffles: int = 3
    layers: int = 4
    items: int = 200
    gains: Mapping[str, float] = field(default_factory=lambda: GAINS)
    failed: Mapping[tuple[int, str], str] = field(default_factory=dict)
    """Seed and arm -> why there is no adapter."""

    @property
    def plan(self) -> Plan:
        """Of a look at these seeds."""
        return plan(replace(FAST, looks=(len(self.seeds),), arms=self.kinds, shuffles=self.shuffles))


def audits(told: Invented) -> dict[int, list[ModuleAudit]]:
    """Seed -> audit: singular values fall faster in some modules than in others."""
    found = {}
    for seed in told.seeds:
        rng = np.random.default_rng(seed)
        found[seed] = [
            _audit(f"model.layers.{layer}.{name}", rng, speed=0.4 + 0.35 * ((layer + 2 * at) % 4))
            for layer in range(told.layers)
            for at, name in enumerate(PROJECTIONS)
        ]
    first = found[told.seeds[0]]
    gone = Factors(a=np.ones((RANK, first[0].d_in)), b=np.zeros((first[0].d_out, RANK)), scale=1.0)
    first[0] = audit_module(first[0].name, gone, (1.0, 2.0))
    return found


def _audit(name: str, rng: np.random.Generator, *, speed: float) -> ModuleAudit:
    d_out, d_in = SIZES[name.split(".")[-1]]
    falling = np.exp(-speed * np.arange(RANK))[:, None]
    a, b = falling * rng.normal(size=(RANK, d_in)), rng.normal(size=(d_out, RANK))
    return audit_module(name, Factors(a=a, b=b, scale=1.0), (5.0, 9.0))


def right(told: Invented) -> dict[tuple[int | None, str], FloatArray]:
    """(seed, arm) -> 1 for each item answered, 0 for the others; the seed is None for the base alone."""
    rng = np.random.default_rng(7)
    found: dict[tuple[int | None, str], FloatArray] = {}
    difficulty = rng.normal(0.0, 0.2, told.items)
    for seed in (None, *told.seeds):
        for arm in arm_names(told.kinds, told.shuffles) if seed is not None else ("base",):
            share = 0.6 + told.gains.get(kind_of(arm), 0.0) + rng.normal(0.0, 0.02)
            found[seed, arm] = (rng.random(told.items) < share + difficulty).astype(np.float64)
    return found


def _step(step_id: str, experiment: str, arm: str, seed: int | None, reason: str | None = None) -> StepRow:
    return StepRow(
        step_id=step_id, study=STUDY, experiment=experiment, arm=arm, model=MODEL, seed=seed, config="{}",
        code="c0de", seconds=None if reason else 20.0, device="cpu", environment_id="env m",
        recorded_at=START, reason=reason,
    )  # fmt: skip


def _arm(key: str, answered: FloatArray, parameters: int | None) -> Iterator[Record]:
    for at, one in enumerate(answered):
        yield AnswerRow(
            step_id=key, item=f"item {at}", text="#### 1", strict=bool(one), flexible=bool(one),
            numeric=bool(one), nll_nats=2.0 - float(one), tokens=4, stopped=True, reason=None,
        )  # fmt: skip
    share = float(answered.mean())
    numbers = {f"accuracy_{rule}": share for rule in ("strict", "flexible", "numeric")}
    numbers |= {"nll_nats_a_token": (2.0 - share) / 4, "stopped": 1.0, "truncated": 0.0, "late_fall": 0.01}
    numbers |= {} if parameters is None else {"parameters": float(parameters)}
    for name, value in numbers.items():
        yield MetricRow(step_id=key, unit="*", name=name, value=value, reason=None)


def _modules(key: str, placed: Placed, audited: Sequence[ModuleAudit]) -> Iterator[Record]:
    for one in audited:
        rank = placed.ranks[one.name]
        is_probe = placed.arm == PROBE
        spectrum: dict[str, Any] = {name: getattr(one, name) if is_probe else None for name in MEASURES}
        yield AdapterModuleRow(
            step_id=key, module=one.name, projection=one.projection, layer=one.layer, kind=one.kind,
            d_out=one.d_out, d_in=one.d_in, planned_rank=rank, rank=rank,
            parameters=rank * (one.d_out + one.d_in), scale=1.0,
            sigma=json.dumps(one.sigma) if is_probe else None, reason=one.reason if is_probe else None,
            **spectrum,
        )  # fmt: skip
    for row in aggregates(audited) if placed.arm == PROBE else ():
        yield MetricRow(
            step_id=key, unit=f"{row.by}/{row.group}", name=f"{row.quantity}_{row.statistic}",
            value=row.value, reason=row.reason,
        )  # fmt: skip


def placements(told: Invented) -> dict[tuple[int | None, str], Placed]:
    """What each arm of each seed is given."""
    audited = audits(told)
    found: dict[tuple[int | None, str], Placed] = {}
    for seed in told.seeds:
        uniform = Placed(arm=PROBE, ranks={one.name: RANK for one in audited[seed]})
        names = arm_names(told.kinds, told.shuffles)
        known = {PROBE: uniform} | place(names, audited, seed, policy="energy_90")
        found |= {(seed, name): known[name] for name in names}
    return found


def _cells(told: Invented) -> Iterator[tuple[str, list[Record]]]:
    audited, placed = audits(told), placements(told)
    for (seed, arm), answered in right(told).items():
        key = f"arm-{arm}-{seed}"
        why = None if seed is None else told.failed.get((seed, arm))
        rows: list[Record] = [_step(key, "arm", arm, seed, why)]
        if why is None and seed is None:
            rows += _arm(key, answered, None)
        elif why is None and seed is not None:
            of = placed[seed, arm]
            parameters = sum(of.ranks[one.name] * (one.d_out + one.d_in) for one in audited[seed])
            rows += [*_arm(key, answered, parameters), *_modules(key, of, audited[seed])]
        yield key, rows


def outcomes(told: Invented) -> dict[str, dict[str, FloatArray]]:
    """Metric -> kind of arm -> answers, as `tasks.rank_analysis.outcomes` returns them."""
    answered = right(told)
    kinds: dict[str, list[FloatArray]] = {}
    for arm in arm_names(told.kinds, told.shuffles):
        of_arm = np.stack([answered[seed, arm] for seed in told.seeds])
        kinds.setdefault(kind_of(arm), []).append(of_arm)
    strict = {
        kind: arrays[0] if kind != "shuffled_within" else np.stack(arrays, axis=1)
        for kind, arrays in kinds.items()
    }
    losses = {kind: (array - 2.0) / 4 for kind, array in strict.items()}
    return {"strict": strict, "flexible": strict, "numeric": strict, "nll_nats_a_token": losses}


def analyses(told: Invented) -> dict[str, list[TestRow]]:
    """Gate -> rows of its analysis."""
    placed, answered = placements(told), right(told)
    base = answered[None, "base"].mean()
    gains = {seed: float(answered[seed, PROBE].mean() - base) for seed in told.seeds}
    verdict = TestRow(family="probe", hypothesis="check", method="every check", role="verdict",
                      n=len(told.seeds), verdict="DETECTED")  # fmt: skip
    probe = [
        TestRow(family="probe", hypothesis="gain over the base", contrast=f"seed {seed}", estimate=gain,
                method="share of items, strict", role="diagnostic")
        for seed, gain in gains.items()
    ]  # fmt: skip
    fair = [
        TestRow(family="fair", hypothesis="parameters beyond the treatment's", contrast=f"{arm}/seed {seed}",
                estimate=0.0, method="relative", role="diagnostic")
        for seed, arm in placed
    ]  # fmt: skip
    why = "; ".join(f"{arm} of seed {seed}: {why}" for (seed, arm), why in told.failed.items())
    fit = replace(verdict, family="fair", estimate=0.001, verdict="INVALID" if why else "DETECTED",
                  reason=why or None)  # fmt: skip
    found = {
        "probe": [*probe, replace(verdict, estimate=sum(gains.values()) / len(gains))],
        "controls": [*rank_checks.controls(placed), *rank_analysis.stability(audits(told))],
        "fair": [*fair, fit],
    }
    if why:
        return found
    asked = rank_analysis.Asked(margin=0.01, non_inferiority=0.025, alpha=0.05, resamples=1000)
    return found | {"placement": rank_analysis.compare(outcomes(told), asked)}


def _about(told: Invented, key: str) -> list[Record]:
    declared = told.plan
    return [
        StudyRow(study=STUDY, question=declared.question, text="The docstring of the flow."),
        PlanRow(
            plan_hash=key, study=STUDY, profile="fast", frozen=True, recorded_at=START,
            text=plan_text(declared),
        ),
        EnvironmentRow(
            environment_id="env m", python="3.11.9", platform="Linux", cpu="a CPU", cores=2, memory_gib=8.0,
            device="cpu", packages="{}",
        ),
        RunRow(
            run_id="run", study=STUDY, profile="fast", model=MODEL, plan_hash=key, settings="{}",
            state="completed", started_at=START, ended_at=START + timedelta(minutes=4), exploratory=False,
            environment_id="env m", git_commit="0123456789abcdef", git_dirty=False, flow_run_id=None,
            parent_flow_run_id=None, process="host:1:2", note=None,
        ),
    ]  # fmt: skip


def _decisions(store: Store, look: int, key: str, found: Collection[str]) -> list[DecisionRow]:
    """The gates asked of the recorded rows, along their routes."""
    by_name, name = {gate.name: gate for gate in GATES}, GATES[0].name
    rows: list[DecisionRow] = []
    analysis = ""
    while name in by_name:
        gate = by_name[name]
        analysis = name if name in found else analysis
        parameters: Mapping[str, object] = {"plan_hash": key, "analysis": analysis}
        [evidence] = store.read(gate.sql, parameters).to_dicts()
        ruling = rule_on(gate, evidence, last_look=True)
        rows.append(
            DecisionRow(
                decision_id=f"decide-{name}", study=STUDY, profile="fast", model=MODEL, gate=name, look=look,
                plan_hash=key, run_id="run", question=gate.question, verdict=ruling.verdict,
                exploratory=False, negligible=ruling.negligible, evidence=canonical(evidence), sql=gate.sql,
                parameters=canonical(dict(parameters)), rule=rule_text(gate), sentence=ruling.sentence,
                next=ruling.next, next_parameters="{}", flow_run_id=None, launched_flow_run_id=None,
                decided_at=START + timedelta(seconds=len(rows)),
            )
        )  # fmt: skip
        name = STOP if ruling.next == STOP else ruling.next
    return rows


def record_mechanism(store: Store, told: Invented | None = None) -> None:
    """Record the study; an arm that failed ends it at the gate `fair`."""
    told = told or Invented()
    key, found = plan_hash(told.plan), analyses(told)
    records = _about(told, key)
    for step_id, rows in _cells(told):
        records += [*rows, PlanStepRow(plan_hash=key, step_id=step_id)]
    for name, tests in found.items():
        step = replace(_step(name, "analyse", name, None), seconds=None)
        made = [
            TestResultRow(step_id=name, study=STUDY, model=MODEL, look=len(told.seeds), **asdict(row))
            for row in tests
        ]
        records += [step, PlanStepRow(plan_hash=key, step_id=name), *made]
    store.record(records)
    store.record(_decisions(store, len(told.seeds), key, found))
