"""AdamW without torch's optimiser class: the same bits, none of its imports."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from models.nano_adamw import NanoAdamW

SHAPES = ((7, 5), (3,), (4, 2, 2), (1,), (6, 6))


def parameters() -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draws)) for shape in SHAPES]


def test_it_moves_parameters_and_moments_as_torchs_own_to_the_bit() -> None:
    ours, theirs = parameters(), parameters()
    mine = NanoAdamW(ours, beta1=0.9, beta2=0.99, weight_decay=0.1)
    groups = [
        {"params": [p for p in theirs if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs if p.dim() <= 1], "weight_decay": 0.0},
    ]
    other = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99), fused=True)
    draws = torch.Generator().manual_seed(1)
    for step in range(40):
        mine.clear()
        other.zero_grad(set_to_none=True)
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if i == 4 and step < 3:
                continue  # nothing has reached it yet
            a.grad = torch.randn(a.shape, generator=draws)
            b.grad = a.grad.clone()
        rate = 0.01 / (step + 1)
        for group in other.param_groups:
            group["lr"] = rate
        mine.step(rate)
        other.step()
        assert len(mine.moments) == len(other.state)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert all(torch.equal(mine.moments[a][name], held) for name, held in other.state[b].items())


def test_a_training_imports_no_compiler() -> None:
    code = (
        "import sys\n"
        "from models.nano_corpus import embedded_corpus\n"
        "from models.nano_recipe import PROFILES\n"
        "from models.nano_run import NanoRun\n"
        "NanoRun(PROFILES['smoke'], embedded_corpus(), 0).advance()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
