"""One head of the sense study alone, `ladder run sense_scaling --only B_seed42 --out DIR`: its capsule."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow

from flows.sense_protocol import CONTROL, Cell, SenseProtocol
from flows.sense_run import DEV, TEST, begin
from lab.errors import UsageError, unknown
from tasks import sense_rows
from tasks.fan_out import runner
from tasks.sense_capsule import refuse_place, write_capsule


def cell_of(name: str, protocol: SenseProtocol) -> Cell:
    """Arm and seed of a name such as `B_seed42`.

    Raises
    ------
    UsageError
        For another form or an arm that the study does not have.
    """
    found = re.fullmatch(r"(.+)_seed(\d{1,9})", name)
    if found is None:
        raise UsageError(f"--only {name!r} names no head; write ARM_seedN, such as B_seed42")
    arm, seed = found.group(1), int(found.group(2))
    if arm not in protocol.arms:
        raise unknown("arm", arm, protocol.arms)
    return arm, seed


@flow(
    name="sense-capsule",
    flow_run_name="sense capsule · {only}",
    validate_parameters=False,
    task_runner=runner(),
)
def sense_capsule(protocol: SenseProtocol, only: str, out: str) -> dict[str, Any]:
    """Train and examine one head, and A of the same seed to compare with; write the capsule.

    Returns
    -------
    dict
        `lines` to print, `passed`: whether every blocker holds for this head.
    """
    arm, seed = cell_of(only, protocol)
    refuse_place(Path(out))
    run = begin(replace(protocol, seeds=(seed,)))
    with run.closing():
        cells = list(dict.fromkeys([(CONTROL, seed), (arm, seed)]))
        run.score_baselines()
        run.heads.train(cells)
        for split in (DEV, TEST):
            run.heads.examine(cells, split)
        rows = run.judge_one(arm, seed)
        metrics = {split: run.heads.metrics((arm, seed), split) for split in (DEV, TEST)}
        scorers = sense_rows.baseline_rows(run.home, run.baselines[TEST], run.heads.items[TEST])
        place = write_capsule(
            Path(out),
            home=run.home,
            job=run.heads.jobs[arm, seed],
            settings=protocol.settings,
            metrics=metrics | {f"baseline {name}": found(name) for name, found in scorers.items()},
            verdicts=rows,
        )
    blockers = [row for row in rows if row.role == "decides"]
    failed = [row for row in blockers if row.verdict != "DETECTED"]
    lines = [f"{only}: {rows[-1].verdict}, {len(blockers) - len(failed)} of {len(blockers)} blockers hold"]
    for row in failed:
        number = "undefined" if row.estimate is None else f"{row.estimate:.3f}"
        lines.append(f"  {row.hypothesis} {row.metric} ({row.contrast}): {number}")
    return {"lines": [*lines, f"Capsule: {place}"], "passed": rows[-1].verdict == "DETECTED"}
