"""Training the arithmetic base: a Mistral-shaped network, its problems in one stream, the common loop."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch.nn import Linear
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from models.answers import Item, completion, is_correct, prompt
from models.embedded import TrainPoint
from models.greedy import greedy, merged
from models.mistral_base import MAX_POSITIONS, BaseSpec
from models.pretrain import fit, reproducible, token_stream
from models.word_problems import END_OF_TEXT, PADDING, copies, problems, tokenizer

ROPE_THETA = 1000.0
"""The slowest pair turns 1 radian in about 420 tokens; 10,000 is usual, for windows of thousands."""
MAX_NEW_TOKENS = 32
"""The longest answer has 28."""
END_ID, PADDING_ID = 0, 1


@dataclass(frozen=True, kw_only=True)
class PretrainedBase:
    """A trained network in memory."""

    model: Any
    """MistralForCausalLM."""
    tokenizer: Tokenizer
    facts: Mapping[str, object]
    """What the manifest says of it, as plain data."""

    def save(self, directory: Path) -> None:
        """Write what `AutoModelForCausalLM` and `AutoTokenizer` load; the tokeniser pads on the left."""
        self.model.save_pretrained(directory)
        fast: Any = PreTrainedTokenizerFast  # untyped in transformers
        fast(
            tokenizer_object=self.tokenizer,
            bos_token=END_OF_TEXT,
            eos_token=END_OF_TEXT,
            pad_token=PADDING,
            padding_side="left",
            model_max_length=MAX_POSITIONS,
            clean_up_tokenization_spaces=False,
        ).save_pretrained(directory)


def pretrain(
    spec: BaseSpec,
    report: Callable[[TrainPoint], None] | None = None,
    checkpoint: Path | None = None,
) -> PretrainedBase:
    """Train on problems in wording "base" and drills, and measure both wordings on validation problems.

    The same spec and library versions give the same weights.

    Raises
    ------
    ValueError
        When the loss stops being a number.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    ours = tokenizer()
    texts = training_texts(spec)
    held = texts_of(problems("base", "validation", spec.scored, seed=spec.seed))
    with reproducible(spec.seed):
        model = network(spec, ours.get_vocab_size())
        log = fit(model, spec, token_stream(ours, texts), token_stream(ours, held), report, checkpoint)
        model.eval()
        accuracies = {
            wording: accuracy(model, ours, problems(wording, "validation", spec.scored, seed=spec.seed))
            for wording in ("base", "downstream")
        }
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "modules": _linears(model),
        **{f"{wording}_accuracy": share for wording, share in accuracies.items()},
        "seconds": max(time.perf_counter() - wall, log[-1].seconds),
        "cpu_seconds": time.process_time() - cpu,
        "log": [dataclasses.asdict(point) for point in log],
    }
    return PretrainedBase(model=model, tokenizer=ours, facts=facts)


def _linears(model: Any) -> list[str]:
    named = model.model.layers.named_modules(prefix="model.layers")
    return [name for name, module in named if isinstance(module, Linear)]


def training_texts(spec: BaseSpec) -> list[str]:
    """Problems, drills and copies, shuffled."""
    texts = list(copies(spec.copies, seed=spec.seed))
    for seed in range(spec.sets * spec.seed, spec.sets * (spec.seed + 1)):
        texts += texts_of(problems("base", "train", spec.problems, seed=seed))
        texts += texts_of(problems("drill", "train", spec.drills, seed=seed))
    random.Random(spec.seed).shuffle(texts)
    return texts


def texts_of(items: Sequence[Item]) -> list[str]:
    """Prompt and answer of each item in one text."""
    return [prompt(item.question) + completion(item.answer) for item in items]


def network(spec: BaseSpec, vocab_size: int) -> Any:
    """An untrained network of the spec's shape.

    Mistral's special ids default to 1 and 2 and no padding, which here are padding and a letter, so all are
    set; the generation config is set beside them, as generating reads that and not the network's.
    """
    config = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=spec.n_embd,
        intermediate_size=spec.n_hidden,
        num_hidden_layers=spec.n_layer,
        num_attention_heads=spec.n_head,
        num_key_value_heads=spec.n_pair,
        head_dim=spec.n_embd // spec.n_head,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=0.64 / spec.n_embd**0.5,  # 0.08 at width 64; the usual 0.02 starts slowly
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=PADDING_ID,
    )
    model: Any = MistralForCausalLM(config)
    generation: Any = GenerationConfig  # untyped in transformers
    model.generation_config = generation(
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=PADDING_ID,
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    return model


def accuracy(model: Any, ours: Tokenizer, items: Sequence[Item]) -> float:
    """Share of items that greedy decoding solves by the strict rule."""
    rows = [ours.encode(prompt(item.question)).ids for item in items]
    answers = greedy(
        merged(model), rows, stop=frozenset({END_ID}), max_new_tokens=MAX_NEW_TOKENS, batch_size=250
    )
    right = (
        is_correct(ours.decode(answer.tokens), item.gold, "strict")
        for answer, item in zip(answers, items, strict=True)
    )
    return sum(right) / len(items)
