"""The control experiment as a whole: every deciding row and verdict as R has them of the same texts."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable

import numpy as np
import pytest

from stats.control import ControlRun, Transfer, analyse_control
from stats.integrity import IDENTITY_RATE
from stats.proportions import p_at_least
from stats.rows import TestRow
from tests.from_r import REFERENCE

LINES = [
    line
    for line in csv.reader((REFERENCE / "control_rows.txt").read_text().splitlines(), delimiter="\t")
    if len(line) == 6
]
"""Case, hypothesis, metric, contrast, column, value."""
PARTS = ("sample", "repeat", "repeat", "swap", "swap", "replay")
TextOf = Callable[[str, int, int, int], str]


def by_value(label: str, prompt: int, k: int, seed: int) -> str:
    return f"{prompt} {seed}"


def of_the_prompt(label: str, prompt: int, k: int, seed: int) -> str:
    return f"{prompt}"


def sometimes_by_value(label: str, prompt: int, k: int, seed: int) -> str:
    return f"{prompt} {k % 3 if prompt == 1 else 0}"


def sometimes_by_label(label: str, prompt: int, k: int, seed: int) -> str:
    return f"{prompt} {seed} {'C' if label == 'C' and k < 5 else ''}"


def experiment(text_of: TextOf, lost: int = 0, wrong: int = 0, moved: int = 0) -> list[ControlRun]:
    """The runs of `control_rows.R`: h = 7919 i mod 1009 tells which texts are missing or other ones."""
    runs = []
    for i, (s, p, k, r) in enumerate(np.ndindex(3, 3, 20, 6)):
        label = "ABC"[(s + (r - 2 if PARTS[r] == "swap" else 0)) % 3]
        seed = 1000 * (s + 1) + 100 * (p + 1) + (6 if k == 7 else k)
        h = 7919 * i % 1009
        text = text_of(label, p + 1, k, seed) + (f" run {r}" if h >= 1009 - wrong else "")
        run = ControlRun(
            part=PARTS[r],
            label=label,
            drawn_by="ABC"[s],
            prompt=str(p + 1),
            k=k,
            seed32=1 if PARTS[r] == "replay" and k < moved else seed,
            condition="cold" if r == 1 else "warm",
            sha256=None if h < lost else text,
            failure="timed out" if h < lost else None,
        )
        runs.append(run)
    return runs


EXPERIMENTS = {
    "follows": (experiment(by_value, lost=60), 300),
    "few_wrong": (experiment(by_value, lost=30, wrong=4), 300),
    "low": (experiment(by_value, lost=30, wrong=100), 300),
    "same": (experiment(of_the_prompt), 300),
    "same_lost": (experiment(of_the_prompt, lost=10), 300),
    "some": (experiment(sometimes_by_value, lost=30), 300),
    "short": (experiment(by_value, lost=60), 400),
    "lost": (experiment(by_value, lost=300), 300),
    "tape": (experiment(by_value, moved=2), 300),
    "label": (experiment(sometimes_by_label, lost=30), 300),
}


def transfer(shifts: tuple[float, float], wave: float) -> Transfer:
    """The texts of `control_rows.R`."""
    p, a, _ = (index.ravel() for index in np.indices((10, 2, 12)))
    u, i = 2.1 * (p + 1) + 4.3 * (a + 1), np.arange(1, len(p) + 1)
    mtld = 50 + 8 * np.sin(5 * (p + 1)) + shifts[0] * (a + 1) + wave * np.sin(u) + 3 * np.sin(1.7 * i)
    distinct = 0.7 + shifts[1] * (a + 1) + 0.01 * wave * np.cos(u) + 0.04 * np.sin(2.9 * i)
    return Transfer(
        values={"mtld": mtld, "distinct_2": distinct},
        arm=[("FULL", "SHORT")[x] for x in a],
        prompt=[f"{x}" for x in p],
        primary=("mtld", "distinct_2"),
    )


TRANSFERS = {
    "shifted": transfer((2.5, 0.004), 0.9),
    "alike": transfer((0.0, 0.0), 0.1),
    "unclear": transfer((0.6, -0.004), 0.9),
}


def expected(case: str) -> list[tuple[tuple[str, str, str], str, str]]:
    return [((line[1], line[2], line[3]), line[4], line[5]) for line in LINES if line[0] == case]


def by_name(rows: list[TestRow]) -> dict[tuple[str, str, str], TestRow]:
    asked = [row for row in rows if (row.hypothesis, row.role) != ("omnibus", "diagnostic")]
    return {(row.hypothesis, row.metric, row.contrast): row for row in asked}


def test_r_printed_these_experiments_and_no_others() -> None:
    assert list(dict.fromkeys(line[0] for line in LINES)) == [*EXPERIMENTS, *TRANSFERS]


@pytest.mark.parametrize("case", EXPERIMENTS)
def test_shares_intervals_p_and_verdict_of_an_experiment_are_those_of_r(case: str) -> None:
    runs, required = EXPERIMENTS[case]
    all_rows = analyse_control(runs, required_pairs=required, rng=np.random.default_rng(1))
    rows, wanted = by_name(all_rows), expected(case)
    assert set(rows) == {name for name, _, _ in wanted}
    for name, column, value in wanted:
        row = rows[name]
        if column == "verdict":
            assert row.verdict == value
        elif column == "p_at_least":
            assert row.estimate is not None
            assert row.n is not None
            found = p_at_least(IDENTITY_RATE, row.estimate, row.n)
            assert found == pytest.approx(float(value), rel=1e-9), name
        elif column == "p_exact":  # estimated from 9,999 random tables
            exact = float(value)
            assert row.method == "chi-square, random tables"
            assert row.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999) + 1e-4)
        else:
            found = getattr(row, column)
            assert found == (None if value == "None" else pytest.approx(float(value), rel=1e-9, abs=1e-12)), (
                name,
                column,
            )


@pytest.mark.parametrize("case", TRANSFERS)
def test_tests_and_verdict_of_the_distribution_transfer_are_rs_paired_t_tests(case: str) -> None:
    runs, required = EXPERIMENTS["follows"]
    all_rows = analyse_control(runs, TRANSFERS[case], required_pairs=required, rng=np.random.default_rng(1))
    rows = by_name([row for row in all_rows if row.family == "distribution_transfer"])
    wanted = expected(case)
    assert set(rows) == {name for name, _, _ in wanted}
    for name, column, value in wanted:
        found = getattr(rows[name], column)
        if column == "verdict":
            assert found == value
        else:  # uniroot and ptukey give fewer digits than t
            close = 1e-7 if column in ("mde", "p_adjusted") else 1e-9
            assert found == pytest.approx(float(value), rel=close), (name, column)
    assert all_rows[-1].verdict == "DETECTED"  # the chain's verdict stands beside the transfer's
