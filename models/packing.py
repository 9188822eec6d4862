"""Codes packed as tightly as their bits, and sizes with all of scales, zero points, kept weights, places.

Two 4-bit codes share a byte, four 2-bit codes, and eight 3-bit codes fill three bytes. Places of kept weights
are a bitmap or packed numbers of ceil(log2 n) bits, whichever is smaller. `payload_bytes` says the size
before anything is packed and `packed` has exactly that size; a file adds the safetensors header, which
`file_bytes` measures. A kept weight has a code among the others all the same. Nothing is lost:
`unpacked(packed(q))` gives the dequantised weights bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.rounding import Kept, QuantizedTensor

Bytes = NDArray[np.uint8]
FLOATS = {16: torch.float16, 32: torch.float32}
ROUND = 1 << 20
"""Numbers packed at once through a matrix of bits; a multiple of 8, so that pieces end on a byte."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One parameter as a file holds it."""

    tensors: Mapping[str, Tensor]
    """`codes`, `scales`, `zeros`, `kept_places`, `kept_values`, where there are any."""
    form: Mapping[str, object]
    """What is needed to read them back: shape, bits, group size and the like."""

    @property
    def payload_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def pack_numbers(numbers: Tensor, width: int) -> Tensor:
    """Whole numbers from 0 to 2^width - 1 as a stream of bits, lowest bit first; uint8 (ceil(n width / 8),).

    >>> pack_numbers(torch.tensor([1, 2, 15]), 4).tolist()
    [33, 15]
    >>> pack_numbers(torch.tensor([7, 0, 7, 0]), 3).tolist()
    [199, 1]
    """
    flat = numbers.reshape(-1)
    if width == 8:
        return flat.to(torch.uint8)
    if width in (2, 4):
        each = 8 // width
        codes = torch.nn.functional.pad(flat.to(torch.uint8), (0, -flat.numel() % each)).view(-1, each)
        byte = codes[:, 0].clone()
        for place in range(1, each):
            byte |= codes[:, place] << (width * place)
        return byte
    return _packed_bits(flat.to(torch.int64).numpy(), width)


def unpack_numbers(packed: Tensor, width: int, count: int) -> Tensor:
    """`count` numbers of `width` bits: uint8 up to 8 bits, int64 above.

    >>> unpack_numbers(torch.tensor([33, 15], dtype=torch.uint8), 4, 3).tolist()
    [1, 2, 15]
    """
    if width == 8:
        return packed[:count].clone()
    if width in (2, 4):
        each = 8 // width
        codes = torch.stack([(packed >> (width * place)) & (2**width - 1) for place in range(each)], dim=1)
        return codes.view(-1)[:count]
    return _unpacked_bits(packed.numpy(), width, count)


def _packed_bits(numbers: NDArray[np.int64], width: int) -> Tensor:
    shifts = np.arange(width)
    parts = [
        np.packbits(
            ((numbers[first : first + ROUND, None] >> shifts) & 1).astype(np.uint8), bitorder="little"
        )
        for first in range(0, len(numbers), ROUND)
    ]
    return torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *parts]))


def _unpacked_bits(packed: Bytes, width: int, count: int) -> Tensor:
    numbers = np.zeros(count, np.int64)
    for first in range(0, count, ROUND):
        size = min(ROUND, count - first)
        start = first * width // 8
        bits = np.unpackbits(packed[start : start + -(-size * width // 8)], bitorder="little")
        for place, column in enumerate(bits[: size * width].reshape(size, width).T):
            numbers[first : first + size] += column.astype(np.int64) << place
    return torch.from_numpy(numbers.astype(np.uint8) if width <= 8 else numbers)


def place_bits(units: int) -> int:
    """Bits of a place among `units`: ceil(log2 units), at least 1.

    >>> place_bits(589_824)
    20
    """
    return max(1, (units - 1).bit_length())


def _bytes(numbers: int, width: int) -> int:
    return -(-numbers * width // 8)


def _units(tensor: QuantizedTensor, kept: Kept) -> int:
    return tensor.shape[-1] if kept.channels else tensor.weights


def _as_bitmap(units: int, places: int) -> bool:
    """Whether a bitmap is smaller than the list of places."""
    return _bytes(units, 1) < _bytes(places, place_bits(units))


def payload_bytes(tensor: QuantizedTensor) -> int:
    """Bytes of the parameter as `packed` stores it, every part a whole number of bytes."""
    groups = tensor.scales.numel()
    total = _bytes(tensor.weights, tensor.bits) + groups * tensor.scale_bits // 8
    if tensor.zeros is not None:
        total += _bytes(groups, tensor.bits) if tensor.whole_zeros else groups * tensor.scale_bits // 8
    if tensor.kept is not None:
        units, places = _units(tensor, tensor.kept), tensor.kept.places.numel()
        total += min(_bytes(units, 1), _bytes(places, place_bits(units)))
        total += tensor.kept.weights * tensor.kept.value_bits // 8
    return total


def bits_per_weight(tensor: QuantizedTensor) -> float:
    """8 * payload_bytes / weights: codes, scales, zero points, kept weights and their places."""
    return 8 * payload_bytes(tensor) / tensor.weights


def packed(tensor: QuantizedTensor) -> Packed:
    """The parameter as a file holds it."""
    form: dict[str, object] = {
        "shape": list(tensor.shape), "columns": tensor.codes.shape[1], "bits": tensor.bits,
        "group_size": tensor.group_size, "codebook": tensor.codebook, "scale_bits": tensor.scale_bits,
        "whole_zeros": tensor.whole_zeros, "groups": tensor.scales.numel(),
    }  # fmt: skip
    if tensor.scales.numel() == 0:
        parts = {"codes": tensor.codes.contiguous()}
    else:
        parts = {"codes": pack_numbers(tensor.codes, tensor.bits)}
        parts["scales"] = tensor.scales.to(FLOATS[tensor.scale_bits]).contiguous()
    if tensor.zeros is not None:
        whole = tensor.whole_zeros
        stored = (
            pack_numbers(tensor.zeros, tensor.bits) if whole else tensor.zeros.to(FLOATS[tensor.scale_bits])
        )
        parts["zeros"] = stored.contiguous()
    if tensor.kept is not None:
        units, places = _units(tensor, tensor.kept), tensor.kept.places
        bitmap = _as_bitmap(units, places.numel())
        parts["kept_places"] = (
            pack_numbers(torch.zeros(units, dtype=torch.uint8).index_fill_(0, places, 1), 1)
            if bitmap
            else pack_numbers(places, place_bits(units))
        )
        parts["kept_values"] = tensor.kept.values.to(FLOATS[tensor.kept.value_bits]).contiguous()
        form |= {"channels": tensor.kept.channels, "places": places.numel(), "bitmap": bitmap}
    return Packed(tensors=parts, form=form)


def unpacked(stored: Packed) -> QuantizedTensor:
    """The parameter that `packed` stored, equal in every number."""
    form, parts = stored.form, stored.tensors
    shape = tuple(_whole(number) for number in _list(form["shape"]))
    bits, columns, groups = _whole(form["bits"]), _whole(form["columns"]), _whole(form["groups"])
    rows = int(np.prod(shape)) // columns
    codes, scales, zeros = parts["codes"], torch.empty(rows, 0), None
    if groups:
        codes = unpack_numbers(codes, bits, rows * columns).view(rows, columns)
        scales = parts["scales"].float()
    if "zeros" in parts:
        whole = bool(form["whole_zeros"])
        found = unpack_numbers(parts["zeros"], bits, groups).view(rows, -1) if whole else parts["zeros"]
        zeros = found.float()
    return QuantizedTensor(
        shape=shape, codes=codes, scales=scales, zeros=zeros, whole_zeros=bool(form["whole_zeros"]),
        bits=bits, group_size=_whole(form["group_size"]), codebook=str(form["codebook"]),
        scale_bits=_whole(form["scale_bits"]), kept=_unpacked_kept(stored, shape),
    )  # fmt: skip


def _unpacked_kept(stored: Packed, shape: tuple[int, ...]) -> Kept | None:
    form, parts = stored.form, stored.tensors
    if "kept_values" not in parts:
        return None
    channels, count = bool(form["channels"]), _whole(form["places"])
    units = shape[-1] if channels else int(np.prod(shape))
    if form["bitmap"]:
        places = unpack_numbers(parts["kept_places"], 1, units).nonzero().view(-1)
    else:
        places = unpack_numbers(parts["kept_places"], place_bits(units), count).to(torch.int64)
    values = parts["kept_values"]
    return Kept(places=places, values=values.float(), channels=channels, value_bits=values.element_size() * 8)


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(
            f"a packed parameter's form holds {value!r}; allowed: a whole number; write it again"
        )
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"a packed parameter's form holds {value!r}; allowed: a list; write it again")
    return value


def write(tensors: Mapping[str, QuantizedTensor], path: Path) -> int:
    """Write parameters by name to a safetensors file; its payload in bytes, to which the header comes."""
    stored = {name: packed(tensor) for name, tensor in tensors.items()}
    flat = {f"{name}:{part}": value for name, one in stored.items() for part, value in one.tensors.items()}
    form = json.dumps({name: one.form for name, one in stored.items()}, sort_keys=True)
    save_file(flat, path, metadata={"form": form})
    return sum(one.payload_bytes for one in stored.values())


def read(path: Path) -> dict[str, QuantizedTensor]:
    """The parameters that `write` wrote."""
    with safe_open(path, framework="pt") as file:
        form = (file.metadata() or {}).get("form")
        if form is None:
            raise ValueError(f"{path} has no 'form'; give a file that models.packing.write wrote")
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in json.loads(form)}
        for key in file.keys():  # noqa: SIM118  (safe_open is no mapping)
            name, _, part = key.rpartition(":")
            parts[name][part] = file.get_tensor(key)
    return {name: unpacked(Packed(tensors=parts[name], form=one)) for name, one in json.loads(form).items()}


def file_bytes(path: Path) -> tuple[int, int]:
    """(header, payload) bytes of a safetensors file: 8 for the header's length, the header, then tensors."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    return header, whole - header
