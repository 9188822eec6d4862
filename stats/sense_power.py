"""What seeds and lemmas could show: the power table of the sense study, and what three seeds ask for.

All of it follows from the mean squares of the table seeds x lemmas, never from the difference seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from stats.power import minimum_detectable_effect
from stats.two_way_bootstrap import MeanSquares

MOST_SEEDS = 10_000
"""A question that needs more seeds than this counts as not to be settled by seeds."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a number of seeds and lemmas could show."""

    seeds: int
    lemmas: int
    se: float
    """Expected standard error of the difference."""
    df: float
    """Satterthwaite's, of the expected mean squares."""
    mde: float
    """Difference found with power .8 at alpha."""
    mde_after_holm: float
    """The same at alpha / tests, Holm's first step."""


def critical_ratio(seeds: int, *, alpha: float = 0.05) -> float:
    """Mean over SD of the seeds' differences from which a two-sided paired t is significant.

    t(1 - alpha/2, n - 1) / sqrt(n). For power .8 the true ratio must be `paired_seeds.detectable(1, n)`.

    References
    ----------
    Student (1908), Biometrika 6, 1. Witness: R's `qt` and `power.t.test` (`tests/reference/two_way.R`).

    Examples
    --------
    >>> from stats.paired_seeds import detectable
    >>> [round(critical_ratio(n), 2) for n in (3, 5, 10)], round(detectable(1.0, 3), 2)
    ([2.48, 1.24, 0.72], 3.26)
    """
    if seeds < 2 or not 0.0 < alpha < 1.0:
        raise ValueError(f"{seeds} seeds, alpha {alpha}; two seeds or more, alpha between 0 and 1")
    return -float(special.stdtrit(seeds - 1, alpha / 2.0)) / math.sqrt(seeds)


def planned(squares: MeanSquares, seeds: int, lemmas: int, *, alpha: float = 0.05, tests: int = 1) -> Planned:
    """Standard error and smallest detectable difference of another design with the same variances.

    se^2 = v_seeds / S + v_lemmas / L + v_rest / (S L), the components of `squares`; items a lemma stay as
    they are. df by Satterthwaite on the mean squares expected of them, power by the noncentral t.

    Parameters
    ----------
    squares : MeanSquares
        Of the difference in the study at hand.
    tests : int
        Contrasts that Holm corrects together.

    Raises
    ------
    ValueError
        Fewer than two seeds or lemmas, or nothing that varies.

    References
    ----------
    Searle, Casella & McCulloch (1992), Variance Components, 4.7. Witness: `tests/reference/two_way.R`.

    Examples
    --------
    Seeds vary by 4 points, lemmas by 10, the rest by 30; more seeds help until lemmas are what is left.

    >>> squares = MeanSquares(seeds=60 * 16 + 900.0, lemmas=10 * 100 + 900.0, rest=900.0, S=10, L=60)
    >>> [round(planned(squares, n, 60).mde, 1) for n in (3, 10, 40, 1000)]
    [15.8, 6.5, 4.4, 3.7]
    """
    if seeds < 2 or lemmas < 2:
        raise ValueError(f"{seeds} seeds x {lemmas} lemmas; two of each or more")
    of_seed, of_lemma, rest = squares.components
    expected = MeanSquares(
        seeds=rest + lemmas * of_seed, lemmas=rest + seeds * of_lemma, rest=rest, S=seeds, L=lemmas
    )
    se = math.sqrt(expected.variance)
    if not se > 0.0:
        raise ValueError("nothing varies over seeds and lemmas; there is no power to speak of")
    return Planned(
        seeds=seeds,
        lemmas=lemmas,
        se=se,
        df=expected.df,
        mde=minimum_detectable_effect(se, expected.df, alpha),
        mde_after_holm=minimum_detectable_effect(se, expected.df, alpha / tests),
    )


def seeds_for(
    squares: MeanSquares, margin: float, lemmas: int, *, alpha: float = 0.05, tests: int = 1
) -> int | None:
    """Fewest seeds that find a difference of `margin` after Holm with power .8; None where lemmas forbid it.

    Examples
    --------
    >>> squares = MeanSquares(seeds=60 * 16 + 900.0, lemmas=900.0, rest=900.0, S=10, L=60)
    >>> seeds_for(squares, 5.0, 60), seeds_for(squares, 1.0, 60)
    (12, 246)
    >>> wide = MeanSquares(seeds=60 * 16 + 900.0, lemmas=10 * 400 + 900.0, rest=900.0, S=10, L=60)
    >>> seeds_for(wide, 5.0, 60) is None
    True
    """

    def enough(seeds: int) -> bool:
        return planned(squares, seeds, lemmas, alpha=alpha, tests=tests).mde_after_holm <= margin

    if not enough(MOST_SEEDS):
        return None
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
