"""Do the verdicts keep their promises when languages differ by themselves? Simulated corpora, known truth.

A data set: L languages, documents of 2 to 6 aligned sentences. The change of a sentence is a common cost,
plus the language's own effect (SD `language_sd`, the variance that a test over sentences does not see), a
document effect shared by all languages, a document effect of the language, and noise. Bounds are binomial at
1e-4.
Full campaign: `python -m pytest -m slow tests/test_disparity_simulation.py -s` prints the figures in LOG.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from stats.aligned_bootstrap import bootstrap_bounds, resample_documents
from stats.disparity import Aligned, analyse_disparity, find
from stats.language_tests import Arrangements, label_permutations, shift_test, sign_flips
from stats.layer_effects import analyse_layers
from stats.preservation import analyse_preservation
from stats.rows import FloatArray, TestRow


@dataclass(frozen=True, kw_only=True)
class World:
    """One kind of corpus and damage."""

    n_low: int = 5
    n_high: int = 5
    documents: int = 20
    language_sd: float = 0.5
    gap: float = 0.0
    cost: float = 2.0


def most(n: int, p: float) -> float:
    """Share that a binomial (n, p) exceeds with probability below 1e-4."""
    return float(scipy_stats.binom.isf(1e-4, n, p)) / n


def fewest(n: int, p: float) -> float:
    """Share that a binomial (n, p) falls below with probability below 1e-4."""
    return float(scipy_stats.binom.ppf(1e-4, n, p)) / n


def corpus(world: World, rng: np.random.Generator) -> tuple[Aligned, FloatArray]:
    """A baseline and one variant."""
    L, D = world.n_low + world.n_high, world.documents
    code = np.repeat(np.arange(D), rng.integers(2, 7, size=D))
    low = np.arange(L) < world.n_low
    bits = rng.gamma(25.0, 4.0, size=(L, len(code)))
    own = world.cost + world.gap * low + world.language_sd * rng.normal(size=L)
    document = rng.normal(0.0, 0.5, size=D) + rng.normal(0.0, 0.3, size=(L, D))
    change = own[:, None] + document[:, code] + rng.normal(size=(L, len(code)))
    aligned = Aligned(
        languages=tuple(f"l{i}" for i in range(L)),
        is_low=tuple(low.tolist()),
        documents=tuple(f"d{i}" for i in code),
        bits=bits,
    )
    return aligned, bits + change


def gaps(world: World, sets: int, seed: int, margin: float = 1.5) -> list[TestRow]:
    """The deciding row of each of `sets` data sets, through the whole analysis."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(sets):
        aligned, quantised = corpus(world, rng)
        drawn = resample_documents(aligned.documents, rng=rng)
        found = analyse_disparity(aligned, {"int4": quantised}, margin=margin, drawn=drawn)
        rows.append(find(found, "gap", "int4"))
    return rows


def shares(rows: list[TestRow]) -> dict[str, float]:
    counts = Counter(row.verdict for row in rows)
    return {str(verdict): count / len(rows) for verdict, count in counts.items()}


def calibration(
    arrangements: Arrangements,
    weights: FloatArray,
    sets: int,
    seed: int,
    *,
    shift: float = 0.0,
    sd: float = 1.0,
) -> dict[str, float]:
    """Rejections, coverage and p values of `shift_test` on language values with a known shift."""
    rng = np.random.default_rng(seed)
    p, covered = [], 0
    for y in sd * rng.normal(size=(sets, len(weights))) + shift * weights:
        test = shift_test(y, arrangements)
        low, high = test.interval(0.05)
        covered += low is not None and high is not None and low <= shift <= high
        p.append(test.p(shift))
    at = {f"p<={level}": float(np.mean(np.array(p) <= level)) for level in (0.01, 0.05, 0.1, 0.2, 0.5)}
    return {"covered": covered / sets, **at}


DESIGNS = {
    "labels 5 v 5": (label_permutations(np.arange(10) < 5), (np.arange(10) < 5).astype(float)),
    "labels 4 v 6": (label_permutations(np.arange(10) < 4), (np.arange(10) < 4).astype(float)),
    "labels 7 v 7": (label_permutations(np.arange(14) < 7), (np.arange(14) < 7).astype(float)),
    "signs 10": (sign_flips(10), np.ones(10)),
}


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_p_is_super_uniform_under_the_null_and_the_interval_covers(name: str, shift: float) -> None:
    sets = 2000
    found = calibration(*DESIGNS[name], sets, seed=1, shift=shift)
    exact = 1.0 - 2 * int(0.025 * DESIGNS[name][0].total) / DESIGNS[name][0].total
    assert fewest(sets, exact) <= found["covered"] <= most(sets, exact)
    for level in (0.01, 0.05, 0.1, 0.2, 0.5):
        assert found[f"p<={level}"] <= most(sets, level)
    assert found["p<=0.05"] >= fewest(sets, 0.045)  # exact tests lose little to discreteness here


def test_without_a_gap_low_resource_is_rarely_detected_although_languages_differ() -> None:
    sets = 300
    found = shares(gaps(World(), sets, seed=2))
    assert found.get("DETECTED", 0.0) <= most(sets, 0.05)
    assert "INVALID" not in found


def test_a_test_over_sentences_would_detect_the_languages_themselves() -> None:
    """The mistake that the language as unit prevents: this bound is the one of the test above."""
    sets, rng, wrong = 150, np.random.default_rng(3), 0
    for _ in range(sets):
        aligned, quantised = corpus(World(), rng)
        drawn = resample_documents(aligned.documents, rng=rng)
        rows = analyse_disparity(aligned, {"int4": quantised}, margin=1.0, drawn=drawn)
        row = find(rows, "gap_fixed_languages", "int4")
        assert row.low is not None
        assert row.high is not None
        wrong += row.low > 0.0 or row.high < 0.0
    assert wrong / sets > 0.5 > most(sets, 0.05)


def test_damage_planted_in_one_group_is_detected_and_the_same_in_both_is_not() -> None:
    sets = 60
    assert shares(gaps(World(gap=3.0), sets, seed=4))["DETECTED"] >= fewest(sets, 0.99)
    both = gaps(World(cost=5.0), sets, seed=5)
    assert shares(both).get("DETECTED", 0.0) <= most(sets, 0.05)
    below = gaps(World(gap=-3.0), 20, seed=6)
    assert all(row.verdict == "DETECTED" and (row.high or 0.0) < 0.0 for row in below)


def test_equivalence_is_found_at_zero_and_rare_at_the_margin() -> None:
    sets = 200
    assert shares(gaps(World(), sets, seed=7)).get("EQUIVALENT", 0.0) > 0.8  # margin of 3 language SD
    at = shares(gaps(World(gap=1.5, language_sd=0.8), sets, seed=8))
    assert at.get("EQUIVALENT", 0.0) <= most(sets, 0.05)


def document_coverage(documents: int, sets: int, seed: int) -> dict[str, float]:
    """Coverage of a mean, a gap and a ratio of two languages over fixed languages."""
    rng, inside = np.random.default_rng(seed), np.zeros(3)
    for _ in range(sets):
        code = np.repeat(np.arange(documents), rng.integers(2, 7, size=documents))
        noise = 0.7 * rng.normal(size=documents) + 0.5 * rng.normal(size=(2, documents))
        y = np.array([[4.0], [3.0]]) + noise[:, code] + rng.normal(size=(2, len(code)))
        drawn = resample_documents(code, rng=rng)
        means = drawn.means(y)
        columns = np.column_stack([means[:, 0], means[:, 0] - means[:, 1], means[:, 0] / means[:, 1]])
        low, high = bootstrap_bounds(columns, drawn)
        truth = np.array([4.0, 1.0, 4.0 / 3.0])
        inside += (low <= truth) & (truth <= high)
    return dict(zip(("mean", "gap", "ratio"), (inside / sets).tolist(), strict=True))


def test_the_document_interval_covers_with_few_documents() -> None:
    sets = 400
    for share in document_coverage(15, sets, seed=9).values():
        assert fewest(sets, 0.935) <= share <= most(sets, 0.965)


def benefits(gain: float, sets: int, seed: int) -> list[TestRow]:
    rng, rows = np.random.default_rng(seed), []
    for _ in range(sets):
        aligned, control = corpus(World(), rng)
        spread = gain + 0.3 * rng.normal(size=(len(aligned.languages), 1))
        treated = control - spread - 0.5 * rng.normal(size=control.shape)
        drawn = resample_documents(aligned.documents, rng=rng)
        found = analyse_preservation(aligned, {"5 %": (control, treated)}, margin=0.4, drawn=drawn)
        rows.append(find(found, "benefit", "5 %"))
    return rows


def test_a_benefit_is_detected_when_there_is_one() -> None:
    assert shares(benefits(0.0, 150, seed=10)).get("DETECTED", 0.0) <= most(150, 0.05)
    assert shares(benefits(0.8, 60, seed=11))["DETECTED"] >= fewest(60, 0.99)


def layer_verdicts(effect: FloatArray, sets: int, seed: int) -> list[list[str | None]]:
    """Verdict of each block's contrast: blocks whose protection saves `effect`, plus document noise."""
    rng, verdicts = np.random.default_rng(seed), []
    for _ in range(sets):
        aligned, quantised = corpus(World(n_low=2, n_high=2), rng)
        drawn = resample_documents(aligned.documents, rng=rng)
        wobble = 0.5 * rng.normal(size=(len(effect), 1, drawn.documents))[:, :, drawn.code]
        noise = wobble + rng.normal(size=(len(effect), *quantised.shape))
        protected = quantised - effect[:, None, None] - noise
        rows = analyse_layers(aligned, quantised, protected, margin=0.5, drawn=drawn, rng=rng)
        verdicts.append([row.verdict for row in rows if row.role == "decides"])
    return verdicts


def test_a_critical_block_is_found_and_none_is_where_all_are_alike() -> None:
    alike = layer_verdicts(np.ones(6), 150, seed=12)
    assert np.mean(["DETECTED" in family for family in alike]) <= most(150, 0.05)  # any of six, by Holm
    one = layer_verdicts(np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 40, seed=13)
    assert np.mean([family[0] == "DETECTED" for family in one]) >= fewest(40, 0.99)


def test_signs_of_skewed_differences_do_not_keep_the_level() -> None:
    """The limit that the documentation states: symmetry is what the sign-flip test rests on."""
    rng, arrangements = np.random.default_rng(14), sign_flips(10)
    d = np.exp(rng.normal(size=(2000, 10))) - np.exp(0.5)
    assert np.mean([shift_test(row, arrangements).p() <= 0.05 for row in d]) == pytest.approx(0.16, abs=0.035)


@pytest.mark.slow
def test_the_full_campaign_prints_its_figures() -> None:
    for name, (arrangements, weights) in DESIGNS.items():
        found = calibration(arrangements, weights, 20_000, seed=21)
        print(f"\n{name}: smallest p {arrangements.smallest_p:.5f}, {found}")
        assert found["p<=0.05"] <= most(20_000, 0.05)
        assert found["covered"] >= fewest(20_000, 0.95)
    for gap in (0.0, 0.5, 1.0, 1.5, 2.0):
        found = shares(gaps(World(gap=gap), 2000, seed=22))
        print(f"gap {gap / 0.5:.0f} language SD, margin 3: {found}")
        assert gap > 0.0 or found.get("DETECTED", 0.0) <= most(2000, 0.05)
    for name, effect in (("alike", np.ones(6)), ("one critical", np.array([2.0, 1.0, 1.0, 1.0, 1.0, 1.0]))):
        families = layer_verdicts(effect, 1000, seed=24)
        some = float(np.mean(["DETECTED" in family for family in families]))
        print(f"six blocks {name}: some DETECTED {some}")
        assert name != "alike" or some <= most(1000, 0.05)
    for name, gain in (("no", 0.0), ("a benefit of 1.3 SD", 0.4)):
        found = shares(benefits(gain, 2000, seed=25))
        print(f"preservation, {name}: {found}")
        assert gain > 0.0 or found.get("DETECTED", 0.0) <= most(2000, 0.05)
    for documents in (8, 15, 30, 60):
        coverage = document_coverage(documents, 2000, seed=23)
        print(f"{documents} documents: covered {coverage}")
        assert min(coverage.values()) >= fewest(2000, 0.935)
        assert max(coverage.values()) <= most(2000, 0.965)


def candidate_intervals(values: FloatArray, left_out: FloatArray) -> dict[str, FloatArray]:
    """(2, columns) ends by percentiles and BCa, each plain and widened for the number of documents."""
    D, (observed, draws) = len(left_out), (values[0], values[1:])
    u = left_out.mean(axis=0) - left_out
    a = (u**3).sum(axis=0) / (6 * (u**2).sum(axis=0) ** 1.5)
    z0 = scipy_stats.norm.ppf(np.clip((draws < observed).mean(axis=0), 1e-3, 1 - 1e-3))
    reach = {"": 1.959964, "widened ": np.sqrt(D / (D - 1)) * scipy_stats.t.isf(0.025, D - 1)}
    found = {}
    for name, width in reach.items():
        z = np.array([[-width], [width]])
        levels = {"percentiles": z + 0 * z0, "BCa": z0 + (z0 + z) / (1 - a * (z0 + z))}
        for kind, level in levels.items():
            share = scipy_stats.norm.cdf(level)
            ends = [[np.quantile(x, q) for x, q in zip(draws.T, row, strict=True)] for row in share]
            found[name + kind] = np.array(ends)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("documents", [8, 30])
def test_widened_percentiles_cover_best_of_four_intervals_of_skewed_documents(documents: int) -> None:
    rng, sets, covered = np.random.default_rng(26), 1500, Counter[str]()
    scale, middle = np.sqrt(np.expm1(0.64) * np.exp(0.64)), np.exp(0.32)
    for _ in range(sets):
        code = np.repeat(np.arange(documents), rng.integers(2, 9, size=documents))
        effect = (np.exp(0.8 * rng.normal(size=(3, documents))) - middle) / scale
        y = np.array([[4.0], [3.0]]) + 0.7 * (effect[:1] + effect[1:])[:, code]
        y += rng.normal(size=y.shape)
        drawn = resample_documents(code, rng=rng)
        totals, size = drawn.by_document(y), np.bincount(code)
        left = (totals.sum(axis=0) - totals) / (len(code) - size)[:, None]
        both = [
            np.column_stack([m[:, 0], m[:, 0] - m[:, 1], m[:, 0] / m[:, 1]]) for m in (drawn.means(y), left)
        ]
        truth = np.array([4.0, 1.0, 4.0 / 3.0])
        for name, (low, high) in candidate_intervals(*both).items():
            covered[name] += int(((low <= truth) & (truth <= high)).sum())
    share = {name: count / (3 * sets) for name, count in covered.items()}
    print(f"\n{documents} skewed documents, mean, gap and ratio together: {share}")
    assert max(share, key=lambda name: share[name]) == "widened percentiles"


@pytest.mark.slow
@pytest.mark.parametrize("n_low", [4, 5, 6])
def test_studentising_does_not_mend_unequal_variances_at_ten_languages(n_low: int) -> None:
    """Low-resource languages with three times the SD: nulls rejected at .05 by raw and Welch's statistic."""
    low = np.arange(10) < n_low
    raw = label_permutations(low)
    chosen = np.array([np.isin(np.arange(10), c) for c in combinations(range(10), n_low)], dtype=float)
    y = np.random.default_rng(27).normal(size=(4000, 10)) * np.where(low, 3.0, 1.0)
    by_raw = float(np.mean([shift_test(row, raw).p() <= 0.05 for row in y]))
    first, squares, n = y @ chosen.T, (y**2) @ chosen.T, np.array([n_low, 10 - n_low])
    means = np.stack([first / n[0], (y.sum(axis=1, keepdims=True) - first) / n[1]])
    second = np.stack([squares, (y**2).sum(axis=1, keepdims=True) - squares])
    variances = (second - n[:, None, None] * means**2) / (n * (n - 1))[:, None, None]
    t = (means[0] - means[1]) / np.sqrt(variances.sum(axis=0))
    tails = [(t >= t[:, :1] - 1e-9).mean(axis=1), (t <= t[:, :1] + 1e-9).mean(axis=1)]
    by_welch = float((2 * np.minimum(*tails) <= 0.05).mean())
    print(f"\n{n_low} low v {10 - n_low} high, SD 3 : 1: raw {by_raw:.4f}, studentised {by_welch:.4f}")
    assert abs(by_raw - by_welch) < 0.02
