"""Sentence losses against lm-evaluation-harness, layer sweep against naive: `python -m benchmarks.losses`.

Both sides of a ratio run in one process on the same model and strings, one after the other in each run. In
the tables both have one torch thread, and times are CPU seconds, which other processes touch less.
"As each comes" is what a user waits: wall time, `sentence_losses` and `HFLM.loglikelihood_rolling` with its
default of one window a batch, both with torch's default number of threads, tokenising on both sides. The
strings are CLDR sentences; the networks are those of the study (three architectures of 4 blocks, width 96,
1,024 tokens), for the sweep one with 12 blocks too, and for the losses distilgpt2's shape (6 blocks, width
768, 50,257 tokens). Weights are random, windows hold 256 predictions.

lm-evaluation-harness (`make bench` installs it in `.venv/peers`) is timed by `HFLM.loglikelihood_rolling`
with its default of one window a batch and with more; tokenising counts on both sides.

A naive sweep quantises to 4 bits anew for each of the 2 L + 2 variants; quantising, checksums and restoring
count on both sides. "scored as ours" scores each variant whole by `sentence_losses`, so its ratio holds what
sharing prefixes saves and nothing else: at best 0.60 and 0.56 for 4 and 12 blocks, before the head,
which runs as often on both sides. "plain" is the loop one writes first: 8 windows a batch in the order of the
texts, all logits, cross-entropy.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  (its usual name)
from transformers import PreTrainedTokenizerFast

from benchmarks.table import promised, quick, runs
from models.blocks import blocks_of
from models.cldr import cldr_corpus
from models.layer_sweep import layer_sweep, quantised_blocks, sweep_variants
from models.losses import Encoded, encode, sentence_losses
from models.multilingual import MODELS
from models.multilingual_pretrain import network
from models.pretrain import END_OF_TEXT, train_tokenizer
from models.quant_spec import QuantSpec
from models.quantize import quantized
from models.windows import FloatArray

HARNESS_BATCHES = (1, 8, 64)
"""1 is its default."""
GOAL_SCORING, GOAL_SWEEP = 3.0, 0.6
try:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
except ImportError:
    HFLM = None


@dataclass(frozen=True)
class Subject:
    """A model to time."""

    name: str
    model: Any
    texts: list[str]
    runs: int


def sentences(documents: int) -> list[str]:
    """CLDR sentences of every language in turn."""
    corpus = cldr_corpus(documents=documents)
    return [text for row in zip(*corpus.texts.values(), strict=True) for text in row]


def tokenizer_of(texts: list[str]) -> Any:
    """Byte-level BPE of 1,024 tokens trained on the strings."""
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=train_tokenizer(texts, 1024),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )


def random_network(name: str, **changes: int) -> Any:
    """Random weights in the shape of a model of the study, or one changed from it."""
    torch.manual_seed(0)
    return network(replace(MODELS[name], **changes)).train(False)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def spread(values: Sequence[float]) -> str:
    """Smallest, median and largest."""
    return f"{min(values):7.3f} {statistics.median(values):7.3f} {max(values):7.3f}"


def harness_of(model: Any, tokenizer: Any, batch: int) -> Any:
    """lm-evaluation-harness around a model that is loaded."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=batch, add_bos_token=False, device="cpu"
        )


def harness_nats(harness: Any, texts: list[str]) -> list[float]:
    """Log-likelihoods, its progress bars and prints unseen."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        requests = [
            Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=i)
            for i, text in enumerate(texts)
        ]
        return harness.loglikelihood_rolling(requests, disable_tqdm=True)  # type: ignore[no-any-return]


def report_harness(subject: Subject, tokenizer: Any) -> None:
    """Print seconds of ours and theirs, their ratio, and the largest difference in bits per byte."""
    model, texts = subject.model, subject.texts

    def ours() -> Any:
        return sentence_losses(model, encode(tokenizer, texts, block_size=256, prefix_id=0))

    found = ours()
    for batch in HARNESS_BATCHES:
        harness = harness_of(model, tokenizer, batch)
        nats = np.array(harness_nats(harness, texts))  # and loads kernels
        timed = [
            (seconds(ours), seconds(lambda h=harness: harness_nats(h, texts))) for _ in range(subject.runs)
        ]
        apart = np.abs(-nats / np.log(2) - found.bits).max() / found.n_bytes.mean()
        cells = [[a for a, _ in timed], [b for _, b in timed], [b / a for a, b in timed]]
        print(f"{subject.name:17} {batch:14}   {'   '.join(map(spread, cells))}   {apart:.1e}", flush=True)
        goal = GOAL_SCORING if batch == 1 else None
        named = f"scoring {subject.name}, CPU s, one thread"
        promised(named, f"lm_eval, {batch} window{'s' if batch > 1 else ''} a batch", cells[2], least=goal)


def report_default(subject: Subject, tokenizer: Any, threads: int) -> None:
    """Wall time of ours and of lm_eval as each comes, the same threads on both sides."""
    model, texts = subject.model, subject.texts
    harness = harness_of(model, tokenizer, 1)
    ways: tuple[Callable[[], object], ...] = (
        lambda: sentence_losses(model, encode(tokenizer, texts, block_size=256, prefix_id=0)),
        lambda: harness_nats(harness, texts),
    )
    for way in ways:
        way()  # loads kernels
    ratios = []
    for _ in range(subject.runs):
        ours, theirs = map(wall, ways)
        ratios.append(theirs / ours)
    named = f"scoring {subject.name}, wall, {threads} threads"
    promised(named, "lm_eval as it comes, 1 window a batch", ratios, least=GOAL_SCORING)


def wall(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def four_bits(model: Any) -> Callable[[Sequence[int]], contextlib.AbstractContextManager[object]]:
    """Quantises the given blocks to 4 bits in groups of 128; nothing for none."""

    def apply(blocks: Sequence[int]) -> contextlib.AbstractContextManager[object]:
        if not blocks:
            return contextlib.nullcontext()
        return quantized(model, QuantSpec(bits=4, blocks=tuple(blocks)))

    return apply


def plain_bits(model: Any, encoded: Encoded) -> FloatArray:
    """(sentences,) by the plain loop."""
    bits = np.zeros(len(encoded))
    for first in range(0, len(encoded.inputs), 8):
        inputs, targets = encoded.inputs[first : first + 8], encoded.targets[first : first + 8]
        width = max(map(len, inputs))
        ids, labels = (
            torch.zeros(len(inputs), width, dtype=torch.long),
            torch.full((len(inputs), width), -100),
        )
        mask = torch.zeros_like(ids)
        for row, (x, y) in enumerate(zip(inputs, targets, strict=True)):
            ids[row, : len(x)], mask[row, : len(x)] = torch.from_numpy(x), 1
            labels[row, len(x) - len(y) : len(x)] = torch.from_numpy(y)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits
            nats = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)
        np.add.at(bits, encoded.owner[first : first + 8], nats.double().numpy() / np.log(2))
    return bits


def report_sweep(subject: Subject, tokenizer: Any) -> None:
    """Print seconds of the sweep and of a naive one, ours / theirs, and the largest relative difference."""
    model = subject.model
    encoded = encode(tokenizer, subject.texts, block_size=256, prefix_id=0)
    apply = four_bits(model)
    variants = sweep_variants(len(blocks_of(model)))

    def naive(score: Callable[[], FloatArray]) -> FloatArray:
        rows = []
        for variant in variants:
            with apply([i for i, quantised in enumerate(variant) if quantised]):
                rows.append(score())
        return np.array(rows)

    def ours() -> FloatArray:
        found = layer_sweep(model, encoded, quantised_blocks(model, apply))
        return np.concatenate([[found.untouched, found.quantised], found.only, found.protected])

    ways = {
        "scored as ours": lambda: sentence_losses(model, encoded).bits,
        "plain": lambda: plain_bits(model, encoded),
    }
    for way, score in ways.items():
        apart = np.abs(ours() / naive(score) - 1).max()
        timed = [(seconds(ours), seconds(lambda s=score: naive(s))) for _ in range(subject.runs)]
        cells = [[a for a, _ in timed], [b for _, b in timed], [a / b for a, b in timed]]
        print(f"{subject.name:17} {way:14}   {'   '.join(map(spread, cells))}   {apart:.1e}", flush=True)
        promised(f"layer sweep, {subject.name}", f"naive, {way}", cells[2], most=GOAL_SWEEP)


def main() -> None:
    """Print both tables; each cell is smallest, median and largest over runs."""
    threads = torch.get_num_threads()
    texts = sentences(10)
    tokenizer = tokenizer_of(texts)
    names = list(MODELS)[: 1 if quick() else None]
    small = [Subject(name, random_network(name), texts, runs=runs(3, 2)) for name in names]
    deep = Subject("12 x 96", random_network("cldr-gpt2", n_layer=12), texts[:60], runs=runs(2, 1))
    shape = {"n_layer": 6, "n_head": 12, "n_embd": 768, "vocab_size": 50257}
    large = Subject("6 x 768, 50,257", random_network("cldr-gpt2", **shape), texts[:20], runs=1)
    clocks = (f"{'our seconds':23}", f"{'their seconds':23}")
    if HFLM is None:
        print("lm_eval is not installed: `make bench` installs it and times it too")
        promised("scoring", "lm_eval, not installed", [], least=GOAL_SCORING)
    else:
        print(
            f"{'against lm_eval':17} {'batch':>14}   {clocks[0]}   {clocks[1]}   {'theirs / ours':23}   apart"
        )
        both = small if quick() else (*small, large)
        for subject in both:
            report_default(subject, tokenizer, threads)
        torch.set_num_threads(1)
        for subject in both:
            report_harness(subject, tokenizer)
    torch.set_num_threads(1)
    print(f"{'layer sweep':17} {'naive':14}   {clocks[0]}   {clocks[1]}   {'ours / theirs':23}   apart")
    for subject in (small[0], deep):
        report_sweep(subject, tokenizer)


if __name__ == "__main__":
    main()
