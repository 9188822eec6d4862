"""Regimes at the windows of the study's earlier version: the same questions, in families of their own.

Two of those windows abut, so what is right before the second is another regime: `contact_rows` say so, with
the clean steps that are left. With one window a regime nothing can be held out, and each separability is
INCONCLUSIVE. All rows are secondary: they enter no gate, and no correction of the strong set's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stats.regime_deltas import regime_delta_rows
from stats.regime_series import RunSeries
from stats.rows import TestRow
from stats.separability import separability_rows

DELTAS, SEPARABILITY, CONTACT = "published_deltas", "published_separability", "published_contact"
FAMILIES = (DELTAS, SEPARABILITY, CONTACT)


def published_rows(
    series: Sequence[RunSeries],
    channels: Sequence[str],
    *,
    rng: np.random.Generator,
    alpha: float,
    margin: float,
    permutations: int,
    before: int,
) -> list[TestRow]:
    """What regimes move, whether the state tells them apart, and which windows abut.

    Parameters
    ----------
    series : sequence of RunSeries
        One a seed, of the same windows.
    margin : float
        Of AUC.
    before : int
        Clean steps right before a window that it is compared with, at most.

    Returns
    -------
    list of TestRow
        Those of `stats.regime_deltas.regime_delta_rows` and `stats.separability.separability_rows` in
        families FAMILIES, verdicts kept, roles that decide made secondary; then `contact_rows`.

    Raises
    ------
    ValueError
        As those two.
    """
    deltas = regime_delta_rows(series, channels, alpha=alpha, before=before)
    apart = separability_rows(
        series, rng=rng, alpha=alpha, margin=margin, permutations=permutations, reference=before
    )
    rows = [replace(row, family=DELTAS) for row in deltas]
    rows += [replace(row, family=SEPARABILITY, role=_aside(row.role)) for row in apart]
    return rows + contact_rows(series[0], before)


def _aside(role: str) -> str:
    return "secondary" if role in ("decides", "verdict", "equivalence") else role


def contact_rows(run: RunSeries, before: int) -> list[TestRow]:
    """Of each window, how many clean steps are right before it, and what abuts where there are none.

    Examples
    --------
    >>> from stats.regime_series import Occurrence
    >>> windows = (Occurrence(regime="clamp", number=0, start=4, end=6, twin={}),
    ...            Occurrence(regime="fog", number=0, start=6, end=9, twin={}))
    >>> run = RunSeries(seed=0, channels={"loss_nats": np.zeros(10)}, occurrences=windows)
    >>> for row in contact_rows(run, before=3):
    ...     print(row.contrast, row.estimate, row.reason)
    clamp/0 3.0 None
    fog/0 0.0 clamp/0 ends at step 6, where it begins: no clean step is right before it
    """
    rows = []
    for one in run.occurrences:
        steps = len(run.before(one, before))
        abut = [f"{o.regime}/{o.number}" for o in run.occurrences if o.start < one.start <= o.end]
        begins = "where it begins: no clean step is right before it"
        why = f"{', '.join(abut)} ends at step {one.start}, {begins}" if abut else None
        rows.append(
            TestRow(
                family=CONTACT,
                hypothesis="clean_before",
                metric="steps",
                contrast=f"{one.regime}/{one.number}",
                method=f"clean steps right before the window, at most {before}",
                role="diagnostic",
                estimate=float(steps),
                n=1,
                reason=why,
            )
        )
    return rows
