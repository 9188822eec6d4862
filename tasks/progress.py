"""How far a long task is: a progress artifact in the Prefect UI and a log line with the time left."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from lab.counted import SAY_EVERY_SECONDS, bars

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Counts units of one piece of work inside a flow run.

    Parameters
    ----------
    what
        Said in every line, such as `look 4: texts`.
    total
        Units in all.
    """

    what: str
    total: int
    done: int = 0
    made: int = 0
    """Units made now, not found in the cache; the time left is reckoned from these."""
    every_seconds: float = SAY_EVERY_SECONDS
    """Between two lines. Longer for a part of other work: such a part ends without a word if it was short."""
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _artifact: UUID | None = None

    def start(self) -> None:
        """Show the bar at its beginning."""
        self._artifact = cast(UUID, create_progress_artifact(progress=0.0, description=self.what))
        self._draw()

    def reach(self, done: int) -> None:
        """Say that `done` units are done, all of them made just now."""
        self.advance(done - self.done, made=done - self.done)

    def advance(self, units: int, *, made: int) -> None:
        """Add units done, `made` of them just now."""
        self.done += units
        self.made += made
        self._draw()
        now, ended = time.monotonic(), self.done >= self.total
        is_early = now - self._said < self.every_seconds
        if is_early and (not ended or self.every_seconds > SAY_EVERY_SECONDS):
            return
        if made == 0 and not ended:
            return
        self._said = now
        share = 100.0 * self.done / self.total if self.total else 100.0
        if self._artifact is not None:
            update_progress_artifact(self._artifact, progress=min(100.0, share))
        logger.info("%s: %s", self.what, self._line())

    def _draw(self) -> None:
        bars.debug("%s: %d of %d, %s s left", self.what, self.done, self.total, self._left())

    def _left(self) -> float | None:
        """Seconds; None before anything was made."""
        if self.made == 0:
            return None
        return (self.total - self.done) * (time.monotonic() - self._began) / self.made

    def _line(self) -> str:
        text = f"{self.done} of {self.total}"
        if self.done >= self.total:
            here = self.done - self.made
            return f"{text}, {self.made} made now" + (f", {here} were here already" if here else "")
        return f"{text}, about {self._left() or 0.0:.0f} s left"
