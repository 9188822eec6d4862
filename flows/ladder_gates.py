"""The decision tree of the scale ladder: the seed study's gates at every rung, then those over all rungs.

A rung's walk ends in `climb`, whatever stopped it: one model that cannot be judged ends no ladder, only an
assay that tells a source from itself does. A rung DETECTED after correction over rungs is generated again
from tapes of its own; those texts pass the assay's gates, and `scale_up` says whether they confirm it.
"""

from __future__ import annotations

from dataclasses import replace

from flows import entropy_gates
from lab.gates import IMPOSSIBLE, NEXT_RUNG, STOP, Comparison, Gate, Route, Rule

CLIMB, SCALE_UP, LADDER_END = "climb", "scale_up", "ladder_end"

INJECTION = "direct_injection"


def _stops_the_rung(gate: Gate, *verdicts: str) -> Gate:
    """A gate of the seed study that ends this rung instead of the study."""
    routes = {
        verdict: replace(
            route,
            next=CLIMB if verdict in verdicts and route.next == STOP else route.next,
            at_last_look=CLIMB if verdict in verdicts and route.at_last_look == STOP else route.at_last_look,
        )
        for verdict, route in gate.routes.items()
    }
    return replace(gate, routes=routes)


RUNG_EFFECT = replace(
    entropy_gates.SEED_EFFECT,
    name="rung_effect",
    question="Does the source of the seed change the text of this model?",
    routes={
        "INVALID": replace(entropy_gates.SEED_EFFECT.routes["INVALID"], next=CLIMB),
        "DETECTED": Route(next=CLIMB, sentence=entropy_gates.SEED_EFFECT.routes["DETECTED"].sentence),
        "EQUIVALENT": replace(entropy_gates.SEED_EFFECT.routes["EQUIVALENT"], next=CLIMB),
        "INCONCLUSIVE": replace(entropy_gates.SEED_EFFECT.routes["INCONCLUSIVE"], at_last_look=CLIMB),
    },
)

_CLIMB_SQL = """
WITH last AS (
    SELECT model, arg_max(gate, decided_at) AS gate, arg_max(verdict, decided_at) AS verdict,
           arg_max(negligible, decided_at) AS negligible
    FROM decision
    WHERE plan_hash = $plan_hash AND model IN ($model, $previous) AND gate <> 'climb'
    GROUP BY model
)
SELECT count(*) FILTER (gate = 'rung_effect' AND (verdict = 'EQUIVALENT' OR negligible))
           AS equivalent_in_a_row,
       count(*) AS n
FROM last
"""

CLIMB_GATE = Gate(
    name=CLIMB,
    question="Is a larger model worth its time?",
    sql=_CLIMB_SQL,
    rules=(Rule(verdict="EQUIVALENT", when=(Comparison(left="equivalent_in_a_row", op="==", right=2),)),),
    routes={
        "INVALID": Route(next=IMPOSSIBLE, sentence="this gate tests nothing"),
        "DETECTED": Route(next=IMPOSSIBLE, sentence="this gate tests nothing"),
        "EQUIVALENT": Route(
            next=LADDER_END,
            sentence="two rungs in a row are EQUIVALENT: larger ones are not expected to differ",
        ),
        "INCONCLUSIVE": Route(
            next=NEXT_RUNG,
            at_last_look=NEXT_RUNG,
            sentence="{equivalent_in_a_row} EQUIVALENT of this rung and the one before it, where two end the "
            "ladder",
        ),
    },
)

RUNG_GATES = (
    _stops_the_rung(entropy_gates.POSITIVE_CONTROL, "INVALID", "INCONCLUSIVE"),
    _stops_the_rung(entropy_gates.A_A, "INVALID"),
    _stops_the_rung(entropy_gates.INTEGRITY, "INVALID"),
    replace(
        _stops_the_rung(entropy_gates.SEED_SOURCES, "INVALID"),
        routes={
            verdict: replace(route, next="rung_effect" if route.next == "seed_effect" else CLIMB)
            for verdict, route in entropy_gates.SEED_SOURCES.routes.items()
        },
    ),
    RUNG_EFFECT,
    CLIMB_GATE,
)
"""Asked of every model; DETECTED at `a_a` stops the ladder, since its assay is biased."""

_OF_RUNGS = """
FROM test SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
WHERE test.step_id = $analysis
"""

SCALE_UP_GATE = Gate(
    name=SCALE_UP,
    question="Do fresh texts of this model show the effect again?",
    sql=f"""
SELECT any_value(verdict) AS tested, coalesce(bool_or(negligible), false) AS negligible,
       max(effect) AS effect, max(low) AS low, max(high) AS high, max(p_adjusted) AS p, max(alpha) AS alpha,
       max(margin) AS margin, coalesce(max(n), 0) AS n, max(n_to_settle) AS n_to_settle,
       coalesce(any_value(reason), 'about ' || max(n_to_settle) || ' samples a cell would settle it',
                'how many samples would settle it is undefined') AS what_settles
{_OF_RUNGS.strip()} AND family = 'scale_up' AND hypothesis = 'rung' AND contrast = $model
""",
    min_n=20,
    rules=(
        Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),
        *(
            Rule(verdict=verdict, when=(Comparison(left="tested", op="==", right=verdict),))
            for verdict in ("INVALID", "DETECTED", "EQUIVALENT")
        ),
    ),
    routes={
        "INVALID": Route(
            next=LADDER_END, sentence="not confirmed, the fresh texts have no answer: {what_settles}"
        ),
        "DETECTED": Route(
            next=LADDER_END,
            sentence="confirmed by fresh texts: {effect:+.2f} SD [{low:+.2f}, {high:+.2f}], p = {p:.2g} over "
            "confirmed rungs, n = {n}",
        ),
        "EQUIVALENT": Route(
            next=LADDER_END,
            sentence="not confirmed: fresh texts differ by under {margin} SD ({effect:+.2f} "
            "[{low:+.2f}, {high:+.2f}], n = {n})",
        ),
        "INCONCLUSIVE": Route(
            next=LADDER_END,
            sentence="not confirmed, nor excluded: {effect:+.2f} SD [{low:+.2f}, {high:+.2f}] in fresh "
            "texts, n = {n}; {what_settles}",
        ),
    },
)
"""Asked of each rung DETECTED after correction, about its fresh texts alone, at an alpha of their own."""

LADDER_END_GATE = Gate(
    name=LADDER_END,
    is_primary=True,
    question="What do the rungs say together?",
    sql=f"""
SELECT any_value(verdict) FILTER (family = 'ladder' AND role = 'verdict') AS tested,
       any_value(verdict) FILTER (family = 'scale_up' AND role = 'verdict') AS confirmation,
       coalesce(max(n) FILTER (family = 'ladder' AND role = 'verdict'), 0) AS n,
       count(*) FILTER (family = 'ladder' AND hypothesis = 'rung' AND verdict = 'DETECTED') AS detected,
       count(*) FILTER (family = 'ladder' AND hypothesis = 'rung' AND verdict = 'EQUIVALENT') AS equivalent,
       count(*) FILTER (family = 'ladder' AND hypothesis = 'rung' AND verdict = 'INCONCLUSIVE')
           AS inconclusive,
       count(*) FILTER (family = 'scale_up' AND hypothesis = 'rung' AND verdict = 'DETECTED') AS confirmed,
       max(estimate) FILTER (family = 'crossover') AS crossover_parameters,
       coalesce('EQUIVALENT from '
                || any_value(contrast) FILTER (family = 'crossover' AND estimate IS NOT NULL) || ' on',
                'no crossover') AS crossover,
       max(n_to_settle) FILTER (family = 'ladder' AND role = 'verdict') AS n_to_settle,
       CASE WHEN count(*) FILTER (family = 'ladder' AND hypothesis = 'rung'
                                  AND verdict = 'INCONCLUSIVE') = 0 THEN 'none is open'
            ELSE coalesce('about ' || max(n_to_settle) FILTER (family = 'ladder' AND role = 'verdict')
                          || ' samples a cell would settle all of them',
                          'no number of samples settles all of them') END AS what_settles,
       coalesce((SELECT string_agg(models || ': ' || reason, '; ' ORDER BY models)
                 FROM (SELECT reason, string_agg(contrast, ', ' ORDER BY contrast) AS models
                       FROM test WHERE step_id = $analysis AND family = 'ladder' AND hypothesis = 'rung'
                                   AND p IS NULL GROUP BY reason)), 'none') AS left_out
{_OF_RUNGS.strip()}
""",
    rules=(
        Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),
        Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right="INVALID"),)),
        Rule(verdict="DETECTED", when=(Comparison(left="confirmation", op="==", right="DETECTED"),)),
        Rule(verdict="EQUIVALENT", when=(Comparison(left="tested", op="==", right="EQUIVALENT"),)),
    ),
    routes={
        "INVALID": Route(next=INJECTION, sentence="no rung has an answer: {left_out}"),
        "DETECTED": Route(
            next=INJECTION,
            sentence="the source changes the text of some models: {detected} of {n} rungs DETECTED after "
            "correction, {confirmed} confirmed by fresh texts; {crossover}",
        ),
        "EQUIVALENT": Route(
            next=INJECTION,
            sentence="every rung with an answer is EQUIVALENT ({n} of them); {crossover}",
        ),
        "INCONCLUSIVE": Route(
            next=INJECTION,
            sentence="of {n} rungs {detected} DETECTED after correction, {confirmed} confirmed, {equivalent} "
            "EQUIVALENT, {inconclusive} INCONCLUSIVE ({what_settles}); without an answer: {left_out}",
        ),
    },
)

_ASSAY = RUNG_GATES[:4]


def _leads_on(gate: Gate) -> Gate:
    """A gate of the assay in a confirmation: whatever fails here leads to the end."""
    names = {other.name for other in _ASSAY}
    onward = {"rung_effect": SCALE_UP}
    routes = {
        verdict: replace(
            route,
            next=onward.get(route.next, route.next if route.next in (*names, IMPOSSIBLE) else LADDER_END),
            at_last_look=None,
        )
        for verdict, route in gate.routes.items()
    }
    return replace(gate, routes=routes)


CONFIRMATION_GATES = tuple(_leads_on(gate) for gate in _ASSAY)
"""Asked of a confirmation's texts before `scale_up`."""
GATES = (*RUNG_GATES, SCALE_UP_GATE, LADDER_END_GATE)
