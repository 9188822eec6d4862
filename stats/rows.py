"""The one shape in which a statistical question leaves this package.

Every test, interval and verdict is a `TestRow`; tasks add the step it belongs to and record it. A quantity
that could not be computed keeps its row with `reason` set and every number `None`: never 0, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

VERDICTS = ("INVALID", "DETECTED", "EQUIVALENT", "INCONCLUSIVE")
"""In order of precedence."""

ROLES = ("decides", "sharp_null", "equivalence", "legacy", "secondary", "diagnostic", "verdict")
"""`decides` enters a verdict; `verdict` is a combined one; the rest is shown and decides nothing."""


@dataclass(frozen=True, kw_only=True)
class TestRow:
    """One statistical answer, or the reason why there is none."""

    __test__ = False  # not a test class for pytest

    family: str
    """Multiplicity family: p values are corrected together inside it, e.g. `seed_effect`."""
    hypothesis: str
    """What is asked, e.g. `omnibus`, `pairwise`, `tost`, `verdict`."""
    metric: str = "*"
    """Metric name, or `*` when the row combines several."""
    contrast: str = "*"
    """`A-B` (mean of A minus mean of B), an arm's name, or `*`."""
    method: str
    """Name of the procedure, as the field calls it."""
    role: str
    """One of ROLES."""
    estimate: float | None = None
    """Point estimate, in the units that `method` names."""
    low: float | None = None
    """Lower end of the interval at level 1 - alpha."""
    high: float | None = None
    """Upper end of the interval."""
    effect: float | None = None
    """Estimate in within-cell SD units, where that is meaningful."""
    statistic: float | None = None
    df1: float | None = None
    df2: float | None = None
    p: float | None = None
    """Unadjusted p value, in [0, 1]."""
    p_adjusted: float | None = None
    """p corrected for the family."""
    alpha: float | None = None
    """Level this row is judged at (a look's level when sequential)."""
    margin: float | None = None
    """Smallest effect of interest, in the units of `effect`."""
    n: int | None = None
    """Units that entered."""
    power: float | None = None
    """Design power at the margin."""
    mde: float | None = None
    """Minimum detectable effect at 80 % power, in the units of `effect`."""
    n_to_settle: int | None = None
    """Units (samples a cell) that would settle the question."""
    verdict: str | None = None
    """One of VERDICTS, on rows that conclude."""
    negligible: bool | None = None
    """True when a DETECTED effect lies inside the margin."""
    reason: str | None = None
    """Why there is no number."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"unknown role {self.role!r}; allowed: {', '.join(ROLES)}")
        if self.verdict is not None and self.verdict not in VERDICTS:
            raise ValueError(f"unknown verdict {self.verdict!r}; allowed: {', '.join(VERDICTS)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                row = f"{self.family}/{self.hypothesis}/{self.metric}/{self.contrast}"
                raise ValueError(
                    f"{field.name} of {row} is {value}; an undefined number is None with a reason"
                )
        for name in ("p", "p_adjusted", "alpha", "power"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} = {share} of {self.family}/{self.hypothesis} lies outside [0, 1]")
        if self.p is None and self.estimate is None and self.verdict is None and self.reason is None:
            raise ValueError(
                f"{self.family}/{self.hypothesis}/{self.metric} has neither a number nor a reason"
            )


def by_reason(told: Sequence[tuple[str, str]]) -> str:
    """Each reason once, then whom it concerns; what follows a semicolon is each one's own.

    >>> by_reason([("select", "prompts differ; 213 would do"), ("gumbel", "prompts differ; 90 would do")])
    'prompts differ: select (213 would do), gumbel (90 would do)'
    """
    found: dict[str, list[str]] = {}
    for name, reason in told:
        shared, _, own = reason.partition("; ")
        found.setdefault(shared, []).append(f"{name} ({own})" if own else name)
    return "; ".join(f"{shared}: {', '.join(names)}" for shared, names in found.items())
