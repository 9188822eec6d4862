"""Adapters through PEFT: ranks as planned, nested starts, PEFT's forward and files, EVA, norms, shapes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from transformers import GPT2Config, GPT2LMHeadModel

from models.adapter_items import collate, tokenised
from models.adapters import (
    MISTRAL_7B,
    adaptable,
    attach,
    detach,
    empty_model,
    lora_factors,
    nested_start,
    realised_ranks,
    shapes_of,
    trainable_parameters,
    without_peft_notices,
)
from models.base_norms import base_norms, spectral_norm
from models.eva import eva_start
from models.lora_recipe import LoraRecipe
from models.rank_policies import parameters
from models.spectra import singular_values
from tests.small_mistral import MODULES, fast_tokenizer, items, small_mistral

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = LoraRecipe()
NAMES = list(adaptable(small_mistral()))
IDS = torch.arange(40).reshape(2, 20) % 30


def uneven(first: int = 0) -> dict[str, int]:
    return {name: 1 + (first + place) % 7 for place, name in enumerate(NAMES)}


def with_b(adapted: Any) -> Any:
    """B away from zero, so that the adapter does something."""
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.3)
    return adapted


def test_every_linear_of_the_blocks_is_adaptable_and_nothing_else() -> None:
    found = adaptable(small_mistral())
    assert len(found) == MODULES
    assert found["model.layers.1.self_attn.k_proj"] == (16, 32)
    assert found["model.layers.0.mlp.down_proj"] == (32, 48)
    assert not any("lm_head" in name or "embed" in name for name in found)
    assert adaptable(attach(small_mistral(), uneven(), RECIPE, seed=0)) == found


def test_a_model_without_linear_modules_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8))
    with pytest.raises(ValueError, match=r"no torch\.nn\.Linear in a numbered block"):
        adaptable(model)


@settings(max_examples=5)
@given(ranks=st.lists(st.integers(1, 20), min_size=MODULES, max_size=MODULES))
def test_realised_ranks_and_parameters_are_those_of_any_plan(ranks: list[int]) -> None:
    plan = dict(zip(NAMES, ranks, strict=True))
    adapted = attach(small_mistral(), plan, RECIPE, seed=1)
    assert realised_ranks(adapted) == plan
    assert trainable_parameters(adapted) == parameters(plan, shapes_of(small_mistral().config))
    assert trainable_parameters(adapted) == sum(
        rank * sum(adaptable(small_mistral())[name]) for name, rank in plan.items()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.9.mlp.up_proj": 4}, "names 1 modules that the model has not"),
        ({NAMES[0]: None}, "leaves out 1 that it has"),
        ({NAMES[0]: 0}, "ranks outside 1 to 64"),
        ({NAMES[0]: 65}, "ranks outside 1 to 64"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(change: dict[str, int | None], message: str) -> None:
    plan = {name: rank for name, rank in {**uneven(), **change}.items() if rank is not None}
    model = small_mistral()
    with pytest.raises(ValueError, match=message):
        attach(model, plan, RECIPE, seed=0)
    assert not hasattr(model, "peft_config")


def test_a_second_adapter_is_refused_until_the_first_is_off() -> None:
    model = small_mistral()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = attach(model, uneven(), RECIPE, seed=0)
    with pytest.raises(ValueError, match="carries an adapter already"):
        attach(model, uneven(), RECIPE, seed=0)
    bare = detach(with_b(adapted))
    assert {name: bool(torch.equal(value, before[name])) for name, value in bare.state_dict().items()} == (
        dict.fromkeys(before, True)
    )
    assert realised_ranks(attach(bare, uneven(3), RECIPE, seed=0)) == uneven(3)


def test_module_1_and_module_11_keep_their_own_ranks() -> None:
    config = copy.deepcopy(small_mistral().config)
    config.num_hidden_layers = 12
    names = adaptable(empty_model(config))
    plan = {name: 2 if ".1." in name else 3 for name in names}
    assert realised_ranks(attach(empty_model(config), plan, RECIPE, seed=0)) == plan


def test_a_start_of_rank_4_is_the_first_rows_of_rank_16() -> None:
    low = lora_factors(attach(small_mistral(), dict.fromkeys(NAMES, 4), RECIPE, seed=7))
    high = lora_factors(attach(small_mistral(), dict.fromkeys(NAMES, 16), RECIPE, seed=7))
    other = lora_factors(attach(small_mistral(), dict.fromkeys(NAMES, 4), RECIPE, seed=8))
    for name in NAMES:
        np.testing.assert_array_equal(low[name].a, high[name].a[:4])
        assert not low[name].b.any()
        assert np.abs(low[name].a - other[name].a).min() > 0
    assert len({low[name].a.tobytes() for name in NAMES}) == MODULES


def test_starts_are_spread_as_pefts_kaiming_initialisation_is() -> None:
    rows = nested_start("a", 4096, seed=0)
    theirs = torch.nn.Linear(4096, 64, bias=False).weight.detach()  # kaiming_uniform_(a=sqrt(5)) too
    for quantity in (torch.std, lambda x: x.abs().max()):
        assert float(quantity(rows)) == pytest.approx(float(quantity(theirs)), rel=0.01)
    assert float(rows.abs().max()) <= 1 / math.sqrt(4096)


@pytest.mark.parametrize(
    ("recipe", "scales"),
    [
        (LoraRecipe(), [1.0, 1.0]),
        (LoraRecipe(scale_rule="rslora", alpha=8.0), [8 / math.sqrt(2), 4.0]),
        (LoraRecipe(scale_rule="fixed", alpha=8.0), [4.0, 2.0]),
    ],
)
def test_logits_are_those_of_w_plus_s_b_a_under_every_scale_rule(
    recipe: LoraRecipe, scales: list[float]
) -> None:
    plan = {name: (2, 4)[place % 2] for place, name in enumerate(NAMES)}
    adapted = with_b(attach(small_mistral(), plan, recipe, seed=0))
    factors = lora_factors(adapted)
    assert [factors[name].scale for name in NAMES[:2]] == pytest.approx(scales)
    assert {name: recipe.scale(rank) for name, rank in plan.items()} == pytest.approx(
        {name: one.scale for name, one in factors.items()}
    )
    by_hand = small_mistral().double()
    for name, one in factors.items():
        by_hand.get_submodule(name).weight += torch.from_numpy(one.scale * one.b @ one.a)
    torch.testing.assert_close(
        adapted(input_ids=IDS).logits, by_hand(input_ids=IDS).logits.float(), rtol=1e-4, atol=1e-4
    )


def test_pefts_own_files_load_with_equal_logits(tmp_path: Path) -> None:
    adapted = with_b(attach(small_mistral(), uneven(), LoraRecipe(scale_rule="rslora", alpha=4.0), seed=0))
    with without_peft_notices():
        adapted.save_pretrained(tmp_path, save_embedding_layers=False)
        loaded = PeftModel.from_pretrained(small_mistral(), tmp_path).eval()
    assert realised_ranks(loaded) == uneven()
    assert torch.equal(loaded(input_ids=IDS).logits, adapted(input_ids=IDS).logits)


def test_mistral_7b_has_224_modules_and_peft_counts_the_same_parameters() -> None:
    shapes = shapes_of(MISTRAL_7B)
    units = {shape.projection: shape.unit_cost for shape in shapes}
    assert len(shapes) == 224
    assert units == {
        "q_proj": 8192, "k_proj": 5120, "v_proj": 5120, "o_proj": 8192,
        "gate_proj": 18_432, "up_proj": 18_432, "down_proj": 18_432,
    }  # fmt: skip
    plan = {shape.name: (4, 16, 64)[place % 3] for place, shape in enumerate(shapes)}
    adapted = attach(empty_model(MISTRAL_7B), plan, RECIPE, seed=0)
    assert {p.device.type for p in adapted.parameters()} == {"meta"}
    assert realised_ranks(adapted) == plan
    assert trainable_parameters(adapted) == parameters(plan, shapes)


def eva_batches() -> list[dict[str, torch.Tensor]]:
    rows = tokenised(fast_tokenizer(), items(), max_tokens=256).rows
    found = []
    for start in range(0, 48, 12):
        batch = collate(rows[start : start + 12])
        mask = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]
        found.append({"input_ids": batch.ids, "attention_mask": mask.long(), "labels": batch.labels})
    return found


def test_eva_spends_the_budget_to_within_one_rank_and_starts_orthonormal() -> None:
    shapes = adaptable(small_mistral())
    budget = parameters(dict.fromkeys(NAMES, 4), shapes_of(small_mistral().config))
    found = eva_start(small_mistral(), eva_batches(), budget=budget, rho=2.0)
    assert abs(found.parameters - budget) <= max(map(sum, shapes.values()))
    assert found.parameters == sum(found.ranks[name] * sum(shapes[name]) for name in NAMES)
    assert max(found.ranks.values()) <= 10
    assert len(set(found.ranks.values())) > 1
    adapted = attach(small_mistral(), found.kept, RECIPE, seed=0, start=found.rows)
    assert realised_ranks(adapted) == found.kept
    for one in lora_factors(adapted).values():
        np.testing.assert_allclose(one.a @ one.a.T, np.eye(len(one.a)), atol=1e-5)
        assert not one.b.any()


def test_one_pass_of_eva_is_pefts_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    config: Any = LoraConfig(
        r=3, lora_alpha=3, target_modules=NAMES, init_lora_weights="eva", eva_config=EvaConfig(rho=2.0)
    )
    with without_peft_notices():
        theirs = get_peft_model(small_mistral(), config, low_cpu_mem_usage=True)
    initialize_lora_eva_weights(theirs, eva_batches(), show_progress_bar=False)
    monkeypatch.setattr("models.eva.PASSES", 1)
    budget = 3 * sum(map(sum, adaptable(small_mistral()).values()))
    ours = eva_start(small_mistral(), eva_batches(), budget=budget, rho=2.0)
    assert ours.kept == realised_ranks(theirs)
    for name, one in lora_factors(theirs).items():
        np.testing.assert_array_equal(ours.rows[name].float().double().numpy(), one.a)


def test_eva_refuses_a_budget_below_one_rank_a_module() -> None:
    with pytest.raises(ValueError, match="one rank a module on average"):
        eva_start(small_mistral(), eva_batches(), budget=100, rho=2.0)


@settings(max_examples=25)
@given(rows=st.integers(1, 60), columns=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_the_iterated_spectral_norm_is_the_largest_singular_value(rows: int, columns: int, seed: int) -> None:
    weight = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))
    exact = float(np.linalg.svd(weight.numpy(), compute_uv=False)[0])
    assert spectral_norm(weight, exact_up_to=0) == pytest.approx(exact, rel=1e-6)


def test_the_iteration_takes_low_rank_and_zero_and_refuses_nan() -> None:
    rng = np.random.default_rng(0)
    low = torch.from_numpy(rng.standard_normal((80, 2)) @ rng.standard_normal((2, 50)))
    exact = float(np.linalg.svd(low.numpy(), compute_uv=False)[0])
    assert spectral_norm(low, exact_up_to=0) == pytest.approx(exact, rel=1e-9)
    assert spectral_norm(torch.zeros(9, 5, dtype=torch.float64), exact_up_to=0) == 0.0
    with pytest.raises(ValueError, match="not finite"):
        spectral_norm(torch.full((2, 2), torch.nan, dtype=torch.float64))


def test_base_norms_are_those_of_the_base_with_an_adapter_on_it_too() -> None:
    adapted = with_b(attach(small_mistral(), uneven(), RECIPE, seed=0))
    norms = base_norms(adapted)
    assert norms == base_norms(small_mistral())
    weight = small_mistral().get_submodule(NAMES[4]).weight.double().numpy()
    assert norms[NAMES[4]] == pytest.approx((np.linalg.norm(weight, 2), np.linalg.norm(weight)), rel=1e-12)


def test_the_spectrum_of_the_factors_is_that_of_the_weights_change() -> None:
    adapted = with_b(attach(small_mistral(), dict.fromkeys(NAMES, 6), RECIPE, seed=0))
    one = lora_factors(adapted)[NAMES[0]]
    layer = adapted.get_base_model().get_submodule(NAMES[0])
    delta = layer.get_delta_weight("default").detach().double().numpy()
    theirs = np.linalg.svd(delta, compute_uv=False)[:6]
    np.testing.assert_allclose(one.scale * singular_values(one.a, one.b), theirs, rtol=1e-5)
