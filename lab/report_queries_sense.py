"""What the report and the figures ask about the sense study: conditions, blockers, tiers, sizes, training.

Statistical answers are those that the decisions of the last run rest on; numbers of heads come from the view
`sense_scaling`. Of another study these queries return nothing.
"""

from __future__ import annotations

from lab.report_queries_mechanism import T_975

CONDITIONS = ("A", "B", "C")
"""What is compared and may ship."""
MAIN = "B"
"""Whose failures are shown item by item."""
CONTRASTS_SHOWN = ("B-A", "C-B", "C-A")
EXTRA = ("oversampling", "factorial", "enrichment", "losses", "phase", "attention")
"""Families of comparisons beside those of the conditions."""
CEILING = "topics_known"
SCORERS = (
    ("chance", "chance or query-blind"),
    ("longest", "chance or query-blind"),
    ("nearest_length", "chance or query-blind"),
    ("same_source", "chance or query-blind"),
    ("source_rate", "chance or query-blind"),
    ("role_classifier", "chance or query-blind"),
    ("filler", "chance or query-blind"),
    ("lemma_only", "lemma or words"),
    ("word_jaccard", "lemma or words"),
    ("word_tfidf", "lemma or words"),
    ("char_tfidf", "lemma or words"),
    ("untrained_head", "not trained"),
    ("mean_pooling", "not trained"),
    *((name, "trained") for name in CONDITIONS),
    (CEILING, "knows the topics"),
)
"""A scorer and its kind, in the order of the ladder."""
MOST_ITEMS = 8
"""Failures shown item by item."""


def _place(names: tuple[str, ...], column: str) -> str:
    """Where a name stands among names; after them when it is none of them."""
    return f"coalesce(list_position({list(names)}, {column}), {len(names) + 1})"


_HEADS = """
WITH heads AS (
    SELECT * FROM sense_scaling WHERE study = $study AND model = $model AND plan_hash = $plan
), lost AS (
    SELECT arm, string_agg('seed ' || seed || ': ' || reason, '; ' ORDER BY seed) AS why
    FROM heads WHERE reason IS NOT NULL AND (split = 'test' OR split IS NULL) GROUP BY arm
)"""

_PATH = """
path AS (
    SELECT path.position, path.gate, path.verdict AS gate_verdict, path.next,
           json_extract_string(decision.parameters, '$.analysis') AS step_id
    FROM decision_path AS path JOIN decision USING (decision_id)
    WHERE path.study = $study AND path.model = $model AND path.plan_hash = $plan
    QUALIFY row_number() OVER (PARTITION BY path.gate ORDER BY path.position DESC) = 1
)"""

_ANSWERS = f"""{_PATH}, answer AS (
    SELECT * FROM test WHERE step_id IN (SELECT step_id FROM path)
)"""

_SHIP = """
ship AS (
    SELECT * FROM ship_blockers
    WHERE study = $study AND model = $model AND plan_hash = $plan AND split = 'test'
      AND step_id IN (SELECT step_id FROM path)
)"""

_BASELINES = """
scored AS (
    SELECT step.arm AS scorer, step.step_id FROM step JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan
      AND step.experiment = 'baseline on test'
    QUALIFY row_number() OVER (PARTITION BY step.arm ORDER BY step.recorded_at DESC, step.step_id) = 1
)"""

RETRIEVED = f"""{_HEADS}, {_PATH}, {_SHIP}, asked AS (
    SELECT arm, seed, unnest([
        {{'metric': 'top1', 'value': top1}}, {{'metric': 'top3', 'value': top3}},
        {{'metric': 'coherence', 'value': coherence_step}}], recursive := true)
    FROM heads WHERE arm IN {CONDITIONS} AND (split = 'test' OR split IS NULL)
)
SELECT asked.metric, asked.arm, seed, value,
       coalesce(estimate, avg(value) OVER (PARTITION BY asked.metric, asked.arm ORDER BY seed
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) AS estimate,
       low, high, max(threshold) OVER (PARTITION BY asked.metric) AS threshold,
       count(value) OVER (PARTITION BY asked.metric, asked.arm) AS seeds, verdict,
       coalesce(why, ship.reason) AS reason
FROM asked LEFT JOIN lost USING (arm)
LEFT JOIN ship ON ship.condition = asked.arm AND ship.metric = asked.metric AND ship.blocker = 'threshold'
ORDER BY list_position(['top1', 'top3', 'coherence'], asked.metric), asked.arm, seed
"""

TIERS = f"""{_HEADS}, {_ANSWERS}, {_BASELINES}, tier AS (
    SELECT split_part(contrast, ':', 1) AS arm, split_part(contrast, ':', 2) AS tier, estimate, low, high, n,
           alpha, reason
    FROM answer WHERE family = 'sense_tiers' AND hypothesis = 'tier'
), step_down AS (
    SELECT split_part(contrast, ':', 1) AS arm, split_part(split_part(contrast, ':', 2), '-', 2) AS tier,
           estimate AS lost, low AS lost_low, high AS lost_high, p AS lost_p
    FROM answer WHERE family = 'sense_tiers' AND hypothesis = 'tier_step'
), chance AS (
    SELECT substr(unit, 6) AS tier, value AS chance FROM scored JOIN metric USING (step_id)
    WHERE scorer = 'chance' AND name = 'top1' AND starts_with(unit, 'tier/')
), wanted AS (
    SELECT DISTINCT tier.tier, arms.arm
    FROM tier, (SELECT arm FROM tier UNION SELECT arm FROM lost WHERE arm IN {CONDITIONS}) AS arms
)
SELECT tier, arm, estimate, low, high, n, alpha, chance, lost, lost_low, lost_high, lost_p,
       coalesce(tier.reason, why) AS reason
FROM wanted LEFT JOIN tier USING (tier, arm) LEFT JOIN step_down USING (tier, arm)
LEFT JOIN chance USING (tier) LEFT JOIN lost AS lost_heads USING (arm)
ORDER BY tier, arm
"""

MARGINS = f"""{_HEADS}
SELECT arm, seed, margin_p5 AS p5, margin_p50 AS p50, margin_p95 AS p95, margin_sd AS sd, reason
FROM heads WHERE arm IN {CONDITIONS} AND (split = 'test' OR split IS NULL)
ORDER BY arm, seed
"""

SIZES = f"""WITH {_ANSWERS}, curve AS (SELECT * FROM answer WHERE family = 'scaling'), law AS (
    SELECT max(estimate) FILTER (hypothesis = 'exponent') AS exponent,
           max(low) FILTER (hypothesis = 'exponent') AS exponent_low,
           max(high) FILTER (hypothesis = 'exponent') AS exponent_high,
           max(estimate) FILTER (hypothesis = 'asymptote') AS asymptote,
           max(low) FILTER (hypothesis = 'asymptote') AS asymptote_low,
           max(high) FILTER (hypothesis = 'asymptote') AS asymptote_high,
           max(estimate) FILTER (hypothesis = 'doubling') AS doubling,
           max(low) FILTER (hypothesis = 'doubling') AS doubling_low,
           max(high) FILTER (hypothesis = 'doubling') AS doubling_high,
           max(margin) FILTER (hypothesis = 'doubling') AS margin,
           any_value(verdict) FILTER (hypothesis = 'doubling') AS verdict,
           any_value(method) FILTER (hypothesis = 'doubling') AS method,
           string_agg(DISTINCT reason, '; ') FILTER (hypothesis <> 'size') AS law_reason
    FROM curve
), shape AS (
    SELECT *, (statistic / min(statistic) OVER ()) ** -exponent AS g FROM curve, law WHERE hypothesis = 'size'
), scaled AS (
    SELECT sum(g * (asymptote - estimate)) / sum(g * g) AS scale FROM shape
)
SELECT contrast AS arm, statistic AS bundles, estimate, low, high, n, alpha, scale,
       asymptote - scale * (statistic / min(statistic) OVER ()) ** -exponent AS by_law,
       by_law < low OR by_law > high AS missed, law.*, reason
FROM curve, law, scaled
WHERE hypothesis = 'size' OR (hypothesis = 'doubling' AND (SELECT count(*) FROM curve) = 1)
ORDER BY bundles
"""

ATTENTION = f"""{_HEADS}, words AS (
    SELECT arm, seed, regexp_extract(unit, '^shown/tier ([0-9]+)/', 1) AS tier,
           regexp_extract(unit, '^shown/tier [0-9]+/(.*)/([0-9]{{2,}})/.*$', 1) AS item,
           regexp_extract(unit, '^shown/tier [0-9]+/.*/([0-9]{{2,}})/.*$', 1)::BIGINT AS place,
           regexp_extract(unit, '^shown/tier [0-9]+/.*/[0-9]{{2,}}/(.*)$', 1) AS word,
           substr(name, len('attention_') + 1) AS kind, value AS weight
    FROM heads JOIN metric USING (step_id)
    WHERE split = 'test' AND arm IN {CONDITIONS} AND starts_with(unit, 'shown/') AND value IS NOT NULL
), chosen AS (
    SELECT tier, item FROM words GROUP BY tier, item
    QUALIFY row_number() OVER (
        PARTITION BY tier ORDER BY count(DISTINCT place) FILTER (kind = 'cue') DESC, item
    ) = 1
)
SELECT tier, item, arm, seed, place, word, kind, weight FROM words SEMI JOIN chosen USING (tier, item)
ORDER BY tier, item, arm, place
"""

CONTINGENCY = f"""WITH {_ANSWERS}, judged AS (
    SELECT path.*, answer.family, answer.contrast AS condition, answer.reason AS findings
    FROM path JOIN answer USING (step_id)
    WHERE hypothesis = 'ship' AND (
        gate IN ('halved', 'raised')
        OR contrast = map {{'ship_b': 'B', 'ship_c': 'C', 'fallback': 'A'}}[gate])
)
SELECT judged.position, gate, condition,
       CASE family WHEN 'ship' THEN 'test' ELSE substr(family, len('ship, ') + 1) END AS split, metric,
       estimate, low, high, margin AS threshold, estimate - margin AS beyond, low - margin AS beyond_low,
       high - margin AS beyond_high, n, alpha, answer.verdict AS blocker, gate_verdict, next, findings, reason
FROM judged JOIN answer USING (step_id, family)
WHERE answer.hypothesis = 'threshold' AND answer.contrast = judged.condition
ORDER BY judged.position, list_position(['top1', 'top3', 'coherence'], metric)
"""

BASELINES = f"""{_HEADS}, {_ANSWERS}, {_BASELINES}, {_SHIP}, reached AS (
    SELECT scorer, max(value) FILTER (name = 'top1') AS top1, max(value) FILTER (name = 'top3') AS top3,
           max(value) FILTER (name = 'coherence_step') AS coherence
    FROM scored JOIN metric USING (step_id) WHERE unit = '*' GROUP BY scorer
), chance AS (
    SELECT max(top1) AS chance FROM reached WHERE scorer = 'chance'
), unlearned AS (
    SELECT scorer, top1, chance + low AS low, chance + high AS high, top3, coherence, NULL AS coherence_low,
           NULL AS coherence_high, NULL AS seeds, CASE WHEN top1 IS NULL THEN 'not measured' END AS reason
    FROM reached CROSS JOIN chance
    LEFT JOIN (SELECT * FROM answer WHERE family = 'sound' AND hypothesis = 'shortcut_at_chance') AS audit
      ON audit.contrast = scorer
), trained AS (
    SELECT arm AS scorer, avg(top1 ORDER BY seed) AS top1, avg(top3 ORDER BY seed) AS top3,
           avg(coherence_step ORDER BY seed) AS coherence, count(top1) AS seeds
    FROM heads WHERE arm IN {CONDITIONS} AND (split = 'test' OR split IS NULL) GROUP BY arm
), bounds AS (
    SELECT condition AS scorer, max(low) FILTER (metric = 'top1') AS low,
           max(high) FILTER (metric = 'top1') AS high,
           max(low) FILTER (metric = 'coherence') AS coherence_low,
           max(high) FILTER (metric = 'coherence') AS coherence_high
    FROM ship WHERE blocker = 'threshold' GROUP BY condition
), ladder AS (
    SELECT * FROM unlearned
    UNION ALL BY NAME
    SELECT trained.*, bounds.* EXCLUDE (scorer), why AS reason
    FROM trained LEFT JOIN bounds USING (scorer) LEFT JOIN lost ON lost.arm = scorer
)
SELECT scorer, coalesce(list_extract({[kind for _, kind in SCORERS]},
                list_position({[name for name, _ in SCORERS]}, scorer)), 'other') AS kind,
       top1, low, high, top3, coherence, coherence_low, coherence_high,
       coherence / (SELECT coherence FROM reached WHERE scorer = '{CEILING}') AS of_ceiling, seeds,
       (SELECT max(threshold) FROM ship WHERE blocker = 'threshold' AND metric = 'top1') AS threshold, reason
FROM ladder
ORDER BY {_place(tuple(name for name, _ in SCORERS), "scorer")}, scorer
"""

LEARNING = f"""
WITH training AS (
    SELECT step.arm, step.seed, step.step_id FROM step JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND step.experiment = 'train'
      AND step.arm IN {CONDITIONS}
    QUALIFY row_number() OVER (
        PARTITION BY step.arm, step.seed ORDER BY step.recorded_at DESC, step.step_id) = 1
), seen AS (
    SELECT name AS metric, arm, seed, substr(unit, 6)::BIGINT AS step, value, metric.reason
    FROM training JOIN metric USING (step_id)
    WHERE starts_with(unit, 'step/') AND name IN ('dev_top1', 'attention_entropy')
), summed AS (
    SELECT metric, arm, step, avg(value ORDER BY seed) AS mean, stddev_samp(value ORDER BY seed) AS sd,
           count(value) AS n,
           list_extract({list(T_975)}, least(n - 1, {len(T_975)})::BIGINT) * sd / sqrt(n) AS half
    FROM seen GROUP BY metric, arm, step
)
SELECT metric, arm, seed, step, value, mean, mean - half AS low, mean + half AS high, n, reason
FROM seen JOIN summed USING (metric, arm, step)
ORDER BY metric DESC, arm, seed, step
"""

_CONTRAST = """
SELECT family, contrast, max(estimate) FILTER (role = 'decides') AS estimate,
       max(low) FILTER (role = 'decides') AS low, max(high) FILTER (role = 'decides') AS high,
       max(p) FILTER (role = 'decides') AS p, max(p_adjusted) FILTER (role = 'decides') AS p_adjusted,
       max(alpha) AS alpha, max(margin) FILTER (role = 'decides') AS margin,
       max(p) FILTER (role = 'equivalence') AS tost_p, max(low) FILTER (role = 'equivalence') AS tost_low,
       max(high) FILTER (role = 'equivalence') AS tost_high,
       max(low) FILTER (hypothesis = 'percentile_bootstrap') AS plain_low,
       max(high) FILTER (hypothesis = 'percentile_bootstrap') AS plain_high,
       max(p) FILTER (hypothesis = 'paired_t') AS t_p, max(low) FILTER (hypothesis = 'paired_t') AS t_low,
       max(high) FILTER (hypothesis = 'paired_t') AS t_high,
       max(estimate) FILTER (hypothesis = 'sd_seed') AS sd_seed,
       max(estimate) FILTER (hypothesis = 'sd_lemma') AS sd_lemma,
       max(estimate) FILTER (hypothesis = 'sd_rest') AS sd_rest,
       max(mde) FILTER (role = 'decides') AS mde, max(n_to_settle) FILTER (role = 'decides') AS n_to_settle,
       max(n) FILTER (role = 'decides') AS n, any_value(verdict) FILTER (role = 'decides') AS verdict,
       coalesce(bool_or(negligible) FILTER (role = 'decides'), false) AS negligible,
       any_value(reason) FILTER (role = 'decides') AS reason
FROM answer"""

CONTRASTS = f"""WITH {_ANSWERS}{_CONTRAST}
WHERE family = 'sense_scaling' AND hypothesis <> 'mde' GROUP BY family, contrast
ORDER BY {_place(CONTRASTS_SHOWN, "contrast")}, contrast
"""

OTHERS = f"""WITH {_ANSWERS}{_CONTRAST}
WHERE family IN {EXTRA} AND hypothesis NOT IN ('mde', 'interaction') GROUP BY family, contrast
UNION ALL BY NAME
SELECT family, contrast, estimate, low, high, p, alpha, n, reason FROM answer WHERE hypothesis = 'interaction'
ORDER BY {_place(EXTRA, "family")}, verdict IS NULL, contrast
"""

SECONDARY = f"""WITH {_ANSWERS}
SELECT metric, contrast, estimate, low, high, p, p_adjusted, alpha, n, reason FROM answer
WHERE starts_with(family, 'sense_scaling, ') AND hypothesis = 'difference'
ORDER BY metric DESC, {_place(CONTRASTS_SHOWN, "contrast")}, contrast
"""

BLOCKERS = f"""WITH {_PATH}, {_SHIP}, told AS (
    SELECT *, row_number() OVER (PARTITION BY condition, blocker, metric
                                 ORDER BY verdict = 'DETECTED',
                                          CASE blocker WHEN 'shortcut_at_chance' THEN -high ELSE low END
                                              NULLS FIRST, against) AS worst,
           count(*) OVER (PARTITION BY condition, blocker, metric) AS of,
           count(*) FILTER (verdict = 'DETECTED') OVER (PARTITION BY condition, blocker, metric) AS held
    FROM ship
)
SELECT condition, blocker, metric,
       CASE WHEN of > 1 OR blocker = 'tier1_non_inferior' THEN against END AS against,
       estimate, low, high, threshold, asks, held, of, n, verdict, reason
FROM told
WHERE worst = 1 OR (blocker IN ('shortcut_at_chance', 'check') AND verdict <> 'DETECTED')
ORDER BY condition, list_position(['ship', 'check', 'threshold', 'better_than_baseline', 'shortcut_at_chance',
                                   'no_collapse', 'tier1_non_inferior'], blocker),
         list_position(['top1', 'top3', 'coherence'], metric), against
"""

EACH_BLOCKER = f"""WITH {_PATH}, {_SHIP}
SELECT condition, blocker, metric, against, estimate, low, high, threshold, asks, p, n, verdict, reason,
       method
FROM ship WHERE blocker IN ('better_than_baseline', 'shortcut_at_chance')
ORDER BY condition, blocker, list_position(['top1', 'top3', 'coherence'], metric), against
"""

_RANKS = f"""{_HEADS}, items AS (
    SELECT item, any_value(lemma) AS lemma, any_value(tier) AS tier, min(rank) AS best, max(rank) AS worst,
           median(rank) AS middle, avg(margin ORDER BY seed) AS margin, count(rank) AS seeds
    FROM retrieval JOIN heads USING (step_id)
    WHERE arm = '{MAIN}' AND split = 'test' AND rank IS NOT NULL GROUP BY item
)"""

FAILING = f"""{_RANKS}
SELECT coalesce(tier::VARCHAR, 'none') AS tier, count(*) AS items,
       count(*) FILTER (best > 3) AS failed, count(*) FILTER (best > 3) / count(*) AS share,
       count(*) FILTER (worst = 1) AS answered, median(middle) AS middle_rank,
       avg(margin ORDER BY item) AS margin
FROM items GROUP BY tier ORDER BY tier
"""

HARDEST = f"""{_RANKS}
SELECT coalesce(tier::VARCHAR, 'none') AS tier, item, lemma, best, middle, worst, margin, seeds
FROM items WHERE best > 3 ORDER BY margin, item LIMIT {MOST_ITEMS}
"""

KILLERS = f"""WITH {_ANSWERS}
SELECT split_part(contrast, ':', 1) AS arm, nullif(split_part(contrast, ':', 2), '') AS seed, estimate, low,
       high, n, method, reason
FROM answer WHERE family = 'killers'
ORDER BY arm, seed IS NOT NULL, try_cast(substr(seed, 6) AS BIGINT)
"""

MINED = """
SELECT step.arm, step.seed, replace(name, 'dropped: ', '') AS what, value AS items
FROM step JOIN plan_step USING (step_id) JOIN metric USING (step_id)
WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND step.experiment = 'mine'
QUALIFY rank() OVER (ORDER BY step.recorded_at DESC, step.step_id) = 1
ORDER BY what <> 'killers', items DESC, what
"""

EARLIER = f"""WITH {_ANSWERS}
SELECT contrast, estimate, low, high, p, n, reason,
       CASE WHEN p < 0.05 AND estimate > 0 THEN 'holds' WHEN p IS NULL THEN 'no number'
            ELSE 'does not hold' END AS found
FROM answer WHERE family = 'legacy_sense'
ORDER BY contrast
"""

VERIFIED = """
WITH verifying AS (
    SELECT step.seed, step.step_id FROM step JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND step.experiment = 'verify'
    QUALIFY row_number() OVER (
        PARTITION BY step.arm, step.seed ORDER BY step.recorded_at DESC, step.step_id) = 1
)
SELECT unit AS thresholds, name, avg(value ORDER BY seed) AS mean, min(value) AS least, max(value) AS most,
       count(value) AS heads, any_value(reason) AS reason
FROM verifying JOIN metric USING (step_id)
GROUP BY unit, name
ORDER BY list_position(['roc', 'published', 'calibrated'], unit),
         list_position(['auc_cosine', 'auc_gap', 'cosine', 'gap', 'precision', 'recall'], name)
"""

_DETECTS = ", ".join(
    f"max({value}) FILTER (of = '{name}') AS \"{name} {short}\""
    for name in CONTRASTS_SHOWN
    for value, short in (("estimate", "alone"), ("mde", "holm"))
)
POWER = f"""WITH {_ANSWERS}, designs AS (
    SELECT split_part(contrast, ':', 1) AS of, n AS seeds, split_part(contrast, ' x ', 2)::BIGINT AS lemmas,
           estimate, mde
    FROM answer WHERE family = 'sense_scaling' AND hypothesis = 'mde'
)
SELECT lemmas, seeds, {_DETECTS} FROM designs GROUP BY lemmas, seeds ORDER BY lemmas, seeds
"""

TRAINED = """
WITH training AS (
    SELECT step.arm, step.seed, step.step_id, step.seconds FROM step JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND step.experiment = 'train'
    QUALIFY row_number() OVER (
        PARTITION BY step.arm, step.seed ORDER BY step.recorded_at DESC, step.step_id) = 1
)
SELECT arm, count(DISTINCT seed) AS seeds, avg(value) FILTER (name = 'bundles') AS bundles,
       avg(value) FILTER (name = 'texts') AS texts, avg(value) FILTER (name = 'proposed') AS proposed,
       avg(value) FILTER (name = 'loss_nats') AS loss, stddev(value) FILTER (name = 'loss_nats') AS loss_sd,
       avg(value) FILTER (name = 'accepted') AS accepted,
       median(value) FILTER (name = 'best_step') AS best_step,
       median(value) FILTER (name = 'steps_to_threshold') AS steps_to_threshold,
       count(value) FILTER (name = 'steps_to_threshold') AS reached,
       max(value) FILTER (name = 'parameters') AS parameters, avg(seconds) AS seconds
FROM training JOIN metric USING (step_id) WHERE unit = '*' GROUP BY arm ORDER BY arm
"""
