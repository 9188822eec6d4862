"""A base and items so small that the rank study runs in seconds: an untrained network, forty questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from models.word_problems import problems, tokenizer

TRAIN, VALIDATION, TEST = 96, 16, 40


def write_base(directory: Path, *, layers: int = 4) -> Path:
    """An untrained Mistral with the word problems' tokeniser, as `from_pretrained` loads it."""
    words = tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    MistralForCausalLM(config).save_pretrained(directory)
    fast: Any = PreTrainedTokenizerFast
    names = {name: words.id_to_token(i) for name, i in (("bos_token", 0), ("eos_token", 0), ("pad_token", 1))}
    fast(tokenizer_object=words, padding_side="left", **names).save_pretrained(directory)
    return directory


def write_items(directory: Path) -> Path:
    """A folder with train.jsonl and test.jsonl in GSM8K's shape."""
    directory.mkdir(parents=True, exist_ok=True)
    counts = {"train": TRAIN + VALIDATION, "test": TEST}
    for split, count in (("train", counts["train"]), ("test", counts["test"])):
        items = problems("downstream", split, count, seed=0)  # type: ignore[arg-type]
        lines = [json.dumps({"question": one.question, "answer": one.answer}) for one in items]
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def settings(base: Path, items: Path, **changes: object) -> list[str]:
    """Arguments of `ladder run mechanism` for it."""
    fields: dict[str, object] = {
        "model": base,
        "data": items,
        "looks": 2,
        "arms": "shuffled_within,shuffled_full,shuffled_free,inverse,uniform_equal,cross_seed,uniform_median,"
        "uniform_p90,eva",
        "shuffles": 2,
        "probe_rank": 8,
        "steps": 12,
        "batch_size": 8,
        "n_train": TRAIN,
        "n_validation": VALIDATION,
        "n_test": TEST,
        "max_new_tokens": 12,
        "least_gain": 0,
        "most_fall": 1,
        **changes,
    }
    chosen = [f"{name}={value}" for name, value in fields.items()]
    return ["run", "mechanism", *(part for one in chosen for part in ("--set", one))]
