"""The runner of verdicts against the truth: a little of it by default, 1,000 studies a cell when slow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.truth import HEAD, HeavyTails, coverage, judge_cell, line, main
from tests.truth_cells import STUDIES, Cell
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
        Judged(verdict="INCONCLUSIVE", before=Judged(verdict="EQUIVALENT")),
        Judged(verdict="EQUIVALENT", before=Judged(verdict="INCONCLUSIVE")),
    ]
    assert [cell.is_wrong(one) for one in told] == [False, True, True, True, False, True, True]


def test_coverage_is_of_the_truth_or_of_the_mean_of_the_estimates_and_skips_what_has_no_interval() -> None:
    none = Judged(verdict="INVALID")
    exact = [Judged(verdict="DETECTED", covered=True), Judged(verdict="DETECTED", covered=False), none]
    loose = [
        Judged(verdict="DETECTED", estimate=0.0, interval=(-1.0, 0.5)),
        Judged(verdict="DETECTED", estimate=2.0, interval=(0.5, 3.0)),
    ]
    assert (coverage(exact), coverage([none]), coverage([*loose, none])) == (0.5, None, 0.5)


def test_a_table_says_command_commit_and_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["truth", "--study", "control", "--studies", "1", "--only", "strong, "])
    main()
    first, head, *cells = capsys.readouterr().out.splitlines()
    assert first.startswith("python -m tests.truth --study control --studies 1 --only 'strong, '; commit ")
    assert " cores, load " in first
    assert (head, len(cells)) == (HEAD, 1)


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
    assert found.wrong - 3 * found.error <= cell.admits, found
    assert cell.power is None or found.shares["DETECTED"] >= cell.power, found
