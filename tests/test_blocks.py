"""The blocks of each family are the modules its forward pass runs, and their prefixes name all they hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.blocks import (
    FAMILIES,
    block_prefixes,
    blocks_of,
    head_of,
    hidden_of,
    tail_of,
    trunk_of,
)
from models.losses import positions_of
from tests.scored_models import FAMILY_NAMES, POSITIONS, small_model


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
    blocks_of(model)[-1].register_forward_hook(lambda _m, _i, out: seen.append(hidden_of(out)))
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


def test_positions_are_the_configs_and_bloom_has_no_limit() -> None:
    found = {family: positions_of(small_model(family)) for family in FAMILY_NAMES}
    assert found == dict.fromkeys(FAMILY_NAMES, POSITIONS) | {"bloom": None}


def test_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Linear has model type None; blocks are known for gpt2, opt"):
        blocks_of(nn.Linear(2, 2))
    from transformers import CodeGenConfig, CodeGenForCausalLM

    shape = {"vocab_size": 16, "n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 8, "rotary_dim": 4}
    codegen = CodeGenForCausalLM(CodeGenConfig(**shape))
    with pytest.raises(ValueError, match=r"model type 'codegen'.*bloom, xglm"):
        block_prefixes(codegen)


def test_a_model_without_a_head_is_refused() -> None:
    from transformers import GPT2Config, GPT2Model

    bare = GPT2Model(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with pytest.raises(ValueError, match="GPT2Model has no output embeddings"):
        head_of(bare)
