"""The two-way bootstrap against R's tables and draws, what it keeps under the null, and the power table."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.paired_seeds import detectable
from stats.rows import FloatArray
from stats.sense_power import critical_ratio, planned, seeds_for
from stats.sense_rows import legacy_rows
from stats.two_way_bootstrap import Crossed, MeanSquares, TwoWay, crossed, draw_counts, mean_squares, two_way
from tests.two_way_campaign import CASES, curve_coverage, rates

REFERENCE = Path(__file__).parent / "reference" / "two_way.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
S, L = 9, 12
SIZES: FloatArray = (1 + np.arange(L) % 4).astype(np.float64)


def r_cells(sizes: FloatArray = SIZES, level: float = 0.3) -> FloatArray:
    s, w = np.ogrid[1 : S + 1, 1 : L + 1]
    cells: FloatArray = sizes * (
        level + 0.2 * np.sin(3 * s) + 0.3 * np.sin(5 * w) + 0.4 * np.sin(2.1 * s * w)
    )
    return cells


TABLE = Crossed(totals=r_cells(), sizes=SIZES, scale=2.0)


def same_draws_as_r() -> tuple[FloatArray, FloatArray]:
    W, V, x = np.zeros((2001, S)), np.zeros((2001, L)), 42
    W[0], V[0] = 1.0, 1.0
    for r in range(1, 2001):
        for counts, size in ((W, S), (V, L)):
            for _ in range(size):
                x = 16807 * x % 2147483647
                counts[r, size * x // 2147483647] += 1.0
    return W, V


W, V = same_draws_as_r()
SQUARES = MeanSquares(seeds=R["ms_seed"], lemmas=R["ms_lemma"], rest=R["ms_rest"], S=S, L=L)


def by_rs_draws() -> TwoWay:
    m, a, b, e = mean_squares(TABLE, W, V)
    spread = np.sqrt(np.maximum(a + b - e, np.maximum(a, b)) / (S * L))
    return TwoWay(
        estimate=float(m[0]),
        se=float(spread[0]),
        squares=SQUARES,
        studentised=np.sort((m[1:] - m[0]) / spread[1:]),
        means=np.sort(m[1:]),
        seeds=S,
        lemmas=L,
        method="R's draws",
    )


def test_mean_squares_of_the_data_and_of_drawn_tables_are_those_of_aov() -> None:
    found = mean_squares(TABLE, W, V)
    for row, suffix in enumerate(("", "_1", "_2", "_3")):
        wanted = [R[f"{name}{suffix}"] for name in ("mean", "ms_seed", "ms_lemma", "ms_rest")]
        assert [float(x[row]) for x in found] == pytest.approx(wanted, rel=1e-9)


def test_standard_error_interval_and_p_are_those_of_r_on_the_same_draws() -> None:
    found = by_rs_draws()
    assert (found.se, SQUARES.df) == pytest.approx((R["se"], R["df"]), rel=1e-9)
    for null, suffix in ((0.0, ""), (0.2, "_.2")):
        wanted = max(R[f"p_greater{suffix}"], R[f"t_greater{suffix}"])
        assert found.p_greater(null) == pytest.approx(wanted, rel=1e-9)
    assert R["p_greater"] > R["t_greater"]
    assert R["p_greater_.2"] < R["t_greater_.2"]
    assert found.p_less() == pytest.approx(max(R["p_less"], R["t_less"]), rel=1e-9)
    assert found.p() == pytest.approx(2 * R["p_greater"], rel=1e-9)
    ends = (min(R["low"], R["t_low"]), max(R["high"], R["t_high"]))
    assert found.interval() == pytest.approx(ends, rel=1e-9)
    assert found.percentiles() == pytest.approx((R["percentile_low"], R["percentile_high"]), rel=1e-9)


def test_few_seeds_have_rs_df_and_are_never_surer_than_its_t() -> None:
    found = two_way(Crossed(totals=TABLE.totals[:4], sizes=SIZES, scale=2.0), rng=np.random.default_rng(0))
    assert found.squares is not None
    numbers = (found.estimate, found.se, found.squares.df)
    assert numbers == pytest.approx([R[f"few_{name}"] for name in ("mean", "se", "df")], rel=1e-9)
    low, high = found.interval()
    assert low is not None
    assert high is not None
    assert (low <= R["few_low"] + 1e-9, high >= R["few_high"] - 1e-9) == (True, True)
    p = found.p()
    assert p is not None
    assert p >= R["few_p"] - 1e-12


def test_draws_have_owens_pigeonhole_variance() -> None:
    plain = Crossed(totals=r_cells(np.ones(L), 0.0), sizes=np.ones(L), scale=1.0)
    means = two_way(plain, rng=np.random.default_rng(1), resamples=40_000).means
    assert means.var() == pytest.approx(R["owen_variance"], rel=0.03)  # four standard errors of a variance


def test_what_three_seeds_ask_for_is_2_48_and_3_3() -> None:
    for n in (3, 5, 10):
        assert critical_ratio(n) == pytest.approx(R[f"critical_ratio_{n}"], rel=1e-12)
    assert critical_ratio(3) == pytest.approx(2.48, abs=0.005)
    assert detectable(1.0, 3) == pytest.approx(R["power_ratio_3"], rel=1e-5)
    assert detectable(1.0, 3) == pytest.approx(3.3, abs=0.05)
    d = np.array([1.0, 2.0, 3.0])  # SD 1
    for ratio, significant in ((2.483, False), (2.485, True)):
        assert bool(scipy_stats.ttest_1samp(d - 2.0 + ratio, 0.0).pvalue < 0.05) == significant


def test_the_legacy_row_is_rs_paired_t_and_says_what_it_lacks() -> None:
    share = {"A": np.array([[0.31], [0.30], [0.33]]), "B": np.array([[0.34], [0.36], [0.35]])}
    row = legacy_rows(share, pairs=[("B", "A")])[0]
    wanted = [R[f"legacy_{name}"] for name in ("p", "low", "high")]
    assert [row.p, row.low, row.high] == pytest.approx(wanted, rel=1e-9)
    assert row.reason == f"mean/SD {R['legacy_ratio']:.2f}; p < .05 asks for 2.48, power .8 for 3.26"
    with pytest.raises(ValueError, match="the rule had 3"):
        legacy_rows({name: np.ones((4, 2)) for name in "AB"}, pairs=[("B", "A")])


def test_the_power_table_is_rs() -> None:
    for seeds in (3, 10, 40):
        for lemmas in (60, 240):
            plan = planned(SQUARES, seeds, lemmas)
            wanted = [R[f"plan_{name}_{seeds}_{lemmas}"] for name in ("se", "df", "mde")]
            assert [plan.se, plan.df] == pytest.approx(wanted[:2], rel=1e-9)
            assert plan.mde == pytest.approx(wanted[2], rel=1e-5)


def test_seeds_for_is_the_fewest_and_lemmas_can_forbid_it() -> None:
    n = seeds_for(SQUARES, 0.12, 240, tests=3)
    assert n is not None
    found = [planned(SQUARES, seeds, 240, tests=3).mde_after_holm for seeds in (n - 1, n)]
    assert found[0] > 0.12 >= found[1]
    assert seeds_for(SQUARES, 0.01, 60) is None
    with pytest.raises(ValueError, match="nothing varies"):
        planned(MeanSquares(seeds=0.0, lemmas=0.0, rest=0.0, S=3, L=5), 3, 5)


def sample(seed: int = 0, seeds: int = 10, items: int = 300) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    lemmas = rng.integers(0, 40, size=items)
    d = 0.1 + 0.1 * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=40)[lemmas]
    return d + rng.normal(size=(seeds, items)), lemmas.astype(np.float64)


def test_swapping_the_arms_flips_the_sign_and_nothing_else() -> None:
    d, lemmas = sample()
    one, other = (two_way(crossed(sign * d, lemmas), rng=np.random.default_rng(3)) for sign in (1, -1))
    assert other.estimate == pytest.approx(-one.estimate)
    assert other.p(0.05) == one.p(-0.05)
    assert other.p_greater() == one.p_less()
    low, high = one.interval()
    assert low is not None
    assert high is not None
    assert other.interval() == pytest.approx((-high, -low))


def test_unit_and_origin_change_numbers_but_no_test() -> None:
    d, lemmas = sample(1)
    one = two_way(crossed(d, lemmas), rng=np.random.default_rng(3))
    other = two_way(crossed(100.0 * d + 7.0, lemmas), rng=np.random.default_rng(3))
    assert other.p(7.0) == one.p(0.0)
    assert other.se == pytest.approx(100.0 * (one.se or 0.0))
    assert other.interval()[0] == pytest.approx(100.0 * (one.interval()[0] or 0.0) + 7.0)


def test_order_of_items_changes_nothing_and_of_seeds_only_the_draws() -> None:
    d, lemmas = sample(2)
    places = np.random.default_rng(5).permutation(d.shape[1])
    one = two_way(crossed(d, lemmas), rng=np.random.default_rng(3))
    other = two_way(crossed(d[:, places], lemmas[places]), rng=np.random.default_rng(3))
    assert other.interval() == pytest.approx(one.interval(), rel=1e-9)
    turned = two_way(crossed(d[::-1], lemmas), rng=np.random.default_rng(3))
    assert (turned.estimate, turned.se) == pytest.approx((one.estimate, one.se))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.32])
@pytest.mark.parametrize("seeds", [4, 10])
def test_p_and_interval_agree_at_both_ends(alpha: float, seeds: int) -> None:
    d, lemmas = sample(4, seeds)
    found = two_way(crossed(d, lemmas), rng=np.random.default_rng(6))
    low, high = found.interval(alpha)
    assert low is not None
    assert high is not None
    for end, out in ((low, -1e-6), (high, 1e-6)):
        beyond, within = found.p(end + out), found.p(end - out)
        assert beyond is not None
        assert within is not None
        assert beyond <= alpha < within


def test_items_of_a_lemma_and_answers_of_a_seed_are_no_new_observations() -> None:
    """Every item written out five times, alike: the same interval."""
    d, lemmas = sample(7)
    one = two_way(crossed(d, lemmas), rng=np.random.default_rng(8)).interval()
    five = two_way(crossed(np.repeat(d, 5, axis=1), np.repeat(lemmas, 5)), rng=np.random.default_rng(8))
    assert five.interval() == pytest.approx(one)


def test_sizes_weigh_items_as_their_parts_would() -> None:
    rng = np.random.default_rng(9)
    steps = rng.integers(2, 4, size=80)
    right = (rng.random((10, int(steps.sum()))) < 0.7).astype(float)
    starts = np.r_[0, np.cumsum(steps)[:-1]]
    whole = crossed(np.add.reduceat(right, starts, axis=1), np.arange(80) // 4, sizes=steps)
    parts = crossed(right, np.repeat(np.arange(80) // 4, steps))
    assert whole.totals == pytest.approx(parts.totals)
    assert whole.sizes == pytest.approx(parts.sizes)


def test_a_draw_counts_every_place() -> None:
    counts = draw_counts(7, 50, np.random.default_rng(0))
    assert (counts.sum(axis=1) == 7).all()
    assert counts[1:].std() > 0.5


def test_what_cannot_be_told_has_a_reason_and_no_number() -> None:
    rng = np.random.default_rng(0)
    for seeds, lemmas, why in ((1, 60, "1 seed x 60 lemmas"), (10, 1, "10 seeds x 1 lemma;")):
        found = two_way(crossed(rng.normal(size=(seeds, 60)), np.arange(60) % lemmas), rng=rng)
        assert (found.se, found.p(), found.p_greater(), found.interval()) == (None, None, None, (None, None))
        assert found.reason is not None
        assert found.reason.startswith(why)
    same = two_way(crossed(np.full((10, 60), 0.1), range(60)), rng=rng)
    assert same.reason == "nothing varies over 10 seeds and 60 lemmas"
    assert same.estimate == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "lemmas", "sizes", "why"),
    [
        ([[1.0, 2.0]], ["a"], 1.0, "for 1 items"),
        ([[1.0, float("nan")]], ["a", "b"], 1.0, "1 of 2 values are not finite"),
        ([[1.0, 2.0]], ["a", "b"], [1.0, 0.0], "sizes must be above 0"),
        (np.zeros((0, 2)), ["a", "b"], 1.0, "one of each or more"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    values: FloatArray, lemmas: list[str], sizes: float, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        crossed(values, lemmas, sizes=sizes)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2000"):
        two_way(TABLE, rng=np.random.default_rng(0), resamples=100)


def bounds(studies: int, p: float) -> tuple[float, float]:
    """Shares that a binomial passes with probability below 1e-4 a side."""
    return tuple(float(scipy_stats.binom.ppf(q, studies, p)) / studies for q in (1e-4, 1 - 1e-4))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["seeds only", "0/1 both"])
def test_a_twentieth_of_studies_without_an_effect_is_rejected(name: str) -> None:
    found = rates(CASES[name], 250, 10, 60, np.random.default_rng(20))
    low, high = bounds(250, 0.05)
    assert low <= found["two-way"] <= high


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_rates_of_every_case_lie_near_the_level(name: str) -> None:
    """Between .02 and .06 for a nominal .05, the bounds of the table in LOG.md, plus Monte Carlo error."""
    found = rates(CASES[name], 1_500, 10, 60, np.random.default_rng(21))
    assert bounds(1_500, 0.02)[0] <= found["two-way"] <= bounds(1_500, 0.06)[1]
    assert found["after Holm"] <= bounds(1_500, 0.02)[1]


@pytest.mark.slow
def test_intervals_of_the_scaling_law_cover_at_least_their_level() -> None:
    found = curve_coverage(200, np.random.default_rng(22))
    assert min(found.values()) >= bounds(200, 0.95)[0], found


@pytest.mark.slow
def test_a_planned_difference_is_found_as_often_as_promised() -> None:
    """Gaussian effects, 10 seeds x 60 lemmas: the table's difference is DETECTED in .8 of studies."""
    rng, n = np.random.default_rng(23), 600
    squares = MeanSquares(seeds=0.25 + 60 * 0.01, lemmas=0.25 + 10 * 0.04, rest=0.25, S=10, L=60)
    effect = planned(squares, 10, 60).mde
    hits = 0
    for _ in range(n):
        own = (
            0.1 * rng.normal(size=(10, 1)) + 0.2 * rng.normal(size=(1, 60)) + 0.5 * rng.normal(size=(10, 60))
        )
        p = two_way(crossed(effect + own, range(60)), rng=rng).p()
        hits += p is not None and p <= 0.05
    low, high = bounds(n, 0.8)
    assert low <= hits / n <= high


def test_more_seeds_or_lemmas_never_widen_the_expected_standard_error() -> None:
    for lemmas in (30, 60, 120):
        ses = [planned(SQUARES, seeds, lemmas).se for seeds in (3, 5, 10, 40)]
        assert all(a > b for a, b in pairwise(ses))


@pytest.mark.parametrize("misses", [1, 3, 10])
def test_near_the_ceiling_the_interval_is_finite_and_excludes_chance(misses: int) -> None:
    """Most draws then hold no miss at all: nothing varies in them, and they have no t."""
    hits = np.ones((10, 60))
    for miss in range(misses):
        hits[miss % 10, 7 * miss % 60] = 0.0
    found = two_way(crossed(hits - 0.1, range(60)), rng=np.random.default_rng(0))
    low, high = found.interval()
    assert low is not None
    assert high is not None
    assert 0.8 < low < found.estimate < high < 1.0
    p = found.p()
    assert p is not None
    assert p < 0.01
