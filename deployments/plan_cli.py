"""`ladder plan`: what a run would make, what of it is here, and how long the rest takes; changes nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments import terminal
from deployments.settings import settings_for
from deployments.visible import tell
from flows.registry import find_study, studies
from lab.errors import UsageError, unknown
from lab.machine import cpu_name
from lab.night_book import past_runs
from lab.night_queue import UNKNOWN_SECONDS, Candidate, Past, Prediction, predicted
from lab.plan import deviations, plan_hash, read_declared
from lab.settings import as_json as plain
from lab.store import Store
from lab.study import PlannedStep, Study
from models.entropy import TapeError

BY_HAND = """
SELECT study, profile, cpu, max(epoch(ended_at - started_at)) AS seconds
FROM run JOIN environment USING (environment_id)
WHERE state IN ('completed', 'stopped') AND run_id NOT IN (SELECT run_id FROM queue WHERE run_id IS NOT NULL)
GROUP BY ALL
"""
"""Runs outside of nights. What they found done nobody noted, so the longest is taken for one from cold."""


def show_plan(
    home: Path, name: str | None, profile: str, assignments: Sequence[str], *, as_json: bool = False
) -> None:
    """The dry run of one study, or of all at a profile they have.

    Raises
    ------
    UsageError
        Unknown study, profile or field, or a tape that is damaged.
    """
    if name is None and not any(profile in study.profiles for study in studies().values()):
        raise unknown("profile", profile, {known for study in studies().values() for known in study.profiles})
    chosen = [find_study(name)] if name else [s for s in studies().values() if profile in s.profiles]
    past = _past(home)
    told = [_told(home, study, profile, assignments, past) for study in chosen]
    if as_json:
        print(json.dumps(told, indent=1))
        return
    tell("\n\n".join("\n".join(_lines(one)) for one in told))
    if len(told) > 1:
        seconds = sum(one["expected_seconds"] for one in told)
        tell(f"\n{len(told)} studies, {terminal.duration(seconds)} in all.")


def _past(home: Path) -> list[Past]:
    """Finished runs on any machine that shared this home; read without touching it."""
    store = Store(home)
    by_hand = [
        Past(item="", missing=1.0, **row) for row in store.read(BY_HAND, drain=False).iter_rows(named=True)
    ]
    return past_runs(store, drain=False) + by_hand


def _told(
    home: Path, study: Study, profile: str, assignments: Sequence[str], past: Sequence[Past]
) -> dict[str, Any]:
    """The dry run as plain data."""
    settings = settings_for(study, profile, assignments)
    base = study.profiles[profile]
    try:
        steps = study.steps(settings, home)
        whole = steps if settings == base else study.steps(base, home)
    except TapeError as error:
        raise UsageError(str(error)) from error
    expected = _expected(study, profile, _changes(settings, base), steps, whole, past)
    plan = study.plan(settings)
    declared = read_declared(home, study.name, profile)
    stop = getattr(settings, "samples", None)
    return {
        "study": study.name,
        "profile": profile,
        "question": study.question,
        "plan_hash": plan_hash(plan),
        "frozen_plan_hash": None if declared is None else declared.plan_hash,
        "departs_in": [] if declared is None else [row.field for row in deviations(plan, declared)],
        "stops_at": None if stop in (None, plan.looks[-1]) else stop,
        "looks": list(plan.looks),
        "steps": [dataclasses.asdict(step) for step in steps],
        "expected_seconds": expected.seconds,
        "expected_from": expected.source,
        "pull": _pulled(settings),
    }


def _pulled(settings: Any) -> list[str]:
    """Models that an Ollama server must have; none where another backend runs them."""
    if getattr(settings, "backend", None) != "ollama":
        return []
    return [one.model for one in getattr(settings, "rungs", ())] or [settings.model]


def _changes(settings: Any, base: Any) -> Mapping[str, object]:
    now, before = plain(settings), plain(base)
    return {name: value for name, value in now.items() if value != before[name]}


def _expected(
    study: Study,
    profile: str,
    changes: Mapping[str, object],
    steps: Sequence[PlannedStep],
    whole: Sequence[PlannedStep],
    past: Sequence[Past],
) -> Prediction:
    """What a night would reckon."""
    units = sum(step.units for step in whole)
    missing = sum(step.units - step.cached for step in steps) / units if units else 1.0
    return predicted(
        Candidate(study=study.name, profile=profile, settings=changes, why="plan"),
        missing=missing,
        past=past,
        declared=study.expected_seconds.get(profile),
        cpu=cpu_name(),
    )


def _lines(told: Mapping[str, Any]) -> list[str]:
    head = f"{told['study']} · {told['profile']} · plan {told['plan_hash']} · {told['question']}"
    found = [*terminal.folded(head), f"  {'step':<38}{'in all':>8}{'here':>8}{'to make':>9}"]
    for step in told["steps"]:
        if not step["units"]:
            continue
        left = step["units"] - step["cached"]
        row = f"  {step['name']:<38}{step['units']:>8}{step['cached']:>8}{left:>9}"
        took = step["expected_seconds"]
        found.append(row if took is None or not left else f"{row}  {terminal.duration(took)}")
    found += terminal.folded(f"  expected: {_said(told)}")
    if told["pull"]:
        pulls = "; ".join(f"ollama pull {model}" for model in told["pull"])
        found += terminal.folded(f"  needs an Ollama server (`ladder doctor` asks it) and {pulls}")
    if told["frozen_plan_hash"] is None:
        found.append("  no plan is frozen yet; the first run freezes this one")
    elif told["departs_in"]:
        fields = ", ".join(told["departs_in"])
        found += terminal.folded(
            f"  departs from the frozen plan {told['frozen_plan_hash']} in {fields}: exploratory"
        )
    if told["stops_at"] is not None:
        looks = ", ".join(map(str, told["looks"]))
        found += terminal.folded(
            f"  stops at {told['stops_at']} samples a cell, not at the looks ({looks}): exploratory"
        )
    return found


def _said(told: Mapping[str, Any]) -> str:
    seconds, source = terminal.duration(told["expected_seconds"]), told["expected_from"]
    if source == "unknown":
        return f"unknown; a night takes {terminal.duration(UNKNOWN_SECONDS)} for it"
    if source == "declared":
        return f"{seconds}, as the study declares for two cores"
    return f"{seconds}, {source} on this processor"
