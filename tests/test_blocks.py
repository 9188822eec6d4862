"""The blocks of each family are the modules its forward pass runs, and their prefixes name all they hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.blocks import FAMILIES, block_prefixes, blocks_of, head_of, tail_of, trunk_of
from tests.scored_models import FAMILY_NAMES, small_model


def test_every_family_has_a_small_model() -> None:
    assert set(FAMILY_NAMES) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_blocks_run_once_each_in_order_between_embeddings_and_tail(family: str) -> None:
    model = small_model(family)
    ran: list[str] = []
    named = {f"block {i}": block for i, block in enumerate(blocks_of(model))}
    named |= {f"tail {i}": module for i, module in enumerate(tail_of(model))} | {"head": head_of(model)}
    for name, module in named.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        model(input_ids=torch.tensor([[0, 5, 7]]))
    assert ran == list(named)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_prefixes_name_the_parameters_of_their_block_and_no_others(family: str) -> None:
    model = small_model(family, layers=11)
    names = dict(model.named_parameters())
    prefixes = block_prefixes(model)
    assert len(prefixes) == 11
    for prefix, block in zip(prefixes, blocks_of(model), strict=True):
        mine = {name: value for name, value in names.items() if name.startswith(prefix)}
        assert [id(value) for value in mine.values()] == [id(value) for value in block.parameters()]
    outside = [name for name in names if not name.startswith(tuple(prefixes))]
    held = {id(p) for module in (*tail_of(model), head_of(model)) for p in module.parameters()}
    assert held <= {id(names[name]) for name in outside}


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_tail_and_head_turn_the_last_blocks_output_into_the_logits(family: str) -> None:
    model = small_model(family)
    seen: list[Any] = []
    blocks_of(model)[-1].register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[0, 5, 7]])).logits
        (hidden,) = seen
        for module in tail_of(model):
            hidden = module(hidden)
        assert torch.equal(head_of(model)(hidden), logits)


def test_opt_without_a_projection_has_a_tail_of_its_norm() -> None:
    model = small_model("opt")
    assert len(tail_of(model)) == 2
    trunk_of(model).project_out = None
    assert len(tail_of(model)) == 1


def test_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Linear has model type None; blocks are known for gpt2, opt"):
        blocks_of(nn.Linear(2, 2))
    from transformers import BloomConfig, BloomForCausalLM

    bloom = BloomForCausalLM(BloomConfig(vocab_size=16, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="model type 'bloom'"):
        block_prefixes(bloom)


def test_a_model_without_a_head_is_refused() -> None:
    from transformers import GPT2Config, GPT2Model

    bare = GPT2Model(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(ValueError, match="GPT2Model has no output embeddings"):
        head_of(bare)
