"""Seed tests against R, on their level, on faulty sources, and the verdict they end in."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from stats import seed_distribution, uniformity
from stats.rows import FloatArray, IntArray, TestRow

REFERENCE = Path(__file__).parent / "reference"
WITNESS = {
    (row["name"], row["test"], row["statistic"] if row["test"] == "ad_tail" else ""): row
    for row in csv.DictReader(
        (REFERENCE / "seed_distribution_tests.txt").read_text().splitlines(), delimiter="\t"
    )
}


def seeds(name: str) -> IntArray:
    lines = csv.reader((REFERENCE / "seed_distribution_seeds.txt").read_text().splitlines(), delimiter="\t")
    return np.array([int(seed) for found, seed in lines if found == name], dtype=np.int64)


def fair(n: int, seed: int) -> IntArray:
    return np.random.default_rng(seed).integers(0, 2**32, size=n)


def rows_of(name: str) -> dict[str, TestRow]:
    return {row.metric: row for row in seed_distribution.seed_source_tests(seeds(name), name)}


@pytest.mark.parametrize("name", ["fair", "biased", "second"])
def test_every_test_of_a_source_agrees_with_r(name: str) -> None:
    rows = rows_of(name)
    for (found, test, _), expected in WITNESS.items():
        if found != name:
            continue
        row = rows[test.replace("bit_0", "bit_00")]
        by_meaning = test.startswith(("bit", "autocorrelation"))
        statistic = row.estimate if by_meaning else row.statistic
        assert statistic == pytest.approx(float(expected["statistic"]), rel=1e-12), test
        tolerance = 1e-5 if test == "ks" else 1e-9  # SciPy's algorithm states 5 digits for n > 140
        assert row.p == pytest.approx(float(expected["p"]), rel=tolerance), test


@pytest.mark.parametrize("pair", ["fair-biased", "fair-second"])
def test_the_two_sample_test_agrees_with_r(pair: str) -> None:
    a, b = pair.split("-")
    row = seed_distribution.compare_seed_sources({a: seeds(a), b: seeds(b)})[0]
    expected = WITNESS[pair, "two_sample_ks", ""]
    assert row.contrast == pair
    assert row.estimate == pytest.approx(float(expected["statistic"]), rel=1e-12)
    assert row.p == pytest.approx(float(expected["p"]), rel=1e-9)


@pytest.mark.parametrize(
    "key", [key for key in WITNESS if key[1] == "ad_tail"], ids=lambda key: f"{key[0]} {key[2]}"
)
def test_the_anderson_darling_tail_agrees_with_goftest_below_its_breakdown(key: tuple[str, str, str]) -> None:
    n, z, expected = int(key[0][1:]), float(key[2]), float(WITNESS[key]["p"])
    found = uniformity.anderson_darling_p(z, n)
    if z < 7:
        assert found == pytest.approx(min(1.0, expected), rel=1e-9)
    else:
        assert expected < found < 1.25 * expected


def _limit_by_inversion(z: float) -> float:
    """P(sum chi2_j / (j (j + 1)) > z) by Imhof's integral, 400 terms and the mean of the rest."""
    j = np.arange(1, 401)
    weights = 1 / (j * (j + 1))
    rest = 1 / 401  # sum over j > 400 of 1 / (j (j + 1))

    def integrand(t: float) -> float:
        angle = 0.5 * float(np.arctan(weights * t).sum()) + 0.5 * t * (rest - z)
        return math.sin(angle) / (t * math.exp(0.25 * float(np.log1p((weights * t) ** 2).sum())))

    return 0.5 + integrate.quad(integrand, 1e-12, 800, limit=2000)[0] / math.pi


@pytest.mark.parametrize("z", [0.4, 1.0, 2.492, 4.0, 6.0, 9.0, 12.0])
def test_the_anderson_darling_limit_agrees_with_the_inverted_characteristic_function(z: float) -> None:
    exact = _limit_by_inversion(z)
    assert uniformity._limit_tail(z) == pytest.approx(exact, rel=0.06 if z > 5 else 1e-3, abs=3e-6)


def test_anderson_darling_p_falls_with_the_statistic_far_into_the_tail() -> None:
    grid = [uniformity.anderson_darling_p(float(z), 500) for z in np.linspace(0.05, 60, 600)]
    assert all(first >= second - 1e-14 for first, second in itertools.pairwise(grid))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (uniformity.ks_uniform, "ks"),
        (uniformity.anderson_darling_uniform, "anderson_darling"),
    ],
)
def test_the_examples_agree_with_r(test: object, expected: str) -> None:
    assert callable(test)
    found = test(np.array([0.1, 0.4, 0.7]))
    row = WITNESS["example", expected, ""]
    assert found.statistic == pytest.approx(float(row["statistic"]), rel=1e-12)
    assert found.p == pytest.approx(float(row["p"]), rel=1e-9)


def test_total_variation_of_biased_bits_agrees_with_r_and_rises_with_the_dose() -> None:
    doses = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5]
    found = [uniformity.total_variation_from_uniform("biased_bits", dose) for dose in doses]
    assert found[2] == pytest.approx(float(WITNESS["example", "total_variation", ""]["statistic"]), rel=1e-12)
    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[-1] == uniformity.total_variation_from_uniform("constant") == 1 - 2.0**-32


@given(st.lists(st.floats(0.001, 0.999), min_size=2, max_size=60))
def test_turning_the_interval_round_changes_no_distance(numbers: list[float]) -> None:
    u = np.array(numbers)
    for test in (uniformity.ks_uniform, uniformity.anderson_darling_uniform):
        before, after = test(u), test(1 - u)
        assert before.statistic == pytest.approx(after.statistic, rel=1e-9, abs=1e-12)
        assert 0 <= before.p <= 1


def test_the_upper_bound_covers_the_true_distance() -> None:
    """Seeds in [0, 2^32) against seeds in [0, .9 * 2^32): the true distance is .1."""
    covered = 0
    for k in range(400):
        left, right = fair(300, k).astype(np.float64), (fair(200, k + 10_000) * 0.9).astype(np.float64)
        distance = uniformity.ks_two_sample(left, right).estimate
        covered += uniformity.ks_upper_bound(distance, 300, 200, 0.05) >= 0.1
    assert covered >= 0.95 * 400


FAULTS: dict[str, IntArray] = {
    "constant": np.full(400, 2746317213),
    "short_range": fair(400, 1) % 1001,
    "quantised8": (fair(400, 2) >> 24) * 0x01010101,
    "lag1": np.repeat(fair(200, 3), 2),
    "biased": np.bitwise_or(fair(400, 4), fair(400, 5) & fair(400, 6)),
}


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "quantised8"])
def test_a_faulty_source_is_detected(name: str) -> None:
    rows = seed_distribution.seed_sources_verdict({"PRNG": fair(400, 7), name: FAULTS[name]})
    assert rows[-1].verdict == "DETECTED"
    by_source = {row.contrast: row for row in rows if row.hypothesis == "omnibus"}
    assert (by_source[name].p_adjusted or 0) < 1e-6
    assert (by_source["PRNG"].p_adjusted or 0) > 0.05


def test_quantising_to_eight_bits_escapes_every_test_of_one_seed_at_a_time() -> None:
    """256 equally spaced values fill every bin and fair every bit: shown, so that nobody relies on it."""
    assert (seed_distribution.seed_source_tests(FAULTS["quantised8"], "q")[-1].p or 0) > 0.05


def test_a_constant_source_keeps_its_undefined_runs_with_a_reason() -> None:
    rows = {row.metric: row for row in seed_distribution.seed_source_tests(FAULTS["constant"], "constant")}
    assert rows["runs"].p is None
    assert "400 of 400 draws above 1/2" in (rows["runs"].reason or "")
    assert rows["seed32"].method.endswith("7 components (1 undefined)")


def test_the_verdict_follows_the_number_of_draws() -> None:
    few, some, many = (
        {name: fair(n, 20 + k) for k, name in enumerate(("PRNG", "TRNG", "HMIX"))} for n in (19, 192, 8192)
    )
    found = [seed_distribution.seed_sources_verdict(draws)[-1].verdict for draws in (few, some, many)]
    assert found == ["INVALID", "INCONCLUSIVE", "EQUIVALENT"]


def test_few_draws_leave_the_wide_chi_square_out_and_say_so() -> None:
    rows = {row.metric: row for row in seed_distribution.seed_source_tests(fair(48, 1), "PRNG")}
    assert rows["chi_square_64"].p is not None
    assert rows["chi_square_256"].reason == (
        "48 draws in 256 bins; the chi-square approximation needs n^2 / bins >= 10"
    )


def _false_alarms(n: int, simulations: int) -> float:
    hits = 0
    for k in range(simulations):
        p = seed_distribution.seed_source_tests(fair(n, 1000 + k), "PRNG")[-1].p
        hits += p is not None and p <= 0.05
    return hits / simulations


def test_a_fair_source_is_rejected_at_most_at_the_level() -> None:
    assert _false_alarms(192, 300) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 48, 192, 1500])
def test_a_fair_source_is_rejected_at_most_at_the_level_in_many_runs(n: int) -> None:
    rate = _false_alarms(n, 10_000)
    assert 0.01 <= rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 10_000)


@pytest.mark.slow
def test_the_verdict_on_fair_sources_holds_its_level() -> None:
    hits = 0
    for k in range(2000):
        draws = {name: fair(192, 10 * k + j) for j, name in enumerate(("PRNG", "TRNG", "HMIX"))}
        hits += seed_distribution.seed_sources_verdict(draws)[-1].verdict == "DETECTED"
    assert hits / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_the_data_processing_bound_is_zero_between_fair_sources_and_names_what_it_cannot_know() -> None:
    kinds = {"PRNG": ("prng", None), "TRNG": ("trng", None), "TAPE": ("tape", None)}
    rows = seed_distribution.data_processing_rows(kinds, {"distinct_2": 1.0, "length_words": 60.0})
    found = {(row.contrast, row.metric): row for row in rows}
    assert found["PRNG-TRNG", "length_words"].estimate == 0.0
    assert found["PRNG-TAPE", "distinct_2"].estimate is None
    assert "'tape'" in (found["PRNG-TAPE", "distinct_2"].reason or "")
    bounded = seed_distribution.data_processing_rows(
        {"A": ("constant", None), "B": ("short_range", None)}, {"m": 2.0}
    )
    assert bounded[0].estimate == 2.0  # two distances near 1 add up to no more than 1


DECLARED: dict[str, tuple[str, float | None]] = {
    "PRNG": ("prng", None),
    "TRNG": ("trng", None),
    "ONE": ("constant", None),
    "SHORT": ("short_range", None),
    "COARSE": ("quantised8", None),
    "FAIR": ("biased_bits", 0.0),
    "SLIGHT": ("biased_bits", 0.001),
    "BIASED": ("biased_bits", 0.05),
    "STRONG": ("biased_bits", 0.4),
    "ONES": ("biased_bits", 0.5),
}


def test_distances_and_bounds_of_every_pair_and_metric_are_those_of_rs_binomial() -> None:
    lines = [line.split() for line in (REFERENCE / "seed_bound.txt").read_text().splitlines()]
    for name, distance in (line[1:] for line in lines if line[0] == "distance"):
        found = uniformity.total_variation_from_uniform(*DECLARED[name])
        assert found == pytest.approx(float(distance), rel=1e-12, abs=1e-15), name
    wanted = {(line[1], line[2]): float(line[3]) for line in lines if line[0] == "bound"}
    ranges = {"distinct_2": 1.0, "length_words": 60.0, "centred": 2.5}
    rows = seed_distribution.data_processing_rows(DECLARED, ranges)
    assert [(row.contrast, row.metric) for row in rows] == list(wanted)
    bounds = [row.estimate for row in rows]
    assert bounds == pytest.approx(list(wanted.values()), rel=1e-12, abs=1e-14)
    assert {row.p for row in rows} == {None}  # a bound from what is declared, no test


@pytest.mark.parametrize("bad", [np.array([0.5]), np.array([-1]), np.array([2**32]), np.zeros((2, 2), int)])
def test_what_is_no_seed_is_refused(bad: FloatArray) -> None:
    with pytest.raises(ValueError, match="seeds"):
        seed_distribution.seed_source_tests(bad.astype(bad.dtype), "bad")


def test_a_single_source_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="1 source"):
        seed_distribution.compare_seed_sources({"PRNG": fair(50, 1)})
