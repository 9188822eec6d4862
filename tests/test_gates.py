"""Gates: verdict from evidence, precedence, routes, and the way back from a stored rule."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.ladder_gates import LADDER_END
from flows.registry import studies
from lab.fingerprint import canonical
from lab.gates import (
    IMPOSSIBLE,
    NEXT_LOOK,
    NEXT_RUNG,
    STOP,
    VERDICTS,
    Comparison,
    Gate,
    GateError,
    Route,
    Rule,
    explain,
    judge,
    read_rule,
    rule_on,
    rule_text,
)

ROUTES = {verdict: Route(next=STOP, sentence=f"{verdict} with n = {{n}}") for verdict in VERDICTS}
RULES = (
    Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),
    Rule(verdict="DETECTED", when=(Comparison(left="p", op="<", right=0.05),)),
    Rule(verdict="EQUIVALENT", when=(Comparison(left="high", op="<", right=0.2),)),
)
GATE = Gate(name="effect", question="Is there one?", sql="SELECT 1", rules=RULES, routes=ROUTES, min_n=10)
SEEN = {"n": 40, "tested": "yes", "p": 0.01, "high": 0.1, "negligible": False}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "DETECTED"),
        ({"p": 0.2}, "EQUIVALENT"),
        ({"p": 0.2, "high": 0.3}, "INCONCLUSIVE"),
        ({"p": None, "high": None}, "INCONCLUSIVE"),
        ({"n": 9}, "INCONCLUSIVE"),
        ({"n": None}, "INCONCLUSIVE"),
        ({"n": 9, "tested": None}, "INVALID"),
        ({"tested": None}, "INVALID"),
    ],
)
def test_invalid_comes_first_then_detected_then_equivalent(change: dict[str, object], verdict: str) -> None:
    assert judge(RULES, 10, SEEN | change) == verdict  # type: ignore[operator]


def test_a_negligible_effect_is_detected_and_routed_as_equivalent() -> None:
    routes = ROUTES | {"EQUIVALENT": Route(next="elsewhere", sentence="")}
    ruling = rule_on(replace(GATE, routes=routes), SEEN | {"negligible": True}, last_look=False)
    assert (ruling.verdict, ruling.negligible, ruling.next) == ("DETECTED", True, "elsewhere")


def test_the_next_look_leads_elsewhere_when_none_is_left() -> None:
    route = Route(next=NEXT_LOOK, at_last_look="other_flow", sentence="")
    gate = replace(GATE, routes=ROUTES | {"INCONCLUSIVE": route})
    open_question = SEEN | {"p": 0.9, "high": 0.9}
    assert rule_on(gate, open_question, last_look=False).next == NEXT_LOOK
    assert rule_on(gate, open_question, last_look=True).next == "other_flow"


def test_a_verdict_that_cannot_occur_is_an_error_and_says_what_was_found() -> None:
    gate = replace(GATE, routes=ROUTES | {"DETECTED": Route(next=IMPOSSIBLE, sentence="")})
    with pytest.raises(GateError, match=r'effect came to DETECTED, which cannot occur; evidence .*"p":0\.01'):
        rule_on(gate, SEEN, last_look=False)


def test_an_undefined_number_in_a_sentence_says_so() -> None:
    gate = replace(GATE, routes=ROUTES | {"INCONCLUSIVE": Route(next=STOP, sentence="p = {p:.2g}, n = {n}")})
    assert rule_on(gate, SEEN | {"p": None, "high": 1.0}, last_look=False).sentence == "P = undefined, n = 40"


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"p": 0.1}, "evidence needs a number n"),
        ({"n": 20, "tested": "x"}, "the rule asks for 'p'; the query returned n, tested"),
        ({"n": 20, "tested": "x", "p": "small"}, "cannot compare p = 'small' < 0.05"),
    ],
)
def test_evidence_that_does_not_fit_the_rule_is_named(evidence: dict[str, object], message: str) -> None:
    with pytest.raises(GateError, match=message):
        judge(RULES, 10, evidence)  # type: ignore[arg-type]


def test_a_gate_without_a_route_for_each_verdict_or_with_rules_out_of_order_is_refused() -> None:
    with pytest.raises(GateError, match="each of"):
        replace(GATE, routes={"DETECTED": ROUTES["DETECTED"]})
    with pytest.raises(GateError, match="rules must stand in the order"):
        replace(GATE, rules=RULES[::-1])
    with pytest.raises(GateError, match="unknown comparison '~'"):
        Comparison(left="p", op="~", right=1)
    with pytest.raises(GateError, match="None goes with == and != only"):
        Comparison(left="p", op="<", right=None)


VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)


@given(p=VALUES, high=VALUES, n=st.none() | st.integers(0, 50), tested=st.none() | st.text(max_size=3))
def test_a_stored_rule_gives_the_same_verdict_from_the_stored_evidence(
    p: object, high: object, n: int | None, tested: str | None
) -> None:
    evidence = {"n": n, "p": p, "high": high, "tested": tested}
    rules, min_n = read_rule(rule_text(GATE))
    stored = json.loads(canonical(evidence))
    assert judge(rules, min_n, stored) == judge(GATE.rules, GATE.min_n, evidence)  # type: ignore[arg-type]
    assert len(explain(rules, min_n, stored)) == 4


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rules":[{"verdict":"INVALID"}],"min_n":1}', "null"])
def test_a_malformed_stored_rule_is_refused(text: str) -> None:
    with pytest.raises(GateError, match="not a stored rule"):
        read_rule(text)


@pytest.mark.parametrize("name", sorted(studies()))
def test_every_route_of_every_study_leads_to_a_gate_a_flow_or_an_end(name: str) -> None:
    study = studies()[name]
    known = (
        {gate.name for gate in study.gates} | set(study.next_flows) | {NEXT_LOOK, NEXT_RUNG, STOP, IMPOSSIBLE}
    )
    for gate in study.gates:
        for verdict in VERDICTS:
            route = gate.routes[verdict]
            assert {route.next, route.at_last_look or route.next} <= known, (gate.name, verdict)
            if route.next == NEXT_LOOK:
                assert route.at_last_look is not None, (gate.name, verdict)
    primary = [gate.name for gate in study.gates if gate.is_primary]
    assert primary == (["rung_effect", LADDER_END] if name == "entropy_ladder" else [study.primary_gate])
    assert "smoke" in study.profiles
