"""The sweep with shared prefixes equals scoring each variant whole, in every family, and proves its parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from models.blocks import block_prefixes, blocks_of, hidden_of
from models.layer_sweep import (
    blocks_run,
    layer_sweep,
    quantised_blocks,
    sweep_variants,
    variant_bits,
    weight_kurtosis,
)
from models.losses import Encoded, encode, sentence_losses
from tests.scored_models import FAMILY_NAMES, POSITIONS, TEXTS, small_model, small_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = 4
Apply = Callable[[Sequence[int]], AbstractContextManager[object]]


def encoded() -> Encoded:
    return encode(small_tokenizer(), TEXTS, block_size=POSITIONS, prefix_id=0)


def coarse(model: Any) -> Apply:
    """Rounds matrices of the blocks to multiples of an eighth of their largest entry."""

    @contextmanager
    def apply(blocks: Sequence[int]) -> Iterator[None]:
        prefixes = tuple(block_prefixes(model)[i] for i in blocks)
        kept = {}
        with torch.no_grad():
            for name, p in model.named_parameters():
                if prefixes and name.startswith(prefixes) and p.dim() == 2:
                    kept[name] = p.clone()
                    step = p.abs().max() / 8
                    p.copy_((p / step).round() * step)
            yield
            for name, p in model.named_parameters():
                if name in kept:
                    p.copy_(kept[name])

    return apply


def naive(model: Any, apply: Apply, texts: Encoded, variant: Sequence[bool]) -> Any:
    with apply([i for i, quantised in enumerate(variant) if quantised]):
        return sentence_losses(model, texts).bits


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_sweep_equals_quantising_and_scoring_each_variant_whole(family: str) -> None:
    model, texts = small_model(family, LAYERS), encoded()
    apply = coarse(model)
    expected = np.array([naive(model, apply, texts, variant) for variant in sweep_variants(LAYERS)])
    found = layer_sweep(model, texts, quantised_blocks(model, apply))
    assert len({row.tobytes() for row in expected}) == 2 * LAYERS + 2
    np.testing.assert_allclose(found.untouched, expected[0], rtol=1e-6)
    np.testing.assert_allclose(found.quantised, expected[1], rtol=1e-6)
    np.testing.assert_allclose(found.only, expected[2 : LAYERS + 2], rtol=1e-6)
    np.testing.assert_allclose(found.protected, expected[LAYERS + 2 :], rtol=1e-6)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_any_choice_of_blocks_equals_its_whole_evaluation(family: str) -> None:
    model, texts = small_model(family), encoded()
    apply = coarse(model)
    variants = list(itertools.product((False, True), repeat=3))
    found = variant_bits(model, texts, quantised_blocks(model, apply), variants, tokens_a_batch=200)
    for variant, bits in zip(variants, found, strict=True):
        np.testing.assert_allclose(bits, naive(model, apply, texts, variant), rtol=1e-6)


def test_blocks_run_as_often_as_variants_have_distinct_prefixes() -> None:
    model, texts = small_model("gpt2", LAYERS), encoded()
    parts = quantised_blocks(model, coarse(model))
    ran: list[int] = []
    for block in (*blocks_of(model), *parts.blocks):
        block.register_forward_hook(lambda *_: ran.append(1))
    layer_sweep(model, texts, parts, tokens_a_batch=10**6)
    assert len(ran) == blocks_run(sweep_variants(LAYERS)) == 24


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 24])
def test_the_number_of_blocks_run_follows_its_formula(n: int) -> None:
    variants = sweep_variants(n)
    assert blocks_run(variants) == sum(min(2**d, 2 * d + 2) for d in range(1, n + 1))
    assert len(variants) == 2 * n + 2


def test_a_null_quantiser_gives_every_variant_the_same_bits() -> None:
    model, texts = small_model("llama"), encoded()
    found = layer_sweep(model, texts, quantised_blocks(model, lambda blocks: nullcontext()))
    for bits in (found.quantised, *found.only, *found.protected):
        np.testing.assert_array_equal(bits, found.untouched)


def test_damage_planted_in_one_block_is_found_in_it_alone_both_ways() -> None:
    model, texts = small_model("gpt_neox", LAYERS), encoded()
    prefixes = block_prefixes(model)

    @contextmanager
    def damage(blocks: Sequence[int]) -> Iterator[None]:
        weights = dict(model.named_parameters())
        broken = [p for n, p in weights.items() if 2 in blocks and n.startswith(prefixes[2]) and p.dim() == 2]
        kept = [p.detach().clone() for p in broken]
        with torch.no_grad():
            for p in broken:
                p.zero_()
            yield
            for p, old in zip(broken, kept, strict=True):
                p.copy_(old)

    found = layer_sweep(model, texts, quantised_blocks(model, damage))
    alone = np.abs(found.only - found.untouched).max(axis=1)
    rescued = np.abs(found.protected - found.untouched).max(axis=1)
    assert alone[2] > 1.0
    assert not alone[[0, 1, 3]].any()
    assert rescued[2] == 0.0
    assert rescued[[0, 1, 3]].min() > 1.0


def test_the_model_is_left_as_it_was() -> None:
    model, texts = small_model("opt"), encoded()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_sweep(model, texts, quantised_blocks(model, coarse(model)))
    assert model.training
    assert not any(block._forward_pre_hooks for block in blocks_of(model))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_quantiser_that_shares_a_scale_between_blocks_is_refused() -> None:
    model = small_model("gpt2")

    @contextmanager
    def shared(blocks: Sequence[int]) -> Iterator[None]:
        chosen = [p for i in blocks for p in blocks_of(model)[i].parameters()]
        kept = [p.detach().clone() for p in chosen]
        with torch.no_grad():
            for p in chosen:
                p.mul_(1 + 0.1 * len(blocks))
            yield
            for p, old in zip(chosen, kept, strict=True):
                p.copy_(old)

    with pytest.raises(ValueError, match=r"with only block 0 quantised, transformer\.h\.0\."):
        quantised_blocks(model, shared)


def test_a_quantiser_that_touches_embeddings_or_does_not_restore_is_refused() -> None:
    model = small_model("gpt2")

    @contextmanager
    def leaky(blocks: Sequence[int]) -> Iterator[None]:
        with torch.no_grad():
            model.transformer.wpe.weight.add_(len(blocks))
            yield
            model.transformer.wpe.weight.sub_(len(blocks))

    @contextmanager
    def forgetful(blocks: Sequence[int]) -> Iterator[None]:
        yield
        if tuple(blocks) == (2,):
            with torch.no_grad():
                model.transformer.wpe.weight.zero_()

    with pytest.raises(ValueError, match=r"with only block 0 quantised, transformer\.wpe\.weight"):
        quantised_blocks(small_and(model), leaky)
    model = small_model("gpt2")
    with pytest.raises(ValueError, match=r"after the last variant, transformer\.wpe\.weight"):
        quantised_blocks(model, forgetful)


def small_and(model: Any) -> Any:
    """Positions rounded so that adding a small whole number is exact and `leaky` restores them."""
    with torch.no_grad():
        model.transformer.wpe.weight.copy_((model.transformer.wpe.weight * 16).round() / 16)
    return model


def test_a_loss_that_is_no_number_names_its_variant() -> None:
    model = small_model("llama")

    @contextmanager
    def broken(blocks: Sequence[int]) -> Iterator[None]:
        weight = blocks_of(model)[1].mlp.up_proj.weight  # type: ignore[union-attr]
        old = weight.detach().clone()
        with torch.no_grad():
            if 1 in blocks:
                weight.fill_(math.nan)
            yield
            weight.copy_(old)

    with pytest.raises(ValueError, match="blocks qqq: sentence 0 has a loss of nan"):
        layer_sweep(model, encoded(), quantised_blocks(model, broken))


def test_variants_of_another_length_are_refused() -> None:
    model = small_model("gpt2")
    parts = quantised_blocks(model, coarse(model))
    with pytest.raises(ValueError, match=r"\[2, 3\] entries, GPT2LMHeadModel has 3 blocks"):
        variant_bits(model, encoded(), parts, [(True, False)])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_diagnostics_equal_scipy_and_the_activations_of_a_plain_forward_pass(family: str) -> None:
    model, texts = small_model(family), encoded()
    found = layer_sweep(model, texts, quantised_blocks(model, coarse(model)), tokens_a_batch=150).diagnostics
    seen: list[list[np.ndarray[Any, Any]]] = [[] for _ in blocks_of(model)]
    for i, block in enumerate(blocks_of(model)):
        block.register_forward_hook(lambda _m, _i, out, i=i: seen[i].append(hidden_of(out).numpy().ravel()))
    with torch.no_grad():
        for inputs in texts.inputs:
            model(input_ids=torch.from_numpy(inputs)[None])
    for i, block in enumerate(blocks_of(model)):
        matrices = np.concatenate([p.detach().numpy().ravel() for p in block.parameters() if p.dim() == 2])
        x = np.abs(np.concatenate(seen[i]).astype(np.float64))
        assert found[i].block == i
        kurtosis, outliers = found[i].weight_kurtosis, found[i].activation_outliers
        assert kurtosis is not None
        assert outliers is not None
        assert math.isclose(kurtosis, stats.kurtosis(matrices.astype(np.float64), fisher=False), rel_tol=1e-9)
        assert math.isclose(found[i].mean_activation, x.mean(), rel_tol=1e-6)
        assert math.isclose(outliers, x.max() / x.mean(), rel_tol=1e-6)


def test_a_block_of_equal_weights_has_no_kurtosis() -> None:
    layer = torch.nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    assert weight_kurtosis(layer) is None
