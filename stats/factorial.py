"""Which factor of a 2^k factorial moves the outcome? Main effects and two-factor interactions.

Conditions that differ in several factors at once cannot say which one helps; a full factorial can, as each
effect is a contrast over all its arms. Every effect is one value a seed and item, so seeds and lemmas are
crossed as in the contrasts of conditions, and the same studentised bootstrap decides. Main effects are one
family, with Holm; interactions are shown beside them and decide nothing, but where one is large, a main
effect is an average over settings that differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.language_verdicts import concluded
from stats.rows import FloatArray, TestRow
from stats.sense_rows import contrast_rows
from stats.two_way_bootstrap import RESAMPLES, crossed, two_way

Levels = tuple[str, ...]
"""One level of each factor, in the factors' order."""


def effects(
    outcomes: Mapping[Levels, npt.ArrayLike], factors: Mapping[str, tuple[str, str]]
) -> dict[tuple[str, ...], FloatArray]:
    """Every main effect and two-factor interaction, one value a seed and item.

    With x = +1 at a factor's high level and -1 at its low one, over the 2^k arms: main effect
    sum x_a y / 2^(k-1), the mean at high less the mean at low; interaction sum x_a x_b y / 2^(k-1), half of
    what a does at b high less what it does at b low. Both are twice the coefficient of a regression on x.

    Parameters
    ----------
    outcomes : mapping of levels to (S, I) array
        Of each arm, the same seeds and items in each.
    factors : mapping of str to (low, high)
        Names and levels, in the order of the keys of `outcomes`.

    Returns
    -------
    dict of (name,) or (name, name) to (S, I) array
        Main effects first, then interactions, in the factors' order.

    Raises
    ------
    ValueError
        Arms missing or unknown, shapes that differ.

    References
    ----------
    Box, Hunter & Hunter (2005), Statistics for Experimenters, 5.4 to 5.6. Witness: R's `lm` with sum
    contrasts (`tests/reference/factorial.R`).

    Examples
    --------
    >>> factors = {"size": ("small", "large"), "mix": ("easy", "hard")}
    >>> y = {("small", "easy"): 1.0, ("large", "easy"): 3.0, ("small", "hard"): 2.0, ("large", "hard"): 8.0}
    >>> found = effects({arm: [[value]] for arm, value in y.items()}, factors)
    >>> {" x ".join(names): float(d[0, 0]) for names, d in found.items()}
    {'size': 4.0, 'mix': 3.0, 'size x mix': 2.0}
    """
    _check(factors, set(outcomes))
    arms = list(itertools.product(*factors.values()))
    tables = [np.asarray(outcomes[arm], dtype=np.float64) for arm in arms]
    shapes = sorted({table.shape for table in tables})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"outcomes of shapes {shapes}; pass (seeds, items), the same of every arm")
    y = np.stack(tables)
    sign = {
        name: np.array([1.0 if arm[place] == high else -1.0 for arm in arms])
        for place, (name, (_, high)) in enumerate(factors.items())
    }
    found: dict[tuple[str, ...], FloatArray] = {}
    for order in (1, 2):
        for names in itertools.combinations(factors, order):
            x = np.prod([sign[name] for name in names], axis=0)
            found[names] = np.tensordot(x, y, axes=1) * (2.0 / len(arms))
    return found


def analyse_factorial(
    outcomes: Mapping[Levels, npt.ArrayLike],
    factors: Mapping[str, tuple[str, str]],
    lemmas: Sequence[Any] | npt.NDArray[Any],
    *,
    rng: np.random.Generator,
    metric: str = "top1",
    margin: float = 0.02,
    alpha: float = 0.05,
    sizes: npt.ArrayLike = 1.0,
    unusable: Mapping[Levels, str] | None = None,
    resamples: int = RESAMPLES,
    family: str = "factorial",
) -> list[TestRow]:
    """Rows of a full two-level factorial: what each factor does, and each pair beyond that.

    Parameters
    ----------
    outcomes : mapping of levels to (S, I) array
        Of each arm, more is better; the same seeds and items in each.
    factors : mapping of str to (low, high)
        Names and levels, in the order of the keys of `outcomes`.
    lemmas : (I,) sequence
    margin : float
        Main effects smaller than this count as none, in units of the outcome.
    sizes : (I,) array, optional
        What an item counts for, e.g. its steps; outcomes are then counts.
    unusable : mapping, optional
        Arm -> why it says nothing. Every effect uses every arm, so all of them are INVALID then.

    Returns
    -------
    list of TestRow
        `main_effect` (decides; contrast the factor's name; interval at 1 - alpha, p and Holm's p over the
        factors, verdict), `main_effect_tost` (equivalence), `interaction` (secondary; contrast `a x b`,
        interval and p for itself).

    Raises
    ------
    ValueError
        No full factorial, shapes or values that `crossed` refuses, a margin that is not above 0.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> factors = {"size": ("small", "large"), "mix": ("easy", "hard")}
    >>> arms = itertools.product(*factors.values())
    >>> hits = {arm: (rng.random((10, 600)) < 0.2 + 0.2 * (arm[0] == "large")).astype(float) for arm in arms}
    >>> for row in analyse_factorial(hits, factors, np.arange(600) // 10, rng=rng, margin=0.05):
    ...     if row.role != "equivalence":
    ...         print(row.hypothesis, row.contrast, round(row.estimate, 3), row.verdict)
    main_effect size 0.185 DETECTED
    main_effect mix -0.001 EQUIVALENT
    interaction size x mix 0.007 None
    """
    broken = dict(unusable or {})
    if not margin > 0.0:
        raise ValueError(f"margin {margin}; the smallest effect of interest is above 0")
    bare = TestRow(
        family=family,
        hypothesis="main_effect",
        metric=metric,
        method="two-way bootstrap over seeds and lemmas",
        role="decides",
        alpha=alpha,
        margin=margin,
        reason="undefined",
    )
    if broken:
        _check(factors, set(outcomes) | set(broken))
        why = "; ".join(f"{'-'.join(arm)}: {reason}" for arm, reason in sorted(broken.items()))
        return concluded(_rows_without(factors, replace(bare, reason=why)), alpha=alpha)
    rows: list[TestRow] = []
    for names, d in effects(outcomes, factors).items():
        found = two_way(crossed(d, lemmas, sizes=sizes), rng=rng, resamples=resamples)
        main = replace(bare, contrast=" x ".join(names))
        decides, equal = contrast_rows(found, main, tests=len(factors))[:2]
        if len(names) == 1:
            rows += [decides, replace(equal, hypothesis="main_effect_tost")]
        else:
            rows.append(_interaction(decides, found.reason))
    return concluded(rows, alpha=alpha)


def _check(factors: Mapping[str, tuple[str, str]], arms: set[Levels]) -> None:
    """Refuse anything but every combination of two levels a factor."""
    wrong = [name for name, levels in factors.items() if len(set(levels)) != 2]
    if not factors or wrong:
        raise ValueError(f"factors {dict(factors)}; one or more, each of two different levels (low, high)")
    wanted = set(itertools.product(*factors.values()))
    if arms != wanted:
        raise ValueError(
            f"{len(arms)} arms; missing {sorted(wanted - arms)[:3]}, unknown {sorted(arms - wanted)[:3]}; "
            f"pass the {len(wanted)} of a full factorial over {', '.join(factors)}"
        )


def _rows_without(factors: Mapping[str, tuple[str, str]], bare: TestRow) -> list[TestRow]:
    """Every effect with the reason why there is no number."""
    rows = [replace(bare, contrast=name) for name in factors]
    return rows + [
        _interaction(replace(bare, contrast=" x ".join(names)), bare.reason)
        for names in itertools.combinations(factors, 2)
    ]


def _interaction(row: TestRow, reason: str | None) -> TestRow:
    """The row as a secondary one: no margin was declared for interactions."""
    return replace(
        row, hypothesis="interaction", role="secondary", margin=None, n_to_settle=None, reason=reason
    )
