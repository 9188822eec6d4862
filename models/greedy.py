"""Answers by greedy decoding and the cost of the reference answers, for many items at once.

Decoding is the sampler's: left-padded rows, caches, rows that ended leave the batch, and in float32 a near
tie is decided by float64 logits of that row alone, so a text does not hang on its neighbours. A small Llama
or Mistral with adapters is first written out as one plain network, W + s B A for each weight (`merged`).
Other models decode as they are, adapters beside the weights: in bfloat16, W + s B A would round B A away.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812  (its usual name)
from transformers import LlamaConfig, LlamaForCausalLM

from models.adapter_items import IGNORED, Row, collate, is_out_of_memory
from models.adapters import ADAPTER, lora_layers
from models.backends import Sampling
from models.decoding import Network, open_network
from models.sampling import Choice, Ints, SampledRow, likeliest, sample

FloatArray = NDArray[np.float64]
MERGED_UP_TO = 20_000_000
"""Parameters of a model up to which a merged float32 copy is made."""
_LIKE_LLAMA = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters",
    "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model made of one prompt."""

    tokens: tuple[int, ...]
    """The end token left out."""
    stopped: bool
    """Whether it ended by itself; False: cut at the most tokens allowed."""


def merged(adapted: Any) -> Any:
    """The model that evaluates fastest: a copy with the adapters in its weights, or the model itself.

    A copy is made of a float32 Llama or Mistral of at most MERGED_UP_TO parameters. W + s B A is summed in
    float64 and rounded once. Mistral differs from Llama in its sliding window alone; one that holds every
    position is none, and the copy is a Llama, which `models.plain` decodes.
    """
    base = adapted.get_base_model() if hasattr(adapted, "get_base_model") else adapted
    config, weights = base.config, next(base.parameters())
    window = getattr(config, "sliding_window", None)
    plain = (
        config.model_type in ("llama", "mistral")
        and weights.dtype == torch.float32
        and base.num_parameters() <= MERGED_UP_TO
        and (window is None or window >= config.max_position_embeddings)
    )
    if not plain:
        return base
    state = {name.replace(".base_layer.", "."): value for name, value in base.state_dict().items()}
    state = {name: value for name, value in state.items() if ".lora_" not in name}
    for name, layer in lora_layers(base):
        a, b = layer.lora_A[ADAPTER].weight.double(), layer.lora_B[ADAPTER].weight.double()
        whole = layer.base_layer.weight.double() + layer.scaling[ADAPTER] * (b @ a)
        state[f"{name}.weight"] = whole.float()
    known = {key: copy.deepcopy(getattr(config, key)) for key in _LIKE_LLAMA}
    twin: Any = LlamaForCausalLM(LlamaConfig(**known, head_dim=base.model.layers[0].self_attn.head_dim))
    twin.load_state_dict(state)
    return twin.to(weights.device).eval().requires_grad_(False)


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: frozenset[int],
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], None] | None = None,
) -> list[Answer]:
    """The likeliest token after another, until a stop token.

    Parameters
    ----------
    model
        From `merged`.
    prompts
        Token ids, none empty; with the answer they must fit the model's window.
    batch_size
        Prompts at once; halved where memory runs out.
    report
        Called with the number of prompts done after each batch.

    Raises
    ------
    ValueError
        For an empty prompt, one too long for the window, or logits that are not finite.
    """
    network = open_network(model)
    choose = _choose if model.dtype == torch.float32 else _first_largest
    sampling = Sampling(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens, num_ctx=2**31)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        rows = _sampled(network, [list(prompts[i]) for i in places], sampling, choose, stop)
        for place, row in zip(places, rows, strict=True):
            if row.failure is not None:
                raise ValueError(f"prompt {place}: {row.failure}; the model diverged: train at a lower rate")
            found[place] = Answer(tokens=row.tokens, stopped=row.finish_reason == "stop")
        if report is not None:
            report(len(found))
    return [found[i] for i in range(len(prompts))]


def _choose(logits: torch.Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
    return likeliest(logits, exact=exact)


def _first_largest(logits: torch.Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
    # Logits of 16 bits tie often, and a float64 copy of a large model would not fit.
    return Choice(logits.argmax(dim=1).cpu().numpy(), np.zeros(len(logits), bool))


def _sampled(
    network: Network, prompts: list[list[int]], sampling: Sampling, choose: Any, stop: frozenset[int]
) -> list[SampledRow]:
    try:
        return sample(network, prompts, sampling, choose, stop=stop)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(prompts) == 1:
            raise
    middle = len(prompts) // 2  # outside the handler: the traceback holds what filled the memory
    return [
        row
        for half in (prompts[:middle], prompts[middle:])
        for row in _sampled(network, half, sampling, choose, stop)
    ]


@torch.inference_mode()
def answer_nats(model: Any, rows: Sequence[Row], *, batch_size: int) -> FloatArray:
    """-ln p of each row's answer, end token included, given its prompt; (rows,), nats.

    Rows of similar length run together; sums are float64.

    Raises
    ------
    ValueError
        When one is not finite.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    nats = np.empty(len(rows))
    for places in _parts(order, batch_size):
        batch = collate([rows[i] for i in places], device)
        first = batch.first
        keep = batch.ids.shape[1] - first + 1
        logits = model(input_ids=batch.ids, use_cache=False, logits_to_keep=keep).logits[:, :-1]
        labels = batch.labels[:, first:]
        each = F.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        nats[places] = each.view(labels.shape).double().sum(dim=1).cpu().numpy()
    if not np.isfinite(nats).all():
        bad = int((~np.isfinite(nats)).sum())
        raise ValueError(f"{bad} of {len(rows)} answers cost no finite number of nats; the model diverged")
    return nats


def _parts(order: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield list(order[start : start + size])
