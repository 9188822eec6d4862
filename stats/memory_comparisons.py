"""Memories of former states against none, and buffers against a running mean, over seeds.

Held-out loss against no memory decides. A buffer that the run was too short to fill had its length not in
use: its comparisons say so and have no part in a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stats.over_seeds import mean_over_seeds
from stats.rows import TestRow
from stats.run_comparisons import any_differs_row, comparison_rows

Values = Mapping[str, Mapping[int, float | None]]
"""Run -> seed -> number."""
LOSS = "valid_loss_nats"


def memory_rows(
    arms: Sequence[str],
    values: Mapping[str, Values],
    shares: Values,
    *,
    without: str,
    unused: Mapping[str, str],
    reasons: Mapping[str, str],
    margin: float,
    alpha: float,
) -> list[TestRow]:
    """Every memory less none, every buffer less every running mean, and what share memories have.

    Parameters
    ----------
    arms : sequence of str
        Memories; those that start with `mem-ema` are running means, with `mem-buf` buffers.
    values : mapping of str to Values
        Metric -> run -> seed -> number; `valid_loss_nats` is among them and alone has the margin.
    shares : Values
        Of the memories, from 0 to 1.
    without : str
        The run without a memory.
    unused : mapping of str to str
        Memory -> why its setting was not in use.
    reasons : mapping of str to str
        Run -> why it says nothing.

    Returns
    -------
    list of TestRow
        Family `memory`: `difference` of every metric, "MEMORY-WITHOUT" (loss decides, Holm within a metric);
        `buffer_minus_ema` (secondary; the same, "BUFFER-EMA"); `share` (diagnostic, contrast MEMORY: mean
        over seeds, t interval, no p since a share is never below 0); last `memory_matters` (verdict).

    References
    ----------
    As `stats.run_comparisons.comparison_rows`.

    Examples
    --------
    >>> loss = {"mem-ema": {0: 1.91, 1: 1.92, 2: 1.90}, "mem-buf": {0: 1.80, 1: 1.83, 2: 1.79},
    ...         "none": {0: 1.90, 1: 1.92, 2: 1.91}}
    >>> rows = memory_rows(("mem-ema", "mem-buf"), {"valid_loss_nats": loss}, {"mem-ema": {0: .1, 1: .2}},
    ...                    without="none", unused={}, reasons={}, margin=0.05, alpha=0.05)
    >>> [(row.contrast, round(row.estimate, 2)) for row in rows if row.hypothesis == "buffer_minus_ema"]
    [('mem-buf-mem-ema', -0.1)]
    >>> rows[-1].verdict, rows[-1].reason
    ('DETECTED', 'differs: mem-buf-none')
    """
    told: dict[str, Any] = {"family": "memory", "alpha": alpha}
    against_none = [(arm, without) for arm in arms]
    rows: list[TestRow] = []
    for metric, found in values.items():
        is_loss = metric == LOSS
        rows += _apart(found, against_none, unused if is_loss else {}, reasons, metric=metric,
                       margin=margin if is_loss else None, role="decides" if is_loss else "secondary",
                       **told)  # fmt: skip
    means, buffers = ([arm for arm in arms if arm.startswith(kind)] for kind in ("mem-ema", "mem-buf"))
    kinds = [(buffer, mean) for buffer in buffers for mean in means]
    for metric, found in values.items():
        rows += _apart(found, kinds, unused, reasons, metric=metric, hypothesis="buffer_minus_ema",
                       margin=margin if metric == LOSS else None, role="secondary", **told)  # fmt: skip
    rows += [_share(shares.get(arm, {}), arm, reasons, alpha) for arm in arms]
    return [*rows, any_differs_row(rows, hypothesis="memory_matters", family="memory")]


def _apart(
    values: Values,
    pairs: Sequence[tuple[str, str]],
    unused: Mapping[str, str],
    reasons: Mapping[str, str],
    *,
    role: str,
    **told: Any,
) -> list[TestRow]:
    """Pairs corrected together; those of a setting that was not in use say so, apart from them."""
    used = [pair for pair in pairs if pair[0] not in unused]
    idle = [pair for pair in pairs if pair[0] in unused]
    rows = comparison_rows(values, used, reasons=reasons, role=role, **told) if used else []
    if idle:
        rows += comparison_rows(values, idle, reasons={**reasons, **unused}, role="secondary", **told)
    return rows


def _share(
    by_seed: Mapping[int, float | None], arm: str, reasons: Mapping[str, str], alpha: float
) -> TestRow:
    bare = TestRow(family="memory", hypothesis="share", metric="memory_share", contrast=arm,
                   method="t over seeds", role="diagnostic", alpha=alpha, n=0,
                   reason=reasons.get(arm, "no seed has it"))  # fmt: skip
    values = [math.nan if value is None else value for value in by_seed.values()]
    return mean_over_seeds(values, bare, tested=False) if values and arm not in reasons else bare
