"""The legacy columns against R, where the ratio misleads, and what is refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stats.aligned_bootstrap import Interval, Resampled, resample_documents
from stats.legacy_disparity import legacy_disparity, legacy_ratio_interval, legacy_rows, word_for
from stats.two_way_bootstrap import draw_counts
from tests.from_r import congruential, printed

R = printed("disparity_bootstrap.txt")
RATIO = printed("legacy_ratio.txt")
GIVEN = {"en": (20.5, 22.1), "de": (25.2, 26.0), "sw": (31.0, 60.7), "yo": (44.4, 58.9)}
TIERS = {"en": False, "de": False, "sw": True, "yo": True, "unused": True}


def test_columns_are_those_of_r() -> None:
    found = legacy_disparity(GIVEN, TIERS)
    assert found.ratio == pytest.approx(R["legacy_ratio"], rel=1e-12)
    assert found.word == "significant"
    assert found.variance_before == pytest.approx(R["legacy_variance_before"], rel=1e-12)
    assert found.variance_after == pytest.approx(R["legacy_variance_after"], rel=1e-12)
    assert found.gap_nats == pytest.approx(R["legacy_gap_nats"], rel=1e-12)
    assert found.degradation_percent["sw"] == pytest.approx(100 * 29.7 / 31)
    assert (found.n_low, found.n_high) == (2, 2)


def test_swapping_the_tiers_flips_the_gap_and_inverts_the_ratio() -> None:
    found = legacy_disparity(GIVEN, TIERS)
    swapped = legacy_disparity(GIVEN, {code: not low for code, low in TIERS.items()})
    assert swapped.gap_nats == pytest.approx(-found.gap_nats)
    assert swapped.ratio == pytest.approx(1 / (found.ratio or 0.0))


@pytest.mark.parametrize(
    ("ratio", "word"),
    [(50.1, "massive"), (50, "significant"), (10.1, "significant"), (10, "moderate"), (2.1, "moderate"),
     (2, "mild"), (1.01, "mild"), (1, "none"), (0.2, "none"), (-5, "none")],
)  # fmt: skip
def test_words_are_bounded_from_below(ratio: float, word: str) -> None:
    assert word_for(ratio) == word


def test_the_ratio_explodes_where_the_gap_stays() -> None:
    """The low-resource change stays; the high-resource one goes to zero: 'massive' with half a nat's gap."""
    gaps, ratios = [], []
    for high in (1.05, 1.001, 1.0001):
        found = legacy_disparity({"en": (20.0, 20.0 * high), "sw": (30.0, 45.0)}, TIERS)
        gaps.append(found.gap_nats)
        ratios.append(found.ratio)
    assert ratios == pytest.approx([10.0, 500.0, 5000.0])
    assert gaps == pytest.approx([math.log(1.5)] * 3, abs=0.05)


@pytest.mark.parametrize("after", [20.5, 19.0])
def test_a_high_resource_mean_at_or_below_zero_has_no_ratio_but_a_gap(after: float) -> None:
    found = legacy_disparity({"en": (20.5, after), "sw": (31.0, 60.7)}, TIERS)
    assert found.ratio is None
    assert found.word is None
    assert found.reason is not None
    assert "not above zero" in found.reason
    assert found.gap_nats == pytest.approx(math.log(60.7 / 31) - math.log(after / 20.5))


def test_a_high_resource_mean_whose_interval_touches_zero_has_no_ratio() -> None:
    found = legacy_disparity(GIVEN, TIERS, high_touches_zero=True)
    assert (found.ratio, found.word) == (None, None)
    assert "touches zero" in (found.reason or "")
    rows = {row.hypothesis: row for row in legacy_rows(found, "int4")}
    assert {row.role for row in rows.values()} == {"legacy"}
    assert (rows["degradation_ratio"].estimate, rows["degradation_ratio"].reason) == (None, found.reason)
    assert rows["gap_nats"].estimate == found.gap_nats
    assert rows["gap_nats"].reason is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"en": (20.0, math.nan), "sw": (1.0, 2.0)}, "perplexity of en, quantised, is nan"),
        ({"en": (20.0, 21.0), "sw": (math.inf, 2.0)}, "perplexity of sw, baseline, is inf"),
        ({"en": (0.0, 21.0), "sw": (1.0, 2.0)}, "perplexity of en, baseline, is 0"),
        ({"en": (20.0, -1.0), "sw": (1.0, 2.0)}, "perplexity of en, quantised, is -1"),
        ({"en": (20.0, 21.0), "xx": (1.0, 2.0)}, "languages \\['xx'\\] have no tier"),
        ({"en": (20.0, 21.0)}, "0 low of 1 languages"),
        ({}, "0 low of 0 languages"),
    ],
)
def test_a_bad_perplexity_or_language_is_refused_by_name(
    given: dict[str, tuple[float, float]], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        legacy_disparity(given, TIERS)


def test_the_ratio_from_losses_is_that_from_perplexities_and_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    bits, tokens = rng.gamma(9.0, 8.0, size=(4, 60)), rng.integers(8, 20, size=(4, 60)).astype(float)
    after = bits + np.array([[1.0], [2.0], [6.0], [8.0]]) + rng.normal(size=(4, 60))
    low = [False, False, True, True]
    drawn = resample_documents(np.arange(60) // 3, rng=rng)
    found = legacy_ratio_interval(bits, after, tokens, low, drawn)
    ppl = [2 ** (side.sum(axis=1) / tokens.sum(axis=1)) for side in (bits, after)]
    pairs = {code: (float(a), float(b)) for code, a, b in zip("abcd", *ppl, strict=True)}
    peer = legacy_disparity(pairs, dict(zip("abcd", low, strict=True)))
    assert found.estimate == pytest.approx(peer.ratio)
    assert found.low is not None
    assert found.high is not None
    assert found.low < (found.estimate or 0.0) < found.high
    assert legacy_ratio_interval(bits, bits, tokens, low, drawn).estimate is None
    with pytest.raises(ValueError, match="240 of 240 values are not finite"):
        legacy_ratio_interval(bits, np.full((4, 60), np.inf), tokens, low, drawn)
    with pytest.raises(ValueError, match="language without tokens"):
        legacy_ratio_interval(bits, after, 0.0 * tokens, low, drawn)


def ratio_of_rs_draws(name: str, *, shift: float, wave: float) -> Interval:
    """The interval on the sentences and draws of `legacy_ratio.R`."""
    code = np.repeat(np.arange(8), [3, 1, 4, 2, 5, 2, 3, 4])
    w, s = np.ogrid[1:6, 1:25]
    bits, tokens = 45 + 3 * w + 15 * np.sin(1.3 * w * s), 12.0 + (5 * w + 3 * s) % 7
    cost = np.where(w <= 2, shift, 2 + w) + wave * np.sin(2.7 * w + 0.9 * (code + 1) + 0.1 * s)
    drawn = Resampled(code=code, weights=draw_counts(8, 2000, congruential()))
    low = [False, False, True, True, True]
    return legacy_ratio_interval(bits, bits + cost, tokens, low, drawn, alpha=RATIO[f"{name}_alpha"])


@pytest.mark.parametrize(
    ("name", "shift", "wave"), [("plain", 1.5, 0.8), ("ninety", 1.5, 0.8), ("near_zero", 0.2, 1.2)]
)
def test_the_ratio_and_its_interval_are_those_of_r_on_the_same_draws(
    name: str, shift: float, wave: float
) -> None:
    found = ratio_of_rs_draws(name, shift=shift, wave=wave)
    ends = [RATIO[f"{name}_{end}"] for end in ("estimate", "low", "high")]
    assert [found.estimate, found.low, found.high] == pytest.approx(ends, rel=1e-10)
    assert (found.n, found.reason) == (8, None)
    if f"{name}_boot_low" in RATIO:  # boot interpolates on the normal scale between neighbouring draws
        boot = (RATIO[f"{name}_boot_low"], RATIO[f"{name}_boot_high"])
        assert (found.low, found.high) == pytest.approx(boot, rel=1e-4)


def test_draws_without_a_ratio_count_as_the_largest_and_too_many_of_them_as_no_ratio() -> None:
    assert RATIO["near_zero_draws_at_or_below_zero"] == 6
    found = ratio_of_rs_draws("touches_zero", shift=0.1, wave=1.2)
    assert RATIO["touches_zero_high_low"] <= 0.0
    assert (found.estimate, found.low, found.high) == (None, None, None)
    ends = f"{RATIO['touches_zero_high_low']:.3g} to {RATIO['touches_zero_high_high']:.3g}"
    assert found.reason == f"undefined: the interval of the denominator, {ends}, is not above zero"
