"""The runner of verdicts against the truth: a little of it by default, 1,000 studies a cell when slow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.truth import STUDIES, HeavyTails, line

CELLS = [(study, name) for study, cells in STUDIES.items() for name in cells]


@pytest.mark.parametrize("study", STUDIES)
def test_a_strong_effect_is_detected_and_a_line_says_so(study: str) -> None:
    said = line(study, "strong", STUDIES[study]["strong"], 2, seed=1).split()
    assert said[:3] == [study, "strong", "2"]
    assert [float(share) for share in said[3:7]] == [1.0, 0.0, 0.0, 0.0]


def test_heavy_tails_have_the_same_spread_and_more_far_values() -> None:
    heavy = HeavyTails(np.random.default_rng(1)).normal(1.0, 2.0, size=400_000)
    plain = np.random.default_rng(1).normal(1.0, 2.0, size=400_000)
    assert abs(float(heavy.mean()) - 1.0) < 0.05
    assert abs(float(heavy.std()) / 2.0 - 1.0) < 0.1
    assert np.mean(np.abs(heavy - 1.0) > 8.0) > 10 * np.mean(np.abs(plain - 1.0) > 8.0)


@pytest.mark.slow
@pytest.mark.parametrize(("study", "name"), CELLS)
def test_wrong_decisive_verdicts_stay_under_alpha(study: str, name: str) -> None:
    said = line(study, name, STUDIES[study][name], 1000, seed=1)
    before, after = said.split(" +- ")
    wrong, error = float(before.split()[-1]), float(after.split()[0])
    assert wrong - 3 * error <= 0.05, said
