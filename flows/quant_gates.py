"""The decision tree of the quantisation study: seven gates over the verdicts of eleven experiments.

Each reads the view `experiment_looks`, in which an experiment has the verdict that its replicates agree on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lab.gates import IMPOSSIBLE, NEXT_LOOK, STOP, Comparison, Gate, Route, Rule

_ASSAY = """
    SELECT coalesce(any_value('; INT4 as a whole changes bits by less than this, so there was little to find')
                    FILTER (greatest(abs(low), abs(high)) <= margin), '')
    FROM experiment_looks WHERE plan_hash = $plan_hash AND look = $look AND experiment = 'A-002'
"""
"""Where all of INT4's damage lies inside the margin, a part of it does too."""

_ONE = """
SELECT any_value(verdict) AS tested, coalesce(any_value(direction), 0) AS direction,
       max(estimate) AS estimate, min(low) AS low, max(high) AS high, max(margin) AS margin,
       coalesce(min(n), 0) AS n, coalesce(min(replicates), 0) AS replicates,
       coalesce(any_value(findings), any_value(success), 'not run') AS findings, ({assay}) AS assay
FROM experiment_looks
WHERE plan_hash = $plan_hash AND look = $look AND experiment = '{experiment}'
"""

_SEVERAL = """
WITH parts AS (
    SELECT * FROM experiment_looks
    WHERE plan_hash = $plan_hash AND look = $look AND experiment IN ({experiments})
)
SELECT count(*) AS experiments,
       CASE WHEN count(*) < {count} OR bool_or(verdict IS NULL) OR bool_or(verdict = 'INVALID') THEN 'INVALID'
            WHEN {detected} THEN 'DETECTED'
            WHEN bool_and(verdict = 'EQUIVALENT') THEN 'EQUIVALENT'
            ELSE 'INCONCLUSIVE' END AS tested,
       count(*) FILTER (verdict = 'DETECTED' AND direction = 1) AS above,
       count(*) FILTER (verdict = 'DETECTED' AND direction = -1) AS below, coalesce(min(n), 0) AS n,
       coalesce(string_agg(experiment || ' ' || coalesce(verdict, success)
                           || coalesce(format(' {{:+.3f}}', estimate), ''), '; ' ORDER BY experiment),
                'none of them ran') AS findings,
       ({assay}) AS assay
FROM parts
"""


def _verdicts(*verdicts: str) -> tuple[Rule, ...]:
    """INVALID where nothing was tested, and each verdict as it was tested."""
    return (
        Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),
        *(
            Rule(verdict=one, when=(Comparison(left="tested", op="==", right=one),))
            for one in ("INVALID", *verdicts)
        ),
    )


COLLAPSED = Gate(
    name="collapsed",
    question="Are the models fit to be compared: better than a unigram model, not collapsed, nulls at zero?",
    sql="""
SELECT count(*) AS experiments, count(*) FILTER (verdict IS NULL OR verdict = 'INVALID') AS unfit,
       coalesce(min(n), 0) AS n,
       coalesce(string_agg(experiment || ' ' || verdict || coalesce(' (' || reason || ')', ''), '; '
                           ORDER BY experiment), 'neither was measured') AS findings
FROM experiment_looks
WHERE plan_hash = $plan_hash AND look = $look AND experiment IN ('A-001', 'A-002')
""",
    min_n=2,
    rules=(
        Rule(verdict="INVALID", when=(Comparison(left="experiments", op="<", right=2),)),
        Rule(verdict="INVALID", when=(Comparison(left="unfit", op=">", right=0),)),
        Rule(verdict="DETECTED", when=(Comparison(left="unfit", op="==", right=0),)),
    ),
    routes={
        "INVALID": Route(next=STOP, sentence="nothing may be concluded: {findings}"),
        "DETECTED": Route(next="disparity", sentence="the models are fit to be compared: {findings}"),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
        "INCONCLUSIVE": Route(next=STOP, sentence="too few languages: {findings}"),
    },
)

DISPARITY = Gate(
    name="disparity",
    is_primary=True,
    question="Does INT4 cost low-resource languages more than high-resource ones?",
    sql=_ONE.format(experiment="A-003", assay=_ASSAY),
    min_n=6,
    rules=_verdicts("DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next=STOP, sentence="no answer: {findings}"),
        "DETECTED": Route(
            next="preservation",
            sentence="the gap between low- and high-resource languages is {estimate:+.3f} bits an aligned "
            "sentence [{low:+.3f}, {high:+.3f}]: {findings}",
        ),
        "EQUIVALENT": Route(
            next="transfer",
            sentence="no disparity beyond {margin} bits an aligned sentence: {estimate:+.3f} "
            "[{low:+.3f}, {high:+.3f}] over {n} languages and {replicates} replicates{assay}",
        ),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK,
            at_last_look="transfer",
            sentence="neither shown nor excluded: {estimate:+.3f} bits an aligned sentence "
            "[{low:+.3f}, {high:+.3f}]; {findings}",
        ),
    },
)

PRESERVATION = Gate(
    name="preservation",
    question="Does keeping a share of the weights help more than keeping as many random ones?",
    sql=_SEVERAL.format(
        experiments="'B-001', 'B-002', 'B-003'",
        count=3,
        detected="bool_or(verdict = 'DETECTED' AND direction = 1)",
        assay=_ASSAY,
    ),
    min_n=6,
    rules=_verdicts("DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next="layers", sentence="no answer: {findings}"),
        "DETECTED": Route(
            next="budget",
            sentence="{above} of {experiments} budgets beat random masks, {below} do worse: {findings}",
        ),
        "EQUIVALENT": Route(next="layers", sentence="no budget helps beyond the margin: {findings}{assay}"),
        "INCONCLUSIVE": Route(
            next="budget",
            sentence="no budget is shown to beat random masks, {below} of {experiments} do worse: {findings}",
        ),
    },
)

BUDGET = Gate(
    name="budget",
    question="Does the budget chosen on one half of the sentences save bits on the other half?",
    sql=_ONE.format(experiment="B-004", assay=_ASSAY),
    min_n=6,
    rules=_verdicts("DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next="layers", sentence="no answer: {findings}"),
        "DETECTED": Route(next="layers", sentence="it saves {estimate:+.3f} bits: {findings}"),
        "EQUIVALENT": Route(
            next="layers", sentence="it saves nothing beyond {margin} bits: {findings}{assay}"
        ),
        "INCONCLUSIVE": Route(next="layers", sentence="neither shown nor excluded: {findings}"),
    },
)

LAYERS = Gate(
    name="layers",
    question="Does some block carry more of the damage than the mean block?",
    sql=_ONE.format(experiment="C-001", assay=_ASSAY),
    min_n=6,
    rules=_verdicts("DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next="transfer", sentence="no answer: {findings}"),
        "DETECTED": Route(
            next="layer_protection", sentence="some block saves more than the mean block: {findings}"
        ),
        "EQUIVALENT": Route(
            next="transfer", sentence="no block stands out beyond {margin} bits: {findings}{assay}"
        ),
        "INCONCLUSIVE": Route(next="layer_protection", sentence="neither shown nor excluded: {findings}"),
    },
)

LAYER_PROTECTION = Gate(
    name="layer_protection",
    question="Does keeping the chosen blocks save more than keeping as many others, on other sentences?",
    sql=_ONE.format(experiment="C-002", assay=_ASSAY),
    min_n=6,
    rules=_verdicts("DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next="transfer", sentence="no answer: {findings}"),
        "DETECTED": Route(next="transfer", sentence="they save {estimate:+.3f} bits more: {findings}"),
        "EQUIVALENT": Route(next="transfer", sentence="not beyond {margin} bits: {findings}{assay}"),
        "INCONCLUSIVE": Route(next="transfer", sentence="neither shown nor excluded: {findings}"),
    },
)

TRANSFER = Gate(
    name="transfer",
    question="Do the other architectures show a disparity?",
    sql=_SEVERAL.format(
        experiments="'D-001', 'D-002'",
        count=2,
        detected="bool_and(verdict = 'DETECTED') AND min(direction) = max(direction)",
        assay="''",
    ),
    min_n=6,
    rules=_verdicts("DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next=NEXT_LOOK, at_last_look=STOP, sentence="no answer: {findings}"),
        "DETECTED": Route(
            next=STOP, sentence="both other architectures show one, of the same sign: {findings}"
        ),
        "EQUIVALENT": Route(next=STOP, sentence="neither shows a disparity beyond the margin: {findings}"),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK, at_last_look=STOP, sentence="neither shown nor excluded: {findings}"
        ),
    },
)

GATES = (COLLAPSED, DISPARITY, PRESERVATION, BUDGET, LAYERS, LAYER_PROTECTION, TRANSFER)

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "collapsed": ("A-001", "A-002"),
        "disparity": ("A-003",),
        "preservation": ("B-001", "B-002", "B-003"),
        "budget": ("B-004",),
        "layers": ("C-001",),
        "layer_protection": ("C-002",),
        "transfer": ("D-001", "D-002"),
    }
)
"""Gate -> experiments that must have run before it is asked."""
