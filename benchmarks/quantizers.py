"""All roundings of the same heavy-tailed matrices beside each other: `python -m benchmarks.quantizers`.

Bits a weight count codes, scales, zero points and what else a library stores; SQNR is of weights. Libraries
that are not installed give their reason (`pip install -e '.[quantizers]'` brings them). The matrices need no
random numbers: quantiles of Student's t with 3 degrees of freedom in a hashed order.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from models.quant_adapters import Adapter, compare, comparison_table
from models.quant_spec import QuantSpec
from models.rounding import Quantizer, RoundToNearest

SIDE, MATRICES = 1024, 4
OURS = (
    QuantSpec(bits=8),
    QuantSpec(bits=4),
    QuantSpec(bits=4, group_size=64),
    QuantSpec(bits=4, group_size=64, symmetric=True),
    QuantSpec(bits=4, group_size=64, scale_rule="mse"),
    QuantSpec(bits=4, group_size=64, scale_rule="hqq"),
    QuantSpec(bits=4, group_size=64, codebook="nf4"),
    QuantSpec(bits=4, granularity="channel"),
    QuantSpec(bits=4, granularity="tensor", symmetric=True),
    QuantSpec(bits=3, group_size=64),
    QuantSpec(bits=2, group_size=64),
)
THEIRS = (
    Adapter(library="torchao", bits=4, group_size=64),
    Adapter(library="torchao", bits=8, group_size=64),
    Adapter(library="bitsandbytes", bits=4, group_size=64),
    Adapter(library="hqq", bits=4, group_size=64),
    Adapter(library="hqq", bits=2, group_size=64),
    Adapter(library="quanto", bits=4, group_size=64),
    Adapter(library="quanto", bits=2, group_size=64),
)


def matrices() -> dict[str, torch.Tensor]:
    """Name -> (1024, 1024) float32 of scale 0.02."""
    n = SIDE * SIDE
    found = {}
    for place in range(MATRICES):
        u = ((np.arange(1, n + 1, dtype=np.uint64) * np.uint64(2654435761 + 2 * place)) % 2**32 + 0.5) / 2**32
        values = 0.02 * stats.t.ppf(u, df=3)
        found[f"matrix {place}"] = torch.from_numpy(values.astype(np.float32)).view(SIDE, SIDE)
    return found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    nearest: tuple[Quantizer, ...] = tuple(RoundToNearest(spec=spec) for spec in OURS)
    print(comparison_table(compare(matrices(), (*nearest, *THEIRS))))


if __name__ == "__main__":
    main()
