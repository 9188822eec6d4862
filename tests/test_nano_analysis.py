"""Analyses of the nanodesmo study: which phase asks what, and from how many seeds a gate concludes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.nano_gates import CONTROLS, GATES
from lab.gates import judge
from stats.memory_comparisons import memory_rows
from stats.rows import TestRow
from stats.run_comparisons import comparison_rows
from tasks import nano_analysis
from tasks.nano_analysis import Question, answers
from tasks.nano_frozen_rows import checkpoint_rows

LEVERAGE = GATES[0]
QUESTION = Question(
    kind="regimes",
    runs={name: {} for name in ("self-analysis", "baseline", "self-analysis-noself", "swap-a")},
    measured={},
    missing={"swap-a": "swap-a, seed 0: out of memory"},
    margin=0.05,
    loss_margin=0.02,
    auc_margin=0.05,
    alpha=0.05,
    before=20,
    permutations=20,
)
LOSSES = {
    "self-analysis": {0: 2.00, 1: 2.02, 2: 2.01}, "baseline": {0: 2.10, 1: 2.13, 2: 2.10},
    "self-analysis-noself": {0: 2.001, 1: 2.019, 2: 2.011},
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows of a phase without runs: regimes say nothing, losses are LOSSES."""
    monkeypatch.setattr(nano_analysis, "KINDS", {"regimes": lambda home, question: []})
    monkeypatch.setattr(nano_analysis, "_losses", lambda home, question, arm: LOSSES.get(arm, {}))
    return lambda phase: answers(Path(), phase, QUESTION)


def test_a_second_text_asks_nothing_of_the_firsts_swaps_and_baselines(asked: Any) -> None:
    assert asked("generalization") == []
    first: list[TestRow] = asked("core")
    assert {row.family for row in first} == {"undisturbed", "swap"}
    assert {row.reason for row in first if row.hypothesis == "frozen"} == {
        f"{a}: swap-a, seed 0: out of memory; own: swap-a, seed 0: out of memory"
        for a in ("zero", "random", "foreign", "other_init")
    }


def test_the_state_is_compared_with_runs_without_it_and_no_gate_hears_of_it(asked: Any) -> None:
    rows = {row.contrast: row for row in asked("core") if row.hypothesis == "difference"}
    baseline, noself = (rows[f"self-analysis-{arm}"] for arm in ("baseline", "self-analysis-noself"))
    assert (baseline.verdict, noself.verdict) == ("DETECTED", "EQUIVALENT")
    assert rows["self-analysis-noself-baseline"].estimate == pytest.approx(-0.0997, abs=1e-4)
    assert {row.role for row in rows.values()} == {"secondary"}
    assert baseline.p_adjusted == pytest.approx(2 * (baseline.p or 0.0))  # Holm over the two
    assert {row.family for row in rows.values()} == {"undisturbed"}
    assert all("'undisturbed'" not in gate.sql for gate in GATES)


def test_presets_of_a_frozen_test_are_rows_with_the_count_of_their_signs() -> None:
    told = {"calm": {"measured_nats": -0.2, "holds": True}, "alarmed": {"measured_nats": 0.2, "holds": True}}
    body: dict[str, Any] = {
        "effect_nats": 0.3, "effect_top1": 0.1, "sd_nats": 0.1, "entropy_nats": {"own": 2.0},
        "top1": {"own": 0.3}, "presets": told,
        **{name: list(np.linspace(0.0, 0.2, 199)) for name in ("null_nats", "null_top1", "axis_nats")},
    }  # fmt: skip
    rows = checkpoint_rows(body, 0, margin=0.05, alpha=0.05)
    presets = {row.contrast: (row.estimate, row.statistic, row.n) for row in rows if row.family == "preset"}
    assert presets == {"checkpoint:calm": (-0.2, 1.0, 1), "checkpoint:alarmed": (0.2, 1.0, 1)}


def test_leverage_needs_five_seeds_and_every_gate_an_interval() -> None:
    evidence: dict[str, str | int] = {"tested": "DETECTED", "n": 4}
    assert judge(LEVERAGE.rules, LEVERAGE.min_n, evidence) == "INCONCLUSIVE"
    assert judge(LEVERAGE.rules, LEVERAGE.min_n, {**evidence, "n": 5}) == "DETECTED"
    assert judge(LEVERAGE.rules, LEVERAGE.min_n, {"tested": "INVALID", "n": 0}) == "INVALID"
    assert judge(CONTROLS.rules, CONTROLS.min_n, {"tested": "DETECTED", "n": 1}) == "INCONCLUSIVE"
    assert min(gate.min_n for gate in GATES) == 2


def test_buffers_less_running_means_have_loss_drift_and_effect_and_shares_no_test() -> None:
    rng = np.random.default_rng(0)
    arms = ("mem-ema", "mem-buf-l32", "mem-buf-l64")
    values = {
        metric: {
            arm: {s: 2.0 + k + 0.01 * float(rng.normal()) for s in range(5)} for k, arm in enumerate(arms)
        }
        | {"none": {s: 2.0 + 0.01 * s for s in range(5)}}
        for metric in ("valid_loss_nats", "self_drift", "effect_kl_nats")
    }
    shares = {arm: {s: 0.1 + 0.01 * s for s in range(5)} for arm in arms}
    told: dict[str, Any] = {"without": "none", "reasons": {}, "margin": 0.02, "alpha": 0.05}
    rows = memory_rows(arms, values, shares, unused={"mem-buf-l64": "never full"}, **told)
    kinds = [row for row in rows if row.hypothesis == "buffer_minus_ema"]
    assert {row.metric for row in kinds} == set(values)
    for metric in values:
        used, idle = (row for row in kinds if row.metric == metric)
        [alone] = comparison_rows(values[metric], [("mem-buf-l32", "mem-ema")], family="memory",
                                  hypothesis="buffer_minus_ema", metric=metric, margin=None,
                                  role="secondary")  # fmt: skip
        same = replace(used, margin=None, n_to_settle=None, negligible=alone.negligible)
        assert same == alone
        assert (idle.verdict, idle.reason) == ("INVALID", "mem-buf-l64: never full")
    share = [row for row in rows if row.metric == "memory_share"]
    assert [(row.contrast, row.p) for row in share] == [(arm, None) for arm in arms]
    assert [row.estimate for row in share] == pytest.approx([0.12] * 3)
    assert rows[-1].hypothesis == "memory_matters"
