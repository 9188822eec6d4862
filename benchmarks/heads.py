"""Ten seeds of a retrieval head against one: `python -m benchmarks.heads`.

Each head is trained and examined as the sense study does it, in a worker process with one torch thread, as
many at once as there are cores. Cold is what a night pays: the workers are started, torch is imported and the
world is made. Warm is the training and the exam alone; on two cores 5 is then the least there can be.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.table import promised, runs
from models.sense_conditions import CONDITIONS
from models.sense_recipe import HeadRecipe
from models.sense_world import WorldSpec
from tasks.killable import stop_all, worker

SEEDS, RUNS = 10, runs(3, 1)
GOAL = 5.0
SOURCE = {"world": asdict(WorldSpec()), "data": "", "bundles": []}


def head(place: Path, seed: int) -> None:
    """Train and examine one head in whichever worker is free."""
    training = {
        "source": SOURCE,
        "arm": asdict(CONDITIONS["B"]),
        "seed": seed,
        "recipe": asdict(HeadRecipe()),
        "directory": str(place),
        "mislabelled": 0.0,
        "verifier": None,
    }
    exam = {
        "source": SOURCE,
        "directory": str(place),
        "split": "test",
        "per_sense": 2,
        "per_lemma": 2,
        "chosen": None,
    }
    with worker() as process:
        for name, arguments in (("train_head", training), ("examine_head", exam)):
            process.call(f"models.sense_jobs:{name}", arguments, seconds=600.0, report=lambda _: None)


def wall(root: Path, seeds: range) -> float:
    """Seconds until all heads are done."""
    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=len(seeds)) as pool:
        list(pool.map(lambda seed: head(root / str(seed), seed), seeds))
    return time.perf_counter() - start


def pair(root: Path, run: int, *, cold: bool) -> tuple[float, float]:
    """Seconds of one seed and of ten, each from the same start."""
    found = []
    for count in (1, SEEDS):
        first = 1000 * (2 * run + cold) + 100 * count
        if cold:
            stop_all()
        found.append(wall(root, range(first, first + count)))
    return found[0], found[1]


def main() -> None:
    """Print seconds and ratios, cold and warm: smallest, median and largest over runs."""
    with tempfile.TemporaryDirectory() as folder:
        for cold in (True, False):
            cells = [pair(Path(folder), run, cold=cold) for run in range(RUNS)]
            start = "cold" if cold else "warm"
            columns = {
                f"one seed, {start}, s": [one for one, _ in cells],
                f"{SEEDS} seeds, {start}, s": [ten for _, ten in cells],
                f"ratio, {start} (goal {GOAL:g})": [ten / one for one, ten in cells],
            }
            ratios = [ten / one for one, ten in cells]
            promised(f"{SEEDS} seeds of a head, {start}, wall", "one seed", ratios, most=GOAL)
            for name, values in columns.items():
                print(f"{name:24} {min(values):8.2f} {statistics.median(values):8.2f} {max(values):8.2f}")


if __name__ == "__main__":
    main()
