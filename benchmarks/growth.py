"""How time grows with rows, prompts, seeds and models: `python -m benchmarks.growth [--full]`.

Each curve is one act at sizes ten (or two) times each other; printed are seconds at each size and the
exponent, the slope of log seconds on log size by least squares: 1 is linear, 0 does not grow. `--full`
(or `python -m benchmarks --full`) takes rows to 10^7; without, to 10^6, and to 10^5 in the quick set.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.table import full, promised, quick, runs
from lab.records import MetricRow
from lab.store import Store
from stats.seed_effect import Design, analyse_seed_effect

BATCH = 50_000
"""Rows handed to the store at a time."""
STEP_ROWS = 1_000
"""Rows of one step."""
LINEAR, FLAT = 1.1, 0.5
ONE_STEP = "SELECT avg(value) AS mean, count(*) AS n FROM metric WHERE step_id = 's0'"
EVERY_STEP = (
    "SELECT step_id, avg(value) AS mean, count(*) AS n FROM metric GROUP BY ALL ORDER BY mean LIMIT 5"
)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log seconds on log size.

    >>> round(exponent([1, 10, 100], [0.5, 50.0, 5000.0]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def told(name: str, sizes: Sequence[int], found: Sequence[Sequence[float]], *, most: float) -> None:
    """Print a curve and its exponents, one a run."""
    for size, *seconds in zip(sizes, *found, strict=True):
        print(f"{name:42} {size:12,} {'  '.join(f'{one:9.4f}' for one in seconds)} s", flush=True)
    span = f"{sizes[0]:,} to {sizes[-1]:,}"
    promised(f"{name}: exponent", span, [exponent(sizes, seconds) for seconds in found], most=most)


def filled(lab: Store, rows: int) -> float:
    """Seconds that `record` takes for so many rows; making the records is not counted."""
    seconds = 0.0
    for first in range(0, rows, BATCH):
        batch = [
            MetricRow(step_id=f"s{i // STEP_ROWS}", unit=str(i), name="x", value=i / 7, reason=None)
            for i in range(first, min(rows, first + BATCH))
        ]
        seconds += timed(partial(lab.record, batch))
    return seconds


def rows_curves(sizes: Sequence[int], count: int) -> None:
    """Recording into an empty store, then two questions as gates put them, at each number of rows."""
    recorded, one, every = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        filled(Store(Path(folder)), sizes[0])  # loads what the first run would pay for
    for _ in range(count):
        curve: list[tuple[float, float, float]] = []
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                lab = Store(Path(folder))
                lab.snapshot()  # makes the tables
                seconds = filled(lab, size)
                asked = [timed(partial(lab.read, sql)) for sql in (ONE_STEP, EVERY_STEP)]
                curve.append((seconds, asked[0], asked[1]))
        for kept, seconds_of in zip((recorded, one, every), zip(*curve, strict=True), strict=True):
            kept.append(seconds_of)
    told("record, rows", sizes, recorded, most=LINEAR)
    told("gate query of one step, rows in the store", sizes, one, most=FLAT)
    told("gate query over all steps, rows", sizes, every, most=LINEAR)


def analysis(prompts: int, seeds: int, samples: int, models: int) -> None:
    """The primary analysis of the seed study, a model after the other; seeds are its streams."""
    design = Design(primary=("mtld", "distinct_2"), looks=(samples,), look=samples)
    for _ in range(models):
        rng = np.random.default_rng(0)  # the same values: others may need more steps of a fit
        cells = list(
            itertools.product(("HMIX", "PRNG", "TRNG"), range(prompts), range(seeds), range(samples))
        )
        values = {name: rng.normal(size=len(cells)) for name in design.primary}
        analyse_seed_effect(
            values,
            source=[s for s, _, _, _ in cells],
            prompt=[str(p) for _, p, _, _ in cells],
            stream=[str(t) for _, _, t, _ in cells],
            design=design,
        )


def analysis_curves(count: int) -> None:
    """Growth with prompts, seeds, samples and models, each alone."""
    few = quick()
    curves: dict[str, tuple[Sequence[int], Callable[[int], None]]] = {
        "analysis, prompts": (
            (10, 20, 40) if few else (10, 20, 40, 80, 160),
            lambda n: analysis(n, 2, 10, 1),
        ),
        "analysis, seeds": ((2, 4, 8) if few else (2, 4, 8, 16, 32), lambda n: analysis(20, n, 5, 1)),
        "analysis, samples a cell": ((10, 100) if few else (10, 100, 1000), lambda n: analysis(10, 2, n, 1)),
        "analysis, models": ((1, 2, 4) if few else (1, 2, 4, 8, 16), lambda n: analysis(10, 2, 10, n)),
    }
    for name, (sizes, call) in curves.items():
        call(sizes[0])
        found = [[timed(partial(call, size)) for size in sizes] for _ in range(count)]
        told(name, sizes, found, most=LINEAR)


def main() -> None:
    """Print every curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="rows to 10^7: two minutes")
    last = 7 if parser.parse_args().full or full() else 5 if quick() else 6
    rows_curves([10**n for n in range(4, last + 1)], 1 if last > 5 else runs(3, 2))
    analysis_curves(runs(3, 2))


if __name__ == "__main__":
    main()
