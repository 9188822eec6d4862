"""What trainings with regimes measured, as arrays: one series a seed, with its windows and their twins.

A twin goes through the same steps on the same batches without one window, so whatever differs between the two
is that window's doing and not the step's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stats.rows import FloatArray, IntArray

COMMON = ("loss_nats", "entropy_nats", "top1", "grad_norm")
"""Channels that any training has."""
STATE = ("self_norm", "self_delta", "self_drift", "relative_drift", "raw_norm", "gate")
"""Channels of a self-state that are measured at every step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Occurrence:
    """One window of a regime."""

    regime: str
    number: int
    """Of this regime's windows, from 0."""
    start: int
    end: int
    """First step after it."""
    twin: Mapping[str, FloatArray]
    """Channel -> (end - start,) or longer, from `start` on, without this window; empty without a twin."""

    @property
    def length(self) -> int:
        """Steps of the window."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSeries:
    """One training: its channels by step and its windows."""

    seed: int
    channels: Mapping[str, FloatArray]
    """Channel -> (steps,), from step 0; NaN where it is not defined."""
    occurrences: tuple[Occurrence, ...]
    """By start."""

    def __post_init__(self) -> None:
        """Refuse channels of unequal lengths and windows outside the run."""
        lengths = {name: len(values) for name, values in self.channels.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"channels of seed {self.seed} differ in length: {lengths}")
        for one in self.occurrences:
            if not 0 <= one.start < one.end <= self.steps:
                raise ValueError(
                    f"{one.regime} {one.number} of seed {self.seed} covers steps {one.start}-{one.end} of "
                    f"{self.steps}"
                )

    @property
    def steps(self) -> int:
        """Length of the run."""
        return len(next(iter(self.channels.values()))) if self.channels else 0

    @property
    def clean(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(steps,) where no window acts."""
        found = np.ones(self.steps, dtype=np.bool_)
        for one in self.occurrences:
            found[one.start : one.end] = False
        return found

    def before(self, one: Occurrence, most: int) -> IntArray:
        """Clean steps right before a window, at most so many, in order; none where another window abuts."""
        clean, at = self.clean, one.start
        while at > 0 and one.start - at < most and clean[at - 1]:
            at -= 1
        return np.arange(at, one.start)
