"""What a morning asks of the store: nights, verdicts, what moved, what it cost, what is open, what is next.

Every number comes from a view of `views.sql`; here is only which of them count as new.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.machine import is_alive
from lab.store import Store

Row = Mapping[str, Any]
HOURS = 24.0
"""What a summary looks back on."""

NIGHTS = """
SELECT night_summary.*, night.process FROM night_summary JOIN night USING (night_id)
WHERE night_summary.ended_at IS NULL OR night_summary.ended_at >= $since
ORDER BY night_summary.started_at DESC
"""
VERDICTS = """
SELECT study, profile, model, gate, look, verdict, exploratory, negligible, sentence, next, decided_at
FROM decision WHERE decided_at >= $since ORDER BY decided_at, decision_id
"""
CHANGED = """
SELECT study, profile, model, family, hypothesis, metric, contrast, look, verdict_before, verdict, change,
       recorded_at
FROM effects_over_time
WHERE recorded_at >= $since AND position > 1 AND verdict IS NOT NULL
  AND verdict IS DISTINCT FROM verdict_before
ORDER BY recorded_at, study, model, family, hypothesis, metric, contrast
"""
DRIFT = "SELECT *, last_at >= $since AS is_new FROM drift WHERE NOT is_speed"
COSTS = """
SELECT cost_of_verdicts.* FROM cost_of_verdicts
SEMI JOIN (SELECT study, profile FROM run WHERE started_at >= $since) AS lately USING (study, profile)
"""
QUESTIONS = "SELECT * FROM open_questions WHERE role IN ('verdict', 'decides')"
NEXT = """
WITH gates AS (
    SELECT plan_hash, unnest(from_json(json_extract(text, '$.gates'), '[{"name": "VARCHAR"}]')).name AS name
    FROM plan
), last_words AS (
    SELECT *, max(look) OVER (PARTITION BY study, profile, model, plan_hash) AS last_look FROM decision_path
    QUALIFY row_number() OVER (
        PARTITION BY study, profile, model, plan_hash, gate ORDER BY exploratory, position DESC
    ) = 1
), wished AS (
    SELECT *, replace(next, '-', '_') AS next_study,
           coalesce(json_extract_string(next_parameters, '$.profile'), profile) AS next_profile,
           json_merge_patch(next_parameters, '{"profile":null}') AS next_settings
    FROM last_words
    WHERE next NOT IN ('stop', 'cannot occur') AND look = last_look AND NOT EXISTS (
        SELECT 1 FROM gates WHERE gates.plan_hash = last_words.plan_hash AND gates.name = next
    ) AND NOT (next = 'next_rung' AND EXISTS (
        SELECT 1 FROM decision WHERE decision.plan_hash = last_words.plan_hash
            AND decision.model <> last_words.model AND decision.decided_at > last_words.decided_at
    ))
), queued AS (
    SELECT wished.decision_id, arg_max(queue.state, night.started_at) AS state
    FROM wished JOIN queue ON queue.decision_id = wished.decision_id OR (
        queue.study = next_study AND queue.profile = next_profile AND queue.settings = next_settings
    ) JOIN night USING (night_id)
    GROUP BY ALL
), by_hand AS (
    SELECT DISTINCT decision_id FROM wished JOIN run ON run.study = next_study AND run.profile = next_profile
        AND run.state IN ('completed', 'stopped') AND run.started_at > decided_at
        AND json_contains(run.settings, next_settings)
)
SELECT study, profile, model, gate, verdict, next, next_parameters, CASE
    WHEN by_hand.decision_id IS NOT NULL THEN 'done'
    ELSE coalesce(queued.state, CASE WHEN launched_flow_run_id IS NOT NULL THEN 'launched' END)
    END AS state
FROM wished LEFT JOIN queued USING (decision_id) LEFT JOIN by_hand USING (decision_id)
ORDER BY decided_at DESC, decision_id
"""
"""Where the last word of each gate leads; a night's queue, or a run since, tells if it was gone there."""
LEFT = """
WITH last_ones AS (
    SELECT night_id FROM night QUALIFY row_number() OVER (PARTITION BY profile ORDER BY started_at DESC) = 1
)
SELECT study, profile, settings, why, note FROM queue SEMI JOIN last_ones USING (night_id)
WHERE state IN ('left', 'queued') ORDER BY night_id, position
"""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What there is to say, as rows."""

    made_at: datetime
    """UTC."""
    since: datetime
    nights: Sequence[Row]
    verdicts: Sequence[Row]
    """Decisions asked since."""
    changed: Sequence[Row]
    """Answers that are not what the one before was."""
    drift: Sequence[Row]
    """All numbers measured again that differ; `is_new` for those measured since."""
    costs: Sequence[Row]
    """Of the studies that ran since."""
    questions: Sequence[Row]
    """All that is open, in the order of what an hour would tell."""
    next_steps: Sequence[Row]
    left: Sequence[Row]
    """Of the last night of each profile."""


def summarise(store: Store, *, now: datetime, hours: float = HOURS) -> Summary:
    """Ask the store.

    Parameters
    ----------
    now
        UTC, without a zone.
    hours
        How far to look back.

    Raises
    ------
    StoreLockedError
        The database stayed held.
    """
    since = now - timedelta(hours=hours)

    def asked(query: str) -> list[dict[str, Any]]:
        return store.read(query, {"since": since} if "$since" in query else None).to_dicts()

    nights = asked(NIGHTS)
    for night in nights:
        if night["state"] == "running" and not is_alive(str(night["process"])):
            night |= {"state": "crashed", "reason": "its process is gone; the next night closes it"}
    return Summary(
        made_at=now,
        since=since,
        nights=[{name: value for name, value in row.items() if name != "process"} for row in nights],
        verdicts=asked(VERDICTS),
        changed=asked(CHANGED),
        drift=asked(DRIFT),
        costs=asked(COSTS),
        questions=asked(QUESTIONS),
        next_steps=asked(NEXT),
        left=asked(LEFT),
    )


def counts(summary: Summary) -> dict[str, int]:
    """How many verdicts of each kind were come to, in order of precedence."""
    found = Counter(str(row["verdict"]) for row in summary.verdicts)
    return {name: found[name] for name in ("INVALID", "DETECTED", "EQUIVALENT", "INCONCLUSIVE")}


def plain(summary: Summary) -> dict[str, Any]:
    """The summary as JSON holds it."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(summary), default=_as_text))
    return found | {"counts": counts(summary)}


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    raise TypeError(f"{type(value).__qualname__} is not plain data")
