"""Every combination of verdicts has one scenario and a sentence; the earlier rule and what it leaves open."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import get_args

import numpy as np
import pytest

from stats.legacy_placement import criterion, legacy_scenario, legacy_scenario_rows
from stats.rank_scenario import (
    AGAINST,
    FULL,
    NOT_TOLD,
    UNIFORM,
    WITHIN,
    Name,
    Standing,
    scenario,
    scenario_of,
    standing,
)
from stats.rows import TestRow

STANDINGS: tuple[Standing, ...] = get_args(Standing)


def named(within: Standing, full: Standing, uniform: Standing) -> Name:
    return scenario({WITHIN: within, FULL: full, UNIFORM: uniform}).name


def test_every_combination_has_one_scenario_and_every_scenario_occurs() -> None:
    found = Counter(named(*combination) for combination in product(STANDINGS, repeat=3))
    assert found.total() == 125
    assert set(found) == set(get_args(Name))
    for combination in product(STANDINGS, repeat=len(AGAINST)):
        told = scenario(dict(zip(AGAINST, combination, strict=True)))
        assert told.name == named(*combination[:3])  # the other controls are told and change nothing
        assert told.sentence.endswith(".")
        assert all(words in told.sentence for words in AGAINST.values())


@pytest.mark.parametrize("full", STANDINGS)
@pytest.mark.parametrize("uniform", STANDINGS)
def test_only_the_deciding_contrast_makes_a_mechanism_and_only_when_detected(
    full: Standing, uniform: Standing
) -> None:
    assert named("better", full, uniform) == "real mechanism"
    assert named("worse", full, uniform) == "harmful"
    for within in NOT_TOLD:
        assert named(within, full, uniform) == "inconclusive"  # type: ignore[arg-type]
    assert named("equivalent", full, uniform) != "real mechanism"


def test_heterogeneity_only_needs_both_equivalences_and_a_benefit_over_uniform() -> None:
    combinations = product(STANDINGS, repeat=3)
    assert [c for c in combinations if named(*c) == "heterogeneity only"] == [
        ("equivalent", "equivalent", "better")
    ]


def test_a_benefit_between_module_types_is_its_own_finding_unless_uniform_is_better() -> None:
    for uniform in STANDINGS:
        found = scenario({WITHIN: "equivalent", FULL: "better", UNIFORM: uniform})
        expected = "harmful" if uniform == "worse" else "benefit between module types"
        assert found.name == expected
    assert "between module types" in scenario({WITHIN: "equivalent", FULL: "better"}).sentence


@pytest.mark.parametrize(
    ("full", "uniform", "name"),
    [
        ("equivalent", "equivalent", "no benefit"),
        ("inconclusive", "equivalent", "no benefit"),
        ("equivalent", "worse", "harmful"),
        ("worse", "better", "harmful"),
        ("inconclusive", "better", "inconclusive"),
        ("equivalent", "inconclusive", "inconclusive"),
        ("invalid", "invalid", "inconclusive"),
    ],
)
def test_when_equivalent_within_types_the_other_contrasts_name_it(
    full: Standing, uniform: Standing, name: str
) -> None:
    assert named("equivalent", full, uniform) == name


def test_a_mechanism_that_equal_ranks_beat_says_so() -> None:
    found = scenario({WITHIN: "better", UNIFORM: "worse"})
    assert found.name == "real mechanism"
    assert "and yet equal ranks do better" in found.sentence


def test_contrasts_not_run_count_as_not_told() -> None:
    for within in STANDINGS:
        assert scenario({WITHIN: within}).name == named(within, "inconclusive", "inconclusive")
    with pytest.raises(ValueError, match="shuffled_within decides and must be there"):
        scenario({FULL: "better"})
    with pytest.raises(ValueError, match=r"unknown \{'shuffled_fully': 'better'\}"):
        scenario({WITHIN: "better", "shuffled_fully": "better"})
    with pytest.raises(ValueError, match=r"unknown \{'shuffled_within': 'DETECTED'\}"):
        scenario({WITHIN: "DETECTED"})  # type: ignore[dict-item]


def row(verdict: str | None, estimate: float | None = 0.004, **rest: object) -> TestRow:
    return TestRow(
        family="mechanism",
        hypothesis="difference",
        contrast="per_layer-shuffled_within",
        method="t",
        role="decides",
        estimate=estimate,
        verdict=verdict,
        **rest,  # type: ignore[arg-type]
    )


def test_rows_are_read_with_their_sign_and_a_negligible_effect_is_told() -> None:
    assert standing(row("DETECTED", -0.1)) == "worse"
    assert [standing(row(v)) for v in ("DETECTED", "EQUIVALENT", "INCONCLUSIVE", "INVALID")] == [
        "better",
        "equivalent",
        "inconclusive",
        "invalid",
    ]
    found = scenario_of([row("DETECTED", negligible=True)])
    assert found.name == "real mechanism"
    assert "(by less than the margin)" in found.sentence
    assert "margin" not in scenario_of([row("DETECTED", negligible=False)]).sentence
    for bad in (row(None), row("DETECTED", None), row("DETECTED", 0.0)):
        with pytest.raises(ValueError, match="per_layer-shuffled_within"):
            standing(bad)


PLACED = np.array([0.740, 0.781, 0.752, 0.763])
NOISE = np.array([0.004, -0.003, 0.002, -0.003])


@pytest.mark.parametrize(
    ("over_probe", "over_shuffled", "name"),
    [(0.03, 0.02, "S1"), (0.03, 0.005, "S2"), (0.015, 0.005, "S3"), (0.015, 0.02, "not covered by that rule"),
     (-0.03, -0.02, "S3")],
)  # fmt: skip
def test_the_earlier_rule_has_three_answers_and_a_gap(
    over_probe: float, over_shuffled: float, name: str
) -> None:
    found = legacy_scenario(PLACED, PLACED - over_probe + NOISE, PLACED - over_shuffled - NOISE)
    assert found.name == name
    rows = legacy_scenario_rows(found, shuffled="shuffled_free")
    assert {r.role for r in rows} == {"legacy"}
    assert rows[-1].reason == name
    by_name = {r.hypothesis: r.estimate for r in rows}
    assert by_name["superiority"] == pytest.approx(over_probe)
    assert by_name["mechanism_d_pooled"] is not None
    assert by_name["mechanism_d_z"] is not None
    assert abs(by_name["mechanism_d_z"]) > abs(by_name["mechanism_d_pooled"])


def test_the_choice_of_d_is_said_where_it_decides() -> None:
    spread = np.array([-0.3, -0.1, 0.1, 0.3])
    found = criterion(0.6 + spread + 0.03, 0.6 + spread + NOISE, more_than=0.02, d_more_than=0.5)
    assert found.student.p is not None
    assert found.student.p < 0.05
    assert found.holds is False
    assert found.reason == "by d_z the criterion would hold"


def test_one_seed_or_seeds_that_do_not_vary_leave_the_earlier_rule_undefined() -> None:
    for placed, other in ((PLACED[:1], PLACED[:1] - 0.1), (PLACED, PLACED - 0.125)):
        found = legacy_scenario(placed, other, other)
        assert found.name is None
        assert found.reason is not None
        rows = legacy_scenario_rows(found, shuffled="shuffled_within")
        assert rows[-1].reason is not None
        assert rows[-1].reason.startswith("undefined; probe: ")
        assert rows[0].p is None
