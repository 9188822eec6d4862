"""A study's plan as data, fixed before the first run; its hash says which plan a number belongs to.

The first run of a study and profile freezes its plan, `ladder freeze` another. A run under any other plan
goes on, but its decisions are exploratory and every field in which it departs is a row. The frozen plan is a
file of the home, so that a run can start while someone else holds the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lab.durable import write_durably
from lab.errors import UsageError
from lab.fingerprint import canonical, fingerprint
from lab.gates import Gate
from lab.records import DeviationRow, PlanRow

MOST_SAID = 300
"""Characters of what is wrong with a file: an error may quote all of it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is fixed before the data. Model and machine are not in it: a ladder climbs under one plan."""

    study: str
    profile: str
    question: str
    prediction: str
    """What we expect, and what would count against it."""
    hypotheses: tuple[str, ...]
    primary: tuple[str, ...]
    """Metrics that decide."""
    secondary: tuple[str, ...] = ()
    margin: float
    """Smallest effect of interest, in `margin_unit`."""
    margin_unit: str
    alpha: float
    """Error over all looks."""
    looks: tuple[int, ...]
    """Samples a cell at each look."""
    exclusions: tuple[str, ...] = ()
    design: Mapping[str, object]
    """Every other setting that can change a number."""
    gates: tuple[Gate, ...] = ()

    def __post_init__(self) -> None:
        where = f"plan of {self.study}/{self.profile}"
        if not self.primary:
            raise UsageError(f"{where}: no primary metric; name at least one")
        if not 0.0 < self.alpha < 0.5:
            raise UsageError(f"{where}: alpha = {self.alpha}; allowed: above 0, under 0.5")
        if not self.margin > 0.0:
            raise UsageError(f"{where}: margin = {self.margin}; allowed: above 0")
        if not self.looks or list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 1:
            raise UsageError(f"{where}: looks = {self.looks}; allowed: rising whole numbers from 1")


def plan_text(plan: Plan) -> str:
    """Canonical JSON of the plan."""
    return canonical(plan)


def plan_hash(plan: Plan) -> str:
    """First 16 hex digits of the SHA-256 of `plan_text`."""
    return fingerprint(plan)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The frozen plan of a study and profile."""

    plan_hash: str
    text: str
    frozen_at: datetime
    """UTC, without a zone."""


def read_declared(home: Path, study: str, profile: str) -> Declared | None:
    """The frozen plan, or None when nothing was frozen yet.

    Raises
    ------
    UsageError
        When the file is damaged or malformed.
    """
    path = _declared_path(home, study, profile)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        declared = Declared(
            plan_hash=found["plan_hash"],
            text=found["text"],
            frozen_at=datetime.fromisoformat(found["frozen_at"]),
        )
        if fingerprint(json.loads(declared.text)) != declared.plan_hash:
            raise ValueError("its hash does not fit its text")
        flatten(declared.text)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = str(error)[:MOST_SAID]  # it may quote the file
        raise UsageError(
            f"the frozen plan {path} is malformed ({said}); restore it, or delete it to freeze the next one"
        ) from error
    return declared


def freeze(home: Path, plan: Plan, *, now: datetime) -> Declared:
    """Make this the frozen plan of its study and profile; freezing the same plan again keeps its date."""
    found = read_declared(home, plan.study, plan.profile)
    if found is not None and found.plan_hash == plan_hash(plan):
        return found
    declared = Declared(plan_hash=plan_hash(plan), text=plan_text(plan), frozen_at=now)
    path = _declared_path(home, plan.study, plan.profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"plan_hash": declared.plan_hash, "text": declared.text, "frozen_at": now.isoformat()}
    write_durably(path, json.dumps(body, ensure_ascii=False, indent=1).encode())
    return declared


def _declared_path(home: Path, study: str, profile: str) -> Path:
    return home / "plans" / study / f"{profile}.json"


def plan_row(plan: Plan, declared: Declared, *, now: datetime) -> PlanRow:
    """The plan as a row of the store, frozen when it is the declared one."""
    frozen = plan_hash(plan) == declared.plan_hash
    return PlanRow(
        plan_hash=plan_hash(plan),
        study=plan.study,
        profile=plan.profile,
        frozen=frozen,
        recorded_at=declared.frozen_at if frozen else now,
        text=plan_text(plan),
    )


def deviations(plan: Plan, declared: Declared) -> list[DeviationRow]:
    """One row for each field (`design.temperature`) in which a plan departs from the declared one."""
    said, used = flatten(declared.text), flatten(plan_text(plan))
    return [
        DeviationRow(
            plan_hash=plan_hash(plan),
            declared_hash=declared.plan_hash,
            field=name,
            declared=said.get(name, "absent"),
            used=used.get(name, "absent"),
        )
        for name in sorted(said.keys() | used.keys())
        if said.get(name) != used.get(name)
    ]


def flatten(text: str) -> dict[str, str]:
    """Fields of a stored plan by dotted name; a gate counts as one field.

    >>> flatten('{"alpha":0.05,"design":{"top_k":50},"gates":[{"name":"a_a","min_n":1}]}')
    {'alpha': '0.05', 'design.top_k': '50', 'gates.a_a': '{"min_n":1,"name":"a_a"}'}
    """
    out: dict[str, str] = {}
    for name, value in json.loads(text).items():
        if name == "design":
            out |= {f"design.{key}": canonical(inner) for key, inner in value.items()}
        elif name == "gates":
            out |= {f"gates.{gate['name']}": canonical(gate) for gate in value}
        else:
            out[name] = canonical(value)
    return out
