"""The decision tree of the sense study: are the items sound, do more data help, what may ship?

Every gate reads the rows of one analysis; the verdicts in them come from `stats.sense_rows`,
`stats.ship_blockers` and, for the curve, `tasks.sense_analysis`.
"""

from __future__ import annotations

from dataclasses import replace

from lab.gates import IMPOSSIBLE, STOP, Comparison, Gate, Route, Rule

_TESTS = """
    SELECT test.* FROM test
    SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis
"""

_SOUND = f"""
WITH answer AS ({_TESTS} AND family = 'sound')
SELECT any_value(verdict) FILTER (role = 'verdict') AS tested,
       coalesce(max(n) FILTER (role = 'verdict'), 0) AS n,
       max(high) FILTER (hypothesis = 'shortcut_at_chance') AS worst,
       max(estimate) FILTER (hypothesis = 'positive_control') AS ceiling,
       coalesce('who knows the topics finds ' || round(ceiling, 3), 'own items have no ceiling') AS said,
       coalesce(any_value(reason) FILTER (role = 'verdict'), 'every check holds') AS findings
FROM answer
"""

_CONTRAST = """
WITH answer AS ({tests} AND family = 'sense_scaling'
    AND contrast = '{contrast}' AND hypothesis = 'difference' AND role = 'decides')
SELECT any_value(verdict) AS tested, coalesce(bool_or(negligible), false) AS negligible,
       max(estimate) AS estimate, max(low) AS low, max(high) AS high, max(p) AS p,
       max(p_adjusted) AS p_adjusted, max(alpha) AS alpha, max(margin) AS margin,
       coalesce(max(n), 0) AS n, max(mde) AS mde, max(n_to_settle) AS n_to_settle,
       coalesce('about ' || max(n_to_settle) || ' seeds would settle it',
                any_value(reason), 'no number of seeds is known to settle it') AS settles
FROM answer
"""

_SHIP = """
WITH answer AS ({tests} AND contrast = {contrast} AND family LIKE 'ship%')
SELECT any_value(verdict) FILTER (role = 'verdict') AS tested,
       coalesce(max(n) FILTER (hypothesis = 'threshold'), 0) AS n,
       max(estimate) FILTER (hypothesis = 'threshold' AND metric = 'top1') AS top1,
       max(estimate) FILTER (hypothesis = 'threshold' AND metric = 'top3') AS top3,
       max(estimate) FILTER (hypothesis = 'threshold' AND metric = 'coherence') AS coherence,
       coalesce(any_value(reason) FILTER (role = 'verdict'), 'every blocker holds') AS findings
FROM answer
"""

_FALLBACK = f"""
WITH answer AS ({_TESTS} AND family = 'ship'),
verdicts AS (SELECT * FROM answer WHERE role = 'verdict' AND contrast IN ('A', 'B')),
of_a AS (SELECT * FROM answer WHERE contrast = 'A' AND hypothesis = 'threshold')
SELECT CASE WHEN bool_or(verdict = 'DETECTED') THEN 'DETECTED'
            ELSE any_value(verdict) FILTER (contrast = 'A') END AS tested,
       string_agg(contrast, ' or ' ORDER BY contrast) FILTER (verdict = 'DETECTED') AS passing,
       (SELECT coalesce(max(n), 0) FROM of_a) AS n,
       (SELECT max(estimate) FROM of_a WHERE metric = 'top1') AS top1,
       (SELECT max(estimate) FROM of_a WHERE metric = 'top3') AS top3,
       (SELECT max(estimate) FROM of_a WHERE metric = 'coherence') AS coherence,
       coalesce(any_value(reason) FILTER (contrast = 'A'), 'every blocker holds') AS findings
FROM verdicts
"""

_STEP = f"""
WITH answer AS ({_TESTS} AND family = 'ship, dev')
SELECT any_value(verdict) FILTER (role = 'verdict') AS tested,
       any_value(contrast) FILTER (role = 'verdict') AS arm,
       coalesce(max(n) FILTER (hypothesis = 'threshold'), 0) AS n,
       max(estimate) FILTER (hypothesis = 'threshold' AND metric = 'top1') AS top1,
       max(estimate) FILTER (hypothesis = 'threshold' AND metric = 'top3') AS top3,
       max(estimate) FILTER (hypothesis = 'threshold' AND metric = 'coherence') AS coherence,
       coalesce(any_value(reason) FILTER (role = 'verdict'), 'every blocker holds') AS findings
FROM answer
"""

_CURVE = f"""
WITH answer AS ({_TESTS} AND family = 'scaling')
SELECT any_value(verdict) FILTER (hypothesis = 'doubling') AS tested,
       max(estimate) FILTER (hypothesis = 'doubling') AS estimate,
       max(low) FILTER (hypothesis = 'doubling') AS low, max(high) FILTER (hypothesis = 'doubling') AS high,
       max(margin) FILTER (hypothesis = 'doubling') AS margin,
       coalesce(max(n) FILTER (hypothesis = 'doubling'), 0) AS n,
       max(estimate) FILTER (hypothesis = 'exponent') AS exponent,
       max(estimate) FILTER (hypothesis = 'asymptote') AS asymptote,
       max(estimate) FILTER (hypothesis = 'size_step' AND contrast LIKE 'B-1-%') AS last_step,
       coalesce(any_value(reason) FILTER (hypothesis = 'doubling'), 'by the law') AS findings
FROM answer
"""


def _is(verdict: str | None) -> Rule:
    return Rule(verdict=verdict or "INVALID", when=(Comparison(left="tested", op="==", right=verdict),))


_PASS = (_is(None), _is("INVALID"), _is("DETECTED"))
_SIZE = "{estimate:+.3f} of the items [{low:+.3f}, {high:+.3f}], {n} seeds"
_REACHED = "top1 {top1:.3f}, top3 {top3:.3f}, coherence {coherence:.3f}, {n} seeds"

SOUND = Gate(
    name="sound",
    question="Do shortcuts stay at chance on the items, and can the items be answered?",
    sql=_SOUND,
    rules=_PASS,
    routes={
        "INVALID": Route(next=STOP, sentence="nothing may be concluded from these items: {findings}"),
        "DETECTED": Route(
            next="more_data",
            sentence="no shortcut is more than {worst:.3f} above chance; {said}",
        ),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
        "INCONCLUSIVE": Route(next=STOP, sentence="no item was audited: {findings}"),
    },
)


def _contrast(name: str, question: str, contrast: str, following: str, *, more: str) -> Gate:
    """Whether one condition answers more items than another; any answer leads on."""
    return Gate(
        name=name,
        question=question,
        sql=_CONTRAST.format(tests=_TESTS, contrast=contrast),
        min_n=3,
        rules=(_is(None), _is("INVALID"), _is("DETECTED"), _is("EQUIVALENT")),
        routes={
            "INVALID": Route(next=STOP, sentence="no answer: {settles}"),
            "DETECTED": Route(next=following, sentence=f"{more}: {_SIZE}, adjusted p {{p_adjusted:.3g}}"),
            "EQUIVALENT": Route(next=following, sentence=f"no difference beyond {{margin}}: {_SIZE}"),
            "INCONCLUSIVE": Route(
                next=following,
                sentence=f"neither shown nor excluded: {_SIZE}; detectable {{mde:.3f}}, {{settles}}",
            ),
        },
    )


MORE_DATA = replace(
    _contrast(
        "more_data",
        "Do more and harder data answer more items (B against A)?",
        "B-A",
        "enriched",
        more="B and A differ",
    ),
    is_primary=True,
)
ENRICHED = _contrast(
    "enriched",
    "Do new contexts for single sentences answer more (C against B)?",
    "C-B",
    "ship_b",
    more="C and B differ",
)


def _ship(name: str, condition: str, following: str, failing: str) -> Gate:
    return Gate(
        name=name,
        question=f"May {condition} ship: thresholds, baselines, shortcuts, tier 1?",
        sql=_SHIP.format(tests=_TESTS, contrast=f"'{condition}'"),
        min_n=3,
        rules=_PASS,
        routes={
            "INVALID": Route(next=STOP, sentence="not to be judged: {findings}"),
            "DETECTED": Route(next=following, sentence=f"{condition} passes: {_REACHED}"),
            "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
            "INCONCLUSIVE": Route(next=failing, sentence=f"{condition} {{findings}}; {_REACHED}"),
        },
    )


def _step(name: str, question: str, following: str, *, what: str) -> Gate:
    return Gate(
        name=name,
        question=question,
        sql=_STEP,
        min_n=3,
        rules=_PASS,
        routes={
            "INVALID": Route(next=following, sentence=f"{what} is not to be judged: {{findings}}"),
            "DETECTED": Route(next="curve", sentence=f"ship {{arm}}, by dev: {_REACHED}"),
            "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
            "INCONCLUSIVE": Route(next=following, sentence=f"{{arm}} {{findings}}; on dev {_REACHED}"),
        },
    )


SHIP_B = _ship("ship_b", "B", "ship_c", "ship_c")
SHIP_C = _ship("ship_c", "C", "curve", "halved")
HALVED = _step(
    "halved",
    "With half the oversampling, does it pass on dev?",
    "raised",
    what="the arm of half the oversampling",
)
RAISED = _step(
    "raised",
    "With contexts verified at raised thresholds as well, does it pass on dev?",
    "fallback",
    what="the arm of verified contexts",
)
FALLBACK = Gate(
    name="fallback",
    question="Does A pass, or B, to fall back to?",
    sql=_FALLBACK,
    min_n=3,
    rules=_PASS,
    routes={
        "INVALID": Route(next=STOP, sentence="A is not to be judged: {findings}"),
        "DETECTED": Route(next="curve", sentence=f"ship {{passing}}; A reached {_REACHED}"),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
        "INCONCLUSIVE": Route(next="curve", sentence=f"nothing ships: A {{findings}}; {_REACHED}"),
    },
)
_LAW = "{estimate:+.3f} [{low:+.3f}, {high:+.3f}] of the items, by the law; exponent {exponent:.2f}"
CURVE = Gate(
    name="curve",
    question="Would twice the data add more than the margin?",
    sql=_CURVE,
    min_n=3,
    rules=(_is(None), _is("INVALID"), _is("DETECTED"), _is("EQUIVALENT")),
    routes={
        "INVALID": Route(next=STOP, sentence="no curve: {findings}"),
        "DETECTED": Route(
            next="sense_scaling",
            parameters={"profile": "full"},
            sentence=f"yes: {_LAW}; the law ends at {{asymptote:.2f}}",
        ),
        "EQUIVALENT": Route(next=STOP, sentence=f"no, less than {{margin}}: {_LAW}"),
        "INCONCLUSIVE": Route(
            next=STOP,
            sentence=f"not known: {{findings}}; {_LAW}; the last step, measured, added {{last_step:+.3f}}",
        ),
    },
)

GATES = (SOUND, MORE_DATA, ENRICHED, SHIP_B, SHIP_C, HALVED, RAISED, FALLBACK, CURVE)
