"""The runner of verdicts against the truth: a little of it by default, 1,000 studies a cell when slow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.truth import STUDIES, Cell, HeavyTails, judge_cell, line
from tests.truth_worlds import Judged

CELLS = [(study, name) for study, cells in STUDIES.items() for name in cells]


@pytest.mark.parametrize("study", STUDIES)
def test_a_strong_effect_is_detected_and_a_line_says_so(study: str) -> None:
    found = judge_cell("strong", STUDIES[study]["strong"], 2, seed=1)
    assert found.shares == {"DETECTED": 1.0, "EQUIVALENT": 0.0, "INCONCLUSIVE": 0.0, "INVALID": 0.0}
    assert found.wrong == 0.0
    assert [one.strip() for one in line(study, "strong", 2, found).split("|")][1:9] == [
        study, "strong", "2", "1", "0", "0", "0", "0"
    ]  # fmt: skip


def test_a_wrong_sign_and_a_negligible_effect_at_the_margin_count_as_wrong() -> None:
    cell = Cell(wrong=("EQUIVALENT",), judge=lambda _: Judged(verdict="EQUIVALENT"), sign=1)
    told = [
        Judged(verdict="DETECTED", estimate=0.3),
        Judged(verdict="DETECTED", estimate=-0.3),
        Judged(verdict="DETECTED", estimate=0.3, negligible=True),
        Judged(verdict="EQUIVALENT", estimate=0.3),
        Judged(verdict="INCONCLUSIVE", estimate=-0.3),
    ]
    assert [cell.is_wrong(one) for one in told] == [False, True, True, True, False]


def test_heavy_tails_have_the_same_spread_and_more_far_values() -> None:
    heavy = HeavyTails(np.random.default_rng(1)).normal(1.0, 2.0, size=400_000)
    plain = np.random.default_rng(1).normal(1.0, 2.0, size=400_000)
    assert abs(float(heavy.mean()) - 1.0) < 0.05
    assert abs(float(heavy.std()) / 2.0 - 1.0) < 0.1
    assert np.mean(np.abs(heavy - 1.0) > 8.0) > 10 * np.mean(np.abs(plain - 1.0) > 8.0)


@pytest.mark.slow
@pytest.mark.parametrize(("study", "name"), CELLS)
def test_wrong_decisive_verdicts_stay_under_alpha_and_power_is_as_promised(study: str, name: str) -> None:
    cell = STUDIES[study][name]
    found = judge_cell(name, cell, 1000, seed=1)
    assert found.wrong - 3 * found.error <= 0.05, found
    assert cell.power is None or found.shares["DETECTED"] >= cell.power, found
