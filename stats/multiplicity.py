"""Corrections for a family of tests. The only door through which p values are corrected.

A p value that is missing, NaN or outside [0, 1] is refused: silently dropping it would shrink the family, and
letting it through would poison every other member. `correct_rows` is the considered way: an undefined test
keeps its row and its reason, leaves the family, and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stats.rows import FloatArray, TestRow

Correction = Literal["holm", "benjamini-hochberg"]


@dataclass(frozen=True, kw_only=True)
class CorrectedFamily:
    """A family after correction."""

    rows: list[TestRow]
    """In the order given; undefined ones unchanged."""
    tested: int
    undefined: int

    @property
    def note(self) -> str:
        """Size of the family in words, for reports.

        Examples
        --------
        >>> CorrectedFamily(rows=[], tested=3, undefined=1).note
        '3 tests corrected together; 1 undefined, excluded'
        """
        return f"{self.tested} tests corrected together; {self.undefined} undefined, excluded"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: family-wise error under any dependence.

    Parameters
    ----------
    p_values
        The whole family, each in [0, 1].

    Returns
    -------
    list of float
        Adjusted p values in the order given.

    Raises
    ------
    ValueError
        When a p value is None, NaN or outside [0, 1].

    References
    ----------
    Holm (1979), Scand. J. Stat. 6, 65. Witnesses: R's `p.adjust(method = "holm")`, statsmodels.

    Examples
    --------
    >>> [round(p, 10) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    steps = (len(p) - np.arange(len(p))) * p[order]
    return _restored(np.minimum(1.0, np.maximum.accumulate(steps)), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's step-up adjustment: false discovery rate under independence.

    Parameters, return value and errors as `holm`.

    References
    ----------
    Benjamini & Hochberg (1995), J. R. Stat. Soc. B 57, 289. Witnesses: R's `p.adjust(method = "BH")`,
    statsmodels.

    Examples
    --------
    >>> [round(p, 10) for p in benjamini_hochberg([0.01, 0.04, 0.03, 0.005])]
    [0.02, 0.04, 0.04, 0.02]
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    steps = len(p) / (1.0 + np.arange(len(p))) * p[order]
    return _restored(np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1]), order)


def correct_rows(rows: Sequence[TestRow], correction: Correction = "holm") -> CorrectedFamily:
    """Fill `p_adjusted` over one family of rows; a row without p stays as it is and is counted.

    Raises
    ------
    ValueError
        When a row has neither a p value nor a reason for its absence.

    Examples
    --------
    >>> a = TestRow(family="f", hypothesis="h", metric="a", method="t", role="decides", p=0.02)
    >>> b = TestRow(family="f", hypothesis="h", metric="b", method="t", role="decides", reason="constant")
    >>> family = correct_rows([a, b])
    >>> [row.p_adjusted for row in family.rows], family.tested, family.undefined
    ([0.02, None], 1, 1)
    """
    for row in rows:
        if row.p is None and row.reason is None:
            raise ValueError(
                f"{row.family}/{row.hypothesis}/{row.metric}/{row.contrast} has no p value and no reason; "
                "leave it out of the family or say why it is undefined"
            )
    p = [row.p for row in rows if row.p is not None]
    adjusted = iter((holm if correction == "holm" else benjamini_hochberg)(p))
    corrected = [row if row.p is None else replace(row, p_adjusted=next(adjusted)) for row in rows]
    return CorrectedFamily(rows=corrected, tested=len(p), undefined=len(rows) - len(p))


def _checked(p_values: Sequence[float | None]) -> FloatArray:
    for place, p in enumerate(p_values):
        if p is None or math.isnan(p) or not 0.0 <= p <= 1.0:
            raise ValueError(
                f"p value {place} of {len(p_values)} is {p}; a family takes numbers in [0, 1]: "
                "exclude undefined tests first (correct_rows does, and counts them)"
            )
    return np.array(p_values, dtype=np.float64)


def _restored(values: FloatArray, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    out = np.empty_like(values)
    out[order] = values
    return [float(value) for value in out]
