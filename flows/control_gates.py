"""The one gate of the control experiment: does text follow the seed's value?

Its verdict comes from `stats.control` in the row of role `verdict`; beside it the query shows the rates that
the verdict was made of.
"""

from __future__ import annotations

from lab.gates import NEXT_LOOK, Comparison, Gate, Route, Rule

_EVIDENCE = """
WITH answer AS (
    SELECT test.*, role = 'verdict' AS is_verdict, family = 'distribution_transfer' AS is_transfer
    FROM test SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
    WHERE test.step_id = $analysis AND family IN ('control', 'distribution_transfer')
), control AS (
    SELECT any_value(verdict) FILTER (is_verdict) AS tested,
           coalesce(bool_or(negligible) FILTER (is_verdict), false) AS negligible,
           coalesce(max(n) FILTER (is_verdict), 0) AS n, max(low) FILTER (is_verdict) AS swap_low,
           max(estimate) FILTER (is_verdict) AS swap_agree,
           max(n_to_settle) FILTER (is_verdict) AS pairs_to_settle,
           coalesce(any_value(reason) FILTER (is_verdict), 'none of its checks failed') AS findings,
           max(estimate) FILTER (hypothesis = 'same_seed_identity' AND contrast = 'warm') AS warm_agree,
           max(estimate) FILTER (hypothesis = 'same_seed_identity' AND contrast = 'cold') AS cold_agree,
           max(estimate) FILTER (hypothesis = 'replay_agreement') AS replay_agree,
           max(estimate) FILTER (hypothesis = 'different_values_agree') AS apart_agree
    FROM answer WHERE NOT is_transfer
), transfer AS (
    SELECT any_value(verdict) AS transfer, max(effect) AS transfer_effect, max(low) AS transfer_low,
           max(high) AS transfer_high, max(margin) AS margin, max(mde) AS transfer_mde,
           max(n_to_settle) AS transfer_n_to_settle,
           CASE WHEN any_value(verdict) = 'INCONCLUSIVE'
                THEN coalesce('; about ' || max(n_to_settle) || ' texts a prompt and range would settle that',
                              '; ' || any_value(reason), '') ELSE '' END AS transfer_settles
    FROM answer WHERE is_transfer AND is_verdict
)
SELECT * FROM control, transfer
"""

INJECTION = "direct_injection"


def _is(verdict: str | None) -> Rule:
    return Rule(verdict=verdict or "INVALID", when=(Comparison(left="tested", op="==", right=verdict),))


CONTROL = Gate(
    name="control",
    is_primary=True,
    question="Does text follow the value of the seed, whatever label it runs under?",
    sql=_EVIDENCE,
    min_n=20,
    rules=(_is(None), _is("INVALID"), _is("DETECTED"), _is("EQUIVALENT")),
    routes={
        "INVALID": Route(next=INJECTION, sentence="seed effects of this backend are void: {findings}"),
        "DETECTED": Route(
            next="entropy_ladder",
            sentence="text follows the seed value, not the label: {swap_agree:.1%} of same-seed pairs agree "
            "across labels, {warm_agree:.1%} under one, {apart_agree:.1%} over different seeds (n = {n}); "
            "seeds 0..1000 against all: {transfer}, {transfer_effect:+.2f} SD [{transfer_low:+.2f}, "
            "{transfer_high:+.2f}]{transfer_settles}",
        ),
        "EQUIVALENT": Route(next=INJECTION, sentence="the value of the seed cannot matter: {findings}"),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK,
            at_last_look=INJECTION,
            sentence="not settled by {n} independent pairs: {findings}; {pairs_to_settle} would settle it",
        ),
    },
)

GATES = (CONTROL,)
