"""Plans: hash, freeze, and the list of what departs from them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from flows.entropy_seeds import SMOKE, plan
from lab.errors import UsageError
from lab.plan import Plan, deviations, freeze, plan_hash, plan_row, plan_text, read_declared

NOW, LATER = datetime(2026, 11, 20, 22), datetime(2026, 11, 21, 22)
PLAN = plan(SMOKE)


def test_the_first_freeze_stands_with_its_date_until_another_plan_is_frozen(tmp_path: Path) -> None:
    assert read_declared(tmp_path, PLAN.study, "smoke") is None
    freeze(tmp_path, PLAN, now=NOW)
    assert freeze(tmp_path, PLAN, now=LATER).frozen_at == NOW
    other = replace(PLAN, alpha=0.01)
    assert freeze(tmp_path, other, now=LATER).plan_hash == plan_hash(other)
    found = read_declared(tmp_path, PLAN.study, "smoke")
    assert found is not None
    assert (found.plan_hash, found.frozen_at, found.text) == (plan_hash(other), LATER, plan_text(other))


def test_a_plan_row_is_frozen_only_when_it_is_the_declared_plan(tmp_path: Path) -> None:
    declared = freeze(tmp_path, PLAN, now=NOW)
    same = plan_row(PLAN, declared, now=LATER)
    assert (same.frozen, same.recorded_at) == (True, NOW)
    other = plan_row(replace(PLAN, alpha=0.01), declared, now=LATER)
    assert (other.frozen, other.recorded_at) == (False, LATER)


def test_every_field_that_departs_is_named_with_both_values(tmp_path: Path) -> None:
    declared = freeze(tmp_path, PLAN, now=NOW)
    gates = (replace(PLAN.gates[0], min_n=7), *PLAN.gates[1:])
    used = replace(PLAN, margin=0.3, design={**PLAN.design, "top_k": 1, "new": 2}, gates=gates)
    found = {row.field: (row.declared, row.used) for row in deviations(used, declared)}
    assert found.keys() == {"margin", "design.top_k", "design.new", "gates.positive_control"}
    assert found["margin"] == ("0.2", "0.3")
    assert found["design.new"] == ("absent", "2")
    assert deviations(PLAN, declared) == []


def test_model_machine_and_samples_are_outside_the_plan() -> None:
    assert plan_hash(plan(replace(SMOKE, model="pydoc-0.1m", samples=8))) == plan_hash(PLAN)
    assert plan_hash(plan(replace(SMOKE, temperature=0.8))) != plan_hash(PLAN)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"plan_hash": "x", "text": "{}", "frozen_at": "2026-01-01"}']
)
def test_a_damaged_frozen_plan_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    freeze(tmp_path, PLAN, now=NOW)
    path = tmp_path / "plans" / PLAN.study / "smoke.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"frozen plan .*smoke\.json is malformed .* delete it"):
        read_declared(tmp_path, PLAN.study, "smoke")


def test_a_refusal_does_not_quote_a_whole_file(tmp_path: Path) -> None:
    frozen = freeze(tmp_path, PLAN, now=NOW)
    path = tmp_path / "plans" / PLAN.study / "smoke.json"
    body = {"plan_hash": frozen.plan_hash, "text": frozen.text, "frozen_at": "x" * 50_000}
    path.write_text(json.dumps(body))
    with pytest.raises(UsageError, match="is malformed") as refused:
        read_declared(tmp_path, PLAN.study, "smoke")
    assert len(str(refused.value)) < 1_000


def test_an_edited_frozen_plan_is_refused(tmp_path: Path) -> None:
    freeze(tmp_path, PLAN, now=NOW)
    path = tmp_path / "plans" / PLAN.study / "smoke.json"
    body = json.loads(path.read_text())
    body["text"] = body["text"].replace('"alpha":0.05', '"alpha":0.10')
    path.write_text(json.dumps(body))
    with pytest.raises(UsageError, match="its hash does not fit its text"):
        read_declared(tmp_path, PLAN.study, "smoke")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"primary": ()}, "no primary metric"),
        ({"alpha": 0.0}, "alpha = 0.0; allowed"),
        ({"alpha": float("nan")}, "alpha = nan; allowed"),
        ({"margin": float("nan")}, "margin = nan; allowed"),
        ({"margin": -1.0}, "margin = -1.0; allowed"),
        ({"looks": ()}, "looks = .*; allowed"),
        ({"looks": (8, 4)}, "looks = .*; allowed"),
        ({"looks": (0, 4)}, "looks = .*; allowed"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    fields = {name: getattr(PLAN, name) for name in PLAN.__dataclass_fields__}
    with pytest.raises(UsageError, match=message):
        Plan(**fields | change)
