"""A GPT with its self-state against a plain loop, and five seeds against one: `python -m benchmarks.nano`.

The plain loop is what nanoGPT does at `full`: the same network, windows, clip and schedule, AdamW as it makes
it on a CPU (not fused), and nothing measured or logged; a second one has the fused AdamW that we use. Ours
trains with the self-state, writes its log and probes the state. Both run on one torch thread, in turns: as
each comes, the loop in a Python process of its own and ours in a worker of a study, on wall time; and both in
this process, on CPU seconds. The share of the matmul peak counts 6 N + 12 L C T operations a token (PaLM's
appendix B) against a product of two 1024-square matrices measured in the same run.
Seeds run as the study runs them, a worker process each, as many at once as there are cores.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.table import promised, runs
from models.nano_corpus import NanoCorpus, embedded_corpus
from models.nano_jobs import REPORT_EVERY
from models.nano_recipe import PROFILES, NanoRecipe, Seeds
from models.nano_run import NanoRun
from models.nano_texts import TextSource
from models.nano_training import train
from models.regimes import RegimePlan
from tasks.killable import worker

STEPS, RUNS = 60, runs(5, 2)
WARM, ALONE_STEPS = REPORT_EVERY, 2 * REPORT_EVERY
SEEDS = 5
GOAL_TOKENS, GOAL_SEEDS = 1.0, 2.7
MATRIX = 1024


def plain(
    recipe: NanoRecipe,
    corpus: NanoCorpus,
    steps: int,
    *,
    fused: bool,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Seconds of nanoGPT's loop: forward, loss, backward, clip, step."""
    run = NanoRun(replace(recipe, state=None), corpus, 0)
    matrices = [p for p in run.gpt.parameters() if p.dim() >= 2]
    gains = [p for p in run.gpt.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(recipe.beta1, recipe.beta2), fused=fused)
    start = clock()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        batch = run.windows(step)
        logits = run.gpt(batch.x)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.y.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(run.gpt.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return clock() - start


def ours(recipe: NanoRecipe, corpus: NanoCorpus, steps: int, folder: Path) -> float:
    """CPU seconds of the study's training, from the first step's row to the last's."""
    marks: list[float] = []
    train(recipe, corpus, seeds=0, directory=folder, until=steps,
          report=lambda _: marks.append(time.process_time()))  # fmt: skip
    return (marks[-1] - marks[0]) * steps / (steps - 1)


def plain_alone(steps: int) -> float:
    """Wall seconds of nanoGPT's loop in a process of its own, its start left out."""
    command = [sys.executable, "-c", f"from benchmarks.nano import in_full; print(in_full({steps}))"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(told.stdout)


def in_full(steps: int) -> float:
    """Wall seconds of the plain loop of `full` here."""
    torch.set_num_threads(1)
    recipe, corpus = PROFILES["full"], embedded_corpus()
    plain(recipe, corpus, WARM, fused=False)
    return plain(recipe, corpus, steps, fused=False, clock=time.perf_counter)


def in_worker(folder: Path, steps: int) -> float:
    """Wall seconds of the study's training in a worker, as a run of the study has it."""
    marks: dict[int, float] = {}
    arguments = told_to("full", folder, 0) | {"until": steps + WARM + 1}
    with worker() as process:
        process.call("models.nano_jobs:train_run", arguments, seconds=600.0,
                     report=lambda row: marks.setdefault(row["step"], time.perf_counter()))  # fmt: skip
    return marks[steps + WARM] - marks[WARM]


def peak() -> float:
    """Operations a CPU second of a matrix product."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    a @ b
    start = time.process_time()
    for _ in range(10):
        a @ b
    return 10 * 2 * MATRIX**3 / (time.process_time() - start)


def operations(recipe: NanoRecipe, corpus: NanoCorpus) -> float:
    """Of a token, forward and backward."""
    shape = recipe.shape
    weights = shape.parameters(corpus.vocab_size) - shape.block_size * shape.n_embd
    return 6.0 * weights + 12.0 * shape.n_layer * shape.n_embd * shape.block_size


def told_to(profile: str, folder: Path, number: int) -> dict[str, object]:
    """What a worker is told to train."""
    return {
        "source": asdict(TextSource()),
        "cache": str(folder / "texts"),
        "recipe": asdict(PROFILES[profile]),
        "seeds": asdict(Seeds.of(number)),
        "plan": asdict(RegimePlan()),
        "directory": str(folder / str(number)),
        "until": None,
        "begin": None,
        "placed": None,
    }


def seed(folder: Path, number: int) -> None:
    """Train one seed in whichever worker is free."""
    with worker() as process:
        process.call("models.nano_jobs:train_run", told_to("fast", folder, number), seconds=600.0,
                     report=lambda _: None)  # fmt: skip


def wall(folder: Path, seeds: range) -> float:
    """Seconds until all seeds are done."""
    start = time.perf_counter()
    with ThreadPoolExecutor(max_workers=len(seeds)) as pool:
        list(pool.map(lambda number: seed(folder, number), seeds))
    return time.perf_counter() - start


def told(name: str, values: list[float], digits: int = 2) -> None:
    """Smallest, median and largest."""
    found = (min(values), statistics.median(values), max(values))
    print(f"{name:44}" + "".join(f"{value:10,.{digits}f}" for value in found))


def main() -> None:
    """Print tokens a CPU second, their ratio, the share of the matmul peak, and the ratio of seeds."""
    torch.set_num_threads(1)
    corpus, recipe = embedded_corpus(), replace(PROFILES["full"], checkpoint_every=2000)
    tokens = STEPS * recipe.batch * recipe.shape.block_size
    loop: list[float] = []
    fused: list[float] = []
    state: list[float] = []
    most: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        for run in range(RUNS):
            loop.append(tokens / plain(recipe, corpus, STEPS, fused=False))
            fused.append(tokens / plain(recipe, corpus, STEPS, fused=True))
            state.append(tokens / ours(recipe, corpus, STEPS, Path(root, f"ours{run}")))
            most.append(peak())
        folders = [Path(root, f"alone{run}") for run in range(RUNS)]
        as_they_come = [plain_alone(ALONE_STEPS) / in_worker(one, ALONE_STEPS) for one in folders]
        told(f"as each comes, wall (goal {GOAL_TOKENS:g})", as_they_come)
        promised("training with the self-state, tokens/s", "nanoGPT's loop, as each comes",
                 as_they_come, least=GOAL_TOKENS)  # fmt: skip
        told("plain loop, tokens a CPU s", loop, 0)
        told("the same with fused AdamW", fused, 0)
        told("with the self-state, tokens a CPU s", state, 0)
        told(f"ratio (goal {GOAL_TOKENS:g})", [a / b for a, b in zip(state, loop, strict=True)])
        promised("training with the self-state, tokens/s", "plain loop, same process",
                 [a / b for a, b in zip(state, loop, strict=True)], least=GOAL_TOKENS)  # fmt: skip
        told("ratio to the fused loop", [a / b for a, b in zip(state, fused, strict=True)])
        promised("training with the self-state, tokens/s", "the same with fused AdamW",
                 [a / b for a, b in zip(state, fused, strict=True)], least=GOAL_TOKENS)  # fmt: skip
        share = [s * operations(recipe, corpus) / p for s, p in zip(state, most, strict=True)]
        told("share of the matmul peak, with the state", share)
        promised("training with the self-state", "torch matmul peak, share of it", share)
        told("matmul peak, GFLOP/s", [one / 1e9 for one in most], 0)
        wall(Path(root, "warm"), range(SEEDS))  # workers have imported torch and hold the text
        ratios = []
        for run in range(runs(3, 1)):
            one = wall(Path(root, f"one{run}"), range(10, 11))
            ratios.append(wall(Path(root, f"five{run}"), range(20, 20 + SEEDS)) / one)
        told(f"{SEEDS} seeds over one, wall (goal {GOAL_SEEDS:g})", ratios)
        promised("5 seeds on the cores there are, wall", "one seed", ratios, most=GOAL_SEEDS)


if __name__ == "__main__":
    main()
