"""Time that goes on whatever happens to the clock on the wall: it is set, or the machine sleeps."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On Linux it counts while the machine is suspended; elsewhere the monotonic clock is nearest."""


def elapsed() -> float:
    """Seconds since a moment in the past that stays the same until the machine starts anew."""
    return time.clock_gettime(_CLOCK)
