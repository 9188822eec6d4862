"""A ladder's chart shows rungs, verdicts and crossover; those of distributions say what they show."""

from __future__ import annotations

import polars as pl

from lab import figures
from lab.figures_distribution import permutation_null, seed_quantiles
from lab.figures_scale import scale


def rungs(crossover: int | None) -> pl.DataFrame:
    """Four rungs, the last one without an answer."""
    return pl.DataFrame(
        {
            "rung": ["a", "b", "c", "d"],
            "parameters": [100, 1_000, 10_000, 100_000],
            "effect": [0.6, 0.3, 0.05, None],
            "low": [0.4, 0.1, -0.1, None],
            "high": [0.8, 0.5, 0.2, None],
            "margin": [0.2, 0.2, 0.2, None],
            "alpha": [0.05] * 4,
            "verdict": ["DETECTED", "DETECTED", "EQUIVALENT", None],
            "p_adjusted": [0.001, 0.01, 0.6, None],
            "n": [100, 100, 100, None],
            "crossover": [crossover] * 4,
        }
    )


def test_the_scale_chart_shows_every_measured_rung_by_its_verdict_and_the_crossover() -> None:
    chart = scale(rungs(10_000))
    chart.to_dict()
    svg = figures.draw_svg(figures.specification(chart))
    assert "a: +0.60 [+0.40, +0.80], DETECTED" in svg
    assert "d: " not in svg
    assert svg.count("DETECTED") >= 1
    assert 'stroke-dasharray="5,3"' in svg


def test_without_a_crossover_there_is_no_line() -> None:
    assert 'stroke-dasharray="5,3"' not in figures.draw_svg(figures.specification(scale(rungs(None))))


def test_quantiles_say_the_largest_deviation_of_each_source() -> None:
    frame = pl.DataFrame(
        {
            "source": ["A", "A", "B", "B"],
            "expected": [0.25, 0.75] * 2,
            "deviation": [0.01, -0.3, 0.0, 0.002],
            "n": [1000] * 4,
        }
    )
    chart = seed_quantiles(frame)
    chart.to_dict()
    assert "A: at most 0.3000; B: at most 0.0020" in figures.specification(chart)["description"]


def test_the_permutation_chart_names_observed_and_null() -> None:
    frame = pl.DataFrame(
        {
            "metric": ["mtld"],
            "statistic": [9.0],
            "low": [0.1],
            "high": [3.7],
            "p": [0.001],
            "p_adjusted": [0.003],
        }
    )
    chart = permutation_null(frame)
    chart.to_dict()
    said = "mtld: 9.00, permutations 0.10 to 3.70"
    assert said in figures.specification(chart)["description"]
