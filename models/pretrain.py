"""Training an embedded model: a byte-level BPE tokeniser, a Llama-shaped network and a plain loop.

At equal tokens a GPT-2 shape of 182 k parameters reached 1.73 bits per byte where rotary positions, gated
MLP and RMS norm with 163 k reached 1.58, hence the shape. Heads of queries share heads of keys and values,
and the MLP takes the parameters that this saves: at 0.4 M parameters the held-out cost fell from 1.520 to
1.513 bits per byte and training took 79 CPU seconds, not 87.

The text is 250 KB, so every rung sees it 14 times and capacity turns into memorising: what makes
held-out cost still fall with size is weight decay ten and more times the usual 0.1.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch.nn import functional as F  # noqa: N812  (its usual name)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from models.embedded import MAX_POSITIONS, EmbeddedSpec, TrainPoint
from models.english import Corpus
from models.pretrain_state import Training, hash_of
from models.trigram import bits_per_byte, fit_trigram, total_nats

END_OF_TEXT = "<|endoftext|>"
"""Before, between and after documents; id 0; begin, end and padding token alike."""
ROPE_THETA = 1000.0
"""The slowest pair turns 1 radian in 420 to 650 tokens, which suits windows of 256; 10,000 is usual."""
THREADS = 1
"""Torch threads of a run. Sums are split by thread, so another number may change last digits; and with 2 on a
busy machine their waiting for each other cost 4 times the CPU time. Train two rungs in two processes instead.
"""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A trained network in memory, with its scores on the held-out part."""

    model: Any
    """LlamaForCausalLM."""
    tokenizer: Tokenizer
    log: tuple[TrainPoint, ...]
    heldout_bits_per_byte: float
    trigram_bits_per_byte: float

    @property
    def parameters(self) -> int:
        """Number of weights; the tied embedding counts once."""
        return sum(p.numel() for p in self.model.parameters())

    def save(self, directory: Path) -> None:
        """Write what `AutoModelForCausalLM` and `AutoTokenizer` load."""
        save_model(self.model, self.tokenizer, directory, max_length=MAX_POSITIONS)


class Schedule(Protocol):
    """What the training loop reads of a spec; the fields are explained in `EmbeddedSpec`."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def save_model(model: Any, tokenizer: Tokenizer, directory: Path, *, max_length: int) -> None:
    """Write what `AutoModelForCausalLM` and `AutoTokenizer` load; the end of text is every special token."""
    model.save_pretrained(directory)
    fast: Any = PreTrainedTokenizerFast  # untyped in transformers
    fast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)


def pretrain(
    spec: EmbeddedSpec,
    corpus: Corpus,
    report: Callable[[TrainPoint], None] | None = None,
    checkpoint: Path | None = None,
) -> Pretrained:
    """Train tokeniser and network on the training part and score the held-out part.

    The same spec, text and library versions give the same weights: initial values, batches and thread count
    are fixed, and the caller's random state and thread count are restored.

    Parameters
    ----------
    report
        Called with each evaluated point as it comes.
    checkpoint
        Folder of `fit`.

    Raises
    ------
    ValueError
        When the loss stops being a number, or the text is too short for the vocabulary or the window.
    """
    tokenizer = train_tokenizer(corpus.train, spec.vocab_size)
    fit_on, held = (token_stream(tokenizer, part) for part in (corpus.train, corpus.heldout))
    if len(fit_on) <= spec.block_size:
        raise ValueError(
            f"the training text has {len(fit_on)} tokens; block_size {spec.block_size} needs more than that: "
            "use a longer text or a smaller block_size"
        )
    with reproducible(spec.seed):
        model: Any = LlamaForCausalLM(llama_config(spec))
        log = fit(model, spec, fit_on, held, report, checkpoint)
    trigram = fit_trigram(fit_on.tolist(), spec.vocab_size)
    return Pretrained(
        model=model,
        tokenizer=tokenizer,
        log=tuple(log),
        heldout_bits_per_byte=bits_per_byte(log[-1].valid_loss_nats * (len(held) - 1), corpus.heldout_bytes),
        trigram_bits_per_byte=bits_per_byte(total_nats(trigram, held.tolist()), corpus.heldout_bytes),
    )


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE over `documents`; any text encodes, and decoding gives it back.

    Raises
    ------
    ValueError
        When the text has too few distinct pairs to fill the vocabulary.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"the text yields {tokenizer.get_vocab_size()} tokens, vocab_size asks for {vocab_size}; "
            "use a longer text or a smaller vocabulary"
        )
    return tokenizer


def token_stream(tokenizer: Tokenizer, documents: Sequence[str]) -> torch.Tensor:
    """Ids of all documents in one row, with the end-of-text id 0 before, between and after them."""
    ids = [0]
    for document in documents:
        ids += [*tokenizer.encode(document).ids, 0]
    return torch.tensor(ids)


@torch.no_grad()
def stream_nats(model: torch.nn.Module, tokens: torch.Tensor, block_size: int, *, batch: int = 16) -> float:
    """Sum of -ln p over every token but the first, each scored once.

    The stream is cut into disjoint windows of `block_size` predictions. The token at place i of its window,
    from 0, is predicted from the i + 1 tokens before it, so contexts of 1 to `block_size` tokens count alike.
    End-of-text tokens are scored too: they cost nats but add no byte.
    """
    was_training = model.training
    model.eval()
    whole = (len(tokens) - 1) // block_size
    x = tokens[: whole * block_size].view(whole, block_size)
    y = tokens[1 : whole * block_size + 1].view(whole, block_size)
    pairs = [(x[i : i + batch], y[i : i + batch]) for i in range(0, whole, batch)]
    if (len(tokens) - 1) % block_size:
        rest = tokens[whole * block_size :]
        pairs.append((rest[None, :-1], rest[None, 1:]))
    nats = sum(float(_losses(model, a, b).double().sum()) for a, b in pairs)
    model.train(was_training)
    return nats


def fit(
    model: torch.nn.Module,
    spec: Schedule,
    fit_on: torch.Tensor,
    held: torch.Tensor,
    report: Callable[[TrainPoint], None] | None,
    checkpoint: Path | None = None,
) -> list[TrainPoint]:
    """Train on windows drawn from a stream of tokens; returns the points that were evaluated.

    Parameters
    ----------
    fit_on, held
        Streams of token ids, (tokens,).
    checkpoint
        Folder where the training is kept at each point, and goes on from if it was stopped; whoever keeps
        the model deletes it. None keeps nothing.

    Raises
    ------
    ValueError
        When the loss stops being a number.
    """
    optimizer = _optimizer(model, spec)
    draws = torch.Generator().manual_seed(spec.seed)
    stops = {spec.steps * i // spec.evaluations for i in range(spec.evaluations + 1)}
    kept = None
    if checkpoint is not None:
        whose = hash_of(spec, fit_on, held)
        kept = Training(place=checkpoint, model=model, optimizer=optimizer, draws=draws, belongs=whose)
    log = [] if kept is None else kept.load()
    losses: list[float] = []
    rate = 0.0
    done, spent = (log[-1].iteration, log[-1].seconds) if log else (0, 0.0)
    if log and report is not None:
        report(log[-1])
    start = time.perf_counter() - spent
    for iteration in range(done, spec.steps + 1):
        if iteration in stops and (iteration > done or not log):
            point = TrainPoint(
                iteration=iteration,
                train_loss_nats=math.fsum(losses) / len(losses) if losses else None,
                valid_loss_nats=stream_nats(model, held, spec.block_size) / (len(held) - 1),
                learning_rate=rate,
                tokens=iteration * spec.batch * spec.block_size,
                seconds=time.perf_counter() - start,
            )
            log.append(point)
            losses.clear()
            if kept is not None and 0 < iteration < spec.steps:
                kept.save(log)
            if report is not None:
                report(point)
        if iteration == spec.steps:
            break
        rate = _learning_rate(spec, iteration)
        for group in optimizer.param_groups:
            group["lr"] = rate
        first = torch.randint(len(fit_on) - spec.block_size, (spec.batch, 1), generator=draws)
        window = fit_on[first + torch.arange(spec.block_size + 1)]  # (batch, block_size + 1)
        loss = _losses(model, window[:, :-1], window[:, 1:]).mean()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            if checkpoint is not None:
                shutil.rmtree(checkpoint, ignore_errors=True)  # it leads here
            raise ValueError(
                f"{spec.name}: the loss is {losses[-1]} at step {iteration} of {spec.steps}, learning rate "
                f"{rate:g}; nothing was saved: lower learning_rate ({spec.learning_rate:g}) and train again"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return log


def _losses(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    logits = model(x, use_cache=False).logits  # (batch, time, vocab)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")  # (batch * time,)


def _learning_rate(spec: Schedule, iteration: int) -> float:
    """Linear warm-up, then half a cosine from the peak to a twentieth of it."""
    if iteration < spec.warmup_steps:
        return spec.learning_rate * (iteration + 1) / spec.warmup_steps
    done = (iteration - spec.warmup_steps) / (spec.steps - spec.warmup_steps)
    return spec.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def _optimizer(model: torch.nn.Module, spec: Schedule) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(0.9, 0.98), fused=True)


def llama_config(spec: EmbeddedSpec) -> LlamaConfig:
    """The network of a spec as `transformers` knows it."""
    # LlamaConfig's special ids default to 1 and 2, which are letters in this vocabulary: all are set here and
    # the generation config is derived from them.
    return LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.n_embd,
        intermediate_size=spec.n_hidden,
        num_hidden_layers=spec.n_layer,
        num_attention_heads=spec.n_head,
        num_key_value_heads=spec.n_pair,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=0.64 / math.sqrt(spec.n_embd),  # 0.08 at width 64; the usual 0.02 starts slowly
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Fixed random state and thread count; the caller's come back afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
