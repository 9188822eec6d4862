"""What the nanodesmo study launches: `full` by what memories and controls came to, more of the same, or
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flows.nano_gates import gates_of
from flows.nanodesmo import FULL, plan, protocol
from lab.gates import STOP, Gate, Ruling, rule_on
from lab.records import PlanStepRow, Record, StepRow, TestResultRow
from lab.settings import changed
from lab.store import Store
from tests.small_nano import START, record_nano

WHOLE = {"profile": "full", "memory": "none", "memory_suite": True, "controls_suite": True}
EMA, BUFFER = "mem-ema-decay-0.1-self-analysis", "mem-buf-l32-self-analysis"


def said(
    lab: Store, key: str, phase: str, verdict: str, lower: Mapping[str, float], negligible: bool = False
) -> None:
    """A later analysis of a phase with this verdict, and with these differences DETECTED."""
    [step] = lab.read("SELECT * FROM step WHERE step_id = $id", {"id": f"analyse-{phase}-{key}"}).to_dicts()
    rows = lab.read("SELECT * FROM test WHERE step_id = $id", {"id": step["step_id"]}).to_dicts()
    again = StepRow(**step | {"step_id": f"again-{phase}", "recorded_at": START + timedelta(hours=2)})
    made: list[Record] = [again, PlanStepRow(plan_hash=key, step_id=again.step_id)]
    for row in rows:
        one = replace(TestResultRow(**row), step_id=again.step_id)
        if one.role == "verdict":
            one = replace(one, verdict=verdict, negligible=negligible)
        elif one.role == "decides" and one.contrast in lower:
            size = lower[one.contrast]
            one = replace(
                one, estimate=size, low=size - 0.01, high=size + 0.01, verdict="DETECTED", negligible=False
            )
        elif one.role == "decides":
            one = replace(one, verdict="INCONCLUSIVE")
        made.append(one)
    lab.record(made)


def asked(lab: Store, key: str, gate: Gate, *, last_look: bool = False) -> Ruling:
    parameters = {"plan_hash": key, "analysis": f"analyse-frozen_core-{key}", "look": 5}
    [evidence] = lab.read(gate.sql, parameters).to_dicts()
    return rule_on(gate, evidence, last_look=last_look)


@pytest.mark.parametrize(
    ("memory", "lower", "controls", "launched"),
    [
        ("INCONCLUSIVE", {}, "INCONCLUSIVE", {}),
        ("INVALID", {}, "INVALID", {}),
        ("EQUIVALENT", {}, "DETECTED", {"memory_suite": False}),
        ("DETECTED", {EMA: -0.05, BUFFER: -0.2}, "DETECTED", {"memory": "buffer", "memory_suite": False}),
        ("DETECTED", {EMA: -0.3, BUFFER: -0.2}, "EQUIVALENT",
         {"memory": "ema", "memory_suite": False, "controls_suite": False}),
        ("DETECTED", {EMA: 0.3}, "INCONCLUSIVE", {"memory_suite": False}),  # for the worse
        ("INCONCLUSIVE", {}, "EQUIVALENT", {"controls_suite": False}),
    ],
)  # fmt: skip
def test_full_is_run_with_what_memories_and_controls_came_to(
    memory: str, lower: Mapping[str, float], controls: str, launched: dict[str, object], tmp_path: Path
) -> None:
    lab = Store(tmp_path)
    key = record_nano(lab)
    said(lab, key, "memory", memory, lower)
    said(lab, key, "controls", controls, {})
    [gate] = [one for one in gates_of("fast", looks=2, second=True) if one.name == "leverage"]
    ruling = asked(lab, key, gate)
    assert (ruling.verdict, ruling.next, ruling.parameters) == ("DETECTED", "nanodesmo", WHOLE | launched)
    assert f"memory_matters {memory}, beats_controls {controls}, so full goes on with" in ruling.sentence
    left = [name for name in ("memory", "controls") if launched.get(f"{name}_suite") is False]
    assert ruling.sentence.endswith(f"suites left out: {', '.join(left) or 'none'}")
    told = changed(FULL, {name: value for name, value in ruling.parameters.items() if name != "profile"})
    assert (plan(told) == plan(FULL)) == (not launched)
    assert {"memory", "controls"} - set(protocol(told).suites) == set(left)


def test_a_memory_whose_gain_is_negligible_is_put_into_nothing(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    key = record_nano(lab)
    said(lab, key, "memory", "DETECTED", {EMA: -0.3}, negligible=True)
    rows = lab.read("SELECT * FROM test WHERE step_id = 'again-memory' AND role = 'decides'").to_dicts()
    lab.record([replace(TestResultRow(**row), negligible=True) for row in rows])
    ruling = asked(lab, key, gates_of("fast", looks=2, second=True)[0])
    assert ruling.parameters["memory"] == "none"
    assert "memory_matters EQUIVALENT" in ruling.sentence
    assert ruling.sentence.endswith("so full goes on with no memory in any arm; suites left out: memory")


def test_comparisons_of_another_look_or_plan_choose_nothing(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    key = record_nano(lab)
    said(lab, key, "memory", "DETECTED", {EMA: -0.3})
    gate = gates_of("fast", looks=2, second=True)[0]
    parameters = {"plan_hash": key, "analysis": f"analyse-frozen_core-{key}", "look": 10}
    [evidence] = lab.read(gate.sql, parameters).to_dicts()
    assert (evidence["memory_matters"], evidence["set_memory"], evidence["set_memory_suite"]) == (
        "not asked", "none", True
    )  # fmt: skip
    assert evidence["in_full"] == "no memory in any arm; suites left out: none"


def routes(profile: str, looks: int, *, second: bool = True) -> dict[tuple[str, str], object]:
    """Gate and verdict -> what follows; the last look's end after it."""
    gates = gates_of(profile, looks=looks, second=second)[:2]
    return {
        (gate.name, verdict): (route.next, dict(route.parameters), route.at_last_look)
        for gate in gates
        for verdict, route in gate.routes.items()
        if verdict != "EQUIVALENT" or gate.name == "signatures"
    }


def test_more_is_the_next_profile_from_smoke_and_the_plans_second_look_once_from_the_others() -> None:
    end: tuple[str, dict[str, object], None] = (STOP, {}, None)
    for profile in ("fast", "full"):
        more = ("nanodesmo", {"profile": profile, "look": 2}, STOP)
        found = routes(profile, 2)
        assert found["leverage", "INCONCLUSIVE"] == more
        assert found["signatures", "EQUIVALENT"] == found["signatures", "INCONCLUSIVE"] == more
        assert routes(profile, 1)["leverage", "INCONCLUSIVE"] == end
    assert routes("smoke", 1)["leverage", "INCONCLUSIVE"] == ("nanodesmo", {"profile": "fast"}, None)
    assert found["leverage", "DETECTED"] == end  # there is nothing larger than full
    assert found["leverage", "INVALID"] == found["signatures", "INVALID"] == end


def test_a_signature_leads_to_the_second_text_unless_the_run_asked_it() -> None:
    assert routes("fast", 2)["signatures", "DETECTED"] == (STOP, {}, None)
    onward = {"profile": "fast", "second_corpus": "stdlib"}
    for profile in ("smoke", "fast"):
        assert routes(profile, 1, second=False)["signatures", "DETECTED"] == ("nanodesmo", onward, None)


def test_the_second_look_is_the_last(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    key = record_nano(lab)
    gate = replace(gates_of("fast", looks=2, second=True)[0], min_n=6)  # five seeds are too few
    assert asked(lab, key, gate).next == "nanodesmo"
    last = asked(lab, key, gate, last_look=True)
    assert (last.verdict, last.next, last.parameters) == ("INCONCLUSIVE", STOP, {})
