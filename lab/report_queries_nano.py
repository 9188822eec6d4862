"""What the report and the figures ask about the nanodesmo study's answers: frozen test, regimes, comparisons.

Answers are those of the analyses that the decisions of the last run rest on where a gate read one, else of
the plan's newest analysis of that phase. The study asks the same of two texts: `main`, and `generalization`
for the second. Of another study these queries return nothing.
"""

from __future__ import annotations

from lab.report_queries import written_in

STUDY = "nanodesmo"
MAIN, SECOND = "main", "generalization"
"""Texts."""
SETS = ("common", "common_smoothed", "state", "common_state", "step", "step_before")
"""What a discriminant is given, in the order of tables."""
COMMON = ("loss_nats", "entropy_nats", "top1", "grad_norm")
CHANNELS = (
    *COMMON,
    "self_norm",
    "self_delta",
    "self_drift",
    "relative_drift",
    "raw_norm",
    "gate",
    "effect_kl_nats",
)
"""Channels in the order of tables and panels."""
STATES = ("zero", "own", "confident", "uncertain", "random")
FROZEN_ARMS = ("self-analysis", "self-analysis-noself", "self-analysis-random", "random-p")
PARTS = ("valence", "intensity", "D_z", "S_z", "U_z", "C_z", "R_z", "kappa_z", "distance", "velocity", "R",
         "curvature")  # fmt: skip
"""Of the composite."""
PHASES = (
    "prepare",
    "core",
    "frozen_core",
    "generalization",
    "frozen_generalization",
    "memory",
    "controls",
    "collect",
    "summary",
)


def place(names: tuple[str, ...], column: str) -> str:
    """SQL: where a name stands among names; after them when it is none of them."""
    return f"coalesce(list_position({list(names)}, {column}), {len(names) + 1})"


ANSWERS = """judged AS (
    SELECT step.arm, step.step_id
    FROM decision_path AS path JOIN decision USING (decision_id)
    JOIN step ON step.step_id = json_extract_string(decision.parameters, '$.analysis')
    WHERE path.study = $study AND path.model = $model AND path.plan_hash = $plan
    QUALIFY row_number() OVER (PARTITION BY step.arm ORDER BY path.position DESC) = 1
), newest AS (
    SELECT step.arm, step.step_id FROM step JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND step.experiment = 'analyse'
    QUALIFY row_number() OVER (PARTITION BY step.arm ORDER BY step.recorded_at DESC, step.step_id) = 1
), answer AS (
    SELECT analysis.arm AS phase, test.*,
           CASE WHEN ends_with(analysis.arm, 'generalization') THEN 'generalization' ELSE 'main' END AS scope
    FROM (SELECT * FROM judged UNION ALL SELECT * FROM newest ANTI JOIN judged USING (arm)) AS analysis
    JOIN test USING (step_id)
    WHERE test.study = 'nanodesmo'
)"""
"""CTEs before every query of answers."""

_FROZEN = f"""WITH {ANSWERS}
SELECT hypothesis, metric, split_part(contrast, ':', 1) AS arm, nullif(split_part(contrast, ':', 2), '') AS
       part,
       estimate, low, high, p, statistic, margin, alpha, n, n_to_settle, verdict, negligible, reason
FROM answer
WHERE scope = $scope AND family = 'leverage' AND (metric = 'entropy_nats' OR hypothesis = 'state')
ORDER BY {place(FROZEN_ARMS, "arm")}, arm, hypothesis, metric, {place(STATES, "part")},
         try_cast(replace(part, 'seed ', '') AS BIGINT), part
"""

_SEPARABLE = f"""WITH {ANSWERS}, found AS (
    SELECT * FROM answer WHERE scope = $scope AND family = 'separability' AND metric = 'auc' AND contrast <>
           '*'
), told AS (
    SELECT contrast, any_value(verdict) AS verdict FROM found WHERE hypothesis = 'signature' GROUP BY contrast
), chance AS (
    SELECT contrast, any_value(low) AS shuffled_low, any_value(high) AS shuffled_high
    FROM found WHERE hypothesis = 'shuffled' GROUP BY contrast
)
SELECT contrast AS regime, hypothesis AS channels, estimate, low, high, p, n, alpha, shuffled_low,
       shuffled_high, verdict, reason
FROM (SELECT contrast, hypothesis, estimate, low, high, p, n, alpha, reason FROM found
      WHERE hypothesis IN {SETS}) AS each_set
LEFT JOIN told USING (contrast) LEFT JOIN chance USING (contrast)
ORDER BY contrast, {place(SETS, "hypothesis")}
"""

_SIGNATURES = f"""WITH {ANSWERS}, found AS (
    SELECT * FROM answer WHERE scope = $scope AND family = 'separability' AND metric = 'auc'
)
SELECT contrast AS regime, any_value(verdict) FILTER (role = 'verdict') AS verdict,
       any_value(coalesce(negligible, false)) FILTER (role = 'verdict') AS negligible,
       any_value(p_adjusted) FILTER (role = 'verdict') AS p_adjusted,
       any_value(n) FILTER (role = 'verdict') AS n,
       max(estimate) FILTER (hypothesis = 'common_state') AS common_state,
       max(low) FILTER (hypothesis = 'common_state') AS common_state_low,
       max(high) FILTER (hypothesis = 'common_state') AS common_state_high,
       any_value(reason) FILTER (hypothesis = 'common_state') AS common_state_why,
       max(estimate) FILTER (hypothesis = 'common') AS common,
       max(estimate) FILTER (hypothesis = 'beyond_smoothed') AS past_adds,
       max(low) FILTER (hypothesis = 'beyond_smoothed') AS past_adds_low,
       max(high) FILTER (hypothesis = 'beyond_smoothed') AS past_adds_high,
       any_value(reason) FILTER (hypothesis = 'beyond_smoothed') AS past_adds_why,
       max(estimate) FILTER (hypothesis = 'state') AS state,
       max(low) FILTER (hypothesis = 'shuffled') AS shuffled_low,
       max(high) FILTER (hypothesis = 'shuffled') AS shuffled_high,
       max(estimate) FILTER (hypothesis = 'beyond_common') AS adds,
       max(low) FILTER (hypothesis = 'beyond_common') AS adds_low,
       max(high) FILTER (hypothesis = 'beyond_common') AS adds_high,
       any_value(reason) FILTER (hypothesis = 'beyond_common') AS adds_why,
       any_value(reason) FILTER (role = 'verdict') AS reason
FROM found GROUP BY contrast ORDER BY contrast = '*', contrast
"""

_DELTAS = f"""WITH {ANSWERS}
SELECT contrast AS regime, metric AS channel, hypothesis, estimate, low, high, effect,
       low * abs(effect / nullif(estimate, 0)) AS low_sd, high * abs(effect / nullif(estimate, 0)) AS high_sd,
       p, p_adjusted, n, alpha, method, reason
FROM answer WHERE scope = $scope AND family = 'regime_deltas'
ORDER BY {place(CHANNELS, "metric")}, metric, contrast, hypothesis DESC
"""

PUBLISHED_DELTAS = _DELTAS.replace("'regime_deltas'", "'published_deltas'").replace("$scope", "'main'")

PUBLISHED = f"""WITH {ANSWERS}, found AS (
    SELECT * FROM answer WHERE family = 'published_separability' AND metric = 'auc' AND contrast <> '*'
)
SELECT contrast AS regime, any_value(verdict) FILTER (hypothesis = 'signature') AS verdict,
       any_value(coalesce(negligible, false)) FILTER (hypothesis = 'signature') AS negligible,
       max(estimate) FILTER (hypothesis = 'common_state') AS common_state,
       max(low) FILTER (hypothesis = 'common_state') AS low,
       max(high) FILTER (hypothesis = 'common_state') AS high,
       max(estimate) FILTER (hypothesis = 'beyond_common') AS adds,
       any_value(p_adjusted) FILTER (hypothesis = 'signature') AS p_adjusted,
       any_value(n) FILTER (hypothesis = 'signature') AS n,
       any_value(reason) FILTER (hypothesis = 'signature') AS reason
FROM found GROUP BY contrast ORDER BY contrast
"""

CONTACT = f"""WITH {ANSWERS}
SELECT contrast AS window, estimate AS clean_steps, reason AS said, method
FROM answer WHERE family = 'published_contact' ORDER BY contrast
"""

_SCATTER = f"""WITH {ANSWERS}, found AS (
    SELECT split_part(contrast, ':', 1) AS arm, split_part(contrast, ':', 2) AS regime, metric AS channel,
           coalesce(effect, CASE WHEN estimate = 0 THEN 0.0 END) AS effect,
           low * abs(effect / nullif(estimate, 0)) AS low, high * abs(effect / nullif(estimate, 0)) AS high,
           n, alpha, reason
    FROM answer WHERE family = 'control_deltas'
), own AS (
    SELECT * FROM found WHERE arm = 'self-regimes'
)
SELECT found.arm, regime, channel, own.effect AS own, own.low AS own_low, own.high AS own_high,
       found.effect AS other, found.low AS other_low, found.high AS other_high, found.n, found.alpha,
       coalesce(found.reason, own.reason) AS reason
FROM found JOIN own USING (regime, channel)
WHERE found.arm = $variant
ORDER BY {place(COMMON, "channel")}, channel, regime
"""

VARIANTS = f"""WITH {ANSWERS}
SELECT DISTINCT split_part(contrast, ':', 1) AS variant FROM answer
WHERE family = 'control_deltas' AND NOT starts_with(contrast, 'self-regimes:') AND estimate IS NOT NULL
ORDER BY variant
"""

_COMPARED = """WITH {answers}, found AS (
    SELECT *, {name} AS arm FROM answer
    WHERE scope = 'main' AND family = '{family}' AND role IN ('decides', 'secondary')
      AND hypothesis = 'difference'
), same AS (
    SELECT contrast, metric, any_value(p) AS tost_p FROM answer
    WHERE scope = 'main' AND family = '{family}' AND role = 'equivalence' GROUP BY contrast, metric
)
SELECT arm, metric, role, estimate, low, high, p, p_adjusted, tost_p, alpha, margin, n, mde, n_to_settle,
       verdict,
       coalesce(negligible, false) AS negligible, reason
FROM found LEFT JOIN same USING (contrast, metric)
ORDER BY metric <> 'valid_loss_nats', metric, arm
"""
MEMORY = _COMPARED.format(
    answers=ANSWERS, family="memory", name="regexp_replace(contrast, '-self-analysis$', '')"
)
CONTROLS = _COMPARED.format(
    answers=ANSWERS, family="controls", name="regexp_replace(contrast, '^self-regimes-', '')"
)

UNDISTURBED = _COMPARED.format(
    answers=ANSWERS,
    family="undisturbed",
    name="replace(regexp_replace(contrast, '-(self-analysis-noself|baseline)$', ' − \\1'), "
    "'self-analysis-noself', 'noself')",
)

KINDS = f"""WITH {ANSWERS}, found AS (
    SELECT * FROM answer WHERE family = 'memory' AND hypothesis = 'buffer_minus_ema'
), same AS (
    SELECT contrast, p AS tost_p FROM answer
    WHERE family = 'memory' AND hypothesis = 'buffer_minus_ema_tost' AND metric = 'valid_loss_nats'
)
SELECT replace(contrast, '-mem-ema', ' − mem-ema') AS pair, metric, estimate, low, high, p, p_adjusted,
       CASE WHEN metric = 'valid_loss_nats' THEN tost_p END AS tost_p, margin, n, verdict,
       coalesce(negligible, false) AS negligible, reason
FROM found LEFT JOIN same USING (contrast)
ORDER BY metric <> 'valid_loss_nats', metric, contrast
"""

SHARES = f"""WITH {ANSWERS}
SELECT contrast AS arm, estimate, low, high, n, reason
FROM answer WHERE family = 'memory' AND hypothesis = 'share' ORDER BY contrast
"""

_PRESETS = f"""WITH {ANSWERS}
SELECT split_part(contrast, ':', 1) AS arm, split_part(contrast, ':', 2) AS preset, estimate, low, high,
       statistic AS held, n, reason
FROM answer WHERE scope = $scope AND family = 'preset' AND hypothesis = 'sign'
ORDER BY {place(FROZEN_ARMS, "arm")}, arm, preset DESC
"""

SWAP = f"""WITH {ANSWERS}
SELECT hypothesis, CASE hypothesis WHEN 'frozen' THEN regexp_replace(contrast, '-own$', '')
                                   ELSE regexp_replace(contrast, '-swap-[ab]$', '') END AS state,
       estimate, low, high, p, p_adjusted, margin, n, mde, verdict, coalesce(negligible, false) AS negligible,
       reason
FROM answer WHERE scope = 'main' AND family = 'swap' AND role = 'secondary'
ORDER BY hypothesis DESC, contrast
"""

LEAD_LAG = f"""WITH {ANSWERS}
SELECT split_part(metric, '~', 2) AS channel, try_cast(replace(contrast, 'lag ', '') AS BIGINT) AS lag,
       estimate, low, high,
       p, p_adjusted, alpha, n, reason
FROM answer WHERE scope = 'main' AND family = 'lead_lag' AND hypothesis = 'cross_correlation'
ORDER BY channel DESC, lag
"""

WARNING = f"""WITH {ANSWERS}, found AS (
    SELECT *, hypothesis = 'early_warning' AS is_own FROM answer
    WHERE scope = 'main' AND family = 'lead_lag' AND hypothesis IN ('early_warning', 'early_warning_shifted')
)
SELECT contrast AS channel, max(estimate) FILTER (is_own AND metric = 'precision') AS precision,
       max(low) FILTER (is_own AND metric = 'precision') AS precision_low,
       max(high) FILTER (is_own AND metric = 'precision') AS precision_high,
       max(estimate) FILTER (NOT is_own AND metric = 'precision') AS shifted_precision,
       max(estimate) FILTER (is_own AND metric = 'recall') AS recall,
       max(low) FILTER (is_own AND metric = 'recall') AS recall_low,
       max(high) FILTER (is_own AND metric = 'recall') AS recall_high,
       max(estimate) FILTER (NOT is_own AND metric = 'recall') AS shifted_recall,
       max(estimate) FILTER (is_own AND metric = 'base_rate') AS base_rate, max(n) AS n,
       string_agg(DISTINCT reason, '; ' ORDER BY reason) FILTER (estimate IS NULL) AS reason
FROM found GROUP BY contrast ORDER BY contrast
"""

COMPOSITE = f"""WITH {ANSWERS}
SELECT contrast AS regime, metric AS part, estimate, low, high, p, p_adjusted, alpha, n, reason
FROM answer WHERE scope = 'main' AND family = 'composite' AND hypothesis = 'inside_minus_clean'
ORDER BY {place(PARTS, "metric")}, metric, contrast
"""

PROBES = f"""WITH {ANSWERS}
SELECT hypothesis, metric, estimate, low, high, p, p_adjusted, n, reason
FROM answer WHERE scope = 'main' AND family = 'probe'
ORDER BY list_position(['linear_probe', 'shuffled', 'other_seeds', 'effective_rank', 'pc1_step'], hypothesis),
         metric
"""

SENSITIVITY = f"""WITH {ANSWERS}
SELECT metric AS feature, estimate, low, high, alpha, n, reason
FROM answer WHERE scope = 'main' AND family = 'sensitivity' AND hypothesis = 'input'
ORDER BY estimate DESC NULLS LAST, metric
"""

DIMENSION = f"""WITH {ANSWERS}
SELECT try_cast(replace(metric, 'rank ', '') AS BIGINT) AS rank, estimate, low, high, n, reason
FROM answer WHERE scope = 'main' AND family = 'dimension' AND hypothesis = 'ranked'
ORDER BY rank
"""

_CLASSES = f"""WITH {ANSWERS}
SELECT hypothesis, contrast, estimate, low, high, p, n, reason FROM answer
WHERE scope = $scope AND family = 'separability' AND hypothesis IN ('accuracy', 'confusion')
ORDER BY hypothesis, {place(SETS, "contrast")}, contrast
"""

VERDICTS = f"""WITH {ANSWERS}
SELECT hypothesis, verdict, coalesce(negligible, false) AS negligible, reason, scope
FROM answer
WHERE role = 'verdict' AND hypothesis IN ('leverage', 'signatures', 'memory_matters', 'beats_controls')
ORDER BY list_position(['leverage', 'signatures', 'memory_matters', 'beats_controls'], hypothesis), scope DESC
"""

CONTROL_DELTAS = f"""WITH {ANSWERS}
SELECT split_part(contrast, ':', 1) AS arm, split_part(contrast, ':', 2) AS regime, metric AS channel,
       estimate, low,
       high, effect, p_adjusted, n, alpha, reason
FROM answer WHERE family = 'control_deltas'
ORDER BY {place(COMMON, "metric")}, metric, regime, arm <> 'self-regimes', arm
"""

SECOND_STATE = f"""WITH {ANSWERS}, own AS (
    SELECT * FROM answer WHERE scope = 'generalization'
), lags AS (
    SELECT 1 AS place, 'state effect with ' || split_part(metric, '~', 2) || ', strongest at ' || contrast AS
           what,
           'correlation' AS unit, estimate, NULL AS low, NULL AS high, p_adjusted, n,
           count(*) FILTER (p_adjusted <= alpha) OVER of || ' of ' || count(estimate) OVER of ||
           ' lags differ from 0' AS note, reason
    FROM own WHERE family = 'lead_lag' AND hypothesis = 'cross_correlation'
    WINDOW of AS (PARTITION BY metric)
    QUALIFY row_number() OVER (PARTITION BY metric ORDER BY abs(estimate) DESC NULLS LAST, contrast) = 1
), probes AS (
    SELECT 2, 'linear probe of ' || metric, 'R²', estimate, low, high, p_adjusted, n,
           'shifted targets ' || round(chance, 2), reason
    FROM own LEFT JOIN (SELECT metric, any_value(estimate) AS chance FROM own
                        WHERE family = 'probe' AND hypothesis = 'shuffled' GROUP BY metric) USING (metric)
    WHERE family = 'probe' AND hypothesis = 'linear_probe'
), composites AS (
    SELECT 3, metric || ' inside ' || contrast || ' − before', if(metric = 'valence', 'SD', '0 to 1'),
           estimate, low, high, p_adjusted, n, NULL, reason
    FROM own WHERE family = 'composite' AND hypothesis = 'inside_minus_clean'
      AND metric IN ('valence', 'intensity')
), alarms AS (
    SELECT 4, 'alarm on ' || contrast || ', ' || metric, 'share', estimate, low, high, NULL, n, NULL, reason
    FROM own WHERE family = 'lead_lag' AND hypothesis = 'early_warning' AND metric IN ('precision', 'recall')
)
SELECT * FROM (SELECT * FROM lags UNION ALL SELECT * FROM probes UNION ALL SELECT * FROM composites
               UNION ALL SELECT * FROM alarms)
ORDER BY place, what
"""

LOOKS = """
SELECT json_extract(text, '$.looks')::BIGINT[] AS looks, json_extract(text, '$.alpha')::DOUBLE AS alpha
FROM plan WHERE plan_hash = $plan AND study = 'nanodesmo'
"""

EVERY = f"""WITH {ANSWERS}
SELECT CASE scope WHEN 'main' THEN family ELSE family || ', second text' END AS family, hypothesis, metric,
       contrast, method, role, estimate, low, high, statistic, df1, df2, p, p_adjusted, alpha, n, verdict,
       reason
FROM answer ORDER BY family, hypothesis, metric, contrast, method
"""


def frozen(scope: str) -> str:
    """Frozen test of a text's runs."""
    return written_in(_FROZEN, {"scope": scope})


def presets(scope: str) -> str:
    """What presets do to entropy, and in how many seeds as they should."""
    return written_in(_PRESETS, {"scope": scope})


def separable(scope: str) -> str:
    """AUCs by regime and channel set."""
    return written_in(_SEPARABLE, {"scope": scope})


def signatures(scope: str) -> str:
    """A row a regime, and the verdict on all of them under `*`."""
    return written_in(_SIGNATURES, {"scope": scope})


def classes(scope: str) -> str:
    """Which regime was taken for which."""
    return written_in(_CLASSES, {"scope": scope})


def deltas(scope: str) -> str:
    """How far regimes move channels."""
    return written_in(_DELTAS, {"scope": scope})


def scatter(variant: str) -> str:
    """Deltas of a control beside those of the run with the state.

    >>> "found.arm = 'it''s'" in scatter("it's")
    True
    """
    return written_in(_SCATTER, {"variant": variant})
