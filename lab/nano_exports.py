"""Files beside the nanodesmo study's figures, for those who ask no database: results, deltas, log, manifest.

Every number in them is a row of the store, of the plan whose figures lie there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import report_queries_nano as nano
from lab import report_queries_nano_runs as runs
from lab.report_group import Asked, Group, ask
from lab.still import Source

if TYPE_CHECKING:
    import polars as pl

FROZEN, DELTAS, LOG = "frozen_test_results.json", "regime_deltas.csv", "reaction_log.jsonl"
MANIFEST, DECAY = "manifest.json", "memory/memory_decay_summary.csv"
EXPORTS = (FROZEN, DELTAS, LOG, MANIFEST, DECAY)
"""Files, in their folder."""

_LOG = f"""WITH {runs.RUNS}, first_run AS (
    SELECT * FROM runs WHERE suite = 'core' AND arm = 'regimes-all' AND reason IS NULL ORDER BY seed LIMIT 1
)
SELECT arm, seed, reaction.* EXCLUDE (step_id) FROM first_run JOIN reaction USING (step_id)
ORDER BY twin <> '', twin, step
"""

_STEPS = """
WITH files AS (
    SELECT step_id, list({'path': path, 'kind': kind, 'sha256': sha256, 'bytes': bytes} ORDER BY path) AS
           outputs
    FROM artifact GROUP BY step_id
)
SELECT step.experiment AS suite, step.arm, step.seed, step.step_id, sha256(step.config) AS config_sha256,
       step.code,
       json_extract_string(step.config, '$.text.sha256') AS data_sha256, step.seconds, step.device,
       step.reason,
       outputs
FROM step JOIN plan_step USING (step_id) LEFT JOIN files USING (step_id)
WHERE step.study = $study AND step.model = $model AND plan_hash = $plan
ORDER BY suite, arm NULLS FIRST, seed NULLS FIRST, step.step_id
"""


def write_exports(store: Source, group: Group, directory: Path, commit: str | None) -> list[Path]:
    """Write the files that have rows; each is replaced in one step.

    Parameters
    ----------
    commit
        Git commit of the program that measured the rows.

    Returns
    -------
    list of Path
        Those written.
    """

    def asked(query: str) -> Asked:
        return ask(store, query, group.parameters)

    about = {"study": group.study, "profile": group.profile, "plan": group.plan_hash, "commit": commit}
    bodies = {
        FROZEN: _frozen(asked(nano.frozen(nano.MAIN)).rows, asked(nano.frozen(nano.SECOND)).rows, about),
        DELTAS: _csv(_both_deltas(asked)),
        LOG: _lines(asked(_LOG).frame),
        MANIFEST: _json({**about, **_contact(asked(nano.CONTACT)), "steps": asked(_STEPS).rows}),
        DECAY: _csv(asked(runs.MEMORY_SUMMARY).frame),
    }
    return [_replace(directory / name, body) for name, body in bodies.items() if body]


def _contact(found: Asked) -> dict[str, Any]:
    """Which published windows abut, in words, where they were trained."""
    return {"windows_in_contact": [row["said"] for row in found.rows if row["said"]]} if found.rows else {}


def _both_deltas(asked: Callable[[str], Asked]) -> pl.DataFrame:
    """Of both texts and of published windows, as far as there are any."""
    import polars as pl

    found = [
        asked(nano.deltas(scope)).frame.select(pl.lit(scope).alias("text"), pl.all())
        for scope in (nano.MAIN, nano.SECOND)
    ]
    found.append(
        asked(nano.PUBLISHED_DELTAS).frame.select(pl.lit("main, published windows").alias("text"), pl.all())
    )
    return pl.concat(found, how="vertical_relaxed")


def _frozen(
    main: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> bytes:
    """The frozen test arm by arm; empty without one."""
    texts = {name: _arms(rows) for name, rows in ((nano.MAIN, main), (nano.SECOND, second)) if rows}
    return _json({**about, "unit": "nats", "texts": texts}) if texts else b""


def _arms(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arm -> its seeds, its states, and what all seeds say together; `verdict` under its own name."""
    found: dict[str, Any] = {}
    for row in rows:
        kept = {
            k: row[k]
            for k in ("estimate", "low", "high", "p", "statistic", "n", "margin", "verdict", "reason")
        }
        kept = {k: v for k, v in kept.items() if v is not None}
        if row["arm"] == "*":
            found["verdict"] = kept
            continue
        arm = found.setdefault(str(row["arm"]), {"seeds": {}, "states": {}, "together": {}})
        if row["hypothesis"] == "rotation":
            arm["seeds"][str(row["part"]).removeprefix("seed ")] = kept
        elif row["hypothesis"] == "state":
            arm["states"].setdefault(str(row["metric"]), {})[str(row["part"])] = kept
        else:
            arm["together"][str(row["hypothesis"])] = kept
    return found


def _json(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, ensure_ascii=False, default=str, allow_nan=False) + "\n").encode()


def _csv(frame: pl.DataFrame) -> bytes:
    return b"" if frame.is_empty() else frame.write_csv().encode()


def _lines(frame: pl.DataFrame) -> bytes:
    return b"" if frame.is_empty() else frame.write_ndjson().encode()


def _replace(target: Path, body: bytes) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_bytes(body)
    os.replace(temporary, target)
    return target
