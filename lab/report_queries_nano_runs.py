"""What the report and the figures ask about the nanodesmo study's runs: their steps, losses and failures.

Courses of many steps are means of bins: a line has at most a hundred points, whatever the length of the run.
A window is a stretch of steps on which its regime acts, read off the run's own rows.
"""

from __future__ import annotations

from lab.report_queries import written_in
from lab.report_queries_mechanism import T_975
from lab.report_queries_nano import ANSWERS, CHANNELS, PHASES, place

SUITES = ("core", "generalization", "memory", "controls")
UPDATE = ("raw_norm", "self_delta", "gate", "memory_norm", "clamped_norm", "cosine")
"""Channels of the update, in the order of panels."""
COURSE = (*(name for name in CHANNELS if name not in ("raw_norm", "gate")), "learning_rate")
"""Channels of a regime's figure."""
POINTS = 48
"""Of a line around a window, at most: a panel is some 180 pixels wide."""
LONG_POINTS = 100
"""Of a line over a whole run, at most: four pixels a point."""
MEMORY_ARMS = (
    "self-analysis",
    "mem-ema-decay-0.1",
    "mem-buf-l32",
    "mem-buf-l64",
    "mem-buf-l128",
    "mem-buf-l64-s5",
    "mem-buf-l64-s20",
)
CONTROL_ARMS = (
    "vanilla-regimes",
    "fixed-bias-0.5",
    "fixed-bias-1.0",
    "fixed-bias-2.0",
    "self-dim1-regimes",
    "no-step-frac",
    "random-injection",
)
SUMMARISED = ("valid_loss_nats", "self_drift_mean", "effect_kl_mean", "memory_share", "memory_filled")
"""Metrics of a memory, in the order of panels."""

_T = f"list_extract({list(T_975)}, least(count(value) - 1, {len(T_975)})::BIGINT)"
_HALF = f"{_T} * stddev_samp(value ORDER BY seed) / sqrt(count(value))"

RUNS = f"""runs AS (
    SELECT step.experiment AS suite, step.arm, step.seed, step.step_id, step.seconds, step.config, step.reason
    FROM step JOIN plan_step USING (step_id)
    WHERE step.study = $study AND step.model = $model AND plan_hash = $plan AND step.study = 'nanodesmo'
      AND step.experiment IN {SUITES} AND step.arm IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY step.experiment, step.arm, step.seed ORDER BY step.recorded_at DESC, step.step_id
    ) = 1
)"""

_WINDOWS = """design AS (
    SELECT coalesce(max(json_extract(text, '$.design.before')::BIGINT), 40) AS before,
           coalesce(max(json_extract(text, '$.design.probe_every')::BIGINT), 10) AS probe_every
    FROM plan WHERE plan_hash = $plan
), picked AS (
    SELECT * FROM runs WHERE suite = $suite AND arm = 'regimes-all' AND reason IS NULL
), acting AS (
    SELECT step_id, seed, step, unnest(string_split(regimes, '+')) AS regime
    FROM picked JOIN reaction USING (step_id) WHERE twin = '' AND regimes <> ''
), islands AS (
    SELECT *, step - row_number() OVER (PARTITION BY step_id, regime ORDER BY step) AS island FROM acting
), windows AS (
    SELECT step_id, seed, regime, min(step) AS start, max(step) + 1 AS stop,
           row_number() OVER (PARTITION BY step_id, regime ORDER BY min(step)) - 1 AS number
    FROM islands GROUP BY step_id, seed, regime, island
), spans AS (
    SELECT *, (SELECT coalesce(max(other.step) + 1, 0) FROM acting AS other
               WHERE other.step_id = windows.step_id AND other.step < windows.start) AS clean_from,
           (SELECT min(other.step) FROM acting AS other
            WHERE other.step_id = windows.step_id AND other.step >= windows.stop) AS next_start
    FROM windows
), placed AS (
    SELECT step_id, seed, regime, number, start, stop, greatest(clean_from, start - before) AS since,
           coalesce(least(stop + before, next_start), stop + before) AS until,
           count(*) OVER (PARTITION BY step_id, regime) AS of,
           greatest(1, ceil(max(stop - start + 2 * before) OVER () / {points}))::BIGINT AS width, probe_every
    FROM spans, design
)""".replace("{points}", str(POINTS))


def _unpivoted(source: str, channels: tuple[str, ...]) -> str:
    """SQL: channels as rows."""
    doubles = ", ".join(f"{name}::DOUBLE AS {name}" for name in channels)
    keys = f"SELECT * REPLACE ({doubles}) FROM {source}"
    return f"UNPIVOT ({keys}) ON {', '.join(channels)} INTO NAME channel VALUE value"


REGIMES = f"""WITH {RUNS}
SELECT DISTINCT unnest(string_split(regimes, '+')) AS regime
FROM runs JOIN reaction USING (step_id)
WHERE suite = 'core' AND arm = 'regimes-all' AND runs.reason IS NULL AND twin = '' AND regimes <> ''
ORDER BY regime
"""

_ASIDE = "CASE WHEN channel = 'effect_kl_nats' THEN greatest(width, probe_every) ELSE width END"
_BIN = f"(floor((step - start) / ({_ASIDE})) * ({_ASIDE}) + (({_ASIDE}) - 1) / 2.0)"

_REACTIONS = f"""WITH {RUNS}, {_WINDOWS}, line AS (
    SELECT placed.*, step, {", ".join(CHANNELS)} FROM placed JOIN reaction USING (step_id)
    WHERE twin = '' AND step >= since AND step < until
), long AS (
    {_unpivoted("line", CHANNELS)}
), scaled AS (
    SELECT *, avg(value) FILTER (step < start) OVER own AS level,
           nullif(stddev_samp(value) FILTER (step < start) OVER own, 0) AS sd
    FROM long WINDOW own AS (PARTITION BY step_id, regime, number, channel)
), binned AS (
    SELECT regime, channel, seed, {_BIN} AS step, avg((value - level) / sd) AS z, any_value(stop - start) AS
           length
    FROM scaled WHERE sd > 1e-12 * abs(level)
    GROUP BY ALL HAVING count(DISTINCT number) = any_value("of")
)
SELECT regime, channel, step, round(avg(z ORDER BY seed), 4) AS mean, round(min(z), 4) AS least,
       round(max(z), 4) AS most, count(*) AS seeds, max(length) AS length
FROM binned GROUP BY regime, channel, step
ORDER BY {place(CHANNELS, "channel")}, regime, step
"""


def _course(channels: tuple[str, ...]) -> str:
    """Means of channels around the windows of one regime, of the runs and of their twins."""
    return f"""WITH {RUNS}, {_WINDOWS}, line AS (
    SELECT placed.*, twin = '' AS is_run, step, {", ".join(channels)} FROM placed JOIN reaction USING
           (step_id)
    WHERE regime = $regime AND step >= since AND step < until
      AND twin IN ('', regime || '/' || number, regime || ' ' || number)
), long AS (
    {_unpivoted("line", channels)}
), binned AS (
    SELECT channel, is_run, seed, {_BIN} AS step, avg(value) AS value, any_value(stop - start) AS length,
           count(DISTINCT number) AS windows
    FROM long GROUP BY channel, is_run, seed, {_BIN} HAVING count(DISTINCT number) = any_value("of")
)
SELECT channel, is_run, step, avg(value ORDER BY seed) AS mean, min(value) AS least, max(value) AS most,
       count(*) AS seeds, max(windows) AS windows, max(length) AS length
FROM binned GROUP BY channel, is_run, step
ORDER BY {place(channels, "channel")}, is_run DESC, step
"""


_COURSE, _UPDATE = _course(COURSE), _course(UPDATE)

TRAJECTORY = f"""WITH {RUNS}, first_run AS (
    SELECT * FROM runs WHERE suite = 'core' AND arm = 'regimes-all' AND reason IS NULL ORDER BY seed LIMIT 1
), begin AS (
    SELECT coalesce(min(step) FILTER (regimes <> ''), 0) - 20 AS first_step
    FROM first_run JOIN reaction USING (step_id) WHERE twin = ''
), line AS (
    SELECT seed, step, regimes, self_norm, relative_drift,
           step // greatest(1, ceil((max(step) OVER () + 1) / {LONG_POINTS})::BIGINT) AS bin
    FROM begin, first_run JOIN reaction USING (step_id)
    WHERE twin = '' AND step >= first_step AND self_norm IS NOT NULL AND relative_drift IS NOT NULL
)
SELECT seed, coalesce(nullif(split_part(regimes, '+', 1), ''), 'clean') AS regime,
       avg(step) AS step, avg(self_norm) AS self_norm, avg(relative_drift) AS relative_drift
FROM line GROUP BY seed, regimes, bin ORDER BY step
"""

_MEMORY_RUNS = "(suite = 'memory' OR (suite = 'core' AND arm = 'self-analysis'))"


_MEMORY_LINE = f"""WITH {RUNS}, design AS (
    SELECT coalesce(max(json_extract(text, '$.design.probe_every')::BIGINT), 10) AS probe_every
    FROM plan WHERE plan_hash = $plan
), line AS (
    SELECT arm, seed, step, CHANNEL AS value,
           greatest(probe_every, ceil((max(step) OVER () + 1) / {LONG_POINTS}))::BIGINT AS width
    FROM design, runs JOIN reaction USING (step_id)
    WHERE {_MEMORY_RUNS} AND runs.reason IS NULL AND twin = '' AND CHANNEL IS NOT NULL
), binned AS (
    SELECT arm, seed, (step // width) * width + (width - 1) / 2.0 AS step, avg(value) AS value
    FROM line GROUP BY ALL
)
SELECT arm, step, avg(value ORDER BY seed) AS mean, min(value) AS least, max(value) AS most, count(*) AS seeds
FROM binned GROUP BY arm, step
ORDER BY {place(MEMORY_ARMS, "arm")}, arm, step
"""

_SUMMARY = f"""WITH {RUNS}, found AS (
    SELECT arm, seed, name AS metric, value, coalesce(metric.reason, runs.reason) AS reason,
           json_extract_string(config, '$.recipe.state.memory') AS kind,
           json_extract(config, '$.recipe.state.length')::BIGINT AS length,
           json_extract(config, '$.recipe.state.stride')::BIGINT AS stride
    FROM runs JOIN metric USING (step_id)
    WHERE {_MEMORY_RUNS} AND unit = '*' AND name IN {SUMMARISED}
), summed AS (
    SELECT metric, arm, any_value(kind) AS kind, any_value(length) AS length, any_value(stride) AS stride,
           avg(value ORDER BY seed) AS estimate, {_HALF} AS half, count(value) AS n,
           string_agg(DISTINCT reason, '; ') FILTER (value IS NULL) AS reason
    FROM found GROUP BY metric, arm
), failed AS (
    SELECT DISTINCT arm, metric, string_agg('seed ' || seed || ': ' || reason, '; ' ORDER BY seed) AS reason
    FROM runs, unnest({list(SUMMARISED)}) AS each_metric(metric)
    WHERE {_MEMORY_RUNS} AND reason IS NOT NULL GROUP BY arm, metric
)
SELECT metric, arm, kind, length, stride, estimate, estimate - half AS low, estimate + half AS high,
       coalesce(n, 0) AS n, coalesce(failed.reason, summed.reason) AS reason
FROM summed FULL JOIN failed USING (arm, metric)
{{where}}
ORDER BY {place(SUMMARISED, "metric")}, {place(MEMORY_ARMS, "arm")}, arm
"""
MEMORY_SUMMARY = _SUMMARY.replace("{where}\n", "")
BUFFERS = _SUMMARY.replace("{where}", "WHERE kind = 'buffer'")

CONTROL_LOSSES = f"""WITH {RUNS}, {ANSWERS}, seeds AS (
    SELECT arm, seed, value, coalesce(runs.reason, metric.reason) AS why FROM runs LEFT JOIN metric
      ON metric.step_id = runs.step_id AND unit = '*' AND name = 'valid_loss_nats'
    WHERE suite = 'controls'
), compared AS (
    SELECT regexp_replace(contrast, '^self-regimes-', '') AS arm, estimate, low, high, p, p_adjusted, alpha,
           margin,
           n, n_to_settle, verdict, reason
    FROM answer WHERE family = 'controls' AND hypothesis = 'difference' AND metric = 'valid_loss_nats'
)
SELECT arm, seed, value, estimate, low, high, p, p_adjusted, alpha, margin, n, n_to_settle, verdict,
       coalesce(compared.reason, why) AS reason
FROM seeds LEFT JOIN compared USING (arm)
ORDER BY arm <> 'self-regimes', {place(CONTROL_ARMS, "arm")}, arm, seed
"""

HELD_OUT = f"""WITH {RUNS}, found AS (
    SELECT suite, arm, seed, runs.step_id, seconds, value FROM runs LEFT JOIN metric
      ON metric.step_id = runs.step_id AND unit = '*' AND name = 'valid_loss_nats'
), speed AS (
    SELECT step_id, value AS tokens_per_second FROM metric WHERE unit = '*' AND name = 'tokens_per_second'
)
SELECT suite, arm, avg(value ORDER BY seed) AS loss, stddev_samp(value ORDER BY seed) AS sd,
       avg(value ORDER BY seed) - {_HALF} AS low, avg(value ORDER BY seed) + {_HALF} AS high,
       count(value) AS seeds, count(*) - count(value) AS without, avg(tokens_per_second) AS tokens_per_second,
       sum(seconds) AS seconds
FROM found LEFT JOIN speed USING (step_id)
GROUP BY suite, arm ORDER BY {place(SUITES, "suite")}, loss NULLS LAST, arm
"""

FAILED = f"""WITH {RUNS}
SELECT suite, arm, seed, runs.reason, count(step) AS steps_logged
FROM runs LEFT JOIN reaction ON reaction.step_id = runs.step_id AND twin = ''
WHERE runs.reason IS NOT NULL GROUP BY ALL ORDER BY suite, arm, seed
"""

UNMEASURED = """
SELECT experiment, arm, seed, reason FROM step JOIN plan_step USING (step_id)
WHERE study = $study AND model = $model AND plan_hash = $plan AND study = 'nanodesmo' AND reason IS NOT NULL
  AND arm IS NOT NULL AND experiment IN ('frozen_core', 'frozen_generalization', 'swap', 'sensitivity',
  'analyse')
QUALIFY row_number() OVER (PARTITION BY experiment, arm, seed ORDER BY recorded_at DESC, step_id) = 1
ORDER BY experiment, arm, seed
"""

SKIPPED = f"""
SELECT experiment AS phase, reason, recorded_at FROM step JOIN plan_step USING (step_id)
WHERE study = $study AND plan_hash = $plan AND study = 'nanodesmo' AND arm IS NULL AND reason IS NOT NULL
  AND experiment IN {PHASES}
QUALIFY row_number() OVER (PARTITION BY experiment ORDER BY recorded_at DESC, step_id) = 1
ORDER BY {place(PHASES, "experiment")}
"""


def reactions(suite: str) -> str:
    """All regimes of a suite in SD of the clean steps before, aligned at their windows' first steps."""
    return written_in(_REACTIONS, {"suite": suite})


def course(regime: str) -> str:
    """Channels around the windows of a regime, in their own units."""
    return written_in(_COURSE, {"suite": "core", "regime": regime})


def update(regime: str) -> str:
    """What makes the new state, around the windows of a regime."""
    return written_in(_UPDATE, {"suite": "core", "regime": regime})


def memory_line(channel: str) -> str:
    """A channel over the steps of every memory's runs.

    >>> "self_drift AS value" in memory_line("self_drift")
    True
    """
    return _MEMORY_LINE.replace("CHANNEL", channel).strip()
