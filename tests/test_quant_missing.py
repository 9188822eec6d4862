"""What the experiments say when a language has no numbers: in the unquantised model, or in a sweep alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.products import Products
from models.variants import CorpusSource
from stats.rows import TestRow
from tasks import quant_questions as questions
from tasks.quant_analysis import Question, answer, result_rows
from tasks.quant_measured import Measured, left_out
from tasks.quant_measuring import EVALUATION, SWEEP
from tasks.quant_nulls import failed_checks
from tests.test_quant_questions import (
    ASKED,
    EVERYTHING,
    LOW,
    OTHERS,
    PAIRS,
    bodies,
    measured,
    planted,
    preserved,
    same,
    sweep_product,
    verdict,
)

WHY = "sw: sentence 3 has a loss of nan (1 of 96 sentences are not finite)"
NOTHING: dict[str, Any] = dict.fromkeys(("bits", "tokens", "kl_bits", "flips", "kl_reason"))
SAVES = [1.0, 1.0, 4.0]
BUDGETS = [[float(percent), f"activation {percent} %"] for percent in (5, 10, 20)]
KINDS: Mapping[str, Mapping[str, Any]] = {
    "baseline": {},
    "degradation": {},
    "disparity": {"others": list(OTHERS), "with_nulls": True},
    "budgets": {
        "pairs": {name: list(pair) for name, pair in PAIRS.items()},
        "variants": ["random 5 %", "activation 5 %"],
        "absent": {},
    },
    "best_budget": {"names": BUDGETS},
    "blocks": {},
    "layer_protection": {"sets": [[2], [0], [1]]},
}


def measured_without(*, variants_too: bool) -> dict[str, Any]:
    """All evaluations; the unquantised model, or every variant too, has no number in Swahili."""
    found = bodies(planted(4.0, 1.0)) | preserved({5: 0.1, 10: 2.0, 20: 2.2})
    for name in found if variants_too else ("fp32",):
        found[name]["languages"]["sw"] = NOTHING | {"reason": WHY}
    if not variants_too:
        for name in set(found) - {"fp32"}:
            lone = found[name]["languages"]["sw"]
            lone |= {"kl_bits": None, "flips": None, "kl_reason": f"no unquantised model beside it: {WHY}"}
    return found


def answered(home: Path, kind: str, found: Mapping[str, Any], sweep: Any = None) -> dict[str, Any]:
    """The answer as it is filed."""
    keys = {name: f"key-{place}" for place, name in enumerate(found)}
    for name, key in keys.items():
        Products(home, EVALUATION).write(key, found[name])
    Products(home, SWEEP).write("swept", sweep_product(SAVES) if sweep is None else sweep)
    question = Question(
        kind=kind, family="A", asked=ASKED, source=CorpusSource(kind="cldr", sentences=96),
        places=EVERYTHING.places, keys=keys, sweep="swept", details=KINDS[kind],
    )  # fmt: skip
    Products(home, "answer").write(kind, answer(home, question))
    told: dict[str, Any] = Products(home, "answer").read(kind)
    return told


@pytest.mark.parametrize("variants_too", [True, False], ids=["everywhere", "in the unquantised model"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_language_without_a_baseline_makes_every_question_invalid_by_name_and_loses_no_other(
    tmp_path: Path, kind: str, variants_too: bool
) -> None:
    body = answered(tmp_path, kind, measured_without(variants_too=variants_too))
    rows = [TestRow(**row) for row in body["rows"]]
    verdicts = [row for row in rows if row.hypothesis == "experiment"]
    assert len(verdicts) == (3 if kind == "budgets" else 1)
    for row in verdicts:
        assert row.verdict == "INVALID"
        assert row.reason is not None
        assert WHY in row.reason
    metrics = {(variant, code, name): value for variant, code, name, value, _ in body["metrics"]}
    assert metrics["fp32", "sw", "bits_per_sentence"] is None
    assert metrics["fp32", "en", "bits_per_sentence"] > 0.0
    assert metrics["int4", "en", "kl_bits_per_byte"] > 0.0
    assert (metrics["int4", "sw", "bits_per_sentence"] is None) == variants_too
    if not variants_too:
        assert metrics["int4", "sw", "kl_bits_per_byte"] is metrics["int4", "sw", "flip_rate"] is None
    assert len(result_rows(body, key="k", study="s", model="m", look=96)) == len(rows) + len(body["metrics"])


def test_the_costs_of_the_other_languages_are_shown_beside_the_reason(tmp_path: Path) -> None:
    body = answered(tmp_path, "baseline", measured_without(variants_too=True))
    whole = questions.baseline(measured(planted(4.0, 1.0)), "A")
    rows = {(row["hypothesis"], row["contrast"]): TestRow(**row) for row in body["rows"][:-1]}
    for row in whole[:-1]:
        found = rows[row.hypothesis, row.contrast]
        if row.contrast == "sw":
            assert (found.estimate, found.low, found.reason) == (None, None, WHY)
        else:
            assert found == row


def test_the_reason_is_said_once_and_not_with_every_check_that_needs_the_baseline() -> None:
    at = Measured(ASKED, EVERYTHING, measured_without(variants_too=True))
    assert failed_checks(at) == [WHY]
    lone = Measured(ASKED, EVERYTHING, measured_without(variants_too=False))
    assert failed_checks(lone) == [WHY]


def test_a_language_without_a_unigram_model_is_not_known_not_to_have_collapsed(tmp_path: Path) -> None:
    found, why = bodies(planted(4.0, 1.0)), "sw: no unigram model: token ids run from 0 to 9"
    found["fp32"]["unigram"]["sw"] = {"bits": None, "bits_per_token": None, "reason": why}
    body = answered(tmp_path, "baseline", found)
    rows = {(row["hypothesis"], row["contrast"]): row for row in body["rows"][:-1]}
    assert rows["cost", "sw"]["estimate"] > 0.0
    assert rows["saved_against_unigram", "sw"]["reason"] == why
    assert body["rows"][-1]["verdict"] == "INVALID"
    assert why in body["rows"][-1]["reason"]
    for kind in ("degradation", "disparity"):
        [row] = [row for row in answered(tmp_path, kind, found)["rows"] if row["hypothesis"] == "experiment"]
        assert row["verdict"] == "INVALID"
        assert why in row["reason"]


def sweep_without(*codes: str) -> dict[str, Any]:
    """A sweep in which some languages have no number."""
    found = sweep_product(SAVES)
    for code in codes:
        found["languages"][code] = {
            "language": code,
            "reason": f"{code}: blocks qff: sentence 3 has a loss of nan",
        }
    return found


def test_a_sweep_is_read_without_a_language_that_it_has_no_number_of_and_the_verdict_names_it() -> None:
    at = measured(same(6.0))
    partial, whole = sweep_without("sw"), sweep_product(SAVES)
    rows, saved = questions.critical_blocks(at, partial, "C-001")
    among_others, expected = questions.critical_blocks(at.without(["sw"]), whole, "C-001")
    np.testing.assert_array_equal(saved, expected)
    found, alike = verdict(rows), verdict(among_others)
    assert (found.verdict, found.contrast, found.estimate, found.p) == (
        "DETECTED", "block 2", alike.estimate, alike.p
    )  # fmt: skip
    assert found.reason == "left out: sw: blocks qff: sentence 3 has a loss of nan"
    assert [(row.contrast, row.role) for row in rows if row.hypothesis == "left_out"] == [
        ("sw", "diagnostic")
    ]
    assert not [row for row in rows if row.contrast.endswith(":sw")]
    sets = questions.chosen_sets(saved, 1, seed=0)
    after = questions.layer_protection(at, partial, sets, "C-002")
    assert verdict(after).verdict == "DETECTED"
    assert verdict(after).reason == found.reason
    assert verdict(questions.layer_protection(at, whole, sets, "C-002")).reason is None


def test_a_sweep_without_a_number_in_a_whole_tier_is_invalid_and_chooses_no_blocks(tmp_path: Path) -> None:
    partial = sweep_without(*LOW)
    rows, saved = questions.critical_blocks(measured(same(6.0)), partial, "C-001")
    assert saved == []
    for told in (rows, questions.layer_protection(measured(same(6.0)), partial, [(2,), (0,), (1,)], "C-002")):
        assert verdict(told).verdict == "INVALID"
        assert all(f"{code}: blocks qff" in (verdict(told).reason or "") for code in LOW)
    body = answered(tmp_path, "blocks", bodies(same(6.0)), partial)
    assert body["further"] == {}
    assert answered(tmp_path, "blocks", bodies(same(6.0)))["further"]["saved"]


def test_a_language_without_a_baseline_is_left_out_of_a_sweep_that_has_its_numbers() -> None:
    at = Measured(ASKED, EVERYTHING, measured_without(variants_too=False))
    assert left_out(at, sweep_product(SAVES)) == {"sw": WHY}
