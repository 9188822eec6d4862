"""Where a training of `models.pretrain.fit` stands, kept at its evaluated points: it goes on from there.

The checkpoint holds weights, both moments of AdamW, the state of the draws and the points so far, and is
checked by hash like a model. One of another schedule or text is not taken. What follows is the same, bit by
bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.embedded import TrainPoint
from models.kept import keep, load_kept, part_of

STATE = "state.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Of each parameter, as AdamW names them."""


def forget(directory: Path) -> None:
    """Delete the checkpoint of what is kept at `directory`."""
    shutil.rmtree(part_of(directory), ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a checkpoint is taken of and put back into."""

    place: Path
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    draws: torch.Generator
    belongs: str
    """Hash of schedule and text."""

    def save(self, log: list[TrainPoint]) -> None:
        """Keep everything that the rest depends on, in place of an older checkpoint.

        Raises
        ------
        OSError
            The disk is full or the folder cannot be written; the older one stands.
        """
        tensors = {f"weight.{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors["draws"] = self.draws.get_state()
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{moment}.{index}": state[moment] for moment in MOMENTS}
        whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        body = {"belongs": self.belongs, "log": [dataclasses.asdict(point) for point in log]}
        keep(self.place, lambda folder: save_file(whole, folder / STATE), body, identity=(STATE,))

    def load(self) -> list[TrainPoint]:
        """Put the checkpoint back; the points until then, none where there is no sound one of ours."""
        body = load_kept(self.place)
        if body is None or body.get("belongs") != self.belongs:
            return []
        tensors = load_file(self.place / STATE)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors[f"weight.{name}"])
        told = self.optimizer.state_dict()
        count = sum(len(group["params"]) for group in told["param_groups"])
        told["state"] = {
            index: {moment: tensors[f"{moment}.{index}"] for moment in MOMENTS} for index in range(count)
        }
        self.optimizer.load_state_dict(told)
        self.draws.set_state(tensors["draws"])
        return [TrainPoint(**point) for point in body["log"]]


def hash_of(spec: Any, *streams: torch.Tensor) -> str:
    """Of a schedule, a dataclass, and the tokens it is trained and scored on."""
    found = hashlib.sha256(json.dumps(dataclasses.asdict(spec), sort_keys=True).encode())
    for stream in streams:
        found.update(stream.numpy().tobytes())
    return found.hexdigest()
