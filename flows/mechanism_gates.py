"""The decision tree of the rank study: is the probe fit to be read, are the controls fair, what do they show?

Every gate reads the rows of one analysis; the verdicts in them come from `stats.rank_placement`,
`stats.rank_scenario` and, for the checks, `tasks.rank_checks`.
"""

from __future__ import annotations

from lab.gates import IMPOSSIBLE, NEXT_LOOK, STOP, Comparison, Gate, Route, Rule

_CHECK = """
SELECT any_value(verdict) AS tested, coalesce(max(n), 0) AS n, max(estimate) AS estimate,
       coalesce(any_value(reason), 'every check holds') AS findings
FROM test SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
WHERE test.step_id = $analysis AND family = '{family}' AND role = 'verdict'
"""

_ANSWER = """
WITH answer AS (
    SELECT test.* FROM test
    SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis AND family = 'mechanism'
), main AS (
    SELECT any_value(verdict) AS tested, coalesce(bool_or(negligible), false) AS negligible,
           max(estimate) AS estimate, max(low) AS low, max(high) AS high, max(p) AS p,
           max(p_adjusted) AS p_adjusted, max(alpha) AS alpha, max(margin) AS margin,
           coalesce(max(n), 0) AS n, max(mde) AS mde, max(n_to_settle) AS n_to_settle,
           coalesce('about ' || max(n_to_settle) || ' seeds would settle it',
                    any_value(reason), 'no number of seeds is known to settle it') AS settles
    FROM answer
    WHERE contrast = 'per_layer-shuffled_within' AND hypothesis = 'difference' AND role = 'decides'
), ending AS (
    SELECT any_value(contrast) FILTER (hypothesis = 'scenario') AS scenario,
           any_value(verdict) FILTER (hypothesis = 'scenario') AS scenario_verdict,
           any_value(method) FILTER (hypothesis = 'scenario') AS said,
           any_value(reason) FILTER (hypothesis = 'legacy_scenario') AS earlier_rule
    FROM answer
)
SELECT * FROM main, ending
"""


def _is(verdict: str | None, column: str = "tested") -> Rule:
    return Rule(verdict=verdict or "INVALID", when=(Comparison(left=column, op="==", right=verdict),))


_FIT = (_is(None), _is("INVALID"), _is("DETECTED"))


def _fit(name: str, question: str, family: str, *, good: str, bad: str, yes: str, no: str) -> Gate:
    """A gate of checks: DETECTED when all of them hold, INVALID when one fails."""
    return Gate(
        name=name,
        question=question,
        sql=_CHECK.format(family=family),
        rules=_FIT,
        routes={
            "INVALID": Route(next=bad, sentence=no),
            "DETECTED": Route(next=good, sentence=yes),
            "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
            "INCONCLUSIVE": Route(next=STOP, sentence="too few seeds: {findings}"),
        },
    )


PROBE = _fit(
    "probe",
    "Has the probe learned enough for its spectra to mean something?",
    "probe",
    good="controls",
    bad="probe_again",
    yes="the probe answers {estimate:.3f} more of the items than the base alone, {n} seeds: {findings}",
    no="UNDERTRAINED, so every arm is trained with twice the steps: {findings}",
)
PROBE_AGAIN = _fit(
    "probe_again",
    "Has it learned enough with twice the steps?",
    "probe",
    good="controls",
    bad=STOP,
    yes="the probe answers {estimate:.3f} more of the items than the base alone, {n} seeds: {findings}",
    no="UNDERTRAINED still; nothing may be concluded: {findings}",
)
CONTROLS = _fit(
    "controls",
    "Do the controls place ranks otherwise than the audit does?",
    "controls",
    good="fair",
    bad=STOP,
    yes="the control nearest to the placement gives {estimate:.0%} of the modules its rank: {findings}",
    no="a control that is the treatment shows nothing: {findings}",
)
FAIR = _fit(
    "fair",
    "Have all arms realised their ranks, at their budget, and converged?",
    "fair",
    good="placement",
    bad=STOP,
    yes="realised ranks are the planned ones; shuffles and the inverse cost the same within {estimate:.2%}: "
    "{findings}",
    no="the arms may not be compared: {findings}",
)

_SIZE = "{estimate:+.4f} of the items [{low:+.4f}, {high:+.4f}], {n} seeds"

PLACEMENT = Gate(
    name="placement",
    is_primary=True,
    question="Do ranks placed by the audit answer more items than the same ranks shuffled at equal cost?",
    sql=_ANSWER,
    min_n=2,
    rules=(_is(None), _is("INVALID"), _is("DETECTED"), _is("EQUIVALENT")),
    routes={
        "INVALID": Route(next=STOP, sentence="no answer: {settles}"),
        "DETECTED": Route(
            next="harmful",
            sentence=f"placed and shuffled ranks differ: {_SIZE}, adjusted p {{p_adjusted:.3g}}",
        ),
        "EQUIVALENT": Route(
            next="scenario", sentence=f"no difference beyond {{margin}} of the items: {_SIZE}"
        ),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK,
            at_last_look="scenario",
            sentence=f"neither shown nor excluded: {_SIZE}; detectable {{mde:.3f}}, {{settles}}",
        ),
    },
)

HARMFUL = Gate(
    name="harmful",
    question="Is it the placed ranks that answer fewer?",
    sql=_ANSWER,
    min_n=2,
    rules=(
        _is(None),
        Rule(
            verdict="DETECTED",
            when=(
                Comparison(left="tested", op="==", right="DETECTED"),
                Comparison(left="estimate", op="<", right=0.0),
            ),
        ),
    ),
    routes={
        "INVALID": Route(next=STOP, sentence="no answer: {settles}"),
        "DETECTED": Route(next=STOP, sentence=f"harmful: placing ranks by the audit costs answers: {_SIZE}"),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
        "INCONCLUSIVE": Route(next="scenario", sentence=f"no, they answer more: {_SIZE}"),
    },
)

SCENARIO = Gate(
    name="scenario",
    question="Which scenario is it: real mechanism, heterogeneity only, no benefit, harmful or undecided?",
    sql=_ANSWER,
    min_n=2,
    rules=(
        _is(None, "scenario_verdict"),
        *(_is(one, "scenario_verdict") for one in ("INVALID", "DETECTED", "EQUIVALENT")),
    ),
    routes={
        "INVALID": Route(next=STOP, sentence="no scenario: {settles}"),
        "DETECTED": Route(
            next="mechanism",
            parameters={"profile": "full"},
            sentence=f"{{scenario}}: {{said}}; {_SIZE}; by the earlier rule {{earlier_rule}}",
        ),
        "EQUIVALENT": Route(
            next=STOP, sentence=f"{{scenario}}: {{said}}; {_SIZE}; by the earlier rule {{earlier_rule}}"
        ),
        "INCONCLUSIVE": Route(
            next=STOP,
            sentence=f"{{scenario}}: {{said}}; {_SIZE}; detectable {{mde:.3f}}, {{settles}}; by the earlier "
            "rule {earlier_rule}",
        ),
    },
)

GATES = (PROBE, PROBE_AGAIN, CONTROLS, FAIR, PLACEMENT, HARMFUL, SCENARIO)
