"""A training's directory as plain arrays and rows: what statistics and figures read.

It holds the log, cut where the last checkpoint stands, and the checkpoint's manifest and arrays, all of it
checked by hash. This file needs no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.kept import load_kept
from models.nano_log import CHECKPOINT, LOG, STATE, Reaction

CHANNELS = tuple(
    field.name for field in dataclasses.fields(Reaction) if field.name not in ("step", "twin", "regimes")
)
"""Numbers of a row."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class NanoDump:
    """What a training left."""

    rows: tuple[Reaction, ...]
    """Of the run itself, by step."""
    twins: Mapping[str, tuple[Reaction, ...]]
    """Name of a window -> rows of the twin that goes without it, from its first step on."""
    trajectory: FloatArray | None
    """(steps, d) s that each step used; None without a self-state."""
    seen: FloatArray | None
    """(updates, features) f of each update; None where there was none. A run from step 0 has one fewer than
    steps: step 0 updates nothing."""
    looks: tuple[tuple[int, float], ...]
    """Steps done and held-out loss in nats then."""
    valid_loss_nats: float | None
    """Over the whole held-out text; None while the training is not done."""
    digest: str
    """SHA-256 over the kept arrays."""
    facts: Mapping[str, Any]
    """`recipe`, `seeds`, `plan` and `corpus_sha256`, as plain data; `begin` of a run that began from another;
    `step` done and `seconds` taken."""


def read_dump(directory: Path) -> NanoDump:
    """What `models.nano_training.train` kept at a directory.

    Raises
    ------
    ValueError
        When there is nothing, or the checkpoint or the log is not what was written.
    """
    where = directory / CHECKPOINT
    body = load_kept(where)
    if body is None:
        found = "a damaged or incomplete checkpoint" if where.exists() else "no checkpoint"
        raise ValueError(f"{directory} holds {found} of a training; train that run first, or again")
    try:
        arrays = load_file(where / STATE)
        rows = _rows(directory / LOG, body["log"])
        facts = {**body["identity"], "step": body["step"], "seconds": body["seconds"]}
        looks = tuple((look["step"], look["valid_loss_nats"]) for look in body["looks"])
        valid, digest = body["valid_loss_nats"], body["digest"]
    except (KeyError, TypeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{where} is whole but not the checkpoint of a training ({error}); give the directory of one"
        ) from error
    twins: dict[str, list[Reaction]] = {}
    for row in rows:
        twins.setdefault(row.twin, []).append(row)
    own = tuple(twins.pop("", []))
    return NanoDump(
        rows=own,
        twins={name: tuple(held) for name, held in twins.items()},
        trajectory=_array(arrays, "trajectory"),
        seen=_array(arrays, "seen"),
        looks=looks,
        valid_loss_nats=valid,
        digest=digest,
        facts=facts,
    )


def _array(arrays: Mapping[str, NDArray[Any]], name: str) -> FloatArray | None:
    return arrays[name].astype(np.float64) if name in arrays else None


def _rows(path: Path, mark: Mapping[str, Any]) -> list[Reaction]:
    """Rows up to the checkpoint; what a killed process wrote after it is no part of the run."""
    try:
        held = path.read_bytes()[: mark["bytes"]]
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; train that run again") from error
    if hashlib.sha256(held).hexdigest() != mark["sha256"]:
        raise ValueError(f"{path} is not the log of the checkpoint beside it; train that run again")
    return [Reaction(**json.loads(line)) for line in held.splitlines()]


def series(dump: NanoDump) -> dict[str, dict[str, FloatArray]]:
    """Channels by whose they are: "" the run itself, else the twin's window.

    Returns
    -------
    dict
        Name -> channel of `CHANNELS` -> (rows,) in the order of steps, NaN where a row has None. A twin's
        arrays begin with its window's first step, the run's with its own first row.
    """
    whose = {"": dump.rows, **dump.twins}
    return {name: {channel: _channel(rows, channel) for channel in CHANNELS} for name, rows in whose.items()}


def _channel(rows: tuple[Reaction, ...], channel: str) -> FloatArray:
    values = (getattr(row, channel) for row in rows)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
