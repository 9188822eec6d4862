"""Verdicts against the truth, study by study: `python -m tests.truth --study seeds --studies 1000`.

Each cell states what is so and which decisive verdicts are wrong there; the whole analysis of the study
then judges simulated data sets, looks included. Null: no difference. Margin: a difference as large as the
smallest effect of interest, where EQUIVALENT is wrong, and so is a DETECTED effect that is called negligible.
Strong: far above it, DETECTED with the power that the cell promises; the other sign is wrong. Clustered:
units within a group share more than in the plain null. Heavy tails: every normal number of the simulator is a
Student t with 3 degrees of freedom and SD 1 instead. Printed are shares of the studies, the wrong ones with
their Monte Carlo error, and coverage of the deciding interval.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from benchmarks.where import where
from stats.rows import FloatArray
from tests.truth_cells import STUDIES, Cell
from tests.truth_worlds import Judged

VERDICTS = ("DETECTED", "EQUIVALENT", "INCONCLUSIVE", "INVALID")


class HeavyTails:
    """A generator whose normal numbers are Student's t with 3 degrees of freedom, scaled to SD 1."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Any = None) -> FloatArray:
        """As of a `numpy.random.Generator`."""
        return np.asarray(loc + scale * self._rng.standard_t(3, size=size) / math.sqrt(3.0))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the simulated studies of a cell."""

    shares: Mapping[str, float]
    """Of each verdict."""
    negligible: float
    """Share that was DETECTED and called negligible."""
    wrong: float
    error: float
    """Monte Carlo standard error of `wrong`."""
    covered: float | None
    seconds: float


def judge_cell(name: str, cell: Cell, studies: int, *, seed: int) -> Outcome:
    """Judge so many studies of a cell."""
    began, rng = time.perf_counter(), np.random.default_rng([seed, *name.encode()])
    source = cast(np.random.Generator, HeavyTails(rng)) if cell.heavy else rng
    found = [cell.judge(source) for _ in range(studies)]
    counts = Counter(one.verdict for one in found)
    assert set(counts) <= set(VERDICTS), counts
    wrong = sum(map(cell.is_wrong, found)) / studies
    return Outcome(
        shares={verdict: counts[verdict] / studies for verdict in VERDICTS},
        negligible=sum(one.negligible for one in found) / studies,
        wrong=wrong,
        error=math.sqrt(wrong * (1.0 - wrong) / studies),
        covered=coverage(found),
        seconds=time.perf_counter() - began,
    )


def coverage(found: Sequence[Judged]) -> float | None:
    """Share of intervals that hold the truth, or the mean of all estimates where that has to stand for it."""
    known = [one.covered for one in found if one.covered is not None]
    loose = [(one.estimate, one.interval) for one in found if one.estimate is not None and one.interval]
    if not known and loose:
        mean = float(np.mean([estimate for estimate, _ in loose]))
        known = [low <= mean <= high for _, (low, high) in loose]
    return sum(known) / len(known) if known else None


def line(study: str, name: str, studies: int, found: Outcome) -> str:
    """One line of the table."""
    shares = " | ".join(f"{_short(found.shares[verdict]):>5}" for verdict in VERDICTS)
    covered = "-" if found.covered is None else _short(found.covered)
    wrong = f"{_short(found.wrong)} ± {_short(found.error)}"
    return (
        f"| {study:<14} | {name:<40} | {studies:5} | {shares} | {_short(found.negligible):>5} "
        f"| {wrong:<11} | {covered:>5} | {found.seconds:5.0f} s |"
    )


def _short(share: float) -> str:
    """Three decimals without a leading zero, 0 and 1 bare.

    >>> [_short(x) for x in (0.0, 0.0412, 1.0)]
    ['0', '.041', '1']
    """
    return f"{share:g}" if share in (0.0, 1.0) else f"{share:.3f}".lstrip("0")


HEAD = (
    f"| {'study':<14} | {'truth':<40} | {'n':>5} | DETEC | EQUIV | INCON | INVAL | small | "
    f"{'wrong':<11} | cover | {'took':>7} |"
)
"""`small`: DETECTED and called negligible, which goes the way of EQUIVALENT."""


def main() -> None:
    """Print the table of one study, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--study", choices=[*STUDIES, "all"], default="all")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{where('tests.truth')}\n{HEAD}", flush=True)
    for study in STUDIES if given.study == "all" else [given.study]:
        for name, cell in STUDIES[study].items():
            if given.only in name:
                found = judge_cell(name, cell, given.studies, seed=given.seed)
                print(line(study, name, given.studies, found), flush=True)


if __name__ == "__main__":
    main()
