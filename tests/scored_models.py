"""Small networks of six families whose weights come from a formula, and texts for them to score.

Neither a seed nor a stored file decides them, so what was recorded from them once holds under any version of
torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    XGLMConfig,
    XGLMForCausalLM,
)

from models.pretrain import END_OF_TEXT, train_tokenizer

POSITIONS = 48
VOCABULARY = 300
FAMILY_NAMES = ("gpt2", "opt", "gpt_neox", "llama", "bloom", "xglm")
_LONG = "The ferry leaves the northern harbour at seven and comes back when the last lamp is lit. "
TEXTS = (
    "a",
    "The ferry leaves at seven.",
    "First line\nsecond line\n\nfourth line",
    "Паром отходит в семь часов.",
    "تغادر العبّارة في السابعة.",
    "渡轮七点出发。",
    "नाव सात बजे निकलती है।",
    "🚢 at 7 – ﬁne? 👩‍🚀",
    " leading and trailing blanks ",
    "x" * POSITIONS,
    "x" * (POSITIONS + 1),
    _LONG * 2,
    _LONG * 5 + "🚢",
)
"""From 1 token to several windows; POSITIONS and POSITIONS + 1 tokens stand at the edge of a window."""


def small_tokenizer() -> Any:
    """Byte-level BPE of 300 tokens; `<|endoftext|>`, id 0, begins, ends and pads."""
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=train_tokenizer([_LONG, *TEXTS[1:3]], VOCABULARY),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def small_model(family: str, layers: int = 3, width: int = 32, dropout: float = 0.0) -> Any:
    """A network of `layers` blocks in float32, evaluating."""
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    shape = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "hidden_size": width}
    deep = {"num_hidden_layers": layers, "num_attention_heads": 4}
    if family == "gpt2":
        model: Any = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=POSITIONS,
                n_embd=width,
                n_layer=layers,
                n_head=4,
                resid_pdrop=dropout,
                **special,
            )
        )
    elif family == "opt":
        # a projection after the blocks, as OPT-350M has one
        more = {"ffn_dim": 2 * width, "word_embed_proj_dim": width // 2, "dropout": dropout}
        model = OPTForCausalLM(OPTConfig(**shape, **deep, **more, **special))
    elif family == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, **deep, intermediate_size=2 * width, **special))
    elif family == "bloom":  # has no number of positions
        model = BloomForCausalLM(
            BloomConfig(vocab_size=VOCABULARY, hidden_size=width, n_layer=layers, n_head=4, **special)
        )
    elif family == "xglm":
        model = XGLMForCausalLM(XGLMConfig(**shape, **deep, ffn_dim=2 * width, **special))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape, **deep, intermediate_size=2 * width, **special))
    return with_formula(model)


def with_formula(model: Any) -> Any:
    """Set parameter k's entry i to a scaled fraction of sin(12.9898 i + 78.233 k); norms stay near 1."""
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            i = np.arange(parameter.numel(), dtype=np.float64)
            spread = np.sin(12.9898 * i + 78.233 * (k + 1)) * 43758.5453
            uneven = torch.from_numpy(2 * (spread - np.floor(spread)) - 1).reshape(parameter.shape)
            if parameter.dim() == 1:
                parameter.copy_(parameter + 0.05 * uneven)
            else:
                parameter.copy_(uneven * 1.5 / np.sqrt(parameter.shape[-1]))
    return model.train(False)
