"""Fourteen LoRA arms in processes against one arm: `python -m benchmarks.arms`.

Each arm trains an adapter on the embedded base's shape (untrained weights), in a worker process with one
torch thread, as the rank study does. The ratio is wall time of fourteen arms, as many at once as there are
cores, over wall time of one alone on a warm worker: on two cores 7 at the least, and 7.5 is the goal.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.table import promised, runs
from models.adapters import shapes_of
from models.lora_recipe import LoraRecipe
from models.mistral_base import BASES
from models.mistral_pretrain import PretrainedBase, network
from models.task_items import TaskSource
from models.word_problems import tokenizer
from tasks.killable import worker

ARMS, RUNS, STEPS, RANK = 14, runs(3, 1), 40, 8
GOAL = 7.5


def arm(root: Path, base: Path, number: int) -> None:
    """Train one adapter in whichever worker is free."""
    source = TaskSource(kind="word_problems", n_train=1000, n_validation=50, n_test=50, seed=0)
    ranks = {shape.name: RANK for shape in shapes_of(str(base))}
    arguments = {
        "base": str(base),
        "source": asdict(source),
        "ranks": ranks,
        "recipe": asdict(LoraRecipe(steps=STEPS)),
        "seed": number,
        "initialisation": "nested",
        "directory": str(root / f"arm-{number}"),
    }
    with worker(near=str(base)) as process:
        process.call("models.rank_jobs:train_arm", arguments, seconds=600.0, report=lambda _: None)


def wall(root: Path, base: Path, numbers: range) -> float:
    """Seconds until all arms are done."""
    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=len(numbers)) as pool:
        list(pool.map(lambda number: arm(root, base, number), numbers))
    return time.perf_counter() - start


def main() -> None:
    """Print seconds of one arm and of fourteen, and their ratio: smallest, median and largest over runs."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base, words = root / "base", tokenizer()
        model = network(BASES["arith-mistral"], words.get_vocab_size())
        PretrainedBase(model=model, tokenizer=words, facts={}).save(base)
        wall(root, base, range(1000, 1004))  # starts the workers, loads the base in each
        cells: list[tuple[float, float]] = []
        for run in range(RUNS):
            one = wall(root, base, range(100 * run, 100 * run + 1))
            cells.append((one, wall(root, base, range(100 * run + 1, 100 * run + 1 + ARMS))))
        columns = {
            "one arm, s": [a for a, _ in cells],
            f"{ARMS} arms, s": [b for _, b in cells],
            f"ratio (goal {GOAL})": [b / a for a, b in cells],
        }
        promised(f"{ARMS} LoRA arms, wall", "one arm", [b / a for a, b in cells], most=GOAL)
        for name, values in columns.items():
            print(f"{name:20} {min(values):8.2f} {statistics.median(values):8.2f} {max(values):8.2f}")


if __name__ == "__main__":
    main()
