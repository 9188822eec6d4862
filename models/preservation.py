"""Which weights of a matrix stay as they are: by size, size times activation, Fisher information, or drawn.

Every selector keeps the same number in a matrix, so a random mask costs the same bits and is the control of
each. Scores are of weights (out, in); a channel's score is the sum of its weights' squared scores (of w^2 F
itself for `hessian`), the squared output change that losing the column would make.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import BoolTensor, Tensor

from models.quant_spec import CalibrationMix, Preservation


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a calibration gathered, by the name of the parameter."""

    mix: CalibrationMix | None = None
    """The texts it was gathered on."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Positions read, by language."""
    input_norms: Mapping[str, Tensor] = field(default_factory=dict)
    """float32 (in,): root mean square of each input channel over positions, languages by their share."""
    grams: Mapping[str, Tensor] = field(default_factory=dict)
    """float64 (in, in): mean over positions of x x^T, for GPTQ; empty unless asked for."""
    fisher: Mapping[str, Tensor] = field(default_factory=dict)
    """float32 (out, in): mean over texts of the squared gradient of a text's loss; empty unless asked for."""


def kept_count(preservation: Preservation, columns: int, rows: int) -> int:
    """Weights (or channels) of a (rows, columns) matrix that are kept: the percentage, rounded half up.

    >>> kept_count(Preservation(percent=5.0), 100, 30)
    150
    >>> kept_count(Preservation(percent=5.0, structure="channel"), 100, 30)
    5
    """
    units = columns if preservation.structure == "channel" else rows * columns
    return int(preservation.percent * units / 100.0 + 0.5)


def kept_mask(
    weight: Tensor, preservation: Preservation, *, parameter: str, statistics: Statistics | None = None
) -> BoolTensor:
    """True where `weight` (out, in) stays as it is; ties fall to the lower place.

    Raises
    ------
    ValueError
        When the selector needs statistics that were not gathered for `parameter`, or they have another shape.
    """
    matrix = weight.reshape(-1, weight.shape[-1])
    rows, columns = matrix.shape
    channel = preservation.structure == "channel"
    if preservation.selector == "random":
        seed = zlib.crc32(f"{preservation.seed}/{parameter}".encode())
        score = torch.rand(
            columns if channel else rows * columns, generator=torch.Generator().manual_seed(seed)
        )
    else:
        squares = _squared_scores(matrix, preservation, parameter, statistics)
        score = squares.sum(dim=0, dtype=torch.float64) if channel else squares.view(-1)
    chosen = _largest(score, kept_count(preservation, columns, rows))
    mask = chosen.expand(rows, columns) if channel else chosen.view(rows, columns)
    return mask.reshape(weight.shape)  # type: ignore[return-value]


def _largest(score: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest of `score` (n,); of equal ones the first."""
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    if count == 0:
        return mask
    least = torch.kthvalue(score, score.numel() - count + 1).values
    mask |= score > least
    ties = (score == least).nonzero().view(-1)
    mask[ties[: count - int(mask.sum())]] = True
    return mask


def _squared_scores(
    matrix: Tensor, preservation: Preservation, parameter: str, statistics: Statistics | None
) -> Tensor:
    """w^2, w^2 ||x||^2 or w^2 F, all (rows, columns): squares order weights as their roots do."""
    if preservation.selector == "magnitude":
        return matrix.square()
    found = Statistics() if statistics is None else statistics
    gathered = found.input_norms if preservation.selector == "activation" else found.fisher
    if parameter not in gathered:
        raise ValueError(
            f"selector {preservation.selector!r} has no statistics for {parameter!r}; calibrate the model on "
            "texts first (models.calibration.calibrate) and give them"
        )
    scale = gathered[parameter].square() if preservation.selector == "activation" else gathered[parameter]
    if scale.shape != (matrix.shape[1],) and scale.shape != matrix.shape:
        raise ValueError(
            f"statistics for {parameter!r} have shape {tuple(scale.shape)}, its matrix {tuple(matrix.shape)};"
            " calibrate this model"
        )
    return matrix.square() * scale
