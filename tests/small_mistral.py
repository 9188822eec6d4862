"""An untrained Mistral of two layers and width 32, the word problems' tokenizer, and some of their items."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from models.answers import Item
from models.lora_recipe import LoraRecipe
from models.task_items import TaskSource
from models.word_problems import tokenizer

MODULES = 14
SOURCE = TaskSource(kind="word_problems", n_train=48, n_validation=8, n_test=24, seed=3)
SHORT = LoraRecipe(steps=20, batch_size=8, stages=5)


def fast_tokenizer() -> Any:
    """The word problems' tokenizer as `AutoTokenizer` loads it; id 0 ends, id 1 pads."""
    words = tokenizer()
    fast: Any = PreTrainedTokenizerFast
    first, second = (words.id_to_token(i) for i in (0, 1))
    return fast(
        tokenizer_object=words, bos_token=first, eos_token=first, pad_token=second, padding_side="left"
    )


def small_mistral(*, seed: int = 0, window: int | None = None, spread: float = 0.2) -> Any:
    """Untrained, float32, evaluating; q, k, v, o, gate, up and down in each of two layers."""
    config = MistralConfig(
        vocab_size=tokenizer().get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=window,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MistralForCausalLM(config).train(False).requires_grad_(False)


@lru_cache(maxsize=1)
def items(split: Any = "train") -> tuple[Item, ...]:
    """Of the small source."""
    return SOURCE.load(split)


def saved_base(directory: Path) -> str:
    """The model and its tokenizer on disk."""
    small_mistral().save_pretrained(directory)
    fast_tokenizer().save_pretrained(directory)
    return str(directory)


def as_source() -> dict[str, Any]:
    """The small source as plain data."""
    return asdict(SOURCE)
