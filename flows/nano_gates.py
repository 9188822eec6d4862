"""The gates of the nanodesmo study: does the state matter, do regimes leave signatures, does anything gain?

All four are asked in every run, in this order; none cuts a phase. Verdicts come from `stats.frozen_effect`,
`stats.separability` and `stats.run_comparisons`; routes choose the next profile or more of the same. Leverage
is concluded from five seeds or more, the others from two, the fewest that have an interval.
"""

from __future__ import annotations

from lab.gates import STOP, Comparison, Gate, Route, Rule

_TESTS = """
    SELECT test.* FROM test
    SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis
"""

_LEVERAGE = f"""
WITH answer AS ({_TESTS} AND family = 'leverage' AND metric = 'entropy_nats'
    AND contrast IN ('*', 'self-analysis', 'checkpoint'))
SELECT any_value(verdict) FILTER (role = 'verdict') AS tested,
       coalesce(max(n) FILTER (role = 'verdict'), 0) AS n,
       max(estimate) FILTER (hypothesis = 'published') AS effect,
       max(estimate) FILTER (role = 'verdict') AS estimate,
       max(low) FILTER (role = 'verdict') AS low,
       max(high) FILTER (role = 'verdict') AS high,
       max(p) FILTER (role = 'verdict') AS p,
       max(margin) FILTER (role = 'verdict') AS margin,
       max(mde) FILTER (hypothesis = 'excess') AS mde,
       max(n_to_settle) FILTER (hypothesis = 'excess') AS n_to_settle,
       coalesce(bool_or(negligible) FILTER (role = 'verdict'), false) AS negligible,
       coalesce('about ' || max(n_to_settle) FILTER (hypothesis = 'excess') || ' seeds would settle it',
                any_value(reason) FILTER (role = 'verdict'), 'no number of seeds is known to settle it')
           AS settles
FROM answer
"""

_SIGNATURES = f"""
WITH answer AS ({_TESTS} AND family = 'separability'),
each_one AS (SELECT * FROM answer WHERE hypothesis = 'signature')
SELECT any_value(verdict) FILTER (hypothesis = 'signatures') AS tested,
       coalesce(max(n) FILTER (hypothesis = 'common_state'), 0) AS n,
       (SELECT count(*) FROM each_one WHERE verdict = 'DETECTED') AS detected,
       (SELECT count(*) FROM each_one) AS regimes,
       coalesce((SELECT string_agg(contrast, ', ' ORDER BY contrast) FROM each_one
                 WHERE verdict = 'DETECTED'), 'none') AS which,
       coalesce((SELECT string_agg(contrast, ', ' ORDER BY contrast) FROM each_one
                 WHERE verdict <> 'DETECTED'), 'none') AS others,
       coalesce(any_value(reason) FILTER (hypothesis = 'signatures'), 'see each regime') AS findings
FROM answer
"""

_COMPARED = """
WITH answer AS ({tests} AND family = '{family}')
SELECT any_value(verdict) FILTER (role = 'verdict') AS tested,
       coalesce(min(n) FILTER (role = 'decides'), 0) AS n,
       count(*) FILTER (role = 'decides') AS compared,
       min(estimate) FILTER (role = 'decides') AS least,
       max(estimate) FILTER (role = 'decides') AS most,
       max(margin) FILTER (role = 'decides') AS margin,
       max(n_to_settle) FILTER (role = 'decides') AS n_to_settle,
       coalesce(any_value(reason) FILTER (role = 'verdict'), 'see each comparison') AS findings
FROM answer
"""


def _is(verdict: str | None) -> Rule:
    return Rule(verdict=verdict or "INVALID", when=(Comparison(left="tested", op="==", right=verdict),))


_PASS = (_is(None), _is("INVALID"), _is("DETECTED"), _is("EQUIVALENT"))
_SIZE = (
    "{effect:.3f} nats between the most and least confident state, {estimate:+.3f} [{low:+.3f}, {high:+.3f}] "
    "beyond rotated injections, p {p:.3g}, {n} seeds"
)
_SPAN = "differences of {least:+.4f} to {most:+.4f} nats over {compared} comparisons, {n} seeds"

LEVERAGE = Gate(
    name="leverage",
    question="With weights fixed, does the trained injection move predictions more than a rotated one?",
    sql=_LEVERAGE,
    rules=_PASS,
    min_n=5,
    routes={
        "INVALID": Route(next=STOP, sentence="the frozen test has no answer: {settles}"),
        "DETECTED": Route(next="nanodesmo", parameters={"profile": "full"}, sentence=_SIZE),
        "EQUIVALENT": Route(
            next=STOP,
            sentence="the state moves predictions by no more than {margin:g} nats beyond chance: " + _SIZE,
        ),
        "INCONCLUSIVE": Route(
            next="nanodesmo",
            parameters={"profile": "fast", "seeds": list(range(10))},
            sentence=_SIZE + "; {settles}",
        ),
    },
)

_MORE = {"profile": "fast", "occurrences": 4}
SIGNATURES = Gate(
    name="signatures",
    question="Do regimes leave signatures in the state beyond common channels and beyond the step number?",
    sql=_SIGNATURES,
    rules=_PASS,
    min_n=2,
    routes={
        "INVALID": Route(next=STOP, sentence="signatures cannot be judged: {findings}"),
        "DETECTED": Route(
            next="nanodesmo",
            parameters={"profile": "fast", "second_corpus": "stdlib"},
            sentence="{detected} of {regimes} regimes: {which}; not {others}; {n} seeds",
        ),
        "EQUIVALENT": Route(
            next="nanodesmo",
            parameters=_MORE,
            sentence="the state adds nothing to the common channels in any of {regimes} regimes, {n} seeds",
        ),
        "INCONCLUSIVE": Route(
            next="nanodesmo",
            parameters=_MORE,
            sentence="no signature shown beyond the common channels, {n} seeds: {findings}",
        ),
    },
)

MEMORY = Gate(
    name="memory_matters",
    question="Does a memory of former states change held-out loss?",
    sql=_COMPARED.format(tests=_TESTS, family="memory"),
    rules=_PASS,
    min_n=2,
    routes={
        "INVALID": Route(next=STOP, sentence="memories cannot be compared: {findings}"),
        "DETECTED": Route(next=STOP, sentence=_SPAN + "; {findings}"),
        "EQUIVALENT": Route(next=STOP, sentence="no memory changes loss by {margin:g} nats: " + _SPAN),
        "INCONCLUSIVE": Route(next=STOP, sentence=_SPAN + "; {findings}"),
    },
)

CONTROLS = Gate(
    name="beats_controls",
    question="Is held-out loss with the state below that of every control?",
    sql=_COMPARED.format(tests=_TESTS, family="controls"),
    rules=_PASS,
    min_n=2,
    routes={
        "INVALID": Route(next=STOP, sentence="controls cannot be compared: {findings}"),
        "DETECTED": Route(next=STOP, sentence=_SPAN),
        "EQUIVALENT": Route(next=STOP, sentence="no control differs by {margin:g} nats: " + _SPAN),
        "INCONCLUSIVE": Route(next=STOP, sentence=_SPAN + "; {findings}"),
    },
)

GATES = (LEVERAGE, SIGNATURES, MEMORY, CONTROLS)
PHASE_OF = {
    "leverage": "frozen_core",
    "signatures": "core",
    "memory_matters": "memory",
    "beats_controls": "controls",
}
"""Phase whose analysis a gate reads."""
