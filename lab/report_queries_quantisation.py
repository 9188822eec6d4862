"""What the report and the figures ask about quantised models: rows of the replicates of one plan.

A replicate is a model of its own in the rows, so these queries go by plan and not by the group's model. Of a
study that declares no languages and no experiments they return nothing.
"""

from __future__ import annotations

RESEARCH_QUESTIONS = """
SELECT research_question, question, status, decided, parts, experiments
FROM research_questions
WHERE study = $study AND plan_hash = $plan
ORDER BY research_question
"""

EXPERIMENTS = """
SELECT experiment, research_question, question, predicted, verdict, direction, success, estimate, low, high,
       margin, n, replicates, look, findings, seconds, expected_minutes
FROM experiments
WHERE study = $study AND plan_hash = $plan
ORDER BY experiment
"""

_LANGUAGES = """
WITH spoken AS (
    SELECT unnest(from_json(json_extract(text, '$.design.languages'),
                            '[{"code": "VARCHAR", "name": "VARCHAR", "tier": "VARCHAR", "share": "DOUBLE"}]'),
                  recursive := true)
    FROM plan WHERE plan_hash = $plan
)"""


def _changes(families: str) -> str:
    return f"""{_LANGUAGES}
SELECT family AS experiment, model AS replicate, regexp_replace(model, ' (seed|fold) [0-9]+$', '') AS model,
       code, name, tier, share, estimate AS change, low, high, alpha, n, reason
FROM look_test JOIN spoken ON contrast = 'int4:' || code
WHERE study = $study AND plan_hash = $plan AND is_last_look AND family IN ({families})
  AND hypothesis = 'change' AND metric = 'bits_per_sentence'
ORDER BY experiment, avg(estimate ORDER BY model) OVER (PARTITION BY experiment, code) DESC NULLS LAST, code,
         replicate
"""


CHANGES = _changes("'A-003'")
CHANGES_ELSEWHERE = _changes("'D-001', 'D-002'")

BUDGETS = """
SELECT model AS replicate, contrast AS variant,
       coalesce(nullif(regexp_extract(contrast, '^([a-z]+) [0-9.]+ %$', 1), ''), 'nothing kept') AS selector,
       coalesce(try_cast(regexp_extract(contrast, ' ([0-9.]+) %$', 1) AS DOUBLE), 0) AS percent,
       estimate AS gap, low, high, p, alpha, n, reason
FROM look_test
WHERE study = $study AND plan_hash = $plan AND is_last_look AND family = 'pareto' AND hypothesis = 'gap'
  AND metric = 'bits_per_sentence'
ORDER BY replicate, percent, selector
"""

_NETWORK = "regexp_replace(model, ' (seed|fold) [0-9]+$', '')"
"""Of a replicate: folds of sentences share one model, whose sizes are recorded once."""

PARETO = f"""
WITH asked AS (
    SELECT *, split_part(contrast, ':', 1) AS variant FROM look_test
    WHERE study = $study AND plan_hash = $plan AND is_last_look AND family IN ('A-003', 'pareto')
      AND metric = 'bits_per_sentence' AND contrast NOT IN ('bf16', 'fp32 again')
), gaps AS (
    SELECT model, variant, estimate AS gap, low AS gap_low, high AS gap_high, p, alpha, reason
    FROM asked WHERE hypothesis = 'gap'
    QUALIFY row_number() OVER (PARTITION BY model, variant ORDER BY family) = 1
), stored AS (
    SELECT model, variant, estimate, low, high FROM asked WHERE hypothesis = 'mean_change'
    QUALIFY row_number() OVER (PARTITION BY model, variant ORDER BY family) = 1
), means AS (
    SELECT model, variant,
           CASE WHEN count(estimate) = count(*) THEN avg(estimate ORDER BY contrast) END AS estimate
    FROM (SELECT DISTINCT model, variant, contrast, estimate FROM asked WHERE hypothesis = 'change')
    GROUP BY ALL
), sizes AS (
    SELECT {_NETWORK} AS network, arm AS variant, max(value) AS bits_per_weight
    FROM metric JOIN step USING (step_id) JOIN plan_step USING (step_id)
    WHERE plan_hash = $plan AND study = $study AND unit = '*' AND name = 'bits_per_weight'
    GROUP BY ALL
)
SELECT gaps.model AS replicate, gaps.variant,
       coalesce(nullif(regexp_extract(gaps.variant, '^([a-z]+) [0-9.]+ %$', 1), ''), 'nothing kept')
           AS selector,
       bits_per_weight, coalesce(stored.estimate, means.estimate) AS change, stored.low AS change_low,
       stored.high AS change_high, gap, gap_low, gap_high, p, alpha,
       coalesce(reason, CASE WHEN bits_per_weight IS NULL THEN 'its size was not recorded' END) AS reason
FROM gaps LEFT JOIN stored USING (model, variant) LEFT JOIN means USING (model, variant)
LEFT JOIN sizes ON sizes.network = {_NETWORK} AND sizes.variant = gaps.variant
ORDER BY replicate, bits_per_weight NULLS LAST, gaps.variant
"""

BLOCKS = f"""{_LANGUAGES}
SELECT model AS replicate, regexp_extract(contrast, '^block ([0-9]+)', 1)::INTEGER AS block, code, name, tier,
       estimate AS saved, low, high, low > 0 OR high < 0 AS excludes_zero, alpha, n, reason
FROM look_test JOIN spoken ON split_part(contrast, ':', 2) = code
WHERE study = $study AND plan_hash = $plan AND is_last_look AND family = 'C-001'
  AND hypothesis = 'protect_block'
ORDER BY replicate, block, tier, code
"""

DISPARITY = """
WITH rows AS (
    SELECT *, split_part(contrast, ':', 1) AS variant FROM look_test
    WHERE study = $study AND plan_hash = $plan AND is_last_look AND family IN ('A-003', 'D-001', 'D-002')
      AND metric IN ('bits_per_sentence', 'perplexity')
)
SELECT family AS experiment, model AS replicate, variant,
       max(estimate) FILTER (hypothesis = 'gap') AS gap, max(low) FILTER (hypothesis = 'gap') AS low,
       max(high) FILTER (hypothesis = 'gap') AS high, max(p) FILTER (hypothesis = 'gap') AS p,
       max(alpha) FILTER (hypothesis = 'gap') AS alpha, max(margin) FILTER (hypothesis = 'gap') AS margin,
       max(verdict) FILTER (hypothesis = 'gap') AS verdict, max(reason) FILTER (hypothesis = 'gap') AS reason,
       max(mde) FILTER (hypothesis = 'gap') AS mde, max(power) FILTER (hypothesis = 'gap') AS power,
       max(n_to_settle) FILTER (hypothesis = 'gap') AS languages_to_settle,
       max(estimate) FILTER (hypothesis = 'ratio_of_means') AS ratio,
       max(low) FILTER (hypothesis = 'ratio_of_means') AS ratio_low,
       max(high) FILTER (hypothesis = 'ratio_of_means') AS ratio_high,
       max(reason) FILTER (hypothesis = 'ratio_of_means') AS ratio_reason,
       max(estimate) FILTER (hypothesis = 'degradation_ratio') AS legacy_ratio,
       nullif(max(regexp_extract(method, ': ([a-z]+)$', 1)) FILTER (hypothesis = 'degradation_ratio'), '')
           AS legacy_word,
       max(reason) FILTER (hypothesis = 'degradation_ratio') AS legacy_reason,
       max(estimate) FILTER (hypothesis = 'gap_nats') AS gap_nats
FROM rows WHERE variant <> 'fp32 again'
GROUP BY family, model, variant
HAVING count(*) FILTER (hypothesis = 'gap') > 0
ORDER BY experiment, replicate, list_position(['int4', 'legacy', 'int8', 'int2', 'bf16'], variant)
"""

MEASURES = """
SELECT family AS experiment, model AS replicate, metric, role, estimate, low, high, p, alpha, n, reason
FROM look_test
WHERE study = $study AND plan_hash = $plan AND is_last_look AND family IN ('A-003', 'D-001', 'D-002')
  AND hypothesis = 'gap' AND contrast = 'int4'
ORDER BY experiment, replicate, role, metric
"""

NULLS = """
WITH bounded AS (
    SELECT look_test.*,
           CASE WHEN contains(method, 'exactly 0') THEN 0
                WHEN contains(method, 'of the margin')
                THEN regexp_extract(method, 'within ([0-9.]+) of', 1)::DOUBLE
                     * json_extract(plan.text, '$.margin')::DOUBLE
                ELSE try_cast(regexp_extract(method, 'at most ([0-9]+[.]?[0-9]*)', 1) AS DOUBLE)
           END AS bound
    FROM look_test JOIN plan USING (plan_hash)
    WHERE look_test.study = $study AND plan_hash = $plan AND is_last_look
      AND hypothesis IN ('null', 'order_of_widths')
)
SELECT family AS experiment, model AS replicate, contrast AS checked, estimate AS value, low, high, bound,
       CASE WHEN estimate = 0 THEN 0 ELSE estimate / nullif(bound, 0) END AS share,
       low / nullif(bound, 0) AS share_low, high / nullif(bound, 0) AS share_high,
       reason IS NULL AS holds, reason, method, n
FROM bounded
ORDER BY list_position(['fp32 again', 'bf16', 'bf16/int4', 'int8/int4', 'int4/int2'], contrast),
         experiment, replicate
"""

TESTS = """
SELECT model AS replicate, family, hypothesis, metric, contrast, method, role, look, estimate, low, high, p,
       p_adjusted, alpha, margin, n, power, mde, n_to_settle, verdict, reason
FROM look_test
WHERE study = $study AND plan_hash = $plan AND is_last_look
ORDER BY family, hypothesis, metric, contrast, replicate, method
"""

STEPS = """
SELECT experiment, arm, count(*) AS steps, sum(seconds) AS seconds, count(step.reason) AS without_result
FROM step JOIN plan_step USING (step_id)
WHERE study = $study AND plan_hash = $plan
GROUP BY ALL ORDER BY experiment, arm NULLS FIRST
"""
