"""What the candidates of a night will need, made beforehand on a processor core that is idle.

Much of a night is one training after the other, each on one core. A process of the lowest priority makes what
dry runs name in `PlannedStep.ahead`: a run that comes to need what is under way waits for it
(`models.kept.alone`), and what has not begun it makes itself.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from lab.errors import WorkError
from lab.study import Call
from tasks.killable import Worker

logger = logging.getLogger(__name__)

LONGEST_SECONDS = 6 * 3600.0
LOWEST_PRIORITY = 19


class Ahead:
    """One process, started with the first call that is wanted.

    Parameters
    ----------
    source
        Folder of the packages that it imports.
    cores
        Of the machine; with one there is nothing idle, and nothing is made.
    """

    def __init__(self, source: Path, *, cores: int | None = None) -> None:
        self._source = source
        self._has_room = (cores or os.cpu_count() or 1) > 1
        self._changed = threading.Condition()
        self._wanted: list[Call] = []
        self._begun: list[Call] = []
        self._is_over = False
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None

    def want(self, calls: Iterable[Call]) -> None:
        """Make these, in order and each once, in place of those that were wanted and have not begun."""
        with self._changed:
            if self._is_over or not self._has_room:
                return
            self._wanted.clear()
            for call in calls:
                if call not in self._begun and call not in self._wanted:
                    self._wanted.append(call)
            if self._thread is None and self._wanted:
                self._worker = Worker(source=self._source, priority=LOWEST_PRIORITY)
                self._thread = threading.Thread(target=self._make, args=(self._worker,), daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """End the process, in the middle of a call too; what was begun goes on from its last checkpoint."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._worker is not None and self._thread is not None:
            self._worker.kill()
            self._thread.join()
            self._worker.close()
            self._worker = self._thread = None

    def _make(self, process: Worker) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._wanted)
                if self._is_over:
                    return
                call = self._wanted.pop(0)
                self._begun.append(call)
            try:
                process.call(call.function, call.arguments, seconds=LONGEST_SECONDS, report=lambda _: None)
            except WorkError as error:  # the run that needs it meets the same, and says so
                logger.debug("%s beforehand: %s", call.function, error)
                if not process.is_ready:
                    return
