"""How many calls run at once: as many as there are cores, and the last few of long ones all together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PAYS_SECONDS = 5.0
"""Calls shorter than this do not earn the start of one more process, which imports torch."""
SETTLE_SECONDS = 0.3
"""Within this, calls that were asked for or end together have all been counted."""


class Slots:
    """Places for calls.

    Of five equal calls on two cores, two and two and one take the time of three. Where at most half
    as many again as there are cores are left, all of them run at once and the system shares the cores evenly:
    two, then three, take 2.5.
    """

    def __init__(
        self, cores: int, *, pays_seconds: float = PAYS_SECONDS, settle_seconds: float = SETTLE_SECONDS
    ) -> None:
        self._cores, self._pays, self._settle = cores, pays_seconds, settle_seconds
        self._changed = threading.Condition()
        self._held = self._waiting = 0
        self._last: deque[float] = deque(maxlen=cores)
        """Seconds of the last calls."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for a place and hold it."""
        self._take()
        began = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._held -= 1
                self._last.append(time.monotonic() - began)
                self._changed.notify_all()

    def _take(self) -> None:
        with self._changed:
            self._waiting += 1
            try:
                while self._held >= self._cores:
                    if not self._are_few_and_long():
                        self._changed.wait()
                    elif not self._changed.wait(self._settle) and self._are_few_and_long():
                        break
            finally:
                self._waiting -= 1
            self._held += 1

    def _are_few_and_long(self) -> bool:
        few = self._held + self._waiting <= self._cores + max(1, self._cores // 2)
        return few and bool(self._last) and min(self._last) >= self._pays
