"""Crossover, the end of the ladder and confirmation, on rungs of known verdicts and on simulated ladders.

Full: `python -m pytest -m slow tests/test_crossover.py`, 100 ladders with a shift and 400 without.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stats.across_models import Rung, rung_rows
from stats.crossover import (
    LADDER_ENDED,
    counts_as_equivalent,
    crossover_row,
    ladder_end_row,
    ladder_has_ended,
    scale_up_rows,
)
from stats.rows import VERDICTS, TestRow
from tests.simulated_ladder import Truth, climb_many, climb_rung

VANISHES_AT_THE_THIRD = Truth(shifts=(0.5, 0.5, 0.0, 0.0))
NOWHERE = Truth(shifts=(0.0,) * 4, prompt_source_sd=0.2, prompts=12, looks=(4, 8, 16))


def end(verdict: str, p: float | None = 0.5, *, negligible: bool = False) -> TestRow:
    return TestRow(
        family="seed_effect",
        hypothesis="verdict",
        method="v",
        role="verdict",
        verdict=verdict,
        negligible=negligible,
        p=p if verdict != "INVALID" else None,
        reason="every text failed" if verdict == "INVALID" else None,
    )


def rung(size: int, verdict: str, p: float = 0.5, *, negligible: bool = False) -> Rung:
    row = end(verdict, 1e-4 if verdict == "DETECTED" else p, negligible=negligible)
    return Rung(model=f"m{size}", parameters=10**size, rows=[row])


def skipped(size: int, why: str = "no such model here") -> Rung:
    return Rung(model=f"m{size}", parameters=10**size, skipped=why)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([*VERDICTS, "skipped"]), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_crossover_is_the_first_of_the_unbroken_equivalent_rungs_at_the_top(
    verdicts: list[str], random: object
) -> None:
    rungs = [skipped(i) if v == "skipped" else rung(i, v) for i, v in enumerate(verdicts)]
    shuffled = sorted(rungs, key=lambda _: random.random())  # type: ignore[attr-defined]
    row = crossover_row(shuffled)
    starts = [i for i in range(len(verdicts)) if set(verdicts[i:]) == {"EQUIVALENT"}]
    if starts:
        assert (row.contrast, row.estimate) == (f"m{starts[0]}", float(10 ** starts[0]))
        assert row.n == len(verdicts) - starts[0]
        assert row.reason is None
    else:
        assert row.estimate is None
        assert row.reason is not None
        assert f"m{len(verdicts) - 1}" in row.reason


def test_a_skipped_rung_in_the_middle_stops_the_crossover_above_it() -> None:
    row = crossover_row([rung(1, "EQUIVALENT"), skipped(2), rung(3, "EQUIVALENT"), rung(4, "EQUIVALENT")])
    assert row.contrast == "m3"


def test_a_skipped_or_invalid_largest_rung_leaves_no_crossover_and_is_named() -> None:
    below = [rung(1, "EQUIVALENT"), rung(2, "EQUIVALENT")]
    assert crossover_row([*below, skipped(3)]).reason == (
        "the largest rung, m3, is not measured (no such model here), not EQUIVALENT"
    )
    assert crossover_row([*below, rung(3, "INVALID")]).reason == (
        "the largest rung, m3, is INVALID, not EQUIVALENT"
    )


def test_an_effect_inside_the_margin_counts_as_equivalent_though_detected() -> None:
    inside = rung(2, "DETECTED", negligible=True)
    assert counts_as_equivalent(inside)
    assert crossover_row([rung(1, "DETECTED"), inside, rung(3, "EQUIVALENT")]).contrast == "m2"


def test_an_ended_ladder_has_the_crossover_of_its_measured_rungs_and_counts_the_others() -> None:
    climbed = [rung(1, "DETECTED"), rung(2, "EQUIVALENT"), rung(3, "EQUIVALENT")]
    assert ladder_has_ended(climbed)
    row = crossover_row([*climbed, skipped(4, LADDER_ENDED), skipped(5, LADDER_ENDED)])
    assert row.contrast == "m2"
    assert row.n == 2
    assert "2 rungs not climbed" in row.method


def test_a_ladder_that_nothing_ended_cannot_leave_rungs_out() -> None:
    with pytest.raises(ValueError, match="no two rungs ended it"):
        crossover_row([rung(1, "EQUIVALENT"), skipped(2, LADDER_ENDED)])


@pytest.mark.parametrize("between", [rung(2, "INVALID"), skipped(2), rung(2, "INCONCLUSIVE")])
def test_two_equivalent_rungs_apart_do_not_end_the_ladder(between: Rung) -> None:
    assert not ladder_has_ended([rung(1, "EQUIVALENT"), between, rung(3, "EQUIVALENT")])


def test_the_end_of_the_ladder_ignores_what_the_plan_left_out_and_not_what_the_machine_lacked() -> None:
    both = [rung(1, "EQUIVALENT"), rung(2, "EQUIVALENT")]
    assert ladder_end_row(rung_rows([*both, skipped(3, LADDER_ENDED)])).verdict == "EQUIVALENT"
    lacking = ladder_end_row(rung_rows([*both, skipped(3)]))
    assert (lacking.verdict, lacking.reason) == ("INCONCLUSIVE", "m3: no such model here")
    found = ladder_end_row(rung_rows([*both, skipped(3), rung(4, "DETECTED")]))
    assert (found.verdict, found.contrast) == ("DETECTED", "m4")


def test_a_confirmation_asks_for_a_detected_rung_with_tapes_of_its_own() -> None:
    screen = [replace(rung(1, "DETECTED"), tapes=frozenset({"a"})), rung(2, "EQUIVALENT")]
    with pytest.raises(ValueError, match="m2 is EQUIVALENT; only a rung that the screen DETECTED"):
        scale_up_rows(screen, [rung(2, "DETECTED")])
    with pytest.raises(ValueError, match="shared with the screen: a"):
        scale_up_rows(screen, [screen[0]])
    with pytest.raises(ValueError, match="none named"):
        scale_up_rows(screen, [rung(1, "DETECTED")])


def test_too_few_fresh_samples_are_invalid_and_leave_the_family() -> None:
    screen = [replace(rung(i, "DETECTED"), tapes=frozenset({"a"})) for i in (1, 2)]
    few = replace(screen[0], tapes=frozenset({"b"}), look=19, looks=(19,))
    enough = replace(screen[1], tapes=frozenset({"b"}), look=20, looks=(20,))
    rows = scale_up_rows(screen, [few, enough])
    assert [row.verdict for row in rows] == ["INVALID", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert rows[0].reason == "19 fresh samples a cell; a confirmation has 20"
    assert rows[1].p_adjusted == rows[1].p
    assert rows[-1].role == "verdict"


def test_a_planted_shift_is_confirmed_by_a_fresh_run_and_luck_is_not() -> None:
    rng = np.random.default_rng(3)
    fresh_truth = Truth(shifts=(0.5, 0.0), looks=(20,))
    first = climb_rung(Truth(shifts=(0.5,)), 0, rng)
    again = climb_rung(fresh_truth, 0, rng, tape="fresh")
    row = scale_up_rows([first], [again])[0]
    assert row.verdict == "DETECTED"
    assert row.family == "scale_up"
    none = climb_rung(fresh_truth, 1, rng, tape="fresh")
    lucky = replace(none, model=first.model)
    assert scale_up_rows([first], [lucky])[0].verdict in ("EQUIVALENT", "INCONCLUSIVE")


def crossed(ladders: Sequence[Sequence[Rung]]) -> int:
    return sum(crossover_row(rungs).contrast == "size 3" for rungs in ladders)


def any_detected(ladders: Sequence[Sequence[Rung]]) -> int:
    return sum(any(row.verdict == "DETECTED" for row in rung_rows(rungs)) for rungs in ladders)


def test_a_shift_that_vanishes_at_the_third_size_crosses_there() -> None:
    n = 10
    assert crossed(climb_many(VANISHES_AT_THE_THIRD, n, seed=21)) >= stats.binom.ppf(1e-4, n, 0.95)


def test_a_ladder_without_effect_rarely_holds_a_detected_rung() -> None:
    n = 20
    ladders = climb_many(replace(NOWHERE, metrics=("mtld",)), n, seed=22)
    assert any_detected(ladders) <= stats.binom.isf(1e-4, n, 0.05)


def test_without_correction_the_simulation_above_would_fail() -> None:
    rng, n = np.random.default_rng(23), 4000
    p = rng.random((n, 4))
    hits = int((p.min(axis=1) < 0.05).sum())
    assert hits > stats.binom.isf(1e-4, n, 0.05)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_crossover_is_found_in_90_of_100_ladders() -> None:
    assert crossed(climb_many(VANISHES_AT_THE_THIRD, 100, seed=1)) >= 90


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_over_400_ladders_without_effect_the_family_wise_error_holds() -> None:
    assert any_detected(climb_many(NOWHERE, 400, seed=2)) <= stats.binom.isf(1e-3, 400, 0.05)
