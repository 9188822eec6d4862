"""What a training measured at every step, as rows: in memory, and as lines of a file that can be cut back.

A checkpoint notes how long the file was and its hash. Going on from it cuts the file there, so no step stands
in it twice, and a file of another run is never taken up. This file needs no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "reaction.jsonl"
"""Log of a run, in its directory."""
CHECKPOINT = "state"
"""Its last checkpoint, a folder that `models.kept` checks."""
STATE = "state.safetensors"
"""Tensors of the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """One step. None where a number is not defined: no self-state, no memory, not probed."""

    step: int
    """From 0."""
    twin: str
    """Name of the window that this run goes without; "" for the run itself."""
    regimes: str
    """Ids that act, joined by "+"; "" for a clean step."""
    loss_nats: float
    """Mean over the batch that was trained on, its disturbed targets included."""
    learning_rate: float
    """As used, a regime's factor included."""
    grad_norm: float
    """Over all that is trained, before the clip."""
    step_frac: float
    """Step over steps."""
    entropy_nats: float
    """Mean entropy of the predictions, over the positions the recipe names."""
    top1: float
    """Mean probability of the likeliest token, over the same."""
    self_norm: float | None = None
    """|s| of the state that this step used."""
    self_delta: float | None = None
    """|s - s of the step before|."""
    self_drift: float | None = None
    """1 - cos(s, r), r the slow reference; None for one dimension and for s = 0."""
    relative_drift: float | None = None
    """|s - r| / |r|."""
    raw_norm: float | None = None
    """|raw| of the update; None at step 0, which has none."""
    memory_norm: float | None = None
    """|scale m|."""
    clamped_norm: float | None = None
    """|mem|: the same after the clamp."""
    memory_filled: int | None = None
    """States in the buffer."""
    gate: float | None = None
    """Share of the memory in what is added to the state."""
    cosine: float | None = None
    """cos(s, s + m) before the update."""
    effect_kl_nats: float | None = None
    """Mean KL(own state || zero state) over all positions of a held-out batch, in eval mode; probed steps."""
    effect_logits: float | None = None
    """Mean |difference of logits| between the two; probed steps."""


class ReactionLog:
    """Rows of a run, in order.

    Parameters
    ----------
    path
        File of one JSON object a line; None keeps rows in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.rows: list[Reaction] = []
        self._path = path
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._file = None if path is None else path.open("ab")

    def add(self, row: Reaction) -> None:
        """Append a row; it is in the file when this returns."""
        line = json.dumps(dataclasses.asdict(row)).encode() + b"\n"
        self.rows.append(row)
        self._sha256.update(line)
        self._bytes += len(line)
        if self._file is not None:
            self._file.write(line)
            self._file.flush()

    def mark(self) -> dict[str, Any]:
        """Where the log stands, for a checkpoint; the file is on the disk when this returns."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}

    def cut(self, mark: dict[str, Any] | None, other: Path | None = None) -> bool:
        """Go back to a mark (None: the beginning); False, and nothing done, if the file does not hold it.

        Parameters
        ----------
        other
            Another log whose mark it is, in place of the own one.
        """
        if self._path is None or self._file is None:
            return mark is None
        source = other or self._path
        kept = b"" if mark is None or not source.exists() else source.read_bytes()[: mark["bytes"]]
        if mark is not None and hashlib.sha256(kept).hexdigest() != mark["sha256"]:
            return False
        if source == self._path:
            self._file.truncate(len(kept))
        else:
            self._file.truncate(0)
            self._file.write(kept)
            self._file.flush()
        self.rows = [Reaction(**json.loads(line)) for line in kept.splitlines()]
        self._sha256, self._bytes = hashlib.sha256(kept), len(kept)
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def read_log(path: Path) -> list[Reaction]:
    """Rows of a log that may be of a run that broke off; a last line that is cut short is left out."""
    try:
        whole, _, _ = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    return [Reaction(**json.loads(line)) for line in whole.splitlines()]
