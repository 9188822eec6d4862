"""What the report and the figures ask about placed ranks: arms, seeds, modules, contrasts, checks.

An arm's shuffles are one kind: of `shuffled_within 1` to `4` a seed's number is the mean. The unit of every
interval is the seed. Of another study these queries return nothing.
"""

from __future__ import annotations

T_975 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
    2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555,
    2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
"""Student's .975 quantile for 1 to 30 degrees of freedom; the last one serves beyond, 4 % too wide."""
KINDS = (
    "base",
    "probe",
    "per_layer",
    "shuffled_within",
    "shuffled_full",
    "shuffled_free",
    "inverse",
    "cross_seed",
    "uniform_equal",
    "uniform_median",
    "uniform_p90",
    "eva",
)
"""Arms in the order of tables and figures."""
CONTROLS = (*KINDS[2:], "probe")
"""What the placement is compared with, in the order of tables."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _place(names: tuple[str, ...], column: str) -> str:
    """Where a name stands among names; after them when it is none of them."""
    return f"coalesce(list_position({list(names)}, {column}), {len(names) + 1})"


_CELLS = """
WITH cells AS (
    SELECT *, regexp_replace(arm, ' [0-9]+$', '') AS arm_kind
    FROM mechanism WHERE study = $study AND model = $model AND plan_hash = $plan
)"""

_ITEMS = f"""{_CELLS}, counted AS (
    SELECT step_id, count(strict) AS items FROM answer SEMI JOIN cells USING (step_id) GROUP BY step_id
)"""

_ARMS = f"""{_ITEMS}, seeds AS (
    SELECT arm_kind, seed, avg(accuracy_strict ORDER BY arm) AS accuracy,
           avg(accuracy_flexible ORDER BY arm) AS flexible, avg(accuracy_numeric ORDER BY arm) AS numeric,
           avg(nll_nats_a_token ORDER BY arm) AS nll, avg(parameters) AS parameters,
           count(accuracy_strict) AS adapters, max(items) AS items, min(reason) AS reason
    FROM cells LEFT JOIN counted USING (step_id) GROUP BY arm_kind, seed
), arms AS (
    SELECT arm_kind, avg(accuracy ORDER BY seed) AS mean, stddev_samp(accuracy ORDER BY seed) AS sd,
           count(accuracy) AS n,
           list_extract({list(T_975)}, least(n - 1, {len(T_975)})::BIGINT) * sd / sqrt(n) AS half
    FROM seeds GROUP BY arm_kind
)"""

SEEDS = f"""{_ARMS}
SELECT arm_kind AS arm, seed, accuracy, sqrt(accuracy * (1 - accuracy) / items) AS item_error, items,
       adapters, mean, mean - half AS low, mean + half AS high, sd, n, parameters, seeds.reason
FROM seeds JOIN arms USING (arm_kind)
WHERE arm_kind <> 'base'
ORDER BY {_place(KINDS, "arm_kind")}, arm_kind, seed
"""

ARMS = f"""{_ARMS}, placed AS (
    SELECT seed, accuracy AS placed FROM seeds WHERE arm_kind = 'per_layer'
)
SELECT arm_kind AS arm, any_value(mean) AS strict, any_value(sd) AS strict_sd,
       any_value(mean - half) AS low, any_value(mean + half) AS high,
       avg(flexible ORDER BY seed) AS flexible, stddev_samp(flexible ORDER BY seed) AS flexible_sd,
       avg(numeric ORDER BY seed) AS numeric, stddev_samp(numeric ORDER BY seed) AS numeric_sd,
       avg(nll ORDER BY seed) AS nats_a_token, stddev_samp(nll ORDER BY seed) AS nats_a_token_sd,
       avg(parameters ORDER BY seed) AS parameters,
       avg(placed - accuracy ORDER BY seed) FILTER (arm_kind <> 'per_layer') AS placed_minus,
       any_value(n) AS seeds, sum(adapters)::BIGINT AS adapters, max(items) AS items,
       string_agg(DISTINCT 'seed ' || seed || ': ' || reason, '; ' ORDER BY 'seed ' || seed || ': ' || reason)
           AS reason
FROM seeds JOIN arms USING (arm_kind) LEFT JOIN placed USING (seed)
GROUP BY arm_kind
ORDER BY {_place(KINDS, "arm_kind")}, arm_kind
"""

SHUFFLES = f"""{_ITEMS}, found AS (
    SELECT seed, arm, arm_kind, accuracy_strict AS accuracy, items, cells.reason
    FROM cells LEFT JOIN counted USING (step_id) WHERE arm_kind IN ('per_layer', 'shuffled_within')
), placed AS (
    SELECT seed, accuracy AS placed FROM found WHERE arm_kind = 'per_layer'
), ranked AS (
    SELECT seed, 1 + count(*) FILTER (accuracy > placed) + 0.5 * count(*) FILTER (accuracy = placed) AS place,
           1 + count(accuracy) AS of
    FROM found JOIN placed USING (seed)
    WHERE arm_kind = 'shuffled_within' AND placed IS NOT NULL GROUP BY seed
)
SELECT seed, arm, arm_kind, accuracy, items,
       accuracy - 1.96 * sqrt(accuracy * (1 - accuracy) / items) AS low,
       accuracy + 1.96 * sqrt(accuracy * (1 - accuracy) / items) AS high, place, of, reason
FROM found LEFT JOIN ranked USING (seed)
ORDER BY seed, arm_kind, arm
"""

RANKS = f"""{_CELLS}, placed AS (
    SELECT arm_kind, step_id, projection, layer, rank FROM cells JOIN adapter_module USING (step_id)
), uneven AS (
    SELECT DISTINCT arm_kind FROM (
        SELECT arm_kind, step_id FROM placed
        GROUP BY ALL HAVING max(rank) > min(rank) OR arm_kind = 'per_layer'
    )
)
SELECT arm_kind AS arm, projection, layer, avg(rank) AS rank, min(rank) AS least, max(rank) AS most,
       count(DISTINCT step_id) AS adapters
FROM placed SEMI JOIN uneven USING (arm_kind)
GROUP BY arm_kind, projection, layer
ORDER BY {_place(KINDS, "arm_kind")}, arm_kind, {_place(PROJECTIONS, "projection")}, projection,
         layer NULLS LAST
"""

SPECTRA = f"""{_CELLS}, spectra AS (
    SELECT module, projection, layer, rank, seed, from_json(sigma, '["DOUBLE"]') AS sigma
    FROM cells JOIN adapter_module USING (step_id) WHERE arm_kind = 'probe' AND sigma IS NOT NULL
), shares AS (
    SELECT module, projection, layer, rank, seed, unnest(sigma) / nullif(sigma[1], 0) AS share,
           generate_subscripts(sigma, 1) AS place
    FROM spectra
), means AS (
    SELECT module, projection, layer, place, avg(share ORDER BY seed) AS share, count(share) AS seeds
    FROM shares GROUP BY module, projection, layer, place
)
SELECT projection, layer, module, max(seeds) AS seeds, list(round(share, 3) ORDER BY place) AS shares,
       CASE WHEN count(share) = 0 THEN 'no energy in any seed' END AS reason
FROM means
GROUP BY projection, layer, module
ORDER BY {_place(PROJECTIONS, "projection")}, projection, layer NULLS LAST, module
"""

STABILITY = """
SELECT metric AS measure, contrast AS pair, estimate AS spearman, n AS modules,
       median(estimate) OVER (PARTITION BY metric) AS median, min(estimate) OVER (PARTITION BY metric) AS low,
       max(estimate) OVER (PARTITION BY metric) AS high, count(estimate) OVER (PARTITION BY metric) AS pairs,
       reason
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look AND family = 'audit'
  AND hypothesis = 'stability'
ORDER BY list_position(['energy_rank_90', 'effective_rank', 'stable_rank', 'spectral', 'frobenius'], measure),
         measure, pair
"""

_REACHED = """SELECT max(look) FROM decision_path
                  WHERE study = $study AND model = $model AND plan_hash = $plan"""
"""A later look that ended at a check has no answer: that of the look before is not shown in its place."""

_ANSWERS = f"""
WITH answer AS (
    SELECT * FROM look_test
    WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look AND family = 'mechanism'
      AND look = ({_REACHED})
)"""

SCENARIO = f"""{_ANSWERS}, main AS (
    SELECT * FROM answer
    WHERE role = 'decides' AND hypothesis = 'difference' AND contrast = 'per_layer-shuffled_within'
)
SELECT ending.contrast AS scenario, ending.verdict, ending.method AS said, main.verdict AS decided,
       main.negligible, main.estimate, main.low, main.high, main.alpha, main.p, main.p_adjusted, main.margin,
       main.n, main.mde, main.n_to_settle, main.reason,
       (SELECT max(reason) FROM answer WHERE hypothesis = 'legacy_scenario') AS earlier
FROM main, answer AS ending WHERE ending.hypothesis = 'scenario'
"""

CONTRASTS = f"""{_ANSWERS}
SELECT contrast, any_value(hypothesis) FILTER (role = 'decides') AS asks,
       max(estimate) FILTER (role = 'decides') AS estimate, max(low) FILTER (role = 'decides') AS low,
       max(high) FILTER (role = 'decides') AS high, max(p) FILTER (role = 'decides') AS p,
       max(p_adjusted) FILTER (role = 'decides') AS p_adjusted, max(alpha) AS alpha,
       max(margin) FILTER (role = 'decides') AS margin,
       max(low) FILTER (role = 'equivalence') AS tost_low,
       max(high) FILTER (role = 'equivalence') AS tost_high,
       max(p) FILTER (role = 'equivalence') AS tost_p,
       max(low) FILTER (hypothesis = 'hierarchical_bootstrap') AS boot_low,
       max(high) FILTER (hypothesis = 'hierarchical_bootstrap') AS boot_high,
       max(estimate) FILTER (hypothesis = 'within_seed_rank') AS rank_share,
       max(p) FILTER (hypothesis = 'within_seed_rank') AS rank_p,
       max(p) FILTER (hypothesis = 'paired_t') AS t_p, max(n) FILTER (role = 'decides') AS n,
       any_value(verdict) FILTER (role = 'decides') AS verdict,
       coalesce(bool_or(negligible) FILTER (role = 'decides'), false) AS negligible,
       any_value(method) FILTER (role = 'decides') AS method,
       any_value(reason) FILTER (role = 'decides') AS reason
FROM answer GROUP BY contrast HAVING count(*) FILTER (role = 'decides') > 0
ORDER BY {_place(CONTROLS, "split_part(contrast, '-', 2)")}, contrast
"""

SPREAD = f"""{_ANSWERS}
SELECT contrast, max(estimate) FILTER (hypothesis = 'sd_difference') AS sd_difference,
       max(estimate) FILTER (hypothesis = 'sd_seed') AS sd_seed,
       max(estimate) FILTER (hypothesis = 'sd_shuffle') AS sd_shuffle,
       any_value(reason) FILTER (hypothesis = 'sd_shuffle') AS no_shuffle,
       max(estimate) FILTER (hypothesis = 'sd_item') AS sd_item,
       max(estimate) FILTER (hypothesis = 'd_z') AS d_z,
       max(estimate) FILTER (hypothesis = 'd_pooled') AS d_pooled,
       max(mde) FILTER (role = 'decides') AS mde,
       max(estimate) FILTER (hypothesis = 'mde_after_holm') AS mde_after_holm,
       any_value(reason) FILTER (hypothesis = 'mde_after_holm') AS no_mde,
       max(n_to_settle) FILTER (role = 'decides') AS n_to_settle
FROM answer GROUP BY contrast HAVING count(*) FILTER (role = 'decides') > 0
ORDER BY {_place(CONTROLS, "split_part(contrast, '-', 2)")}, contrast
"""

EARLIER = f"""{_ANSWERS}, old AS (
    SELECT *, regexp_replace(hypothesis, '_d_(pooled|z)$', '') AS criterion FROM answer WHERE role = 'legacy'
)
SELECT criterion, contrast, max(estimate) FILTER (hypothesis = criterion) AS estimate,
       max(low) FILTER (hypothesis = criterion) AS low, max(high) FILTER (hypothesis = criterion) AS high,
       max(p) FILTER (hypothesis = criterion) AS p,
       max(estimate) FILTER (ends_with(hypothesis, '_d_pooled')) AS d_pooled,
       max(estimate) FILTER (ends_with(hypothesis, '_d_z')) AS d_z,
       any_value(regexp_extract(method, 'criterion (.*): [a-z ]+$', 1))
           FILTER (hypothesis = criterion) AS asked,
       any_value(regexp_extract(method, ': ([a-z ]+)$', 1)) FILTER (hypothesis = criterion) AS found,
       any_value(reason) FILTER (hypothesis = criterion) AS reason, max(n) AS n
FROM old GROUP BY criterion, contrast
ORDER BY list_position(['superiority', 'mechanism', 'legacy_scenario'], criterion)
"""

ENDPOINTS = """
SELECT metric, contrast, hypothesis AS asks, estimate, low, high, p, p_adjusted, alpha, n, reason
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look
  AND starts_with(family, 'mechanism, ') AND role = 'secondary'
  AND hypothesis IN ('difference', 'non_inferiority')
ORDER BY metric, contrast
"""

CHECKS = """
SELECT family AS checked, verdict, estimate, n, look,
       coalesce(reason, CASE verdict WHEN 'DETECTED' THEN 'every check holds' ELSE 'not told' END) AS findings
FROM look_test
WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look
  AND family IN ('probe', 'controls', 'fair') AND role = 'verdict'
ORDER BY list_position(['probe', 'controls', 'fair'], checked)
"""

CHECKED = f"""
WITH numbers AS (
    SELECT *, CASE WHEN family = 'probe' THEN 'probe'
                   ELSE regexp_replace(split_part(contrast, '/', 1), ' [0-9]+$', '') END AS arm
    FROM look_test
    WHERE study = $study AND model = $model AND plan_hash = $plan AND is_last_look
      AND family IN ('probe', 'controls', 'fair') AND role = 'diagnostic'
)
SELECT family AS checked, hypothesis AS number, arm, avg(estimate ORDER BY contrast) AS mean,
       min(estimate) AS least, max(estimate) AS most, count(*) AS adapters, count(estimate) AS measured
FROM numbers GROUP BY family, hypothesis, arm
ORDER BY list_position(['probe', 'controls', 'fair'], checked), number, {_place(KINDS, "arm")}, arm
"""


def _quantiles(name: str) -> str:
    return ", ".join(
        f"avg(value ORDER BY seed) FILTER (name = '{name}_{one}') AS {name}_{one}"
        for one in ("median", "p90")
    )


AUDITS = f"""{_CELLS}, summed AS (
    SELECT seed, split_part(unit, '/', 1) AS grouping, split_part(unit, '/', 2) AS modules, name, value
    FROM cells JOIN metric USING (step_id) WHERE arm_kind = 'probe' AND contains(unit, '/')
)
SELECT grouping, modules, count(DISTINCT seed) AS seeds, {_quantiles("stable_rank")},
       {_quantiles("effective_rank")},
       {_quantiles("energy_rank_90")},
       {_quantiles("udr_spectral")},
       avg(value ORDER BY seed) FILTER (name = 'gain_share') AS gain_share,
       avg(value ORDER BY seed) FILTER (name = 'gain_hhi') AS gain_hhi
FROM summed GROUP BY grouping, modules
ORDER BY list_position(['all', 'kind', 'projection', 'layer'], grouping), {_place(PROJECTIONS, "modules")},
         try_cast(modules AS BIGINT) NULLS LAST, modules
"""
