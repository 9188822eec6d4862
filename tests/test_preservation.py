"""Which weights stay, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import GPT2Config, GPT2LMHeadModel

from models.calibration import calibrate
from models.english import pydoc_english
from models.losses import encode, sentence_losses
from models.packing import bits_per_weight, payload_bytes
from models.preservation import Statistics, kept_count, kept_mask
from models.quant_adapters import sqnr_db
from models.quant_spec import SELECTORS, CalibrationMix, Preservation, QuantSpec, Selector, Structure
from models.quantize import quantized, quantized_tensors
from models.rounding import RoundToNearest

Tell = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def student(degrees: float, rows: int = 128, columns: int = 512, seed: int = 0) -> Tensor:
    """Weights with the tails of Student's t."""
    values = np.random.default_rng(seed).standard_t(degrees, (rows, columns)) * 0.02
    return torch.from_numpy(values.astype(np.float32))


def noise_db(weight: Tensor, preservation: Preservation | None, spec: QuantSpec) -> tuple[float, float]:
    """(SQNR in dB, bits per weight)."""
    mask = None if preservation is None else kept_mask(weight, preservation, parameter="w")
    order = "after_removal" if preservation is None else preservation.order
    tensor = RoundToNearest(spec=spec, order=order).quantize(weight, mask)
    found = sqnr_db(weight, tensor.dequantized())
    assert found is not None
    return found, bits_per_weight(tensor)


def test_scales_after_removal_beat_the_legacy_order_on_heavy_tails(record_property: Tell) -> None:
    lines = ["SQNR dB of int4 with the largest weights kept    removed first   legacy order   random   none"]
    specs = [
        QuantSpec(granularity="tensor", symmetric=True),
        QuantSpec(granularity="channel"),
        QuantSpec(group_size=128),
    ]
    for degrees in (2.0, 2.5, 3.0):
        weight = student(degrees)
        for spec in specs:
            plain, _ = noise_db(weight, None, spec)
            for percent in (1.0, 5.0):
                after, bits = noise_db(weight, Preservation(percent=percent), spec)
                legacy, same = noise_db(weight, Preservation(percent=percent, order="legacy"), spec)
                random, too = noise_db(weight, Preservation(percent=percent, selector="random"), spec)
                assert bits == same == too
                assert after > legacy + 3.0
                assert after > random + 3.0
                assert legacy >= plain
                lines.append(
                    f"t({degrees:g}) {spec.granularity:<8} {percent:g} % at {bits:6.3f} bits {'':<12}"
                    f"{after:14.2f} {legacy:14.2f} {random:8.2f} {plain:6.2f}"
                )
    record_property("table", "\n".join(lines))


# --- masks


PERCENTS = st.floats(0.5, 60.0)


@given(st.integers(0, 2**32 - 1), PERCENTS, st.sampled_from(["weight", "channel"]))
@settings(max_examples=40)
def test_every_selector_keeps_the_same_count_and_costs_the_same_bytes(
    seed: int, percent: float, structure: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(24, 50, generator=generator)
    statistics = Statistics(
        input_norms={"w": torch.rand(50, generator=generator)},
        fisher={"w": torch.rand(24, 50, generator=generator)},
    )
    counts, sizes = set(), set()
    for selector in SELECTORS:
        asked = Preservation(selector=selector, percent=percent, structure=structure, seed=seed % 97)
        mask = kept_mask(weight, asked, parameter="w", statistics=statistics)
        counts.add(int(mask.sum()))
        sizes.add(payload_bytes(RoundToNearest(spec=QuantSpec(group_size=25)).quantize(weight, mask)))
    units = 50 if structure == "channel" else 24 * 50
    assert counts == {math.floor(percent * units / 100 + 0.5) * (24 if structure == "channel" else 1)}
    assert len(sizes) == 1


def test_selectors_keep_the_largest_of_their_scores() -> None:
    weight = torch.tensor([[1.0, -4.0, 2.0], [3.0, 0.5, -0.1]])
    norms, fisher = torch.tensor([10.0, 1.0, 2.0]), torch.tensor([[0.0, 0.0, 1.0], [0.0, 100.0, 1.0]])
    statistics = Statistics(input_norms={"w": norms}, fisher={"w": fisher})

    def kept(selector: Any, structure: Any = "weight", percent: float = 34.0) -> list[list[bool]]:
        asked = Preservation(selector=selector, percent=percent, structure=structure)
        return kept_mask(weight, asked, parameter="w", statistics=statistics).tolist()

    assert kept("magnitude") == [[False, True, False], [True, False, False]]
    assert kept("activation") == [
        [True, False, False],
        [True, False, False],
    ]  # |w| ||x||: 10, 4, 4; 30, .5, .2
    assert kept("hessian") == [[False, False, True], [False, True, False]]  # w^2 F: 0, 0, 4; 0, 25, .01
    assert kept("magnitude", "channel") == [[False, True, False]] * 2
    assert kept("activation", "channel") == [[True, False, False]] * 2
    assert kept("hessian", "channel") == [[False, True, False]] * 2


def test_equal_scores_are_kept_from_the_first() -> None:
    mask = kept_mask(torch.ones(3, 4), Preservation(percent=50.0), parameter="w")
    assert mask.view(-1).tolist() == [True] * 6 + [False] * 6


def test_a_random_mask_is_its_seeds_and_its_parameters() -> None:
    weight = torch.ones(40, 40)

    def mask(seed: int, parameter: str) -> Tensor:
        asked = Preservation(selector="random", percent=10.0, seed=seed)
        return kept_mask(weight, asked, parameter=parameter)

    assert torch.equal(mask(0, "a"), mask(0, "a"))
    assert not torch.equal(mask(0, "a"), mask(1, "a"))
    assert not torch.equal(mask(0, "a"), mask(0, "b"))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["weight", "channel"]), st.sampled_from([2, 4, 16]))
@settings(max_examples=30)
def test_kept_weights_come_back_unchanged_and_have_no_say_in_the_others(
    seed: int, structure: Any, bits: int
) -> None:
    weight = torch.randn(16, 48, generator=torch.Generator().manual_seed(seed))
    asked = Preservation(selector="random", percent=20.0, structure=structure)
    mask = kept_mask(weight, asked, parameter="w")
    quantizer = RoundToNearest(spec=QuantSpec(bits=bits, group_size=16))
    values = quantizer.quantize(weight, mask).dequantized()
    assert torch.equal(values[mask], weight[mask])
    other = weight.masked_fill(mask, 1e6)
    assert torch.equal(quantizer.quantize(other, mask).dequantized()[~mask], values[~mask])


@pytest.mark.parametrize("rule", ["absmax", "mse", "hqq"])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_others_are_rounded_as_if_the_kept_were_not_there(rule: Any, bits: int) -> None:
    weight = student(2.5, 32, 64)
    kept: Any = torch.zeros(32, 64, dtype=torch.bool)
    kept[:, ::3] = True
    quantizer = RoundToNearest(spec=QuantSpec(bits=bits, granularity="channel", scale_rule=rule))
    free = weight[:, ~kept[0]]
    values = quantizer.quantize(weight, kept).dequantized()[:, ~kept[0]]
    alone = quantizer.quantize(free, None).dequantized()
    # by row: hqq's zero points may differ in the last bit, as sums run over another number of terms
    errors = [(free - rounded).abs().double().mean(dim=1) for rounded in (values, alone)]
    assert torch.allclose(*errors, rtol=1e-4, atol=0.0)
    assert rule == "hqq" or torch.equal(values, alone)


@pytest.mark.parametrize("rule", ["absmax", "mse", "hqq"])
def test_the_legacy_order_rounds_the_others_as_if_nothing_were_kept(rule: Any) -> None:
    weight = student(2.0, 8, 64)
    mask = kept_mask(weight, Preservation(percent=5.0), parameter="w")
    spec = QuantSpec(group_size=32, scale_rule=rule)
    legacy = RoundToNearest(spec=spec, order="legacy").quantize(weight, mask).dequantized()
    plain = RoundToNearest(spec=spec).quantize(weight, None).dequantized()
    assert torch.equal(legacy[~mask], plain[~mask])
    assert torch.equal(legacy[mask], weight[mask])


def test_values_kept_in_sixteen_bits_are_float16() -> None:
    weight = student(3.0, 8, 64)
    mask = kept_mask(weight, Preservation(percent=5.0), parameter="w")
    values = RoundToNearest(spec=QuantSpec(), value_bits=16).quantize(weight, mask).dequantized()
    assert torch.equal(values[mask], weight[mask].half().float())
    with pytest.raises(ValueError, match="not finite in 16 bits"):
        RoundToNearest(spec=QuantSpec(), value_bits=16).quantize(weight * 1e9, mask)


@pytest.mark.parametrize(
    ("given_fields", "words"),
    [
        ({"selector": "largest", "percent": 5.0}, "allowed: magnitude, activation, hessian, random"),
        ({"percent": 0.0}, "allowed: above 0, below 100"),
        ({"percent": math.nan}, "allowed: above 0, below 100"),
        ({"percent": 5.0, "structure": "row"}, "allowed: weight, channel, block"),
        ({"percent": 5.0, "order": "before"}, "allowed: after_removal, legacy"),
        ({"percent": 5.0, "blocks": (1,)}, "only structure 'block' names any"),
        ({"structure": "block"}, "only structure 'block' names any"),
        ({"structure": "block", "blocks": (1,), "percent": 5.0}, "blocks say it"),
        ({"percent": 5.0, "value_bits": 8}, "allowed: 16, 32"),
    ],
)
def test_a_preservation_that_means_nothing_is_refused(given_fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preservation(**given_fields)


@pytest.mark.parametrize("selector", ["activation", "hessian"])
def test_a_selector_without_its_statistics_says_what_to_do(selector: Any) -> None:
    asked = Preservation(selector=selector, percent=5.0)
    with pytest.raises(ValueError, match=r"no statistics for 'w'; calibrate"):
        kept_mask(torch.ones(2, 3), asked, parameter="w")
    other = Statistics(input_norms={"w": torch.ones(2)}, fisher={"w": torch.ones(3, 2)})
    with pytest.raises(ValueError, match="calibrate this model"):
        kept_mask(torch.ones(2, 3), asked, parameter="w", statistics=other)


# --- models


LETTERS = "abcdefghijklmnopqrstuvwxyz .,"


def letters() -> Tokenizer:
    """One token a letter."""
    vocabulary = {"<s>": 0, **{letter: i for i, letter in enumerate(LETTERS, 1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


SMALL: dict[str, Any] = {"vocab_size": 30, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


def test_protected_blocks_stay_and_are_counted_whole() -> None:
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64, **SMALL))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    spec = QuantSpec(group_size=16)
    asked = Preservation(structure="block", blocks=(1,))
    with quantized(model, spec, asked) as coverage:
        for name, value in model.state_dict().items():
            if name.startswith("transformer.h.1."):
                assert torch.equal(value, before[name])
    with quantized(model, spec) as plain:
        pass
    assert len(coverage.modules) == len(coverage.protected) == 4
    assert coverage.weights == plain.weights
    assert coverage.kept == coverage.rounded
    assert coverage.bits_per_weight == (plain.bits_per_weight + 32) / 2
    missing = Preservation(structure="block", blocks=(5,))
    with pytest.raises(ValueError, match=r"not all quantised; allowed: among \[0, 1\]"):
        list(quantized_tensors(model, spec, missing))


@pytest.fixture(scope="module")
def trained() -> tuple[Any, list[str], list[str]]:
    """(GPT-2 of 2 blocks trained on letters of pydoc, calibration texts, held-out texts)."""
    corpus = pydoc_english()

    def cut(texts: Any) -> list[str]:
        whole = "".join(letter for letter in " ".join(texts).lower() if letter in LETTERS)
        return [whole[i : i + 60] for i in range(0, 30_000, 60)]

    train, held = cut(corpus.train), cut(corpus.heldout)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=48, n_head=2, n_positions=64, resid_pdrop=0, embd_pdrop=0, **SMALL)
    config.attn_pdrop = 0.0
    model: Any = GPT2LMHeadModel(config)
    ids = torch.tensor([[0, *letters().encode(text).ids] for text in train if len(text) == 60])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        rows = ids[torch.randint(0, len(ids), (16,), generator=generator)]
        loss = F.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), train[:64], held[:200]


def test_selectors_at_equal_bits_in_one_table(
    trained: tuple[Any, list[str], list[str]], record_property: Tell
) -> None:
    model, texts, held = trained
    mix = CalibrationMix(texts=(("en", len(texts)),), block_size=64)
    statistics = calibrate(model, letters(), {"en": texts}, mix, prefix_id=0, fisher=True)
    encoded = encode(letters(), held, block_size=64, prefix_id=0)
    base = sentence_losses(model, encoded)
    spec = QuantSpec(bits=2, group_size=48, scale_bits=16)
    lines = [
        f"int2 group 48, held-out bits per byte {base.bits_per_byte:.4f}      bits/weight   change bits/byte"
    ]

    def change(asked: Preservation | None) -> tuple[float, float]:
        with quantized(model, spec, asked, statistics) as coverage:
            return sentence_losses(
                model, encoded
            ).bits_per_byte - base.bits_per_byte, coverage.bits_per_weight

    plain, bits = change(None)
    lines.append(f"{'nothing kept':<50} {bits:11.3f} {plain:18.4f}")
    for structure in ("weight", "channel"):
        found: dict[str, float] = {}
        sizes = set()
        for selector in SELECTORS:
            seeds = range(3) if selector == "random" else range(1)
            runs = [
                change(
                    Preservation(
                        selector=selector, percent=5.0, structure=structure, seed=seed, value_bits=16
                    )
                )
                for seed in seeds
            ]
            found[selector] = sum(run[0] for run in runs) / len(runs)
            sizes |= {run[1] for run in runs}
            name = f"5 % {structure}s by {selector}" + (" (mean of 3)" if selector == "random" else "")
            lines.append(f"{name:<50} {runs[0][1]:11.3f} {found[selector]:18.4f}")
        assert len(sizes) == 1
        if structure == "weight":
            assert max(found[name] for name in SELECTORS if name != "random") < found["random"] < plain
    record_property("table", "\n".join(lines))


def test_activations_protect_the_output_where_inputs_are_uneven(record_property: Tell) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 256, generator=generator) * 0.02
    spread = torch.exp(1.5 * torch.randn(256, generator=generator))
    x = torch.randn(2000, 256, generator=generator) * spread
    norms = Statistics(input_norms={"w": x.square().mean(dim=0).sqrt()})
    lines = ["int3 group 128, inputs of log-normal spread (sigma 1.5)   bits/weight   output error dB"]
    wanted = x.double() @ weight.double().t()
    errors: dict[str, float] = {}
    structures: tuple[Structure, ...] = ("weight", "channel")
    selectors: tuple[Selector, ...] = ("magnitude", "activation", "random")
    for structure in structures:
        for selector in selectors:
            asked = Preservation(selector=selector, percent=5.0, structure=structure)
            mask = kept_mask(weight, asked, parameter="w", statistics=norms)
            tensor = RoundToNearest(spec=QuantSpec(bits=3)).quantize(weight, mask)
            lost = x.double() @ (tensor.dequantized().double() - weight.double()).t()
            errors[selector] = 10 * math.log10(float(lost.square().sum() / wanted.square().sum()))
            bits = bits_per_weight(tensor)
            lines.append(f"5 % {structure}s by {selector:<40} {bits:15.3f} {errors[selector]:17.2f}")
        assert errors["activation"] < min(errors["magnitude"], errors["random"]) - 1.0
    record_property("table", "\n".join(lines))


def test_the_count_kept_is_rounded_half_up() -> None:
    assert kept_count(Preservation(percent=50.0), 5, 1) == 3
    assert kept_count(Preservation(percent=1.0), 10, 1) == 0
