"""The injection study before any text: its arms and tapes, its tree, and what it refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flows.direct_injection import (
    CONTROLS,
    FULL,
    LAPTOP,
    PROFILES,
    SMOKE,
    SOURCES,
    DirectInjection,
    arms,
    design,
    plan,
    protocol,
)
from flows.injection_gates import GATES, INJECTION_EFFECT, gates_at, next_larger
from lab.errors import UsageError
from lab.gates import STOP, Gate, rule_on
from lab.plan import plan_hash
from models.injection import MODES
from models.words import LIVE
from tasks.injection_cells import InjectedSample, InjectionDesign

FOUND: dict[str, Any] = {
    "negligible": False, "mode": "select", "effect": -0.1, "low": -0.3, "high": 0.1, "p": 0.4, "alpha": 0.05,
    "margin": 0.2, "n": 400, "power": 0.5, "mde": 0.3, "n_to_settle": 55, "modes": 7, "open_modes": 2,
    "stuck_modes": 0, "what_settles": "about 55 samples a cell would settle the hardest", "findings": "none",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_mode_has_every_source_and_the_baselines_none(name: str) -> None:
    found = arms(PROFILES[name])
    assert len({arm.name for arm in found}) == len(found)
    assert {arm.injection.mode for arm in found} == set(MODES)
    by_condition: dict[str, set[str]] = {}
    for arm in found:
        if arm.role == "treatment":
            by_condition.setdefault(arm.condition, set()).add(arm.label)
    assert all(labels == set(SOURCES) for labels in by_condition.values())
    bare = {arm.condition for arm in found if arm.injection.source is None}
    assert bare == {"none", "temp_modulate:fixed"} == {arm.name for arm in found if arm.role == "baseline"}


def test_the_larger_profiles_run_every_declared_dose_under_both_laws_and_full_names_its_models() -> None:
    doses = [(arm.injection.law, arm.injection.dose) for arm in arms(FULL) if arm.label == "TRNG"]
    assert [dose for law, dose in doses if law == "uniform"] == [0.0, 0.05, 0.1, 0.3, 1.0, 3.0]
    assert [dose for law, dose in doses if law == "gaussian"] == [0.3, 3.0]
    assert FULL.rungs == ("distilgpt2", "gpt2", "gpt2-medium")
    assert FULL.backend == "transformers"
    assert (len(FULL.prompts), FULL.looks[-1], FULL.new_tokens) == (15, 20, 150)


def test_faulty_sources_and_the_second_label_stand_under_select_beside_their_base() -> None:
    found = {arm.name: arm for arm in arms(SMOKE)}
    for label, (kind, fault) in CONTROLS.items():
        arm = found[f"select/{label}"]
        source = arm.injection.source
        assert source is not None
        assert (arm.role, arm.base, source.kind, source.dose) == (
            "positive_control",
            "select/PRNG",
            kind,
            fault,
        )
    second = found["select/TRNG_AA"]
    assert (second.role, second.base) == ("a_a", "select/TRNG")
    assert second.injection == found["select/TRNG"].injection
    times = Counter(arm.times for arm in found.values())
    assert times == {1: len(found) - 4, SMOKE.control_times: 4}


def test_no_two_arms_share_a_stream_neither_the_source_s_nor_the_choosing_one(tmp_path: Path) -> None:
    made = design(LAPTOP, "digest")
    streams = [
        (tape.spec.kind, tape.spec.stream)
        for arm in made.arms
        for tape in (made.source_tape(tmp_path, arm), made.choice_tape(tmp_path, arm))
        if tape is not None and tape.spec.kind not in LIVE
    ]
    assert len(set(streams)) == len(streams) > 30
    paths = [
        path
        for arm in made.arms
        for tape in (made.source_tape(tmp_path, arm), made.choice_tape(tmp_path, arm))
        if tape is not None
        for path in (tape.path, made.words_tape(tmp_path, arm))
        if path is not None
    ]
    assert len({path for path in paths if path.suffix == ".jsonl"}) == sum(
        p.suffix == ".jsonl" for p in paths
    )


def small(**changes: Any) -> InjectionDesign:
    """The smoke profile's design, on two prompts."""
    settings = replace(SMOKE, prompts=("creative-1", "code-1"), probe_every=5, **changes)
    return design(settings, "digest")


def calls(block: list[InjectedSample]) -> list[list[InjectedSample]]:
    """The samples as they go to the sampler."""
    found: list[list[InjectedSample]] = []
    for one in block:
        if not found or found[-1][0].call != one.call:
            found.append([])
        found[-1].append(one)
    return found


def test_a_look_appends_and_a_repeat_has_its_sample_s_draws_in_another_call(tmp_path: Path) -> None:
    made = small()
    first = made.block(made.draws(tmp_path, 2), 0, 2)
    second = made.block(made.draws(tmp_path, 4), 2, 4)
    again = made.block(made.recorded(tmp_path), 0, 2)
    assert again == first
    ids = [one.sample.sample_id for one in (*first, *second)]
    assert len(set(ids)) == len(ids) == len(made.jobs(0, 4))
    places = [one.sample.order_index for one in (*first, *second)]
    assert places == sorted(set(places))
    by_key = {(one.arm.name, one.words_key): one for one in first if one.sample.probe == 0}
    repeats = [one for one in first if one.sample.probe]
    assert len(repeats) > 10
    for one in repeats:
        sample = by_key[one.arm.name, one.words_key]
        assert (sample.sample.draw, sample.choice) == (one.sample.draw, one.choice)
    for call in calls(first):
        assert len({one.words_key for one in call}) == len(call)


def test_arms_are_interleaved_call_by_call_and_controls_have_their_multiple(tmp_path: Path) -> None:
    made = small()
    block = made.block(made.draws(tmp_path, 2), 0, 2)
    order = [call[0].arm.name for call in calls(block)]
    names = [arm.name for arm in made.arms]
    assert [name for name in order if order.count(name) == 1] != names
    assert max(abs(order.index(name) - names.index(name)) for name in names) > len(names) // 2
    texts = Counter(one.arm.name for one in block if one.sample.probe == 0)
    assert texts["select/TILED"] == texts["select/PRNG"] == 2 * texts["select/TRNG"] == 8


def test_tokens_are_chosen_by_a_logged_stream_wherever_the_source_does_not_choose_them(
    tmp_path: Path,
) -> None:
    made = small()
    taped = made.draws(tmp_path, 2)
    choosing = {arm.injection.mode for arm in made.arms if arm.name not in taped.choice}
    assert choosing == {"select", "gumbel", "seed_only"}
    block = made.block(taped, 0, 2)
    seeds = [one.choice.seed64 for one in block if one.choice is not None and one.sample.probe == 0]
    assert len(set(seeds)) == len(seeds)


def test_without_tapes_there_are_no_samples_and_the_dry_run_draws_nothing(tmp_path: Path) -> None:
    made = small()
    assert made.block(made.recorded(tmp_path), 0, 2) == []
    assert not (tmp_path / "tapes").exists()


def test_the_plan_does_not_depend_on_the_model_though_the_way_on_does() -> None:
    settings = protocol(FULL)
    hashes = {plan_hash(plan(replace(FULL, model=model))) for model in FULL.rungs}
    assert hashes == {plan_hash(settings.plan)}
    detected = {model: ruling(gates_at(model, FULL.rungs), "DETECTED") for model in FULL.rungs}
    assert detected["distilgpt2"] == ("direct_injection", {"model": "gpt2"})
    assert detected["gpt2"] == ("direct_injection", {"model": "gpt2-medium"})
    assert detected["gpt2-medium"] == (STOP, {})
    assert next_larger("another", FULL.rungs) is None


def ruling(
    gates: tuple[Gate, ...], tested: str | None, *, last_look: bool = True
) -> tuple[str, dict[str, object]]:
    """Where the last gate leads, and with what."""
    found = rule_on(gates[-1], {**FOUND, "tested": tested}, last_look=last_look)
    return found.next, dict(found.parameters)


def test_the_other_verdicts_lead_to_the_next_look_or_an_end() -> None:
    gates = gates_at("gpt2", FULL.rungs)
    assert ruling(gates, "INCONCLUSIVE", last_look=False)[0] == "next_look"
    assert ruling(gates, "INCONCLUSIVE")[0] == STOP
    assert ruling(gates, "EQUIVALENT")[0] == STOP
    assert ruling(gates, "INVALID")[0] == ruling(gates, None)[0] == STOP
    said = rule_on(gates[-1], {**FOUND, "tested": "EQUIVALENT"}, last_look=True).sentence
    assert said.startswith("Robust to source at this margin, 0.2 SD")
    open_ = rule_on(gates[-1], {**FOUND, "tested": "INCONCLUSIVE"}, last_look=True).sentence
    assert "about 55 samples a cell" in open_


def test_the_gates_follow_each_other_and_only_the_last_asks_about_the_source() -> None:
    assert [gate.name for gate in GATES] == ["positive_control", "a_a", "integrity", "injection_effect"]
    for gate, following in pairwise(GATES):
        assert following.name in {route.next for route in gate.routes.values()}
    assert "dose_response" not in INJECTION_EFFECT.sql


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backend": "ollama"}, "ollama cannot inject"),
        ({"model": "pydoc-9m"}, "pydoc-9m"),
        ({"doses": (0.3, 0.3)}, "names one twice"),
        ({"doses": (11.0,)}, "allowed: 0 to 10"),
        ({"prompts": ("creative-1", "nope")}, "no prompt 'nope'"),
        ({"temperature": 11.0}, "temperature is 11.0"),
        ({"num_ctx": 50}, "must exceed the reply"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((UsageError, ValueError), match=said):
        replace(SMOKE, **changes)


def test_a_setting_that_can_change_a_number_is_in_the_plan() -> None:
    outside = {"profile", "model", "backend", "samples"}
    named = set(plan(SMOKE).design) | {"looks", "margin_sd", "alpha"}
    assert set(DirectInjection.__dataclass_fields__) <= named | outside
