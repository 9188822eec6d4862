"""Rounding against torchao, bitsandbytes and quanto, and its laws."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.quant_spec import QuantSpec
from models.rounding import RoundToNearest, decoded, encoded, group_parameters

REFERENCE = Path(__file__).parent / "reference" / "quantize_libraries.txt"


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def heavy_tailed() -> Tensor:
    """(64, 256): the matrix of tests/reference/quantize_libraries.py, Student t with 2 degrees of freedom."""
    u = ((np.arange(1, 64 * 256 + 1) * 2654435761) % 2**32 + 0.5) / 2**32
    return torch.from_numpy((0.02 * (2 * u - 1) / np.sqrt(2 * u * (1 - u))).astype(np.float32)).view(64, 256)


def random_matrix(seed: int, rows: int = 8, columns: int = 128) -> Tensor:
    """Normal weights with one heavy row."""
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    values[0] *= 30
    return values


def rounded(weight: Tensor, **spec: Any) -> Tensor:
    return RoundToNearest(spec=QuantSpec(**spec)).quantize(weight, None).dequantized()


# --- against other people's code


KINDS = {
    "normal": lambda w: w,
    "zeros": lambda w: w.index_fill(0, torch.tensor([0]), 0.0),
    "constant": lambda w: torch.full_like(w, 0.3) * torch.tensor([1.0, -1.0]).repeat(len(w))[: len(w), None],
    "huge": lambda w: w * 1e38,
    "all negative": lambda w: -w.abs() - 1.0,
    "all positive": lambda w: w.abs() + 5.0,
    "denormal": lambda w: w * 1e-39,
    "ties": lambda w: (w * 200).round() / 2,
}


PRINTED = (Path(__file__).parent / "reference" / "torchao_groups.txt").read_text().splitlines()
PRINTED_KINDS = {
    "heavy": lambda w: w,
    "positive": lambda w: w.abs() + 5.0,
    "negative": lambda w: -w.abs() - 1.0,
    "huge": lambda w: w * 1e34,
    "ties": lambda w: (w * 200).round() / 2,
}
"""As in tests/reference/torchao_groups.py."""


@pytest.mark.parametrize("line", PRINTED, ids=lambda line: " ".join(line.split()[:3]))
def test_asymmetric_groups_have_the_digests_that_torchao_printed(line: str) -> None:
    kind, bits, size, scale, values = line.split()
    spec = QuantSpec(bits=int(bits), group_size=int(size))
    ours = RoundToNearest(spec=spec).quantize(PRINTED_KINDS[kind](heavy_tailed()), None)
    assert _digest(ours.scales) == scale
    assert _digest(ours.dequantized()) == values


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.float().contiguous().numpy().tobytes()).hexdigest()[:32]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_asymmetric_groups_equal_torchao_bit_for_bit(bits: int, kind: str) -> None:
    ao = pytest.importorskip("torchao.quantization", reason="torchao is the witness")
    from torchao.quantization.quant_primitives import MappingType

    for rows, columns, size in ((8, 128, 32), (3, 64, 64), (16, 256, 128), (5, 96, 16), (4, 96, 96)):
        weight = KINDS[kind](torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)) * 0.5)
        layer = torch.nn.Linear(columns, rows, bias=False)
        layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
        groups = ao.PerAxis(0) if size == columns else ao.PerGroup(size)
        asked = ao.IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), groups, MappingType.ASYMMETRIC)
        ao.quantize_(layer, asked)
        theirs: Any = layer.weight
        granularity = "channel" if size == columns else "group"
        spec = QuantSpec(bits=bits, granularity=granularity, group_size=size)
        ours = RoundToNearest(spec=spec).quantize(weight, None)
        assert torch.equal(ours.scales, theirs.scale)
        assert ours.zeros is not None
        assert torch.equal(ours.zeros, theirs.zero_point.float() + 2 ** (bits - 1))
        assert torch.equal(ours.codes.float(), theirs.qdata.float() + 2 ** (bits - 1))
        assert torch.equal(ours.dequantized(), theirs.dequantize())


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4, 8]), st.sampled_from([8, 16, 48]))
@settings(max_examples=60)
def test_groups_of_any_size_of_number_equal_torchao(seed: int, bits: int, size: int) -> None:
    ao = pytest.importorskip("torchao.quantization", reason="torchao is the witness")
    from torchao.quantization.quant_primitives import MappingType

    generator = torch.Generator().manual_seed(seed)
    exponents = torch.rand(6, 1, generator=generator) * 80 - 44  # 1e-44 to 1e36
    shift = torch.randint(-2, 3, (6, 1), generator=generator)
    weight = (torch.randn(6, 48, generator=generator) + shift) * (10.0 ** exponents.double()).float()
    layer = torch.nn.Linear(48, 6, bias=False)
    layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    asked = ao.IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), ao.PerGroup(size), MappingType.ASYMMETRIC)
    ao.quantize_(layer, asked)
    theirs: Any = layer.weight
    assert torch.equal(rounded(weight, bits=bits, group_size=size), theirs.dequantize())


def test_symmetric_differs_from_torchao_by_the_divisor_alone() -> None:
    ao = pytest.importorskip("torchao.quantization", reason="torchao is the witness")
    from torchao.quantization.quant_primitives import MappingType

    weight = random_matrix(1)
    layer = torch.nn.Linear(128, 8, bias=False)
    layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    ao.quantize_(layer, ao.IntxWeightOnlyConfig(torch.int4, ao.PerGroup(32), MappingType.SYMMETRIC))
    theirs: Any = layer.weight

    def by_divisor(divisor: float) -> Tensor:
        groups = weight.view(-1, 32)
        scale = groups.abs().amax(dim=1, keepdim=True) / divisor
        return ((groups * (1.0 / scale)).round().clamp(-8, 7) * scale).view(8, 128)

    assert torch.equal(theirs.dequantize(), by_divisor(7.5))
    assert torch.equal(rounded(weight, group_size=32, symmetric=True), by_divisor(7.0))
    assert not torch.equal(by_divisor(7.0), by_divisor(7.5))


def printed() -> dict[str, tuple[str, float, float]]:
    """name -> (digest, mean |e|, mean e^2) as the libraries' script printed them."""
    line = re.compile(r"(.+); sha256 (\w+); mean \|e\| (\S+); mean e\^2 (\S+)")
    found = [line.fullmatch(text) for text in REFERENCE.read_text().splitlines()]
    return {one[1]: (one[2], float(one[3]), float(one[4])) for one in found if one}


def digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def test_nf4_equals_bitsandbytes_bit_for_bit() -> None:
    weight, theirs = heavy_tailed(), printed()
    assert digest(weight) == theirs["matrix"][0]
    for size in (64, 128):
        assert (
            digest(rounded(weight, codebook="nf4", group_size=size)) == theirs[f"bitsandbytes nf4 {size}"][0]
        )


def test_asymmetric_groups_equal_quanto_with_whole_zero_points() -> None:
    for bits in (2, 4):
        ours = digest(rounded(heavy_tailed(), bits=bits, group_size=64))
        assert ours == printed()[f"quanto {bits} 64"][0]


def test_the_fitted_zero_point_does_no_worse_than_hqq_itself() -> None:
    weight = heavy_tailed()
    for bits in (2, 3, 4, 8):
        error = weight.double() - rounded(weight, bits=bits, scale_rule="hqq", group_size=64).double()
        _, absolute, squared = printed()[f"hqq {bits} 64"]
        assert float(error.abs().mean()) <= absolute
        assert float(error.square().mean()) == pytest.approx(squared, rel=0.01)


# --- laws


SEEDS = st.integers(0, 2**32 - 1)
GRANULARITIES = st.sampled_from(["tensor", "channel", "group"])


def squared_error(weight: Tensor, **spec: Any) -> float:
    return float((weight - rounded(weight, **spec)).square().sum())


@given(SEEDS, GRANULARITIES, st.booleans())
@settings(max_examples=40)
def test_more_bits_err_less(seed: int, granularity: str, symmetric: bool) -> None:
    spec = {"granularity": granularity, "group_size": 32, "symmetric": symmetric}
    two, three, four, eight = (squared_error(random_matrix(seed), bits=bits, **spec) for bits in (2, 3, 4, 8))
    assert eight < four < three < two


@given(SEEDS, GRANULARITIES, st.booleans(), st.integers(-12, 12), st.sampled_from(["absmax", "mse", "nf4"]))
@settings(max_examples=60)
def test_weights_times_a_power_of_two_round_to_the_same_times_it(
    seed: int, granularity: str, symmetric: bool, power: int, rule: str
) -> None:
    weight = random_matrix(seed)
    spec: dict[str, Any] = {"granularity": granularity, "group_size": 48}
    spec |= {"codebook": "nf4"} if rule == "nf4" else {"symmetric": symmetric, "scale_rule": rule}
    assert torch.equal(rounded(weight * 2.0**power, **spec), rounded(weight, **spec) * 2.0**power)


@given(SEEDS, st.sampled_from([2, 3, 4, 8]), st.sampled_from(["absmax", "mse"]))
@settings(max_examples=40)
def test_symmetric_rounding_of_minus_w_is_minus_that_of_w(seed: int, bits: int, rule: str) -> None:
    spec = {"bits": bits, "symmetric": True, "group_size": 48, "scale_rule": rule}
    assert torch.equal(rounded(-random_matrix(seed), **spec), -rounded(random_matrix(seed), **spec))


@given(SEEDS, st.sampled_from([2, 3, 4, 8]), GRANULARITIES, st.booleans())
@settings(max_examples=40)
def test_rounding_what_is_rounded_changes_no_code(
    seed: int, bits: int, granularity: str, symmetric: bool
) -> None:
    spec = QuantSpec(bits=bits, granularity=granularity, group_size=32, symmetric=symmetric)
    quantizer = RoundToNearest(spec=spec)
    once = quantizer.quantize(random_matrix(seed), None)
    twice = quantizer.quantize(once.dequantized(), None)
    assert torch.equal(once.codes, twice.codes)
    assert torch.allclose(once.dequantized(), twice.dequantized(), rtol=1e-6, atol=0)


@given(SEEDS, st.sampled_from([2, 3, 4]), st.booleans())
@settings(max_examples=25)
def test_the_least_squares_range_errs_no_more_than_the_full_range_in_any_group(
    seed: int, bits: int, symmetric: bool
) -> None:
    weight = random_matrix(seed)
    full, fitted = (
        (weight - rounded(weight, bits=bits, symmetric=symmetric, group_size=32, scale_rule=rule))
        .square()
        .view(-1, 32)
        .sum(dim=1)
        for rule in ("absmax", "mse")
    )
    assert bool((fitted <= full).all())
    assert float(fitted.sum()) < float(full.sum())


@given(SEEDS, GRANULARITIES, st.sampled_from([16, 32]))
@settings(max_examples=25)
def test_no_weight_moves_more_than_the_half_step_and_the_rounding_of_the_range(
    seed: int, granularity: str, scale_bits: int
) -> None:
    weight = random_matrix(seed)
    spec = QuantSpec(granularity=granularity, group_size=32, scale_bits=scale_bits)  # type: ignore[arg-type]
    found = RoundToNearest(spec=spec).quantize(weight, None)
    repeats = weight.numel() // found.scales.numel()
    step = found.scales.view(-1).repeat_interleave(repeats).view(weight.shape)
    assert bool(((weight - found.dequantized()).abs() <= step * 1.01).all())


@given(SEEDS, GRANULARITIES, st.booleans())
@settings(max_examples=25)
def test_a_weight_of_zero_stays_zero(seed: int, granularity: str, symmetric: bool) -> None:
    weight = random_matrix(seed)
    zeros = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    values = rounded(weight.masked_fill(zeros, 0.0), granularity=granularity, symmetric=symmetric)
    assert bool((values[zeros] == 0.0).all())


def test_a_group_that_does_not_fill_is_rounded_by_itself() -> None:
    weight = random_matrix(3, 4, 100)
    whole = rounded(weight, group_size=32)
    parts = [rounded(weight[:, :96], group_size=32), rounded(weight[:, 96:], granularity="channel")]
    assert torch.equal(whole, torch.cat(parts, dim=1))


def test_a_large_matrix_is_rounded_as_its_rows_are() -> None:
    weight = random_matrix(5, 40, 16384)
    for granularity in ("group", "channel"):
        one = torch.cat([rounded(row[None], granularity=granularity) for row in weight])
        assert torch.equal(rounded(weight, granularity=granularity), one)


def test_sixteen_bits_are_a_cast_to_bfloat16() -> None:
    weight = random_matrix(6)
    assert torch.equal(rounded(weight, bits=16), weight.to(torch.bfloat16).float())


def test_float16_scales_are_what_the_weights_are_rounded_with() -> None:
    found = RoundToNearest(spec=QuantSpec(scale_bits=16, group_size=32)).quantize(random_matrix(7), None)
    assert torch.equal(found.scales, found.scales.half().float())


@pytest.mark.parametrize(
    ("weight", "spec", "words"),
    [
        (torch.tensor([[1.0, float("nan")]]), QuantSpec(), "no finite scale"),
        (torch.tensor([[1.0, float("inf")]]), QuantSpec(symmetric=True), "no finite scale"),
        (torch.tensor([[3e38, -3e38]]), QuantSpec(), "no finite scale"),
        (torch.tensor([[1e9, 0.0]]), QuantSpec(scale_bits=16), "no finite scale in 16 bits"),
        (torch.tensor([[3.4e38, float("nan")]]), QuantSpec(bits=16), "not finite as torch.bfloat16"),
        (torch.zeros(2, 2, dtype=torch.float16), QuantSpec(), "load the model with dtype=torch.float32"),
        (torch.zeros(2, 2, 2), QuantSpec(), "one or two dimensions"),
    ],
)
def test_weights_without_a_scale_are_refused(weight: Tensor, spec: QuantSpec, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RoundToNearest(spec=spec).quantize(weight, None)


def test_a_group_is_encoded_and_decoded_by_its_parameters() -> None:
    groups = random_matrix(8).view(-1, 32)
    spec = QuantSpec(group_size=32)
    scale, zero = group_parameters(groups, spec)
    values = decoded(encoded(groups, scale, zero, spec), scale, zero, 4, "integer")
    assert torch.equal(values.view(8, 128), rounded(random_matrix(8), group_size=32))
