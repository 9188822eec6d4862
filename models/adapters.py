"""LoRA adapters of planned ranks on a causal model, through PEFT: attach, read back, take off.

PEFT matches `rank_pattern` keys as ends of module names and gives what matches nothing the default rank,
in silence. Here every module has its own key, escaped and anchored at both ends, and the ranks are read back
from the shapes of A and B.

Initialisation is nested: each module's A is drawn from a generator of its own, keyed by seed and name, at 64
rows, of which rank r takes the first r. So two arms differ in what their ranks make of the same start, and
not in the draws of all modules after the first that differs. B is zero: every arm starts as the base.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig

from models.lora_recipe import MAX_RANK, LoraRecipe
from models.rank_policies import Shape
from models.spectra import Factors, FloatArray, place

ADAPTER = "default"
"""PEFT's name of the one adapter a model carries."""
_BLOCK = re.compile(r"\.\d+\.")

MISTRAL_7B = "mistralai/Mistral-7B-v0.1"
_SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        MISTRAL_7B: {
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32_768,
            "sliding_window": 4096,
        }
    }
)
"""Configurations that are known without a download."""


def adaptable(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of every linear module inside the blocks, in the order of the network.

    Inside a block is what has a numbered part in its name, so embeddings and head are not. Modules that carry
    an adapter are listed by the base layer they wrap.

    Raises
    ------
    ValueError
        When there is none, as in GPT-2, whose `Conv1D` is no linear module.

    >>> from transformers import MistralForCausalLM
    >>> shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 9}
    >>> config = MistralConfig(**shape, num_attention_heads=2, num_key_value_heads=1)
    >>> adaptable(MistralForCausalLM(config))["model.layers.0.self_attn.k_proj"]
    (4, 8)
    """
    found = {name: (linear.out_features, linear.in_features) for name, linear in linears(model)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no torch.nn.Linear in a numbered block; choose a model that has, "
            "such as Llama, Mistral, Qwen or GPT-NeoX"
        )
    return found


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The adaptable modules with their names; of one that carries an adapter, the layer beneath."""
    for name, module in _base(model).named_modules():
        linear = module.get_base_layer() if isinstance(module, LoraLayer) else module
        inner = ".lora_" in name or name.endswith(".base_layer")
        if isinstance(linear, nn.Linear) and _BLOCK.search(name) and not inner:
            yield name, linear


def _base(model: Any) -> nn.Module:
    """The transformers model, with adapters in it or not."""
    base: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def shapes_of(config: Any) -> tuple[Shape, ...]:
    """Shapes of a model's adaptable modules, built on the meta device: no weights, no memory.

    Parameters
    ----------
    config
        A configuration of `transformers`, a directory, or a hub id; that of Mistral-7B needs no hub.

    >>> shapes = shapes_of(MISTRAL_7B)
    >>> len(shapes), sum(shape.unit_cost for shape in shapes) // 32
    (224, 81920)
    """
    return tuple(
        Shape(name=name, projection=place(name)[0], d_out=d_out, d_in=d_in)
        for name, (d_out, d_in) in adaptable(empty_model(config)).items()
    )


def empty_model(config: Any) -> Any:
    """A model without weights, on the meta device, from what `shapes_of` takes."""
    if isinstance(config, str | Path):
        known = _SHAPES.get(str(config))
        config = (
            MistralConfig(**known) if known else AutoConfig.from_pretrained(config, trust_remote_code=False)
        )
    with torch.device("meta"):
        build: Any = AutoModelForCausalLM.from_config  # untyped in transformers
        return build(config)


def attach(
    model: nn.Module,
    ranks: Mapping[str, int],
    recipe: LoraRecipe,
    *,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
) -> Any:
    """Put a LoRA adapter of the planned ranks on a model, in place.

    Parameters
    ----------
    model
        A causal model without an adapter; it is frozen. Take the adapter off with `detach`.
    ranks
        Of every adaptable module, 1 to 64. Only with `start` may modules be left out, as EVA leaves some.
    recipe
        Its scale rule.
    seed
        Of the nested initialisation.
    start
        A of each module, (rank, d_in), instead of the nested one: what `models.eva` computes.

    Returns
    -------
    PeftModel
        In eval mode; A and B are float32.

    Raises
    ------
    ValueError
        A module that the model has not, one without a rank, a rank outside 1 to 64, a model that carries an
        adapter already, or realised ranks other than those planned.
    """
    if hasattr(model, "peft_config"):
        raise ValueError("the model carries an adapter already; detach it before another is attached")
    _check_plan(adaptable(model), ranks, complete=start is None)
    config = lora_config(ranks, recipe)
    with without_peft_notices():
        adapted = get_peft_model(model, config).eval()
    _initialise(adapted, seed, start)
    realised = realised_ranks(adapted)
    if realised != dict(ranks):
        wrong = {name: (ranks.get(name), realised.get(name)) for name in {*ranks, *realised}}
        wrong = {name: pair for name, pair in sorted(wrong.items()) if pair[0] != pair[1]}
        raise ValueError(f"{len(wrong)} modules have another rank than planned (planned, realised): {wrong}")
    return adapted


def detach(adapted: Any) -> Any:
    """Take the adapter off; returns the model as it was before `attach`."""
    return adapted.unload()


def lora_config(ranks: Mapping[str, int], recipe: LoraRecipe) -> Any:
    """PEFT's configuration with a key of its own for every module.

    >>> config = lora_config({"model.layers.1.mlp.up_proj": 4}, LoraRecipe())
    >>> config.rank_pattern
    {'^model\\\\.layers\\\\.1\\\\.mlp\\\\.up_proj': 4}
    """
    # PEFT puts (.*\.)? before a key and $ behind it; with ^ only the whole name matches.
    return LoraConfig(
        r=max(ranks.values()),
        lora_alpha=1,
        target_modules=list(ranks),
        rank_pattern={f"^{re.escape(name)}": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{re.escape(name)}": recipe.lora_alpha(rank) for name, rank in ranks.items()},
        use_rslora=recipe.scale_rule == "rslora",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


@contextmanager
def without_peft_notices() -> Iterator[None]:
    """PEFT 0.21 asks a property by a name that transformers 5.23 calls out of date."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _check_plan(modules: Mapping[str, object], ranks: Mapping[str, int], *, complete: bool) -> None:
    unknown = sorted(set(ranks) - set(modules))
    missing = sorted(set(modules) - set(ranks))
    if unknown or (missing and complete) or not ranks:
        raise ValueError(
            f"the plan names {len(unknown)} modules that the model has not ({', '.join(unknown[:3])}) and "
            f"leaves out {len(missing)} that it has ({', '.join(missing[:3])}); list each of its "
            f"{len(modules)} modules once, such as {next(iter(modules))}"
        )
    wrong = {name: rank for name, rank in ranks.items() if not 1 <= rank <= MAX_RANK}
    if wrong:
        raise ValueError(f"ranks outside 1 to {MAX_RANK}: {wrong}; a module without energy gets rank 1")


@torch.no_grad()
def _initialise(adapted: Any, seed: int, start: Mapping[str, Tensor] | None) -> None:
    for name, layer in lora_layers(adapted):
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        if a.device.type == "meta":
            continue
        rows = nested_start(name, a.shape[1], seed)[: len(a)] if start is None else start[name]
        a.copy_(rows)
        b.zero_()


def nested_start(name: str, d_in: int, seed: int) -> Tensor:
    """A of a module at 64 rows, (64, d_in), uniform in +-1 / sqrt(d_in) as PEFT's Kaiming bound is.

    The bound is sqrt(6 / ((1 + 5) d_in)) and does not hang on the rank, so the first r rows are what a module
    of rank r would have drawn.
    """
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    bound = 1 / math.sqrt(d_in)
    return torch.empty(MAX_RANK, d_in).uniform_(-bound, bound, generator=generator)


def lora_layers(adapted: nn.Module) -> Iterator[tuple[str, Any]]:
    """The modules that carry an adapter, by their names in the base."""
    for name, module in _base(adapted).named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def realised_ranks(adapted: nn.Module) -> dict[str, int]:
    """Ranks as the shapes of A and B have them.

    Raises
    ------
    ValueError
        When A and B of a module do not fit together.
    """
    ranks = {}
    for name, layer in lora_layers(adapted):
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        if a.shape[0] != b.shape[1]:
            raise ValueError(f"{name}: A is {tuple(a.shape)}, B {tuple(b.shape)}; they share no rank")
        ranks[name] = int(a.shape[0])
    return ranks


def trainable_parameters(adapted: nn.Module) -> int:
    """Number of weights that training changes."""
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def lora_factors(adapted: nn.Module) -> dict[str, Factors]:
    """A, B and scale of every module, float64."""
    return {
        name: Factors(
            a=_float64(layer.lora_A[ADAPTER].weight),
            b=_float64(layer.lora_B[ADAPTER].weight),
            scale=float(layer.scaling[ADAPTER]),
        )
        for name, layer in lora_layers(adapted)
    }


def _float64(weight: Tensor) -> FloatArray:
    array: FloatArray = weight.detach().cpu().double().numpy()
    return array
