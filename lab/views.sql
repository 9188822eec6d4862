-- Named questions a person, a gate or a figure asks of the tables. Recreated whenever this text changes.

CREATE OR REPLACE VIEW dictionary AS
WITH entries AS (
    SELECT table_name AS name, NULL AS "column", 'TABLE' AS type, comment AS meaning, 0 AS position
    FROM duckdb_tables() WHERE NOT internal
    UNION ALL
    SELECT view_name, NULL, 'VIEW', comment, 0 FROM duckdb_views() WHERE NOT internal
    UNION ALL
    SELECT table_name, column_name, data_type, comment, column_index FROM duckdb_columns() WHERE NOT internal
)
SELECT name, "column", type, meaning FROM entries ORDER BY name, position;
COMMENT ON VIEW dictionary IS 'What every table, column and view means.';

CREATE OR REPLACE VIEW latest_run AS
SELECT * FROM run
QUALIFY row_number() OVER (PARTITION BY study, profile, model ORDER BY started_at DESC, run_id DESC) = 1;
COMMENT ON VIEW latest_run IS 'The last run of each study, profile and model.';

CREATE OR REPLACE VIEW latest_test AS
SELECT plan.profile, plan_step.plan_hash, test.*
FROM test
LEFT JOIN step USING (step_id)
LEFT JOIN plan_step USING (step_id)
LEFT JOIN plan USING (plan_hash)
WHERE step.arm IS DISTINCT FROM 'generalization' AND step.arm IS DISTINCT FROM 'frozen_generalization'
QUALIFY row_number() OVER (
    PARTITION BY plan.profile, test.study, test.model, test.family, test.hypothesis, test.metric,
                 test.contrast, test.method, test.role
    ORDER BY test.look DESC, step.recorded_at DESC NULLS LAST, test.step_id, plan.recorded_at DESC NULLS LAST
) = 1;
COMMENT ON VIEW latest_test IS 'Each statistical question at its largest look, from the last analysis of it. Answers about a second text, which repeat a study''s questions, are left out.';

CREATE OR REPLACE VIEW decision_path AS
WITH asked AS (
    SELECT *, max(decided_at) OVER (
        PARTITION BY study, profile, model, plan_hash, exploratory, run_id) AS asked_last
    FROM decision
), newest AS (
    SELECT * FROM asked
    QUALIFY rank() OVER (
        PARTITION BY study, profile, model, plan_hash, exploratory ORDER BY asked_last DESC, run_id
    ) = 1
), standing AS (
    SELECT * FROM newest
    QUALIFY row_number() OVER (
        PARTITION BY study, profile, model, plan_hash, exploratory, gate, look
        ORDER BY decided_at DESC, decision_id
    ) = 1
)
SELECT study, profile, model, plan_hash,
       row_number() OVER (
           PARTITION BY study, profile, model, plan_hash
           ORDER BY exploratory DESC, look, decided_at, decision_id
       ) AS position,
       gate, look, verdict, exploratory, negligible, next, next_parameters, sentence, question,
       decision_id, decided_at, launched_flow_run_id
FROM standing
ORDER BY study, profile, model, plan_hash, position;
COMMENT ON VIEW decision_path IS
    'Which gates the last run of a plan passed, in order, after those of the last exploratory run under it.';

CREATE OR REPLACE VIEW missingness AS
WITH cells AS (
    SELECT step.study, step.model, generation.arm, generation.reason
    FROM generation JOIN step USING (step_id)
), totals AS (
    SELECT study, model, arm, count(*) AS attempts FROM cells GROUP BY ALL
), failures AS (
    SELECT study, model, arm, reason, count(*) AS failures FROM cells WHERE reason IS NOT NULL GROUP BY ALL
)
SELECT totals.study, totals.model, totals.arm, failures.reason, coalesce(failures.failures, 0) AS failures,
       totals.attempts, coalesce(failures.failures, 0) / totals.attempts AS rate
FROM totals LEFT JOIN failures
  ON failures.study = totals.study AND failures.model IS NOT DISTINCT FROM totals.model
 AND failures.arm = totals.arm
ORDER BY totals.study, totals.model, totals.arm, failures DESC;
COMMENT ON VIEW missingness IS
    'Failed generations by study, model, arm and reason, with the attempts they are out of; 0 is a row too.';

CREATE OR REPLACE VIEW exclusions AS
WITH counted AS (
    SELECT step.study, step.model, generation.*,
           len(regexp_extract_all(regexp_replace(text, '(?s)<think>.*?</think>', '', 'g'), '\S+')) AS words
    FROM generation JOIN step USING (step_id)
)
SELECT study, model, arm, prompt_id, step_id, sample, turn, probe, words,
       CASE WHEN reason IS NOT NULL THEN 'no text' ELSE 'under 10 words' END AS cause, reason
FROM counted
WHERE reason IS NOT NULL OR words < 10
ORDER BY study, model, arm, prompt_id, sample, turn, probe;
COMMENT ON VIEW exclusions IS
    'Samples left out of analysis: no text, or under 10 words once closed <think> blocks are removed.';

CREATE OR REPLACE VIEW effects AS
SELECT study, profile, model, look, family, hypothesis, metric, contrast, method, role, estimate, low, high,
       effect, margin, p, p_adjusted, alpha, n, verdict, negligible, step_id
FROM latest_test
WHERE contrast <> '*' AND estimate IS NOT NULL
ORDER BY study, model, family, metric, contrast, method;
COMMENT ON VIEW effects IS 'Contrasts with interval and margin, ready for a forest plot.';

CREATE OR REPLACE VIEW deviations AS
SELECT plan.study, plan.profile, deviation.field, deviation.declared, deviation.used,
       deviation.plan_hash, deviation.declared_hash, plan.recorded_at
FROM deviation LEFT JOIN plan USING (plan_hash)
ORDER BY plan.study, plan.recorded_at, deviation.field;
COMMENT ON VIEW deviations IS 'Fields in which a used plan departs from its declared one.';

CREATE OR REPLACE VIEW look_test AS
SELECT plan.profile, plan_step.plan_hash, test.*,
       look = max(look) OVER (PARTITION BY plan_hash, test.study, test.model, family) AS is_last_look
FROM test
LEFT JOIN step USING (step_id)
LEFT JOIN plan_step USING (step_id)
LEFT JOIN plan USING (plan_hash)
WHERE step.arm IS DISTINCT FROM 'generalization' AND step.arm IS DISTINCT FROM 'frozen_generalization'
QUALIFY rank() OVER (
    PARTITION BY plan_hash, test.study, test.model, look, family
    ORDER BY step.recorded_at DESC NULLS LAST, test.step_id
) = 1;
COMMENT ON VIEW look_test IS
    'Every statistical answer of every look, by plan, from the last analysis of each family at that look.';

CREATE OR REPLACE VIEW contrast_effects AS
WITH pairs AS (
    SELECT *, max(abs(estimate / nullif(effect, 0)))
                  OVER (PARTITION BY plan_hash, study, model, look, family, metric) AS sd
    FROM look_test
    WHERE hypothesis = 'pairwise' AND role IN ('decides', 'secondary')
), inside AS (
    SELECT plan_hash, study, model, look, family, metric, contrast, p AS tost_p
    FROM look_test WHERE hypothesis = 'tost'
)
SELECT pairs.study, pairs.profile, pairs.model, pairs.plan_hash, pairs.look, pairs.is_last_look, pairs.family,
       pairs.metric, pairs.contrast, pairs.role, pairs.method, pairs.effect, pairs.low / pairs.sd AS low_sd,
       pairs.high / pairs.sd AS high_sd, pairs.estimate, pairs.low, pairs.high, pairs.sd, pairs.margin,
       pairs.alpha, pairs.p, pairs.p_adjusted, inside.tost_p, pairs.n, pairs.power, pairs.mde,
       pairs.low > 0 OR pairs.high < 0 AS excludes_zero, inside.tost_p < pairs.alpha AS inside_margin,
       pairs.reason, pairs.step_id
FROM pairs LEFT JOIN inside
  ON inside.plan_hash IS NOT DISTINCT FROM pairs.plan_hash AND inside.study = pairs.study
 AND inside.model = pairs.model AND inside.look = pairs.look AND inside.family = pairs.family
 AND inside.metric = pairs.metric AND inside.contrast = pairs.contrast
ORDER BY pairs.study, pairs.model, pairs.plan_hash, pairs.family, pairs.look, pairs.role, pairs.metric,
         pairs.contrast;
COMMENT ON VIEW contrast_effects IS
    'Pairwise contrasts of every look in within-cell SD, with whether they exclude 0 and lie inside the margin.';

CREATE OR REPLACE VIEW experiment_looks AS
WITH answers AS (
    SELECT plan_hash, study, family AS experiment, model, look, estimate, low, high, margin, n, reason,
           CASE WHEN verdict = 'DETECTED' AND negligible THEN 'EQUIVALENT' ELSE verdict END
           || CASE WHEN verdict = 'DETECTED' AND NOT coalesce(negligible, false) AND estimate < 0
                   THEN ' below' ELSE '' END AS says
    FROM look_test
    WHERE hypothesis = 'experiment' AND role = 'verdict'
), counted AS (
    SELECT plan_hash, experiment, look, says, count(*) AS votes FROM answers GROUP BY ALL
), agreed AS (
    SELECT plan_hash, experiment, look, sum(votes)::BIGINT AS replicates, max(votes) AS votes,
           arg_max(says, votes) AS says, bool_or(says = 'INVALID') AS is_invalid
    FROM counted GROUP BY ALL
), told AS (
    SELECT study, plan_hash, experiment, look, avg(estimate ORDER BY model) AS estimate, min(low) AS low, max(high) AS high,
           max(margin) AS margin, min(n) AS n, string_agg(DISTINCT reason, '; ') AS reason,
           string_agg(model || ' ' || says
                      || coalesce(format(' {:+.3f} [{:+.3f}, {:+.3f}]', estimate, low, high), ''),
                      '; ' ORDER BY model) AS findings
    FROM answers GROUP BY ALL
)
SELECT told.study, plan_hash, experiment, look,
       CASE WHEN is_invalid THEN 'INVALID'
            WHEN votes >= 2 AND votes * 2 > replicates THEN replace(says, ' below', '')
            ELSE 'INCONCLUSIVE' END AS verdict,
       CASE WHEN is_invalid OR votes < 2 OR votes * 2 <= replicates OR NOT starts_with(says, 'DETECTED')
            THEN NULL
            WHEN says = 'DETECTED' THEN 1 ELSE -1 END AS direction,
       replicates,
       CASE WHEN is_invalid THEN 'invalid: ' || coalesce(reason, 'a check failed')
            WHEN replicates < 2 THEN 'one replicate only'
            WHEN votes < 2 OR votes * 2 <= replicates THEN 'replicates disagree'
            WHEN estimate IS NULL THEN 'no number: ' || coalesce(reason, 'unknown why')
            ELSE 'success' END AS success,
       estimate, low, high, margin, n, findings, reason
FROM agreed JOIN told USING (plan_hash, experiment, look)
ORDER BY told.study, plan_hash, experiment, look;
COMMENT ON VIEW experiment_looks IS
    'What each experiment said at each look: the verdict that at least two and most of its replicates share.';

CREATE OR REPLACE VIEW experiments AS
WITH declared AS (
    SELECT plan_hash, study, profile, recorded_at,
           unnest(from_json(json_extract(text, '$.design.experiments'),
                            '[{"id": "VARCHAR", "question": "VARCHAR", "research_question": "VARCHAR",
                               "decides": "BOOLEAN", "predicted": "VARCHAR", "expected_minutes": "DOUBLE"}]'),
                  recursive := true)
    FROM plan
    WHERE json_extract(text, '$.design.experiments') IS NOT NULL
), newest AS (
    SELECT * FROM experiment_looks
    QUALIFY row_number() OVER (PARTITION BY plan_hash, experiment ORDER BY look DESC) = 1
), marked AS (
    SELECT plan_hash, experiment, seconds, reason, (config->>'$.look')::BIGINT AS look,
           max((config->>'$.look')::BIGINT) OVER (PARTITION BY plan_hash, experiment) AS last_look
    FROM step JOIN plan_step USING (step_id)
), work AS (
    SELECT plan_hash, experiment, sum(seconds) AS seconds,
           string_agg(DISTINCT reason, '; ') FILTER (look IS NOT DISTINCT FROM last_look) AS failure
    FROM marked
    GROUP BY ALL
)
SELECT declared.study, declared.profile, declared.plan_hash, id AS experiment, declared.research_question,
       declared.question, declared.decides, declared.predicted,
       CASE WHEN failure IS NULL THEN verdict END AS verdict,
       CASE WHEN failure IS NULL THEN direction END AS direction,
       coalesce(replicates, 0) AS replicates,
       CASE WHEN failure IS NOT NULL THEN 'failed: ' || failure ELSE coalesce(success, 'not run') END AS success,
       look, estimate, low, high, margin, n, findings, reason, seconds, declared.expected_minutes,
       declared.recorded_at
FROM declared
LEFT JOIN newest ON newest.plan_hash = declared.plan_hash AND newest.experiment = declared.id
LEFT JOIN work ON work.plan_hash = declared.plan_hash AND work.experiment = declared.id
ORDER BY declared.study, declared.profile, declared.recorded_at, id;
COMMENT ON VIEW experiments IS
    'Each declared experiment at its largest look: verdict, whether it succeeded, and if not, why.';

CREATE OR REPLACE VIEW research_questions AS
WITH parts AS (
    SELECT study, profile, plan_hash, recorded_at, research_question,
           count(*) AS parts,
           count(*) FILTER (verdict IN ('DETECTED', 'EQUIVALENT')) AS decided,
           count(*) FILTER (verdict = 'INVALID') AS invalid,
           count(*) FILTER (verdict = 'DETECTED' AND direction = 1) AS for_it,
           count(*) FILTER (verdict = 'DETECTED' AND direction = -1) AS against_it,
           count(*) FILTER (verdict = 'EQUIVALENT') AS equivalent,
           string_agg(experiment || ' ' || coalesce(verdict, success), ', ' ORDER BY experiment) AS experiments
    FROM experiments WHERE decides GROUP BY ALL
), asked AS (
    SELECT plan_hash, unnest(from_json(json_extract(text, '$.design.research_questions'),
                                       '[{"id": "VARCHAR", "question": "VARCHAR"}]'), recursive := true)
    FROM plan
)
SELECT parts.study, parts.profile, parts.plan_hash, research_question, asked.question,
       CASE WHEN for_it = parts THEN 'CONFIRMED'
            WHEN against_it = parts THEN 'REFUTED'
            WHEN equivalent = parts THEN 'EQUIVALENT'
            WHEN invalid > 0 AND decided = 0 THEN 'INVALID'
            WHEN decided > 0 THEN 'PARTIAL'
            ELSE 'PENDING'
       END AS status,
       decided, parts, experiments, recorded_at
FROM parts JOIN asked ON asked.plan_hash = parts.plan_hash AND asked.id = research_question
ORDER BY parts.study, parts.profile, recorded_at, research_question;
COMMENT ON VIEW research_questions IS
    'Status of each research question, computed from the verdicts of the experiments that decide it.';

CREATE OR REPLACE VIEW disparity AS
SELECT study, profile, plan_hash, model, family AS experiment, contrast AS variant, hypothesis AS quantity, metric,
       role, method, look, estimate, low, high, p, p_adjusted, alpha, margin, n, verdict, negligible, reason, step_id
FROM look_test
WHERE is_last_look AND hypothesis IN ('gap', 'gap_fixed_languages', 'ratio_of_means', 'geometric_mean_ratio',
                                      'slope_on_log_share', 'spread', 'mean_degradation_percent', 'degradation_ratio', 'gap_nats')
ORDER BY study, profile, plan_hash, model, experiment, variant, role, quantity, metric;
COMMENT ON VIEW disparity IS
    'What low-resource languages lose beyond high-resource ones: gaps, ratios and the legacy columns beside them.';

CREATE OR REPLACE VIEW mechanism AS
WITH cells AS (
    SELECT plan.study, plan.profile, plan.plan_hash, step.model, step.arm, step.seed, step.step_id, step.seconds,
           step.reason, step.recorded_at
    FROM step JOIN plan_step USING (step_id) JOIN plan USING (plan_hash)
    WHERE step.study = 'mechanism' AND step.experiment = 'arm'
    QUALIFY row_number() OVER (
        PARTITION BY plan_hash, step.model, step.arm, step.seed ORDER BY step.recorded_at DESC, step.step_id
    ) = 1
), numbers AS (
    PIVOT (SELECT step_id, name, value FROM metric SEMI JOIN cells USING (step_id) WHERE unit = '*')
    ON name IN ('accuracy_strict', 'accuracy_flexible', 'accuracy_numeric', 'nll_nats_a_token', 'stopped',
                'parameters', 'truncated', 'late_fall')
    USING any_value(value) GROUP BY step_id
)
SELECT cells.study, cells.profile, cells.plan_hash, cells.model, cells.arm, cells.seed, numbers.accuracy_strict,
       numbers.accuracy_flexible, numbers.accuracy_numeric, numbers.nll_nats_a_token, numbers.stopped,
       numbers.parameters::BIGINT AS parameters, numbers.truncated::BIGINT AS truncated, numbers.late_fall,
       cells.seconds, cells.reason, cells.step_id
FROM cells LEFT JOIN numbers USING (step_id)
ORDER BY cells.study, cells.profile, cells.plan_hash, cells.model, cells.seed NULLS FIRST, cells.arm;
COMMENT ON VIEW mechanism IS 'Every arm of every seed: what it answered, what it cost, and why it has no answer.';

CREATE OR REPLACE VIEW sense_scaling AS
WITH exams AS (
    SELECT plan.study, plan.profile, plan.plan_hash, step.model, step.arm, step.seed,
           substr(step.experiment, len('exam on ') + 1) AS split, step.step_id, step.seconds, step.reason,
           step.recorded_at
    FROM step JOIN plan_step USING (step_id) JOIN plan USING (plan_hash)
    WHERE step.study = 'sense_scaling' AND starts_with(step.experiment, 'exam on ')
    QUALIFY row_number() OVER (
        PARTITION BY plan_hash, step.model, step.arm, step.seed, step.experiment
        ORDER BY step.recorded_at DESC, step.step_id
    ) = 1
), lost AS (
    SELECT plan.study, plan.profile, plan.plan_hash, step.model, step.arm, step.seed, NULL AS split, step.step_id,
           step.seconds, step.reason, step.recorded_at
    FROM step JOIN plan_step USING (step_id) JOIN plan USING (plan_hash)
    WHERE step.study = 'sense_scaling' AND step.experiment = 'head' AND NOT EXISTS (
        SELECT 1 FROM exams
        WHERE exams.plan_hash = plan.plan_hash AND exams.model = step.model AND exams.arm = step.arm
          AND exams.seed = step.seed AND exams.recorded_at > step.recorded_at
    )
), cells AS (
    SELECT * FROM exams UNION ALL SELECT * FROM lost
), numbers AS (
    PIVOT (SELECT step_id, name, value FROM metric SEMI JOIN exams USING (step_id) WHERE unit = '*')
    ON name IN ('top1', 'top3', 'mrr', 'best_rank', 'coherence_step', 'coherence_final', 'transition_f1',
                'margin_mean', 'margin_sd', 'margin_p5', 'margin_p50', 'margin_p95', 'attention_entropy',
                'cue_mass', 'lemma_mass')
    USING any_value(value) GROUP BY step_id
), unmeasured AS (
    SELECT step_id, any_value(reason) AS why FROM metric SEMI JOIN exams USING (step_id)
    WHERE unit = '*' AND name = 'top1' AND value IS NULL GROUP BY step_id
)
SELECT cells.study, cells.profile, cells.plan_hash, cells.model, cells.arm, cells.seed, cells.split, numbers.top1,
       numbers.top3, numbers.mrr, numbers.best_rank, numbers.coherence_step, numbers.coherence_final,
       numbers.transition_f1, numbers.margin_mean, numbers.margin_sd, numbers.margin_p5, numbers.margin_p50,
       numbers.margin_p95, numbers.attention_entropy, numbers.cue_mass, numbers.lemma_mass, cells.seconds,
       coalesce(cells.reason, unmeasured.why) AS reason, cells.step_id
FROM cells LEFT JOIN numbers USING (step_id) LEFT JOIN unmeasured USING (step_id)
ORDER BY cells.study, cells.profile, cells.plan_hash, cells.model, cells.arm, cells.split, cells.seed;
COMMENT ON VIEW sense_scaling IS
    'Every head of each arm and seed on each split: what it reached, or why nothing (then the split is NULL).';

CREATE OR REPLACE VIEW ship_blockers AS
WITH found AS (
    SELECT plan.profile, plan_step.plan_hash, step.recorded_at,
           CASE WHEN family = 'ship' THEN 'test' ELSE substr(family, len('ship, ') + 1) END AS split, test.*
    FROM test JOIN step USING (step_id) JOIN plan_step USING (step_id) JOIN plan USING (plan_hash)
    WHERE family = 'ship' OR starts_with(family, 'ship, ')
), owned AS (
    SELECT found.*, judged.contrast AS condition, substr(found.contrast, len(judged.contrast) + 2) AS against
    FROM found JOIN found AS judged
      ON judged.plan_hash = found.plan_hash AND judged.step_id = found.step_id AND judged.hypothesis = 'ship'
     AND (found.contrast = judged.contrast OR starts_with(found.contrast, judged.contrast || '-')
          OR starts_with(found.contrast, judged.contrast || ':'))
    QUALIFY row_number() OVER (
        PARTITION BY found.plan_hash, found.step_id, found.hypothesis, found.metric, found.contrast
        ORDER BY len(judged.contrast) DESC
    ) = 1
), newest AS (
    SELECT * FROM owned
    QUALIFY rank() OVER (
        PARTITION BY plan_hash, study, model, split, condition ORDER BY recorded_at DESC, step_id
    ) = 1
)
SELECT study, profile, plan_hash, model, split, condition, hypothesis AS blocker, nullif(metric, '*') AS metric,
       nullif(against, '') AS against, estimate, low, high,
       CASE hypothesis WHEN 'better_than_baseline' THEN 0.0 WHEN 'tier1_non_inferior' THEN -margin
                       ELSE margin END AS threshold,
       CASE hypothesis WHEN 'threshold' THEN 'estimate at least' WHEN 'no_collapse' THEN 'estimate at least'
                       WHEN 'better_than_baseline' THEN 'low above' WHEN 'tier1_non_inferior' THEN 'low above'
                       WHEN 'shortcut_at_chance' THEN 'high below' END AS asks,
       p, alpha, n, verdict, reason, method, step_id
FROM newest
ORDER BY study, profile, plan_hash, model, split DESC, condition,
         list_position(['ship', 'check', 'threshold', 'better_than_baseline', 'shortcut_at_chance', 'no_collapse',
                        'tier1_non_inferior'], hypothesis),
         metric, against;
COMMENT ON VIEW ship_blockers IS
    'What the last analysis of each condition and split found of each blocker: ship is the verdict on all of them.';

CREATE OR REPLACE VIEW regime_summary AS
WITH analysed AS (
    SELECT plan.study, plan.profile, plan.plan_hash, step.model, step.arm AS phase, step.step_id
    FROM step JOIN plan_step USING (step_id) JOIN plan USING (plan_hash)
    WHERE step.study = 'nanodesmo' AND step.experiment = 'analyse'
    QUALIFY row_number() OVER (
        PARTITION BY plan_hash, step.model, step.arm ORDER BY step.recorded_at DESC, step.step_id
    ) = 1
), found AS (
    SELECT analysed.profile, analysed.plan_hash, analysed.phase, test.* FROM analysed JOIN test USING (step_id)
), deltas AS (
    SELECT step_id, contrast AS regime, metric AS channel,
           max(estimate) FILTER (hypothesis = 'against_before') AS before,
           max(low) FILTER (hypothesis = 'against_before') AS before_low,
           max(high) FILTER (hypothesis = 'against_before') AS before_high,
           max(estimate) FILTER (hypothesis = 'against_twin') AS twin,
           max(low) FILTER (hypothesis = 'against_twin') AS twin_low,
           max(high) FILTER (hypothesis = 'against_twin') AS twin_high,
           max(effect) FILTER (hypothesis = 'against_twin') AS twin_effect,
           max(p_adjusted) FILTER (hypothesis = 'against_twin') AS twin_p_adjusted,
           max(n) AS n, string_agg(DISTINCT reason, '; ') AS delta_reason
    FROM found WHERE family = 'regime_deltas' GROUP BY step_id, contrast, metric
), aucs AS (
    SELECT step_id, contrast AS regime, max(estimate) FILTER (hypothesis = 'common') AS auc_common,
           max(estimate) FILTER (hypothesis = 'state') AS auc_state,
           max(estimate) FILTER (hypothesis = 'common_state') AS auc_common_state,
           max(estimate) FILTER (hypothesis = 'step') AS auc_step,
           max(estimate) FILTER (hypothesis = 'step_before') AS auc_step_before,
           max(low) FILTER (hypothesis = 'shuffled') AS shuffled_low,
           max(high) FILTER (hypothesis = 'shuffled') AS shuffled_high,
           max(estimate) FILTER (hypothesis = 'beyond_common') AS state_adds,
           any_value(verdict) FILTER (hypothesis = 'signature') AS verdict,
           any_value(reason) FILTER (hypothesis = 'signature') AS reason
    FROM found WHERE family = 'separability' AND metric = 'auc' AND contrast <> '*' GROUP BY step_id, contrast
)
SELECT study, profile, plan_hash, model, phase, regime, channel, before, before_low, before_high, twin, twin_low,
       twin_high, twin_effect, twin_p_adjusted, n, auc_common, auc_state, auc_common_state, auc_step,
       auc_step_before, shuffled_low, shuffled_high, state_adds, verdict, coalesce(delta_reason, reason) AS reason,
       step_id
FROM analysed JOIN deltas USING (step_id) LEFT JOIN aucs USING (step_id, regime)
ORDER BY study, profile, plan_hash, phase, regime, channel;
COMMENT ON VIEW regime_summary IS
    'What each regime moves in each channel, against the steps before and its twin, and whether it is told apart.';

CREATE OR REPLACE VIEW figure_trace AS
WITH newest AS (
    SELECT plan_hash FROM run WHERE study = 'nanodesmo' ORDER BY started_at DESC, run_id DESC LIMIT 1
), judged AS (
    SELECT step.arm AS phase, step.step_id
    FROM decision_path AS path SEMI JOIN newest USING (plan_hash) JOIN decision USING (decision_id)
    JOIN step ON step.step_id = json_extract_string(decision.parameters, '$.analysis')
    WHERE path.study = 'nanodesmo'
    QUALIFY row_number() OVER (PARTITION BY step.arm ORDER BY path.position DESC) = 1
), last_made AS (
    SELECT step.arm AS phase, step.step_id
    FROM step JOIN plan_step USING (step_id) SEMI JOIN newest USING (plan_hash)
    WHERE step.study = 'nanodesmo' AND step.experiment = 'analyse'
    QUALIFY row_number() OVER (PARTITION BY step.arm ORDER BY step.recorded_at DESC, step.step_id) = 1
), analysed AS (
    SELECT * FROM judged UNION ALL SELECT * FROM last_made ANTI JOIN judged USING (phase)
), known AS (
    SELECT DISTINCT phase, step_id, family FROM analysed JOIN test USING (step_id)
), parts(finding, family, more, figure) AS (
    VALUES ('leverage', 'leverage', '', 'frozen-weight-test'),
           ('regime deltas', 'regime_deltas', '', 'perturbation/regime-deltas'),
           ('signatures', 'separability', ' AND metric = ''auc''', 'separability'),
           ('memory', 'memory', '', 'memory/memory_decay_summary'),
           ('controls', 'controls', '', 'controls/controls-comparison'),
           ('swap', 'swap', '', NULL),
           ('lead-lag', 'lead_lag', '', 'mlp/state_effect_leadlag'),
           ('composite', 'composite', '', 'composite/valence'),
           ('components of the composite', 'composite', ' AND ends_with(metric, ''_z'')', 'composite/components'),
           ('probes', 'probe', '', NULL),
           ('sensitivity', 'sensitivity', '', 'mlp/input_sensitivity'),
           ('dimensions', 'dimension', '', NULL)
), answers AS (
    SELECT finding, phase, step_id, family, more, figure FROM known JOIN parts USING (family)
), told AS (
    SELECT 'reaction to ' || regime AS finding, phase, step_id, 'regime_deltas' AS family,
           ' AND contrast = ''' || replace(regime, '''', '''''') || '''' AS more,
           'perturbation/regime_' || regime AS figure
    FROM (SELECT DISTINCT phase, step_id, contrast AS regime FROM analysed JOIN test USING (step_id)
          WHERE family = 'regime_deltas' AND phase = 'core')
    UNION ALL
    SELECT 'reactions of ' || variant, phase, step_id, 'control_deltas',
           ' AND starts_with(contrast, ''' || replace(variant, '''', '''''') || ':'')',
           'controls/' || variant || '_delta_scatter'
    FROM (SELECT DISTINCT phase, step_id, split_part(contrast, ':', 1) AS variant
          FROM analysed JOIN test USING (step_id)
          WHERE family = 'control_deltas' AND estimate IS NOT NULL AND split_part(contrast, ':', 1) <> 'self-regimes')
    UNION ALL
    SELECT * FROM answers
), named AS (
    SELECT *, ends_with(phase, 'generalization') AS is_second FROM told
)
SELECT finding || CASE WHEN is_second THEN ', second text' ELSE '' END AS finding, phase,
       'SELECT hypothesis, metric, contrast, estimate, low, high, p, p_adjusted, n, verdict, reason FROM test '
       || 'WHERE step_id = ''' || step_id || ''' AND family = ''' || family || '''' || more
       || ' ORDER BY role = ''verdict'' DESC, hypothesis, metric, contrast' AS query,
       CASE WHEN NOT is_second THEN 'figures/nanodesmo/' || figure || '.svg'
            WHEN finding IN ('leverage', 'regime deltas')
            THEN 'figures/nanodesmo/generalization/' || split_part(figure, '/', -1) || '.svg' END AS figure
FROM named
ORDER BY is_second, list_position(['frozen_core', 'core', 'memory', 'controls'], phase), finding;
COMMENT ON VIEW figure_trace IS
    'Findings of nanodesmo''s last plan, as its gates judged them: phase, query and, if there is one, figure of each.';

CREATE OR REPLACE VIEW night_run AS
SELECT queue.night_id, run.run_id FROM queue JOIN run USING (run_id)
UNION
SELECT queue.night_id, run.run_id FROM queue JOIN run USING (flow_run_id) WHERE queue.started_at IS NOT NULL
UNION
SELECT queue.night_id, run.run_id FROM queue JOIN run ON run.parent_flow_run_id = queue.flow_run_id
WHERE queue.started_at IS NOT NULL
ORDER BY night_id, run_id;
COMMENT ON VIEW night_run IS 'Which runs a night launched, and those that such a run started.';
COMMENT ON COLUMN night_run.night_id IS 'The night.';
COMMENT ON COLUMN night_run.run_id IS 'Its run.';

CREATE OR REPLACE VIEW step_run AS
SELECT plan_step.plan_hash, step.step_id, run.run_id
FROM plan_step JOIN step USING (step_id)
ASOF LEFT JOIN run ON run.plan_hash = plan_step.plan_hash AND run.started_at <= step.recorded_at;
COMMENT ON VIEW step_run IS
    'Which run of a plan recorded a step last: the one that began last before it. NULL: none is in the store.';
COMMENT ON COLUMN step_run.plan_hash IS 'Plan that uses the step.';
COMMENT ON COLUMN step_run.step_id IS 'The step.';
COMMENT ON COLUMN step_run.run_id IS 'The run.';

CREATE OR REPLACE VIEW plan_cost AS
WITH walls AS (
    SELECT plan_hash, model, sum((epoch_us(ended_at) - epoch_us(started_at)) / 1e6)
                                 FILTER (state NOT IN ('running', 'crashed')) AS run_seconds,
           count(*) FILTER (state NOT IN ('running', 'crashed')) AS runs,
           count(*) FILTER (state IN ('running', 'crashed')) AS runs_not_counted
    FROM run GROUP BY GROUPING SETS ((plan_hash), (plan_hash, model))
), written AS (
    SELECT plan_hash, sum(tokens)::BIGINT AS tokens FROM generation JOIN plan_step USING (step_id)
    WHERE NOT imported GROUP BY plan_hash
), trainings AS (
    SELECT step_id, max(tokens) AS tokens FROM train_log GROUP BY step_id
), trained AS (
    SELECT plan_hash, sum(tokens)::BIGINT AS tokens FROM trainings JOIN plan_step USING (step_id) GROUP BY plan_hash
), worked AS (
    SELECT plan_hash, sum(seconds) AS seconds FROM step JOIN plan_step USING (step_id) GROUP BY plan_hash
)
SELECT plan_hash, walls.model, run_seconds, runs, runs_not_counted,
       CASE WHEN walls.model IS NULL THEN worked.seconds END AS step_seconds,
       CASE WHEN walls.model IS NULL THEN written.tokens END AS tokens_generated,
       CASE WHEN walls.model IS NULL THEN trained.tokens END AS tokens_trained
FROM walls LEFT JOIN written USING (plan_hash) LEFT JOIN trained USING (plan_hash)
LEFT JOIN worked USING (plan_hash)
ORDER BY plan_hash, walls.model NULLS FIRST;
COMMENT ON VIEW plan_cost IS 'What a plan has cost: one row for the plan, and one for each model that it ran on.';
COMMENT ON COLUMN plan_cost.plan_hash IS 'The plan.';
COMMENT ON COLUMN plan_cost.model IS 'Model of the runs counted; NULL for all of them.';
COMMENT ON COLUMN plan_cost.run_seconds IS
    'Wall time of the runs that ended by themselves, repeated runs included; NULL if none did.';
COMMENT ON COLUMN plan_cost.runs IS 'Runs counted.';
COMMENT ON COLUMN plan_cost.runs_not_counted IS 'Runs that go on or crashed: when they ended is not known.';
COMMENT ON COLUMN plan_cost.step_seconds IS
    'Sum of the steps'' seconds, side by side included, a step shared by plans counted in each; plan only.';
COMMENT ON COLUMN plan_cost.tokens_generated IS 'Tokens of its texts, imported ones left out; plan only.';
COMMENT ON COLUMN plan_cost.tokens_trained IS 'Tokens that its trainings saw, where their log says, a training under two names twice; plan only.';

CREATE OR REPLACE VIEW open_questions AS
WITH asked AS (
    SELECT latest_test.*, json_extract_string(plan.text, '$.margin_unit') AS margin_unit,
           json_extract_string(plan.text, '$.design.imported') IS NOT NULL AS is_imported,
           coalesce(of_model.run_seconds, of_plan.run_seconds) / nullif(look, 0) AS unit_seconds
    FROM latest_test
    LEFT JOIN plan USING (plan_hash)
    LEFT JOIN plan_cost AS of_plan ON of_plan.plan_hash = latest_test.plan_hash AND of_plan.model IS NULL
    LEFT JOIN plan_cost AS of_model
           ON of_model.plan_hash = latest_test.plan_hash AND of_model.model = latest_test.model
    WHERE verdict = 'INCONCLUSIVE'
), judged AS (
    SELECT *, CASE
        WHEN n_to_settle IS NULL THEN 'n_to_settle is unknown' || coalesce(': ' || reason, '')
        WHEN is_imported THEN 'its numbers were imported: no run makes more of them'
        WHEN margin_unit IS NULL THEN 'its plan is not in the store'
        WHEN margin_unit NOT IN ('within-cell SD', 'share of items', 'nats')
             OR starts_with(method, 'same-seed identity')
             THEN 'n_to_settle counts ' || CASE WHEN margin_unit = 'within-cell SD' THEN 'pairs of texts'
                                                ELSE 'languages' END || ', of which a look does not make more'
        WHEN n_to_settle <= look THEN 'has as many units as should settle it'
        WHEN unit_seconds IS NULL OR unit_seconds <= 0 THEN 'no run of its plan has ended, so no unit has a cost'
        END AS why_not
    FROM asked
)
SELECT study, profile, model, family, hypothesis, metric, contrast, look, n, n_to_settle,
       n_to_settle - look AS further_samples_a_cell, estimate, low, high, effect, margin, mde, power,
       CASE WHEN why_not IS NULL THEN 0.8 END AS chance, unit_seconds,
       CASE WHEN why_not IS NULL THEN unit_seconds * (n_to_settle - look) / 3600.0 END AS hours,
       chance / hours AS information_per_hour, why_not AS reason, role, plan_hash, step_id
FROM judged
ORDER BY information_per_hour DESC NULLS LAST, n_to_settle NULLS LAST, study, model, metric, contrast;
COMMENT ON VIEW open_questions IS
    'INCONCLUSIVE verdicts, those that an hour of work would tell most about first, those without that number last.';
COMMENT ON COLUMN open_questions.look IS 'Units (samples a cell, seeds) at the largest look.';
COMMENT ON COLUMN open_questions.n_to_settle IS 'Units that would settle it, at power .8 and the spread found.';
COMMENT ON COLUMN open_questions.further_samples_a_cell IS 'Those less the units that are here.';
COMMENT ON COLUMN open_questions.chance IS
    'That so many units settle it: .8, the power that n_to_settle is computed for.';
COMMENT ON COLUMN open_questions.unit_seconds IS
    'Seconds of the plan''s runs so far (on this model, if it has runs of its own) over the units of the look.';
COMMENT ON COLUMN open_questions.hours IS 'Further units times what one has cost so far.';
COMMENT ON COLUMN open_questions.information_per_hour IS
    'chance / hours: questions settled an hour. A run often settles several; each counts all of it.';
COMMENT ON COLUMN open_questions.reason IS 'Why there is no information_per_hour; NULL when there is.';
COMMENT ON COLUMN open_questions.role IS 'verdict, decides, or else it decides nothing.';

CREATE OR REPLACE VIEW night_summary AS
WITH candidates AS (
    SELECT night_id, count(*) FILTER (state = 'done') AS done,
           count(*) FILTER (state IN ('queued', 'left')) AS "left",
           count(*) FILTER (state = 'running') AS running, count(*) FILTER (state = 'proposed') AS proposed,
           count(*) FILTER (state = 'refused') AS refused, count(*) FILTER (state = 'failed') AS failed,
           max(started_at + to_microseconds((1e6 * coalesce(seconds, 0.0))::BIGINT)) AS seen_at
    FROM queue GROUP BY night_id
), verdicts AS (
    SELECT night_id, count(*) FILTER (verdict = 'DETECTED') AS detected,
           count(*) FILTER (verdict = 'EQUIVALENT') AS equivalent,
           count(*) FILTER (verdict = 'INCONCLUSIVE') AS inconclusive,
           count(*) FILTER (verdict = 'INVALID') AS invalid, min(decided_at) AS first_at, max(decided_at) AS last_at
    FROM night_run JOIN decision USING (run_id) GROUP BY night_id
)
SELECT night_id, profile, started_at, ended_at, state, budget_seconds,
       (epoch_us(CASE WHEN state = 'crashed' THEN greatest(started_at, seen_at, last_at) ELSE ended_at END)
        - epoch_us(started_at)) / 1e6 AS used_seconds,
       coalesce(done, 0) AS done, coalesce("left", 0) AS "left", coalesce(running, 0) AS running,
       coalesce(proposed, 0) AS proposed, coalesce(refused, 0) AS refused, coalesce(failed, 0) AS failed,
       coalesce(detected, 0) AS detected, coalesce(equivalent, 0) AS equivalent,
       coalesce(inconclusive, 0) AS inconclusive, coalesce(invalid, 0) AS invalid,
       (epoch_us(first_at) - epoch_us(started_at)) / 1e6 AS first_verdict_seconds,
       nullif(concat_ws('; ', CASE WHEN state = 'running' THEN 'it runs, so nobody knows how long it took' END,
                        CASE WHEN first_at IS NULL THEN 'no verdict is its own' END), '') AS reason,
       continues, note
FROM night LEFT JOIN candidates USING (night_id) LEFT JOIN verdicts USING (night_id)
ORDER BY started_at DESC, night_id;
COMMENT ON VIEW night_summary IS
    'Each night in a row: its time, its candidates, its verdicts. A verdict asked again is that of the later night.';
COMMENT ON COLUMN night_summary.night_id IS 'The night.';
COMMENT ON COLUMN night_summary.profile IS 'Profile of its studies.';
COMMENT ON COLUMN night_summary.started_at IS 'When it began, UTC.';
COMMENT ON COLUMN night_summary.ended_at IS
    'When it ended, UTC; of a crashed night, when that was noticed; NULL while it runs.';
COMMENT ON COLUMN night_summary.state IS
    'running, completed, budget (something is left), failed, cancelled or crashed.';
COMMENT ON COLUMN night_summary.budget_seconds IS 'How long it might take.';
COMMENT ON COLUMN night_summary.used_seconds IS
    'How long it took; of a crashed night, until the last thing it is known to have done.';
COMMENT ON COLUMN night_summary.done IS 'Candidates finished.';
COMMENT ON COLUMN night_summary."left" IS 'Candidates left for the next night, those that still wait included.';
COMMENT ON COLUMN night_summary.running IS 'Candidates that run, or were cut off by a crash.';
COMMENT ON COLUMN night_summary.proposed IS 'Candidates of another profile that it did not start by itself.';
COMMENT ON COLUMN night_summary.refused IS 'Candidates whose settings were refused.';
COMMENT ON COLUMN night_summary.failed IS 'Candidates given up.';
COMMENT ON COLUMN night_summary.detected IS 'DETECTED verdicts of its runs, a gate at a look each.';
COMMENT ON COLUMN night_summary.equivalent IS 'EQUIVALENT verdicts.';
COMMENT ON COLUMN night_summary.inconclusive IS 'INCONCLUSIVE verdicts.';
COMMENT ON COLUMN night_summary.invalid IS 'INVALID verdicts.';
COMMENT ON COLUMN night_summary.first_verdict_seconds IS 'From its begin to its first verdict.';
COMMENT ON COLUMN night_summary.reason IS 'Why used_seconds or first_verdict_seconds is undefined.';
COMMENT ON COLUMN night_summary.continues IS 'Unfinished night whose queue it took up.';
COMMENT ON COLUMN night_summary.note IS 'What is left, or why it ended.';

CREATE OR REPLACE VIEW drift AS
WITH likened AS (
    SELECT step_run.plan_hash, step_run.run_id, step.* EXCLUDE (config),
           regexp_replace(config, '"[0-9a-f]{16}"', '"*"', 'g') AS likeness
    FROM step JOIN step_run USING (step_id)
), named AS (
    SELECT *, count(*) OVER (PARTITION BY plan_hash, study, experiment, arm, model, seed, likeness, run_id) AS in_run
    FROM likened
), repeated AS (
    SELECT *, dense_rank() OVER (ORDER BY plan_hash, study, experiment, arm, model, seed, likeness) AS thing
    FROM named
    QUALIFY max(in_run) OVER (PARTITION BY plan_hash, study, experiment, arm, model, seed, likeness) = 1
        AND count(*) OVER (PARTITION BY plan_hash, study, experiment, arm, model, seed, likeness) > 1
), measured AS (
    SELECT thing, unit, name AS metric, any_value(repeated.plan_hash) AS plan_hash, any_value(study) AS study,
           any_value(experiment) AS experiment, any_value(arm) AS arm, any_value(model) AS model,
           any_value(seed) AS seed, count(*) AS times, min(recorded_at) AS first_at, max(recorded_at) AS last_at,
           first({'value': value, 'reason': metric.reason, 'step_id': step_id, 'run_id': run_id, 'code': code,
                  'environment_id': environment_id} ORDER BY recorded_at, step_id) AS a,
           last({'value': value, 'reason': metric.reason, 'step_id': step_id, 'run_id': run_id, 'code': code,
                 'environment_id': environment_id} ORDER BY recorded_at, step_id) AS b
    FROM repeated JOIN metric USING (step_id)
    GROUP BY thing, unit, name
    HAVING count(*) > 1
)
SELECT study, experiment, arm, model, seed, unit, metric, times, a.value AS first_value, b.value AS last_value,
       b.value - a.value AS difference,
       (b.value - a.value) / nullif(greatest(abs(a.value), abs(b.value)), 0) AS relative,
       a.code <> b.code AS is_other_code, a.environment_id <> b.environment_id AS is_other_environment,
       contains(metric, 'second') AS is_speed, first_at, last_at, a.run_id AS first_run_id, b.run_id AS last_run_id,
       a.step_id AS first_step_id, b.step_id AS last_step_id, plan_hash,
       nullif(concat_ws('; ', 'first: ' || a.reason, 'last: ' || b.reason), '') AS reason
FROM measured
WHERE a.value IS DISTINCT FROM b.value
QUALIFY row_number() OVER (PARTITION BY a.step_id, b.step_id, unit, metric ORDER BY plan_hash) = 1
ORDER BY is_speed, relative IS NOT NULL, abs(relative) DESC, study, experiment, model, arm, seed, unit, metric;
COMMENT ON VIEW drift IS
    'Numbers measured again under one plan and config, by another run, code or machine, that did not stay the same.';
COMMENT ON COLUMN drift.study IS 'Study.';
COMMENT ON COLUMN drift.experiment IS
    'Kind of step. One thing was measured again if plan, study, kind, arm, model, seed and config agree, but for '
    'fingerprints of code and steps inside the config, and each time was another run''s.';
COMMENT ON COLUMN drift.arm IS 'Arm.';
COMMENT ON COLUMN drift.model IS 'Model.';
COMMENT ON COLUMN drift.seed IS 'Seed.';
COMMENT ON COLUMN drift.unit IS 'What was measured.';
COMMENT ON COLUMN drift.metric IS 'Which number of it.';
COMMENT ON COLUMN drift.times IS 'How often it was measured.';
COMMENT ON COLUMN drift.first_value IS 'The first time; NULL when it was undefined.';
COMMENT ON COLUMN drift.last_value IS 'The last time; NULL when it was undefined.';
COMMENT ON COLUMN drift.difference IS 'Last minus first; NULL when either is undefined.';
COMMENT ON COLUMN drift.relative IS 'The difference over the larger of both sizes.';
COMMENT ON COLUMN drift.is_other_code IS 'Whether the fingerprint of the code differs.';
COMMENT ON COLUMN drift.is_other_environment IS 'Whether machine, packages or device differ.';
COMMENT ON COLUMN drift.is_speed IS 'Whether the metric is a time or a rate, which no two runs share.';
COMMENT ON COLUMN drift.first_at IS 'When the first was recorded, UTC.';
COMMENT ON COLUMN drift.last_at IS 'When the last was recorded, UTC.';
COMMENT ON COLUMN drift.first_run_id IS 'Run that recorded the first.';
COMMENT ON COLUMN drift.last_run_id IS 'Run that recorded the last.';
COMMENT ON COLUMN drift.first_step_id IS 'Step of the first.';
COMMENT ON COLUMN drift.last_step_id IS 'Step of the last.';
COMMENT ON COLUMN drift.plan_hash IS 'Plan that has both.';
COMMENT ON COLUMN drift.reason IS 'Why a value is undefined.';

CREATE OR REPLACE VIEW effects_over_time AS
WITH told AS (
    SELECT plan.profile, step_run.plan_hash, step_run.run_id, step.recorded_at, test.*
    FROM test JOIN step USING (step_id) LEFT JOIN step_run USING (step_id) LEFT JOIN plan USING (plan_hash)
), nights AS (
    SELECT run_id, max(night_id) AS night_id FROM night_run GROUP BY run_id
)
SELECT study, profile, family, hypothesis, metric, contrast, method, role, model, recorded_at, night_id, look,
       estimate, low, high, effect, margin, p, p_adjusted, n, verdict, negligible,
       estimate - lag(estimate) OVER earlier AS change, lag(verdict) OVER earlier AS verdict_before,
       row_number() OVER earlier AS position, reason, plan_hash, told.run_id, step_id
FROM told LEFT JOIN nights ON nights.run_id = told.run_id
WINDOW earlier AS (
    PARTITION BY plan_hash, study, family, hypothesis, metric, contrast, method, role, model
    ORDER BY recorded_at, look, step_id
)
ORDER BY study, profile, family, hypothesis, metric, contrast, method, role, model, plan_hash, position;
COMMENT ON VIEW effects_over_time IS
    'Every answer to each question under one plan, look by look and night by night, models beside each other.';
COMMENT ON COLUMN effects_over_time.study IS 'Study; the columns not named here are those of `test`.';
COMMENT ON COLUMN effects_over_time.profile IS 'Profile of the plan.';
COMMENT ON COLUMN effects_over_time.recorded_at IS 'When the analysis was recorded last, UTC.';
COMMENT ON COLUMN effects_over_time.night_id IS 'Night whose run recorded it; NULL by day.';
COMMENT ON COLUMN effects_over_time.change IS
    'Estimate less the one before; NULL for the first, or when one is undefined.';
COMMENT ON COLUMN effects_over_time.verdict_before IS 'Verdict of the answer before.';
COMMENT ON COLUMN effects_over_time.position IS '1 for the first answer.';
COMMENT ON COLUMN effects_over_time.run_id IS 'Run that recorded it last.';

CREATE OR REPLACE VIEW scale_ladder AS
WITH sizes AS (
    SELECT plan_hash, unnest(from_json(json_extract(text, '$.design.rungs'),
                                       '[{"model": "VARCHAR", "parameters": "BIGINT", "line": "VARCHAR"}]')) AS rung
    FROM plan WHERE json_extract(text, '$.design.rungs') IS NOT NULL
)
SELECT study, profile, look_test.plan_hash, look_test.model AS ladder, contrast AS model,
       rung.parameters AS parameters, rung.line AS line, look, effect, low, high, margin, p, p_adjusted, n,
       n_to_settle, verdict, reason, step_id
FROM look_test JOIN sizes ON sizes.plan_hash = look_test.plan_hash AND rung.model = contrast
WHERE family = 'ladder' AND hypothesis = 'rung' AND is_last_look
ORDER BY study, profile, look_test.plan_hash, ladder, parameters, model;
COMMENT ON VIEW scale_ladder IS
    'The largest effect of a seed''s source on each size of model, after correction over sizes.';
COMMENT ON COLUMN scale_ladder.ladder IS 'The ladder; the columns not named here are those of `test`.';
COMMENT ON COLUMN scale_ladder.model IS 'The rung.';
COMMENT ON COLUMN scale_ladder.parameters IS 'Its size.';
COMMENT ON COLUMN scale_ladder.line IS 'Family of models that it belongs to.';
COMMENT ON COLUMN scale_ladder.reason IS 'Why the rung has no answer.';

CREATE OR REPLACE VIEW cost_of_verdicts AS
WITH last_words AS (
    SELECT * FROM decision_path
    QUALIFY row_number() OVER (
        PARTITION BY study, profile, model, plan_hash, gate ORDER BY exploratory, position DESC
    ) = 1
), asked AS (
    SELECT study, profile, coalesce(gate, '*') AS gate, plan_hash, count(*) AS verdicts,
           count(*) FILTER (verdict IN ('DETECTED', 'EQUIVALENT')) AS decided
    FROM last_words
    GROUP BY GROUPING SETS ((study, profile, gate, plan_hash), (study, profile, plan_hash))
), spent AS (
    SELECT study, profile, gate, count(*) AS plans, sum(verdicts)::BIGINT AS verdicts,
           sum(decided)::BIGINT AS decided, sum(run_seconds) AS seconds, sum(step_seconds) AS step_seconds,
           sum(runs_not_counted)::BIGINT AS runs_not_counted,
           sum(coalesce(tokens_generated, 0) + coalesce(tokens_trained, 0))
               FILTER (tokens_generated IS NOT NULL OR tokens_trained IS NOT NULL)::BIGINT AS tokens
    FROM asked
    LEFT JOIN plan_cost ON plan_cost.plan_hash = asked.plan_hash AND plan_cost.model IS NULL
    GROUP BY study, profile, gate
)
SELECT study, profile, gate, plans, verdicts, decided, seconds, step_seconds, tokens, runs_not_counted,
       seconds / nullif(decided, 0) AS seconds_a_verdict, tokens / nullif(decided, 0) AS tokens_a_verdict,
       nullif(concat_ws('; ', CASE WHEN decided = 0 THEN 'no verdict is decided yet' END,
                        CASE WHEN seconds IS NULL THEN 'no run of its plans ended by itself' END,
                        CASE WHEN tokens IS NULL THEN 'its tokens are not recorded' END), '') AS reason
FROM spent
ORDER BY study, profile, gate <> '*', gate;
COMMENT ON VIEW cost_of_verdicts IS
    'What a decided verdict costs, by study and gate: all its plans cost so far over the verdicts they came to.';
COMMENT ON COLUMN cost_of_verdicts.study IS 'Study.';
COMMENT ON COLUMN cost_of_verdicts.profile IS 'Profile.';
COMMENT ON COLUMN cost_of_verdicts.gate IS
    'Gate, charged with all that its plans cost, so that gates do not add up; * for all gates of the study.';
COMMENT ON COLUMN cost_of_verdicts.plans IS 'Plans under which it was asked.';
COMMENT ON COLUMN cost_of_verdicts.verdicts IS 'Last words of it, a plan and model each.';
COMMENT ON COLUMN cost_of_verdicts.decided IS 'Those that are DETECTED or EQUIVALENT.';
COMMENT ON COLUMN cost_of_verdicts.seconds IS 'Wall time of the plans'' runs that ended by themselves.';
COMMENT ON COLUMN cost_of_verdicts.step_seconds IS 'Sum of the seconds of their steps, where these say.';
COMMENT ON COLUMN cost_of_verdicts.tokens IS 'Tokens generated, and seen in training where the log says.';
COMMENT ON COLUMN cost_of_verdicts.runs_not_counted IS 'Runs that go on or crashed, whose time is unknown.';
COMMENT ON COLUMN cost_of_verdicts.seconds_a_verdict IS 'Seconds over decided.';
COMMENT ON COLUMN cost_of_verdicts.tokens_a_verdict IS 'Tokens over decided.';
COMMENT ON COLUMN cost_of_verdicts.reason IS 'Why one of the two is undefined.';
