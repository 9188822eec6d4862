"""The frozen test of the nanodesmo study: from what workers measured to test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stats.frozen_effect import FrozenSeed, leverage_rows
from stats.rows import FloatArray, TestRow
from stats.state_presets import preset_rows

CHECKPOINT = "checkpoint"
"""Arm of a run that is tested frozen by itself."""


def frozen_rows(
    arms: Mapping[str, Mapping[int, Mapping[str, Any]]], main: str, *, margin: float, alpha: float
) -> list[TestRow]:
    """Of arms by seed: what their states can do, and whether presets do what they are made for."""
    found = {arm: [_seed(seed, body) for seed, body in own.items()] for arm, own in arms.items()}
    measured = {arm: {seed: body["presets"] for seed, body in own.items()} for arm, own in arms.items()}
    rows = preset_rows(measured, alpha=alpha)
    return [*rows, *leverage_rows(found, main=main, margin=margin, alpha=alpha)]


def _seed(seed: int, body: Mapping[str, Any]) -> FrozenSeed:
    def array(name: str) -> FloatArray:
        return np.array(body[name], dtype=np.float64)

    return FrozenSeed(
        seed=seed,
        effect_nats=body["effect_nats"],
        effect_top1=body["effect_top1"],
        null_nats=array("null_nats"),
        null_top1=array("null_top1"),
        axis_nats=array("axis_nats"),
        sd_nats=body["sd_nats"],
        entropy_nats=body["entropy_nats"],
        top1=body["top1"],
    )


def checkpoint_rows(body: Mapping[str, Any], seed: int, *, margin: float, alpha: float) -> list[TestRow]:
    """The frozen test of one given run."""
    return frozen_rows({CHECKPOINT: {seed: body}}, CHECKPOINT, margin=margin, alpha=alpha)
