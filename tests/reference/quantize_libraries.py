"""What bitsandbytes 0.50, hqq 0.2.8 and optimum-quanto 0.2.7 make of one heavy-tailed matrix.

    PYTHONPATH=<those> python tests/reference/quantize_libraries.py > tests/reference/quantize_libraries.txt

The matrix needs no random numbers: quantiles of Student's t with 2 degrees of freedom,
(2u - 1) / sqrt(2 u (1 - u)), at u from a multiplicative hash. Digests are of the dequantised float32 weights,
little-endian.
"""

import hashlib

import numpy as np
import torch


def matrix() -> torch.Tensor:
    """(64, 256), float32."""
    u = ((np.arange(1, 64 * 256 + 1) * 2654435761) % 2**32 + 0.5) / 2**32
    return torch.from_numpy((0.02 * (2 * u - 1) / np.sqrt(2 * u * (1 - u))).astype(np.float32)).view(64, 256)


def show(name: str, values: torch.Tensor) -> None:
    digest = hashlib.sha256(values.float().contiguous().numpy().tobytes()).hexdigest()
    error = matrix().double() - values.double()
    print(
        f"{name}; sha256 {digest}; mean |e| {error.abs().mean():.12g}; mean e^2 {error.square().mean():.12g}"
    )


if __name__ == "__main__":
    import bitsandbytes.functional as bnb
    from hqq.core.quantize import Quantizer
    from optimum.quanto import MaxOptimizer, qint2, qint4, quantize_weight

    show("matrix", matrix())
    for size in (64, 128):
        show(
            f"bitsandbytes nf4 {size}",
            bnb.dequantize_4bit(*bnb.quantize_4bit(matrix(), blocksize=size, quant_type="nf4")),
        )
    for bits in (2, 3, 4, 8):
        stored, meta = Quantizer.quantize(
            matrix(),
            nbits=bits,
            group_size=64,
            axis=1,
            device="cpu",
            compute_dtype=torch.float32,
            bitpack=False,
        )
        show(f"hqq {bits} 64", ((stored.view(-1, 64) - meta["zero"]) * meta["scale"]).view(64, 256))
    for bits, qtype in ((2, qint2), (4, qint4)):
        scale, shift = MaxOptimizer()(matrix(), qtype, 0, 64, zeropoint=True)
        found = quantize_weight(matrix(), qtype, 0, scale, shift, 64, optimized=False)
        show(f"quanto {bits} 64", found.dequantize())
