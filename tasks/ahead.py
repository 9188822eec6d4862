"""What the candidates of a night will need, made beforehand on processor cores that are idle.

Much of a night is one training after the other, each on one core. Two processes of low priority make what dry
runs name in `PlannedStep.ahead`: a run that comes to need what is under way waits for it
(`models.kept.alone`), and what has not begun it makes itself. The second process has its turn where the first
leaves a core idle, as while the run waits.
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
PRIORITIES = (10, 19)
"""Niceness of the processes: of two on one core the second gets an eighth, and both little beside a run."""


class Ahead:
    """Processes that are started with the first calls that are wanted.

    Parameters
    ----------
    source
        Folder of the packages that they import.
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
        self._at_work: list[tuple[Worker, threading.Thread]] = []

    def want(self, calls: Iterable[Call]) -> None:
        """Make these, in order and each once, in place of those that were wanted and have not begun."""
        with self._changed:
            if self._is_over or not self._has_room:
                return
            self._wanted.clear()
            for call in calls:
                if call not in self._begun and call not in self._wanted:
                    self._wanted.append(call)
            if self._wanted and not self._at_work:
                for priority in PRIORITIES:
                    process = Worker(source=self._source, priority=priority)
                    thread = threading.Thread(target=self._make, args=(process,), daemon=True)
                    thread.start()
                    self._at_work.append((process, thread))
            self._changed.notify_all()

    def stop(self) -> None:
        """End the processes, in the middle of a call too; what was begun goes on from its checkpoint."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for process, thread in self._at_work:
            process.kill()
            thread.join()
            process.close()
        self._at_work.clear()

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
            except WorkError as error:
                if not self._is_over:  # the run that needs it makes it, or meets the same
                    logger.warning("%s was not made beforehand: %s", call.arguments.get("name"), error)
                if not process.is_ready:
                    return
