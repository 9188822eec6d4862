"""What the experiments conclude from bits that are made up: planted damage, nulls, failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.quant_protocol import replicates
from lab.errors import UsageError
from models.languages import LANGUAGES
from models.variants import CorpusSource
from stats.language_verdicts import family_verdict
from stats.rows import TestRow
from tasks import quant_questions as questions
from tasks.quant_measured import Asked, Measured, Sentences, levels_of, refuse_unreachable
from tasks.quant_nulls import judged

CORPUS = CorpusSource(kind="cldr", sentences=96).load()
ASKED = Asked(languages=LANGUAGES, margin=1.0, alpha=0.05, resamples=2000)
EVERYTHING = Sentences(corpus=CORPUS, places=tuple(range(len(CORPUS.ids))))
LOW = {one.code for one in LANGUAGES if one.tier == "low"}
OTHERS = ("bf16", "int8", "int2")


def body(cost: dict[str, float], kl: float, seed: int) -> dict[str, Any]:
    """An evaluation: a baseline of 2.5 bits a byte, and a cost in bits a sentence by language."""
    rng = np.random.default_rng(seed)
    languages = {}
    for place, one in enumerate(LANGUAGES):
        plain = 2.5 * np.array(CORPUS.n_bytes(one.code), float)
        noise = rng.normal(0.0, 0.3, len(plain)) if any(cost.values()) else 0.0
        own = 0.05 * (place % 3) if cost[one.code] else 0.0
        languages[one.code] = {
            "bits": (plain + cost[one.code] + own + noise).tolist(),
            "tokens": (np.array(CORPUS.n_bytes(one.code)) // 2).tolist(),
            "kl_bits": [kl] * len(plain),
            "flips": [1] * len(plain),
            "kl_reason": None,
            "reason": None,
        }
    return {"languages": languages, "coverage": None}


def same(cost: float) -> dict[str, float]:
    return {one.code: cost for one in LANGUAGES}


def bodies(int4: dict[str, float]) -> dict[str, Any]:
    unigram = {
        one.code: {
            "bits": (4.0 * np.array(CORPUS.n_bytes(one.code), float)).tolist(),
            "bits_per_token": 8.0,
            "reason": None,
        }
        for one in LANGUAGES
    }
    return {
        "fp32": {**body(same(0.0), 0.0, 0), "unigram": unigram, "vocabulary": 1024},
        "fp32 again": body(same(0.0), 0.0, 0),
        "bf16": body(same(0.0), 1e-6, 0),
        "int8": body(same(0.01), 0.02, 1),
        "int4": body(int4, 2.0, 2),
        "int2": body(same(20.0), 30.0, 3),
    }


def measured(cost: dict[str, float], **other: Any) -> Measured:
    return Measured(ASKED, EVERYTHING, bodies(cost) | other)


def verdict(rows: list[TestRow]) -> TestRow:
    [row] = [row for row in rows if row.hypothesis == "experiment"]
    assert row.role == "verdict"
    return row


def planted(low: float, high: float) -> dict[str, float]:
    return {one.code: low if one.code in LOW else high for one in LANGUAGES}


def test_damage_in_one_group_is_detected_with_its_sign_and_the_same_in_both_is_not() -> None:
    found = verdict(questions.disparity(measured(planted(4.0, 1.0)), "A-003", OTHERS))
    assert found.verdict == "DETECTED"
    assert found.estimate is not None
    assert found.estimate == pytest.approx(3.0, abs=0.2)
    assert not found.negligible
    against = verdict(questions.disparity(measured(planted(1.0, 4.0)), "A-003", OTHERS))
    assert against.verdict == "DETECTED"
    assert against.estimate is not None
    assert against.estimate < -2.5
    both = verdict(questions.disparity(measured(same(4.0)), "A-003", OTHERS))
    assert both.verdict == "EQUIVALENT"
    assert both.low is not None
    assert both.high is not None
    assert -ASKED.margin < both.low < both.high < ASKED.margin


def test_the_legacy_ratio_is_beside_the_gap_and_moves_where_the_gap_does_not() -> None:
    rows = questions.disparity(measured(same(4.0)), "A-003", OTHERS)
    legacy = {(row.hypothesis, row.contrast): row for row in rows if row.role == "legacy"}
    ratio = legacy["degradation_ratio", "int4"]
    assert ratio.estimate is not None
    assert ratio.method.endswith(("none", "mild", "moderate", "significant", "massive"))
    assert None not in (ratio.low, ratio.high)
    assert legacy["gap_nats", "int4"].estimate is not None
    noise = legacy["degradation_ratio", "bf16"]
    assert noise.estimate is None  # the high-resource languages change by nothing


def test_only_the_question_decides_and_the_rest_is_shown() -> None:
    rows = questions.disparity(measured(planted(4.0, 1.0)), "A-003", OTHERS)
    deciding = {(row.contrast, row.hypothesis) for row in rows if row.role in ("decides", "verdict")}
    assert deciding == {("int4", "gap"), ("int4", "experiment")}


def test_a_model_that_is_no_better_than_a_unigram_model_is_invalid_and_named() -> None:
    at = measured(same(1.0))
    at.bodies["fp32"]["unigram"]["ur"]["bits_per_token"] = 1.0
    found = verdict(questions.baseline(at, "A-001"))
    assert found.verdict == "INVALID"
    assert found.reason is not None
    assert "worse than the unigram model" in found.reason
    assert verdict(questions.baseline(measured(same(1.0)), "A-001")).verdict == "DETECTED"


def test_a_rounding_that_collapses_the_model_is_invalid_and_not_massive() -> None:
    ruined = body(same(0.0), 500.0, 4)
    for one in LANGUAGES:
        ruined["languages"][one.code]["bits"] = [9.99 * n for n in ruined["languages"][one.code]["tokens"]]
    rows = questions.disparity(measured(same(1.0), int4=ruined), "A-003", OTHERS)
    found = verdict(rows)
    assert found.verdict == "INVALID"
    assert found.reason is not None
    assert "collapsed" in found.reason
    assert not [row for row in rows if row.role == "legacy" and row.contrast == "int4"]


@pytest.mark.parametrize("name", ["fp32 again", "bf16", "int8", "int2"])
def test_a_null_that_is_off_makes_the_degradation_invalid(name: str) -> None:
    wrong = {
        "fp32 again": body(same(0.001), 0.0, 7),
        "bf16": body(same(0.7), 0.1, 7),
        "int8": body(same(0.9), 1.5, 7),
        "int2": body(same(1.2), 2.5, 7),
    }[name]
    at = measured(same(1.0), **{name: wrong})
    for rows in (questions.degradation(at, "A-002"), questions.disparity(at, "A-003", OTHERS)):
        assert verdict(judged(rows, at)).verdict == "INVALID"
    found = verdict(judged(questions.degradation(at, "A-002"), at))
    assert found.verdict == "INVALID"
    assert found.reason is not None
    assert name in found.reason
    whole = measured(same(3.0))
    good = verdict(judged(questions.degradation(whole, "A-002"), whole))
    assert good.verdict == "DETECTED"


def test_a_language_without_a_number_invalidates_and_says_why() -> None:
    at = measured(same(1.0))
    nothing = dict.fromkeys(("bits", "tokens", "kl_bits", "flips"))
    at.bodies["int4"]["languages"]["sw"] = nothing | {"reason": "sw: the loss of sentence 3 is nan"}
    for rows in (questions.disparity(at, "A-003", OTHERS), questions.degradation(at, "A-002")):
        found = verdict(rows)
        assert found.verdict == "INVALID"
        assert found.reason is not None
        assert "sentence 3 is nan" in found.reason


def test_a_null_that_moves_the_tiers_apart_and_not_the_mean_is_seen() -> None:
    apart = body(planted(0.4, -0.4), 1e-6, 8)
    at = measured(same(3.0), bf16=apart)
    found = verdict(judged(questions.degradation(at, "A-002"), at))
    assert found.verdict == "INVALID"
    assert found.reason is not None
    assert "gap between tiers" in found.reason


PAIRS = {
    f"B-00{i}": (f"keep {p} %", f"random {p} %", f"activation {p} %") for i, p in enumerate((5, 10, 20), 1)
}


def preserved(saved: dict[int, float]) -> dict[str, Any]:
    found = {}
    for place, percent in enumerate((5, 10, 20)):
        found[f"random {percent} %"] = body(same(3.0), 1.0, 10 + place)
        found[f"activation {percent} %"] = body(same(3.0 - saved[percent]), 1.0, 20 + place)
    return found


def test_a_budget_that_saves_more_than_random_is_detected_and_others_are_not() -> None:
    at = measured(same(3.0), **preserved({5: 0.0, 10: 2.0, 20: 2.2}))
    rows = questions.budgets(at, PAIRS, ["random 5 %", "activation 5 %"], {})
    found = {row.family: row for row in rows if row.hypothesis == "experiment"}
    assert [found[f"B-00{i}"].verdict for i in (1, 2, 3)] == ["EQUIVALENT", "DETECTED", "DETECTED"]
    decides = [row for row in rows if row.role == "decides"]
    assert len(decides) == 3
    adjusted = sorted(row.p_adjusted for row in decides if row.p_adjusted is not None)
    assert adjusted[0] == pytest.approx(3 * min(row.p for row in decides if row.p is not None))
    assert {row.contrast.split(":")[0] for row in rows if row.family == "pareto"} == {
        "int4", "random 5 %", "activation 5 %"
    }  # fmt: skip


def test_a_budget_that_failed_stays_in_the_family_and_is_invalid() -> None:
    at = measured(same(3.0), **preserved({5: 2.0, 10: 2.0, 20: 2.2}))
    rows = questions.budgets(at, PAIRS, [], {"B-002": "stopped at its time limit of 5 s"})
    found = {row.family: row for row in rows if row.hypothesis == "experiment"}
    assert [found[f"B-00{i}"].verdict for i in (1, 2, 3)] == ["DETECTED", "INVALID", "DETECTED"]
    assert found["B-002"].reason is not None
    assert "time limit" in found["B-002"].reason


def test_the_budget_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    at = measured(same(3.0), **preserved({5: 0.1, 10: 2.0, 20: 2.0}))
    names = {float(p): f"activation {p} %" for p in (5, 10, 20)}
    rows = questions.best_budget(at, names, "B-004")
    gone = measured(same(3.0), **preserved({5: 0.1, 10: 2.0, 20: 2.0}))
    nothing = dict.fromkeys(("bits", "tokens", "kl_bits", "flips"))
    gone.bodies["activation 10 %"]["languages"]["sw"] = nothing | {"reason": "sw: nan"}
    assert verdict(questions.best_budget(gone, names, "B-004")).verdict == "INVALID"
    [chosen] = [row for row in rows if row.hypothesis == "chosen"]
    assert chosen.estimate in (10.0, 20.0)
    assert verdict(rows).verdict == "DETECTED"
    first, second = EVERYTHING.halves()
    documents = [{CORPUS.documents[i] for i in half.places} for half in (first, second)]
    assert documents[0] & documents[1] == set()
    assert len(first.places) + len(second.places) == len(CORPUS.ids)


def sweep_product(saves: list[float]) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    languages = {}
    for one in LANGUAGES:
        plain = 2.5 * np.array(CORPUS.n_bytes(one.code), float)
        quantised = plain + 6.0 + rng.normal(0, 0.2, len(plain))
        kept = [quantised - s + rng.normal(0, 0.2, len(plain)) for s in saves]
        languages[one.code] = {
            "quantised": quantised.tolist(),
            "protected": np.array(kept).tolist(),
            "only": np.array([plain + s for s in saves]).tolist(),
            "kept_sets": np.array([kept[2], kept[0], kept[1]]).tolist(),
            "diagnostics": [
                {"weight_kurtosis": 3.0 + b, "activation_outliers": 9.0 - b, "mean_activation": 1.0}
                for b in range(len(saves))
            ],
            "reason": None,
        }
    return {"blocks": len(saves), "languages": languages}


def test_the_block_that_carries_the_damage_is_found_and_keeping_it_beats_keeping_others() -> None:
    at = measured(same(6.0))
    rows, saved = questions.critical_blocks(at, sweep_product([1.0, 1.0, 4.0]), "C-001")
    assert verdict(rows).verdict == "DETECTED"
    assert int(np.argmax(saved)) == 2
    sets = questions.chosen_sets(saved, 1, seed=0)
    assert sets[0] == (2,)
    assert sorted(sets) == [(0,), (1,), (2,)]
    after = questions.layer_protection(at, sweep_product([1.0, 1.0, 4.0]), sets, "C-002")
    assert verdict(after).verdict == "DETECTED"
    assert verdict(rows).contrast == "block 2"
    assert (verdict(rows).estimate or 0.0) > 1.5
    [none] = questions.layer_protection(at, {}, questions.chosen_sets(saved, 3, seed=0), "C-002")
    assert none.verdict == "INVALID"
    assert "no others to compare with" in str(none.reason)
    weak, _ = questions.critical_blocks(at, sweep_product([9.0, 9.0, 1.0]), "C-001")
    assert verdict(weak).contrast in ("block 0", "block 1")
    assert (verdict(weak).estimate or 0.0) > 2.0
    alike, _ = questions.critical_blocks(at, sweep_product([2.0, 2.0, 2.0]), "C-001")
    assert verdict(alike).verdict == "EQUIVALENT"


def block(name: str, estimate: float, said: str, tost_p: float) -> list[TestRow]:
    """A block's contrast and its test of equivalence; a `~` makes the verdict negligible."""
    row = TestRow(
        family="C-001", hypothesis="protect_contrast", method="t", role="decides", contrast=name, alpha=0.05,
        margin=1.0, estimate=estimate, low=estimate - 0.1, high=estimate + 0.1, p=0.01, p_adjusted=0.03,
        verdict=said.lstrip("~"), negligible=said[0] == "~" or None,
    )  # fmt: skip
    return [row, replace(row, hypothesis="protect_contrast_tost", role="equivalence", p=tost_p, verdict=None)]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([(0.06, "EQUIVALENT", 0.001), (-0.07, "~DETECTED", 0.001)], "EQUIVALENT"),
        ([(0.06, "~DETECTED", 0.001), (-0.07, "INCONCLUSIVE", 0.2)], "INCONCLUSIVE"),
        ([(0.5, "INCONCLUSIVE", 0.2), (-2.0, "DETECTED", 0.9)], "INCONCLUSIVE"),
        ([(2.0, "DETECTED", 0.9), (-2.0, "DETECTED", 0.9)], "DETECTED"),
    ],
)
def test_only_a_block_above_the_mean_is_critical_and_all_within_the_margin_are_equivalent(
    blocks: list[tuple[float, str, float]], expected: str
) -> None:
    rows = [row for i, one in enumerate(blocks) for row in block(f"block {i}", *one)]
    found = questions.most_critical([*rows, family_verdict(rows)], "C-001")
    assert (found.verdict, found.negligible) == (expected, None)
    assert found.contrast == "block 0" or expected != "DETECTED"


def test_of_many_sets_of_blocks_a_fixed_draw_is_compared() -> None:
    sets = questions.chosen_sets(list(range(12)), 3, seed=0)
    assert sets[0] == (9, 10, 11)
    assert len(sets) == len(set(sets)) == 13
    assert sets == questions.chosen_sets(list(range(12)), 3, seed=0)


def test_a_plan_that_no_data_could_reject_is_refused_with_the_smallest_p() -> None:
    three = tuple(one for one in LANGUAGES if one.code in ("en", "de", "ru", "sw", "cy", "ne"))
    with pytest.raises(UsageError, match=r"0?\.1"):
        refuse_unreachable(three, (96,), 0.05)
    refuse_unreachable(LANGUAGES, (96, 192), 0.05)
    assert levels_of((96, 192), 0.05)[96] > 2 / 252


def test_without_its_nulls_nothing_is_concluded_of_a_model() -> None:
    at = measured(planted(4.0, 1.0))
    rows = questions.disparity(at, "A-003", OTHERS)
    assert verdict(judged(rows, at)).verdict == "DETECTED"
    without = Measured(ASKED, EVERYTHING, {k: v for k, v in at.bodies.items() if k != "bf16"})
    found = verdict(judged(rows, without))
    assert found.verdict == "INVALID"
    assert found.reason is not None
    assert "bf16 was not measured" in found.reason


def test_folds_share_no_document_and_leave_none_out() -> None:
    folds = replicates("gpt2", 2)
    places = [fold.places(CORPUS.documents) for fold in folds]
    assert sorted(places[0] + places[1]) == list(range(len(CORPUS.ids)))
    documents = [{CORPUS.documents[i] for i in found} for found in places]
    assert documents[0] & documents[1] == set()
    assert min(map(len, documents)) >= 8
    assert {one.name for one in replicates("cldr-gpt2", 2)} == {"cldr-gpt2 seed 0", "cldr-gpt2 seed 1"}
