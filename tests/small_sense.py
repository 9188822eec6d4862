"""The sense study recorded into a store without heads: made-up ranks and steps, real statistics and gates.

An item is answered by one draw: its rank is 1 with the arm's share less what its tier costs, and below 3 with
a larger one, so that hits, ranks and margins agree. Two items are lost by every seed of B.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from flows.sense_gates import GATES
from flows.sense_scaling import SMOKE, plan
from lab.fingerprint import canonical
from lab.gates import rule_on, rule_text
from lab.plan import Plan, plan_hash, plan_text
from lab.records import (
    DecisionRow,
    EnvironmentRow,
    MetricRow,
    PlanRow,
    PlanStepRow,
    Record,
    RetrievalRow,
    RunRow,
    StepRow,
    StudyRow,
    TestResultRow,
)
from lab.store import Store
from stats.retrieval import killer_share, margins
from stats.rows import FloatArray, TestRow
from stats.ship_blockers import Limits, Outcomes, TestSet
from stats.shortcut_audit import Shortcut
from tasks.sense_analysis import KINDS
from tasks.sense_rows import training_rows

STUDY, MODEL = "sense_scaling", "learned"
START = datetime(2026, 11, 21, 22, 0)
LEMMAS, EACH, STEPS = 12, 4, 3
"""Lemmas, items a lemma and tier, contexts of a coherence item."""
TIERS = np.tile(np.repeat([1, 2, 3], EACH), LEMMAS)
OF_LEMMA = np.repeat(np.arange(LEMMAS), 3 * EACH)
SKILL = {
    "A": 0.2, "B": 0.45, "C": 0.55, "B-flat": 0.44, "C-halved": 0.46, "C-raised": 0.5, "B-0.05": 0.12,
    "B-0.1": 0.2, "B-0.2": 0.28, "B-0.4": 0.35, "B-0.7": 0.41, "B-1": 0.45,
}  # fmt: skip
"""Arm -> share of items answered."""
STEPS_RIGHT = {"A": 0.6, "B": 0.72, "C": 0.76}
BASELINES = {
    "chance": 0.1, "longest": 0.1, "lemma_only": 0.14, "word_jaccard": 0.1, "mean_pooling": 0.11,
}  # fmt: skip
SHORTCUTS = ("longest", "filler")
LOST = (5, 11)
"""Items that no seed of B ranks among the first three."""
CURVE = {"B-0.05": 160.0, "B-0.1": 330.0, "B-0.2": 660.0, "B-0.4": 1300.0, "B-0.7": 2300.0, "B-1": 3300.0}
WORDS = (("kamu", "other"), ("kupo", "cue"), ("lem/ma", "lemma"), ("fazo", "other"))


@dataclass(frozen=True, kw_only=True)
class Invented:
    """What is made up."""

    seeds: tuple[int, ...] = (42, 123, 456)
    failed: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Arm and seed -> why there is no head."""

    @property
    def plan(self) -> Plan:
        """Of these seeds."""
        return plan(replace(SMOKE, seeds=self.seeds, curve_seeds=len(self.seeds)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What an arm reached on a split."""

    ranks: FloatArray
    margin: FloatArray
    """(S, I)"""
    steps: FloatArray
    """(S, J) contexts right."""
    entropy: FloatArray

    @property
    def outcomes(self) -> Outcomes:
        """As the blockers take them."""
        return Outcomes(
            top1=(self.ranks == 1).astype(float),
            top3=(self.ranks <= 3).astype(float),
            coherence=self.steps,
            margin=self.margin,
        )


@cache
def made(arm: str, seeds: tuple[int, ...], split: str = "test") -> Made:
    """Answers of an arm, a row a seed."""
    rng = np.random.default_rng([len(split), *arm.encode()])
    share = SKILL[arm] * np.array([0.0, 1.5, 1.0, 0.5])[TIERS]
    drawn = rng.random((len(seeds), len(TIERS)))
    first, third = drawn < share, drawn < share + 0.25
    ranks = np.where(first, 1, np.where(third, 2, 6)).astype(float)
    if arm == "B":
        ranks[:, LOST] = 7
    margin = (2.5 - ranks) / 10 + rng.normal(0.0, 0.02, ranks.shape)
    skill = STEPS_RIGHT.get(arm, 0.74)
    steps = (rng.random((len(seeds), 2 * LEMMAS, STEPS)) < skill).sum(axis=2).astype(float)
    entropy = 0.9 - SKILL[arm] / 10 + rng.normal(0.0, 0.01, ranks.shape)
    return Made(ranks=ranks, margin=margin, steps=steps, entropy=entropy)


@cache
def unlearned() -> SimpleNamespace:
    """Baselines, shortcuts and ceiling, as `tasks.sense_answers.unlearned` returns them."""
    rng = np.random.default_rng(3)
    baselines = {
        name: Outcomes(
            top1=(rng.random((1, len(TIERS))) < share).astype(float),
            top3=(rng.random((1, len(TIERS))) < 3 * share).astype(float),
            coherence=None if name == "chance" else np.full((1, 2 * LEMMAS), 1.1),
        )
        for name, share in BASELINES.items()
    }
    chance = np.full(len(TIERS), 0.1)
    baselines["chance"] = Outcomes(top1=chance[None], top3=3 * chance[None])
    shortcuts = {
        name: Shortcut(hits=chance + rng.normal(0, 0.01, len(TIERS)), chance=chance, lemmas=OF_LEMMA)
        for name in SHORTCUTS
    }
    ceiling = Outcomes(top1=np.full((1, len(TIERS)), 0.7), top3=np.full((1, len(TIERS)), 0.9),
                       coherence=np.full((1, 2 * LEMMAS), 2.6))  # fmt: skip
    return SimpleNamespace(baselines=baselines, shortcuts=shortcuts, ceiling=ceiling)


def _study(told: Invented, split: str, arms: Collection[str], **question: Any) -> Any:
    """What the analyses take, without products."""
    found = {arm: made(arm, told.seeds, split) for arm in arms if not _why(told, arm)}
    test = TestSet(
        lemmas=OF_LEMMA, tiers=TIERS, coherence_lemmas=np.arange(2 * LEMMAS) // 2,
        coherence_steps=np.full(2 * LEMMAS, float(STEPS)),
    )  # fmt: skip
    asked: dict[str, Any] = {
        "margin": 0.02, "alpha": 0.05, "contrasts": {}, "factorial": (), "killer_items": None, "killers": {},
        "exams": {arm: dict.fromkeys(told.seeds, "exam") for arm in found}, "judged": (), "sizes": {},
        "items": SimpleNamespace(split=split),
    }  # fmt: skip

    def table(metric: str) -> dict[str, FloatArray]:
        if metric == "attention_entropy":
            return {arm: one.entropy for arm, one in found.items()}
        return {arm: getattr(one.outcomes, metric) for arm, one in found.items()}

    return SimpleNamespace(
        question=SimpleNamespace(**(asked | question)),
        items=SimpleNamespace(lemmas=OF_LEMMA, tiers=TIERS, test_set=test),
        limits=Limits(),
        rng=np.random.default_rng(0),
        broken={arm: why for arm in arms if (why := _why(told, arm))},
        unlearned=unlearned(),
        outcomes=lambda arm: found[arm].outcomes if arm in found else Outcomes(top1=None, top3=None),
        table=table,
    )


def _why(told: Invented, arm: str) -> str | None:
    return next((f"{arm}, seed {at[1]}: {why}" for at, why in told.failed.items() if at[0] == arm), None)


def analyses(told: Invented) -> dict[str, Callable[[], list[TestRow]]]:
    """Gate -> its analysis, made when a gate is reached."""
    abc = ("A", "B", "C")
    extra = {"oversampling": (("B", "B-flat"),)}
    return {
        "sound": lambda: KINDS["sound"](_study(told, "test", ())),
        "more_data": lambda: [
            *KINDS["compare"](_study(told, "test", (*abc, "B-flat"), contrasts=extra)),
            *_killers(told),
        ],
        "ship_b": lambda: KINDS["ship"](_study(told, "test", abc, judged=abc)),
        "halved": lambda: KINDS["ship"](_study(told, "dev", ("A", "C-halved"), judged=("C-halved",))),
        "raised": lambda: KINDS["ship"](_study(told, "dev", ("A", "C-raised"), judged=("C-raised",))),
        "curve": lambda: KINDS["curve"](_study(told, "test", tuple(CURVE), sizes=CURVE)),
    }


def _killers(told: Invented) -> Iterator[TestRow]:
    for arm in ("A", "B", "C"):
        if _why(told, arm):
            continue
        hits = made(arm, told.seeds).outcomes.top1
        assert hits is not None
        few = hits[:, :40]
        bare = TestRow(family="killers", hypothesis="top1", metric="top1", contrast=arm, method="mean",
                       role="secondary", estimate=float(few.mean()), n=40)  # fmt: skip
        yield bare
        for seed, own in zip(told.seeds, few, strict=True):
            found = killer_share(own)
            yield replace(bare, contrast=f"{arm}:seed {seed}", method=found.method, role="diagnostic",
                          estimate=found.estimate, low=found.low, high=found.high)  # fmt: skip


def _step(key: str, experiment: str, arm: str, seed: int | None, reason: str | None = None) -> StepRow:
    return StepRow(
        step_id=key, study=STUDY, experiment=experiment, arm=arm, model=MODEL, seed=seed, config="{}",
        code="c0de", seconds=None if reason else 3.0, device="cpu", environment_id="env s",
        recorded_at=START, reason=reason,
    )  # fmt: skip


def _metrics(key: str, unit: str, numbers: Mapping[str, float]) -> Iterator[Record]:
    for name, value in numbers.items():
        yield MetricRow(step_id=key, unit=unit, name=name, value=float(value), reason=None)


def _exam(told: Invented, arm: str, at: int, split: str) -> Iterator[Record]:
    """Rows of one head on a split, named as `tasks.sense_rows` names them."""
    one, seed = made(arm, told.seeds, split), told.seeds[at]
    key = f"exam-{split}-{arm}-{seed}"
    yield _step(key, f"exam on {split}", arm, seed)
    ranks, spread = one.ranks[at], margins(one.margin[at])
    numbers = {
        "top1": (ranks == 1).mean(), "top3": (ranks <= 3).mean(), "mrr": (1 / ranks).mean(),
        "coherence_step": one.steps[at].sum() / one.steps[at].size / STEPS, "margin_p5": spread.p5,
        "margin_p50": spread.p50, "margin_p95": spread.p95, "margin_sd": spread.sd,
        "attention_entropy": one.entropy[at].mean(), "cue_mass": 0.4, "lemma_mass": 0.02,
    }  # fmt: skip
    yield from _metrics(key, "*", numbers)
    if split != "test":
        return
    for place, rank in enumerate(ranks):
        yield RetrievalRow(
            step_id=key, item=f"item {place}", lemma=f"lemma {OF_LEMMA[place]}", tier=int(TIERS[place]),
            rank=int(rank), margin=float(one.margin[at, place]), reason=None,
        )  # fmt: skip
    if at == 0:
        for tier in (1, 2, 3):
            for place, (word, kind) in enumerate(WORDS):
                unit = f"shown/tier {tier}/item {tier}/{place:02d}/{word}"
                yield from _metrics(key, unit, {f"attention_{kind}": 0.1 * (place + 1)})


def _training(told: Invented, arm: str, at: int) -> Iterator[Record]:
    key = f"train-{arm}-{told.seeds[at]}"
    yield _step(key, "train", arm, told.seeds[at])
    looks = [
        {"step": step, "loss_nats": 2.0, "dev_loss_nats": 2.1, "learning_rate": 1e-3,
         "dev_top1": SKILL[arm] * step / 100 + 0.01 * at, "attention_entropy": 1 - step / 1000}
        for step in (50, 100)
    ]  # fmt: skip
    facts = {
        "looks": looks, "best_step": 100, "steps_to_threshold": None if arm == "A" else 50, "texts": 900,
        "bundles": CURVE.get(arm, 800.0), "proposed": 40, "accepted": 30, "parameters": 5000,
    }  # fmt: skip
    yield from training_rows(facts, key)


def cells(told: Invented) -> Iterator[list[Record]]:
    """Rows of every head, baseline, verification and of the mining."""
    for arm in SKILL:
        for at, seed in enumerate(told.seeds):
            why = told.failed.get((arm, seed))
            if why:
                yield [_step(f"head-{arm}-{seed}", "head", arm, seed, why)]
                continue
            split = "dev" if arm in ("C-halved", "C-raised") else "test"
            yield list(_training(told, arm, at))
            yield list(_exam(told, arm, at, split))
    scored = unlearned()
    for name, one in {**scored.baselines, "topics_known": scored.ceiling}.items():
        key = f"baseline-{name}"
        steps = {} if one.coherence is None else {"coherence_step": one.coherence.sum() / 2 / LEMMAS / STEPS}
        tiers = [
            row
            for tier in (1, 2, 3)
            for row in _metrics(key, f"tier/{tier}", {"top1": one.top1[0, tier == TIERS].mean()})
        ]
        numbers = {"top1": one.top1.mean(), "top3": one.top3.mean(), **steps}
        yield [_step(key, "baseline on test", name, None), *_metrics(key, "*", numbers), *tiers]
    for at, seed in enumerate(told.seeds):
        key = f"verify-{seed}"
        found = {"cosine": 0.1 * at, "gap": 0.05, "precision": 0.9, "recall": 0.8 + 0.02 * at}
        yield [_step(key, "verify", "B", seed), *_metrics(key, "calibrated", found),
               *_metrics(key, "published", {**found, "cosine": 0.5}),
               *_metrics(key, "roc", {"auc_cosine": 0.9, "auc_gap": 0.95})]  # fmt: skip
    yield [_step("mine", "mine", "B", 100_003),
           *_metrics("mine", "*", {"killers": 40.0, "dropped: same query": 3.0})]  # fmt: skip


def _about(told: Invented, key: str) -> list[Record]:
    declared = told.plan
    return [
        StudyRow(study=STUDY, question=declared.question, text="The docstring of the flow."),
        PlanRow(
            plan_hash=key, study=STUDY, profile="smoke", frozen=True, recorded_at=START,
            text=plan_text(declared),
        ),
        EnvironmentRow(
            environment_id="env s", python="3.11.9", platform="Linux", cpu="a CPU", cores=2, memory_gib=8.0,
            device="cpu", packages="{}",
        ),
        RunRow(
            run_id="run", study=STUDY, profile="smoke", model=MODEL, plan_hash=key, settings="{}",
            state="completed", started_at=START, ended_at=START + timedelta(minutes=4), exploratory=False,
            environment_id="env s", git_commit="0123456789abcdef", git_dirty=False, flow_run_id=None,
            parent_flow_run_id=None, process="host:1:2", note=None,
        ),
    ]  # fmt: skip


def _walk(store: Store, told: Invented, key: str) -> None:
    """Ask the gates along their routes, each after the analysis that it reads is recorded."""
    by_name, name, wanted = {gate.name: gate for gate in GATES}, GATES[0].name, analyses(told)
    analysis, shipping, look, asked = "", "", len(told.seeds), 0
    while name in by_name:
        gate = by_name[name]
        if name in wanted:
            analysis = f"analyse-{name}"
            rows = [TestResultRow(step_id=analysis, study=STUDY, model=MODEL, look=look, **asdict(row))
                    for row in wanted[name]()]  # fmt: skip
            step = replace(_step(analysis, "analyse", name, None), seconds=None)
            store.record([step, PlanStepRow(plan_hash=key, step_id=analysis), *rows])
            shipping = analysis if name == "ship_b" else shipping
        analysis = shipping if name == "fallback" else analysis
        parameters: Mapping[str, object] = {"plan_hash": key, "analysis": analysis}
        [evidence] = store.read(gate.sql, parameters).to_dicts()
        ruling = rule_on(gate, evidence, last_look=True)
        asked += 1
        store.record(
            [
                DecisionRow(
                    decision_id=f"decide-{name}", study=STUDY, profile="smoke", model=MODEL, gate=name,
                    look=look, plan_hash=key, run_id="run", question=gate.question, verdict=ruling.verdict,
                    exploratory=False, negligible=ruling.negligible, evidence=canonical(evidence),
                    sql=gate.sql, parameters=canonical(dict(parameters)), rule=rule_text(gate),
                    sentence=ruling.sentence, next=ruling.next, next_parameters="{}", flow_run_id=None,
                    launched_flow_run_id=None, decided_at=START + timedelta(seconds=asked),
                )
            ]
        )  # fmt: skip
        name = ruling.next


def record_sense(store: Store, told: Invented | None = None) -> None:
    """Record the study; an arm that failed ends it at the gate that compares it."""
    told = told or Invented()
    key = plan_hash(told.plan)
    records = _about(told, key)
    for rows in cells(told):
        step = rows[0]
        assert isinstance(step, StepRow)
        records += [*rows, PlanStepRow(plan_hash=key, step_id=step.step_id)]
    store.record(records)
    _walk(store, told, key)
