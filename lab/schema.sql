-- Tables of the lab's store, one per dataclass of lab/records.py (a test compares the two), then the store's own.
-- Every CHECK is also applied to rows before they leave the recording process, so a bad row fails where it is made.
-- A number is finite or NULL; times are UTC without a zone; JSON columns are canonical text.
-- DESCRIBE shows the columns; duckdb_tables() and duckdb_columns() show the comments below.

CREATE TABLE IF NOT EXISTS study (
    study VARCHAR NOT NULL CHECK (study <> ''),
    question VARCHAR NOT NULL CHECK (question <> ''),
    text VARCHAR NOT NULL,
    PRIMARY KEY (study)
);
COMMENT ON TABLE study IS 'A study: its question and the prediction fixed before the first run.';
COMMENT ON COLUMN study.study IS 'Name of the study, as in `ladder run STUDY`.';
COMMENT ON COLUMN study.question IS 'The question, in one sentence.';
COMMENT ON COLUMN study.text IS 'Question, comparison, prediction and what would count against it.';

CREATE TABLE IF NOT EXISTS plan (
    plan_hash VARCHAR NOT NULL CHECK (plan_hash <> ''),
    study VARCHAR NOT NULL CHECK (study <> ''),
    profile VARCHAR NOT NULL CHECK (profile <> ''),
    frozen BOOLEAN NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    text VARCHAR NOT NULL CHECK (json_valid(text)),
    PRIMARY KEY (plan_hash)
);
COMMENT ON TABLE plan IS 'A plan as it was used; the first row for a hash stands.';
COMMENT ON COLUMN plan.plan_hash IS 'Hash of the canonical text.';
COMMENT ON COLUMN plan.study IS 'Study the plan belongs to.';
COMMENT ON COLUMN plan.profile IS 'smoke, fast, laptop or full.';
COMMENT ON COLUMN plan.frozen IS 'True for the declared plan, against which deviations are listed.';
COMMENT ON COLUMN plan.recorded_at IS 'When it was frozen, or else last used, UTC.';
COMMENT ON COLUMN plan.text IS 'Canonical JSON of the plan.';

CREATE TABLE IF NOT EXISTS plan_step (
    plan_hash VARCHAR NOT NULL CHECK (plan_hash <> ''),
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    PRIMARY KEY (plan_hash, step_id)
);
COMMENT ON TABLE plan_step IS 'Which steps belong to which plan, so that a changed plan reuses what it shares.';
COMMENT ON COLUMN plan_step.plan_hash IS 'Plan.';
COMMENT ON COLUMN plan_step.step_id IS 'Step that the plan uses.';

CREATE TABLE IF NOT EXISTS deviation (
    plan_hash VARCHAR NOT NULL CHECK (plan_hash <> ''),
    declared_hash VARCHAR NOT NULL CHECK (declared_hash <> ''),
    field VARCHAR NOT NULL CHECK (field <> ''),
    declared VARCHAR NOT NULL,
    used VARCHAR NOT NULL,
    PRIMARY KEY (plan_hash, declared_hash, field)
);
COMMENT ON TABLE deviation IS 'One field in which a run departs from its declared plan.';
COMMENT ON COLUMN deviation.plan_hash IS 'Plan that was used.';
COMMENT ON COLUMN deviation.declared_hash IS 'Plan that was declared.';
COMMENT ON COLUMN deviation.field IS 'Field of the plan.';
COMMENT ON COLUMN deviation.declared IS 'Its declared value.';
COMMENT ON COLUMN deviation.used IS 'The value used instead.';

CREATE TABLE IF NOT EXISTS environment (
    environment_id VARCHAR NOT NULL CHECK (environment_id <> ''),
    python VARCHAR NOT NULL,
    platform VARCHAR NOT NULL,
    cpu VARCHAR NOT NULL,
    cores BIGINT NOT NULL CHECK (cores >= 1),
    memory_gib DOUBLE NOT NULL CHECK (isfinite(memory_gib)) CHECK (memory_gib > 0),
    device VARCHAR NOT NULL,
    packages VARCHAR NOT NULL CHECK (json_valid(packages)),
    PRIMARY KEY (environment_id)
);
COMMENT ON TABLE environment IS 'What the numbers were measured on.';
COMMENT ON COLUMN environment.environment_id IS 'Fingerprint of the fields below.';
COMMENT ON COLUMN environment.python IS 'Python version.';
COMMENT ON COLUMN environment.platform IS 'Operating system and architecture.';
COMMENT ON COLUMN environment.cpu IS 'Processor model.';
COMMENT ON COLUMN environment.cores IS 'Cores this process may use.';
COMMENT ON COLUMN environment.memory_gib IS 'Main memory, GiB.';
COMMENT ON COLUMN environment.device IS 'cpu, or the accelerator by name.';
COMMENT ON COLUMN environment.packages IS 'JSON: package -> version.';

CREATE TABLE IF NOT EXISTS run (
    run_id VARCHAR NOT NULL CHECK (run_id <> ''),
    study VARCHAR NOT NULL CHECK (study <> ''),
    profile VARCHAR NOT NULL CHECK (profile <> ''),
    model VARCHAR NOT NULL CHECK (model <> ''),
    plan_hash VARCHAR NOT NULL CHECK (plan_hash <> ''),
    settings VARCHAR NOT NULL CHECK (json_valid(settings)),
    state VARCHAR NOT NULL
        CHECK (state IN ('running', 'completed', 'failed', 'crashed', 'cancelled', 'stopped')),
    started_at TIMESTAMP NOT NULL,
    ended_at TIMESTAMP,
    exploratory BOOLEAN NOT NULL,
    environment_id VARCHAR NOT NULL CHECK (environment_id <> ''),
    git_commit VARCHAR,
    git_dirty BOOLEAN,
    flow_run_id VARCHAR,
    parent_flow_run_id VARCHAR,
    process VARCHAR NOT NULL CHECK (process <> ''),
    note VARCHAR,
    PRIMARY KEY (run_id)
);
COMMENT ON TABLE run IS 'One execution of a flow.';
COMMENT ON COLUMN run.run_id IS 'Identity of the execution.';
COMMENT ON COLUMN run.study IS 'Study that ran.';
COMMENT ON COLUMN run.profile IS 'Profile it ran under.';
COMMENT ON COLUMN run.model IS 'Model it ran on.';
COMMENT ON COLUMN run.plan_hash IS 'Plan it used.';
COMMENT ON COLUMN run.settings IS 'JSON of the settings used.';
COMMENT ON COLUMN run.state IS 'running, completed, failed, crashed, cancelled or stopped.';
COMMENT ON COLUMN run.started_at IS 'Start, UTC.';
COMMENT ON COLUMN run.ended_at IS 'End, UTC; NULL while it runs, and for a run that was killed.';
COMMENT ON COLUMN run.exploratory IS 'True when the run departs from the declared plan.';
COMMENT ON COLUMN run.environment_id IS 'Environment it ran in.';
COMMENT ON COLUMN run.git_commit IS 'Commit of the code.';
COMMENT ON COLUMN run.git_dirty IS 'True when the code had uncommitted changes.';
COMMENT ON COLUMN run.flow_run_id IS 'Prefect flow run.';
COMMENT ON COLUMN run.parent_flow_run_id IS 'Prefect flow run that started it.';
COMMENT ON COLUMN run.process IS '`host:pid:start` of the process, to tell a crashed run from a live one.';
COMMENT ON COLUMN run.note IS 'Anything a person should know about this run.';

CREATE TABLE IF NOT EXISTS step (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    study VARCHAR NOT NULL CHECK (study <> ''),
    experiment VARCHAR NOT NULL CHECK (experiment <> ''),
    arm VARCHAR,
    model VARCHAR,
    seed UBIGINT,
    config VARCHAR NOT NULL CHECK (json_valid(config)),
    code VARCHAR NOT NULL,
    seconds DOUBLE CHECK (isfinite(seconds)) CHECK (seconds >= 0),
    device VARCHAR,
    environment_id VARCHAR NOT NULL CHECK (environment_id <> ''),
    recorded_at TIMESTAMP NOT NULL,
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id)
);
COMMENT ON TABLE step IS 'One unit of measured work, addressed by the fingerprint of its config.';
COMMENT ON COLUMN step.step_id IS 'Fingerprint of config and code.';
COMMENT ON COLUMN step.study IS 'Study that first asked for it.';
COMMENT ON COLUMN step.experiment IS 'Kind of step: train, cell, measure, analyse.';
COMMENT ON COLUMN step.arm IS 'Arm, where the step has one.';
COMMENT ON COLUMN step.model IS 'Model, where the step has one.';
COMMENT ON COLUMN step.seed IS 'Seed of the step, 0 .. 2^64 - 1.';
COMMENT ON COLUMN step.config IS 'JSON of what the fingerprint was taken of.';
COMMENT ON COLUMN step.code IS 'Fingerprint of the project code the result depends on.';
COMMENT ON COLUMN step.seconds IS 'Wall time, seconds.';
COMMENT ON COLUMN step.device IS 'Device it ran on.';
COMMENT ON COLUMN step.environment_id IS 'Environment it ran in.';
COMMENT ON COLUMN step.recorded_at IS 'When it was recorded, UTC.';
COMMENT ON COLUMN step.reason IS 'Why the step has no result, when it has none.';

CREATE TABLE IF NOT EXISTS generation (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    sample BIGINT NOT NULL CHECK (sample >= 0),
    turn BIGINT NOT NULL CHECK (turn >= 0),
    probe BIGINT NOT NULL CHECK (probe >= 0),
    sample_id VARCHAR NOT NULL CHECK (sample_id <> ''),
    arm VARCHAR NOT NULL CHECK (arm <> ''),
    prompt_id VARCHAR NOT NULL CHECK (prompt_id <> ''),
    stream BIGINT,
    order_index BIGINT NOT NULL CHECK (order_index >= 0),
    seed64 UBIGINT NOT NULL,
    seed32 UINTEGER NOT NULL,
    text VARCHAR,
    finish_reason VARCHAR,
    tokens BIGINT CHECK (tokens >= 0),
    seconds DOUBLE CHECK (isfinite(seconds)) CHECK (seconds >= 0),
    model_digest VARCHAR NOT NULL,
    server_version VARCHAR,
    sampling VARCHAR NOT NULL CHECK (json_valid(sampling)),
    imported BOOLEAN NOT NULL,
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, sample, turn, probe),
    CHECK ((text IS NULL) <> (reason IS NULL))
);
COMMENT ON TABLE generation IS 'One generated text, or the reason why there is none.';
COMMENT ON COLUMN generation.step_id IS 'The cell: model, arm and prompt.';
COMMENT ON COLUMN generation.sample IS 'Index within the cell, from 0.';
COMMENT ON COLUMN generation.turn IS 'Turn of the conversation; 0 for single-turn prompts.';
COMMENT ON COLUMN generation.probe IS '0 for the sample itself, 1.. for same-seed repeats of it.';
COMMENT ON COLUMN generation.sample_id IS 'Fingerprint of everything that can change the text.';
COMMENT ON COLUMN generation.arm IS 'Arm: the source of the seed under its label.';
COMMENT ON COLUMN generation.prompt_id IS 'Prompt or conversation.';
COMMENT ON COLUMN generation.stream IS 'Stream of a pseudorandom source; NULL for live sources.';
COMMENT ON COLUMN generation.order_index IS 'Place in the interleaved order of jobs.';
COMMENT ON COLUMN generation.seed64 IS 'Seed as drawn, 0 .. 2^64 - 1.';
COMMENT ON COLUMN generation.seed32 IS 'Seed as used: seed64 mod 2^32.';
COMMENT ON COLUMN generation.text IS 'As generated; NULL when it failed.';
COMMENT ON COLUMN generation.finish_reason IS 'stop or length.';
COMMENT ON COLUMN generation.tokens IS 'Tokens generated.';
COMMENT ON COLUMN generation.seconds IS 'Wall time of the batch divided by its rows.';
COMMENT ON COLUMN generation.model_digest IS 'Digest of the weights; a name is not an identity.';
COMMENT ON COLUMN generation.server_version IS 'Version of the model server, where there is one.';
COMMENT ON COLUMN generation.sampling IS 'JSON of every sampling option.';
COMMENT ON COLUMN generation.imported IS 'True for a text that came from a file of earlier results.';
COMMENT ON COLUMN generation.reason IS 'Why there is no text; NULL when there is one.';

CREATE TABLE IF NOT EXISTS seed_draw (
    tape VARCHAR NOT NULL CHECK (tape <> ''),
    draw BIGINT NOT NULL CHECK (draw >= 0),
    source VARCHAR NOT NULL CHECK (source <> ''),
    stream BIGINT,
    purpose VARCHAR NOT NULL,
    seed64 UBIGINT NOT NULL,
    seed32 UINTEGER NOT NULL,
    PRIMARY KEY (tape, draw)
);
COMMENT ON TABLE seed_draw IS 'One logged draw of an entropy source; the tape replays it.';
COMMENT ON COLUMN seed_draw.tape IS 'Name of the tape.';
COMMENT ON COLUMN seed_draw.draw IS 'Index on the tape, from 0.';
COMMENT ON COLUMN seed_draw.source IS 'Entropy source that was read.';
COMMENT ON COLUMN seed_draw.stream IS 'Stream of a pseudorandom source.';
COMMENT ON COLUMN seed_draw.purpose IS 'What the draw was for.';
COMMENT ON COLUMN seed_draw.seed64 IS 'The 64 bits drawn.';
COMMENT ON COLUMN seed_draw.seed32 IS 'seed64 mod 2^32.';

CREATE TABLE IF NOT EXISTS train_log (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    iteration BIGINT NOT NULL CHECK (iteration >= 0),
    train_loss_nats DOUBLE CHECK (isfinite(train_loss_nats)),
    valid_loss_nats DOUBLE CHECK (isfinite(valid_loss_nats)),
    learning_rate DOUBLE CHECK (isfinite(learning_rate)),
    tokens BIGINT CHECK (tokens >= 0),
    seconds DOUBLE CHECK (isfinite(seconds)) CHECK (seconds >= 0),
    PRIMARY KEY (step_id, iteration)
);
COMMENT ON TABLE train_log IS 'One evaluated point of a training run.';
COMMENT ON COLUMN train_log.step_id IS 'Training step.';
COMMENT ON COLUMN train_log.iteration IS 'Optimiser steps taken.';
COMMENT ON COLUMN train_log.train_loss_nats IS 'Training loss, nats a token.';
COMMENT ON COLUMN train_log.valid_loss_nats IS 'Held-out loss, nats a token.';
COMMENT ON COLUMN train_log.learning_rate IS 'Learning rate at this point.';
COMMENT ON COLUMN train_log.tokens IS 'Tokens seen so far.';
COMMENT ON COLUMN train_log.seconds IS 'Wall time so far, seconds.';

CREATE TABLE IF NOT EXISTS metric (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    unit VARCHAR NOT NULL CHECK (unit <> ''),
    name VARCHAR NOT NULL CHECK (name <> ''),
    value DOUBLE CHECK (isfinite(value)),
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, unit, name),
    CHECK ((value IS NULL) <> (reason IS NULL))
);
COMMENT ON TABLE metric IS 'One number about one unit of a step, or the reason why it has none.';
COMMENT ON COLUMN metric.step_id IS 'Step that was measured.';
COMMENT ON COLUMN metric.unit IS
    'What was measured: `sample/3/0/0` (sample, turn, probe), a language, a layer, or `*`.';
COMMENT ON COLUMN metric.name IS 'Name of the metric, with its unit where it has one.';
COMMENT ON COLUMN metric.value IS 'The number; NULL when it is undefined.';
COMMENT ON COLUMN metric.reason IS 'Why there is no number; NULL when there is one.';

CREATE TABLE IF NOT EXISTS sentence_loss (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    language VARCHAR NOT NULL CHECK (language <> ''),
    sentence VARCHAR NOT NULL CHECK (sentence <> ''),
    document VARCHAR NOT NULL CHECK (document <> ''),
    bits DOUBLE CHECK (isfinite(bits)) CHECK (bits >= 0),
    tokens BIGINT CHECK (tokens >= 1),
    bytes BIGINT NOT NULL CHECK (bytes >= 1),
    characters BIGINT NOT NULL CHECK (characters >= 1),
    kl_bits DOUBLE CHECK (isfinite(kl_bits)),
    flips BIGINT CHECK (flips >= 0),
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, language, sentence),
    CHECK ((bits IS NULL) <> (reason IS NULL))
);
COMMENT ON TABLE sentence_loss IS 'What one aligned sentence costs a model, or the reason why that is unknown.';
COMMENT ON COLUMN sentence_loss.step_id IS 'The model as evaluated: weights, quantisation, corpus.';
COMMENT ON COLUMN sentence_loss.language IS 'Code of the language.';
COMMENT ON COLUMN sentence_loss.sentence IS 'Id that the sentence has in every language.';
COMMENT ON COLUMN sentence_loss.document IS 'Document of the sentence: the cluster that is resampled.';
COMMENT ON COLUMN sentence_loss.bits IS 'Sum of -log2 p over the tokens of the sentence.';
COMMENT ON COLUMN sentence_loss.tokens IS 'Scored tokens.';
COMMENT ON COLUMN sentence_loss.bytes IS 'UTF-8 bytes of the sentence.';
COMMENT ON COLUMN sentence_loss.characters IS 'Code points of the sentence.';
COMMENT ON COLUMN sentence_loss.kl_bits IS
    'Sum over positions of KL(baseline || this model), bits; NULL where no baseline was beside it.';
COMMENT ON COLUMN sentence_loss.flips IS
    'Positions whose most probable token is not the baseline''s; NULL where no baseline was beside it.';
COMMENT ON COLUMN sentence_loss.reason IS 'Why there is no number; NULL when there is one.';

CREATE TABLE IF NOT EXISTS adapter_module (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    module VARCHAR NOT NULL CHECK (module <> ''),
    projection VARCHAR NOT NULL CHECK (projection <> ''),
    layer BIGINT CHECK (layer >= 0),
    kind VARCHAR NOT NULL CHECK (kind IN ('attention', 'mlp', 'other')),
    d_out BIGINT NOT NULL CHECK (d_out >= 1),
    d_in BIGINT NOT NULL CHECK (d_in >= 1),
    planned_rank BIGINT CHECK (planned_rank >= 1),
    rank BIGINT NOT NULL CHECK (rank >= 0),
    parameters BIGINT NOT NULL CHECK (parameters >= 0),
    scale DOUBLE CHECK (isfinite(scale)),
    sigma VARCHAR CHECK (json_valid(sigma)),
    stable_rank DOUBLE CHECK (isfinite(stable_rank)),
    utilization DOUBLE CHECK (isfinite(utilization)),
    effective_rank DOUBLE CHECK (isfinite(effective_rank)),
    energy_rank_90 BIGINT CHECK (energy_rank_90 >= 0),
    energy_rank_95 BIGINT CHECK (energy_rank_95 >= 0),
    energy_rank_99 BIGINT CHECK (energy_rank_99 >= 0),
    spectral DOUBLE CHECK (isfinite(spectral)) CHECK (spectral >= 0),
    frobenius DOUBLE CHECK (isfinite(frobenius)) CHECK (frobenius >= 0),
    udr_spectral DOUBLE CHECK (isfinite(udr_spectral)),
    udr_frobenius DOUBLE CHECK (isfinite(udr_frobenius)),
    sdi_spectral DOUBLE CHECK (isfinite(sdi_spectral)),
    sdi_frobenius DOUBLE CHECK (isfinite(sdi_frobenius)),
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, module)
);
COMMENT ON TABLE adapter_module IS 'One LoRA module of a trained arm; the spectrum of arms that were audited.';
COMMENT ON COLUMN adapter_module.step_id IS 'The trained arm.';
COMMENT ON COLUMN adapter_module.module IS 'Name of the module in the network.';
COMMENT ON COLUMN adapter_module.projection IS 'Last part of the name, e.g. q_proj.';
COMMENT ON COLUMN adapter_module.layer IS 'Index of the block, from 0; NULL outside blocks.';
COMMENT ON COLUMN adapter_module.kind IS 'attention, mlp or other.';
COMMENT ON COLUMN adapter_module.d_out IS 'Rows of the weight.';
COMMENT ON COLUMN adapter_module.d_in IS 'Columns of the weight.';
COMMENT ON COLUMN adapter_module.planned_rank IS
    'Rank the placement asked for; NULL where the initialisation places ranks itself (EVA).';
COMMENT ON COLUMN adapter_module.rank IS 'Rank read back from the shapes of the trained factors; 0 where EVA left the module out.';
COMMENT ON COLUMN adapter_module.parameters IS 'rank * (d_out + d_in).';
COMMENT ON COLUMN adapter_module.scale IS 's in W + s B A.';
COMMENT ON COLUMN adapter_module.sigma IS 'JSON: singular values of BA without s, falling; NULL where not audited.';
COMMENT ON COLUMN adapter_module.stable_rank IS 'Sum of squared singular values over the largest squared.';
COMMENT ON COLUMN adapter_module.utilization IS 'Stable rank over rank.';
COMMENT ON COLUMN adapter_module.effective_rank IS 'exp of the entropy of the singular values over their sum.';
COMMENT ON COLUMN adapter_module.energy_rank_90 IS
    'Fewest singular values that hold 90 % of the squared sum; 0 without energy.';
COMMENT ON COLUMN adapter_module.energy_rank_95 IS 'The same for 95 %.';
COMMENT ON COLUMN adapter_module.energy_rank_99 IS 'The same for 99 %.';
COMMENT ON COLUMN adapter_module.spectral IS '|s| times the largest singular value.';
COMMENT ON COLUMN adapter_module.frobenius IS '|s| times the root of the squared sum.';
COMMENT ON COLUMN adapter_module.udr_spectral IS 'Spectral norm of the update over that of the base weight.';
COMMENT ON COLUMN adapter_module.udr_frobenius IS 'Frobenius norm of the update over that of the base weight.';
COMMENT ON COLUMN adapter_module.sdi_spectral IS 'log10 of udr_spectral.';
COMMENT ON COLUMN adapter_module.sdi_frobenius IS 'log10 of udr_frobenius.';
COMMENT ON COLUMN adapter_module.reason IS 'Why a quantity of the spectrum is undefined.';

CREATE TABLE IF NOT EXISTS answer (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    item VARCHAR NOT NULL CHECK (item <> ''),
    text VARCHAR,
    strict BOOLEAN,
    flexible BOOLEAN,
    numeric BOOLEAN,
    nll_nats DOUBLE CHECK (isfinite(nll_nats)) CHECK (nll_nats >= 0),
    tokens BIGINT CHECK (tokens >= 1),
    stopped BOOLEAN,
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, item),
    CHECK ((strict IS NULL) <> (reason IS NULL))
);
COMMENT ON TABLE answer IS 'What a model answered to one test item, and whether each rule of reading it finds the gold.';
COMMENT ON COLUMN answer.step_id IS 'The evaluation: weights, items, decoding.';
COMMENT ON COLUMN answer.item IS 'Id of the item.';
COMMENT ON COLUMN answer.text IS 'Greedily decoded text.';
COMMENT ON COLUMN answer.strict IS 'Correct when read after "#### " (the primary endpoint).';
COMMENT ON COLUMN answer.flexible IS 'Correct when the last number is read.';
COMMENT ON COLUMN answer.numeric IS 'Correct as a decimal number.';
COMMENT ON COLUMN answer.nll_nats IS 'Sum of -ln p over the tokens of the reference answer.';
COMMENT ON COLUMN answer.tokens IS 'Tokens of the reference answer.';
COMMENT ON COLUMN answer.stopped IS 'Whether the text ended by itself within the limit of new tokens.';
COMMENT ON COLUMN answer.reason IS 'Why there is no answer; NULL when there is one.';

CREATE TABLE IF NOT EXISTS retrieval (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    item VARCHAR NOT NULL CHECK (item <> ''),
    lemma VARCHAR NOT NULL CHECK (lemma <> ''),
    tier BIGINT CHECK (tier BETWEEN 1 AND 4),
    rank BIGINT CHECK (rank >= 1),
    margin DOUBLE CHECK (isfinite(margin)),
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, item),
    CHECK ((rank IS NULL) <> (reason IS NULL))
);
COMMENT ON TABLE retrieval IS 'Where a head ranks the best correct candidate of one retrieval item.';
COMMENT ON COLUMN retrieval.step_id IS 'The exam: head and items.';
COMMENT ON COLUMN retrieval.item IS 'Id of the item.';
COMMENT ON COLUMN retrieval.lemma IS 'Lemma of the query; items of one lemma are resampled together.';
COMMENT ON COLUMN retrieval.tier IS '1 easy, 3 hard, 4 a killer; NULL where none was told.';
COMMENT ON COLUMN retrieval.rank IS 'Place of the best correct candidate, 1 the first, ties in file order.';
COMMENT ON COLUMN retrieval.margin IS 'Its cosine less the largest of a wrong candidate.';
COMMENT ON COLUMN retrieval.reason IS 'Why there is no rank.';

CREATE TABLE IF NOT EXISTS reaction (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    twin VARCHAR NOT NULL,
    step BIGINT NOT NULL CHECK (step >= 0),
    regimes VARCHAR NOT NULL,
    loss_nats DOUBLE NOT NULL CHECK (isfinite(loss_nats)),
    learning_rate DOUBLE NOT NULL CHECK (isfinite(learning_rate)),
    grad_norm DOUBLE NOT NULL CHECK (isfinite(grad_norm)),
    step_frac DOUBLE NOT NULL CHECK (isfinite(step_frac)),
    entropy_nats DOUBLE NOT NULL CHECK (isfinite(entropy_nats)),
    top1 DOUBLE NOT NULL CHECK (isfinite(top1)),
    self_norm DOUBLE CHECK (isfinite(self_norm)),
    self_delta DOUBLE CHECK (isfinite(self_delta)),
    self_drift DOUBLE CHECK (isfinite(self_drift)),
    relative_drift DOUBLE CHECK (isfinite(relative_drift)),
    raw_norm DOUBLE CHECK (isfinite(raw_norm)),
    memory_norm DOUBLE CHECK (isfinite(memory_norm)),
    clamped_norm DOUBLE CHECK (isfinite(clamped_norm)),
    memory_filled BIGINT CHECK (memory_filled >= 0),
    gate DOUBLE CHECK (isfinite(gate)),
    cosine DOUBLE CHECK (isfinite(cosine)),
    effect_kl_nats DOUBLE CHECK (isfinite(effect_kl_nats)),
    effect_logits DOUBLE CHECK (isfinite(effect_logits)),
    PRIMARY KEY (step_id, twin, step)
);
COMMENT ON TABLE reaction IS 'What a training with a self-state measured at every step, and its twins. NULL: not defined for this run or step, or not probed.';
COMMENT ON COLUMN reaction.step_id IS 'The training.';
COMMENT ON COLUMN reaction.twin IS 'Window that this run goes without, such as bewilderment/0; empty for the run itself.';
COMMENT ON COLUMN reaction.step IS 'From 0.';
COMMENT ON COLUMN reaction.regimes IS 'Regimes that act, joined by +; empty for a clean step.';
COMMENT ON COLUMN reaction.loss_nats IS 'Mean over the batch that was trained on, disturbed targets included, nats a token.';
COMMENT ON COLUMN reaction.learning_rate IS 'As used, a regime''s factor included.';
COMMENT ON COLUMN reaction.grad_norm IS 'Over all that is trained, before the clip.';
COMMENT ON COLUMN reaction.step_frac IS 'Step over all steps.';
COMMENT ON COLUMN reaction.entropy_nats IS 'Mean entropy of the predictions, nats.';
COMMENT ON COLUMN reaction.top1 IS 'Mean probability of the likeliest token.';
COMMENT ON COLUMN reaction.self_norm IS 'Norm of the state s that the step used.';
COMMENT ON COLUMN reaction.self_delta IS 'Norm of its change from the step before.';
COMMENT ON COLUMN reaction.self_drift IS '1 - cos(s, r), r the slow reference; NULL for one dimension and s = 0.';
COMMENT ON COLUMN reaction.relative_drift IS '|s - r| / |r|.';
COMMENT ON COLUMN reaction.raw_norm IS 'Norm of the update before gate and memory; NULL at step 0.';
COMMENT ON COLUMN reaction.memory_norm IS 'Norm of what the memory says.';
COMMENT ON COLUMN reaction.clamped_norm IS 'The same after the clamp.';
COMMENT ON COLUMN reaction.memory_filled IS 'States in the buffer.';
COMMENT ON COLUMN reaction.gate IS 'Share of the memory in what is added to the state.';
COMMENT ON COLUMN reaction.cosine IS 'cos(s, s + m) before the update.';
COMMENT ON COLUMN reaction.effect_kl_nats IS 'Mean KL(own state || zero state) on a held-out batch, nats; probed steps only.';
COMMENT ON COLUMN reaction.effect_logits IS 'Mean |difference of logits| between the two; probed steps only.';

CREATE TABLE IF NOT EXISTS test (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    study VARCHAR NOT NULL CHECK (study <> ''),
    model VARCHAR NOT NULL CHECK (model <> ''),
    look BIGINT NOT NULL CHECK (look >= 0),
    family VARCHAR NOT NULL CHECK (family <> ''),
    hypothesis VARCHAR NOT NULL CHECK (hypothesis <> ''),
    metric VARCHAR NOT NULL CHECK (metric <> ''),
    contrast VARCHAR NOT NULL CHECK (contrast <> ''),
    method VARCHAR NOT NULL CHECK (method <> ''),
    role VARCHAR NOT NULL CHECK (role <> ''),
    estimate DOUBLE CHECK (isfinite(estimate)),
    low DOUBLE CHECK (isfinite(low)),
    high DOUBLE CHECK (isfinite(high)),
    effect DOUBLE CHECK (isfinite(effect)),
    statistic DOUBLE CHECK (isfinite(statistic)),
    df1 DOUBLE CHECK (isfinite(df1)),
    df2 DOUBLE CHECK (isfinite(df2)),
    p DOUBLE CHECK (isfinite(p)) CHECK (p BETWEEN 0 AND 1),
    p_adjusted DOUBLE CHECK (isfinite(p_adjusted)) CHECK (p_adjusted BETWEEN 0 AND 1),
    alpha DOUBLE CHECK (isfinite(alpha)) CHECK (alpha BETWEEN 0 AND 1),
    margin DOUBLE CHECK (isfinite(margin)) CHECK (margin >= 0),
    n BIGINT CHECK (n >= 0),
    power DOUBLE CHECK (isfinite(power)) CHECK (power BETWEEN 0 AND 1),
    mde DOUBLE CHECK (isfinite(mde)) CHECK (mde >= 0),
    n_to_settle BIGINT CHECK (n_to_settle >= 0),
    verdict VARCHAR CHECK (verdict IN ('INVALID', 'DETECTED', 'EQUIVALENT', 'INCONCLUSIVE')),
    negligible BOOLEAN,
    reason VARCHAR CHECK (reason <> ''),
    PRIMARY KEY (step_id, family, hypothesis, metric, contrast, method, role),
    CHECK (low <= high),
    CHECK (p IS NOT NULL OR estimate IS NOT NULL OR verdict IS NOT NULL OR reason IS NOT NULL)
);
COMMENT ON TABLE test IS 'One statistical answer, or the reason why there is none.';
COMMENT ON COLUMN test.step_id IS 'The analysis step.';
COMMENT ON COLUMN test.study IS 'Study the question belongs to.';
COMMENT ON COLUMN test.model IS 'Model it was asked of.';
COMMENT ON COLUMN test.look IS 'Samples a cell at this look.';
COMMENT ON COLUMN test.family IS 'Multiplicity family: p values are corrected together inside it.';
COMMENT ON COLUMN test.hypothesis IS 'What is asked, e.g. omnibus, pairwise, tost, verdict.';
COMMENT ON COLUMN test.metric IS 'Metric, or * when the row combines several.';
COMMENT ON COLUMN test.contrast IS '`A-B` (mean of A minus mean of B), an arm, or *.';
COMMENT ON COLUMN test.method IS 'Name of the procedure, as the field calls it.';
COMMENT ON COLUMN test.role IS
    'decides: enters a verdict; verdict: a combined one; anything else is shown and decides nothing.';
COMMENT ON COLUMN test.estimate IS 'Point estimate, in the units that method names.';
COMMENT ON COLUMN test.low IS 'Lower end of the interval at level 1 - alpha.';
COMMENT ON COLUMN test.high IS 'Upper end of the interval at level 1 - alpha.';
COMMENT ON COLUMN test.effect IS 'Estimate in within-cell SD units, where that is meaningful.';
COMMENT ON COLUMN test.statistic IS 'Test statistic of the method.';
COMMENT ON COLUMN test.df1 IS 'Degrees of freedom (numerator).';
COMMENT ON COLUMN test.df2 IS 'Degrees of freedom (denominator).';
COMMENT ON COLUMN test.p IS 'Unadjusted p value, in [0, 1].';
COMMENT ON COLUMN test.p_adjusted IS 'p corrected for the family.';
COMMENT ON COLUMN test.alpha IS 'Level this row is judged at (a look''s level when sequential).';
COMMENT ON COLUMN test.margin IS 'Smallest effect of interest, in the units of effect.';
COMMENT ON COLUMN test.n IS 'Units that entered.';
COMMENT ON COLUMN test.power IS 'Design power at the margin.';
COMMENT ON COLUMN test.mde IS 'Minimum detectable effect at 80 % power, in the units of effect.';
COMMENT ON COLUMN test.n_to_settle IS 'Units (samples a cell) that would settle the question.';
COMMENT ON COLUMN test.verdict IS 'INVALID, DETECTED, EQUIVALENT or INCONCLUSIVE, on rows that conclude.';
COMMENT ON COLUMN test.negligible IS 'True when a DETECTED effect lies inside the margin.';
COMMENT ON COLUMN test.reason IS 'Why there is no number.';

CREATE TABLE IF NOT EXISTS decision (
    decision_id VARCHAR NOT NULL CHECK (decision_id <> ''),
    study VARCHAR NOT NULL CHECK (study <> ''),
    profile VARCHAR NOT NULL CHECK (profile <> ''),
    model VARCHAR NOT NULL CHECK (model <> ''),
    gate VARCHAR NOT NULL CHECK (gate <> ''),
    look BIGINT NOT NULL CHECK (look >= 0),
    plan_hash VARCHAR NOT NULL CHECK (plan_hash <> ''),
    run_id VARCHAR NOT NULL CHECK (run_id <> ''),
    question VARCHAR NOT NULL CHECK (question <> ''),
    verdict VARCHAR NOT NULL CHECK (verdict IN ('INVALID', 'DETECTED', 'EQUIVALENT', 'INCONCLUSIVE')),
    exploratory BOOLEAN NOT NULL,
    negligible BOOLEAN NOT NULL,
    evidence VARCHAR NOT NULL CHECK (json_valid(evidence)),
    sql VARCHAR NOT NULL CHECK (sql <> ''),
    parameters VARCHAR NOT NULL CHECK (json_valid(parameters)),
    rule VARCHAR NOT NULL CHECK (json_valid(rule)),
    sentence VARCHAR NOT NULL,
    next VARCHAR NOT NULL,
    next_parameters VARCHAR NOT NULL CHECK (json_valid(next_parameters)),
    flow_run_id VARCHAR,
    launched_flow_run_id VARCHAR,
    decided_at TIMESTAMP NOT NULL,
    PRIMARY KEY (decision_id)
);
COMMENT ON TABLE decision IS 'A gate''s verdict with everything needed to compute it again.';
COMMENT ON COLUMN decision.decision_id IS 'Identity of the decision; `ladder gates --why ID` replays it.';
COMMENT ON COLUMN decision.study IS 'Study whose gate it is.';
COMMENT ON COLUMN decision.profile IS 'Profile it was decided under.';
COMMENT ON COLUMN decision.model IS 'Model it is about.';
COMMENT ON COLUMN decision.gate IS 'Name of the gate.';
COMMENT ON COLUMN decision.look IS 'Samples a cell when it was asked.';
COMMENT ON COLUMN decision.plan_hash IS 'Plan whose rows it read.';
COMMENT ON COLUMN decision.run_id IS 'Run that asked it last.';
COMMENT ON COLUMN decision.question IS 'The gate''s question.';
COMMENT ON COLUMN decision.verdict IS 'INVALID, DETECTED, EQUIVALENT or INCONCLUSIVE.';
COMMENT ON COLUMN decision.exploratory IS 'True when the plan was changed or the samples lie outside its looks.';
COMMENT ON COLUMN decision.negligible IS 'True when a DETECTED effect lies inside the margin.';
COMMENT ON COLUMN decision.evidence IS 'JSON: the one row the query returned.';
COMMENT ON COLUMN decision.sql IS 'The query.';
COMMENT ON COLUMN decision.parameters IS 'JSON of the query''s parameters.';
COMMENT ON COLUMN decision.rule IS 'JSON of min_n and the comparisons.';
COMMENT ON COLUMN decision.sentence IS 'What the report says about it.';
COMMENT ON COLUMN decision.next IS 'What the route table says comes next.';
COMMENT ON COLUMN decision.next_parameters IS 'JSON of the parameters of what comes next.';
COMMENT ON COLUMN decision.flow_run_id IS 'Prefect flow run that decided.';
COMMENT ON COLUMN decision.launched_flow_run_id IS 'Prefect flow run it launched.';
COMMENT ON COLUMN decision.decided_at IS 'When it was asked last, UTC.';

CREATE TABLE IF NOT EXISTS night (
    night_id VARCHAR NOT NULL CHECK (night_id <> ''),
    profile VARCHAR NOT NULL CHECK (profile <> ''),
    budget_seconds DOUBLE NOT NULL CHECK (isfinite(budget_seconds)),
    started_at TIMESTAMP NOT NULL,
    deadline TIMESTAMP NOT NULL,
    ended_at TIMESTAMP,
    state VARCHAR NOT NULL
        CHECK (state IN ('running', 'completed', 'budget', 'failed', 'cancelled', 'crashed')),
    continues VARCHAR,
    process VARCHAR NOT NULL,
    flow_run_id VARCHAR,
    source VARCHAR,
    note VARCHAR,
    PRIMARY KEY (night_id),
    CHECK ((state = 'running') = (ended_at IS NULL))
);
COMMENT ON TABLE night IS 'One night: a budget, and what came of it.';
COMMENT ON COLUMN night.night_id IS 'When it was due, and a random part.';
COMMENT ON COLUMN night.profile IS 'Of every study; one that lacks it ran its smoke.';
COMMENT ON COLUMN night.budget_seconds IS 'How long it might take.';
COMMENT ON COLUMN night.started_at IS 'When it began, UTC.';
COMMENT ON COLUMN night.deadline IS 'When it was due to begin, and its budget; UTC.';
COMMENT ON COLUMN night.ended_at IS 'NULL while it runs.';
COMMENT ON COLUMN night.state IS 'running, completed, budget (something is left), failed, cancelled or crashed.';
COMMENT ON COLUMN night.continues IS 'Unfinished night whose queue it took up.';
COMMENT ON COLUMN night.process IS 'host:pid:start of the process.';
COMMENT ON COLUMN night.flow_run_id IS 'Prefect flow run.';
COMMENT ON COLUMN night.source IS 'Copy of the code that its runs imported, relative to the home.';
COMMENT ON COLUMN night.note IS 'What is left, or why it ended.';

CREATE TABLE IF NOT EXISTS queue (
    night_id VARCHAR NOT NULL CHECK (night_id <> ''),
    item VARCHAR NOT NULL CHECK (item <> ''),
    position BIGINT NOT NULL CHECK (position >= 0),
    study VARCHAR NOT NULL CHECK (study <> ''),
    profile VARCHAR NOT NULL CHECK (profile <> ''),
    settings VARCHAR NOT NULL CHECK (json_valid(settings)),
    why VARCHAR NOT NULL CHECK (why <> ''),
    decision_id VARCHAR,
    state VARCHAR NOT NULL
        CHECK (state IN ('queued', 'running', 'done', 'left', 'proposed', 'refused', 'failed')),
    expected_seconds DOUBLE CHECK (isfinite(expected_seconds)),
    expected_from VARCHAR,
    missing DOUBLE CHECK (isfinite(missing)),
    attempt BIGINT NOT NULL CHECK (attempt >= 0),
    flow_run_id VARCHAR,
    run_id VARCHAR,
    started_at TIMESTAMP,
    seconds DOUBLE CHECK (isfinite(seconds)),
    note VARCHAR,
    PRIMARY KEY (night_id, item)
);
COMMENT ON TABLE queue IS 'What a night was to run, what it expected of it, and what came of it.';
COMMENT ON COLUMN queue.night_id IS 'The night.';
COMMENT ON COLUMN queue.item IS 'Fingerprint of study, profile and settings: the same work has the same.';
COMMENT ON COLUMN queue.position IS 'Order in which it was asked for, from 0.';
COMMENT ON COLUMN queue.study IS 'Study that runs.';
COMMENT ON COLUMN queue.profile IS 'Its profile.';
COMMENT ON COLUMN queue.settings IS 'JSON of the fields that differ from the profile''s.';
COMMENT ON COLUMN queue.why IS 'Who asks for it, in words.';
COMMENT ON COLUMN queue.decision_id IS 'Gate decision whose route it is.';
COMMENT ON COLUMN queue.state IS 'queued, running, done, left for the next night, proposed (of a larger profile), refused or failed.';
COMMENT ON COLUMN queue.expected_seconds IS 'How long it was thought to take.';
COMMENT ON COLUMN queue.expected_from IS 'What that was taken from: past runs, the study''s declaration, or nothing.';
COMMENT ON COLUMN queue.missing IS 'Share of its units that were not here when it was weighed.';
COMMENT ON COLUMN queue.attempt IS 'How often it was launched, earlier nights included.';
COMMENT ON COLUMN queue.flow_run_id IS 'Prefect flow run that was launched.';
COMMENT ON COLUMN queue.run_id IS 'Its row in run.';
COMMENT ON COLUMN queue.started_at IS 'When it was launched, UTC.';
COMMENT ON COLUMN queue.seconds IS 'From launch to end.';
COMMENT ON COLUMN queue.note IS 'What it said, or why it was not run.';

CREATE TABLE IF NOT EXISTS artifact (
    step_id VARCHAR NOT NULL CHECK (step_id <> ''),
    path VARCHAR NOT NULL CHECK (path <> ''),
    kind VARCHAR NOT NULL CHECK (kind <> ''),
    sha256 VARCHAR NOT NULL CHECK (regexp_full_match(sha256, '[0-9a-f]{64}')),
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (step_id, path)
);
COMMENT ON TABLE artifact IS 'A file of a step, checked by its hash.';
COMMENT ON COLUMN artifact.step_id IS 'Step that made it.';
COMMENT ON COLUMN artifact.path IS 'Relative to the lab''s home.';
COMMENT ON COLUMN artifact.kind IS 'What it is: checkpoint, figure, capsule, ...';
COMMENT ON COLUMN artifact.sha256 IS 'SHA-256 of its bytes, hex.';
COMMENT ON COLUMN artifact.bytes IS 'Its size, bytes.';

-- The store's own tables.
CREATE TABLE IF NOT EXISTS batch (
    batch_id VARCHAR NOT NULL CHECK (batch_id <> ''),
    drained_at TIMESTAMP NOT NULL,
    rows BIGINT NOT NULL CHECK (rows >= 0),
    sha256 VARCHAR NOT NULL,
    PRIMARY KEY (batch_id)
);
COMMENT ON TABLE batch IS 'Batches taken from the outbox, written with their rows, so that none is taken twice.';
COMMENT ON COLUMN batch.batch_id IS 'Identity of the batch; sorts by time of recording.';
COMMENT ON COLUMN batch.drained_at IS 'When its rows came into the store, UTC.';
COMMENT ON COLUMN batch.rows IS 'Rows in the batch.';
COMMENT ON COLUMN batch.sha256 IS 'SHA-256 of the batch file''s content, hex.';

CREATE TABLE IF NOT EXISTS lab_schema (
    version BIGINT NOT NULL,
    shape VARCHAR NOT NULL,
    views VARCHAR NOT NULL,
    updated_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE lab_schema IS 'One row: which schema this file has.';
COMMENT ON COLUMN lab_schema.version IS 'Grows when a table changes in a way an older program cannot write.';
COMMENT ON COLUMN lab_schema.shape IS 'Fingerprint of tables, columns, types, keys and checks.';
COMMENT ON COLUMN lab_schema.views IS 'Fingerprint of the views'' text.';
COMMENT ON COLUMN lab_schema.updated_at IS 'When this row was written, UTC.';
