"""How far a long loop is, for whoever listens: bars on a terminal, else a line every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

logger = logging.getLogger(__name__)
bars = logging.getLogger("progress")
"""Says every change as (what, done, total, seconds left); Prefect keeps none."""

SAY_EVERY_SECONDS = 3.0
T = TypeVar("T")


def counted(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, saying before each how many are done; items are taken to be equally long.

    >>> list(counted("ab", "letters"))
    ['a', 'b']
    """
    began = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        left = (len(items) - done) * (now - began) / done if done else None
        bars.debug("%s: %d of %d, %s s left", what, done, len(items), left)
        if left is not None and now - said >= SAY_EVERY_SECONDS:
            logger.info("%s: %d of %d, about %.0f s left", what, done, len(items), left)
            said = now
        yield item
    bars.debug("%s: %d of %d, %s s left", what, len(items), len(items), 0.0)
