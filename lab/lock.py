"""The queue at the store's door: one lock file, taken exclusively to write and shared to read.

The kernel frees an flock when its holder dies, so a killed process never blocks the night. Waiting is polling
with jitter: with a fixed interval, processes that started together would ask together for ever.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_FOREIGN_SECONDS = 5.0
WARN_AFTER_SECONDS = 5.0


class HeldError(Exception):
    """The store is taken; `holder` says by whom, `foreign` that it is no process of this lab."""

    def __init__(self, holder: str, *, foreign: bool) -> None:
        super().__init__(holder)
        self.holder = holder
        self.foreign = foreign


class Waiter:
    """Growing, jittered delays up to a deadline, with a warning now and then about what is waited for.

    Parameters
    ----------
    wait_seconds
        How long to go on, in seconds; None for as long as it takes.
    """

    def __init__(self, wait_seconds: float | None) -> None:
        self._start = time.monotonic()
        self._wait_seconds = wait_seconds
        self._delay = 0.01
        self._warn_at = WARN_AFTER_SECONDS

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def sleep(self, held: HeldError) -> bool:
        """Sleep once, longer than last time; False when the time is up.

        Processes of ours hold the store for some 50 ms, a person's shell for minutes: so the delays grow.
        """
        left = float("inf") if self._wait_seconds is None else self._wait_seconds - self.elapsed()
        if left <= 0.0:
            return False
        if self.elapsed() > self._warn_at:
            logger.warning("the store is held by %s; waiting since %.0f s", held.holder, self.elapsed())
            self._warn_at *= 3.0
        longest = LONGEST_PAUSE_FOREIGN_SECONDS if held.foreign else LONGEST_PAUSE_SECONDS
        time.sleep(min(left, random.uniform(0.5, 1.5) * min(self._delay, longest)))
        self._delay *= 1.5
        return True


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file for the block, or raise `HeldError` at once.

    Parameters
    ----------
    path
        The lock file; made when missing.
    shared
        True for readers, any number of which go together.
    """
    descriptor = _open(path, may_be_missing=shared)
    if descriptor is None:
        yield
        return
    try:
        _take(descriptor, shared)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # said outright: a forked child may still hold a copy
        os.close(descriptor)


def _open(path: Path, *, may_be_missing: bool) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if may_be_missing and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return None  # a home that cannot be written has no writer to wait for
        raise


def _take(descriptor: int, shared: bool) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        raise HeldError(f"another process of this lab (PID {pid or 'unknown'})", foreign=False) from None
    if not shared:
        os.pwrite(descriptor, f"{os.getpid():<20}".encode(), 0)
