"""Rounding 100 M weights against torchao and a plain per-group peer: `python -m benchmarks.quantize`.

96 matrices of 1,024 x 1,024 (100.7 M weights) to 4 bits, asymmetric, groups of 128, on one torch thread. All
three give the same codes and scales, which is checked. The plain peer is what one writes first: all of a
matrix in every step. A ratio is of one run, so a busy machine touches both its sides; medians of RUNS runs.
Packing two codes to a byte and restoring float32 weights are timed beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.table import promised
from benchmarks.table import runs as table_runs
from models.packing import packed, payload_bytes
from models.quant_adapters import Adapter, why_not
from models.quant_spec import QuantSpec
from models.rounding import QuantizedTensor, RoundToNearest

MATRICES, SIDE, GROUP, RUNS = 96, 1024, 128, table_runs(15, 3)
GOAL_SECONDS = 3.0


def plain(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(codes, scales, zero points) of one matrix, every step over all of it."""
    groups = weight.view(-1, GROUP)
    low = groups.min(dim=1, keepdim=True).values.clamp(max=0)
    high = groups.max(dim=1, keepdim=True).values.clamp(min=0)
    scale = ((high - low) / 15).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-torch.round(low / scale)).clamp(0, 15)
    codes = (torch.round(groups * (1 / scale)) + zero).clamp(0, 15).to(torch.uint8)
    return codes.view_as(weight), scale, zero


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def check(weight: Tensor, ours: QuantizedTensor) -> None:
    """All three ways agree on every code."""
    codes, scale, _ = plain(weight)
    same = torch.equal(codes, ours.codes) and torch.equal(scale.view_as(ours.scales), ours.scales)
    if why_not("torchao") is None:
        theirs = Adapter(library="torchao", group_size=GROUP).quantize(weight, None)
        same = same and torch.equal(theirs.codes, ours.codes) and torch.equal(theirs.scales, ours.scales)
    if not same:
        raise ValueError("the three ways differ in a code or a scale; the times do not compare")


def main(weights: Sequence[Tensor]) -> None:
    """Print seconds and ratios."""
    ours = RoundToNearest(spec=QuantSpec(group_size=GROUP))
    stored = [ours.quantize(weight, None) for weight in weights]
    check(weights[0], stored[0])
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: [ours.quantize(weight, None) for weight in weights],
        "plain per group": lambda: [plain(weight) for weight in weights],
    }
    if why_not("torchao") is None:
        ways["torchao"] = lambda: [layer_by_torchao(weight) for weight in weights]
    runs = [{name: timed(work) for name, work in ways.items()} for _ in range(RUNS)]
    count = sum(weight.numel() for weight in weights)
    print(f"{count / 1e6:.1f} M weights, 4 bits asymmetric, group {GROUP}, median of {RUNS} runs")
    for name in ways:
        seconds = statistics.median(run[name] for run in runs)
        ratio = statistics.median(run[name] / run["ours"] for run in runs)
        print(f"{name:<18} {seconds:7.3f} s {ratio:8.2f} x ours")
    median = statistics.median(run["ours"] for run in runs) * 100e6 / count
    seconds_100m = [run["ours"] * 100e6 / count for run in runs]
    promised("quantising 100 M weights", "seconds, wall", seconds_100m, most=GOAL_SECONDS)
    for name in [name for name in ways if name != "ours"]:
        promised("quantising, times as fast", name, [run[name] / run["ours"] for run in runs])
    print(f"100 M weights in {median:.3f} s; goal under {GOAL_SECONDS:g} s")
    print(f"packing two a byte {timed(lambda: [packed(one) for one in stored]):7.3f} s")
    print(f"back to float32    {timed(lambda: [one.dequantized() for one in stored]):7.3f} s")
    print(f"{8 * sum(map(payload_bytes, stored)) / count:.4f} bits a weight with scales and zero points")


def layer_by_torchao(weight: Tensor) -> torch.nn.Module:
    """A Linear that torchao rounded; nothing is read back from it."""
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_
    from torchao.quantization.quant_primitives import MappingType

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    quantize_(layer, IntxWeightOnlyConfig(torch.int4, PerGroup(GROUP), MappingType.ASYMMETRIC))
    return layer


if __name__ == "__main__":
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    main([torch.randn(SIDE, SIDE, generator=source) * 0.02 for _ in range(MATRICES)])
