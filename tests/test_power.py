"""Power, detectable effects and chances of equivalence against R, published numbers and simulation."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stats.power import (
    Components,
    Size,
    chance_null_equivalent,
    contrast_df,
    contrast_se,
    detectable_effect,
    detection_power,
    minimum_detectable_effect,
    observed_power,
    prompts_to_settle,
    samples_to_settle,
    settles,
    two_sided_power,
)

PRINTED = Path(__file__).parent / "reference" / "power_design.txt"


def printed(kind: str) -> list[list[float]]:
    lines = [line.split() for line in PRINTED.read_text().splitlines()]
    return [[float(value) for value in values] for name, *values in lines if name == kind]


def test_power_of_a_t_test_is_the_noncentral_ts() -> None:
    cases = printed("two_sided")
    assert len(cases) == 18
    for df, ratio, alpha, value in cases:
        assert two_sided_power(ratio, 1.0, df, alpha) == pytest.approx(value, abs=1e-8)


def test_a_balanced_two_source_design_has_the_power_r_gives_its_paired_t_test() -> None:
    for pairs, delta, value in printed("paired"):
        assert two_sided_power(delta, 1 / math.sqrt(pairs), pairs - 1) == pytest.approx(value, abs=1e-8)


def test_detectable_effects_are_the_published_046_023_and_016() -> None:
    published = [0.46, 0.23, 0.16]
    for (prompts, samples, value), rounded in zip(printed("mde"), published, strict=True):
        se = contrast_se(Components(), Size(prompts=int(prompts), samples=int(samples)))
        found = minimum_detectable_effect(se)
        assert found == pytest.approx(value, rel=1e-5)  # R leaves out the far tail
        assert round(found, 2) == rounded


def test_with_few_prompts_the_t_needs_a_larger_effect_than_the_normal() -> None:
    se = contrast_se(Components(), Size(prompts=15, samples=5))
    assert minimum_detectable_effect(se, 28.0) > minimum_detectable_effect(se) * 1.02


def test_chances_that_a_true_null_is_declared_equivalent_are_the_published_ones() -> None:
    published = {10: 0.03, 20: 0.59, 40: 0.99}
    for samples, df, value in printed("null_equivalent"):
        se = contrast_se(Components(), Size(prompts=30, samples=int(samples)))
        found = chance_null_equivalent(se, 0.2, df)
        assert found == pytest.approx(value, abs=2e-7)
        if math.isinf(df):
            assert round(found, 2) == published[int(samples)]


def test_detection_power_is_what_a_million_simulated_designs_give() -> None:
    for ratio, df, alpha, metrics, value in printed("detection"):
        found = detection_power(ratio, 1.0, df, alpha, metrics=int(metrics))
        assert found == pytest.approx(value, abs=0.003)


def test_detection_without_an_effect_is_rarer_than_alpha_and_with_two_sources_equals_it() -> None:
    # Three sources: the omnibus F and a Tukey interval must both reject; about .045 of .05 remain.
    assert detection_power(0.0, 1.0, 58.0, 0.05) == pytest.approx(0.045, abs=0.003)
    assert detection_power(0.0, 1.0, 29.0, 0.05, groups=2) == pytest.approx(0.05, abs=0.003)


def test_with_two_sources_detection_power_is_the_t_tests() -> None:
    for ratio in (1.0, 2.5, 4.0):
        assert detection_power(ratio, 1.0, 29.0, 0.05, groups=2) == pytest.approx(
            two_sided_power(ratio, 1.0, 29.0, 0.05), abs=0.003
        )


def test_power_rises_with_the_effect_and_falls_with_a_stricter_level() -> None:
    effects = np.linspace(0, 5, 11)
    power = [detection_power(float(x), 1.0, 58.0, 0.05) for x in effects]
    assert all(a <= b for a, b in pairwise(power))
    assert detection_power(3.0, 1.0, 58.0, 0.05, metrics=3) < detection_power(3.0, 1.0, 58.0, 0.05)
    assert detection_power(3.0, 1.0, 58.0, 0.0016) < detection_power(3.0, 1.0, 58.0, 0.0471)


def test_detectable_effects_have_the_power_asked_for() -> None:
    for metrics in (1, 3):
        effect = detectable_effect(0.05, 58.0, 0.0471, metrics=metrics)
        assert detection_power(effect, 0.05, 58.0, 0.0471, metrics=metrics) == pytest.approx(0.8, abs=0.002)
    assert two_sided_power(minimum_detectable_effect(0.1, 22.0, 0.01, 0.9), 0.1, 22.0, 0.01) == pytest.approx(
        0.9, abs=1e-5
    )


def test_the_standard_error_follows_from_simulated_means() -> None:
    rng = np.random.default_rng(5)
    P, T, k, trials = 6, 3, 4, 20_000
    components = Components(within=1.0, prompt_source=0.09, stream=0.04)
    means = (
        0.3 * rng.normal(size=(trials, 2, P)).mean(axis=2)
        + 0.2 * rng.normal(size=(trials, 2, T)).mean(axis=2)
        + rng.normal(size=(trials, 2)) / math.sqrt(P * T * k)
    )
    expected = contrast_se(components, Size(prompts=P, samples=k, streams=T))
    assert np.std(means[:, 0] - means[:, 1]) == pytest.approx(expected, rel=0.025)  # 5 SE of an SD


def test_one_stream_has_no_stream_term_and_streams_cost_degrees_of_freedom() -> None:
    components = Components(prompt_source=0.02, stream=0.01)
    assert contrast_se(components, Size(prompts=30, samples=10)) == pytest.approx(
        math.sqrt(0.2 / 30 + 0.04 / 30)
    )
    assert contrast_df(components, Size(prompts=30, samples=10)) == 58.0
    assert contrast_df(components, Size(prompts=30, samples=10, streams=5)) < 30.0


def test_the_samples_that_settle_are_the_fewest_that_do() -> None:
    def chances(samples: int) -> tuple[float, float]:
        size = Size(prompts=30, samples=samples)
        se, df = contrast_se(Components(), size), contrast_df(Components(), size)
        return (
            chance_null_equivalent(se, 0.2, df, 0.05, metrics=3),
            detection_power(0.2, se, df, 0.05, metrics=3),
        )

    found = samples_to_settle(Components(), Size(prompts=30, samples=10), margin=0.2, alpha=0.05, metrics=3)
    assert found is not None
    assert min(chances(found)) >= 0.8 > min(chances(found - 1))


def test_no_number_of_samples_settles_what_prompts_disagree_about() -> None:
    size = Size(prompts=12, samples=16)
    wide = Components(prompt_source=0.05)  # contrasts keep an SE of .09 SD however many samples
    assert samples_to_settle(wide, size, margin=0.2, alpha=0.05, metrics=3) is None
    prompts = prompts_to_settle(wide, size, margin=0.2, alpha=0.05, metrics=3)
    assert prompts is not None
    at, below = Size(prompts=prompts, samples=16), Size(prompts=prompts - 1, samples=16)
    assert settles(wide, at, margin=0.2, alpha=0.05, metrics=3)
    assert not settles(wide, below, margin=0.2, alpha=0.05, metrics=3)


def test_no_number_of_prompts_settles_what_streams_disagree_about() -> None:
    size = Size(prompts=30, samples=10, streams=5)
    wide = Components(stream=0.05)
    assert samples_to_settle(wide, size, margin=0.2, alpha=0.05, metrics=3) is None
    assert prompts_to_settle(wide, size, margin=0.2, alpha=0.05, metrics=3) is None


def test_observed_power_is_a_function_of_p_alone() -> None:
    assert observed_power(0.2, 0.1, 58.0) == pytest.approx(observed_power(-2.0, 1.0, 58.0), rel=1e-12)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="standard error must be above 0"):
        two_sided_power(1.0, 0.0)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        detection_power(1.0, 1.0, 5.0, 1.0)
    with pytest.raises(ValueError, match="reached without any effect"):
        minimum_detectable_effect(1.0, alpha=0.3, power=0.2)
    with pytest.raises(ValueError, match=r"power = 1\.0"):
        minimum_detectable_effect(1.0, power=1.0)
