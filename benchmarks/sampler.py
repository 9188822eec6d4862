"""The sampler against `model.generate`, one prompt at a time and batched: `python -m benchmarks.sampler`.

A run times the three ways one after another in one process, on the same model and prompts, with the same
temperature, top-k, top-p and number of new tokens and no stop token. A ratio is of one run, so a busy machine
touches both its sides; beside wall time stands the process's CPU time, which other processes touch less.
Small models run on one torch thread, as `models.transformers_backend` runs them, the distilgpt2 shape on
torch's default (OMP_NUM_THREADS=1 on a busy machine: threads that wait for each other spin). One at a time is
timed on a few of the 64 prompts and scaled.

Embedded models are the trained ones found below LADDER_HOME (`var`) and read the entropy study's prompts, cut
to 10 to 29 tokens; where one is not trained yet, random weights of its shape read random ids. (A trained
model given random ids reads bytes that its text never had and goes on in them; their logits are tied, and the
guard decides up to 0.8 % of its tokens, not 0.01 to 0.03 %.)
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from benchmarks.table import promised, quick, runs
from models.backends import Sampling
from models.decoding import Network, open_network
from models.embedded import RUNGS, load_trained
from models.pretrain import llama_config
from models.prompts import SINGLE_TURN
from models.sampling import InverseCdf, SampledRow, row_uniforms, sample

ROWS = 64
SETTINGS = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=150)


@dataclass(frozen=True)
class Subject:
    """A model to time."""

    name: str
    model: Any
    prompts: list[list[int]]
    """ROWS sequences of 10 to 29 token ids."""
    threads: int
    runs: int
    alone_rows: int
    """Prompts timed one at a time; their time is scaled to ROWS."""
    goals: tuple[float, float] = (20.0, 2.0)
    """Times as fast as one at a time, and as a batched `generate`."""


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Run with `n` torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trained(name: str) -> Path | None:
    """Where the trained embedded model of that name is in the lab's home, if it is."""
    home = Path(os.environ.get("LADDER_HOME", "var"))
    for manifest in sorted(home.glob("models/**/trained.json")):
        found = load_trained(manifest.parent)
        if found is not None and found.spec == RUNGS[name]:
            return found.directory
    return None


def embedded(name: str) -> Subject:
    """An embedded model, trained where it is, else random weights of its shape, wide enough to be uneven."""
    directory = trained(name)
    if directory is None:
        torch.manual_seed(0)
        config = llama_config(RUNGS[name])
        config.initializer_range = 0.15
        model: Any = LlamaForCausalLM(config)
        label, prompts = f"{name} (random)", random_prompts(config.vocab_size)
    else:
        model = AutoModelForCausalLM.from_pretrained(
            directory, use_safetensors=True, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        label, prompts = name, study_prompts(tokenizer)
    return Subject(label, model.train(False), prompts, threads=1, runs=runs(7, 2), alone_rows=8)


def distilgpt2_shape() -> Subject:
    """Random weights in the shape of distilgpt2: 6 layers, width 768, 50,257 tokens."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=6, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model = GPT2LMHeadModel(config).train(False)
    prompts = random_prompts(config.vocab_size)
    threads = torch.get_num_threads()
    return Subject(
        "distilgpt2 shape", model, prompts, threads, runs=runs(3, 1), alone_rows=1, goals=(6.0, 1.2)
    )


def lengths() -> list[int]:
    """Tokens of each prompt, 10 to 29."""
    return torch.randint(10, 30, (ROWS,), generator=torch.Generator().manual_seed(1)).tolist()


def random_prompts(vocabulary: int) -> list[list[int]]:
    """Prompts of random ids."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(1, vocabulary, (n,), generator=generator).tolist() for n in lengths()]


def study_prompts(tokenizer: Any) -> list[list[int]]:
    """The study's prompts in turn, each cut to its length."""
    texts = [tokenizer(prompt.text)["input_ids"] for prompt in SINGLE_TURN]
    return [texts[i % len(texts)][:n] for i, n in enumerate(lengths())]


def ours(network: Network, rows: list[list[int]], seeds: list[int]) -> list[SampledRow]:
    """The rows by the sampler."""
    choose = InverseCdf(SETTINGS, row_uniforms(seeds, SETTINGS.max_new_tokens))
    return sample(network, rows, SETTINGS, choose)


def generate(model: Any, rows: list[list[int]]) -> None:
    """The rows by `model.generate`, left-padded."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    model.generation_config.eos_token_id = None
    out = model.generate(
        ids, attention_mask=mask, do_sample=True, temperature=SETTINGS.temperature, top_k=SETTINGS.top_k,
        top_p=SETTINGS.top_p, max_new_tokens=SETTINGS.max_new_tokens,
    )  # fmt: skip
    if out.shape[1] != width + SETTINGS.max_new_tokens:
        raise ValueError(f"generate stopped after {out.shape[1] - width} tokens; the times do not compare")


Seconds = tuple[float, float]
"""Wall and CPU time."""


def seconds(work: Callable[[], object], scale: float = 1.0) -> Seconds:
    """Time of one call, times `scale`."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) * scale, (time.process_time() - cpu) * scale


def times(subject: Subject) -> list[tuple[Seconds, Seconds, Seconds]]:
    """(ours, one at a time scaled to ROWS, batched generate) of each run."""
    model, rows = subject.model, subject.prompts
    network, seeds = open_network(model), list(range(ROWS))
    ours(network, rows[:2], seeds[:2])  # first calls load kernels
    network.exact(rows[0])
    generate(model, rows[:1])

    def one_at_a_time() -> None:
        for row in rows[: subject.alone_rows]:
            generate(model, [row])

    return [
        (
            seconds(lambda: ours(network, rows, seeds)),
            seconds(one_at_a_time, ROWS / subject.alone_rows),
            seconds(lambda: generate(model, rows)),
        )
        for _ in range(subject.runs)
    ]


def spread(values: list[float]) -> str:
    """Smallest, median and largest."""
    return f"{min(values):6.2f} {statistics.median(values):6.2f} {max(values):6.2f}"


def report_speed(subject: Subject) -> None:
    """Print a line of wall and a line of CPU time: seconds and ratios of min, median, max over runs."""
    with threads(subject.threads):
        found = times(subject)
    for clock, kind in enumerate(("wall", "CPU")):
        own, alone, batched = ([run[way][clock] for run in found] for way in range(3))
        cells = [own, [a / o for a, o in zip(alone, own, strict=True)]]
        cells.append([b / o for b, o in zip(batched, own, strict=True)])
        print(f"{subject.name:24} {subject.threads:7} {kind:4} {'   '.join(map(spread, cells))}", flush=True)
    for peer, way, goal in zip(
        ("one-at-a-time model.generate", "batched generate"), (1, 2), subject.goals, strict=True
    ):
        ratios = [run[way][0] / run[0][0] for run in found]
        promised(f"64 rows x 150 tokens, {subject.name}", peer, ratios, least=goal)


def report_agreement(subject: Subject, dtype: torch.dtype) -> None:
    """Print the share of texts that are the same alone and in a batch of ROWS, and the guard's rate."""
    network = open_network(subject.model.to(dtype))
    rows, seeds = subject.prompts, list(range(100, 100 + ROWS))
    with threads(subject.threads):
        together = ours(network, rows, seeds)
        alone = [ours(network, [row], [seed])[0] for row, seed in zip(rows, seeds, strict=True)]
    same = sum(a.tokens == b.tokens for a, b in zip(together, alone, strict=True))
    guarded = sum(row.guarded for row in together) / (ROWS * SETTINGS.max_new_tokens)
    counts = f"{same:3} of {ROWS} texts the same; guard on {guarded:.3%} of tokens"
    print(f"{subject.name:24} {str(dtype)[6:]:9} {counts}", flush=True)


def main() -> None:
    """Print the table of ratios and the rates of agreement."""
    small = [embedded(name) for name in list(RUNGS)[: 1 if quick() else None]]
    print(f"{ROWS} rows x {SETTINGS.max_new_tokens} new tokens; each cell min median max")
    print(f"{'model':24} threads time {'seconds':20}   {'x one at a time':20}   {'x batched generate':20}")
    for subject in small:
        report_speed(subject)
    report_speed(distilgpt2_shape())
    for subject in () if quick() else small:
        report_agreement(subject, torch.float32)
        report_agreement(subject, torch.bfloat16)


if __name__ == "__main__":
    main()
