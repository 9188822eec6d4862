"""The one table all benchmarks end in: a promise, its peer, the ratio's min, median and max, the goal.

A benchmark calls `promised` for each promise it measures, which prints the row. `python -m benchmarks` sets
ROWS to a file that collects the rows of every process, and QUICK, under which `runs` gives fewer of them,
or FULL, under which curves go to their last size.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROWS, QUICK, FULL = "BENCH_ROWS", "BENCH_QUICK", "BENCH_FULL"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One promise as it was measured."""

    promise: str
    peer: str
    """What stands in the ratio beside ours, in the same run; or the unit, where a promise is a time."""
    values: tuple[float, ...]
    """A ratio a run; none where the peer is not installed."""
    goal: float | None
    """None where nothing is promised and the figure is for orientation."""
    at_least: bool
    """Whether more is better."""

    @property
    def met(self) -> str:
        """Whether the median reaches the goal."""
        if self.goal is None or not self.values:
            return "-"
        median = statistics.median(self.values)
        return "yes" if (median >= self.goal if self.at_least else median <= self.goal) else "NO"

    def line(self) -> str:
        """The row in columns."""
        bound = "-" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"
        count = f"{len(self.values):3}"
        if self.values:
            three = (min(self.values), statistics.median(self.values), max(self.values))
            cells = " ".join(f"{value:8.3f}" for value in three)
        else:
            cells = f"{'not measured':>26}"
        return f"{self.promise:<46.46} {self.peer:<38.38} {count} {cells}  {bound:>8}  {self.met}"


HEAD = f"{'promise':<46} {'peer':<38} {'n':>3} {'min':>8} {'median':>8} {'max':>8}  {'goal':>8}  met"


def promised(
    promise: str, peer: str, values: Sequence[float], *, least: float | None = None, most: float | None = None
) -> None:
    """Print a row and keep it for the table.

    Parameters
    ----------
    values
        A ratio a run; none where the peer is not installed.
    least, most
        The goal, one of them; none for a figure without a promise.
    """
    goal = least if least is not None else most
    row = Row(promise=promise, peer=peer, values=tuple(values), goal=goal, at_least=least is not None)
    print(f"= {row.line()}", flush=True)
    if os.environ.get(ROWS):
        with Path(os.environ[ROWS]).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(asdict(row))}\n")


def collected(path: Path) -> list[Row]:
    """The rows that were kept in a file."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Row(**{**one, "values": tuple(one["values"])}) for one in found]


def quick() -> bool:
    """Whether the quick set is run."""
    return bool(os.environ.get(QUICK))


def full() -> bool:
    """Whether all runs of every benchmark were asked for."""
    return bool(os.environ.get(FULL))


def runs(full: int, few: int) -> int:
    """How many runs: `few` in the quick set."""
    return few if quick() else full
