"""What makes the rank study INVALID: a missing base or probe, an arm that still learns, a repeated draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.products import Products
from models.kept import keep
from models.lora_recipe import Evaluation, LoraRecipe
from models.task_items import TaskSource
from stats.rows import TestRow
from tasks.rank_checks import Bounds, Cell, controls, fair, probe
from tasks.rank_placing import Placed
from tasks.rank_training import ANSWERS, ArmJob, Base, Exam

BOUNDS = Bounds(least_gain=0.05, most_fall=0.02)
RANKS = {f"h.{i}.up_proj": 1 + i % 4 for i in range(8)}
TURNED = dict(zip(RANKS, reversed(RANKS.values()), strict=True))
SOURCE = TaskSource(kind="word_problems", n_train=10, n_validation=1, n_test=10, seed=0)
BASE = Base(where="base", digest="d")


def trained(
    home: Path, arm: str, *, right: int, fall: float | None = 0.01, parameters: int = 100
) -> tuple[Cell, Exam, Placed]:
    """An arm of seed 42 as it is kept, answering `right` of ten items."""
    ranks = TURNED if arm.startswith("shuffled") else RANKS
    job = ArmJob(
        base=BASE,
        source=SOURCE,
        items=arm,
        ranks=ranks,
        initialisation="nested",
        recipe=LoraRecipe(),
        seed=42,
    )
    facts = {
        "realised": dict(ranks),
        "parameters": parameters,
        "validation_nll": 0.1,
        "validation_fall": fall,
    }
    keep(job.place(home), lambda folder: None, {"facts": facts}, identity=())
    exam = answered(home, job, right)
    return (42, arm), exam, Placed(arm=arm, ranks=ranks)


def answered(home: Path, job: ArmJob | None, right: int) -> Exam:
    """An evaluation with that many of ten items right."""
    exam = Exam(base=BASE, job=job, source=SOURCE, items="t", evaluation=Evaluation())
    Products(home, ANSWERS).write(exam.key, {"answers": [{"strict": k < right} for k in range(10)]})
    return exam


def verdict(rows: list[TestRow]) -> tuple[str | None, str]:
    """The verdict of a check and what it found."""
    row = next(row for row in rows if row.role == "verdict")
    return row.verdict, row.reason or ""


def probes(home: Path, *, right: int, fall: float | None = 0.01) -> tuple[str | None, str]:
    cell, exam, _ = trained(home, "probe", right=right, fall=fall)
    exams = {cell: exam, (None, "base"): answered(home, None, 1)}
    return verdict(probe(home, exams, {}, (42,), BOUNDS))


def test_a_base_or_a_probe_without_answers_is_invalid_with_the_reason(tmp_path: Path) -> None:
    failures: dict[Cell, str] = {(None, "base"): "not trained: stopped at its time limit"}
    found, why = verdict(probe(tmp_path, {}, failures, (42, 43), BOUNDS))
    assert found == "INVALID"
    assert why == "not trained: stopped at its time limit; probe has no answers; probe has no answers"


@pytest.mark.parametrize(
    ("right", "fall", "found", "why"),
    [
        (8, 0.01, "DETECTED", ""),
        (1, 0.01, "INVALID", "seed 42 answers +0.000 of the items more than the base"),
        (8, 0.5, "INVALID", "validation loss of seed 42 still falls by 0.100"),
        (8, None, "INVALID", "validation loss of seed 42 was not measured"),
    ],
)
def test_a_probe_must_have_learned_and_stopped_learning(
    right: int, fall: float | None, found: str, why: str, tmp_path: Path
) -> None:
    assert probes(tmp_path, right=right, fall=fall) == (found, why)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"fall": 0.5}, "validation loss of shuffled_within 1, seed 42 still falls by 0.100"),
        ({"fall": None}, "validation loss of shuffled_within 1, seed 42 was not measured"),
        ({"parameters": 101}, "shuffled_within 1 of seed 42: +1.00% parameters, 0.0% allowed"),
    ],
)
def test_every_arm_must_have_its_budget_and_have_stopped_learning(
    changes: dict[str, float | None], why: str, tmp_path: Path
) -> None:
    arms = [
        trained(tmp_path, "per_layer", right=8),
        trained(tmp_path, "shuffled_within 1", right=8, **changes),  # type: ignore[arg-type]
    ]
    exams = {cell: exam for cell, exam, _ in arms}
    placed = {cell: one for cell, _, one in arms}
    found = verdict(fair(tmp_path, exams, placed, {}, BOUNDS))
    assert found == ("INVALID" if why else "DETECTED", why)
    late = fair(tmp_path, exams, placed, {(42, "inverse"): "not trained: NaN"}, BOUNDS)
    assert "inverse of seed 42: not trained: NaN" in verdict(late)[1]


def test_an_arm_with_another_rank_than_planned_is_unfair(tmp_path: Path) -> None:
    cell, exam, one = trained(tmp_path, "per_layer", right=8)
    other = replace(one, ranks=RANKS | {"h.0.up_proj": 7})
    found, why = verdict(fair(tmp_path, {cell: exam}, {cell: other}, {}, BOUNDS))
    assert (found, why) == ("INVALID", "per_layer of seed 42 has another rank than planned in 1 modules")


def test_a_repeated_draw_is_no_second_control() -> None:
    placed: dict[Cell, Placed] = {
        (42, "per_layer"): Placed(arm="per_layer", ranks=RANKS),
        (42, "shuffled_within 1"): Placed(arm="shuffled_within 1", ranks=TURNED),
    }
    assert verdict(controls(placed))[0] == "DETECTED"
    placed[42, "shuffled_within 2"] = Placed(
        arm="shuffled_within 2", ranks=TURNED, notes=("draw 2 repeats draw 1: 1 other arrangements exist",)
    )
    found, why = verdict(controls(placed))
    assert found == "INVALID"
    assert why.startswith("shuffled_within 2 of seed 42: draw 2 repeats draw 1")
