"""What must hold before a change of bits means anything: nulls at zero, widths in order, a fit model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stats.aligned_bootstrap import Interval, intervals
from stats.rows import TestRow
from tasks.quant_measured import PLAIN, Measured

AGAIN, NULL, INT8, MAIN, INT2 = "fp32 again", "bf16", "int8", "int4", "int2"
NEAR_NULL = 0.1
"""INT8 may diverge from the baseline at most this much of what INT4 does, in KL."""
MOST_OF_INT2 = 0.5
"""INT4 may diverge at most this much of what INT2 does."""


def judged(rows: Sequence[TestRow], at: Measured) -> list[TestRow]:
    """The rows of a question, its verdict INVALID with the reasons where a check of the model failed."""
    failed = failed_checks(at)
    return [unless(row, failed) if row.hypothesis == "experiment" else row for row in rows]


def unless(row: TestRow, failed: Sequence[str]) -> TestRow:
    """The verdict, or INVALID with the checks that failed."""
    return replace(row, verdict="INVALID", negligible=None, reason="; ".join(failed)) if failed else row


def null_rows(at: Measured, family: str) -> list[TestRow]:
    """Checks that must hold before a change means anything; a row with a reason is one that does not."""
    bare = TestRow(family=family, hypothesis="null", method="", role="diagnostic", reason="undefined")
    delta = replace(bare, metric="delta_bits_per_sentence")
    widths = replace(bare, hypothesis="order_of_widths", metric="kl_bits")
    return [
        _unchanged(at, replace(delta, contrast=AGAIN)),
        _near_zero(at, replace(delta, contrast=NULL)),
        _ordered(at, widths, NULL, MAIN, NEAR_NULL),
        _ordered(at, widths, INT8, MAIN, NEAR_NULL),
        _ordered(at, widths, MAIN, INT2, MOST_OF_INT2),
    ]


def failed_checks(at: Measured) -> list[str]:
    """Why nothing may be concluded of this model: the baseline is unfit, or a null is off."""
    absent = [name for name in (AGAIN, NULL, INT8, MAIN, INT2) if name not in at.bodies]
    if absent:
        return [f"{', '.join(absent)} was not measured, so no null is known to hold"]
    said = _no_number(at, PLAIN)  # once, not once more with every check that needs the baseline
    rows = [row for row in null_rows(at, "nulls") if row.reason not in (None, said)]
    return [*at.reasons(PLAIN).values(), *(f"{row.hypothesis} {row.contrast}: {row.reason}" for row in rows)]


def _no_number(at: Measured, *names: str) -> str | None:
    """Why a check cannot be made: some loss of these variants is no number."""
    whys = (why for name in names for why in at.unmeasured(name).values())
    return "; ".join(dict.fromkeys(whys)) or None


def _unchanged(at: Measured, bare: TestRow) -> TestRow:
    bare = replace(bare, method="largest change of any sentence; exactly 0 is due")
    if why := _no_number(at, AGAIN, PLAIN):
        return replace(bare, reason=why)
    largest = float(np.abs(at.bits(AGAIN) - at.aligned.bits).max())
    changed = f"the unquantised model changed by {largest:.3g} bits"
    return replace(bare, estimate=largest, reason=None if largest == 0.0 else changed)


def _near_zero(at: Measured, bare: TestRow) -> TestRow:
    bare = replace(
        bare,
        method=f"bootstrap; intervals of mean and gap must cover 0 or lie within {NEAR_NULL} of the margin",
    )
    if why := _no_number(at, NULL, PLAIN):
        return replace(bare, reason=why)
    change = at.drawn.means(at.bits(NULL) - at.aligned.bits)  # (1 + R, L)
    low = np.array(at.aligned.is_low)
    gap = change[:, low].mean(axis=1) - change[:, ~low].mean(axis=1)
    mean, between = intervals(np.column_stack([change.mean(axis=1), gap]), at.drawn, at.asked.alpha)
    off = [
        f"{what} {found.estimate} bits a sentence"
        for what, found in (("mean", mean), ("gap between tiers", between))
        if not _is_null(found, NEAR_NULL * at.asked.margin)
    ]
    return replace(
        bare,
        estimate=mean.estimate,
        low=mean.low,
        high=mean.high,
        n=mean.n,
        reason=", ".join(off) or None,
    )


def _is_null(found: Interval, most: float) -> bool:
    """Whether an interval covers 0, or all of it is too small to matter."""
    if found.low is None or found.high is None:
        return False
    return found.low <= 0.0 <= found.high or max(abs(found.low), abs(found.high)) <= most


def _ordered(at: Measured, bare: TestRow, narrow: str, wide: str, most: float) -> TestRow:
    """KL of one rounding as a share of a coarser one's."""
    bare = replace(
        bare, contrast=f"{narrow}/{wide}", method=f"ratio of mean KL from the baseline, at most {most}"
    )
    if why := _no_number(at, narrow, wide, PLAIN):
        return replace(bare, reason=why)
    below, above = (float(at.column(name, "kl_bits").mean()) for name in (narrow, wide))
    if above <= 0.0:
        return replace(bare, reason=f"{wide} does not diverge from the baseline: no ratio")
    share = below / above
    too_much = f"{share:.3g} of {wide}'s divergence, at most {most} is allowed"
    return replace(bare, estimate=share, reason=None if share <= most else too_much)
