"""The decision tree of direct injection: four gates a look, in the order they are asked.

Three sources with known faults must be seen before a null means anything, so the first gate combines their
comparisons; the last asks whether sources differ within a mode. Modes against the baseline are dose-response:
no gate reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flows import entropy_gates
from lab.gates import NEXT_LOOK, STOP, Comparison, Gate, Route, Rule

INJECTION = "direct_injection"

_CONTROLS = """
WITH controls AS (
    SELECT replace(family, 'positive_control_', '') AS control,
           any_value(verdict) FILTER (role = 'verdict') AS mean_verdict,
           any_value(effect) FILTER (role = 'verdict') AS effect,
           any_value(reason) FILTER (role = 'verdict') AS reason,
           coalesce(max(n) FILTER (role = 'verdict'), 0) AS n, max(alpha) FILTER (role = 'verdict') AS alpha,
           any_value(p) FILTER (hypothesis = 'max_t') AS p_any_prompt
    FROM test SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis AND starts_with(family, 'positive_control_')
    GROUP BY family
), judged AS (
    SELECT *, coalesce(mean_verdict = 'DETECTED', false) OR coalesce(p_any_prompt < alpha, false) AS is_seen
    FROM controls
)
SELECT CASE WHEN count(*) = 0 THEN NULL WHEN bool_and(is_seen) THEN 'DETECTED'
            WHEN bool_or(NOT is_seen AND mean_verdict = 'INVALID') THEN 'INVALID' ELSE 'INCONCLUSIVE'
       END AS tested,
       count(*) FILTER (is_seen) AS seen, count(*) AS controls, min(abs(effect)) AS effect,
       max(p_any_prompt) AS p, max(alpha) AS alpha, coalesce(min(n), 0) AS n,
       coalesce(string_agg(control || CASE WHEN is_seen THEN ' ' ELSE ' not seen ' END
                           || coalesce(format('{:+.2f} SD', effect), reason, '')
                           || coalesce(format(', p = {:.2g} in any prompt', p_any_prompt), ''),
                           '; ' ORDER BY control), 'no control was analysed') AS findings,
       CASE WHEN $look_index = 1 AND $looks_left > 0 THEN 1 ELSE 0 END AS chances_left
FROM judged
"""


def _said(verdict: str, sentence: str) -> Route:
    return replace(entropy_gates.POSITIVE_CONTROL.routes[verdict], sentence=sentence)


POSITIVE_CONTROL = replace(
    entropy_gates.POSITIVE_CONTROL,
    question="Does the assay see sources with a known fault, each of them, when they pick the tokens?",
    sql=_CONTROLS,
    routes={
        "INVALID": _said(
            "INVALID", "The assay did not see every control ({findings}): a null here would mean nothing"
        ),
        "DETECTED": _said("DETECTED", "the assay sees all {controls} controls: {findings}, n = {n}"),
        "EQUIVALENT": entropy_gates.POSITIVE_CONTROL.routes["EQUIVALENT"],
        "INCONCLUSIVE": _said(
            "INCONCLUSIVE",
            "{seen} of {controls} controls are seen so far ({findings}, n = {n}); more samples, once",
        ),
    },
)

INTEGRITY = replace(
    entropy_gates.INTEGRITY,
    question="Are the texts of working sources fit to be compared: there, distinct, identical on repeats?",
    routes={
        verdict: replace(route, next="injection_effect") if route.next == "seed_sources" else route
        for verdict, route in entropy_gates.INTEGRITY.routes.items()
    },
)

_EFFECT = """
WITH answers AS (
    SELECT * FROM test SEMI JOIN plan_step ON plan_step.step_id = test.step_id
                                          AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis AND family = 'injection_effect'
), modes AS (
    SELECT count(*) AS modes, count(*) FILTER (verdict = 'INCONCLUSIVE') AS open_modes,
           count(*) FILTER (verdict = 'INCONCLUSIVE' AND n_to_settle IS NULL) AS stuck_modes
    FROM answers WHERE role = 'decides'
)
SELECT any_value(verdict) AS tested, coalesce(bool_or(negligible), false) AS negligible,
       any_value(contrast) AS mode, max(effect) AS effect, max(low) AS low, max(high) AS high,
       max(p_adjusted) AS p, max(alpha) AS alpha, max(margin) AS margin, coalesce(max(n), 0) AS n,
       max(power) AS power, max(mde) AS mde, max(n_to_settle) AS n_to_settle,
       max(modes) AS modes, max(open_modes) AS open_modes, max(stuck_modes) AS stuck_modes,
       coalesce('about ' || max(n_to_settle) || ' samples a cell would settle the hardest',
                'in ' || max(stuck_modes) || ' of them it takes more prompts, not samples') AS what_settles,
       coalesce(any_value(reason), 'no analysis of the sources') AS findings
FROM (FROM answers WHERE role = 'verdict') CROSS JOIN modes
"""

INJECTION_EFFECT = Gate(
    name="injection_effect",
    is_primary=True,
    question="Does the source change the text once it acts on every token?",
    sql=_EFFECT,
    min_n=20,
    rules=(
        Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),
        *(
            Rule(verdict=verdict, when=(Comparison(left="tested", op="==", right=verdict),))
            for verdict in ("INVALID", "DETECTED", "EQUIVALENT")
        ),
    ),
    routes={
        "INVALID": Route(next=STOP, sentence="no answer: {findings}"),
        "DETECTED": Route(
            next=INJECTION,
            parameters={"model": "the next larger one of the plan"},
            sentence="entropy matters once it touches sampling: in {mode} {effect:+.2f} SD "
            "[{low:+.2f}, {high:+.2f}], p = {p:.2g} after Holm over {modes} modes, n = {n}",
        ),
        "EQUIVALENT": Route(
            next=STOP,
            sentence="robust to source at this margin, {margin} SD, in all {modes} modes: nearest to an "
            "effect {mode}, {effect:+.2f} [{low:+.2f}, {high:+.2f}], n = {n}",
        ),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK,
            at_last_look=STOP,
            sentence="neither shown nor excluded in {open_modes} of {modes} modes: nearest to an effect "
            "{mode}, {effect:+.2f} SD [{low:+.2f}, {high:+.2f}], n = {n}; {what_settles}",
        ),
    },
)

GATES = (POSITIVE_CONTROL, entropy_gates.A_A, INTEGRITY, INJECTION_EFFECT)
"""As the plan has them, whatever the model."""


def next_larger(model: str, rungs: Sequence[str]) -> str | None:
    """The model after this one in order of size; None after the last and for a model that is not listed.

    >>> next_larger("gpt2", ("distilgpt2", "gpt2", "gpt2-medium"))
    'gpt2-medium'
    """
    after = list(rungs[rungs.index(model) + 1 :]) if model in rungs else []
    return after[0] if after else None


def gates_at(model: str, rungs: Sequence[str]) -> tuple[Gate, ...]:
    """The plan's gates with the way on from this model filled in: DETECTED leads to the next larger one."""
    following = next_larger(model, rungs)
    detected = INJECTION_EFFECT.routes["DETECTED"]
    onwards = (
        replace(
            detected, next=STOP, parameters={}, sentence=f"{detected.sentence}; no larger model is planned"
        )
        if following is None
        else replace(detected, parameters={"model": following})
    )
    last = replace(INJECTION_EFFECT, routes={**INJECTION_EFFECT.routes, "DETECTED": onwards})
    return (*GATES[:-1], last)
