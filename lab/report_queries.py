"""What the report and the figures ask of the store: every number they show comes from one of these.

Kept as text under a name, so that the page can print the query under each figure and table, with its
parameters written in, to be pasted into `ladder sql`.
"""

from __future__ import annotations

from collections.abc import Mapping

GROUPS = """
WITH seen AS (
    SELECT study, profile, model, plan_hash, decided_at AS moment FROM decision
    UNION ALL
    SELECT study, profile, model, plan_hash, started_at FROM run
)
SELECT seen.study, seen.profile, seen.model, seen.plan_hash, max(seen.moment) AS moment,
       any_value(study.question) AS question, any_value(study.text) AS text,
       any_value(plan.text) AS plan, any_value(plan.frozen) AS frozen
FROM seen LEFT JOIN study USING (study) LEFT JOIN plan USING (plan_hash)
GROUP BY seen.study, seen.profile, seen.model, seen.plan_hash
ORDER BY seen.study, seen.profile, seen.model, frozen DESC NULLS LAST, moment DESC
"""

PATH = """
SELECT path.position, path.gate, path.look, path.verdict, path.exploratory, path.negligible, path.next,
       path.sentence, path.question, decision_id, path.decided_at, decision.evidence,
       decision.sql AS gate_sql, decision.parameters
FROM decision_path AS path JOIN decision USING (decision_id)
WHERE path.study = $study AND path.model = $model AND path.plan_hash = $plan
ORDER BY path.position
"""

VERDICT_ROWS = """
SELECT family, look, effect, low, high, p_adjusted, alpha, margin, n, power, mde, n_to_settle, verdict,
       negligible, method, reason
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND role = 'verdict'
ORDER BY family, look
"""

VERDICT_ROW = VERDICT_ROWS.replace("ORDER BY family, look", "  AND family = $family AND look = $look")

LOOK = "SELECT look, decided_at FROM decision WHERE decision_id = $id"

EFFECTS = """
SELECT family, role,
       CASE WHEN starts_with(family, $family || ' ')
            THEN replace(substr(family, len($family) + 2), 'logit_perturb:', 'noise ') || ' · ' || metric
            ELSE metric END AS metric,
       contrast, look, effect, low_sd, high_sd, margin, alpha, p_adjusted, tost_p,
       excludes_zero, inside_margin, n, power, mde, reason
FROM contrast_effects
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look
  AND (family IN ($family, $family || '_secondary') OR starts_with(family, $family || ' '))
ORDER BY role, metric, contrast
"""

ASSAY = """
SELECT family, role, metric, contrast, look, effect, low_sd, high_sd, margin, alpha, p_adjusted, tost_p,
       excludes_zero, inside_margin, n, power, mde, reason
FROM contrast_effects
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look
  AND (starts_with(family, 'positive_control') OR family = 'a_a')
ORDER BY family DESC, role, metric, contrast
"""

LOOKS = """
SELECT look, arg_max(metric, abs(effect)) AS metric, arg_max(contrast, abs(effect)) AS contrast,
       arg_max(effect, abs(effect)) AS effect, arg_max(low_sd, abs(effect)) AS low_sd,
       arg_max(high_sd, abs(effect)) AS high_sd, any_value(margin) AS margin, any_value(alpha) AS alpha,
       arg_max(p_adjusted, abs(effect)) AS p_adjusted, any_value(n) AS n
FROM contrast_effects
WHERE study = $study AND model = $model AND plan_hash = $plan AND role = 'decides'
  AND (family = $family OR starts_with(family, $family || ' '))
GROUP BY look
ORDER BY look
"""

DETECTABLE = """
SELECT look, n, mde, power, margin, alpha, n_to_settle, verdict, reason
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND family = $family AND role = 'verdict'
ORDER BY look
"""

MISSING_SHARES = """
SELECT contrast AS arm, look, estimate AS share, low, high, n, round(estimate * n)::BIGINT AS missing
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look AND family = 'integrity'
  AND hypothesis = 'share_missing' AND metric = 'missing' AND contrast <> '*' AND estimate IS NOT NULL
ORDER BY arm
"""

EXCLUDED = """
WITH every_text AS (
    SELECT generation.arm, generation.reason, finish_reason, imported, probe = 0 AS is_sample,
           len(regexp_extract_all(regexp_replace(text, '(?s)<think>.*?</think>', '', 'g'), '\\S+')) < 10
               AS is_short
    FROM generation JOIN step USING (step_id) JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan
)
SELECT arm, count(*) FILTER (is_sample) AS texts,
       count(*) FILTER (is_sample AND reason IS NOT NULL) AS failed,
       count(*) FILTER (is_sample AND reason IS NULL AND is_short) AS short,
       (failed + short) / nullif(texts, 0) AS excluded_share,
       count(*) FILTER (is_sample AND finish_reason = 'length') AS at_token_limit,
       count(*) FILTER (NOT is_sample) AS repeats, count(*) FILTER (imported) AS imported
FROM every_text GROUP BY arm ORDER BY arm
"""

FAILURES = """
SELECT generation.arm, generation.reason, count(*) AS texts
FROM generation JOIN step USING (step_id) JOIN plan_step USING (step_id)
WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND generation.reason IS NOT NULL
GROUP BY ALL ORDER BY texts DESC, 1, 2
"""

TESTS = """
SELECT family, hypothesis, metric, contrast, method, role, look, estimate, low, high, effect, statistic,
       df1, df2, p, p_adjusted, alpha, margin, n, power, mde, n_to_settle, verdict, reason
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look
ORDER BY family, hypothesis, metric, contrast, method
"""

DEVIATIONS = """
SELECT field, declared, used, declared_hash FROM deviation WHERE plan_hash = $plan ORDER BY field
"""

RUNS = """
SELECT run_id, state, started_at, ended_at, date_diff('millisecond', started_at, ended_at) / 1000 AS seconds,
       exploratory, git_commit, git_dirty, settings, note, environment_id, environment.python,
       environment.platform, environment.cpu, environment.cores, environment.memory_gib, environment.device,
       environment.packages
FROM run LEFT JOIN environment USING (environment_id)
WHERE (study = $study AND model = $model AND plan_hash = $plan) OR run_id IN (
    SELECT run_id FROM decision WHERE study = $study AND model = $model AND plan_hash = $plan)
ORDER BY started_at
"""
"""A rung of a ladder has no run of its own: those of the whole that decided something of it."""

STEPS = """
SELECT experiment, arm, count(*) AS steps, sum(seconds) AS seconds, count(step.reason) AS without_result
FROM step JOIN plan_step USING (step_id)
WHERE study = $study AND plan_hash = $plan AND (model = $model OR model IS NULL)
GROUP BY ALL ORDER BY experiment, arm NULLS FIRST
"""

_DRAWN = """
WITH drawn AS (
    SELECT DISTINCT split_part(source, '/', -1) AS source, stream, draw, seed32
    FROM seed_draw WHERE NOT ends_with(source, '/choice')
)"""

SEEDS = f"""{_DRAWN}, binned AS (
    SELECT source, seed32 // 268435456 AS bin, count(*) AS draws FROM drawn GROUP BY ALL
), grid AS (
    SELECT source, bin FROM (SELECT DISTINCT source FROM binned), range(16) AS bins(bin)
)
SELECT source, bin, coalesce(draws, 0) AS draws, sum(coalesce(draws, 0)) OVER (PARTITION BY source) AS n
FROM grid LEFT JOIN binned USING (source, bin)
ORDER BY source, bin
"""

SEED_QUANTILES = f"""{_DRAWN}, ranked AS (
    SELECT source, seed32 / 4294967296.0 AS u, count(*) OVER (PARTITION BY source) AS n FROM drawn
), quantiles AS (
    SELECT source, any_value(n) AS n,
           quantile_cont(u, [k / 50.0 FOR k IN range(1, 50)]) AS observed
    FROM ranked GROUP BY source
)
SELECT source, n, (i + 1) / 50.0 AS expected, observed[i + 1] - (i + 1) / 50.0 AS deviation
FROM quantiles, range(49) AS places(i)
ORDER BY source, expected
"""

PERMUTATIONS = """
SELECT metric, statistic, low, high, p, p_adjusted, n, reason
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look AND family = 'sharp_null'
  AND hypothesis = 'omnibus' AND statistic IS NOT NULL AND low IS NOT NULL
ORDER BY metric
"""

SCALE = """
WITH sizes AS (
    SELECT unnest(from_json(json_extract(text, '$.design.rungs'),
                            '[{"model": "VARCHAR", "parameters": "BIGINT", "line": "VARCHAR"}]')) AS rung
    FROM plan WHERE plan_hash = $plan
), crossed AS (
    SELECT max(estimate) AS crossover FROM look_test
    WHERE study = $study AND model = $model AND plan_hash = $plan AND family = 'crossover'
)
SELECT contrast AS rung, rung.parameters AS parameters, rung.line AS line, effect, low, high, margin, alpha,
       verdict, p, p_adjusted, n, n_to_settle, crossover, reason
FROM look_test JOIN sizes ON rung.model = contrast, crossed
WHERE study = $study AND look_test.model = $model AND plan_hash = $plan AND family = 'ladder'
  AND hypothesis = 'rung'
ORDER BY parameters
"""

DOSES = """
SELECT regexp_extract(contrast, '^logit_perturb:([0-9.]+)', 1)::DOUBLE AS dose,
       regexp_extract(contrast, '^logit_perturb:[0-9.]+:([a-z]+)', 1) AS law,
       metric, effect, low * abs(effect / nullif(estimate, 0)) AS low_sd,
       high * abs(effect / nullif(estimate, 0)) AS high_sd, margin, alpha, p, p_adjusted, n
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look AND family = 'dose_response'
  AND hypothesis = 'against_none' AND starts_with(contrast, 'logit_perturb:') AND effect IS NOT NULL
ORDER BY law, metric, dose
"""

QUALITY = """
SELECT 'rows taken from the outbox' AS what, coalesce(sum(rows), 0)::BIGINT AS n FROM batch
UNION ALL SELECT 'batches', count(*) FROM batch
UNION ALL SELECT 'tests without a number, each with its reason', count(*) FROM test
    WHERE p IS NULL AND estimate IS NULL AND verdict IS NULL
UNION ALL SELECT 'metric values without a number, each with its reason', count(*) FROM metric
    WHERE value IS NULL
UNION ALL SELECT 'steps without a result', count(*) FROM step WHERE reason IS NOT NULL
UNION ALL SELECT 'tests that belong to no plan and are not on this page', count(*) FROM look_test
    WHERE plan_hash IS NULL
UNION ALL SELECT 'runs that did not complete', count(*) FROM run WHERE state <> 'completed'
"""


def written_in(sql: str, parameters: Mapping[str, object]) -> str:
    """The query with its parameters as literals, ready to paste.

    >>> written_in("SELECT $a, $ab", {"a": "it's", "ab": 2})
    "SELECT 'it''s', 2"
    """
    for name in sorted(parameters, key=len, reverse=True):
        value = parameters[name]
        text = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
        sql = sql.replace(f"${name}", text)
    return sql.strip()
