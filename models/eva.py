"""EVA: ranks and first rows of A from the inputs that modules see, computed by PEFT.

EVA takes the principal components of each module's inputs and gives the next rank to the module whose next
component explains most of its variance. It shares out a number of ranks, not of parameters, and what a rank
costs hangs on the module's shape. So the number is searched whose outcome comes nearest to the budget in
parameters; the gap is at most about one rank of the dearest module, and it is reported.

A module may get rank 0: it is left without an adapter, as PEFT leaves it.

References
----------
Paischer et al. (2024), One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation,
arXiv:2410.07170.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import EvaConfig, LoraConfig
from peft.tuners.lora.eva import get_eva_state_dict
from torch import Tensor, nn

from models.adapters import adaptable
from models.lora_recipe import MAX_RANK

PASSES = 6
"""Most times that the shares are computed in the search for the budget."""
TAU = 0.99
"""Cosine between a component before and after a batch at which it counts as settled; PEFT's default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaStart:
    """What EVA decided."""

    ranks: Mapping[str, int]
    """Of every adaptable module; 0 where it is left out."""
    rows: Mapping[str, Tensor]
    """A of each module with a rank, (rank, d_in), orthonormal rows."""
    parameters: int
    """That these ranks cost."""
    budget: int
    """Parameters that were to be spent."""
    passes: int
    """Times that the shares were computed."""

    @property
    def kept(self) -> dict[str, int]:
        """The ranks without those of 0: a plan for `models.adapters.attach`."""
        return {name: rank for name, rank in self.ranks.items() if rank}


def eva_start(
    model: nn.Module, batches: Sequence[Mapping[str, Tensor]], *, budget: int, rho: float
) -> EvaStart:
    """Ranks at a budget of parameters, and the first A of each module.

    Parameters
    ----------
    model
        The base, without an adapter; it is only run.
    batches
        `input_ids`, `attention_mask` and `labels` of each, (rows, time); inputs where a label is not -100
        count. They are gone through again until the components have settled.
    budget
        Parameters, as rank x (d_in + d_out) summed over modules.
    rho
        Largest rank of a module over the mean rank; lowered where a module has too few inputs for it.

    Raises
    ------
    ValueError
        For a budget of less than one rank a module on average, or no batch.
    """
    shapes = adaptable(model)
    unit = sum(map(sum, shapes.values())) / len(shapes)
    if budget < unit * len(shapes) or not batches:
        raise ValueError(
            f"a budget of {budget} parameters and {len(batches)} batches; EVA needs a batch and "
            f"{unit * len(shapes):.0f} parameters, one rank a module on average"
        )
    total = round(budget / unit)
    seen: dict[int, dict[str, Tensor]] = {}
    while total not in seen and len(seen) < PASSES:
        seen[total] = _components(model, batches, _even(shapes, total), rho)
        spent = {number: _cost(rows, shapes) for number, rows in seen.items()}
        total += round((budget - spent[total]) * total / spent[total])
        total = max(len(shapes), total)
    nearest = min(seen, key=lambda number: (abs(spent[number] - budget), number))
    rows = seen[nearest]
    return EvaStart(
        ranks={name: len(rows[name]) for name in shapes},
        rows={name: part for name, part in rows.items() if len(part)},
        parameters=spent[nearest],
        budget=budget,
        passes=len(seen),
    )


def _even(names: Mapping[str, object], total: int) -> dict[str, int]:
    """`total` ranks over the modules, the first ones one more than the last."""
    each, more = divmod(total, len(names))
    return {name: each + (place < more) for place, name in enumerate(names)}


def _cost(rows: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]]) -> int:
    return sum(len(part) * sum(shapes[name]) for name, part in rows.items())


def _components(
    model: nn.Module, batches: Sequence[Mapping[str, Tensor]], ranks: Mapping[str, int], rho: float
) -> dict[str, Tensor]:
    inputs = min(d_in for _, d_in in adaptable(model).values())
    # PEFT's incremental SVD sketches twice as many directions as components; there are `inputs` in all.
    most = min(rho, inputs // 2 / max(ranks.values()), MAX_RANK / max(ranks.values()))
    if most < 1:
        raise ValueError(
            f"mean rank {max(ranks.values())} of modules with {inputs} inputs; EVA takes at most "
            f"{min(inputs // 2, MAX_RANK)}: give a smaller budget"
        )
    config: Any = LoraConfig(
        r=max(ranks.values()),
        target_modules=list(ranks),
        rank_pattern=dict(ranks),
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=most, tau=TAU),
    )
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # it prints each module it has to skip
        found: dict[str, Tensor] = get_eva_state_dict(model, list(batches), config, show_progress_bar=False)
    return {name: part.detach().clone() for name, part in found.items()}
