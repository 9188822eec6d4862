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
QUALIFY row_number() OVER (
    PARTITION BY plan.profile, test.study, test.model, test.family, test.hypothesis, test.metric,
                 test.contrast, test.method, test.role
    ORDER BY test.look DESC, step.recorded_at DESC NULLS LAST, test.step_id, plan.recorded_at DESC NULLS LAST
) = 1;
COMMENT ON VIEW latest_test IS 'Each statistical question at its largest look, from the last analysis of it.';

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

CREATE OR REPLACE VIEW open_questions AS
SELECT study, profile, model, family, hypothesis, metric, contrast, look, n, n_to_settle,
       n_to_settle - look AS further_samples_a_cell, estimate, low, high, effect, margin, mde, power, step_id
FROM latest_test
WHERE verdict = 'INCONCLUSIVE'
ORDER BY n_to_settle NULLS LAST, study, model, metric, contrast;
COMMENT ON VIEW open_questions IS 'INCONCLUSIVE verdicts, those nearest to an answer first.';

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
), work AS (
    SELECT plan_hash, experiment, sum(seconds) AS seconds, string_agg(DISTINCT reason, '; ') AS failure
    FROM step JOIN plan_step USING (step_id)
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
