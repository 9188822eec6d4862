"""Packed codes come back exactly, and a file weighs what the number says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from models.packing import (
    bits_per_weight,
    file_bytes,
    pack_numbers,
    packed,
    payload_bytes,
    place_bits,
    read,
    unpack_numbers,
    unpacked,
    write,
)
from models.preservation import kept_mask
from models.quant_spec import Preservation, QuantSpec
from models.quantize import quantized, quantized_tensors
from models.rounding import QuantizedTensor, RoundToNearest, verbatim


@st.composite
def specs(draw: st.DrawFn) -> QuantSpec:
    """Any spec that rounds."""
    bits = draw(st.sampled_from([2, 3, 4, 8, 16]))
    symmetric = draw(st.booleans())
    rule = draw(st.sampled_from(["absmax", "mse"] if symmetric else ["absmax", "mse", "hqq"]))
    nf4 = bits == 4 and not symmetric and rule != "hqq" and draw(st.booleans())
    return QuantSpec(
        bits=bits,
        granularity=draw(st.sampled_from(["tensor", "channel", "group"])),
        group_size=draw(st.integers(1, 40)),
        symmetric=symmetric,
        scale_rule=rule,
        codebook="nf4" if nf4 else "integer",
        scale_bits=draw(st.sampled_from([16, 32])),
    )


@st.composite
def stored(draw: st.DrawFn) -> QuantizedTensor:
    """A rounded matrix or vector with or without kept weights."""
    shape = draw(st.one_of(st.tuples(st.integers(1, 9), st.integers(1, 70)), st.tuples(st.integers(1, 99))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    weight = torch.randn(shape, generator=generator)
    kept = None
    if draw(st.booleans()):
        structure = draw(st.sampled_from(["weight", "channel"]))
        percent = draw(st.floats(0.1, 99.0))
        preservation = Preservation(percent=percent, structure=structure)
        kept = kept_mask(weight, preservation, parameter="w")
    spec, value_bits = draw(specs()), draw(st.sampled_from([16, 32]))
    return RoundToNearest(spec=spec, value_bits=value_bits).quantize(weight, kept)


def fields(tensor: QuantizedTensor) -> dict[str, Any]:
    """Everything but tensors, for comparing."""
    names = ("shape", "whole_zeros", "bits", "group_size", "codebook", "scale_bits")
    return {name: getattr(tensor, name) for name in names}


def assert_same(one: QuantizedTensor, other: QuantizedTensor) -> None:
    assert fields(one) == fields(other)
    assert one.codes.dtype == other.codes.dtype
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scales, other.scales)
    assert (one.zeros is None) == (other.zeros is None)
    assert one.zeros is None or other.zeros is None or torch.equal(one.zeros, other.zeros)
    assert (one.kept is None) == (other.kept is None)
    if one.kept is not None and other.kept is not None:
        assert torch.equal(one.kept.places, other.kept.places)
        assert torch.equal(one.kept.values, other.kept.values)
        assert one.kept.value_bits == other.kept.value_bits
    assert torch.equal(one.dequantized(), other.dequantized())


@given(st.integers(1, 40), st.integers(0, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_numbers_come_back_from_their_bits(width: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 2**width, (count,), generator=generator)
    stream = pack_numbers(numbers, width)
    assert stream.dtype == torch.uint8
    assert stream.numel() == -(-count * width // 8)
    assert torch.equal(unpack_numbers(stream, width, count).to(torch.int64), numbers)


@pytest.mark.parametrize("width", [3, 20])
def test_numbers_come_back_across_the_pieces_they_are_packed_in(width: int) -> None:
    numbers = torch.randint(0, 2**width, ((1 << 20) + 77,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(unpack_numbers(pack_numbers(numbers, width), width, len(numbers)).long(), numbers)


def test_two_four_bit_codes_share_a_byte() -> None:
    assert pack_numbers(torch.tensor([10, 5, 3]), 4).tolist() == [10 + 16 * 5, 3]


@given(stored())
@settings(max_examples=150)
def test_a_parameter_comes_back_bit_for_bit(tensor: QuantizedTensor) -> None:
    assert_same(unpacked(packed(tensor)), tensor)


@given(stored())
@settings(max_examples=150)
def test_the_size_that_is_said_is_the_size_that_is_packed(tensor: QuantizedTensor) -> None:
    form = packed(tensor)
    assert payload_bytes(tensor) == form.payload_bytes == sum(part.nbytes for part in form.tensors.values())
    assert bits_per_weight(tensor) == 8 * form.payload_bytes / tensor.weights


def matrix(rows: int = 64, columns: int = 256) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        (QuantSpec(group_size=128), 4 + (32 + 4) / 128),
        (QuantSpec(group_size=128, scale_bits=16), 4 + (16 + 4) / 128),
        (QuantSpec(group_size=64, symmetric=True), 4 + 32 / 64),
        (QuantSpec(group_size=64, scale_rule="hqq"), 4 + (32 + 32) / 64),
        (QuantSpec(group_size=64, codebook="nf4"), 4 + 32 / 64),
        (QuantSpec(bits=3, granularity="channel"), 3 + (32 + 3) / 256),
        (QuantSpec(bits=2, granularity="tensor", symmetric=True), 2 + 32 / (64 * 256)),
        (QuantSpec(bits=8, group_size=32), 8 + (32 + 8) / 32),
        (QuantSpec(bits=16), 16.0),
    ],
)
def test_bits_per_weight_count_scales_and_zero_points(spec: QuantSpec, bits: float) -> None:
    assert bits_per_weight(RoundToNearest(spec=spec).quantize(matrix(), None)) == bits


@pytest.mark.parametrize(
    ("percent", "structure", "extra"),
    [
        (1.0, "weight", (164 * 14 / 8, 164)),  # 14 bits a place among 16,384: 287 bytes, a bitmap 2,048
        (20.0, "weight", (16384 / 8, 3277)),  # a bitmap: places would take 5,735 bytes
        (5.0, "channel", (13, 13 * 64)),  # 13 channels among 256, 8 bits each; a bitmap 32 bytes
        (50.0, "channel", (32, 128 * 64)),  # the bitmap
    ],
)
def test_places_are_stored_the_cheaper_way(percent: float, structure: Any, extra: tuple[float, int]) -> None:
    mask = kept_mask(matrix(), Preservation(percent=percent, structure=structure), parameter="w")
    for spec in (QuantSpec(), QuantSpec(granularity="tensor")):
        plain = RoundToNearest(spec=spec).quantize(matrix(), None)
        for value_bits in (16, 32):
            tensor = RoundToNearest(spec=spec, value_bits=value_bits).quantize(matrix(), mask)
            assert payload_bytes(tensor) - payload_bytes(plain) == extra[0] + extra[1] * value_bits // 8
            assert_same(unpacked(packed(tensor)), tensor)


def test_place_bits_reach_every_place() -> None:
    assert [place_bits(units) for units in (1, 2, 3, 4, 5, 256, 257)] == [1, 1, 2, 2, 3, 8, 9]


@pytest.mark.parametrize("value_bits", [16, 32])
def test_a_model_written_to_disk_computes_as_in_memory(
    tmp_path: Path, value_bits: Any, record_property: Any
) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=64, n_head=2, n_positions=32, vocab_size=64, bos_token_id=0)
    config.eos_token_id = 0
    model: Any = GPT2LMHeadModel(config)
    preservation = Preservation(percent=3.0, value_bits=value_bits)
    lines = [f"bits per weight, 3 % kept in {value_bits} bits    said   payload    header bytes"]
    for bits in (2, 3, 4, 8):
        spec = QuantSpec(bits=bits, group_size=48)
        path = tmp_path / f"{bits}.safetensors"
        payload = write({t.name: q for t, q in quantized_tensors(model, spec, preservation)}, path)
        header, found = file_bytes(path)
        assert found == payload == path.stat().st_size - header
        back = read(path)
        with quantized(model, spec, preservation) as coverage:
            assert coverage.payload_bytes == payload
            assert coverage.bits_per_weight == 8 * payload / coverage.weights
            assert set(back) == set(coverage.modules)
            for name, tensor in back.items():
                assert torch.equal(tensor.dequantized(), model.get_parameter(name).detach().t())
        said, got = coverage.bits_per_weight, 8 * found / coverage.weights
        lines.append(f"int{bits} group 48 {'':<24} {said:8.4f} {got:8.4f} {header:12d}")
    record_property("table", "\n".join(lines))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_protected_matrix_is_stored_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = verbatim(matrix(), dtype)
    assert write({"w": tensor}, tmp_path / "w") == tensor.weights * tensor.codes.element_size()
    assert_same(read(tmp_path / "w")["w"], tensor)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "plain")
    with pytest.raises(ValueError, match="has no 'form'"):
        read(tmp_path / "plain")
