"""Does a scorer that must not succeed stay at chance? One row a shortcut, intervals over lemmas.

A shortcut that is not shown to be at chance is no blocker that retraining could mend: the items then measure
something else, and every verdict on them is INVALID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.aligned_bootstrap import intervals, resample_documents
from stats.rows import FloatArray, TestRow
from stats.two_way_bootstrap import RESAMPLES


@dataclass(frozen=True, kw_only=True, eq=False)
class Shortcut:
    """A scorer that must not succeed, and what chance gives it on each item."""

    hits: FloatArray
    """(I,) 1, 0, or the share expected with ties broken by chance."""
    chance: FloatArray
    """(I,) probability of a hit by chance."""
    lemmas: Sequence[Any] | npt.NDArray[Any]
    """(I,)"""


def shortcut_rows(
    shortcuts: Mapping[str, Shortcut],
    *,
    margin: float,
    rng: np.random.Generator,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    family: str = "ship",
    condition: str = "",
) -> list[TestRow]:
    """One row a shortcut: DETECTED where it is shown to be at chance, else INVALID.

    `shortcut_at_chance`, contrast `condition:name` or the name alone; estimate: top1 above chance, its
    interval over lemmas.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> lemmas, chance = np.arange(600) // 10, np.full(600, 0.1)
    >>> found = {
    ...     "length": Shortcut(hits=(rng.random(600) < 0.1) * 1.0, chance=chance, lemmas=lemmas),
    ...     "source": Shortcut(hits=(rng.random(600) < 0.4) * 1.0, chance=chance, lemmas=lemmas),
    ... }
    >>> [(row.contrast, row.verdict) for row in shortcut_rows(found, margin=0.05, rng=rng)]
    [('length', 'DETECTED'), ('source', 'INVALID')]
    """
    bare = TestRow(
        family=family,
        hypothesis="shortcut_at_chance",
        metric="top1",
        contrast=condition,
        method="top1 above chance",
        role="decides",
        alpha=alpha,
        margin=margin,
        reason="undefined",
    )
    if not shortcuts:
        none = replace(bare, contrast=condition or "no shortcut", verdict="INVALID")
        return [replace(none, reason="no shortcut was audited")]
    rows = []
    for name, shortcut in shortcuts.items():
        above = np.asarray(shortcut.hits, dtype=np.float64) - np.asarray(shortcut.chance, dtype=np.float64)
        drawn = resample_documents(list(shortcut.lemmas), rng=rng, resamples=resamples)
        found = intervals(drawn.means(above)[:, None], drawn, alpha)[0]
        held = found.high is not None and found.high < margin
        why = found.reason
        if not held and found.low is not None and found.high is not None:
            shown = "above chance" if found.low > 0.0 else "not shown to be at chance"
            why = f"{shown}: the interval ends {found.high:.3f} above it, allowed is {margin:g}"
        rows.append(
            replace(
                bare,
                contrast=f"{condition}:{name}" if condition else name,
                method=f"top1 above chance; {found.method}",
                estimate=found.estimate,
                low=found.low,
                high=found.high,
                n=found.n,
                verdict="DETECTED" if held else "INVALID",
                reason=why,
            )
        )
    return rows
