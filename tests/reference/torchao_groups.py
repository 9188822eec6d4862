"""What torchao 0.18 makes of one heavy-tailed matrix and four awkward ones, digests of scales and weights.

    PYTHONPATH=<torchao> python tests/reference/torchao_groups.py > tests/reference/torchao_groups.txt

The matrices need no random numbers; see quantize_libraries.py. Digests are of float32, little-endian.
"""

import hashlib
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from quantize_libraries import matrix

KINDS = {
    "heavy": lambda w: w,
    "positive": lambda w: w.abs() + 5.0,
    "negative": lambda w: -w.abs() - 1.0,
    "huge": lambda w: w * 1e34,
    "ties": lambda w: (w * 200).round() / 2,
}


def digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.float().contiguous().numpy().tobytes()).hexdigest()[:32]


if __name__ == "__main__":
    import torchao.quantization as ao
    from torchao.quantization.quant_primitives import MappingType

    for kind, change in KINDS.items():
        for bits in (2, 3, 4, 8):
            for size in (32, 64, 128):
                layer = torch.nn.Linear(256, 64, bias=False)
                layer.weight = torch.nn.Parameter(change(matrix()), requires_grad=False)
                asked = ao.IntxWeightOnlyConfig(
                    getattr(torch, f"int{bits}"), ao.PerGroup(size), MappingType.ASYMMETRIC
                )
                ao.quantize_(layer, asked)
                theirs = layer.weight
                print(f"{kind} {bits} {size} {digest(theirs.scale)} {digest(theirs.dequantize())}")
