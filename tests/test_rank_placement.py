"""Placement against its controls: R's numbers, symmetries, verdicts, and what is undefined or refused."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.paired_seeds import (
    detectable,
    detectable_after_holm,
    hierarchical_bootstrap,
    least_seeds,
    mcnemar,
    paired_t,
    seeds_to_settle,
    within_seed_rank,
)
from stats.placement_rows import DECLARED, Contrast, analyse_placement
from stats.rank_placement import PlacementEffect, placement_effect
from stats.rows import FloatArray, TestRow
from tests.from_r import congruential

BOOTSTRAP = Path(__file__).parent / "reference" / "paired_bootstrap.txt"
REFERENCE = Path(__file__).parent / "reference" / "rank_placement.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
SEEDS, SHUFFLES, ITEMS, MARGIN = 6, 3, 40, 0.06


def r_answers() -> tuple[FloatArray, FloatArray]:
    """The answers that `rank_placement.R` makes: (S, I) of the treatment, (S, K, I) of the shuffles."""
    s, k, i = np.ogrid[1 : SEEDS + 1, 0 : SHUFFLES + 1, 1 : ITEMS + 1]
    level = 0.8 * np.sin(11 * s + 5 * k) + 0.25 + 0.4 * (k == 0)
    right = (np.sin(1.7 * i + 0.9 * s * k + 2.3 * k) + level > 0).astype(np.float64)
    return right[:, 0], right[:, 1:]


Y, X = r_answers()


def effect(
    y: FloatArray = Y, x: FloatArray = X, *, resamples: int = 50, margin: float = MARGIN, tests: int = 1
) -> PlacementEffect:
    rng = np.random.default_rng(0)
    return placement_effect(y, x, margin=margin, rng=rng, resamples=resamples, tests=tests)


FOUND = effect()


def test_every_number_on_a_contrast_is_that_of_r() -> None:
    found = {
        **{f"difference_{s + 1}": d for s, d in enumerate(FOUND.differences)},
        "estimate": FOUND.estimate,
        "t": FOUND.student.statistic,
        "p_t": FOUND.p_t,
        "low": FOUND.low,
        "high": FOUND.high,
        "d_z": FOUND.d_z,
        "d_pooled": FOUND.d_pooled,
        "tost_p": FOUND.tost_p,
        "not_below_t": FOUND.p_not_below_t,
        "tost_low": FOUND.equivalence.low if FOUND.equivalence else None,
        "tost_high": FOUND.equivalence.high if FOUND.equivalence else None,
        "p_sign_flip": FOUND.p_sign_flip,
        "p_not_below": FOUND.p_not_below,
        "rank_sum": sum(FOUND.ranks.ranks),
        "p_rank": FOUND.p_rank,
        "sd_shuffle": FOUND.sd_shuffle,
        "sd_item": FOUND.sd_item,
        "sd_difference": FOUND.spread.difference,
        "sd_seed": FOUND.sd_seed,
    }
    assert found == pytest.approx({name: R[name] for name in found}, rel=1e-9, abs=1e-12)
    for s in (1, 2):
        test = mcnemar(Y[s - 1], X[s - 1, 0])
        assert (test.only_first, test.only_second) == (R[f"mcnemar_b_{s}"], R[f"mcnemar_c_{s}"])
        assert test.p == pytest.approx(R[f"mcnemar_p_{s}"], rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 6, 8, 20])
def test_detectable_differences_are_those_of_r(seeds: int) -> None:
    assert detectable(1.0, seeds) == pytest.approx(R[f"mde_{seeds}_0.050"], rel=1e-5)
    if seeds == 2:  # a noncentrality of 103: R's pt is documented to lose accuracy beyond 37.6
        return
    corrected = detectable(2.0, seeds, alpha=0.05 / 6)
    assert corrected == pytest.approx(2.0 * R[f"mde_{seeds}_0.008"], rel=1e-5)


@pytest.mark.parametrize("tests", [1, 6])
@pytest.mark.parametrize("ratio", [2.5, 1, 0.5, 0.2])
def test_seeds_that_settle_are_those_of_r(ratio: float, tests: int) -> None:
    assert seeds_to_settle(1.0, margin=ratio, tests=tests) == R[f"settle_{ratio:g}_{tests}"]


def test_three_seeds_need_a_d_z_of_three_and_even_then_signs_cannot_reject() -> None:
    assert detectable(1.0, 3) == pytest.approx(3.26, abs=0.005)
    assert detectable_after_holm(1.0, 3) is None
    found = effect(Y[:3], X[:3])
    assert found.smallest_p == 0.25
    assert found.p_sign_flip >= 0.25
    assert found.mde is not None
    assert found.plan.mde_after_holm is None
    why = "3 seeds: sign flips reach p = 0.25 at the least, times 1 tests above 0.05; 6 seeds are the fewest"
    assert found.undefined["mde_after_holm"] == why


def test_eight_seeds_are_the_fewest_for_six_contrasts_and_six_for_one() -> None:
    assert (least_seeds(), least_seeds(tests=6), least_seeds(tests=7)) == (6, 8, 9)
    assert 6 * 2.0**-7 <= 0.05 < 7 * 2.0**-7
    assert detectable_after_holm(1.0, 8, tests=6) == pytest.approx(scipy_stats.norm.ppf(0.8 ** (1 / 8)))


def test_a_spread_beyond_any_number_of_seeds_has_no_number_to_settle() -> None:
    found = effect(margin=1e-4)
    assert found.seeds_to_settle is None
    assert found.undefined["seeds_to_settle"] == "no number of seeds up to 10,000 settles it at this spread"


def test_swapping_treatment_and_control_flips_the_sign_and_nothing_else() -> None:
    one, swapped = effect(Y, X[:, 0]), effect(X[:, 0], Y)
    assert swapped.estimate == pytest.approx(-one.estimate)
    assert (swapped.low, swapped.high) == pytest.approx((-(one.high or 0.0), -(one.low or 0.0)))
    assert swapped.p_t == pytest.approx(one.p_t)
    assert (swapped.p_sign_flip, swapped.p_rank) == (one.p_sign_flip, one.p_rank)
    assert swapped.ranks.estimate == pytest.approx(1.0 - one.ranks.estimate)
    assert (swapped.tost_p, swapped.mde) == pytest.approx((one.tost_p, one.mde))
    assert (swapped.d_z, swapped.d_pooled) == pytest.approx((-(one.d_z or 0.0), -(one.d_pooled or 0.0)))


def same_numbers(a: PlacementEffect, b: PlacementEffect) -> None:
    for name in ("estimate", "low", "high", "p_t", "p_rank", "d_z", "d_pooled", "tost_p", "mde", "sd_item",
                 "sd_seed", "sd_shuffle", "p_sign_flip", "p_not_below", "seeds_to_settle"):  # fmt: skip
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-7, abs=1e-9), name


def test_order_of_seeds_shuffles_and_items_and_a_common_constant_change_nothing() -> None:
    rng = np.random.default_rng(1)
    s, k, i = (rng.permutation(n) for n in (SEEDS, SHUFFLES, ITEMS))
    same_numbers(effect(Y[s][:, i], X[s][:, k][:, :, i]), FOUND)
    same_numbers(effect(Y + 0.37, X + 0.37), FOUND)
    constant = rng.normal(size=(SEEDS, 1))  # of each seed, alike in its arms: only d_pooled sees it
    same_numbers(replace(effect(Y + constant, X + constant[:, None]), d_pooled=FOUND.d_pooled), FOUND)


def test_another_unit_scales_the_numbers_and_keeps_the_tests() -> None:
    scaled = effect(100.0 * Y, 100.0 * X, margin=100.0 * MARGIN)
    assert scaled.estimate == pytest.approx(100.0 * FOUND.estimate)
    assert (scaled.p_t, scaled.tost_p, scaled.d_z) == pytest.approx((FOUND.p_t, FOUND.tost_p, FOUND.d_z))
    assert scaled.seeds_to_settle == FOUND.seeds_to_settle
    assert (scaled.p_sign_flip, scaled.p_rank) == (FOUND.p_sign_flip, FOUND.p_rank)


def test_ranks_over_seeds_are_exact_with_unequal_numbers_of_shuffles_and_ties() -> None:
    own = np.array([3.0, 2.0])
    found = within_seed_rank(own, [np.array([1.0, 2.0]), np.array([2.0, 1.0, 0.0])])
    assert found.ranks == (3.0, 3.5)
    sums = np.add.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.5, 3.5])
    assert found.p == float((np.abs(sums - 4.5) >= 2.0).mean())
    assert within_seed_rank(np.ones(8), np.ones((8, 4))).p == 1.0
    best = within_seed_rank(np.full(8, 9.0), np.tile(np.arange(4.0), (8, 1)))
    assert best.p == best.smallest_p == 2 / 5**8
    with pytest.raises(ValueError, match="one control or more"):
        within_seed_rank(own, [np.array([1.0]), np.array([])])


def test_the_bootstrap_interval_sees_seeds_and_items() -> None:
    rng = np.random.default_rng(3)
    seeds, items = 0.05 * rng.normal(size=(30, 1)), 0.5 * rng.normal(size=(30, 400))
    d = 0.1 + seeds + items
    expected = 3.92 * math.sqrt(0.05**2 + 2 * 0.5**2 / 400) / math.sqrt(30)  # items enter twice
    own = hierarchical_bootstrap(d, rng=rng, same_items=False)
    assert own.low is not None
    assert own.high is not None
    assert own.high - own.low == pytest.approx(expected, rel=0.15)
    shared = hierarchical_bootstrap(d[:1] + 0.0 * d, rng=rng)  # seeds alike: items alone
    assert shared.low is not None
    assert shared.high is not None
    assert shared.high - shared.low == pytest.approx(3.92 * 0.5 / 20, rel=0.15)
    again = [hierarchical_bootstrap(d, rng=np.random.default_rng(4), resamples=20) for _ in range(2)]
    assert again[0] == again[1]


def test_with_one_seed_what_is_undefined_says_so() -> None:
    found = effect(Y[:1], X[:1])
    assert found.estimate == pytest.approx(R["difference_1"])
    assert (found.low, found.high, found.p_t, found.d_z, found.d_pooled, found.mde) == (None,) * 6
    assert (found.tost_p, found.boot_low, found.seeds_to_settle, found.sd_seed) == (None,) * 4
    assert found.p_sign_flip == 1.0
    assert found.sd_item is not None
    assert found.sd_shuffle is not None
    for name in ("low", "p_t", "d_z", "d_pooled", "equivalence", "mde", "seeds_to_settle", "sd_seed", "boot"):
        assert "1 seed" in found.undefined[name]


def test_differences_that_do_not_vary_are_undefined_and_not_infinitely_sure() -> None:
    for shift in (0.0, 0.25):
        found = effect(np.full((8, 9), 0.5 + shift), np.full((8, 2, 9), 0.5))
        assert found.estimate == shift
        assert (found.low, found.p_t, found.tost_p, found.d_z, found.mde) == (None,) * 5
        assert found.undefined["low"] == "the differences of 8 seeds do not vary"
        assert found.undefined["d_pooled"] == found.undefined["low"]
        assert found.p_sign_flip == (2 / 256 if shift else 1.0)
        assert found.sd_shuffle == 0.0
    rounding = effect(Y.mean(axis=1, keepdims=True) + 0.1, Y.mean(axis=1, keepdims=True))
    assert rounding.low is None


def test_one_control_or_one_item_leaves_its_spread_undefined() -> None:
    assert effect(Y, X[:, 0]).undefined["sd_shuffle"] == "1 control a seed"
    one_item = effect(Y[:, :1] + 0.1 * np.arange(6)[:, None], X[:, :, :1])
    assert {one_item.undefined[f"sd_{name}"] for name in ("item", "shuffle", "seed")} == {"1 item a seed"}


def test_data_that_do_not_fit_are_refused() -> None:
    holed = Y.copy()
    holed[2, 3] = np.nan
    with pytest.raises(ValueError, match="treatment: 1 of 240 outcomes are not finite"):
        effect(holed, X)
    with pytest.raises(ValueError, match="controls: 720 of 720"):
        effect(Y, X + np.inf)
    for y, x in ((Y[:5], X), (Y[:, :3], X), (Y[0], X[0, 0]), (Y[:0], X[:0]), (Y, X[:, :0])):
        with pytest.raises(ValueError, match=r"pass \(seeds, items\) and"):
            effect(y, x)
    with pytest.raises(ValueError, match=r"margin 0.0"):
        effect(margin=0.0)
    with pytest.raises(ValueError, match="not all finite"):
        paired_t(np.array([1.0, math.nan]), np.zeros(2))
    least = paired_t(np.array([5e-324, 0.0, 0.0]), np.zeros(3))  # its squares underflow
    assert (least.p, least.reason) == (None, "the differences of 3 seeds do not vary")
    with pytest.raises(ValueError, match="other than 0 and 1"):
        mcnemar(np.array([0.5]), np.array([1.0]))


def arms(shift: float, *, seeds: int = 8, sd: float = 0.006) -> dict[str, FloatArray]:
    """Outcomes whose seed means are the arm's level plus noise of `sd`; per_layer lies `shift` above."""
    rng = np.random.default_rng(5)

    def arm(level: float, *shape: int) -> FloatArray:
        wobble = np.linspace(-0.1, 0.1, 21)
        return level + sd * rng.normal(size=(seeds, *shape, 1)) + wobble

    controls = {contrast.control: arm(0.7) for contrast in DECLARED}
    return {**controls, "shuffled_within": arm(0.7, 4), "per_layer": arm(0.7 + shift)}


def decided(rows: list[TestRow]) -> dict[str, TestRow]:
    return {row.contrast.removeprefix("per_layer-"): row for row in rows if row.role == "decides"}


def analyse(of: dict[str, FloatArray], **rest: object) -> list[TestRow]:
    return analyse_placement(of, rng=np.random.default_rng(0), resamples=20, **rest)  # type: ignore[arg-type]


def test_a_family_has_six_contrasts_with_holm_and_verdicts() -> None:
    rows = analyse(arms(0.04))
    found = decided(rows)
    assert list(found) == [contrast.control for contrast in DECLARED]
    assert {row.verdict for row in found.values()} == {"DETECTED"}
    assert found["shuffled_within"].p == 2 / 256
    assert found["shuffled_within"].p_adjusted == pytest.approx(5 * 2 / 256)
    assert found["probe"].p_adjusted == pytest.approx(6 / 256)  # one-sided, the smallest of six
    assert found["probe"].hypothesis == "non_inferiority"
    assert found["probe"].margin == 0.025
    names = {row.hypothesis for row in rows}
    assert names >= {"paired_t", "within_seed_rank", "hierarchical_bootstrap", "d_z", "d_pooled", "sd_seed"}
    assert "mcnemar" not in names  # these outcomes are not right or wrong


def test_nothing_between_arms_is_equivalent_within_the_margin_and_not_inferior() -> None:
    found = decided(analyse(arms(0.0, sd=0.002)))
    assert {found[name].verdict for name in ("shuffled_within", "inverse", "cross_seed")} == {"EQUIVALENT"}
    assert found["probe"].verdict == "DETECTED"
    wide = decided(analyse(arms(0.0, sd=0.05)))
    assert wide["shuffled_within"].verdict == "INCONCLUSIVE"
    assert wide["shuffled_within"].n_to_settle is not None
    assert wide["shuffled_within"].n_to_settle > 8
    assert wide["probe"].verdict == "INCONCLUSIVE"


def test_harm_is_detected_with_its_sign_and_worse_than_the_probe_is_said() -> None:
    found = decided(analyse(arms(-0.06)))
    within = found["shuffled_within"]
    assert within.verdict == "DETECTED"
    assert within.high is not None
    assert within.high < 0.0
    assert found["probe"].verdict == "INCONCLUSIVE"
    assert found["probe"].reason == "worse by more than the margin"
    assert "non-inferiority by sign flips" in found["probe"].method


def test_a_small_sure_effect_is_detected_and_negligible() -> None:
    within = decided(analyse(arms(0.004, sd=0.0005)))["shuffled_within"]
    assert (within.verdict, within.negligible) == ("DETECTED", True)


def test_an_unusable_arm_is_invalid_and_keeps_its_place_in_the_family() -> None:
    of = arms(0.04)
    rows = analyse({k: v for k, v in of.items() if k != "inverse"}, unusable={"inverse": "degenerate"})
    found = decided(rows)
    assert (found["inverse"].verdict, found["inverse"].reason) == ("INVALID", "inverse: degenerate")
    assert found["shuffled_within"].p_adjusted == pytest.approx(5 * 2 / 256)
    every = decided(analyse(of, unusable={"per_layer": "undertrained"}))
    assert {row.verdict for row in every.values()} == {"INVALID"}
    probe = decided(analyse(of, unusable={"probe": "undertrained"}))["probe"]
    assert (probe.verdict, probe.reason) == ("INVALID", "probe: undertrained")


def test_few_seeds_conclude_nothing_and_say_how_many_would() -> None:
    for seeds in (1, 2, 3):
        found = decided(analyse(arms(0.3, seeds=seeds)))
        assert found["shuffled_within"].verdict == "INCONCLUSIVE"
        assert found["shuffled_within"].reason is not None
    assert "8 seeds are the fewest" in (found["shuffled_within"].reason or "")
    assert found["shuffled_within"].n_to_settle == 8
    assert found["shuffled_within"].mde is not None


def test_mcnemar_rows_of_each_seed_and_shuffle_decide_nothing() -> None:
    only = (Contrast(control="shuffled_within"),)
    rows = analyse({"per_layer": Y, "shuffled_within": X}, declared=only)
    found = [row for row in rows if row.hypothesis == "mcnemar"]
    assert len(found) == SEEDS * SHUFFLES
    assert {row.role for row in found} == {"diagnostic"}
    assert found[0].contrast == "per_layer-shuffled_within:1.1"
    assert (found[0].statistic, found[0].df1) == (R["mcnemar_b_1"], R["mcnemar_c_1"])


def test_a_family_of_seven_a_contrast_twice_or_a_missing_arm_is_refused() -> None:
    of = arms(0.0)
    seven = (*DECLARED, Contrast(control="eva"))
    with pytest.raises(ValueError, match="declare 1 to 6"):
        analyse(of | {"eva": of["probe"]}, declared=seven)
    with pytest.raises(ValueError, match="each control once"):
        analyse(of, declared=(DECLARED[0], DECLARED[0]))
    with pytest.raises(ValueError, match=r"no outcomes of \['eva'\]"):
        analyse(of, declared=(Contrast(control="eva"),))


@pytest.mark.parametrize(("same_items", "named"), [(True, "shared"), (False, "own")])
def test_the_hierarchical_bootstrap_is_what_r_makes_of_the_same_draws(same_items: bool, named: str) -> None:
    lines = (line.split() for line in BOOTSTRAP.read_text().splitlines())
    [expected] = [list(map(float, rest)) for name, *rest in lines if name == named]
    s, i = np.arange(1, 6)[:, None], np.arange(1, 8)
    values = 0.1 + 0.3 * np.sin(3 * s) + 0.5 * np.sin(1.7 * s * i)
    found = hierarchical_bootstrap(values, rng=congruential(), resamples=400, same_items=same_items)
    assert [found.estimate, found.low, found.high] == pytest.approx(expected, abs=1e-11)
