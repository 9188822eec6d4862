"""GPTQ against the update it abbreviates, its limits, and rounding to nearest on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from models.calibration import calibrate
from models.gptq import Gptq, gptq_by_layer
from models.losses import encode, keep_baselines, sentence_losses
from models.packing import payload_bytes
from models.preservation import Statistics, kept_mask
from models.quant_spec import CalibrationMix, Preservation, QuantSpec
from models.quantize import quantized, targets
from models.rounding import RoundToNearest, decoded, encoded, group_parameters

Tell = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def layer(seed: int, rows: int = 12, columns: int = 48, samples: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """(weight, gram, inputs): inputs that resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.05
    mixing = torch.randn(columns, columns, generator=generator)
    mixing *= torch.logspace(0, -1.5, columns)[:, None]
    x = (torch.randn(samples, columns, generator=generator) @ mixing).double()
    return weight, x.t() @ x / samples, x


def output_error(weight: Tensor, values: Tensor, x: Tensor) -> float:
    return float((x @ (weight.double() - values.double()).t()).square().sum())


def obs_by_elimination(weight: Tensor, gram: Tensor, spec: QuantSpec, damping: float, kept: Tensor) -> Tensor:
    """Optimal brain surgeon column by column in float64: H^-1 itself, each rounded column eliminated from it.

    Hassibi and Stork 1993: once weight j is fixed, the rest moves by -(w_j - q_j) / [H^-1]_jj [H^-1]_j,: and
    H^-1 loses row and column j by one Gaussian step. No Cholesky factor, no lazy blocks.
    """
    left = weight.double().clone()
    inverse = torch.linalg.inv(gram + damping * gram.diagonal().mean() * torch.eye(len(gram)))
    scales: tuple[Tensor, Tensor] | None = None
    for j in range(weight.shape[1]):
        if j % spec.group_size == 0:
            group = left[:, j : j + spec.group_size].float()
            scales = group_parameters(group.masked_fill(kept[:, j : j + spec.group_size], 0.0), spec)
        assert scales is not None
        column = left[:, j : j + 1].float()
        code = encoded(column, *scales, spec)
        value = decoded(code, *scales, spec.bits, spec.codebook).double()
        value = torch.where(kept[:, j : j + 1], left[:, j : j + 1], value)
        error = (left[:, j : j + 1] - value) / inverse[j, j]
        left[:, j + 1 :] -= error * inverse[j, j + 1 :]
        left[:, j : j + 1] = value
        inverse = inverse - inverse[:, j : j + 1] * inverse[j : j + 1, :] / inverse[j, j]
    return left


@pytest.mark.parametrize("size", [16, 20, 48])
@pytest.mark.parametrize("percent", [0.0, 10.0])
def test_gptq_is_the_brain_surgeon_column_by_column(size: int, percent: float) -> None:
    for seed in range(5):
        weight, gram, _ = layer(seed)
        spec = QuantSpec(bits=3, group_size=size)
        kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < percent / 100
        values = Gptq(spec=spec, gram=gram).quantize(weight, kept).dequantized()  # type: ignore[arg-type]
        expected = obs_by_elimination(weight, gram, spec, 0.01, kept)
        # float32 against float64: a tie may fall the other way and then move its row's later columns
        agree = torch.isclose(values.double(), expected, rtol=1e-4, atol=1e-6).float().mean()
        assert float(agree) > 0.98


@given(st.integers(0, 2**32 - 1), st.sampled_from(["tensor", "channel", "group"]), st.booleans())
@settings(max_examples=30)
def test_inputs_that_do_not_resemble_each_other_leave_rounding_to_nearest(
    seed: int, granularity: Any, symmetric: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 40, generator=generator)
    spec = QuantSpec(granularity=granularity, group_size=16, symmetric=symmetric)
    gram = torch.diag(torch.rand(40, generator=generator).double() + 0.1)
    assert torch.equal(
        Gptq(spec=spec, gram=gram).quantize(weight, None).dequantized(),
        RoundToNearest(spec=spec).quantize(weight, None).dequantized(),
    )


SPECS = [
    QuantSpec(bits=bits, group_size=16, **fields)
    for bits in (2, 3, 4)
    for fields in (
        {},
        {"granularity": "channel"},
        {"granularity": "tensor", "symmetric": True},
        {"scale_rule": "mse"},
        {"scale_rule": "hqq", "scale_bits": 16},
    )
] + [QuantSpec(codebook="nf4", group_size=16)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_output_errs_less_than_with_rounding_to_nearest(spec: QuantSpec) -> None:
    ours = plain = 0.0
    for seed in range(6):
        weight, gram, x = layer(seed)
        found = Gptq(spec=spec, gram=gram).quantize(weight, None)
        nearest = RoundToNearest(spec=spec).quantize(weight, None)
        assert payload_bytes(found) == payload_bytes(nearest)
        ours += output_error(weight, found.dequantized(), x)
        plain += output_error(weight, nearest.dequantized(), x)
    assert ours < 0.8 * plain


def test_kept_weights_are_stored_unrounded_and_help() -> None:
    spec = QuantSpec(bits=2, group_size=16)
    with_kept = without = 0.0
    for seed in range(6):
        weight, gram, x = layer(seed)
        norms = Statistics(input_norms={"w": gram.diagonal().sqrt().float()})
        asked = Preservation(selector="activation", percent=10.0)
        kept = kept_mask(weight, asked, parameter="w", statistics=norms)
        found = Gptq(spec=spec, gram=gram).quantize(weight, kept)
        assert found.kept is not None
        assert torch.equal(found.dequantized()[kept], found.kept.values)
        with_kept += output_error(weight, found.dequantized(), x)
        without += output_error(weight, Gptq(spec=spec, gram=gram).quantize(weight, None).dequantized(), x)
    assert with_kept < without


def test_an_input_that_never_moved_is_rounded_to_nearest() -> None:
    weight, gram, _ = layer(1)
    gram[5], gram[:, 5] = 0.0, 0.0
    spec = QuantSpec(granularity="channel")
    values = Gptq(spec=spec, gram=gram).quantize(weight, None).dequantized()
    nearest = RoundToNearest(spec=spec).quantize(weight, None).dequantized()
    assert torch.equal(values[:, 5], nearest[:, 5])
    assert torch.isfinite(
        Gptq(spec=spec, gram=torch.zeros(48, 48)).quantize(weight, None).dequantized()
    ).all()


def test_what_gptq_cannot_use_is_refused() -> None:
    weight, gram, _ = layer(0)
    with pytest.raises(ValueError, match="calibrate this model with grams=True"):
        Gptq(spec=QuantSpec(), gram=gram[:4, :4]).quantize(weight, None)
    with pytest.raises(ValueError, match="is not finite"):
        Gptq(spec=QuantSpec(), gram=gram * float("nan")).quantize(weight, None)
    with pytest.raises(ValueError, match="no bfloat16"):
        Gptq(spec=QuantSpec(bits=16), gram=gram)
    with pytest.raises(ValueError, match="allowed: above 0"):
        Gptq(spec=QuantSpec(), gram=gram, damping=0.0)
    with pytest.raises(ValueError, match="no finite scale"):
        Gptq(spec=QuantSpec(), gram=gram).quantize(weight * float("inf"), None)


WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def test_a_model_by_gptq_moves_less_than_by_rounding_to_nearest(record_property: Tell) -> None:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<s>", *WORDS])}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=64, n_head=2, n_positions=32, vocab_size=11, bos_token_id=0)
    config.eos_token_id, config.initializer_range = 0, 0.15
    model: Any = GPT2LMHeadModel(config).eval()
    draws = torch.randint(0, 10, (120, 24), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [" ".join(WORDS[i] for i in row) for row in draws]
    mix = CalibrationMix(texts=(("en", 60),), block_size=32)
    statistics = calibrate(model, tokenizer, {"en": texts[:60]}, mix, prefix_id=0, grams=True)
    encoding = encode(tokenizer, texts[60:], block_size=32, prefix_id=0)
    baseline = keep_baselines(model, {"en": encoding})[0]["en"]
    lines = ["held-out KL, millibits per token, group 32      bits/weight    to nearest         GPTQ"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for bits in (2, 3, 4):
        spec = QuantSpec(bits=bits, group_size=32)
        found = []
        for quantizer in (None, gptq_by_layer(spec, statistics)):
            with quantized(model, spec, quantizer=quantizer) as coverage:
                losses = sentence_losses(model, encoding, baseline=baseline)
            assert losses.kl_bits is not None
            found.append(1000 * float(losses.kl_bits.sum() / losses.tokens.sum()))
        assert found[1] < found[0]
        lines.append(f"int{bits} {'':<41} {coverage.bits_per_weight:12.3f} {found[0]:13.3f} {found[1]:12.3f}")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    record_property("table", "\n".join(lines))
    asked = Preservation(percent=5.0, order="legacy", value_bits=16)
    with quantized(model, spec, asked, quantizer=gptq_by_layer(spec, statistics, asked)) as coverage:
        assert coverage.kept > 0
    with pytest.raises(ValueError, match="calibrate this model with grams=True"):
        gptq_by_layer(spec, Statistics())(targets(model, spec)[0])
