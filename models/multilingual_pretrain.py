"""Training the multilingual models: one tokeniser over the unequal text, three networks, the common loop."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from models.embedded import TrainPoint
from models.multilingual import MAX_POSITIONS, MultilingualSpec, heldout_texts, training_texts
from models.pretrain import fit, reproducible, save_model, stream_nats, token_stream, train_tokenizer
from models.trigram import bits_per_byte


@dataclass(frozen=True, kw_only=True)
class PretrainedMultilingual:
    """A trained network in memory."""

    model: Any
    tokenizer: Tokenizer
    facts: Mapping[str, object]
    """What the manifest says of it, as plain data."""

    def save(self, directory: Path) -> None:
        """Write what `AutoModelForCausalLM` and `AutoTokenizer` load."""
        save_model(self.model, self.tokenizer, directory, max_length=MAX_POSITIONS)


def pretrain(
    spec: MultilingualSpec,
    report: Callable[[TrainPoint], None] | None = None,
    checkpoint: Path | None = None,
) -> PretrainedMultilingual:
    """Train tokeniser and network on each language's share of text.

    Sentences of all languages are shuffled into one stream with the end-of-text token before, between and
    after them. The same spec and library versions give the same weights.

    Raises
    ------
    ValueError
        When the loss stops being a number.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    texts, held = training_texts(spec), heldout_texts()
    shuffled = [text for side in texts.values() for text in side]
    random.Random(spec.seed).shuffle(shuffled)
    tokenizer = train_tokenizer(shuffled, spec.vocab_size)
    streams = {code: token_stream(tokenizer, side) for code, side in held.items()}
    with reproducible(spec.seed):
        model = network(spec)
        text, scored = token_stream(tokenizer, shuffled), torch.cat(list(streams.values()))
        log = fit(model, spec, text, scored, report, checkpoint)
        model.eval()
        bits = {code: _bits_per_byte(model, spec, streams[code], held[code]) for code in held}
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "sentences": {code: len(side) for code, side in texts.items()},
        "heldout_bits_per_byte": bits,
        "seconds": max(time.perf_counter() - wall, log[-1].seconds),
        "cpu_seconds": time.process_time() - cpu,
        "log": [dataclasses.asdict(point) for point in log],
    }
    return PretrainedMultilingual(model=model, tokenizer=tokenizer, facts=facts)


def _bits_per_byte(
    model: torch.nn.Module, spec: MultilingualSpec, stream: torch.Tensor, texts: Sequence[str]
) -> float:
    n_bytes = sum(len(text.encode()) for text in texts)
    return bits_per_byte(stream_nats(model, stream, spec.block_size), n_bytes)


def network(spec: MultilingualSpec) -> Any:
    """An untrained network of the spec's architecture, without dropout; every special token is id 0.

    The special ids of the configs lie outside this vocabulary or mean letters in it, so all are set. OPT gets
    no padding id: with one, the embedding of that token would stay at zero.
    """
    tokens: dict[str, Any] = {"vocab_size": spec.vocab_size, "bos_token_id": 0, "eos_token_id": 0}
    spread = 0.64 / math.sqrt(spec.n_embd)  # 0.065 at width 96; the usual 0.02 starts slowly
    if spec.architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                n_positions=MAX_POSITIONS,
                activation_function="gelu_pytorch_tanh",  # gelu_new in one kernel: 15 % of an evaluation
                n_layer=spec.n_layer,
                n_head=spec.n_head,
                n_embd=spec.n_embd,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                pad_token_id=0,
                initializer_range=spread,
                **tokens,
            )
        )
    if spec.architecture == "opt":
        return OPTForCausalLM(
            OPTConfig(
                max_position_embeddings=MAX_POSITIONS,
                num_hidden_layers=spec.n_layer,
                num_attention_heads=spec.n_head,
                hidden_size=spec.n_embd,
                word_embed_proj_dim=spec.n_embd,
                ffn_dim=4 * spec.n_embd,
                dropout=0.0,
                pad_token_id=None,
                init_std=spread,
                **tokens,
            )
        )
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            max_position_embeddings=MAX_POSITIONS,
            num_hidden_layers=spec.n_layer,
            num_attention_heads=spec.n_head,
            hidden_size=spec.n_embd,
            intermediate_size=4 * spec.n_embd,
            pad_token_id=0,
            initializer_range=spread,
            **tokens,
        )
    )
