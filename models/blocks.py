"""Where a network keeps its blocks: the families of `models.families` as modules and parameter-name prefixes.

A block is one repeated layer (attention and MLP with their norms). The trunk is the network without its head:
embeddings, blocks, then the tail (final norm, for some OPT sizes a projection). The head maps the tail's
output to one logit a token.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.families import FAMILIES, Family

__all__ = [
    "FAMILIES", "block_prefixes", "blocks_of", "family_of", "head_of", "hidden_of", "tail_of", "trunk_of",
]  # fmt: skip


def family_of(model: nn.Module) -> Family:
    """The paths of a causal language model.

    Raises
    ------
    ValueError
        For a model type outside `FAMILIES`.
    """
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    family = FAMILIES.get(str(kind))
    if family is None:
        raise ValueError(
            f"{type(model).__name__} has model type {kind!r}; blocks are known for {', '.join(FAMILIES)}: "
            "choose such a model, or add its paths to models.families.FAMILIES"
        )
    return family


def trunk_of(model: nn.Module) -> nn.Module:
    """The module that holds embeddings, blocks and tail."""
    return model.get_submodule(family_of(model).trunk)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks in the order in which they run.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=16, n_positions=8))
    >>> [type(block).__name__ for block in blocks_of(model)]
    ['GPT2Block', 'GPT2Block']
    """
    family = family_of(model)
    return list(model.get_submodule(f"{family.trunk}.{family.blocks}").children())


def block_prefixes(model: nn.Module) -> list[str]:
    """How the names of each block's modules and parameters begin, with the last dot.

    The dot keeps block 1 apart from block 10 under `str.startswith`.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=16, n_positions=8))
    >>> block_prefixes(model)
    ['transformer.h.0.', 'transformer.h.1.']
    """
    family = family_of(model)
    return [f"{family.trunk}.{family.blocks}.{i}." for i in range(len(blocks_of(model)))]


def hidden_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The activations of a block's output; BLOOM's blocks give attention weights, or None, beside them."""
    return output[0] if isinstance(output, tuple) else output


def tail_of(model: nn.Module) -> list[nn.Module]:
    """The modules between the last block and the head."""
    trunk = trunk_of(model)
    found = (getattr(trunk, name) for name in family_of(model).tail)
    return [module for module in found if module is not None]


def head_of(model: nn.Module) -> nn.Module:
    """The module from the tail's output to logits.

    Raises
    ------
    ValueError
        For a model without one.
    """
    causal: Any = model
    head = causal.get_output_embeddings()
    if head is None:
        raise ValueError(
            f"{type(model).__name__} has no output embeddings; load it as a causal language model"
        )
    return head  # type: ignore[no-any-return]
