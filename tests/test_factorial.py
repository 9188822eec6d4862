"""Effects of a factorial against R's `lm`; what is found where nothing is, and where something is."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from models.sense_conditions import FACTORS, factorial
from stats.factorial import Levels, analyse_factorial, effects
from stats.rows import FloatArray, TestRow
from stats.sense_power import seeds_for
from stats.two_way_bootstrap import crossed, two_way

REFERENCE = Path(__file__).parent / "reference" / "factorial.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
THREE = {"a": ("low", "high"), "b": ("low", "high"), "c": ("low", "high")}
TWO = {name: THREE[name] for name in "ab"}
S, L = 6, 8
SIZES: FloatArray = (1 + np.arange(L) % 3).astype(np.float64)


def r_outcomes() -> dict[Levels, FloatArray]:
    s, w = np.ogrid[1 : S + 1, 1 : L + 1]
    found = {}
    for arm in itertools.product(*THREE.values()):
        a, b, c = (1.0 if level == "high" else -1.0 for level in arm)
        y = 0.3 + 0.1 * a - 0.03 * b + 0.05 * a * b + 0.1 * np.sin(3 * s + a) + 0.1 * np.sin(5 * w - 2 * b)
        found[arm] = SIZES * (y + 0.2 * np.sin(2.1 * s * w + a + 3 * b + 7 * c))
    return found


def named(rows: list[TestRow], hypothesis: str) -> dict[str, TestRow]:
    return {row.contrast: row for row in rows if row.hypothesis == hypothesis}


def test_effects_and_their_tests_are_those_of_r() -> None:
    rows = analyse_factorial(r_outcomes(), THREE, range(L), rng=np.random.default_rng(0), sizes=SIZES)
    mains, pairs = named(rows, "main_effect"), named(rows, "interaction")
    assert set(mains) == {"a", "b", "c"}
    assert set(pairs) == {"a x b", "a x c", "b x c"}
    for name, row in (mains | pairs).items():
        assert row.estimate == pytest.approx(R[name], rel=1e-9)
    for name, row in mains.items():
        assert R[f"{name}_means"] == pytest.approx(R[name], rel=1e-9)
        assert [row.statistic, row.df2] == pytest.approx([R[f"{name}_t"], R[f"{name}_df"]], rel=1e-9)
        assert row.p is not None
        assert row.p >= R[f"{name}_p_t"] - 1e-12


def test_rows_name_the_family_and_the_roles() -> None:
    rows = analyse_factorial(r_outcomes(), THREE, range(L), rng=np.random.default_rng(0), sizes=SIZES)
    assert {row.family for row in rows} == {"factorial"}
    told = [(row.hypothesis, row.role, row.contrast) for row in rows]
    mains = [[("main_effect", "decides", n), ("main_effect_tost", "equivalence", n)] for n in "abc"]
    assert told == [*itertools.chain(*mains)] + [
        ("interaction", "secondary", pair) for pair in ("a x b", "a x c", "b x c")
    ]
    assert all(row.verdict is None and row.p is not None for row in rows if row.hypothesis == "interaction")


def test_holm_is_over_main_effects_alone() -> None:
    rows = analyse_factorial(r_outcomes(), THREE, range(L), rng=np.random.default_rng(0), sizes=SIZES)
    mains = named(rows, "main_effect").values()
    p = sorted(row.p for row in mains if row.p is not None)
    adjusted = sorted(row.p_adjusted for row in mains if row.p_adjusted is not None)
    stepped = np.minimum(1.0, np.maximum.accumulate([p[0] * 3, p[1] * 2, p[2]]))
    assert adjusted == pytest.approx(stepped.tolist())


def test_seeds_to_settle_are_those_of_holms_first_step_over_the_factors() -> None:
    rng, y = np.random.default_rng(0), r_outcomes()
    rows = named(analyse_factorial(y, THREE, range(L), rng=rng, sizes=SIZES, margin=0.3), "main_effect")
    for name, row in rows.items():
        squares = two_way(crossed(effects(y, THREE)[name,], range(L), sizes=SIZES), rng=rng).squares
        assert squares is not None
        assert row.n_to_settle == seeds_for(squares, 0.3, L, tests=3)
    assert rows["a"].n_to_settle == 10  # 7 if it were the only factor


def test_swapping_a_factors_levels_flips_its_effects_and_no_other() -> None:
    y = r_outcomes()
    one, other = effects(y, THREE), effects(y, THREE | {"b": ("high", "low")})
    for names, d in one.items():
        assert other[names] == pytest.approx(-d if "b" in names else d)


def test_effects_rebuild_a_table_that_has_no_higher_interaction() -> None:
    rng = np.random.default_rng(1)
    beta = {names: float(rng.normal()) for order in (1, 2) for names in itertools.combinations("abc", order)}
    y = {}
    for arm in itertools.product(*THREE.values()):
        x = {name: 1.0 if level == "high" else -1.0 for name, level in zip("abc", arm, strict=True)}
        y[arm] = np.array([[sum(value * math.prod(x[n] for n in names) for names, value in beta.items())]])
    found = {names: float(d[0, 0]) for names, d in effects(y, THREE).items()}
    assert found == pytest.approx({names: 2.0 * value for names, value in beta.items()})


def test_an_interaction_is_half_the_difference_between_simple_effects() -> None:
    y = r_outcomes()

    def mean(**levels: str) -> FloatArray:
        chosen = [
            d
            for arm, d in y.items()
            if all(arm["abc".index(name)] == level for name, level in levels.items())
        ]
        found: FloatArray = np.mean(chosen, axis=0)
        return found

    at = {b: mean(a="high", b=b) - mean(a="low", b=b) for b in ("low", "high")}
    assert effects(y, THREE)["a", "b"] == pytest.approx((at["high"] - at["low"]) / 2.0)


def study(
    factors: dict[str, tuple[str, str]], rng: np.random.Generator, *, a: float = 0.0, ab: float = 0.0
) -> tuple[dict[Levels, FloatArray], list[int]]:
    """0/1 answers of 10 seeds to 3 items of each of 60 lemmas; every arm moves seeds and lemmas its own way.

    a, ab: log odds at high level of the factor `a`, and of `a` and `b` both. Nothing else has an effect.
    """
    lemmas = np.repeat(np.arange(60), 3)
    shared = rng.normal(size=60)[lemmas] + rng.normal(size=180) + 0.3 * rng.normal(size=(10, 1))
    hits = {}
    for arm in itertools.product(*factors.values()):
        high = arm[0] == "high"
        own = 0.3 * rng.normal(size=(10, 1)) + 0.7 * rng.normal(size=60)[lemmas]
        level = -0.8 + a * high + ab * (high and arm[1] == "high")
        hits[arm] = (rng.random((10, 180)) < special.expit(level + shared + own)).astype(np.float64)
    return hits, lemmas.tolist()


def rejected(
    studies: int, factors: dict[str, tuple[str, str]], of: tuple[str, ...], seed: int, *, a: float = 0.0
) -> dict[str, float]:
    """Share of main effects with p at most .05, of studies with any after Holm, of interactions."""
    rng, single, family, pairs = np.random.default_rng(seed), [], [], []
    for _ in range(studies):
        hits, lemmas = study(factors, rng, a=a)
        rows = analyse_factorial(hits, factors, lemmas, rng=rng)
        mains = [row for name, row in named(rows, "main_effect").items() if name in of]
        single += [row.p is not None and row.p <= 0.05 for row in mains]
        family.append(any(row.verdict == "DETECTED" for row in mains))
        pairs += [row.p is not None and row.p <= 0.05 for row in named(rows, "interaction").values()]
    return {
        "single": float(np.mean(single)),
        "family": float(np.mean(family)),
        "pairs": float(np.mean(pairs)),
        "tests": float(len(single)),
    }


def bounds(studies: float, p: float) -> tuple[float, float]:
    """Shares that a binomial passes with probability below 1e-4 a side."""
    n = int(studies)
    low, high = (float(scipy_stats.binom.ppf(q, n, p)) / n for q in (1e-4, 1 - 1e-4))
    return low, high


def test_a_twentieth_of_main_effects_that_are_none_is_rejected() -> None:
    found = rejected(80, TWO, ("a", "b"), 5)
    low, high = bounds(found["tests"], 0.05)
    assert low <= found["single"] <= high
    assert found["family"] <= bounds(80, 0.05)[1]
    assert found["pairs"] <= bounds(80, 0.05)[1]


@pytest.mark.slow
def test_rates_of_three_factors_lie_near_the_level() -> None:
    """Between .02 and .06 for a nominal .05, as of the two-way bootstrap itself, plus Monte Carlo error."""
    found = rejected(400, THREE, ("a", "b", "c"), 6)
    assert bounds(400, 0.02)[0] <= found["single"] <= bounds(400, 0.06)[1]
    assert found["family"] <= bounds(400, 0.05)[1]
    assert bounds(400, 0.02)[0] <= found["pairs"] <= bounds(400, 0.06)[1]


@pytest.mark.slow
def test_a_real_effect_of_one_factor_gives_none_to_another() -> None:
    found = rejected(400, TWO, ("b",), 7, a=1.0)
    assert bounds(400, 0.02)[0] <= found["single"] <= bounds(400, 0.06)[1]


def test_a_planted_effect_and_a_planted_interaction_are_found_where_they_are() -> None:
    rng = np.random.default_rng(8)
    hits, lemmas = study(THREE, rng, a=0.8, ab=0.8)
    rows = analyse_factorial(hits, THREE, lemmas, rng=rng)
    assert named(rows, "main_effect")["a"].verdict == "DETECTED"
    assert named(rows, "main_effect")["c"].verdict != "DETECTED"
    pairs = named(rows, "interaction")
    assert (pairs["a x b"].low or 0.0) > 0.0
    for name in ("a x c", "b x c"):
        low, high = pairs[name].low, pairs[name].high
        assert low is not None
        assert high is not None
        assert low <= 0.0 <= high


def test_arms_that_are_alike_are_equivalent_once_the_margin_is_wide() -> None:
    rng = np.random.default_rng(9)
    hits, lemmas = study(TWO, rng)
    rows = analyse_factorial(hits, TWO, lemmas, rng=rng, margin=0.3)
    assert {row.verdict for row in named(rows, "main_effect").values()} == {"EQUIVALENT"}


def test_an_unusable_arm_makes_every_effect_invalid_and_says_why() -> None:
    y = r_outcomes()
    gone = ("high", "low", "low")
    left = {arm: d for arm, d in y.items() if arm != gone}
    rows = analyse_factorial(
        left, THREE, range(L), rng=np.random.default_rng(0), unusable={gone: "collapsed"}
    )
    assert len(rows) == 6
    assert {row.verdict for row in rows if row.role == "decides"} == {"INVALID"}
    assert {row.reason for row in rows} == {"high-low-low: collapsed"}
    assert all(row.estimate is None and row.p is None for row in rows)


def test_too_few_seeds_have_an_estimate_and_a_reason_but_no_p() -> None:
    y = {arm: d[:2] for arm, d in r_outcomes().items()}
    rows = analyse_factorial(y, THREE, range(L), rng=np.random.default_rng(0), sizes=SIZES)
    for row in rows:
        assert (row.p, row.low) == (None, None)
        assert row.estimate is not None
        assert row.reason == "2 seeds x 8 lemmas; a two-way interval needs at least 3 x 5"
    assert {row.verdict for row in rows if row.role == "decides"} == {"INVALID"}


def test_the_factorial_of_the_study_fits() -> None:
    rng = np.random.default_rng(2)
    hits = {arm: (rng.random((4, 60)) < 0.3).astype(np.float64) for arm in factorial()}
    rows = analyse_factorial(hits, FACTORS, np.arange(60) // 4, rng=rng)
    assert list(named(rows, "main_effect")) == ["size", "mix", "curriculum", "enrichment"]
    assert len(named(rows, "interaction")) == 6


def test_what_is_no_full_factorial_is_refused() -> None:
    y, rng = r_outcomes(), np.random.default_rng(0)
    first = ("low", "low", "low")
    with pytest.raises(ValueError, match=r"7 arms; missing \[\('low', 'low', 'low'\)\], unknown \[\]"):
        effects({arm: d for arm, d in y.items() if arm != first}, THREE)
    with pytest.raises(ValueError, match=r"unknown \[\('low', 'low', 'other'\)\]"):
        effects(y | {("low", "low", "other"): y[first]}, THREE)
    with pytest.raises(ValueError, match="each of two different levels"):
        effects(y, THREE | {"c": ("high", "high")})
    with pytest.raises(ValueError, match="the same of every arm"):
        effects(y | {first: y[first][:3]}, THREE)
    with pytest.raises(ValueError, match="above 0"):
        analyse_factorial(y, THREE, range(L), rng=rng, margin=0.0)
    with pytest.raises(ValueError, match="not finite"):
        analyse_factorial(y | {first: np.full((S, L), np.nan)}, THREE, range(L), rng=rng)
