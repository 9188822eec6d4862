"""The gates of the nanodesmo study: does the state matter, do regimes leave signatures, does anything gain?

Those of every suite that is trained are asked in every run, in this order; none cuts a phase. Verdicts come
from `stats.frozen_effect`, `stats.separability` and `stats.run_comparisons`; routes choose the next profile,
or the plan's second look. Leverage is concluded from five seeds or more, the others from two, the fewest that
have an interval.

What `full` is run with is chosen in the query of `leverage`, whose columns `set_NAME` are the settings it
launches: a memory that lowers held-out loss is put into every arm (its kind; length, stride and delta are the
study's), and a suite whose question is answered is left out: memories unless INCONCLUSIVE or INVALID,
controls when EQUIVALENT.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.gates import STOP, Comparison, Gate, Route, Rule

NAME = "nanodesmo"
_TESTS = """
    SELECT test.* FROM test
    SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis
"""

_LEVERAGE = f"""
WITH answer AS ({_TESTS} AND family = 'leverage' AND metric = 'entropy_nats'
    AND contrast IN ('*', 'self-analysis', 'checkpoint')),
beside AS (
    SELECT test.* FROM test JOIN step USING (step_id)
    SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE step.experiment = 'analyse' AND step.arm = test.family AND test.family IN ('memory', 'controls')
      AND test.look = $look
    QUALIFY rank() OVER (PARTITION BY test.family ORDER BY step.recorded_at DESC, step.step_id) = 1
), told AS (
    SELECT family, CASE WHEN coalesce(negligible, false) THEN 'EQUIVALENT' ELSE verdict END AS verdict
    FROM beside WHERE role = 'verdict'
), lower AS (
    SELECT arg_min(contrast, estimate) AS best FROM beside
    WHERE family = 'memory' AND role = 'decides' AND verdict = 'DETECTED' AND high < 0
      AND NOT coalesce(negligible, false)
), choice AS (
    SELECT coalesce((SELECT any_value(verdict) FROM told WHERE family = 'memory'), 'not asked') AS memory,
           coalesce((SELECT any_value(verdict) FROM told WHERE family = 'controls'), 'not asked') AS controls,
           CASE WHEN best LIKE 'mem-ema%' THEN 'ema' WHEN best LIKE 'mem-buf%' THEN 'buffer' ELSE 'none' END
               AS kind
    FROM lower
)
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
           AS settles,
       (SELECT memory FROM choice) AS memory_matters,
       (SELECT controls FROM choice) AS beats_controls,
       (SELECT kind FROM choice) AS set_memory,
       (SELECT memory NOT IN ('DETECTED', 'EQUIVALENT') FROM choice) AS set_memory_suite,
       (SELECT controls <> 'EQUIVALENT' FROM choice) AS set_controls_suite,
       (SELECT concat(CASE kind WHEN 'none' THEN 'no memory in any arm'
                                   ELSE 'memory ' || kind || ' in every arm' END, '; suites left out: ',
                      coalesce(nullif(concat_ws(', ',
                          CASE WHEN memory IN ('DETECTED', 'EQUIVALENT') THEN 'memory' END,
                          CASE WHEN controls = 'EQUIVALENT' THEN 'controls' END), ''), 'none'))
        FROM choice) AS in_full
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
    "beyond rotated injections, {n} seeds (Fisher's p over their rotations {p:.3g})"
)
_SPAN = "differences of {least:+.4f} to {most:+.4f} nats over {compared} comparisons, {n} seeds"

_WITH = "; memory_matters {memory_matters}, beats_controls {beats_controls}, so full goes on with {in_full}"
FULL: Mapping[str, object] = {
    "profile": "full", "memory": "none", "memory_suite": True, "controls_suite": True
}  # fmt: skip
"""What leverage launches, but for what its evidence sets."""


def _more(profile: str, looks: int, sentence: str) -> Route:
    """More of the same: the next profile, or the plan's second look once; then the end."""
    if looks > 1:
        return Route(
            next=NAME, parameters={"profile": profile, "look": 2}, at_last_look=STOP, sentence=sentence
        )
    if profile == "smoke":
        return Route(next=NAME, parameters={"profile": "fast"}, sentence=sentence)
    return Route(next=STOP, sentence=sentence)


def leverage(profile: str, looks: int) -> Gate:
    """Leads to `full` with what the other gates said; there to the end."""
    detected = Route(next=NAME, parameters=FULL, sentence=_SIZE + _WITH)
    return Gate(
        name="leverage",
        is_primary=True,
        question="With weights fixed, does the trained injection move predictions more than a rotated one?",
        sql=_LEVERAGE,
        rules=_PASS,
        min_n=5,
        routes={
            "INVALID": Route(next=STOP, sentence="the frozen test has no answer: {settles}"),
            "DETECTED": Route(next=STOP, sentence=_SIZE) if profile == "full" else detected,
            "EQUIVALENT": Route(
                next=STOP,
                sentence="the state moves predictions by no more than {margin:g} nats beyond chance: "
                + _SIZE,
            ),
            "INCONCLUSIVE": _more(profile, looks, _SIZE + "; {settles}"),
        },
    )


def signatures(profile: str, looks: int, second: bool) -> Gate:
    """Leads to the second text, which a run that has one asks itself; else to more windows."""
    sentence = "{detected} of {regimes} regimes: {which}; not {others}; {n} seeds"
    onward = "fast" if profile == "smoke" else profile
    detected = Route(next=NAME, parameters={"profile": onward, "second_corpus": "stdlib"}, sentence=sentence)
    return Gate(
        name="signatures",
        question="Do regimes leave signatures in the state beyond common channels and beyond the step "
        "number?",
        sql=_SIGNATURES,
        rules=_PASS,
        min_n=2,
        routes={
            "INVALID": Route(next=STOP, sentence="signatures cannot be judged: {findings}"),
            "DETECTED": Route(next=STOP, sentence=sentence + "; this run asks the second text too")
            if second
            else detected,
            "EQUIVALENT": _more(
                profile,
                looks,
                "the state adds nothing to the common channels in any of {regimes} regimes, {n} seeds",
            ),
            "INCONCLUSIVE": _more(
                profile, looks, "no signature shown beyond the common channels, {n} seeds: {findings}"
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


def gates_of(
    profile: str, *, looks: int, second: bool, memory: bool = True, controls: bool = True
) -> tuple[Gate, ...]:
    """The gates of a plan.

    Parameters
    ----------
    looks
        Of the plan, 1 or 2.
    second
        Whether there is a second text.
    memory, controls
        Whether their suites are trained; one that is left out has no gate.

    >>> [gate.name for gate in gates_of("full", looks=2, second=True, memory=False)]
    ['leverage', 'signatures', 'beats_controls']
    """
    first = (leverage(profile, looks), signatures(profile, looks, second))
    return (*first, *([MEMORY] if memory else []), *([CONTROLS] if controls else []))


GATES = gates_of("fast", looks=2, second=True)
PHASE_OF = {
    "leverage": "frozen_core",
    "signatures": "core",
    "memory_matters": "memory",
    "beats_controls": "controls",
}
"""Phase whose analysis a gate reads."""
