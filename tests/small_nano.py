"""The nanodesmo study recorded into a store without networks: made-up runs, real statistics and gates.

Two regimes act twice in each seed: `bewilderment` raises loss, entropy and the state's norm, `false_feedback`
the change of the state alone. Seeds differ by a little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np

from flows.nano_gates import GATES, PHASE_OF
from flows.nanodesmo import SMOKE, plan
from lab.fingerprint import canonical
from lab.gates import rule_on, rule_text
from lab.plan import Plan, plan_hash, plan_text
from lab.records import (
    ArtifactRow,
    DecisionRow,
    EnvironmentRow,
    MetricRow,
    PlanRow,
    PlanStepRow,
    ReactionRow,
    Record,
    RunRow,
    StepRow,
    StudyRow,
    TestResultRow,
    TrainLogRow,
)
from lab.store import Store
from stats.composite import METRICS
from stats.frozen_effect import FrozenSeed, leverage_rows
from stats.memory_comparisons import Values, memory_rows
from stats.regime_deltas import regime_delta_rows
from stats.regime_series import COMMON, STATE, Occurrence, RunSeries
from stats.rows import FloatArray, TestRow
from stats.run_comparisons import comparison_rows, lowest_of_all_row
from stats.separability import separability_rows
from stats.state_presets import preset_rows
from stats.state_probes import dimension_rows

STUDY, MODEL = "nanodesmo", "nanogpt"
START = datetime(2026, 11, 21, 22, 0)
STEPS, BEFORE, PROBE = 170, 12, 5
WINDOWS = {"bewilderment": ((40, 56), (104, 120)), "false_feedback": ((72, 88), (136, 152))}
CHANNELS = (*COMMON, *STATE, "effect_kl_nats")
LOSS = {
    "self-analysis": 3.0, "regimes-all": 3.1, "baseline": 3.01, "mem-ema-decay-0.1": 2.99,
    "mem-buf-l32": 2.95, "mem-buf-l64-s5": 3.0, "self-regimes": 3.1, "vanilla-regimes": 3.12,
    "no-step-frac": 3.1,
    "self-analysis-noself": 3.01, "self-analysis-random": 3.02,
}  # fmt: skip
"""Run -> held-out loss of a seed, nearly."""
MEMORY: Mapping[str, Mapping[str, Any]] = {
    "mem-ema-decay-0.1": {"memory": "ema", "length": 64, "stride": 10},
    "mem-buf-l32": {"memory": "buffer", "length": 32, "stride": 10},
    "mem-buf-l64-s5": {"memory": "buffer", "length": 64, "stride": 5},
}
FROZEN = ("self-analysis", "self-analysis-noself", "self-analysis-random")
CONTROLS = ("self-regimes", "vanilla-regimes", "no-step-frac")
SUITE = {
    **dict.fromkeys((*FROZEN, "regimes-all", "baseline"), "core"),
    **dict.fromkeys(MEMORY, "memory"),
    **dict.fromkeys(CONTROLS, "controls"),
}  # fmt: skip
LOGGED = ("regimes-all", "self-analysis", *MEMORY)
"""Runs whose steps are rows."""
NO_SECOND = "there is no second text; give one"


@dataclass(frozen=True, kw_only=True)
class Invented:
    """What is made up."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    failed: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Run and seed -> why there is none."""
    second: bool = True
    """Whether there is a second text."""

    @property
    def plan(self) -> Plan:
        """Of these seeds."""
        text = "stdlib" if self.second else ""
        return plan(replace(SMOKE, seeds=self.seeds, before=BEFORE, probe_every=PROBE, second_corpus=text))

    def why(self, arm: str) -> str | None:
        """Why a run says nothing."""
        return next(
            (f"{arm}, seed {s}: {why}" for (name, s), why in self.failed.items() if name == arm), None
        )


@cache
def channels(arm: str, seed: int, without: tuple[str, int] | None = None) -> Mapping[str, FloatArray]:
    """Channel -> (STEPS,), with the windows' doings except those of one window."""
    rng = np.random.default_rng([seed, *arm.encode()])
    t = np.arange(STEPS) / STEPS
    found = {
        "loss_nats": 3.5 - 0.5 * t, "entropy_nats": 3.4 - 0.4 * t, "top1": 0.1 + 0.05 * t,
        "grad_norm": 0.5 - 0.1 * t, "self_norm": 2.0 + 0.3 * t, "self_delta": np.full(STEPS, 0.02),
        "self_drift": 0.01 - 0.005 * t, "relative_drift": 0.8 - 0.4 * t, "raw_norm": 3.0 + 0.1 * t,
        "gate": 0.3 + 0.02 * t, "effect_kl_nats": 0.05 + 0.02 * t,
    }  # fmt: skip
    found = {name: values * (1 + 0.02 * rng.normal(size=STEPS)) for name, values in found.items()}
    found["effect_kl_nats"][np.arange(STEPS) % PROBE != 0] = np.nan
    if arm == "regimes-all":
        moved = {"bewilderment": {"loss_nats": 1.0, "entropy_nats": 0.3, "self_norm": 0.6},
                 "false_feedback": {"self_delta": 0.03}}  # fmt: skip
        for regime, places in WINDOWS.items():
            for number, (start, end) in enumerate(places):
                if (regime, number) != without:
                    for name, more in moved[regime].items():
                        found[name][start:end] += more * (1 + 0.1 * seed)
    return found


def run_series(seed: int, arm: str = "regimes-all") -> RunSeries:
    """A run with the twins of its windows."""
    windows = [
        Occurrence(
            regime=regime, number=number, start=start, end=end,
            twin={k: v[start:end] for k, v in channels(arm, seed, (regime, number)).items()},
        )
        for regime, places in WINDOWS.items() for number, (start, end) in enumerate(places)
    ]  # fmt: skip
    windows.sort(key=lambda one: one.start)
    return RunSeries(seed=seed, channels=channels(arm, seed), occurrences=tuple(windows))


def losses(told: Invented, arm: str) -> dict[int, float | None]:
    """Seed -> held-out loss."""
    rng = np.random.default_rng([7, *arm.encode()])
    found = {seed: LOSS[arm] + 0.01 * seed + 0.002 * float(rng.normal()) for seed in told.seeds}
    return {seed: value for seed, value in found.items() if (arm, seed) not in told.failed}


@cache
def frozen_seed(arm: str, seed: int) -> FrozenSeed:
    """What the frozen test of a run found."""
    rng = np.random.default_rng([seed, 3, *arm.encode()])
    none = arm == "self-analysis-noself"
    null = np.zeros(199) if none else np.abs(rng.normal(0.1, 0.03, 199))
    effect = 0.0 if none else 0.35 + 0.02 * seed if arm == "self-analysis" else 0.1
    states = {"zero": 3.2, "own": 3.1, "confident": 3.0, "uncertain": 3.0 + effect, "random": 3.15}
    return FrozenSeed(
        seed=seed, effect_nats=effect, effect_top1=effect / 4, null_nats=null, null_top1=null / 4,
        axis_nats=null, sd_nats=0.05, entropy_nats={k: v + 0.01 * seed for k, v in states.items()},
        top1={k: 0.4 - v / 10 for k, v in states.items()},
    )  # fmt: skip


def _frozen(told: Invented) -> list[TestRow]:
    arms = {arm: [frozen_seed(arm, seed) for seed in told.seeds] for arm in FROZEN}
    made = {s: (0.1 + 0.01 * s) * (-1 if s == 1 else 1) for s in told.seeds}
    presets = {s: {"calm": {"measured_nats": -v}, "alarmed": {"measured_nats": v}} for s, v in made.items()}
    rows = leverage_rows(arms, main="self-analysis", margin=0.05, alpha=0.05)
    return [*preset_rows(dict.fromkeys(FROZEN, presets), alpha=0.05), *rows]


def _row(
    family: str, hypothesis: str, metric: str, contrast: str, estimate: float | None, **more: Any
) -> TestRow:
    spread = {} if estimate is None else {"low": estimate - 0.2, "high": estimate + 0.2, "p": 0.03, "n": 3}
    told = {"method": "made up", "role": "diagnostic", "alpha": 0.05, "estimate": estimate, **spread, **more}
    return TestRow(family=family, hypothesis=hypothesis, metric=metric, contrast=contrast, **told)


def _about_state() -> Iterator[TestRow]:
    """Families that rest on trajectories, by hand."""
    for channel in ("loss_nats", "entropy_nats"):
        for lag in range(-3, 4):
            yield _row("lead_lag", "cross_correlation", f"effect_kl_nats~{channel}", f"lag {lag}",
                       {("loss_nats", 2): 0.5, ("loss_nats", 3): 0.35}.get((channel, lag), 0.0),
                       low=-0.3, high=0.3, p_adjusted=0.01 if (channel, lag) == ("loss_nats", 2) else 1.0,
                       )  # fmt: skip
        for metric, value in (("precision", 0.7), ("recall", 0.4), ("base_rate", 0.38)):
            yield _row("lead_lag", "early_warning", metric, channel, value)
    for regime, value in (("bewilderment", -2.0), ("false_feedback", 0.1)):
        for metric in METRICS:
            yield _row("composite", "inside_minus_clean", metric, regime, value, role="secondary")
    for target, value in (("loss_nats", 0.2), ("entropy_nats", 0.6), ("step", 0.9)):
        yield _row("probe", "linear_probe", target, "state", value, p_adjusted=0.09)
        yield _row("probe", "shuffled", target, "state", -0.1)
        if target != "step":
            yield _row("probe", "other_seeds", target, "state", -0.2)
    yield _row("probe", "effective_rank", "*", "state", 4.5)
    yield _row("probe", "pc1_step", "*", "state", 0.8)
    for place, name in enumerate(("loss", "grad_norm", "step_frac", "entropy", "top1")):
        yield _row("sensitivity", "input", name, "*", 0.3 + 0.1 * place)
    yield from dimension_rows({seed: [0.1, -0.4, 0.2 + 0.1 * seed, 0.0] for seed in range(3)})


def _regimes(told: Invented) -> list[TestRow]:
    series = [run_series(seed) for seed in told.seeds]
    rng = np.random.default_rng(0)
    rows = regime_delta_rows(series, CHANNELS, alpha=0.05, before=BEFORE)
    rows += separability_rows(series, rng=rng, alpha=0.05, margin=0.05, permutations=20, reference=BEFORE)
    values = {name: dict(enumerate((3.0 + 0.01 * k, 3.01 + 0.012 * k, 3.02)))
              for k, name in enumerate(("own", "zero", "random", "foreign", "other_init"))}  # fmt: skip
    values["zero"] = dict(enumerate((3.005, 3.0151, 3.0249)))  # DETECTED and negligible
    others = ("baseline", "self-analysis-noself")
    rows += comparison_rows(
        {arm: losses(told, arm) for arm in ("self-analysis", *others)},
        [("self-analysis", arm) for arm in others], family="undisturbed", metric="valid_loss_nats",
        margin=0.02, role="secondary",
    )  # fmt: skip
    rows += comparison_rows(
        values, [(name, "own") for name in ("zero", "random", "foreign", "other_init")], family="swap",
        metric="valid_loss_nats", hypothesis="frozen", margin=0.02, role="secondary",
    )  # fmt: skip
    return [*rows, *_about_state()]


def _memory(told: Invented) -> list[TestRow]:
    reasons = {arm: why for arm in MEMORY if (why := told.why(arm))}
    values = {arm: losses(told, arm) for arm in (*MEMORY, "self-analysis")}
    drift: Values = {arm: {s: 0.01 + 0.001 * s for s in told.seeds} for arm in values}
    shares: Values = {arm: {s: 0.05 + 0.001 * s for s in told.seeds} for arm in MEMORY}
    return memory_rows(
        tuple(MEMORY), {"valid_loss_nats": values, "self_drift": drift}, shares, without="self-analysis",
        unused={}, reasons=reasons, margin=0.02, alpha=0.05,
    )  # fmt: skip


def _controls(told: Invented) -> list[TestRow]:
    pairs = [("self-regimes", arm) for arm in CONTROLS[1:]]
    rows = comparison_rows(
        {arm: losses(told, arm) for arm in CONTROLS}, pairs, family="controls", metric="valid_loss_nats",
        margin=0.02,
    )  # fmt: skip
    done = lowest_of_all_row(rows, hypothesis="beats_controls", family="controls")
    deltas = []
    for arm in CONTROLS:
        own = [run_series(seed) for seed in told.seeds]
        shift = 1.0 if arm == "self-regimes" else 0.5
        for row in regime_delta_rows(own, COMMON, alpha=0.05, before=BEFORE):
            if row.hypothesis == "against_before" and row.effect is not None:
                deltas.append(replace(row, family="control_deltas", contrast=f"{arm}:{row.contrast}",
                                      effect=row.effect * shift))  # fmt: skip
    return [*rows, *deltas, done]


def analyses(told: Invented) -> dict[str, list[TestRow]]:
    """Phase -> its answers."""
    found = {"core": _regimes(told), "frozen_core": _frozen(told), "memory": _memory(told),
             "controls": _controls(told)}  # fmt: skip
    if told.second:
        halved = [replace(row, estimate=row.estimate / 2, low=None, high=None)
                  if row.hypothesis == "rotation" and row.estimate is not None else row
                  for row in found["frozen_core"]]  # fmt: skip
        found |= {"generalization": found["core"], "frozen_generalization": halved}
    return found


def _step(key: str, experiment: str, arm: str | None, seed: int | None, **more: Any) -> StepRow:
    told: dict[str, Any] = {"config": "{}", "seconds": 3.0, "reason": None, **more}
    return StepRow(
        step_id=key, study=STUDY, experiment=experiment, arm=arm, model=MODEL, seed=seed, code="c0de",
        device="cpu", environment_id="env n", recorded_at=START, **told,
    )  # fmt: skip


def _reactions(
    key: str, arm: str, seed: int, without: tuple[str, int] | None = None
) -> Iterator[ReactionRow]:
    values = channels(arm, seed, without)
    first, last = (0, STEPS) if without is None else WINDOWS[without[0]][without[1]]
    for step in range(first, last):
        acting = [
            regime
            for regime, places in WINDOWS.items()
            for number, (start, end) in enumerate(places)
            if arm == "regimes-all" and start <= step < end and (regime, number) != without
        ]
        row = {name: float(v[step]) if np.isfinite(v[step]) else None for name, v in values.items()}
        nothing = dict.fromkeys(("memory_norm", "clamped_norm", "memory_filled", "cosine", "effect_logits"))
        yield ReactionRow(
            step_id=key, twin="" if without is None else f"{without[0]}/{without[1]}", step=step,
            regimes="+".join(acting), learning_rate=1e-3, step_frac=step / STEPS, **(nothing | row),  # type: ignore[arg-type]
        )  # fmt: skip


def _cell(told: Invented, suite: str, arm: str, seed: int) -> Iterator[Record]:
    """Rows of one run."""
    why = told.failed.get((arm, seed)) if suite != "generalization" else None
    key = f"{suite}-{arm}-{seed}{'-failed' if why else ''}"
    state = {"memory": "none", "length": 64, "stride": 10, **MEMORY.get(arm, {})}
    config = canonical({"suite": suite, "arm": arm, "recipe": {"state": state}, "text": {"sha256": "a" * 64}})
    yield _step(key, suite, arm, seed, config=config, reason=why, seconds=None if why else 3.0)
    if why:
        return
    filled = {"mem-buf-l32": 32.0, "mem-buf-l64-s5": 34.0}.get(arm)
    numbers: dict[str, float | None] = {
        "valid_loss_nats": losses(told, arm)[seed], "tokens_per_second": 30_000.0,
        "self_drift_mean": 0.005, "effect_kl_mean": 0.06, "memory_share": 0.05 if arm in MEMORY else None,
        "memory_filled": filled,
    }  # fmt: skip
    for name, value in numbers.items():
        yield MetricRow(step_id=key, unit="*", name=name, value=value, reason=None if value else "no memory")
    yield TrainLogRow(step_id=key, iteration=STEPS, train_loss_nats=None, valid_loss_nats=3.0,
                      learning_rate=None, tokens=100, seconds=None)  # fmt: skip
    yield ArtifactRow(step_id=key, path=f"models/{key}", kind="checkpoint", sha256="b" * 64, bytes=10)
    if arm in LOGGED:
        yield from _reactions(key, arm, seed)
    if arm == "regimes-all":
        for regime, places in WINDOWS.items():
            for number in range(len(places)):
                yield from _reactions(key, arm, seed, (regime, number))


def _about(told: Invented, key: str, started: datetime) -> list[Record]:
    declared = told.plan
    return [
        StudyRow(study=STUDY, question=declared.question, text="The docstring of the flow."),
        PlanRow(plan_hash=key, study=STUDY, profile="smoke", frozen=True, recorded_at=started,
                text=plan_text(declared)),
        EnvironmentRow(environment_id="env n", python="3.11.9", platform="Linux", cpu="a CPU", cores=2,
                       memory_gib=8.0, device="cpu", packages="{}"),
        RunRow(run_id=f"run {key}", study=STUDY, profile="smoke", model=MODEL, plan_hash=key, settings="{}",
               state="completed", started_at=started, ended_at=started + timedelta(minutes=4),
               exploratory=False, environment_id="env n", git_commit="0123456789abcdef", git_dirty=False,
               flow_run_id=None,
               parent_flow_run_id=None, process="host:1:2", note=None),
    ]  # fmt: skip


def _decide(store: Store, key: str, look: int, analysis: Mapping[str, str]) -> None:
    """Ask the four gates of the analyses that they read."""
    for place, gate in enumerate(GATES):
        known = {"plan_hash": key, "analysis": analysis[PHASE_OF[gate.name]], "look": look}
        parameters = {name: value for name, value in known.items() if f"${name}" in gate.sql}
        [evidence] = store.read(gate.sql, parameters).to_dicts()
        ruling = rule_on(gate, evidence, last_look=True)
        store.record(
            [
                DecisionRow(
                    decision_id=f"decide-{gate.name}-{key}", study=STUDY, profile="smoke", model=MODEL,
                    gate=gate.name, look=look, plan_hash=key, run_id=f"run {key}", question=gate.question,
                    verdict=ruling.verdict, exploratory=False, negligible=ruling.negligible,
                    evidence=canonical(evidence), sql=gate.sql, parameters=canonical(parameters),
                    rule=rule_text(gate), sentence=ruling.sentence, next=ruling.next, next_parameters="{}",
                    flow_run_id=None, launched_flow_run_id=None, decided_at=START + timedelta(seconds=place),
                )
            ]
        )  # fmt: skip


def record_nano(store: Store, told: Invented | None = None, *, started: datetime = START) -> str:
    """Record the study; returns the plan's hash."""
    told = told or Invented()
    key = plan_hash(told.plan)
    records: list[Record] = []
    cells = [(suite, arm) for arm, suite in SUITE.items()]
    cells += [("generalization", "regimes-all"), ("generalization", "self-analysis")] if told.second else []
    for suite, arm in cells:
        for seed in told.seeds:
            records += _cell(told, suite, arm, seed)
    if not told.second:
        records += [_step(f"skip-{name}-{key}", name, None, None, reason=NO_SECOND)
                    for name in ("generalization", "frozen_generalization")]  # fmt: skip
    analysis = {}
    for place, (phase, rows) in enumerate(analyses(told).items()):
        analysis[phase] = f"analyse-{phase}-{key}"
        step = replace(_step(analysis[phase], "analyse", phase, None),
                       recorded_at=START + timedelta(seconds=place))  # fmt: skip
        about: dict[str, Any] = {"step_id": step.step_id, "study": STUDY, "model": MODEL}
        look = len(told.seeds)
        records += [step, *(TestResultRow(**about, look=look, **asdict(row)) for row in rows)]
    planned = [PlanStepRow(plan_hash=key, step_id=one.step_id) for one in records if isinstance(one, StepRow)]
    store.record([*_about(told, key, started), *records, *planned])
    _decide(store, key, len(told.seeds), analysis)
    return key
