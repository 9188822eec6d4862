"""What a person sees: bars with the time left on a terminal, plain lines elsewhere, verdicts."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from deployments.visible import visible
from lab import counted

COLOURS = {"DETECTED": "green", "EQUIVALENT": "blue", "INCONCLUSIVE": "yellow", "INVALID": "red"}
VERDICT_WIDTH, GATE_WIDTH = 13, 17
MOST_BARS = 3
"""At once; the one that was longest without news goes."""
PROGRESS = "progress"
"""Logger of `tasks.progress` that says every change, for the bars."""
_UNDER_WAY = re.compile(r"\s*(.+): (\d+) of (\d+), about (\d+) s left")
_ENDED = re.compile(r"\s*(.+): (\d+) of \2, \d+ made now.*")
"""The two forms of its lines, as a night passes them on."""


@contextmanager
def progress() -> Iterator[None]:
    """Show the lab's own log lines on stderr while the block runs: bars on a terminal, else a line each."""
    handler = _Bars() if sys.stderr.isatty() else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    names = {"tasks": logging.INFO, "flows": logging.INFO, counted.logger.name: logging.INFO}
    if isinstance(handler, _Bars):
        names[PROGRESS] = logging.DEBUG
    for name, level in names.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(handler)
        handler.close()


class _Visible(logging.Formatter):
    """Lines in which nothing is a command to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, escaped."""
        return visible(super().format(record))


class _Bars(logging.Handler):
    """Lines above, folded at the terminal's width; under them a bar for each piece of work under way."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()
        self._shown: dict[str, TaskID] = {}
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=3, no_wrap=True, overflow="ellipsis"),
            ),
            _Bar(bar_width=None, table_column=Column(ratio=2)),
            _Count(),
            _TimeLeft(table_column=Column(min_width=11, no_wrap=True, justify="right")),
            console=Console(stderr=True, highlight=False),
            expand=True,
            transient=True,
            refresh_per_second=4,
        )
        self._quiet = self._bars.add_task("starts", total=None, ends=None)
        self._bars.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Move a bar, or end it; any other line stays."""
        with self._turn:
            if record.name == PROGRESS:
                assert isinstance(record.args, tuple)
                self._move(*record.args)  # type: ignore[arg-type]
                return
            said = record.getMessage()
            passed_on = _UNDER_WAY.fullmatch(said)
            if passed_on is not None:
                self._move(passed_on[1], int(passed_on[2]), int(passed_on[3]), float(passed_on[4]))
                return
            ended = _ENDED.fullmatch(said)
            if ended is not None:
                self._end(ended[1])
            self._bars.reset(
                self._quiet, description=visible(said.strip()), total=None, visible=not self._shown
            )
            line = self.format(record)
            self._bars.console.print(Text(line if "\n" in line else "\n".join(folded(line, " " * 10))))

    def _move(self, what: str, done: int, total: int, left: float | None) -> None:
        if done >= total:
            self._end(what)
            return
        bar = self._shown.pop(what, None)
        if bar is None:
            while len(self._shown) >= MOST_BARS:
                self._end(next(iter(self._shown)))
            bar = self._bars.add_task(visible(what), total=total, ends=None)
        self._shown[what] = bar  # now the last that was heard of
        ends = None if left is None else time.monotonic() + left
        self._bars.update(bar, completed=done, total=total, ends=ends)
        self._bars.update(self._quiet, visible=False)

    def _end(self, what: str) -> None:
        bar = self._shown.pop(what, None)
        if bar is not None:
            self._bars.remove_task(bar)
        if not self._shown:  # until the next line the last one is what is at work
            self._bars.reset(self._quiet, total=None, visible=True)

    def close(self) -> None:
        """Take the bars away; the lines stay."""
        self._bars.stop()
        super().close()


class _Bar(BarColumn):
    """A bar where there is a count."""

    def render(self, task: Task) -> Any:
        """How much of the whole."""
        return Text("") if task.total is None else super().render(task)


class _Count(ProgressColumn):
    """How many of how many."""

    def render(self, task: Task) -> Text:
        """`64/252`."""
        return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")


class _TimeLeft(ProgressColumn):
    """What is left by the last news, counted down until the next; of work without a count, how long it is."""

    def render(self, task: Task) -> Text:
        """`2 min left`."""
        if task.total is None:
            return Text(f"{duration(task.elapsed or 0.0)}")
        ends: float | None = task.fields["ends"]
        return Text("" if ends is None else f"{duration(max(1.0, ends - time.monotonic()))} left")


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(12.4), duration(100), duration(5400), duration(90_000)
    ('12 s', '2 min', '1.5 h', '25 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def width() -> int:
    """Columns of the terminal, 80 where there is none."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def folded(line: str, margin: str = "    ") -> list[str]:
    """A line at the width of the terminal, what goes on under a margin; what a terminal obeys is escaped."""
    line = visible(line)
    return textwrap.wrap(line, width(), subsequent_indent=margin, break_on_hyphens=False) or [line]


def say(line: str, margin: str = "    ", stream: TextIO | None = None) -> None:
    """Print a line, folded where it goes to a terminal and whole where a program may read it."""
    out = stream or sys.stdout
    print("\n".join(folded(line, margin)) if out.isatty() else visible(line), file=out)


def print_decisions(decisions: Sequence[Mapping[str, Any]]) -> None:
    """One paragraph a decision: verdict, gate, sentence."""
    console = Console(width=width(), highlight=False)
    indent = VERDICT_WIDTH + GATE_WIDTH
    for row in decisions:
        flags = [name for name in ("exploratory", "negligible") if row[name]]
        said = visible(f"{row['sentence']}{' (' + ', '.join(flags) + ')' if flags else ''}.")
        lines = textwrap.wrap(said, max(20, width() - indent), break_on_hyphens=False) or [""]
        verdict = f"{row['verdict']:<{VERDICT_WIDTH}}", COLOURS[row["verdict"]]
        console.print(Text.assemble(verdict, (f"{visible(row['gate']):<{GATE_WIDTH}}", "bold"), lines[0]))
        for line in lines[1:]:
            console.print(Text(" " * indent + line))
